//! Mixes of one pool and of any.

use super::super::tests::{config, forecast, pool, snapshot as region_snapshot, stood};
use super::*;
use crate::config::{Costs, PoolConfig};
use crate::planner::{Memory, SourceForecast, Violation, check, plan};
use proptest::prelude::*;
use tradewind_protocol::api::AlternativeKind;
use tradewind_protocol::{PoolDecision, RegionalResourcePlan};

const MINUTE: Duration = Duration::from_secs(60);

/// All spot instances may be taken at once, and may be the whole pool.
pub(in crate::planner) fn market() -> SpotConfig {
    SpotConfig::any("web-spot", MicroUsd(30_000))
}

/// A pool at 0.10 USD an instance-hour, 0.03 on the spot market.
fn web(spot: SpotConfig, change: impl FnOnce(&mut PoolConfig)) -> PoolSnapshot {
    let price = Some(spot.instance_hour_price);
    let mut config = PoolConfig { instance_hour_price: MicroUsd(100_000), spot: Some(spot), ..config("web") };
    change(&mut config);
    let spot = SpotSnapshot { price, doubts: vec![], past: PastPrices::default(), counted: Counted::default(), instances: 0 };
    PoolSnapshot { spot: Some(spot), ..pool(config) }
}

/// Six a second are seen, eight foreseen, at most ten.
fn demand() -> Vec<SourceForecast> {
    vec![forecast("a", 6.0, &[(8.0, 10.0), (8.0, 10.0)])]
}

fn given(pool: PoolSnapshot) -> Snapshot {
    region_snapshot(demand(), vec![pool])
}

/// Plans, and holds the plan to the checker.
fn decided(snapshot: &Snapshot) -> PoolDecision {
    check(plan(snapshot), snapshot).unwrap().into_inner().decisions.remove(0)
}

/// On demand, spot, reserve.
fn mixed(pool: PoolSnapshot) -> (u32, u32, u32) {
    let decision = decided(&given(pool));
    let mix = decision.mix.unwrap();
    (decision.active + decision.warm - mix.spot, mix.spot, mix.reserve)
}

#[test]
fn what_the_demand_seen_last_needs_is_on_demand_and_the_rest_is_spot() {
    let decision = decided(&given(web(market(), |_| ())));
    assert_eq!((decision.active, decision.warm, decision.spot()), (10, 0, 4));
    let mix = decision.mix.unwrap();
    assert_eq!((mix.reserve, mix.outage_ms, mix.exposed.as_deref()), (0, 60_000, None));
    assert!(mix.rule.contains("the demand seen last needs") && mix.expected_missing > 0.0, "{mix:?}");
    assert!(decided(&given(PoolSnapshot { spot: None, ..web(market(), |pool| pool.spot = None) })).mix.is_none());
}

#[test]
fn more_spot_instances_than_needed_hold_the_floor_where_only_a_part_is_taken_at_once() {
    // Half of twelve is six. Cheaper than six on demand and four spot: 12 * 0.3 < 6 + 4 * 0.3.
    assert_eq!(mixed(web(SpotConfig { at_once: 0.5, ..market() }, |_| ())), (0, 12, 2));
    // At most half of the pool: three on demand, and as many as leave three.
    let (on_demand, spot, _) = mixed(web(SpotConfig { at_once: 0.5, max_share: 0.5, ..market() }, |_| ()));
    assert!(spot <= on_demand && on_demand + spot / 2 >= 6 && on_demand + spot >= 10, "{on_demand} and {spot}");
    // A notice as long as a start: nothing is ever missing.
    assert_eq!(mixed(web(SpotConfig { notice: MINUTE, ..market() }, |_| ())), (0, 10, 0));
    // No room for a reserve.
    assert_eq!(mixed(web(SpotConfig { at_once: 0.5, ..market() }, |pool| pool.max_instances = 10)), (2, 8, 0));
}

#[test]
fn spot_instances_are_used_as_far_as_they_save_more_than_being_late_costs() {
    let rate = |per_hour| SpotConfig { interruptions_per_hour: Some(per_hour), ..market() };
    assert_eq!(mixed(web(rate(0.1), |_| ())).1, 4);
    // Taken every two minutes, missing for one.
    assert_eq!(mixed(web(rate(30.0), |pool| pool.costs.late_per_instance_hour = Some(MicroUsd(10_000_000)))).1, 0);
    // In between, the tail that is hardly ever needed is spot.
    let some = mixed(web(rate(0.8), |pool| pool.costs.late_per_instance_hour = Some(MicroUsd(10_000_000)))).1;
    assert!((1..4).contains(&some), "{some}");
    // Each interruption costs a start.
    assert_eq!(mixed(web(rate(1.0), |pool| pool.costs.start = MicroUsd(80_000))).1, 0);
    let dear = SpotConfig { instance_hour_price: MicroUsd(100_000), ..market() };
    let decision = decided(&given(web(dear, |_| ())));
    assert!(decision.spot() == 0 && decision.mix.unwrap().rule.contains("cost no less"));
    let unknown = web(market(), |_| ());
    let unknown = PoolSnapshot { spot: unknown.spot.clone().map(|spot| SpotSnapshot { price: None, ..spot }), ..unknown };
    let decision = decided(&given(unknown));
    assert!(decision.spot() == 0 && decision.mix.unwrap().rule.contains("a price is not known"));
}

