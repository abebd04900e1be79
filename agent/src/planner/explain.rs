//! What stands behind a plan: sources, costs, alternatives, margins. Pure.
//!
//! Made from the plan and the snapshot that it was made from, when somebody asks; nothing here decides.
//!
//! What an alternative is expected to cost is the price of its instances and the late cost of what is missing on average in the
//! highest step within the lead time: `C + r * E[(D - C)+]` in prices of one instance, by the planner's own [`Distribution`] of the demand; where the pool has
//! spot instances, by what [`super::spot`] weighs them with.

use super::costs::{break_even, late_cost_ratio, waits};
use super::demand::{Demand, Incoming, path_median};
use super::distribution::{Distribution, ladder};
use super::own::Provided;
use super::risk;
use super::sizing::{need, usable};
use super::spot::{Terms, bid};
use super::{PoolSnapshot, Snapshot, lead, ready_from, share};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::api::{Alternative, AlternativeKind, CostTerms, PlanExplanation, PoolExplanation, SourceShare, SpotTerms};
use tradewind_protocol::{PoolDecision, Quantile, RegionId, RegionalResourcePlan, ServiceName};

/// The most sources that are told of one pool, the largest: nobody reads more.
const MAX_SOURCES: usize = 50;

/// What stands behind `plan`, which was made from `snapshot`.
pub fn explain(plan: &RegionalResourcePlan, snapshot: &Snapshot) -> PlanExplanation {
    let pool = |decision: &PoolDecision| snapshot.pools.iter().find(|pool| pool.config.name == decision.pool);
    let reach = snapshot.pools.iter().map(|pool| lead(pool, snapshot)).max().unwrap_or(0);
    let levels: BTreeSet<Quantile> = ladder().chain(snapshot.pools.iter().map(|pool| pool.quantile(snapshot))).collect();
    let incoming = Incoming::of(snapshot, reach, levels);
    let explained = plan.decisions.iter().filter_map(|decision| {
        let pool = pool(decision)?;
        Some(one(decision, pool, lead(pool, snapshot), snapshot, &incoming))
    });
    PlanExplanation {
        region: plan.region.clone(),
        version: plan.version,
        made_at: plan.made_at,
        mode: plan.mode,
        known_until: plan.known_until,
        pools: explained.collect(),
        notes: plan.notes.clone(),
    }
}

fn one(decision: &PoolDecision, pool: &PoolSnapshot, lead: usize, snapshot: &Snapshot, incoming: &Incoming) -> PoolExplanation {
    let millis = |steps: u32| u64::try_from(snapshot.step.length().as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(steps));
    let peak = peak(pool, lead, snapshot, incoming);
    PoolExplanation {
        decision: decision.clone(),
        planned_before: pool.standing().total(),
        sources: sources(pool, peak, snapshot),
        costs: CostTerms {
            instance_hour_price: pool.price,
            late_cost_ratio: late_cost_ratio(pool, decision.reason.quantile),
            late_cost_stated: pool.config.costs.late_per_instance_hour.is_some(),
            scale_in_wait_ms: millis(waits(pool, snapshot)),
            break_even_ms: millis(break_even(pool, snapshot)),
            spot: spot_terms(decision, pool),
            max_cost_per_hour: pool.config.costs.max_per_hour,
            region_max_cost_per_hour: snapshot.config.max_cost_per_hour,
        },
        alternatives: if usable(pool.config.rate_per_instance) {
            alternatives(decision, pool, &Distribution::of(pool, lead, peak, snapshot, incoming))
        } else {
            vec![]
        },
        margin: pool.memory.margins.reasons(),
    }
}

/// Which of the steps after the last closed one the decision tells of, from 0.
fn peak(pool: &PoolSnapshot, lead: usize, snapshot: &Snapshot, incoming: &Incoming) -> usize {
    let quantile = pool.quantile(snapshot);
    let steps = Demand::on(&pool.config.service, incoming, lead, quantile).steps;
    Provided::to_order(pool, snapshot).highest(&steps, ready_from(pool, snapshot))
}

