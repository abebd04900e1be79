//! What people ask: the agent, the regions, pools, forecasts, plans and events.

use super::{Api, ApiError};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::api::{
    CapacitySample, Event, ForecastView, InstanceView, PriceView, Problem, RegionPools, RegionView, Reservations, StagingView, Status,
};
use tradewind_protocol::{PredictionData, RegionId, RegionalResourcePlan, StepIndex, TransactionType};

/// How many past counts go with a forecast: enough for a chart twice as wide as the default horizon.
pub(super) const RECENT_STEPS: usize = 48;

/// How often a stream of events says nothing in a line of its own, so that whoever reads knows that
/// the agent still lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// This agent in brief.
#[utoipa::path(get, path = "/v1/status", tag = "inspect", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    Json(brief(&api).await)
}

pub(super) async fn brief(api: &Api) -> Status {
    let view = api.mesh.view();
    let progress = api.progress.borrow().clone();
    let history = api.history.stats();
    Status {
        region: api.config.region.clone(),
        cluster: api.config.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        generation: api.mesh.generation(),
        started_at: api.started_at,
        now: api.clock.now(),
        mode: api.config.mode,
        health: progress.health,
        health_reasons: progress.health_reasons,
        step: api.config.step,
        last_closed_step: progress.closed,
        regions_known: view.regions.len(),
        regions_live: view.live().count(),
        series: history.series,
        records_accepted: history.accepted,
        records_refused: history.refused,
        folded: api.history.folded().to_vec(),
        instances_ready: api.pool.status().iter().map(|pool| pool.instances.warm + pool.instances.active).sum(),
        certificate_ends_at: api.mesh.certificate_ends(),
    }
}

/// Every region of the mesh as this agent sees it.
#[utoipa::path(get, path = "/v1/regions", tag = "inspect", responses((status = 200, body = [RegionView])))]
pub(super) async fn regions(State(api): State<Arc<Api>>) -> Json<Vec<RegionView>> {
    let (view, now) = (api.mesh.view(), api.clock.now());
    let regions = view.regions.iter().map(|(region, entry)| {
        let state = entry.state.as_deref();
        RegionView {
            region: region.clone(),
            this: *region == view.this,
            live: entry.live,
            generation: entry.generation,
            sequence: entry.sequence,
            address: entry.address.to_string(),
            api: state.and_then(|s| s.api.clone()),
            rtt_ms: entry.rtt().map(|rtt| rtt.as_secs_f64() * 1e3),
            wire_version: entry.connection.map(|connection| connection.version.number()),
            health: state.map(|s| s.health).unwrap_or_default(),
            mode: state.map(|s| s.mode),
            coordinates: state.and_then(|s| s.coordinates),
            age_ms: entry.age(now).map(|age| age.as_millis() as u64),
            forecasts: state.map_or(0, |s| s.forecasts.len()),
            dropped: state.map(|s| s.dropped).unwrap_or_default(),
            state_bytes: entry.body_bytes,
            version: state.map(|s| s.version.clone()),
        }
    });
    Json(regions.collect())
}

/// The pools of every region, this one's as they are now, the others' as last published.
#[utoipa::path(get, path = "/v1/pools", tag = "inspect", responses((status = 200, body = [RegionPools])))]
pub(super) async fn pools(State(api): State<Arc<Api>>) -> Json<Vec<RegionPools>> {
    let (view, now) = (api.mesh.view(), api.clock.now());
    let pools = api.prices.book().priced(api.pool.status(), &api.config.pools);
    let own = RegionPools { region: api.config.region.clone(), age_ms: 0, pools, providers: api.pool.providers() };
    let others = view.regions.iter().filter(|(region, _)| **region != view.this).filter_map(|(region, entry)| {
        let age_ms = entry.age(now)?.as_millis() as u64;
        Some(RegionPools { region: region.clone(), age_ms, pools: entry.state.as_ref()?.pools.clone(), providers: vec![] })
    });
    Json(std::iter::once(own).chain(others).collect())
}

/// What instances cost, by the names that pools give: as last read, when that was, and whether it is too long ago.
#[utoipa::path(get, path = "/v1/prices", tag = "inspect", responses((status = 200, body = [PriceView])))]
pub(super) async fn prices(State(api): State<Arc<Api>>) -> Json<Vec<PriceView>> {
    Json(api.prices.book().views(api.clock.now()))
}

/// The instances of this agent's pools.
#[utoipa::path(get, path = "/v1/instances", tag = "inspect", responses((status = 200, body = [InstanceView])))]
pub(super) async fn instances(State(api): State<Arc<Api>>) -> Json<Vec<InstanceView>> {
    Json(api.pool.instances())
}

/// What this region's pools are promised to, and what it was promised by other regions.
#[utoipa::path(get, path = "/v1/reservations", tag = "inspect", responses((status = 200, body = Reservations)))]
pub(super) async fn reservations(State(api): State<Arc<Api>>) -> Json<Reservations> {
    Json(Reservations { granted: api.pool.reservations(), claimed: api.negotiator.claims().claims.clone() })
}

