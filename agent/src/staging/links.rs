//! Connections with the regions that will be needed: the one kind of step that the mesh carries out.

use super::engine::{Job, Turn};
use super::stager::{Meter, Stager};
use crate::config::{ConnectConfig, StageAction};
use crate::mesh::MeshHandle;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::RegionId;
use tradewind_protocol::wire::Request;

/// How often a region that cannot be reached yet is tried.
const PAUSE: Duration = Duration::from_millis(250);

/// Has connections opened by the mesh, and leaves all else to another stager.
pub(crate) struct Linked {
    pub(crate) stager: Arc<dyn Stager>,
    pub(crate) mesh: MeshHandle,
}

#[async_trait]
impl Stager for Linked {
    async fn carry_out(&self, region: &RegionId, job: &Job, meter: &Meter) -> Result<(), String> {
        match (&job.step.action, job.turn) {
            (StageAction::Connect(connect), Turn::Do) => self.reach(connect).await,
            // The mesh keeps its connections by itself.
            (StageAction::Connect(_), Turn::Undo) => Ok(()),
            (StageAction::Preload(_) | StageAction::Hook(_) | StageAction::Webhook(_) | StageAction::Storage(_), _) => {
                self.stager.carry_out(region, job, meter).await
            }
        }
    }
}

impl Linked {
    /// Opens a connection with each region and asks for what it has published last, so that the path is known to work and its
    /// congestion window is open.
    async fn reach(&self, connect: &ConnectConfig) -> Result<(), String> {
        let mut missing = String::new();
        let reached = async {
            for region in &connect.regions {
                self.mesh.hurry(region);
                while let Err(error) = self.mesh.request(region, Request::Fetch { region: region.clone() }).await {
                    missing = error.to_string();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::time::timeout(connect.deadline, reached).await.map_err(|_| missing)
    }
}
