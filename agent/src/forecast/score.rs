//! How good the forecasts of one series were: real figures, out of sample, one step ahead.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tradewind_protocol::Quantile;
use tradewind_protocol::forecast::{ForecastScore, pinball};

/// How many steps are judged: long enough for a share of 90 % to mean something (standard error
/// 2 %), short enough to be recent.
const WINDOW: usize = 288;

/// The last steps' scores.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Scores {
    steps: VecDeque<Judged>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Judged {
    pinball: f64,
    naive: f64,
    covered: bool,
}

impl Scores {
    /// Judges what was said about a step, and what seasonal naive said, by what came.
    pub(super) fn push(&mut self, said: &[f32], naive: &[f32], actual: f64) {
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        let (low, high) = Quantile::CENTRAL_90;
        let value = |q| Quantile::GRID.iter().position(|x| *x == q).and_then(|at| said.get(at)).map(|value| f64::from(*value));
        let covered = value(low).is_some_and(|low| low <= actual) && value(high).is_some_and(|high| actual <= high);
        self.steps.push_back(Judged { pinball: loss(said, actual), naive: loss(naive, actual), covered });
    }

    /// Their means; all zero without steps.
    pub(super) fn mean(&self) -> ForecastScore {
        let steps = self.steps.len();
        if steps == 0 {
            return ForecastScore::default();
        }
        let mean = |of: fn(&Judged) -> f64| self.steps.iter().map(of).sum::<f64>() / steps as f64;
        ForecastScore {
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            pinball: mean(|step| step.pinball),
            seasonal_naive_pinball: mean(|step| step.naive),
            coverage_90: mean(|step| f64::from(u8::from(step.covered))),
        }
    }
}

fn loss(quantiles: &[f32], actual: f64) -> f64 {
    let losses = Quantile::GRID.iter().zip(quantiles).map(|(q, value)| pinball(*q, f64::from(*value), actual));
    losses.sum::<f64>() / Quantile::GRID.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_mean_over_the_last_steps() {
        let mut scores = Scores::default();
        assert_eq!(scores.mean(), ForecastScore::default());
        let (exact, wide) = ([5.0; 9], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        (0..WINDOW).for_each(|_| scores.push(&wide, &wide, 100.0));
        (0..WINDOW).for_each(|_| scores.push(&exact, &wide, 5.0));
        let mean = scores.mean();
        assert_eq!((mean.steps, mean.pinball, mean.coverage_90), (WINDOW as u32, 0.0, 1.0));
        assert!(mean.seasonal_naive_pinball > 0.0);
        scores.push(&exact, &wide, 6.0);
        assert!(scores.mean().coverage_90 < 1.0);
    }
}
