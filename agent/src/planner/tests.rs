//! The planner's behaviours one by one, and what holds of any snapshot.

use super::*;
use crate::config::{Costs, ProcessConfig, ProviderConfig};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{PoolName, Quantile, QuantilePath, Resources, SeriesKey, ServiceName, TenantName, TransactionType};

const STEP: Duration = Duration::from_secs(60);
const KNOWN: StepIndex = StepIndex(100);
/// A time after all that is tested.
const LATER: &str = "1970-01-02T00:00:00Z";

fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// A pool of service `web` whose instances serve one transaction per second and take one step to
/// start, so that the lead time is two steps.
pub(super) fn config(name: &str) -> PoolConfig {
    PoolConfig {
        name: PoolName::new(name).unwrap(),
        service: service("web"),
        rate_per_instance: 1.0,
        instance: Resources { cpu_millis: 100, ..Resources::ZERO },
        capacity: Resources { cpu_millis: 10_000, ..Resources::ZERO },
        min_instances: 0,
        max_instances: 50,
        min_warm: 0,
        startup: STEP,
        drain_timeout: STEP,
        instance_hour_price: MicroUsd(0),
        costs: Default::default(),
        policies: vec![],
        provider: ProviderConfig::Process(ProcessConfig { command: vec!["worker".into()], env: vec![] }),
        spot: None,
    }
}

pub(super) fn pool(config: PoolConfig) -> PoolSnapshot {
    PoolSnapshot {
        price: config.instance_hour_price,
        price_doubt: None,
        config,
        counts: InstanceCounts::default(),
        measured_startup: None,
        memory: Memory::default(),
        observed: None,
        foreseen: None,
        surging: false,
        spot: None,
    }
}

/// A forecast from `source` for `web` here. `rows` are medians and 90 % quantiles, in transactions
/// per second, of the steps after the last closed one.
pub(super) fn forecast(source: &str, observed: f64, rows: &[(f64, f64)]) -> SourceForecast {
    let quantiles = vec![Quantile::MEDIAN, Quantile::GRID[5]];
    let values = rows.iter().flat_map(|(median, q90)| [*median as f32 * 60.0, *q90 as f32 * 60.0]).collect();
    let prediction = PredictionData {
        series: SeriesKey {
            tenant: TenantName::default(),
            source: region(source),
            destination: region("here"),
            service: service("web"),
            transaction_type: TransactionType::default(),
        },
        issued_at: Timestamp::EPOCH,
        observed: observed * 60.0,
        mean_volume: observed * 60.0,
        path: QuantilePath::new(KNOWN.offset(1), Step::new(STEP).unwrap(), quantiles, values).unwrap(),
        model: "test".into(),
        score: ForecastScore::default(),
    };
    SourceForecast { source: region(source), age: Duration::ZERO, live: true, prediction: Arc::new(prediction) }
}

pub(super) fn snapshot(forecasts: Vec<SourceForecast>, pools: Vec<PoolSnapshot>) -> Snapshot {
    let step = Step::new(STEP).unwrap();
    Snapshot {
        region: region("here"),
        now: step.end(KNOWN).after(Duration::from_secs(2)),
        step,
        known_until: KNOWN,
        mode: Mode::Active,
        forecasts,
        expected_sources: BTreeSet::new(),
        pools,
        config: PlannerConfig {
            graph: Arc::default(),
            quantile: Quantile::GRID[5],
            settle: Duration::from_secs(2),
            scale_in_after: 3 * STEP,
            stale_after: 5 * STEP,
            max_cost_per_hour: None,
        },
        version: 7,
    }
}

/// A decision for these rates, in transactions per second.
pub(super) fn decision(median_rate: f64, demand_rate: f64) -> PoolDecision {
    let mut decision = plan(&snapshot(vec![], vec![pool(config("web"))])).decisions.remove(0);
    let reason = &mut decision.reason;
    (reason.median_rate, reason.upper_rate, reason.demand_rate) = (median_rate, demand_rate - median_rate, demand_rate);
    decision
}

/// Plans for one pool, and holds the plan to the checker.
fn decided(snapshot: &Snapshot) -> PoolDecision {
    let plan = planned(snapshot);
    assert_eq!(plan.decisions.len(), 1);
    plan.decisions.into_iter().next().unwrap()
}

fn planned(snapshot: &Snapshot) -> RegionalResourcePlan {
    check(plan(snapshot), snapshot).unwrap().into_inner()
}

