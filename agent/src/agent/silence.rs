//! Steps of which nothing came: their records are late, and the forecasts go on by what they foresaw. Pure.
//!
//! Records come late from a client that stood still or over a network that was cut; they are learnt once they are there. That all traffic has
//! ended looks the same at first, so that silence is believed after a few steps, until something is counted again.

use std::collections::BTreeMap;
use tradewind_protocol::SeriesKey;

/// Nothing counted in any series where at least so many transactions were foreseen is no chance, which would have a probability of exp(-30)
/// (Poisson).
const ENOUGH: f64 = 30.0;

/// For so many steps in a row; then it is the truth.
const MAX_STEPS: u32 = 3;

/// The silence up to the last closed step.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// How many steps in a row nothing was counted.
    steps: u32,
    late: bool,
}

impl Silence {
    /// Whether the records of the last closed step are late.
    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Sees the counts of the next step, of which these medians were foreseen. Where its records are late, the medians stand in for the counts.
    pub(super) fn stand_in<'a>(&mut self, counts: &mut [(SeriesKey, f64)], foreseen: impl FnOnce() -> BTreeMap<&'a SeriesKey, f64>) {
        self.late = false;
        if counts.iter().any(|(_, count)| *count != 0.0) {
            self.steps = 0;
            return;
        }
        self.steps = self.steps.saturating_add(1);
        if self.steps > MAX_STEPS {
            return;
        }
        let foreseen = foreseen();
        self.late = foreseen.values().sum::<f64>() >= ENOUGH;
        if self.late {
            counts.iter_mut().for_each(|(key, count)| *count = foreseen.get(key).copied().unwrap_or(*count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::RegionId;

    fn key(source: &str) -> SeriesKey {
        SeriesKey {
            tenant: Default::default(),
            source: RegionId::new(source).unwrap(),
            destination: RegionId::new("here").unwrap(),
            service: Default::default(),
            transaction_type: Default::default(),
        }
    }

    /// What is learnt of a step in which series a and b, of which this is foreseen, count this; and whether its records are late.
    fn learnt(silence: &mut Silence, foreseen: [f64; 2], counted: [f64; 2]) -> ([f64; 2], bool) {
        let keys = [key("a"), key("b")];
        let mut counts: Vec<_> = keys.iter().cloned().zip(counted).collect();
        silence.stand_in(&mut counts, || keys.iter().zip(foreseen).collect());
        ([counts[0].1, counts[1].1], silence.is_late())
    }

    #[test]
    fn what_was_foreseen_stands_in_for_a_step_of_which_nothing_came() {
        let mut silence = Silence::default();
        assert_eq!(learnt(&mut silence, [20.0, 10.0], [19.0, 0.0]), ([19.0, 0.0], false), "one series may be silent");
        assert_eq!(learnt(&mut silence, [20.0, 10.0], [0.0, 0.0]), ([20.0, 10.0], true));
        assert_eq!(learnt(&mut silence, [20.0, 10.0], [19.0, 9.0]), ([19.0, 9.0], false));
        assert_eq!(learnt(&mut silence, [20.0, 9.0], [0.0, 0.0]), ([0.0, 0.0], false), "of little it is no wonder");
    }

    #[test]
    fn silence_that_lasts_is_believed_until_something_comes() {
        let mut silence = Silence::default();
        let late: Vec<bool> = (0..10).map(|_| learnt(&mut silence, [20.0, 10.0], [0.0, 0.0]).1).collect();
        assert_eq!(late, [[true; 3].as_slice(), &[false; 7]].concat());
        learnt(&mut silence, [20.0, 10.0], [1.0, 0.0]);
        assert!(learnt(&mut silence, [20.0, 10.0], [0.0, 0.0]).1);
    }
}
