//! What a ledger is told, what it wants done, and what it answers.

use crate::reservation::terms::{Offer, Phase, ReservationId, Terms, Window};
use crate::{InstanceId, RegionId, Resources, TenantName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a ledger grants by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// All that may be promised firmly.
    pub capacity: Resources,
    /// How many thousandths of the capacity may be promised when soft reservations count as well: 1000
    /// to [`MAX_OVERBOOKING`](super::MAX_OVERBOOKING).
    pub overbooking_per_mille: u32,
    /// How long a preempted soft reservation that has begun is left to its holder.
    pub notice: Duration,
    /// The longest that a promise stands without a refresh; longer wishes are granted as this.
    pub max_ttl: Duration,
    /// How many thousandths of the capacity one tenant's reservations may take at any instant, where
    /// `quotas` does not say; none is no limit.
    pub default_quota_per_mille: Option<u32>,
    /// The same for single tenants.
    pub quotas: BTreeMap<TenantName, u32>,
}

impl Config {
    /// Nothing overbooked, no notice, no quotas.
    pub fn plain(capacity: Resources) -> Self {
        Self {
            capacity,
            overbooking_per_mille: 1_000,
            notice: Duration::ZERO,
            max_ttl: Duration::from_secs(3_600),
            default_quota_per_mille: None,
            quotas: BTreeMap::new(),
        }
    }
}

/// One reservation. What is durable of it; when it lapses is not: after a restart every promise
/// stands for its whole `ttl` again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// Whose name it has.
    pub id: ReservationId,
    /// What was granted.
    pub terms: Terms,
    /// How far it has come.
    pub phase: Phase,
    /// How long it stands without a refresh. An instance's stands until it is given back.
    pub ttl: Duration,
    /// How many of its units are instances by now, and are counted as those.
    pub placed: u32,
    /// The reservation that this instance was started for.
    pub serves: Option<ReservationId>,
    /// How a firm one cut it short.
    pub cut: Option<Cut>,
    /// Counts the grants of this ledger: who was there first.
    pub sequence: u64,
}

/// A preemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cut {
    /// From when on it no longer counts: where the firm one begins.
    pub counted_until: Timestamp,
    /// When its holder must have left: later where the firm one begins within the notice.
    pub leave_by: Timestamp,
}

impl Reservation {
    /// Where it counts.
    pub fn counted(&self) -> Window {
        let Window { from, until } = self.terms.window;
        Window { from, until: self.cut.map_or(until, |cut| cut.counted_until.max(from).min(until)) }
    }

    /// When its holder must have left.
    pub fn leave_by(&self) -> Timestamp {
        self.cut.map_or(self.terms.window.until, |cut| cut.leave_by)
    }

    /// What it counts for there: its units that are not instances yet.
    pub fn amount(&self) -> Resources {
        let units = u64::from(self.terms.units.saturating_sub(self.placed));
        // A total that numbers cannot hold is never granted.
        self.terms.unit.checked_mul(units).unwrap_or(Resources::ZERO)
    }
}

/// What a ledger is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// Set resources aside for `ttl`.
    Hold {
        /// The holder's name for it.
        id: ReservationId,
        /// What is asked for.
        terms: Terms,
        /// For how long without a refresh.
        ttl: Duration,
        /// Which request of the holder about this id: higher ones are newer.
        nonce: u32,
    },
    /// Agree to what is held.
    Confirm {
        /// Which.
        id: ReservationId,
        /// Which request about it.
        nonce: u32,
    },
    /// Keep it for its whole ttl from now.
    Refresh {
        /// Which.
        id: ReservationId,
        /// Which request about it.
        nonce: u32,
    },
    /// Give it back.
    Release {
        /// Which.
        id: ReservationId,
    },
    /// The holder asks nothing more about ids below this number.
    Settled {
        /// Whose numbers.
        holder: RegionId,
        /// The lowest number that may still be asked about.
        below: u64,
    },
    /// Count an instance that exists, whether it fits or not.
    Adopt {
        /// Which.
        id: InstanceId,
        /// What it uses.
        unit: Resources,
    },
    /// Set aside what one more instance uses, from now on without end.
    Occupy {
        /// Which.
        id: InstanceId,
        /// What it will use.
        unit: Resources,
    },
    /// Turn one unit of a firm, confirmed reservation into an instance.
    Place {
        /// Of which reservation.
        of: ReservationId,
        /// Which instance: a new one, or one that serves no other reservation.
        id: InstanceId,
    },
    /// The pool's capacity is now this. Nothing is revoked.
    Capacity(Resources),
    /// Time has passed.
    Tick,
}

