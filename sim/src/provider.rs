//! A node's instances: the agent's own simulated provider, one a pool, kept with the node.
//!
//! Like real workers they outlive a crash of the agent, and are found again by its next life.

use crate::clock::virtual_now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tradewind_agent::config::PoolConfig;
use tradewind_agent::env::{Clock, Providers};
use tradewind_agent::provider::Provider;
use tradewind_agent::provider::simulated::{Durations, SimulatedProvider};
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
    last_lost: Arc<Mutex<Option<Duration>>>,
}

impl SimProviders {
    /// None so far, on a node with this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, pools: Arc::default(), last_lost: Arc::default() }
    }

    /// Ends an instance of each pool, of those that serve if there are any.
    pub fn kill_one_of_each(&self) {
        *self.last_lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(virtual_now());
        for provider in self.pools.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let census = provider.census();
            let serving = census.iter().find(|instance| instance.state == InstanceState::Active);
            if let Some(instance) = serving.or(census.first()) {
                provider.kill(&instance.id);
            }
        }
    }

    /// When that was done last.
    pub fn last_lost(&self) -> Option<Duration> {
        *self.last_lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instances of the pool called `name`, if it was ever opened.
    pub fn pool(&self, name: &PoolName) -> Option<SimulatedProvider> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl Providers for SimProviders {
    fn open(&self, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let durations = Durations { startup: pool.startup, drain: DRAIN };
        let provider = pools.entry(pool.name.clone()).or_insert_with(|| SimulatedProvider::new(self.clock.clone(), durations));
        Ok(Arc::new(provider.clone()))
    }

    fn open_retired(&self, current: &BTreeSet<PoolName>) -> anyhow::Result<Vec<(PoolName, Arc<dyn Provider>)>> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let retired = pools.iter().filter(|(name, _)| !current.contains(*name));
        Ok(retired.map(|(name, provider)| (name.clone(), Arc::new(provider.clone()) as Arc<dyn Provider>)).collect())
    }
}
