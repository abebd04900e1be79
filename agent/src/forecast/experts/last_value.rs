//! The last value, whatever comes (Hyndman and Athanasopoulos, Forecasting: Principles and Practice,
//! 3rd edition, section 5.2): the cold start of every series, and hard to beat one step ahead.

use super::{Forecaster, Past, Silent};

/// The count of the last step.
#[derive(Debug)]
pub(crate) struct LastValue;

impl Forecaster for LastValue {
    fn name(&self) -> &'static str {
        "last-value"
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(1, past)
    }

    fn point(&self, past: &Past, _ahead: usize) -> f64 {
        past.count(1).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn the_last_value_is_silent_until_there_is_one() {
        let mut told = Told::new(LastValue, 4);
        assert_eq!(told.ready(1), Err(Silent::TooShort { seen: 0, needed: 1 }));
        told.observe(3.0);
        assert_eq!((told.ready(1), told.point(1), told.point(9)), (Ok(()), 3.0, 3.0));
    }
}
