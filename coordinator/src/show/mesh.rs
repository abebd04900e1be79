//! `tradewind regions`, `pools`, `prices` and `instances`: who there is, and what stands where.

use super::{health, mode};
use crate::failure::Failure;
use crate::human;
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use tradewind_protocol::api::{InstanceState, InstanceView, PriceView, RegionPools, RegionView};
use tradewind_protocol::{Market, Resources};

pub(super) fn print_regions(regions: &[RegionView], out: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        Left("REGION"),
        Left("LIVE"),
        Left("HEALTH"),
        Left("MODE"),
        Right("RTT"),
        Right("AGE"),
        Right("FORECASTS"),
        Right("LEFT OUT"),
        Right("STATE"),
        Left("VERSION"),
        Right("WIRE"),
        Left("ADDRESS"),
    ]);
    for region in regions {
        let (word, tone) = health(region.health);
        let rtt = match (region.this, region.rtt_ms) {
            (true, _) => "self".to_owned(),
            (false, Some(ms)) => human::rtt(ms),
            (false, None) => "-".to_owned(),
        };
        table.row(
            if region.live { tone } else { Tone::Bad },
            [
                region.region.to_string(),
                if region.live { "yes" } else { "no" }.to_owned(),
                word.to_owned(),
                region.mode.map_or("-", mode).to_owned(),
                rtt,
                region.age_ms.map_or_else(|| "-".to_owned(), human::millis),
                human::count(region.forecasts as u64),
                if region.dropped.forecasts == 0 {
                    "0".to_owned()
                } else {
                    format!("{} ({} of volume)", human::count(region.dropped.forecasts.into()), human::share(region.dropped.volume_share))
                },
                human::bytes(region.state_bytes.into()),
                region.version.clone().unwrap_or_else(|| "-".to_owned()),
                region.wire_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
                region.address.clone(),
            ],
        );
    }
    table.print(out)
}

pub(super) fn print_pools(regions: &[RegionPools], out: &mut Output) -> Result<(), Failure> {
    if regions.iter().all(|region| region.pools.is_empty()) {
        return out.line("No region has a pool: [[pool]] in an agent's configuration makes one.");
    }
    let mut table = Table::new(&[
        Left("REGION"),
        Left("POOL"),
        Left("SERVICE"),
        Right("ACTIVE"),
        Right("WARM"),
        Right("STARTING"),
        Right("DRAINING"),
        Right("LIMITS"),
        Right("SERVES"),
        Right("IN USE"),
        Right("PRICE"),
        Right("STARTUP"),
        Right("AGE"),
    ]);
    for region in regions {
        for pool in &region.pools {
            let counts = pool.instances;
            let full = counts.total() >= pool.max_instances;
            table.row(
                if full { Tone::Warning } else { Tone::Plain },
                [
                    region.region.to_string(),
                    pool.name.to_string(),
                    pool.service.to_string(),
                    counts.active.to_string(),
                    counts.warm.to_string(),
                    counts.starting.to_string(),
                    counts.draining.to_string(),
                    format!("{}-{}", pool.min_instances, pool.max_instances),
                    format!("{} /s", human::quantity(pool.rate_per_instance * f64::from(counts.active))),
                    fullest(pool.in_use, pool.capacity),
                    format!("{} /h", human::money(pool.instance_hour_price)),
                    human::millis(pool.startup_ms),
                    human::millis(region.age_ms),
                ],
            );
        }
    }
    table.print(out)?;
    print_providers(regions, out)
}

/// The providers of the agent's own pools that have several.
fn print_providers(regions: &[RegionPools], out: &mut Output) -> Result<(), Failure> {
    if regions.iter().all(|region| region.providers.is_empty()) {
        return Ok(());
    }
    out.line("")?;
    let mut table = Table::new(&[Left("POOL"), Left("PROVIDER"), Right("INSTANCES"), Left("STATE")]);
    for provider in regions.iter().flat_map(|region| &region.providers) {
        let (state, tone) = match &provider.failing {
            Some(reason) => (format!("fails: {}", human::clean(reason)), Tone::Warning),
            None if provider.configured => ("good".to_owned(), Tone::Plain),
            None => ("no longer configured".to_owned(), Tone::Faint),
        };
        let name = bought(&provider.provider, provider.market);
        table.row(tone, [provider.pool.to_string(), name, provider.instances.to_string(), state]);
    }
    table.print(out)
}

/// `what`, with its market where that is not the usual one.
fn bought(what: &str, market: Market) -> String {
    match market {
        Market::OnDemand => what.to_owned(),
        Market::Spot => format!("{what} (spot)"),
    }
}

/// The share of the kind of resource that is used the most.
fn fullest(used: Resources, capacity: Resources) -> String {
    let share = |((kind, used), (_, all)): ((&'static str, u64), (&'static str, u64))| (all > 0).then(|| (kind, used as f64 / all as f64));
    let shares = used.kinds().into_iter().zip(capacity.kinds()).filter_map(share);
    match shares.max_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((kind, part)) => format!("{} {}", human::share(part), kind.split('_').next().unwrap_or(kind)),
        None => "-".to_owned(),
    }
}

pub(super) fn print_prices(prices: &[PriceView], out: &mut Output) -> Result<(), Failure> {
    if prices.is_empty() {
        return out.line("No prices: [[price]] in the agent's configuration names them; instance_hour_usd of a pool holds without.");
    }
    let mut table = Table::new(&[Left("PRICE"), Right("INSTANCE"), Left("READ (UTC)"), Right("AGE"), Left("STATE"), Left("SOURCE")]);
    for price in prices {
        let state = match (&price.failure, price.stale) {
            (None, false) => "good".to_owned(),
            (None, true) => "stale".to_owned(),
            (Some(why), false) => format!("last reading failed: {why}"),
            (Some(why), true) => format!("stale: {why}"),
        };
        table.row(
            if price.stale || price.failure.is_some() { Tone::Warning } else { Tone::Plain },
            [
                price.name.to_string(),
                price.instance_hour_price.map_or_else(|| "-".to_owned(), |price| format!("{} /h", human::money(price))),
                price.read_at.map_or_else(|| "-".to_owned(), human::time),
                price.age_ms.map_or_else(|| "-".to_owned(), human::millis),
                state,
                price.source.clone(),
            ],
        );
    }
    table.print(out)
}

pub(super) fn print_instances(instances: &[InstanceView], out: &mut Output) -> Result<(), Failure> {
    if instances.is_empty() {
        return out.line("No instances.");
    }
    let mut table = Table::new(&[Left("POOL"), Left("INSTANCE"), Left("STATE"), Left("SINCE (UTC)"), Left("RUNS AS")]);
    for instance in instances {
        let (state, tone) = match instance.state {
            InstanceState::Starting => ("starting", Tone::Faint),
            InstanceState::Warm => ("warm", Tone::Plain),
            InstanceState::Active => ("active", Tone::Plain),
            InstanceState::Draining => ("draining", Tone::Faint),
        };
        let since = human::time(instance.since);
        let runs_as = bought(&instance.handle, instance.market);
        table.row(tone, [instance.pool.to_string(), instance.id.to_string(), state.to_owned(), since, runs_as]);
    }
    table.print(out)
}
