//! A global network in the manner of N-HiTS: stacks that look at the past and speak of the future at different rates
//! (Challu, Olivares, Oreshkin, Garza, Mergenthaler-Canseco and Dubrawski, AAAI 2023).
//!
//! Each of three stacks pools the recent values (section 3.2), passes them with the seasonal context through two
//! layers, and says knots of a path for each quantile, which are interpolated to the lanes (section
//! 3.3), and knots of what it has explained of the recent values, which is taken away before the next stack. Two departures:
//! what was one season ago is an input instead of a longer window, so that the cost does not grow with the season, and a
//! linear map stands beside the stacks, so that they need only learn what it cannot.

use super::layers::{Dense, rectify, unrectify};
use super::math::Chance;
use super::quantiles::QUANTILES;
use super::window::Shape;

/// How many recent values each stack pools into one.
const POOLS: [usize; 3] = [8, 4, 1];
/// Over how many lanes each stack's knots are spread: one knot per so many.
const RATES: [usize; 3] = [4, 2, 1];

/// The network's layers; the weights lie outside.
#[derive(Debug, Clone)]
pub(super) struct Nhits {
    recent: usize,
    inputs: usize,
    lanes: usize,
    linear: Dense,
    stacks: Vec<Stack>,
    /// How many there are.
    pub(super) weights: usize,
}

#[derive(Debug, Clone)]
struct Stack {
    pool: usize,
    first: Dense,
    second: Dense,
    knots: Dense,
    /// By lane: the knot before it, and how far towards the next it lies.
    ahead: Vec<(usize, f32)>,
    /// The same by recent value.
    back: Vec<(usize, f32)>,
}

/// What a stack leaves behind for the way back.
#[derive(Debug)]
struct Trace {
    input: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

/// What the way forward leaves behind.
#[derive(Debug)]
pub(super) struct Traces(Vec<Trace>);

impl Nhits {
    pub(super) fn new(shape: &Shape, width: usize) -> Self {
        let (recent, inputs, lanes) = (shape.recent, shape.inputs(), shape.lanes.len());
        let mut taken = 0;
        let linear = Dense::new(&mut taken, inputs, lanes * QUANTILES);
        let mut stack = |pool: usize, rate: usize| {
            let pooled = recent.div_ceil(pool);
            let (knots_ahead, knots_back) = (lanes.div_ceil(rate).max(2), pooled.max(2));
            Stack {
                pool,
                first: Dense::new(&mut taken, pooled + shape.context(), width),
                second: Dense::new(&mut taken, width, width),
                knots: Dense::new(&mut taken, width, knots_ahead * QUANTILES + knots_back),
                ahead: spread(lanes, knots_ahead),
                back: spread(recent, knots_back),
            }
        };
        let stacks = POOLS.into_iter().zip(RATES).map(|(pool, rate)| stack(pool, rate)).collect();
        Self { recent, inputs, lanes, linear, stacks, weights: taken }
    }

    pub(super) fn start(&self, chance: &mut Chance) -> Vec<f32> {
        let mut weights = vec![0.0; self.weights];
        for stack in &self.stacks {
            stack.first.start(&mut weights, 2.0, chance);
            stack.second.start(&mut weights, 2.0, chance);
            stack.knots.start(&mut weights, 0.05, chance);
        }
        weights
    }

    /// Quantiles by row and lane, not in order yet.
    pub(super) fn forward(&self, weights: &[f32], inputs: &[f32], rows: usize) -> (Vec<f32>, Traces) {
        let mut said = self.linear.forward(weights, inputs, rows);
        let mut left: Vec<f32> = inputs.chunks_exact(self.inputs).flat_map(|row| &row[..self.recent]).copied().collect();
        let mut traces = vec![];
        for stack in &self.stacks {
            let mut input = Vec::with_capacity(rows * stack.first.inputs);
            for (row, left) in inputs.chunks_exact(self.inputs).zip(left.chunks_exact(self.recent)) {
                // The newest values make the last pool.
                input.extend(left.rchunks(stack.pool).rev().map(|pool| pool.iter().sum::<f32>() / pool.len() as f32));
                input.extend_from_slice(&row[self.recent..]);
            }
            let mut first = stack.first.forward(weights, &input, rows);
            rectify(&mut first);
            let mut second = stack.second.forward(weights, &first, rows);
            rectify(&mut second);
            let knots = stack.knots.forward(weights, &second, rows);
            for (row, knots) in knots.chunks_exact(stack.knots.outputs).enumerate() {
                let (back, ahead) = knots.split_at(stack.knots.outputs - self.knots(stack));
                for ((at, share), said) in stack.ahead.iter().zip(said[row * self.lanes * QUANTILES..].chunks_exact_mut(QUANTILES)) {
                    let (low, high) = (&ahead[at * QUANTILES..][..QUANTILES], &ahead[(at + 1) * QUANTILES..][..QUANTILES]);
                    said.iter_mut().zip(low.iter().zip(high)).for_each(|(said, (low, high))| *said += low + share * (high - low));
                }
                for ((at, share), left) in stack.back.iter().zip(&mut left[row * self.recent..]) {
                    *left -= back[*at] + share * (back[at + 1] - back[*at]);
                }
            }
            traces.push(Trace { input, first, second });
        }
        (said, Traces(traces))
    }

