//! Why a plan is what it is, as `GET /v1/plan/explain` tells it.

use crate::pool::MicroUsd;
use crate::region::Mode;
use crate::{PoolDecision, PoolName, Quantile, RegionId, ServiceName, StepIndex, Timestamp};
use serde::{Deserialize, Serialize};

/// What stands behind the newest plan. `GET /v1/plan/explain?pool=` is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanExplanation {
    /// Whose plan.
    pub region: RegionId,
    /// The plan's number.
    pub version: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether it is carried out.
    pub mode: Mode,
    /// The last step whose records it knows.
    pub known_until: StepIndex,
    /// The pools that were asked for, in the order of their names.
    pub pools: Vec<PoolExplanation>,
    /// What the plan could not know or do.
    pub notes: Vec<String>,
}

/// What stands behind one decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolExplanation {
    /// The decision, with its figures.
    pub decision: PoolDecision,
    /// How many instances the round before planned, active and warm.
    pub planned_before: u32,
    /// What each source adds to the median of the highest step within the lead time, the largest first.
    pub sources: Vec<SourceShare>,
    /// What the costs are.
    pub costs: CostTerms,
    /// What else was possible, by the number of instances: with what was chosen.
    pub alternatives: Vec<Alternative>,
    /// How the margin over the median came about.
    pub margin: MarginReasons,
}

/// What one region's traffic to one service adds to the demand on a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceShare {
    /// Where it comes from.
    pub region: RegionId,
    /// What it enters at: the pool's service, or one that calls it.
    pub service: ServiceName,
    /// How many transactions of the pool's service one of it brings along.
    pub factor: f64,
    /// The median that it adds, in transactions per second.
    pub median_rate: f64,
    /// Its part of the median of all.
    pub share: f64,
    /// How old its newest forecast is, in milliseconds.
    pub age_ms: u64,
    /// Whether that is too old, so that what was seen last is planned for.
    pub stale: bool,
}

/// What a decision was weighed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CostTerms {
    /// Price of one instance for an hour.
    pub instance_hour_price: MicroUsd,
    /// What an hour of one instance's demand costs when it is not served, in prices of one.
    pub late_cost_ratio: f64,
    /// Whether the pool states that; else it follows from the configured quantile.
    pub late_cost_stated: bool,
    /// For how long a need must have been lower before anything is taken away, in milliseconds.
    pub scale_in_wait_ms: u64,
    /// For how long keeping an idle instance is cheaper than starting one, in milliseconds.
    pub break_even_ms: u64,
    /// What the mix with spot instances was weighed with, where the pool has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot: Option<SpotTerms>,
    /// The most that the pool may cost an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_per_hour: Option<MicroUsd>,
    /// The most that all pools may cost an hour together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_max_cost_per_hour: Option<MicroUsd>,
}

/// What is known of a pool's spot instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SpotTerms {
    /// Price of one for an hour.
    pub instance_hour_price: MicroUsd,
    /// The highest price that is paid: above it, they are taken.
    pub bid: MicroUsd,
    /// How often an hour one is expected to be taken.
    pub interruptions_per_hour: f64,
    /// What is expected before anything is seen.
    pub prior_per_hour: f64,
    /// How many were taken, the past discounted.
    pub interruptions: f64,
    /// In so many hours of an instance, the past discounted.
    pub instance_hours: f64,
    /// How often the price rose above the bid, in the history file and since, the past discounted.
    pub crossings: f64,
    /// In so many hours below it, as far as they count.
    pub market_hours: f64,
    /// For how long what is taken is missing, in milliseconds.
    pub outage_ms: u64,
    /// The most of the pool that may be spot, 0 to 1.
    pub max_share: f64,
    /// How much of them may be taken at once, 0 to 1.
    pub at_once: f64,
}

/// A number of instances that the plan could have named, and what it is expected to cost in the highest step within the lead time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alternative {
    /// What it is.
    pub kind: AlternativeKind,
    /// Active and warm.
    pub instances: u32,
    /// How many of them are spot, where the pool has two markets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot: Option<u32>,
    /// The quantile that it provides for, where that is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<Quantile>,
    /// Instances that are expected to be missing, on average.
    pub expected_missing: f64,
    /// Price of the instances and of what is expected to be missing, in prices of one instance.
    pub expected_cost: f64,
    /// Why it was not chosen; none for what was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}

/// What an alternative is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlternativeKind {
    /// What the plan names.
    Chosen,
    /// One instance fewer.
    OneFewer,
    /// One instance more.
    OneMore,
    /// The next lower quantile.
    LowerQuantile,
    /// The next higher quantile.
    HigherQuantile,
    /// What the last plan named.
    AsBefore,
    /// As many, none of them spot.
    AllOnDemand,
    /// As many, all of them spot.
    AllSpot,
}

/// How the margin over the median came about: the mean of several by their weights, which follow from what each would have cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MarginReasons {
    /// What the distance between quantile and median is multiplied with.
    pub margin: f64,
    /// How many steps were learned from.
    pub learned_steps: u64,
    /// What the pool has cost more than the best choice in hindsight would have, in instance-steps, the past discounted.
    pub regret: f64,
    /// How much beside the margin what the pool's own demand foretells has to say, when it says anything.
    #[serde(default)]
    pub own_weight: f64,
    /// What it alone would have cost more than the best, in instance-steps, the past discounted.
    #[serde(default)]
    pub own_regret: f64,
    /// All of them.
    pub choices: Vec<MarginChoice>,
}

/// One margin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MarginChoice {
    /// Its value.
    pub margin: f64,
    /// Whether it follows the share of late steps instead of being fixed.
    pub tuned: bool,
    /// How much it has to say.
    pub weight: f64,
    /// What it would have cost more than the best, in instance-steps, the past discounted.
    pub regret: f64,
}

/// A price as the agent knows it. `GET /v1/prices` is a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PriceView {
    /// Its name, by which pools name it.
    pub name: PoolName,
    /// Where it comes from.
    pub source: String,
    /// Price of one instance for an hour, as last known.
    pub instance_hour_price: Option<MicroUsd>,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// How long ago that was, in milliseconds.
    pub age_ms: Option<u64>,
    /// Whether it is older than it may be, or was never read.
    pub stale: bool,
    /// Why the last reading failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl PlanExplanation {
    /// Leaves only the pool named `pool`; whether there is one.
    pub fn only(&mut self, pool: &PoolName) -> bool {
        self.pools.retain(|of| of.decision.pool == *pool);
        !self.pools.is_empty()
    }
}
