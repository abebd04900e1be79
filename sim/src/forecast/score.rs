//! Scores paths as published comparisons do, in units of what seasonal naive errs.
//!
//! *Loss* is the pinball loss averaged over the quantiles 0.1, 0.5, 0.9 and 0.95, divided by the series' scale; its *ratio*
//! is the mean loss over series, origins and horizons beside that of seasonal naive. *MASE* is the absolute error of
//! the median divided by the same scale (Hyndman and Koehler 2006). *Coverage* is the share of values within
//! \[q05, q95\]. Seasonal naive's interval is normal, with the standard deviation of its errors up to the origin, times
//! the root of the seasons ahead (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, section 5.5).

use super::data::{Series, Set};
use serde::Serialize;
use std::collections::BTreeMap;
use tradewind_protocol::Quantile;
use tradewind_protocol::forecast::pinball;

/// The number of quantiles that the agent forecasts.
pub(super) const QUANTILES: usize = Quantile::GRID.len();
/// Those that are scored: 0.1, 0.5, 0.9 and 0.95.
const SCORED: [usize; 4] = [1, 3, 5, 6];
/// The median, and the ends of the central 90 % interval.
const MEDIAN: usize = 3;
const ENDS: (usize, usize) = (0, 6);
/// Standard normal quantiles at `Quantile::GRID`.
const NORMAL: [f64; QUANTILES] = [-1.644_854, -1.281_552, -0.674_490, 0.0, 0.674_490, 1.281_552, 1.644_854, 1.959_964, 2.326_348];
/// How many values the plain quantiles are taken of.
const PLAIN_WINDOW: usize = 2_000;

/// The figures of one horizon, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Scaled pinball loss beside seasonal naive's.
    pub ratio: f64,
    /// Scaled absolute error of the median.
    pub mase: f64,
    /// Share within the central 90 % interval.
    pub coverage_90: f64,
}

/// All figures of one forecaster on one set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Over all horizons.
    #[serde(flatten)]
    pub overall: Figures,
    /// By steps ahead.
    pub by_horizon: BTreeMap<usize, Figures>,
}

/// Sums over what was scored.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    loss: f64,
    error: f64,
    covered: u64,
    scored: u64,
}

impl Tally {
    fn add(&mut self, row: &[f64; QUANTILES], actual: f64, scale: f64) {
        let loss: f64 = SCORED.iter().map(|at| pinball(Quantile::GRID[*at], row[*at], actual)).sum();
        self.loss += loss / SCORED.len() as f64 / scale;
        self.error += (actual - row[MEDIAN]).abs() / scale;
        self.covered += u64::from(row[ENDS.0] <= actual && actual <= row[ENDS.1]);
        self.scored += 1;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            error: self.error + other.error,
            covered: self.covered + other.covered,
            scored: self.scored + other.scored,
        }
    }

    fn figures(self, naive: Self) -> Figures {
        let count = self.scored.max(1) as f64;
        // Where seasonal naive is perfect, whoever is perfect too is as good.
        let ratio = if naive.loss > 0.0 { self.loss / naive.loss } else { 1.0 + self.loss };
        Figures { ratio, mase: self.error / count, coverage_90: self.covered as f64 / count }
    }
}

/// What seasonal naive achieves, horizon by horizon.
#[derive(Debug)]
pub(super) struct Yardstick {
    naive: Vec<Tally>,
}

impl Yardstick {
    pub(super) fn new(set: &Set) -> Self {
        Self { naive: tally(set, |at, series| naive(&set.series[series], set, at)) }
    }

    /// Scores paths by origin, series and horizon.
    pub(super) fn score(&self, set: &Set, paths: &[Vec<Vec<[f64; QUANTILES]>>]) -> Scores {
        self.figures(set, &tally(set, |origin, series| paths[origin][series].clone()))
    }

    /// What needs no model.
    pub(super) fn baselines(&self, set: &Set) -> BTreeMap<String, Scores> {
        let plain = tally(set, |at, series| plain(&set.series[series], set, at));
        let both = [("seasonal naive", &self.naive), ("quantiles of the last 2,000", &plain)];
        both.map(|(name, tallies)| (name.to_owned(), self.figures(set, tallies))).into()
    }

    fn figures(&self, set: &Set, tallies: &[Tally]) -> Scores {
        let sum = |tallies: &[Tally]| tallies.iter().fold(Tally::default(), |sum, tally| sum.plus(*tally));
        let by_horizon = set.horizons.iter().zip(tallies.iter().zip(&self.naive)).map(|(h, (tally, naive))| (*h, tally.figures(*naive)));
        Scores { overall: sum(tallies).figures(sum(&self.naive)), by_horizon: by_horizon.collect() }
    }
}

