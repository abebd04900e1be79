//! Layers of networks over flat weights: dense, long short-term memory, and the optimiser.
//!
//! A layer knows where its weights lie in one flat vector, and no more: gradients lie at the same places of another vector,
//! and the optimiser ([`Adam`]) sees nothing but the two. Every gradient is held against finite differences in the tests.

use super::math::{Chance, multiply, sigmoid, tanh, transposed};

/// `outputs = inputs x weights + bias`.
#[derive(Debug, Clone)]
pub(super) struct Dense {
    at: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Dense {
    /// Takes its place behind the first `taken` weights.
    pub(super) fn new(taken: &mut usize, inputs: usize, outputs: usize) -> Self {
        let at = *taken;
        *taken += (inputs + 1) * outputs;
        Self { at, inputs, outputs }
    }

    /// Uniform weights of variance `gain / inputs`, no bias (Glorot and Bengio 2010; gain 2 before a rectifier: He et al. 2015).
    pub(super) fn start(&self, weights: &mut [f32], gain: f32, chance: &mut Chance) {
        let bound = (3.0 * gain / self.inputs.max(1) as f32).sqrt();
        weights[self.at..][..self.inputs * self.outputs].iter_mut().for_each(|w| *w = bound * chance.signed());
    }

    /// For `rows` inputs at once.
    pub(super) fn forward(&self, weights: &[f32], input: &[f32], rows: usize) -> Vec<f32> {
        let (matrix, bias) = weights[self.at..][..(self.inputs + 1) * self.outputs].split_at(self.inputs * self.outputs);
        let mut output = Vec::with_capacity(rows * self.outputs);
        (0..rows).for_each(|_| output.extend_from_slice(bias));
        multiply(&mut output, input, matrix, rows, self.inputs, self.outputs);
        output
    }

    /// Adds to the weights' gradients, given that of the output.
    pub(super) fn learn(&self, gradients: &mut [f32], input: &[f32], output: &[f32], rows: usize) {
        let (matrix, bias) = gradients[self.at..][..(self.inputs + 1) * self.outputs].split_at_mut(self.inputs * self.outputs);
        multiply(matrix, &transposed(input, rows, self.inputs), output, self.inputs, rows, self.outputs);
        for row in output.chunks_exact(self.outputs) {
            bias.iter_mut().zip(row).for_each(|(b, o)| *b += o);
        }
    }

    /// The weights, turned for [`backward`](Self::backward).
    pub(super) fn turned(&self, weights: &[f32]) -> Vec<f32> {
        transposed(&weights[self.at..][..self.inputs * self.outputs], self.inputs, self.outputs)
    }

    /// The gradient of the input, given that of the output.
    pub(super) fn backward(&self, turned: &[f32], output: &[f32], rows: usize) -> Vec<f32> {
        let mut input = vec![0.0; rows * self.inputs];
        multiply(&mut input, output, turned, rows, self.outputs, self.inputs);
        input
    }
}

/// Sets what is negative to zero.
pub(super) fn rectify(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
}

/// Takes the gradient of what was rectified to nothing out.
pub(super) fn unrectify(gradient: &mut [f32], rectified: &[f32]) {
    gradient.iter_mut().zip(rectified).filter(|(_, value)| **value <= 0.0).for_each(|(gradient, _)| *gradient = 0.0);
}

/// A cell of long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000).
#[derive(Debug, Clone)]
pub(super) struct Cell {
    gates: Dense,
    units: usize,
}

/// What a step of a [`Cell`] leaves behind for the way back.
#[derive(Debug)]
pub(super) struct Trace {
    /// Input and former output, row by row.
    input: Vec<f32>,
    /// Input, forget and output gate and candidate after squashing, row by row.
    gates: Vec<f32>,
    former: Vec<f32>,
    squashed: Vec<f32>,
}

/// Memory and output of a [`Cell`], row by row.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) memory: Vec<f32>,
    pub(super) output: Vec<f32>,
}

impl State {
    pub(super) fn zero(rows: usize, units: usize) -> Self {
        Self { memory: vec![0.0; rows * units], output: vec![0.0; rows * units] }
    }
}

impl Cell {
    /// Takes its place behind the first `taken` weights.
    pub(super) fn new(taken: &mut usize, inputs: usize, units: usize) -> Self {
        Self { gates: Dense::new(taken, inputs + units, 4 * units), units }
    }

