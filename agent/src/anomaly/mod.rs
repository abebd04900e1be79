//! What is out of the ordinary, in every series, on every step. Pure.
//!
//! [`Anomalies`] holds one [`Detector`] a series. When a step is closed, it compares each count with what
//! was foreseen for just that step, and joins surprising steps to *incidents*: the first alarm of one is
//! returned, to be told once; what follows only lengthens it. An incident ends after `CALM` ordinary steps.
//! Not here: whom to tell, and what to do about it; that forecasts learn the less of a count the more unlikely it was is their own business
//! ([`crate::forecast`]). Read next: `detector`, then `tail`.

mod detector;
mod tail;

pub use detector::{Detector, Expected, Verdict};

use crate::config::AnomalyConfig;
use std::collections::{BTreeMap, VecDeque};
use tradewind_protocol::api::{Anomaly, AnomalyKind, Direction};
use tradewind_protocol::{PredictionData, Quantile, SeriesKey, Step, StepIndex};

/// After so many ordinary steps an incident is over: a flapping one is told once.
const CALM: i64 = 10;
/// How many past incidents are kept for those who ask: a week of one series' expected false alarms for
/// a thousand series.
const MAX_PAST: usize = 1_000;
/// Series whose recall is longer learn only this much of it: enough to know what is rare.
const MAX_RECALL: usize = 2_000;
/// Differences of less than one transaction are none.
const UNIT: f64 = 1.0;

/// The anomalies of all series of one region.
#[derive(Debug)]
pub struct Anomalies {
    /// Minus the decimal logarithm of the configured probability of a false alarm.
    alarm: f64,
    step: Step,
    series: BTreeMap<SeriesKey, Watched>,
    past: VecDeque<Anomaly>,
    found: BTreeMap<AnomalyKind, u64>,
}

#[derive(Debug, Default)]
struct Watched {
    detector: Detector,
    incident: Option<Incident>,
}

#[derive(Debug)]
struct Incident {
    anomaly: Anomaly,
    surprise: f64,
    last: StepIndex,
}

impl Anomalies {
    /// Anomalies of nothing yet.
    pub fn new(config: &AnomalyConfig, step: Step) -> Self {
        let kinds = [AnomalyKind::Point, AnomalyKind::LevelShift, AnomalyKind::MissingData];
        Self {
            alarm: -config.false_alarm_probability.log10(),
            step,
            series: BTreeMap::new(),
            past: VecDeque::new(),
            found: kinds.map(|kind| (kind, 0)).into(),
        }
    }

    /// Judges the counts of the closed `step` by what was `foreseen` before it, and returns what has begun to
    /// be anomalous, ascending by series. A series that was not foreseen is not judged; one that was
    /// and is not among the ascending `counts` counted nothing.
    pub fn close(&mut self, step: StepIndex, foreseen: &[PredictionData], counts: &[(SeriesKey, f64)]) -> Vec<Anomaly> {
        let mut begun = vec![];
        for prediction in foreseen {
            let Some(expected) = expected(prediction, step) else { continue };
            let counted = counts.binary_search_by(|(key, _)| key.cmp(&prediction.series));
            let count = counted.map_or(0.0, |at| counts[at].1);
            if !self.series.contains_key(&prediction.series) {
                self.series.insert(prediction.series.clone(), Watched::default());
            }
            let Some(watched) = self.series.get_mut(&prediction.series) else { continue };
            let verdict = watched.detector.observe(count, Some(expected), UNIT);
            if verdict.surprise > self.alarm {
                let anomaly = describe(prediction, &verdict, step, self.step, count, expected.median);
                if watched.alarm(anomaly, &verdict, step) {
                    *self.found.entry(verdict.kind).or_default() += 1;
                    begun.extend(watched.incident.as_ref().map(|incident| incident.anomaly.clone()));
                }
            } else if let Some(over) = watched.incident.take_if(|incident| step.0.saturating_sub(incident.last.0) > CALM) {
                if self.past.len() == MAX_PAST {
                    self.past.pop_front();
                }
                self.past.push_back(Anomaly { ongoing: false, ..over.anomaly });
            }
        }
        begun
    }

