//! The mix of experts at one horizon: weights from their recent losses.
//!
//! Every expert's absolute error (twice its pinball loss at the median) is averaged with exponential
//! forgetting, and the weight is `exp(-ETA * loss / smallest loss)`: the exponentially weighted
//! average forecaster (Cesa-Bianchi and Lugosi, Prediction, Learning, and Games, 2006, section 2.1)
//! with forgetting, on losses made unitless. It needs no tuning by series, and an expert that turns
//! bad is out after a few dozen steps. Experts begin with the shares that they are given, so that three who say much the same are not heard
//! three times.

use serde::{Deserialize, Serialize};

/// How sharply a worse expert loses weight: one whose loss is a quarter above the best's gets
/// exp(-1) = 37 % of its weight. Of 2, 4, 8 and 15 the least loss on recorded traffic, by little.
const ETA: f64 = 4.0;
/// An expert that was not judged yet counts as one that loses so much more than the best, as a share: of 0.25, 0.5 and none of its weight the
/// differences are small.
const NEWCOMER: f64 = 0.5;
/// Memory of the losses: about 100 steps.
const LOSS_GAIN: f64 = 0.01;

/// The experts' losses at one horizon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mix {
    losses: Vec<Loss>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Loss {
    mean: f64,
    seen: u32,
}

impl Mix {
    /// For `experts` experts.
    pub(crate) fn new(experts: usize) -> Self {
        Self { losses: vec![Loss::default(); experts] }
    }

    /// How many experts there are.
    pub(crate) fn experts(&self) -> usize {
        self.losses.len()
    }

    /// Learns what the experts had said (not finite: silent) about a step whose count was `actual`.
    pub(crate) fn learn(&mut self, points: &[f32], actual: f64) {
        for (loss, point) in self.losses.iter_mut().zip(points) {
            if point.is_finite() {
                loss.seen = loss.seen.saturating_add(1);
                let gain = (1.0 / f64::from(loss.seen)).max(LOSS_GAIN);
                loss.mean += gain * ((actual - f64::from(*point)).abs() - loss.mean);
            }
        }
    }

    /// The weights of the experts that say something (finite points); they sum to 1 if any does. Who has a share has that if all lose the same.
    /// Without losses to go by, the last expert that speaks has it all: experts stand in ascending
    /// order of what they know.
    pub(crate) fn weights(&self, shares: &[f64], points: &[f64], weights: &mut [f64]) {
        let speaking = |at: usize| points[at].is_finite();
        let members = points.len().min(self.losses.len());
        let judged = |at: usize| speaking(at) && self.losses[at].seen > 0;
        let best = (0..members).filter(|at| judged(*at)).map(|at| self.losses[at].mean).min_by(f64::total_cmp);
        weights.fill(0.0);
        match best {
            None => {
                if let Some(at) = (0..members).rev().find(|at| speaking(*at)) {
                    weights[at] = 1.0;
                }
            }
            Some(best) => {
                let mut total = 0.0;
                for at in (0..members).filter(|at| speaking(*at)) {
                    let loss = self.losses[at];
                    // Where the best is perfect, only the perfect count.
                    let excess = if loss.seen == 0 {
                        NEWCOMER
                    } else if loss.mean <= best {
                        0.0
                    } else {
                        loss.mean / best - 1.0
                    };
                    weights[at] = shares[at] * (-ETA * excess).exp();
                    total += weights[at];
                }
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
        }
    }

    /// How large the next error is expected to be, with these weights: what their experts lose in the mean, which it does not exceed (Jensen).
    /// Nothing before one of them was judged.
    pub(crate) fn expected_loss(&self, weights: &[f64]) -> Option<f64> {
        let judged = self.losses.iter().zip(weights).filter(|(loss, weight)| loss.seen > 0 && **weight > 0.0);
        let (sum, total) = judged.fold((0.0, 0.0), |(sum, total), (loss, weight)| (sum + weight * loss.mean, total + weight));
        (total > 0.0).then(|| sum / total)
    }

    /// The recent loss of an expert, if it was judged.
    pub(crate) fn loss(&self, at: usize) -> Option<f64> {
        self.losses.get(at).filter(|loss| loss.seen > 0).map(|loss| loss.mean)
    }

    /// The expert with the smallest loss among those that were judged.
    pub(crate) fn best(&self) -> Option<usize> {
        let judged = self.losses.iter().enumerate().filter(|(_, loss)| loss.seen > 0);
        judged.min_by(|(_, a), (_, b)| a.mean.total_cmp(&b.mean)).map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(mix: &Mix, points: &[f64]) -> Vec<f64> {
        let mut weights = vec![0.0; points.len()];
        mix.weights(&vec![1.0; points.len()], points, &mut weights);
        weights
    }

    #[test]
    fn weight_goes_to_whom_errs_least_and_comes_back() {
        let mut mix = Mix::new(2);
        (0..50).for_each(|_| mix.learn(&[10.0, 12.0], 10.5));
        assert!(weights(&mix, &[1.0, 1.0])[0] > 0.99);
        (0..300).for_each(|_| mix.learn(&[10.0, 12.0], 12.0));
        assert!(weights(&mix, &[1.0, 1.0])[1] > 0.99);
        assert_eq!(mix.best(), Some(1));
    }

    #[test]
    fn the_silent_have_no_weight() {
        let mut mix = Mix::new(3);
        assert_eq!(weights(&mix, &[1.0, 2.0, f64::NAN]), [0.0, 1.0, 0.0]);
        mix.learn(&[1.0, 2.0, f32::NAN], 1.0);
        assert_eq!(weights(&mix, &[1.0, f64::NAN, f64::NAN]), [1.0, 0.0, 0.0]);
        assert_eq!(weights(&mix, &[f64::NAN; 3]), [0.0; 3]);
    }

    #[test]
    fn a_newcomer_has_a_little_weight_and_adds_nothing_to_what_is_expected() {
        let mut mix = Mix::new(2);
        assert_eq!(mix.expected_loss(&[1.0, 0.0]), None);
        mix.learn(&[1.0, f32::NAN], 4.0);
        let weights = weights(&mix, &[1.0, 2.0]);
        assert!((0.05..0.2).contains(&weights[1]), "{weights:?}");
        assert_eq!(mix.expected_loss(&weights), Some(3.0));
    }

    #[test]
    fn a_perfect_expert_takes_all_without_dividing_by_zero() {
        let mut mix = Mix::new(2);
        mix.learn(&[5.0, 6.0], 5.0);
        assert_eq!(weights(&mix, &[5.0, 6.0]), [1.0, 0.0]);
    }
}
