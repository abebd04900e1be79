//! What comes in: one record per observed transaction, or per bundle of equal ones.

use crate::{RecordId, RegionId, Resources, ServiceName, TenantName, Timestamp, TransactionType, UserId, forecast::SeriesKey};
use serde::{Deserialize, Serialize};

/// One observation of traffic between two regions. The agent of the source region is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransactionRecord {
    /// Makes the record idempotent: a second one with this id is counted once.
    #[serde(default)]
    pub id: Option<RecordId>,
    /// Whose transaction it was. `default` when left out.
    #[serde(default)]
    pub tenant: TenantName,
    /// Where it came from.
    pub source_region: RegionId,
    /// Where it was served.
    pub destination_region: RegionId,
    /// Which service served it. `default` when left out.
    #[serde(default)]
    pub service: ServiceName,
    /// Which kind it was. `default` when left out.
    #[serde(default)]
    pub transaction_type: TransactionType,
    /// For whom, if that is known.
    #[serde(default)]
    pub user: Option<UserId>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// How many equal transactions this stands for; 1 when left out.
    #[serde(default = "one")]
    pub count: u64,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// What it used.
    #[serde(default)]
    pub resources: Option<Resources>,
}

fn one() -> u64 {
    1
}

/// The most transactions that one record may stand for: 2^40 a step sum to an exact `f64` over
/// eight thousand records.
pub const MAX_COUNT: u64 = 1 << 40;

/// Why a well-formed record cannot be counted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// `count` is beyond [`MAX_COUNT`].
    #[error("count {0} must be at most {MAX_COUNT}")]
    CountTooLarge(u64),
    /// `latency_ms` is negative, infinite or not a number.
    #[error("latency_ms {0} must be a finite number of at least 0")]
    BadLatency(f64),
}

impl TransactionRecord {
    /// Checks what the types alone cannot.
    pub fn check(&self) -> Result<(), RecordError> {
        if self.count > MAX_COUNT {
            return Err(RecordError::CountTooLarge(self.count));
        }
        match self.latency_ms {
            Some(ms) if !ms.is_finite() || ms < 0.0 => Err(RecordError::BadLatency(ms)),
            _ => Ok(()),
        }
    }

    /// The series that the record counts towards.
    pub fn series(&self) -> SeriesKey {
        SeriesKey {
            tenant: self.tenant.clone(),
            source: self.source_region.clone(),
            destination: self.destination_region.clone(),
            service: self.service.clone(),
            transaction_type: self.transaction_type.clone(),
        }
    }
}
