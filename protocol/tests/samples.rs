//! One value of every type that travels between agents, always the same.

use std::time::Duration;
use tradewind_protocol::calendar::{Effect, EventKind};
use tradewind_protocol::forecast::{ForecastScore, PredictionData, SeriesKey};
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::pool::{InstanceCounts, MicroUsd};
use tradewind_protocol::region::{Coordinates, Dropped, Health, Mode};
use tradewind_protocol::reservation::ledger::{Error, Shortage};
use tradewind_protocol::reservation::message::{Answer, Claim, Message, Refusal};
use tradewind_protocol::reservation::{Confidence, Offer, Phase, Terms, Tier, Window};
use tradewind_protocol::wire::codec::{decode, encode};
use tradewind_protocol::wire::{Announcement, Card, Published, Pushed, Request, Response};
use tradewind_protocol::{
    CalendarEvent, PoolDecision, Quantile, QuantilePath, RegionId, RegionState, RegionalResourcePlan, ResourcePool, Resources, SpotMix,
    Step, StepIndex, Timestamp,
};

pub(crate) fn region(name: &str) -> RegionId {
    name.parse().unwrap()
}

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(crate) fn announcement() -> Announcement {
    Announcement {
        cluster: "abilene".to_owned(),
        region: region("new-york"),
        generation: 1_767_225_600_000,
        sequence: 300,
        address: "192.0.2.7:7400".parse().unwrap(),
        issued_at: at("2026-01-01T00:00:00.250Z"),
        body_hash: std::array::from_fn(|i| i as u8),
        body_bytes: 70_000,
    }
}

pub(crate) fn card() -> Card {
    Card { announcement: announcement(), signature: vec![0x5a; 64], certificate: vec![0x30, 0x82, 0x01, 0x02, 0xff] }
}

pub(crate) fn published() -> Published {
    Published { card: card(), body: vec![0x28, 0xb5, 0x2f, 0xfd, 0x00] }
}

pub(crate) fn path() -> QuantilePath {
    let step = Step::new(Duration::from_secs(60)).unwrap();
    let quantiles = [50, 500, 950].map(|q| Quantile::per_mille(q).unwrap()).to_vec();
    QuantilePath::new(StepIndex(29_453_760), step, quantiles, vec![1.0, 2.5, 4.0, 0.0, 0.0, 1e6]).unwrap()
}

pub(crate) fn prediction() -> PredictionData {
    PredictionData {
        series: SeriesKey {
            tenant: "default".parse().unwrap(),
            source: region("new-york"),
            destination: region("chicago"),
            service: "checkout".parse().unwrap(),
            transaction_type: "buy".parse().unwrap(),
        },
        issued_at: at("2026-01-01T00:00:01Z"),
        observed: 12.0,
        mean_volume: 10.25,
        path: path(),
        model: "holt-winters".to_owned(),
        score: ForecastScore { steps: 200, pinball: 0.75, seasonal_naive_pinball: 1.5, coverage_90: 0.91 },
    }
}

pub(crate) fn pool() -> ResourcePool {
    ResourcePool {
        name: "web".parse().unwrap(),
        service: "checkout".parse().unwrap(),
        capacity: Resources { cpu_millis: 10_000, memory_bytes: 1 << 33, storage_bytes: 0, storage_iops: 500, bandwidth_bps: 1 << 30 },
        in_use: Resources { cpu_millis: 4_500, ..Resources::ZERO },
        instance: Resources { cpu_millis: 500, ..Resources::ZERO },
        rate_per_instance: 12.5,
        instances: InstanceCounts { starting: 1, warm: 2, active: 6, draining: 3 },
        min_instances: 1,
        max_instances: 300,
        instance_hour_price: MicroUsd(42_500),
        startup_ms: 8_000,
    }
}

pub(crate) fn event() -> CalendarEvent {
    CalendarEvent {
        name: "spring-sale".parse().unwrap(),
        kind: EventKind::Campaign,
        title: "Spring sale".to_owned(),
        from: at("2026-03-01T08:00:00Z"),
        until: at("2026-03-03T20:00:00Z"),
        sources: vec![region("chicago")],
        destinations: vec![],
        service: Some("checkout".parse().unwrap()),
        transaction_type: None,
        effect: Some(Effect { factor: 3.0, low: 2.0, high: 4.5 }),
    }
}

pub(crate) fn state() -> RegionState {
    RegionState {
        region: region("new-york"),
        published_at: at("2026-01-01T00:00:02Z"),
        version: "0.1.0".to_owned(),
        api: Some("http://192.0.2.7:7480".to_owned()),
        coordinates: Some(Coordinates { latitude: 40.7833, longitude: -73.9667 }),
        health: Health::Degraded,
        mode: Mode::Active,
        step: Step::new(Duration::from_secs(60)).unwrap(),
        pools: vec![pool()],
        forecasts: vec![prediction()],
        dropped: Dropped { forecasts: 2, volume_share: 0.125 },
        events: vec![event()],
    }
}

