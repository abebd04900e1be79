//! What a global model sees of a series, in units that all series share.
//!
//! Counts are taken as square roots over the mean root of the last two seasons. A model sees the last few of them, what was
//! one season before the steps to come and in the mean of the last few seasons, where in the season it stands, and how rough
//! the series is; it says how far the steps to come will lie from a base: the mean season, and the share of the last
//! deviation from it that is usually left. Only values up to the origin are handed in, so that there is nothing else to see.

use super::super::horizon::lanes;

/// Seasons in the mean one.
const SEASONS: usize = 7;
/// Of a deviation this share is left a step later, as the base has it.
const FADE: f32 = 0.97;
/// Inputs that say how rough a series is.
const ROUGHNESS: usize = 3;
/// Normalised values and targets beyond this are taken as this: one flood must not turn a model.
const LARGEST: f32 = 8.0;

/// What is seen and asked of every series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) season: usize,
    /// The last so many values are seen one by one.
    pub(super) recent: usize,
    /// The horizons that are asked for, ascending.
    pub(super) lanes: Vec<usize>,
}

/// What is seen of one series at one origin.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The mean root: what is one unit.
    pub(super) unit: f32,
    /// The base by lane, in units.
    pub(super) base: Vec<f32>,
    /// What a unit of root at a lane weighs in the series' mean absolute seasonal difference.
    pub(super) weight: Vec<f32>,
    /// The last values, oldest first, then all the rest: [`Shape::inputs`] of them.
    pub(super) inputs: Vec<f32>,
}

impl Shape {
    pub(super) fn new(horizon: usize, season: usize, recent: usize) -> Self {
        Self { season: season.max(1), recent: recent.max(8), lanes: lanes(horizon) }
    }

    /// How many values before an origin there have to be.
    pub(super) fn needed(&self) -> usize {
        self.recent.max(self.season)
    }

    /// How many of the inputs are not recent values.
    pub(super) fn context(&self) -> usize {
        2 * (self.lanes.len() + 1) + 2 + ROUGHNESS
    }

    /// How many inputs there are.
    pub(super) fn inputs(&self) -> usize {
        self.recent + self.context()
    }

    /// What is seen after `roots`, the square roots of a series' counts up to the origin, which is step `number`. Nothing if
    /// they are too few or all zero.
    pub(super) fn view(&self, roots: &[f32], number: i64) -> Option<View> {
        if roots.len() < self.needed() {
            return None;
        }
        let past = &roots[roots.len().saturating_sub(2 * self.season.max(self.recent))..];
        let unit = past.iter().sum::<f32>() / past.len() as f32;
        if !(unit > 0.0 && unit.is_finite()) {
            return None;
        }
        let held = |value: f32| (value / unit).min(LARGEST);
        let last = roots.len() - 1;
        // Values at the phase of the step `ahead`, latest first.
        let seasons = |ahead: usize| {
            let first = ahead.div_ceil(self.season).max(1);
            (first..first + SEASONS).map_while(move |back| (last + ahead).checked_sub(back * self.season)).map(|at| held(roots[at]))
        };
        let mean = |ahead: usize| {
            let (sum, count) = seasons(ahead).fold((0.0, 0.0_f32), |(sum, count), value| (sum + value, count + 1.0));
            // A horizon beyond all seasons that were seen: the mean of all is all that is known.
            if count > 0.0 { sum / count } else { 1.0 }
        };
        let deviation = held(roots[last]) - mean(0);
        let profile: Vec<f32> = self.lanes.iter().map(|ahead| mean(*ahead)).collect();
        let fade = |ahead: usize| FADE.powi(i32::try_from(ahead).unwrap_or(i32::MAX));
        let base: Vec<f32> = self.lanes.iter().zip(&profile).map(|(ahead, mean)| mean + fade(*ahead) * deviation).collect();
        let mut inputs = Vec::with_capacity(self.inputs());
        inputs.extend(roots[roots.len() - self.recent..].iter().map(|root| held(*root) - 1.0));
        inputs.push(mean(0) - 1.0);
        inputs.extend(profile.iter().map(|mean| mean - 1.0));
        for ahead in std::iter::once(&0).chain(&self.lanes) {
            inputs.push(seasons(*ahead).next().unwrap_or(1.0) - 1.0);
        }
        let phase = number.rem_euclid(self.season as i64) as f64 / self.season as f64 * std::f64::consts::TAU;
        inputs.extend([phase.sin() as f32, phase.cos() as f32]);
        // Differences from step to step and from season to season, in units, and the latter in counts for the weight.
        let (mut steps, mut across, mut counted) = (0.0, 0.0, 0.0);
        past.windows(2).for_each(|pair| steps += (held(pair[1]) - held(pair[0])).abs());
        let pairs = past.len().saturating_sub(self.season).max(1) as f32;
        for (now, then) in past.iter().skip(self.season).zip(past) {
            across += (held(*now) - held(*then)).abs();
            counted += (held(*now).powi(2) - held(*then).powi(2)).abs();
        }
        let zeros = past.iter().filter(|root| **root <= 0.0).count() as f32 / past.len() as f32;
        inputs.extend([(steps / past.len() as f32).min(2.0), (across / pairs).min(2.0), zeros]);
        let size = (counted / pairs).max(0.05);
        let weight = base.iter().map(|base| (2.0 * base.max(0.2) / size).clamp(0.2, 10.0)).collect();
        Some(View { unit, base, weight, inputs })
    }

    /// What became of the lanes after `roots[..origin]`, as a model should have said it, where it is known.
    pub(super) fn targets<'a>(&'a self, view: &'a View, roots: &'a [f32], origin: usize) -> impl Iterator<Item = Option<f32>> + 'a {
        let target = move |(ahead, base): (&usize, &f32)| Some((roots.get(origin + ahead - 1)? / view.unit).min(LARGEST) - base);
        self.lanes.iter().zip(&view.base).map(target)
    }
}

impl View {
    /// The count at `lane` that lies `said` from the base.
    pub(super) fn count(&self, lane: usize, said: f32) -> f64 {
        let root = f64::from(self.base[lane] + said) * f64::from(self.unit);
        // A model that has gone astray says nothing that is not finite, nor anything beyond what it can have learnt.
        let root = if root.is_finite() { root.clamp(0.0, f64::from(2.0 * LARGEST * self.unit)) } else { 0.0 };
        root * root
    }
}
