//! The checker of plans: judges any plan, whoever made it, against the snapshot it is for.
//!
//! It shares with the planner what demand was last seen, how much of it stays and what a pool may have, and nothing of how
//! the planner decides. It finds every violation, not only the first.

use super::budget::{cost_of, price, untouchable};
use super::demand::{Demand, Incoming};
use super::sizing::{Bounds, usable, usd};
use super::spot::Terms;
use super::{PoolSnapshot, Snapshot, reactive_floor, share};
use std::collections::BTreeSet;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{PoolDecision, PoolName, Quantile, RegionId, RegionalResourcePlan, ServiceName};

/// A plan that keeps every rule and may be carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedPlan(RegionalResourcePlan);

impl ValidatedPlan {
    /// The plan.
    pub fn plan(&self) -> &RegionalResourcePlan {
        &self.0
    }

    /// The plan.
    pub fn into_inner(self) -> RegionalResourcePlan {
        self.0
    }
}

/// A rule that a plan breaks. The plan is not carried out; what runs stays as it is.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// The plan is another region's.
    #[error("the plan is of region {planned}, but this is {here}: ask that region's agent")]
    OtherRegion {
        /// Whose plan it is.
        planned: RegionId,
        /// Who was to carry it out.
        here: RegionId,
    },
    /// The plan knows other steps than the snapshot.
    #[error("the plan was made for other steps than the present ones: make it again")]
    OtherSteps,
    /// A decision about a pool that does not exist.
    #[error("pool {0} does not exist here")]
    UnknownPool(PoolName),
    /// More than one decision about a pool.
    #[error("pool {0} is decided more than once")]
    DecidedTwice(PoolName),
    /// No decision about a pool.
    #[error("pool {0} is not decided")]
    Undecided(PoolName),
    /// The decision names another service than the pool serves.
    #[error("pool {pool} serves {serves}, not {decided}")]
    OtherService {
        /// Which pool.
        pool: PoolName,
        /// What it serves.
        serves: ServiceName,
        /// What the decision says.
        decided: ServiceName,
    },
    /// More instances than the pool may have.
    #[error("pool {pool}: {wanted} instances are more than the {limit} that it may have: {reason}")]
    AboveLimit {
        /// Which pool.
        pool: PoolName,
        /// `active + warm`.
        wanted: u64,
        /// The most.
        limit: u32,
        /// What limits it.
        reason: String,
    },
    /// Fewer active instances than the pool must have, and no word why.
    #[error("pool {pool}: {active} active instances are fewer than min_instances ({min}), and the decision does not say what blocks it")]
    BelowMin {
        /// Which pool.
        pool: PoolName,
        /// How many.
        active: u32,
        /// How few at least.
        min: u32,
    },
    /// Fewer warm instances than the pool must have, and no word why.
    #[error("pool {pool}: {warm} warm instances are fewer than min_warm ({min}), and the decision does not say what blocks it")]
    BelowMinWarm {
        /// Which pool.
        pool: PoolName,
        /// How many.
        warm: u32,
        /// How few at least.
        min: u32,
    },
    /// Fewer active instances than the demand seen last needs, and no word why.
    #[error(
        "pool {pool}: {active} active instances do not serve the demand seen last, which needs {floor}, and the decision does not say what blocks it"
    )]
    BelowReactiveFloor {
        /// Which pool.
        pool: PoolName,
        /// How many.
        active: u32,
        /// How many at least.
        floor: u32,
    },
    /// A frozen pool is changed.
    #[error("pool {pool}: {active} active and {warm} warm instances are planned, but {reason}: {kept} and {kept_warm} stand")]
    Thawed {
        /// Which pool.
        pool: PoolName,
        /// How many.
        active: u32,
        /// How many.
        warm: u32,
        /// How many active ones stand.
        kept: u32,
        /// How many warm ones stand.
        kept_warm: u32,
        /// What freezes it.
        reason: String,
    },
    /// More instances are taken away in one round than a policy allows, and no word why.
    #[error(
        "pool {pool}: {wanted} instances are fewer than the {least} that policy {policy} leaves, and the decision does not say what blocks it"
    )]
    StepTooLarge {
        /// Which pool.
        pool: PoolName,
        /// `active + warm`.
        wanted: u64,
        /// How few at least.
        least: u32,
        /// Which policy.
        policy: String,
    },
    /// Spot instances for a pool that has no spot market, or more than there are instances.
    #[error("pool {pool}: {spot} of {total} instances are to be spot, but {reason}")]
    TooMuchSpot {
        /// Which pool.
        pool: PoolName,
        /// How many.
        spot: u32,
        /// Of how many.
        total: u32,
        /// Why that is too many.
        reason: String,
    },
    /// What may be taken at once leaves less than the demand seen last needs, and no word why.
    #[error(
        "pool {pool}: {lost} of {spot} spot instances may be taken at once, which leaves {left} of {floor} instances that the demand seen last \
         needs, and the decision does not say why"
    )]
    Exposed {
        /// Which pool.
        pool: PoolName,
        /// How many are spot.
        spot: u32,
        /// How many of them may be taken at once.
        lost: u32,
        /// How many are left.
        left: u32,
        /// How many are needed.
        floor: u32,
    },
    /// The pool costs more than it may.
    #[error("pool {pool} costs {} an hour, its max_cost_per_hour_usd is {}", usd(*cost), usd(*budget))]
    AbovePoolBudget {
        /// Which pool.
        pool: PoolName,
        /// What it costs.
        cost: MicroUsd,
        /// What it may.
        budget: MicroUsd,
    },
    /// The plan costs more than the region may spend, and not only for what no budget takes.
    #[error("the plan costs {} an hour, planner.max_cost_per_hour_usd is {}", usd(*cost), usd(*budget))]
    AboveBudget {
        /// What it costs.
        cost: MicroUsd,
        /// What it may cost.
        budget: MicroUsd,
    },
    /// The pool's instances serve nothing, so no demand can be turned into instances.
    #[error("pool {pool}: rate_per_instance is {rate}; set it above 0")]
    ImpossibleRate {
        /// Which pool.
        pool: PoolName,
        /// The rate.
        rate: f64,
    },
    /// A figure of the decision's reason is negative or not a finite number.
    #[error("pool {pool}: {figure} of the reason is {value}; it must be a finite number of at least 0")]
    BadFigure {
        /// Which pool.
        pool: PoolName,
        /// Which figure.
        figure: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Judges `plan`: valid, or everything that is wrong with it.
pub fn check(plan: RegionalResourcePlan, snapshot: &Snapshot) -> Result<ValidatedPlan, Vec<Violation>> {
    let mut violations = vec![];
    if plan.region != snapshot.region {
        violations.push(Violation::OtherRegion { planned: plan.region.clone(), here: snapshot.region.clone() });
    }
    if plan.known_until != snapshot.known_until {
        violations.push(Violation::OtherSteps);
    }
    let mut decided = BTreeSet::new();
    let incoming = Incoming::of(snapshot, 0, BTreeSet::new());
    for decision in &plan.decisions {
        if !decided.insert(&decision.pool) {
            violations.push(Violation::DecidedTwice(decision.pool.clone()));
        }
        match snapshot.pools.iter().find(|pool| pool.config.name == decision.pool) {
            Some(pool) => judge(decision, pool, snapshot, &incoming, &mut violations),
            None => violations.push(Violation::UnknownPool(decision.pool.clone())),
        }
    }
    let undecided = snapshot.pools.iter().map(|pool| &pool.config.name).filter(|name| !decided.contains(name));
    violations.extend(undecided.cloned().map(Violation::Undecided));
    violations.extend(above_budget(&plan, snapshot));
    if violations.is_empty() { Ok(ValidatedPlan(plan)) } else { Err(violations) }
}

fn judge(decision: &PoolDecision, pool: &PoolSnapshot, snapshot: &Snapshot, incoming: &Incoming, violations: &mut Vec<Violation>) {
    let (config, name) = (&pool.config, || decision.pool.clone());
    if decision.service != config.service {
        violations.push(Violation::OtherService { pool: name(), serves: config.service.clone(), decided: decision.service.clone() });
    }
    let bounds = Bounds::of(pool, snapshot);
    let wanted = u64::from(decision.active) + u64::from(decision.warm);
    let (active, warm) = (decision.active, decision.warm);
    if let Some((standing, reason)) = &bounds.frozen {
        let reason = reason.clone();
        if (active, warm) != (standing.active, standing.warm) {
            let (kept, kept_warm) = (standing.active, standing.warm);
            violations.push(Violation::Thawed { pool: name(), active, warm, kept, kept_warm, reason });
        }
    } else {
        let limit = bounds.limit;
        if wanted > u64::from(limit.instances) {
            violations.push(Violation::AboveLimit { pool: name(), wanted, limit: limit.instances, reason: limit.reason(pool) });
        }
        let least = bounds.least.filter(|(least, _)| wanted < u64::from((*least).min(limit.instances)) && decision.blocked.is_none());
        if let Some((least, policy)) = least {
            violations.push(Violation::StepTooLarge { pool: name(), wanted, least, policy: policy.into() });
        }
    }
    let observed = share(pool, snapshot) * Demand::on(&config.service, incoming, 0, Quantile::MEDIAN).observed_rate;
    let floor = reactive_floor(pool, snapshot, observed);
    if decision.blocked.is_none() {
        if active < bounds.min_instances {
            violations.push(Violation::BelowMin { pool: name(), active, min: bounds.min_instances });
        }
        if bounds.frozen.is_none() && warm < bounds.min_warm {
            violations.push(Violation::BelowMinWarm { pool: name(), warm, min: bounds.min_warm });
        }
        if active < floor {
            violations.push(Violation::BelowReactiveFloor { pool: name(), active, floor });
        }
        if !usable(config.rate_per_instance) {
            violations.push(Violation::ImpossibleRate { pool: name(), rate: config.rate_per_instance });
        }
    }
    mixed(decision, pool, (&bounds, floor), violations);
    let reason = &decision.reason;
    let figures = [("demand_rate", reason.demand_rate), ("median_rate", reason.median_rate), ("observed_rate", reason.observed_rate)];
    for (figure, value) in figures.into_iter().filter(|(_, value)| !value.is_finite() || *value < 0.0) {
        violations.push(Violation::BadFigure { pool: name(), figure, value });
    }
}

/// Judges how the instances are divided between the pool's markets.
fn mixed(decision: &PoolDecision, pool: &PoolSnapshot, (bounds, floor): (&Bounds<'_>, u32), violations: &mut Vec<Violation>) {
    let (name, total, spot) = (|| decision.pool.clone(), decision.total(), decision.spot());
    if let Some(budget) = pool.config.costs.max_per_hour.filter(|_| bounds.frozen.is_none()) {
        let cost = cost_of(pool, total, spot);
        if cost > u128::from(budget.0).max(cost_of(pool, pool.config.promised(), 0)) {
            violations.push(Violation::AbovePoolBudget { pool: name(), cost: micro(cost), budget });
        }
    }
    if spot == 0 {
        return;
    }
    let Some((terms, market)) = Terms::of(pool, decision.reason.quantile).zip(pool.config.spot.as_ref()) else {
        return violations.push(Violation::TooMuchSpot { pool: name(), spot, total, reason: "the pool has no [pool.spot]".into() });
    };
    // A budget cuts both parts alike, which may round up by one.
    let most = terms.most(total).saturating_add(1).min(total);
    if spot > total || (spot > most && bounds.frozen.is_none()) {
        let reason = format!("max_share is {}, and spot instances have to be the cheaper ones", market.max_share);
        violations.push(Violation::TooMuchSpot { pool: name(), spot, total, reason });
        return;
    }
    let lost = terms.lost(spot);
    let (left, floor) = (total - lost, floor.min(total));
    if left < floor && decision.mix.as_ref().is_none_or(|mix| mix.exposed.is_none()) {
        violations.push(Violation::Exposed { pool: name(), spot, lost, left, floor });
    }
}

fn micro(cost: u128) -> MicroUsd {
    MicroUsd(u64::try_from(cost).unwrap_or(u64::MAX))
}

/// Whether the plan costs more than the region may spend: what no budget takes is paid for in any case, the rest from what is left.
fn above_budget(plan: &RegionalResourcePlan, snapshot: &Snapshot) -> Option<Violation> {
    let budget = snapshot.config.max_cost_per_hour?;
    let (mut all, mut bound) = (0, 0);
    for decision in &plan.decisions {
        let Some(pool) = snapshot.pools.iter().find(|pool| pool.config.name == decision.pool) else { continue };
        let total = decision.total();
        let frozen = Bounds::of(pool, snapshot).frozen.is_some();
        all += cost_of(pool, total, decision.spot());
        bound += u128::from(price(pool, decision).0) * u128::from(untouchable(pool, total, frozen));
    }
    (all > u128::from(budget.0).max(bound)).then_some(Violation::AboveBudget { cost: micro(all), budget })
}
