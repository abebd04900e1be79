//! Arbitrary values of every type, for property tests.
//!
//! Numbers with a fraction are eighths of integers: they survive decimal text exactly, so that the
//! same values serve for JSON.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::SocketAddr;
use std::time::Duration;
use tradewind_protocol::calendar::{Effect, EventKind};
use tradewind_protocol::forecast::{ForecastScore, PredictionData, SeriesKey};
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::pool::{InstanceCounts, MicroUsd};
use tradewind_protocol::region::{Coordinates, Dropped, Health, Mode};
use tradewind_protocol::wire::{Announcement, Card, Published, Request, Response};
use tradewind_protocol::{
    CalendarEvent, PoolDecision, Quantile, QuantilePath, RegionId, RegionState, RegionalResourcePlan, ResourcePool, Resources, SpotMix,
    Step, StepIndex, Timestamp,
};

pub(crate) fn region() -> impl Strategy<Value = RegionId> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,12}".prop_map(|text| text.parse().unwrap())
}

pub(crate) fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(|ms| Timestamp::saturating_from_millis(ms >> 12))
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    (50u64..=3_600_000).prop_map(|ms| Step::new(Duration::from_millis(ms)).unwrap())
}

pub(crate) fn eighths() -> impl Strategy<Value = f64> {
    any::<i32>().prop_map(|n| f64::from(n) / 8.0)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

pub(crate) fn quantile() -> impl Strategy<Value = Quantile> {
    (1u16..=999).prop_map(|q| Quantile::per_mille(q).unwrap())
}

prop_compose! {
    pub(crate) fn path()(
        start in any::<i64>(),
        step in step(),
        quantiles in btree_set(quantile(), 1..=9),
        horizon in 1usize..=6,
        rises in vec(any::<u16>(), 9 * 6),
    ) -> QuantilePath {
        let width = quantiles.len();
        let rows = rises.chunks(9).take(horizon).flat_map(|row| {
            row[..width].iter().scan(0.0, |height, rise| {
                *height += f32::from(*rise) / 8.0;
                Some(*height)
            })
        });
        QuantilePath::new(StepIndex(start), step, quantiles.into_iter().collect(), rows.collect()).unwrap()
    }
}

pub(crate) fn series() -> impl Strategy<Value = SeriesKey> {
    (name(), region(), region(), name(), name()).prop_map(|(tenant, source, destination, service, transaction_type)| SeriesKey {
        tenant,
        source,
        destination,
        service,
        transaction_type,
    })
}

prop_compose! {
    pub(crate) fn prediction()(
        series in series(),
        issued_at in timestamp(),
        [observed, mean_volume, pinball, naive, coverage] in [eighths(), eighths(), eighths(), eighths(), eighths()],
        path in path(),
        model in ".{0,20}",
        steps in any::<u32>(),
    ) -> PredictionData {
        let score = ForecastScore { steps, pinball, seasonal_naive_pinball: naive, coverage_90: coverage };
        PredictionData { series, issued_at, observed, mean_volume, path, model, score }
    }
}

pub(crate) fn resources() -> impl Strategy<Value = Resources> {
    any::<[u64; 5]>().prop_map(|[cpu_millis, memory_bytes, storage_bytes, storage_iops, bandwidth_bps]| Resources {
        cpu_millis,
        memory_bytes,
        storage_bytes,
        storage_iops,
        bandwidth_bps,
    })
}

pub(crate) fn counts() -> impl Strategy<Value = InstanceCounts> {
    any::<[u32; 4]>().prop_map(|[starting, warm, active, draining]| InstanceCounts { starting, warm, active, draining })
}

prop_compose! {
    pub(crate) fn pool()(
        name in name(),
        service in name(),
        [capacity, in_use, instance] in [resources(), resources(), resources()],
        rate_per_instance in eighths(),
        instances in counts(),
        [min_instances, max_instances] in any::<[u32; 2]>(),
        [price, startup_ms] in any::<[u64; 2]>(),
    ) -> ResourcePool {
        ResourcePool {
            name, service, capacity, in_use, instance, rate_per_instance, instances, min_instances, max_instances,
            instance_hour_price: MicroUsd(price), startup_ms,
        }
    }
}

pub(crate) fn health() -> impl Strategy<Value = Health> {
    prop_oneof![Just(Health::Healthy), Just(Health::Degraded), Just(Health::Draining)]
}

pub(crate) fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Advisory), Just(Mode::Active)]
}

pub(crate) fn coordinates() -> impl Strategy<Value = Coordinates> {
    (eighths(), eighths()).prop_map(|(latitude, longitude)| Coordinates { latitude, longitude })
}

pub(crate) fn dropped() -> impl Strategy<Value = Dropped> {
    (any::<u32>(), eighths()).prop_map(|(forecasts, volume_share)| Dropped { forecasts, volume_share })
}

