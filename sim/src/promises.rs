//! What owners of capacity have promised, as their holders see it: the part of the durable state that two agents share. Pure.
//!
//! A holder may rely upon what its API shows as a valid claim. If it shows one before and after a look at the owner's ledger, in one life,
//! the reservation stood all the while, and the ledger has to have it, on the same terms; so neither releases nor restarts in between are
//! an excuse, and nothing has to be known of either agent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tradewind_protocol::RegionId;
use tradewind_protocol::api::{ClaimView, ReservationView, Reservations};

/// Looks at each agent that are remembered: at one a second, the one before a look at another agent and the one after.
const MAX_LOOKS: usize = 4;

/// A look at one agent's reservations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    /// The boots of the agent's machine.
    pub(crate) life: u64,
    /// When it was asked, and when it answered.
    pub(crate) asked: Duration,
    pub(crate) answered: Duration,
    pub(crate) shown: Reservations,
}

/// The looks at all agents.
#[derive(Debug, Default)]
pub(crate) struct Promises(BTreeMap<RegionId, VecDeque<Look>>);

/// What an owner's ledger lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// All of a reservation.
    Forgotten(String),
    /// It stands on other terms.
    Altered(String),
}

impl Promises {
    /// Another look at `holder`: what the owners of its claims do not know as they should.
    pub(crate) fn see(&mut self, holder: &RegionId, look: Look) -> Vec<(RegionId, Broken)> {
        let broken = look.shown.claimed.iter().filter_map(|claim| self.judge(holder, &look, claim).map(|what| (claim.owner.clone(), what)));
        let broken = broken.collect();
        let looks = self.0.entry(holder.clone()).or_default();
        if looks.len() == MAX_LOOKS {
            looks.pop_front();
        }
        looks.push_back(look);
        broken
    }

    fn judge(&self, holder: &RegionId, now: &Look, claim: &ClaimView) -> Option<Broken> {
        if !is_relied_upon(claim) {
            return None;
        }
        let between = self.0.get(&claim.owner)?.iter().rev().find(|look| look.answered < now.asked)?;
        let before = self.0.get(holder)?.iter().rev().find(|look| look.life == now.life && look.answered < between.asked)?;
        let same = |other: &&ClaimView| (&other.owner, other.number) == (&claim.owner, claim.number) && is_relied_upon(other);
        before.shown.claimed.iter().find(same)?;
        let id = format!("{holder}/{}", claim.number);
        let Some(kept) = between.shown.granted.iter().find(|kept| kept.id == id && kept.pool == claim.pool) else {
            return Some(Broken::Forgotten(format!("reservation {id} of pool {} is valid, and not in the ledger", claim.pool)));
        };
        (kept.terms != claim.terms).then(|| {
            Broken::Altered(format!("reservation {id} of pool {} is {:?} in the ledger, it was {:?}", claim.pool, kept.terms, claim.terms))
        })
    }
}

/// What of `granted` is kept for holders that were silent for longer than `bound`.
pub(crate) fn overdue(granted: &[ReservationView], bound: Duration, silent_for: impl Fn(&RegionId) -> Option<Duration>) -> Vec<String> {
    let of = |kept: &ReservationView| kept.id.split_once('/').and_then(|(holder, _)| RegionId::new(holder).ok());
    let silences = granted.iter().filter_map(|kept| Some((kept, silent_for(&of(kept)?)?)));
    let overdue = silences.filter(|(_, silent)| *silent > bound);
    let told = overdue.map(|(kept, silent)| {
        format!("reservation {} of pool {} is kept, and its holder can have said nothing for {silent:?}", kept.id, kept.pool)
    });
    told.collect()
}