/// What a ledger wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Output {
    /// Make this durable before what follows is carried out.
    Persist(Change),
    /// The answer to the input about this id, and the input's nonce.
    Reply(ReservationId, u32, Result<Granted, Error>),
    /// A firm reservation needs its room: its holder is to leave by then.
    Preempted {
        /// Which.
        id: ReservationId,
        /// When it must be given up; the part of the window before is the holder's.
        leave_by: Timestamp,
    },
    /// A reservation ended without its holder's doing: it was not refreshed, or its window is over.
    Lapsed(ReservationId),
}

/// A change of what is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// The reservation is now this.
    Live(Box<Reservation>),
    /// It ended; a remote id is spent.
    Ended(ReservationId),
    /// All ids of the holder below this number are spent, and those single ones need not be kept.
    LowWater {
        /// Whose.
        holder: RegionId,
        /// Below which number.
        below: u64,
        /// Spent ones that this covers.
        covers: Vec<u64>,
    },
}

/// A positive answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Granted {
    /// It stands, for this long from the moment at which the request was taken.
    Stands {
        /// How far it has come.
        phase: Phase,
        /// How long it stands without a refresh.
        ttl: Duration,
    },
    /// It is given back.
    Released,
}

/// A refusal. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// Does not fit now; it may later, or on one of the terms offered.
    #[error("{shortage}")]
    DoesNotFit {
        /// What is in the way.
        shortage: Box<Shortage>,
        /// What would fit, the most alike first.
        offers: Vec<Offer>,
    },
    /// The tenant has enough; it may give something back.
    #[error("tenant {tenant} may take {quota}: {shortage}")]
    OverQuota {
        /// Which tenant.
        tenant: TenantName,
        /// What it may take at any instant.
        quota: Box<Resources>,
        /// What is in the way.
        shortage: Box<Shortage>,
        /// What would fit.
        offers: Vec<Offer>,
    },
    /// What is asked for makes no sense. The same request never succeeds.
    #[error("{what}")]
    BadTerms {
        /// What is wrong, and what was wanted.
        what: String,
    },
    /// The id stands for other terms. Choose a new one.
    #[error("the id stands for another reservation; choose a new one")]
    Conflict,
    /// The id's reservation has ended. Choose a new one.
    #[error("the reservation of this id has ended; choose a new one")]
    Spent,
    /// No such reservation was ever held.
    #[error("there is no reservation of this id")]
    Unknown,
    /// The ledger is full; it may have room later.
    #[error("the ledger holds as many reservations as it may, and takes no more")]
    Full,
    /// The reservation has to be given up, or cannot be used like this.
    #[error("the reservation is not a firm and confirmed one with units left")]
    NotPlaceable,
}

/// Why something does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("{wanted} does not fit: of {capacity}, {promised} are promised at {at}")]
pub struct Shortage {
    /// What was asked for.
    pub wanted: Resources,
    /// What can be promised.
    pub capacity: Resources,
    /// What is promised at the first instant that is too full.
    pub promised: Resources,
    /// That instant.
    pub at: Timestamp,
}

/// Counts of one life of a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stats {
    /// Remote reservations that were granted.
    pub held: u64,
    /// Requests that were answered with offers instead.
    pub countered: u64,
    /// Requests that were refused without any.
    pub refused: u64,
    /// Reservations that their holders agreed to.
    pub confirmed: u64,
    /// Reservations that were given back.
    pub released: u64,
    /// Reservations that lapsed.
    pub lapsed: u64,
    /// Soft reservations that gave way.
    pub preempted: u64,
}