/// What the pool's mix was weighed with.
fn spot_terms(decision: &PoolDecision, pool: &PoolSnapshot) -> Option<SpotTerms> {
    let (config, spot) = (pool.config.spot.as_ref()?, pool.spot.as_ref()?);
    let terms = Terms::of(pool, decision.reason.quantile)?;
    let risk = &pool.memory.spot.risk;
    let prices = risk.prices(spot.past);
    Some(SpotTerms {
        instance_hour_price: terms.price,
        bid: bid(config, pool),
        interruptions_per_hour: terms.per_hour,
        prior_per_hour: risk::prior(config).0,
        interruptions: risk.interruptions,
        instance_hours: risk.instance_hours,
        crossings: prices.crossings,
        market_hours: prices.hours,
        outage_ms: millis(terms.outage),
        max_share: config.max_share,
        at_once: config.at_once,
    })
}

fn alternatives(decision: &PoolDecision, pool: &PoolSnapshot, demand: &Distribution) -> Vec<Alternative> {
    let chosen = decision.total();
    let quantile = decision.reason.quantile;
    let ratio = late_cost_ratio(pool, quantile);
    let terms = Terms::of(pool, quantile);
    let expected = |instances: u32, spot: u32| match &terms {
        Some(terms) => (terms.missing(instances - spot, spot, demand), terms.cost(instances - spot, spot, demand)),
        None => {
            let missing = demand.missing(f64::from(instances));
            (missing, f64::from(instances) + ratio * missing)
        }
    };
    let (_, paid) = expected(chosen, decision.spot());
    let lower = ladder().filter(|level| *level < quantile).last();
    let higher = ladder().find(|level| *level > quantile);
    let for_level = |level: Quantile| need(demand.at(level), 1.0);
    // What differs from what was chosen differs in spot instances.
    let kept = chosen - decision.spot();
    let candidates = [
        (AlternativeKind::Chosen, Some(chosen), Some(quantile)),
        (AlternativeKind::OneFewer, chosen.checked_sub(1), None),
        (AlternativeKind::OneMore, chosen.checked_add(1), None),
        (AlternativeKind::LowerQuantile, lower.map(for_level), lower),
        (AlternativeKind::HigherQuantile, higher.map(for_level), higher),
        (AlternativeKind::AsBefore, Some(pool.standing().total()), None),
        (AlternativeKind::AllOnDemand, terms.map(|_| chosen), None),
        (AlternativeKind::AllSpot, terms.map(|_| chosen), None),
    ];
    let mut alternatives: Vec<Alternative> = candidates
        .into_iter()
        .filter_map(|(kind, instances, quantile)| {
            let instances = instances?;
            let spot = match kind {
                AlternativeKind::AllOnDemand => 0,
                AlternativeKind::AllSpot => instances,
                _ if terms.is_some_and(|terms| terms.most(instances) > 0) => instances.saturating_sub(kept),
                _ => 0,
            };
            let (expected_missing, expected_cost) = expected(instances, spot);
            let dearer = expected_cost - paid;
            let rejected = match (kind, &terms) {
                (AlternativeKind::Chosen, _) => None,
                (AlternativeKind::AllOnDemand | AlternativeKind::AllSpot, Some(terms)) => {
                    Some(rejected_mix((instances, spot), dearer, terms, decision))
                }
                (_, _) => Some(rejected(instances, dearer, decision)),
            };
            let spot = terms.map(|_| spot);
            Some(Alternative { kind, instances, spot, quantile, expected_missing, expected_cost, rejected })
        })
        .collect();
    alternatives.sort_by_key(|alternative| alternative.instances);
    alternatives
}

/// Why `spot` of as many `instances` as were chosen, which is expected to cost `dearer` more, was not.
fn rejected_mix((instances, spot): (u32, u32), dearer: f64, terms: &Terms, decision: &PoolDecision) -> String {
    let floor = decision.reason.reactive_floor.min(instances);
    let left = instances - terms.lost(spot);
    if spot == decision.spot() {
        return "the same mix".into();
    }
    let compared =
        if dearer > 0.0 { format!("costs {dearer:.2} instances more") } else { format!("would cost {:.2} instances less", -dearer) };
    let rule = decision.mix.as_ref().map_or("", |mix| mix.rule.as_str());
    if left < floor {
        format!("{compared}, and an interruption would leave {left} of {floor} that the demand seen last needs")
    } else if spot > terms.most(instances) {
        format!("{compared}; {} of {instances} may be spot", terms.most(instances))
    } else if dearer > 0.0 {
        compared
    } else {
        format!("{compared}; decided by {rule}")
    }
}