fn is_relied_upon(claim: &ClaimView) -> bool {
    claim.phase.is_some() && claim.valid_for_ms > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::reservation::{Confidence, Phase, Terms, Tier, Window};
    use tradewind_protocol::{PoolName, Resources, TenantName, Timestamp};

    fn id(name: &str) -> RegionId {
        RegionId::new(name).unwrap()
    }

    fn terms(units: u32) -> Terms {
        let window = Window { from: Timestamp::EPOCH, until: Timestamp::EPOCH.after(Duration::from_secs(9)) };
        let (tenant, unit, confidence) = (TenantName::default(), Resources::ZERO, Confidence::CERTAIN);
        Terms { tenant, unit, units, window, tier: Tier::Firm, confidence }
    }

    fn look(life: u64, at: u64, granted: &[u32], valid_for_ms: &[u64]) -> Look {
        let pool: PoolName = "web".parse().unwrap();
        let granted = granted.iter().map(|units| ReservationView {
            pool: pool.clone(),
            id: "b/7".into(),
            terms: terms(*units),
            phase: Phase::Confirmed,
            placed: 0,
            serves: None,
            leave_by: None,
            lapses_in_ms: Some(1),
        });
        let claimed = valid_for_ms.iter().map(|valid_for_ms| ClaimView {
            owner: id("a"),
            pool: pool.clone(),
            number: 7,
            terms: terms(2),
            phase: Some(Phase::Confirmed),
            valid_for_ms: *valid_for_ms,
        });
        let at = Duration::from_secs(at);
        Look { life, asked: at, answered: at, shown: Reservations { granted: granted.collect(), claimed: claimed.collect() } }
    }

    /// The owner is looked at between two looks at the holder.
    fn sandwich(before: Look, between: Look, after: Look) -> Vec<(RegionId, Broken)> {
        let mut promises = Promises::default();
        assert_eq!(promises.see(&id("b"), before), []);
        assert_eq!(promises.see(&id("a"), between), []);
        promises.see(&id("b"), after)
    }

    #[test]
    fn a_claim_that_is_valid_all_the_while_has_to_be_in_the_ledger_on_its_terms() {
        let (before, after) = (|| look(1, 1, &[], &[9_000]), || look(1, 3, &[], &[8_000]));
        assert_eq!(sandwich(before(), look(1, 2, &[2], &[]), after()), []);
        let forgotten = sandwich(before(), look(2, 2, &[], &[]), after());
        assert!(matches!(&forgotten[..], [(owner, Broken::Forgotten(what))] if *owner == id("a") && what.contains("b/7")), "{forgotten:?}");
        let altered = sandwich(before(), look(2, 2, &[1], &[]), after());
        assert!(
            matches!(&altered[..], [(_, Broken::Altered(what))] if what.contains("units: 1") && what.contains("units: 2")),
            "{altered:?}"
        );
    }

    #[test]
    fn nothing_is_kept_for_a_holder_that_is_silent_for_too_long() {
        let shown = look(1, 1, &[2], &[]).shown.granted;
        let overdue = |silent: Option<u64>| {
            overdue(&shown, Duration::from_secs(6), |holder| {
                assert_eq!(*holder, id("b"));
                silent.map(Duration::from_secs)
            })
        };
        assert!(overdue(None).is_empty() && overdue(Some(6)).is_empty());
        assert!(matches!(&overdue(Some(7))[..], [what] if what.contains("b/7")));
    }

    #[test]
    fn what_was_given_back_or_ran_out_or_is_another_life_s_is_not_missed() {
        let between = || look(1, 2, &[], &[]);
        assert_eq!(sandwich(look(1, 1, &[], &[9_000]), between(), look(1, 3, &[], &[0])), [], "not valid any more");
        assert_eq!(sandwich(look(1, 1, &[], &[]), between(), look(1, 3, &[], &[9_000])), [], "perhaps granted after the look");
        assert_eq!(sandwich(look(1, 1, &[], &[9_000]), between(), look(2, 3, &[], &[9_000])), [], "another life's number");
        assert_eq!(sandwich(look(1, 2, &[], &[9_000]), between(), look(1, 3, &[], &[9_000])), [], "not before the look");
    }
}
