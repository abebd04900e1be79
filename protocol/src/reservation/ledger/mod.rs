//! The owner's side: what a pool's capacity is promised to, at every instant of the future. The pool's owner
//! is its only writer.
//!
//! A reservation promises units of resources over a window of wall-clock time. Firm ones are guaranteed;
//! soft ones may be overbooked by a stated factor, and give way to firm ones with notice, the least
//! confident first. Each lapses when its holder does not refresh it, by the owner's monotonic clock. What
//! does not fit is answered with what would. The owner's own instances are reservations like any other.
//!
//! The rules are functions in [`invariants`]; where to read next: `holder` for the other side,
//! `timeline` for the sums.
//!
//! Two things that are easily got wrong:
//! - A window that is over takes no room, so nothing is gained by ending its reservation at once, and
//!   a wall clock that jumps would end it too early: it ends [`WALL_GUARD`] later.
//! - A request that is heard twice is answered twice. Its holder may count from the second sending, so the
//!   second hearing counts as a refresh, unless a newer request about the id was heard before.

pub mod invariants;
mod offers;
mod spent;
mod types;

pub use types::{Change, Config, Cut, Error, Granted, Input, Output, Reservation, Shortage, Stats};

use super::terms::{Now, Phase, ReservationId, Terms, Tier, Window};
use super::timeline::{Load, MAX_AMOUNT, Timeline};
use crate::{InstanceId, RegionId, Resources, TenantName, Timestamp};
use spent::{Raised, Spent};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

/// The most reservations of other regions in one ledger: at this many it was measured.
pub const MAX_RESERVATIONS: usize = 10_000;
/// The most holders of which spent ids are remembered: as many as a mesh has cards in one message.
pub const MAX_HOLDERS: usize = 500;
/// The highest overbooking: four times the capacity. Beyond, soft means nothing.
pub const MAX_OVERBOOKING: u32 = 4_000;
/// How long after its window a reservation ends. Two agents' wall clocks may differ by so much, one's jumps
/// included.
pub const WALL_GUARD: Duration = Duration::from_secs(60);
/// The shortest ttl: below, the holder's share of it is eaten by the pause guard.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// How far ahead a window may end.
pub const MAX_AHEAD: Duration = Duration::from_secs(366 * 86_400);
/// The most that one instance may use and still be counted exactly, where it is adopted unasked: 35 TB or 35
/// Tbit/s. So not even the sum of a hundred thousand wraps.
const MAX_ADOPTED: u64 = 1 << 45;

/// One pool's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    config: Config,
    overbooked: Resources,
    live: BTreeMap<ReservationId, Entry>,
    timeline: Timeline,
    /// Of tenants with a quota that have something.
    tenants: BTreeMap<TenantName, Timeline>,
    /// Soft ones that can give way, the first to do so first, and when they count.
    soft: BTreeMap<(super::terms::Confidence, Reverse<u64>, ReservationId), Window>,
    expiries: BTreeSet<(Duration, ReservationId)>,
    window_ends: BTreeSet<(Timestamp, ReservationId)>,
    holders: BTreeMap<RegionId, Spent>,
    /// How many of `live` are other regions'.
    remote: usize,
    next_sequence: u64,
    /// More was counted than fits, because it exists.
    stretched: bool,
    stats: Stats,
}

