//! Why forecasts are what they are, pair by pair, and why the plan is what it is.

use super::views::{RECENT_STEPS, parsed};
use super::{Api, ApiError};
use crate::forecast::Explanation;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::api::{
    ExpertReasons, ForecastExplanation, ForecastReasons, ForecastView, HorizonReasons, PlanExplanation, Problem,
};
use tradewind_protocol::{PoolName, PredictionData, RegionId, SeriesKey, ServiceName, TenantName, TransactionType};

/// The most series that one answer explains: an explanation takes some kilobytes, and nobody reads more.
const MAX_EXPLAINED: usize = 50;

/// How many names an error lists.
const MAX_NAMES: usize = 20;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    /// Traffic from this region.
    #[param(value_type = String)]
    pub(super) from: RegionId,
    /// Traffic to this region.
    #[param(value_type = String)]
    pub(super) to: RegionId,
    /// Only of this service.
    #[param(value_type = Option<String>)]
    pub(super) service: Option<ServiceName>,
    /// Only of this transaction type.
    #[serde(rename = "type")]
    #[param(rename = "type", value_type = Option<String>)]
    pub(super) kind: Option<TransactionType>,
    /// Only of this tenant.
    #[param(value_type = Option<String>)]
    pub(super) tenant: Option<TenantName>,
}

impl ExplainQuery {
    pub(super) fn matches(&self, series: &SeriesKey) -> bool {
        self.from == series.source
            && self.to == series.destination
            && self.service.as_ref().is_none_or(|service| *service == series.service)
            && self.kind.as_ref().is_none_or(|kind| *kind == series.transaction_type)
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == series.tenant)
    }

    /// What is known instead of what was asked for.
    pub(super) fn nothing<'a>(&self, known: impl Iterator<Item = &'a SeriesKey>) -> ApiError {
        let known: Vec<&SeriesKey> = known.collect();
        let of_pair: BTreeSet<String> = known
            .iter()
            .filter(|series| series.source == self.from && series.destination == self.to)
            .map(|series| format!("{}/{}/{}", series.tenant, series.service, series.transaction_type))
            .collect();
        let of_source: BTreeSet<String> =
            known.iter().filter(|series| series.source == self.from).map(|series| series.destination.to_string()).collect();
        let sources: BTreeSet<String> = known.iter().map(|series| series.source.to_string()).collect();
        let (from, to) = (&self.from, &self.to);
        ApiError::not_found(if !of_pair.is_empty() {
            format!("no such series from {from} to {to}; forecast are (tenant/service/type): {}", list(&of_pair))
        } else if !of_source.is_empty() {
            format!("nothing from {from} to {to} is forecast; from {from} forecasts go to: {}", list(&of_source))
        } else if !sources.is_empty() {
            format!("nothing from {from} is forecast here; known sources are: {}", list(&sources))
        } else {
            "nothing is forecast yet: the first forecast follows the first closed step that has counts".to_string()
        })
    }
}

fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// Why the forecasts of a pair are what they are: each with its experts' weights by horizon, who is silent and why, recent
/// errors beside seasonal naive's, the coverage of the 90 % interval, the model's age and the events applied. At most 50 series,
/// the busiest.
#[utoipa::path(get, path = "/v1/forecasts/explain", tag = "inspect", params(ExplainQuery), responses(
    (status = 200, body = [ForecastExplanation]),
    (status = 400, description = "Not a name, a missing or an unknown parameter", body = Problem),
    (status = 404, description = "Nothing such is forecast; the detail tells what is", body = Problem),
    (status = 503, description = "The agent is stopping, or too many ask", body = Problem),
))]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Vec<ForecastExplanation>>, ApiError> {
    let query = parsed(query)?;
    let now = api.clock.now();
    let view = api.mesh.view();
    let calendar = api.calendar.calendar_in(&view, now);
    let own = api.progress.borrow().predictions.clone();
    let others: Vec<(&RegionId, Duration, &PredictionData)> = view
        .regions
        .iter()
        .filter(|(region, _)| **region != view.this)
        .filter_map(|(region, entry)| Some((region, entry.age(now)?, entry.state.as_deref()?)))
        .flat_map(|(region, age, state)| state.forecasts.iter().map(move |prediction| (region, age, prediction)))
        .collect();
    let mine = own.iter().map(|prediction| (&view.this, now.since(prediction.issued_at), prediction));
    let mut found: Vec<_> = mine.chain(others.iter().copied()).filter(|(_, _, prediction)| query.matches(&prediction.series)).collect();
    if found.is_empty() {
        return Err(query.nothing(own.iter().chain(others.iter().map(|(_, _, prediction)| *prediction)).map(|p| &p.series)));
    }
    found.sort_by(|a, b| b.2.mean_volume.total_cmp(&a.2.mean_volume));
    found.truncate(MAX_EXPLAINED);
    let keys = found.iter().map(|(_, _, prediction)| prediction.series.clone()).collect();
    let reasons = api.planning.explain(keys).await.map_err(ApiError::unavailable)?;
    let mut explained = vec![];
    for ((region, age, prediction), reasons) in found.into_iter().zip(reasons) {
        let ours = *region == view.this;
        let until = prediction.path.start().offset(-1);
        let recent = if ours { api.history.window(&prediction.series, until, RECENT_STEPS).await } else { Ok(vec![]) };
        explained.push(ForecastExplanation {
            view: ForecastView {
                age_ms: age.as_millis() as u64,
                prediction: prediction.clone(),
                recent: recent.map_err(|error| ApiError::unavailable(error.to_string()))?,
                events_applied: calendar.applied(&prediction.series, &prediction.path),
            },
            region: region.clone(),
            reasons: reasons.filter(|_| ours).map(in_public),
        });
    }
    Ok(Json(explained))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanQuery {
    /// Only this pool.
    #[param(value_type = Option<String>)]
    pool: Option<PoolName>,
}

/// Why the newest plan is what it is: for every decision the sources of its demand, the costs, what else was possible with what it is expected to
/// cost and why it was rejected, and how the margin came about.
#[utoipa::path(get, path = "/v1/plan/explain", tag = "plan", params(PlanQuery), responses(
    (status = 200, body = PlanExplanation),
    (status = 400, description = "Not a name, or an unknown parameter", body = Problem),
    (status = 404, description = "No plan was made yet, or it has no such pool; the detail tells which it has", body = Problem),
    (status = 503, description = "The agent is stopping, or too many ask", body = Problem),
))]
pub(super) async fn explain_plan(
    State(api): State<Arc<Api>>,
    query: Result<Query<PlanQuery>, QueryRejection>,
) -> Result<Json<PlanExplanation>, ApiError> {
    let query = parsed(query)?;
    let explained = api.planning.explain_plan().await.map_err(ApiError::unavailable)?;
    let mut explained = explained.ok_or_else(|| ApiError::not_found("no plan was made yet; the first follows the first closed step"))?;
    if let Some(pool) = query.pool {
        let pools: BTreeSet<String> = explained.pools.iter().map(|pool| pool.decision.pool.to_string()).collect();
        if !explained.only(&pool) {
            return Err(ApiError::not_found(format!("the plan has no pool {pool}; it has: {}", list(&pools))));
        }
    }
    Ok(Json(explained))
}

fn in_public(explanation: Explanation) -> ForecastReasons {
    let Explanation { until, steps, season, trained_ago, lanes } = explanation;
    let horizons = lanes.into_iter().map(|lane| HorizonReasons {
        ahead: lane.ahead,
        judged: lane.judged,
        coverage_90: lane.coverage_90,
        error: lane.error,
        seasonal_naive_error: lane.seasonal_naive_error,
        experts: lane
            .experts
            .into_iter()
            .map(|expert| ExpertReasons { name: expert.name, weight: expert.weight, error: expert.error, silent: expert.silent })
            .collect(),
    });
    ForecastReasons { until, steps, season, trained_ago, horizons: horizons.collect() }
}