    fn knots(&self, stack: &Stack) -> usize {
        (stack.ahead.last().map_or(0, |(at, _)| at + 2)) * QUANTILES
    }

    /// Adds to the weights' gradients, given that of what was said.
    pub(super) fn backward(&self, weights: &[f32], gradients: &mut [f32], inputs: &[f32], traces: &Traces, slopes: &[f32], rows: usize) {
        self.linear.learn(gradients, inputs, slopes, rows);
        // The gradient of what a stack left of the recent values.
        let mut left = vec![0.0; rows * self.recent];
        for (stack, trace) in self.stacks.iter().zip(&traces.0).rev() {
            let mut knots = vec![0.0; rows * stack.knots.outputs];
            for (row, knots) in knots.chunks_exact_mut(stack.knots.outputs).enumerate() {
                let (back, ahead) = knots.split_at_mut(stack.knots.outputs - self.knots(stack));
                for ((at, share), slope) in stack.ahead.iter().zip(slopes[row * self.lanes * QUANTILES..].chunks_exact(QUANTILES)) {
                    for (q, slope) in slope.iter().enumerate() {
                        ahead[at * QUANTILES + q] += (1.0 - share) * slope;
                        ahead[(at + 1) * QUANTILES + q] += share * slope;
                    }
                }
                for ((at, share), left) in stack.back.iter().zip(&left[row * self.recent..]) {
                    back[*at] -= (1.0 - share) * left;
                    back[at + 1] -= share * left;
                }
            }
            stack.knots.learn(gradients, &trace.second, &knots, rows);
            let mut second = stack.knots.backward(&stack.knots.turned(weights), &knots, rows);
            unrectify(&mut second, &trace.second);
            stack.second.learn(gradients, &trace.first, &second, rows);
            let mut first = stack.second.backward(&stack.second.turned(weights), &second, rows);
            unrectify(&mut first, &trace.first);
            stack.first.learn(gradients, &trace.input, &first, rows);
            let input = stack.first.backward(&stack.first.turned(weights), &first, rows);
            for (input, left) in input.chunks_exact(stack.first.inputs).zip(left.chunks_exact_mut(self.recent)) {
                let pooled = self.recent.div_ceil(stack.pool);
                for (pool, slope) in left.rchunks_mut(stack.pool).rev().zip(&input[..pooled]) {
                    let share = slope / pool.len() as f32;
                    pool.iter_mut().for_each(|left| *left += share);
                }
            }
        }
    }
}

/// Places `points` between `knots`, the first at the first and the last at the last.
fn spread(points: usize, knots: usize) -> Vec<(usize, f32)> {
    let place = |point: usize| {
        let position = point as f32 * (knots - 1) as f32 / points.saturating_sub(1).max(1) as f32;
        let at = (position as usize).min(knots - 2);
        (at, position - at as f32)
    };
    (0..points).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::quantiles::pinball;
    use super::*;

    #[test]
    fn knots_reach_from_the_first_point_to_the_last() {
        assert_eq!(spread(5, 3), [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5), (1, 1.0)]);
        assert_eq!(spread(1, 2), [(0, 0.0)]);
    }

    #[test]
    fn gradients_are_the_differences_of_the_loss() {
        let shape = Shape::new(4, 6, 12);
        let network = Nhits::new(&shape, 16);
        let mut chance = Chance::new(4);
        let mut weights = network.start(&mut chance);
        weights.iter_mut().for_each(|weight| *weight += 0.02 * chance.signed());
        let inputs: Vec<f32> = (0..3 * shape.inputs()).map(|_| chance.signed()).collect();
        let goals: Vec<f32> = (0..3 * network.lanes * QUANTILES).map(|_| chance.signed()).collect();
        let loss = |weights: &[f32]| {
            let (said, _) = network.forward(weights, &inputs, 3);
            said.iter().zip(&goals).map(|(said, goal)| f64::from(said - goal).powi(2)).sum::<f64>()
        };
        let (said, traces) = network.forward(&weights, &inputs, 3);
        let slopes: Vec<f32> = said.iter().zip(&goals).map(|(said, goal)| 2.0 * (said - goal)).collect();
        let mut gradients = vec![0.0; network.weights];
        network.backward(&weights, &mut gradients, &inputs, &traces, &slopes, 3);
        for at in (0..network.weights).step_by(101) {
            let moved = |by: f32| {
                let mut weights = weights.clone();
                weights[at] += by;
                loss(&weights)
            };
            let difference = ((moved(2e-3) - moved(-2e-3)) / 4e-3) as f32;
            assert!((difference - gradients[at]).abs() < 5e-3 + 0.03 * difference.abs(), "{at}: {difference} {}", gradients[at]);
        }
        // What pinball says of a perfect forecast moves nothing but by the quantiles' own weight.
        let (mut exact, targets) = (vec![0.0; QUANTILES], [0.0]);
        assert_eq!(pinball(&mut exact, &targets, &[1.0]), (0.0, 1.0));
    }
}
