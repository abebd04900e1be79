//! One connection with one region: what is sent on it and what is done with what arrives.
//!
//! Nothing here waits for a peer on anyone else's behalf: gossip is handed over or dropped, and each
//! connection has its own task that sends the newest state, so a slow peer only misses some.

use super::bounds::{CARDS_PER_MESSAGE, MAX_REGIONS, STREAM_TIMEOUT};
use super::bucket::Bucket;
use super::core::{Learned, Worth};
use super::pool::Entered;
use super::refusal::Refusal;
use super::speaker::Spoken;
use super::{Mesh, gossip, published, rpc, tls};
use crate::marks::{bug, sometimes};
use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use tradewind_protocol::wire::{self, Card, Envelope, Kind, Published, Pushed, Version, codec};
use tradewind_protocol::{RegionId, RegionState};

/// The agent ends, and says so.
pub(super) const CODE_GOODBYE: VarInt = VarInt::from_u32(1);
/// Another connection with the same region is in use.
pub(super) const CODE_DUPLICATE: VarInt = VarInt::from_u32(2);
/// Nothing is heard on it although much was sent: a new connection is quicker than waiting.
pub(super) const CODE_STALLED: VarInt = VarInt::from_u32(5);
/// The certificate proves no region.
const CODE_NO_REGION: VarInt = VarInt::from_u32(3);
/// The certificate proves the region of the agent that was called.
const CODE_OWN_REGION: VarInt = VarInt::from_u32(4);
/// The two ends have not agreed on a version of the wire.
const CODE_NO_VERSION: VarInt = VarInt::from_u32(6);

/// Large gossip messages under way to one peer; chitchat sends it two or three a second.
const MAX_GOSSIP_STREAMS: usize = 4;
/// Gossip messages from one peer: three times what an interval of 200 ms makes in a mesh of two.
const GOSSIP_BURST: u32 = 400;
const GOSSIP_PER_SECOND: f64 = 100.0;
/// Streams from one peer: cards, states and requests; an agent publishes once a step.
const STREAM_BURST: u32 = 100;
const STREAMS_PER_SECOND: f64 = 20.0;

/// One connection.
pub(super) struct Link {
    /// Whom the other end's certificate names.
    pub(super) region: RegionId,
    certificate: CertificateDer<'static>,
    pub(super) connection: Connection,
    /// What both ends speak on it.
    pub(super) version: Version,
    /// Where it was dialled, if this end did.
    pub(super) dialled_to: Option<SocketAddr>,
    pub(super) since: Instant,
    /// Whether it is the one that this end sends on.
    pub(super) in_use: watch::Sender<bool>,
    gossip_streams: Arc<Semaphore>,
    /// Cards to tell the other end. Shared with other links, so a full queue costs pointers.
    forwards: mpsc::Sender<Arc<Card>>,
    /// Since when a state waits to be sent and acknowledged. One at a time is watched.
    unacknowledged_since: Mutex<Option<Instant>>,
    limits: Mutex<Limits>,
}

struct Limits {
    gossip: Bucket,
    streams: Bucket,
}

impl Link {
    /// Whether this end made it.
    pub(super) fn is_dialled(&self) -> bool {
        self.dialled_to.is_some()
    }

    /// Since when the other end has not acknowledged a state.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        *self.unacknowledged_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_unacknowledged(&self, since: Option<Instant>) {
        *self.unacknowledged_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Tells the other end of a region.
    pub(super) fn forward(&self, mesh: &Mesh, card: &Arc<Card>) {
        if self.forwards.try_send(card.clone()).is_err() {
            mesh.counters.messages_lost.bump();
        }
    }

    /// Sends a gossip frame without waiting: as a datagram if it fits, else on a stream.
    pub(super) fn send_gossip(&self, mesh: &Arc<Mesh>, frame: &[u8]) {
        let counters = &mesh.counters;
        let message = Bytes::from(Envelope { kind: Kind::Gossip, body: frame }.to_bytes(self.version));
        if self.connection.max_datagram_size().is_some_and(|max| message.len() <= max) {
            let bytes = message.len() as u64;
            match self.connection.send_datagram(message) {
                Ok(()) => {
                    counters.datagrams_sent.bump();
                    counters.datagram_bytes_sent.add(bytes);
                }
                Err(_) => counters.messages_lost.bump(),
            }
            return;
        }
        sometimes!("mesh.gossip-on-a-stream");
        let Ok(permit) = self.gossip_streams.clone().try_acquire_owned() else {
            return counters.messages_lost.bump();
        };
        let (mesh, connection) = (mesh.clone(), self.connection.clone());
        tokio::spawn(async move {
            let _permit = permit;
            send_on_stream(&mesh, &connection, &message).await;
        });
    }