/// By horizon. `said` gives the rows of the horizons for an origin's and a series' number.
fn tally(set: &Set, said: impl Fn(usize, usize) -> Vec<[f64; QUANTILES]>) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); set.horizons.len()];
    for (at, origin) in set.origins.iter().enumerate() {
        for (number, series) in set.series.iter().enumerate().filter(|(_, series)| series.scale > 0.0) {
            for ((row, h), tally) in said(at, number).iter().zip(&set.horizons).zip(&mut tallies) {
                let step = origin + h - 1;
                if !series.missing.contains(&step) {
                    tally.add(row, series.values[step], series.scale);
                }
            }
        }
    }
    tallies
}

fn naive(series: &Series, set: &Set, at: usize) -> Vec<[f64; QUANTILES]> {
    let (known, season) = (&series.values[..set.origins[at]], set.season);
    let errors: Vec<f64> = known.iter().skip(season).zip(known).map(|(now, then)| now - then).collect();
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let deviation = (errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / errors.len().saturating_sub(1).max(1) as f64).sqrt();
    let row = |h: &usize| {
        let seasons = h.div_ceil(season);
        let point = (known.len() + h - 1).checked_sub(seasons * season).map_or(known[known.len() - 1], |step| known[step]);
        NORMAL.map(|z| (point + z * deviation * (seasons as f64).sqrt()).max(0.0))
    };
    set.horizons.iter().map(row).collect()
}

fn plain(series: &Series, set: &Set, at: usize) -> Vec<[f64; QUANTILES]> {
    let known = &series.values[..set.origins[at]];
    let mut last = known[known.len().saturating_sub(PLAIN_WINDOW)..].to_vec();
    last.sort_by(f64::total_cmp);
    let value = |q: Quantile| {
        let position = q.probability() * (last.len() - 1) as f64;
        let (below, above) = (position.floor() as usize, position.ceil() as usize);
        last[below] + (position - position.floor()) * (last[above] - last[below])
    };
    vec![Quantile::GRID.map(value); set.horizons.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn set(values: Vec<f64>, missing: BTreeSet<usize>) -> Set {
        let series = vec![Series { name: "a".into(), values, missing, scale: 2.0 }];
        Set { name: "made".into(), series, season: 2, origins: vec![6], horizons: vec![1, 3], step: Duration::from_secs(60) }
    }

    #[test]
    fn figures_are_what_one_computes_by_hand() {
        let set = set(vec![1.0, 5.0, 2.0, 5.0, 3.0, 5.0, 10.0, 7.0, 4.0], BTreeSet::new());
        let yardstick = Yardstick::new(&set);
        // Quantiles at 8 for both horizons; 10 and 4 come. Scored losses: 2 (0.1 + 0.5 + 0.9 + 0.95) and 4 (0.9 + 0.5 + 0.1 + 0.05).
        let scores = yardstick.score(&set, &[vec![vec![[8.0; QUANTILES]; 2]]]);
        assert_eq!(scores.overall.mase, 1.5);
        assert_eq!(scores.overall.coverage_90, 0.0);
        // Seasonal naive says 3 both times, with the deviation of the errors 1, 0, 1, 0 (times root 2 beyond the season).
        let deviation = (1.0_f64 / 3.0).sqrt();
        let loss = |spread: f64, actual: f64| -> f64 {
            [(0.1, -1.281_552), (0.5, 0.0), (0.9, 1.281_552), (0.95, 1.644_854)]
                .iter()
                .map(|(q, z)| {
                    let over = actual - (3.0 + z * spread);
                    if over >= 0.0 { q * over } else { (q - 1.0) * over }
                })
                .sum()
        };
        let naive = [loss(deviation, 10.0), loss(deviation * 2.0_f64.sqrt(), 4.0)];
        assert!((scores.by_horizon[&1].ratio - 4.9 / naive[0]).abs() < 1e-9, "{scores:?}");
        assert!((scores.by_horizon[&3].ratio - 6.2 / naive[1]).abs() < 1e-9, "{scores:?}");
        assert!((scores.overall.ratio - 11.1 / (naive[0] + naive[1])).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn what_was_not_measured_is_not_scored() {
        let set = set(vec![1.0, 5.0, 2.0, 5.0, 3.0, 5.0, 10.0, 7.0, 4.0], BTreeSet::from([6]));
        let scores = Yardstick::new(&set).score(&set, &[vec![vec![[4.0; QUANTILES]; 2]]]);
        assert_eq!((scores.overall.mase, scores.overall.coverage_90), (0.0, 1.0));
    }
}
