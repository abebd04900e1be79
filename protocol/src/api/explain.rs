//! Why a forecast is what it is, as `GET /v1/forecasts/explain` tells it.

use super::ForecastView;
use crate::{RegionId, StepIndex};
use serde::{Deserialize, Serialize};

/// A forecast and what stands behind it. `GET /v1/forecasts/explain?from=&to=&service=&type=&tenant=` is a list of them, the
/// busiest series first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForecastExplanation {
    /// The path, the counts before it, and the events that are in it.
    #[serde(flatten)]
    pub view: ForecastView,
    /// Whose agent made it.
    pub region: RegionId,
    /// What its maker knows of it; none for what another region published: ask its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<ForecastReasons>,
}

/// What the maker of a forecast knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForecastReasons {
    /// The last closed step that it has learnt.
    pub until: StepIndex,
    /// How many steps the model has learnt: its age.
    pub steps: u64,
    /// How many steps it takes for a season.
    pub season: u64,
    /// How many steps ago the models of all series, if any, were trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_ago: Option<u64>,
    /// By how far ahead, ascending.
    pub horizons: Vec<HorizonReasons>,
}

/// What is known of one horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HorizonReasons {
    /// How many steps ahead.
    pub ahead: usize,
    /// How many forecasts so far ahead were judged by what came.
    pub judged: u64,
    /// Share of what came that lay within the 90 % interval.
    pub coverage_90: f64,
    /// Recent mean absolute error of the median, in transactions a step.
    pub error: f64,
    /// The same of seasonal naive.
    pub seasonal_naive_error: f64,
    /// Every expert: who has how much to say, and who is silent.
    pub experts: Vec<ExpertReasons>,
}

/// One expert at one horizon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExpertReasons {
    /// Its name.
    pub name: String,
    /// Its share of what is said now, 0 to 1.
    pub weight: f64,
    /// Its own recent mean absolute error, in transactions a step; none before it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Why it says nothing now; none if it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}
