//! Instances that exist in memory only.
//!
//! They belong to the node, not to a life of its agent: like real workers they outlive a crash of
//! the agent and are found again by the next life.

use crate::clock::virtual_now;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tradewind_agent::config::PoolConfig;
use tradewind_agent::env::Providers;
use tradewind_agent::provider::{Observed, Provider, ProviderError};
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName};

/// How long a draining instance takes to finish: a guess, shorter than any sensible timeout.
const DRAIN: Duration = Duration::from_millis(500);

/// A node's instances. Clones are the same instances.
#[derive(Clone, Default)]
pub struct SimProviders {
    pools: Arc<Mutex<BTreeMap<PoolName, Instances>>>,
}

type Instances = BTreeMap<InstanceId, Instance>;

#[derive(Debug, Clone, Copy)]
struct Instance {
    state: InstanceState,
    /// When it changes by itself.
    until: Option<Duration>,
}

impl SimProviders {
    /// How many instances exist over all pools.
    pub fn count(&self) -> usize {
        self.lock().values().map(BTreeMap::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PoolName, Instances>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Providers for SimProviders {
    fn open(&self, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>> {
        Ok(Arc::new(SimProvider { node: self.clone(), pool: pool.name.clone(), startup: pool.startup, changed: Notify::new() }))
    }
}

struct SimProvider {
    node: SimProviders,
    pool: PoolName,
    startup: Duration,
    changed: Notify,
}

impl SimProvider {
    /// The pool's instances as of now.
    fn with<T>(&self, access: impl FnOnce(&mut Instances, Duration) -> T) -> T {
        let now = virtual_now();
        let mut pools = self.node.lock();
        let instances = pools.entry(self.pool.clone()).or_default();
        instances.retain(|_, instance| !(instance.state == InstanceState::Draining && instance.until.is_some_and(|until| until <= now)));
        for instance in instances.values_mut() {
            if instance.state == InstanceState::Starting && instance.until.is_some_and(|until| until <= now) {
                *instance = Instance { state: InstanceState::Warm, until: None };
            }
        }
        access(instances, now)
    }

    fn turn(&self, action: &'static str, id: &InstanceId, from: InstanceState, to: InstanceState) -> Result<(), ProviderError> {
        self.with(|instances, _| match instances.get_mut(id) {
            Some(instance) if instance.state == from || instance.state == to => {
                instance.state = to;
                Ok(())
            }
            Some(instance) => Err(ProviderError { action, id: id.clone(), reason: format!("it is {:?}", instance.state) }),
            None => Err(ProviderError { action, id: id.clone(), reason: "there is no such instance".into() }),
        })?;
        self.changed.notify_waiters();
        Ok(())
    }
}

#[async_trait]
impl Provider for SimProvider {
    async fn list(&self) -> Vec<Observed> {
        self.with(|instances, _| {
            let observe =
                |(id, instance): (&InstanceId, &Instance)| Observed { id: id.clone(), state: instance.state, handle: "simulated".into() };
            instances.iter().map(observe).collect()
        })
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.with(|instances, now| {
            let starting = Instance { state: InstanceState::Starting, until: Some(now + self.startup) };
            instances.entry(id.clone()).or_insert(starting);
        });
        self.changed.notify_waiters();
        Ok(())
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn("activate", id, InstanceState::Warm, InstanceState::Active)
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn("deactivate", id, InstanceState::Active, InstanceState::Warm)
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.with(|instances, now| {
            if let Some(instance) = instances.get_mut(id)
                && instance.state != InstanceState::Draining
            {
                *instance = Instance { state: InstanceState::Draining, until: Some(now + DRAIN) };
            }
        });
        self.changed.notify_waiters();
        Ok(())
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.with(|instances, _| instances.remove(id));
        self.changed.notify_waiters();
        Ok(())
    }

    async fn changed(&self) {
        let ordered = self.changed.notified();
        let next = self
            .with(|instances, now| instances.values().filter_map(|instance| instance.until).min().map(|until| until.saturating_sub(now)));
        let by_itself = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ordered => {}
            () = by_itself => {}
        }
    }
}
