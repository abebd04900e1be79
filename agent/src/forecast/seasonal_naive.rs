//! The value one season ago (Hyndman and Athanasopoulos, section 5.2): the yardstick.

use super::expert::{Forecaster, Silent};
use std::collections::VecDeque;

/// The value of the same step one season ago.
#[derive(Debug)]
pub(crate) struct SeasonalNaive {
    season: usize,
    /// The last season, oldest first.
    counts: VecDeque<f64>,
}

impl SeasonalNaive {
    /// A season of `season` steps, at least 1.
    pub(crate) fn new(season: usize) -> Self {
        let season = season.max(1);
        Self { season, counts: VecDeque::with_capacity(season) }
    }
}

impl Forecaster for SeasonalNaive {
    fn name(&self) -> &'static str {
        "seasonal-naive"
    }

    fn observe(&mut self, count: f64) {
        if self.counts.len() == self.season {
            self.counts.pop_front();
        }
        self.counts.push_back(count);
    }

    fn ready(&self) -> Result<(), Silent> {
        if self.counts.len() == self.season {
            return Ok(());
        }
        Err(Silent::TooShort { seen: self.counts.len() as u64, needed: self.season as u64 })
    }

    fn point(&self, ahead: usize) -> f64 {
        // The step one season before `ahead` steps from now, or several seasons for a long way.
        self.counts.get((ahead.max(1) - 1) % self.season).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_repeats_the_last_season_also_beyond_one() {
        let mut expert = SeasonalNaive::new(3);
        for count in [9.0, 1.0, 2.0] {
            assert!(expert.ready().is_err());
            expert.observe(count);
        }
        expert.observe(3.0);
        assert_eq!(expert.ready(), Ok(()));
        let path: Vec<f64> = (1..=7).map(|ahead| expert.point(ahead)).collect();
        assert_eq!(path, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    }
}
