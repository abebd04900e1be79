//! Backfill and follow: each configured query is asked for the steps that are over and not counted yet, a value a step.
//!
//! The value of a query at a step's end is the step's count, rounded: `increase(...[step])` is what to ask for. Each step is a
//! batch of its own with a key of its own, so that it counts once whatever breaks between counting and remembering how far it
//! got; how far is remembered in the store.

use super::pause;
use crate::config::{Config, PromQuery, PromReadConfig};
use crate::env::{Clock, Offload};
use crate::events::EventLog;
use crate::history::{AppendError, HistoryHandle};
use crate::ingest::{Batch, Rules, parse};
use crate::stop::told;
use crate::store::{Facts, Store};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tradewind_protocol::api::Severity;
use tradewind_protocol::{IdempotencyKey, StepIndex, Timestamp};

/// How far each query got: the next step, decimal.
const CURSORS: Facts = Facts("prometheus_read");

/// Steps of one request: their batches share a commit, and a server answers a hundred series of it in a megabyte.
const STEPS_A_REQUEST: i64 = 240;

/// The longest answer. What is longer is an error that names the remedy.
const MAX_ANSWER_BYTES: u64 = 32 << 20;

/// Reads from one server.
pub(crate) struct Reader {
    pub(crate) config: Arc<Config>,
    pub(crate) read: PromReadConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) offload: Offload,
    pub(crate) store: Store,
    pub(crate) history: HistoryHandle,
    pub(crate) events: EventLog,
}

