//! The counts of one series, step by step, in four bytes a step.
//!
//! Invariants: the ring has no gaps (a step without records counts zero), its counts are exact
//! (what does not fit into 32 bits has its upper half on the side), and it is never longer than
//! what [`Ring::forget_before`] leaves plus what was added since.

use std::collections::{BTreeMap, VecDeque};
use tradewind_protocol::StepIndex;

/// The longest ring, 16 MiB: more than is ever kept and ahead of it. Only a clock that jumped and
/// came back can ask for more; then the newer count stays and the older ones go.
const MAX_RING_STEPS: u64 = 4 << 20;

/// Room that is not given back, in steps.
const MIN_ROOM: usize = 64;

/// Counts of consecutive steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ring {
    first: StepIndex,
    low: VecDeque<u32>,
    /// The upper halves that are not zero: steps with over four billion transactions.
    high: BTreeMap<StepIndex, u32>,
}

impl Ring {
    /// The last step that has a count, if any has.
    pub(crate) fn last(&self) -> Option<StepIndex> {
        let len = i64::try_from(self.low.len()).ok()?;
        (len > 0).then(|| self.first.offset(len - 1))
    }

    /// The first step at or after `step` that the ring reaches.
    pub(crate) fn first_from(&self, step: StepIndex) -> Option<StepIndex> {
        self.last().map(|last| (self.first.max(step), last)).filter(|(first, last)| first <= last).map(|(first, _)| first)
    }

    /// The count of `step`; zero outside the ring.
    pub(crate) fn get(&self, step: StepIndex) -> u64 {
        let low = self.place(step).and_then(|place| self.low.get(place)).copied().unwrap_or(0);
        u64::from(low) | u64::from(self.high.get(&step).copied().unwrap_or(0)) << 32
    }

    /// Adds to the count of `step`, which the caller has checked to be within what is kept: the
    /// ring grows to reach it.
    pub(crate) fn add(&mut self, step: StepIndex, count: u64) {
        if self.low.is_empty() || step.0.abs_diff(self.first.0) >= MAX_RING_STEPS {
            *self = Self { first: step, ..Self::default() };
        }
        if step < self.first && self.last().is_some_and(|last| last.0.abs_diff(step.0) >= MAX_RING_STEPS) {
            *self = Self { first: step, ..Self::default() };
        }
        while step < self.first {
            self.low.push_front(0);
            self.first = self.first.offset(-1);
        }
        let Some(place) = self.place(step) else { return };
        if self.low.len() <= place {
            self.low.resize(place + 1, 0);
        }
        let sum = self.get(step).saturating_add(count);
        self.low[place] = sum as u32;
        match (sum >> 32) as u32 {
            0 => {}
            high => {
                self.high.insert(step, high);
            }
        }
    }

    /// Drops all steps before `step`.
    pub(crate) fn forget_before(&mut self, step: StepIndex) {
        while self.first < step && self.low.pop_front().is_some() {
            self.first = self.first.offset(1);
        }
        if self.low.capacity() > 4 * self.low.len().max(MIN_ROOM) {
            self.low.shrink_to(2 * self.low.len());
        }
        if self.low.is_empty() {
            self.low.shrink_to_fit();
        }
        if !self.high.is_empty() {
            self.high = self.high.split_off(&step);
        }
    }

    fn place(&self, step: StepIndex) -> Option<usize> {
        usize::try_from(step.0.checked_sub(self.first.0)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_ring_counts_as_a_map_does(
            adds in proptest::collection::vec((0i64..60, prop_oneof![0u64..100, Just(u64::from(u32::MAX)), Just(1u64 << 40)]), 0..60),
            forget in 0i64..70
        ) {
            let (mut ring, mut map) = (Ring::default(), BTreeMap::<i64, u64>::new());
            for (step, count) in &adds {
                ring.add(StepIndex(*step), *count);
                *map.entry(*step).or_default() += count;
            }
            ring.forget_before(StepIndex(forget));
            map.retain(|step, _| *step >= forget);
            for step in -5..90 {
                prop_assert_eq!(ring.get(StepIndex(step)), map.get(&step).copied().unwrap_or(0));
            }
            prop_assert_eq!(ring.last(), map.keys().next_back().map(|last| StepIndex(*last)));
        }
    }
}