/// A reservation and what is not durable of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    reservation: Reservation,
    /// When it lapses, by the owner's uptime; none for an instance.
    expires: Option<Duration>,
    /// The newest request about it that was heard.
    nonce: u32,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(mut config: Config) -> Self {
        config.overbooking_per_mille = config.overbooking_per_mille.clamp(1_000, MAX_OVERBOOKING);
        config.max_ttl = config.max_ttl.max(MIN_TTL);
        config.capacity = bounded(config.capacity, MAX_AMOUNT);
        Self {
            overbooked: share(config.capacity, config.overbooking_per_mille),
            config,
            live: BTreeMap::new(),
            timeline: Timeline::default(),
            tenants: BTreeMap::new(),
            soft: BTreeMap::new(),
            expiries: BTreeSet::new(),
            window_ends: BTreeSet::new(),
            holders: BTreeMap::new(),
            remote: 0,
            next_sequence: 0,
            stretched: false,
            stats: Stats::default(),
        }
    }

    /// Takes in a change that was made durable in an earlier life: all of them in their order, or only the last
    /// of each id. Before the first input only.
    pub fn restore(&mut self, change: Change, now: Now) {
        match change {
            Change::Live(reservation) => {
                self.next_sequence = self.next_sequence.max(reservation.sequence.saturating_add(1));
                self.take_out(&reservation.id);
                let expires = now.uptime.saturating_add(reservation.ttl);
                self.put_in(*reservation, expires, 0);
                self.note_stretch();
            }
            Change::Ended(id) => {
                self.take_out(&id);
                if let ReservationId::Remote { holder, number } = id {
                    let _ = self.holders.entry(holder).or_default().insert(number);
                }
            }
            Change::LowWater { holder, below, covers: _ } => {
                let _ = self.holders.entry(holder).or_default().raise(below);
            }
        }
    }

    /// Takes an input in; what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = vec![];
        self.lapse(now, &mut out);
        match input {
            Input::Hold { id, terms, ttl, nonce } => {
                let answer = self.hold(&id, terms, ttl, nonce, now, &mut out);
                self.count(&answer);
                out.push(Output::Reply(id, nonce, answer));
            }
            Input::Confirm { id, nonce } => {
                let answer = self.confirm(&id, nonce, now, &mut out);
                out.push(Output::Reply(id, nonce, answer));
            }
            Input::Refresh { id, nonce } => {
                let answer = self.refresh(&id, nonce, now);
                out.push(Output::Reply(id, nonce, answer));
            }
            Input::Release { id } => {
                self.release(&id, &mut out);
                out.push(Output::Reply(id, 0, Ok(Granted::Released)));
            }
            Input::Settled { holder, below } => {
                let raised = self.holders.get_mut(&holder).and_then(|spent| spent.settle(below));
                out.extend(raised.map(|raised| low_water(holder, raised)));
            }
            Input::Adopt { id, unit } => self.adopt(id, unit, now, &mut out),
            Input::Occupy { id, unit } => {
                let answer = self.occupy(&id, unit, now, &mut out);
                out.push(Output::Reply(ReservationId::Instance(id), 0, answer));
            }
            Input::Place { of, id } => {
                let answer = self.place(&of, &id, now, &mut out);
                out.push(Output::Reply(ReservationId::Instance(id), 0, answer));
            }
            Input::Capacity(capacity) => {
                self.config.capacity = bounded(capacity, MAX_AMOUNT);
                self.overbooked = share(self.config.capacity, self.config.overbooking_per_mille);
                self.stretched = true;
            }
            Input::Tick => {}
        }
        self.note_stretch();
        out
    }

    /// How long until a tick is due, and why. Ticks may come late: what lapsed takes room until then, and no more.
    pub fn next_deadline(&self, now: Now) -> Option<(Duration, &'static str)> {
        let expiry = self.expiries.first().map(|(at, _)| (at.saturating_sub(now.uptime), "a reservation is not refreshed"));
        let over = self.window_ends.first().map(|(at, _)| (at.after(WALL_GUARD).since(now.wall), "a reservation's window is over"));
        expiry.into_iter().chain(over).min()
    }

    /// All reservations that stand, ascending by id.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.live.values().map(|entry| &entry.reservation)
    }

    /// How many reservations of other regions stand.
    pub fn reservations_of_others(&self) -> usize {
        self.remote
    }

    /// The reservation of this id.
    pub fn get(&self, id: &ReservationId) -> Option<&Reservation> {
        self.live.get(id).map(|entry| &entry.reservation)
    }

    /// How long from `now` it stands without a refresh; none for instances, and for what does not stand.
    pub fn remaining(&self, id: &ReservationId, now: Now) -> Option<Duration> {
        self.live.get(id)?.expires.map(|at| at.saturating_sub(now.uptime))
    }

    /// The newest request about it that was heard in this life; none for what does not stand.
    pub fn heard(&self, id: &ReservationId) -> Option<u32> {
        self.live.get(id).map(|entry| entry.nonce)
    }

    /// Whether the id has ended, or counts as such.
    pub fn is_spent(&self, id: &ReservationId) -> bool {
        matches!(id, ReservationId::Remote { holder, number } if self.holders.get(holder).is_some_and(|spent| spent.contains(*number)))
    }

    /// What is promised firmly and altogether at `at`.
    pub fn promised(&self, at: Timestamp) -> (Resources, Resources) {
        let level = self.timeline.peak(Window::of(at, Duration::from_millis(1)));
        (level.firm_part(), level.all_part())
    }

    /// What it grants by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What was counted in this life.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn hold(
        &mut self,
        id: &ReservationId,
        terms: Terms,
        ttl: Duration,
        nonce: u32,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<Granted, Error> {
        if let Some(known) = self.live.get(id) {
            return if known.reservation.terms == terms { self.refresh(id, nonce, now) } else { Err(Error::Conflict) };
        }
        let ReservationId::Remote { holder, number } = id else {
            return Err(Error::BadTerms { what: "an instance is occupied or placed, not held".into() });
        };
        let spent = self.holders.get(holder);
        if spent.is_some_and(|spent| spent.contains(*number)) {
            return Err(Error::Spent);
        }
        check(&terms, now)?;
        if self.remote >= MAX_RESERVATIONS || (spent.is_none() && self.holders.len() >= MAX_HOLDERS) {
            return Err(Error::Full);
        }
        self.fits(&terms).map_err(|error| self.with_offers(error, &terms))?;
        let total = terms.total().unwrap_or(Resources::ZERO);
        if terms.tier == Tier::Firm {
            self.preempt_for(terms.window, total, now, out);
        }
        let ttl = ttl.clamp(MIN_TTL, self.config.max_ttl);
        self.grant(id.clone(), terms, Phase::Held, None, (ttl, nonce, now), out);
        Ok(Granted::Stands { phase: Phase::Held, ttl })
    }

    fn confirm(&mut self, id: &ReservationId, nonce: u32, now: Now, out: &mut Vec<Output>) -> Result<Granted, Error> {
        let Some(entry) = self.live.get_mut(id) else { return Err(self.absent(id)) };
        if entry.reservation.phase == Phase::Held {
            entry.reservation.phase = Phase::Confirmed;
            out.push(Output::Persist(Change::Live(Box::new(entry.reservation.clone()))));
            self.stats.confirmed += 1;
        }
        self.refresh(id, nonce, now)
    }

    fn refresh(&mut self, id: &ReservationId, nonce: u32, now: Now) -> Result<Granted, Error> {
        let Some(entry) = self.live.get_mut(id) else { return Err(self.absent(id)) };
        let Reservation { phase, ttl, .. } = entry.reservation;
        // An older request was sent before, so its holder counts from an earlier moment: it needs nothing more.
        if let Some(expires) = entry.expires.filter(|_| nonce > entry.nonce) {
            entry.nonce = nonce;
            let later = expires.max(now.uptime.saturating_add(ttl));
            entry.expires = Some(later);
            self.expiries.remove(&(expires, id.clone()));
            self.expiries.insert((later, id.clone()));
        }
        Ok(Granted::Stands { phase, ttl })
    }

    fn absent(&self, id: &ReservationId) -> Error {
        if self.is_spent(id) { Error::Spent } else { Error::Unknown }
    }

    /// Gives back what stands. An id that does not is spent all the same: its hold may still be on the way.
    fn release(&mut self, id: &ReservationId, out: &mut Vec<Output>) {
        if self.live.contains_key(id) {
            self.stats.released += 1;
            self.end(id, out);
        } else if let ReservationId::Remote { holder, number } = id
            && (self.holders.contains_key(holder) || self.holders.len() < MAX_HOLDERS)
            && !self.holders.get(holder).is_some_and(|spent| spent.contains(*number))
        {
            self.spend(id, out);
        }
    }

    fn adopt(&mut self, id: InstanceId, unit: Resources, now: Now, out: &mut Vec<Output>) {
        let name = ReservationId::Instance(id);
        let unit = bounded(unit, MAX_ADOPTED);
        let known = self.live.get(&name).map(|entry| &entry.reservation);
        let counts = |r: &&Reservation| r.terms.unit == unit && r.counted().contains(now.wall);
        if known.filter(counts).is_some() {
            return;
        }
        let from = known.map_or(now.wall, |reservation| reservation.terms.window.from.min(now.wall));
        self.end(&name, out);
        self.grant(name, own(unit, Window::since(from)), Phase::Confirmed, None, (Duration::MAX, 0, now), out);
        self.stretched = true;
    }

    fn occupy(&mut self, id: &InstanceId, unit: Resources, now: Now, out: &mut Vec<Output>) -> Result<Granted, Error> {
        let name = ReservationId::Instance(id.clone());
        let stands = Granted::Stands { phase: Phase::Confirmed, ttl: Duration::MAX };
        if self.live.contains_key(&name) {
            return Ok(stands);
        }
        let terms = own(unit, Window::since(now.wall));
        self.fits(&terms)?;
        self.preempt_for(terms.window, unit, now, out);
        self.grant(name, terms, Phase::Confirmed, None, (Duration::MAX, 0, now), out);
        Ok(stands)
    }

    fn place(&mut self, of: &ReservationId, id: &InstanceId, now: Now, out: &mut Vec<Output>) -> Result<Granted, Error> {
        let name = ReservationId::Instance(id.clone());
        let stands = Granted::Stands { phase: Phase::Confirmed, ttl: Duration::MAX };
        let known = self.live.get(&name).map(|entry| &entry.reservation);
        if known.is_some_and(|known| known.serves.is_some()) {
            return Ok(stands);
        }
        let exists = known.map(|known| known.terms.unit);
        let Some(entry) = self.live.get(of) else { return Err(self.absent(of)) };
        let before = &entry.reservation;
        let usable = before.phase == Phase::Confirmed && before.terms.tier == Tier::Firm && before.placed < before.terms.units;
        if !usable || before.terms.window.until <= now.wall {
            return Err(Error::NotPlaceable);
        }
        let (unit, window) = (before.terms.unit, before.terms.window);
        if exists.is_some_and(|exists| exists != unit) {
            return Err(Error::NotPlaceable);
        }
        if exists.is_some() {
            // It counts from before, and from now on no longer than it serves.
            self.take_out(&name);
        } else if now.wall < window.from {
            // What it takes before its window is not promised yet.
            let early = own(unit, Window { from: now.wall, until: window.from });
            self.fits(&early)?;
            self.preempt_for(early.window, unit, now, out);
        }
        self.set_placed(of, 1, out);
        let whole = Window { from: now.wall.min(window.from), until: window.until };
        self.grant(name, own(unit, whole), Phase::Confirmed, Some(of.clone()), (Duration::MAX, 0, now), out);
        Ok(stands)
    }

    /// Counts so many more of a reservation's units as instances.
    fn set_placed(&mut self, id: &ReservationId, more: i32, out: &mut Vec<Output>) {
        let Some(Entry { mut reservation, expires, nonce }) = self.take_out(id) else { return };
        reservation.placed = reservation.placed.saturating_add_signed(more).min(reservation.terms.units);
        out.push(Output::Persist(Change::Live(Box::new(reservation.clone()))));
        self.put_in(reservation, expires.unwrap_or(Duration::MAX), nonce);
    }

    fn grant(
        &mut self,
        id: ReservationId,
        terms: Terms,
        phase: Phase,
        serves: Option<ReservationId>,
        (ttl, nonce, now): (Duration, u32, Now),
        out: &mut Vec<Output>,
    ) {
        let reservation = Reservation { id, terms, phase, ttl, placed: 0, serves, cut: None, sequence: self.next_sequence };
        self.next_sequence += 1;
        out.push(Output::Persist(Change::Live(Box::new(reservation.clone()))));
        self.put_in(reservation, now.uptime.saturating_add(ttl), nonce);
    }

    /// Ends what stands.
    fn end(&mut self, id: &ReservationId, out: &mut Vec<Output>) {
        let Some(Entry { reservation, .. }) = self.take_out(id) else { return };
        self.spend(id, out);
        if let Some(served) = reservation.serves {
            self.set_placed(&served, -1, out);
        }
    }

    fn spend(&mut self, id: &ReservationId, out: &mut Vec<Output>) {
        out.push(Output::Persist(Change::Ended(id.clone())));
        if let ReservationId::Remote { holder, number } = id {
            let raised = self.holders.entry(holder.clone()).or_default().insert(*number);
            out.extend(raised.map(|raised| low_water(holder.clone(), raised)));
        }
    }

    /// Ends what was not refreshed and what is long over.
    fn lapse(&mut self, now: Now, out: &mut Vec<Output>) {
        loop {
            let expired = self.expiries.first().filter(|(at, _)| *at <= now.uptime).map(|(_, id)| id);
            let over = || self.window_ends.first().filter(|(at, _)| at.after(WALL_GUARD) <= now.wall).map(|(_, id)| id);
            let Some(id) = expired.or_else(over).cloned() else { return };
            self.end(&id, out);
            self.stats.lapsed += 1;
            out.push(Output::Lapsed(id));
        }
    }

    /// Ends or shortens soft reservations until firm `total` fits in beside the rest throughout `window`. The
    /// least confident give way first, of equals the newest, and only where it helps.
    fn preempt_for(&mut self, window: Window, total: Resources, now: Now, out: &mut Vec<Output>) {
        let room = Load::room_for_all(self.overbooked).beside(Load::soft(total));
        let mut after = Bound::Unbounded;
        // One that is over before the first instant at which too much is promised does not help.
        while let Some((excess, _)) = self.timeline.first_excess(window, &room) {
            let helps = |counted: &Window| {
                counted.until > excess
                    && counted.intersection(&window).is_some_and(|both| self.timeline.first_excess(both, &room).is_some())
            };
            let mut candidates = self.soft.range((after, Bound::Unbounded));
            let Some((next, _)) = candidates.find(|(_, counted)| helps(counted)) else { return };
            let next = next.clone();
            self.give_way(&next.2, window.from, now, out);
            after = Bound::Excluded(next);
        }
    }

    /// A soft reservation no longer counts from `from` on, and is to be left by then, or after the notice where that
    /// is later.
    fn give_way(&mut self, id: &ReservationId, from: Timestamp, now: Now, out: &mut Vec<Output>) {
        let Some(Entry { mut reservation, expires, nonce }) = self.take_out(id) else { return };
        let leave_by = from.max(now.wall.after(self.config.notice)).min(reservation.leave_by());
        self.stats.preempted += 1;
        if leave_by <= reservation.terms.window.from.max(now.wall) {
            self.spend(id, out);
        } else {
            reservation.phase = Phase::Leaving;
            reservation.cut = Some(Cut { counted_until: from, leave_by });
            out.push(Output::Persist(Change::Live(Box::new(reservation.clone()))));
            self.put_in(reservation, expires.unwrap_or(Duration::MAX), nonce);
        }
        out.push(Output::Preempted { id: id.clone(), leave_by });
    }

    /// Whether `terms` may be granted: firm ones beside all firm ones, soft ones beside everything, and each
    /// within its tenant's quota.
    fn fits(&self, terms: &Terms) -> Result<(), Error> {
        let (capacity, load) = match terms.tier {
            Tier::Firm => (self.config.capacity, Load::firm as fn(Resources) -> Load),
            Tier::Soft => (self.overbooked, Load::soft as fn(Resources) -> Load),
        };
        let refusal = |at, promised| {
            let wanted = terms.total().unwrap_or(terms.unit);
            Err(Error::DoesNotFit { shortage: Box::new(Shortage { wanted, capacity, promised, at }), offers: vec![] })
        };
        // A sum beyond what numbers can hold is beyond any capacity.
        let Some(total) = terms.total().filter(|total| total.fits_in(capacity)) else {
            return refusal(terms.window.from, self.promised_to(terms.tier, terms.window.from));
        };
        let room = self.room(terms.tier).beside(load(total));
        if let Some((at, level)) = self.timeline.first_excess(terms.window, &room) {
            let promised = match terms.tier {
                Tier::Firm => level.firm_part(),
                Tier::Soft => level.all_part(),
            };
            return refusal(at, promised);
        }
        self.within_quota(terms, total)
    }

    fn within_quota(&self, terms: &Terms, total: Resources) -> Result<(), Error> {
        let Some(quota) = self.quota(&terms.tenant) else { return Ok(()) };
        let room = Load::room_for_all(quota).beside(Load::soft(total));
        let taken = match self.tenants.get(&terms.tenant) {
            Some(timeline) => timeline.first_excess(terms.window, &room),
            None => (!Load::ZERO.fits(&room)).then_some((terms.window.from, Load::ZERO)),
        };
        let Some((at, level)) = taken else { return Ok(()) };
        let shortage = Shortage { wanted: total, capacity: quota, promised: level.all_part(), at };
        Err(Error::OverQuota { tenant: terms.tenant.clone(), quota: Box::new(quota), shortage: Box::new(shortage), offers: vec![] })
    }

    /// What the tenant may take at any instant, if that is limited.
    pub(super) fn quota(&self, tenant: &TenantName) -> Option<Resources> {
        let per_mille = self.config.quotas.get(tenant).copied().or(self.config.default_quota_per_mille)?;
        Some(share(self.config.capacity, per_mille))
    }

    fn room(&self, tier: Tier) -> Load {
        match tier {
            // Soft ones give way.
            Tier::Firm => Load::room_for_firm(self.config.capacity),
            Tier::Soft => Load::room_for_all(self.overbooked),
        }
    }

    fn promised_to(&self, tier: Tier, at: Timestamp) -> Resources {
        let (firm, all) = self.promised(at);
        match tier {
            Tier::Firm => firm,
            Tier::Soft => all,
        }
    }

    fn take_out(&mut self, id: &ReservationId) -> Option<Entry> {
        let entry = self.live.remove(id)?;
        let reservation = &entry.reservation;
        let (window, load) = (reservation.counted(), load_of(reservation));
        self.timeline.remove(window, load);
        if !id.is_instance() {
            self.remote -= 1;
            if let Some(timeline) = self.tenants.get_mut(&reservation.terms.tenant) {
                timeline.remove(window, load);
                if timeline.is_empty() {
                    self.tenants.remove(&reservation.terms.tenant);
                }
            }
            self.window_ends.remove(&(reservation.leave_by(), id.clone()));
        }
        if let Some(expires) = entry.expires {
            self.expiries.remove(&(expires, id.clone()));
        }
        self.soft.remove(&(reservation.terms.confidence, Reverse(reservation.sequence), id.clone()));
        Some(entry)
    }

    fn put_in(&mut self, reservation: Reservation, expires: Duration, nonce: u32) {
        let id = reservation.id.clone();
        let (window, load) = (reservation.counted(), load_of(&reservation));
        self.timeline.add(window, load);
        let expires = match &id {
            ReservationId::Instance(_) => None,
            ReservationId::Remote { holder, .. } => {
                self.remote += 1;
                self.holders.entry(holder.clone()).or_default();
                if self.quota(&reservation.terms.tenant).is_some() {
                    self.tenants.entry(reservation.terms.tenant.clone()).or_default().add(window, load);
                }
                self.window_ends.insert((reservation.leave_by(), id.clone()));
                self.expiries.insert((expires, id.clone()));
                Some(expires)
            }
        };
        if reservation.terms.tier == Tier::Soft && !window.is_empty() {
            self.soft.insert((reservation.terms.confidence, Reverse(reservation.sequence), id.clone()), window);
        }
        self.live.insert(id, Entry { reservation, expires, nonce });
    }

    /// Whether more is counted than fits, which only what exists, or a capacity that shrank, can bring about.
    fn note_stretch(&mut self) {
        if self.stretched {
            let everything =
                Window { from: Timestamp::saturating_from_millis(i64::MIN), until: Timestamp::saturating_from_millis(i64::MAX) };
            self.stretched = self.timeline.first_excess(everything, &Load::room(self.config.capacity, self.overbooked)).is_some();
        }
    }

    fn count(&mut self, answer: &Result<Granted, Error>) {
        match answer {
            Ok(_) => self.stats.held += 1,
            Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. }) if !offers.is_empty() => self.stats.countered += 1,
            Err(_) => self.stats.refused += 1,
        }
    }
}

