//! Steps that are done in memory only, for tests and the simulator: what stands outlives the agent, and nothing else happens.
//!
//! Deterministic: every job takes the configured time, on tokio's clock, and does what it says.

use super::engine::{Job, Turn};
use super::stager::{Meter, Stager};
use async_trait::async_trait;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tradewind_protocol::{RegionId, ServiceName, StageName};

/// How many jobs are remembered.
const MAX_LOG: usize = 1_000;

/// Stages in memory. Clones share what stands.
#[derive(Clone)]
pub struct SimulatedStager {
    takes: Duration,
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    standing: BTreeSet<(ServiceName, StageName)>,
    refusals: VecDeque<String>,
    log: VecDeque<(Turn, ServiceName, StageName)>,
}

impl SimulatedStager {
    /// Nothing stands; every job takes so long.
    pub fn new(takes: Duration) -> Self {
        Self { takes, world: Arc::default() }
    }

    /// The steps that are done.
    pub fn standing(&self) -> BTreeSet<(ServiceName, StageName)> {
        self.world().standing.clone()
    }

    /// The jobs that ended, oldest first.
    pub fn log(&self) -> Vec<(Turn, ServiceName, StageName)> {
        self.world().log.iter().cloned().collect()
    }

    /// Refuses the next job, once per call.
    pub fn refuse_next(&self, reason: &str) {
        self.world().refusals.push_back(reason.into());
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Stager for SimulatedStager {
    async fn carry_out(&self, _region: &RegionId, job: &Job, _meter: &Meter) -> Result<(), String> {
        tokio::time::sleep(self.takes).await;
        let mut world = self.world();
        if let Some(reason) = world.refusals.pop_front() {
            return Err(reason);
        }
        let step = (job.service.clone(), job.step.name.clone());
        if world.log.len() == MAX_LOG {
            world.log.pop_front();
        }
        world.log.push_back((job.turn, step.0.clone(), step.1.clone()));
        match job.turn {
            Turn::Do => drop(world.standing.insert(step)),
            Turn::Undo => drop(world.standing.remove(&step)),
        }
        Ok(())
    }
}
