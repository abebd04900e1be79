//! Global gradient boosting with pinball loss, on lags, calendar and what the neighbours do.
//!
//! Gradient boosting (Friedman 2001) over histograms of features (as LightGBM: Ke et al. 2017), with all quantiles in
//! one tree: a split is chosen by the gradients of the lower quantiles, the median and the upper ones together, and each leaf moves
//! every quantile to that quantile of what is left in it, as Friedman does for the median (section 4.3). That costs a ninth of a
//! model for each quantile. An example is a moment and a lane; examples are drawn in proportion to their weight.
//!
//! Why our own: the lean library for this loss takes 35 s to build and wants threads, and this is a page of code whose order of
//! sums is known.

use super::GoOn;
use super::math::Chance;
use super::panel::{Moment, Panel};
use super::quantiles::{QUANTILES, probabilities};
use super::window::{Shape, View};
use serde::{Deserialize, Serialize};

/// Splits on the way to a leaf.
const DEPTH: usize = 4;
const LEAVES: usize = 1 << DEPTH;
/// Most bins of a feature.
const BINS: usize = 64;
/// Share of a leaf's move that is done.
const RATE: f32 = 0.1;
/// No leaf of fewer examples: an upper quantile of less is a guess.
const SMALLEST: f32 = 100.0;
/// Share of the examples that each tree sees.
const SAMPLE: f32 = 0.5;
/// The held-out loss is measured after so many trees, and training ends after so many measurements without a better one.
const CHECK: usize = 10;
const PATIENCE: usize = 3;
/// Recent values of a series that are features one by one.
const LAGS: usize = 6;
/// Means over so many recent values are features.
const MEANS: [usize; 3] = [4, 12, 32];
/// Weights of examples are at most this: see [`Shape::view`].
const HEAVIEST: f32 = 10.0;

/// Trained trees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Boosting {
    /// Quantiles by lane before any tree.
    start: Vec<[f32; QUANTILES]>,
    trees: Vec<Tree>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tree {
    /// Of each inner node, by level: the feature, and the value beyond which it goes right.
    splits: [(u16, f32); LEAVES - 1],
    leaves: [[f32; QUANTILES]; LEAVES],
}

/// How much is spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) trees: usize,
    pub(super) examples: usize,
    /// Share of the steps, the last, that training does not see.
    pub(super) held: f64,
}

/// The mean of all series, each in its own unit: what a series' neighbours do.
#[derive(Debug, Clone, Default)]
pub(super) struct Market {
    /// By step, ending at the panel's last.
    mean: Vec<f32>,
}

impl Market {
    /// Of every step, from the steps up to it alone.
    pub(super) fn new(panel: &Panel, shape: &Shape) -> Self {
        let longest = panel.longest();
        let (mut mean, mut count) = (vec![0.0_f32; longest], vec![0.0_f32; longest]);
        for roots in panel.series() {
            let offset = longest - roots.len();
            let (mut sum, gain) = (0.0_f64, 1.0 / (2 * shape.season) as f64);
            for (at, root) in roots.iter().enumerate() {
                sum += gain.max(1.0 / (at + 1) as f64) * (f64::from(*root) - sum);
                if sum > 0.0 {
                    mean[offset + at] += (f64::from(*root) / sum).min(8.0) as f32;
                    count[offset + at] += 1.0;
                }
            }
        }
        mean.iter_mut().zip(count).filter(|(_, count)| *count > 0.0).for_each(|(mean, count)| *mean /= count);
        Self { mean }
    }

    /// What is told `back` steps before the last: the step itself beside its season ago, and beside the steps before it.
    fn features(&self, back: usize, season: usize) -> [f32; 3] {
        let at = |back: usize| self.mean.len().checked_sub(back + 1).map_or(1.0, |at| self.mean[at]);
        let before = (1..=8).map(|more| at(back + more)).sum::<f32>() / 8.0;
        [at(back) - at(back + season), at(back) - before, at(back)]
    }
}

/// How many features there are.
fn width(shape: &Shape) -> usize {
    8 + LAGS + 3 * MEANS.len() + (shape.context() - 2 * (shape.lanes.len() + 1)) + 3
}

