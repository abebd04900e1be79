//! Who is believed at which quantile: online aggregation on pinball loss, quantile by quantile.
//!
//! At one horizon of one series several members say quantiles: the mix of experts with the intervals of its own errors, and the plain
//! quantiles of the last values. Each quantile is the mean of what they say of it (Vincentization), by the weights of the
//! exponentially weighted average forecaster with forgetting, as in [`super::mix`], on the pinball loss of that quantile: aggregation by
//! quantile as in Berrisch and Ziel 2023 ("CRPS learning"), who show that the best member differs from the centre to the tails. A tail is hit
//! rarely, so that its losses are smoothed over the grid, as theirs are.
//!
//! Invariant: what comes out lies between the least and the largest that a member says, ascends, and is the mix's row where it alone speaks.

use super::lane::{MEDIAN, QUANTILES};
use super::plain;
use serde::{Deserialize, Serialize};
use tradewind_protocol::Quantile;
use tradewind_protocol::forecast::pinball;

/// The mix of experts first, then the plain quantiles.
pub(super) const MEMBERS: usize = 1 + plain::MEMBERS;
/// How sharply a worse member loses weight: who loses a tenth more keeps exp(-1.2) = 30 % of it.
const ETA: f64 = 12.0;
/// Memory of the losses: about 300 steps. Pinball losses of tails tell little step by step.
const LOSS_GAIN: f64 = 0.003;
/// Logarithm of what a member weighs if all lose the same. Plain quantiles hold as long as nothing changes, and losses of the past do not know
/// of the change to come: they have to have been better by a quarter, or much, to be believed as much as the mix. Without this, validation data
/// gain nothing more, and a weekend costs 4 %. Before the season has been seen nothing else is known either, and all begin alike.
const PRIOR: [f64; MEMBERS] = [0.0, -3.0, -3.0];
/// Errors `h` steps ahead overlap, so `n` of them are worth `n / h`; with so many of those, losses count half.
const EQUAL: f64 = 20.0;
/// Share of a quantile's loss that is taken from the whole grid.
const SMOOTHING: f64 = 0.5;

/// Who has less than this share is not heard: it would help nobody, but move a quantile of zero away from it.
const LEAST: f64 = 0.04;

/// What the members say; not a number from the silent.
pub(super) type Rows = [[f32; QUANTILES]; MEMBERS];

/// The members' losses at one horizon, and their weights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Blend {
    losses: [[f64; QUANTILES]; MEMBERS],
    seen: u32,
    weights: [[f64; QUANTILES]; MEMBERS],
}

impl Blend {
    pub(super) fn new() -> Self {
        Self { losses: [[0.0; QUANTILES]; MEMBERS], seen: 0, weights: PRIOR.map(|prior| [prior.exp(); QUANTILES]) }
    }

    /// Learns what had been said, `ahead` steps before, of a step whose count was `actual`, when the series was `age` seasons old.
    /// Ignored unless all had spoken.
    pub(super) fn learn(&mut self, ahead: f64, age: f64, rows: &Rows, actual: f64) {
        if rows.iter().flatten().any(|value| !value.is_finite()) {
            return;
        }
        self.seen = self.seen.saturating_add(1);
        let gain = LOSS_GAIN.max(1.0 / f64::from(self.seen));
        for (losses, row) in self.losses.iter_mut().zip(rows) {
            for ((loss, value), q) in losses.iter_mut().zip(row).zip(Quantile::GRID) {
                *loss += gain * (pinball(q, f64::from(*value), actual) - *loss);
            }
        }
        self.weigh(ahead, age);
    }

