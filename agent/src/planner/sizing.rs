//! From a rate to instances, and from instances to what a pool may have.

use super::policy::Policy;
use super::{PoolSnapshot, Snapshot, Standing, spot};
use crate::config::PoolConfig;
use tradewind_protocol::Timestamp;
use tradewind_protocol::pool::MicroUsd;

/// Instances that serve `rate` at `rate_per_instance` each, rounded up; none where the latter makes
/// no sense.
pub(super) fn need(rate: f64, rate_per_instance: f64) -> u32 {
    if !usable(rate_per_instance) {
        return 0;
    }
    // Forgives what rounding adds to an exact multiple. The cast saturates, and maps not-a-number to 0.
    (rate / rate_per_instance * (1.0 - 1e-12)).ceil() as u32
}

/// Whether instances of that rate can be counted in.
pub(super) fn usable(rate_per_instance: f64) -> bool {
    rate_per_instance.is_finite() && rate_per_instance > 0.0
}

/// How many instances `budget` an hour pays for at `price` each.
pub(super) fn paid_by(budget: MicroUsd, price: MicroUsd) -> u32 {
    budget.0.checked_div(price.0).map_or(u32::MAX, |paid| u32::try_from(paid).unwrap_or(u32::MAX))
}

/// How many instances the pool may have, and what limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit<'a> {
    pub(super) instances: u32,
    by: LimitedBy<'a>,
}

/// What limits a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitedBy<'a> {
    MaxInstances,
    Capacity,
    Policy(&'a str),
    Budget,
    Step(&'a str),
}

impl<'a> Limit<'a> {
    /// What the pool's own keys say, whatever the time.
    pub(super) fn fixed(pool: &PoolConfig) -> Limit<'static> {
        let fits = pool.instance.times_in(pool.capacity).map_or(u32::MAX, |times| u32::try_from(times).unwrap_or(u32::MAX));
        if fits < pool.max_instances {
            Limit { instances: fits, by: LimitedBy::Capacity }
        } else {
            Limit { instances: pool.max_instances, by: LimitedBy::MaxInstances }
        }
    }

    /// With the policies in force and the pool's budget.
    pub(super) fn of(pool: &'a PoolSnapshot, now: Timestamp) -> Self {
        let config = &pool.config;
        let (mut limit, promised) = (Limit::fixed(config), config.promised());
        for policy in in_force(config, now) {
            if let Some(most) = policy.max_instances {
                limit = limit.cut(most.max(promised), LimitedBy::Policy(&policy.name));
            }
        }
        match config.costs.max_per_hour {
            Some(budget) => limit.cut(spot::paid_by(pool, budget).max(promised), LimitedBy::Budget),
            None => limit,
        }
    }

    fn cut(self, instances: u32, by: LimitedBy<'a>) -> Self {
        if instances < self.instances { Limit { instances, by } } else { self }
    }

    /// The limit in words, with its key.
    pub(super) fn reason(self, pool: &PoolSnapshot) -> String {
        let config = &pool.config;
        match self.by {
            LimitedBy::MaxInstances => format!("max_instances is {}", config.max_instances),
            LimitedBy::Capacity => {
                format!("capacity ({}) holds {} instances of ({})", config.capacity, self.instances, config.instance)
            }
            LimitedBy::Policy(name) => format!("max_instances of policy {name} is {}", self.instances),
            LimitedBy::Budget => {
                let budget = config.costs.max_per_hour.unwrap_or_default();
                let mixed = if pool.spot.is_some() { ", as many of them spot as may be" } else { "" };
                format!("max_cost_per_hour_usd ({}) pays for {} at {} each{mixed}", usd(budget), self.instances, usd(pool.price))
            }
            LimitedBy::Step(name) => format!("policy {name} lets a round go up to {}", self.instances),
        }
    }
}

/// An amount in words.
pub(super) fn usd(amount: MicroUsd) -> String {
    format!("{} USD", amount.0 as f64 / 1e6)
}

/// The pool's policies that are in force.
fn in_force(pool: &PoolConfig, now: Timestamp) -> impl Iterator<Item = &Policy> {
    pool.policies.iter().filter(move |policy| policy.when.in_force(now).is_some())
}

/// What holds for a pool at one moment, from its own keys, its policies and its budget.
#[derive(Debug, Clone)]
pub(super) struct Bounds<'a> {
    pub(super) min_instances: u32,
    pub(super) min_warm: u32,
    pub(super) limit: Limit<'a>,
    /// The fewest instances that step limits leave, and the policy that says so.
    pub(super) least: Option<(u32, &'a str)>,
    /// What must stay as it is, and why.
    pub(super) frozen: Option<(Standing, String)>,
}

impl<'a> Bounds<'a> {
    pub(super) fn of(pool: &'a PoolSnapshot, snapshot: &Snapshot) -> Self {
        let (config, now) = (&pool.config, snapshot.now);
        let standing = pool.standing();
        let mut bounds = Bounds {
            min_instances: config.min_instances,
            min_warm: config.min_warm,
            limit: Limit::of(pool, now),
            least: None,
            frozen: None,
        };
        for policy in in_force(config, now) {
            bounds.min_instances = bounds.min_instances.max(policy.min_instances.unwrap_or(0));
            bounds.min_warm = bounds.min_warm.max(policy.min_warm.unwrap_or(0));
            if let Some(up) = policy.up.of(standing.total()) {
                let most = standing.total().saturating_add(up).max(config.promised());
                bounds.limit = bounds.limit.cut(most, LimitedBy::Step(&policy.name));
            }
            if let Some(down) = policy.down.of(standing.total()) {
                let least = standing.total().saturating_sub(down);
                if bounds.least.is_none_or(|(others, _)| least > others) {
                    bounds.least = Some((least, &policy.name));
                }
            }
            if policy.freeze && bounds.frozen.is_none() {
                let until = match policy.when.in_force(now).flatten() {
                    Some(until) => format!("until {until}"),
                    None => "for as long as it is configured".into(),
                };
                bounds.frozen = Some((kept(standing, config), format!("policy {} freezes the pool {until}", policy.name)));
            }
        }
        bounds
    }
}

/// What stands, within what the pool's own keys allow in any case.
fn kept(standing: Standing, pool: &PoolConfig) -> Standing {
    let limit = Limit::fixed(pool).instances;
    let active = standing.active.max(pool.min_instances).min(limit);
    Standing { active, warm: standing.warm.max(pool.min_warm).min(limit - active) }
}
