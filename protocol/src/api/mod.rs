//! The HTTP API's types: JSON only, so that they may use all of serde.
//!
//! Shared by the agent (which serves them), the `tradewind` CLI (which reads them) and the tests.
//! Durations are in milliseconds, rates in transactions per second, money in millionths of a
//! dollar; the names say so.

mod anomaly;
mod explain;
mod plan;
mod reservation;
mod staging;

use crate::calendar::{CalendarEvent, Effect};
use crate::region::{Coordinates, Dropped, Health, Mode};
use crate::{
    EventName, InstanceId, Market, PoolName, PredictionData, RegionId, RegionalResourcePlan, ResourcePool, SeriesKey, ServiceName, Step,
    StepIndex, TenantName, Timestamp,
};
use serde::{Deserialize, Serialize};

pub use anomaly::{Anomaly, AnomalyKind, Direction};
pub use explain::{ExpertReasons, ForecastExplanation, ForecastReasons, HorizonReasons};
pub use plan::{
    Alternative, AlternativeKind, CostTerms, MarginChoice, MarginReasons, PlanExplanation, PoolExplanation, PriceView, SourceShare,
    SpotTerms,
};
pub use reservation::{ClaimView, ReservationView, Reservations};
pub use staging::{StageState, StageStepView, StagingState, StagingView};

/// An error, as RFC 9457 has it. Sent as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A stable name of the kind of problem: `urn:tradewind:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and how to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `GET /v1/status`: one agent in brief.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The agent's region.
    pub region: RegionId,
    /// The mesh's name.
    pub cluster: String,
    /// The software's version.
    pub version: String,
    /// Which life of the agent this is.
    pub generation: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// The agent's clock.
    pub now: Timestamp,
    /// Whether it acts on its plans.
    pub mode: Mode,
    /// How it is.
    pub health: Health,
    /// Why it is not healthy.
    pub health_reasons: Vec<String>,
    /// The length of a step.
    pub step: Step,
    /// The last step that was closed.
    pub last_closed_step: Option<StepIndex>,
    /// How many regions are known and how many of them are live, this one included.
    pub regions_known: usize,
    /// See `regions_known`.
    pub regions_live: usize,
    /// Series that the agent counts.
    pub series: usize,
    /// Records accepted in this life.
    pub records_accepted: u64,
    /// Records refused in this life.
    pub records_refused: u64,
    /// Tenants with more series than `ingest.max_series_per_tenant`, those with the most transactions folded first; a hundred at the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folded: Vec<FoldedTenant>,
    /// Instances over all pools that serve or stand warm.
    pub instances_ready: u32,
    /// When the agent's certificate ends, and with it its part in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends_at: Option<Timestamp>,
}

/// What is counted of one tenant in series of the type `other`, since it has too many of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FoldedTenant {
    /// Whose.
    pub tenant: TenantName,
    /// How many series were folded of late, as far as they are told apart.
    pub series: usize,
    /// Whether there were more than are told apart.
    pub and_more: bool,
    /// Transactions that were folded in this life of the agent.
    pub transactions: u64,
}

/// One region as this agent sees it. `GET /v1/regions` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegionView {
    /// Which region.
    pub region: RegionId,
    /// Whether it is the agent that answers.
    pub this: bool,
    /// Whether the failure detector holds it to be alive.
    pub live: bool,
    /// Which life of its agent.
    pub generation: u64,
    /// Which published state of that life is held here.
    pub sequence: u64,
    /// Its QUIC address.
    pub address: String,
    /// Base URL of its HTTP API, if published.
    pub api: Option<String>,
    /// Round-trip time over QUIC, milliseconds; none without a connection.
    pub rtt_ms: Option<f64>,
    /// Wire version that is spoken with it; none without a connection.
    #[serde(default)]
    pub wire_version: Option<u8>,
    /// How it judges itself.
    pub health: Health,
    /// Whether it acts.
    pub mode: Option<Mode>,
    /// Where it is.
    pub coordinates: Option<Coordinates>,
    /// How long ago what is held here was received, milliseconds; none while nothing is held.
    pub age_ms: Option<u64>,
    /// How many forecasts it publishes.
    pub forecasts: usize,
    /// What it left out.
    pub dropped: Dropped,
    /// Size of its published state in bytes.
    pub state_bytes: u32,
    /// Its software's version.
    pub version: Option<String>,
}

/// One region's pools. `GET /v1/pools` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegionPools {
    /// Which region.
    pub region: RegionId,
    /// How old this is, milliseconds.
    pub age_ms: u64,
    /// Its pools.
    pub pools: Vec<ResourcePool>,
    /// Of the agent that answers: the providers of the pools that have several, in the order in which they are tried.
    #[serde(default)]
    pub providers: Vec<ProviderView>,
}

