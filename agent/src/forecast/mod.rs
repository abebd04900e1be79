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
//! All of that takes up to 0.4 MB a series. Where there are more than a limit, the others have a `lean` forecast of a kilobyte
//! ([`Forecasts::choose`]).
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
mod lean;
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
use lane::QUANTILES;
use lean::Lean;
use series::{Panel, SeriesForecast};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use tradewind_protocol::forecast::{ForecastScore, MAX_HORIZON};
use tradewind_protocol::{PredictionData, Quantile, QuantilePath, SeriesKey, Step, StepIndex, Timestamp};
use widths::{Factors, Widths};

pub use experts::EXPERTS;
pub use explain::{ExpertExplanation, Explanation, LaneExplanation};
pub use lean::LEAN;
pub use snapshot::SnapshotError;

/// The longest gap between two closed steps that is filled with empty steps. Beyond a thousand, the
/// past says little about the present, and a clock that jumped by years must not cost minutes: the
/// series start afresh.
const MAX_GAP: i64 = 1_000;

/// The longest season, in steps: a day of steps of ten seconds. A profile of it takes 70 KiB a series.
const MAX_SEASON: usize = 8_640;

/// A chosen series counts for so much more than it is where series are chosen anew, so that two of a size do not take turns. A guess.
const STAYS: f64 = 1.25;

