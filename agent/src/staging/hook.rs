//! Commands and programs of the operator's own, for network rules, balancer entries and policies.
//!
//! Each is told `{"action": "do" | "undo", "region": .., "service": .., "step": .., "number": ..}`: a command on its standard input, a
//! program as the body of a `POST` that is signed as the webhook provider's are, with an `idempotency-key` of its own for every try.

use super::engine::{Job, Turn};
use crate::client::{Ask, Client, Identity};
use crate::config::{StageHookConfig, StageWebhookConfig};
use crate::provider::exec::{self, Bounds};
use crate::provider::webhook;
use axum::http::Method;
use tradewind_protocol::RegionId;

/// The largest answer: it is only shown where it is a refusal.
const MAX_ANSWER_BYTES: usize = 64 << 10;

fn document(region: &RegionId, job: &Job) -> Vec<u8> {
    let Job { service, step, turn, number } = job;
    let document = serde_json::json!({
        "action": turn.word(), "region": region, "service": service, "step": step.name, "number": number,
    });
    document.to_string().into_bytes()
}

/// Runs the command of a step. Without a command to undo it, undoing is nothing.
pub(super) async fn run(region: &RegionId, job: &Job, config: &StageHookConfig) -> Result<(), String> {
    let command = match job.turn {
        Turn::Do => &config.run,
        Turn::Undo => match &config.undo {
            Some(undo) => undo,
            None => return Ok(()),
        },
    };
    let bounds = Bounds { directory: config.directory.as_deref(), env: &config.env, timeout: config.timeout };
    exec::run(command, &document(region, job), bounds).await.map(drop)
}

/// Tells the program of a step.
pub(super) async fn post(region: &RegionId, job: &Job, config: &StageWebhookConfig) -> Result<(), String> {
    let authority = config.ca.as_deref().map(webhook::read).transpose()?;
    let client = Client::new(&config.url, &Identity { authority, certificate: None })?;
    let secret = webhook::secret(&config.secret_file)?;
    let body = document(region, job);
    let mut headers = webhook::signed(&secret, &body);
    headers.push(("idempotency-key", format!("{region}-{}-{}", job.service, job.number)));
    let ask = Ask { method: Method::POST, path: String::new(), headers, body };
    let answer = client.ask(ask, MAX_ANSWER_BYTES, config.timeout).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    Err(webhook::refusal(&config.url, &answer))
}
