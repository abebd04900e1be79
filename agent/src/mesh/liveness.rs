//! Which regions live. Pure.
//!
//! chitchat's failure detector counts heartbeats, which peers relay and could lie about. A
//! connection proves who is at its other end, so what is heard over it has the last word: when
//! chitchat thinks a region dead that is still connected, the region itself is asked; when chitchat
//! thinks a region alive that nobody here has heard for long, it is not believed.
//!
//! chitchat's threshold is a multiple of the usual time between two heartbeats, which grows as a mesh
//! says less, so it bounds nothing. A heartbeat that stands still is therefore no sign of life
//! either. With that, a region that nothing is heard of is not live after the time in which its last
//! heartbeat goes round, the longer of `FRESH_MIN` and `STILL_INTERVALS`, and `DOUBT`.

use crate::marks::bug;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tradewind_protocol::RegionId;

/// How long a word from a region itself counts, at least: as long as two agents of a mesh of 30 are
/// silent towards each other on average.
const FRESH_MIN: Duration = Duration::from_secs(5);
/// The same in gossip intervals.
const FRESH_INTERVALS: u32 = 5;
/// How long a heartbeat may stand still, in gossip intervals: each agent takes part in some six exchanges an interval, each of which
/// tells all heartbeats that one side knows, so in a mesh of 30 they go round within four.
const STILL_INTERVALS: u32 = 12;
/// How long a region that is asked has to answer: seven round trips of half the globe.
const DOUBT: Duration = Duration::from_secs(2);
/// How long a region lives on hearsay alone, without a connection.
const HEARSAY: Duration = Duration::from_secs(60);

/// When each region was heard of. One entry a region with a certificate.
pub(super) struct Contacts {
    contacts: BTreeMap<RegionId, Contact>,
    fresh: Duration,
    still: Duration,
}

#[derive(Default)]
struct Contact {
    /// `None`: never met.
    heard_at: Option<Instant>,
    /// The last heartbeat, and when it was first seen.
    heartbeat: Option<(u64, Instant)>,
    doubted_since: Option<Instant>,
    said_goodbye: bool,
}

/// What is known about a region at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// Its last heartbeat, if chitchat's failure detector thinks it alive.
    pub(super) heartbeat: Option<u64>,
    /// There is a connection.
    pub(super) linked: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) live: bool,
    /// The region should be asked now.
    pub(super) ask: bool,
}

impl Contacts {
    pub(super) fn new(gossip_interval: Duration) -> Self {
        let at_least = |intervals| FRESH_MIN.max(gossip_interval * intervals);
        Self { contacts: BTreeMap::new(), fresh: at_least(FRESH_INTERVALS), still: at_least(STILL_INTERVALS) }
    }

    /// A message has come from the region itself.
    pub(super) fn on_heard(&mut self, region: &RegionId, now: Instant) {
        if let Some(contact) = self.contacts.get_mut(region) {
            contact.heard_at = Some(now);
        }
    }

    /// A connection with the region has been made.
    pub(super) fn on_connected(&mut self, region: &RegionId, now: Instant) {
        let contact = self.contacts.entry(region.clone()).or_default();
        *contact = Contact { heard_at: Some(now), heartbeat: contact.heartbeat, ..Contact::default() };
    }

    /// The region has said that its agent ends.
    pub(super) fn on_goodbye(&mut self, region: &RegionId) {
        if let Some(contact) = self.contacts.get_mut(region) {
            contact.said_goodbye = true;
        }
    }

    /// Whether the region lives.
    pub(super) fn judge(&mut self, region: &RegionId, signs: Signs, now: Instant) -> Verdict {
        let contact = match self.contacts.get_mut(region) {
            Some(contact) => contact,
            None => self.contacts.entry(region.clone()).or_default(),
        };
        let beats = contact.beats(signs.heartbeat, self.still, now);
        let Some(heard_at) = contact.heard_at else {
            // Never met: hearsay, which chitchat is not told as long as it cannot be checked.
            return Verdict { live: beats, ask: false };
        };
        if bug!("silence-is-life") {
            return Verdict { live: true, ask: false };
        }
        // On one of two connections it may mean that connection alone.
        if contact.said_goodbye && !signs.linked {
            return Verdict { live: false, ask: false };
        }
        let silent = now.saturating_duration_since(heard_at);
        if beats {
            contact.doubted_since = None;
            return Verdict { live: signs.linked || silent <= HEARSAY, ask: false };
        }
        if silent <= self.fresh {
            contact.doubted_since = None;
            return Verdict { live: true, ask: signs.linked && silent > self.fresh / 2 };
        }
        let doubted_since = *contact.doubted_since.get_or_insert(now);
        let live = signs.linked && now.saturating_duration_since(doubted_since) < DOUBT;
        Verdict { live, ask: signs.linked }
    }

