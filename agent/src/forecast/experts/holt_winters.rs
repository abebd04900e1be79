//! Holt-Winters: level, damped trend and season, on a square-root scale.
//!
//! Additive Holt-Winters with damped trend (Hyndman and Athanasopoulos, Forecasting: Principles and
//! Practice, 3rd edition, sections 8.2 and 8.3), which is the exponential smoothing ETS(A, Ad, A), of the root of the count. The season comes
//! from the shape that all experts share ([`Past`]), and is believed wholly, half, or not at all.

use super::smoothing::{Grid, Known};
use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};

/// How much of the season is believed: a series may have none.
const SHARES: [(f64, f64); 3] = [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)];
/// Steps before it speaks: fewer than this and the level is only the last value.
const NEEDED: u64 = 4;

/// Additive damped Holt-Winters on a square-root scale.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HoltWinters {
    grid: Grid,
}

impl HoltWinters {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        Self { grid: Grid::new(&SHARES) }
    }

    /// Whether it is whole.
    pub(super) fn fits(&self) -> bool {
        self.grid.fits(SHARES.len())
    }
}

impl Forecaster for HoltWinters {
    fn name(&self) -> &'static str {
        "holt-winters"
    }

    fn observe(&mut self, past: &Past) {
        self.grid.observe(past.root(), Known { season: past.foretold(), week: 0.0 }, past.seen() == 1);
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(NEEDED, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let root = self.grid.point(ahead, Known { season: past.deviation(ahead), week: 0.0 }).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::super::seasonal_mean::SeasonalMean;
    use super::super::tests::Told;
    use super::*;

    /// Eight steps a season, with level and trend.
    fn series(at: usize, trend: f64) -> f64 {
        100.0 + trend * at as f64 + [0.0, 20.0, 30.0, 20.0, 0.0, -20.0, -30.0, -20.0][at % 8]
    }

    fn fed<E: Forecaster>(expert: E, steps: usize, of: impl Fn(usize) -> f64) -> Told<E> {
        let mut told = Told::new(expert, 8);
        (0..steps).for_each(|at| told.observe(of(at)));
        told
    }

    #[test]
    fn the_season_is_foreseen_from_its_shape() {
        let told = fed(HoltWinters::new(), 400, |at| series(at, 0.0));
        for ahead in 1..=8 {
            let (said, comes) = (told.point(ahead), series(399 + ahead, 0.0));
            assert!((said - comes).abs() < 3.0, "{said} for {comes}, {ahead} ahead");
        }
    }

    #[test]
    fn a_shift_of_level_is_followed_at_once_and_not_by_the_mean_day() {
        let shifted = |at| if at < 400 { series(at, 0.0) } else { 200.0 + series(at, 0.0) };
        let (told, mean) = (fed(HoltWinters::new(), 403, shifted), fed(SeasonalMean, 403, shifted));
        let comes = shifted(403);
        assert!((told.point(1) - comes).abs() < 0.3 * (mean.point(1) - comes).abs(), "{} {} {comes}", told.point(1), mean.point(1));
    }

    #[test]
    fn a_trend_is_damped_so_that_the_far_future_stays_near() {
        let told = fed(HoltWinters::new(), 60, |at| 10.0 * at as f64 * at as f64);
        let (last, far) = (10.0 * 59.0 * 59.0, told.point(1_000));
        assert!(far.is_finite() && far < 3.0 * last, "{far} after {last}");
    }

    #[test]
    fn it_says_what_it_still_needs_and_silence_stays_silence() {
        assert_eq!(fed(HoltWinters::new(), 3, |_| 1.0).ready(1), Err(Silent::TooShort { seen: 3, needed: 4 }));
        let told = fed(HoltWinters::new(), 100, |_| 0.0);
        assert_eq!((told.ready(1), told.point(1), told.point(50)), (Ok(()), 0.0, 0.0));
    }
}
