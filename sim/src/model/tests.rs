//! That each kind of durable state is missed when it is gone, and only then.

use super::*;
use tradewind_protocol::api::{MarginReasons, StageStepView, StagingState};
use tradewind_protocol::calendar::Effect;
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::{InstanceCounts, PredictionData, Quantile, QuantilePath, RecordId, TenantName, TransactionType};

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn step() -> Step {
    Step::new(Duration::from_secs(1)).unwrap()
}

fn record(second: u64, count: u64) -> TransactionRecord {
    serde_json::from_value(serde_json::json!({
        "tenant": TenantName::default(),
        "source_region": "a",
        "destination_region": "b",
        "service": ServiceName::default(),
        "transaction_type": TransactionType::default(),
        "timestamp": wall_time(Duration::from_secs(second)),
        "count": count,
        "id": RecordId::new(&format!("r{second}")).unwrap(),
    }))
    .unwrap()
}

fn receipt(accepted: u64) -> IngestReceipt {
    IngestReceipt { accepted, duplicates: 0, replayed: false, refused: 0, refusals: vec![] }
}

/// A model that was acknowledged 5 in second 1, and posted 2 more in second 2 without an answer.
fn counted() -> Model {
    let mut model = Model::default();
    model.open(&[record(1, 5)], step());
    model.acknowledge("k", &[record(1, 5)], step(), &receipt(1));
    model.open(&[record(2, 2)], step());
    model
}

/// What is wrong with counts of seconds 0 to 2.
fn counts(model: &Model, shown: [f64; 3]) -> Vec<String> {
    let at = step().index(wall_time(Duration::ZERO));
    let path = QuantilePath::new(at.offset(3), step(), vec![Quantile::MEDIAN], vec![0.0]).unwrap();
    let prediction = PredictionData {
        series: record(1, 1).series(),
        issued_at: wall_time(Duration::ZERO),
        observed: 0.0,
        mean_volume: 0.0,
        path,
        model: String::new(),
        score: ForecastScore::default(),
    };
    let view = ForecastView { age_ms: 0, prediction, recent: shown.into(), events_applied: vec![] };
    model.judge_counts(&model.acknowledged(), &[view], at.offset(9), step())
}

#[test]
fn counts_are_what_was_acknowledged_and_perhaps_what_was_not_answered() {
    let model = counted();
    assert!(counts(&model, [0.0, 5.0, 0.0]).is_empty() && counts(&model, [0.0, 5.0, 2.0]).is_empty());
    let wrong = |shown| counts(&model, shown).pop().unwrap_or_default();
    assert!(wrong([0.0, 4.0, 0.0]).contains("after 1s: 4 counted, 5 acknowledged"), "{}", wrong([0.0, 4.0, 0.0]));
    assert!(wrong([0.0, 5.0, 3.0]).contains("after 2s: 3 counted, 0 acknowledged, 2 open"));
    assert!(wrong([1.0, 5.0, 0.0]).contains("after 0ns: 1 counted"));
}

#[test]
fn a_series_that_counted_has_to_be_known_and_forecast() {
    let (model, at) = (counted(), step().index(wall_time(Duration::ZERO)));
    let missing = |closed| model.judge_counts(&model.acknowledged(), &[], at.offset(closed), step());
    assert!(missing(9)[0].contains("is not among the forecasts"));
    assert_eq!(missing(3), [""; 0], "it may yet come");
    assert_eq!((model.judge_series(1, 1), model.judge_series(0, 0)), (None, None));
    assert_eq!(model.judge_series(0, 1).unwrap(), "it knows 0 series, and has acknowledged records of 1");
}

#[test]
fn a_lost_disk_may_have_kept_what_was_acknowledged_or_not() {
    let mut model = counted();
    model.judge_generation(7);
    model.lose(1);
    assert!(counts(&model, [0.0, 0.0, 0.0]).is_empty() && counts(&model, [0.0, 5.0, 0.0]).is_empty());
    assert_eq!((model.judge_series(0, 1), model.judge_generation(3), model.judge_receipt("k", &receipt(9))), (None, None, None));
    model.judge_generation(8);
    model.lose(1);
    assert!(model.judge_generation(8).is_some(), "it is told once");
}

#[test]
fn a_batch_that_is_repeated_gets_its_receipt_again() {
    let model = counted();
    let again = IngestReceipt { replayed: true, ..receipt(1) };
    assert_eq!(model.judge_receipt("k", &again), None);
    assert!(model.judge_receipt("k", &receipt(1)).unwrap().contains("receipt of batch k"), "counted anew");
    assert!(model.judge_receipt("k", &IngestReceipt { accepted: 0, ..again.clone() }).is_some());
    assert_eq!(model.judge_receipt("other", &receipt(1)), None);
}

fn event(title: &str) -> CalendarEvent {
    let (from, until) = (wall_time(Duration::ZERO), wall_time(Duration::from_secs(1)));
    serde_json::from_value(serde_json::json!({ "name": "e", "title": title, "from": from, "until": until })).unwrap()
}

fn calendar(model: &mut Model, shown: &[CalendarEvent]) -> Vec<String> {
    let entry =
        |event: &CalendarEvent| CalendarEntry { region: id("a"), origin: EventOrigin::Api, event: event.clone(), effect: Effect::NONE };
    model.judge_calendar(&id("a"), &shown.iter().map(entry).collect::<Vec<_>>())
}

