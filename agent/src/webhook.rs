//! Anomalies, posted to a URL as they are told: the events whose kind begins with `anomaly.`, a JSON document each.
//!
//! The log of events is the queue: it is bounded, and what falls out of it before it could be sent is counted and told in the
//! next document's `missed`. Each is tried until it is taken, or refused for itself (4xx but 408 and 429).

use crate::config::WebhookConfig;
use crate::env::Offload;
use crate::events::EventLog;
use crate::prometheus::{client, pause};
use crate::stop::told;
use serde_json::json;
use tokio::sync::watch;
use tradewind_protocol::api::Event;

/// Tries of one document, the last after five minutes of pauses.
const MAX_TRIES: u32 = 14;

/// What this module's own events begin with; never posted, or a failure would feed itself.
const ANOMALY: &str = "anomaly.";

/// Posts anomalies until `stop`.
pub(crate) async fn run(config: WebhookConfig, events: EventLog, offload: Offload, mut stop: watch::Receiver<bool>) {
    let mut changed = events.watch();
    let (mut seen, mut missed) = (*changed.borrow_and_update(), 0u64);
    loop {
        for event in events.since(seen) {
            missed += event.id.saturating_sub(seen + 1);
            seen = event.id;
            if !event.kind.starts_with(ANOMALY) {
                continue;
            }
            match post(&config, &event, missed, offload, &mut stop).await {
                Some(true) => missed = 0,
                Some(false) => missed += 1,
                None => return,
            }
        }
        tokio::select! {
            biased;
            () = told(&mut stop) => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether it was taken; `None` when the agent stops.
async fn post(config: &WebhookConfig, event: &Event, missed: u64, offload: Offload, stop: &mut watch::Receiver<bool>) -> Option<bool> {
    for attempt in 1..=MAX_TRIES {
        let (url, body) = (config.url.clone(), json!({ "event": event, "missed": missed }));
        let outcome = offload.run(move || client().post(url).send_json(body).map(|answer| answer.status().as_u16())).await;
        let reason = match outcome {
            Ok(200..300) => return Some(true),
            Ok(status @ (408 | 429 | 500..)) => format!("status {status}"),
            Ok(status) => {
                tracing::warn!(url = config.url, status, "the webhook refuses an anomaly");
                return Some(false);
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(url = config.url, reason, attempt, "the webhook does not take an anomaly");
        tokio::select! {
            biased;
            () = told(stop) => return None,
            () = tokio::time::sleep(pause(attempt)) => {}
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use tradewind_protocol::RegionId;
    use tradewind_protocol::api::Severity;

    #[tokio::test(start_paused = true)]
    async fn an_anomaly_is_posted_until_it_is_taken_and_nothing_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = WebhookConfig { url: format!("http://{}/hook", listener.local_addr().unwrap()) };
        let server = std::thread::spawn(move || {
            let mut bodies = vec![];
            for status in ["503 Busy", "200 Good", "400 No", "204 None"] {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                while !text.ends_with('}') {
                    let n = stream.read(&mut buffer).unwrap();
                    text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
                }
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                let body: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
                bodies.push((body["event"]["message"].as_str().unwrap().to_string(), body["missed"].as_u64().unwrap()));
            }
            bodies
        });
        let dir = tempfile::tempdir().unwrap();
        let events = EventLog::new(RegionId::new("de").unwrap(), Env::real(dir.path()).unwrap().clock);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(config, events.clone(), Offload::Inline, stopped));
        tokio::task::yield_now().await;
        for (kind, message) in [("plan.blocked", "none"), ("anomaly.point", "one"), ("anomaly.point", "two"), ("anomaly.point", "three")] {
            events.note(Severity::Warning, kind, message.into());
        }
        while !server.is_finished() {
            tokio::task::yield_now().await;
            tokio::time::advance(std::time::Duration::from_millis(10)).await;
        }
        let posted = [("one", 0), ("one", 0), ("two", 0), ("three", 1)].map(|(message, missed)| (message.to_string(), missed));
        assert_eq!(server.join().unwrap(), posted);
        stop.send_replace(true);
        task.await.unwrap();
    }
}
