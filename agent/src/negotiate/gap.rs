//! What a plan could not do for lack of capacity here, or what no provider here carries out, as what could be asked of others. Pure.
//!
//! Time is divided into slots of [`SLOT_STEPS`] steps on one grid, and what is asked for covers whole slots: a
//! gap that lasts is a row of claims, one behind the other, each small enough to let go when the forecast
//! changes. What the median, or the demand seen last, needs is asked for firmly; what only the quantile
//! provisioned for needs, softly.

use crate::config::PoolConfig;
use std::collections::BTreeMap;
use tradewind_protocol::reservation::{Confidence, Tier, Window};
use tradewind_protocol::{PoolDecision, PoolName, RegionalResourcePlan, ServiceName, Step, Timestamp};

/// A slot's length: long against a round of planning, short against a forecast's horizon.
pub(crate) const SLOT_STEPS: u32 = 10;
/// How many slots ahead are asked for at most.
const MAX_SLOTS: usize = 4;

/// What one pool lacks in one slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gap {
    /// The pool that lacks it.
    pub(crate) pool: PoolName,
    /// The service that its instances serve.
    pub(crate) service: ServiceName,
    /// The slot.
    pub(crate) window: Window,
    /// How surely it is to be covered.
    pub(crate) tier: Tier,
    /// How likely it is needed.
    pub(crate) confidence: Confidence,
    /// Transactions per second that cannot be served here.
    pub(crate) rate: f64,
}

/// All gaps of a plan, by pool, slot and tier. `stranded` are the pools in which nothing can be started for now, with what stands ready there:
/// what is planned is only there as far as it stands.
pub(crate) fn gaps(
    plan: &RegionalResourcePlan,
    pools: &[PoolConfig],
    stranded: &BTreeMap<PoolName, u32>,
    step: Step,
    now: Timestamp,
) -> Vec<Gap> {
    let of = |decision: &PoolDecision| {
        let pool = pools.iter().find(|pool| pool.name == decision.pool)?;
        let planned = decision.active.saturating_add(decision.warm);
        let ready = stranded.get(&decision.pool).map_or(planned, |ready| planned.min(*ready));
        (decision.blocked.is_some() || ready < planned).then(|| of_decision(decision, ready, pool, step, now))
    };
    plan.decisions.iter().filter_map(of).flatten().collect()
}

fn of_decision(decision: &PoolDecision, ready: u32, pool: &PoolConfig, step: Step, now: Timestamp) -> Vec<Gap> {
    let reason = &decision.reason;
    let have = f64::from(ready) * pool.rate_per_instance;
    let sure = reason.median_rate.max(f64::from(reason.reactive_floor) * pool.rate_per_instance);
    let upper = reason.demand_rate.max(sure);
    let missing = [(Tier::Firm, sure - have), (Tier::Soft, upper - sure.max(have))];
    let late = 1.0 - f64::from(reason.quantile.thousandths()) / 1_000.0;
    slots(step, now, decision.ready_by)
        .into_iter()
        .flat_map(|window| missing.map(|(tier, rate)| (window, tier, rate)))
        .filter(|(_, _, rate)| *rate > 0.0)
        .map(|(window, tier, rate)| Gap {
            pool: pool.name.clone(),
            service: pool.service.clone(),
            window,
            tier,
            // What lies above the median is needed with a probability between one half and the quantile's rest.
            confidence: match tier {
                Tier::Firm => Confidence::CERTAIN,
                Tier::Soft => Confidence::nearest((0.5 + late) / 2.0),
            },
            rate,
        })
        .collect()
}