/// What is made ready for services before they are needed, and how far it has come.
#[utoipa::path(get, path = "/v1/staging", tag = "inspect", responses((status = 200, body = [StagingView])))]
pub(super) async fn staging(State(api): State<Arc<Api>>) -> Json<Vec<StagingView>> {
    Json(api.staging.view())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ForecastQuery {
    /// Only traffic from this region.
    #[param(value_type = Option<String>)]
    from: Option<RegionId>,
    /// Only traffic to this region.
    #[param(value_type = Option<String>)]
    to: Option<RegionId>,
    /// Only this transaction type.
    #[serde(rename = "type")]
    #[param(rename = "type", value_type = Option<String>)]
    kind: Option<TransactionType>,
}

impl ForecastQuery {
    fn matches(&self, prediction: &PredictionData) -> bool {
        let series = &prediction.series;
        self.from.as_ref().is_none_or(|r| *r == series.source)
            && self.to.as_ref().is_none_or(|r| *r == series.destination)
            && self.kind.as_ref().is_none_or(|t| *t == series.transaction_type)
    }
}

/// The forecasts that this agent holds: its own, and those that the other regions published.
#[utoipa::path(get, path = "/v1/forecasts", tag = "inspect", params(ForecastQuery), responses(
    (status = 200, body = [ForecastView]), (status = 400, description = "Not a name, or an unknown parameter", body = Problem)))]
pub(super) async fn forecasts(
    State(api): State<Arc<Api>>,
    query: Result<Query<ForecastQuery>, QueryRejection>,
) -> Result<Json<Vec<ForecastView>>, ApiError> {
    let query = parsed(query)?;
    let now = api.clock.now();
    let mut found = vec![];
    let view = api.mesh.view();
    let calendar = api.calendar.calendar_in(&view, now);
    let own = api.progress.borrow().predictions.clone();
    for prediction in own.iter().filter(|p| query.matches(p)) {
        let until = prediction.path.start().offset(-1);
        let recent = api.history.window(&prediction.series, until, RECENT_STEPS).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
        let age_ms = now.since(prediction.issued_at).as_millis() as u64;
        let events_applied = calendar.applied(&prediction.series, &prediction.path);
        found.push(ForecastView { age_ms, prediction: prediction.clone(), recent, events_applied });
    }
    for (_, entry) in view.regions.iter().filter(|(region, _)| **region != view.this) {
        let (Some(state), Some(age)) = (&entry.state, entry.age(now)) else { continue };
        let others = state.forecasts.iter().filter(|p| query.matches(p));
        found.extend(others.map(|p| {
            let events_applied = calendar.applied(&p.series, &p.path);
            ForecastView { age_ms: age.as_millis() as u64, prediction: p.clone(), recent: vec![], events_applied }
        }));
    }
    found.sort_by(|a, b| a.prediction.series.cmp(&b.prediction.series));
    Ok(Json(found))
}

/// The newest plan of this region, with its reasons.
#[utoipa::path(get, path = "/v1/plan", tag = "plan", responses(
    (status = 200, body = RegionalResourcePlan), (status = 404, description = "No plan was made yet", body = Problem)))]
pub(super) async fn plan(State(api): State<Arc<Api>>) -> Result<Json<RegionalResourcePlan>, ApiError> {
    let plan = api.progress.borrow().plan.clone();
    plan.map(|plan| Json((*plan).clone()))
        .ok_or_else(|| ApiError::not_found("no plan was made yet; the first follows the first closed step"))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct CapacityQuery {
    /// Only steps after this one.
    since: Option<i64>,
}

/// What capacity stood ready at each closed step, oldest first.
#[utoipa::path(get, path = "/v1/capacity", tag = "inspect", params(CapacityQuery), responses((status = 200, body = [CapacitySample])))]
pub(super) async fn capacity(
    State(api): State<Arc<Api>>,
    query: Result<Query<CapacityQuery>, QueryRejection>,
) -> Result<Json<Vec<CapacitySample>>, ApiError> {
    let since = parsed(query)?.since.unwrap_or(i64::MIN);
    Ok(Json(api.pool.capacity(StepIndex(since.saturating_add(1)))))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Only events with a higher id.
    #[serde(default)]
    since: u64,
    /// Keep the answer open and send each new event as a line of JSON.
    #[serde(default)]
    follow: bool,
}

/// What happened, oldest first: a JSON array, or with `follow` a stream of JSON lines, with an empty one
/// every 15 s as a sign of life.
#[utoipa::path(get, path = "/v1/events", tag = "inspect", params(EventQuery), responses((status = 200, body = [Event])))]
pub(super) async fn events(State(api): State<Arc<Api>>, query: Result<Query<EventQuery>, QueryRejection>) -> Result<Response, ApiError> {
    let query = parsed(query)?;
    if !query.follow {
        return Ok(Json(api.events.since(query.since)).into_response());
    }
    let (log, changed, stop) = (api.events.clone(), api.events.watch(), api.progress.clone());
    let lines =
        futures_util::stream::unfold((log, changed, stop, query.since, true), |(log, mut changed, mut stop, since, first)| async move {
            let events = if first {
                log.since(since)
            } else {
                tokio::select! {
                    biased;
                    // The agent's step loop has ended, and so does the stream.
                    () = async { while stop.changed().await.is_ok() {} } => return None,
                    changed = changed.changed() => changed.ok()?,
                    () = tokio::time::sleep(SIGN_OF_LIFE) => {}
                }
                log.since(since)
            };
            let since = events.last().map_or(since, |event| event.id);
            let mut lines: String = events.iter().filter_map(|event| serde_json::to_string(event).ok()).map(|line| line + "\n").collect();
            if lines.is_empty() {
                lines.push('\n');
            }
            Some((Ok::<_, std::convert::Infallible>(lines), (log, changed, stop, since, false)))
        });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

pub(super) fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|e| ApiError::bad_request(e.body_text()))
}
