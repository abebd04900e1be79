//! Scores the agents' published forecasts against what was recorded, and against seasonal naive.
//!
//! A forecast counts at the lead time, where capacity is decided: made after step `t`, it is scored
//! on step `t + 3`. The seasonal naive forecast is the value of one day before, with the quantiles
//! of its own errors over the week of history, pair by pair; it knows nothing of the replayed day.

use super::LEAD_STEPS;
use super::trace::{HISTORY_ROWS, ROWS_PER_DAY, Trace};
use std::collections::BTreeMap;
use tradewind_protocol::api::ForecastView;
use tradewind_protocol::forecast::pinball;
use tradewind_protocol::{Quantile, StepIndex};

/// The sums behind the means.
pub(super) struct Scores {
    /// Errors of the seasonal naive forecast over the history, ascending; by source and destination.
    naive_errors: Vec<Vec<Vec<f64>>>,
    /// How many forecasts were scored.
    pub count: u64,
    pinball: f64,
    naive_pinball: f64,
    covered: u64,
    /// The forecast of each row that was made last: (median, ends of the 90 % interval), by row, source
    /// and destination.
    latest: BTreeMap<(usize, usize, usize), f64>,
}

impl Scores {
    pub(super) fn new(trace: &Trace) -> Self {
        let n = trace.regions.len();
        let errors = |source, destination| {
            let error = |row| trace.pair(row, source, destination) - trace.pair(row - ROWS_PER_DAY, source, destination);
            let mut errors: Vec<f64> = (ROWS_PER_DAY..HISTORY_ROWS).map(error).collect();
            errors.sort_by(f64::total_cmp);
            errors
        };
        let naive_errors = (0..n).map(|s| (0..n).map(|d| errors(s, d)).collect()).collect();
        Self { naive_errors, count: 0, pinball: 0.0, naive_pinball: 0.0, covered: 0, latest: BTreeMap::new() }
    }

    /// Scores the forecasts that the region `source` published. `first` is the step of the first
    /// replayed row. Each forecast is for a step that no agent had records of when it was made.
    pub(super) fn note(&mut self, trace: &Trace, source: usize, forecasts: &[ForecastView], first: StepIndex) {
        for view in forecasts {
            let series = &view.prediction.series;
            let Some(destination) = trace.regions.iter().position(|node| node.region == series.destination) else { continue };
            let path = &view.prediction.path;
            // The step before the path's start is the last one known: t. The path begins at t + 1.
            let target = path.start().offset(LEAD_STEPS as i64 - 1);
            let Ok(live) = usize::try_from(target.0 - first.0) else { continue };
            let row = HISTORY_ROWS + live;
            if row >= trace.rows() || self.latest.contains_key(&(row, source, destination)) {
                continue;
            }
            let actual = trace.pair(row, source, destination);
            let naive = trace.pair(row - ROWS_PER_DAY, source, destination);
            let errors = &self.naive_errors[source][destination];
            let value = |q| path.value(target, q).unwrap_or(0.0);
            for &q in path.quantiles() {
                let place = ((errors.len() - 1) as f64 * q.probability()).round() as usize;
                self.pinball += pinball(q, value(q), actual) / path.quantiles().len() as f64;
                self.naive_pinball += pinball(q, (naive + errors[place]).max(0.0), actual) / path.quantiles().len() as f64;
            }
            let (low, high) = Quantile::CENTRAL_90;
            self.covered += u64::from((value(low)..=value(high)).contains(&actual));
            self.count += 1;
            self.latest.insert((row, source, destination), value(Quantile::MEDIAN));
        }
    }

    /// Mean pinball loss over the quantiles, in megabytes a step.
    pub(super) fn mean_pinball(&self) -> f64 {
        self.pinball / self.count.max(1) as f64
    }

    /// The same for the seasonal naive forecast.
    pub(super) fn mean_naive_pinball(&self) -> f64 {
        self.naive_pinball / self.count.max(1) as f64
    }

    /// Share of the actuals inside the central 90 % interval.
    pub(super) fn coverage_90(&self) -> f64 {
        self.covered as f64 / self.count.max(1) as f64
    }

    /// One pair's forecast for `row` beside what came.
    pub(super) fn latest(&self, trace: &Trace, row: usize) -> String {
        let newest = self.latest.range(..=(row, usize::MAX, usize::MAX)).next_back();
        let Some((&(row, source, destination), forecast)) = newest else { return "no forecast yet".into() };
        let (from, to) = (&trace.regions[source].region, &trace.regions[destination].region);
        format!("{from} > {to}: forecast {forecast:>6.0} MB, came {:>6.0}", trace.pair(row, source, destination))
    }
}
