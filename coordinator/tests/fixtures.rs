//! Documents as an agent serves them.

use std::time::Duration;
use tradewind_protocol::api::{
    Alternative, AlternativeKind, Anomaly, AnomalyKind, CalendarEntry, CostTerms, Direction, Event, EventApplied, EventOrigin,
    ExpertReasons, FoldedTenant, ForecastExplanation, ForecastReasons, ForecastView, HistoryView, HorizonReasons, InstanceState,
    InstanceView, MarginChoice, MarginReasons, PlanExplanation, PoolExplanation, PriceView, Problem, RegionPools, RegionView, ScaleOutcome,
    Severity, SourceShare, SpotTerms, Status,
};
use tradewind_protocol::calendar::{Effect, EventKind};
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::pool::{InstanceCounts, MicroUsd};
use tradewind_protocol::region::{Coordinates, Dropped, Health, Mode};
use tradewind_protocol::{
    CalendarEvent, Market, PoolDecision, PredictionData, Quantile, QuantilePath, RegionId, RegionalResourcePlan, ResourcePool, Resources,
    SeriesKey, SpotMix, Step, StepIndex, Timestamp,
};

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(crate) fn region(name: &str) -> RegionId {
    name.parse().unwrap()
}

pub(crate) fn minute() -> Step {
    Step::new(Duration::from_secs(60)).unwrap()
}

pub(crate) fn status() -> Status {
    Status {
        region: region("new-york"),
        cluster: "abilene".to_owned(),
        version: "0.1.0".to_owned(),
        generation: 7,
        started_at: at("2026-01-01T00:00:00Z"),
        now: at("2026-01-01T05:12:00Z"),
        mode: Mode::Advisory,
        health: Health::Degraded,
        health_reasons: vec!["no records for 3 steps".to_owned()],
        step: minute(),
        last_closed_step: Some(minute().index(at("2026-01-01T05:10:30Z"))),
        regions_known: 12,
        regions_live: 11,
        series: 132,
        records_accepted: 1_234_567,
        records_refused: 3,
        folded: vec![FoldedTenant { tenant: "acme".parse().unwrap(), series: 256, and_more: true, transactions: 98_765 }],
        instances_ready: 5,
        certificate_ends_at: Some(at("2026-01-20T00:00:00Z")),
    }
}

pub(crate) fn history() -> Vec<HistoryView> {
    let series = SeriesKey { source: region("denver"), destination: region("chicago"), ..forecast("denver", 1.0).prediction.series };
    vec![HistoryView { series, since: at("2026-01-01T04:00:00Z"), bucket_ms: 3_600_000, counts: vec![3_600.0, 450.0] }]
}

pub(crate) fn regions() -> Vec<RegionView> {
    let one = RegionView {
        region: region("new-york"),
        this: true,
        live: true,
        generation: 7,
        sequence: 44,
        address: "127.0.0.1:7401".to_owned(),
        api: Some("http://127.0.0.1:7480".to_owned()),
        rtt_ms: None,
        wire_version: None,
        health: Health::Healthy,
        mode: Some(Mode::Active),
        coordinates: Some(Coordinates { latitude: 40.7833, longitude: -73.9667 }),
        age_ms: Some(0),
        forecasts: 132,
        dropped: Dropped::default(),
        state_bytes: 13_517,
        version: Some("0.1.0".to_owned()),
    };
    let chicago = RegionView {
        region: region("chicago"),
        this: false,
        rtt_ms: Some(18.4),
        wire_version: Some(2),
        health: Health::Degraded,
        age_ms: Some(1_234),
        dropped: Dropped { forecasts: 12, volume_share: 0.004 },
        ..one.clone()
    };
    let denver = RegionView {
        region: region("denver"),
        this: false,
        live: false,
        mode: None,
        age_ms: None,
        forecasts: 0,
        state_bytes: 0,
        version: None,
        ..one.clone()
    };
    vec![one, chicago, denver]
}

pub(crate) fn pools() -> Vec<RegionPools> {
    let pool = ResourcePool {
        name: "web".parse().unwrap(),
        service: "checkout".parse().unwrap(),
        capacity: Resources { cpu_millis: 10_000, memory_bytes: 1 << 33, ..Resources::ZERO },
        in_use: Resources { cpu_millis: 4_500, memory_bytes: 1 << 30, ..Resources::ZERO },
        instance: Resources { cpu_millis: 500, memory_bytes: 1 << 27, ..Resources::ZERO },
        rate_per_instance: 12.5,
        instances: InstanceCounts { starting: 1, warm: 2, active: 6, draining: 0 },
        min_instances: 1,
        max_instances: 20,
        instance_hour_price: MicroUsd(42_500),
        startup_ms: 8_000,
    };
    vec![RegionPools { region: region("new-york"), age_ms: 0, pools: vec![pool], providers: vec![] }]
}