#[test]
fn demand_on_a_service_is_load_on_what_it_calls() {
    let of_shop = |pair: SourceForecast| {
        let mut prediction = (*pair.prediction).clone();
        prediction.series.service = service("shop");
        SourceForecast { prediction: Arc::new(prediction), ..pair }
    };
    let forecasts = vec![forecast("here", 1.0, &[(2.0, 3.0), (2.0, 3.0)]), of_shop(forecast("far", 4.0, &[(5.0, 6.0), (4.0, 4.0)]))];
    let mut given = snapshot(forecasts, vec![pool(config("a"))]);
    assert_eq!(plan(&given).decisions[0].reason.observed_rate, 1.0, "nobody has said that the shop calls the web");
    let calls: Calls = [(service("shop"), [(service("web"), 3.0)].into())].into();
    given.config.graph = Arc::new(ServiceGraph::new(&calls).unwrap());
    let reason = &plan(&given).decisions[0].reason;
    assert_eq!((reason.forecasts, reason.observed_rate, reason.median_rate), (2, 1.0 + 3.0 * 4.0, 2.0 + 3.0 * 5.0));
    assert!(reason.demand_rate > reason.median_rate + 3.0 && reason.demand_rate < reason.median_rate + 1.0 + 3.0, "{reason:?}");
    assert!(check(plan(&given), &given).is_ok());
}

#[test]
fn a_rise_within_the_lead_time_is_warm_before_it_comes() {
    let rise = forecast("a", 4.0, &[(4.0, 5.0), (5.0, 6.0), (9.0, 11.0), (30.0, 40.0)]);
    let slow = PoolConfig { startup: 2 * STEP, ..config("web") };
    let snapshot = snapshot(vec![rise], vec![pool(slow)]);
    let decision = decided(&snapshot);
    assert_eq!((decision.active, decision.warm), (6, 5), "the running step and the next, then the third; not the fourth");
    assert_eq!((decision.reason.demand_rate, decision.reason.median_rate, decision.reason.observed_rate), (11.0, 9.0, 4.0));
    assert_eq!(decision.reason.lead_ms, 180_000);
    assert_eq!(decision.ready_by, snapshot.step.start(KNOWN.offset(3)));
    assert!(decision.reason.rule.starts_with("forecast"), "{}", decision.reason.rule);
    assert_eq!(decision.blocked, None);
}

#[test]
fn a_service_is_needed_from_the_first_step_within_the_lead_in_which_enough_is_foreseen() {
    // 60 transactions in the third step, at the quantile.
    let rise = forecast("a", 0.0, &[(0.0, 0.0), (0.0, 0.5), (0.4, 1.0), (9.0, 9.0)]);
    let staged = |lead: Duration, from: f64| {
        let config = crate::config::StageConfig { lead, keep: STEP, from, steps: vec![] };
        BTreeMap::from([(service("web"), config)])
    };
    let alone = snapshot(vec![rise.clone()], vec![]);
    let at = |snapshot: &Snapshot, lead, from| needs(snapshot, &plan(snapshot), &staged(lead, from)).remove(&service("web"));
    let third = alone.step.start(KNOWN.offset(3));
    assert_eq!(at(&alone, 5 * STEP, 60.0), Some(third));
    assert_eq!(at(&alone, 5 * STEP, 61.0), Some(alone.step.start(KNOWN.offset(4))));
    assert_eq!(at(&alone, STEP, 60.0), None, "it begins after the lead");
    assert_eq!(at(&alone, 2 * STEP, 60.0), Some(third));
    let kept = snapshot(vec![], vec![pool(PoolConfig { min_instances: 1, ..config("p") })]);
    assert_eq!(at(&kept, STEP, 1.0), Some(kept.now), "the plan wants an instance");
}

#[test]
fn a_measured_startup_replaces_the_stated_one() {
    let rise = || forecast("a", 4.0, &[(4.0, 5.0), (5.0, 6.0), (9.0, 11.0)]);
    let slow = PoolSnapshot { measured_startup: Some(2 * STEP), ..pool(config("web")) };
    assert_eq!(decided(&snapshot(vec![rise()], vec![pool(config("web"))])).warm, 0);
    assert_eq!(decided(&snapshot(vec![rise()], vec![slow])).warm, 5);
}

#[test]
fn quantiles_of_many_sources_are_not_summed() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let many = names.iter().map(|name| forecast(name, 1.0, &[(1.0, 2.0), (1.0, 2.0)])).collect();
    let decision = decided(&snapshot(many, vec![pool(config("web"))]));
    assert_eq!(decision.reason.forecasts, 9);
    assert_eq!(decision.reason.median_rate, 9.0);
    // Between independent (9 + 3) and all at once (9 + 9).
    assert!((12.0..15.0).contains(&decision.reason.demand_rate), "{}", decision.reason.demand_rate);
    let one = decided(&snapshot(vec![forecast("a", 1.0, &[(1.0, 2.0)])], vec![pool(config("web"))]));
    assert!((one.reason.demand_rate - 2.0).abs() < 1e-9, "one source's quantile is the sum's");
}

