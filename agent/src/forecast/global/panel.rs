//! The series that a model learns from, and the moments of them that it is shown.

use super::math::Chance;
use super::window::Shape;
use tradewind_protocol::StepIndex;

/// Square roots of the counts of many series, all up to the same step.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    series: Vec<Vec<f32>>,
    /// The number of the last step.
    until: i64,
}

/// Examples side by side.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) inputs: Vec<f32>,
    pub(super) targets: Vec<f32>,
    pub(super) weights: Vec<f32>,
}

/// A series and how many of its values are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) series: usize,
    pub(super) origin: usize,
}

impl Panel {
    /// Nothing yet, up to step `until`.
    pub fn new(until: i64) -> Self {
        Self { series: vec![], until }
    }

    /// Adds a series: its counts up to the panel's last step, oldest first.
    pub fn push(&mut self, counts: impl IntoIterator<Item = f64>) {
        self.series.push(counts.into_iter().map(root).collect());
    }

    /// Adds a series by its roots.
    pub(super) fn push_roots(&mut self, roots: Vec<f32>) {
        self.series.push(roots);
    }

    pub(super) fn series(&self) -> &[Vec<f32>] {
        &self.series
    }

    /// Its last step.
    pub(super) fn until(&self) -> StepIndex {
        StepIndex(self.until)
    }

    /// The length of the longest series.
    pub(super) fn longest(&self) -> usize {
        self.series.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The number of the step before `moment`.
    pub(super) fn number(&self, moment: Moment) -> i64 {
        self.until - (self.series[moment.series].len() - moment.origin) as i64
    }

    /// Splits the moments at which something can be learnt: those whose future lies in the last `share` of the steps are for validation.
    pub(super) fn moments(&self, shape: &Shape, share: f64) -> (Vec<Moment>, Vec<Moment>, usize) {
        let longest = self.longest();
        let held = (share * longest as f64) as usize;
        let (mut train, mut validate) = (vec![], vec![]);
        for (series, roots) in self.series.iter().enumerate() {
            for origin in shape.needed()..roots.len() {
                let list = if origin + held >= roots.len() { &mut validate } else { &mut train };
                list.push(Moment { series, origin });
            }
        }
        (train, validate, held)
    }

    /// The examples of these moments. The last `held` values of every series are no targets.
    pub(super) fn batch(&self, shape: &Shape, moments: &[Moment], held: usize) -> Batch {
        let mut batch = Batch::default();
        for moment in moments {
            let roots = &self.series[moment.series];
            let Some(view) = shape.view(&roots[..moment.origin], self.number(*moment)) else { continue };
            let known = &roots[..roots.len().saturating_sub(held).max(moment.origin)];
            for (target, weight) in shape.targets(&view, known, moment.origin).zip(&view.weight) {
                batch.targets.push(target.unwrap_or(0.0));
                batch.weights.push(if target.is_some() { *weight } else { 0.0 });
            }
            batch.inputs.extend_from_slice(&view.inputs);
            batch.rows += 1;
        }
        batch
    }

    /// Whether there is something to see at the last `steps` origins up to `moment`.
    pub(super) fn whole(&self, shape: &Shape, moment: Moment, steps: usize) -> bool {
        let roots = &self.series[moment.series];
        moment.origin + 1 >= shape.needed() + steps
            && (0..steps).all(|back| {
                let past = &roots[..moment.origin - back];
                past[past.len().saturating_sub(2 * shape.season.max(shape.recent))..].iter().any(|root| *root > 0.0)
            })
    }

    /// At most `count` of the moments, by chance.
    pub(super) fn some(mut moments: Vec<Moment>, count: usize, chance: &mut Chance) -> Vec<Moment> {
        if moments.len() > count {
            chance.shuffle(&mut moments);
            moments.truncate(count);
        }
        moments
    }
}

/// The root of a count; nothing of what is none.
pub(super) fn root(count: f64) -> f32 {
    if count.is_finite() { count.max(0.0).sqrt() as f32 } else { 0.0 }
}
