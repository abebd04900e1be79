//! Why a forecast is what it is: for each lane of a series, who had how much to say, who was silent and why, and how good the
//! whole was.

use serde::{Deserialize, Serialize};
use tradewind_protocol::StepIndex;

/// What stands behind the forecast of one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// The last closed step that it has learnt.
    pub until: StepIndex,
    /// How many steps it has seen.
    pub steps: u64,
    /// How many steps it takes for a season.
    pub season: u64,
    /// How many steps ago the models of all series were trained; `None` if none was.
    pub trained_ago: Option<u64>,
    /// By horizon, ascending.
    pub lanes: Vec<LaneExplanation>,
}

/// One horizon of one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LaneExplanation {
    /// How many steps ahead.
    pub ahead: usize,
    /// How many forecasts of this lane were judged; the figures below forget with time.
    pub judged: u64,
    /// Share of what came that lay within the central 90 % interval.
    pub coverage_90: f64,
    /// Mean absolute error of the median, in transactions a step.
    pub error: f64,
    /// The same of seasonal naive.
    pub seasonal_naive_error: f64,
    /// Who took part.
    pub experts: Vec<ExpertExplanation>,
}

/// One expert at one horizon of one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExpertExplanation {
    /// Its name.
    pub name: String,
    /// Its share of the median that is said now, 0 to 1.
    pub weight: f64,
    /// Its recent mean absolute error, in transactions a step; `None` before it was judged.
    pub error: Option<f64>,
    /// Why it says nothing now; `None` if it speaks.
    pub silent: Option<String>,
}
