//! Everything the mesh knows and believes, behind one lock. Pure: what comes in is judged and
//! remembered here, the tasks around it carry bytes.

use super::card::{self, Verifier};
use super::guard::{Admitted, Context, Guard, Own};
use super::liveness::{Contacts, Signs, Verdict};
use super::refusal::Refusal;
use super::roster::{Held, Offer, Roster};
use super::view::{Connected, MeshView, RegionEntry};
use crate::marks::{bug, sometimes};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tradewind_protocol::wire::{Card, Published};
use tradewind_protocol::{RegionId, RegionState, Timestamp};

/// Cards that are refused for a bad signature before the rest of a message is left unread: each costs
/// a quarter of a millisecond, and an honest peer has none but those of certificates that expired.
const MAX_BAD_CARDS: usize = 8;

/// What the mesh knows.
pub(super) struct Core {
    pub(super) own: Own,
    pub(super) own_held: Option<Held>,
    pub(super) roster: Roster,
    verifier: Verifier,
    guard: Guard,
    pub(super) contacts: Contacts,
}

/// Region, generation and heartbeat of what chitchat thinks alive, ascending.
pub(super) type Heartbeats = Vec<(Arc<str>, u64, u64)>;

/// The two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For durations.
    pub(super) instant: Instant,
    /// For dates.
    pub(super) wall: Timestamp,
}

/// What came of a message of cards.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Regions and lives that were not known: worth telling others.
    pub(super) lives: Vec<Card>,
    /// Whether anything at all was news.
    pub(super) news: bool,
    pub(super) stale: u64,
    pub(super) refused: Vec<Refusal>,
    /// A former life of this agent had this generation.
    pub(super) exceeded_by: Option<u64>,
}

/// What a state's card says about whether its body is worth opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is newer than what is held.
    Open,
    /// It is not.
    Stale,
}

/// A region's step in or out of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Seen alive for the first time.
    Joined,
    /// Not alive any more.
    Left,
    /// Alive again, or in a new life.
    Returned,
}

/// The connected regions, ascending.
pub(super) type Connections = Vec<(RegionId, Connected)>;

/// What has changed with the newest judgement of all regions.
#[derive(Debug)]
pub(super) struct Judgement {
    /// Whether the view says anything new, but for round trips.
    pub(super) news: bool,
    pub(super) changes: Vec<(RegionId, Change)>,
    pub(super) ask: Vec<RegionId>,
}

impl Core {
    pub(super) fn new(own: Own, verifier: Verifier, gossip_interval: Duration) -> Self {
        Self { own, own_held: None, roster: Roster::default(), verifier, guard: Guard::new(), contacts: Contacts::new(gossip_interval) }
    }

    /// A gossip frame from `from`.
    pub(super) fn on_gossip(&mut self, from: &RegionId, frame: &[u8], now: Now) -> Result<Admitted, Refusal> {
        let Core { own, roster, verifier, guard, .. } = self;
        guard.admit(from, frame, &mut Context { own, roster, verifier, now: now.instant, wall: now.wall })
    }

    /// Cards, from whomever.
    pub(super) fn on_cards(&mut self, cards: Vec<Card>, now: Now) -> Learned {
        let mut learned = Learned::default();
        for card in cards {
            if learned.refused.len() >= MAX_BAD_CARDS {
                break;
            }
            match self.on_card(&card, now) {
                Ok((Offer::Life, _)) => {
                    learned.news = true;
                    learned.lives.push(card);
                }
                Ok((Offer::Newer, _)) => learned.news = true,
                Ok((Offer::Stale, exceeded_by)) => {
                    learned.stale += 1;
                    learned.exceeded_by = learned.exceeded_by.max(exceeded_by);
                }
                Err(reason) => learned.refused.push(reason),
            }
        }
        learned
    }

    /// One card: what is no news is not even verified.
    fn on_card(&mut self, card: &Card, now: Now) -> Result<(Offer, Option<u64>), Refusal> {
        if card.announcement.region == self.own.region {
            let Some(generation) = self.own.exceeded_by(&card.announcement) else { return Ok((Offer::Stale, None)) };
            self.verifier.verify(card, now.wall).map_err(|error| Refusal::from(&error))?;
            return Ok((Offer::Stale, Some(generation)));
        }
        if !self.roster.is_news(&card.announcement) {
            return Ok((Offer::Stale, None));
        }
        self.verifier.verify(card, now.wall).map_err(|error| Refusal::from(&error))?;
        self.roster.offer(card.clone(), now.instant, now.wall).map(|offer| (offer, None))
    }

    /// A state's card and hash, before its body is opened. `owner`: whose state it must be.
    pub(super) fn weigh(&mut self, owner: &RegionId, published: &Published, now: Now) -> Result<(Worth, Learned), Refusal> {
        let Published { card, body } = published;
        if card.announcement.region != *owner && !bug!("foreign-state-taken") {
            return Err(Refusal::Foreign);
        }
        let held = self.roster.get(owner).and_then(|known| known.held.as_ref());
        if held.is_some_and(|held| held.published.card.announcement.version() >= card.announcement.version()) {
            return Ok((Worth::Stale, Learned::default()));
        }
        if card.announcement.body_bytes as usize != body.len() || card.announcement.body_hash != card::hash(body) {
            return Err(Refusal::Forged);
        }
        // A card that is known already was verified; any other one is now.
        if self.roster.get(owner).is_none_or(|known| known.card != *card) {
            self.verifier.verify(card, now.wall).map_err(|error| Refusal::from(&error))?;
        }
        let offer = self.roster.offer(card.clone(), now.instant, now.wall)?;
        let mut learned = Learned { news: offer != Offer::Stale, ..Learned::default() };
        if offer == Offer::Life {
            learned.lives.push(card.clone());
        }
        Ok((Worth::Open, learned))
    }

