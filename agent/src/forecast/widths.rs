//! How much wider intervals have to be than they are said: conformal tracking, pooled over the series of an agent.
//!
//! Each series tracks, by lane and quantile, the logarithm of the factor by which the quantile's distance from the median has to be
//! multiplied so that the quantile is kept as often as it promises: the update of adaptive conformal inference (Gibbs and Candes 2021,
//! equation 2) on the quantile itself (quantile tracking: Angelopoulos, Candes and Tibshirani 2023, "Conformal PID control"), on a scale
//! that does not depend on the series. One series holds few independent errors of long horizons, so that its factor is mostly noise; what is
//! published takes the mean over all series. What is peculiar to a series is left to the levels of its lanes.
//!
//! Invariant: a series' widths depend on its own counts alone, and the mean on the series that there are, in the order of their keys; so that
//! series learnt afresh after a restart say what they would have said without one.

use super::lane::{MEDIAN, QUANTILES, Row};
use serde::{Deserialize, Serialize};
use tradewind_protocol::Quantile;

/// How far an error of usual size moves the logarithm one step ahead: a hundred steps of which a tenth is missed where a twentieth was promised
/// widen by a tenth. On validation data 0.01 and 0.02 cost 1 to 2 % more pinball loss.
const GAIN: f64 = 0.004;
/// Errors `h` steps ahead overlap and are known late: the gain falls with this power of `h`.
const DELAY: f64 = 0.25;
/// Logarithms stay within these. One that may not fall below zero would rise by chance alone, and so would the mean.
const LOGS: (f64, f64) = (-0.7, 0.7);
/// Nor is the mean hardly ever below zero: a calm that all series share is one observation, however many series.
const CALM: f64 = -0.1;
/// So many independent errors make a series count half in the mean.
const COUNTS: f64 = 5.0;

/// By quantile: factors on the distance from the median.
pub(super) type Factors = [f64; QUANTILES];

/// The widths of one lane of one series.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Widths {
    logs: [f32; QUANTILES],
    /// How many independent errors they were learnt from.
    independent: f64,
}

impl Widths {
    /// Learns from quantiles that these widths had made, `every` steps anew and `ahead` steps before `actual`.
    pub(super) fn learn(&mut self, said: &Row, actual: f64, every: f64, ahead: f64) {
        self.independent += every / ahead;
        let gain = GAIN / ahead.powf(DELAY);
        for (at, ((log, value), q)) in self.logs.iter_mut().zip(said).zip(Quantile::GRID).enumerate().filter(|(at, _)| *at != MEDIAN) {
            let short = q.probability() - if actual <= f64::from(*value) { 1.0 } else { 0.0 };
            let wider = if at < MEDIAN { -short } else { short };
            // Tails are hit rarely: their errors weigh as much as those of the middle.
            let usual = (q.probability() * (1.0 - q.probability())).sqrt();
            *log = (f64::from(*log) + gain * wider / usual).clamp(LOGS.0, LOGS.1) as f32;
        }
    }

    /// Its own.
    pub(super) fn factors(&self) -> Factors {
        self.logs.map(|log| f64::from(log).exp())
    }

    /// The geometric mean of all.
    pub(super) fn mean<'a>(all: impl Iterator<Item = &'a Widths>) -> Factors {
        let (mut sum, mut total) = ([0.0; QUANTILES], 0.0);
        for widths in all {
            let weight = widths.independent / (widths.independent + COUNTS);
            sum.iter_mut().zip(widths.logs).for_each(|(sum, log)| *sum += weight * f64::from(log));
            total += weight;
        }
        sum.map(|sum| if total > 0.0 { (sum / total).max(CALM).exp() } else { 1.0 })
    }
}

/// Quantiles so much wider: ascending, not negative, about the same median.
pub(super) fn widened(row: &[f64; QUANTILES], factors: &Factors) -> [f64; QUANTILES] {
    let median = row[MEDIAN];
    let mut wider: [f64; QUANTILES] = std::array::from_fn(|at| (median + (row[at] - median) * factors[at]).max(0.0));
    wider.sort_by(f64::total_cmp);
    wider
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(steps: usize, said: f64, actual: impl Fn(usize) -> f64) -> Widths {
        let mut widths = Widths::default();
        let row = Quantile::GRID.map(|q| 100.0 + said * (2.0 * q.probability() - 1.0));
        (0..steps).for_each(|at| widths.learn(&widened(&row, &widths.factors()).map(|value| value as f32), actual(at), 1.0, 1.0));
        widths
    }

    /// Even over 100 +- 10.
    fn even(at: usize) -> f64 {
        90.0 + (at * 7_919 % 1_000) as f64 / 50.0
    }

    #[test]
    fn what_is_said_too_narrowly_is_widened_until_it_holds() {
        let factors = learnt(5_000, 7.0, even).factors();
        let wanted = 10.0 / 7.0;
        assert!(
            (factors[0] / wanted - 1.0).abs() < 0.1 && (factors[6] / wanted - 1.0).abs() < 0.1 && factors[MEDIAN] == 1.0,
            "{factors:?}"
        );
    }

    #[test]
    fn what_is_said_too_widely_is_narrowed_hardly() {
        let calm = learnt(5_000, 30.0, even);
        assert!(calm.factors().iter().enumerate().all(|(at, factor)| at == MEDIAN || *factor < 0.9), "{:?}", calm.factors());
        let mean = Widths::mean([&calm].into_iter());
        assert!(mean.iter().enumerate().all(|(at, factor)| at == MEDIAN || (factor - CALM.exp()).abs() < 1e-9), "{mean:?}");
    }

    #[test]
    fn the_young_take_what_the_others_have_learnt() {
        let (old, young) = (learnt(3_000, 7.0, even), Widths::default());
        let mean = Widths::mean([&old, &young].into_iter());
        assert!(mean.iter().zip(old.factors()).all(|(mean, old)| (mean - old).abs() < 1e-6));
        assert_eq!(Widths::mean(std::iter::empty()), [1.0; QUANTILES]);
    }

    #[test]
    fn wider_rows_keep_their_median_and_do_not_cross_zero() {
        let row = std::array::from_fn(|at| at as f64);
        let wider = widened(&row, &[2.0; QUANTILES]);
        assert!(wider[MEDIAN] == row[MEDIAN] && wider[0] == 0.0 && wider[8] > row[8] && wider.is_sorted());
    }
}
