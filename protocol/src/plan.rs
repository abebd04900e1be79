//! Plans: what a region means to do about the demand it foresees, and why.

use crate::pool::{InstanceCounts, MicroUsd};
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
    /// How they are divided between the markets, where the pool has two.
    #[serde(default)]
    pub mix: Option<SpotMix>,
    /// Why less is done than the demand asks for, if so.
    pub blocked: Option<String>,
}

impl PoolDecision {
    /// Active and warm.
    pub fn total(&self) -> u32 {
        self.active.saturating_add(self.warm)
    }

    /// How many of them are to be bought on the spot market.
    pub fn spot(&self) -> u32 {
        self.mix.as_ref().map_or(0, |mix| mix.spot)
    }
}

/// How a decision's instances are divided between on demand and spot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SpotMix {
    /// How many of `active + warm` are to be bought on the spot market; the others on demand.
    pub spot: u32,
    /// How many of `active + warm` are there only so that enough is left when spot instances are taken.
    pub reserve: u32,
    /// How many the costs and the demand seen last want on demand by themselves: less is only taken away once less was wanted for a while.
    pub wanted_on_demand: u32,
    /// The same of the reserve.
    pub wanted_reserve: u32,
    /// Price of an instance on demand for an hour.
    pub on_demand_price: MicroUsd,
    /// Price of a spot instance for an hour.
    pub spot_price: MicroUsd,
    /// How often an hour a spot instance is expected to be taken.
    pub interruptions_per_hour: f64,
    /// For how long what was taken is missing, in milliseconds.
    pub outage_ms: u64,
    /// Demand that is expected not to be served because spot instances are taken, in instances, on average.
    pub expected_missing: f64,
    /// The rule that set the number, in words.
    pub rule: String,
    /// Why the demand seen last would not be served through an interruption, if so.
    pub exposed: Option<String>,
}

/// The figures behind a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecisionReason {
    /// The quantile that was provisioned for.
    pub quantile: Quantile,
    /// Demand at that quantile, in transactions per second: of the highest step within the lead time that an order is ready for, of all as long as too
    /// little is known of the pool's own demand.
    pub demand_rate: f64,
    /// Median demand of the same step, by the forecasts.
    pub median_rate: f64,
    /// What their quantile lies above it, before the margin.
    #[serde(default)]
    pub upper_rate: f64,
    /// What the pool's own demand foretells for that step at that quantile, less what is not worth the rent of a start, once enough of it is known.
    #[serde(default)]
    pub own_rate: Option<f64>,
    /// The demand last seen, in transactions per second.
    pub observed_rate: f64,
    /// Instances that live load needs alone, the demand seen last as far as the pool's own record says that it stays: the floor under every plan.
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