/// Why nothing was read. Trying again later is right for all but a wrong query.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{url} cannot be asked: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} refuses the query with status {status}: {reason}")]
    Refused { url: String, status: u16, reason: String },
    #[error("{url} answers something else than a range vector: {reason}")]
    Malformed { url: String, reason: String },
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl Reader {
    /// Reads until `stop`.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut failures = 0;
        let mut told_of = None;
        loop {
            let wait = match self.catch_up().await {
                Ok(()) => {
                    told_of = None;
                    if std::mem::take(&mut failures) > 0 {
                        self.events.note(Severity::Info, "prometheus.read", format!("{} is read again", self.read.url));
                    }
                    let now = self.clock.now();
                    let (step, delay) = (self.config.step, self.read.delay);
                    // A hair behind the end, so that the step is over for whoever asks then.
                    step.end(step.index(now.before(delay))).after(delay).since(now) + Duration::from_millis(1)
                }
                Err(error) => {
                    failures += 1;
                    // Again where it fails for another reason: a server that is back may refuse the query.
                    if told_of.replace(std::mem::discriminant(&error)) != Some(std::mem::discriminant(&error)) {
                        self.events.note(Severity::Warning, "prometheus.read", format!("{error}; it is tried again"));
                    }
                    pause(failures)
                }
            };
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn catch_up(&self) -> Result<(), ReadError> {
        let mut first_error = None;
        for query in &self.read.queries {
            // One bad query must not keep the others from being read.
            if let Err(error) = self.follow(query).await {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Reads all steps of `query` that are over.
    async fn follow(&self, query: &PromQuery) -> Result<(), ReadError> {
        let step = self.config.step;
        let known = self.store.get(CURSORS, &query.name).await?;
        let known = known.and_then(|text| String::from_utf8(text).ok()?.parse().ok()).map(StepIndex);
        let now = self.clock.now();
        // What is older would be refused.
        let oldest = step.index(now.before(self.read.backfill)).offset(1);
        let mut next = known.unwrap_or(oldest).max(oldest);
        let end = step.index(now.before(self.read.delay));
        while next < end {
            let until = end.min(next.offset(STEPS_A_REQUEST));
            let (url, text) = (self.read.url.clone(), query.query.clone());
            let range = (step.end(next), step.start(until), step.seconds());
            let found = self.offload.run(move || ask(&url, &text, range)).await?;
            let batches = self.batches(query, &found, next, until)?;
            let keyed = batches.into_iter().filter_map(|(at, batch)| {
                let key = IdempotencyKey::new(&format!("prometheus/{}/{}", query.name, at.0)).ok()?;
                Some(self.history.append(batch, Some(key)))
            });
            for receipt in join_all(keyed).await {
                let receipt = receipt?;
                if let (Some(refusal), false) = (receipt.refusals.first(), receipt.replayed) {
                    let more = format!("{} values of query {} were refused: {}", receipt.refused, query.name, refusal.reason);
                    self.events.note(Severity::Warning, "prometheus.refused", more);
                }
            }
            self.store.put(CURSORS, &query.name, until.0.to_string().into_bytes()).await?;
            next = until;
        }
        Ok(())
    }

    /// A batch for each step in which anything was counted.
    fn batches(&self, query: &PromQuery, found: &[Found], from: StepIndex, until: StepIndex) -> Result<Vec<(StepIndex, Batch)>, ReadError> {
        let step = self.config.step;
        let mut lines: BTreeMap<StepIndex, String> = BTreeMap::new();
        for Found { metric, values } in found {
            let label = |name: &Option<String>| name.as_ref().and_then(|name| metric.get(name)).map(String::as_str);
            for (at, value) in values {
                let at = step.index(Timestamp::saturating_from_millis((at * 1e3).round() as i64)).offset(-1);
                let Some(count) = count(value).filter(|_| (from..until).contains(&at)) else { continue };
                let record = json!({
                    "source_region": self.config.region,
                    "destination_region": metric.get(&query.destination_label),
                    "service": label(&query.service_label).unwrap_or(query.service.as_str()),
                    "transaction_type": label(&query.type_label).unwrap_or(query.transaction_type.as_str()),
                    "tenant": label(&query.tenant_label).unwrap_or(query.tenant.as_str()),
                    "timestamp": step.start(at).as_millis(),
                    "count": count,
                });
                let text = lines.entry(at).or_default();
                text.push_str(&record.to_string());
                text.push('\n');
            }
        }
        let rules = Rules { region: &self.config.region, step, now: self.clock.now(), config: &self.config.ingest };
        let parsed = lines.into_iter().map(|(at, text)| match parse(text.as_bytes(), &rules) {
            Ok(batch) => Ok((at, batch)),
            Err(error) => Err(ReadError::Malformed { url: self.read.url.clone(), reason: error.to_string() }),
        });
        parsed.collect()
    }
}

/// The transactions of a sample, if there are any. What no record may count is left to be refused, and not made less.
fn count(value: &str) -> Option<u64> {
    let value: f64 = value.parse().ok()?;
    (value.is_finite() && value >= 0.5).then_some(value.round() as u64)
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Vec<Found>,
}

/// One series of an answer.
#[derive(Debug, Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// `GET /api/v1/query_range` of the HTTP API, posted as a form, since queries may be long.
fn ask(url: &str, query: &str, (start, end, step): (Timestamp, Timestamp, f64)) -> Result<Vec<Found>, ReadError> {
    let seconds = |at: Timestamp| format!("{}.{:03}", at.as_millis().div_euclid(1000), at.as_millis().rem_euclid(1000));
    let unreachable = |error: ureq::Error| ReadError::Unreachable { url: url.into(), reason: error.to_string() };
    let form = [("query", query.to_string()), ("start", seconds(start)), ("end", seconds(end)), ("step", step.to_string())];
    let mut answer = super::client().post(format!("{url}/api/v1/query_range")).send_form(form).map_err(unreachable)?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(unreachable)?;
    if status != 200 {
        let reason = String::from_utf8_lossy(&body).chars().take(300).collect();
        return Err(ReadError::Refused { url: url.into(), status, reason });
    }
    let malformed = |reason: String| ReadError::Malformed { url: url.into(), reason };
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    if answer.data.kind == "matrix" { Ok(answer.data.result) } else { Err(malformed(format!("a {}", answer.data.kind))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::record::MAX_COUNT;

    #[test]
    fn a_sample_is_counted_as_it_is_or_refused() {
        for (sample, counted) in
            [("7.3", Some(7)), ("0.5", Some(1)), ("0.4", None), ("-5", None), ("NaN", None), ("+Inf", None), ("x", None)]
        {
            assert_eq!(count(sample), counted, "{sample}");
        }
        assert!(count("1e308").is_some_and(|count| count > MAX_COUNT), "not taken for the most that may be counted");
    }
}
