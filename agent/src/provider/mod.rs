//! What starts, activates, drains and stops instances.
//!
//! A provider owns no desired state: the pool's reconciler compares what should be with what
//! [`Provider::list`] reports, and orders the difference. Every order is idempotent by instance id.

pub mod process;

use async_trait::async_trait;
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

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

/// Why an order was not carried out. The reconciler backs off and tries again.
#[derive(Debug, thiserror::Error)]
#[error("{action} {id}: {reason}")]
pub struct ProviderError {
    /// Which order: `start`, `activate`, `drain`, `stop`.
    pub action: &'static str,
    /// Of which instance.
    pub id: InstanceId,
    /// Why not.
    pub reason: String,
}

/// Runs the instances of one pool.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// All instances of the pool that exist, also those started by an earlier life of the agent.
    async fn list(&self) -> Vec<Observed>;
    /// Starts a new instance, which becomes warm when it is ready.
    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Lets a warm instance serve.
    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Returns an active instance to warm.
    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Lets an instance finish what it has, and then end.
    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Ends an instance now.
    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError>;
    /// Completes when any instance may have changed by itself (became ready, died).
    async fn changed(&self);
}
