//! The learned rival: gradient-boosted regression trees for quantiles of the demand at the lead (Friedman 2001, with the pinball loss),
//! one model a series and probability, trained once on the first 60 % of the rows.

use super::rivals::{Setting, upper};
use tradewind_agent::planner::foresight::LEVELS;

const FEATURES: usize = 8;
const ROUNDS: usize = 60;
const DEPTH: usize = 3;
const RATE: f64 = 0.1;
const LEAST_LEAF: usize = 20;
const BINS: usize = 16;
/// Levels that a model is trained for; those between follow in proportion.
const TRAINED: [usize; 10] = [1, 3, 5, 7, 8, 10, 12, 14, 16, 18];

/// What a tree does with a row: splits, in order of breadth, and values of the leaves.
struct Tree {
    splits: [(usize, f64); (1 << DEPTH) - 1],
    leaves: [f64; 1 << DEPTH],
}

impl Tree {
    fn leaf(&self, x: &[f64; FEATURES]) -> usize {
        let mut node = 0;
        for _ in 0..DEPTH {
            let (feature, threshold) = self.splits[node];
            node = 2 * node + 1 + usize::from(x[feature] > threshold);
        }
        node - self.splits.len()
    }
}

/// Models for one series.
pub(crate) struct Boosted;

impl Boosted {
    /// For every step the quantiles at [`LEVELS`] of the demand one lead on.
    pub(crate) fn foresee(demand: &[f64], setting: &Setting) -> Vec<[f32; LEVELS.len()]> {
        let rows: Vec<[f64; FEATURES]> = (0..demand.len()).map(|t| features(demand, t, setting)).collect();
        let known = setting.split.saturating_sub(setting.lead);
        let first = setting.warm().min(known);
        let (x, y): (Vec<_>, Vec<_>) = (first..known).map(|t| (rows[t], demand[t + setting.lead] - demand[t])).unzip();
        let mut foreseen = vec![[0.0_f32; LEVELS.len()]; demand.len()];
        let mut models: Vec<Vec<f64>> = Vec::new();
        for level in TRAINED {
            let (base, trees) = train(&x, &y, LEVELS[level]);
            models.push(rows.iter().map(|x| base + RATE * trees.iter().map(|tree| tree.leaves[tree.leaf(x)]).sum::<f64>()).collect());
        }
        for (t, levels) in foreseen.iter_mut().enumerate() {
            let (mut last, mut at) = (f64::MIN, 0);
            for (i, level) in levels.iter_mut().enumerate() {
                while at + 1 < TRAINED.len() && TRAINED[at + 1] <= i {
                    at += 1;
                }
                let next = (at + 1).min(TRAINED.len() - 1);
                let span = (TRAINED[next] - TRAINED[at]).max(1) as f64;
                let part = (i.saturating_sub(TRAINED[at])) as f64 / span;
                // Beyond the last level as much more as it was from the one before.
                let (a, b) =
                    if next == at { (models[at][t], 2.0 * models[at][t] - models[at - 1][t]) } else { (models[at][t], models[next][t]) };
                last = last.max(a + (b - a).max(0.0) * part);
                *level = (demand[t] + last).max(0.0) as f32;
            }
        }
        foreseen
    }
}

fn features(demand: &[f64], t: usize, setting: &Setting) -> [f64; FEATURES] {
    let ago = |k: usize| demand[t.saturating_sub(k)];
    let recent = &demand[t.saturating_sub(11)..=t];
    let (top, low) = recent.iter().fold((0.0_f64, f64::MAX), |(top, low), d| (top.max(*d), low.min(*d)));
    let season = setting.season.filter(|season| t + 1 > *season).unwrap_or(0);
    let then = if season > setting.lead { demand[t + setting.lead - season] } else { ago(0) };
    let before = if season > 0 { ago(season) } else { ago(0) };
    [ago(0), ago(0) - ago(1), ago(1) - ago(2), ago(0) - ago(setting.lead), top - ago(0), ago(0) - low, then - before, then - ago(0)]
}

fn train(x: &[[f64; FEATURES]], y: &[f64], late: f64) -> (f64, Vec<Tree>) {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let base = upper(&sorted(y.to_vec()), late);
    let mut left: Vec<f64> = y.iter().map(|y| y - base).collect();
    let mut trees = Vec::new();
    if x.len() < 4 * LEAST_LEAF {
        return (base, trees);
    }
    let mut edges = [[0.0; BINS - 1]; FEATURES];
    for (feature, edges) in edges.iter_mut().enumerate() {
        let values = sorted(x.iter().map(|x| x[feature]).collect());
        for (i, edge) in edges.iter_mut().enumerate() {
            *edge = values[(i + 1) * values.len() / BINS];
        }
    }
    let bins: Vec<[u8; FEATURES]> =
        x.iter().map(|x| std::array::from_fn(|f| edges[f].partition_point(|edge| *edge < x[f]) as u8)).collect();
    for _ in 0..ROUNDS {
        let mut tree = Tree { splits: [(0, f64::MAX); (1 << DEPTH) - 1], leaves: [0.0; 1 << DEPTH] };
        let gradient: Vec<f64> = left.iter().map(|left| if *left > 0.0 { 1.0 - late } else { -late }).collect();
        let mut node_of = vec![0_usize; x.len()];
        for depth in 0..DEPTH {
            let (start, width) = ((1 << depth) - 1, 1 << depth);
            let mut sums = vec![[[(0.0, 0_usize); BINS]; FEATURES]; width];
            for (i, node) in node_of.iter().enumerate() {
                for (feature, bin) in bins[i].iter().enumerate() {
                    let cell = &mut sums[node - start][feature][usize::from(*bin)];
                    *cell = (cell.0 + gradient[i], cell.1 + 1);
                }
            }
            for (node, sums) in sums.iter().enumerate() {
                let mut best = 1e-9;
                for (feature, cells) in sums.iter().enumerate() {
                    let (sum, count) = cells.iter().fold((0.0, 0), |all, cell| (all.0 + cell.0, all.1 + cell.1));
                    let mut under = (0.0, 0);
                    for (bin, cell) in cells.iter().enumerate().take(BINS - 1) {
                        under = (under.0 + cell.0, under.1 + cell.1);
                        if under.1 < LEAST_LEAF || count - under.1 < LEAST_LEAF {
                            continue;
                        }
                        let over = (sum - under.0, (count - under.1) as f64);
                        let gain = under.0 * under.0 / under.1 as f64 + over.0 * over.0 / over.1 - sum * sum / count as f64;
                        if gain > best {
                            best = gain;
                            tree.splits[start + node] = (feature, edges[feature][bin]);
                        }
                    }
                }
            }
            for (i, node) in node_of.iter_mut().enumerate() {
                let (feature, threshold) = tree.splits[*node];
                *node = 2 * *node + 1 + usize::from(x[i][feature] > threshold);
            }
        }
        let mut leaves: [Vec<f64>; 1 << DEPTH] = Default::default();
        for (i, node) in node_of.iter().enumerate() {
            leaves[node - tree.splits.len()].push(left[i]);
        }
        for (leaf, values) in leaves.into_iter().enumerate() {
            tree.leaves[leaf] = upper(&sorted(values), late);
        }
        for (i, node) in node_of.iter().enumerate() {
            left[i] -= RATE * tree.leaves[node - tree.splits.len()];
        }
        trees.push(tree);
    }
    (base, trees)
}
