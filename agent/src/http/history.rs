//! What was counted, at a resolution of one's own.

use super::explain::ExplainQuery;
use super::views::parsed;
use super::{Api, ApiError};
use crate::history::{Resolution, Rolled};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use std::sync::Arc;
use tradewind_protocol::api::{HistoryView, Problem};
use tradewind_protocol::{RegionId, ServiceName, StepIndex, TenantName, TransactionType};

/// The most series that one answer tells of.
const MAX_SERIES: usize = 20;
/// Buckets, where nothing is said: a day of five minutes.
const BUCKETS: usize = 288;
/// The most: a year of hours, and some.
const MAX_BUCKETS: usize = 10_000;

#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
enum Wanted {
    #[serde(rename = "step")]
    Step,
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "1h")]
    Hour,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// Traffic from this region: the one of the agent that is asked.
    #[param(value_type = String)]
    from: RegionId,
    /// Traffic to this region.
    #[param(value_type = String)]
    to: RegionId,
    /// Only of this service.
    #[param(value_type = Option<String>)]
    service: Option<ServiceName>,
    /// Only of this transaction type.
    #[serde(rename = "type")]
    #[param(rename = "type", value_type = Option<String>)]
    kind: Option<TransactionType>,
    /// Only of this tenant.
    #[param(value_type = Option<String>)]
    tenant: Option<TenantName>,
    /// How long a bucket is; 5m if nothing is said. Longer ones are kept for longer.
    #[param(inline)]
    resolution: Option<Wanted>,
    /// How many buckets, the last that of the last closed step; 288 if nothing is said, at most 10,000.
    buckets: Option<usize>,
}

/// What the agent has counted of a pair of regions, in buckets of a step, of five minutes or of an hour, as far back as it is kept. At most 20 series,
/// the busiest. The last bucket may not be over yet.
#[utoipa::path(get, path = "/v1/history", tag = "inspect", params(HistoryQuery), responses(
    (status = 200, body = [HistoryView]),
    (status = 400, description = "Not a name, a missing or an unknown parameter, or buckets that are no whole number of steps", body = Problem),
    (status = 404, description = "Nothing such is counted here; the detail tells what is", body = Problem),
    (status = 503, description = "The agent is stopping", body = Problem),
))]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Vec<HistoryView>>, ApiError> {
    let HistoryQuery { from, to, service, kind, tenant, resolution, buckets } = parsed(query)?;
    let buckets = buckets.unwrap_or(BUCKETS);
    if !(1..=MAX_BUCKETS).contains(&buckets) {
        return Err(ApiError::bad_request(format!("buckets={buckets} must be from 1 to {MAX_BUCKETS}")));
    }
    let resolution = match resolution.unwrap_or(Wanted::FiveMinutes) {
        Wanted::Step => Resolution::Step,
        Wanted::FiveMinutes => Resolution::FiveMinutes,
        Wanted::Hour => Resolution::Hour,
    };
    let query = ExplainQuery { from, to, service, kind, tenant };
    let (closed, own) = {
        let progress = api.progress.borrow();
        (progress.closed, progress.predictions.clone())
    };
    let mut found: Vec<_> = own.iter().filter(|prediction| query.matches(&prediction.series)).collect();
    let (false, Some(closed)) = (found.is_empty(), closed) else {
        return Err(query.nothing(own.iter().map(|prediction| &prediction.series)));
    };
    found.sort_by(|a, b| b.mean_volume.total_cmp(&a.mean_volume));
    let step = api.config.step;
    let mut told = vec![];
    for series in found.into_iter().take(MAX_SERIES).map(|prediction| &prediction.series) {
        let rolled = api.history.rolled(series, resolution, closed, buckets).await;
        let Some(Rolled { factor, first, counts }) = rolled.map_err(|error| ApiError::unavailable(error.to_string()))? else {
            return Err(ApiError::bad_request(format!(
                "a step is {step}, and such buckets are no whole number of steps: ask for resolution=step"
            )));
        };
        let at = |bucket: i64| step.start(StepIndex(bucket.saturating_mul(factor)));
        told.push(HistoryView {
            series: series.clone(),
            since: at(first),
            bucket_ms: u64::try_from(at(first + 1).since(at(first)).as_millis()).unwrap_or(u64::MAX),
            counts,
        });
    }
    Ok(Json(told))
}
