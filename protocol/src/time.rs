//! Time without a clock: timestamps, steps and horizons.
//!
//! A [`Timestamp`] is wall-clock time in milliseconds since 1970-01-01 UTC. Time is divided into
//! [`Step`]s of a configured length; step `i` covers `[i * length, (i + 1) * length)` since the
//! epoch, so that all agents of a mesh agree on the grid without talking.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. RFC 3339 text in JSON, an integer on the wire; JSON
/// input may also be an integer of milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-01-01T00:00:00Z"))]
pub struct Timestamp(i64);

/// The years that RFC 3339 can write.
const MIN_MILLIS: i64 = -62_135_596_800_000;
const MAX_MILLIS: i64 = 253_402_300_799_999;

/// Why a text or number is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timestamp {0:?} must be RFC 3339 (2026-01-01T00:00:00Z) or milliseconds since 1970 between the years 1 and 9999")]
pub struct TimestampError(String);

impl Timestamp {
    /// The start of 1970.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// `millis` since 1970, refused outside the years 1 to 9999.
    pub fn from_millis(millis: i64) -> Result<Self, TimestampError> {
        if (MIN_MILLIS..=MAX_MILLIS).contains(&millis) { Ok(Self(millis)) } else { Err(TimestampError(millis.to_string())) }
    }

    /// Like [`from_millis`](Self::from_millis), at the nearest bound instead of an error.
    pub fn saturating_from_millis(millis: i64) -> Self {
        Self(millis.clamp(MIN_MILLIS, MAX_MILLIS))
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The time `by` later, at most the end of the year 9999.
    pub fn after(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::saturating_from_millis(self.0.saturating_add(by))
    }

    /// The time `by` earlier, at least the start of the year 1.
    pub fn before(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self::saturating_from_millis(self.0.saturating_sub(by))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The RFC 3339 text in `text`, or an integer of milliseconds.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let refused = || TimestampError(text.chars().take(40).collect());
        if let Ok(millis) = text.parse::<i64>() {
            return Self::from_millis(millis).map_err(|_| refused());
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| refused())?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok().and_then(|ms| Self::from_millis(ms).ok()).ok_or_else(refused)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).map_err(|_| fmt::Error)?;
        f.pad(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp: RFC 3339 text or integer milliseconds since 1970")
            }
            fn visit_i64<E: serde::de::Error>(self, millis: i64) -> Result<Timestamp, E> {
                Timestamp::from_millis(millis).map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, millis: u64) -> Result<Timestamp, E> {
                i64::try_from(millis).map_err(E::custom).and_then(|ms| self.visit_i64(ms))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        if d.is_human_readable() { d.deserialize_any(Visitor) } else { d.deserialize_i64(Visitor) }
    }
}

/// The index of a step: how many whole steps since 1970 come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepIndex(pub i64);

impl StepIndex {
    /// The step `by` steps later (earlier when negative).
    pub fn offset(self, by: i64) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// The length of a step: the resolution of everything that is counted and forecast. Between
/// [`Step::MIN`] and [`Step::MAX`]; milliseconds in JSON and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32)]
pub struct Step(u32);

/// Why a duration cannot be a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a step of {0} ms must be between 50 ms and one hour")]
pub struct StepError(u128);

impl Step {
    /// Shorter than this, one round trip between continents no longer fits.
    pub const MIN: Duration = Duration::from_millis(50);
    /// Longer than this, nothing that is planned from it would be in time.
    pub const MAX: Duration = Duration::from_secs(3600);

    /// A step of `length`.
    pub fn new(length: Duration) -> Result<Self, StepError> {
        if !(Self::MIN..=Self::MAX).contains(&length) {
            return Err(StepError(length.as_millis()));
        }
        u32::try_from(length.as_millis()).map(Self).map_err(|_| StepError(length.as_millis()))
    }

    /// How long a step is.
    pub fn length(self) -> Duration {
        Duration::from_millis(u64::from(self.0))
    }

    /// How long a step is, in seconds.
    pub fn seconds(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// The step that `at` falls into.
    pub fn index(self, at: Timestamp) -> StepIndex {
        StepIndex(at.0.div_euclid(i64::from(self.0)))
    }

    /// When step `index` begins.
    pub fn start(self, index: StepIndex) -> Timestamp {
        Timestamp::saturating_from_millis(index.0.saturating_mul(i64::from(self.0)))
    }

    /// When step `index` ends, which is when the next begins.
    pub fn end(self, index: StepIndex) -> Timestamp {
        self.start(index.offset(1))
    }

    /// How many steps cover `duration`, rounded up.
    pub fn count_covering(self, duration: Duration) -> u32 {
        u32::try_from(duration.as_millis().div_ceil(u128::from(self.0))).unwrap_or(u32::MAX)
    }
}

impl TryFrom<u32> for Step {
    type Error = StepError;
    fn try_from(millis: u32) -> Result<Self, StepError> {
        Self::new(Duration::from_millis(u64::from(millis)))
    }
}

impl From<Step> for u32 {
    fn from(step: Step) -> u32 {
        step.0
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_are_the_same_time() {
        let text: Timestamp = serde_json::from_str("\"2026-01-01T01:00:00.250+01:00\"").unwrap();
        let number: Timestamp = serde_json::from_str("1767225600250").unwrap();
        assert_eq!(text, number);
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"2026-01-01T00:00:00.25Z\"");
        for bad in ["\"yesterday\"", "1e30", "99999999999999999", "null", "\"2026-13-01T00:00:00Z\""] {
            assert!(serde_json::from_str::<Timestamp>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_tile_time_also_before_1970() {
        let step = Step::new(Duration::from_secs(60)).unwrap();
        for ms in [-60_001, -60_000, -1, 0, 1, 59_999, 60_000] {
            let at = Timestamp::from_millis(ms).unwrap();
            let index = step.index(at);
            assert!(step.start(index) <= at && at < step.end(index), "{ms}");
        }
        assert_eq!(step.count_covering(Duration::from_millis(60_001)), 2);
    }

    #[test]
    fn arithmetic_stays_within_the_calendar() {
        let end = Timestamp::saturating_from_millis(i64::MAX);
        assert_eq!(end.after(Duration::MAX), end);
        assert_eq!(Timestamp::EPOCH.since(end), Duration::ZERO);
        assert!(end.to_string().starts_with("9999-12-31"));
        assert!(Timestamp::EPOCH.before(Duration::MAX).to_string().starts_with("0001-01-01"));
    }
}