pub(crate) fn instances() -> Vec<InstanceView> {
    vec![InstanceView {
        id: "web-3".parse().unwrap(),
        pool: "web".parse().unwrap(),
        state: InstanceState::Active,
        since: at("2026-01-01T05:00:00Z"),
        handle: "pid 4711".to_owned(),
        market: Market::Spot,
    }]
}

/// One series: an hour of history that climbs from 0 to 59 transactions a second, and half an hour
/// of forecast that stays at 60, give or take 10.
pub(crate) fn forecast(from: &str, mean_volume: f64) -> ForecastView {
    let step = minute();
    let start = step.index(at("2026-01-01T05:00:00Z"));
    let values = (0..30).flat_map(|_| [3_000.0, 3_600.0, 4_200.0]).collect();
    let (low, high) = Quantile::CENTRAL_90;
    ForecastView {
        age_ms: 1_500,
        prediction: PredictionData {
            series: SeriesKey {
                tenant: Default::default(),
                source: region(from),
                destination: region("chicago"),
                service: "checkout".parse().unwrap(),
                transaction_type: "buy".parse().unwrap(),
            },
            issued_at: at("2026-01-01T05:00:01Z"),
            observed: 3_540.0,
            mean_volume,
            path: QuantilePath::new(start, step, vec![low, Quantile::MEDIAN, high], values).unwrap(),
            model: "holt-winters".to_owned(),
            score: ForecastScore { steps: 200, pinball: 61.0, seasonal_naive_pinball: 100.0, coverage_90: 0.91 },
        },
        recent: (0..60).map(|i| f64::from(i) * 60.0).collect(),
        events_applied: vec![],
    }
}

pub(crate) fn forecasts() -> Vec<ForecastView> {
    ["new-york", "denver", "houston", "seattle"].into_iter().zip([1.0, 40.0, 30.0, 20.0]).map(|(r, v)| forecast(r, v)).collect()
}

/// What stands behind the first of them, and one of another region.
pub(crate) fn explanations() -> Vec<ForecastExplanation> {
    let expert = |name: &str, weight, error, silent: Option<&str>| ExpertReasons {
        name: name.to_owned(),
        weight,
        error,
        silent: silent.map(str::to_owned),
    };
    let horizon = |ahead, judged, error| HorizonReasons {
        ahead,
        judged,
        coverage_90: 0.875,
        error,
        seasonal_naive_error: 240.0,
        experts: vec![
            expert("last-value", 0.25, Some(180.0), None),
            expert("seasonal-naive", 0.0, None, Some("has seen 200 of the 2880 steps that it needs")),
            expert("holt-winters", 0.75, Some(120.0), None),
        ],
    };
    let mut view = forecast("new-york", 1.0);
    let effect = Effect { factor: 3.0, low: 2.0, high: 4.5 };
    view.events_applied = vec![EventApplied { region: region("chicago"), event: "spring-sale".parse().unwrap(), effect }];
    let reasons = ForecastReasons {
        until: view.prediction.path.start().offset(-1),
        steps: 200,
        season: 1_440,
        trained_ago: Some(60),
        horizons: vec![horizon(1, 199, 120.0), horizon(8, 0, 0.0), horizon(24, 176, 300.0)],
    };
    vec![
        ForecastExplanation { view, region: region("new-york"), reasons: Some(reasons) },
        ForecastExplanation { view: forecast("denver", 0.5), region: region("denver"), reasons: None },
    ]
}

pub(crate) fn plan() -> RegionalResourcePlan {
    RegionalResourcePlan {
        region: region("new-york"),
        version: 12,
        made_at: at("2026-01-01T05:11:02Z"),
        mode: Mode::Advisory,
        known_until: StepIndex(29_454_550),
        decisions: vec![PoolDecision {
            pool: "web".parse().unwrap(),
            service: "checkout".parse().unwrap(),
            current: InstanceCounts { starting: 0, warm: 2, active: 3, draining: 0 },
            active: 5,
            warm: 2,
            ready_by: at("2026-01-01T05:13:00Z"),
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
                spot: 3,
                reserve: 1,
                wanted_on_demand: 4,
                wanted_reserve: 1,
                on_demand_price: MicroUsd(42_500),
                spot_price: MicroUsd(12_750),
                interruptions_per_hour: 0.0625,
                outage_ms: 8_000,
                expected_missing: 0.001,
                rule: "max_share: the rest is on demand".to_owned(),
                exposed: None,
            }),
            blocked: Some("the pool's capacity ends at 5 instances".to_owned()),
        }],
        notes: vec!["denver has not been heard of for 10 min".to_owned()],
    }
}