    /// A state that was [weighed](Self::weigh) and opened.
    pub(super) fn hold(&mut self, published: Published, state: RegionState, now: Now) -> Result<bool, Refusal> {
        if state.region != published.card.announcement.region {
            return Err(Refusal::Contradiction);
        }
        let held = Held { published: Arc::new(published), state: Arc::new(state), received_at: now.wall };
        Ok(self.roster.hold(held))
    }

    /// Brings what `view` shows of `region` up to date with the state that was held last. False, and nothing
    /// changed, if there is more to be judged about it: it is not shown yet, or lives a new life.
    pub(super) fn show(&self, region: &RegionId, view: &mut MeshView) -> bool {
        let (Some(known), Some(shown)) = (self.roster.get(region), view.regions.get_mut(region)) else { return false };
        let card = &known.card;
        if (shown.generation, shown.address) != (card.announcement.generation, card.announcement.address) {
            return false;
        }
        *shown = entry(card, known.held.as_ref(), shown.live, shown.connection);
        true
    }

    /// The newest state of `region` that is held, to give to a peer.
    pub(super) fn published(&self, region: &RegionId) -> Option<Arc<Published>> {
        let held = if *region == self.own.region { self.own_held.as_ref() } else { self.roster.get(region)?.held.as_ref() };
        held.map(|held| held.published.clone())
    }

    /// All cards, this region's first.
    pub(super) fn cards(&self) -> Vec<Card> {
        let others = self.roster.iter().map(|(_, known)| known.card.clone());
        std::iter::once(self.own.card.clone()).chain(others).collect()
    }

    /// Judges every region anew, and brings `view` up to date. It changes in place: this is done several times a second, and mostly
    /// only round trips have changed since.
    pub(super) fn judge(&mut self, gossip: &Heartbeats, connected: &Connections, now: Now, view: &mut MeshView) -> Judgement {
        let connection = |region: &RegionId| {
            let place = connected.binary_search_by(|(name, _)| name.cmp(region)).ok()?;
            Some(connected[place].1)
        };
        let mut news = self.roster.forget(now.wall, |region| connection(region).is_none());
        if news {
            self.guard.forget(&self.roster);
            let (roster, own) = (&self.roster, &self.own.region);
            view.regions.retain(|region, _| region == own || roster.get(region).is_some());
        }

        let (mut changes, mut ask) = (Vec::new(), Vec::new());
        let mut show = |region: &RegionId, entry: RegionEntry| match view.regions.get_mut(region) {
            Some(shown) => {
                news |= !shown.says_the_same(&entry);
                *shown = entry;
            }
            None => {
                news = true;
                view.regions.insert(region.clone(), entry);
            }
        };
        for (region, known) in self.roster.iter_mut() {
            let generation = known.card.announcement.generation;
            let connection = connection(region);
            let beating = gossip.binary_search_by(|(name, life, _)| (&**name, *life).cmp(&(region.as_str(), generation)));
            let signs = Signs { heartbeat: beating.ok().map(|place| gossip[place].2), linked: connection.is_some() };
            let verdict: Verdict = self.contacts.judge(region, signs, now.instant);
            if verdict.ask {
                ask.push(region.clone());
            }
            match (verdict.live, known.live, known.met) {
                (true, _, None) => changes.push((region.clone(), Change::Joined)),
                (true, false, Some(_)) => {
                    sometimes!("mesh.region-returned");
                    changes.push((region.clone(), Change::Returned));
                }
                (true, true, Some(life)) if life < generation => changes.push((region.clone(), Change::Returned)),
                (false, true, _) => {
                    sometimes!("mesh.region-left");
                    changes.push((region.clone(), Change::Left));
                }
                (true, true, Some(_)) | (false, false, _) => {}
            }
            known.live = verdict.live;
            if verdict.live {
                known.met = Some(generation);
            }
            show(region, entry(&known.card, known.held.as_ref(), verdict.live, connection));
        }
        show(&self.own.region, entry(&self.own.card, self.own_held.as_ref(), true, None));
        // All regions of the roster have been judged, so more are some that were only connected.
        if self.contacts.len() > self.roster.len() {
            let roster = &self.roster;
            self.contacts.forget(|region| roster.get(region).is_some() || connection(region).is_some());
        }
        Judgement { news, changes, ask }
    }
}

fn entry(card: &Card, held: Option<&Held>, live: bool, connection: Option<Connected>) -> RegionEntry {
    RegionEntry {
        live,
        generation: card.announcement.generation,
        sequence: card.announcement.sequence,
        address: card.announcement.address,
        state: held.map(|held| held.state.clone()),
        received_at: held.map(|held| held.received_at),
        body_bytes: held.map_or(0, |held| held.published.card.announcement.body_bytes),
        connection,
    }
}