#[test]
fn a_learned_margin_moves_what_lies_above_the_median_only() {
    let margin = |margin| {
        let memory = Memory { margins: Margins::with_tuner(Tuner::with_margin(margin)), ..Memory::default() };
        let pool = PoolSnapshot { memory, ..pool(config("web")) };
        decided(&snapshot(vec![forecast("a", 5.0, &[(5.0, 7.0), (5.0, 7.0)])], vec![pool])).reason.demand_rate
    };
    for (tuned, rate) in [(0.5, 6.05), (1.0, 7.0), (2.0, 8.9)] {
        assert!((margin(tuned) - rate).abs() < 1e-9, "as long as nothing is known, the tuner has nineteen twentieths of the say");
    }
}

#[test]
fn never_below_what_the_demand_seen_last_needs() {
    let fall = forecast("a", 8.2, &[(1.0, 2.0), (1.0, 2.0)]);
    let decision = decided(&snapshot(vec![fall], vec![pool(config("web"))]));
    assert_eq!((decision.active, decision.reason.reactive_floor), (9, 9));
    assert!(decision.reason.rule.starts_with("reactive floor"), "{}", decision.reason.rule);
}

/// A pool of 50 instances at most whose own demand foretells `steps`, in instances, and of which `stood` stand.
fn foretold(steps: &[f32], stood: u32) -> PoolSnapshot {
    let foreseen = Foreseen::certain(&steps.iter().map(|instances| instances * 2.0).collect::<Vec<_>>());
    let memory = Memory { standing: Some(Standing { active: stood, warm: 0 }), ..Memory::default() };
    PoolSnapshot { foreseen: Some(foreseen), memory, ..pool(config("web")) }
}

#[test]
fn live_load_is_what_was_seen_last_as_far_as_it_stays() {
    let seen = |steps: &[f32]| snapshot(vec![forecast("a", 20.0, &[(0.0, 0.0), (0.0, 0.0)])], vec![foretold(steps, 0)]);
    let (passes, stays) = (seen(&[18.0, 5.0]), seen(&[30.0, 30.0]));
    assert_eq!(
        (decided(&passes).active, decided(&passes).reason.reactive_floor),
        (5, 5),
        "what is over when an order is ready is not ordered"
    );
    let held = decided(&stays);
    assert_eq!(held.reason.reactive_floor, 20, "never more than was seen");
    assert!(held.active >= 27, "{held:?}");
    // Whatever the forecasts of others say, and for the checker as for the plan.
    let lowered = |snapshot: &Snapshot, active| {
        let mut plan = planned(snapshot);
        (plan.decisions[0].active, plan.decisions[0].warm) = (active, 0);
        check(plan, snapshot).map(|_| ())
    };
    assert!(matches!(lowered(&stays, 19).unwrap_err()[..], [Violation::BelowReactiveFloor { active: 19, floor: 20, .. }]));
    assert!(matches!(lowered(&passes, 4).unwrap_err()[..], [Violation::BelowReactiveFloor { active: 4, floor: 5, .. }]));
    let unknown = PoolSnapshot { foreseen: None, ..foretold(&[], 0) };
    let unknown = snapshot(vec![forecast("a", 20.0, &[(0.0, 0.0), (0.0, 0.0)])], vec![unknown]);
    assert_eq!(decided(&unknown).active, 20, "without a record all of it");
    let mut surge = passes;
    surge.pools[0].surging = true;
    let surge = decided(&surge);
    assert_eq!((surge.active, surge.reason.reactive_floor), (20, 20), "what never came before is not taken to pass");
    assert!(surge.reason.rule.starts_with("anomaly"), "{}", surge.reason.rule);
}

#[test]
fn nothing_is_ordered_for_a_step_that_is_over_before_it_is_ready_and_what_stands_is_kept_for_it() {
    let total = |stood, memory: Memory| {
        let web = foretold(&[30.0, 10.0], stood);
        let memory = Memory { standing: web.memory.standing, ..memory };
        let decision = decided(&snapshot(vec![forecast("a", 8.0, &[(30.0, 30.0), (10.0, 10.0)])], vec![PoolSnapshot { memory, ..web }]));
        decision.active + decision.warm
    };
    assert_eq!([0, 18, 40].map(|stood| total(stood, Memory::default())), [10, 18, 30]);
    // Half a step to start: an order is of use to the step that runs.
    let quick = PoolSnapshot { measured_startup: Some(STEP / 2), ..foretold(&[30.0, 10.0], 0) };
    let quick = decided(&snapshot(vec![forecast("a", 8.0, &[(30.0, 30.0), (10.0, 10.0)])], vec![quick]));
    assert!(quick.active == 30 && (quick.reason.demand_rate - 30.0).abs() < 1e-9, "and told of, so that scale-in waits for it");
    // What stands is what was asked for since, not what was asked for last.
    let mut memory = Memory::default();
    let asked = PoolDecision { active: 13, warm: 0, ..decision(1.0, 1.0) };
    memory.margins.note(margins::Noted { known_until: KNOWN.offset(-1), decision: &asked, pool: &config("web"), waits: 0, lead: 2 });
    assert_eq!(total(40, memory), 13);
}

