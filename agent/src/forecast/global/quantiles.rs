//! Pinball loss over the grid of quantiles, and its gradient.

use tradewind_protocol::Quantile;

/// How many quantiles are said.
pub(super) const QUANTILES: usize = Quantile::GRID.len();

/// Their probabilities.
pub(super) fn probabilities() -> [f32; QUANTILES] {
    Quantile::GRID.map(|q| q.probability() as f32)
}

/// The mean loss of what was `said` (rows of quantiles) about `targets`, each with its weight (0: not known). Turns `said`
/// into the gradient of the sum.
pub(super) fn pinball(said: &mut [f32], targets: &[f32], weights: &[f32]) -> (f64, f64) {
    let grid = probabilities();
    let (mut loss, mut total) = (0.0, 0.0);
    for ((row, target), weight) in said.chunks_exact_mut(QUANTILES).zip(targets).zip(weights) {
        let mut sum = 0.0;
        for (value, q) in row.iter_mut().zip(grid) {
            let over = target - *value;
            sum += if over >= 0.0 { q * over } else { (q - 1.0) * over };
            *value = weight * if over >= 0.0 { -q } else { 1.0 - q };
        }
        loss += f64::from(weight * sum);
        total += f64::from(*weight);
    }
    (loss, total)
}
