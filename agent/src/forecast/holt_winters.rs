//! Holt-Winters: level, damped trend and season, on a square-root scale.
//!
//! Additive Holt-Winters with damped trend (Hyndman and Athanasopoulos, Forecasting: Principles and
//! Practice, 3rd edition, sections 8.2 and 8.3) of the square root of the count: the Box-Cox
//! transformation (section 3.1) that stabilises the variance of counts, needs no unit, takes zeros, and
//! cannot explode on the way back. The season comes from a [`SeasonalProfile`] that all parameter
//! choices share. The parameters are the grid's member with the smallest recent absolute one-step
//! error, tracked online: an update costs the same after a year as after a day.

use super::expert::{Forecaster, Silent};
use super::profile::SeasonalProfile;

/// Smoothing of the level: 0.1 for noise around a level, 0.9 for a random walk.
const ALPHAS: [f64; 4] = [0.1, 0.3, 0.6, 0.9];
/// Smoothing of the trend, as a share of alpha; 0 is no trend.
const BETAS: [f64; 2] = [0.0, 0.1];
/// How much of the season is believed: a series may have none.
const SEASONALITIES: [f64; 3] = [0.0, 0.5, 1.0];
/// Damping of the trend. The book keeps it between 0.8 and 0.98; at 0.9 a trend is spent after ten
/// steps, which keeps long horizons sane.
const DAMPING: f64 = 0.9;
/// Memory of the one-step errors that choose the parameters: about 100 steps.
const LOSS_GAIN: f64 = 0.01;
/// Steps before it speaks: fewer than this and the level is only the last value.
const NEEDED: u64 = 4;

/// Additive damped Holt-Winters on a square-root scale.
#[derive(Debug)]
pub(crate) struct HoltWinters {
    seen: u64,
    profile: SeasonalProfile,
    grid: Vec<Smoother>,
    best: usize,
}

impl HoltWinters {
    /// A season of `season` steps.
    pub(crate) fn new(season: usize) -> Self {
        let mut grid = vec![];
        for seasonality in SEASONALITIES {
            for alpha in ALPHAS {
                for beta in BETAS {
                    grid.push(Smoother { alpha, beta: alpha * beta, seasonality, level: 0.0, trend: 0.0, loss: 0.0 });
                }
            }
        }
        Self { seen: 0, profile: SeasonalProfile::new(season), grid, best: 0 }
    }
}

impl Forecaster for HoltWinters {
    fn name(&self) -> &'static str {
        "holt-winters"
    }

    fn observe(&mut self, count: f64) {
        let value = count.max(0.0).sqrt();
        let season = self.profile.deviation(1);
        for smoother in &mut self.grid {
            smoother.observe(value, season, self.seen == 0);
        }
        self.profile.observe(value);
        self.seen += 1;
        let best = self.grid.iter().enumerate().min_by(|(_, a), (_, b)| a.loss.total_cmp(&b.loss));
        self.best = best.map_or(0, |(at, _)| at);
    }

    fn ready(&self, _ahead: usize) -> Result<(), Silent> {
        if self.seen < NEEDED { Err(Silent::TooShort { seen: self.seen, needed: NEEDED }) } else { Ok(()) }
    }

    fn point(&self, ahead: usize) -> f64 {
        let root = self.grid[self.best].point(ahead, self.profile.deviation(ahead)).max(0.0);
        root * root
    }
}

/// One member of the parameter grid and its state.
#[derive(Debug)]
struct Smoother {
    alpha: f64,
    beta: f64,
    seasonality: f64,
    level: f64,
    trend: f64,
    /// Recent mean absolute one-step error.
    loss: f64,
}

impl Smoother {
    fn observe(&mut self, value: f64, season: f64, first: bool) {
        if first {
            self.level = value;
            return;
        }
        let error = value - self.point(1, season);
        self.loss += LOSS_GAIN * (error.abs() - self.loss);
        // The error-correction form of sections 8.2 and 8.5.
        self.level += DAMPING * self.trend + self.alpha * error;
        self.trend = DAMPING * self.trend + self.beta * error;
    }

