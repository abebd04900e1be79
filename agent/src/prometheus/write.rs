//! Remote write 1.0 of what is observed, foreseen and decided: after each closed step one request, protobuf in snappy's block
//! format (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).
//!
//! The samples of a step have the time of its end. Forecasts are written when they are made, not for when they are, since
//! servers refuse the future: label `ahead_seconds` tells for when, `quantile` which.

use super::pause;
use crate::config::{Config, PromWriteConfig};
use crate::env::Offload;
use crate::events::EventLog;
use crate::http::Progress;
use crate::stop::told;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tradewind_protocol::api::Severity;
use tradewind_protocol::{SeriesKey, StepIndex};

/// Requests that wait for a server that is away: an hour of minutes. Then the oldest goes.
const MAX_WAITING: usize = 60;

/// Writes to one server.
pub(crate) struct Writer {
    pub(crate) config: Arc<Config>,
    pub(crate) write: PromWriteConfig,
    pub(crate) offload: Offload,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) events: EventLog,
}

impl Writer {
    /// Writes until `stop`.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut written, mut failures, mut lost) = (None, 0, 0u64);
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                changed = self.progress.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let progress = self.progress.borrow_and_update().clone();
                    // The plan follows the forecasts: with it, the step is complete.
                    let planned = progress.plan.as_ref().map(|plan| plan.known_until);
                    if progress.closed.is_some() && planned == progress.closed && written != planned {
                        written = planned;
                        if waiting.len() == MAX_WAITING {
                            waiting.pop_front();
                            lost += 1;
                        }
                        waiting.push_back(self.request(&progress));
                    }
                }
                () = tokio::time::sleep_until(due), if !waiting.is_empty() => {
                    let (url, body) = (self.write.url.clone(), waiting.front().cloned().unwrap_or_default());
                    match self.offload.run(move || send(&url, &body)).await {
                        Ok(()) => {
                            waiting.pop_front();
                            if std::mem::take(&mut failures) > 0 {
                                let text = format!("{} takes what is written again; {lost} steps were lost", self.write.url);
                                self.events.note(Severity::Info, "prometheus.write", text);
                                lost = 0;
                            }
                        }
                        Err((reason, again)) => {
                            failures += 1;
                            if failures == 1 {
                                self.events.note(Severity::Warning, "prometheus.write", format!("{} does not take it: {reason}", self.write.url));
                            }
                            // What is refused for itself is refused again.
                            if !again {
                                waiting.pop_front();
                                lost += 1;
                            }
                            due = Instant::now() + pause(failures);
                        }
                    }
                }
            }
        }
    }

    /// The request's body.
    fn request(&self, progress: &Progress) -> Vec<u8> {
        let Some(closed) = progress.closed else { return vec![] };
        let (region, step) = (self.config.region.as_str(), self.config.step);
        let mut out = Request { millis: step.end(closed).as_millis(), more: &self.write.labels, bytes: vec![] };
        let mut shown: Vec<_> = progress.predictions.iter().collect();
        shown.sort_by(|a, b| b.mean_volume.total_cmp(&a.mean_volume).then_with(|| a.series.cmp(&b.series)));
        for prediction in shown.into_iter().take(self.write.max_series) {
            let (path, names) = (&prediction.path, labels(&prediction.series));
            out.add("tradewind_observed_transactions", &names, prediction.observed);
            let horizon = path.horizon();
            // One step, a quarter, half and all of the horizon.
            let mut aheads = vec![1, horizon.div_ceil(4), horizon.div_ceil(2), horizon];
            aheads.dedup();
            for ahead in aheads {
                let seconds = (step.seconds() * ahead as f64).to_string();
                for quantile in path.quantiles() {
                    let Some(value) = path.value(StepIndex(path.start().0 + ahead as i64 - 1), *quantile) else { continue };
                    let probability = quantile.probability().to_string();
                    let more = [("ahead_seconds", seconds.as_str()), ("quantile", probability.as_str())];
                    out.add("tradewind_forecast_transactions", &[&names[..], &more[..]].concat(), value);
                }
            }
        }
        for decision in progress.plan.iter().flat_map(|plan| &plan.decisions) {
            for (state, count) in [("active", decision.active), ("warm", decision.warm)] {
                let names = [("region", region), ("pool", decision.pool.as_str()), ("state", state)];
                out.add("tradewind_planned_instances", &names, f64::from(count));
            }
            if let Some(mix) = &decision.mix {
                let names = [("region", region), ("pool", decision.pool.as_str())];
                out.add("tradewind_planned_spot_instances", &names, f64::from(mix.spot));
            }
        }
        out.bytes
    }
}

fn labels(key: &SeriesKey) -> [(&str, &str); 5] {
    [
        ("tenant", key.tenant.as_str()),
        ("source", key.source.as_str()),
        ("destination", key.destination.as_str()),
        ("service", key.service.as_str()),
        ("type", key.transaction_type.as_str()),
    ]
}

/// A `WriteRequest` in the making: `timeseries = 1 { labels = 1 { name = 1, value = 2 }, samples = 2 { value = 1, timestamp = 2 } }`.
struct Request<'c> {
    millis: i64,
    more: &'c [(String, String)],
    bytes: Vec<u8>,
}

impl Request<'_> {
    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let own = labels.iter().copied().chain([("__name__", name)]);
        let mut all: Vec<(&str, &str)> = self.more.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(own).collect();
        // The specification wants them sorted, and no name twice: ours stays.
        all.reverse();
        all.sort_by_key(|(name, _)| *name);
        all.dedup_by_key(|(name, _)| *name);
        let mut series = vec![];
        for (name, value) in all {
            let mut label = vec![];
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut series, 1, &label);
        }
        let mut sample = vec![1 << 3 | 1];
        sample.extend(value.to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, self.millis as u64);
        field(&mut series, 2, &sample);
        field(&mut self.bytes, 1, &series);
    }
}

/// A field of bytes: tag, length, content.
fn field(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Sends; an error tells why not, and whether to try again.
fn send(url: &str, body: &[u8]) -> Result<(), (String, bool)> {
    let packed = snap::raw::Encoder::new().compress_vec(body).map_err(|error| (error.to_string(), false))?;
    let request = super::client().post(url).header("content-encoding", "snappy").header("content-type", "application/x-protobuf");
    let request = request.header("x-prometheus-remote-write-version", "0.1.0");
    let mut answer = request.send(&packed[..]).map_err(|error| (error.to_string(), true))?;
    let status = answer.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(());
    }
    let reason = answer.body_mut().with_config().limit(4096).read_to_string().unwrap_or_default();
    Err((format!("status {status}: {}", reason.trim()), status == 429 || status >= 500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_these_bytes() {
        let more = [("z".to_string(), "1".to_string()), ("a".to_string(), "theirs".to_string())];
        let mut request = Request { millis: 300, more: &more, bytes: vec![] };
        request.add("n", &[("a", "b")], 1.0);
        let wanted: &[u8] = &[
            0x0a, 43, // a series
            0x0a, 13, 0x0a, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_', 0x12, 1, b'n', // labels, sorted
            0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b', // ours, not theirs
            0x0a, 6, 0x0a, 1, b'z', 0x12, 1, b'1', //
            0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02, // the sample
        ];
        assert_eq!(request.bytes[2..], wanted[2..]);
        assert_eq!(usize::from(request.bytes[1]), wanted.len() - 2);
    }
}
