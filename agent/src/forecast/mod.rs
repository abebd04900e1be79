//! Quantile paths from counts. Pure: told what was counted, it says what will be.
//!
//! [`Forecasts`] holds one `series::SeriesForecast` for each series. When a step is closed, every
//! series learns its count at once: several experts (`experts`) extend their points, a
//! lane for each of a few horizons (`lane`) mixes them by their recent losses, and reads the interval
//! around the mix from its own recent errors, in units that follow the clock (`rhythm`), at levels that conformal inference keeps honest. Beside it stand the plain quantiles
//! of the last values (`plain`), believed quantile by quantile as far as they were better (`blend`); and what is published is as much
//! wider as the series of the agent have needed in the mean (`widths`). The same counts always make the same forecast, and
//! rebuilt series say what they would have said without an interruption.
//!
//! Invariant: what is said after step `t` depends on the counts up to `t` alone (a test replaces
//! everything later by noise). Read next: `series`.

mod blend;
mod errors;
mod experts;
mod explain;
pub mod global;
mod horizon;
mod lane;
mod mix;
mod past;
mod plain;
mod profile;
mod rhythm;
mod score;
mod series;
mod snapshot;
mod week;
mod widths;

use crate::config::ForecastConfig;
use horizon::lanes;
use series::{Panel, SeriesForecast};
use std::collections::BTreeMap;
use std::ops::Bound;
use tradewind_protocol::forecast::MAX_HORIZON;
use tradewind_protocol::{PredictionData, Quantile, QuantilePath, SeriesKey, Step, StepIndex, Timestamp};
use widths::{Factors, Widths};

pub use experts::EXPERTS;
pub use explain::{ExpertExplanation, Explanation, LaneExplanation};
pub use snapshot::SnapshotError;

/// The longest gap between two closed steps that is filled with empty steps. Beyond a thousand, the
/// past says little about the present, and a clock that jumped by years must not cost minutes: the
/// series start afresh.
const MAX_GAP: i64 = 1_000;

/// The longest season, in steps: a day of steps of ten seconds. A profile of it takes 70 KiB a series.
const MAX_SEASON: usize = 8_640;

/// The forecasts of all series of one region.
#[derive(Debug)]
pub struct Forecasts {
    horizon: usize,
    season: usize,
    panel: Panel,
    step: Step,
    /// The last closed step.
    until: Option<StepIndex>,
    series: BTreeMap<SeriesKey, SeriesForecast>,
}

impl Forecasts {
    /// Forecasts of nothing yet. Horizon and season are held within what is sane.
    pub fn new(config: &ForecastConfig, step: Step) -> Self {
        Self::with_experts(config, step, &EXPERTS)
    }

    /// The same with these experts only, by their names ([`EXPERTS`]; others are ignored): to measure what each is worth. The
    /// last value stands in for all as long as none of them speaks.
    pub fn with_experts(config: &ForecastConfig, step: Step, experts: &[&str]) -> Self {
        let (horizon, season) = (config.horizon.clamp(1, MAX_HORIZON), config.season.clamp(1, MAX_SEASON));
        let panel = EXPERTS.map(|name| experts.contains(&name));
        Self { horizon, season, panel, step, until: None, series: BTreeMap::new() }
    }