#[test]
fn scale_in_waits_until_the_need_was_lower_for_long_enough() {
    for (min_warm, expected) in [(0, [9, 9, 9, 9, 3, 3]), (1, [10, 10, 10, 10, 4, 4])] {
        assert_eq!(totals_after_a_peak(min_warm), expected, "three steps, and not for ever because of its own plans");
    }
}

/// The instances wanted in a step of a peak and those after it.
fn totals_after_a_peak(min_warm: u32) -> [u32; 6] {
    let web = PoolConfig { min_warm, ..config("web") };
    let mut recent = RecentNeeds::default();
    let low = || forecast("a", 2.0, &[(2.0, 3.0), (2.0, 3.0)]);
    let high = forecast("a", 2.0, &[(9.0, 9.0), (9.0, 9.0)]);
    std::array::from_fn(|at| {
        let forecast = if at == 0 { high.clone() } else { low() };
        let mut snapshot = snapshot(
            vec![forecast],
            vec![PoolSnapshot { memory: Memory { recent: recent.clone(), ..Memory::default() }, ..pool(web.clone()) }],
        );
        // The same path for every step: it is held at its end.
        snapshot.known_until = KNOWN.offset(at as i64);
        let decision = decided(&snapshot);
        assert!(at == 0 || decision.active == 3, "what is held back does not serve");
        recent.note(snapshot.known_until, &decision, &web);
        decision.active + decision.warm
    })
}

#[test]
fn minima_hold_without_any_forecast_and_the_plan_says_why() {
    let web = PoolConfig { min_instances: 2, min_warm: 1, ..config("web") };
    let elsewhere = {
        let mut forecast = forecast("a", 9.0, &[(9.0, 9.0)]);
        Arc::make_mut(&mut forecast.prediction).series.destination = region("elsewhere");
        forecast
    };
    let snapshot = snapshot(vec![elsewhere], vec![pool(web)]);
    let decision = decided(&snapshot);
    assert_eq!((decision.active, decision.warm), (2, 1));
    assert_eq!(decision.reason.rule, "min_instances");
    let notes = planned(&snapshot).notes;
    assert!(notes.iter().any(|note| note.contains("service web: no region forecasts traffic to it")), "{notes:?}");
}

#[test]
fn max_instances_cuts_and_says_so() {
    let web = PoolConfig { max_instances: 5, ..config("web") };
    let decision = decided(&snapshot(vec![forecast("a", 8.0, &[(8.0, 9.0), (8.0, 12.0)])], vec![pool(web)]));
    assert_eq!((decision.active, decision.warm), (5, 0));
    let blocked = decision.blocked.unwrap();
    assert_eq!(blocked, "12 instances are wanted, but max_instances is 5");
}

#[test]
fn capacity_cuts_and_says_so() {
    let web = PoolConfig { capacity: Resources { cpu_millis: 350, ..Resources::ZERO }, min_instances: 4, ..config("web") };
    let decision = decided(&snapshot(vec![], vec![pool(web)]));
    assert_eq!(decision.active, 3);
    let blocked = decision.blocked.unwrap();
    assert!(blocked.contains("cpu_millis=350") && blocked.contains("holds 3"), "{blocked}");
}

#[test]
fn a_stale_source_is_planned_for_as_it_was_last_seen() {
    let mut old = forecast("old", 3.0, &[(9.0, 20.0), (9.0, 20.0)]);
    old.age = 6 * STEP;
    let mut gone = forecast("gone", 1.0, &[(1.0, 1.0), (2.0, 2.0)]);
    gone.live = false;
    let mut snapshot = snapshot(vec![old, gone, forecast("a", 1.0, &[(1.0, 1.0), (1.0, 1.0)])], vec![pool(config("web"))]);
    snapshot.expected_sources = [region("a"), region("lost")].into();
    let decision = decided(&snapshot);
    assert_eq!(decision.reason.demand_rate, 6.0);
    assert_eq!((decision.reason.forecasts, decision.reason.reactive_floor), (2, 5));
    assert_eq!(decision.reason.stale_sources, [region("lost"), region("old")]);
    let notes = planned(&snapshot).notes;
    for wanted in ["region lost: its forecast is missing", "region old: its forecast is missing", "region gone: its agent is gone"] {
        assert!(notes.iter().any(|note| note.starts_with(wanted)), "{wanted} in {notes:?}");
    }
}

#[test]
fn pools_of_one_service_share_its_demand_by_size() {
    let (big, small) = (PoolConfig { max_instances: 30, ..config("big") }, PoolConfig { max_instances: 10, ..config("small") });
    let snapshot = snapshot(vec![forecast("a", 8.0, &[(8.0, 8.0), (8.0, 8.0)])], vec![pool(small), pool(big)]);
    let decisions = planned(&snapshot).decisions;
    let sizes: Vec<_> = decisions.iter().map(|decision| (decision.pool.as_str(), decision.active)).collect();
    assert_eq!(sizes, [("big", 6), ("small", 2)]);
}