pub(crate) fn prices() -> Vec<PriceView> {
    vec![PriceView {
        name: "spot".parse().unwrap(),
        source: "https://prices.example.net/spot $.usd".to_owned(),
        instance_hour_price: Some(MicroUsd(42_500)),
        read_at: Some(at("2026-01-01T05:00:00Z")),
        age_ms: Some(660_000),
        stale: true,
        failure: Some("the server answers 503".to_owned()),
    }]
}

pub(crate) fn plan_explanation() -> PlanExplanation {
    let alternative = |kind, instances, expected_missing, expected_cost, rejected: Option<&str>| Alternative {
        kind,
        instances,
        spot: (kind == AlternativeKind::AllSpot).then_some(instances),
        quantile: (kind == AlternativeKind::LowerQuantile).then(|| Quantile::per_mille(950).unwrap()),
        expected_missing,
        expected_cost,
        rejected: rejected.map(Into::into),
    };
    PlanExplanation {
        region: region("new-york"),
        version: 12,
        made_at: at("2026-01-01T05:11:02Z"),
        mode: Mode::Advisory,
        known_until: StepIndex(29_454_550),
        pools: vec![PoolExplanation {
            decision: plan().decisions.remove(0),
            planned_before: 5,
            sources: vec![SourceShare {
                region: region("denver"),
                service: "checkout".parse().unwrap(),
                factor: 1.0,
                median_rate: 48.0,
                share: 1.0,
                age_ms: 61_000,
                stale: true,
            }],
            costs: CostTerms {
                instance_hour_price: MicroUsd(42_500),
                late_cost_ratio: 40.0,
                late_cost_stated: false,
                scale_in_wait_ms: 300_000,
                break_even_ms: 90_000,
                spot: Some(SpotTerms {
                    instance_hour_price: MicroUsd(12_750),
                    bid: MicroUsd(42_500),
                    interruptions_per_hour: 0.0625,
                    prior_per_hour: 0.04,
                    interruptions: 2.0,
                    instance_hours: 20.0,
                    crossings: 0.0,
                    market_hours: 6.0,
                    outage_ms: 8_000,
                    max_share: 0.5,
                    at_once: 1.0,
                }),
                max_cost_per_hour: Some(MicroUsd(300_000)),
                region_max_cost_per_hour: None,
            },
            alternatives: vec![
                alternative(AlternativeKind::LowerQuantile, 6, 0.05, 8.0, Some("costs 0.60 instances more")),
                alternative(AlternativeKind::Chosen, 7, 0.01, 7.4, None),
                alternative(AlternativeKind::AllSpot, 7, 0.2, 9.0, Some("costs 1.60 instances more")),
            ],
            margin: MarginReasons {
                margin: 1.25,
                learned_steps: 1_440,
                regret: 12.5,
                own_weight: 0.5,
                own_regret: 0.0,
                choices: vec![
                    MarginChoice { margin: 1.0, tuned: false, weight: 0.25, regret: 30.0 },
                    MarginChoice { margin: 1.33, tuned: true, weight: 0.75, regret: 0.0 },
                ],
            },
        }],
        notes: vec![],
    }
}

pub(crate) fn outcome() -> ScaleOutcome {
    ScaleOutcome { dry_run: true, planned_by: region("new-york"), plan: plan() }
}

pub(crate) fn anomalies() -> Vec<Anomaly> {
    vec![Anomaly {
        series: forecast("denver", 1.0).prediction.series,
        kind: AnomalyKind::Point,
        direction: Direction::Up,
        step: StepIndex(29_453_760),
        since: at("2026-01-01T05:00:00Z"),
        until: at("2026-01-01T05:03:00Z"),
        ongoing: true,
        observed: 9_000.0,
        expected: 3_600.0,
        probability: 2e-7,
    }]
}

pub(crate) fn calendar() -> Vec<CalendarEntry> {
    let effect = Effect { factor: 3.0, low: 2.0, high: 4.5 };
    let event = CalendarEvent {
        name: "spring-sale".parse().unwrap(),
        kind: EventKind::Campaign,
        title: "Spring sale".to_owned(),
        from: at("2026-03-01T08:00:00Z"),
        until: at("2026-03-03T20:00:00Z"),
        sources: vec![],
        destinations: vec![region("chicago")],
        service: None,
        transaction_type: None,
        effect: Some(effect),
    };
    vec![CalendarEntry { region: region("new-york"), origin: EventOrigin::Api, event, effect }]
}

pub(crate) fn event(id: u64) -> Event {
    Event {
        id,
        at: at("2026-01-01T05:11:02Z"),
        region: region("new-york"),
        kind: "mesh.region_lost".to_owned(),
        severity: Severity::Warning,
        message: "denver does not answer".to_owned(),
    }
}

pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Problem {
    Problem { kind: format!("urn:tradewind:problem:{code}"), title: "No such thing".to_owned(), status, detail: Some(detail.to_owned()) }
}

/// The JSON of any of them.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}
