//! `[reservations]`: agreements with other regions about capacity.

use super::ReservationConfig;
use super::section::{Section, duration, number, switch, text};
use std::collections::BTreeMap;
use std::time::Duration;
use toml::Value;
use tradewind_protocol::TenantName;
use tradewind_protocol::reservation::ledger::{MAX_OVERBOOKING, MIN_TTL};

/// The most tenants with a quota of their own.
const MAX_QUOTAS: usize = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn read(s: &mut Section) -> ReservationConfig {
    let default = ReservationConfig::default();
    let lend = s.or("lend", default.lend, switch);
    let borrow = s.or("borrow", default.borrow, switch);
    let whole = s.or("whole", default.whole, switch);
    let tenant = s.or("tenant", default.tenant, text);
    // Half as much again: a guess, until the share of soft reservations that are used is measured.
    let overbooking = s.or("overbooking", 1.5, number(1.0, f64::from(MAX_OVERBOOKING) / 1_000.0));
    // A guess: cloud providers give two minutes before they take a spot instance, and our instances start faster.
    let notice = s.or("notice", default.notice, duration(Duration::ZERO, HOUR));
    // Outlasts a lost connection and its new handshake; a dead holder's capacity is back after it.
    let ttl = s.or("ttl", default.ttl, duration(MIN_TTL, HOUR));
    let max_ttl = s.or("max_ttl", default.max_ttl.max(ttl), duration(MIN_TTL, HOUR));
    let default_quota_per_mille = s.optional("default_quota", share);
    let quotas = s.or("quotas", BTreeMap::new(), |v| {
        let wanted = "must be a table of shares between 0 and 1 by tenant, like { acme = 0.25 }";
        let table = v.as_table().filter(|table| table.len() <= MAX_QUOTAS).ok_or(wanted)?;
        let quota = |(name, v): (&String, &Value)| Ok((TenantName::new(name).map_err(|_| wanted)?, share(v).map_err(|_| wanted)?));
        table.iter().map(quota).collect::<Result<_, &str>>()
    });
    let overbooking_per_mille = (overbooking * 1_000.0).round() as u32;
    ReservationConfig { lend, borrow, whole, tenant, overbooking_per_mille, notice, ttl, max_ttl, default_quota_per_mille, quotas }
}

/// A share between 0 and 1, in thousandths.
fn share(v: &Value) -> Result<u32, String> {
    number(0.0, 1.0)(v).map(|share| (share * 1_000.0).round() as u32)
}
