//! What starts, activates, drains and stops instances.
//!
//! A provider owns no desired state: the pool's reconciler compares what should be with what
//! [`Provider::list`] reports, and orders the difference. Every order is idempotent by instance id,
//! and [`conformance`] is the law for all implementations:
//!
//! | module | what it runs |
//! |---|---|
//! | [`chain`] | what other providers run, each taking over while those before it fail |
//! | [`docker`] | containers of a Docker engine |
//! | [`exec`] | infrastructure as code: commands that are handed a plan |
//! | [`kubernetes`] | replicas of a workload in a cluster |
//! | [`process`] | worker processes of this machine |
//! | [`simulated`] | instances that exist in memory only, for tests and the simulator |
//! | [`webhook`] | whatever the operator's own program runs |
//!
//! `exec`, `kubernetes` and `webhook` take plans, not orders; [`declared`] makes the one of the other.

pub mod chain;
pub mod conformance;
pub mod declared;
pub mod docker;
pub mod exec;
pub mod kubernetes;
pub mod process;
pub mod simulated;
pub mod webhook;

use async_trait::async_trait;
use chain::Link;
use declared::DeclaredProvider;
use declared::record::Record;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, Market, PoolName};

/// One instance as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Which instance.
    pub id: InstanceId,
    /// Where it stands.
    pub state: InstanceState,
    /// What it runs as, for people: `pid 4711`.
    pub handle: String,
}

/// An instance that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which instance.
    pub id: InstanceId,
    /// Whether it was told to end.
    pub cause: EndCause,
    /// How it ended, for people: `exit code 1`.
    pub reason: String,
}

/// Why an instance is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// It was drained or stopped.
    Ordered,
    /// It ended by itself, or somebody else ended it.
    Unexpected,
}

/// What a provider can be told to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Start a new instance, which becomes warm when it is ready.
    Start,
    /// The same, bought on the spot market.
    StartSpot,
    /// Let a warm instance serve.
    Activate,
    /// Return an active instance to warm.
    Deactivate,
    /// Let an instance finish what it has, and then end.
    Drain,
    /// End an instance now.
    Stop,
    /// The same for one that has taken too long to become ready.
    GiveUp,
}

impl Order {
    /// Whether it ends one, sooner or later.
    pub(crate) fn ends(self) -> bool {
        self.leads_to() == InstanceState::Draining
    }

    /// The state of an instance that has taken it.
    pub(crate) fn leads_to(self) -> InstanceState {
        match self {
            Order::Start | Order::StartSpot => InstanceState::Starting,
            Order::Activate => InstanceState::Active,
            Order::Deactivate => InstanceState::Warm,
            Order::Drain | Order::Stop | Order::GiveUp => InstanceState::Draining,
        }
    }

    /// Whether it makes an instance.
    pub(crate) fn is_start(self) -> bool {
        self.leads_to() == InstanceState::Starting
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Start => "start",
            Order::StartSpot => "start on the spot market",
            Order::Activate => "activate",
            Order::Deactivate => "deactivate",
            Order::Drain => "drain",
            Order::Stop => "stop",
            Order::GiveUp => "give up",
        })
    }
}

/// Why a provider did not do what it was asked. Asking again later may help: the pool backs off and
/// tries again.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// An order was not carried out. A failed start has left nothing behind; any other failed order
    /// has left the instance as [`Provider::list`] shows it.
    #[error("cannot {order} {id}: {reason}")]
    Order {
        /// Which order.
        order: Order,
        /// Of which instance.
        id: InstanceId,
        /// Why not, and how to mend it.
        reason: String,
    },
    /// The instances could not be listed; nothing is known about them, least of all that they are gone.
    #[error("cannot list instances: {reason}")]
    List {
        /// Why not, and how to mend it.
        reason: String,
    },
}

impl ProviderError {
    fn order(order: Order, id: &InstanceId, reason: impl fmt::Display) -> Self {
        Self::Order { order, id: id.clone(), reason: reason.to_string() }
    }
}

/// Whether a provider is configured for its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Configured,
    /// It was: it only ends what it still runs.
    Retired,
}

/// One provider of a pool that has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// What kind it is: `docker`.
    pub kind: &'static str,
    /// On which terms what it runs is bought.
    pub market: Market,
    /// Whether it is configured.
    pub standing: Standing,
    /// How many instances it runs, as far as is known.
    pub instances: usize,
    /// Why it is left alone for now.
    pub failing: Option<String>,
}

