//! A plan from one snapshot, and the checker of plans. Pure.
//!
//! [`plan`] answers one question a pool: how many instances have to be ready by the end of the
//! provisioning lead time, and how many of them have to serve now. It sees a [`Snapshot`] and nothing else,
//! so that the same snapshot always makes the same plan, and any plan can be explained and judged
//! later. [`check()`] judges a plan by its own rules, whoever made it; only what it returns, a
//! [`ValidatedPlan`], may be carried out. What a round learns for the next ones is kept by the caller, in a [`Memory`] a pool ([`Memory::close`]):
//! [`RecentNeeds`] behind scale-in, [`Margins`] behind the margin; and in an [`OwnDemand`].
//!
//! The rules, in the order in which they decide:
//! 1. Demand on the pool's service, also by the services that call it (`graph`): medians summed, margins combined (`demand`), at the quantile
//!    that the pool's costs make the cheapest (`costs`); beside it what the pool's own demand foretells (`own`), weighed by what each would have
//!    cost (`margins`).
//!    Where costs are stated the last instance, which is called for in part, has to be worth its price too.
//! 2. `active` is what the running step and the next one need, `active + warm` what any step within
//!    the lead time needs, as far as an order of now is ready by then: for the steps before, what stands and what starts already is kept, and no more is
//!    asked for. Neither is below the reactive floor: what live load needs, the demand seen last as far as it is to stay. How much of
//!    it stays is what the pool's own record says, by what followed when demand was like now and by how often what was seen last was still there
//!    (`foresight`); all of it, as long as there is no record.
//! 3. Nothing is taken away before the need was lower for `scale_in_after`, and for as long as keeping it is cheaper than a start; nor what the
//!    forecast needs again within that time.
//! 4. `min_instances` and `min_warm` are added from below; `max_instances`, the pool's capacity, its policies (`policy`) and its budget cut
//!    from above, and then the decision says that it is blocked, and by what. A frozen pool stays as it is.
//! 5. Of a pool with a spot market, part of the instances is bought there: as many as are the cheapest with interruptions counted (`spot`, `risk`).
//! 6. Where all pools together cost more than the region may spend, they are cut together (`budget`).

mod budget;
mod check;
mod costs;
mod demand;
mod distribution;
mod explain;
pub mod foresight;
mod graph;
mod history;
mod margins;
mod needs;
mod own;
mod policy;
mod risk;
mod sizing;
mod spot;
mod tuner;

pub use check::{ValidatedPlan, Violation, check};
pub use explain::explain;
pub use foresight::Foreseen;
pub use graph::{Calls, GraphError, ServiceGraph};
pub use history::RecentNeeds;
pub use margins::{Margins, Memory, Outturn};
pub use needs::needs;
pub use own::{OwnDemand, Round, rounds};
pub use policy::{MINUTES_A_DAY, Policy, StepLimit, Weekly, When};
pub use risk::{Counted, PastPrices};
pub use spot::{SpotMemory, SpotSnapshot};
pub use tuner::Tuner;

use crate::config::{PlannerConfig, PoolConfig};
use crate::marks::{bug, sometimes};
use budget::Share;
use demand::{Demand, Incoming, lead_steps};
use distribution::Distribution;
use own::Provided;
use serde::{Deserialize, Serialize};
use sizing::{Bounds, Limit, need, usable};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::plan::DecisionReason;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::region::Mode;
use tradewind_protocol::{
    InstanceCounts, PoolDecision, PredictionData, Quantile, RegionId, RegionalResourcePlan, Step, StepIndex, Timestamp,
};

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
    /// What an instance costs an hour now.
    pub price: MicroUsd,
    /// What is to be said of that price, if it is not as it should be.
    pub price_doubt: Option<String>,
    /// How long an instance takes from order to ready, once that has been measured.
    pub measured_startup: Option<Duration>,
    /// What the rounds before have left.
    pub memory: Memory,
    /// Its demand in the last closed step, in transactions per second; nothing where a source has not told of it yet.
    pub observed: Option<f64>,
    /// What its own demand foretells, in hundredths of its maximum, once that is known for long enough.
    pub foreseen: Option<Foreseen>,
    /// Whether its demand in that step was out of the ordinary, upwards: no record tells how long such demand stays.
    pub surging: bool,
    /// Its spot market, if it has one.
    pub spot: Option<SpotSnapshot>,
}