#[test]
fn an_impossible_rate_is_blocked_instead_of_guessed() {
    for rate_per_instance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let web = PoolConfig { rate_per_instance, min_instances: 1, ..config("web") };
        let decision = decided(&snapshot(vec![forecast("a", 8.0, &[(8.0, 8.0)])], vec![pool(web)]));
        assert_eq!(decision.active, 1);
        assert!(decision.blocked.unwrap().contains("rate_per_instance"));
    }
}

#[test]
fn the_checker_finds_everything_that_is_wrong() {
    let web = PoolConfig { min_instances: 2, min_warm: 1, ..config("web") };
    let snapshot = snapshot(vec![forecast("a", 8.0, &[(8.0, 8.0), (8.0, 8.0)])], vec![pool(web), pool(config("other"))]);
    let good = plan(&snapshot);
    assert_eq!(check(good.clone(), &snapshot).unwrap().plan(), &good);

    let mut bad = good.clone();
    bad.region = region("there");
    bad.known_until = KNOWN.offset(-1);
    let web = bad.decisions.pop().unwrap();
    let low = PoolDecision { active: 1, warm: 0, service: service("api"), ..web.clone() };
    let mut high = PoolDecision { active: u32::MAX, warm: u32::MAX, ..web.clone() };
    high.reason.demand_rate = f64::NAN;
    let unknown = PoolDecision { pool: PoolName::new("nowhere").unwrap(), ..web.clone() };
    bad.decisions = vec![low, high, unknown];
    let found: Vec<String> = check(bad, &snapshot).unwrap_err().iter().map(ToString::to_string).collect();
    for wanted in [
        "of region there",
        "other steps",
        "pool web serves web, not api",
        "fewer than min_instances (2)",
        "fewer than min_warm (1)",
        "which needs 4",
        "decided more than once",
        "more than the 50",
        "demand_rate of the reason is NaN",
        "pool nowhere does not exist",
        "pool other is not decided",
    ] {
        assert_eq!(found.iter().filter(|text| text.contains(wanted)).count(), 1, "{wanted} in {found:#?}");
    }
}

#[test]
fn less_than_the_floor_passes_only_with_its_reason() {
    let snapshot = snapshot(vec![forecast("a", 8.0, &[(8.0, 8.0), (8.0, 8.0)])], vec![pool(config("web"))]);
    let mut low = plan(&snapshot);
    low.decisions[0].active = 7;
    assert!(matches!(check(low.clone(), &snapshot).unwrap_err()[..], [Violation::BelowReactiveFloor { active: 7, floor: 8, .. }]));
    low.decisions[0].blocked = Some("the provider refuses more".into());
    assert!(check(low, &snapshot).is_ok());
}

#[test]
fn costs_choose_the_quantile() {
    let chosen = |price, late| {
        let costs = Costs { late_per_instance_hour: Some(MicroUsd(late)), ..Costs::default() };
        let pool = PoolSnapshot { price: MicroUsd(price), ..pool(PoolConfig { costs, ..config("web") }) };
        decided(&snapshot(vec![forecast("a", 5.0, &[(5.0, 7.0), (5.0, 7.0)])], vec![pool])).reason
    };
    let at = |price, late| chosen(price, late).quantile.thousandths();
    assert_eq!((at(100, 2_000), at(100, 1_000), at(100, 200), at(100, 1_900)), (950, 900, 500, 950));
    assert_eq!((at(100, 10_000_000), at(300, 100), at(0, 0)), (999, 500, 500), "within the ladder");
    assert_eq!((chosen(100, 1_000).demand_rate, chosen(100, 200).demand_rate), (7.0, 5.0));
    // Two pools, two quantiles, one sum over the forecasts.
    let costs = |late| Costs { late_per_instance_hour: Some(MicroUsd(late)), ..Costs::default() };
    let priced = |name, late| PoolSnapshot { price: MicroUsd(100), ..pool(PoolConfig { costs: costs(late), ..config(name) }) };
    let both = planned(&snapshot(vec![forecast("a", 5.0, &[(6.0, 8.0), (6.0, 8.0)])], vec![priced("a", 1_000), priced("b", 200)]));
    assert_eq!(both.decisions.iter().map(|d| d.reason.demand_rate).collect::<Vec<_>>(), [4.0, 3.0]);
}

