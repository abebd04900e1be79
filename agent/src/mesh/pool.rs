//! The connections: at most one in use with each region, and who is being dialled.
//!
//! Connections are keyed by the region that their certificate proves, so an agent is found wherever
//! it connects from. Two agents that dial each other at once agree on which of the two connections
//! stays; a connection that comes later replaces the one that the other side must have lost.

use super::Mesh;
use super::link::{CODE_DUPLICATE, Link};
use super::stats::MeshStats;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tradewind_protocol::RegionId;
use tradewind_protocol::pki::MESH_NAME;

/// A handshake takes two round trips: this is enough with the second packet lost twice.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Dials under way at once: a mesh of 500 starts within a few round trips.
const MAX_DIALS: usize = 64;
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// A region that was away is found again within this. A vain dial costs 3.6 kB.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A connection that ends sooner counts as a failed dial, or two agents that cannot agree would dial
/// each other as fast as the network allows.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// Two connections between two agents, dialled from opposite ends and made this close together,
/// have crossed. Further apart, the older one is lost to the other side.
const CROSSED: Duration = Duration::from_secs(2);
/// How long the losing one is still read: what was sent on it is on its way.
const LOSER_GRACE: Duration = Duration::from_secs(1);

/// The connections of one agent.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<RegionId, Arc<Link>>,
    dials: BTreeMap<SocketAddr, Dial>,
    /// UDP counts of the connections that are gone.
    gone: MeshStats,
}

enum Dial {
    Trying {
        failures: u32,
    },
    /// Not before this time.
    Waiting {
        until: Instant,
        failures: u32,
    },
    /// This region answered there.
    Reached {
        region: RegionId,
        failures: u32,
    },
    /// This agent itself is there.
    Own,
}

/// What became of a new connection.
pub(super) struct Entered {
    /// Whether it is the one in use.
    pub(super) kept: bool,
    /// Whether it met another one half-way.
    pub(super) crossed: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with `region`.
    pub(super) fn get(&self, region: &RegionId) -> Option<Arc<Link>> {
        self.state().links.get(region).cloned()
    }