    /// Closes `step` with these counts. Series that are left out counted nothing; new ones begin
    /// here. Steps that were skipped since the last one are empty ones. A step that was closed
    /// before is ignored: late records come by [`rebuild`](Self::rebuild).
    pub fn close<'a>(&mut self, step: StepIndex, counts: impl IntoIterator<Item = (&'a SeriesKey, f64)>) {
        let gap = match self.until {
            Some(until) if step <= until => return,
            Some(until) => step.0.saturating_sub(until.0) - 1,
            None => 0,
        };
        if gap > MAX_GAP {
            self.series.clear();
        } else {
            self.series.values_mut().for_each(|series| (0..gap).for_each(|_| series.observe(0.0)));
        }
        let mut counts: BTreeMap<&SeriesKey, f64> = counts.into_iter().collect();
        for (key, series) in &mut self.series {
            series.observe(counts.remove(key).unwrap_or(0.0));
        }
        for (key, count) in counts {
            let mut series = SeriesForecast::new(self.horizon, self.season, self.panel);
            series.observe(count);
            self.series.insert(key.clone(), series);
        }
        self.until = Some(step);
    }

    /// Learns one series afresh from `window`, its counts in consecutive steps up to and with
    /// `until`, oldest first: after a restart, or after late records have changed the past. The
    /// other series are brought to `until` if they are behind it, and this one to theirs if it is.
    pub fn rebuild(&mut self, key: &SeriesKey, until: StepIndex, window: &[f64]) {
        if window.is_empty() {
            self.series.remove(key);
            self.catch_up(until);
            return;
        }
        self.take_in(key, until, SeriesForecast::new(self.horizon, self.season, self.panel), window);
    }

    /// Takes in a series that has yet to learn these counts, the last of them that of step `until`.
    fn take_in(&mut self, key: &SeriesKey, until: StepIndex, mut series: SeriesForecast, counts: &[f64]) {
        let behind = self.catch_up(until);
        if behind > MAX_GAP {
            self.series.remove(key);
            return;
        }
        counts.iter().for_each(|count| series.observe(*count));
        (0..behind).for_each(|_| series.observe(0.0));
        self.series.insert(key.clone(), series);
    }

    /// Brings all series to `until`; how many steps they are beyond it.
    fn catch_up(&mut self, until: StepIndex) -> i64 {
        match self.until {
            Some(closed) if closed >= until => {}
            Some(_) => self.close(until, []),
            None => self.until = Some(until),
        }
        self.until.map_or(0, |closed| closed.0.saturating_sub(until.0))
    }

    /// All that is known of the `most` series after `after`, to be [restored](Self::restore) by a later life of the agent; ascending.
    pub fn save(&self, after: Option<&SeriesKey>, most: usize) -> Vec<(SeriesKey, Result<Vec<u8>, SnapshotError>)> {
        let Some(until) = self.until else { return vec![] };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let series = self.series.range((from, Bound::Unbounded)).take(most);
        series.map(|(key, series)| (key.clone(), snapshot::save(until, series))).collect()
    }

    /// Takes up a series where `bytes` have left it and learns what was counted since, from `window`, its counts in consecutive steps up to and with
    /// `until`. What it says then is what it would have said without an interruption. Refused where the window's counts are not those that it was
    /// told of, as far back as it knows, two seasons. As with [`rebuild`](Self::rebuild), who is behind is brought to the same step.
    pub fn restore(&mut self, key: &SeriesKey, until: StepIndex, bytes: &[u8], window: &[f64]) -> Result<(), SnapshotError> {
        let (mut series, since) = snapshot::restore(bytes, (self.horizon, self.season), until, window)?;
        series.panel = self.panel;
        self.take_in(key, until, series, &window[window.len() - since..]);
        Ok(())
    }

    /// Is told what became of the last [predictions](Self::predictions): that is what scores and coverage are of. Until it is, they are of
    /// the predictions themselves.
    pub fn published(&mut self, predictions: &[PredictionData]) {
        let next = self.until.map(|until| until.offset(1));
        for prediction in predictions.iter().filter(|prediction| Some(prediction.path.start()) == next) {
            if let Some(series) = self.series.get_mut(&prediction.series) {
                series.published(&prediction.path);
            }
        }
    }

    /// Forgets a series.
    pub fn remove(&mut self, key: &SeriesKey) {
        self.series.remove(key);
    }

    /// Why the forecast of a series is what it is; `None` if there is none.
    pub fn explain(&self, key: &SeriesKey) -> Option<Explanation> {
        Some(self.series.get(key)?.explain(self.until?))
    }

    /// The last closed step.
    pub fn until(&self) -> Option<StepIndex> {
        self.until
    }

    /// How many series are forecast.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// What is foreseen for every series from the step after the last closed one, ascending by key.
    pub fn predictions(&self, issued_at: Timestamp) -> Vec<PredictionData> {
        let Some(until) = self.until else { return vec![] };
        let widths: Vec<Factors> = (0..lanes(self.horizon).len())
            .map(|lane| Widths::mean(self.series.values().filter_map(|series| series.widths().nth(lane))))
            .collect();
        let values = |series: &SeriesForecast| series.path(self.horizon, &widths).flatten().map(|value| value as f32).collect();
        self.series.iter().filter_map(|(key, series)| self.prediction(key, series, values(series), until.offset(1), issued_at)).collect()
    }

    fn prediction(
        &self,
        key: &SeriesKey,
        series: &SeriesForecast,
        values: Vec<f32>,
        start: StepIndex,
        issued_at: Timestamp,
    ) -> Option<PredictionData> {
        // Never refused: horizon and quantiles are within bounds by construction.
        let path = QuantilePath::rearranged(start, self.step, Quantile::GRID.to_vec(), values).ok()?;
        Some(PredictionData {
            series: key.clone(),
            issued_at,
            observed: series.observed(),
            mean_volume: series.mean(),
            path,
            model: series.model().to_string(),
            score: series.score(),
        })
    }
}

#[cfg(test)]
mod tests;
