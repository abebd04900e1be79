//! What is known to come, and what is out of the ordinary.

use super::{Api, ApiError};
use crate::calendar::CalendarError;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::sync::Arc;
use tradewind_protocol::api::{Anomaly, CalendarEntry, Problem};
use tradewind_protocol::{CalendarEvent, EventName};

/// What is out of the ordinary in this region's series: what goes on, newest first, then what is over.
#[utoipa::path(get, path = "/v1/anomalies", tag = "inspect", responses((status = 200, body = [Anomaly])))]
pub(super) async fn anomalies(State(api): State<Arc<Api>>) -> Json<Vec<Anomaly>> {
    let report = api.progress.borrow().anomalies.clone();
    Json(report.anomalies.clone())
}

/// The calendar that forecasts go by: this region's events, and those that the others publish; the earliest first.
#[utoipa::path(get, path = "/v1/calendar", tag = "calendar", responses((status = 200, body = [CalendarEntry])))]
pub(super) async fn calendar(State(api): State<Arc<Api>>) -> Json<Vec<CalendarEntry>> {
    let calendar = api.calendar.calendar_in(&api.mesh.view(), api.clock.now());
    Json(calendar.entries().to_vec())
}

/// Takes an event into this region's calendar, in place of one of the same name. The answer comes when it
/// is durable; it is in the forecasts, and with the other regions, from the next step on.
///
/// Without `effect`, what earlier events of the same kind and title did is taken.
#[utoipa::path(post, path = "/v1/calendar", tag = "calendar", request_body = CalendarEvent, responses(
    (status = 204, description = "It is in the calendar"),
    (status = 400, description = "Not an event, or one that makes no sense", body = Problem),
    (status = 409, description = "The event is not the API's to change, or the calendar is full", body = Problem),
    (status = 503, description = "It cannot be made durable", body = Problem),
))]
pub(super) async fn post_event(
    State(api): State<Arc<Api>>,
    event: Result<Json<CalendarEvent>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(event) = event.map_err(|e| ApiError::bad_request(e.body_text()))?;
    api.calendar.put(event, api.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an event that came by the API.
#[utoipa::path(delete, path = "/v1/calendar/{name}", tag = "calendar",
    params(("name" = String, Path, description = "The event's name")),
    responses(
        (status = 204, description = "It is no longer in the calendar"),
        (status = 400, description = "Not a name", body = Problem),
        (status = 404, description = "There is no such event", body = Problem),
        (status = 409, description = "The event is not the API's to remove", body = Problem),
        (status = 503, description = "It cannot be made durable", body = Problem),
    ))]
pub(super) async fn delete_event(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    let name = EventName::new(&name).map_err(|e| ApiError::bad_request(e.to_string()))?;
    api.calendar.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<CalendarError> for ApiError {
    fn from(error: CalendarError) -> Self {
        match error {
            CalendarError::Event(_) => ApiError::bad_request(error.to_string()),
            CalendarError::Unknown(_) => ApiError::not_found(error.to_string()),
            CalendarError::NotOurs(_) | CalendarError::Full => ApiError::conflict(error.to_string()),
            CalendarError::Store(_) => ApiError::unavailable(error.to_string()),
        }
    }
}
