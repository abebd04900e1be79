//! Weighted least squares with forgetting, shrunk towards nothing.

/// How fast regressions forget: half in about 1,400 steps.
const FORGET: f64 = 0.9995;
/// Steps between two solutions of a regression.
const SOLVE_EVERY: u32 = 6;

/// Weighted least squares with forgetting, shrunk towards nothing.
#[derive(Debug, Clone)]
pub(super) struct Ridge<const N: usize> {
    products: [[f64; N]; N],
    targets: [f64; N],
    penalty: [f64; N],
    solution: [f64; N],
    since: u32,
}

impl<const N: usize> Ridge<N> {
    pub(super) fn new(penalty: [f64; N]) -> Self {
        Self { products: [[0.0; N]; N], targets: [0.0; N], penalty, solution: [0.0; N], since: 0 }
    }

    pub(super) fn learn(&mut self, x: &[f64; N], y: f64, weight: f64) {
        for i in 0..N {
            for j in 0..N {
                self.products[i][j] = FORGET * self.products[i][j] + weight * x[i] * x[j];
            }
            self.targets[i] = FORGET * self.targets[i] + weight * x[i] * y;
        }
        self.since += 1;
        if self.since >= SOLVE_EVERY {
            self.since = 0;
            if let Some(solution) = self.solve() {
                self.solution = solution;
            }
        }
    }

    pub(super) fn at(&self, x: &[f64; N]) -> f64 {
        x.iter().zip(&self.solution).map(|(x, a)| x * a).sum()
    }

    /// Cholesky's factors; nothing where numbers have run away.
    fn solve(&self) -> Option<[f64; N]> {
        let mut l = [[0.0; N]; N];
        for i in 0..N {
            for j in 0..=i {
                let mut sum = self.products[i][j] + if i == j { self.penalty[i] } else { 0.0 };
                sum -= (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
                if i == j {
                    if sum.is_nan() || sum <= 1e-12 {
                        return None;
                    }
                    l[i][i] = sum.sqrt();
                } else {
                    l[i][j] = sum / l[j][j];
                }
            }
        }
        let mut x = self.targets;
        for i in 0..N {
            x[i] = (x[i] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
        }
        for i in (0..N).rev() {
            x[i] = (x[i] - (i + 1..N).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
        }
        x.iter().all(|value| value.is_finite()).then_some(x)
    }
}