    fn point(&self, ahead: usize, season: f64) -> f64 {
        // DAMPING + DAMPING^2 + ... + DAMPING^ahead.
        let reach = DAMPING * (1.0 - DAMPING.powi(i32::try_from(ahead).unwrap_or(i32::MAX))) / (1.0 - DAMPING);
        self.level + reach * self.trend + self.seasonality * season
    }
}

/// The mean day: the season's level plus its shape, whatever happened in the last hour. What every
/// series returns to; the mix believes it the more, the longer the horizon.
#[derive(Debug)]
pub(crate) struct SeasonalMean {
    profile: SeasonalProfile,
}

impl SeasonalMean {
    /// A season of `season` steps.
    pub(crate) fn new(season: usize) -> Self {
        Self { profile: SeasonalProfile::new(season) }
    }
}

impl Forecaster for SeasonalMean {
    fn name(&self) -> &'static str {
        "seasonal-mean"
    }

    fn observe(&mut self, count: f64) {
        self.profile.observe(count.max(0.0).sqrt());
    }

    fn ready(&self, _ahead: usize) -> Result<(), Silent> {
        if self.profile.ready() { Ok(()) } else { Err(Silent::TooShort { seen: self.profile.seen(), needed: self.profile.needed() }) }
    }

    fn point(&self, ahead: usize) -> f64 {
        let root = (self.profile.mean() + self.profile.deviation(ahead)).max(0.0);
        root * root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight steps a season, with level and trend.
    fn series(at: usize, trend: f64) -> f64 {
        100.0 + trend * at as f64 + [0.0, 20.0, 30.0, 20.0, 0.0, -20.0, -30.0, -20.0][at % 8]
    }

    fn fed(expert: &mut dyn Forecaster, steps: usize, of: impl Fn(usize) -> f64) {
        (0..steps).for_each(|at| expert.observe(of(at)));
    }

    #[test]
    fn the_season_is_foreseen_from_its_shape() {
        let mut expert = HoltWinters::new(8);
        fed(&mut expert, 400, |at| series(at, 0.0));
        for ahead in 1..=8 {
            let (said, comes) = (expert.point(ahead), series(399 + ahead, 0.0));
            assert!((said - comes).abs() < 3.0, "{said} for {comes}, {ahead} ahead");
        }
    }

    #[test]
    fn a_shift_of_level_is_followed_at_once_and_not_by_the_mean_day() {
        let (mut expert, mut mean) = (HoltWinters::new(8), SeasonalMean::new(8));
        let shifted = |at| if at < 400 { series(at, 0.0) } else { 200.0 + series(at, 0.0) };
        fed(&mut expert, 403, shifted);
        fed(&mut mean, 403, shifted);
        let comes = shifted(403);
        assert!((expert.point(1) - comes).abs() < 0.3 * (mean.point(1) - comes).abs(), "{} {} {comes}", expert.point(1), mean.point(1));
    }

    #[test]
    fn a_trend_is_damped_so_that_the_far_future_stays_near() {
        let mut expert = HoltWinters::new(8);
        fed(&mut expert, 60, |at| 10.0 * at as f64 * at as f64);
        let (last, far) = (10.0 * 59.0 * 59.0, expert.point(1_000));
        assert!(far.is_finite() && far < 3.0 * last, "{far} after {last}");
    }

    #[test]
    fn experts_say_what_they_still_need() {
        let (mut expert, mut mean) = (HoltWinters::new(8), SeasonalMean::new(8));
        fed(&mut expert, 3, |_| 1.0);
        fed(&mut mean, 15, |_| 1.0);
        assert_eq!(expert.ready(1), Err(Silent::TooShort { seen: 3, needed: 4 }));
        assert_eq!(mean.ready(1), Err(Silent::TooShort { seen: 15, needed: 16 }));
        mean.observe(1.0);
        assert_eq!(mean.ready(1), Ok(()));
    }

    #[test]
    fn silence_stays_silence() {
        let mut expert = HoltWinters::new(8);
        fed(&mut expert, 100, |_| 0.0);
        assert_eq!(expert.point(1), 0.0);
        assert_eq!(expert.point(50), 0.0);
    }
}