impl PoolSnapshot {
    /// How long an instance takes from order to ready, as measured or as configured.
    fn startup(&self) -> Duration {
        self.measured_startup.unwrap_or(self.config.startup)
    }

    /// What was planned last, or what stands there where nothing was.
    fn standing(&self) -> Standing {
        self.memory.standing.unwrap_or_else(|| self.counts.into())
    }

    /// The quantile that the pool is provisioned for.
    pub fn quantile(&self, snapshot: &Snapshot) -> Quantile {
        costs::quantile(self, snapshot.config.quantile)
    }
}

/// What was planned for a pool in the round before, or what stood there when there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Serving.
    pub active: u32,
    /// Ready on top.
    pub warm: u32,
}

impl Standing {
    fn total(self) -> u32 {
        self.active.saturating_add(self.warm)
    }
}

impl From<InstanceCounts> for Standing {
    /// What starts is to be warm, as far as anybody knows; what drains is going.
    fn from(counts: InstanceCounts) -> Self {
        Self { active: counts.active, warm: counts.warm.saturating_add(counts.starting) }
    }
}

/// Makes the region's plan.
pub fn plan(snapshot: &Snapshot) -> RegionalResourcePlan {
    let mut pools: Vec<&PoolSnapshot> = snapshot.pools.iter().collect();
    pools.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    // Two pools of one name are a mistake that the configuration's check finds; one decision is made.
    pools.dedup_by(|a, b| a.config.name == b.config.name);
    let mut notes = Notes::default();
    let leads: Vec<usize> = pools.iter().map(|pool| lead(pool, snapshot)).collect();
    let mut levels: BTreeSet<Quantile> = pools.iter().map(|pool| pool.quantile(snapshot)).collect();
    if pools.iter().any(|pool| pool.spot.is_some()) {
        levels.extend(distribution::ladder());
    }
    let incoming = Incoming::of(snapshot, reach(snapshot, &leads), levels);
    let mut shares: Vec<Share> =
        pools.into_iter().zip(leads).map(|(pool, lead)| decide(pool, lead, snapshot, &incoming, &mut notes)).collect();
    if let Some(budget) = snapshot.config.max_cost_per_hour {
        budget::keep(budget, &mut shares);
    }
    notes.0.extend(shares.iter().filter_map(|share| share.pool.price_doubt.clone()));
    notes.0.extend(shares.iter().filter_map(|share| share.pool.spot.as_ref()).flat_map(|spot| spot.doubts.clone()));
    let decisions: Vec<PoolDecision> = shares.into_iter().map(|share| share.decision).collect();
    decisions.iter().for_each(|decision| notes.below_floor(decision));
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

    fn below_floor(&mut self, decision: &PoolDecision) {
        let (active, floor) = (decision.active, decision.reason.reactive_floor);
        if active < floor {
            let why = decision.blocked.as_deref().unwrap_or("no reason was given");
            self.0.insert(format!(
                "BELOW THE LIVE FLOOR: pool {} is to serve with {active} instances, the demand seen last needs {floor}: {why}",
                decision.pool
            ));
        }
    }
}

/// How many steps the plan of a pool looks ahead.
fn lead(pool: &PoolSnapshot, snapshot: &Snapshot) -> usize {
    if bug!("lead-ignored") { 1 } else { lead_steps(pool.startup(), snapshot) }
}

/// How many steps of the forecasts have to be summed: the longest lead, and what an idle instance may wait for as far as forecasts go.
fn reach(snapshot: &Snapshot, leads: &[usize]) -> usize {
    let horizon = snapshot.forecasts.iter().map(|forecast| forecast.prediction.path.horizon()).max().unwrap_or(0);
    let kept = snapshot.pools.iter().map(|pool| costs::break_even(pool, snapshot) as usize).max().unwrap_or(0);
    leads.iter().copied().max().unwrap_or(0).max(kept.min(horizon))
}

