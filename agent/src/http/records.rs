//! Records in: read a bounded body, parse it off the runtime, make it durable, answer.

use super::{Api, ApiError};
use crate::history::AppendError;
use crate::ingest::{BodyError, Encoding, Rules, decompress, parse};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::IdempotencyKey;
use tradewind_protocol::api::{IngestReceipt, Problem};

/// The header that makes a batch idempotent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// How long a client is to wait when too many bodies are being read: they take milliseconds.
const BODY_RETRY: Duration = Duration::from_secs(1);
/// A body up to this is parsed where it is: handing it to another thread would cost more.
const INLINE_BYTES: usize = 32 * 1024;

/// Takes records: a JSON array, or one JSON object a line (NDJSON); plain, gzip or zstd.
///
/// Each record is judged by itself: those that are malformed, too old, too far ahead or of another
/// region are refused with their line and the reason, and the others are counted. The answer comes
/// when what was accepted is durable. With an `Idempotency-Key` the batch can be sent again safely;
/// a record with an `id` is counted once in any case.
#[utoipa::path(post, path = "/v1/records", tag = "records",
    request_body(content = Vec<tradewind_protocol::TransactionRecord>, description = "JSON array or NDJSON"),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters; remembered as long as records may be late")),
    responses(
        (status = 200, description = "Counted and durable, but for what is refused", body = IngestReceipt),
        (status = 400, description = "The body as a whole cannot be read", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The encoding is not known", body = Problem),
        (status = 429, description = "Too much is waiting already; see Retry-After", body = Problem),
        (status = 503, description = "Records cannot be made durable", body = Problem),
    ))]
pub(super) async fn post_records(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Json<IngestReceipt>, ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let key = text(IDEMPOTENCY_KEY)
        .map(IdempotencyKey::new)
        .transpose()
        .map_err(|e| ApiError::bad_request(format!("header Idempotency-Key: {e}")))?;
    let encoding = Encoding::from_header(text(header::CONTENT_ENCODING.as_str()).unwrap_or(""))?;
    let Ok(_permit) = api.bodies.try_acquire() else {
        return Err(ApiError::busy("too many request bodies are being read; send again after the time in Retry-After", BODY_RETRY));
    };
    let body = read(body, api.config.ingest.max_body_bytes).await?;
    let parsing = {
        let (config, now) = (api.config.clone(), api.clock.now());
        move || {
            let limit = config.ingest.max_body_bytes;
            let rules = Rules { region: &config.region, step: config.step, now, config: &config.ingest };
            parse(&decompress(encoding, &body, limit)?, &rules)
        }
    };
    let small = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok()).is_some_and(|n| n <= INLINE_BYTES);
    let batch = if small && encoding == Encoding::Identity { parsing()? } else { api.offload.run(parsing).await? };
    Ok(Json(api.history.append(batch, key).await?))
}

/// The whole body, at most `limit` bytes of it.
async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = vec![];
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| ApiError::bad_request(format!("the body broke off: {e}")))?;
        if bytes.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge { limit }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match &error {
            BodyError::UnknownEncoding(_) => ApiError::unsupported(error.to_string()),
            BodyError::Corrupt { .. } | BodyError::Syntax { .. } => ApiError::bad_request(error.to_string()),
            BodyError::TooLarge { .. } => ApiError::too_large(error.to_string()),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy { retry_after } => ApiError::busy(error.to_string(), retry_after),
            AppendError::TooLarge { .. } => ApiError::too_large(error.to_string()),
            AppendError::Storage(_) | AppendError::Stopped(_) => ApiError::unavailable(error.to_string()),
        }
    }
}
