//! A simulated machine: what of a node survives its agent, and the [`Env`] of each life.

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::net::{Paths, SimNetwork};
use crate::opened::Opened;
use crate::provider::SimProviders;
use crate::tls;
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::env::{Env, Offload, Seed};
use tradewind_agent::staging::simulated::SimulatedStager;

/// The root of all chance of the simulation with this number.
pub fn simulation_seed(number: u64) -> Seed {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Seed::new(bytes).child("simulation")
}

/// How often a monotonic clock that is too fast takes a step.
const PACE_EVERY: Duration = Duration::from_millis(100);

/// How long it takes to stage anything.
const STAGE_TAKES: Duration = Duration::from_millis(500);

/// A node's machine: its disk, clock and workers outlive the agent on it.
pub struct Machine {
    ip: IpAddr,
    paths: Paths,
    seed: Seed,
    boots: Cell<u64>,
    /// Power cuts of the disk before the newest boot.
    cuts_at_boot: Cell<u64>,
    /// By how many thousandths its monotonic clock is too fast.
    pace_per_mille: Cell<u32>,
    /// How far its monotonic clock is about to jump.
    jump: Cell<Duration>,
    /// Its wall clock.
    pub clock: Arc<SimClock>,
    /// Its disk.
    pub disk: SimDisk,
    /// Its workers.
    pub providers: SimProviders,
    /// What is staged on it.
    pub stager: SimulatedStager,
}

impl Machine {
    /// A new machine called `name`, with an empty disk.
    pub fn new(name: &str, ip: IpAddr, paths: Paths, simulation: Seed) -> Self {
        let seed = simulation.child(&format!("machine {name}"));
        let clock = Arc::<SimClock>::default();
        Self {
            ip,
            paths,
            seed,
            boots: Cell::new(0),
            cuts_at_boot: Cell::new(0),
            pace_per_mille: Cell::new(0),
            jump: Cell::default(),
            providers: SimProviders::new(clock.clone()),
            clock,
            stager: SimulatedStager::new(STAGE_TAKES),
            disk: SimDisk::new(seed.child("disk")),
        }
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How often it was booted.
    pub fn boots(&self) -> u64 {
        self.boots.get()
    }

    /// Whether the power has failed since the last boot.
    pub fn lost_power(&self) -> bool {
        self.disk.stats().cuts > self.cuts_at_boot.get()
    }

    /// Lets its monotonic clock run too fast by so many thousandths.
    pub fn set_pace(&self, per_mille: u32) {
        self.pace_per_mille.set(per_mille);
    }

    /// Lets its monotonic clock jump ahead, as a process sees it that did not run meanwhile.
    pub fn jump(&self, by: Duration) {
        self.jump.set(self.jump.get() + by);
    }

    /// Runs beside a life of its agent: carries out jumps and pace. A machine's clock is compared with no
    /// other's, so where it is matters to nobody; how fast it goes does.
    pub(crate) async fn keep_pace(&self) {
        loop {
            tokio::time::sleep(PACE_EVERY).await;
            let ahead = self.jump.take() + PACE_EVERY * self.pace_per_mille.get() / 1_000;
            if !ahead.is_zero() {
                tokio::time::advance(ahead).await;
            }
        }
    }

    /// The world as the next life of its agent finds it. Every life has its own chance: with the
    /// same one it would draw the connection ids of the life before.
    pub fn boot(&self) -> Env {
        self.boots.set(self.boots.get() + 1);
        self.cuts_at_boot.set(self.disk.stats().cuts);
        let life = self.seed.child(&format!("life {}", self.boots.get()));
        Env {
            network: Arc::new(SimNetwork::new(self.ip, self.paths.clone(), life.child("paths"))),
            clock: self.clock.clone(),
            seed: life.child("agent"),
            crypto: Arc::new(tls::provider()),
            storage: Arc::new(self.disk.clone()),
            offload: Offload::Inline,
            providers: Arc::new(self.providers.clone()),
            stager: Arc::new(self.stager.clone()),
            opened: Some(Arc::new(Opened)),
        }
    }
}
