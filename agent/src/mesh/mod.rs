//! The mesh: QUIC between agents, gossip over it, each region's signed state, and the view of all.
//!
//! One QUIC endpoint per agent both dials and listens, with mutual TLS; the certificate says whose
//! agent it is. Every agent keeps a connection with every other one. What a region publishes is a
//! small signed [card](tradewind_protocol::wire::Card) and a body; a change is pushed straight to
//! every connected peer, chitchat carries the cards and shows what was missed, and what was missed
//! is fetched.
//!
//! Invariant: nothing that a peer sends changes what is known of a region unless that region has
//! signed it. Peers relay, they do not vouch.
//!
//! Where to read: `core` is all that is known, and pure, with `roster`, `guard`, `card` and
//! `liveness` inside; `pool` and `link` are the connections; `speaker` says what this region says;
//! `keeper` keeps house; `gossip` is chitchat's transport.

mod bounds;
mod bucket;
mod card;
mod congestion;
mod core;
mod frame;
mod gossip;
mod guard;
mod identity;
mod keeper;
mod link;
mod liveness;
mod message;
mod pool;
mod published;
mod refusal;
mod roster;
mod rpc;
mod speaker;
mod stats;
mod tls;
mod view;
mod zip;

#[cfg(test)]
mod tests;

pub use identity::IdentityError;
pub use stats::MeshStats;
pub use tls::{CertificateError, TlsError};
pub use view::{Connected, MeshView, RegionEntry};

use self::core::{Core, Now};
use crate::config::MeshConfig;
use crate::env::{Clock, Env, Offload, Opened};
use crate::events::EventLog;
use async_trait::async_trait;
use bucket::Bucket;
use card::Verifier;
use guard::Own;
use identity::Identity;
use pool::Pool;
use quinn::Endpoint;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use refusal::Refusal;
use speaker::{Speaker, Spoken};
use stats::Counters;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tradewind_protocol::api::Severity;
use tradewind_protocol::wire::{Card, MAX_CLUSTER_BYTES, Request, Response};
use tradewind_protocol::{RegionId, RegionState, Timestamp};

/// How long a peer that connects may take to prove itself.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the goodbyes may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Refusals of one kind that are noted for the operator: three at once, then one a minute.
const NOTED_REFUSALS: u32 = 3;
const NOTED_REFUSALS_PER_SECOND: f64 = 1.0 / 60.0;
/// Peers that a region is told to which turned up at second hand. It is told to all at first hand.
const SECOND_HAND: usize = 3;

/// Answers what peers ask of this region.
#[async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// Answers `request` of the region `from`, which its certificate proves. `Fetch` never comes here.
    async fn handle(&self, from: &RegionId, request: Request) -> Response;
}