pub(crate) fn plan() -> RegionalResourcePlan {
    RegionalResourcePlan {
        region: region("new-york"),
        version: 12,
        made_at: at("2026-01-01T00:00:03Z"),
        mode: Mode::Advisory,
        known_until: StepIndex(29_453_759),
        decisions: vec![PoolDecision {
            pool: "web".parse().unwrap(),
            service: "checkout".parse().unwrap(),
            current: InstanceCounts { starting: 0, warm: 1, active: 3, draining: 0 },
            active: 5,
            warm: 2,
            ready_by: at("2026-01-01T00:01:30Z"),
            reason: DecisionReason {
                quantile: Quantile::per_mille(975).unwrap(),
                demand_rate: 61.25,
                median_rate: 48.0,
                upper_rate: 12.5,
                own_rate: Some(60.0),
                observed_rate: 31.5,
                reactive_floor: 3,
                lead_ms: 90_000,
                forecasts: 11,
                stale_sources: vec![region("denver")],
                rule: "demand rises within the lead time".to_owned(),
            },
            mix: Some(SpotMix {
                spot: 4,
                reserve: 1,
                wanted_on_demand: 3,
                wanted_reserve: 0,
                on_demand_price: MicroUsd(42_500),
                spot_price: MicroUsd(12_750),
                interruptions_per_hour: 0.0625,
                outage_ms: 60_000,
                expected_missing: 0.125,
                rule: "costs".to_owned(),
                exposed: Some("budget".to_owned()),
            }),
            blocked: Some("capacity".to_owned()),
        }],
        notes: vec!["denver is silent".to_owned()],
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        tenant: "acme".parse().unwrap(),
        unit: Resources { cpu_millis: 500, memory_bytes: 1 << 29, ..Resources::ZERO },
        units: 3,
        window: Window { from: at("2026-01-01T00:05:00Z"), until: at("2026-01-01T00:15:00Z") },
        tier: Tier::Soft,
        confidence: Confidence::nearest(0.25),
    }
}

fn claim() -> Claim {
    Claim { number: 7 << 32, nonce: 2 }
}

fn reserve(message: Message) -> Request {
    Request::Reserve(Box::new(message))
}

fn reserved(answer: Answer) -> Response {
    Response::Reserved(Box::new(answer))
}

/// Every reason there is.
fn refusals() -> Vec<Refusal> {
    let all = Resources { cpu_millis: 1_000, ..Resources::ZERO };
    let shortage = Box::new(Shortage { wanted: terms().unit, capacity: all, promised: all, at: at("2026-01-01T00:06:00Z") });
    let ledger = [
        Error::DoesNotFit { shortage: shortage.clone(), offers: vec![] },
        Error::OverQuota { tenant: "acme".parse().unwrap(), quota: Box::new(all), shortage, offers: vec![] },
        Error::BadTerms { what: "nothing".to_owned() },
        Error::Conflict,
        Error::Spent,
        Error::Unknown,
        Error::Full,
        Error::NotPlaceable,
    ];
    let others = [Refusal::NoSuchPool, Refusal::NotGranting("advisory".to_owned())];
    others.into_iter().chain(ledger.map(Refusal::Ledger)).collect()
}

/// One kind of value: its name, the bytes of its sample, and whether bytes are such a value.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) accepts: fn(&[u8]) -> bool,
}

/// Every type that is decoded from a peer's bytes, and for enums every variant.
pub(crate) fn all() -> Vec<Sample> {
    macro_rules! samples {
        ($($name:literal: $type:ty = $value:expr;)*) => {
            vec![$(Sample {
                name: $name,
                bytes: encode::<$type>(&$value).unwrap(),
                accepts: |bytes| decode::<$type>(bytes).is_ok(),
            }),*]
        };
    }
    samples! {
        "announcement": Announcement = announcement();
        "card": Card = card();
        "cards": Vec<Card> = vec![card(), card()];
        "published": Published = published();
        "pushed": Pushed = published().into();
        "request_fetch": Request = Request::Fetch { region: region("denver") };
        "request_predictive_scale": Request = Request::PredictiveScale { dry_run: true };
        "request_hold": Request = reserve(Message::Hold {
            pool: "web".parse().unwrap(), number: 7 << 32, nonce: 1, terms: terms(), ttl_ms: 30_000, settled_below: (7 << 32) - 2,
        });
        "request_confirm": Request = reserve(Message::Confirm { pool: "web".parse().unwrap(), claim: claim() });
        "request_refresh": Request = reserve(Message::Refresh { pool: "web".parse().unwrap(), claims: vec![claim(), claim()] });
        "request_release": Request = reserve(Message::Release { pool: "web".parse().unwrap(), number: 7 << 32 });
        "request_preempted": Request = reserve(Message::Preempted {
            pool: "web".parse().unwrap(), number: 7 << 32, leave_by: at("2026-01-01T00:05:00Z"),
        });
        "response_held": Response = reserved(Answer::Held { claim: claim(), phase: Phase::Held, ttl_ms: 30_000 });
        "response_countered": Response = reserved(Answer::Countered {
            claim: claim(),
            offers: vec![Offer::Less { terms: terms() }, Offer::Later { terms: terms() }, Offer::OtherTier { terms: terms() }],
        });
        "response_reserve_refused": Response = reserved(Answer::Many(
            refusals().into_iter().map(|reason| Answer::Refused { claim: claim(), reason }).collect(),
        ));
        "response_released": Response = reserved(Answer::Many(vec![Answer::Released { number: 3 }, Answer::Noted]));
        "response_published": Response = Response::Published(Box::new(published()));
        "response_not_held": Response = Response::NotHeld;
        "response_plan": Response = Response::Plan(Box::new(plan()));
        "response_refused": Response = Response::Refused { reason: "busy".to_owned() };
        "region_state": RegionState = state();
        "resource_pool": ResourcePool = pool();
        "prediction_data": PredictionData = prediction();
        "quantile_path": QuantilePath = path();
        "regional_resource_plan": RegionalResourcePlan = plan();
    }
}
