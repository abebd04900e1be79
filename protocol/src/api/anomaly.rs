//! Anomalies, as `GET /v1/anomalies` tells them.

use crate::{SeriesKey, StepIndex, Timestamp};
use serde::{Deserialize, Serialize};

/// What kind of thing is out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyKind {
    /// Single steps far from what was foreseen.
    Point,
    /// The level moved further than it ever does.
    LevelShift,
    /// Nothing came where something was as good as certain.
    MissingData,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More than foreseen.
    Up,
    /// Less than foreseen.
    Down,
}

/// Something out of the ordinary in one series. `GET /v1/anomalies` is a list of them, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Anomaly {
    /// In which series.
    pub series: SeriesKey,
    /// What kind.
    pub kind: AnomalyKind,
    /// Where to.
    pub direction: Direction,
    /// The most surprising step so far.
    pub step: StepIndex,
    /// When the first anomalous step began.
    pub since: Timestamp,
    /// When the last anomalous step ended.
    pub until: Timestamp,
    /// Whether it may still go on.
    pub ongoing: bool,
    /// The count in `step`.
    pub observed: f64,
    /// The median that was foreseen for it.
    pub expected: f64,
    /// The probability that an ordinary step is so far off.
    pub probability: f64,
}
