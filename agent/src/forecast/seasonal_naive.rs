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

    /// How many steps before now (1: the last one) the step one season before the one `ahead` was, or several seasons for a long way.
    fn ago(&self, ahead: usize) -> usize {
        self.season - (ahead.max(1) - 1) % self.season
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

    /// A season less as many steps as lie ahead: a young series knows what was a season before a step that is far enough.
    fn ready(&self, ahead: usize) -> Result<(), Silent> {
        let (seen, needed) = (self.counts.len(), self.ago(ahead));
        if seen < needed { Err(Silent::TooShort { seen: seen as u64, needed: needed as u64 }) } else { Ok(()) }
    }

    fn point(&self, ahead: usize) -> f64 {
        self.counts.len().checked_sub(self.ago(ahead)).and_then(|at| self.counts.get(at)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_repeats_the_last_season_also_beyond_one() {
        let mut expert = SeasonalNaive::new(3);
        for count in [9.0, 1.0, 2.0] {
            assert!(expert.ready(1).is_err());
            expert.observe(count);
        }
        expert.observe(3.0);
        assert_eq!(expert.ready(1), Ok(()));
        let path: Vec<f64> = (1..=7).map(|ahead| expert.point(ahead)).collect();
        assert_eq!(path, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    }

    #[test]
    fn a_young_series_already_knows_what_was_a_season_before_a_far_step() {
        let mut expert = SeasonalNaive::new(4);
        [9.0, 1.0].into_iter().for_each(|count| expert.observe(count));
        assert_eq!(expert.ready(2), Err(Silent::TooShort { seen: 2, needed: 3 }));
        assert_eq!((expert.ready(3), expert.point(3), expert.point(4)), (Ok(()), 9.0, 1.0));
        assert_eq!((expert.ready(8), expert.point(8)), (Ok(()), 1.0));
    }
}
