//! chitchat over QUIC: its transport, and starting it.
//!
//! chitchat runs in one task of its own, which awaits every send; so sending never waits here, and
//! receiving takes what the connections' tasks have already judged.

use super::Mesh;
use super::frame::Packer;
use super::message::{CARD_KEY, Message, NodeDelta};
use super::refusal::Refusal;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, FailureDetectorConfig, Serializable};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tradewind_protocol::RegionId;
use tradewind_protocol::wire::{Announcement, Card};

/// Judged messages that wait for chitchat: it takes 50 us for each.
const INBOX: usize = 256;

/// chitchat's own default: eight mean intervals of silence.
const PHI_THRESHOLD: f64 = 8.0;
/// Intervals that the mean is taken over: a few minutes, so that it follows a changed network.
const SAMPLES: usize = 100;
/// How long chitchat remembers a dead node: long enough that a node which all but one think dead is
/// not brought back by that one, short enough that former lives are soon gone from every digest. The
/// roster remembers regions, and keeps dialling them, much longer.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(60);

/// A delta without a node: the mark of its end.
const EMPTY_DELTA_BYTES: usize = 1;

type Inbox = mpsc::Sender<(SocketAddr, ChitchatMessage)>;

/// The running chitchat, replaced when it is started again.
#[derive(Default)]
pub(super) struct Gossip {
    inbox: Mutex<Option<Inbox>>,
    handle: Mutex<Option<Arc<ChitchatHandle>>>,
}

impl Gossip {
    /// chitchat, unless it is being restarted.
    pub(super) fn handle(&self) -> Option<Arc<ChitchatHandle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, handle: Option<Arc<ChitchatHandle>>) {
        let old = std::mem::replace(&mut *self.handle.lock().unwrap_or_else(PoisonError::into_inner), handle);
        if let Some(old) = old {
            old.abort();
        }
    }

    /// Ends chitchat.
    pub(super) fn stop(&self) {
        self.set(None);
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Starts chitchat anew with `card`, under the card's generation.
pub(super) async fn start(mesh: &Arc<Mesh>, card: &Card) -> anyhow::Result<Arc<ChitchatHandle>> {
    mesh.gossip.stop();
    let Announcement { cluster, region, generation, address, .. } = &card.announcement;
    let interval = mesh.gossip_interval;
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(region.as_str(), *generation, *address),
        cluster_id: cluster.clone(),
        gossip_interval: interval,
        listen_addr: *address,
        // Connections, and thereby seeds, are the keeper's business.
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig::new(PHI_THRESHOLD, SAMPLES, interval * 10, interval * 2, DEAD_NODE_GRACE),
        marked_for_deletion_grace_period: DEAD_NODE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let first = vec![(CARD_KEY.to_owned(), super::card::to_text(card))];
    let handle = Arc::new(chitchat::spawn_chitchat(config, first, &QuicTransport(mesh.clone())).await?);
    mesh.gossip.set(Some(handle.clone()));
    Ok(handle)
}

/// Hands chitchat a judged message from the agent at `sender`.
pub(super) fn deliver(mesh: &Mesh, sender: SocketAddr, message: &Message) -> Result<(), Refusal> {
    let message = message.to_chitchat()?;
    let inbox = mesh.gossip.inbox.lock().unwrap_or_else(PoisonError::into_inner);
    if inbox.as_ref().is_none_or(|inbox| inbox.try_send((sender, message)).is_err()) {
        mesh.counters.messages_lost.bump();
    }
    Ok(())
}

/// Tells chitchat of a card that a push has brought, so that it is not told again by every peer that it talks to: cards are
/// most of what gossip would carry. chitchat ignores nodes that it does not know, and versions that it has.
pub(super) fn tell(mesh: &Mesh, card: &Card) {
    let Announcement { region, generation, sequence, address, .. } = &card.announcement;
    let id = ChitchatId::new(region.as_str(), *generation, *address);
    let delta = vec![NodeDelta { id, text: super::card::to_text(card), version: *sequence, from_version: 0 }];
    if let Err(reason) = deliver(mesh, *address, &Message::Ack { delta }) {
        tracing::error!(%region, %reason, "a card that was verified cannot be told to gossip");
    }
}

/// Lets chitchat talk to `region` now, instead of whenever chance picks it.
pub(super) fn ask(mesh: &Mesh, region: &RegionId) {
    let address = mesh.core().roster.get(region).map(|known| known.card.announcement.address);
    if let (Some(address), Some(handle)) = (address, mesh.gossip.handle()) {
        // Fails only when chitchat has ended, which its supervisor sees by itself.
        let _ = handle.gossip(address);
    }
}

struct QuicTransport(Arc<Mesh>);

#[async_trait]
impl Transport for QuicTransport {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (inbox, messages) = mpsc::channel(INBOX);
        self.0.gossip.inbox.lock().unwrap_or_else(PoisonError::into_inner).replace(inbox);
        Ok(Box::new(QuicSocket { mesh: self.0.clone(), messages, packer: Packer::new() }))
    }
}

struct QuicSocket {
    mesh: Arc<Mesh>,
    messages: mpsc::Receiver<(SocketAddr, ChitchatMessage)>,
    packer: Packer,
}

#[async_trait]
impl Socket for QuicSocket {
    /// Never waits, and never fails: gossip tolerates loss, a stalled gossip loop it does not.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        // Nobody waits for it, and it tells nothing: where pushes arrive, a third of all gossip.
        if matches!(&message, ChitchatMessage::Ack { delta } if delta.serialized_len() <= EMPTY_DELTA_BYTES) {
            return Ok(());
        }
        // Usually one region. Should another one claim the same address, both are told.
        let regions: Vec<RegionId> = self.mesh.core().roster.at(to).cloned().collect();
        let links: Vec<_> = regions.iter().filter_map(|region| self.mesh.pool.get(region)).collect();
        if links.is_empty() {
            self.mesh.counters.messages_lost.bump();
            return Ok(());
        }
        let frame = self.packer.pack(&message.serialize_to_vec());
        for link in links {
            link.send_gossip(&self.mesh, &frame);
        }
        Ok(())
    }

    /// Cancel-safe, as chitchat requires.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        self.messages.recv().await.ok_or_else(|| anyhow::anyhow!("the gossip transport was closed"))
    }
}
