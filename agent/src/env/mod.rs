//! The agent's edge to the world: network, clock, chance, disk, threads and workers.
//!
//! Everything that differs between a real agent and a simulated one is a field of [`Env`]; nothing
//! else in the agent asks which of the two it is in. [`Env::real`] is the operating system; the
//! simulator (crate `tradewind-sim`) builds its own from the same traits. Monotonic time is tokio's,
//! which the simulator pauses and drives.
//!
//! Chance is seeded in both: the root of a real agent's [`Seed`] comes from the operating system,
//! and every part draws from its own child, so there is one code path to trust.

mod real;

use crate::config::PoolConfig;
use crate::provider::Provider;
use crate::staging::Stager;
use async_trait::async_trait;
use ring::hkdf;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tradewind_protocol::{PoolName, RegionState, Timestamp};

/// Everything an agent needs of the world.
#[derive(Clone)]
pub struct Env {
    /// Sockets.
    pub network: Arc<dyn Network>,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// The root of chance. Must differ from life to life of one agent.
    pub seed: Seed,
    /// TLS primitives; the simulator's draw from its seed.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// The disk under the database.
    pub storage: Arc<dyn Storage>,
    /// Where work that blocks is done.
    pub offload: Offload,
    /// What starts and stops instances.
    pub providers: Arc<dyn Providers>,
    /// What makes services ready before they are needed.
    pub stager: Arc<dyn Stager>,
    /// States that were opened before, for whoever has several agents in one process.
    pub opened: Option<Arc<dyn Opened>>,
}

/// Published states by the SHA-256 of their bytes. An agent opens each once, so a real one has no use for it; a simulator's agents all
/// open the same bytes, and come to the same state.
pub trait Opened: Send + Sync + 'static {
    /// The state in the bytes of this hash, if they were opened before.
    fn get(&self, hash: &[u8; 32]) -> Option<RegionState>;
    /// Remembers it.
    fn keep(&self, hash: &[u8; 32], state: &RegionState);
}

/// Sockets.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// A UDP socket for QUIC. Port 0 takes a free one.
    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>>;
    /// A TCP listener for HTTP. Port 0 takes a free one.
    async fn bind_tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>>;
}

/// A listening TCP socket.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next connection. Cancel-safe.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Wall-clock time: may jump, is never used to measure durations.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Named files for redb.
pub trait Storage: Send + Sync + 'static {
    /// Opens or creates the file called `name`; one holder at a time.
    fn open(&self, name: &str) -> io::Result<Box<dyn redb::StorageBackend>>;

    /// How long whoever uses a file has to wait before each transaction, beyond the time that the
    /// file's own calls take: nothing but on a simulated disk, whose calls take no time.
    fn delay(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// Makes providers of instances.
pub trait Providers: Send + Sync + 'static {
    /// The provider that `pool` asks for.
    fn open(&self, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>>;

    /// Providers of the pools that still have instances but are not among `configured`.
    fn open_retired(&self, configured: &BTreeSet<PoolName>) -> anyhow::Result<Vec<(PoolName, Arc<dyn Provider>)>>;
}

/// Where work that blocks or takes long is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// On tokio's blocking threads.
    Threads,
    /// At once, on the caller's thread: the simulator's way, which keeps the order of things.
    Inline,
}

impl Offload {
    /// Does `work` and returns what it returns. A panic in it is passed on.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Offload::Inline => work(),
            Offload::Threads => match tokio::task::spawn_blocking(work).await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is shutting down, and so is whoever awaits this.
                    Err(_) => std::future::pending().await,
                },
            },
        }
    }
}

/// The root of a stream of chance, or of further roots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The root with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// An independent root for the purpose `label` (HKDF-SHA256, RFC 5869).
    pub fn child(&self, label: &str) -> Self {
        struct Bytes32;
        impl hkdf::KeyType for Bytes32 {
            fn len(&self) -> usize {
                32
            }
        }
        let mut child = [0; 32];
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tradewind seed").extract(&self.0);
        // 32 bytes of output are always within what HKDF allows.
        if let Ok(okm) = key.expand(&[label.as_bytes()], Bytes32) {
            let _ = okm.fill(&mut child);
        }
        Self(child)
    }

    /// The root's bytes, to seed a generator with.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_differ_by_label_and_by_parent() {
        let root = Seed::new([7; 32]);
        assert_eq!(root.child("a"), root.child("a"));
        assert_ne!(root.child("a"), root.child("b"));
        assert_ne!(root.child("a"), Seed::new([8; 32]).child("a"));
        assert_ne!(root.child("a").bytes(), [0; 32]);
    }
}
