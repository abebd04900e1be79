//! What machines ask: whether the agent lives, whether it is ready, and its metrics.

use super::{Api, ApiError};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::Arc;

/// Whether the process lives. Always answers, if it answers at all.
#[utoipa::path(get, path = "/healthz", tag = "machine", responses((status = 200, description = "It lives", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether records are taken and the step loop runs: from the first closed step on.
#[utoipa::path(get, path = "/readyz", tag = "machine", responses(
    (status = 200, description = "Ready", body = String),
    (status = 503, description = "Not yet, or no longer", body = tradewind_protocol::api::Problem),
))]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    match api.progress.borrow().closed {
        Some(_) => Ok("ok\n"),
        None => Err(ApiError::unavailable("no step was closed yet; ask again after one step")),
    }
}

/// Prometheus metrics (OpenMetrics text).
#[utoipa::path(get, path = "/metrics", tag = "machine", responses((status = 200, description = "OpenMetrics text", body = String)))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let text = crate::metrics::render(crate::metrics::Sample {
        status: super::views::brief(&api).await,
        progress: api.progress.borrow().clone(),
        mesh: api.mesh.stats(),
        view: api.mesh.view(),
        pools: api.pool.status(),
        providers: api.pool.providers(),
        prices: api.prices.book().views(api.clock.now()),
        totals: api.pool.totals(),
        spot: api.pool.spot(),
        ledgers: api.pool.ledger_stats(),
        claims: api.negotiator.claims(),
        staging: (api.staging.view(), api.staging.totals()),
        history: api.history.stats(),
    });
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
