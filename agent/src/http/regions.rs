//! Planning rounds on demand, here or at another region's agent.

use super::{Api, ApiError};
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use std::sync::Arc;
use tradewind_protocol::RegionId;
use tradewind_protocol::api::{Problem, ScaleOutcome};
use tradewind_protocol::wire::{Request, Response};

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleQuery {
    /// Only make the plan; change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Runs a planning round for a region now, and answers with the plan and its reasons. In advisory
/// mode, and with `dry_run`, nothing is changed. For another region it is asked of that region's
/// agent over the mesh.
#[utoipa::path(post, path = "/regions/{regionId}/predictiveScale", tag = "plan",
    params(("regionId" = String, Path, description = "The region to plan for"), ScaleQuery),
    responses(
        (status = 200, description = "The plan", body = ScaleOutcome),
        (status = 400, description = "Not a region's name, or an unknown parameter", body = Problem),
        (status = 404, description = "The region is not known here", body = Problem),
        (status = 502, description = "The region's agent did not do it", body = Problem),
        (status = 503, description = "No plan can be made yet", body = Problem),
    ))]
pub(super) async fn predictive_scale(
    State(api): State<Arc<Api>>,
    Path(region): Path<String>,
    query: Result<Query<ScaleQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ScaleOutcome>, ApiError> {
    let Query(ScaleQuery { dry_run }) = query.map_err(|e| ApiError::bad_request(e.body_text()))?;
    let region = RegionId::new(&region).map_err(|e| ApiError::bad_request(e.to_string()))?;
    if region == api.config.region {
        let plan = api.planning.plan_now(dry_run).await.map_err(ApiError::unavailable)?;
        return Ok(Json(ScaleOutcome { dry_run, planned_by: region, plan }));
    }
    if !api.mesh.view().regions.contains_key(&region) {
        return Err(ApiError::not_found(format!("no region {region} is known here; GET /v1/regions lists those that are")));
    }
    match api.mesh.request(&region, Request::PredictiveScale { dry_run }).await {
        Ok(Response::Plan(plan)) => Ok(Json(ScaleOutcome { dry_run, planned_by: region, plan: *plan })),
        Ok(Response::Refused { reason }) => Err(ApiError::bad_gateway(format!("the agent of {region} refused: {reason}"))),
        Ok(Response::Published(_) | Response::NotHeld | Response::Reserved(_)) => {
            Err(ApiError::bad_gateway(format!("the agent of {region} answered something else")))
        }
        Err(error) => Err(ApiError::bad_gateway(format!("the agent of {region} did not answer: {error}"))),
    }
}