/// Why `instances`, which are expected to cost `dearer` more, were not chosen.
fn rejected(instances: u32, dearer: f64, decision: &PoolDecision) -> String {
    let (chosen, reason) = (decision.total(), &decision.reason);
    if instances == chosen {
        return "the same number".into();
    }
    if dearer > 0.0 {
        return format!("costs {dearer:.2} instances more");
    }
    let saving = format!("would cost {:.2} instances less", -dearer);
    match &decision.blocked {
        Some(blocked) if instances > chosen => format!("{saving}, but {blocked}"),
        Some(_) | None if instances < reason.reactive_floor => {
            format!("{saving}, but the demand seen last needs {}", reason.reactive_floor)
        }
        Some(_) | None => format!("{saving} in that step; decided by {}", reason.rule),
    }
}

/// What each region and service adds to the median in the step `at`.
fn sources(pool: &PoolSnapshot, at: usize, snapshot: &Snapshot) -> Vec<SourceShare> {
    let part = share(pool, snapshot);
    let factors: BTreeMap<&ServiceName, f64> = snapshot.config.graph.load_on(&pool.config.service).collect();
    let mut found: BTreeMap<(&RegionId, &ServiceName), SourceShare> = BTreeMap::new();
    for forecast in snapshot.forecasts.iter().filter(|forecast| forecast.prediction.series.destination == snapshot.region) {
        let service = &forecast.prediction.series.service;
        let Some(factor) = factors.get(service) else { continue };
        let stale = forecast.age > snapshot.config.stale_after;
        let median = if stale { forecast.prediction.observed } else { path_median(&forecast.prediction, snapshot.known_until, at) };
        let entry = found.entry((&forecast.source, service)).or_insert_with(|| SourceShare {
            region: forecast.source.clone(),
            service: service.clone(),
            factor: *factor,
            median_rate: 0.0,
            share: 0.0,
            age_ms: millis(forecast.age),
            stale,
        });
        entry.median_rate += super::demand::sane(part * factor * median / snapshot.step.seconds());
        entry.age_ms = entry.age_ms.min(millis(forecast.age));
        entry.stale |= stale;
    }
    let all: f64 = found.values().map(|source| source.median_rate).sum();
    let mut sources: Vec<SourceShare> = found.into_values().collect();
    for source in &mut sources {
        source.share = if all > 0.0 { source.median_rate / all } else { 0.0 };
    }
    sources.sort_by(|a, b| b.median_rate.total_cmp(&a.median_rate));
    sources.truncate(MAX_SOURCES);
    sources
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, forecast, pool, snapshot};
    use super::*;
    use crate::planner::plan;
    use tradewind_protocol::pool::MicroUsd;

    #[test]
    fn an_explanation_tells_sources_costs_and_what_else_was_possible() {
        let web = PoolSnapshot { price: MicroUsd(500), ..pool(config("web")) };
        let sources = vec![forecast("a", 6.0, &[(6.0, 8.0), (6.0, 8.0)]), forecast("b", 2.0, &[(2.0, 2.0), (2.0, 2.0)])];
        let snapshot = snapshot(sources, vec![web]);
        let plan = plan(&snapshot);
        let explained = explain(&plan, &snapshot);
        let web = &explained.pools[0];
        assert_eq!(web.decision, plan.decisions[0]);
        let shares: Vec<_> = web.sources.iter().map(|source| (source.region.as_str(), source.median_rate, source.share)).collect();
        assert_eq!(shares, [("a", 6.0, 0.75), ("b", 2.0, 0.25)]);
        assert!((web.costs.late_cost_ratio - 10.0).abs() < 1e-9 && !web.costs.late_cost_stated, "as the 90 % quantile has it");
        let of = |kind| web.alternatives.iter().find(|alternative| alternative.kind == kind).unwrap();
        let chosen = of(AlternativeKind::Chosen);
        assert_eq!((chosen.instances, chosen.rejected.as_ref()), (10, None));
        for kind in [AlternativeKind::OneFewer, AlternativeKind::OneMore] {
            let other = of(kind);
            assert!(other.expected_cost > chosen.expected_cost && other.rejected.as_ref().unwrap().starts_with("costs"), "{other:?}");
        }
        assert_eq!(of(AlternativeKind::LowerQuantile).quantile, Quantile::per_mille(850).ok());
        assert!(of(AlternativeKind::AsBefore).expected_missing > 7.0, "nothing stood");
        assert!(web.alternatives.is_sorted_by_key(|alternative| alternative.instances));
        assert_eq!(web.margin.choices.len(), 8);
    }
}
