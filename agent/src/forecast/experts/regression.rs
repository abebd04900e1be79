//! Recursive least squares with forgetting (Ljung, System Identification, 2nd edition, equations 11.16 and 11.17), from a prior: ridge regression,
//! one observation at a time. What the features and the target are is the user's.

use serde::{Deserialize, Serialize};

/// A linear model of `N` features.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "[f64; N]: Serialize, [[f64; N]; N]: Serialize",
    deserialize = "[f64; N]: Deserialize<'de>, [[f64; N]; N]: Deserialize<'de>"
))]
pub(super) struct Regression<const N: usize> {
    pub(super) coefficients: [f64; N],
    /// The inverse of the information matrix.
    covariance: [[f64; N]; N],
    forget: f64,
}

impl<const N: usize> Regression<N> {
    /// With these coefficients, each of this variance in units of the target's, and a memory of `1 / (1 - forget)` observations.
    pub(super) fn new(coefficients: [f64; N], variance: f64, forget: f64) -> Self {
        let covariance = std::array::from_fn(|row| std::array::from_fn(|column| if row == column { variance } else { 0.0 }));
        Self { coefficients, covariance, forget }
    }

    /// What it says of these features.
    pub(super) fn says(&self, features: &[f64; N]) -> f64 {
        self.coefficients.iter().zip(features).map(|(coefficient, feature)| coefficient * feature).sum()
    }

    /// Learns that these features came with this target.
    pub(super) fn learn(&mut self, features: &[f64; N], target: f64) {
        let error = target - self.says(features);
        let moved: [f64; N] = std::array::from_fn(|row| self.covariance[row].iter().zip(features).map(|(p, x)| p * x).sum());
        let scale = self.forget + moved.iter().zip(features).map(|(m, x)| m * x).sum::<f64>();
        self.coefficients.iter_mut().zip(&moved).for_each(|(coefficient, m)| *coefficient += m / scale * error);
        let spent: f64 = (0..N).map(|at| self.covariance[at][at]).sum();
        // While nothing moves, forgetting alone would let the covariance grow without bound.
        let forget = if spent < 1.0 { self.forget } else { 1.0 };
        for (row, of) in self.covariance.iter_mut().zip(&moved) {
            row.iter_mut().zip(&moved).for_each(|(p, m)| *p = (*p - of * m / scale) / forget);
        }
    }
}
