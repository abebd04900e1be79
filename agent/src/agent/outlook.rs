//! What stands around the forecasts: the calendar before and behind them, and the anomalies beside them.
//!
//! Counts are freed of planned events before the forecasts learn them, and the events are put into what the forecasts
//! say; what comes is compared with that, and what is out of the ordinary is told. Without events, forecasts are
//! left exactly as they are. Where nothing at all was counted, the records are late, and the forecasts go on by what they foresaw.

use super::silence::Silence;
use crate::anomaly::{Anomalies, AnomalyReport, in_words};
use crate::calendar::{Calendar, CalendarHandle};
use crate::config::Config;
use crate::env::Offload;
use crate::events::EventLog;
use crate::history::Closed;
use crate::marks::sometimes;
use crate::mesh::MeshHandle;
use std::collections::BTreeMap;
use std::sync::Arc;
use tradewind_protocol::api::{Anomaly, AnomalyKind, Direction, Severity};
use tradewind_protocol::{CalendarEvent, PredictionData, Quantile, SeriesKey, StepIndex, Timestamp};

/// Anomalies of one step that are told one by one: when everything moves at once, one sentence says more than a
/// thousand.
const MAX_TOLD: usize = 10;

/// Of the byte budget of the published state, events may take one in so many.
const EVENT_SHARE: usize = 8;

pub(super) struct Outlook {
    config: Arc<Config>,
    calendar: CalendarHandle,
    mesh: MeshHandle,
    events: EventLog,
    anomalies: Anomalies,
    /// What is foreseen without events.
    undisturbed: Arc<Vec<PredictionData>>,
    /// The counts of the last closed step, with events: ascending.
    counted: Vec<(SeriesKey, f64)>,
    silence: Silence,
    surges: bool,
    shifted: Vec<SeriesKey>,
}

impl Outlook {
    pub(super) fn new(config: Arc<Config>, calendar: CalendarHandle, mesh: MeshHandle, events: EventLog) -> Self {
        Self {
            anomalies: Anomalies::new(&config.anomaly, config.step),
            config,
            calendar,
            mesh,
            events,
            undisturbed: Arc::default(),
            counted: vec![],
            silence: Silence::default(),
            surges: false,
            shifted: vec![],
        }
    }

    /// Learns what was ordinary in series before this life from their counts up to `until`, and frees them of events. Series come
    /// ascending, over one or several calls.
    pub(super) async fn recall(&mut self, offload: Offload, until: StepIndex, windows: &mut Windows, now: Timestamp) {
        for (key, window) in windows.iter() {
            if let Some(count) = window.last().filter(|_| self.counted.last().is_none_or(|(last, _)| last < key)) {
                self.counted.push((key.clone(), *count));
            }
        }
        let calendar = self.calendar(now);
        let step = self.config.step;
        let fresh = Anomalies::new(&self.config.anomaly, step);
        let mut anomalies = std::mem::replace(&mut self.anomalies, fresh);
        let mut taken = std::mem::take(windows);
        (self.anomalies, *windows) = offload
            .run(move || {
                for (key, window) in &mut taken {
                    anomalies.recall(key, window);
                    calendar.undisturbed_window(key, until, step, window);
                }
                (anomalies, taken)
            })
            .await;
    }

    /// The series of the step before that are not among `counts`.
    pub(super) fn no_longer_in(&self, counts: &[(SeriesKey, f64)]) -> Vec<SeriesKey> {
        let gone = self.counted.iter().filter(|(key, _)| counts.binary_search_by(|(counted, _)| counted.cmp(key)).is_err());
        gone.map(|(key, _)| key.clone()).collect()
    }

    /// Judges a closed step by what was `foreseen` of it, and tells what is out of the ordinary. Gives the step
    /// and its counts without events, which are what forecasts are to learn, and frees the `revised` windows too.
    pub(super) async fn close(
        &mut self,
        closed: Closed,
        foreseen: &[PredictionData],
        revised: &mut [(SeriesKey, Vec<f64>)],
        now: Timestamp,
    ) -> (StepIndex, Vec<(SeriesKey, f64)>) {
        let (index, step) = (closed.step, self.config.step);
        let begun = self.anomalies.close(index, foreseen, &closed.counts);
        self.anomalies.retain(&closed.counts);
        self.tell(&begun);
        self.calendar.observe((index, step), &self.undisturbed, &closed.counts).await;
        self.undisturb(index, revised, now);
        let calendar = self.calendar(now);
        self.counted = closed.counts.clone();
        let mut counts = closed.counts;
        let was_late = self.silence.is_late();
        self.silence.stand_in(&mut counts, || medians(&self.undisturbed, index));
        if self.silence.is_late() {
            if !was_late {
                sometimes!("steps.nothing-came");
                let what =
                    "nothing was counted in a step of which much was foreseen: forecasts go on as if that had come, until the records do";
                self.events.note(Severity::Warning, "records.late", what.into());
            }
            return (index, counts);
        }
        let calendar = calendar.during(step.start(index), step.end(index));
        if !calendar.entries().is_empty() {
            let medians = medians(&self.undisturbed, index);
            for (key, count) in &mut counts {
                let foreseen = medians.get(key).copied().unwrap_or(*count);
                *count = calendar.undisturbed(key, index, step, *count, foreseen);
            }
        }
        (index, counts)
    }

