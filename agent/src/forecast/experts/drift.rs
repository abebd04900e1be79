//! Drift: the last value, and on as it went over the last season (the drift method of Hyndman and Athanasopoulos, section 5.2, over one season, so
//! that it compares like with like and follows a growth that begins). Needs a season and a step.

use super::{Forecaster, Past, Silent};

/// The line through the last count and that of a season before.
#[derive(Debug)]
pub(crate) struct Drift;

impl Forecaster for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.season() as u64 + 1, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let (Some(last), Some(then)) = (past.count(1), past.count(past.season() + 1)) else { return f64::NAN };
        last + (last - then) / past.season() as f64 * ahead.min(past.season()) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn growth_goes_on_for_a_season_at_most() {
        let mut told = Told::new(Drift, 4);
        (0..4).for_each(|at| told.observe(f64::from(10 * at)));
        assert_eq!(told.ready(1), Err(Silent::TooShort { seen: 4, needed: 5 }));
        told.observe(40.0);
        assert_eq!((told.ready(1), told.point(1), told.point(3), told.point(9)), (Ok(()), 50.0, 70.0, 80.0));
    }
}