/// Why the mesh is not started, or a request not answered. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The certificate, key or authority is not usable. Mend the file.
    #[error("this agent has no identity in the mesh")]
    Identity(#[from] IdentityError),
    /// The certificate, key or authority is not usable for TLS.
    #[error("this agent cannot speak TLS")]
    Tls(#[from] TlsError),
    /// The mesh's name is empty or too long.
    #[error("cluster {0:?} must have 1 to {MAX_CLUSTER_BYTES} bytes")]
    Cluster(String),
    /// The socket cannot be bound. Helps once the address is free.
    #[error("cannot listen for peers on udp {address}: free the port, or set mesh.listen to another one")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others could not reach this agent.
    #[error("{0} is no address that peers can reach: set mesh.advertise to one")]
    Unreachable(SocketAddr),
    /// chitchat did not start.
    #[error("gossip did not start: {0}")]
    Gossip(String),
    /// There is no connection with the region. Helps once there is one.
    #[error("region {region} is not connected")]
    NotConnected {
        /// Which.
        region: RegionId,
    },
    /// The region did not answer in time. It may have done what was asked.
    #[error("region {region} did not answer within {after:?}")]
    Timeout {
        /// Which.
        region: RegionId,
        /// In which time.
        after: Duration,
    },
    /// The connection ended, or the region refused the request's stream. It may have done what was
    /// asked.
    #[error("region {region} did not answer: {reason}")]
    Lost {
        /// Which.
        region: RegionId,
        /// Why.
        reason: String,
    },
    /// The answer cannot be read. Trying again does not help.
    #[error("region {region} answered with {what}")]
    BadAnswer {
        /// Which.
        region: RegionId,
        /// What came.
        what: &'static str,
    },
}

/// The running mesh. Clones share it; when the last one is dropped, the mesh ends.
/// [`shutdown`](Self::shutdown) also waits until the goodbyes are sent.
#[derive(Clone)]
pub struct MeshHandle {
    mesh: Arc<Mesh>,
    states: watch::Sender<Option<RegionState>>,
    _alive: Arc<Alive>,
}

/// Joins the mesh as `region`, under `generation`, which must be higher than in any former life
/// (the mesh raises it if a peer proves that it is not). Peers may ask `service`.
pub async fn start(
    env: &Env,
    region: RegionId,
    cluster: String,
    config: &MeshConfig,
    generation: u64,
    service: Arc<dyn PeerService>,
    events: EventLog,
) -> Result<MeshHandle, MeshError> {
    if cluster.is_empty() || cluster.len() > MAX_CLUSTER_BYTES {
        return Err(MeshError::Cluster(cluster));
    }
    let identity = Identity::load(&config.tls, &region, env.clock.now())?;
    let seed = env.seed.child("mesh");
    let endpoint = open_endpoint(env, &identity, config, &seed).await?;
    let bind_error = |source| MeshError::Bind { address: config.listen, source };
    let address = config.advertise.map_or_else(|| endpoint.local_addr().map_err(bind_error), Ok)?;
    if !card::is_reachable(address) {
        return Err(MeshError::Unreachable(address));
    }
    let verifier = Verifier::new(identity.authority.clone(), cluster.clone(), &env.crypto);
    let blank = Blank { cluster, identity, address, clock: env.clock.clone() };
    let card = speaker::first_card(&blank, generation);
    let Blank { cluster, identity, .. } = blank;
    let own = Own { region: region.clone(), cluster, card: card.clone() };
    let view = MeshView { this: region.clone(), regions: BTreeMap::new() };

    let mesh = Arc::new(Mesh {
        region,
        address,
        gossip_interval: config.gossip_interval,
        identity,
        endpoint,
        clock: env.clock.clone(),
        offload: env.offload,
        opened: env.opened.clone(),
        core: Mutex::new(Core::new(own, verifier, config.gossip_interval)),
        pool: Arc::default(),
        gossip: gossip::Gossip::default(),
        counters: Counters::default(),
        events,
        service,
        chance: Mutex::new(StdRng::from_seed(seed.child("choices").bytes())),
        noted: Mutex::default(),
        spoken: watch::Sender::new(Arc::new(Spoken { card, pushes: BTreeMap::new() })),
        exceeded: watch::Sender::new(None),
        seeds: watch::Sender::new(BTreeSet::new()),
        view: watch::Sender::new(Arc::new(view)),
        dirty: Notify::new(),
        closing: watch::Sender::new(false),
    });
    let (states, wanted) = watch::channel(None);
    let mut speaker = Speaker::new(mesh.clone(), wanted, config.state_budget_bytes);
    speaker.start().await.map_err(|error| MeshError::Gossip(error.to_string()))?;
    tokio::spawn(accept(mesh.clone()));
    tokio::spawn(speaker.run());
    tokio::spawn(keeper::resolve_seeds(mesh.clone(), config.seeds.clone()));
    tokio::spawn(keeper::run(mesh.clone()));
    Ok(MeshHandle { _alive: Arc::new(Alive(mesh.clone())), mesh, states })
}

/// The endpoint of `identity`, for both roles.
async fn open_endpoint(env: &Env, identity: &Identity, config: &MeshConfig, seed: &crate::env::Seed) -> Result<Endpoint, MeshError> {
    let quic = tls::quic_config(identity, env, seed, config.wire_version)?;
    let bind_error = |source| MeshError::Bind { address: config.listen, source };
    let socket = env.network.bind_udp(config.listen).await.map_err(bind_error)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut endpoint = Endpoint::new_with_abstract_socket(quic.endpoint, Some(quic.server), socket, runtime).map_err(bind_error)?;
    endpoint.set_default_client_config(quic.client);
    Ok(endpoint)
}

impl MeshHandle {
    /// Publishes this region's state. Never blocks; of several in a row the last one counts.
    pub fn publish(&self, state: RegionState) {
        self.states.send_replace(Some(state));
    }

    /// The mesh as it is seen now.
    pub fn view(&self) -> Arc<MeshView> {
        self.mesh.view.borrow().clone()
    }

    /// Changes whenever the view does, but for round trips.
    pub fn watch(&self) -> watch::Receiver<Arc<MeshView>> {
        self.mesh.view.subscribe()
    }

    /// Asks `region`; this region's own service if it is this one.
    pub async fn request(&self, region: &RegionId, request: Request) -> Result<Response, MeshError> {
        if *region == self.mesh.region {
            return Ok(rpc::respond(&self.mesh, region, request).await);
        }
        let link = self.mesh.pool.get(region).ok_or_else(|| MeshError::NotConnected { region: region.clone() })?;
        rpc::ask(&link, &request).await
    }

    /// Dials `region` now if it is not connected, whatever was tried in vain before.
    pub(crate) fn hurry(&self, region: &RegionId) {
        if self.mesh.pool.get(region).is_none()
            && let Some(entry) = self.view().regions.get(region)
        {
            self.mesh.pool.hurry(entry.address);
            self.mesh.dirty.notify_one();
        }
    }

    /// What was counted.
    pub fn stats(&self) -> MeshStats {
        let mut stats = self.mesh.counters.snapshot();
        self.mesh.pool.count(&mut stats);
        stats
    }

    /// Under which generation the agent takes part now. It may rise: keep the highest.
    pub fn generation(&self) -> u64 {
        self.mesh.core().own.card.announcement.generation
    }

    /// Until when the agent's certificate is valid: its peers refuse it then.
    pub fn certificate_ends(&self) -> Option<Timestamp> {
        self.mesh.identity.ends
    }

    /// Where the agent's endpoint is reached.
    pub fn local_addr(&self) -> SocketAddr {
        self.mesh.address
    }

    /// Leaves the mesh: says goodbye on every connection, and waits until that is sent.
    pub async fn shutdown(&self) {
        self.mesh.close();
        // A peer that does not hear it notices by silence.
        let _ = timeout(GOODBYE_TIMEOUT, self.mesh.endpoint.wait_idle()).await;
    }
}

/// Ends the mesh with the last handle.
struct Alive(Arc<Mesh>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What is needed to sign before there is a mesh.
struct Blank {
    cluster: String,
    identity: Identity,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
}

/// What all tasks share.
struct Mesh {
    region: RegionId,
    address: SocketAddr,
    gossip_interval: Duration,
    identity: Identity,
    endpoint: Endpoint,
    clock: Arc<dyn Clock>,
    offload: Offload,
    opened: Option<Arc<dyn Opened>>,
    core: Mutex<Core>,
    pool: Arc<Pool>,
    gossip: gossip::Gossip,
    counters: Counters,
    events: EventLog,
    service: Arc<dyn PeerService>,
    chance: Mutex<StdRng>,
    /// How often each kind of refusal may still be noted.
    noted: Mutex<BTreeMap<&'static str, Bucket>>,
    /// This region's newest word, which every connection sends.
    spoken: watch::Sender<Arc<Spoken>>,
    /// The highest generation of a former life that a peer has proved.
    exceeded: watch::Sender<Option<u64>>,
    seeds: watch::Sender<BTreeSet<SocketAddr>>,
    view: watch::Sender<Arc<MeshView>>,
    /// The keeper should look.
    dirty: Notify,
    closing: watch::Sender<bool>,
}

impl Mesh {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { instant: Instant::now(), wall: self.clock.now() }
    }

    /// Counts what `from` sent in vain, and notes it unless honest peers do the same.
    fn refuse(&self, from: &dyn Display, reason: Refusal) {
        self.counters.refuse(reason);
        if reason.is_benign() {
            return tracing::debug!(%from, %reason, "refused");
        }
        let now = Instant::now();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = noted.entry(reason.name()).or_insert_with(|| Bucket::new(NOTED_REFUSALS, NOTED_REFUSALS_PER_SECOND, now));
        if bucket.try_take(now) {
            drop(noted);
            self.events.note(Severity::Warning, "mesh.peer_refused", format!("refused from {from}: {reason}"));
        }
    }

    fn on_exceeded(&self, generation: Option<u64>) {
        self.exceeded.send_if_modified(|highest| {
            let news = generation > *highest;
            *highest = generation.max(*highest);
            news
        });
    }

    /// Tells others of a region's new life that `from` told of: all of them if that is the region
    /// itself, else a few. So a newcomer costs one message a peer, and is still heard of where only
    /// some can reach it.
    fn spread(&self, card: Card, from: &RegionId) {
        let first_hand = card.announcement.region == *from;
        let mut links = self.pool.all();
        links.retain(|link| link.region != *from && link.region != card.announcement.region);
        if !first_hand {
            let mut chance = self.chance();
            while links.len() > SECOND_HAND {
                let one = chance.random_range(0..links.len());
                links.swap_remove(one);
            }
        }
        let card = Arc::new(card);
        for link in links {
            link.forward(self, &card);
        }
    }

    /// Completes when the mesh closes.
    async fn closed(&self) {
        // The sender is a field of this very value.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    fn close(&self) {
        self.closing.send_replace(true);
        self.gossip.stop();
        self.endpoint.close(link::CODE_GOODBYE, b"goodbye");
    }
}

/// Takes in connections until the endpoint closes.
async fn accept(mesh: Arc<Mesh>) {
    // Handshakes that wait are bounded by the endpoint.
    while let Some(incoming) = mesh.endpoint.accept().await {
        let mesh = mesh.clone();
        tokio::spawn(async move {
            let from = incoming.remote_address();
            match timeout(HANDSHAKE_TIMEOUT, incoming).await {
                Ok(Ok(connection)) => link::run(mesh, connection, None).await,
                Ok(Err(error)) => {
                    tracing::debug!(%from, %error, "handshake failed");
                    if tls::is_refusal(&error) {
                        mesh.refuse(&from, Refusal::Certificate);
                    }
                }
                Err(_) => tracing::debug!(%from, "handshake not finished in {HANDSHAKE_TIMEOUT:?}"),
            }
        });
    }
}