pub(crate) fn effect() -> impl Strategy<Value = Effect> {
    (eighths(), eighths(), eighths()).prop_map(|(factor, low, high)| Effect { factor, low, high })
}

prop_compose! {
    pub(crate) fn event()(
        name in name(),
        kind in select(vec![EventKind::Holiday, EventKind::Maintenance, EventKind::Campaign, EventKind::Other]),
        title in ".{0,20}",
        (from, until) in (timestamp(), timestamp()),
        (sources, destinations) in (vec(region(), 0..3), vec(region(), 0..3)),
        service in option::of(name()),
        effect in option::of(effect()),
    ) -> CalendarEvent {
        CalendarEvent { name, kind, title, from, until, sources, destinations, service, transaction_type: None, effect }
    }
}

prop_compose! {
    pub(crate) fn state()(
        region in region(),
        published_at in timestamp(),
        version in ".{0,12}",
        api in option::of(".{0,40}"),
        coordinates in option::of(coordinates()),
        (health, mode) in (health(), mode()),
        step in step(),
        pools in vec(pool(), 0..4),
        forecasts in vec(prediction(), 0..6),
        dropped in dropped(),
        events in vec(event(), 0..3),
    ) -> RegionState {
        RegionState { region, published_at, version, api, coordinates, health, mode, step, pools, forecasts, dropped, events }
    }
}

prop_compose! {
    fn reason()(
        quantile in quantile(),
        [demand_rate, median_rate, upper_rate, observed_rate] in [eighths(), eighths(), eighths(), eighths()],
        own_rate in option::of(eighths()),
        [reactive_floor, forecasts] in any::<[u32; 2]>(),
        lead_ms in any::<u64>(),
        stale_sources in vec(region(), 0..3),
        rule in ".{0,40}",
    ) -> DecisionReason {
        DecisionReason { quantile, demand_rate, median_rate, upper_rate, own_rate, observed_rate, reactive_floor, lead_ms, forecasts, stale_sources, rule }
    }
}

prop_compose! {
    fn mix()(
        [spot, reserve, wanted_on_demand, wanted_reserve] in any::<[u32; 4]>(),
        [on_demand_price, spot_price] in any::<[u64; 2]>(),
        outage_ms in any::<u64>(),
        [interruptions_per_hour, expected_missing] in [eighths(), eighths()],
        rule in ".{0,20}",
        exposed in option::of(".{0,20}"),
    ) -> SpotMix {
        let (on_demand_price, spot_price) = (MicroUsd(on_demand_price), MicroUsd(spot_price));
        SpotMix {
            spot, reserve, wanted_on_demand, wanted_reserve, on_demand_price, spot_price, interruptions_per_hour, outage_ms, expected_missing,
            rule, exposed,
        }
    }
}

prop_compose! {
    fn decision()(
        pool in name(),
        service in name(),
        current in counts(),
        [active, warm] in any::<[u32; 2]>(),
        ready_by in timestamp(),
        (reason, mix) in (reason(), option::of(mix())),
        blocked in option::of(".{0,20}"),
    ) -> PoolDecision {
        PoolDecision { pool, service, current, active, warm, ready_by, reason, mix, blocked }
    }
}

prop_compose! {
    pub(crate) fn plan()(
        region in region(),
        version in any::<u64>(),
        made_at in timestamp(),
        mode in mode(),
        known_until in any::<i64>(),
        decisions in vec(decision(), 0..4),
        notes in vec(".{0,40}", 0..3),
    ) -> RegionalResourcePlan {
        RegionalResourcePlan { region, version, made_at, mode, known_until: StepIndex(known_until), decisions, notes }
    }
}

prop_compose! {
    pub(crate) fn announcement()(
        cluster in ".{0,20}",
        region in region(),
        [generation, sequence] in any::<[u64; 2]>(),
        address in address(),
        issued_at in timestamp(),
        body_hash in any::<[u8; 32]>(),
        body_bytes in any::<u32>(),
    ) -> Announcement {
        Announcement { cluster, region, generation, sequence, address, issued_at, body_hash, body_bytes }
    }
}

pub(crate) fn card() -> impl Strategy<Value = Card> {
    let parts = (announcement(), vec(any::<u8>(), 0..=64), vec(any::<u8>(), 0..600));
    parts.prop_map(|(announcement, signature, certificate)| Card { announcement, signature, certificate })
}

pub(crate) fn published() -> impl Strategy<Value = Published> {
    (card(), vec(any::<u8>(), 0..2_000)).prop_map(|(card, body)| Published { card, body })
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        region().prop_map(|region| Request::Fetch { region }),
        any::<bool>().prop_map(|dry_run| Request::PredictiveScale { dry_run }),
    ]
}

pub(crate) fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        published().prop_map(|published| Response::Published(Box::new(published))),
        Just(Response::NotHeld),
        plan().prop_map(|plan| Response::Plan(Box::new(plan))),
        ".{0,40}".prop_map(|reason| Response::Refused { reason }),
    ]
}
