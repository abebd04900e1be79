//! Seeded bugs and coverage marks, for the simulator to prove itself on.
//!
//! `bug!("name")` is a place where the agent goes wrong on purpose, if the feature `mutants` is built
//! in and the environment variable `CHOSEN_BY` names it; `sometimes!("name")` counts that a place
//! was reached that a good set of simulations must reach. Without the feature, which no program that
//! users run has, the first is the constant `false` and the second nothing: both vanish.
//!
//! Invariant: every name is used in the source and listed in `BUGS` or `MARKS`; a test reads the
//! source to compare.

/// The environment variable that names the seeded bug of this process.
#[cfg(feature = "mutants")]
pub const CHOSEN_BY: &str = "TRADEWIND_BUG";

/// Whether to go wrong here.
macro_rules! bug {
    ($name:literal) => {
        $crate::marks::is_seeded($name)
    };
}
pub(crate) use bug;

/// Counts that this place was reached.
macro_rules! sometimes {
    ($name:literal) => {
        $crate::marks::reach($name)
    };
}
pub(crate) use sometimes;

#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn is_seeded(_: &'static str) -> bool {
    false
}

#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn reach(_: &'static str) {}

#[cfg(feature = "mutants")]
pub use active::{chosen, reached};
#[cfg(feature = "mutants")]
pub(crate) use active::{is_seeded, reach};

/// A bug that can be seeded.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bug {
    /// What [`CHOSEN_BY`] calls it.
    pub name: &'static str,
    /// The part of the agent that has it.
    pub part: &'static str,
    /// What goes wrong.
    pub what: &'static str,
}

#[cfg(feature = "mutants")]
macro_rules! bugs {
    ($($part:literal: { $($name:literal => $what:literal),* $(,)? })*) => {
        &[$($(Bug { name: $name, part: $part, what: $what }),*),*]
    };
}

/// Every seeded bug.
#[cfg(feature = "mutants")]
pub const BUGS: &[Bug] = bugs! {
    "storage": {
        "commit-without-sync" => "counts are committed without an fsync",
        "batch-keys-not-written" => "idempotency keys are not made durable",
        "batch-keys-not-read" => "idempotency keys are forgotten at restart",
        "record-ids-not-written" => "record ids are not made durable",
        "counts-not-read" => "counts are forgotten at restart",
        "generation-not-written" => "the agent's generation is not made durable",
        "receipts-not-written" => "what a sender was told of a batch is not made durable",
        "events-not-read" => "events of the calendar are forgotten at restart",
        "staging-not-read" => "what was staged is forgotten at restart",
        "memories-not-read" => "what the planner has learned is forgotten at restart"
    }
    "ingest": {
        "ack-before-commit" => "a batch is acknowledged before it is durable",
        "key-not-checked" => "a known idempotency key is counted again",
        "record-ids-not-checked" => "a known record id is counted again",
        "late-counts-dropped" => "records for a closed step are acknowledged and dropped",
        "rollup-off-by-one" => "counts go to the step after",
        "counted-twice" => "memory counts twice what the file counts once"
    }
    "steps": {
        "step-skipped" => "every other step is not closed",
        "step-closed-early" => "a step is closed while it runs",
        "plan-not-applied" => "plans after the first are not carried out",
        "clock-set-back-silences" => "a region whose clock was set back says nothing until it has caught up",
        "late-counts-wait-for-the-clock" => "a region whose clock was set back learns no late records until it has caught up"
    }
    "mesh": {
        "new-life-ignored" => "a restarted agent is not believed",
        "sequence-not-checked" => "an older card replaces a newer one",
        "former-generation-ignored" => "an agent that peers know a later life of does not go beyond it",
        "former-states-kept" => "the states that a region has published before are never freed",
        "states-not-fetched" => "states that no push has brought are not fetched",
        "fetch-not-retried" => "a fetch that failed is not tried again",
        "states-not-pushed" => "a changed state is not pushed",
        "publishing-stalls" => "a state is no longer published after twenty",
        "dial-not-retried" => "an address that did not answer is not dialled again",
        "dead-link-kept" => "a connection that ended is held to be there",
        "silence-is-life" => "an agent once met is live for ever",
        "budget-ignored" => "the byte budget of a state is not kept",
        "mtu-assumed" => "paths are taken to carry Ethernet frames",
        "card-not-verified" => "a card's signature and certificate are not looked at",
        "foreign-state-taken" => "a region may publish the state of another",
        "guard-lets-foreign-pass" => "gossip about regions that no card speaks for reaches chitchat",
        "stalled-link-kept" => "a connection that brings no answer is never given up",
        "backed-off-link-kept" => "a connection on which QUIC waits is kept although a state is not acknowledged",
        "congestion-window-without-floor" => "after losses a congestion window is two datagrams",
        "still-heartbeat-believed" => "a heartbeat that stands still is a sign of life"
    }
    "planner": {
        "floor-ignored" => "the demand seen last is no floor",
        "scale-in-at-once" => "scale-in does not wait",
        "stale-forecasts-used" => "a forecast is never too old",
        "max-ignored" => "a plan may have more instances than the pool",
        "lead-ignored" => "a plan looks one step ahead, however long a start takes",
        "plan-flaps" => "every other plan has an instance more than is needed",
        "second-plan-replaces-need" => "of several plans of one step only the last need is remembered"
    }
    "pool": {
        "released-before-gone" => "a draining instance no longer counts in the ledger",
        "ledger-not-read" => "the ledger is forgotten at restart",
        "ledger-not-written" => "the ledger is not made durable",
        "terms-read-short" => "after a restart the ledger has a unit less of what is promised",
        "hold-always-fits" => "the ledger grants what does not fit",
        "reservations-never-lapse" => "what a holder no longer refreshes stays in the ledger",
        "max-not-kept" => "the reconciler starts instances beyond the maximum",
        "double-start" => "instances that are starting are started again",
        "drain-forgotten" => "an order to drain is never given",
        "adoption-forgotten" => "instances of an earlier life are not adopted",
        "activation-forgotten" => "warm instances are never activated",
        "end-not-delayed" => "an order to end an instance that failed is given again at once",
        "ending-spot-counted" => "an instance that does not obey is counted on where the spot market has none",
        "tried-market-offered" => "a spot market that is being tried with one instance is asked for more",
        "orders-known-when-listed" => "what an order has done is not known before it is listed",
        "careful-until-forgiven" => "after failures instances are started one by one until all are forgiven",
        "joint-failures-add-up" => "each of several starts that fail together doubles the pause",
        "long-served-is-failed-start" => "the end of an instance that served for long counts as a failed start"
    }
};

