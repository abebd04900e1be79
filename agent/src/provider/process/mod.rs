//! The `process` provider. (Being written.)

use super::{Observed, Provider, ProviderError};
use crate::config::{PoolConfig, ProcessConfig};
use async_trait::async_trait;
use std::path::Path;
use tradewind_protocol::InstanceId;

pub(crate) struct ProcessProvider {}

impl ProcessProvider {
    pub(crate) fn open(_data_dir: &Path, _pool: &PoolConfig, _process: &ProcessConfig) -> anyhow::Result<Self> {
        anyhow::bail!("being written")
    }
}

#[async_trait]
impl Provider for ProcessProvider {
    async fn list(&self) -> Vec<Observed> {
        vec![]
    }
    async fn start(&self, _id: &InstanceId) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn activate(&self, _id: &InstanceId) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn deactivate(&self, _id: &InstanceId) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn drain(&self, _id: &InstanceId) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn stop(&self, _id: &InstanceId) -> Result<(), ProviderError> {
        Ok(())
    }
    async fn changed(&self) {
        std::future::pending().await
    }
}