/// The slots from now until one step after `ready_by`.
fn slots(step: Step, now: Timestamp, ready_by: Timestamp) -> Vec<Window> {
    let length = step.length() * SLOT_STEPS;
    let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
    let end = ready_by.max(now).after(step.length());
    let first = now.as_millis().div_euclid(millis);
    let slot = |index: i64| Window::of(Timestamp::saturating_from_millis(index.saturating_mul(millis)), length);
    (first..).map(slot).take_while(|window| window.from < end).take(MAX_SLOTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ProcessConfig, ProviderConfig};
    use std::time::Duration;
    use tradewind_protocol::plan::DecisionReason;
    use tradewind_protocol::pool::MicroUsd;
    use tradewind_protocol::region::Mode;
    use tradewind_protocol::{InstanceCounts, Quantile, Resources, StepIndex};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms).unwrap()
    }

    fn pool() -> PoolConfig {
        PoolConfig {
            name: "web".parse().unwrap(),
            service: "shop".parse().unwrap(),
            rate_per_instance: 10.0,
            instance: Resources { cpu_millis: 100, ..Resources::ZERO },
            capacity: Resources { cpu_millis: 300, ..Resources::ZERO },
            min_instances: 0,
            max_instances: 3,
            min_warm: 0,
            startup: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(1),
            instance_hour_price: MicroUsd(0),
            costs: Default::default(),
            policies: vec![],
            provider: ProviderConfig::Process(ProcessConfig { command: vec!["worker".into()], env: vec![] }),
            spot: None,
        }
    }

    fn plan(median: f64, demand: f64, floor: u32, blocked: bool) -> RegionalResourcePlan {
        let decision = PoolDecision {
            pool: "web".parse().unwrap(),
            service: "shop".parse().unwrap(),
            current: InstanceCounts::default(),
            active: 2,
            warm: 1,
            ready_by: at(14_500),
            reason: DecisionReason {
                quantile: Quantile::per_mille(900).unwrap(),
                demand_rate: demand,
                median_rate: median,
                upper_rate: demand - median,
                own_rate: None,
                observed_rate: 0.0,
                reactive_floor: floor,
                lead_ms: 3_000,
                forecasts: 1,
                stale_sources: vec![],
                rule: String::new(),
            },
            mix: None,
            blocked: blocked.then(|| "capacity".into()),
        };
        RegionalResourcePlan {
            region: "east".parse().unwrap(),
            version: 1,
            made_at: at(12_000),
            mode: Mode::Active,
            known_until: StepIndex(11),
            decisions: vec![decision],
            notes: vec![],
        }
    }

    fn found(plan: &RegionalResourcePlan) -> Vec<(i64, i64, Tier, f64)> {
        found_where(plan, &[])
    }

    fn found_where(plan: &RegionalResourcePlan, stranded: &[(&str, u32)]) -> Vec<(i64, i64, Tier, f64)> {
        let stranded = stranded.iter().map(|(pool, ready)| (pool.parse().unwrap(), *ready)).collect();
        let gaps = gaps(plan, &[pool()], &stranded, Step::new(Duration::from_secs(1)).unwrap(), at(12_000));
        gaps.iter().map(|g| (g.window.from.as_millis(), g.window.until.as_millis(), g.tier, g.rate)).collect()
    }

    #[test]
    fn what_is_sure_is_firm_and_what_is_only_possible_soft() {
        assert_eq!(found(&plan(45.0, 70.0, 0, true)), [(10_000, 20_000, Tier::Firm, 15.0), (10_000, 20_000, Tier::Soft, 25.0)]);
        assert_eq!(found(&plan(20.0, 70.0, 6, true))[0], (10_000, 20_000, Tier::Firm, 30.0), "the demand seen last is sure");
        assert_eq!(found(&plan(20.0, 35.0, 0, true)), [(10_000, 20_000, Tier::Soft, 5.0)]);
        assert_eq!(found(&plan(20.0, 35.0, 0, false)), [], "nothing is lacking");
    }

    #[test]
    fn what_no_provider_starts_is_lacking_as_well() {
        let plan = plan(20.0, 25.0, 0, false);
        assert_eq!(found_where(&plan, &[("web", 1)]), [(10_000, 20_000, Tier::Firm, 10.0), (10_000, 20_000, Tier::Soft, 5.0)]);
        assert_eq!(found_where(&plan, &[("web", 3)]), [], "all that is planned stands already");
        assert_eq!(found_where(&plan, &[("other", 0)]), []);
    }

    #[test]
    fn slots_are_on_one_grid_and_reach_beyond_the_lead_time() {
        let step = Step::new(Duration::from_secs(1)).unwrap();
        let starts = |now, ready| slots(step, at(now), at(ready)).iter().map(|w| w.from.as_millis()).collect::<Vec<_>>();
        assert_eq!(starts(12_000, 14_500), [10_000]);
        assert_eq!(starts(12_000, 19_500), [10_000, 20_000], "the step after is in the next slot");
        assert_eq!(starts(12_000, 1_000), [10_000], "never in the past");
        assert_eq!(starts(0, 1_000_000).len(), MAX_SLOTS);
    }
}
