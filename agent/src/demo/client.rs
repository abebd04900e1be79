//! A small client of the agents' public API: the demo knows nothing that a user could not.

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tradewind_protocol::TransactionRecord;
use tradewind_protocol::api::IngestReceipt;

/// No answer on loopback takes longer, unless something is broken.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Client {
    base: String,
    http: ureq::Agent,
}

impl Client {
    pub(super) fn new(base: &str) -> Self {
        let http = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
        Self { base: base.into(), http }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> anyhow::Result<T> {
        let (http, url) = (self.http.clone(), format!("{}{path}", self.base));
        tokio::task::spawn_blocking(move || {
            let mut answer = http.get(&url).call().with_context(|| format!("GET {url}"))?;
            answer.body_mut().with_config().limit(1 << 28).read_json().with_context(|| format!("GET {url}"))
        })
        .await?
    }

    pub(super) async fn post(&self, records: Vec<TransactionRecord>) -> anyhow::Result<IngestReceipt> {
        let (http, url) = (self.http.clone(), format!("{}/v1/records", self.base));
        tokio::task::spawn_blocking(move || {
            let mut answer = http.post(&url).send_json(&records).with_context(|| format!("POST {url}"))?;
            answer.body_mut().read_json().with_context(|| format!("POST {url}"))
        })
        .await?
    }

    /// The sum of a metric's samples; zero where it has none yet.
    pub(super) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (http, url, name) = (self.http.clone(), format!("{}/metrics", self.base), name.to_string());
        tokio::task::spawn_blocking(move || {
            let text =
                http.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string()).with_context(|| format!("GET {url}"))?;
            let samples = text.lines().filter_map(|line| {
                let (key, value) = line.rsplit_once(' ')?;
                let (own, _) = key.split_once('{').unwrap_or((key, ""));
                if own == name { value.parse::<f64>().ok() } else { None }
            });
            Ok(samples.sum())
        })
        .await?
    }
}