    /// Learns what is ordinary in a series from its counts before this life, oldest first. What was foreseen for
    /// them is no longer known; the last count stands for it, which errs towards silence.
    pub fn recall(&mut self, key: &SeriesKey, counts: &[f64]) {
        let mut detector = Detector::default();
        counts.iter().skip(counts.len().saturating_sub(MAX_RECALL)).for_each(|count| {
            detector.observe(*count, None, UNIT);
        });
        self.series.insert(key.clone(), Watched { detector, incident: None });
    }

    /// Forgets the series that are not among the ascending `keys`.
    pub fn retain(&mut self, keys: &[(SeriesKey, f64)]) {
        self.series.retain(|key, _| keys.binary_search_by(|(known, _)| known.cmp(key)).is_ok());
    }

    /// All that is known, newest first: what goes on, then what is over.
    pub fn report(&self) -> AnomalyReport {
        let mut anomalies: Vec<Anomaly> =
            self.series.values().filter_map(|watched| watched.incident.as_ref()).map(|incident| incident.anomaly.clone()).collect();
        anomalies.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| a.series.cmp(&b.series)));
        anomalies.extend(self.past.iter().rev().cloned());
        AnomalyReport { anomalies, found: self.found.clone() }
    }
}

/// What is known of anomalies at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnomalyReport {
    /// What goes on, newest first, then what is over, newest first.
    pub anomalies: Vec<Anomaly>,
    /// How many were found in this life of the agent.
    pub found: BTreeMap<AnomalyKind, u64>,
}

impl AnomalyReport {
    /// How many go on.
    pub fn ongoing(&self) -> usize {
        self.anomalies.iter().take_while(|anomaly| anomaly.ongoing).count()
    }
}

impl Watched {
    /// Notes an alarm; says whether an incident begins with it, or becomes of another kind.
    fn alarm(&mut self, anomaly: Anomaly, verdict: &Verdict, step: StepIndex) -> bool {
        match &mut self.incident {
            Some(incident) => {
                let missing = anomaly.kind == AnomalyKind::MissingData && incident.anomaly.kind != AnomalyKind::MissingData;
                incident.last = step;
                incident.anomaly.until = anomaly.until;
                if missing || verdict.surprise > incident.surprise {
                    incident.surprise = verdict.surprise;
                    incident.anomaly = Anomaly { since: incident.anomaly.since, ..anomaly };
                }
                missing
            }
            None if verdict.fresh => {
                self.incident = Some(Incident { anomaly, surprise: verdict.surprise, last: step });
                true
            }
            None => false,
        }
    }
}

fn expected(prediction: &PredictionData, step: StepIndex) -> Option<Expected> {
    let (low, high) = Quantile::CENTRAL_90;
    let value = |quantile| prediction.path.value(step, quantile);
    Some(Expected { low: value(low)?, median: value(Quantile::MEDIAN)?, high: value(high)? })
}

fn describe(prediction: &PredictionData, verdict: &Verdict, at: StepIndex, step: Step, observed: f64, expected: f64) -> Anomaly {
    Anomaly {
        series: prediction.series.clone(),
        kind: verdict.kind,
        direction: verdict.direction,
        step: at,
        since: step.start(at),
        until: step.end(at),
        ongoing: true,
        observed,
        expected,
        probability: 10.0_f64.powf(-verdict.surprise),
    }
}

/// An anomaly in words.
pub fn in_words(anomaly: &Anomaly) -> String {
    let what = match (anomaly.kind, anomaly.direction) {
        (AnomalyKind::Point, Direction::Up) => "far more than foreseen",
        (AnomalyKind::Point, Direction::Down) => "far less than foreseen",
        (AnomalyKind::LevelShift, Direction::Up) => "the level has risen",
        (AnomalyKind::LevelShift, Direction::Down) => "the level has fallen",
        (AnomalyKind::MissingData, Direction::Up | Direction::Down) => "nothing comes any more",
    };
    let Anomaly { series, observed, expected, probability, .. } = anomaly;
    format!("{series}: {what}: {observed:.0} transactions in the step, {expected:.0} were foreseen (chance of it {probability:.0e})")
}

#[cfg(test)]
mod tests;
