//! The wire guard: judges every gossip message before chitchat sees it. Pure.
//!
//! chitchat believes whatever it is told about any node, and panics on some of it. Behind the
//! guard it is told only this: nodes that are the current life of a region with a valid card, at
//! that card's address; of each the one key, with a card that the region has signed for that very
//! version; and heartbeats within reach of what the region itself last reported.
//!
//! Honest peers may know more or less than this agent, so what is merely unproven is left out of a
//! message; what no honest peer sends refuses the message as a whole.

use super::card::{self, Verifier};
use super::frame::Unpacker;
use super::message::{Entry, Message, NodeDelta};
use super::refusal::Refusal;
use super::roster::{Offer, Roster};
use chitchat::ChitchatId;
use std::collections::BTreeMap;
use tokio::time::Instant;
use tradewind_protocol::wire::{Announcement, Card};
use tradewind_protocol::{RegionId, Timestamp};

/// How fast an agent's heartbeat may rise: chitchat adds one per interval and per message, about 16
/// an interval, so this is 2.5 times that of the shortest sensible interval, 200 ms.
const HEARTBEATS_PER_SECOND: f64 = 200.0;
/// Heartbeats on top, for bursts.
const HEARTBEAT_SLACK: u64 = 1_000;

/// What chitchat knows this agent by, and its newest card.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) region: RegionId,
    pub(super) cluster: String,
    pub(super) card: Card,
}

impl Own {
    fn is(&self, id: &ChitchatId) -> bool {
        let Announcement { region, generation, address, .. } = &self.card.announcement;
        *id.node_id == *region.as_str() && id.generation_id == *generation && id.gossip_advertise_addr == *address
    }

    /// If `other` is a card of this region that the current life has not signed: the generation that
    /// this life must exceed.
    pub(super) fn exceeded_by(&self, other: &Announcement) -> Option<u64> {
        let own = &self.card.announcement;
        let newer = other.version() > own.version() || (other.version() == own.version() && other != own);
        newer.then_some(other.generation)
    }
}

/// What is left of a message, for chitchat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) message: Message,
    /// What was left out, and why.
    pub(super) left_out: Vec<Refusal>,
    /// Cards that were news.
    pub(super) news: Vec<Card>,
    /// A former life of this agent had this generation.
    pub(super) exceeded_by: Option<u64>,
}

/// The guard's memory.
pub(super) struct Guard {
    unpacker: Unpacker,
    /// What regions have last reported of themselves, over their own connections. One a region of
    /// the roster.
    pulses: BTreeMap<RegionId, Pulse>,
}

struct Pulse {
    generation: u64,
    heartbeat: u64,
    at: Instant,
}

/// What a message is judged by.
pub(super) struct Context<'a> {
    pub(super) own: &'a Own,
    pub(super) roster: &'a mut Roster,
    pub(super) verifier: &'a mut Verifier,
    pub(super) now: Instant,
    pub(super) wall: Timestamp,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { unpacker: Unpacker::new(), pulses: BTreeMap::new() }
    }

    /// Forgets what the roster has forgotten.
    pub(super) fn forget(&mut self, roster: &Roster) {
        self.pulses.retain(|region, _| roster.get(region).is_some());
    }

    /// Judges the message in `frame`, which came over a connection with `from`.
    pub(super) fn admit(&mut self, from: &RegionId, frame: &[u8], context: &mut Context<'_>) -> Result<Admitted, Refusal> {
        let message = Message::parse(self.unpacker.unpack(frame)?)?;
        let mut kept = Admitted { message: Message::BadCluster, left_out: vec![], news: vec![], exceeded_by: None };
        kept.message = match message {
            Message::Syn { cluster, digest } => {
                if cluster != context.own.cluster {
                    return Err(Refusal::Cluster);
                }
                Message::Syn { cluster, digest: self.judge_digest(from, digest, context, &mut kept)? }
            }
            Message::SynAck { digest, delta } => {
                let digest = self.judge_digest(from, digest, context, &mut kept)?;
                Message::SynAck { digest, delta: judge_delta(delta, context, &mut kept)? }
            }
            Message::Ack { delta } => Message::Ack { delta: judge_delta(delta, context, &mut kept)? },
            // Its only effect on chitchat is a line in the log.
            Message::BadCluster => return Err(Refusal::Cluster),
        };
        Ok(kept)
    }

    fn judge_digest(
        &mut self,
        from: &RegionId,
        digest: Vec<Entry>,
        context: &Context<'_>,
        kept: &mut Admitted,
    ) -> Result<Vec<Entry>, Refusal> {
        if !digest.iter().any(|entry| *entry.id.node_id == *from.as_str()) {
            return Err(Refusal::Impostor);
        }
        let mut left = Vec::with_capacity(digest.len());
        let mut sender = Err(Refusal::Unproven);
        for mut entry in digest {
            let region = RegionId::new(&entry.id.node_id).map_err(|_| Refusal::Malformed)?;
            let judged = if context.own.is(&entry.id) {
                Ok(())
            } else if region == context.own.region {
                // A former life, which peers keep for a while.
                continue;
            } else {
                match is_current(&entry.id, &region, context.roster) {
                    Standing::Current => self.judge_heartbeat(from, &region, &mut entry, context.now),
                    Standing::Former => continue,
                    Standing::Not(reason) => Err(reason),
                }
            };
            if region == *from {
                sender = judged;
            }
            match judged {
                Ok(()) => left.push(entry),
                Err(reason) => kept.left_out.push(reason),
            }
        }
        // Whoever is not proven itself is not heard about others.
        sender.map(|()| left)
    }

    /// Believes what a region says of itself; of what others say about it, only what it can have
    /// reached since. Until it has spoken for itself it has no heartbeat (0 is chitchat's "none").
    fn judge_heartbeat(&mut self, from: &RegionId, region: &RegionId, entry: &mut Entry, now: Instant) -> Result<(), Refusal> {
        if from == region {
            let pulse = Pulse { generation: entry.id.generation_id, heartbeat: entry.heartbeat, at: now };
            self.pulses.insert(region.clone(), pulse);
            return Ok(());
        }
        let Some(pulse) = self.pulses.get(region).filter(|pulse| pulse.generation == entry.id.generation_id) else {
            entry.heartbeat = 0;
            return Ok(());
        };
        let since = now.saturating_duration_since(pulse.at).as_secs_f64();
        let reach = (since * HEARTBEATS_PER_SECOND) as u64;
        let bound = pulse.heartbeat.saturating_add(HEARTBEAT_SLACK).saturating_add(reach);
        if entry.heartbeat <= bound { Ok(()) } else { Err(Refusal::Heartbeat) }
    }
}