    /// All of them, by region.
    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        self.state().links.values().cloned().collect()
    }

    /// The round trips, by region.
    pub(super) fn rtts(&self) -> BTreeMap<RegionId, Duration> {
        self.state().links.iter().map(|(region, link)| (region.clone(), link.connection.rtt())).collect()
    }

    /// Adds what connections count.
    pub(super) fn count(&self, stats: &mut MeshStats) {
        let state = self.state();
        stats.links = state.links.len() as u64;
        add_udp(stats, &state.gone);
        for link in state.links.values() {
            add_udp(stats, &udp_of(&link.connection));
        }
    }

    /// Takes in a new connection; the one that it replaces, or itself, is closed a little later.
    pub(super) fn enter(&self, own: &RegionId, new: &Arc<Link>) -> Entered {
        let mut state = self.state();
        if let Some(address) = new.dialled_to
            && let Some(dial) = state.dials.get_mut(&address)
        {
            let failures = dial.failures();
            *dial = Dial::Reached { region: new.region.clone(), failures };
        }
        let Some(old) = state.links.get(&new.region).cloned() else {
            state.links.insert(new.region.clone(), new.clone());
            return Entered { kept: true, crossed: false };
        };
        let crossed = old.is_dialled() != new.is_dialled()
            && new.since.saturating_duration_since(old.since) < CROSSED
            && old.connection.close_reason().is_none();
        // Both sides keep the one that the region of the smaller name has dialled.
        let keeps_old = crossed && old.is_dialled() == (*own < new.region);
        let loser = if keeps_old { new.clone() } else { old };
        if !keeps_old {
            state.links.insert(new.region.clone(), new.clone());
        }
        drop(state);
        tokio::spawn(async move {
            tokio::time::sleep(LOSER_GRACE).await;
            loser.connection.close(CODE_DUPLICATE, b"another connection is in use");
        });
        Entered { kept: !keeps_old, crossed }
    }

    /// A connection has ended. Returns whether its region is now without one.
    pub(super) fn leave(&self, link: &Link, now: Instant) -> bool {
        let mut state = self.state();
        let udp = udp_of(&link.connection);
        add_udp(&mut state.gone, &udp);
        let was_in_use = state.links.get(&link.region).is_some_and(|l| l.connection.stable_id() == link.connection.stable_id());
        if was_in_use {
            state.links.remove(&link.region);
        }
        if let Some(address) = link.dialled_to
            && let Some(dial @ Dial::Reached { .. }) = state.dials.get_mut(&address)
        {
            let short = now.saturating_duration_since(link.since) < SHORT_LIFE;
            *dial = Dial::waiting(if short { dial.failures().saturating_add(1) } else { 1 }, now);
        }
        was_in_use
    }

    /// Dials the addresses where nobody is connected, as far as it is time to. Forgets the others.
    pub(super) fn want(&self, mesh: &Arc<Mesh>, addresses: &BTreeSet<SocketAddr>, now: Instant) {
        let mut state = self.state();
        let State { links, dials, .. } = &mut *state;
        dials.retain(|address, dial| addresses.contains(address) || matches!(dial, Dial::Trying { .. }));
        let mut trying = dials.values().filter(|dial| matches!(dial, Dial::Trying { .. })).count();
        for address in addresses {
            let failures = match dials.get(address) {
                None => 0,
                Some(Dial::Trying { .. } | Dial::Own) => continue,
                Some(Dial::Waiting { until, .. }) if *until > now => continue,
                Some(Dial::Reached { region, .. }) if links.contains_key(region) => continue,
                Some(dial @ (Dial::Waiting { .. } | Dial::Reached { .. })) => dial.failures(),
            };
            if trying >= MAX_DIALS {
                break;
            }
            trying += 1;
            dials.insert(*address, Dial::Trying { failures });
            tokio::spawn(dial(mesh.clone(), *address));
        }
    }

    /// A dial came to nothing.
    fn on_failed(&self, address: SocketAddr, now: Instant) {
        let mut state = self.state();
        if let Some(dial @ Dial::Trying { .. }) = state.dials.get_mut(&address) {
            *dial = Dial::waiting(dial.failures().saturating_add(1), now);
        }
    }

    /// A dial reached this agent itself.
    pub(super) fn on_own(&self, address: SocketAddr) {
        self.state().dials.insert(address, Dial::Own);
    }
}

impl Dial {
    fn waiting(failures: u32, now: Instant) -> Self {
        let wait = (BACKOFF_MIN * (1 << failures.saturating_sub(1).min(8))).min(BACKOFF_MAX);
        Dial::Waiting { until: now + wait, failures }
    }

    fn failures(&self) -> u32 {
        match self {
            Dial::Trying { failures } | Dial::Waiting { failures, .. } | Dial::Reached { failures, .. } => *failures,
            Dial::Own => 0,
        }
    }
}

async fn dial(mesh: Arc<Mesh>, address: SocketAddr) {
    mesh.counters.dials.bump();
    let connect =
        async { Ok::<_, String>(mesh.endpoint.connect(address, MESH_NAME).map_err(|e| e.to_string())?.await.map_err(|e| e.to_string())?) };
    let failure = match timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(connection)) => return super::link::run(mesh, connection, Some(address)).await,
        Ok(Err(error)) => error,
        Err(_) => format!("no answer in {DIAL_TIMEOUT:?}"),
    };
    tracing::debug!(%address, failure, "dial failed");
    mesh.counters.dial_failures.bump();
    mesh.pool.on_failed(address, Instant::now());
}

fn udp_of(connection: &quinn::Connection) -> MeshStats {
    let stats = connection.stats();
    MeshStats {
        udp_bytes_sent: stats.udp_tx.bytes,
        udp_bytes_received: stats.udp_rx.bytes,
        udp_packets_sent: stats.udp_tx.datagrams,
        udp_packets_received: stats.udp_rx.datagrams,
        ..MeshStats::default()
    }
}

fn add_udp(to: &mut MeshStats, udp: &MeshStats) {
    to.udp_bytes_sent += udp.udp_bytes_sent;
    to.udp_bytes_received += udp.udp_bytes_received;
    to.udp_packets_sent += udp.udp_packets_sent;
    to.udp_packets_received += udp.udp_packets_received;
}
