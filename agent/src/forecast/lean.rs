//! The forecast of a series beyond `forecast.max_series`, in a kilobyte: quantiles of how the level of its last counts went on.
//!
//! The level is the mean of a few counts; `h` steps later the count was higher or lower, and the empirical quantiles of that, over the last [`WINDOW`]
//! counts, are put around the level of now: a direct forecast for every lane, with intervals from errors of the very horizon (Hyndman and
//! Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, section 5.5). It knows neither season nor event, so that its intervals are wide where all experts'
//! would be narrow; a test sees that they hold. Invariant: what it says depends on the last [`WINDOW`] counts alone.

use super::errors::quantile;
use super::experts::EXPERTS;
use super::explain::{ExpertExplanation, Explanation, LaneExplanation};
use super::horizon::{between, lanes};
use super::lane::{INFLATION, MEDIAN, NORMAL, QUANTILES};
use super::plain::PlainQuantiles;
use std::collections::VecDeque;
use tradewind_protocol::{Quantile, StepIndex};

/// What it is called.
pub const LEAN: &str = "lean";

/// Counts that are kept, four bytes each. Of noise, walks, bursts and days of 24, 288 and 1,440 steps the 90 % interval holds 86 to 97 % one and four
/// steps ahead; with half as many, of days that are a little longer than the window, only 77 %.
pub(super) const WINDOW: usize = 256;
/// Counts of a level. With fewer its noise is in every error, with more it is late where the level moves: 8 hold less on walks, 3 are as wide as 4.
const LEVEL: usize = 4;
/// With fewer errors than this nothing is known of how the level goes on.
const NEEDED: usize = 10;
/// Half-width of the 90 % interval then, in levels, as of the other series.
const PRIOR: f64 = 1.0;

/// The last counts of one series.
#[derive(Debug)]
pub(super) struct Lean {
    counts: VecDeque<f32>,
    seen: u64,
    /// Mean count over about the last season.
    mean: f64,
}

impl Lean {
    pub(super) fn new() -> Self {
        Self { counts: VecDeque::new(), seen: 0, mean: 0.0 }
    }

    /// One that has seen so many steps, the last of them these, oldest first.
    pub(super) fn with(seen: u64, mean: f64, last: impl Iterator<Item = f64>) -> Self {
        Self { counts: last.map(|count| count as f32).collect(), seen, mean }
    }

    /// Learns the next step's count, in seasons of `season` steps.
    pub(super) fn observe(&mut self, count: f64, season: usize) {
        let count = if count.is_finite() { count.max(0.0) } else { 0.0 };
        if self.counts.len() == WINDOW {
            self.counts.pop_front();
        }
        self.counts.push_back(count as f32);
        self.seen += 1;
        self.mean += (1.0 / self.seen as f64).max(1.0 / season as f64) * (count - self.mean);
    }

