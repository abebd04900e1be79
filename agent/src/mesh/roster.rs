//! The regions that are known: those that a valid card speaks for. Pure.
//!
//! Of each region only the newest card and the newest state are kept. A region is one entry
//! whatever lives its agent has had, so a restarted agent is itself again.

use super::bounds::{FORGET_AFTER, MAX_REGIONS};
use super::bucket::Bucket;
use super::refusal::Refusal;
use crate::marks::{bug, sometimes};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tradewind_protocol::wire::{Announcement, Card, Published};
use tradewind_protocol::{RegionId, RegionState, Timestamp};

/// New lives of one region: a few at once (an agent that is restarted by hand, or that learns of
/// its former life), then one in 10 s. Each leaves a node in chitchat for a minute, so this bounds
/// what a region can make the others keep.
const LIVES_BURST: u32 = 8;
const LIVES_PER_SECOND: f64 = 0.1;

/// How long a push may be behind the card that gossip brought, before the state is fetched.
const FETCH_GRACE: Duration = Duration::from_millis(400);
/// The longest pause between attempts to fetch one state.
const FETCH_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// States that are being fetched at once: 16 of 64 KiB are a second of a 10 Mbit/s line.
const MAX_FETCHES: usize = 16;

/// The known regions, without this agent's own.
#[derive(Default)]
pub(super) struct Roster {
    regions: BTreeMap<RegionId, Known>,
    /// How many are [`Fetch::Trying`].
    fetching: usize,
}

/// One known region.
pub(super) struct Known {
    /// The newest valid card.
    pub(super) card: Card,
    /// The newest state, at most as new as the card.
    pub(super) held: Option<Held>,
    /// Since when this life is known.
    pub(super) since: Instant,
    /// Whether it was judged to be alive last.
    pub(super) live: bool,
    /// The life that it was last alive in.
    pub(super) met: Option<u64>,
    lives: Bucket,
    fetch: Fetch,
}

/// A state that a region has published.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) published: Arc<Published>,
    pub(super) state: Arc<RegionState>,
    pub(super) received_at: Timestamp,
}

/// How it stands with fetching a state that a push has not brought.
enum Fetch {
    /// Nothing is missing.
    Idle,
    /// Due at this time, after so many failures.
    Due(Instant, u32),
    /// Being tried, after so many failures.
    Trying(u32),
}

/// What a card brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// A region, or a life of one, that was not known.
    Life,
    /// A newer state of a known life.
    Newer,
    /// Nothing new.
    Stale,
}

impl Roster {
    pub(super) fn get(&self, region: &RegionId) -> Option<&Known> {
        self.named(region.as_str())
    }

    /// The region of this name.
    pub(super) fn named(&self, region: &str) -> Option<&Known> {
        self.regions.get(region)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.regions.len()
    }