    /// The weight of each member by quantile; they need not sum to 1.
    fn weigh(&mut self, ahead: f64, age: f64) {
        let grown = (age - 1.0).clamp(0.0, 1.0);
        let independent = f64::from(self.seen) / ahead;
        let trust = independent / (independent + EQUAL);
        let totals = self.losses.map(|losses| losses.iter().sum::<f64>());
        let excess = |loss: f64, best: f64| if loss <= best { 0.0 } else { (loss / best - 1.0).min(100.0) };
        let least = |of: &dyn Fn(usize) -> f64| (0..MEMBERS).map(of).fold(f64::INFINITY, f64::min);
        let best_total = least(&|at| totals[at]);
        let whole: [f64; MEMBERS] = std::array::from_fn(|at| excess(totals[at], best_total));
        for q in 0..QUANTILES {
            let best = least(&|at| self.losses[at][q]);
            for at in 0..MEMBERS {
                let own = excess(self.losses[at][q], best);
                let worse = SMOOTHING * whole[at] + (1.0 - SMOOTHING) * own;
                self.weights[at][q] = (grown * PRIOR[at] - trust * ETA * worse).exp();
            }
            let sum: f64 = self.weights.iter().map(|weights| weights[q]).sum();
            self.weights.iter_mut().filter(|weights| weights[q] < LEAST * sum).for_each(|weights| weights[q] = 0.0);
        }
    }

    /// The share of each member of the median, if all speak.
    pub(super) fn shares(&self) -> [f64; MEMBERS] {
        let sum: f64 = self.weights.iter().map(|weights| weights[MEDIAN]).sum();
        self.weights.map(|weights| weights[MEDIAN] / sum)
    }

    /// The recent mean absolute error of a member's median, if it was judged.
    pub(super) fn error(&self, member: usize) -> Option<f64> {
        // Twice the pinball loss at one half.
        self.losses.get(member).filter(|_| self.seen > 0).map(|losses| 2.0 * losses[MEDIAN])
    }

    /// What is said at last. The first member always speaks.
    pub(super) fn blend(&self, rows: &[[f64; QUANTILES]; MEMBERS]) -> [f64; QUANTILES] {
        let mut blended = std::array::from_fn(|q| {
            let (mut sum, mut total) = (0.0, 0.0);
            for (row, weights) in rows.iter().zip(&self.weights).filter(|(row, _)| row[q].is_finite()) {
                sum += weights[q] * row[q];
                total += weights[q];
            }
            sum / total
        });
        blended.sort_by(f64::total_cmp);
        blended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even over `centre` +- `reach`.
    fn row(centre: f64, reach: f64) -> [f64; QUANTILES] {
        Quantile::GRID.map(|q| centre + reach * (2.0 * q.probability() - 1.0))
    }

    fn learnt(rows: [[f64; QUANTILES]; MEMBERS]) -> [f64; QUANTILES] {
        let mut blend = Blend::new();
        for at in 0..2_000 {
            let actual = 90.0 + f64::from(at * 7_919 % 1_000) / 50.0;
            blend.learn(1.0, 9.0, &rows.map(|row| row.map(|value| value as f32)), actual);
        }
        blend.blend(&rows)
    }

    #[test]
    fn each_quantile_is_that_of_whom_loses_least_there() {
        // The mix is right above the median and far too low below it; the plain quantiles are right below and far too high above.
        let (right, low, high) = (row(100.0, 10.0), row(100.0, 40.0), row(100.0, 40.0));
        let mix = std::array::from_fn(|at| if at < MEDIAN { low[at] } else { right[at] });
        let plain = std::array::from_fn(|at| if at > MEDIAN { high[at] } else { right[at] });
        let said = learnt([mix, plain, plain]);
        assert!((said[0] - right[0]).abs() < 2.0 && (said[8] - right[8]).abs() < 2.0, "{said:?}");
    }

    #[test]
    fn who_is_no_better_is_not_believed_and_who_is_worse_not_heard() {
        let right = row(100.0, 10.0);
        let said = learnt([right, row(100.0, 11.0), row(50.0, 10.0)]);
        assert!(said.iter().zip(right).all(|(said, right)| (said - right).abs() < 0.1), "{said:?}");
        let said = learnt([right, row(50.0, 10.0), row(150.0, 10.0)]);
        assert!(said.iter().zip(right).all(|(said, right)| (said - right).abs() < 1e-9), "{said:?}");
    }

    #[test]
    fn the_silent_are_left_out() {
        let silent = [f64::NAN; QUANTILES];
        let said = learnt([row(5.0, 1.0), silent, silent]);
        assert!(said.iter().zip(row(5.0, 1.0)).all(|(said, row)| (said - row).abs() < 1e-12));
    }
}
