//! Seasonal autoregression: the next step from the last few and from those a season ago, and so on step by step.
//!
//! A cheap seasonal ARIMA: the lags 1, 2, 3 and, around a season ago, the step before, the step itself and the one after, which is what
//! the product of an autoregression and a seasonal autoregression has (Box, Jenkins, Reinsel and Ljung, Time Series Analysis, 5th edition, section
//! 9.2), but with free coefficients that are learnt by recursive ridge regression ([`super::regression`]), on the root of the count less the last
//! season's mean. Longer horizons come from iterating it (the recursive strategy of Ben Taieb, Bontempi, Atiya and Sorjamaa 2012, section 2.1), where
//! [`super::direct_ridge`] has a model for each. Needs a season and a few steps.

use super::regression::Regression;
use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};

/// Lags 1, 2, 3, and those around a season.
const FEATURES: usize = 6;
/// The prior: the last value, a little faded, and as much of what was a season ago.
const PRIOR: [f64; FEATURES] = [0.8, 0.0, 0.0, 0.0, 0.15, 0.0];
/// Variance of the prior: it is worth some ten observations.
const VARIANCE: f64 = 0.1;
/// Memory of the regression: about a thousand steps.
const FORGET: f64 = 0.999;
/// Memory of the values' usual distance from the mean.
const SIZE_GAIN: f64 = 0.01;
/// Values beyond this many times the usual distance are learnt as this many: one flood must not turn the model.
const MAX_DEVIATION: f64 = 4.0;
/// No point further from the mean than this many times the largest distance of late.
const REACH: f64 = 1.25;
/// Steps beyond a season before it has something to learn from.
const MORE: u64 = 4;

/// The regression and the path that it leads to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Autoregression {
    horizon: usize,
    regression: Regression<FEATURES>,
    /// Usual and largest distance from the mean.
    size: f64,
    largest: f64,
    /// Roots of the steps to come.
    path: Vec<f64>,
}

impl Autoregression {
    /// For steps up to `horizon` ahead.
    pub(crate) fn new(horizon: usize) -> Self {
        let (regression, horizon) = (Regression::new(PRIOR, VARIANCE, FORGET), horizon.max(1));
        Self { horizon, regression, size: 0.0, largest: 0.0, path: vec![] }
    }

    /// Whether it is of this horizon.
    pub(super) fn fits(&self, horizon: usize) -> bool {
        self.horizon == horizon && (self.path.is_empty() || self.path.len() == horizon)
    }

    /// Of the step after those of `path`, which come after those that lie more than `skipped` steps back.
    fn features(&self, past: &Past, skipped: usize, path: &[f64], mean: f64) -> [f64; FEATURES] {
        let unit = self.size.max(f64::MIN_POSITIVE);
        let season = past.season();
        let lag = |lag: usize| {
            let value = match path.len().checked_sub(lag) {
                Some(at) => path[at],
                None => past.count(lag - path.len() + skipped).map_or(mean, |count| count.max(0.0).sqrt()),
            };
            ((value - mean) / unit).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        };
        [lag(1), lag(2), lag(3), lag(season + 1), lag(season), lag((season - 1).max(1))]
    }
}

impl Forecaster for Autoregression {
    fn name(&self) -> &'static str {
        "autoregression"
    }

    fn observe(&mut self, past: &Past) {
        let mean = past.mean();
        let value = past.root() - mean;
        let fading_in = 1.0 / past.seen() as f64;
        self.size += SIZE_GAIN.max(fading_in) * (value.abs() - self.size);
        self.largest = value.abs().max(self.largest * (1.0 - 0.5 / (2 * past.season()) as f64));
        if self.ready(past, 1).is_err() || self.size <= 0.0 {
            return;
        }
        let target = (value / self.size).clamp(-MAX_DEVIATION, MAX_DEVIATION);
        let features = self.features(past, 1, &[], mean);
        self.regression.learn(&features, target);
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        let bound = REACH * self.largest;
        for _ in 0..self.horizon {
            let said = self.regression.says(&self.features(past, 0, &path, mean)) * self.size;
            path.push(mean + said.clamp(-bound, bound));
        }
        self.path = path;
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.season() as u64 + MORE, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        // A series that never moved has no path.
        let root = self.path.get(ahead.clamp(1, self.horizon) - 1).copied().unwrap_or_else(|| past.root()).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;
    use crate::testing::noise;

    #[test]
    fn it_learns_an_autoregression_and_a_season() {
        // Roots around 20: half of the last deviation is left, and a season of 12 steps.
        let (mut told, mut deviation) = (Told::new(Autoregression::new(12), 12), 0.0);
        let shape = |at: usize| 4.0 * (at as f64 / 12.0 * std::f64::consts::TAU).sin();
        for at in 0..6_000 {
            deviation = 0.5 * deviation + noise(at) - 0.5;
            told.observe((20.0 + shape(at) + deviation).powi(2));
        }
        for ahead in [1, 3, 6, 12] {
            let (said, comes) = (told.point(ahead).sqrt(), 20.0 + shape(5_999 + ahead) + deviation * 0.5_f64.powi(ahead as i32));
            assert!((said - comes).abs() < 0.4, "{said} for {comes}, {ahead} ahead");
        }
        assert_eq!(told.point(500), told.point(12));
    }

    #[test]
    fn it_needs_a_season_and_some_and_says_the_last_value_of_what_never_moves() {
        let mut told = Told::new(Autoregression::new(3), 1);
        (0..4).for_each(|_| told.observe(9.0));
        assert_eq!(told.ready(1), Err(Silent::TooShort { seen: 4, needed: 5 }));
        (0..40).for_each(|_| told.observe(9.0));
        assert!((told.point(3) - 9.0).abs() < 1e-9);
    }
}
