//! A global network of long short-term memory: units that walk along a series and say quantiles at every step.
//!
//! One cell for all series (Salinas, Flunkert, Gasthaus and Januschowski, DeepAR, International Journal of Forecasting 2020, with
//! direct quantiles for each horizon instead of sampled paths: Wen, Torkkola, Narayanaswamy and Madeka, A Multi-Horizon
//! Quantile Recurrent Forecaster, 2017). It starts from nothing [`STEPS`] before an origin, in training as in use, so that
//! a forecast depends on a window of fixed length; in training every step after [`SETTLE`] is an example.

use super::layers::{Cell, Dense, State, Trace};
use super::math::Chance;
use super::quantiles::QUANTILES;
use super::window::Shape;

/// How many steps before an origin are walked.
pub(super) const STEPS: usize = 48;
/// Steps at the start that are no examples.
pub(super) const SETTLE: usize = 16;

/// The network's layers; the weights lie outside.
#[derive(Debug, Clone)]
pub(super) struct Lstm {
    inputs: usize,
    cell: Cell,
    head: Dense,
    linear: Dense,
    /// How many there are.
    pub(super) weights: usize,
}

/// What the way forward leaves behind.
#[derive(Debug)]
pub(super) struct Traces(Vec<(Trace, Vec<f32>)>);

impl Lstm {
    pub(super) fn new(shape: &Shape, units: usize) -> Self {
        let (inputs, outputs) = (1 + shape.context(), shape.lanes.len() * QUANTILES);
        let mut taken = 0;
        let cell = Cell::new(&mut taken, inputs, units);
        let head = Dense::new(&mut taken, units, outputs);
        let linear = Dense::new(&mut taken, inputs, outputs);
        Self { inputs, cell, head, linear, weights: taken }
    }

    pub(super) fn start(&self, chance: &mut Chance) -> Vec<f32> {
        let mut weights = vec![0.0; self.weights];
        self.cell.start(&mut weights, chance);
        self.head.start(&mut weights, 0.05, chance);
        weights
    }

    /// Quantiles by row and lane at every step from `from` on. `inputs` come step by step, and row by row within.
    pub(super) fn forward(&self, weights: &[f32], inputs: &[f32], rows: usize, from: usize) -> (Vec<Vec<f32>>, Traces) {
        let mut state = State::zero(rows, self.head.inputs);
        let (mut said, mut traces) = (vec![], vec![]);
        for (step, input) in inputs.chunks_exact(rows * self.inputs).enumerate() {
            let trace = self.cell.forward(weights, input, &mut state, rows);
            if step >= from {
                let mut rows_said = self.head.forward(weights, &state.output, rows);
                let straight = self.linear.forward(weights, input, rows);
                rows_said.iter_mut().zip(straight).for_each(|(said, straight)| *said += straight);
                said.push(rows_said);
            }
            traces.push((trace, state.output.clone()));
        }
        (said, Traces(traces))
    }

    /// Adds to the weights' gradients, given those of what was said at the last `slopes.len()` steps.
    pub(super) fn backward(
        &self,
        weights: &[f32],
        gradients: &mut [f32],
        inputs: &[f32],
        traces: &Traces,
        slopes: &[Vec<f32>],
        rows: usize,
    ) {
        let (cell, head) = (self.cell.turned(weights), self.head.turned(weights));
        let mut back = State::zero(rows, self.head.inputs);
        let from = traces.0.len() - slopes.len();
        for (step, (trace, output)) in traces.0.iter().enumerate().rev() {
            if let Some(slopes) = step.checked_sub(from).map(|at| &slopes[at]) {
                self.head.learn(gradients, output, slopes, rows);
                self.linear.learn(gradients, &inputs[step * rows * self.inputs..][..rows * self.inputs], slopes, rows);
                let through = self.head.backward(&head, slopes, rows);
                back.output.iter_mut().zip(through).for_each(|(back, through)| *back += through);
            }
            self.cell.backward(&cell, gradients, trace, &mut back, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_differences_of_the_loss() {
        let shape = Shape::new(3, 4, 8);
        let network = Lstm::new(&shape, 6);
        let mut chance = Chance::new(5);
        let mut weights = network.start(&mut chance);
        weights.iter_mut().for_each(|weight| *weight += 0.02 * chance.signed());
        let inputs: Vec<f32> = (0..6 * 2 * network.inputs).map(|_| chance.signed()).collect();
        let loss = |weights: &[f32]| {
            let (said, _) = network.forward(weights, &inputs, 2, 2);
            said.iter().flatten().map(|said| f64::from(said - 0.5).powi(2)).sum::<f64>()
        };
        let (said, traces) = network.forward(&weights, &inputs, 2, 2);
        assert_eq!(said.len(), 4);
        let slopes: Vec<Vec<f32>> = said.iter().map(|said| said.iter().map(|said| 2.0 * (said - 0.5)).collect()).collect();
        let mut gradients = vec![0.0; network.weights];
        network.backward(&weights, &mut gradients, &inputs, &traces, &slopes, 2);
        for at in (0..network.weights).step_by(41) {
            let moved = |by: f32| {
                let mut weights = weights.clone();
                weights[at] += by;
                loss(&weights)
            };
            let difference = ((moved(2e-3) - moved(-2e-3)) / 4e-3) as f32;
            assert!((difference - gradients[at]).abs() < 5e-3 + 0.03 * difference.abs(), "{at}: {difference} {}", gradients[at]);
        }
    }
}
