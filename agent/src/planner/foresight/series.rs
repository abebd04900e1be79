//! What was seen of one series, and what a forecast of it is linear in.

use super::model::Center;
use std::collections::VecDeque;

/// What the location is linear in, see [`Series::features`].
pub(super) const LOCATION: usize = 8;
/// The last but one of the features: how much demand a season ago, around the step in question, lay above the last value.
const SEASONAL: usize = 6;

/// What was seen of a series.
#[derive(Debug, Clone)]
pub(super) struct Series {
    season: Option<usize>,
    pub(super) recent: VecDeque<f64>,
    pub(super) keep: usize,
    /// Smoothed over a few steps, and over a few dozen.
    pub(super) fast: f64,
    pub(super) slow: f64,
    /// What is forecast from outside for the next steps.
    pub(super) forecast: Vec<Center>,
}

impl Series {
    pub(super) fn new(lead: usize, season: Option<usize>) -> Self {
        Self { season, recent: VecDeque::new(), keep: season.unwrap_or(0) + lead + 16, fast: 0.0, slow: 0.0, forecast: Vec::new() }
    }

    pub(super) fn push(&mut self, demand: f64) {
        if self.recent.is_empty() {
            (self.fast, self.slow) = (demand, demand);
        }
        self.recent.push_back(demand);
        if self.recent.len() > self.keep {
            self.recent.pop_front();
        }
        self.fast += (demand - self.fast) / 4.0;
        self.slow += (demand - self.slow) / 36.0;
    }

    /// The demand so many steps ago; the oldest where that is longer than is known.
    pub(super) fn ago(&self, steps: usize) -> f64 {
        let at = self.recent.len().saturating_sub(1 + steps);
        self.recent.get(at).copied().unwrap_or(0.0)
    }

    /// Relative to the last value: changes, smoothed values, and how a season ago went on.
    pub(super) fn features(&self, ahead: usize) -> [f64; LOCATION] {
        let last = self.ago(0);
        let (before, then) = match self.season {
            Some(season) if self.recent.len() > season + 2 => {
                let mean = |ago: usize| (self.ago(ago + 1) + self.ago(ago) + self.ago(ago - 1)) / 3.0;
                let distance = season - ahead % season;
                (mean(season), if distance > 1 { mean(distance) } else { self.ago(distance) })
            }
            _ => (last, last),
        };
        [1.0, last - self.ago(1), self.ago(1) - self.ago(2), self.fast - last, self.slow - last, then - before, then - last, last]
    }

    /// Highest and lowest of the last six.
    pub(super) fn range(&self) -> (f64, f64) {
        self.recent.iter().rev().take(6).fold((0.0, f64::MAX), |(top, low), d| (d.max(top), d.min(low)))
    }

    /// The demand around `ahead` steps from now as it was a season ago; nothing where there is no season yet.
    pub(super) fn a_season_ago(&self, ahead: usize) -> Option<f64> {
        let season = self.season.filter(|season| self.recent.len() > season + 2)?;
        debug_assert!(season >= 2);
        Some(self.ago(0) + self.features(ahead)[SEASONAL])
    }
}
