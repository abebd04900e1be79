//! What an event does to a forecast: multiply it, and widen it by how unsure the factor is.
//!
//! Factor and forecast are taken as independent, so that their deviations from the median add as squares: at
//! the probability `p`, with `z` its standard normal quantile, the new deviation is
//! `hypot(factor * (value - median), median * deviation of the factor at z)`. A sure factor scales the path and
//! nothing else; a sure path gets the factor's interval. Zero stays zero, and quantiles never cross.

use tradewind_protocol::calendar::Effect;
use tradewind_protocol::{Quantile, QuantilePath, StepIndex};

/// The standard normal quantile of 95 %: where [`Effect::high`] stands.
const Z95: f64 = 1.644_853_6;

/// Both effects at once.
pub(super) fn times(a: Effect, b: Effect) -> Effect {
    let factor = a.factor * b.factor;
    let below = (b.factor * (a.factor - a.low)).hypot(a.factor * (b.factor - b.low));
    let above = (b.factor * (a.high - a.factor)).hypot(a.factor * (b.high - b.factor));
    Effect { factor, low: (factor - below).max(0.0), high: factor + above }
}

/// The effect on a step of which only `share` is in the event.
pub(super) fn partly(effect: Effect, share: f64) -> Effect {
    let part = |factor: f64| 1.0 + share * (factor - 1.0);
    Effect { factor: part(effect.factor), low: part(effect.low), high: part(effect.high) }
}

/// The path under the effect that `of` names for each step.
pub(super) fn applied(path: &QuantilePath, of: impl Fn(StepIndex) -> Effect) -> QuantilePath {
    let quantiles = path.quantiles();
    let deviates: Vec<f64> = quantiles.iter().map(|quantile| deviate(*quantile)).collect();
    let mut values = Vec::with_capacity(path.horizon() * quantiles.len());
    for ahead in 0..path.horizon() {
        let at = path.start().offset(ahead as i64);
        let (Some(row), Some(median), effect) = (path.row(ahead), path.value(at, Quantile::MEDIAN), of(at)) else { continue };
        for (value, z) in row.iter().zip(&deviates) {
            if effect == Effect::NONE {
                values.push(*value);
                continue;
            }
            let spread = if *z < 0.0 { effect.factor - effect.low } else { effect.high - effect.factor };
            let own = effect.factor * (f64::from(*value) - median);
            let deviation = own.hypot(median * spread * z / Z95);
            values.push((effect.factor * median + deviation.copysign(*z)) as f32);
        }
    }
    // Never refused: the shape is the path's own, and the values are put in order.
    QuantilePath::rearranged(path.start(), path.step(), quantiles.to_vec(), values).unwrap_or_else(|_| path.clone())
}

/// The standard normal quantile (Abramowitz and Stegun, 26.2.23; error below 4.5e-4).
fn deviate(quantile: Quantile) -> f64 {
    let p = quantile.probability();
    let tail = p.min(1.0 - p);
    let t = (-2.0 * tail.ln()).sqrt();
    let z = t - (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308)));
    if quantile == Quantile::MEDIAN { 0.0 } else { z.copysign(p - 0.5) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tradewind_protocol::Step;

    fn path(values: &[f32]) -> QuantilePath {
        let quantiles = vec![Quantile::CENTRAL_90.0, Quantile::MEDIAN, Quantile::CENTRAL_90.1];
        QuantilePath::new(StepIndex(0), Step::new(Duration::from_secs(60)).unwrap(), quantiles, values.to_vec()).unwrap()
    }

    fn under(values: &[f32], factor: f64, low: f64, high: f64) -> Vec<f32> {
        let applied = applied(&path(values), |_| Effect { factor, low, high });
        applied.row(0).unwrap().to_vec()
    }

    fn near(got: &[f32], wanted: [f32; 3]) {
        assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.05), "{got:?} is not {wanted:?}");
    }

    #[test]
    fn a_sure_factor_scales_and_an_unsure_one_widens() {
        near(&under(&[90.0, 100.0, 120.0], 2.0, 2.0, 2.0), [180.0, 200.0, 240.0]);
        near(&under(&[100.0, 100.0, 100.0], 2.0, 1.5, 3.0), [150.0, 200.0, 300.0]);
        // 3-4-5: deviations of 60 and 80 make 100.
        near(&under(&[70.0, 100.0, 130.0], 2.0, 1.2, 2.8), [100.0, 200.0, 300.0]);
    }

    #[test]
    fn zero_stays_zero_and_nothing_crosses() {
        near(&under(&[0.0, 0.0, 0.0], 5.0, 1.0, 9.0), [0.0, 0.0, 0.0]);
        near(&under(&[50.0, 100.0, 150.0], 0.0, 0.0, 0.0), [0.0, 0.0, 0.0]);
        near(&under(&[10.0, 100.0, 400.0], 1.0, 1.0, 1.0), [10.0, 100.0, 400.0]);
        let row = under(&[0.0, 1.0, 500.0], 3.0, 0.0, 1_000.0);
        assert!(row.is_sorted() && row[0] >= 0.0, "{row:?}");
    }

    #[test]
    fn effects_combine_and_come_in_part() {
        let both = times(Effect { factor: 2.0, low: 1.0, high: 3.0 }, Effect { factor: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(both, Effect { factor: 1.0, low: 0.5, high: 1.5 });
        assert_eq!(partly(Effect { factor: 3.0, low: 2.0, high: 5.0 }, 0.5), Effect { factor: 2.0, low: 1.5, high: 3.0 });
        assert_eq!(times(Effect::NONE, Effect::NONE), Effect::NONE);
    }
}
