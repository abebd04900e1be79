//! What every expert is: a predictor of one series that learns one count at a time.
//!
//! An expert knows nothing of quantiles, of other experts or of time: the steps come in order, one
//! [`Forecaster::observe`] each. How far it is to be believed, and how wide the interval around it
//! has to be, is measured outside ([`super::mix`], [`super::lane`]), so that a good and a bad
//! expert need not differ in anything but their points.

use std::fmt;

/// A predictor of one series.
pub(crate) trait Forecaster: Send + fmt::Debug {
    /// The expert's name: part of the model's name in what is published.
    fn name(&self) -> &'static str;

    /// Learns the count of the step after the last one. `count` is finite and at least 0. O(1) in
    /// the length of the series.
    fn observe(&mut self, count: f64);

    /// Whether there is anything to say yet of the step `ahead` steps after the last observed one, at least 1.
    fn ready(&self, ahead: usize) -> Result<(), Silent>;

    /// The median of the count `ahead` steps after the last observed one, at least 1. Only asked
    /// when ready; what is not finite is taken as silence, what is negative as zero.
    fn point(&self, ahead: usize) -> f64;
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

/// The last value, whatever comes (Hyndman and Athanasopoulos, Forecasting: Principles and Practice,
/// 3rd edition, section 5.2): the cold start of every series, and hard to beat one step ahead.
#[derive(Debug, Default)]
pub(crate) struct LastValue {
    last: Option<f64>,
}

impl Forecaster for LastValue {
    fn name(&self) -> &'static str {
        "last-value"
    }

    fn observe(&mut self, count: f64) {
        self.last = Some(count);
    }

    fn ready(&self, _ahead: usize) -> Result<(), Silent> {
        match self.last {
            Some(_) => Ok(()),
            None => Err(Silent::TooShort { seen: 0, needed: 1 }),
        }
    }

    fn point(&self, _ahead: usize) -> f64 {
        self.last.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_is_silent_until_there_is_one() {
        let mut expert = LastValue::default();
        assert_eq!(expert.ready(1), Err(Silent::TooShort { seen: 0, needed: 1 }));
        expert.observe(3.0);
        assert_eq!((expert.ready(1), expert.point(1), expert.point(9)), (Ok(()), 3.0, 3.0));
    }
}