    pub(super) fn observed(&self) -> f64 {
        self.counts.back().copied().map_or(0.0, f64::from)
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// The quantiles of the counts of the next `horizon` steps.
    pub(super) fn path(&self, horizon: usize) -> Vec<[f64; QUANTILES]> {
        let levels = self.levels();
        let lengths = every_other(lanes(horizon));
        let rows: Vec<_> = lengths.iter().map(|ahead| self.row(*ahead, &levels)).collect();
        let row = |ahead| {
            let place = between(&lengths, ahead);
            let (low, high) = (rows[place.lower], rows[place.upper]);
            std::array::from_fn(|at| low[at] + place.share * (high[at] - low[at]))
        };
        (1..=horizon).map(row).collect()
    }

    /// The level after each of the counts.
    fn levels(&self) -> Vec<f64> {
        let mut sum = 0.0;
        let level = |(at, count): (usize, &f32)| {
            sum += f64::from(*count) - at.checked_sub(LEVEL).map_or(0.0, |old| f64::from(self.counts[old]));
            (sum / (at + 1).min(LEVEL) as f64).max(0.0)
        };
        self.counts.iter().enumerate().map(level).collect()
    }

    fn row(&self, ahead: usize, levels: &[f64]) -> [f64; QUANTILES] {
        let level = levels.last().copied().unwrap_or(0.0);
        // Farther than half of what is known a random walk's errors are told from nearer ones: they grow with the root.
        let known = ahead.min(self.counts.len() / 2).max(1);
        let after = self.counts.iter().skip(known).zip(levels);
        let mut errors: Vec<f32> = after.map(|(count, level)| (f64::from(*count) - level) as f32).collect();
        errors.sort_unstable_by(f32::total_cmp);
        if errors.len() < NEEDED {
            let wide = PRIOR * level.max(1.0) / -NORMAL[0];
            return NORMAL.map(|z| (level + z * wide).max(0.0));
        }
        let wider = (ahead as f64 / known as f64).sqrt() * (1.0 + INFLATION * known as f64 / errors.len() as f64);
        let offsets = Quantile::GRID.map(|q| quantile(&errors, q.probability()).unwrap_or(0.0));
        offsets.map(|offset| (level + offsets[MEDIAN] + wider * (offset - offsets[MEDIAN])).max(0.0))
    }

    /// Why it says what it says, of a series beyond the `most` of the highest volume.
    pub(super) fn explain(&self, until: StepIndex, season: usize, horizon: usize, most: usize) -> Explanation {
        let expert = |name: &str, weight, silent| ExpertExplanation { name: name.to_owned(), weight, error: None, silent };
        let beyond = format!("lean: beyond max_series, the {most} series of the highest volume");
        let others = EXPERTS.iter().chain(&PlainQuantiles::NAMES).map(|name| expert(name, 0.0, Some(beyond.clone())));
        let experts: Vec<_> = std::iter::once(expert(LEAN, 1.0, None)).chain(others).collect();
        let lane =
            |ahead| LaneExplanation { ahead, judged: 0, coverage_90: 0.0, error: 0.0, seasonal_naive_error: 0.0, experts: experts.clone() };
        let lanes = every_other(lanes(horizon)).into_iter().map(lane).collect();
        Explanation { until, steps: self.seen, season: season as u64, trained_ago: None, lanes }
    }
}

/// Half of the lanes, with the first and the last: sorting the errors of one is what a forecast costs.
fn every_other(lanes: Vec<usize>) -> Vec<usize> {
    let last = lanes.len().saturating_sub(1);
    lanes.into_iter().enumerate().filter(|(at, _)| at % 2 == 0 || *at == last).map(|(_, lane)| lane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    /// The share of what came that lay within the 90 % interval, so many steps ahead.
    fn held(counts: &[f64], ahead: usize) -> f64 {
        let (mut lean, mut within, mut judged) = (Lean::new(), 0.0, 0.0);
        for (at, count) in counts.iter().enumerate() {
            lean.observe(*count, 288);
            if let Some(actual) = counts.get(at + ahead).filter(|_| at >= WINDOW) {
                let row = lean.path(12)[ahead - 1];
                within += f64::from(u8::from((row[0]..=row[6]).contains(actual)));
                judged += 1.0;
            }
        }
        within / judged
    }

    #[test]
    fn intervals_hold_what_they_promise_of_noise_of_walks_and_of_days() {
        let noisy: Vec<f64> = (0..4_000).map(|at| 100.0 + 50.0 * noise(at)).collect();
        let mut level = 1_000.0;
        let walk = (0..4_000).map(|at| {
            level += 20.0 * (noise(at) - 0.5);
            level
        });
        let walk: Vec<f64> = walk.collect();
        let day = |at: usize| 500.0 + 400.0 * (at as f64 / 288.0 * std::f64::consts::TAU).sin() + 60.0 * noise(at);
        let days: Vec<f64> = (0..4_000).map(day).collect();
        let bursts: Vec<f64> = (0..4_000).map(|at| if noise(at) < 0.8 { 0.0 } else { (30.0 * noise(at + 9_999)).floor() }).collect();
        for (name, counts) in [("noise", noisy), ("walk", walk), ("days", days), ("bursts", bursts)] {
            for ahead in [1, 4, 12] {
                let held = held(&counts, ahead);
                assert!((0.84..=0.99).contains(&held), "{name}, {ahead} ahead: {held}");
            }
        }
    }

    #[test]
    fn a_young_series_has_a_wide_interval_around_its_level() {
        let mut lean = Lean::new();
        assert!(lean.path(3).iter().all(|row| row[MEDIAN] == 0.0 && row[8] > 0.0));
        (0..5).for_each(|_| lean.observe(10.0, 24));
        let row = lean.path(3)[2];
        assert!(row[0] == 0.0 && row[MEDIAN] == 10.0 && (row[6] - 20.0).abs() < 1e-9, "{row:?}");
    }
}