/// The forecasts of all series of one region.
#[derive(Debug)]
pub struct Forecasts {
    horizon: usize,
    season: usize,
    panel: Panel,
    step: Step,
    /// The last closed step.
    until: Option<StepIndex>,
    /// The most series that all experts forecast.
    max_series: usize,
    /// Those that they are to forecast, known or not; never more.
    chosen: BTreeSet<SeriesKey>,
    /// Those that they do: all of them are chosen.
    series: BTreeMap<SeriesKey, SeriesForecast>,
    /// The others, and those that are chosen and have yet to be learnt.
    lean: BTreeMap<SeriesKey, Lean>,
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
        let (chosen, series, lean) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { horizon, season, panel, step, until: None, max_series: usize::MAX, chosen, series, lean }
    }

    /// Has at most so many series forecast by all experts: the first that come, until others are [chosen](Self::choose).
    pub fn limited_to(self, max_series: usize) -> Self {
        Self { max_series, ..self }
    }

    /// Chooses the series that all experts forecast: the largest, with a quarter in favour of those that are chosen already. Who is no longer among
    /// them is forecast leanly from now on, by its last counts; who is among them now is [waiting](Self::waiting) to be learnt.
    pub fn choose(&mut self, sizes: &[(SeriesKey, f64)]) {
        let favoured = |(key, size): &(SeriesKey, f64)| if self.chosen.contains(key) { STAYS * size } else { *size };
        let mut ranked: Vec<(f64, &SeriesKey)> = sizes.iter().map(|of| (favoured(of), &of.0)).collect();
        if ranked.len() > self.max_series {
            ranked.select_nth_unstable_by(self.max_series, |a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
            ranked.truncate(self.max_series);
        }
        self.chosen = ranked.into_iter().map(|(_, key)| key.clone()).collect();
        let lost = self.series.extract_if(.., |key, _| !self.chosen.contains(key));
        self.lean.extend(lost.map(|(key, series)| (key, series.to_lean())));
    }

    /// The first `most` series that all experts are to forecast once they have [learnt](Self::rebuild) them.
    pub fn waiting(&self, most: usize) -> Vec<SeriesKey> {
        if self.lean.is_empty() {
            return vec![];
        }
        self.chosen.iter().filter(|key| self.lean.contains_key(key)).take(most).cloned().collect()
    }

    fn may_have_all(&self, key: &SeriesKey) -> bool {
        self.chosen.contains(key) || self.chosen.len() < self.max_series
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
        let season = self.season;
        if gap > MAX_GAP {
            (self.chosen, self.series, self.lean) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        } else {
            self.series.values_mut().for_each(|series| (0..gap).for_each(|_| series.observe(0.0)));
            self.lean.values_mut().for_each(|lean| (0..gap).for_each(|_| lean.observe(0.0, season)));
        }
        let mut counts: BTreeMap<&SeriesKey, f64> = counts.into_iter().collect();
        for (key, series) in &mut self.series {
            series.observe(counts.remove(key).unwrap_or(0.0));
        }
        for (key, lean) in &mut self.lean {
            lean.observe(counts.remove(key).unwrap_or(0.0), season);
        }
        for (key, count) in counts {
            self.insert(key, self.fresh(), &[count], 0);
        }
        self.until = Some(step);
    }

    /// Learns one series afresh from `window`, its counts in consecutive steps up to and with
    /// `until`, oldest first: after a restart, or after late records have changed the past. The
    /// other series are brought to `until` if they are behind it, and this one to theirs if it is.
    pub fn rebuild(&mut self, key: &SeriesKey, until: StepIndex, window: &[f64]) {
        if window.is_empty() {
            self.remove(key);
            self.catch_up(until);
            return;
        }
        self.take_in(key, until, self.fresh(), window);
    }

    /// Takes in a series that has yet to learn these counts, the last of them that of step `until`.
    fn take_in(&mut self, key: &SeriesKey, until: StepIndex, series: SeriesForecast, counts: &[f64]) {
        let behind = self.catch_up(until);
        if behind > MAX_GAP {
            self.remove(key);
            return;
        }
        self.insert(key, series, counts, behind);
    }

    fn fresh(&self) -> SeriesForecast {
        SeriesForecast::new(self.horizon, self.season, self.panel)
    }

    /// Takes in a series that has yet to learn these counts and so many empty steps; as a lean one, which needs no more, if there is no room.
    fn insert(&mut self, key: &SeriesKey, mut series: SeriesForecast, counts: &[f64], empty: i64) {
        let counts = counts.iter().copied().chain((0..empty).map(|_| 0.0));
        if self.may_have_all(key) {
            counts.for_each(|count| series.observe(count));
            self.lean.remove(key);
            self.chosen.insert(key.clone());
            self.series.insert(key.clone(), series);
        } else {
            let mut lean = Lean::new();
            counts.for_each(|count| lean.observe(count, self.season));
            self.lean.insert(key.clone(), lean);
        }
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
        if !self.may_have_all(key) {
            self.rebuild(key, until, window);
            return Ok(());
        }
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
        self.chosen.remove(key);
        self.series.remove(key);
        self.lean.remove(key);
    }

    /// Why the forecast of a series is what it is; `None` if there is none.
    pub fn explain(&self, key: &SeriesKey) -> Option<Explanation> {
        let until = self.until?;
        let lean = || self.lean.get(key).map(|lean| lean.explain(until, self.season, self.horizon, self.max_series));
        self.series.get(key).map(|series| series.explain(until)).or_else(lean)
    }

    /// The last closed step.
    pub fn until(&self) -> Option<StepIndex> {
        self.until
    }

    /// How many series are forecast.
    pub fn len(&self) -> usize {
        self.series.len() + self.lean.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is foreseen for every series from the step after the last closed one, ascending by key.
    pub fn predictions(&self, issued_at: Timestamp) -> Vec<PredictionData> {
        let Some(until) = self.until else { return vec![] };
        let widths: Vec<Factors> = (0..lanes(self.horizon).len())
            .map(|lane| Widths::mean(self.series.values().filter_map(|series| series.widths().nth(lane))))
            .collect();
        let narrow = |rows: &mut dyn Iterator<Item = [f64; QUANTILES]>| rows.flatten().map(|value| value as f32).collect();
        let full = self.series.iter().filter_map(|(key, series)| {
            let path = self.path(narrow(&mut series.path(self.horizon, &widths)), until)?;
            let (observed, mean_volume, score) = (series.observed(), series.mean(), series.score());
            let (series, model) = (key.clone(), series.model().to_string());
            Some(PredictionData { series, issued_at, observed, mean_volume, path, model, score })
        });
        let lean = self.lean.iter().filter_map(|(key, lean)| {
            let path = self.path(narrow(&mut lean.path(self.horizon).into_iter()), until)?;
            let (observed, mean_volume, score) = (lean.observed(), lean.mean(), ForecastScore::default());
            Some(PredictionData { series: key.clone(), issued_at, observed, mean_volume, path, model: LEAN.to_owned(), score })
        });
        let mut all: Vec<_> = full.chain(lean).collect();
        if !self.lean.is_empty() {
            all.sort_unstable_by(|a, b| a.series.cmp(&b.series));
        }
        all
    }

    fn path(&self, values: Vec<f32>, until: StepIndex) -> Option<QuantilePath> {
        // Never refused: horizon and quantiles are within bounds by construction.
        QuantilePath::rearranged(until.offset(1), self.step, Quantile::GRID.to_vec(), values).ok()
    }
}

#[cfg(test)]
mod tests;
