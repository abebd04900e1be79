//! Notices that something happens to the pods: a watch on the workload's and one on the placeholders'.
//!
//! A watch only says "look". It begins at the version of a list; when that is too old (410 Gone, in the head or as an event) it lists
//! again, and says "look" for whatever it has missed.

use super::api::Refused;
use super::{Shared, escape};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long the server keeps one watch open.
const WATCH_SECONDS: u64 = 300;

/// How long after a failure; what is missed meanwhile is read all the same, every so often.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two watches, should a server close them at once.
const BETWEEN: Duration = Duration::from_millis(200);

/// The longest line of a watch: a pod.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Watches until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let workload = async {
        loop {
            let outcome = match shared.cluster.get(&format!("{}/scale", shared.workload)).await {
                Ok(scale) => match scale["status"]["selector"].as_str().filter(|selector| !selector.is_empty()) {
                    Some(selector) => follow(&shared, selector).await,
                    None => Ok(()),
                },
                Err(refused) => Err(refused),
            };
            rest(outcome).await;
        }
    };
    let placeholders = async {
        loop {
            let outcome = follow(&shared, &format!("tradewind.io/pool={}", shared.pool)).await;
            rest(outcome).await;
        }
    };
    tokio::join!(workload, placeholders);
}

async fn rest(outcome: Result<(), Refused>) {
    if let Err(refused) = outcome {
        tracing::debug!(reason = refused.reason, "pods cannot be watched");
    }
    tokio::time::sleep(PAUSE).await;
}

/// Lists and watches, and lists again when what it watches from is gone, until the server fails.
async fn follow(shared: &Shared, selector: &str) -> Result<(), Refused> {
    let path = format!("{}/pods?labelSelector={}", shared.core, escape(selector));
    loop {
        let list = shared.cluster.get(&format!("{path}&limit=1")).await?;
        let mut version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_string();
        shared.changed.notify_one();
        loop {
            let watch =
                format!("{path}&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}", escape(&version));
            match events(shared, &watch, &mut version).await {
                Err(refused) if refused.status == 410 => break,
                outcome => outcome?,
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
}

/// Reads one watch to its end.
async fn events(shared: &Shared, path: &str, version: &mut String) -> Result<(), Refused> {
    let mut stream = shared.cluster.watch(path).await?;
    let mut line = vec![];
    while let Some(piece) = stream.next().await {
        for byte in piece? {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let event: Value = serde_json::from_slice(&line).map_err(|error| format!("a watch's event is not JSON: {error}"))?;
            line.clear();
            if event["type"] == "ERROR" {
                let status = event["object"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
                let reason = event["object"]["message"].as_str().unwrap_or("a watch failed").to_string();
                return Err(Refused { status, reason });
            }
            if let Some(newer) = event["object"]["metadata"]["resourceVersion"].as_str() {
                *version = newer.to_string();
            }
            if event["type"] != "BOOKMARK" {
                shared.changed.notify_one();
            }
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(Refused::from(format!("a watch's event is longer than {MAX_LINE_BYTES} bytes")));
        }
    }
    Ok(())
}
