//! What a pool's capacity is promised to. Pure; the pool's owner is its only writer.
//!
//! A reservation promises resources over a window of time to whoever made it. Firm ones are
//! guaranteed; soft ones may be overbooked by a stated factor, and give way to firm ones. Each also
//! lapses when its holder does not refresh it. Times are on the owner's clock alone: holders name
//! durations.
//!
//! Invariants, checked after every input in tests:
//!
//! - R1 at every instant, all firm reservations together fit into the capacity, as far as the ledger
//!   granted them: what exists anyway ([`Input::Adopt`]) is counted even where it does not fit;
//! - R1s firm and soft together fit into the overbooked capacity, likewise;
//! - R3 an id consumes capacity at most once: after its reservation ended it is spent, and a late
//!   repetition of the request is refused;
//! - R4 a reservation that was not refreshed no longer counts from the moment it lapses;
//! - R5 a firm reservation is never revoked by the owner.

use crate::marks::bug;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tradewind_protocol::{InstanceId, Resources, Timestamp};

/// The most reservations of one pool: more than a pool has instances, and a bound on what one
/// request may cost to check (milliseconds).
pub const MAX_RESERVATIONS: usize = 10_000;
/// How long a spent id is remembered: longer than any message of its holder can be under way.
pub const SPENT_FOR: Duration = Duration::from_secs(3_600);
/// How many spent ids are remembered; beyond, the oldest are forgotten first.
pub const MAX_SPENT: usize = 10_000;

/// Names a reservation: chosen by its holder, never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(String);

impl ReservationId {
    /// The id that a local instance holds its resources under.
    pub fn of_instance(id: &InstanceId) -> Self {
        Self(format!("instance/{id}"))
    }

    /// Whether it is a local instance's.
    pub(crate) fn is_instance(&self) -> bool {
        self.0.starts_with("instance/")
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How sure a reservation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Guaranteed while it is refreshed.
    Firm,
    /// Overbooked, and preempted by firm ones.
    Soft,
}

/// A span of time: `from` is inside, `until` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    fn overlaps(&self, other: &Window) -> bool {
        self.from < other.until && other.from < self.until
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How much.
    pub resources: Resources,
    /// When.
    pub window: Window,
    /// How surely.
    pub tier: Tier,
}

/// How far an agreement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Set aside until the holder decides.
    Held,
    /// Agreed.
    Confirmed,
}

/// One reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Whose name it has.
    pub id: ReservationId,
    /// What was granted.
    pub terms: Terms,
    /// How far it has come.
    pub phase: Phase,
    /// When it lapses unless it is refreshed.
    pub expires: Timestamp,
    /// Counts the grants of this ledger: who was there first.
    pub sequence: u64,
}

impl Reservation {
    fn ends(&self) -> Timestamp {
        self.expires.min(self.terms.window.until)
    }
}

/// What a ledger is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Set resources aside for `ttl`.
    Hold {
        /// The holder's name for it.
        id: ReservationId,
        /// What is asked for.
        terms: Terms,
        /// For how long without a refresh.
        ttl: Duration,
    },
    /// Agree to what is held, and keep it for `ttl`.
    Confirm {
        /// Which.
        id: ReservationId,
        /// For how long without a refresh.
        ttl: Duration,
    },
    /// Keep it for at least `ttl` from now.
    Refresh {
        /// Which.
        id: ReservationId,
        /// For how long without another refresh.
        ttl: Duration,
    },
    /// Give it back.
    Release {
        /// Which.
        id: ReservationId,
    },
    /// Count something that exists, whether it fits or not.
    Adopt {
        /// Its name.
        id: ReservationId,
        /// What it uses.
        resources: Resources,
    },
    /// The pool's capacity is now this. Nothing is revoked.
    Capacity(Resources),
    /// Time has passed.
    Tick,
}

/// What a ledger wants done, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Make this durable before what follows is carried out.
    Persist(Change),
    /// The answer to the input.
    Reply(ReservationId, Result<Granted, Error>),
    /// A reservation ended without its holder's doing; the holder is to be told.
    Ended(ReservationId, Why),
}

/// A change of one entry, to be made durable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The reservation is now this.
    Live(Reservation),
    /// The id is spent since then.
    Spent(ReservationId, Timestamp),
    /// Nothing needs to be known of the id.
    Forgotten(ReservationId),
}

/// A positive answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Granted {
    /// It stands, until this time at least.
    Stands(Phase, Timestamp),
    /// It is given back.
    Released,
}

/// Why a reservation ended without its holder's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It was not refreshed, or its window is over.
    Lapsed,
    /// A firm reservation needed its room.
    Preempted,
}

/// A refusal. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Error {
    /// Does not fit now; it may later.
    #[error("{0}")]
    DoesNotFit(Box<Shortage>),
    /// The window is empty or over. The same request never succeeds.
    #[error("the window from {from} until {until} must not be empty or over")]
    BadWindow {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// The id stands for other terms. Choose a new one.
    #[error("the id stands for another reservation; choose a new one")]
    Conflict,
    /// The id's reservation has ended. Choose a new one.
    #[error("the reservation of this id has ended; choose a new one")]
    Spent,
    /// No such reservation was ever held, or so long ago that it is forgotten.
    #[error("there is no reservation of this id")]
    Unknown,
    /// The ledger is full; it may have room later.
    #[error("the ledger holds {MAX_RESERVATIONS} reservations and takes no more")]
    Full,
}

