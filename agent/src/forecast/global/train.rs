//! Trains a network by stochastic gradient descent: bounded steps, a rate that falls to nothing, and the weights of the moment at
//! which the last part of the series, which is not learnt from, was foreseen best (early stopping, Prechelt 1998).

use super::GoOn;
use super::layers::Adam;
use super::lstm::{self, Lstm};
use super::math::Chance;
use super::nhits::Nhits;
use super::panel::{Moment, Panel};
use super::quantiles::pinball;
use super::window::Shape;

/// How often the held-out loss is measured.
const CHECKS: usize = 12;
/// Stops after so many measurements without a better one.
const PATIENCE: usize = 4;

/// How much is spent, and on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) steps: usize,
    pub(super) rate: f32,
    /// Examples of a step.
    pub(super) batch: usize,
    /// Share of the series' steps, the last, that training does not see.
    pub(super) share: f64,
    /// Moments of them that the loss is measured at.
    pub(super) held: usize,
}

/// A network that is trained.
pub(super) trait Network {
    /// Whether there is enough before `moment`.
    fn can_see(&self, shown: &Shown<'_>, moment: Moment) -> bool;
    fn start(&self, chance: &mut Chance) -> Vec<f32>;
    /// Loss and weight of the examples at `moments`; adds to the gradients if there are any. The last `held` values of every
    /// series are unknown.
    fn examine(&self, weights: &[f32], gradients: Option<&mut [f32]>, shown: &Shown<'_>, moments: &[Moment]) -> (f64, f64);
    /// Quantiles by moment and lane.
    fn say(&self, weights: &[f32], shown: &Shown<'_>, moments: &[Moment]) -> Vec<f32>;
}

/// What examples are cut from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) panel: &'a Panel,
    pub(super) shape: &'a Shape,
    pub(super) held: usize,
}

/// Weights that were trained. Nothing if there are no examples, or if it is not to go on.
pub(super) fn train(network: &impl Network, panel: &Panel, shape: &Shape, budget: Budget, seed: u64, go_on: GoOn<'_>) -> Option<Vec<f32>> {
    let mut chance = Chance::new(seed);
    let (mut moments, mut validate, held) = panel.moments(shape, budget.share);
    moments.retain(|moment| network.can_see(&Shown { panel, shape, held }, *moment));
    if moments.is_empty() {
        return None;
    }
    validate.retain(|moment| network.can_see(&Shown { panel, shape, held: 0 }, *moment));
    let validate = Panel::some(validate, budget.held, &mut chance);
    let mut weights = network.start(&mut chance);
    let (mut gradients, mut adam) = (vec![0.0; weights.len()], Adam::new(weights.len()));
    let (mut best, mut best_loss, mut since) = (weights.clone(), f64::INFINITY, 0);
    let (training, testing) = (Shown { panel, shape, held }, Shown { panel, shape, held: 0 });
    let mut next = moments.len();
    for step in 0..budget.steps {
        if !go_on() {
            return None;
        }
        if next + budget.batch > moments.len() {
            chance.shuffle(&mut moments);
            next = 0;
        }
        let batch = &moments[next..(next + budget.batch).min(moments.len())];
        next += budget.batch;
        let (_, weight) = network.examine(&weights, Some(&mut gradients), &training, batch);
        let scale = 1.0 / weight.max(1e-6) as f32;
        gradients.iter_mut().for_each(|g| *g *= scale);
        let left = 1.0 - step as f32 / budget.steps as f32;
        let warm = ((step + 1) as f32 / 50.0).min(1.0);
        adam.step(&mut weights, &mut gradients, budget.rate * left * warm);
        let every = (budget.steps / CHECKS).max(1);
        if (step + 1) % every == 0 && !validate.is_empty() {
            let (mut loss, mut total) = (0.0, 0.0);
            for some in validate.chunks(4 * budget.batch) {
                let (l, w) = network.examine(&weights, None, &testing, some);
                loss += l;
                total += w;
            }
            let loss = loss / f64::max(total, 1e-6);
            if loss < best_loss {
                (best_loss, since) = (loss, 0);
                best.clone_from(&weights);
            } else {
                since += 1;
                if since == PATIENCE {
                    break;
                }
            }
        }
    }
    // Where nothing could be held out, or no loss was a number, the last weights are as good as any.
    Some(if best_loss.is_finite() { best } else { weights })
}

impl Network for Nhits {
    fn can_see(&self, shown: &Shown<'_>, moment: Moment) -> bool {
        shown.panel.whole(shown.shape, moment, 1)
    }

    fn start(&self, chance: &mut Chance) -> Vec<f32> {
        Nhits::start(self, chance)
    }

    fn examine(&self, weights: &[f32], gradients: Option<&mut [f32]>, shown: &Shown<'_>, moments: &[Moment]) -> (f64, f64) {
        let batch = shown.panel.batch(shown.shape, moments, shown.held);
        let (mut said, traces) = self.forward(weights, &batch.inputs, batch.rows);
        let loss = pinball(&mut said, &batch.targets, &batch.weights);
        if let Some(gradients) = gradients {
            self.backward(weights, gradients, &batch.inputs, &traces, &said, batch.rows);
        }
        loss
    }

    fn say(&self, weights: &[f32], shown: &Shown<'_>, moments: &[Moment]) -> Vec<f32> {
        let batch = shown.panel.batch(shown.shape, moments, 0);
        self.forward(weights, &batch.inputs, batch.rows).0
    }
}

impl Lstm {
    /// The batches of the steps up to `moments`, all of the same rows.
    fn walk(shown: &Shown<'_>, moments: &[Moment]) -> (Vec<f32>, Vec<super::panel::Batch>) {
        let moments: Vec<Moment> = moments.iter().filter(|m| shown.panel.whole(shown.shape, **m, lstm::STEPS)).copied().collect();
        let mut inputs = vec![];
        let mut batches = vec![];
        for back in (0..lstm::STEPS).rev() {
            let step: Vec<Moment> = moments.iter().map(|m| Moment { origin: m.origin - back, ..*m }).collect();
            let batch = shown.panel.batch(shown.shape, &step, shown.held);
            for row in batch.inputs.chunks_exact(shown.shape.inputs()) {
                inputs.extend_from_slice(&row[shown.shape.recent - 1..]);
            }
            batches.push(batch);
        }
        (inputs, batches)
    }
}

impl Network for Lstm {
    fn can_see(&self, shown: &Shown<'_>, moment: Moment) -> bool {
        shown.panel.whole(shown.shape, moment, lstm::STEPS)
    }

    fn start(&self, chance: &mut Chance) -> Vec<f32> {
        Lstm::start(self, chance)
    }

    fn examine(&self, weights: &[f32], gradients: Option<&mut [f32]>, shown: &Shown<'_>, moments: &[Moment]) -> (f64, f64) {
        let (inputs, batches) = Self::walk(shown, moments);
        let rows = batches.first().map_or(0, |batch| batch.rows);
        if rows == 0 {
            return (0.0, 0.0);
        }
        let from = if gradients.is_some() { lstm::SETTLE } else { lstm::STEPS - 1 };
        let (mut said, traces) = self.forward(weights, &inputs, rows, from);
        let (mut loss, mut total) = (0.0, 0.0);
        for (said, batch) in said.iter_mut().zip(&batches[from..]) {
            let (l, w) = pinball(said, &batch.targets, &batch.weights);
            loss += l;
            total += w;
        }
        if let Some(gradients) = gradients {
            self.backward(weights, gradients, &inputs, &traces, &said, rows);
        }
        (loss, total)
    }

    fn say(&self, weights: &[f32], shown: &Shown<'_>, moments: &[Moment]) -> Vec<f32> {
        let (inputs, batches) = Self::walk(shown, moments);
        let rows = batches.first().map_or(0, |batch| batch.rows);
        if rows == 0 { vec![] } else { self.forward(weights, &inputs, rows, lstm::STEPS - 1).0.remove(0) }
    }
}