#[test]
fn the_mix_is_the_best_by_the_newsvendors_rule() {
    // Uniform between 0 and 100; with all taken at once the best number on demand is the quantile at 1 - saving / (late * within).
    let demand = Distribution::with_points(vec![(0.0, 0.0), (0.5, 50.0), (1.0, 100.0)]);
    let terms = Terms {
        price: MicroUsd(30_000),
        per_hour: 0.5,
        outage: MINUTE,
        spot: 0.3,
        priced: true,
        within: 0.05,
        late: 20.0,
        at_once: 1.0,
        max_share: 1.0,
    };
    let pool = web(market(), |_| ());
    let choice = Choice { pool: &pool, terms, total: 95, floor: 0, most: 200, demand: &demand };
    let found = choice.cheapest();
    assert_eq!((found.on_demand, found.spot), (30, 65), "1 - 0.7 / (20 * 0.05) = 0.3");
    let all = (0..=95).map(|o| (terms.cost(o, 95 - o, &demand), o)).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(all.1, 30);
}

#[test]
fn less_on_demand_is_planned_for_only_when_less_was_wanted_for_a_while() {
    let seen = |rate: f64, memory: &Memory, at: i64| {
        let mut snapshot = region_snapshot(vec![forecast("a", rate, &[(8.0, 10.0), (8.0, 10.0)])], vec![web(market(), |_| ())]);
        snapshot.known_until = snapshot.known_until.offset(at);
        snapshot.pools[0].memory = memory.clone();
        let decision = decided(&snapshot);
        let mut memory = memory.clone();
        memory.close(&decision, &snapshot.pools[0], &snapshot, None);
        (decision.total() - decision.spot(), memory)
    };
    let (mut memory, mut on_demand) = (Memory::default(), vec![]);
    for (at, rate) in [5.0, 7.0, 4.0, 4.0, 4.0, 4.0, 6.0].into_iter().enumerate() {
        let (o, after) = seen(rate, &memory, at as i64);
        memory = after;
        on_demand.push(o);
    }
    // Scale-in waits three steps.
    assert_eq!(on_demand, [5, 7, 7, 7, 7, 4, 6]);
    assert_eq!(Memory::from_bytes(&memory.to_bytes()), Some(memory), "it survives a restart");
}

#[test]
fn budgets_are_kept_with_the_price_of_the_mix() {
    // Ten on demand cost 1.00; six and four spot 0.72; ten spot 0.30.
    let within = |budget: u64| {
        let decision = decided(&given(web(market(), |pool| pool.costs.max_per_hour = Some(MicroUsd(budget)))));
        let mix = decision.mix.clone().unwrap();
        (decision.total() - mix.spot, mix.spot, mix.exposed.is_some(), decision.blocked.is_some())
    };
    assert_eq!(within(720_000), (6, 4, false, false));
    assert_eq!(within(600_000), (4, 6, true, false), "rather in danger than fewer");
    assert_eq!(within(150_000), (0, 5, true, true));
    // The region's budget takes of both parts.
    let mut snapshot = given(web(market(), |_| ()));
    snapshot.config.max_cost_per_hour = Some(MicroUsd(360_000));
    let decision = decided(&snapshot);
    assert_eq!((decision.total(), decision.spot()), (5, 2), "half of 0.72");
    assert!(decision.blocked.is_some() && decision.mix.unwrap().exposed.is_some());
}

#[test]
fn a_frozen_pool_keeps_its_mix() {
    let mut frozen = web(market(), |pool| {
        pool.policies = vec![crate::planner::Policy { freeze: true, ..super::super::tests::policy("hold") }];
    });
    frozen.memory = stood(7, 1);
    frozen.spot = frozen.spot.map(|spot| SpotSnapshot { instances: 7, ..spot });
    let decision = decided(&given(frozen));
    assert_eq!((decision.total(), decision.spot()), (8, 7));
    assert!(decision.mix.unwrap().exposed.unwrap().contains("if 7 spot instances are taken at once, 1 are left of 6"));
}

#[test]
fn what_was_seen_of_interruptions_changes_the_mix() {
    let mut pool = web(market(), |pool| pool.costs.late_per_instance_hour = Some(MicroUsd(10_000_000)));
    assert_eq!(mixed(pool.clone()).1, 4);
    // Thirty taken in an hour of one.
    pool.memory.spot.risk.learn(Counted { interrupted: 30, instance_ms: 3_600_000 }, Some(false), tradewind_protocol::Timestamp::EPOCH);
    let decision = decided(&given(pool));
    assert!(decision.spot() < 4 && decision.mix.as_ref().unwrap().interruptions_per_hour > 1.0, "{decision:?}");
}

