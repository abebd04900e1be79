//! Plans: what a region means to do about the demand it foresees, and why.

use crate::pool::InstanceCounts;
use crate::region::Mode;
use crate::{PoolName, Quantile, RegionId, ServiceName, StepIndex, Timestamp};
use serde::{Deserialize, Serialize};

/// One round of planning of one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegionalResourcePlan {
    /// Whose plan.
    pub region: RegionId,
    /// Counts the plans of one life of the agent.
    pub version: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether it is carried out.
    pub mode: Mode,
    /// The last step whose records it knows.
    pub known_until: StepIndex,
    /// One decision a pool, in the order of the pools' names.
    pub decisions: Vec<PoolDecision>,
    /// What the plan could not know or do, in words; empty when there is nothing to say.
    pub notes: Vec<String>,
}

/// What a plan wants of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolDecision {
    /// Which pool.
    pub pool: PoolName,
    /// The service it serves.
    pub service: ServiceName,
    /// What stood there when the plan was made.
    pub current: InstanceCounts,
    /// How many instances are to serve now.
    pub active: u32,
    /// How many more are to stand warm, ready for the lead time's end.
    pub warm: u32,
    /// When the capacity has to be ready.
    pub ready_by: Timestamp,
    /// How `active` and `warm` came about.
    pub reason: DecisionReason,
    /// Why less is done than the demand asks for, if so.
    pub blocked: Option<String>,
}

/// The figures behind a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecisionReason {
    /// The quantile that was provisioned for.
    pub quantile: Quantile,
    /// Demand at that quantile, the highest step within the lead time, in transactions per second.
    pub demand_rate: f64,
    /// Median demand of the same step, by the forecasts.
    pub median_rate: f64,
    /// What their quantile lies above it, before the margin.
    #[serde(default)]
    pub upper_rate: f64,
    /// What the pool's own demand foretells for that step at that quantile, once enough of it is known.
    #[serde(default)]
    pub own_rate: Option<f64>,
    /// The demand last seen, in transactions per second.
    pub observed_rate: f64,
    /// Instances that the demand seen last needs alone: the floor under every plan.
    pub reactive_floor: u32,
    /// Provisioning lead time, in milliseconds.
    pub lead_ms: u64,
    /// How many forecasts were summed.
    pub forecasts: u32,
    /// Regions whose forecast is missing or too old, and which were left to the reactive floor.
    pub stale_sources: Vec<RegionId>,
    /// The rule that set the number, in words.
    pub rule: String,
}