    /// All of them, by name.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&RegionId, &mut Known)> {
        self.regions.iter_mut()
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RegionId, &Known)> {
        self.regions.iter()
    }

    /// The regions that say they are at `address`: one, unless one of several is wrong.
    pub(super) fn at(&self, address: SocketAddr) -> impl Iterator<Item = &RegionId> {
        self.regions.iter().filter(move |(_, known)| known.card.announcement.address == address).map(|(region, _)| region)
    }

    /// Whether a card with this announcement would change anything, were it valid.
    pub(super) fn is_news(&self, announcement: &Announcement) -> bool {
        self.get(&announcement.region)
            .is_none_or(|known| announcement.version() > known.card.announcement.version() || bug!("sequence-not-checked"))
    }

    /// Takes in a card that is known to be valid.
    pub(super) fn offer(&mut self, card: Card, now: Instant, wall: Timestamp) -> Result<Offer, Refusal> {
        let new = &card.announcement;
        let Some(known) = self.regions.get_mut(&new.region) else {
            if self.regions.len() >= MAX_REGIONS {
                return Err(Refusal::Crowd);
            }
            if wall.since(new.issued_at) > FORGET_AFTER {
                return Ok(Offer::Stale);
            }
            let mut lives = Bucket::new(LIVES_BURST, LIVES_PER_SECOND, now);
            lives.try_take(now);
            let fetch = Fetch::wanted(new.body_bytes > 0, now);
            self.regions.insert(new.region.clone(), Known { card, held: None, since: now, live: false, met: None, lives, fetch });
            return Ok(Offer::Life);
        };
        let old = &known.card.announcement;
        if new.generation > old.generation && bug!("new-life-ignored") {
            return Ok(Offer::Stale);
        }
        if new.version() <= old.version() && !bug!("sequence-not-checked") {
            // Two cards of one version: the first one stays, or a region could tell tales.
            let same = new.version() != old.version() || new == old;
            if !same {
                sometimes!("mesh.contradiction");
            }
            return if same { Ok(Offer::Stale) } else { Err(Refusal::Contradiction) };
        }
        let offer = if new.generation > old.generation {
            if !known.lives.try_take(now) {
                return Err(Refusal::Generation);
            }
            sometimes!("mesh.new-life");
            known.since = now;
            Offer::Life
        } else if new.address != old.address {
            return Err(Refusal::Contradiction);
        } else {
            Offer::Newer
        };
        if new.body_bytes > 0 && matches!(known.fetch, Fetch::Idle) {
            known.fetch = Fetch::wanted(true, now);
        }
        known.card = card;
        Ok(offer)
    }

    /// Takes in a state whose card was [offered](Self::offer) and whose hash fits. Returns whether it
    /// is newer than the one that is held.
    pub(super) fn hold(&mut self, held: Held) -> bool {
        let announcement = &held.published.card.announcement;
        let Some(known) = self.regions.get_mut(&announcement.region) else { return false };
        let version = announcement.version();
        if known.held.as_ref().is_some_and(|old| old.published.card.announcement.version() >= version) {
            return false;
        }
        if version >= known.card.announcement.version() {
            if let Fetch::Trying(_) = known.fetch {
                self.fetching -= 1;
            }
            known.fetch = Fetch::Idle;
        }
        let former = known.held.replace(held);
        if bug!("former-states-kept") {
            std::mem::forget(former);
        }
        true
    }

    /// The states that should be fetched now, each with the number of failed attempts. Every one
    /// must be [settled](Self::settle_fetch) later.
    pub(super) fn start_fetches(&mut self, now: Instant) -> Vec<(RegionId, u32)> {
        let mut due = Vec::new();
        for (region, known) in &mut self.regions {
            if self.fetching + due.len() >= MAX_FETCHES || bug!("states-not-fetched") {
                break;
            }
            if let Fetch::Due(at, failures) = known.fetch
                && at <= now
            {
                sometimes!("mesh.fetch-started");
                known.fetch = Fetch::Trying(failures);
                due.push((region.clone(), failures));
            }
        }
        self.fetching += due.len();
        due
    }

    /// An attempt to fetch `region`'s state is over. If it brought the state, nothing is left to do.
    pub(super) fn settle_fetch(&mut self, region: &RegionId, now: Instant) {
        let Some(known) = self.regions.get_mut(region) else { return };
        if let Fetch::Trying(failures) = known.fetch {
            self.fetching -= 1;
            sometimes!("mesh.fetch-failed");
            if bug!("fetch-not-retried") {
                known.fetch = Fetch::Idle;
                return;
            }
            let wait = (FETCH_GRACE * (1 << failures.min(8))).min(FETCH_BACKOFF_MAX);
            known.fetch = Fetch::Due(now + wait, failures.saturating_add(1));
        }
    }

    /// Forgets the regions that are not alive, `may_go`, and whose last card is old. Returns whether there were any.
    pub(super) fn forget(&mut self, wall: Timestamp, may_go: impl Fn(&RegionId) -> bool) -> bool {
        let (fetching, before) = (&mut self.fetching, self.regions.len());
        self.regions.retain(|region, known| {
            let stays = wall.since(known.card.announcement.issued_at) <= FORGET_AFTER || known.live || !may_go(region);
            if !stays && matches!(known.fetch, Fetch::Trying(_)) {
                *fetching -= 1;
            }
            stays
        });
        self.regions.len() < before
    }
}

