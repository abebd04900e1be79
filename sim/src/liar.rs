//! A peer that lies: it holds a valid certificate of a region of its own, and sends whatever could
//! do harm.
//!
//! It knows the wire format and keeps what it hears, so its lies are near the truth: cards of other
//! regions under its own signature, honest messages again later or with a bit turned, bodies that
//! are too long or not what was announced, other wire versions, noise.

use crate::agents::MESH_PORT;
use crate::client::Book;
use crate::clock::virtual_now;
use crate::world::Program;
use anyhow::Context as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, EndpointConfig};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use ring::signature::Ed25519KeyPair;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tradewind_agent::env::{Clock, Env};
use tradewind_protocol::RegionId;
use tradewind_protocol::pki::{Issued, MESH_NAME};
use tradewind_protocol::wire::{
    Announcement, Card, Envelope, Kind, MAX_BODY_BYTES, MAX_MESSAGE_BYTES, Published, Pushed, Request, Version, codec,
};

/// The region that the liar's certificate names. It publishes nothing that anyone needs.
pub(crate) const NAME: &str = "liar";

/// How often it lies to each agent: often enough that a dozen seconds hold every lie, below what
/// the agents admit from one peer.
const LIE_EVERY: Duration = Duration::from_millis(200);

/// How many lies there are.
const LIES: u32 = 17;

/// How long it waits for a connection, or for a stream to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// Honest messages that it keeps: some rounds of all agents'.
const MAX_KEPT: usize = 200;

/// What the liar needs to be believed a peer.
pub(crate) struct Papers {
    pub(crate) ca_pem: String,
    pub(crate) own: Issued,
    pub(crate) cluster: String,
    pub(crate) victims: BTreeMap<RegionId, IpAddr>,
    pub(crate) region: RegionId,
}

/// The liar's program: lies while `lying` is set.
pub(crate) fn program(papers: Papers, lying: Rc<Cell<bool>>, book: Rc<RefCell<Book>>) -> Program {
    let papers = Rc::new(papers);
    Rc::new(move |env| {
        let (papers, lying, book) = (papers.clone(), lying.clone(), book.clone());
        Box::pin(async move { Liar::new(papers, env, book).await?.run(&lying).await })
    })
}

/// A connection with an agent, and what is spoken on it.
#[derive(Clone)]
struct Line {
    connection: Connection,
    version: Version,
}

struct Liar {
    papers: Rc<Papers>,
    key: Ed25519KeyPair,
    certificate: Vec<u8>,
    endpoint: Endpoint,
    /// How it connects as one of each version.
    roles: Vec<(Version, quinn::ClientConfig)>,
    clock: Arc<dyn Clock>,
    rng: StdRng,
    to_tell: Vec<u32>,
    sequence: u64,
    kept: Rc<RefCell<VecDeque<Vec<u8>>>>,
    /// The newest honest card of each region that it was told of.
    known: Rc<RefCell<BTreeMap<RegionId, Announcement>>>,
    heartbeat: u64,
    book: Rc<RefCell<Book>>,
    connections: BTreeMap<RegionId, Line>,
}

#[derive(Debug)]
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().as_millis().try_into().ok()?)))
    }
}