#[test]
fn an_idle_instance_is_kept_as_long_as_that_is_cheaper_than_a_start() {
    // A start costs three steps' rent and takes one step: the break-even lies after four.
    let costs = Costs { start: MicroUsd(300), ..Costs::default() };
    let web = PoolConfig { costs, ..config("web") };
    let rows = |again: f64| [(2.0, 2.0), (2.0, 2.0), (2.0, 2.0), (again, 99.0), (30.0, 99.0)];
    let decided_with = |again, memory| {
        let pool = PoolSnapshot { price: MicroUsd(6_000), memory, ..pool(web.clone()) };
        decided(&snapshot(vec![forecast("a", 2.0, &rows(again))], vec![pool]))
    };
    let kept = decided_with(7.0, stood(2, 4));
    assert_eq!((kept.active, kept.warm), (2, 4), "needed again in four steps, and no more than stands is kept for it");
    assert!(kept.reason.rule.starts_with("kept: the forecast needs it again"), "{}", kept.reason.rule);
    assert_eq!(decided_with(2.0, stood(2, 4)).warm, 0, "needed again too late");
    let mut memory = stood(9, 0);
    let mut high = decided_with(2.0, stood(9, 0));
    high.reason.demand_rate = 9.0;
    memory.recent.note(KNOWN.offset(-4), &high, &web);
    let rented = decided_with(2.0, memory.clone());
    assert_eq!((rented.active, rented.warm), (2, 7), "longer than scale_in_after, which is three");
    assert!(rented.reason.rule.starts_with("scale-in waits"));
    let known = PoolSnapshot { price: MicroUsd(6_000), ..foretold(&[2.0, 2.0], 2) };
    let known = PoolSnapshot { config: web, ..known };
    let waited = |foreseen| costs::break_even(&PoolSnapshot { foreseen, ..known.clone() }, &snapshot(vec![], vec![]));
    assert_eq!(
        (waited(None), waited(known.foreseen.clone())),
        (4, 3),
        "an order is weighed with the rent of its start once demand is known"
    );
}

pub(super) fn policy(name: &str) -> Policy {
    let none = StepLimit::default();
    Policy {
        name: name.into(),
        when: When::Always,
        min_instances: None,
        max_instances: None,
        min_warm: None,
        up: none,
        down: none,
        freeze: false,
    }
}

/// Nothing learned, and so many instances planned before.
pub(super) fn stood(active: u32, warm: u32) -> Memory {
    Memory { standing: Some(Standing { active, warm }), ..Memory::default() }
}

/// The decision on a pool that needs nine instances now and soon, ten of which stood, with these policies.
fn under(policies: Vec<Policy>, standing: u32) -> PoolDecision {
    let pool = PoolSnapshot { memory: stood(standing, 0), ..pool(PoolConfig { policies, ..config("web") }) };
    decided(&snapshot(vec![forecast("a", 8.0, &[(8.0, 9.0), (8.0, 9.0)])], vec![pool]))
}

#[test]
fn policies_in_force_narrow_the_pool_and_are_named() {
    let low = Policy { max_instances: Some(7), ..policy("night") };
    let past = Policy { when: When::Between(Timestamp::EPOCH, Timestamp::from_millis(1).unwrap()), ..low.clone() };
    assert_eq!(under(vec![past], 9).active, 9, "what is over does not hold");
    let cut = under(vec![low.clone(), Policy { max_instances: Some(8), ..policy("other") }], 9);
    assert_eq!((cut.active, cut.blocked.as_deref()), (7, Some("9 instances are wanted, but max_instances of policy night is 7")));
    let raised = under(vec![Policy { min_instances: Some(12), min_warm: Some(2), ..policy("office") }], 9);
    assert_eq!((raised.active, raised.warm, raised.reason.rule.as_str()), (12, 2, "min_instances"));
}

#[test]
fn a_round_goes_no_further_than_a_policy_lets_it() {
    let steps = |up, down| {
        let limit = |instances| StepLimit { instances, percent: None };
        vec![Policy { up: limit(up), down: limit(down), ..policy("gently") }]
    };
    let up = under(steps(Some(2), None), 4);
    assert_eq!((up.active, up.blocked.as_deref()), (6, Some("9 instances are wanted, but policy gently lets a round go up to 6")));
    let down = under(steps(None, Some(3)), 20);
    assert_eq!((down.active, down.warm, down.blocked), (9, 8, None));
    assert_eq!(down.reason.rule, "policy gently lets a round go down to 17, 9 are wanted");
    let both = under(steps(Some(2), Some(3)), 9);
    assert_eq!((both.active, both.warm, both.blocked), (9, 0, None), "within both");
    let cap = Policy { max_instances: Some(10), ..policy("night") };
    let capped = under([steps(None, Some(3)), vec![cap]].concat(), 20);
    assert_eq!((capped.active, capped.warm), (9, 1), "a maximum holds at once");
}