/// Decides one pool, whose plan looks `lead` steps ahead.
fn decide<'a>(pool: &'a PoolSnapshot, lead: usize, snapshot: &Snapshot, incoming: &Incoming, notes: &mut Notes) -> Share<'a> {
    let config = &pool.config;
    let quantile = pool.quantile(snapshot);
    let share = share(pool, snapshot);
    let demand = Demand::on(&config.service, incoming, lead, quantile);
    notes.on(config, &demand, lead);

    let provided = Provided::to_order(pool, snapshot);
    let rate = |at: usize| demand.steps.get(at).map_or(0.0, |step| provided.rate(at, step));
    let from = ready_from(pool, snapshot);
    let at = provided.highest(&demand.steps, from);
    let needed = |at: usize| need(rate(at), config.rate_per_instance).min(reachable(pool, at, from, snapshot));
    let peak = demand.steps.get(at).copied().unwrap_or_default();
    let floor = reactive_floor(pool, snapshot, share * demand.observed_rate);

    let wanted = Wanted {
        near: (0..NEAR_STEPS.min(lead)).map(needed).max().unwrap_or(0),
        lead: (0..lead).map(needed).max().unwrap_or(0),
        floor,
        surging: pool.surging,
        recent: pool.memory.recent.highest(snapshot.known_until, costs::waits(pool, snapshot)),
        again: {
            let until = costs::break_even(pool, snapshot) as usize;
            let median = incoming.median_within(&config.service, lead, until);
            need(share * median, config.rate_per_instance).min(pool.standing().total())
        },
    };
    let bounds = Bounds::of(pool, snapshot);
    let Sized { active, warm, rule, blocked } = wanted.size(pool, &bounds);
    let mix = (pool.spot.is_some() && usable(config.rate_per_instance)).then(|| {
        let demand = Distribution::of(pool, lead, at, snapshot, incoming);
        spot::mix(pool, snapshot, &bounds, spot::Wanted { total: active.saturating_add(warm), floor, quantile, demand: &demand })
    });
    let mix = mix.flatten();
    let warm = warm.saturating_add(mix.as_ref().map_or(0, |mix| mix.reserve));
    let decision = PoolDecision {
        pool: config.name.clone(),
        service: config.service.clone(),
        current: pool.counts,
        active,
        warm,
        ready_by: snapshot.step.start(snapshot.known_until.offset(lead as i64)),
        reason: DecisionReason {
            quantile,
            demand_rate: rate(at),
            median_rate: share * peak.median_rate,
            upper_rate: share * peak.upper_rate,
            own_rate: provided.own_rate(at),
            observed_rate: share * demand.observed_rate,
            reactive_floor: floor,
            lead_ms: u64::try_from(snapshot.step.length().as_millis()).unwrap_or(u64::MAX).saturating_mul(lead as u64),
            forecasts: demand.forecasts,
            stale_sources: demand.stale.into_iter().collect(),
            rule,
        },
        mix,
        blocked,
    };
    Share { pool, decision, frozen: bounds.frozen.is_some() }
}

/// Instances that live load needs alone: of the demand seen last what stays until an order of now is ready, as far as the pool's own record tells, with the
/// certainty that its costs ask for. Without a record, in a surge, and where a start takes longer than is foreseen, all of it.
fn reactive_floor(pool: &PoolSnapshot, snapshot: &Snapshot, observed_rate: f64) -> u32 {
    if pool.surging {
        return need(observed_rate, pool.config.rate_per_instance);
    }
    let provided = Provided::to_order(pool, snapshot);
    let steps = ready_from(pool, snapshot)..lead(pool, snapshot);
    let stays = steps.map(|at| provided.own_rate(at).unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
    need(observed_rate.min(stays), pool.config.rate_per_instance)
}

/// The first step after the last closed one, from 0, that an order of now is of use to: it is ready before that ends. As long as there is no record of the
/// pool's own demand none is ruled out.
fn ready_from(pool: &PoolSnapshot, snapshot: &Snapshot) -> usize {
    if pool.foreseen.is_none() {
        return 0;
    }
    let over = pool.startup().as_millis() / snapshot.step.length().as_millis();
    usize::try_from(over).unwrap_or(usize::MAX).min(lead(pool, snapshot) - 1)
}

/// How many instances can serve in the step `at` after the last closed one, from 0, whatever is asked for now, which is ready [`from`](ready_from) a step on.
fn reachable(pool: &PoolSnapshot, at: usize, from: usize, snapshot: &Snapshot) -> u32 {
    if at >= from {
        return u32::MAX;
    }
    let ordered = pool.memory.margins.ordered(snapshot.known_until, from - at);
    ordered.unwrap_or_else(|| pool.standing().total())
}

/// The pool's share of the demand on its service: pools of one service share it by what they can
/// serve at most.
fn share(pool: &PoolSnapshot, snapshot: &Snapshot) -> f64 {
    let most = |pool: &PoolSnapshot| {
        let rate = pool.config.rate_per_instance;
        if usable(rate) { f64::from(Limit::of(pool, snapshot.now).instances) * rate } else { 0.0 }
    };
    let of_service = snapshot.pools.iter().filter(|other| other.config.service == pool.config.service);
    let (own, all) = (most(pool), of_service.map(most).sum::<f64>());
    if all > 0.0 && all.is_finite() { own / all } else { 1.0 }
}

/// What asks for instances, before limits.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The running step and the next.
    near: u32,
    /// The highest step within the lead time, of what is within reach.
    lead: u32,
    /// Live load.
    floor: u32,
    /// Whether that is out of the ordinary.
    surging: bool,
    /// The highest need of the time that scale-in waits.
    recent: u32,
    /// What stands and is needed again before keeping it costs more than a start.
    again: u32,
}