/// The features of one lane, in `features` from the start.
fn features(shape: &Shape, view: &View, market: [f32; 3], lane: usize, features: &mut Vec<f32>) {
    features.clear();
    let (recent, context) = view.inputs.split_at(shape.recent);
    let lanes = shape.lanes.len();
    let (profile, former) = (&context[..=lanes], &context[lanes + 1..][..=lanes]);
    let last = recent[shape.recent - 1];
    features.push(lane as f32);
    features.extend([view.base[lane], profile[lane + 1], former[lane + 1] - view.base[lane] + 1.0]);
    features.extend([last - profile[0], last - former[0], profile[lane + 1] - profile[0], former[lane + 1] - former[0]]);
    features.extend(recent.iter().rev().take(LAGS).map(|value| value - profile[0]));
    for length in MEANS {
        let some = &recent[recent.len().saturating_sub(length)..];
        let mean = some.iter().sum::<f32>() / some.len() as f32;
        let spread = some.iter().map(|value| (value - mean).abs()).sum::<f32>() / some.len() as f32;
        features.extend([last - mean, mean - profile[0], spread]);
    }
    features.extend_from_slice(&context[2 * (lanes + 1)..]);
    features.extend(market);
    debug_assert_eq!(features.len(), width(shape));
}

struct Examples {
    /// By feature.
    columns: Vec<Vec<f32>>,
    lanes: Vec<usize>,
    targets: Vec<f32>,
}

fn examples(panel: &Panel, shape: &Shape, market: &Market, moments: &[Moment], held: usize, count: usize, chance: &mut Chance) -> Examples {
    let mut all = Examples { columns: vec![], lanes: vec![], targets: vec![] };
    let mut row = vec![];
    // Several lanes of a moment teach nearly the same: at most so many passes over the moments.
    for moment in moments.iter().cycle().take(4 * moments.len()) {
        if all.lanes.len() >= count {
            break;
        }
        let roots = &panel.series()[moment.series];
        let Some(view) = shape.view(&roots[..moment.origin], panel.number(*moment)) else { continue };
        let known = &roots[..roots.len().saturating_sub(held).max(moment.origin)];
        let lane = chance.below(shape.lanes.len());
        let Some(Some(target)) = shape.targets(&view, known, moment.origin).nth(lane) else { continue };
        if view.weight[lane] < HEAVIEST * 0.5 * (chance.signed() + 1.0) {
            continue;
        }
        features(shape, &view, market.features(roots.len() - moment.origin, shape.season), lane, &mut row);
        all.columns.resize(row.len(), vec![]);
        all.columns.iter_mut().zip(&row).for_each(|(column, value)| column.push(*value));
        all.lanes.push(lane);
        all.targets.push(target);
    }
    all
}