#[test]
fn an_explanation_tells_the_mix_and_why_neither_market_has_it_all() {
    let snapshot = given(web(market(), |_| ()));
    let explained = super::super::explain(&plan(&snapshot), &snapshot);
    let pool = &explained.pools[0];
    let terms = pool.costs.spot.as_ref().unwrap();
    assert_eq!((terms.bid, terms.instance_hour_price, terms.prior_per_hour), (MicroUsd(100_000), MicroUsd(30_000), 0.04));
    let of = |kind| pool.alternatives.iter().find(|alternative| alternative.kind == kind).unwrap();
    let (chosen, on_demand, spot) = (of(AlternativeKind::Chosen), of(AlternativeKind::AllOnDemand), of(AlternativeKind::AllSpot));
    assert_eq!((chosen.spot, on_demand.spot, spot.spot), (Some(4), Some(0), Some(10)));
    assert!(
        on_demand.expected_cost > chosen.expected_cost && on_demand.rejected.as_ref().unwrap().starts_with("costs 2."),
        "{on_demand:?}"
    );
    let why = spot.rejected.as_ref().unwrap();
    assert!(why.contains("an interruption would leave 0 of 6"), "{why}");
}

#[test]
fn the_checker_finds_mixes_that_must_not_be() {
    let snapshot = given(web(SpotConfig { max_share: 0.5, ..market() }, |_| ()));
    let good = plan(&snapshot);
    let violations = |change: &dyn Fn(&mut PoolDecision)| {
        let mut plan: RegionalResourcePlan = good.clone();
        change(&mut plan.decisions[0]);
        check(plan, &snapshot).unwrap_err()
    };
    let spot = |spot| move |decision: &mut PoolDecision| decision.mix.as_mut().unwrap().spot = spot;
    assert!(matches!(violations(&spot(5))[..], [Violation::Exposed { left: 5, floor: 6, .. }]));
    assert!(matches!(violations(&spot(8))[..], [Violation::TooMuchSpot { spot: 8, total: 10, .. }]));
    let mut without = snapshot.clone();
    (without.pools[0].spot, without.pools[0].config.spot) = (None, None);
    assert!(matches!(check(good.clone(), &without).unwrap_err()[..], [Violation::TooMuchSpot { .. }]));
    let mut poor = snapshot.clone();
    poor.pools[0].config.costs = Costs { max_per_hour: Some(MicroUsd(700_000)), ..Costs::default() };
    assert!(matches!(check(good, &poor).unwrap_err()[..], [Violation::AbovePoolBudget { .. }]));
}

prop_compose! {
    fn any_market()(price in 0..200_000u64, max_share in 0.0..=1.0f64, at_once in 0.01..=1.0f64, notice in 0..120u64,
        rate in prop::option::of(0.0..60.0f64)) -> SpotConfig {
        SpotConfig { instance_hour_price: MicroUsd(price), max_share, at_once, notice: Duration::from_secs(notice), interruptions_per_hour: rate, ..market() }
    }
}

proptest! {
    #[test]
    fn any_mix_passes_the_checker_and_is_no_dearer_than_all_on_demand(
        spot in any_market(), seen in 0.0..40.0f64, median in 0.0..40.0f64, above in 0.0..20.0f64, most in 1..60u32, least in 0..9u32,
        budget in prop::option::of(0..4_000_000u64), all in prop::option::of(0..4_000_000u64), late in prop::option::of(200_000..20_000_000u64),
        standing in 0..30u32, taken in 0..50u64,
    ) {
        let mut pool = web(spot, |pool| {
            (pool.max_instances, pool.min_instances) = (most, least.min(most));
            pool.costs = Costs { max_per_hour: budget.map(MicroUsd), late_per_instance_hour: late.map(MicroUsd), ..Costs::default() };
        });
        pool.spot = pool.spot.map(|spot| SpotSnapshot { instances: standing, ..spot });
        pool.memory.spot.risk.learn(Counted { interrupted: taken, instance_ms: 36_000_000 }, None, tradewind_protocol::Timestamp::EPOCH);
        let mut snapshot = region_snapshot(vec![forecast("a", seen, &[(median, median + above), (median, median + above)])], vec![pool]);
        snapshot.config.max_cost_per_hour = all.map(MicroUsd);
        let made = plan(&snapshot);
        prop_assert_eq!(&made, &plan(&snapshot));
        let checked = check(made.clone(), &snapshot);
        prop_assert!(checked.is_ok(), "{:?} of {:?}", checked, made.decisions);
        let explained = super::super::explain(&made, &snapshot);
        let cost = |kind| explained.pools[0].alternatives.iter().find(|of| of.kind == kind).unwrap().expected_cost;
        let mix = made.decisions[0].mix.as_ref().unwrap();
        if mix.reserve == 0 && budget.is_none() && all.is_none() {
            prop_assert!(cost(AlternativeKind::Chosen) <= cost(AlternativeKind::AllOnDemand) + 1e-6);
        }
    }
}