/// How many instances, and why.
struct Sized {
    active: u32,
    warm: u32,
    rule: String,
    blocked: Option<String>,
}

impl Wanted {
    fn size(self, pool: &PoolSnapshot, bounds: &Bounds) -> Sized {
        let limit = bounds.limit;
        let floor = if bug!("floor-ignored") { 0 } else { self.floor };
        let recent = if bug!("scale-in-at-once") { 0 } else { self.recent };
        let active = self.near.max(floor).max(bounds.min_instances);
        let total = active.max(self.lead).max(recent).max(self.again);
        if total > active.max(self.lead) {
            sometimes!("planner.scale-in-waits");
        }
        if floor > self.near.max(bounds.min_instances) {
            sometimes!("planner.floor-decides");
        }
        let wanted = total.max(active.saturating_add(bounds.min_warm));
        let wanted =
            if pool.memory.standing.is_some_and(|last| last.total() <= wanted) && bug!("plan-flaps") { wanted + 1 } else { wanted };
        let rate = pool.config.rate_per_instance;
        let impossible = (!usable(rate)).then(|| format!("rate_per_instance is {rate}; it must be above 0 to size the pool by demand"));
        if let Some((standing, why)) = &bounds.frozen {
            let short = standing.active < active || standing.total() < wanted;
            let blocked = short.then(|| format!("{active} active and {} warm instances are wanted, but {why}", wanted - active));
            return Sized { active: standing.active, warm: standing.warm, rule: why.clone(), blocked: impossible.or(blocked) };
        }
        let (stepped, rule) = match bounds.least {
            Some((least, name)) if least > wanted => (least, format!("policy {name} lets a round go down to {least}, {wanted} are wanted")),
            Some(_) | None => (wanted, self.rule(total, bounds).into()),
        };
        let granted = if bug!("max-ignored") { stepped } else { stepped.min(limit.instances) };
        if granted < wanted {
            sometimes!("planner.blocked");
        }
        let serving = seated(active, granted, pool);
        let cut = (granted < wanted).then(|| format!("{wanted} instances are wanted, but {}", limit.reason(pool)));
        Sized { active: serving, warm: granted - serving, rule, blocked: impossible.or(cut) }
    }

    /// Which rule set the total; of equals the one that is the least surprising.
    fn rule(self, total: u32, bounds: &Bounds) -> &'static str {
        if total == self.lead {
            "forecast: the highest step within the lead time"
        } else if total == self.floor && self.surging {
            "anomaly: all of the demand seen last, which was out of the ordinary"
        } else if total == self.floor {
            "reactive floor: the demand seen last"
        } else if total == bounds.min_instances {
            "min_instances"
        } else if total == self.near {
            "forecast: the running step"
        } else if total == self.recent {
            "scale-in waits: the need was higher lately"
        } else {
            "kept: the forecast needs it again before keeping it costs more than a start"
        }
    }
}

/// How many of `granted` instances serve where `active` are to. Below what the pool may have by its own keys its own `min_warm` stay warm:
/// the reconciler keeps them in any case, and they would come on top.
fn seated(active: u32, granted: u32, pool: &PoolSnapshot) -> u32 {
    let config = &pool.config;
    let cut = granted < Limit::fixed(config).instances;
    let seats = if cut { granted.saturating_sub(config.min_warm).max(config.min_instances) } else { granted };
    active.min(seats).min(granted)
}

#[cfg(test)]
mod tests;
