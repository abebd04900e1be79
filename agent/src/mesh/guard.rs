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
use crate::marks::bug;
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
            // Every message names all regions, so no name is made of what is only looked up.
            let region = entry.id.node_id.clone();
            RegionId::check(&region).map_err(|_| Refusal::Malformed)?;
            let judged = if context.own.is(&entry.id) {
                Ok(())
            } else if *region == *context.own.region.as_str() {
                // A former life, which peers keep for a while.
                continue;
            } else {
                match is_current(&entry.id, &region, context.roster) {
                    Standing::Current => self.judge_heartbeat(from, &region, &mut entry, context.now),
                    Standing::Former => continue,
                    Standing::Not(reason) => Err(reason),
                }
            };
            if *region == *from.as_str() {
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
    fn judge_heartbeat(&mut self, from: &RegionId, region: &str, entry: &mut Entry, now: Instant) -> Result<(), Refusal> {
        if from.as_str() == region {
            let pulse = Pulse { generation: entry.id.generation_id, heartbeat: entry.heartbeat, at: now };
            self.pulses.insert(from.clone(), pulse);
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

fn is_current(id: &ChitchatId, region: &str, roster: &Roster) -> Standing {
    if bug!("guard-lets-foreign-pass") {
        return Standing::Current;
    }
    let Some(known) = roster.named(region) else { return Standing::Not(Refusal::Unknown) };
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
        match is_current(&node.id, region.as_str(), context.roster) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::frame::Packer;
    use crate::mesh::identity::Identity;
    use crate::mesh::tests::pki::{Pki, now as wall};
    use std::time::Duration;

    /// The guard of the region "own" in a mesh with "eu" and "us", which it knows in generation 5.
    struct Gate {
        guard: Guard,
        own: Own,
        roster: Roster,
        verifier: Verifier,
        eu: Identity,
        us: Identity,
        own_identity: Identity,
        now: Instant,
    }

    fn card_of(identity: &Identity, generation: u64, sequence: u64) -> Card {
        let port = 7000 + identity.region.as_str().as_bytes()[0] as u16;
        let announcement = Announcement {
            cluster: "mesh".into(),
            region: identity.region.clone(),
            generation,
            sequence,
            address: ([10, 0, 0, 1], port).into(),
            issued_at: wall(),
            body_hash: [0; 32],
            body_bytes: 0,
        };
        card::sign(identity, announcement)
    }

    fn id(card: &Card) -> ChitchatId {
        let a = &card.announcement;
        ChitchatId::new(a.region.as_str(), a.generation, a.address)
    }

    fn entry(card: &Card, heartbeat: u64) -> Entry {
        Entry { id: id(card), heartbeat, last_gc_version: 0, max_version: 1 }
    }

    fn delta(card: &Card) -> NodeDelta {
        NodeDelta { id: id(card), text: card::to_text(card), version: card.announcement.sequence, from_version: 0 }
    }

    impl Gate {
        fn new() -> Self {
            let pki = Pki::new("mesh");
            let (eu, us, own_identity) = (pki.identity("eu"), pki.identity("us"), pki.identity("own"));
            let own = Own { region: own_identity.region.clone(), cluster: "mesh".into(), card: card_of(&own_identity, 5, 1) };
            let (mut roster, now) = (Roster::default(), Instant::now());
            for identity in [&eu, &us] {
                roster.offer(card_of(identity, 5, 1), now, wall()).unwrap();
            }
            let verifier = Verifier::new(eu.authority.clone(), "mesh".into(), &rustls::crypto::ring::default_provider());
            Self { guard: Guard::new(), own, roster, verifier, eu, us, own_identity, now }
        }

        /// What becomes of `message` from eu.
        fn judge(&mut self, message: &Message) -> Result<Admitted, Refusal> {
            let Gate { guard, own, roster, verifier, eu, now, .. } = self;
            let frame = Packer::new().pack(&message.to_bytes());
            guard.admit(&eu.region, &frame, &mut Context { own, roster, verifier, now: *now, wall: wall() })
        }

        /// The digest that is left of one from eu: itself with heartbeat 1, and `others`.
        fn digest(&mut self, others: Vec<Entry>) -> (Vec<Entry>, Vec<Refusal>) {
            let eu = entry(&card_of(&self.eu, 5, 1), 1);
            let digest = std::iter::once(eu).chain(others).collect();
            let admitted = self.judge(&Message::Syn { cluster: "mesh".into(), digest }).unwrap();
            let Message::Syn { digest, .. } = admitted.message else { panic!("{admitted:?}") };
            (digest[1..].to_vec(), admitted.left_out)
        }
    }

    #[test]
    fn only_the_proven_life_of_a_region_is_let_through() {
        let mut gate = Gate::new();
        let us = |generation| card_of(&gate.us, generation, 1);
        let (former, current, future) = (us(4), us(5), us(6));
        let mut elsewhere = entry(&current, 3);
        elsewhere.id.gossip_advertise_addr.set_port(1);
        let mut unknown = entry(&current, 3);
        unknown.id.node_id = "unknown".into();
        let own = entry(&gate.own.card, 3);
        let former_self = entry(&card_of(&gate.own_identity, 4, 1), 3);
        let given = vec![entry(&former, 3), entry(&current, 3), entry(&future, 3), elsewhere, unknown, own.clone(), former_self];
        let (left, left_out) = gate.digest(given);
        // Until us has spoken for itself it has no heartbeat.
        assert_eq!(left, [entry(&current, 0), own]);
        assert_eq!(left_out, [Refusal::Unproven, Refusal::Unproven, Refusal::Unknown]);
    }

    #[test]
    fn a_heartbeat_is_bounded_by_what_the_region_said_itself() {
        let mut gate = Gate::new();
        let us = card_of(&gate.us, 5, 1);
        let itself = Message::Syn { cluster: "mesh".into(), digest: vec![entry(&us, 100)] };
        let region = gate.us.region.clone();
        let Gate { guard, own, roster, verifier, now, .. } = &mut gate;
        let frame = Packer::new().pack(&itself.to_bytes());
        guard.admit(&region, &frame, &mut Context { own, roster, verifier, now: *now, wall: wall() }).unwrap();

        let bound = 100 + HEARTBEAT_SLACK;
        assert_eq!(gate.digest(vec![entry(&us, bound)]), (vec![entry(&us, bound)], vec![]));
        assert_eq!(gate.digest(vec![entry(&us, bound + 1)]), (vec![], vec![Refusal::Heartbeat]));
        gate.now += Duration::from_secs(10);
        let bound = bound + 10 * HEARTBEATS_PER_SECOND as u64;
        assert_eq!(gate.digest(vec![entry(&us, bound)]), (vec![entry(&us, bound)], vec![]));
        assert_eq!(gate.digest(vec![entry(&us, u64::MAX)]), (vec![], vec![Refusal::Heartbeat]));
    }

    #[test]
    fn a_sender_that_is_not_in_its_digest_or_not_proven_is_not_heard() {
        let mut gate = Gate::new();
        let syn = |digest| Message::Syn { cluster: "mesh".into(), digest };
        let us = entry(&card_of(&gate.us, 5, 1), 1);
        assert_eq!(gate.judge(&syn(vec![us.clone()])), Err(Refusal::Impostor));
        assert_eq!(gate.judge(&syn(vec![])), Err(Refusal::Impostor));
        let future = entry(&card_of(&gate.eu, 6, 1), 1);
        assert_eq!(gate.judge(&syn(vec![future, us])), Err(Refusal::Unproven));
        let eu = entry(&card_of(&gate.eu, 5, 1), 1);
        let elsewhere = Message::Syn { cluster: "another".into(), digest: vec![eu.clone()] };
        assert_eq!(gate.judge(&elsewhere), Err(Refusal::Cluster));
        assert!(gate.judge(&syn(vec![eu])).is_ok());
    }

    #[test]
    fn a_relayed_card_must_be_signed_for_its_version() {
        let mut gate = Gate::new();
        let newer = card_of(&gate.us, 5, 2);
        let mut wrong_version = delta(&newer);
        wrong_version.version = u64::MAX;
        let mut forged = newer.clone();
        forged.announcement.sequence = 9;
        let unknown = card_of(&Pki::new("mesh").identity("unknown"), 1, 1);
        assert_eq!(gate.judge(&Message::Ack { delta: vec![wrong_version] }), Err(Refusal::Contradiction));
        // What another region may have to answer for costs only itself.
        let admitted = gate.judge(&Message::Ack { delta: vec![delta(&forged)] }).unwrap();
        assert_eq!((admitted.message, admitted.left_out), (Message::Ack { delta: vec![] }, vec![Refusal::Forged]));
        let admitted = gate.judge(&Message::Ack { delta: vec![delta(&unknown), delta(&newer)] }).unwrap();
        assert_eq!(admitted.message, Message::Ack { delta: vec![delta(&newer)] });
        assert_eq!(admitted.left_out, [Refusal::Unknown]);
        assert_eq!(admitted.news, std::slice::from_ref(&newer));
        assert_eq!(gate.roster.get(&gate.us.region).unwrap().card, newer);
    }

    #[test]
    fn a_card_of_a_former_life_is_noticed_and_kept_from_chitchat() {
        let mut gate = Gate::new();
        let judge = |gate: &mut Gate, card: &Card| {
            let admitted = gate.judge(&Message::Ack { delta: vec![delta(card)] }).unwrap();
            assert_eq!(admitted.message, Message::Ack { delta: vec![] });
            (admitted.exceeded_by, admitted.left_out)
        };
        let own = |gate: &Gate, generation, sequence| card_of(&gate.own_identity, generation, sequence);
        let (former, same, ahead, later) = (own(&gate, 4, 9), own(&gate, 5, 1), own(&gate, 5, 2), own(&gate, 9, 1));
        assert_eq!(judge(&mut gate, &former), (None, vec![]));
        assert_eq!(judge(&mut gate, &same), (None, vec![]));
        assert_eq!(judge(&mut gate, &ahead), (Some(5), vec![]));
        assert_eq!(judge(&mut gate, &later), (Some(9), vec![]));
        let mut forged = later;
        forged.announcement.generation = 100;
        assert_eq!(judge(&mut gate, &forged), (None, vec![Refusal::Forged]));
    }
}
