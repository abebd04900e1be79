//! The HTTP API: what operators, collectors and the `tradewind` CLI see of an agent.
//!
//! [`router`] builds it over [`Api`], which holds the handles of the parts that answer. Every route
//! is in the OpenAPI document, since both come from the same declaration.

mod explain;
mod history;
mod outlook;
mod pages;
mod problem;
mod records;
mod regions;
mod serve;
mod tls;
mod views;

use crate::anomaly::AnomalyReport;
use crate::calendar::CalendarHandle;
use crate::config::Config;
use crate::env::{Clock, Offload};
use crate::events::EventLog;
use crate::forecast::Explanation;
use crate::history::HistoryHandle;
use crate::mesh::MeshHandle;
use crate::negotiate::NegotiatorHandle;
use crate::pool::PoolHandle;
use crate::prices::PriceHandle;
use crate::staging::StagingHandle;
use axum::Router;
use axum::routing::any;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tradewind_protocol::api::{MarginReasons, PlanExplanation};
use tradewind_protocol::region::Health;
use tradewind_protocol::{PoolName, PredictionData, RegionalResourcePlan, SeriesKey, StepIndex, Timestamp};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use problem::ApiError;
pub(crate) use serve::serve;
pub(crate) use tls::acceptor;

/// Request bodies that are read at a time: with the default body limit, 128 MiB at the most.
const MAX_BODIES_IN_FLIGHT: usize = 16;

/// What the agent's step loop makes known to the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The last closed step.
    pub closed: Option<StepIndex>,
    /// The forecasts of the region's own series, made from it.
    pub predictions: Arc<Vec<PredictionData>>,
    /// What is out of the ordinary.
    pub anomalies: Arc<AnomalyReport>,
    /// The newest plan.
    pub plan: Option<Arc<RegionalResourcePlan>>,
    /// How the margins of the pools come about.
    pub margins: Vec<(PoolName, MarginReasons)>,
    /// How the agent is.
    pub health: Health,
    /// Why it is not healthy.
    pub health_reasons: Vec<String>,
}

/// Asks the step loop.
#[async_trait::async_trait]
pub(crate) trait Planning: Send + Sync + 'static {
    /// Plans now, and carries the plan out unless `dry_run` or in advisory mode.
    async fn plan_now(&self, dry_run: bool) -> Result<RegionalResourcePlan, String>;

    /// What stands behind the newest plan; none before the first.
    async fn explain_plan(&self) -> Result<Option<PlanExplanation>, String>;

    /// What stands behind the forecasts of these series, in their order; none where nothing is forecast.
    async fn explain(&self, keys: Vec<SeriesKey>) -> Result<Vec<Option<Explanation>>, String>;
}

/// What the API answers from.
pub(crate) struct Api {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: Timestamp,
    pub(crate) history: HistoryHandle,
    pub(crate) mesh: MeshHandle,
    pub(crate) pool: PoolHandle,
    pub(crate) negotiator: NegotiatorHandle,
    pub(crate) staging: StagingHandle,
    pub(crate) events: EventLog,
    pub(crate) calendar: CalendarHandle,
    pub(crate) prices: PriceHandle,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) planning: Arc<dyn Planning>,
    pub(crate) offload: Offload,
    /// One permit a request body that is being read.
    pub(crate) bodies: Semaphore,
}

impl Api {
    /// The room for request bodies that [`Api::bodies`] starts with.
    pub(crate) fn body_permits() -> Semaphore {
        Semaphore::new(MAX_BODIES_IN_FLIGHT)
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Tradewind agent",
    description = "Forecasts, capacity and the mesh of one region's agent. Durations are in milliseconds, rates in transactions per \
                   second, money in millionths of a US dollar. Errors are RFC 9457 problem documents.",
    license(name = "Apache-2.0 OR MIT")
))]
struct Document;

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(<Document as utoipa::OpenApi>::openapi())
        .routes(routes!(pages::healthz))
        .routes(routes!(pages::readyz))
        .routes(routes!(pages::metrics))
        .routes(routes!(records::post_records))
        .routes(routes!(views::status))
        .routes(routes!(views::regions))
        .routes(routes!(views::pools))
        .routes(routes!(views::instances))
        .routes(routes!(views::prices))
        .routes(routes!(views::reservations))
        .routes(routes!(views::staging))
        .routes(routes!(views::forecasts))
        .routes(routes!(explain::explain))
        .routes(routes!(history::history))
        .routes(routes!(views::plan))
        .routes(routes!(explain::explain_plan))
        .routes(routes!(views::capacity))
        .routes(routes!(views::events))
        .routes(routes!(outlook::anomalies))
        .routes(routes!(outlook::calendar, outlook::post_event))
        .routes(routes!(outlook::delete_event))
        .routes(routes!(regions::predictive_scale))
}

/// The OpenAPI document of the API, as JSON.
pub fn openapi_json() -> String {
    let (_, document) = routes().split_for_parts();
    // Strings and maps only: there is nothing in it that JSON cannot hold.
    document.to_pretty_json().unwrap_or_default()
}

/// The whole API.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let document = openapi_json();
    let (router, _) = routes().split_for_parts();
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(move || {
                let document = document.clone();
                async move { ([(axum::http::header::CONTENT_TYPE, "application/json")], document) }
            }),
        )
        .fallback(any(async || ApiError::not_found("no such route; GET /v1/openapi.json lists them all")))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed("GET /v1/openapi.json lists each route with its methods"))
        .with_state(api)
}
