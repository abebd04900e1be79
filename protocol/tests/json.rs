//! The HTTP API's documents survive the trip through JSON.

use crate::strategies::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use tradewind_protocol::api::*;
use tradewind_protocol::record::TransactionRecord;
use tradewind_protocol::{InstanceId, Market, StepIndex};

#[track_caller]
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
}

fn id<T: std::str::FromStr<Err: Debug> + Debug>() -> impl Strategy<Value = T> {
    "[!-~]{1,128}".prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn status()(
        (region, cluster, version) in (region(), ".{0,20}", ".{0,12}"),
        [generation, records_accepted, records_refused] in any::<[u64; 3]>(),
        [started_at, now] in [timestamp(), timestamp()],
        (mode, health, health_reasons) in (mode(), health(), vec(".{0,30}", 0..3)),
        step in step(),
        last_closed_step in option::of(any::<i64>().prop_map(StepIndex)),
        [regions_known, regions_live, series] in any::<[usize; 3]>(),
        instances_ready in any::<u32>(),
        certificate_ends_at in option::of(timestamp()),
        folded in vec((name(), any::<(usize, bool, u64)>()), 0..3),
    ) -> Status {
        Status {
            region, cluster, version, generation, started_at, now, mode, health, health_reasons, step, last_closed_step, regions_known,
            regions_live, series, records_accepted, records_refused, instances_ready, certificate_ends_at,
            folded: folded
                .into_iter()
                .map(|(tenant, (series, and_more, transactions))| FoldedTenant { tenant, series, and_more, transactions })
                .collect(),
        }
    }
}

prop_compose! {
    fn alternative()(
        kind in prop_oneof![Just(AlternativeKind::Chosen), Just(AlternativeKind::OneMore), Just(AlternativeKind::HigherQuantile), Just(AlternativeKind::AllSpot)],
        (instances, spot) in (any::<u32>(), option::of(any::<u32>())),
        quantile in option::of(quantile()),
        [expected_missing, expected_cost] in [eighths(), eighths()],
        rejected in option::of(".{0,20}"),
    ) -> Alternative {
        Alternative { kind, instances, spot, quantile, expected_missing, expected_cost, rejected }
    }
}

prop_compose! {
    fn plan_explanation()(
        plan in plan(),
        sources in vec((region(), name(), eighths(), any::<u64>(), any::<bool>()), 0..3),
        (price, ratio, budget) in (any::<u32>(), eighths(), option::of(any::<u32>())),
        alternatives in vec(alternative(), 0..3),
        choices in vec((eighths(), any::<bool>()), 0..3),
    ) -> PlanExplanation {
        let money = |amount: u32| tradewind_protocol::pool::MicroUsd(amount.into());
        let pools = plan.decisions.iter().map(|decision| PoolExplanation {
            decision: decision.clone(),
            planned_before: decision.active,
            sources: sources.iter().cloned().map(|(region, service, rate, age_ms, stale)| SourceShare {
                region, service, factor: rate, median_rate: rate, share: rate, age_ms, stale,
            }).collect(),
            costs: CostTerms {
                instance_hour_price: money(price), late_cost_ratio: ratio, late_cost_stated: price % 2 == 0, scale_in_wait_ms: price.into(),
                break_even_ms: price.into(), spot: budget.map(|budget| SpotTerms {
                    instance_hour_price: money(price), bid: money(budget), interruptions_per_hour: ratio, prior_per_hour: ratio, interruptions: ratio,
                    instance_hours: ratio, crossings: ratio, market_hours: ratio, outage_ms: price.into(), max_share: ratio, at_once: ratio,
                }),
                max_cost_per_hour: budget.map(money), region_max_cost_per_hour: budget.map(money),
            },
            alternatives: alternatives.clone(),
            margin: MarginReasons {
                margin: ratio, learned_steps: price.into(), regret: ratio, own_weight: ratio, own_regret: ratio,
                choices: choices.iter().map(|(margin, tuned)| MarginChoice { margin: *margin, tuned: *tuned, weight: ratio, regret: ratio }).collect(),
            },
        });
        PlanExplanation {
            pools: pools.collect(), region: plan.region, version: plan.version, made_at: plan.made_at, mode: plan.mode,
            known_until: plan.known_until, notes: plan.notes,
        }
    }
}

prop_compose! {
    fn region_view()(
        (region, this, live, address) in (region(), any::<bool>(), any::<bool>(), ".{0,30}"),
        [generation, sequence] in any::<[u64; 2]>(),
        (api, version) in (option::of(".{0,30}"), option::of(".{0,12}")),
        (rtt_ms, wire_version) in (option::of(eighths()), any::<Option<u8>>()),
        (health, mode) in (health(), option::of(mode())),
        coordinates in option::of(coordinates()),
        (age_ms, forecasts, state_bytes) in (any::<Option<u64>>(), any::<usize>(), any::<u32>()),
        dropped in dropped(),
    ) -> RegionView {
        RegionView {
            region, this, live, generation, sequence, address, api, rtt_ms, wire_version, health, mode, coordinates, age_ms, forecasts,
            dropped, state_bytes, version,
        }
    }
}

