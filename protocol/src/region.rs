//! What a region tells the others about itself.

use crate::{CalendarEvent, PredictionData, RegionId, ResourcePool, Step, Timestamp};
use serde::{Deserialize, Serialize};

/// Where a region is, in degrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Coordinates {
    /// -90 (south pole) to 90.
    pub latitude: f64,
    /// -180 to 180, east positive.
    pub longitude: f64,
}

impl Coordinates {
    /// Whether both are finite and on the globe.
    pub fn is_valid(self) -> bool {
        (-90.0..=90.0).contains(&self.latitude) && (-180.0..=180.0).contains(&self.longitude)
    }

    /// Great-circle distance in kilometres (haversine, mean Earth radius 6371 km).
    pub fn distance_km(self, other: Self) -> f64 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let dlat = lat2 - lat1;
        let dlon = (other.longitude - self.longitude).to_radians();
        let h = (dlat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
        2.0 * 6371.0 * h.sqrt().min(1.0).asin()
    }
}

/// How a region judges itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Everything works.
    #[default]
    Healthy,
    /// Something does not, and the region still acts: its provider fails, or its records stopped.
    Degraded,
    /// The region is shutting down or was cordoned: send nothing new.
    Draining,
}

/// Whether an agent acts on its plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It forecasts and plans, and changes nothing.
    #[default]
    Advisory,
    /// It carries its plans out.
    Active,
}

/// What did not fit into the byte budget of the published state.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Dropped {
    /// How many forecasts were left out, those of the lowest volume first.
    pub forecasts: u32,
    /// Their share of the region's whole volume, 0 to 1.
    pub volume_share: f64,
}

/// Everything a region publishes. One value, replaced as a whole, signed by the region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RegionState {
    /// Whose state it is.
    pub region: RegionId,
    /// When it was published, by the region's clock.
    pub published_at: Timestamp,
    /// The software's version.
    pub version: String,
    /// Base URL of the region's HTTP API, if others may know it.
    pub api: Option<String>,
    /// Where the region is.
    pub coordinates: Option<Coordinates>,
    /// How it is.
    pub health: Health,
    /// Whether it acts.
    pub mode: Mode,
    /// The length of its steps.
    pub step: Step,
    /// What it can run, at which price.
    pub pools: Vec<ResourcePool>,
    /// What it foresees, by volume, highest first.
    pub forecasts: Vec<PredictionData>,
    /// What was left out of `forecasts`.
    pub dropped: Dropped,
    /// What is known to come, the earliest first.
    pub events: Vec<CalendarEvent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_follow_the_globe() {
        let new_york = Coordinates { latitude: 40.7833, longitude: -73.9667 };
        let los_angeles = Coordinates { latitude: 34.05, longitude: -118.25 };
        let km = new_york.distance_km(los_angeles);
        assert!((3930.0..3960.0).contains(&km), "{km}");
        assert_eq!(new_york.distance_km(new_york), 0.0);
        let antipode = Coordinates { latitude: -40.7833, longitude: 106.0333 };
        assert!((new_york.distance_km(antipode) - 20_015.0).abs() < 1.0);
    }
}