    fn may(&self, pick: impl Fn(&mut Limits) -> &mut Bucket) -> Result<(), Refusal> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if pick(&mut limits).try_take(Instant::now()) { Ok(()) } else { Err(Refusal::Rate) }
    }

    /// Whether the other end may open one more stream now.
    pub(super) fn may_open_stream(&self) -> Result<(), Refusal> {
        self.may(|limits| &mut limits.streams)
    }
}

/// Serves a new connection until it ends.
pub(super) async fn run(mesh: Arc<Mesh>, connection: Connection, dialled_to: Option<SocketAddr>) {
    let from = connection.remote_address();
    let (region, certificate) = match tls::peer(&connection) {
        Ok((region, _)) if region == mesh.region => {
            // Seeds often list everyone; whoever connects from elsewhere is a second agent.
            match dialled_to {
                Some(address) => mesh.pool.on_own(address),
                None if from == mesh.address => {}
                None => mesh.refuse(&from, Refusal::OwnRegion),
            }
            return connection.close(CODE_OWN_REGION, b"this is your own region's agent");
        }
        Ok(peer) => peer,
        Err(error) => {
            tracing::debug!(%from, %error, "no region in the peer's certificate");
            mesh.refuse(&from, Refusal::Certificate);
            return connection.close(CODE_NO_REGION, b"the certificate names no region");
        }
    };
    // rustls ends a handshake in which the two ends share no version.
    let Some(version) = tls::version(&connection) else { return connection.close(CODE_NO_VERSION, b"no wire version was agreed on") };
    let now = Instant::now();
    let (forwards, to_forward) = mpsc::channel(MAX_REGIONS);
    let limits =
        Limits { gossip: Bucket::new(GOSSIP_BURST, GOSSIP_PER_SECOND, now), streams: Bucket::new(STREAM_BURST, STREAMS_PER_SECOND, now) };
    let link = Arc::new(Link {
        region,
        certificate,
        connection,
        version,
        dialled_to,
        since: now,
        in_use: watch::Sender::new(false),
        gossip_streams: Arc::new(Semaphore::new(MAX_GOSSIP_STREAMS)),
        forwards,
        unacknowledged_since: Mutex::new(None),
        limits: Mutex::new(limits),
    });
    mesh.core().contacts.on_connected(&link.region, now);
    let entered = mesh.pool.enter(&mesh.region, &link);
    if let Entered::Crossed { kept } = entered {
        sometimes!("mesh.connections-crossed");
        mesh.counters.crossed_dials.bump();
        if let Some(kept) = kept {
            // Should the other end have lost it, this brings it to say so.
            let card = mesh.core().own.card.clone();
            kept.forward(&mesh, &Arc::new(card));
        }
    }
    tracing::debug!(region = %link.region, %from, dialled = link.is_dialled(), version = link.version.number(), "connected");
    mesh.dirty.notify_one();
    let write = write(&mesh, &link, to_forward);
    tokio::join!(biased; read_datagrams(&mesh, &link), read_streams(&mesh, &link), rpc::serve(&mesh, &link), write);
    let reason = link.connection.closed().await;
    tracing::debug!(region = %link.region, %reason, "disconnected");
    mesh.pool.leave(&link, Instant::now());
    if matches!(&reason, ConnectionError::ApplicationClosed(close) if close.error_code == CODE_GOODBYE) {
        mesh.core().contacts.on_goodbye(&link.region);
    }
    mesh.dirty.notify_one();
}

