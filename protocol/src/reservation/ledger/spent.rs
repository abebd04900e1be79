//! Which of a holder's ids have ended, in bounded memory: single numbers, and a low-water mark below which
//! all have.
//!
//! Invariant: no single number is below the mark.

use std::collections::BTreeSet;

/// How many single numbers are kept for one holder; beyond, the mark rises over the lowest. A number that is
/// refused though it was never used costs its holder one more request.
pub(super) const MAX_SPENT: usize = 1_024;

/// So many single numbers are worth raising the mark for: each rise is written.
const WORTH_RAISING: usize = 16;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Spent {
    below: u64,
    single: BTreeSet<u64>,
}

/// The mark is now there, and covers these.
pub(super) struct Raised {
    pub(super) below: u64,
    pub(super) covers: Vec<u64>,
}

impl Spent {
    pub(super) fn contains(&self, number: u64) -> bool {
        number < self.below || self.single.contains(&number)
    }

    /// Notes an end. The mark has to rise where too many are kept.
    pub(super) fn insert(&mut self, number: u64) -> Option<Raised> {
        if number >= self.below {
            self.single.insert(number);
        }
        let lowest = *self.single.first()?;
        (self.single.len() > MAX_SPENT).then(|| self.raise(lowest.saturating_add(1)))
    }

    /// The holder asks nothing more about numbers below this.
    pub(super) fn settle(&mut self, below: u64) -> Option<Raised> {
        (below > self.below && self.single.range(..below).count() >= WORTH_RAISING).then(|| self.raise(below))
    }

    /// Raises the mark, whatever it is worth.
    pub(super) fn raise(&mut self, below: u64) -> Raised {
        self.below = self.below.max(below);
        let kept = self.single.split_off(&self.below);
        let covers = std::mem::replace(&mut self.single, kept).into_iter().collect();
        Raised { below: self.below, covers }
    }

    /// Whether it is kept by itself.
    pub(super) fn contains_single(&self, number: u64) -> bool {
        self.single.contains(&number)
    }

    /// How many single numbers are kept.
    pub(super) fn len(&self) -> usize {
        self.single.len()
    }

    /// Whether the mark is above all single numbers.
    pub(super) fn is_sound(&self) -> bool {
        self.single.first().is_none_or(|first| *first >= self.below)
    }
}