/// The quantile of `values`, which are put in another order.
fn quantile(values: &mut [f32], probability: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((probability * values.len() as f32) as usize).min(values.len() - 1);
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

impl Boosting {
    /// Trees that were trained. Nothing if there are too few examples.
    pub(super) fn train(panel: &Panel, shape: &Shape, budget: Budget, seed: u64, go_on: GoOn<'_>) -> Option<Self> {
        let mut chance = Chance::new(seed);
        let market = Market::new(panel, shape);
        let (mut moments, mut validate, held) = panel.moments(shape, budget.held);
        chance.shuffle(&mut moments);
        chance.shuffle(&mut validate);
        let training = examples(panel, shape, &market, &moments, held, budget.examples, &mut chance);
        let testing = examples(panel, shape, &market, &validate, 0, budget.examples / 4, &mut chance);
        let rows = training.lanes.len();
        if rows < 2 * SMALLEST as usize {
            return None;
        }
        let grid = probabilities();
        let mut start = vec![[0.0; QUANTILES]; shape.lanes.len()];
        for (lane, start) in start.iter_mut().enumerate() {
            let of = training.lanes.iter().zip(&training.targets).filter(|(of, _)| **of == lane);
            let mut targets: Vec<f32> = of.map(|(_, target)| *target).collect();
            *start = grid.map(|q| quantile(&mut targets, q));
        }
        let mut model = Self { start, trees: vec![] };
        let bins = Bins::new(&training.columns);
        let mut said: Vec<[f32; QUANTILES]> = training.lanes.iter().map(|lane| model.start[*lane]).collect();
        let mut tested: Vec<[f32; QUANTILES]> = testing.lanes.iter().map(|lane| model.start[*lane]).collect();
        let (mut best, mut best_loss, mut since) = (0, f64::INFINITY, 0);
        for _ in 0..budget.trees {
            if !go_on() {
                return None;
            }
            let sampled: Vec<u32> = (0..rows as u32).filter(|_| 0.5 * (chance.signed() + 1.0) < SAMPLE).collect();
            let tree = Tree::grow(&bins, &sampled, &said, &training.targets);
            tree.add(&training.columns, &mut said);
            tree.add(&testing.columns, &mut tested);
            model.trees.push(tree);
            if model.trees.len().is_multiple_of(CHECK) && !tested.is_empty() {
                let loss = loss(&tested, &testing.targets);
                if loss < best_loss {
                    (best, best_loss, since) = (model.trees.len(), loss, 0);
                } else {
                    since += 1;
                    if since == PATIENCE {
                        break;
                    }
                }
            }
        }
        if best > 0 {
            model.trees.truncate(best);
        }
        Some(model)
    }

    /// Itself, if it can speak of series in this shape.
    pub(super) fn checked(self, shape: &Shape) -> Option<Self> {
        let splits = |tree: &Tree| tree.splits.iter().all(|(feature, _)| usize::from(*feature) < width(shape));
        let leaves = |tree: &Tree| tree.leaves.iter().flatten().all(|by| by.is_finite());
        let start = self.start.iter().flatten().all(|value| value.is_finite());
        let fits = start && self.start.len() == shape.lanes.len() && self.trees.iter().all(|tree| splits(tree) && leaves(tree));
        fits.then_some(self)
    }

    /// Quantiles by lane, not in order yet. The market's last step is the view's.
    pub(super) fn say(&self, shape: &Shape, view: &View, market: &Market) -> Vec<f32> {
        let (mut row, mut all) = (vec![], vec![]);
        for lane in 0..shape.lanes.len() {
            features(shape, view, market.features(0, shape.season), lane, &mut row);
            let mut said = self.start[lane];
            for tree in &self.trees {
                let leaf = &tree.leaves[tree.leaf(|feature| row[feature])];
                said.iter_mut().zip(leaf).for_each(|(said, by)| *said += by);
            }
            all.extend_from_slice(&said);
        }
        all
    }
}

fn loss(said: &[[f32; QUANTILES]], targets: &[f32]) -> f64 {
    let of = |(row, target): (&[f32; QUANTILES], &f32)| -> f64 {
        let pinball =
            |(value, q): (&f32, f32)| f64::from(if target >= value { q * (target - value) } else { (q - 1.0) * (target - value) });
        row.iter().zip(probabilities()).map(pinball).sum()
    };
    said.iter().zip(targets).map(of).sum::<f64>() / targets.len().max(1) as f64
}

/// Features cut into few values.
struct Bins {
    /// By feature: the highest value of every bin but the last, ascending.
    cuts: Vec<Vec<f32>>,
    /// By feature and example.
    codes: Vec<Vec<u8>>,
}

impl Bins {
    fn new(columns: &[Vec<f32>]) -> Self {
        let cut = |column: &Vec<f32>| {
            let mut sorted = column.clone();
            sorted.sort_by(f32::total_cmp);
            let mut cuts: Vec<f32> = (1..BINS).map(|at| sorted[at * (sorted.len() - 1) / BINS]).collect();
            cuts.dedup();
            cuts
        };
        let cuts: Vec<Vec<f32>> = columns.iter().map(cut).collect();
        let code =
            |(column, cuts): (&Vec<f32>, &Vec<f32>)| column.iter().map(|value| cuts.partition_point(|cut| cut < value) as u8).collect();
        let codes = columns.iter().zip(&cuts).map(code).collect();
        Self { cuts, codes }
    }
}

/// Gradients of the lower quantiles, the median and the upper ones, and the number of examples.
type Sums = [f32; 4];

fn plus(sums: &mut Sums, more: &Sums) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// By how much the loss may fall.
fn worth(sums: &Sums) -> f32 {
    (sums[0] * sums[0] + sums[1] * sums[1] + sums[2] * sums[2]) / (sums[3] + 1.0)
}

impl Tree {
    fn grow(bins: &Bins, sampled: &[u32], said: &[[f32; QUANTILES]], targets: &[f32]) -> Self {
        let grid = probabilities();
        let gradient = |at: &u32| -> Sums {
            let mut sums = [0.0, 0.0, 0.0, 1.0];
            for (number, (value, q)) in said[*at as usize].iter().zip(grid).enumerate() {
                let slope = if targets[*at as usize] >= *value { q } else { q - 1.0 };
                sums[match number {
                    0..3 => 0,
                    3 => 1,
                    _ => 2,
                }] += slope;
            }
            sums
        };
        let gradients: Vec<Sums> = sampled.iter().map(gradient).collect();
        let mut nodes = vec![0_u8; sampled.len()];
        let mut splits = [(0_u16, f32::INFINITY); LEAVES - 1];
        for level in 0..DEPTH {
            let count = 1 << level;
            let mut best = vec![(0.0_f32, usize::MAX, 0_usize); count];
            let mut histogram = vec![[0.0_f32; 4]; count * BINS];
            for (feature, codes) in bins.codes.iter().enumerate() {
                histogram.fill([0.0; 4]);
                for ((at, node), gradient) in sampled.iter().zip(&nodes).zip(&gradients) {
                    plus(&mut histogram[usize::from(*node) * BINS + usize::from(codes[*at as usize])], gradient);
                }
                for (node, best) in best.iter_mut().enumerate() {
                    let histogram = &histogram[node * BINS..][..BINS];
                    let mut all = [0.0; 4];
                    histogram.iter().for_each(|sums| plus(&mut all, sums));
                    let mut left = [0.0; 4];
                    for (bin, sums) in histogram.iter().enumerate().take(bins.cuts[feature].len()) {
                        plus(&mut left, sums);
                        let right: Sums = std::array::from_fn(|at| all[at] - left[at]);
                        if left[3] >= SMALLEST && right[3] >= SMALLEST {
                            let gain = worth(&left) + worth(&right) - worth(&all);
                            // Features in order: the first of equals.
                            if gain > best.0 {
                                *best = (gain, feature, bin);
                            }
                        }
                    }
                }
            }
            for (node, (_, feature, bin)) in best.iter().enumerate() {
                if let Some(cuts) = bins.cuts.get(*feature) {
                    splits[count - 1 + node] = (*feature as u16, cuts[*bin]);
                }
            }
            for (at, node) in sampled.iter().zip(&mut nodes) {
                let (_, feature, bin) = best[usize::from(*node)];
                let right = bins.codes.get(feature).is_some_and(|codes| usize::from(codes[*at as usize]) > bin);
                *node = 2 * *node + u8::from(right);
            }
        }
        let mut leaves = [[0.0; QUANTILES]; LEAVES];
        let mut members: Vec<Vec<u32>> = vec![vec![]; LEAVES];
        sampled.iter().zip(&nodes).for_each(|(at, node)| members[usize::from(*node)].push(*at));
        for (leaf, members) in leaves.iter_mut().zip(&members) {
            for (number, (value, q)) in leaf.iter_mut().zip(grid).enumerate() {
                let mut left: Vec<f32> = members.iter().map(|at| targets[*at as usize] - said[*at as usize][number]).collect();
                *value = RATE * quantile(&mut left, q);
            }
        }
        Self { splits, leaves }
    }

    fn leaf(&self, feature: impl Fn(usize) -> f32) -> usize {
        let mut node = 0;
        for _ in 0..DEPTH {
            let (number, cut) = self.splits[node];
            node = 2 * node + 1 + usize::from(feature(usize::from(number)) > cut);
        }
        node + 1 - LEAVES
    }

    fn add(&self, columns: &[Vec<f32>], said: &mut [[f32; QUANTILES]]) {
        for (at, said) in said.iter_mut().enumerate() {
            let leaf = &self.leaves[self.leaf(|feature| columns[feature][at])];
            said.iter_mut().zip(leaf).for_each(|(said, by)| *said += by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_finds_the_feature_that_tells_and_its_quantiles() {
        let mut chance = Chance::new(6);
        let rows = 4_000;
        let columns: Vec<Vec<f32>> = (0..3).map(|_| (0..rows).map(|_| chance.signed()).collect()).collect();
        // Only the second tells: beyond 0.25 the values are higher by 5 and ten times as wide.
        let targets: Vec<f32> = columns[1].iter().map(|x| if *x > 0.25 { 5.0 + 10.0 * chance.signed() } else { chance.signed() }).collect();
        let bins = Bins::new(&columns);
        let mut said = vec![[0.0; QUANTILES]; rows];
        let sampled: Vec<u32> = (0..rows as u32).collect();
        for _ in 0..60 {
            Tree::grow(&bins, &sampled, &said, &targets).add(&columns, &mut said);
        }
        let mean = |right: bool, at: usize| {
            let some: Vec<f32> = said
                .iter()
                .zip(&columns[1])
                .filter(|(_, x)| (**x > 0.3) == right && (**x - 0.25).abs() > 0.05)
                .map(|(s, _)| s[at])
                .collect();
            some.iter().sum::<f32>() / some.len() as f32
        };
        // The median and the 90 % quantile of even chance over -1 to 1, and over -5 to 15.
        assert!(mean(false, 3).abs() < 0.2 && (mean(false, 5) - 0.8).abs() < 0.3, "{} {}", mean(false, 3), mean(false, 5));
        assert!((mean(true, 3) - 5.0).abs() < 1.0 && (mean(true, 5) - 13.0).abs() < 1.0, "{} {}", mean(true, 3), mean(true, 5));
    }

    #[test]
    fn a_constant_feature_splits_nothing() {
        let columns = vec![vec![1.0; 500]];
        let tree = Tree::grow(&Bins::new(&columns), &(0..500).collect::<Vec<_>>(), &[[0.0; QUANTILES]; 500], &[3.0; 500]);
        let mut said = vec![[0.0; QUANTILES]; 500];
        tree.add(&columns, &mut said);
        assert!(said.iter().flatten().all(|value| (value - 3.0 * RATE).abs() < 1e-6));
    }
}