/// One of several providers of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProviderView {
    /// Of which pool.
    pub pool: PoolName,
    /// What kind it is: `docker`.
    pub provider: String,
    /// On which terms what it runs is bought.
    #[serde(default)]
    pub market: Market,
    /// Whether it is configured; if not, it only ends what it still runs.
    pub configured: bool,
    /// How many instances it runs, as far as is known.
    pub instances: u32,
    /// Why it is left alone for now.
    pub failing: Option<String>,
}

/// One instance of one of this agent's pools. `GET /v1/instances` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceView {
    /// Which instance.
    pub id: InstanceId,
    /// Of which pool.
    pub pool: PoolName,
    /// Where it stands in its lifecycle.
    pub state: InstanceState,
    /// Since when.
    pub since: Timestamp,
    /// What it runs as, for instance a process id.
    pub handle: String,
    /// On which terms it is bought.
    #[serde(default)]
    pub market: Market,
}

/// Where an instance stands in the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Ordered, not ready yet.
    Starting,
    /// Ready, not serving.
    Warm,
    /// Serving.
    Active,
    /// Finishing what it has.
    Draining,
}

impl InstanceState {
    /// As it is spelt in documents, on the channel to worker processes, and in the words of events.
    pub const fn word(self) -> &'static str {
        match self {
            InstanceState::Starting => "starting",
            InstanceState::Warm => "warm",
            InstanceState::Active => "active",
            InstanceState::Draining => "draining",
        }
    }
}

/// One forecast with its origin. `GET /v1/forecasts?from=&to=&type=` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForecastView {
    /// How old this is, milliseconds.
    pub age_ms: u64,
    /// The forecast.
    pub prediction: PredictionData,
    /// Counts of the last steps up to the path's start, oldest first, where this agent counts the
    /// series itself.
    pub recent: Vec<f64>,
    /// Calendar events that are in the forecast, by region and name.
    #[serde(default)]
    pub events_applied: Vec<EventApplied>,
}

/// What was counted of one series. `GET /v1/history?from=&to=&resolution=&buckets=` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryView {
    /// Which series.
    pub series: SeriesKey,
    /// When the first bucket begins.
    pub since: Timestamp,
    /// How long a bucket is, milliseconds.
    pub bucket_ms: u64,
    /// The counts, oldest first; the last bucket may not be over yet.
    pub counts: Vec<f64>,
}

/// A calendar event in a forecast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventApplied {
    /// Whose event.
    pub region: RegionId,
    /// Which.
    pub event: EventName,
    /// What it was taken to do.
    pub effect: Effect,
}

/// An event in the calendar as this agent sees it. `GET /v1/calendar` is a list of them, the earliest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CalendarEntry {
    /// Whose calendar it is in.
    pub region: RegionId,
    /// Where it comes from.
    pub origin: EventOrigin,
    /// The event.
    pub event: CalendarEvent,
    /// What it is taken to do, stated or learnt.
    pub effect: Effect,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventOrigin {
    /// The rules of a country's holidays.
    Holidays,
    /// The configuration file.
    Configuration,
    /// The API.
    Api,
    /// Another region, which publishes it.
    Mesh,
}

/// What became of one batch of records. `POST /v1/records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct IngestReceipt {
    /// Records counted by this request.
    pub accepted: u64,
    /// Records whose id had been counted before.
    pub duplicates: u64,
    /// Whether the whole batch had been counted before, by its idempotency key; then the other
    /// figures are those of the first time.
    pub replayed: bool,
    /// How many records were refused.
    pub refused: u64,
    /// The first of the refused records, at most [`MAX_REFUSALS_SHOWN`].
    pub refusals: Vec<Refusal>,
}

/// How many refused records a receipt names.
pub const MAX_REFUSALS_SHOWN: usize = 100;

/// One refused record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Refusal {
    /// Its line (NDJSON) or its place in the array (JSON), from 1.
    pub line: u64,
    /// What was wrong, and what was wanted.
    pub reason: String,
}

/// The answer of `POST /regions/{regionId}/predictiveScale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScaleOutcome {
    /// Whether the plan was only made, not carried out.
    pub dry_run: bool,
    /// Which agent made it.
    pub planned_by: RegionId,
    /// The plan and its reasons.
    pub plan: RegionalResourcePlan,
}

/// Capacity of one pool in one closed step, as it stood when the step began.
/// `GET /v1/capacity?since=` is a list of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CapacitySample {
    /// Which step.
    pub step: StepIndex,
    /// Which pool.
    pub pool: PoolName,
    /// The service it serves.
    pub service: ServiceName,
    /// Instances that could serve when the step began.
    pub ready: u32,
    /// Everything that was paid for, in milliseconds of one instance, during the step.
    pub instance_ms: u64,
    /// How many transactions per second one instance serves.
    pub rate_per_instance: f64,
}

/// What happened in an agent. `GET /v1/events?since=&follow=` is a list of them (NDJSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Counts the events of one life of the agent, from 1.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// Where.
    pub region: RegionId,
    /// What kind, dotted: `mesh.region_joined`, `pool.instance_started`.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// What, in words.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Someone has to act.
    Error,
}