fn instance_state() -> impl Strategy<Value = InstanceState> {
    prop_oneof![Just(InstanceState::Starting), Just(InstanceState::Warm), Just(InstanceState::Active), Just(InstanceState::Draining)]
}

fn severity() -> impl Strategy<Value = Severity> {
    prop_oneof![Just(Severity::Info), Just(Severity::Warning), Just(Severity::Error)]
}

prop_compose! {
    fn record()(
        id in option::of(id()),
        (tenant, service, transaction_type) in (name(), name(), name()),
        [source_region, destination_region] in [region(), region()],
        user in option::of(id()),
        timestamp in timestamp(),
        count in any::<u64>(),
        latency_ms in option::of(eighths()),
        resources in option::of(resources()),
    ) -> TransactionRecord {
        TransactionRecord {
            id, tenant, source_region, destination_region, service, transaction_type, user, timestamp, count, latency_ms, resources,
        }
    }
}

proptest! {
    #[test]
    fn a_plans_explanation_survives(value in plan_explanation()) { survives(&value) }

    #[test]
    fn a_status_survives(value in status()) { survives(&value) }

    #[test]
    fn regions_survive(value in vec(region_view(), 0..4)) { survives(&value) }

    #[test]
    fn pools_survive(region in region(), age_ms in any::<u64>(), pools in vec(pool(), 0..3)) {
        survives(&RegionPools { region, age_ms, pools, providers: vec![] })
    }

    #[test]
    fn instances_survive(id in id::<InstanceId>(), pool in name(), state in instance_state(), since in timestamp(), handle in ".{0,20}") {
        survives(&InstanceView { id, pool, state, since, handle, market: Market::Spot })
    }

    #[test]
    fn forecasts_survive(age_ms in any::<u64>(), prediction in prediction(), recent in vec(eighths(), 0..9), effect in effect()) {
        let region = prediction.series.source.clone();
        let events_applied = vec![EventApplied { region, event: "sale".parse().unwrap(), effect }];
        survives(&ForecastView { age_ms, prediction, recent, events_applied })
    }

    #[test]
    fn calendar_entries_survive(region in region(), event in event(), effect in effect()) {
        survives(&CalendarEntry { region, origin: EventOrigin::Api, event, effect })
    }

    #[test]
    fn outcomes_survive(dry_run in any::<bool>(), planned_by in region(), plan in plan()) {
        survives(&ScaleOutcome { dry_run, planned_by, plan })
    }

    #[test]
    fn receipts_survive([accepted, duplicates, refused] in any::<[u64; 3]>(), replayed in any::<bool>(), lines in vec((any::<u64>(), ".{0,30}"), 0..4)) {
        let refusals = lines.into_iter().map(|(line, reason)| Refusal { line, reason }).collect();
        survives(&IngestReceipt { accepted, duplicates, replayed, refused, refusals })
    }

    #[test]
    fn capacity_survives(step in any::<i64>(), pool in name(), service in name(), ready in any::<u32>(), instance_ms in any::<u64>(), rate in eighths()) {
        survives(&CapacitySample { step: StepIndex(step), pool, service, ready, instance_ms, rate_per_instance: rate })
    }

    #[test]
    fn events_survive(id in any::<u64>(), at in timestamp(), region in region(), kind in ".{0,20}", severity in severity(), message in ".{0,60}") {
        survives(&Event { id, at, region, kind, severity, message })
    }

    #[test]
    fn problems_survive(kind in ".{0,30}", title in ".{0,30}", status in any::<u16>(), detail in option::of(".{0,60}")) {
        survives(&Problem { kind, title, status, detail })
    }

    #[test]
    fn records_survive(value in record()) { survives(&value) }

    #[test]
    fn states_and_plans_survive(state in state(), plan in plan()) {
        survives(&state);
        survives(&plan);
    }

    #[test]
    fn no_text_is_a_panic(text in ".{0,200}") {
        let _ = serde_json::from_str::<TransactionRecord>(&text);
        let _ = serde_json::from_str::<ForecastView>(&text);
    }
}

#[test]
fn a_record_may_leave_out_what_has_a_default_and_nothing_else() {
    let least = r#"{"source_region":"a","destination_region":"b","timestamp":"2026-01-01T00:00:00Z"}"#;
    let record: TransactionRecord = serde_json::from_str(least).unwrap();
    assert_eq!((record.count, record.tenant.as_str(), record.service.as_str()), (1, "default", "default"));
    for field in ["source_region", "destination_region", "timestamp"] {
        let less: serde_json::Map<_, _> =
            serde_json::from_str::<serde_json::Map<_, _>>(least).unwrap().into_iter().filter(|(k, _)| k != field).collect();
        let error = serde_json::from_value::<TransactionRecord>(less.into()).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    let more = least.replace('}', r#","cuont":2}"#);
    assert!(serde_json::from_str::<TransactionRecord>(&more).unwrap_err().to_string().contains("cuont"));
}