    /// Frees counts up to `until` of events.
    pub(super) fn undisturb(&self, until: StepIndex, windows: &mut [(SeriesKey, Vec<f64>)], now: Timestamp) {
        let calendar = self.calendar(now);
        windows.iter_mut().for_each(|(key, window)| calendar.undisturbed_window(key, until, self.config.step, window));
    }

    /// What forecasts say, with the events that are known to come.
    pub(super) fn foresee(&mut self, mut predictions: Vec<PredictionData>, now: Timestamp) -> Arc<Vec<PredictionData>> {
        if self.silence.is_late() {
            // What forecasts went on by was not counted, and is not told as if it had been.
            predictions.iter_mut().for_each(|prediction| prediction.observed = 0.0);
        }
        self.undisturbed = Arc::new(predictions);
        let Some(path) = self.undisturbed.first().map(|prediction| &prediction.path) else { return self.undisturbed.clone() };
        let (step, last) = (path.step(), path.start().offset(-1));
        let calendar = self.calendar(now).during(step.start(last), step.start(path.start().offset(path.horizon() as i64)));
        if calendar.entries().is_empty() {
            return self.undisturbed.clone();
        }
        let applied = self.undisturbed.iter().map(|prediction| {
            let counted = self.counted.binary_search_by(|(key, _)| key.cmp(&prediction.series));
            calendar.apply(prediction, counted.map_or(prediction.observed, |at| self.counted[at].1))
        });
        Arc::new(applied.collect())
    }

    /// The events that the others are to know.
    pub(super) fn to_publish(&self, now: Timestamp) -> Vec<CalendarEvent> {
        self.calendar.to_publish(now, self.config.mesh.state_budget_bytes / EVENT_SHARE)
    }

    /// What is known of anomalies.
    pub(super) fn report(&self) -> Arc<AnomalyReport> {
        Arc::new(self.anomalies.report())
    }

    /// Whether more comes than was foreseen since this was last asked: reason to plan at once.
    pub(super) fn surges(&mut self) -> bool {
        std::mem::take(&mut self.surges)
    }

    /// The series whose level has changed since this was last asked.
    pub(super) fn shifted(&mut self) -> Vec<SeriesKey> {
        std::mem::take(&mut self.shifted)
    }

    fn calendar(&self, now: Timestamp) -> Calendar {
        self.calendar.calendar_in(&self.mesh.view(), now)
    }

    fn tell(&mut self, begun: &[Anomaly]) {
        self.surges |= begun.iter().any(|anomaly| anomaly.direction == Direction::Up);
        let shifts = begun.iter().filter(|anomaly| anomaly.kind == AnomalyKind::LevelShift);
        self.shifted.extend(shifts.map(|anomaly| anomaly.series.clone()));
        for anomaly in begun.iter().take(MAX_TOLD) {
            let kind = match anomaly.kind {
                AnomalyKind::Point => "anomaly.point",
                AnomalyKind::LevelShift => "anomaly.level_shift",
                AnomalyKind::MissingData => "anomaly.missing_data",
            };
            self.events.note(Severity::Warning, kind, in_words(anomaly));
        }
        if begun.len() > MAX_TOLD {
            let more = begun.len() - MAX_TOLD;
            self.events.note(Severity::Warning, "anomaly.many", format!("{more} more series are out of the ordinary in the same step"));
        }
    }
}

/// Series with their counts.
type Windows = Vec<(SeriesKey, Vec<f64>)>;

fn medians(predictions: &[PredictionData], index: StepIndex) -> BTreeMap<&SeriesKey, f64> {
    predictions.iter().filter_map(|p| Some((&p.series, p.path.value(index, Quantile::MEDIAN)?))).collect()
}