fn load_of(reservation: &Reservation) -> Load {
    match reservation.terms.tier {
        Tier::Firm => Load::firm(reservation.amount()),
        Tier::Soft => Load::soft(reservation.amount()),
    }
}

fn low_water(holder: RegionId, Raised { below, covers }: Raised) -> Output {
    Output::Persist(Change::LowWater { holder, below, covers })
}

/// The terms of one of the owner's own instances.
fn own(unit: Resources, window: Window) -> Terms {
    Terms { tenant: TenantName::default(), unit, units: 1, window, tier: Tier::Firm, confidence: super::terms::Confidence::CERTAIN }
}

/// Whether terms make sense at all.
fn check(terms: &Terms, now: Now) -> Result<(), Error> {
    let window = terms.window;
    let what = if window.is_empty() || window.until <= now.wall {
        format!("the window {window} must not be empty or over; it is {} here", now.wall)
    } else if window.until > now.wall.after(MAX_AHEAD) {
        format!("the window {window} must end within {} days", MAX_AHEAD.as_secs() / 86_400)
    } else if terms.units == 0 || terms.unit == Resources::ZERO {
        format!("{} units of {} are nothing to hold; ask for one at least", terms.units, terms.unit)
    } else {
        return Ok(());
    };
    Err(Error::BadTerms { what })
}

/// Each kind at most `most`.
fn bounded(amount: Resources, most: u64) -> Resources {
    map(amount, |amount| amount.min(most))
}

/// So many thousandths of it, rounded down.
fn share(amount: Resources, per_mille: u32) -> Resources {
    map(amount, |amount| u64::try_from(u128::from(amount) * u128::from(per_mille) / 1_000).unwrap_or(u64::MAX).min(MAX_AMOUNT))
}

fn map(amount: Resources, f: impl Fn(u64) -> u64) -> Resources {
    Resources {
        cpu_millis: f(amount.cpu_millis),
        memory_bytes: f(amount.memory_bytes),
        storage_bytes: f(amount.storage_bytes),
        storage_iops: f(amount.storage_iops),
        bandwidth_bps: f(amount.bandwidth_bps),
    }
}

#[cfg(test)]
mod tests;