    /// The forget gate starts open (Jozefowicz, Zaremba and Sutskever 2015).
    pub(super) fn start(&self, weights: &mut [f32], chance: &mut Chance) {
        self.gates.start(weights, 1.0, chance);
        let bias = self.gates.at + self.gates.inputs * self.gates.outputs;
        weights[bias + self.units..][..self.units].fill(1.0);
    }

    /// One step further.
    pub(super) fn forward(&self, weights: &[f32], input: &[f32], state: &mut State, rows: usize) -> Trace {
        let (units, inputs) = (self.units, self.gates.inputs - self.units);
        let mut joined = Vec::with_capacity(rows * self.gates.inputs);
        for row in 0..rows {
            joined.extend_from_slice(&input[row * inputs..][..inputs]);
            joined.extend_from_slice(&state.output[row * units..][..units]);
        }
        let mut gates = self.gates.forward(weights, &joined, rows);
        let former = state.memory.clone();
        let mut squashed = vec![0.0; rows * units];
        for row in 0..rows {
            let (open, candidate) = gates[row * 4 * units..][..4 * units].split_at_mut(3 * units);
            open.iter_mut().for_each(|gate| *gate = sigmoid(*gate));
            candidate.iter_mut().for_each(|value| *value = tanh(*value));
            let memory = &mut state.memory[row * units..][..units];
            let (output, squashed) = (&mut state.output[row * units..][..units], &mut squashed[row * units..][..units]);
            for at in 0..units {
                memory[at] = open[units + at] * memory[at] + open[at] * candidate[at];
                squashed[at] = tanh(memory[at]);
                output[at] = open[2 * units + at] * squashed[at];
            }
        }
        Trace { input: joined, gates, former, squashed }
    }

    /// The weights, turned for [`backward`](Self::backward).
    pub(super) fn turned(&self, weights: &[f32]) -> Vec<f32> {
        self.gates.turned(weights)
    }

    /// One step back: from the gradient of the state after the step to that of the state before it.
    pub(super) fn backward(&self, turned: &[f32], gradients: &mut [f32], trace: &Trace, state: &mut State, rows: usize) {
        let (units, inputs) = (self.units, self.gates.inputs - self.units);
        let mut gates = vec![0.0; rows * 4 * units];
        for row in 0..rows {
            let values = &trace.gates[row * 4 * units..][..4 * units];
            let slopes = &mut gates[row * 4 * units..][..4 * units];
            let (former, squashed) = (&trace.former[row * units..][..units], &trace.squashed[row * units..][..units]);
            let (memory, output) = (&mut state.memory[row * units..][..units], &state.output[row * units..][..units]);
            for at in 0..units {
                let (input, forget, open, candidate) = (values[at], values[units + at], values[2 * units + at], values[3 * units + at]);
                let through = memory[at] + output[at] * open * (1.0 - squashed[at] * squashed[at]);
                slopes[at] = through * candidate * input * (1.0 - input);
                slopes[units + at] = through * former[at] * forget * (1.0 - forget);
                slopes[2 * units + at] = output[at] * squashed[at] * open * (1.0 - open);
                slopes[3 * units + at] = through * input * (1.0 - candidate * candidate);
                memory[at] = through * forget;
            }
        }
        self.gates.learn(gradients, &trace.input, &gates, rows);
        let joined = self.gates.backward(turned, &gates, rows);
        for row in 0..rows {
            state.output[row * units..][..units].copy_from_slice(&joined[row * self.gates.inputs + inputs..][..units]);
        }
    }
}

/// Stochastic gradient descent with adaptive moments (Kingma and Ba 2015) and decoupled weight decay (Loshchilov and Hutter 2019).
#[derive(Debug)]
pub(super) struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

/// Decay of the moments, as in the paper.
const MOMENTS: (f32, f32) = (0.9, 0.999);
/// Weight decay for a rate of one.
const DECAY: f32 = 0.01;
/// Gradients longer than this are shortened to it (Pascanu, Mikolov and Bengio 2013): one flood must not throw the weights.
const LONGEST: f32 = 5.0;

impl Adam {
    pub(super) fn new(weights: usize) -> Self {
        Self { first: vec![0.0; weights], second: vec![0.0; weights], steps: 0 }
    }