/// Runs the instances of one pool. Orders are idempotent by id; those that end an instance also
/// succeed when it is already gone.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// All instances of the pool that exist, also those started by an earlier life of the agent,
    /// ascending by id.
    async fn list(&self) -> Result<Vec<Observed>, ProviderError>;
    /// Starts a new instance, which becomes warm when it is ready.
    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// The same on the spot market. A provider that knows of none refuses.
    async fn start_spot(&self, id: &InstanceId) -> Result<(), ProviderError> {
        Err(ProviderError::order(Order::StartSpot, id, "the pool has no [pool.spot] table: add one to its configuration"))
    }
    /// Whether it is worth to order a start on the spot market now.
    fn offers_spot(&self) -> bool {
        false
    }
    /// On which terms an instance was bought.
    fn market(&self, id: &InstanceId) -> Market {
        let _ = id;
        Market::OnDemand
    }
    /// Lets a warm instance serve. It does when this returns.
    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Returns an active instance to warm. It is when this returns.
    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Lets an instance finish what it has, and then end; ends it when that takes longer than the
    /// pool allows. Returns at once.
    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Ends an instance now. Returns at once; it is gone when it is no longer listed.
    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// The same for an instance that has taken too long to become ready.
    async fn give_up(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.stop(id).await
    }
    /// Completes when any instance may have changed since this last completed. One waiter at a time.
    async fn changed(&self);
    /// Takes note of the instances that ended since this was last called.
    fn take_ended(&self) -> Vec<Ended>;
    /// Of two instances, the one of the higher rank is ended first when fewer are wanted.
    fn rank(&self, id: &InstanceId) -> usize {
        let _ = id;
        0
    }
    /// The providers that this one is made of, in the order in which they are tried.
    fn links(&self) -> Vec<LinkStatus> {
        vec![]
    }
    /// Lets go of the instances without ending them; a later provider of the same pool finds them.
    /// Orders that come after this fail.
    async fn close(&self);
}

/// What a record says of the backend that it belongs to.
fn origin(kind: &str, config: &impl serde::Serialize) -> serde_json::Value {
    serde_json::json!({ kind: config })
}

/// Opens the provider that made `record`, to end what it still runs; none if nobody knows it.
fn open_retired(data_dir: &Path, pool: &PoolName, record: Record) -> anyhow::Result<Option<Link>> {
    let mut origin = record.origin;
    let link = |kind, provider: DeclaredProvider| Link {
        kind,
        provider: Arc::new(provider),
        market: Market::OnDemand,
        standing: Standing::Retired,
    };
    Ok(if let Some(exec) = origin.get_mut(exec::ORIGIN) {
        Some(link(exec::ORIGIN, exec::open_retired(data_dir, pool, serde_json::from_value(exec.take())?)?))
    } else if let Some(hook) = origin.get_mut(webhook::ORIGIN) {
        Some(link(webhook::ORIGIN, webhook::open_retired(data_dir, pool, &serde_json::from_value(hook.take())?)?))
    } else if let Some(cluster) = origin.get_mut(kubernetes::ORIGIN) {
        Some(link(kubernetes::ORIGIN, kubernetes::open_retired(data_dir, pool, &serde_json::from_value(cluster.take())?)?))
    } else {
        None
    })
}

/// The providers that may still have instances by plans of the agent with this `data_dir`, but for the `configured` ones.
pub(crate) fn retired(data_dir: &Path, configured: impl Fn(&PoolName, &str) -> bool) -> anyhow::Result<Vec<(PoolName, Link)>> {
    let mut retired = vec![];
    for (pool, kind) in declared::record::all(data_dir)? {
        if configured(&pool, kind) {
            continue;
        }
        let Some(record) = Record::read(&declared::record::path(data_dir, kind, &pool))? else { continue };
        if let Some(link) = open_retired(data_dir, &pool, record)? {
            retired.push((pool, link));
        }
    }
    Ok(retired)
}

/// Carries out `order`, whichever it is.
pub(crate) async fn carry_out(provider: &dyn Provider, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
    match order {
        Order::Start => provider.start(id).await,
        Order::StartSpot => provider.start_spot(id).await,
        Order::Activate => provider.activate(id).await,
        Order::Deactivate => provider.deactivate(id).await,
        Order::Drain => provider.drain(id).await,
        Order::Stop => provider.stop(id).await,
        Order::GiveUp => provider.give_up(id).await,
    }
}
