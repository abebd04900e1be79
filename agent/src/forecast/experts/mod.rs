//! What every expert is: a predictor of one series that learns one count at a time. One file each.
//!
//! An expert knows nothing of quantiles, of other experts or of time: the steps come in order, one
//! [`Forecaster::observe`] each, and what was counted is in the [`Past`] that all share. How far it is to be believed, and how wide the interval
//! around it has to be, is measured outside ([`super::mix`], [`super::lane`]), so that a good and a bad
//! expert need not differ in anything but their points.
//!
//! All learn incrementally, in a time that does not depend on the length of the series. The libraries that offer the same methods fit the whole
//! series anew, which takes them 5 to 170 ms a series and origin; here a step costs all experts together some ten microseconds.

mod autoregression;
mod direct_ridge;
mod drift;
mod holt_winters;
mod last_value;
mod mstl;
mod prophet;
mod regression;
mod seasonal_mean;
mod seasonal_naive;
mod smoothing;
mod theta;
mod weekly_mean;

use super::past::Past;
use serde::{Deserialize, Serialize};
use std::fmt;

pub(crate) use seasonal_naive::SeasonalNaive;

/// The experts' names, in ascending order of what they know.
pub const EXPERTS: [&str; 11] = [
    "last-value",
    "drift",
    "seasonal-naive",
    "seasonal-mean",
    "weekly-mean",
    "holt-winters",
    "theta",
    "mstl",
    "prophet",
    "autoregression",
    "direct-ridge",
];

/// What each weighs where all lose the same: who say much the same (the last values, the mean days, the smoothers) share one place. Measured on
/// validation data: equal weights lose 0.4 % there, and sharper or flatter shares change little.
pub(crate) const SHARES: [f64; EXPERTS.len()] = [0.8, 0.2, 0.5, 0.5, 1.0, 0.4, 0.3, 0.3, 0.7, 0.7, 1.0];

/// All of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Experts {
    holt_winters: holt_winters::HoltWinters,
    theta: theta::Theta,
    mstl: mstl::Mstl,
    prophet: prophet::Prophet,
    autoregression: autoregression::Autoregression,
    direct_ridge: direct_ridge::DirectRidge,
}

impl Experts {
    /// For steps up to `horizon` ahead and a season of `season` steps.
    pub(crate) fn new(horizon: usize, season: usize) -> Self {
        Self {
            holt_winters: holt_winters::HoltWinters::new(),
            theta: theta::Theta::new(season),
            mstl: mstl::Mstl::new(),
            prophet: prophet::Prophet::new(season),
            autoregression: autoregression::Autoregression::new(horizon),
            direct_ridge: direct_ridge::DirectRidge::new(horizon),
        }
    }

    /// As [`EXPERTS`] names them.
    pub(crate) fn all(&self) -> [&dyn Forecaster; EXPERTS.len()] {
        [
            &last_value::LastValue,
            &drift::Drift,
            &SeasonalNaive,
            &seasonal_mean::SeasonalMean,
            &weekly_mean::WeeklyMean,
            &self.holt_winters,
            &self.theta,
            &self.mstl,
            &self.prophet,
            &self.autoregression,
            &self.direct_ridge,
        ]
    }

    /// All learn the last step of `past`.
    pub(crate) fn observe(&mut self, past: &Past) {
        self.holt_winters.observe(past);
        self.theta.observe(past);
        self.mstl.observe(past);
        self.prophet.observe(past);
        self.autoregression.observe(past);
        self.direct_ridge.observe(past);
    }

    /// Whether they are whole and of this horizon: those that were kept may be of another.
    pub(crate) fn fits(&self, horizon: usize) -> bool {
        let whole = self.holt_winters.fits() && self.mstl.fits() && self.theta.fits();
        whole && self.autoregression.fits(horizon) && self.direct_ridge.fits(horizon)
    }
}

/// A predictor of one series.
pub(crate) trait Forecaster: Send + fmt::Debug {
    /// The expert's name: part of the model's name in what is published.
    fn name(&self) -> &'static str;

    /// Learns the last step of `past`, which has one step more than when it was last told. O(1) in
    /// the length of the series. Who looks at nothing but the past learns nothing.
    fn observe(&mut self, _past: &Past) {}

    /// Whether there is anything to say yet of the step `ahead` steps after the last observed one, at least 1.
    fn ready(&self, past: &Past, ahead: usize) -> Result<(), Silent>;

    /// The median of the count `ahead` steps after the last observed one, at least 1. Only asked
    /// when ready; what is not finite is taken as silence, what is negative as zero.
    fn point(&self, past: &Past, ahead: usize) -> f64;
}

/// Why an expert says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Silent {
    /// It needs a longer history. More steps mend it.
    #[error("has seen {seen} of the {needed} steps that it needs")]
    TooShort {
        /// How many it has.
        seen: u64,
        /// How many it needs.
        needed: u64,
    },
}

impl Silent {
    /// As long as fewer than `needed` steps were seen.
    fn until(needed: u64, past: &Past) -> Result<(), Self> {
        let seen = past.seen();
        if seen < needed { Err(Self::TooShort { seen, needed }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    /// An expert and the past that it looks at.
    pub(crate) struct Told<E> {
        pub(crate) expert: E,
        pub(crate) past: Past,
    }

    impl<E: Forecaster> Told<E> {
        pub(crate) fn new(expert: E, season: usize) -> Self {
            Self { expert, past: Past::new(season) }
        }

        pub(crate) fn observe(&mut self, count: f64) {
            self.past.observe(count, count);
            self.expert.observe(&self.past);
        }

        pub(crate) fn ready(&self, ahead: usize) -> Result<(), Silent> {
            self.expert.ready(&self.past, ahead)
        }

        pub(crate) fn point(&self, ahead: usize) -> f64 {
            self.expert.point(&self.past, ahead)
        }
    }

    #[test]
    fn experts_have_the_names_that_are_published() {
        assert_eq!(Experts::new(3, 5).all().map(Forecaster::name), EXPERTS);
    }

    #[test]
    fn none_says_what_is_absurd_of_silence_floods_and_long_horizons() {
        let mut past = Past::new(6);
        let mut experts = Experts::new(12, 6);
        let wild = |at: usize| match at % 97 {
            0..30 => 0.0,
            30 => 1e12,
            31..60 => 5.0,
            _ => 100.0 * noise(at),
        };
        for at in 0..1_500 {
            let count = if at < 700 { wild(at) } else { 0.0 };
            past.observe(count, count);
            experts.observe(&past);
            for expert in experts.all() {
                for ahead in [1, 2, 7, 12, 1_000] {
                    if expert.ready(&past, ahead).is_ok() {
                        let point = expert.point(&past, ahead);
                        assert!(point.is_finite() && point < 1e14, "{} says {point} of step {at} + {ahead}", expert.name());
                    }
                }
            }
        }
        for expert in experts.all() {
            assert!(expert.ready(&past, 1).is_ok() && expert.point(&past, 1).abs() < 1.0, "{} after silence", expert.name());
        }
    }
}
