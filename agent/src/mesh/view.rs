//! What this agent knows of the mesh: an immutable, typed snapshot with the age of everything. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::wire::Version;
use tradewind_protocol::{RegionId, RegionState, Timestamp};

/// The mesh as one agent sees it.
#[derive(Debug, Clone)]
pub struct MeshView {
    /// Whose view it is.
    pub this: RegionId,
    /// Every region that a valid card speaks for, this one included, dead ones too.
    pub regions: BTreeMap<RegionId, RegionEntry>,
}

/// One region.
#[derive(Debug, Clone)]
pub struct RegionEntry {
    /// Whether its agent lives, as far as is known.
    pub live: bool,
    /// Which life of its agent is the newest.
    pub generation: u64,
    /// Which state of that life is the newest. It may still be on its way: `state` is the newest
    /// that has arrived, perhaps of a former life.
    pub sequence: u64,
    /// Where its QUIC endpoint is.
    pub address: SocketAddr,
    /// What it has published, if that has arrived.
    pub state: Option<Arc<RegionState>>,
    /// When that arrived, by this agent's clock.
    pub received_at: Option<Timestamp>,
    /// How many bytes it took on the wire; 0 without a state.
    pub body_bytes: u32,
    /// The connection with it, if there is one.
    pub connection: Option<Connected>,
}

/// A connection with a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// Its round trip.
    pub rtt: Duration,
    /// What both ends speak on it.
    pub version: Version,
}

impl RegionEntry {
    /// Round trip on the connection with it, if there is one.
    pub fn rtt(&self) -> Option<Duration> {
        self.connection.map(|connection| connection.rtt)
    }

    /// How long ago the state arrived.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.received_at.map(|at| now.since(at))
    }

    /// Whether both say the same but for the round trip, which never stands still.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let state = |entry: &Self| entry.state.as_ref().map(Arc::as_ptr);
        let version = |e: &Self| e.connection.map(|connection| connection.version);
        let rest = |e: &Self| (e.live, e.generation, e.sequence, e.address, e.received_at, e.body_bytes, version(e));
        rest(self) == rest(other) && state(self) == state(other)
    }
}

impl MeshView {
    /// The regions whose agents live, this one included.
    pub fn live(&self) -> impl Iterator<Item = (&RegionId, &RegionEntry)> {
        self.regions.iter().filter(|(_, entry)| entry.live)
    }

    /// The newest state of `region` that has arrived.
    pub fn state(&self, region: &RegionId) -> Option<&Arc<RegionState>> {
        self.regions.get(region)?.state.as_ref()
    }
}
