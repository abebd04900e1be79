//! Resource pools: what a region can run, and how much of it stands ready.

use crate::{PoolName, Resources, ServiceName};
use serde::{Deserialize, Serialize};

/// How many instances are in each state of the lifecycle `cold -> warm -> active -> draining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceCounts {
    /// Ordered, not ready yet.
    pub starting: u32,
    /// Ready but not serving.
    pub warm: u32,
    /// Serving.
    pub active: u32,
    /// Finishing what they have.
    pub draining: u32,
}

impl InstanceCounts {
    /// Everything that is paid for.
    pub fn total(self) -> u32 {
        self.starting.saturating_add(self.warm).saturating_add(self.active).saturating_add(self.draining)
    }
}

/// On which terms an instance is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    /// For as long as it is wanted.
    #[default]
    OnDemand,
    /// For less, until its seller takes it back.
    Spot,
}

/// Money: millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

/// One pool of a region, as it is published: instances of one shape that serve one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResourcePool {
    /// The pool's name, unique in its region.
    pub name: PoolName,
    /// What its instances serve.
    pub service: ServiceName,
    /// All that the pool may use.
    pub capacity: Resources,
    /// What its instances use now.
    pub in_use: Resources,
    /// What one instance uses.
    pub instance: Resources,
    /// How many transactions per second one active instance serves.
    pub rate_per_instance: f64,
    /// How many instances stand in which state.
    pub instances: InstanceCounts,
    /// The fewest active instances.
    pub min_instances: u32,
    /// The most instances.
    pub max_instances: u32,
    /// Price of one instance for an hour.
    pub instance_hour_price: MicroUsd,
    /// How long an instance takes from order to ready, in milliseconds: stated at first, then
    /// measured.
    pub startup_ms: u64,
}