    /// How many regions there are.
    pub(super) fn len(&self) -> usize {
        self.contacts.len()
    }

    /// Forgets the regions that are not `known`.
    pub(super) fn forget(&mut self, known: impl Fn(&RegionId) -> bool) {
        self.contacts.retain(|region, _| known(region));
    }
}

impl Contact {
    /// Whether there is a heartbeat that has not stood `still` for too long.
    fn beats(&mut self, heartbeat: Option<u64>, still: Duration, now: Instant) -> bool {
        let Some(heartbeat) = heartbeat else { return false };
        match self.heartbeat {
            Some((last, since)) if last == heartbeat => now.saturating_duration_since(since) <= still || bug!("still-heartbeat-believed"),
            _ => {
                self.heartbeat = Some((heartbeat, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn met() -> (Contacts, RegionId, Instant) {
        let (mut contacts, eu, t) = (Contacts::new(SECOND), RegionId::new("eu").unwrap(), Instant::now());
        contacts.on_connected(&eu, t);
        (contacts, eu, t)
    }

    const UP: Signs = Signs { heartbeat: None, linked: true };

    #[test]
    fn a_region_that_gossip_thinks_dead_is_asked_and_lives_if_it_answers() {
        let (mut contacts, eu, t) = met();
        assert_eq!(contacts.judge(&eu, UP, t + SECOND), Verdict { live: true, ask: false });
        assert_eq!(contacts.judge(&eu, UP, t + 3 * SECOND), Verdict { live: true, ask: true });
        assert_eq!(contacts.judge(&eu, UP, t + 20 * SECOND), Verdict { live: true, ask: true });
        contacts.on_heard(&eu, t + 21 * SECOND);
        assert_eq!(contacts.judge(&eu, UP, t + 22 * SECOND), Verdict { live: true, ask: false });
    }

    #[test]
    fn a_region_that_does_not_answer_is_dead() {
        let (mut contacts, eu, t) = met();
        assert!(contacts.judge(&eu, UP, t + 20 * SECOND).live);
        assert!(!contacts.judge(&eu, UP, t + 22 * SECOND).live);
        let down = Signs { heartbeat: None, linked: false };
        assert!(!contacts.judge(&eu, down, t + 22 * SECOND).live);
    }

    #[test]
    fn hearsay_alone_does_not_keep_a_region_alive() {
        let (mut contacts, eu, t) = met();
        let hearsay = |heartbeat| Signs { heartbeat: Some(heartbeat), linked: false };
        assert!(contacts.judge(&eu, hearsay(1), t + 59 * SECOND).live);
        assert!(!contacts.judge(&eu, hearsay(2), t + 61 * SECOND).live);
        assert!(contacts.judge(&eu, Signs { heartbeat: Some(3), linked: true }, t + 61 * SECOND).live);
    }

    #[test]
    fn a_heartbeat_that_stands_still_is_no_sign_of_life_whatever_gossip_thinks() {
        let (mut contacts, eu, t) = met();
        let us = RegionId::new("us").unwrap();
        let signs = |heartbeat| Signs { heartbeat: Some(heartbeat), linked: true };
        for second in 0..60 {
            assert_eq!(contacts.judge(&eu, signs(7 + u64::from(second)), t + second * SECOND), Verdict { live: true, ask: false });
            assert!(contacts.judge(&us, signs(u64::from(second)), t + second * SECOND).live, "hearsay that goes on");
        }
        let at = t + 59 * SECOND;
        assert!(!contacts.judge(&eu, signs(66), at + 12 * SECOND).ask);
        assert_eq!(contacts.judge(&eu, signs(66), at + 13 * SECOND), Verdict { live: true, ask: true });
        assert_eq!(contacts.judge(&eu, signs(66), at + 15 * SECOND), Verdict { live: false, ask: true });
        assert!(!contacts.judge(&us, signs(59), at + 13 * SECOND).live);
        assert_eq!(contacts.judge(&eu, signs(67), at + 16 * SECOND), Verdict { live: true, ask: false });
    }

    #[test]
    fn goodbye_is_believed_at_once_until_the_region_connects_again() {
        let (mut contacts, eu, t) = met();
        contacts.on_goodbye(&eu);
        assert!(!contacts.judge(&eu, Signs { heartbeat: Some(1), linked: false }, t).live);
        contacts.on_connected(&eu, t);
        assert!(contacts.judge(&eu, UP, t).live);
    }
}
