//! Events that are known beforehand and change traffic: holidays, maintenance, campaigns.
//!
//! A region publishes its events with its state. Whoever forecasts traffic to or from that region
//! applies them; a region's word counts for traffic that ends there, nobody else's.

use crate::{EventName, RegionId, SeriesKey, ServiceName, Timestamp, TransactionType};
use serde::{Deserialize, Serialize};

/// The most events a region publishes: a year's holidays, and a campaign or maintenance a week.
pub const MAX_EVENTS: usize = 64;
/// The longest title, in bytes.
pub const MAX_TITLE_BYTES: usize = 120;
/// The most that traffic may be multiplied by: beyond, a stated effect is a typing error.
pub const MAX_FACTOR: f64 = 1_000.0;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A public holiday.
    Holiday,
    /// Something is taken out of service.
    Maintenance,
    /// Something draws people.
    Campaign,
    /// Anything else.
    #[default]
    Other,
}

/// By how much an event multiplies traffic: the median, and the central 90 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// The median factor: 0 where nothing comes, 1 where nothing changes.
    pub factor: f64,
    /// Its 5 % quantile.
    pub low: f64,
    /// Its 95 % quantile.
    pub high: f64,
}

impl Effect {
    /// No effect, for sure.
    pub const NONE: Effect = Effect { factor: 1.0, low: 1.0, high: 1.0 };

    /// Whether the three are in order and within bounds.
    pub fn is_valid(self) -> bool {
        0.0 <= self.low && self.low <= self.factor && self.factor <= self.high && self.high <= MAX_FACTOR
    }
}

/// An event in the calendar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarEvent {
    /// Its name, unique in its region: a second event of the name replaces the first.
    pub name: EventName,
    /// What kind.
    #[serde(default)]
    pub kind: EventKind,
    /// In words.
    #[serde(default)]
    pub title: String,
    /// When it begins.
    pub from: Timestamp,
    /// When it is over.
    pub until: Timestamp,
    /// Traffic from these regions; from all, if empty.
    #[serde(default)]
    pub sources: Vec<RegionId>,
    /// Traffic to these regions; to all, if empty.
    #[serde(default)]
    pub destinations: Vec<RegionId>,
    /// Only of this service.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// Only of this transaction type.
    #[serde(default)]
    pub transaction_type: Option<TransactionType>,
    /// The effect, if it is stated; it is learnt from earlier events of the same kind and title otherwise.
    #[serde(default)]
    pub effect: Option<Effect>,
}

/// Why an event is not taken. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// It ends before it begins.
    #[error("event {0} must end (until) after it begins (from)")]
    Empty(EventName),
    /// The numbers of the effect make no sense.
    #[error("the effect of event {0} must have 0 <= low <= factor <= high <= {MAX_FACTOR}")]
    Effect(EventName),
    /// The title is too long.
    #[error("the title of event {0} must have at most {MAX_TITLE_BYTES} bytes")]
    Title(EventName),
    /// Too many regions are named.
    #[error("event {0} names more than {MAX_EVENTS} regions: leave the list empty to mean all")]
    Regions(EventName),
}

impl CalendarEvent {
    /// Whether it makes sense.
    pub fn check(&self) -> Result<(), EventError> {
        let name = || self.name.clone();
        if self.until <= self.from {
            Err(EventError::Empty(name()))
        } else if !self.effect.is_none_or(Effect::is_valid) {
            Err(EventError::Effect(name()))
        } else if self.title.len() > MAX_TITLE_BYTES {
            Err(EventError::Title(name()))
        } else if self.sources.len().max(self.destinations.len()) > MAX_EVENTS {
            Err(EventError::Regions(name()))
        } else {
            Ok(())
        }
    }

    /// Whether it is about the traffic of `series`.
    pub fn concerns(&self, series: &SeriesKey) -> bool {
        let among = |regions: &[RegionId], region| regions.is_empty() || regions.contains(region);
        among(&self.sources, &series.source)
            && among(&self.destinations, &series.destination)
            && self.service.as_ref().is_none_or(|service| *service == series.service)
            && self.transaction_type.as_ref().is_none_or(|kind| *kind == series.transaction_type)
    }

    /// The share of the time from `from` to `until` in which it takes place, 0 to 1.
    pub fn share_of(&self, from: Timestamp, until: Timestamp) -> f64 {
        let common = self.until.min(until).since(self.from.max(from));
        let whole = until.since(from).as_secs_f64();
        if whole > 0.0 { common.as_secs_f64() / whole } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> CalendarEvent {
        let json =
            r#"{"name": "sale", "from": 60000, "until": 120000, "destinations": ["eu"], "effect": {"factor": 3, "low": 2, "high": 4}}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert_eq!(event().check(), Ok(()));
        let bad = CalendarEvent { until: Timestamp::EPOCH, ..event() };
        assert!(bad.check().unwrap_err().to_string().contains("event sale must end"));
        for effect in [(3.0, 4.0, 5.0), (-1.0, -2.0, 0.0), (f64::NAN, 0.0, 1.0), (1.0, 1.0, f64::INFINITY)] {
            let effect = Some(Effect { factor: effect.0, low: effect.1, high: effect.2 });
            assert!(CalendarEvent { effect, ..event() }.check().is_err(), "{effect:?}");
        }
        assert!(CalendarEvent { title: "x".repeat(121), ..event() }.check().is_err());
    }

    #[test]
    fn it_concerns_what_it_names_and_part_of_a_step_counts_in_part() {
        let series = |from: &str, to: &str| SeriesKey {
            tenant: Default::default(),
            source: from.parse().unwrap(),
            destination: to.parse().unwrap(),
            service: Default::default(),
            transaction_type: Default::default(),
        };
        assert!(event().concerns(&series("us", "eu")) && !event().concerns(&series("eu", "us")));
        let at = |ms| Timestamp::from_millis(ms).unwrap();
        assert_eq!(event().share_of(at(0), at(60_000)), 0.0);
        assert_eq!(event().share_of(at(30_000), at(90_000)), 0.5);
        assert_eq!(event().share_of(at(60_000), at(120_000)), 1.0);
    }
}
