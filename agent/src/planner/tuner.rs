//! The margin over the median, learned from every miss.
//!
//! A forecast's quantile promises how often demand lies above it; the sum over pairs, the rounding
//! to whole instances and the wait before scale-in all bend that promise. The tuner closes the loop
//! on what counts, the share of steps in which capacity was late: the margin by which the quantile
//! lies above the median is multiplied by `exp(GAIN * (late - (1 - quantile)))` each step. This is the online
//! quantile tracking of conformal inference (Gibbs and Candes 2021, equation 2, in the score's space:
//! Angelopoulos, Candes and Tibshirani 2023), in the logarithm: one miss raises the margin by
//! two percent, a step without a miss lowers it by a fraction of that, and in the long run the share of
//! misses is `1 - quantile`.

use serde::{Deserialize, Serialize};
use tradewind_protocol::Quantile;

/// How fast the margin follows: one miss at the 95 % quantile raises it by 2 %, a day of five-minute
/// steps without any lowers it by a quarter. Of 0.01, 0.02 and 0.05 the last bought less for its cost on
/// recorded traffic: a margin that swings misses in its valleys.
const GAIN: f64 = 0.02;
/// The margin stays within these: at a third, the 99 % quantile is about the 80 % one of a normal
/// distribution; at four, what is left is not for a margin to mend.
const MARGINS: (f64, f64) = (0.33, 4.0);

/// The margin of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tuner {
    margin: f64,
}

impl Default for Tuner {
    fn default() -> Self {
        Self { margin: 1.0 }
    }
}

/// One step as it came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The demand of the step, in transactions per second.
    pub demand_rate: f64,
    /// What the instances that were ready could serve, in transactions per second.
    pub ready_rate: f64,
    /// Whether the plan for the step was blocked: its lateness teaches nothing about margins.
    pub blocked: bool,
}

impl Tuner {
    /// A margin known from earlier; out of bounds or not a number, it is brought within.
    pub fn with_margin(margin: f64) -> Self {
        if margin.is_nan() { Self::default() } else { Self { margin: margin.clamp(MARGINS.0, MARGINS.1) } }
    }

    /// What the distance between quantile and median is multiplied with.
    pub fn margin(self) -> f64 {
        self.margin
    }

    /// Learns how one step came out that was provisioned for `quantile`.
    pub fn learn(&mut self, outcome: Outcome, quantile: Quantile) {
        if outcome.blocked || !outcome.demand_rate.is_finite() || !outcome.ready_rate.is_finite() {
            return;
        }
        let late = if outcome.demand_rate > outcome.ready_rate { 1.0 } else { 0.0 };
        let step = (GAIN * (late - (1.0 - quantile.probability()))).exp();
        self.margin = (self.margin * step).clamp(MARGINS.0, MARGINS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q90: Quantile = Quantile::GRID[5];

    fn outcome(demand_rate: f64) -> Outcome {
        Outcome { demand_rate, ready_rate: 10.0, blocked: false }
    }

    #[test]
    fn a_miss_raises_the_margin_and_calm_lowers_it_slowly() {
        let mut tuner = Tuner::default();
        tuner.learn(outcome(11.0), Q90);
        let raised = tuner.margin();
        assert!(raised > 1.015);
        (0..9).for_each(|_| tuner.learn(outcome(10.0), Q90));
        assert!((tuner.margin() - 1.0).abs() < 1e-9, "one miss in ten is what 90 % promises: {}", tuner.margin());
    }

    #[test]
    fn lateness_tends_to_what_the_quantile_promises() {
        // Demand uniform on 0..2, capacity = margin: late with probability 1 - margin / 2.
        let (mut tuner, mut late) = (Tuner::default(), 0);
        for at in 0..20_000u64 {
            let demand_rate = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64 * 2.0;
            let ready_rate = tuner.margin();
            late += u32::from(demand_rate > ready_rate);
            tuner.learn(Outcome { demand_rate, ready_rate, blocked: false }, Q90);
        }
        assert!((1_900..2_100).contains(&late), "{late} of 20000");
    }

    #[test]
    fn it_stays_within_bounds_and_ignores_what_was_blocked() {
        let mut tuner = Tuner::default();
        tuner.learn(Outcome { blocked: true, ..outcome(99.0) }, Q90);
        tuner.learn(outcome(f64::NAN), Q90);
        assert_eq!(tuner, Tuner::default());
        (0..1_000).for_each(|_| tuner.learn(outcome(99.0), Q90));
        assert_eq!(tuner.margin(), MARGINS.1);
        (0..10_000).for_each(|_| tuner.learn(outcome(0.0), Q90));
        assert_eq!(tuner.margin(), MARGINS.0);
        assert_eq!(Tuner::with_margin(f64::INFINITY).margin(), MARGINS.1);
        assert_eq!(Tuner::with_margin(f64::NAN), Tuner::default());
    }
}
