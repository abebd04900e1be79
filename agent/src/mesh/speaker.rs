//! What this region says about itself: builds, signs and publishes its state, and supervises
//! chitchat, which is where the region's generation shows.
//!
//! The only writer of the region's own card. A card's sequence number is the version of the card's
//! key in chitchat, always: that is how a peer's guard knows that a version is genuine.

use super::bucket::Bucket;
use super::message::CARD_KEY;
use super::published::{self, Built};
use super::roster::Held;
use super::{Mesh, card, gossip, link};
use crate::marks::{bug, sometimes};
use bytes::Bytes;
use chitchat::ChitchatHandle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tradewind_protocol::RegionState;
use tradewind_protocol::api::Severity;
use tradewind_protocol::wire::{Announcement, Card, Kind, Published, Pushed, Version};

/// New lives at once and in the long run: as many as peers accept (see the roster).
const LIVES_BURST: u32 = 8;
const LIVES_PER_SECOND: f64 = 0.1;
/// How long to wait when there were too many: what a new life costs.
const LIFE_PAUSE: Duration = Duration::from_secs(10);

/// What is sent to peers.
pub(super) struct Spoken {
    pub(super) card: Card,
    /// The whole push, made once for all peers that speak a version. None before the first state.
    pub(super) pushes: BTreeMap<Version, Bytes>,
}

impl Spoken {
    /// The push, as `version` has it.
    pub(super) fn push(&self, version: Version) -> Option<&Bytes> {
        self.pushes.get(&version)
    }
}

/// The first card of a life, before any state.
pub(super) fn first_card(mesh: &super::Blank, generation: u64) -> Card {
    let announcement = Announcement {
        cluster: mesh.cluster.clone(),
        region: mesh.identity.region.clone(),
        generation,
        sequence: 1,
        address: mesh.address,
        issued_at: mesh.clock.now(),
        body_hash: card::hash(&[]),
        body_bytes: 0,
    };
    card::sign(&mesh.identity, announcement)
}

/// The task's state.
pub(super) struct Speaker {
    mesh: Arc<Mesh>,
    states: watch::Receiver<Option<RegionState>>,
    exceeded: watch::Receiver<Option<u64>>,
    budget: usize,
    chitchat: Option<Arc<ChitchatHandle>>,
    lives: Bucket,
    /// When chitchat must be started again, under the next generation.
    restart_at: Option<Instant>,
}

impl Speaker {
    pub(super) fn new(mesh: Arc<Mesh>, states: watch::Receiver<Option<RegionState>>, budget: usize) -> Self {
        let exceeded = mesh.exceeded.subscribe();
        let lives = Bucket::new(LIVES_BURST, LIVES_PER_SECOND, Instant::now());
        Self { mesh, states, exceeded, budget, chitchat: None, lives, restart_at: None }
    }

