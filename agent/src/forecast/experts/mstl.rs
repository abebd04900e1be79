//! MSTL with exponential smoothing: what is left after the season and the week are taken out is smoothed, and both are put back.
//!
//! Seasonal-trend decomposition with several seasons (Bandara, Hyndman and Bergmeir 2021, "MSTL") of the root of the count, and ETS(A, Ad, N) of
//! the remainder. Both components are learnt online: the shape of the season over all seasons, and, as two weeks do not tell a mean week, what came
//! a week ago on top of it, believed wholly or in part. Where [`super::holt_winters`] knows a day, this knows a week. Needs eight seasons.

use super::smoothing::{Grid, Known};
use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};

/// How much of the season and of the last week is believed.
const SHARES: [(f64, f64); 3] = [(1.0, 0.3), (1.0, 0.6), (1.0, 1.0)];
/// Seasons that it needs: the week, and one before it whose mean is known.
const SEASONS: u64 = 8;

/// Exponential smoothing of what season and week leave.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mstl {
    grid: Grid,
}

impl Mstl {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        Self { grid: Grid::new(&SHARES) }
    }

    /// Whether it is whole.
    pub(super) fn fits(&self) -> bool {
        self.grid.fits(SHARES.len())
    }
}

impl Forecaster for Mstl {
    fn name(&self) -> &'static str {
        "mstl"
    }

    fn observe(&mut self, past: &Past) {
        let known = Known { season: past.foretold(), week: past.a_week_before(0).unwrap_or(0.0) };
        self.grid.observe(past.root(), known, past.seen() == 1);
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(SEASONS * past.season() as u64 + 1, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let known = Known { season: past.deviation(ahead), week: past.a_week_before(ahead).unwrap_or(0.0) };
        let root = self.grid.point(ahead, known).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::super::holt_winters::HoltWinters;
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn it_knows_the_day_off_that_a_season_does_not_know() {
        let (mut week, mut day) = (Told::new(Mstl::new(), 24), Told::new(HoltWinters::new(), 24));
        let wave = |step: usize| (step as f64 / 24.0 * std::f64::consts::TAU).sin();
        let value = |step: usize| if step / 24 % 7 == 6 { 25.0 } else { (20.0 + 5.0 * wave(step)).powi(2) };
        let until = (4 * 7 - 1) * 24;
        for step in 0..until {
            week.observe(value(step));
            day.observe(value(step));
            assert!(step >= 8 * 24 || week.ready(1).is_err());
        }
        let error = |said: &dyn Fn(usize) -> f64| (1..=24).map(|ahead| (said(ahead) - value(until - 1 + ahead)).abs()).sum::<f64>();
        let (week, day) = (error(&|ahead| week.point(ahead)), error(&|ahead| day.point(ahead)));
        assert!(week < 0.6 * day, "{week} {day}");
    }
}
