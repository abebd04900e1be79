//! The connections: at most one in use with each region, and who is being dialled.
//!
//! Connections are keyed by the region that their certificate proves, so an agent is found wherever
//! it connects from. Of two connections between the same two places, dialled from opposite ends, both
//! ends keep the one that the region of the smaller name has dialled; otherwise the newer one
//! replaces the older one, which the other end must have lost.

use super::core::Connections;
use super::link::{CODE_DUPLICATE, Link};
use super::refusal::Refusal;
use super::stats::MeshStats;
use super::view::Connected;
use super::{Mesh, tls};
use crate::marks::bug;
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
/// A region that was away is found again within this. A vain dial costs 3.6 kB: under 1 kB/s for
/// each region that is away, of which a mesh has few at a time.
const BACKOFF_MAX: Duration = Duration::from_secs(4);
/// A connection that ends sooner counts as a failed dial, or two agents that cannot agree would dial
/// each other as fast as the network allows.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// How long the losing one is still read: what was sent on it is on its way.
const LOSER_GRACE: Duration = Duration::from_secs(1);

/// The connections of one agent.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

impl State {
    fn set(&mut self, link: &Arc<Link>) {
        if let Some(old) = self.links.insert(link.region.clone(), link.clone())
            && !Arc::ptr_eq(&old, link)
        {
            old.in_use.send_replace(false);
        }
        link.in_use.send_replace(true);
    }
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
pub(super) enum Entered {
    /// It is the one in use.
    InUse,
    /// It met another one half-way.
    Crossed {
        /// The other one, if that stays in use.
        kept: Option<Arc<Link>>,
    },
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

    /// What is to be shown of them, by region.
    pub(super) fn connected(&self) -> Connections {
        let shown = |link: &Link| Connected { rtt: link.connection.rtt(), version: link.version };
        self.state().links.iter().map(|(region, link)| (region.clone(), shown(link))).collect()
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

    /// Takes in a new connection. If there is one with the region already, one of the two is closed a
    /// little later, unless the other one turns out to be lost by then.
    pub(super) fn enter(self: &Arc<Self>, own: &RegionId, new: &Arc<Link>) -> Entered {
        let mut state = self.state();
        if let Some(address) = new.dialled_to
            && let Some(dial) = state.dials.get_mut(&address)
        {
            let failures = dial.failures();
            *dial = Dial::Reached { region: new.region.clone(), failures };
        }
        let Some(old) = state.links.get(&new.region).cloned() else {
            state.set(new);
            return Entered::InUse;
        };
        let same_place = old.connection.remote_address() == new.connection.remote_address();
        let crossed = old.is_dialled() != new.is_dialled() && same_place && old.connection.close_reason().is_none();
        let keeps_old = crossed && old.is_dialled() == (*own < new.region);
        let (winner, loser) = if keeps_old { (old.clone(), new.clone()) } else { (new.clone(), old) };
        state.set(&winner);
        drop(state);
        let kept = keeps_old.then(|| winner.clone());
        let pool = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOSER_GRACE).await;
            if winner.connection.close_reason().is_none() {
                loser.connection.close(CODE_DUPLICATE, b"another connection is in use");
            } else {
                pool.take_up(&loser);
            }
        });
        if crossed { Entered::Crossed { kept } } else { Entered::InUse }
    }

    /// Uses a connection whose better one was lost, unless there is another one by now.
    fn take_up(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if link.connection.close_reason().is_none() && !state.links.contains_key(&link.region) {
            state.set(link);
        }
    }

    /// A connection has ended.
    pub(super) fn leave(&self, link: &Link, now: Instant) {
        let mut state = self.state();
        let udp = udp_of(&link.connection);
        add_udp(&mut state.gone, &udp);
        if state.links.get(&link.region).is_some_and(|l| l.connection.stable_id() == link.connection.stable_id()) && !bug!("dead-link-kept")
        {
            state.links.remove(&link.region);
        }
        if let Some(address) = link.dialled_to
            && let Some(dial @ Dial::Reached { .. }) = state.dials.get_mut(&address)
        {
            let short = now.saturating_duration_since(link.since) < SHORT_LIFE;
            *dial = Dial::waiting(if short { dial.failures().saturating_add(1) } else { 1 }, now);
        }
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
        if bug!("dial-not-retried") {
            return;
        }
        let mut state = self.state();
        if let Some(dial @ Dial::Trying { .. }) = state.dials.get_mut(&address) {
            *dial = Dial::waiting(dial.failures().saturating_add(1), now);
        }
    }

    /// There is news that `address` can be reached: whatever was tried in vain before, it is time again.
    pub(super) fn hurry(&self, address: SocketAddr) {
        let mut state = self.state();
        if let Some(Dial::Waiting { .. }) = state.dials.get(&address) {
            state.dials.remove(&address);
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
    let failure = match mesh.endpoint.connect(address, MESH_NAME) {
        Ok(connecting) => match timeout(DIAL_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => return super::link::run(mesh, connection, Some(address)).await,
            Ok(Err(error)) => {
                if tls::is_refusal(&error) {
                    mesh.refuse(&address, Refusal::Certificate);
                }
                error.to_string()
            }
            Err(_) => format!("no answer in {DIAL_TIMEOUT:?}"),
        },
        Err(error) => error.to_string(),
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