#[test]
fn the_calendar_is_as_it_was_left_or_as_an_unanswered_change_would_have_it() {
    let left = || {
        let (mut model, name) = (Model::default(), event("1").name);
        model.ask_event(&name, Some(event("1")));
        model.acknowledge_event(&name);
        (model, name)
    };
    assert!(calendar(&mut left().0, &[event("1")]).is_empty());
    assert_eq!(calendar(&mut left().0, &[]).len(), 1, "forgotten");
    assert_eq!(calendar(&mut left().0, &[event("2")]).len(), 1, "altered");
    assert_eq!(calendar(&mut Model::default(), &[event("1")]), ["event e was never asked for"]);
    let (mut model, name) = left();
    model.ask_event(&name, None);
    assert!(calendar(&mut model, &[]).is_empty(), "removed, without an answer");
    assert_eq!(calendar(&mut model, &[event("1")]).len(), 1, "and back again");
    let (mut model, name) = left();
    model.ask_event(&name, None);
    model.acknowledge_event(&name);
    assert_eq!(calendar(&mut model, &[event("1")]).len(), 1, "removed");
}

#[test]
fn lives_are_numbered_upwards() {
    let mut model = Model::default();
    assert_eq!((model.judge_generation(5), model.judge_generation(6)), (None, None));
    assert_eq!(model.judge_generation(6).unwrap(), "its life is number 6, the one before was 6");
}

fn staging(state: StageState) -> Vec<StagingView> {
    let step = StageStepView { name: "data".parse().unwrap(), kind: "storage".into(), state, bytes: None, total_bytes: None };
    let (service, needed_by, reason) = (ServiceName::default(), None, None);
    vec![StagingView { service, state: StagingState::Ready, needed_by, late: false, failures: 0, reason, steps: vec![step] }]
}

#[test]
fn what_was_staged_is_unless_it_was_undone() {
    let judge = |before, after, undone: bool| {
        let mut model = Model::default();
        model.see_staging(&staging(before));
        model.judge_staging(&staging(after), |_, _| undone).len()
    };
    assert_eq!(judge(StageState::Done, StageState::Done, false), 0);
    assert_eq!(judge(StageState::Running, StageState::Pending, false), 0);
    for lost in [StageState::Pending, StageState::Running] {
        assert_eq!((judge(StageState::Done, lost, false), judge(StageState::Done, lost, true)), (1, 0));
    }
}

fn plan(learned_steps: u64) -> PlanExplanation {
    let decision = serde_json::json!({
        "pool": "web", "service": ServiceName::default(), "active": 1, "warm": 0,
        "current": InstanceCounts::default(), "ready_by": wall_time(Duration::ZERO),
        "reason": { "quantile": Quantile::MEDIAN, "demand_rate": 0.0, "median_rate": 0.0, "upper_rate": 0.0,
            "observed_rate": 0.0, "reactive_floor": 0, "lead_ms": 0, "forecasts": 0, "stale_sources": [], "rule": "" },
    });
    let margin = MarginReasons { margin: 1.0, learned_steps, regret: 0.0, own_weight: 0.0, own_regret: 0.0, choices: vec![] };
    let costs = serde_json::json!({ "instance_hour_price": 0, "late_cost_ratio": 1.0, "late_cost_stated": false,
        "scale_in_wait_ms": 0, "break_even_ms": 0, "max_cost_per_hour": null });
    serde_json::from_value(serde_json::json!({
        "region": "a", "version": 1, "made_at": wall_time(Duration::ZERO), "mode": "active", "known_until": 1, "notes": [],
        "pools": [{ "decision": decision, "planned_before": 0, "sources": [], "costs": costs, "alternatives": [], "margin": margin }],
    }))
    .unwrap()
}

#[test]
fn what_was_learned_is_known_after_an_end_in_order_and_after_a_crash_if_it_is_a_minute_old() {
    let due = |end, durable| {
        let mut model = Model::default();
        model.see_plan(Duration::from_secs(10), &plan(8), true);
        model.see_plan(Duration::from_secs(90), &plan(80), durable);
        model.on_restart(end);
        let wrong = |model: &mut Model, learned| !model.judge_plan(&plan(learned)).is_empty();
        [79, 7, 0].map(|learned| wrong(&mut model, learned))
    };
    assert_eq!(due(End::InOrder, true), [true, true, true]);
    assert_eq!(due(End::After(Duration::from_secs(95)), true), [false, true, true]);
    assert_eq!(due(End::After(Duration::from_secs(60)), true), [false, false, false]);
    assert_eq!(due(End::InOrder, false), [false, false, false], "on an ill disk nothing is certain");
    let mut model = Model::default();
    model.see_plan(Duration::ZERO, &plan(8), true);
    model.on_restart(End::InOrder);
    model.on_restart(End::After(Duration::ZERO));
    assert_eq!(model.judge_plan(&plan(3)), ["the margins of pool web have learned from 3 steps, it was 8 before"]);
    model.settle_plan();
    assert!(model.judge_plan(&plan(0)).is_empty());
}
