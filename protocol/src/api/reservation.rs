//! What is promised to whom: `GET /v1/reservations`.

use crate::reservation::{Phase, Terms};
use crate::{PoolName, RegionId, Timestamp};
use serde::{Deserialize, Serialize};

/// Promises of this region's pools, and what it was promised by others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Reservations {
    /// What this region's pools are promised to, its own instances included; by pool and id.
    pub granted: Vec<ReservationView>,
    /// What this region has asked of others, in the order in which it asked.
    pub claimed: Vec<ClaimView>,
}

/// One reservation in this region's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReservationView {
    /// Of which pool.
    pub pool: PoolName,
    /// `instance/<id>` for one of the region's own instances, else `<holder>/<number>`.
    pub id: String,
    /// What was granted.
    pub terms: Terms,
    /// How far it has come.
    pub phase: Phase,
    /// How many of its units are instances by now.
    pub placed: u32,
    /// The reservation that this instance was started for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<String>,
    /// When its holder must have left, if it was preempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_by: Option<Timestamp>,
    /// How much longer it stands without a refresh, milliseconds; none for instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapses_in_ms: Option<u64>,
}

/// One claim of this region on another's pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClaimView {
    /// Whose pool.
    pub owner: RegionId,
    /// Which pool.
    pub pool: PoolName,
    /// This region's number for it.
    pub number: u64,
    /// What was asked for.
    pub terms: Terms,
    /// How far it has come; none while the owner has not answered.
    pub phase: Option<Phase>,
    /// How much longer it may be relied upon without a refresh, milliseconds.
    pub valid_for_ms: u64,
}
