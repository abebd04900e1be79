//! What all experts of a series look at: its last counts, the shape of its season, and the week before.
//!
//! Kept once for all of them, on the scale on which most of them compute: the square root of the count, the Box-Cox transformation that
//! stabilises the variance of counts, needs no unit, takes zeros, and cannot explode on the way back (Hyndman and Athanasopoulos, Forecasting:
//! Principles and Practice, 3rd edition, section 3.1). It foresees nothing itself.

use super::profile::SeasonalProfile;
use super::week::LastWeek;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The past of one series.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Past {
    season: usize,
    seen: u64,
    /// The last two seasons' counts, oldest first.
    counts: VecDeque<f64>,
    root: f64,
    /// How far the last step was known to lie above the season's mean, before it came.
    foretold: f64,
    profile: SeasonalProfile,
    week: LastWeek,
}

impl Past {
    /// A season of `season` steps, at least 1.
    pub(crate) fn new(season: usize) -> Self {
        let season = season.max(1);
        let (profile, week) = (SeasonalProfile::new(season), LastWeek::new(season));
        Self { season, seen: 0, counts: VecDeque::new(), root: 0.0, foretold: 0.0, profile, week }
    }

    /// Whether it is of this season.
    pub(crate) fn fits(&self, season: usize) -> bool {
        self.season == season && self.counts.len() <= 2 * season && self.profile.fits(season) && self.week.fits(season)
    }

    /// Whether these counts, oldest first, end with those that are known; not where there are none, or fewer than there were.
    pub(crate) fn was_told(&self, counts: &[f64]) -> bool {
        let newest_first = self.counts.iter().rev();
        let same = newest_first.zip(counts.iter().rev()).all(|(told, count)| told == count);
        same && !self.counts.is_empty() && counts.len() >= self.counts.len()
    }

    /// Learns the count of the step after the last one, finite and at least 0. The shapes of the season and of the week, which keep what
    /// they learn for days, learn what was `likely` of it.
    pub(crate) fn observe(&mut self, count: f64, likely: f64) {
        self.foretold = self.profile.deviation(1);
        self.root = count.max(0.0).sqrt();
        let likely = likely.max(0.0).sqrt();
        self.profile.observe(likely);
        self.week.observe(likely, self.profile.mean());
        if self.counts.len() == 2 * self.season {
            self.counts.pop_front();
        }
        self.counts.push_back(count);
        self.seen += 1;
    }

    /// Steps in a season.
    pub(crate) fn season(&self) -> usize {
        self.season
    }

    /// How many steps there were.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The count `ago` steps ago (1: the last one), within two seasons.
    pub(crate) fn count(&self, ago: usize) -> Option<f64> {
        self.counts.len().checked_sub(ago).and_then(|at| self.counts.get(at)).copied()
    }

    /// The last `most` counts, oldest first, within two seasons.
    pub(crate) fn last(&self, most: usize) -> impl Iterator<Item = f64> {
        self.counts.iter().skip(self.counts.len().saturating_sub(most)).copied()
    }

    /// The last root.
    pub(crate) fn root(&self) -> f64 {
        self.root
    }

    /// The root of the count one season before the step `ahead`, or as many seasons as lie ahead.
    pub(crate) fn root_a_season_before(&self, ahead: usize) -> Option<f64> {
        self.count(self.ago(ahead)).map(|count| count.max(0.0).sqrt())
    }

    /// How many steps ago (1: the last one) the step was that lies a season before the one `ahead`, or as many seasons as lie ahead.
    pub(crate) fn ago(&self, ahead: usize) -> usize {
        self.season - (ahead.max(1) - 1) % self.season
    }

    /// The mean root of the last season.
    pub(crate) fn mean(&self) -> f64 {
        self.profile.mean()
    }

    /// How far the root of the step `ahead` (0: the last one) lies above the season's mean by the shape of the season; zero before that is known.
    pub(crate) fn deviation(&self, ahead: usize) -> f64 {
        self.profile.deviation(ahead)
    }

    /// The same of the last step, as it was known before it.
    pub(crate) fn foretold(&self) -> f64 {
        self.foretold
    }

    /// How many steps have to be seen before the shape of the season is known.
    pub(crate) fn shape_needs(&self) -> u64 {
        self.profile.needed()
    }

    /// What the mean week says of the root of the step `ahead` (0: the last one), if there was a week.
    pub(crate) fn mean_week(&self, ahead: usize) -> Option<f64> {
        self.week.mean_week(ahead)
    }

    /// How many steps have to be seen before a mean week is known.
    pub(crate) fn week_needs(&self) -> u64 {
        self.week.needed()
    }

    /// What came a week before the step `ahead` (0: the last one) on top of what the season's shape tells, if there was a week.
    pub(crate) fn a_week_before(&self, ahead: usize) -> Option<f64> {
        Some(self.week.above_mean(ahead)? - self.profile.deviation(ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_last_two_seasons_and_what_was_known_before_the_last_step() {
        let mut past = Past::new(3);
        assert_eq!((past.count(1), past.root_a_season_before(1)), (None, None));
        (0..9).map(|at| [1.0, 4.0, 9.0][at % 3]).for_each(|count| past.observe(count, count));
        assert_eq!((past.count(1), past.count(6), past.count(7)), (Some(9.0), Some(1.0), None));
        assert_eq!((past.root(), past.root_a_season_before(1), past.root_a_season_before(6)), (3.0, Some(1.0), Some(3.0)));
        assert!((past.mean() - 2.0).abs() < 1e-12 && (past.foretold() - 1.0).abs() < 1e-12 && past.seen() >= past.shape_needs());
        assert_eq!((past.a_week_before(1), past.mean_week(1), past.week_needs()), (None, None, 21));
    }

    #[test]
    fn shapes_learn_what_was_likely_and_the_last_value_is_what_came() {
        let (mut past, mut ordinary) = (Past::new(4), Past::new(4));
        for at in 0..80 {
            past.observe(if at == 60 { 10_000.0 } else { 100.0 }, 100.0);
            ordinary.observe(100.0, 100.0);
            let came = if at == 60 { 100.0 } else { 10.0 };
            assert_eq!((past.root(), past.mean(), past.deviation(1)), (came, ordinary.mean(), ordinary.deviation(1)));
        }
        assert_eq!(past.mean_week(1), ordinary.mean_week(1));
    }
}
