//! The mean day: the season's level plus its shape, whatever happened in the last hour. What every
//! series returns to; the mix believes it the more, the longer the horizon. Needs two seasons.

use super::{Forecaster, Past, Silent};

/// The mean of the last season and the shape of all.
#[derive(Debug)]
pub(crate) struct SeasonalMean;

impl Forecaster for SeasonalMean {
    fn name(&self) -> &'static str {
        "seasonal-mean"
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.shape_needs(), past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let root = (past.mean() + past.deviation(ahead)).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn it_says_the_shape_once_it_is_known() {
        let mut told = Told::new(SeasonalMean, 4);
        (0..7).for_each(|at| told.observe([1.0, 4.0, 9.0, 4.0][at % 4]));
        assert_eq!(told.ready(1), Err(Silent::TooShort { seen: 7, needed: 8 }));
        (7..80).for_each(|at| told.observe([1.0, 4.0, 9.0, 4.0][at % 4]));
        assert_eq!(told.ready(1), Ok(()));
        assert!((told.point(1) - 1.0).abs() < 0.01 && (told.point(7) - 9.0).abs() < 0.01, "{} {}", told.point(1), told.point(7));
    }
}