#[test]
fn a_frozen_pool_stays_as_it_is_whatever_is_foreseen() {
    let frozen =
        vec![Policy { freeze: true, when: When::Between(Timestamp::EPOCH, Timestamp::parse(LATER).unwrap()), ..policy("release") }];
    let more = under(frozen.clone(), 20);
    assert_eq!((more.active, more.warm, more.blocked), (20, 0, None));
    assert_eq!(more.reason.rule, format!("policy release freezes the pool until {LATER}"));
    let fewer = under(frozen.clone(), 3);
    let why = format!("9 active and 0 warm instances are wanted, but policy release freezes the pool until {LATER}");
    assert_eq!((fewer.active, fewer.blocked), (3, Some(why)));

    let pool = PoolSnapshot { memory: stood(3, 1), ..pool(PoolConfig { policies: frozen, ..config("web") }) };
    let snapshot = snapshot(vec![forecast("a", 8.0, &[(8.0, 9.0)])], vec![pool]);
    let mut thawed = plan(&snapshot);
    assert!(thawed.notes.iter().any(|note| note.starts_with("BELOW THE LIVE FLOOR: pool web is to serve with 3 instances")));
    thawed.decisions[0].active = 4;
    assert!(matches!(check(thawed, &snapshot).unwrap_err()[..], [Violation::Thawed { active: 4, kept: 3, kept_warm: 1, .. }]));
}

#[test]
fn a_pools_budget_cuts_like_a_maximum() {
    let costs = Costs { max_per_hour: Some(MicroUsd(3_000)), ..Costs::default() };
    let priced = PoolConfig { costs, min_warm: 1, ..config("web") };
    let pool = PoolSnapshot { price: MicroUsd(900), ..pool(priced) };
    let snapshot = snapshot(vec![forecast("a", 8.0, &[(8.0, 9.0)])], vec![pool]);
    let decision = decided(&snapshot);
    assert_eq!((decision.active, decision.warm), (2, 1), "what the reconciler keeps warm in any case is within the budget");
    assert_eq!(decision.blocked.unwrap(), "10 instances are wanted, but max_cost_per_hour_usd (0.003 USD) pays for 3 at 0.0009 USD each");
    assert!(planned(&snapshot).notes[0].starts_with("BELOW THE LIVE FLOOR: pool web"));
}

#[test]
fn the_regions_budget_pays_for_floors_first_and_shares_the_rest() {
    let web = PoolSnapshot { price: MicroUsd(100), ..pool(PoolConfig { min_instances: 1, ..config("web") }) };
    let mut api = PoolSnapshot { price: MicroUsd(200), ..pool(config("api")) };
    api.config.service = service("api");
    let of_api = {
        let mut forecast = forecast("a", 2.0, &[(2.0, 12.0), (2.0, 12.0)]);
        Arc::make_mut(&mut forecast.prediction).series.service = service("api");
        forecast
    };
    // Floors of 4 and 2 instances, 14 and 12 wanted: 1,400 + 2,400.
    let mut given = snapshot(vec![forecast("a", 4.0, &[(4.0, 14.0), (4.0, 14.0)]), of_api], vec![web, api]);
    let totals = |given: &Snapshot| planned(given).decisions.iter().map(|d| (d.active + d.warm, d.blocked.is_some())).collect::<Vec<_>>();
    given.config.max_cost_per_hour = Some(MicroUsd(3_800));
    assert_eq!(totals(&given), [(12, false), (14, false)]);
    given.config.max_cost_per_hour = Some(MicroUsd(2_300));
    assert_eq!(totals(&given), [(7, true), (9, true)], "half of what lies above the floors");
    given.config.max_cost_per_hour = Some(MicroUsd(500));
    assert_eq!(totals(&given), [(1, true), (3, true)], "more than half of what the floors lack above what nobody takes");
    let dear = plan(&given);
    given.config.max_cost_per_hour = Some(MicroUsd(400));
    assert!(matches!(check(dear, &given).unwrap_err()[..], [Violation::AboveBudget { cost: MicroUsd(500), .. }]));
    given.config.max_cost_per_hour = Some(MicroUsd(0));
    assert_eq!(totals(&given), [(0, true), (1, true)], "min_instances stay");
}

/// Figures as they may come from a mistaken or malicious region.
fn figure() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), 0.0..20.0f64, Just(f64::MAX), Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(1e-300)]
}

prop_compose! {
    fn any_forecast()(source in "[a-d]", here in prop::bool::weighted(0.8), web in any::<bool>(), observed in figure(),
        mut values in prop::collection::vec(prop_oneof![Just(0.0f32), 0.0..2e3f32, Just(f32::MAX)], 2..16),
        start in -20..20i64, age in 0..600u64, live in any::<bool>()) -> SourceForecast {
        values.truncate(values.len() / 2 * 2);
        let quantiles = vec![Quantile::MEDIAN, Quantile::GRID[5]];
        let path = QuantilePath::rearranged(KNOWN.offset(start), Step::new(STEP).unwrap(), quantiles, values).unwrap();
        let mut forecast = forecast(&source, 1.0, &[(1.0, 1.0)]);
        let prediction = Arc::make_mut(&mut forecast.prediction);
        (prediction.path, prediction.observed) = (path, observed);
        prediction.series.service = service(if web { "web" } else { "api" });
        prediction.series.destination = region(if here { "here" } else { "there" });
        SourceForecast { age: Duration::from_secs(age), live, ..forecast }
    }
}