/// How a chitchat node relates to what is proved about its region.
enum Standing {
    Current,
    Former,
    Not(Refusal),
}

fn is_current(id: &ChitchatId, region: &RegionId, roster: &Roster) -> Standing {
    let Some(known) = roster.get(region) else { return Standing::Not(Refusal::Unknown) };
    let Announcement { generation, address, .. } = &known.card.announcement;
    if id.generation_id < *generation {
        return Standing::Former;
    }
    if id.generation_id == *generation && id.gossip_advertise_addr == *address {
        Standing::Current
    } else {
        Standing::Not(Refusal::Unproven)
    }
}

fn judge_delta(delta: Vec<NodeDelta>, context: &mut Context<'_>, kept: &mut Admitted) -> Result<Vec<NodeDelta>, Refusal> {
    let mut left = Vec::with_capacity(delta.len());
    for node in delta {
        let region = RegionId::new(&node.id.node_id).map_err(|_| Refusal::Malformed)?;
        let (announcement, signature) = card::from_text(&node.text).ok_or(Refusal::Malformed)?;
        let said = (&announcement.region, announcement.generation, announcement.address, announcement.sequence);
        if said != (&region, node.id.generation_id, node.id.gossip_advertise_addr, node.version) {
            return Err(Refusal::Contradiction);
        }
        if region == context.own.region {
            judge_own(announcement, signature, context, kept);
            continue;
        }
        match is_current(&node.id, &region, context.roster) {
            Standing::Current => {}
            Standing::Former => continue,
            Standing::Not(reason) => {
                kept.left_out.push(reason);
                continue;
            }
        }
        let Some(known) = context.roster.get(&region) else { continue };
        let card = Card { announcement, signature, certificate: known.card.certificate.clone() };
        if card != known.card {
            // A region could give two peers cards that do not go together; that must not set those
            // peers against each other, so such a card costs only itself.
            if let Err(error) = context.verifier.verify(&card, context.wall) {
                kept.left_out.push(Refusal::from(&error));
                continue;
            }
            match context.roster.offer(card.clone(), context.now, context.wall) {
                Ok(Offer::Life | Offer::Newer) => kept.news.push(card),
                Ok(Offer::Stale) => {}
                Err(reason) => {
                    kept.left_out.push(reason);
                    continue;
                }
            }
        }
        left.push(node);
    }
    Ok(left)
}

/// A card of this very region: chitchat never hears of it, but a former life of this agent may have
/// signed it, and then this life must go beyond that one.
fn judge_own(announcement: Announcement, signature: Vec<u8>, context: &mut Context<'_>, kept: &mut Admitted) {
    let Some(generation) = context.own.exceeded_by(&announcement) else { return };
    let card = Card { announcement, signature, certificate: context.own.card.certificate.clone() };
    match context.verifier.verify(&card, context.wall) {
        Ok(()) => kept.exceeded_by = kept.exceeded_by.max(Some(generation)),
        Err(error) => kept.left_out.push(Refusal::from(&error)),
    }
}
