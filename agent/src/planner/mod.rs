//! A plan from one snapshot, and the checker of plans. Pure.
//!
//! [`plan`] answers one question a pool: how many instances have to be ready by the end of the
//! provisioning lead time, and how many of them have to serve now. It sees a [`Snapshot`] and nothing else,
//! so that the same snapshot always makes the same plan, and any plan can be explained and judged
//! later. [`check()`] judges a plan by its own rules, whoever made it; only what it returns, a
//! [`ValidatedPlan`], may be carried out. What a round learns for the next ones is kept by the caller:
//! [`RecentNeeds`] behind scale-in, [`Tuner`] behind the margin.
//!
//! The rules, in the order in which they decide:
//! 1. Demand on the pool's service, also by the services that call it (`graph`): medians summed, margins combined (`demand`).
//! 2. `active` is what the running step and the next one need, `active + warm` what any step within
//!    the lead time needs. Neither is below the reactive floor: what the demand seen last needs.
//! 3. Nothing is taken away before the need was lower for `scale_in_after`.
//! 4. `min_instances` and `min_warm` are added from below; `max_instances` and the pool's capacity cut
//!    from above, and then the decision says that it is blocked, and by what.

mod check;
mod demand;
mod foresight;
mod graph;
mod history;
mod needs;
mod sizing;
mod tuner;

pub use check::{ValidatedPlan, Violation, check};
pub use foresight::{Foresight, Totals};
pub use graph::{Calls, GraphError, ServiceGraph};
pub use history::RecentNeeds;
pub use needs::needs;
pub use tuner::{Outcome, Tuner};

use crate::config::{PlannerConfig, PoolConfig};
use crate::marks::{bug, sometimes};
use demand::{Demand, Incoming, StepDemand, lead_steps};
use sizing::{Limit, need, usable};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::region::Mode;
use tradewind_protocol::{InstanceCounts, PoolDecision, PredictionData, RegionId, RegionalResourcePlan, Step, StepIndex, Timestamp};

/// The steps that a plan must serve at once: the one that runs when it is made, and the next, in
/// which the next plan will come only some way in.
const NEAR_STEPS: usize = 2;

/// Everything a plan is made from.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Whose plan.
    pub region: RegionId,
    /// When it is made.
    pub now: Timestamp,
    /// The length of a step.
    pub step: Step,
    /// The last step whose records are known.
    pub known_until: StepIndex,
    /// Whether the plan will be carried out.
    pub mode: Mode,
    /// What all regions, this one included, foresee. Those for other destinations are left out.
    pub forecasts: Vec<SourceForecast>,
    /// Regions that forecast traffic to this one before, or are known to send it.
    pub expected_sources: BTreeSet<RegionId>,
    /// The region's pools.
    pub pools: Vec<PoolSnapshot>,
    /// How to plan.
    pub config: PlannerConfig,
    /// The plan's number.
    pub version: u64,
}

/// One forecast and where it comes from.
#[derive(Debug, Clone)]
pub struct SourceForecast {
    /// The region that published it.
    pub source: RegionId,
    /// How long ago it was received.
    pub age: Duration,
    /// Whether that region's agent is held to be alive.
    pub live: bool,
    /// The forecast.
    pub prediction: Arc<PredictionData>,
}

/// One pool as it stands.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    /// What it is.
    pub config: PoolConfig,
    /// What stands there.
    pub counts: InstanceCounts,
    /// How long an instance takes from order to ready, once that has been measured.
    pub measured_startup: Option<Duration>,
    /// What it needed lately.
    pub recent: RecentNeeds,
    /// What was learned from its misses.
    pub tuner: Tuner,
}

/// Makes the region's plan.
pub fn plan(snapshot: &Snapshot) -> RegionalResourcePlan {
    let mut pools: Vec<&PoolSnapshot> = snapshot.pools.iter().collect();
    pools.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    // Two pools of one name are a mistake that the configuration's check finds; one decision is made.
    pools.dedup_by(|a, b| a.config.name == b.config.name);
    let mut notes = Notes::default();
    let leads: Vec<usize> = pools.iter().map(|pool| lead(pool, snapshot)).collect();
    let incoming = Incoming::of(snapshot, leads.iter().copied().max().unwrap_or(0));
    let decisions = pools.into_iter().zip(leads).map(|(pool, lead)| decide(pool, lead, snapshot, &incoming, &mut notes)).collect();
    RegionalResourcePlan {
        region: snapshot.region.clone(),
        version: snapshot.version,
        made_at: snapshot.now,
        mode: snapshot.mode,
        known_until: snapshot.known_until,
        decisions,
        notes: notes.0.into_iter().collect(),
    }
}

/// What the plan could not know or do; each once, in the order of their text.
#[derive(Debug, Default)]
struct Notes(BTreeSet<String>);

impl Notes {
    fn on(&mut self, pool: &PoolConfig, demand: &Demand, lead: usize) {
        let service = &pool.service;
        if demand.forecasts == 0 {
            let why =
                if demand.stale.is_empty() { "no region forecasts traffic to it" } else { "every forecast of it is missing or too old" };
            self.0.insert(format!("service {service}: {why}; pool {} keeps to its floor", pool.name));
        }
        for region in &demand.stale {
            self.0.insert(format!("region {region}: its forecast is missing or too old; what it was last seen to send is planned for"));
        }
        for region in &demand.departed {
            self.0.insert(format!("region {region}: its agent is gone; its last forecast is used until it is too old"));
        }
        if demand.held {
            self.0.insert(format!("service {service}: some forecasts end before the lead time of {lead} steps; their last step is held"));
        }
    }
}

