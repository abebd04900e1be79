//! The value one season ago (Hyndman and Athanasopoulos, section 5.2): the yardstick.

use super::{Forecaster, Past, Silent};

/// The value of the same step one season ago.
#[derive(Debug)]
pub(crate) struct SeasonalNaive;

impl Forecaster for SeasonalNaive {
    fn name(&self) -> &'static str {
        "seasonal-naive"
    }

    /// A season less as many steps as lie ahead: a young series knows what was a season before a step that is far enough.
    fn ready(&self, past: &Past, ahead: usize) -> Result<(), Silent> {
        Silent::until(past.ago(ahead) as u64, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        past.count(past.ago(ahead)).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn it_repeats_the_last_season_also_beyond_one() {
        let mut told = Told::new(SeasonalNaive, 3);
        for count in [9.0, 1.0, 2.0] {
            assert!(told.ready(1).is_err());
            told.observe(count);
        }
        told.observe(3.0);
        assert_eq!(told.ready(1), Ok(()));
        let path: Vec<f64> = (1..=7).map(|ahead| told.point(ahead)).collect();
        assert_eq!(path, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]);
    }

    #[test]
    fn a_young_series_already_knows_what_was_a_season_before_a_far_step() {
        let mut told = Told::new(SeasonalNaive, 4);
        [9.0, 1.0].into_iter().for_each(|count| told.observe(count));
        assert_eq!(told.ready(2), Err(Silent::TooShort { seen: 2, needed: 3 }));
        assert_eq!((told.ready(3), told.point(3), told.point(4)), (Ok(()), 9.0, 1.0));
        assert_eq!((told.ready(8), told.point(8)), (Ok(()), 1.0));
    }
}