/// Why something does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
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

/// One pool's ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    capacity: Resources,
    overbooked: Resources,
    overbooking_per_mille: u32,
    live: BTreeMap<ReservationId, Reservation>,
    spent: BTreeMap<ReservationId, Timestamp>,
    next_sequence: u64,
}

impl Ledger {
    /// An empty ledger over `capacity`, of which `overbooking_per_mille` thousandths (at least 1000)
    /// may be promised when soft reservations are counted as well.
    pub fn new(capacity: Resources, overbooking_per_mille: u32) -> Self {
        let overbooking_per_mille = overbooking_per_mille.max(1_000);
        Self {
            capacity,
            overbooked: overbook(capacity, overbooking_per_mille),
            overbooking_per_mille,
            live: BTreeMap::new(),
            spent: BTreeMap::new(),
            next_sequence: 0,
        }
    }

    /// Takes in an entry that was made durable earlier. Before the first input only.
    pub fn restore(&mut self, change: Change) {
        match change {
            Change::Live(reservation) => {
                self.next_sequence = self.next_sequence.max(reservation.sequence + 1);
                self.live.insert(reservation.id.clone(), reservation);
            }
            Change::Spent(id, at) => drop(self.spent.insert(id, at)),
            Change::Forgotten(_) => {}
        }
    }