    /// Starts chitchat for the first time, with the card that the mesh was made with.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let card = self.mesh.core().own.card.clone();
        self.chitchat = Some(gossip::start(&self.mesh, &card).await?);
        Ok(())
    }

    /// Publishes until the mesh closes.
    pub(super) async fn run(mut self) {
        let mesh = self.mesh.clone();
        loop {
            let chitchat = self.chitchat.clone();
            let ended = async {
                match &chitchat {
                    Some(handle) => handle.termination_watcher().await,
                    None => std::future::pending().await,
                }
            };
            let restart_at = self.restart_at;
            let restart = async {
                match restart_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = mesh.closed() => return,
                result = ended => self.on_ended(result),
                _ = restart => self.begin_life().await,
                Ok(()) = self.exceeded.changed() => self.on_exceeded(),
                changed = self.states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.publish().await;
                }
            }
        }
    }

    fn on_ended(&mut self, result: anyhow::Result<()>) {
        let reason = result.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
        self.chitchat = None;
        self.mesh.counters.chitchat_restarts.bump();
        let text = format!("gossip ended ({reason}) and is started again under a new generation");
        self.mesh.events.note(Severity::Warning, "mesh.gossip_restarted", text);
        self.schedule_life();
    }

    /// Peers hold a card of this region that this life has not signed: its agent has forgotten a
    /// former life, and goes beyond it.
    fn on_exceeded(&mut self) {
        let Some(generation) = *self.exceeded.borrow_and_update() else { return };
        let own = self.generation();
        sometimes!("mesh.generation-exceeded");
        if generation < own || self.restart_at.is_some() || bug!("former-generation-ignored") {
            return;
        }
        let text = format!(
            "peers know generation {generation} of this region, this agent started as {own}: it lost its data directory, or a second \
             agent runs with this region's certificate; continuing beyond it"
        );
        self.mesh.events.note(Severity::Warning, "mesh.generation_raised", text);
        self.schedule_life();
    }

    fn schedule_life(&mut self) {
        let now = Instant::now();
        self.restart_at = Some(if self.lives.try_take(now) { now } else { now + LIFE_PAUSE });
    }

    fn generation(&self) -> u64 {
        self.mesh.core().own.card.announcement.generation
    }

    /// Continues under a higher generation, with the state that was published last.
    async fn begin_life(&mut self) {
        self.restart_at = None;
        let exceeded = self.exceeded.borrow_and_update().unwrap_or(0);
        // A generation that cannot be exceeded is reached in no honest way; the life stays as it is.
        let Some(generation) = self.generation().max(exceeded).checked_add(1) else { return };
        let (last, held) = {
            let core = self.mesh.core();
            (core.own.card.announcement.clone(), core.own_held.clone())
        };
        let announcement = Announcement { generation, sequence: 1, issued_at: self.mesh.clock.now(), ..last };
        let card = self.sign(announcement, held.map(|held| (held.published.body.clone(), held.state)));
        match gossip::start(&self.mesh, &card).await {
            Ok(handle) => self.chitchat = Some(handle),
            Err(error) => {
                tracing::error!(%error, "gossip not started");
                self.chitchat = None;
                self.restart_at = Some(Instant::now() + LIFE_PAUSE);
            }
        }
    }

    /// Publishes the newest state.
    async fn publish(&mut self) {
        let Some(state) = self.states.borrow_and_update().clone() else { return };
        if state.region != self.mesh.region {
            let text = format!("a state of region {} cannot be published by {}", state.region, self.mesh.region);
            return self.mesh.events.note(Severity::Error, "mesh.state_not_published", text);
        }
        let budget = self.budget;
        let built = self.mesh.offload.run(move || published::build(state, budget)).await;
        let Built { state, body } = match built {
            Ok(built) => built,
            Err(error) => return self.mesh.events.note(Severity::Error, "mesh.state_not_published", error.to_string()),
        };
        let last = self.mesh.core().own.card.announcement.clone();
        if last.sequence > 20 && bug!("publishing-stalls") {
            return;
        }
        let announcement = Announcement {
            sequence: last.sequence + 1,
            issued_at: self.mesh.clock.now(),
            body_hash: card::hash(&body),
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            ..last
        };
        let sequence = announcement.sequence;
        let card = self.sign(announcement, Some((body, Arc::new(state))));
        let Some(handle) = self.chitchat.clone() else { return };
        let text = card::to_text(&card);
        let chitchat = handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let node = chitchat.self_node_state();
        if node.max_version().checked_add(1) == Some(sequence) {
            node.set(CARD_KEY, text);
            return;
        }
        // Peers would refuse a version that is not the card's; a new life counts from one again.
        tracing::error!(max_version = node.max_version(), sequence, "gossip and cards have come apart");
        drop(chitchat);
        self.schedule_life();
    }

    /// Signs, and makes it this region's word: first remembered here, then sent.
    fn sign(&self, announcement: Announcement, body: Option<(Vec<u8>, Arc<RegionState>)>) -> Card {
        let mesh = &self.mesh;
        let card = card::sign(&mesh.identity, announcement);
        let held = body.map(|(body, state)| {
            let published = Arc::new(Published { card: card.clone(), body });
            Held { published, state, received_at: card.announcement.issued_at }
        });
        let pushes = held.as_ref().map(|held| pushes(&held.published)).unwrap_or_default();
        let mut core = mesh.core();
        core.own.card = card.clone();
        core.own_held = held;
        drop(core);
        mesh.spoken.send_replace(Arc::new(Spoken { card: card.clone(), pushes }));
        mesh.dirty.notify_one();
        card
    }
}

/// What `published` is pushed as, for each version.
fn pushes(published: &Published) -> BTreeMap<Version, Bytes> {
    let encoded = Version::ALL.into_iter().filter_map(|version| {
        let message = match version {
            Version::V1 => link::encode(version, Kind::Push, published),
            Version::V2 => link::encode(version, Kind::Push, &Pushed::from(published.clone())),
        };
        Some((version, Bytes::from(message?)))
    });
    encoded.collect()
}
