//! What a reservation is: its name, what it promises, when and how surely.

use crate::{InstanceId, RegionId, Resources, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Names a reservation: chosen by its holder, never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReservationId {
    /// One of the owner's own instances.
    Instance(InstanceId),
    /// Another region's.
    Remote {
        /// The region that holds it, as its certificate proves.
        holder: RegionId,
        /// Counts that region's requests, over all its lives: see [`first_number`].
        number: u64,
    },
}

impl ReservationId {
    /// The id of the holder's request `number`.
    pub fn remote(holder: &RegionId, number: u64) -> Self {
        Self::Remote { holder: holder.clone(), number }
    }

    /// Whether it is one of the owner's own instances.
    pub fn is_instance(&self) -> bool {
        matches!(self, Self::Instance(_))
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => write!(f, "instance/{id}"),
            Self::Remote { holder, number } => write!(f, "{holder}/{number}"),
        }
    }
}

/// How many requests one life of an agent may number before it meets its next life's.
const NUMBERS_PER_LIFE: u32 = u32::BITS;

/// The first number that a holder gives in its life `generation`, above all of its earlier lives':
/// generations rise by one at least, and begin near the seconds since 1970, so that 2^32 requests a
/// life never run into the next one's and numbers stay below 2^64 until the year 2106.
pub fn first_number(generation: u64) -> u64 {
    generation.min(u64::from(u32::MAX)) << NUMBERS_PER_LIFE
}

/// How sure a reservation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Guaranteed while it is refreshed.
    Firm,
    /// Overbooked, and preempted by firm ones.
    Soft,
}

/// How likely the holder is to need what it asks for, in thousandths: 0 to 1000. Of soft reservations
/// in the way of a firm one, the least likely give way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schema(value_type = u16)]
pub struct Confidence(u16);

impl Confidence {
    /// Certain.
    pub const CERTAIN: Confidence = Confidence(1_000);

    /// The nearest to `probability`, which is 0 to 1.
    pub fn nearest(probability: f64) -> Self {
        // Not a number counts as zero.
        Self((probability.clamp(0.0, 1.0) * 1_000.0).round() as u16)
    }

    /// Thousandths.
    pub fn thousandths(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Confidence {
    type Error = String;
    fn try_from(thousandths: u16) -> Result<Self, String> {
        if thousandths <= 1_000 {
            Ok(Self(thousandths))
        } else {
            Err(format!("a confidence of {thousandths} must be 0 to 1000 thousandths"))
        }
    }
}

impl From<Confidence> for u16 {
    fn from(confidence: Confidence) -> u16 {
        confidence.0
    }
}

/// A span of wall-clock time: `from` is inside, `until` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Window {
    /// When it begins.
    pub from: Timestamp,
    /// When it is over.
    pub until: Timestamp,
}

impl Window {
    /// From `from` on, without end.
    pub fn since(from: Timestamp) -> Self {
        Self { from, until: Timestamp::saturating_from_millis(i64::MAX) }
    }

    /// From `from` on, `length` long.
    pub fn of(from: Timestamp, length: Duration) -> Self {
        Self { from, until: from.after(length) }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.until.since(self.from)
    }

    /// Whether there is no instant in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.until
    }

    /// Whether `at` is inside.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// The instants of both.
    pub fn intersection(&self, other: &Window) -> Option<Window> {
        let both = Window { from: self.from.max(other.from), until: self.until.min(other.until) };
        (!both.is_empty()).then_some(both)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.until)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Terms {
    /// Whose need it is: quotas are a tenant's.
    pub tenant: TenantName,
    /// What one unit uses: one instance's resources.
    pub unit: Resources,
    /// How many.
    pub units: u32,
    /// When.
    pub window: Window,
    /// How surely.
    pub tier: Tier,
    /// How likely it is needed.
    pub confidence: Confidence,
}

impl Terms {
    /// All units together; `None` beyond what numbers can hold.
    pub fn total(&self) -> Option<Resources> {
        self.unit.checked_mul(u64::from(self.units))
    }
}

/// How far an agreement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Set aside until the holder decides.
    Held,
    /// Agreed.
    Confirmed,
    /// Preempted, and to be given up by the end of the notice.
    Leaving,
}

/// What the owner would grant instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// Fewer units in the same window and tier.
    Less {
        /// The terms that fit now.
        terms: Terms,
    },
    /// The same units and tier, later.
    Later {
        /// The terms that fit now.
        terms: Terms,
    },
    /// The same units and window in the other tier.
    OtherTier {
        /// The terms that fit now.
        terms: Terms,
    },
}

impl Offer {
    /// What is offered.
    pub fn terms(&self) -> &Terms {
        match self {
            Self::Less { terms } | Self::Later { terms } | Self::OtherTier { terms } => terms,
        }
    }
}

/// When something happens: on the wall clock, which may jump, and on the monotonic one, which may not.
///
/// Windows are wall-clock time, because two agents have to mean the same by them; how long a promise
/// stands without a refresh is a duration on the owner's monotonic clock, so that no two clocks are
/// ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Now {
    /// The wall clock.
    pub wall: Timestamp,
    /// Since the agent's start, suspended time included; never goes back within one life.
    pub uptime: Duration,
}
