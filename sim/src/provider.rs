//! A node's instances: the agent's own simulated provider, one a pool, kept with the node.
//!
//! Like real workers they outlive a crash of the agent, and are found again by its next life.

use crate::clock::virtual_now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tradewind_agent::config::PoolConfig;
use tradewind_agent::env::{Clock, Providers};
use tradewind_agent::pool::LONGEST_PAUSE;
use tradewind_agent::provider::simulated::{Durations, Outage, SimulatedProvider};
use tradewind_agent::provider::{Observed, Provider};
use tradewind_protocol::PoolName;
use tradewind_protocol::api::InstanceState;

/// How long a draining instance takes to finish: longer than a simulation's usual step, so that the next plan comes meanwhile,
/// and shorter than any sensible timeout.
const DRAIN: Duration = Duration::from_millis(1_500);

/// A node's instances. Clones are the same instances.
#[derive(Clone)]
pub struct SimProviders {
    clock: Arc<dyn Clock>,
    pools: Arc<Mutex<BTreeMap<PoolName, SimulatedProvider>>>,
    /// Those of the names of `pools` that stand for a spot market.
    spot: Arc<Mutex<BTreeSet<PoolName>>>,
    trouble: Arc<Mutex<Trouble>>,
}

/// What was wrong with a node's instances.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    outage: Option<Outage>,
    /// When the outages began whose end their pools may still be waiting for.
    began: Duration,
    /// Until when starts may be missing.
    until: Duration,
}

impl SimProviders {
    /// None so far, on a node with this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, pools: Arc::default(), spot: Arc::default(), trouble: Arc::default() }
    }

    /// Ends an instance of each pool, of those that serve if there are any.
    pub fn kill_one_of_each(&self) {
        self.trouble().lost();
        for provider in self.pools().values() {
            let census = provider.census();
            let serving = census.iter().find(|instance| instance.state == InstanceState::Active);
            if let Some(instance) = serving.or(census.first()) {
                provider.kill(&instance.id);
            }
        }
    }

    /// Ends all instances that were bought on a spot market.
    pub fn reclaim(&self) {
        self.trouble().lost();
        let spot = self.spot.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, provider) in self.pools().iter().filter(|(name, _)| spot.contains(*name)) {
            provider.census().iter().for_each(|instance| provider.kill(&instance.id));
        }
    }

    /// From now on this is wrong with what runs each pool, or nothing is.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.trouble().change(outage);
        self.pools().values().for_each(|provider| provider.set_outage(outage));
    }

    /// Until when something is wrong with the instances, or was: at least until now, if it still is.
    pub fn troubled_until(&self) -> Duration {
        let trouble = *self.trouble();
        if trouble.outage.is_some() { virtual_now() } else { trouble.until }
    }

    /// The instances of `pool` that exist now, on whichever terms they were bought.
    pub fn census(&self, pool: &PoolConfig) -> Vec<Observed> {
        let pools = self.pools();
        let names = std::iter::once(&pool.name).chain(pool.spot.as_ref().map(|spot| &spot.name));
        names.filter_map(|name| pools.get(name)).flat_map(SimulatedProvider::census).collect()
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<PoolName, SimulatedProvider>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trouble {
    /// Instances have ended by themselves.
    fn lost(&mut self) {
        self.until = self.until.max(virtual_now());
    }

    /// An outage begins or ends.
    fn change(&mut self, outage: Option<Outage>) {
        let now = virtual_now();
        if self.outage.is_none() && now > self.until {
            self.began = now;
        }
        // What has failed for so long is tried again after twice as long a pause, at the latest.
        let pause = (2 * now.saturating_sub(self.began)).min(LONGEST_PAUSE);
        (self.outage, self.until) = (outage, self.until.max(now + pause));
    }
}

impl Providers for SimProviders {
    fn open(&self, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>> {
        if let Some(spot) = &pool.spot {
            self.spot.lock().unwrap_or_else(PoisonError::into_inner).insert(spot.name.clone());
        }
        let (mut pools, outage) = (self.pools(), self.trouble().outage);
        let durations = Durations { startup: pool.startup, drain: DRAIN };
        let provider = pools.entry(pool.name.clone()).or_insert_with(|| {
            let provider = SimulatedProvider::new(self.clock.clone(), durations);
            provider.set_outage(outage);
            provider
        });
        Ok(Arc::new(provider.clone()))
    }

    fn open_retired(&self, current: &BTreeSet<PoolName>) -> anyhow::Result<Vec<(PoolName, Arc<dyn Provider>)>> {
        let pools = self.pools();
        let retired = pools.iter().filter(|(name, _)| !current.contains(*name));
        Ok(retired.map(|(name, provider)| (name.clone(), Arc::new(provider.clone()) as Arc<dyn Provider>)).collect())
    }
}
