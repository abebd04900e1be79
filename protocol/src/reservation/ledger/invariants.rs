//! The ledger's rules, each a function that says how it is broken.
//!
//! [`check`] judges one ledger as it stands, from its reservations alone, with none of the ledger's own sums:
//! property tests, the model checker and the simulator run it after every step. The rules about time
//! (R2 to R5) need to know what was said and when; [`Promise`] is that, kept by whoever watches.

use super::{Ledger, WALL_GUARD, share};
use crate::reservation::terms::{Now, Phase, ReservationId, Terms, Tier};
use crate::{Resources, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// A broken rule: its name, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Broken {
    /// R1 to R6, or what the ledger keeps by itself.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

fn broken<T>(rule: &'static str, what: String) -> Result<T, Broken> {
    Err(Broken { rule, what })
}

/// Everything that can be said of a ledger as it stands.
pub fn check(ledger: &Ledger) -> Result<(), Broken> {
    r1_firm_fits(ledger)?;
    r1s_all_fit_overbooked(ledger)?;
    r3_spent_ids_hold_nothing(ledger)?;
    quotas_are_kept(ledger)?;
    sums_agree(ledger)
}

/// R1: at every instant, what exists and all firm reservations together fit into the capacity, as far as the
/// ledger granted them: what exists anyway is counted even where it does not fit.
pub fn r1_firm_fits(ledger: &Ledger) -> Result<(), Broken> {
    if ledger.stretched {
        return Ok(());
    }
    fits("R1", levels(ledger, |_, tier| tier == Tier::Firm), ledger.config.capacity)
}

/// R1s: at every instant, firm and soft reservations together fit into the overbooked capacity, likewise.
pub fn r1s_all_fit_overbooked(ledger: &Ledger) -> Result<(), Broken> {
    if ledger.stretched {
        return Ok(());
    }
    fits("R1s", levels(ledger, |_, _| true), ledger.overbooked)
}

/// R2: a holder that believes its promise to be valid is right: until the moment that it was told, the owner
/// counts what was promised.
pub fn r2_belief_is_right(ledger: &Ledger, believed: &Promise) -> Result<(), Broken> {
    match ledger.get(&believed.id) {
        Some(standing) if standing.terms == believed.terms => Ok(()),
        Some(_) => broken("R2", format!("{} stands for other terms than its holder believes", believed.id)),
        None => broken("R2", format!("{} is gone while its holder may rely on it", believed.id)),
    }
}

/// R3: an id consumes capacity once: what is spent holds nothing, and stays spent.
pub fn r3_spent_ids_hold_nothing(ledger: &Ledger) -> Result<(), Broken> {
    for id in ledger.live.keys() {
        if let ReservationId::Remote { holder, number } = id
            // A low-water mark may rise above an id that still stands.
            && ledger.holders.get(holder).is_some_and(|spent| spent.contains_single(*number))
        {
            return broken("R3", format!("{id} is spent and stands"));
        }
    }
    match ledger.holders.iter().find(|(_, spent)| !spent.is_sound() || spent.len() > super::spent::MAX_SPENT) {
        Some((holder, _)) => broken("R3", format!("the spent ids of {holder} are not kept in order")),
        None => Ok(()),
    }
}

/// R4: the capacity of a dead holder is back: nothing stands for longer than its ttl after the last request that the
/// owner took about it, by the owner's clock.
pub fn r4_unrefreshed_is_back(ledger: &Ledger, promise: &Promise, now: Now) -> Result<(), Broken> {
    let stands = ledger.get(&promise.id).is_some_and(|standing| !standing.id.is_instance());
    if stands && now.uptime > promise.taken.saturating_add(promise.ttl) {
        return broken("R4", format!("{} stands {:?} after it should have lapsed", promise.id, now.uptime - promise.taken - promise.ttl));
    }
    Ok(())
}

/// R5: a firm promise is not revoked by the owner before its ttl, unless its window is over.
pub fn r5_firm_is_kept(ledger: &Ledger, promise: &Promise, now: Now) -> Result<(), Broken> {
    let owed = promise.terms.tier == Tier::Firm
        && now.uptime < promise.taken.saturating_add(promise.ttl)
        && now.wall < promise.terms.window.until.after(WALL_GUARD);
    match ledger.get(&promise.id) {
        None if owed => broken("R5", format!("{} is gone before its time", promise.id)),
        Some(standing) if owed && standing.phase == Phase::Leaving => broken("R5", format!("{} is firm and was preempted", promise.id)),
        Some(_) | None => Ok(()),
    }
}

/// R6: turning a reservation's units into instances, and giving them back, conserves the sum: the units that count by
/// themselves and those that are instances are what was granted, and the instances are there.
pub fn r6_placing_conserves(ledger: &Ledger) -> Result<(), Broken> {
    let mut serving: BTreeMap<&ReservationId, u32> = BTreeMap::new();
    for reservation in ledger.reservations() {
        if let Some(served) = &reservation.serves {
            *serving.entry(served).or_default() += 1;
        }
    }
    for reservation in ledger.reservations() {
        let instances = serving.get(&reservation.id).copied().unwrap_or(0);
        if reservation.placed != instances || reservation.placed > reservation.terms.units {
            let (units, placed) = (reservation.terms.units, reservation.placed);
            return broken("R6", format!("{}: of {units} units {placed} are placed, and {instances} instances serve it", reservation.id));
        }
    }
    Ok(())
}

/// No tenant takes more than its quota at any instant.
pub fn quotas_are_kept(ledger: &Ledger) -> Result<(), Broken> {
    for tenant in ledger.tenants.keys() {
        let Some(quota) = ledger.quota(tenant).filter(|_| !ledger.stretched) else { continue };
        fits("quota", levels(ledger, |r, _| r.terms.tenant == *tenant && !r.id.is_instance()), quota)?;
    }
    Ok(())
}

/// The sums that the ledger decides by are those of its reservations.
pub fn sums_agree(ledger: &Ledger) -> Result<(), Broken> {
    let naive = (levels(ledger, |_, tier| tier == Tier::Firm), levels(ledger, |_, _| true));
    for (at, firm) in &naive.0 {
        let sums = ledger.promised(*at);
        if sums.0 != *firm {
            return broken("sums", format!("firm at {at}: {} counted, {firm} stand", sums.0));
        }
    }
    for (at, all) in &naive.1 {
        let sums = ledger.promised(*at);
        if sums.1 != *all {
            return broken("sums", format!("all at {at}: {} counted, {all} stand", sums.1));
        }
    }
    Ok(())
}

/// The level at each instant at which one of the counted reservations begins or ends. One sweep.
fn levels(ledger: &Ledger, counts: impl Fn(&super::Reservation, Tier) -> bool) -> BTreeMap<Timestamp, Resources> {
    let mut changes: BTreeMap<Timestamp, (Vec<Resources>, Vec<Resources>)> = BTreeMap::new();
    for reservation in ledger.reservations().filter(|r| counts(r, r.terms.tier)) {
        let window = reservation.counted();
        if !window.is_empty() {
            changes.entry(window.from).or_default().0.push(reservation.amount());
            changes.entry(window.until).or_default().1.push(reservation.amount());
        }
    }
    let mut level = Resources::ZERO;
    let mut levels = BTreeMap::new();
    for (at, (begin, end)) in changes {
        for amount in begin {
            level = level.checked_add(amount).unwrap_or(level);
        }
        for amount in end {
            level = level.checked_sub(amount).unwrap_or(Resources::ZERO);
        }
        levels.insert(at, level);
    }
    levels
}

fn fits(rule: &'static str, levels: BTreeMap<Timestamp, Resources>, room: Resources) -> Result<(), Broken> {
    match levels.into_iter().find(|(_, level)| !level.fits_in(room)) {
        Some((at, level)) => broken(rule, format!("{level} are promised at {at}, of {room}")),
        None => Ok(()),
    }
}

/// What an owner has said about an id, as a watcher notes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Promise {
    /// Which.
    pub id: ReservationId,
    /// For what.
    pub terms: Terms,
    /// How long it stands without a refresh.
    pub ttl: Duration,
    /// When the owner last took a request that renewed it, by its uptime.
    pub taken: Duration,
}

/// What a factor makes of a capacity: for those who check from outside.
pub fn overbooked(capacity: Resources, per_mille: u32) -> Resources {
    share(capacity, per_mille)
}