/// Every coverage mark.
#[cfg(feature = "mutants")]
pub const MARKS: &[&str] = &[
    "ingest.late-record-counted",
    "ingest.key-replayed",
    "ingest.id-repeated",
    "ingest.two-batches-in-one-commit",
    "storage.commit-failed",
    "storage.file-made-anew",
    "mesh.new-life",
    "mesh.contradiction",
    "mesh.generation-exceeded",
    "mesh.fetch-started",
    "mesh.fetch-failed",
    "mesh.state-cut-to-budget",
    "mesh.connections-crossed",
    "mesh.connection-stalled",
    "mesh.region-left",
    "mesh.region-returned",
    "mesh.gossip-on-a-stream",
    "mesh.gossip-left-out",
    "planner.stale-source",
    "planner.departed-source",
    "planner.scale-in-waits",
    "planner.blocked",
    "planner.floor-decides",
    "steps.caught-up",
    "steps.forecast-restored",
    "steps.late-counts-wait",
    "steps.nothing-came",
    "pool.adopted",
    "pool.does-not-fit",
    "pool.waits-for-room",
    "pool.returned-to-warm",
    "pool.lost",
];

#[cfg(feature = "mutants")]
mod active {
    use std::collections::BTreeMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(super::CHOSEN_BY).ok());
    static REACHED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

    /// The bug that this process was told to have.
    pub fn chosen() -> Option<&'static str> {
        CHOSEN.as_deref()
    }

    /// How often each mark, and the seeded bug, was reached in this process.
    pub fn reached() -> BTreeMap<String, u64> {
        let reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
        reached.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect()
    }

    pub(crate) fn is_seeded(name: &'static str) -> bool {
        let seeded = chosen() == Some(name);
        if seeded {
            reach(name);
        }
        seeded
    }

    pub(crate) fn reach(name: &'static str) {
        *REACHED.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The names in `macro!("name")` in all files under `folder`, but for this one.
    fn used(folder: &Path, opening: &str, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                used(&path, opening, names);
            } else if !path.ends_with("marks.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                names.extend(text.split(opening).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn every_bug_and_every_mark_is_in_the_source_and_in_the_list() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let names = |opening: &str| {
            let mut names = BTreeSet::new();
            used(&source, opening, &mut names);
            names
        };
        assert_eq!(names("bug!(\""), BUGS.iter().map(|bug| bug.name.to_owned()).collect());
        assert_eq!(names("sometimes!(\""), MARKS.iter().map(|mark| (*mark).to_owned()).collect());
    }
}