prop_compose! {
    fn any_policy()(min in prop::option::of(0..9u32), max in prop::option::of(0..40u32), warm in prop::option::of(0..4u32),
        up in prop::option::of(0..9u32), down in prop::option::of(0..9u32), percent in prop::option::of(0..150u32),
        freeze in prop::bool::weighted(0.2)) -> Policy {
        let limit = |instances| StepLimit { instances, percent };
        Policy { min_instances: min, max_instances: max, min_warm: warm, up: limit(up), down: limit(down), freeze, ..policy("p") }
    }
}

prop_compose! {
    /// A pool with policies, a budget and a past.
    fn governed_pool()(pool in any_pool(), policies in prop::collection::vec(any_policy(), 0..3), active in 0..50u32, warm in 0..9u32,
        price in 0..3_000u64, budget in prop::option::of(0..40_000u64), late in prop::option::of(0..90_000u64), start in 0..900u64) -> PoolSnapshot {
        let costs = Costs { max_per_hour: budget.map(MicroUsd), late_per_instance_hour: late.map(MicroUsd), price: None, start: MicroUsd(start) };
        let memory = Memory { standing: Some(Standing { active, warm }), ..pool.memory };
        PoolSnapshot { config: PoolConfig { policies, costs, ..pool.config }, memory, price: MicroUsd(price), ..pool }
    }
}

prop_compose! {
    fn any_pool()(name in "[a-c]", web in any::<bool>(), rate_per_instance in figure(), min_instances in 0..8u32, max in 0..40u32,
        min_warm in prop_oneof![0..4u32, Just(u32::MAX)], instance in 0..3u64, capacity in 0..60u64, startup in prop_oneof![0..400u64, Just(u64::MAX)],
        measured in prop::option::of(0..400u64), margin in figure(), needs in prop::collection::vec((-9..3i64, figure()), 0..5)) -> PoolSnapshot {
        let cpu = |cpu_millis| Resources { cpu_millis, ..Resources::ZERO };
        let config = PoolConfig {
            service: service(if web { "web" } else { "api" }), rate_per_instance, min_instances, max_instances: max, min_warm,
            instance: cpu(instance), capacity: cpu(capacity), startup: Duration::from_secs(startup), ..config(&name)
        };
        let mut recent = RecentNeeds::default();
        let mut decision = plan(&snapshot(vec![], vec![pool(self::config("x"))])).decisions.remove(0);
        for (at, rate) in needs {
            decision.reason.demand_rate = rate;
            recent.note(KNOWN.offset(at), &decision, &config);
        }
        PoolSnapshot { measured_startup: measured.map(Duration::from_secs), memory: Memory { recent, margins: Margins::with_tuner(Tuner::with_margin(margin)), standing: None, spot: SpotMemory::default() }, ..pool(config) }
    }
}

proptest! {
    #[test]
    fn any_snapshot_has_a_plan_that_passes_the_checker(
        forecasts in prop::collection::vec(any_forecast(), 0..8),
        pools in prop::collection::vec(prop_oneof![any_pool(), governed_pool()], 0..4),
        expected in prop::collection::btree_set("[a-f]", 0..4),
        known_until in prop_oneof![Just(KNOWN.0), Just(i64::MAX), Just(i64::MIN)],
        thousandths in 1..1000u16,
        budget in prop::option::of(0..80_000u64),
    ) {
        let mut snapshot = snapshot(forecasts, pools);
        snapshot.config.max_cost_per_hour = budget.map(MicroUsd);
        snapshot.expected_sources = expected.iter().map(|name| region(name)).collect();
        snapshot.known_until = StepIndex(known_until);
        snapshot.config.quantile = Quantile::per_mille(thousandths).unwrap();
        let plan = plan(&snapshot);
        let checked = check(plan.clone(), &snapshot);
        prop_assert!(checked.is_ok(), "{:?}", checked.unwrap_err());
        prop_assert!(plan.decisions.is_sorted_by(|a, b| a.pool < b.pool));
        for decision in &plan.decisions {
            prop_assert!(decision.reason.demand_rate >= decision.reason.median_rate);
            // The pool takes the plan as it is: nothing above or below its own keys.
            let config = &snapshot.pools.iter().find(|pool| pool.config.name == decision.pool).unwrap().config;
            let all = u64::from(decision.active) + u64::from(decision.warm);
            prop_assert!(all <= u64::from(config.max_instances));
            let fits = config.min_instances <= Limit::fixed(config).instances;
            prop_assert!(!fits || decision.active >= config.min_instances);
        }
    }
}