    /// Takes an input in; what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        let mut out = vec![];
        self.lapse(now, &mut out);
        match input {
            Input::Hold { id, terms, ttl } => {
                let answer = self.hold(&id, terms, ttl, now, &mut out);
                out.push(Output::Reply(id, answer));
            }
            Input::Confirm { id, ttl } => {
                let answer = self.amend(&id, &mut out, |reservation| {
                    if reservation.phase == Phase::Held {
                        reservation.phase = Phase::Confirmed;
                        reservation.expires = now.after(ttl);
                    }
                });
                out.push(Output::Reply(id, answer));
            }
            Input::Refresh { id, ttl } => {
                let answer = self.amend(&id, &mut out, |reservation| reservation.expires = reservation.expires.max(now.after(ttl)));
                out.push(Output::Reply(id, answer));
            }
            Input::Release { id } => {
                // Also when it is unknown: its hold may still be on the way.
                if !self.spent.contains_key(&id) {
                    self.live.remove(&id);
                    self.spend(id.clone(), now, &mut out);
                }
                out.push(Output::Reply(id, Ok(Granted::Released)));
            }
            Input::Adopt { id, resources } => self.adopt(id, resources, now, &mut out),
            Input::Capacity(capacity) => {
                self.capacity = capacity;
                self.overbooked = overbook(capacity, self.overbooking_per_mille);
            }
            Input::Tick => {}
        }
        out
    }

    /// When a tick is due, and why.
    pub fn next_deadline(&self) -> Option<(Timestamp, &'static str)> {
        self.live.values().map(Reservation::ends).min().map(|at| (at, "a reservation lapses"))
    }

    /// All reservations that stand, ascending by id.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.live.values()
    }

    /// Whether `id` stands.
    pub fn stands(&self, id: &ReservationId) -> bool {
        self.live.contains_key(id)
    }

    fn hold(&mut self, id: &ReservationId, terms: Terms, ttl: Duration, now: Timestamp, out: &mut Vec<Output>) -> Result<Granted, Error> {
        if let Some(known) = self.live.get(id) {
            let same = known.terms == terms;
            return if same { Ok(Granted::Stands(known.phase, known.expires)) } else { Err(Error::Conflict) };
        }
        if self.spent.contains_key(id) {
            return Err(Error::Spent);
        }
        if terms.window.from >= terms.window.until || terms.window.until <= now {
            return Err(Error::BadWindow { from: terms.window.from, until: terms.window.until });
        }
        if self.live.len() >= MAX_RESERVATIONS {
            return Err(Error::Full);
        }
        match terms.tier {
            Tier::Firm => {
                if !bug!("hold-always-fits") {
                    self.fits(&terms, self.capacity, |tier| tier == Tier::Firm)?;
                }
                self.preempt_for(&terms, now, out);
            }
            Tier::Soft => self.fits(&terms, self.overbooked, |_| true)?,
        }
        let expires = now.after(ttl);
        self.put(id.clone(), terms, Phase::Held, expires, out);
        Ok(Granted::Stands(Phase::Held, expires))
    }

    fn amend(&mut self, id: &ReservationId, out: &mut Vec<Output>, change: impl FnOnce(&mut Reservation)) -> Result<Granted, Error> {
        let unknown = if self.spent.contains_key(id) { Error::Spent } else { Error::Unknown };
        let reservation = self.live.get_mut(id).ok_or(unknown)?;
        let before = reservation.clone();
        change(reservation);
        if *reservation != before {
            out.push(Output::Persist(Change::Live(reservation.clone())));
        }
        Ok(Granted::Stands(reservation.phase, reservation.expires))
    }

    fn adopt(&mut self, id: ReservationId, resources: Resources, now: Timestamp, out: &mut Vec<Output>) {
        let known = self.live.get(&id).map(|reservation| reservation.terms);
        if known.is_some_and(|terms| terms.resources == resources) {
            return;
        }
        self.spent.remove(&id);
        let terms = known.unwrap_or(Terms { resources, window: Window::since(now), tier: Tier::Firm });
        let forever = Window::since(now).until;
        self.put(id, Terms { resources, ..terms }, Phase::Confirmed, forever, out);
    }

    fn put(&mut self, id: ReservationId, terms: Terms, phase: Phase, expires: Timestamp, out: &mut Vec<Output>) {
        let reservation = Reservation { id: id.clone(), terms, phase, expires, sequence: self.next_sequence };
        self.next_sequence += 1;
        out.push(Output::Persist(Change::Live(reservation.clone())));
        self.live.insert(id, reservation);
    }

    /// Ends what was not refreshed, and forgets what was spent long ago.
    fn lapse(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let lapsed: Vec<ReservationId> = self.live.values().filter(|r| r.ends() <= now).map(|r| r.id.clone()).collect();
        for id in lapsed {
            self.live.remove(&id);
            self.spend(id.clone(), now, out);
            out.push(Output::Ended(id, Why::Lapsed));
        }
        let old: Vec<ReservationId> = self.spent.iter().filter(|(_, at)| at.after(SPENT_FOR) <= now).map(|(id, _)| id.clone()).collect();
        for id in old {
            self.spent.remove(&id);
            out.push(Output::Persist(Change::Forgotten(id)));
        }
    }

    fn spend(&mut self, id: ReservationId, now: Timestamp, out: &mut Vec<Output>) {
        if self.spent.len() >= MAX_SPENT
            && let Some(oldest) = self.spent.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())
        {
            self.spent.remove(&oldest);
            out.push(Output::Persist(Change::Forgotten(oldest)));
        }
        out.push(Output::Persist(Change::Spent(id.clone(), now)));
        self.spent.insert(id, now);
    }

    /// Ends soft reservations, the newest first, until firm `terms` fit in beside the rest.
    fn preempt_for(&mut self, terms: &Terms, now: Timestamp, out: &mut Vec<Output>) {
        while self.fits(terms, self.overbooked, |_| true).is_err() {
            let soft = self.live.values().filter(|r| r.terms.tier == Tier::Soft && r.terms.window.overlaps(&terms.window));
            // Without soft ones in the way, what fits into the capacity fits into the overbooked one.
            let Some(id) = soft.max_by_key(|r| r.sequence).map(|r| r.id.clone()) else { return };
            self.live.remove(&id);
            self.spend(id.clone(), now, out);
            out.push(Output::Ended(id, Why::Preempted));
        }
    }

    /// Whether `terms` fit into `capacity` at every instant of their window, beside the reservations
    /// of the tiers that count. One sweep over the instants at which anything begins or ends.
    fn fits(&self, terms: &Terms, capacity: Resources, counts: impl Fn(Tier) -> bool) -> Result<(), Error> {
        let refusal = |promised, at| Err(Error::DoesNotFit(Box::new(Shortage { wanted: terms.resources, capacity, promised, at })));
        let mut edges = vec![];
        for other in self.live.values().filter(|r| counts(r.terms.tier) && r.terms.window.overlaps(&terms.window)) {
            // Ends sort before beginnings: windows that touch do not overlap.
            edges.push((other.terms.window.from.max(terms.window.from), true, other.terms.resources));
            edges.push((other.terms.window.until.min(terms.window.until), false, other.terms.resources));
        }
        edges.sort_by_key(|(at, begins, _)| (*at, *begins));
        let mut promised = Resources::ZERO;
        if !terms.resources.fits_in(capacity) {
            return refusal(promised, terms.window.from);
        }
        for (at, begins, resources) in edges {
            if !begins {
                promised = promised.checked_sub(resources).unwrap_or(Resources::ZERO);
                continue;
            }
            // A sum beyond what numbers can hold is beyond any capacity.
            let Some(sum) = promised.checked_add(resources) else { return refusal(promised, at) };
            promised = sum;
            if !sum.checked_add(terms.resources).is_some_and(|all| all.fits_in(capacity)) {
                return refusal(promised, at);
            }
        }
        Ok(())
    }
}

fn overbook(capacity: Resources, per_mille: u32) -> Resources {
    let scale = |amount: u64| u64::try_from(u128::from(amount) * u128::from(per_mille) / 1_000).unwrap_or(u64::MAX);
    Resources {
        cpu_millis: scale(capacity.cpu_millis),
        memory_bytes: scale(capacity.memory_bytes),
        storage_bytes: scale(capacity.storage_bytes),
        storage_iops: scale(capacity.storage_iops),
        bandwidth_bps: scale(capacity.bandwidth_bps),
    }
}

#[cfg(test)]
mod tests;
