//! A bounded window of the last errors, with their quantiles.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The last errors of one lane, also in order of size.
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Recent")]
pub(crate) struct ErrorWindow {
    capacity: usize,
    /// Oldest first.
    recent: VecDeque<f32>,
    /// The same, ascending.
    #[serde(skip)]
    sorted: Vec<f32>,
}

/// What is kept of a window.
#[derive(Deserialize)]
struct Recent {
    capacity: usize,
    recent: VecDeque<f32>,
}

impl From<Recent> for ErrorWindow {
    fn from(Recent { capacity, recent }: Recent) -> Self {
        let mut sorted: Vec<f32> = recent.iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        Self { capacity, recent, sorted }
    }
}

impl ErrorWindow {
    /// Keeps the last `capacity` errors, at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), recent: VecDeque::new(), sorted: vec![] }
    }

    /// Takes one in, and the oldest out if the window is full. What is not finite is ignored.
    pub(crate) fn push(&mut self, error: f64) {
        let error = error as f32;
        if !error.is_finite() {
            return;
        }
        self.recent.push_back(error);
        let above = self.sorted.partition_point(|x| x.total_cmp(&error).is_lt());
        let oldest = if self.recent.len() > self.capacity { self.recent.pop_front() } else { None };
        let Some(oldest) = oldest else {
            self.sorted.insert(above, error);
            return;
        };
        // Only what lies between the two moves.
        let leaves = self.sorted.partition_point(|x| x.total_cmp(&oldest).is_lt());
        let enters = if leaves < above { above - 1 } else { above };
        if leaves < enters {
            self.sorted.copy_within(leaves + 1..=enters, leaves);
        } else {
            self.sorted.copy_within(enters..leaves, enters + 1);
        }
        self.sorted[enters] = error;
    }

    /// How many errors there are.
    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The `level`-quantile of the errors, at plotting positions `i / (n + 1)`, so that a level
    /// beyond what `n` errors can show is the outermost of them. `None` without errors.
    pub(crate) fn quantile(&self, level: f64) -> Option<f64> {
        quantile(&self.sorted, level)
    }
}

/// The same of errors in ascending order.
pub(crate) fn quantile(sorted: &[f32], level: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = (level * (sorted.len() + 1) as f64 - 1.0).clamp(0.0, last as f64);
    let below = position.floor() as usize;
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[(below + 1).min(last)]));
    Some(low + (position - position.floor()) * (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_follow_the_last_errors_only() {
        let mut window = ErrorWindow::new(3);
        assert_eq!(window.quantile(0.5), None);
        for error in [100.0, 3.0, f64::NAN, 1.0, 2.0] {
            window.push(error);
        }
        assert_eq!(window.len(), 3);
        assert_eq!((window.quantile(0.0), window.quantile(0.5), window.quantile(1.0)), (Some(1.0), Some(2.0), Some(3.0)));
        assert_eq!(window.quantile(0.375), Some(1.5));
    }

    proptest! {
        #[test]
        fn the_sorted_half_is_the_recent_half(errors in proptest::collection::vec(-1e3..1e3f64, 0..60)) {
            let mut window = ErrorWindow::new(16);
            for error in errors {
                window.push(error);
                let mut recent: Vec<f32> = window.recent.iter().copied().collect();
                recent.sort_by(f32::total_cmp);
                prop_assert_eq!(&recent, &window.sorted);
            }
        }
    }
}
