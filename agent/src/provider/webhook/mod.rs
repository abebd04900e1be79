//! A program of the operator's own, told the plan over HTTP.
//!
//! Every request is `POST` with `{"action": "apply" | "list", "agent": .., "pool": .., "serial": .., "instances": {..}}`; the answer is what
//! there is ([`reading`]). It is signed: `tradewind-signature` is `v1=` and the HMAC-SHA256, in hex, of the value of
//! `tradewind-timestamp` (seconds since 1970), a full stop, and the body. An apply bears an `idempotency-key` that is the same
//! for every try of one plan. Answers 408, 425, 429 and 5xx, and no answer, are tried again, as is told by `retry-after`.

use super::Standing;
use super::declared::{Backend, DeclaredProvider, OpenError, Opening, Pace, Plan, Seen, reading};
use crate::client::{Answer, Ask, Client, Identity};
use crate::config::{HookConfig, PoolConfig};
use async_trait::async_trait;
use axum::http::Method;
use ring::hmac;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tradewind_protocol::PoolName;

/// Tries of one request, before the pool hears of its failure.
const MAX_TRIES: u32 = 3;

/// The first pause between tries; the next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause that an answer may ask for before the pool hears of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The largest answer.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How much of an answer that is a refusal is repeated.
const SHOWN_CHARS: usize = 300;

/// How long a drain may take in a pool that is no longer configured.
const RETIRED_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The name under which a record tells whose it is.
pub(crate) const ORIGIN: &str = "webhook";

/// Why a pool's webhook cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Its record cannot be.
    #[error(transparent)]
    Record(#[from] OpenError),
    /// Its URL, secret or authority cannot be.
    #[error("{0}")]
    Unfit(String),
}

/// Opens the provider of `pool`.
pub fn open(data_dir: &Path, pool: &PoolConfig, hook: &HookConfig) -> Result<DeclaredProvider, HookError> {
    open_as(data_dir, &pool.name, hook, pool.drain_timeout, Standing::Configured)
}

/// Opens the provider of a pool that is no longer configured so.
pub(crate) fn open_retired(data_dir: &Path, pool: &PoolName, hook: &HookConfig) -> Result<DeclaredProvider, HookError> {
    open_as(data_dir, pool, hook, RETIRED_DRAIN_TIMEOUT, Standing::Retired)
}

fn open_as(
    data_dir: &Path,
    pool: &PoolName,
    hook: &HookConfig,
    drain_timeout: Duration,
    standing: Standing,
) -> Result<DeclaredProvider, HookError> {
    let pace = Pace { refresh: hook.refresh, drain_timeout };
    let backend = Arc::new(Hook::new(hook).map_err(HookError::Unfit)?);
    let origin = super::origin(ORIGIN, hook);
    Ok(DeclaredProvider::open(Opening { data_dir, pool, kind: ORIGIN, origin, pace, standing }, backend)?)
}

struct Hook {
    client: Client,
    secret: hmac::Key,
    timeout: Duration,
    url: String,
}

impl Hook {
    fn new(config: &HookConfig) -> Result<Self, String> {
        let authority = config.ca.as_deref().map(read).transpose()?;
        let client = Client::new(&config.url, &Identity { authority, certificate: None })?;
        Ok(Self { client, secret: secret(&config.secret_file)?, timeout: config.timeout, url: config.url.clone() })
    }

    async fn send(&self, action: &str, plan: &Plan) -> Result<Vec<Seen>, String> {
        let mut document = plan.to_json();
        document["action"] = action.into();
        let body = document.to_string().into_bytes();
        let mut reason = String::new();
        for attempt in 0..MAX_TRIES {
            let mut headers = signed(&self.secret, &body);
            if action == "apply" {
                headers.push(("idempotency-key", format!("{}-{}-{}", plan.agent, plan.pool, plan.serial)));
            }
            let ask = Ask { method: Method::POST, path: String::new(), headers, body: body.clone() };
            let pause = FIRST_PAUSE * (1 << attempt);
            let wait = match self.client.ask(ask, MAX_ANSWER_BYTES, self.timeout).await {
                Ok(answer) if answer.status.is_success() => return reading::instances(&answer.body),
                Ok(answer) => {
                    reason = refusal(&self.url, &answer);
                    if !(matches!(answer.status.as_u16(), 408 | 425 | 429) || answer.status.is_server_error()) {
                        return Err(reason);
                    }
                    answer.retry_after().unwrap_or(pause)
                }
                Err(error) => {
                    reason = error;
                    pause
                }
            };
            if attempt + 1 < MAX_TRIES {
                tokio::time::sleep(wait.min(LONGEST_PAUSE)).await;
            }
        }
        Err(reason)
    }
}

/// What `path` holds.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The secret in `path`, to sign with.
pub(crate) fn secret(path: &Path) -> Result<hmac::Key, String> {
    let secret = read(path)?;
    let secret = secret.trim_ascii();
    match secret.len() {
        0..16 => Err(format!("{} holds a secret of less than 16 bytes", path.display())),
        _ => Ok(hmac::Key::new(hmac::HMAC_SHA256, secret)),
    }
}

/// The headers of a JSON `body` that is signed now.
pub(crate) fn signed(secret: &hmac::Key, body: &[u8]) -> Vec<(&'static str, String)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    vec![
        ("content-type", "application/json".to_string()),
        ("tradewind-timestamp", now.to_string()),
        ("tradewind-signature", signature(secret, now, body)),
    ]
}

/// What `answer`, which is no success, says.
pub(crate) fn refusal(url: &str, answer: &Answer) -> String {
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(SHOWN_CHARS).collect();
    format!("{url} answers {}: {}", answer.status, said.trim())
}

/// `v1=` and the HMAC-SHA256 of `timestamp`, a full stop and `body`.
fn signature(secret: &hmac::Key, timestamp: u64, body: &[u8]) -> String {
    let signed = [timestamp.to_string().as_bytes(), b".", body].concat();
    let tag: String = hmac::sign(secret, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={tag}")
}

#[async_trait]
impl Backend for Hook {
    async fn apply(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        self.send("apply", plan).await
    }

    async fn read(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        self.send("list", plan).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 knows no full stops; this was computed with `openssl dgst -sha256 -hmac`.
    #[test]
    fn the_signature_is_hmac_sha256_over_timestamp_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let signed = signature(&key, 1_800_000_000, b"{}");
        assert_eq!(signed, "v1=1313ae9c874eb1a0868ad0b65f841c4243c23fdcfad69a3ada227726fad9960e");
        assert_ne!(signed, signature(&key, 1_800_000_001, b"{}"));
    }
}
