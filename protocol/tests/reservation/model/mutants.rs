//! What is done wrong on purpose, in either side or between them: the model has to notice each.

use super::pair::Space;
use super::{check, one_request, two_requests};
use stateright::Checker;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// The holder assumes that clocks do not drift.
    NoDriftMargin,
    /// The holder counts from its newest request, whichever was answered.
    CountsFromLastSending,
    /// The holder relies on what was once promised.
    BelievesForEver,
    /// A grant is answered and not written.
    GrantNotDurable,
    /// The end of a reservation is not written.
    EndNotDurable,
    /// What was restored lapses as if the owner had not been away.
    TtlNotRestarted,
    /// A holder's next life uses the numbers of the last.
    NumbersReused,
    /// The owner counts promises by its wall clock.
    TtlByWallClock,
    /// The owner ends what is over by its wall clock at once.
    NoWallGuard,
    /// The owner forgets a release of what it does not know yet.
    EarlyReleaseForgotten,
    /// The owner gives a promise back to the pool a tick early.
    LapsesEarly,
    /// An instance that was started for a reservation is not written, though the reservation without its unit is.
    PlacingNotDurable,
}

/// Where each is noticed, and which rule it breaks first.
const MUTANTS: [(Mutant, &str); 12] = [
    (Mutant::NoDriftMargin, "R2"),
    (Mutant::CountsFromLastSending, "R2"),
    (Mutant::BelievesForEver, "R2"),
    (Mutant::GrantNotDurable, "R2"),
    (Mutant::EndNotDurable, "R3"),
    (Mutant::TtlNotRestarted, "R2"),
    (Mutant::NumbersReused, "R2"),
    (Mutant::TtlByWallClock, "R2"),
    (Mutant::NoWallGuard, "R5"),
    (Mutant::EarlyReleaseForgotten, "R3"),
    (Mutant::LapsesEarly, "R2"),
    (Mutant::PlacingNotDurable, "R6"),
];

#[test]
fn every_mutant_is_killed() {
    for (mutant, rule) in MUTANTS {
        // A number is only used again by a second request.
        let within = if mutant == Mutant::NumbersReused { two_requests() } else { one_request() };
        let space = Space { mutant, ..within };
        let checker = check(&space);
        let Some(path) = checker.discovery("no rule is broken") else {
            panic!("{mutant:?} survives {space}, {} states", checker.unique_state_count());
        };
        let broken = path.last_state().broken;
        let (states, steps) = (checker.unique_state_count(), path.into_actions().len());
        println!("{mutant:?}: {} in {steps} steps, after {states} states of {space}", broken.unwrap_or("-"));
        assert_eq!(broken, Some(rule), "{mutant:?}");
    }
}
