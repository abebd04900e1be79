//! What stands behind a plan: sources, costs, alternatives, margins. Pure.
//!
//! Made from the plan and the snapshot that it was made from, when somebody asks; nothing here decides.
//!
//! What an alternative is expected to cost is the price of its instances and the late cost of what is missing on average in the
//! highest step within the lead time: `C + r * E[(D - C)+]` in prices of one instance. The demand's distribution is the planner's
//! own: its quantiles above the median as they are provided for, mirrored below it, linear in between, and ending at the 99.9 % quantile.

use super::budget::total;
use super::costs::{LADDER, break_even, late_cost_ratio, waits};
use super::demand::{Demand, Incoming, path_median};
use super::own::Provided;
use super::sizing::{need, usable};
use super::{PoolSnapshot, Snapshot, lead, share};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::api::{Alternative, AlternativeKind, CostTerms, PlanExplanation, PoolExplanation, SourceShare};
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

fn ladder() -> impl Iterator<Item = Quantile> {
    LADDER.iter().filter_map(|thousandths| Quantile::per_mille(*thousandths).ok())
}

/// Which of the steps after the last closed one is the highest within the lead, from 0.
fn peak(pool: &PoolSnapshot, lead: usize, snapshot: &Snapshot, incoming: &Incoming) -> usize {
    let quantile = pool.quantile(snapshot);
    Provided::of(pool, snapshot, quantile).peak(&Demand::on(&pool.config.service, incoming, lead, quantile).steps)
}

/// The demand on a pool in one step, in instances.
struct Distribution {
    /// Probability and value, both ascending.
    points: Vec<(f64, f64)>,
}

impl Distribution {
    fn of(pool: &PoolSnapshot, lead: usize, step: usize, snapshot: &Snapshot, incoming: &Incoming) -> Self {
        let rate = pool.config.rate_per_instance;
        let demand = |level: Quantile| Demand::on(&pool.config.service, incoming, lead, level);
        let median = demand(Quantile::MEDIAN).steps.get(step).map_or(0.0, |step| share(pool, snapshot) * step.median_rate / rate);
        let above = |level: Quantile| {
            let provided = demand(level).steps.get(step).map_or(0.0, |demand| Provided::of(pool, snapshot, level).rate(step, demand));
            (provided / rate - median).max(0.0)
        };
        // Quantiles of forecasts ascend; sums of them do as far as they are not clipped.
        let mut upper: Vec<(f64, f64)> = ladder().map(|level| (level.probability(), above(level))).collect();
        let mut highest = 0.0f64;
        for (_, value) in &mut upper {
            highest = highest.max(*value);
            *value = highest;
        }
        let lower = upper.iter().rev().map(|(p, value)| (1.0 - p, (median - value).max(0.0)));
        let points = lower.chain(upper.iter().map(|(p, value)| (*p, median + value))).collect();
        Self { points }
    }

    /// What `level` of the ladder provides for.
    fn at(&self, level: Quantile) -> f64 {
        self.points.iter().find(|(p, _)| *p >= level.probability() - 1e-9).map_or(0.0, |(_, value)| *value)
    }

    /// What is missing on average where `instances` stand ready.
    fn missing(&self, instances: f64) -> f64 {
        let part = |(p0, v0): (f64, f64), (p1, v1): (f64, f64)| {
            let (a, b, width) = (v0 - instances, v1 - instances, p1 - p0);
            if a >= 0.0 {
                width * (a + b) / 2.0
            } else if b > 0.0 {
                width * b * b / (2.0 * (b - a))
            } else {
                0.0
            }
        };
        let inner: f64 = self.points.windows(2).map(|pair| part(pair[0], pair[1])).sum();
        let last = self.points.last().map_or(0.0, |(p, value)| (1.0 - p) * (value - instances).max(0.0));
        inner + last
    }
}

fn alternatives(decision: &PoolDecision, pool: &PoolSnapshot, demand: &Distribution) -> Vec<Alternative> {
    let chosen = total(decision);
    let quantile = decision.reason.quantile;
    let ratio = late_cost_ratio(pool, quantile);
    let expected = |instances: u32| {
        let missing = demand.missing(f64::from(instances));
        (missing, f64::from(instances) + ratio * missing)
    };
    let (_, paid) = expected(chosen);
    let lower = ladder().filter(|level| *level < quantile).last();
    let higher = ladder().find(|level| *level > quantile);
    let for_level = |level: Quantile| need(demand.at(level), 1.0);
    let candidates = [
        (AlternativeKind::Chosen, Some(chosen), Some(quantile)),
        (AlternativeKind::OneFewer, chosen.checked_sub(1), None),
        (AlternativeKind::OneMore, chosen.checked_add(1), None),
        (AlternativeKind::LowerQuantile, lower.map(for_level), lower),
        (AlternativeKind::HigherQuantile, higher.map(for_level), higher),
        (AlternativeKind::AsBefore, Some(pool.standing().total()), None),
    ];
    let mut alternatives: Vec<Alternative> = candidates
        .into_iter()
        .filter_map(|(kind, instances, quantile)| {
            let instances = instances?;
            let (expected_missing, expected_cost) = expected(instances);
            let rejected = (kind != AlternativeKind::Chosen).then(|| rejected(instances, expected_cost - paid, decision));
            Some(Alternative { kind, instances, quantile, expected_missing, expected_cost, rejected })
        })
        .collect();
    alternatives.sort_by_key(|alternative| alternative.instances);
    alternatives
}

/// Why `instances`, which are expected to cost `dearer` more, were not chosen.
fn rejected(instances: u32, dearer: f64, decision: &PoolDecision) -> String {
    let (chosen, reason) = (total(decision), &decision.reason);
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
    fn what_is_missing_is_the_integral_of_the_quantiles_above_capacity() {
        // Uniform between 0 and 10.
        let uniform = Distribution { points: vec![(0.0, 0.0), (0.5, 5.0), (1.0, 10.0)] };
        for capacity in [0.0, 3.0, 5.0, 9.5, 12.0f64] {
            let exact = (10.0 - capacity).max(0.0).powi(2) / 20.0;
            assert!((uniform.missing(capacity) - exact).abs() < 1e-12, "{capacity}");
        }
    }

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