/// How many steps the plan of a pool looks ahead.
fn lead(pool: &PoolSnapshot, snapshot: &Snapshot) -> usize {
    if bug!("lead-ignored") { 1 } else { lead_steps(pool.measured_startup.unwrap_or(pool.config.startup), snapshot) }
}

/// Decides one pool, whose plan looks `lead` steps ahead.
fn decide(pool: &PoolSnapshot, lead: usize, snapshot: &Snapshot, incoming: &Incoming, notes: &mut Notes) -> PoolDecision {
    let config = &pool.config;
    let quantile = snapshot.config.quantile;
    let share = share(config, snapshot);
    let demand = Demand::on(&config.service, incoming, lead);
    notes.on(config, &demand, lead);

    let rate = |step: &StepDemand| share * (step.median_rate + pool.tuner.margin() * step.upper_rate);
    let peak = demand.steps.iter().copied().max_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap_or_default();
    let near_rate = demand.steps.iter().take(NEAR_STEPS).map(rate).fold(0.0, f64::max);
    let floor = reactive_floor(config, share * demand.observed_rate);

    let wanted = Wanted {
        near: need(near_rate, config.rate_per_instance),
        lead: need(rate(&peak), config.rate_per_instance),
        floor,
        recent: pool.recent.highest(snapshot.known_until, snapshot.step.count_covering(snapshot.config.scale_in_after)),
    };
    let Sized { active, warm, rule, blocked } = wanted.size(config);
    PoolDecision {
        pool: config.name.clone(),
        service: config.service.clone(),
        current: pool.counts,
        active,
        warm,
        ready_by: snapshot.step.start(snapshot.known_until.offset(lead as i64)),
        reason: DecisionReason {
            quantile,
            demand_rate: rate(&peak),
            median_rate: share * peak.median_rate,
            observed_rate: share * demand.observed_rate,
            reactive_floor: floor,
            lead_ms: u64::try_from(snapshot.step.length().as_millis()).unwrap_or(u64::MAX).saturating_mul(lead as u64),
            forecasts: demand.forecasts,
            stale_sources: demand.stale.into_iter().collect(),
            rule: rule.into(),
        },
        blocked,
    }
}

/// Instances that the demand seen last needs alone.
fn reactive_floor(pool: &PoolConfig, observed_rate: f64) -> u32 {
    need(observed_rate, pool.rate_per_instance)
}

/// The pool's share of the demand on its service: pools of one service share it by what they can
/// serve at most.
fn share(pool: &PoolConfig, snapshot: &Snapshot) -> f64 {
    let most = |pool: &PoolConfig| {
        if usable(pool.rate_per_instance) { f64::from(Limit::of(pool).instances) * pool.rate_per_instance } else { 0.0 }
    };
    let of_service = snapshot.pools.iter().map(|other| &other.config).filter(|other| other.service == pool.service);
    let (own, all) = (most(pool), of_service.map(most).sum::<f64>());
    if all > 0.0 && all.is_finite() { own / all } else { 1.0 }
}

/// What asks for instances, before limits.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The running step and the next.
    near: u32,
    /// The highest step within the lead time.
    lead: u32,
    /// The demand seen last.
    floor: u32,
    /// The highest need of the time that scale-in waits.
    recent: u32,
}

/// How many instances, and why.
struct Sized {
    active: u32,
    warm: u32,
    rule: &'static str,
    blocked: Option<String>,
}

impl Wanted {
    fn size(self, pool: &PoolConfig) -> Sized {
        let limit = Limit::of(pool);
        let floor = if bug!("floor-ignored") { 0 } else { self.floor };
        let recent = if bug!("scale-in-at-once") { 0 } else { self.recent };
        let active = self.near.max(floor).max(pool.min_instances);
        let total = active.max(self.lead).max(recent);
        if total > active.max(self.lead) {
            sometimes!("planner.scale-in-waits");
        }
        if floor > self.near.max(pool.min_instances) {
            sometimes!("planner.floor-decides");
        }
        let wanted = total.max(active.saturating_add(pool.min_warm));
        let granted = if bug!("max-ignored") { wanted } else { wanted.min(limit.instances) };
        if granted < wanted {
            sometimes!("planner.blocked");
        }
        let serving = active.min(granted);
        let blocked = if !usable(pool.rate_per_instance) {
            Some(format!("rate_per_instance is {}; it must be above 0 to size the pool by demand", pool.rate_per_instance))
        } else if granted < wanted {
            Some(format!("{wanted} instances are wanted, but {}", limit.reason(pool)))
        } else {
            None
        };
        Sized { active: serving, warm: granted - serving, rule: self.rule(total, pool), blocked }
    }

    /// Which rule set the total; of equals the one that is the least surprising.
    fn rule(self, total: u32, pool: &PoolConfig) -> &'static str {
        if total == self.lead {
            "forecast: the highest step within the lead time"
        } else if total == self.floor {
            "reactive floor: the demand seen last"
        } else if total == pool.min_instances {
            "min_instances"
        } else if total == self.near {
            "forecast: the running step"
        } else {
            "scale-in waits: the need was higher lately"
        }
    }
}

#[cfg(test)]
mod tests;