/// Once the connection is in use, sends what the other end should know: first all cards, then this region's state whenever it
/// changes, and cards of regions that turn up.
async fn write(mesh: &Arc<Mesh>, link: &Link, mut to_forward: mpsc::Receiver<Arc<Card>>) {
    let mut in_use = link.in_use.subscribe();
    tokio::select! {
        biased;
        _ = link.connection.closed() => return,
        _ = in_use.wait_for(|in_use| *in_use) => {}
    }
    let mut spoken = mesh.spoken.subscribe();
    let cards = mesh.core().cards();
    for batch in cards.chunks(CARDS_PER_MESSAGE) {
        send_cards(mesh, link, batch).await;
    }
    spoken.mark_changed();
    let mut watched: Option<SendStream> = None;
    loop {
        let acknowledged = async {
            match &watched {
                Some(stream) => drop(stream.stopped().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = link.connection.closed() => return,
            () = acknowledged => {
                watched = None;
                link.set_unacknowledged(None);
            }
            changed = spoken.changed() => {
                if changed.is_err() {
                    return;
                }
                let newest = spoken.borrow_and_update().clone();
                if watched.is_some() {
                    push(mesh, link, &newest).await;
                } else {
                    link.set_unacknowledged(Some(Instant::now()));
                    watched = push(mesh, link, &newest).await;
                    if watched.is_none() {
                        link.set_unacknowledged(None);
                    }
                }
            }
            card = to_forward.recv() => {
                let Some(card) = card else { return };
                let mut batch = vec![Card::clone(&card)];
                while batch.len() < CARDS_PER_MESSAGE
                    && let Ok(card) = to_forward.try_recv()
                {
                    batch.push(Card::clone(&card));
                }
                send_cards(mesh, link, &batch).await;
            }
        }
    }
}

async fn send_cards(mesh: &Mesh, link: &Link, cards: &[Card]) {
    if let Some(message) = encode(link.version, Kind::Cards, &cards) {
        send_on_stream(mesh, &link.connection, &message).await;
    }
}

/// Sends a state, and returns its stream. A region that has published nothing yet sends its card.
async fn push(mesh: &Mesh, link: &Link, spoken: &Spoken) -> Option<SendStream> {
    let Some(message) = spoken.push(link.version) else {
        send_cards(mesh, link, std::slice::from_ref(&spoken.card)).await;
        return None;
    };
    if bug!("states-not-pushed") {
        return None;
    }
    // What is not sent in time, the peer will fetch.
    let sent = send_on_stream(mesh, &link.connection, message).await;
    if sent.is_some() {
        mesh.counters.pushes_sent.bump();
    }
    sent
}

/// Sends `message` on a stream of its own. Returns the stream if it was handed to QUIC as a whole.
async fn send_on_stream(mesh: &Mesh, connection: &Connection, message: &[u8]) -> Option<SendStream> {
    let send = async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(message).await.ok()?;
        stream.finish().ok()?;
        Some(stream)
    };
    let sent = timeout(STREAM_TIMEOUT, send).await.ok().flatten();
    if sent.is_some() {
        mesh.counters.streams_sent.bump();
        mesh.counters.stream_bytes_sent.add(message.len() as u64);
    } else {
        mesh.counters.messages_lost.bump();
    }
    sent
}

async fn read_datagrams(mesh: &Arc<Mesh>, link: &Arc<Link>) {
    while let Ok(datagram) = link.connection.read_datagram().await {
        mesh.counters.datagrams_received.bump();
        mesh.counters.datagram_bytes_received.add(datagram.len() as u64);
        let taken = match Envelope::parse(&datagram, link.version) {
            Ok(Envelope { kind: Kind::Gossip, body }) => on_gossip(mesh, link, body),
            Ok(_) => Err(Refusal::Misplaced),
            Err(_) => Err(Refusal::Malformed),
        };
        taken.unwrap_or_else(|reason| mesh.refuse(&link.region, reason));
    }
}

async fn read_streams(mesh: &Arc<Mesh>, link: &Arc<Link>) {
    // As many tasks at once as the transport allows streams.
    while let Ok(stream) = link.connection.accept_uni().await {
        if let Err(reason) = link.may_open_stream() {
            mesh.refuse(&link.region, reason);
            continue;
        }
        let (mesh, link) = (mesh.clone(), link.clone());
        tokio::spawn(async move {
            if let Err(reason) = read_stream(&mesh, &link, stream).await {
                mesh.refuse(&link.region, reason);
            }
        });
    }
}

async fn read_stream(mesh: &Arc<Mesh>, link: &Arc<Link>, mut stream: RecvStream) -> Result<(), Refusal> {
    let message = match timeout(STREAM_TIMEOUT, stream.read_to_end(wire::MAX_MESSAGE_BYTES)).await {
        Ok(Ok(message)) => message,
        Ok(Err(quinn::ReadToEndError::TooLong)) => return Err(Refusal::Oversized),
        Ok(Err(quinn::ReadToEndError::Read(_))) | Err(_) => {
            mesh.counters.messages_lost.bump();
            return Ok(());
        }
    };
    mesh.counters.streams_received.bump();
    mesh.counters.stream_bytes_received.add(message.len() as u64);
    let Envelope { kind, body } = Envelope::parse(&message, link.version).map_err(|_| Refusal::Malformed)?;
    match kind {
        Kind::Gossip => on_gossip(mesh, link, body),
        Kind::Cards => on_cards(mesh, link, body),
        Kind::Push => on_push(mesh, link, body).await,
        Kind::Request | Kind::Response => Err(Refusal::Misplaced),
    }
}

fn on_gossip(mesh: &Arc<Mesh>, link: &Link, frame: &[u8]) -> Result<(), Refusal> {
    link.may(|limits| &mut limits.gossip)?;
    let now = mesh.now();
    let mut core = mesh.core();
    let admitted = core.on_gossip(&link.region, frame, now)?;
    core.contacts.on_heard(&link.region, now.instant);
    let Some(sender) = core.roster.get(&link.region).map(|known| known.card.announcement.address) else {
        return Err(Refusal::Unknown);
    };
    drop(core);
    for reason in admitted.left_out {
        sometimes!("mesh.gossip-left-out");
        mesh.refuse(&link.region, reason);
    }
    mesh.on_exceeded(admitted.exceeded_by);
    if !admitted.news.is_empty() {
        mesh.dirty.notify_one();
    }
    gossip::deliver(mesh, sender, &admitted.message)
}

fn on_cards(mesh: &Arc<Mesh>, link: &Link, body: &[u8]) -> Result<(), Refusal> {
    let cards: Vec<Card> = codec::decode(body).map_err(|_| Refusal::Malformed)?;
    if cards.len() > wire::MAX_CARDS {
        return Err(Refusal::Oversized);
    }
    let now = mesh.now();
    let mut core = mesh.core();
    let learned = core.on_cards(cards, now);
    core.contacts.on_heard(&link.region, now.instant);
    drop(core);
    on_learned(mesh, link, learned);
    gossip::ask(mesh, &link.region);
    Ok(())
}

async fn on_push(mesh: &Arc<Mesh>, link: &Link, body: &[u8]) -> Result<(), Refusal> {
    let published: Published = match link.version {
        Version::V1 => codec::decode(body),
        Version::V2 => codec::decode::<Pushed>(body).map(|pushed| pushed.into_published(link.certificate.to_vec())),
    }
    .map_err(|_| Refusal::Malformed)?;
    let now = mesh.now();
    mesh.core().contacts.on_heard(&link.region, now.instant);
    if take_in(mesh, link, &link.region, published).await? {
        mesh.counters.pushes_received.bump();
    }
    Ok(())
}

/// Judges and keeps a state that came over `link` and must be `owner`'s. Returns whether it is news.
pub(super) async fn take_in(mesh: &Arc<Mesh>, link: &Link, owner: &RegionId, published: Published) -> Result<bool, Refusal> {
    let weighed = mesh.core().weigh(owner, &published, mesh.now())?;
    let (worth, learned) = weighed;
    if learned.news {
        gossip::tell(mesh, &published.card);
    }
    on_learned(mesh, link, learned);
    match worth {
        Worth::Stale => {
            mesh.counters.stale.bump();
            return Ok(false);
        }
        Worth::Open => {}
    }
    let (published, state) = open(mesh, published).await?;
    let now = mesh.now();
    let mut core = mesh.core();
    let news = core.hold(published, state, now)?;
    // Shown at once and alone: a look at all regions for each state of each would be the square of the mesh in work. Under the
    // lock, or a look that began before could show what was held before.
    if news && !mesh.view.send_if_modified(|view| core.show(owner, Arc::make_mut(view))) {
        mesh.dirty.notify_one();
    }
    Ok(news)
}

/// The state in `published`, whose hash was found right.
async fn open(mesh: &Mesh, published: Published) -> Result<(Published, RegionState), Refusal> {
    let hash = published.card.announcement.body_hash;
    if let Some(state) = mesh.opened.as_ref().and_then(|opened| opened.get(&hash)) {
        return Ok((published, state));
    }
    let opened = mesh.offload.run(move || published::open(&published.body).map(|state| (published, state))).await?;
    if let Some(memory) = &mesh.opened {
        memory.keep(&hash, &opened.1);
    }
    Ok(opened)
}

fn on_learned(mesh: &Mesh, link: &Link, learned: Learned) {
    mesh.counters.stale.add(learned.stale);
    for reason in learned.refused {
        mesh.refuse(&link.region, reason);
    }
    mesh.on_exceeded(learned.exceeded_by);
    // A newer card of a known life changes nothing until its state comes, or is due to be fetched, which a tick sees.
    if !learned.lives.is_empty() {
        mesh.dirty.notify_one();
    }
    for card in learned.lives {
        mesh.spread(card, &link.region);
    }
}

/// A whole message; `None` only for what is larger than a message may be.
pub(super) fn encode<T: serde::Serialize>(version: Version, kind: Kind, value: &T) -> Option<Vec<u8>> {
    let body = codec::encode(value).inspect_err(|error| tracing::error!(?kind, %error, "message not sent")).ok()?;
    Some(Envelope { kind, body: &body }.to_bytes(version))
}