    /// One step down `gradients`, which are zero afterwards.
    pub(super) fn step(&mut self, weights: &mut [f32], gradients: &mut [f32], rate: f32) {
        let length = gradients.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() as f32;
        let shorten = if length.is_finite() { (LONGEST / length.max(f32::MIN_POSITIVE)).min(1.0) } else { 0.0 };
        self.steps = self.steps.saturating_add(1);
        let (whole_first, whole_second) = (1.0 - MOMENTS.0.powi(self.steps), 1.0 - MOMENTS.1.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradients).zip(moments) {
            let g = if shorten > 0.0 { *gradient * shorten } else { 0.0 };
            *first += (1.0 - MOMENTS.0) * (g - *first);
            *second += (1.0 - MOMENTS.1) * (g * g - *second);
            *weight -= rate * (*first / whole_first / ((*second / whole_second).sqrt() + 1e-8) + DECAY * *weight);
            *gradient = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds `gradients` against the differences of `loss`.
    fn hold(weights: &[f32], gradients: &[f32], loss: impl Fn(&[f32]) -> f32) {
        for at in 0..weights.len() {
            let moved = |by: f32| {
                let mut weights = weights.to_vec();
                weights[at] += by;
                loss(&weights)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((difference - gradients[at]).abs() < 2e-3 + 0.02 * difference.abs(), "weight {at}: {difference} {}", gradients[at]);
        }
    }

    #[test]
    fn gradients_of_dense_layers_are_the_differences_of_the_loss() {
        let (mut taken, mut chance) = (0, Chance::new(1));
        let (first, second) = (Dense::new(&mut taken, 3, 5), Dense::new(&mut taken, 5, 2));
        let mut weights = vec![0.1; taken];
        first.start(&mut weights, 1.0, &mut chance);
        second.start(&mut weights, 1.0, &mut chance);
        let input: Vec<f32> = (0..6).map(|_| chance.signed()).collect();
        let run = |weights: &[f32]| {
            let hidden: Vec<f32> = first.forward(weights, &input, 2).into_iter().map(tanh).collect();
            let output = second.forward(weights, &hidden, 2);
            (hidden, output)
        };
        let loss = |weights: &[f32]| run(weights).1.iter().map(|o| o * o).sum::<f32>();
        let (hidden, output) = run(&weights);
        let mut gradients = vec![0.0; taken];
        let slope: Vec<f32> = output.iter().map(|o| 2.0 * o).collect();
        second.learn(&mut gradients, &hidden, &slope, 2);
        let mut back = second.backward(&second.turned(&weights), &slope, 2);
        back.iter_mut().zip(&hidden).for_each(|(back, h)| *back *= 1.0 - h * h);
        first.learn(&mut gradients, &input, &back, 2);
        hold(&weights, &gradients, loss);
    }

    #[test]
    fn gradients_through_a_cell_and_time_are_the_differences_of_the_loss() {
        let (mut taken, mut chance) = (0, Chance::new(2));
        let cell = Cell::new(&mut taken, 2, 3);
        let mut weights = vec![0.0; taken];
        cell.start(&mut weights, &mut chance);
        let input: Vec<f32> = (0..5 * 2 * 2).map(|_| 2.0 * chance.signed()).collect();
        let run = |weights: &[f32]| {
            let mut state = State::zero(2, 3);
            let mut steps = vec![];
            for input in input.chunks_exact(4) {
                let trace = cell.forward(weights, input, &mut state, 2);
                steps.push((trace, state.output.clone()));
            }
            steps
        };
        // Every step's output counts.
        let loss = |weights: &[f32]| run(weights).iter().flat_map(|(_, output)| output).map(|o| o * o).sum::<f32>();
        let (mut gradients, mut back) = (vec![0.0; taken], State::zero(2, 3));
        let turned = cell.turned(&weights);
        for (trace, output) in run(&weights).iter().rev() {
            back.output.iter_mut().zip(output).for_each(|(back, o)| *back += 2.0 * o);
            cell.backward(&turned, &mut gradients, trace, &mut back, 2);
        }
        hold(&weights, &gradients, loss);
    }

    #[test]
    fn the_optimiser_finds_the_bottom_and_survives_a_gradient_that_is_no_number() {
        let (mut weights, mut adam) = (vec![0.0, 0.0], Adam::new(2));
        for at in 0..2_000 {
            let mut gradients = vec![2.0 * (weights[0] - 3.0), 20.0 * (weights[1] + 1.0)];
            if at == 100 {
                gradients[0] = f32::NAN;
            }
            adam.step(&mut weights, &mut gradients, 0.05 * (1.0 - at as f32 / 2_000.0));
        }
        assert!((weights[0] - 3.0).abs() < 0.05 && (weights[1] + 1.0).abs() < 0.05, "{weights:?}");
    }
}