impl Liar {
    async fn new(papers: Rc<Papers>, env: Env, book: Rc<RefCell<Book>>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(papers.ca_pem.as_bytes())?)?;
        let certificate = CertificateDer::from_pem_slice(papers.own.certificate_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(papers.own.key_pem.as_bytes())?;
        let signing = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_der()).ok().context("the liar's key is no Ed25519 key")?;
        let mut tls = rustls::ClientConfig::builder_with_details(env.crypto.clone(), Arc::new(Time(env.clock.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.clone()], key)?;
        // On each connection it is of one version or the other.
        let mut roles = vec![];
        for version in Version::ALL {
            tls.alpn_protocols = vec![version.alpn().to_vec()];
            roles.push((version, quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.clone())?))));
        }
        let socket = env.network.bind_udp((std::net::Ipv4Addr::UNSPECIFIED, MESH_PORT).into()).await?;
        let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(Self {
            papers,
            key: signing,
            certificate: certificate.to_vec(),
            endpoint,
            roles,
            clock: env.clock.clone(),
            rng: StdRng::from_seed(env.seed.child("lies").bytes()),
            to_tell: vec![],
            sequence: 1,
            kept: Rc::default(),
            known: Rc::default(),
            heartbeat: 1_000,
            book,
            connections: BTreeMap::new(),
        })
    }

    async fn run(mut self, lying: &Cell<bool>) -> anyhow::Result<()> {
        loop {
            sleep(LIE_EVERY).await;
            if !lying.get() {
                for (_, line) in std::mem::take(&mut self.connections) {
                    line.connection.close(0_u32.into(), b"");
                }
                continue;
            }
            for (region, ip) in self.papers.victims.clone() {
                let open = self.connections.get(&region).filter(|line| line.connection.close_reason().is_none()).cloned();
                let line = match open {
                    Some(line) => line,
                    None => {
                        let Some(line) = self.connect(ip).await else { continue };
                        self.connections.insert(region.clone(), line.clone());
                        line
                    }
                };
                self.lie(&line, &region).await;
            }
        }
    }

    async fn connect(&mut self, ip: IpAddr) -> Option<Line> {
        let (version, role) = self.roles[self.rng.random_range(0..self.roles.len())].clone();
        let connecting = self.endpoint.connect_with(role, SocketAddr::new(ip, MESH_PORT), MESH_NAME).ok()?;
        // One of the version before does not speak the newer one.
        let connection = timeout(PATIENCE, connecting).await.ok()?.ok()?;
        let (listening, kept, known) = (connection.clone(), self.kept.clone(), self.known.clone());
        tokio::task::spawn_local(async move {
            while let Ok(mut stream) = listening.accept_uni().await {
                if let Ok(message) = stream.read_to_end(MAX_MESSAGE_BYTES).await {
                    learn(&message, version, &mut known.borrow_mut());
                    let mut kept = kept.borrow_mut();
                    kept.push_back(message);
                    if kept.len() > MAX_KEPT {
                        kept.pop_front();
                    }
                }
            }
        });
        let card = self.card(self.papers.region.clone(), 1, self.sequence, b"");
        let line = Line { connection, version };
        say(&line, &line.message(Kind::Cards, &vec![card])).await;
        Some(line)
    }

    /// A card of whomever it likes, under its own name's signature.
    fn card(&self, region: RegionId, generation: u64, sequence: u64, body: &[u8]) -> Card {
        let mut body_hash = [0; 32];
        body_hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
        let announcement = Announcement {
            cluster: self.papers.cluster.clone(),
            region,
            generation,
            sequence,
            address: self.endpoint.local_addr().unwrap_or_else(|_| (std::net::Ipv4Addr::LOCALHOST, MESH_PORT).into()),
            issued_at: self.clock.now(),
            body_hash,
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let signature = self.key.sign(&announcement.signing_bytes()).as_ref().to_vec();
        Card { announcement, signature, certificate: self.certificate.clone() }
    }

    /// Which lie comes next: all of them in an order drawn anew, and again, so that in a short time each was told.
    fn next_lie(&mut self) -> u32 {
        if self.to_tell.is_empty() {
            self.to_tell = (0..LIES).collect();
            self.to_tell.shuffle(&mut self.rng);
        }
        self.to_tell.pop().unwrap_or_default()
    }

    fn noise(&mut self, longest: usize) -> Vec<u8> {
        let mut noise = vec![0; self.rng.random_range(0..longest)];
        self.rng.fill_bytes(&mut noise);
        noise
    }

    /// One lie, to one agent.
    async fn lie(&mut self, to: &Line, victim: &RegionId) {
        let own = self.papers.region.clone();
        let mut heard = {
            let kept = self.kept.borrow();
            if kept.is_empty() { vec![] } else { kept[self.rng.random_range(0..kept.len())].clone() }
        };
        // As if it had been heard on this connection.
        if let Some(version) = heard.first_mut() {
            *version = to.version.number();
        }
        match self.next_lie() {
            // A newer life and word of the victim itself, or of another honest region.
            0 => drop(say(to, &to.message(Kind::Cards, &vec![self.card(victim.clone(), u64::MAX, u64::MAX, b"")])).await),
            1 => {
                let body = self.noise(2_000);
                let regions: Vec<RegionId> = self.papers.victims.keys().cloned().collect();
                let foreign = regions[self.rng.random_range(0..regions.len())].clone();
                let card = self.card(foreign, 1 << 60, self.sequence, &body);
                let boots_of = |book: &Book| book.boots.get(victim).map_or(0, |boots| boots());
                let before = boots_of(&self.book.borrow());
                // On a connection with a former life of the victim nobody hears it.
                if is_heard(to, &to.push(card, body)).await {
                    let mut book = self.book.borrow_mut();
                    if boots_of(&book) == before {
                        book.lied_to.entry((victim.clone(), before)).or_insert_with(virtual_now);
                    }
                }
            }
            // Its own word, older than the last, and its own body, not the one announced.
            2 => drop(say(to, &to.message(Kind::Cards, &vec![self.card(own, 0, 0, b"")])).await),
            3 => {
                self.sequence += 1;
                let card = self.card(own, 1, self.sequence, b"announced");
                say(to, &to.push(card, b"another".to_vec())).await;
            }
            // Its own word with a body that is no state, and one that is too long.
            4 => {
                self.sequence += 1;
                let body = self.noise(10_000);
                let card = self.card(own, 1, self.sequence, &body);
                say(to, &to.push(card, body)).await;
            }
            5 => {
                self.sequence += 1;
                let body = vec![7; MAX_BODY_BYTES];
                let card = self.card(own, 1, self.sequence, &body);
                say(to, &to.push(card, body)).await;
            }
            6 => drop(say(to, &self.noise(2 * MAX_MESSAGE_BYTES)).await),
            7 => {
                let noise = self.noise(50_000);
                say(to, &to.gossip(&noise)).await;
            }
            8 => {
                let noise = self.noise(1_000);
                let _ = to.connection.send_datagram(to.gossip(&noise).into());
            }
            // What others said, again, and with a bit turned.
            9 => self.repeat(to, &heard).await,
            10 => {
                let mut turned = heard;
                if !turned.is_empty() {
                    let at = self.rng.random_range(0..turned.len());
                    turned[at] ^= 1 << self.rng.random_range(0..8);
                }
                self.repeat(to, &turned).await;
            }
            // Another version of the wire, with an honest message behind it.
            11 => {
                let mut other = heard;
                if let Some(version) = other.first_mut() {
                    *version = if self.rng.random_bool(0.5) { version.wrapping_sub(1) } else { version.wrapping_add(1) };
                }
                say(to, &other).await;
            }
            // A question whose answer nobody reads, for a region that does not exist.
            12 => {
                if let Ok(Ok((mut send, _))) = timeout(PATIENCE, to.connection.open_bi()).await {
                    let nowhere = Request::Fetch { region: own };
                    let _ = timeout(PATIENCE, send.write_all(&to.message(Kind::Request, &nowhere))).await;
                    let _ = send.finish();
                }
            }
            // A new life of an honest region at its own address, near enough to be true.
            13 => {
                if let Some(mut announcement) = self.someone(victim) {
                    announcement.generation += self.rng.random_range(0..3);
                    announcement.sequence += 1;
                    let signature = self.key.sign(&announcement.signing_bytes()).as_ref().to_vec();
                    let card = Card { announcement, signature, certificate: self.certificate.clone() };
                    say(to, &to.message(Kind::Cards, &vec![card])).await;
                }
            }
            // Gossip: that all regions are alive, also those that are not, at an address of the liar's own.
            14 | 15 => {
                self.heartbeat += 10;
                let digest = self.digest();
                say(to, &to.gossip(&digest)).await;
            }
            // Two words of one version: one to this agent, as a state, which it gossips, and the other to all others.
            16 => {
                self.sequence += 1;
                let [one, other] = [&b"one"[..], b"other"].map(|body| self.card(own.clone(), 1, self.sequence, body));
                say(to, &to.push(one, b"one".to_vec())).await;
                let others: Vec<Line> =
                    self.connections.iter().filter(|(region, _)| *region != victim).map(|(_, line)| line.clone()).collect();
                for line in others {
                    say(&line, &line.message(Kind::Cards, &vec![other.clone()])).await;
                }
            }
            _ => {}
        }
    }

    /// Says what others said. Gossip among it tells when each region was alive, and is true.
    async fn repeat(&self, to: &Line, heard: &[u8]) {
        say(to, heard).await;
        if Envelope::parse(heard, to.version).is_ok_and(|envelope| envelope.kind == Kind::Gossip) {
            self.book.borrow_mut().carried = Some(virtual_now());
        }
    }

    /// An honest region's newest card, but not the victim's.
    fn someone(&mut self, victim: &RegionId) -> Option<Announcement> {
        let known: Vec<Announcement> = self.known.borrow().values().filter(|one| one.region != *victim).cloned().collect();
        (!known.is_empty()).then(|| known[self.rng.random_range(0..known.len())].clone())
    }

    /// A gossip frame: a SYN in chitchat's layout (see the agent's `mesh/message.rs`), not compressed.
    fn digest(&self) -> Vec<u8> {
        let own = self.card(self.papers.region.clone(), 1, self.sequence, b"").announcement;
        let known = self.known.borrow();
        let mut entries = vec![own.clone()];
        entries.extend(known.values().map(|honest| Announcement { address: own.address, ..honest.clone() }));
        // The frame's flag, then magic, version and kind.
        let mut bytes = vec![0];
        bytes.extend(45_139_u16.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(u16::try_from(entries.len()).unwrap_or(u16::MAX).to_le_bytes());
        let text = |text: &str, bytes: &mut Vec<u8>| {
            bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        for entry in entries {
            text(entry.region.as_str(), &mut bytes);
            bytes.extend(entry.generation.to_le_bytes());
            if let IpAddr::V4(ip) = entry.address.ip() {
                bytes.push(4);
                bytes.extend(ip.octets());
            }
            bytes.extend(entry.address.port().to_le_bytes());
            // Heartbeat, last garbage collection, newest version.
            for number in [self.heartbeat, 0, entry.sequence] {
                bytes.extend(number.to_le_bytes());
            }
        }
        text(&self.papers.cluster, &mut bytes);
        bytes
    }
}

impl Line {
    fn message<T: serde::Serialize>(&self, kind: Kind, body: &T) -> Vec<u8> {
        // What is beyond the codec's limit becomes an empty body: one more lie.
        Envelope { kind, body: &codec::encode(body).unwrap_or_default() }.to_bytes(self.version)
    }

    fn push(&self, card: Card, body: Vec<u8>) -> Vec<u8> {
        let published = Published { card, body };
        match self.version {
            Version::V1 => self.message(Kind::Push, &published),
            Version::V2 => self.message(Kind::Push, &Pushed::from(published)),
        }
    }

    fn gossip(&self, frame: &[u8]) -> Vec<u8> {
        Envelope { kind: Kind::Gossip, body: frame }.to_bytes(self.version)
    }
}

/// Remembers the cards in an honest message.
fn learn(message: &[u8], version: Version, known: &mut BTreeMap<RegionId, Announcement>) {
    let told = match (Envelope::parse(message, version), version) {
        (Ok(Envelope { kind: Kind::Cards, body }), _) => {
            codec::decode::<Vec<Card>>(body).map(|cards| cards.into_iter().map(|card| card.announcement).collect())
        }
        (Ok(Envelope { kind: Kind::Push, body }), Version::V1) => {
            codec::decode::<Published>(body).map(|state| vec![state.card.announcement])
        }
        (Ok(Envelope { kind: Kind::Push, body }), Version::V2) => codec::decode::<Pushed>(body).map(|state| vec![state.announcement]),
        _ => return,
    };
    for announcement in told.unwrap_or_default() {
        if announcement.region.as_str() != NAME && known.get(&announcement.region).is_none_or(|old| old.version() < announcement.version())
        {
            known.insert(announcement.region.clone(), announcement);
        }
    }
}

/// Says it; whether QUIC took it.
async fn say(to: &Line, bytes: &[u8]) -> bool {
    matches!(timeout(PATIENCE, send(to, bytes)).await, Ok(Some(_)))
}

/// Says it; whether the other end has acknowledged all of it.
async fn is_heard(to: &Line, bytes: &[u8]) -> bool {
    let said = async { send(to, bytes).await?.stopped().await.ok() };
    matches!(timeout(PATIENCE, said).await, Ok(Some(None)))
}

async fn send(to: &Line, bytes: &[u8]) -> Option<quinn::SendStream> {
    let mut stream = to.connection.open_uni().await.ok()?;
    stream.write_all(bytes).await.ok()?;
    stream.finish().ok()?;
    Some(stream)
}
