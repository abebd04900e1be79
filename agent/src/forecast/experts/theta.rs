//! Theta: half of the long line and half of what simple smoothing says, after the season is taken out.
//!
//! The theta method (Assimakopoulos and Nikolopoulos 2000) is simple exponential smoothing with a drift of half the slope of the line through
//! the series (Hyndman and Billah 2003, equation 8); other coefficients of the lines give other shares of the slope, of which the best is
//! taken, as is the smoothing (the optimised theta method; Fiorucci, Pellegrini, Louzada, Petropoulos and Koehler 2016, "Models for optimising the theta method
//! and their relationship to state space models", who also let the line move: the dynamic one). The line is a regression on time that
//! forgets, so that a series of years has the slope of its last seasons. On the root of the count, less the shape of the season. Needs a season.

use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};

/// Smoothing of the level.
const ALPHAS: [f64; 4] = [0.1, 0.3, 0.6, 0.9];
/// Shares of the slope, `1 - 1 / theta`: of theta 1, 2 and infinity.
const SHARES: [f64; 3] = [0.0, 0.5, 1.0];
/// Memory of the one-step errors that choose among them: about 100 steps.
const LOSS_GAIN: f64 = 0.01;
/// Seasons that the line remembers.
const SEASONS: f64 = 2.0;

/// Optimised theta with a moving line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Theta {
    line: Line,
    grid: Vec<Member>,
    best: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Member {
    alpha: f64,
    share: f64,
    level: f64,
    loss: f64,
}

/// Discounted least squares of value on time (Brown 1963, chapter 9), in moments about now.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    keep: f64,
    weight: f64,
    time: f64,
    time_squared: f64,
    value: f64,
    product: f64,
}

impl Theta {
    /// A season of `season` steps.
    pub(crate) fn new(season: usize) -> Self {
        let member = |(alpha, share)| Member { alpha, share, level: 0.0, loss: 0.0 };
        let choices = ALPHAS.into_iter().flat_map(|alpha| SHARES.map(|share| (alpha, share)));
        Self { line: Line::new(SEASONS * season as f64), grid: choices.map(member).collect(), best: 0 }
    }

    /// Whether it is whole.
    pub(super) fn fits(&self) -> bool {
        self.best < self.grid.len()
    }
}

impl Forecaster for Theta {
    fn name(&self) -> &'static str {
        "theta"
    }

    fn observe(&mut self, past: &Past) {
        let (value, slope) = (past.root() - past.foretold(), self.line.slope());
        for member in &mut self.grid {
            if past.seen() == 1 {
                member.level = value;
                continue;
            }
            let error = value - member.point(1, slope);
            member.loss += LOSS_GAIN * (error.abs() - member.loss);
            member.level += member.alpha * (value - member.level);
        }
        self.line.observe(value);
        let best = self.grid.iter().enumerate().min_by(|(_, a), (_, b)| a.loss.total_cmp(&b.loss));
        self.best = best.map_or(0, |(at, _)| at);
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.season() as u64, past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        // No line is trusted for longer than a season.
        let reach = ahead.min(past.season());
        let root = (self.grid[self.best].point(reach, self.line.slope()) + past.deviation(ahead)).max(0.0);
        root * root
    }
}

impl Member {
    /// Smoothing lags a line by `(1 - alpha) / alpha` steps; the drift makes up for its share of it.
    fn point(&self, ahead: usize, slope: f64) -> f64 {
        self.level + self.share * slope * (ahead as f64 - 1.0 + 1.0 / self.alpha)
    }
}

impl Line {
    fn new(memory: f64) -> Self {
        Self { keep: 1.0 - 1.0 / memory.max(2.0), weight: 0.0, time: 0.0, time_squared: 0.0, value: 0.0, product: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        // All that was lies one step further back.
        self.time_squared = self.keep * (self.time_squared - 2.0 * self.time + self.weight);
        self.product = self.keep * (self.product - self.value);
        self.time = self.keep * (self.time - self.weight);
        self.value = self.keep * self.value + value;
        self.weight = self.keep * self.weight + 1.0;
    }

    fn slope(&self) -> f64 {
        let spread = self.weight * self.time_squared - self.time * self.time;
        if spread > 1e-9 * self.weight * self.weight { (self.weight * self.product - self.time * self.value) / spread } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;

    #[test]
    fn a_line_is_followed_and_a_season_put_back() {
        let mut told = Told::new(Theta::new(4), 4);
        let root = |at: usize| 50.0 + 0.2 * at as f64 + [3.0, 0.0, -3.0, 0.0][at % 4];
        (0..400).for_each(|at| told.observe(root(at).powi(2)));
        for ahead in 1..=4 {
            let (said, comes) = (told.point(ahead).sqrt(), root(399 + ahead));
            assert!((said - comes).abs() < 0.5, "{said} for {comes}, {ahead} ahead");
        }
        assert!(told.point(1_000).sqrt() < root(400) + 5.0);
    }

    #[test]
    fn the_slope_is_that_of_the_line() {
        let mut line = Line::new(50.0);
        assert_eq!(line.slope(), 0.0);
        (0..1_000).for_each(|at| line.observe(7.0 - 0.5 * f64::from(at)));
        assert!((line.slope() + 0.5).abs() < 1e-9, "{}", line.slope());
    }
}