impl Fetch {
    fn wanted(wanted: bool, now: Instant) -> Self {
        if wanted { Fetch::Due(now + FETCH_GRACE, 0) } else { Fetch::Idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::pki::{now as wall, state};

    fn card(region: &str, generation: u64, sequence: u64) -> Card {
        let announcement = Announcement {
            cluster: "mesh".into(),
            region: RegionId::new(region).unwrap(),
            generation,
            sequence,
            address: format!("192.0.2.1:{}", 7000 + generation).parse().unwrap(),
            issued_at: wall(),
            body_hash: [0; 32],
            body_bytes: 10,
        };
        Card { announcement, signature: vec![0; 64], certificate: vec![] }
    }

    fn held(card: Card) -> Held {
        let state = Arc::new(state(card.announcement.region.as_str()));
        Held { published: Arc::new(Published { card, body: vec![] }), state, received_at: wall() }
    }

    #[test]
    fn the_newest_card_of_a_region_stays() {
        let (mut roster, t) = (Roster::default(), Instant::now());
        let mut offer = |g, s| roster.offer(card("eu", g, s), t, wall());
        assert_eq!(offer(5, 1), Ok(Offer::Life));
        assert_eq!(offer(5, 2), Ok(Offer::Newer));
        assert_eq!(offer(5, 1), Ok(Offer::Stale));
        assert_eq!(offer(4, 9), Ok(Offer::Stale));
        assert_eq!(offer(6, 1), Ok(Offer::Life));
        let mut twin = card("eu", 6, 1);
        twin.announcement.body_bytes = 11;
        assert_eq!(roster.offer(twin, t, wall()), Err(Refusal::Contradiction));
        let mut moved = card("eu", 6, 2);
        moved.announcement.address = "192.0.2.9:1".parse().unwrap();
        assert_eq!(roster.offer(moved, t, wall()), Err(Refusal::Contradiction));
        assert_eq!(roster.iter().count(), 1);
    }

    #[test]
    fn a_region_cannot_flood_the_others_with_lives() {
        let (mut roster, t) = (Roster::default(), Instant::now());
        let taken = (1..1300).filter(|g| roster.offer(card("eu", *g, 1), t, wall()) == Ok(Offer::Life)).count();
        assert_eq!(taken, LIVES_BURST as usize);
        assert_eq!(roster.offer(card("eu", 5000, 1), t + Duration::from_secs(10), wall()), Ok(Offer::Life));
    }

    #[test]
    fn no_more_regions_than_a_mesh_may_have_and_none_that_are_long_gone() {
        let (mut roster, t) = (Roster::default(), Instant::now());
        let mut old = card("old", 1, 1);
        old.announcement.issued_at = wall().before(FORGET_AFTER + Duration::from_secs(1));
        assert_eq!(roster.offer(old, t, wall()), Ok(Offer::Stale));
        for i in 0..MAX_REGIONS {
            assert_eq!(roster.offer(card(&format!("r{i}"), 1, 1), t, wall()), Ok(Offer::Life));
        }
        assert_eq!(roster.offer(card("one-more", 1, 1), t, wall()), Err(Refusal::Crowd));
        let later = wall().after(FORGET_AFTER + Duration::from_secs(1));
        roster.forget(later, |region| region.as_str() != "r7");
        assert_eq!(roster.iter().map(|(r, _)| r.as_str().to_owned()).collect::<Vec<_>>(), ["r7"]);
    }

    #[test]
    fn a_missed_state_is_fetched_after_a_grace_with_backoff_until_it_is_there() {
        let (mut roster, t) = (Roster::default(), Instant::now());
        let eu = RegionId::new("eu").unwrap();
        roster.offer(card("eu", 1, 1), t, wall()).unwrap();
        assert_eq!(roster.start_fetches(t), [], "the push may still come");
        let t = t + FETCH_GRACE;
        assert_eq!(roster.start_fetches(t), [(eu.clone(), 0)]);
        assert_eq!(roster.start_fetches(t), [], "one at a time");
        roster.settle_fetch(&eu, t);
        assert_eq!(roster.start_fetches(t), []);
        let t = t + FETCH_GRACE;
        assert_eq!(roster.start_fetches(t), [(eu.clone(), 1)]);
        assert!(roster.hold(held(card("eu", 1, 1))));
        roster.settle_fetch(&eu, t);
        assert_eq!(roster.start_fetches(t + FETCH_BACKOFF_MAX), []);
        assert!(!roster.hold(held(card("eu", 1, 1))), "nothing new");
        assert_eq!(roster.fetching, 0);
    }

    #[test]
    fn no_more_than_so_many_states_are_fetched_at_once() {
        let (mut roster, t) = (Roster::default(), Instant::now());
        for i in 0..100 {
            roster.offer(card(&format!("r{i}"), 1, 1), t, wall()).unwrap();
        }
        let t = t + FETCH_GRACE;
        assert_eq!(roster.start_fetches(t).len(), MAX_FETCHES);
        assert_eq!(roster.start_fetches(t).len(), 0);
        roster.forget(wall().after(FORGET_AFTER * 2), |_| true);
        assert_eq!(roster.fetching, 0);
    }
}
