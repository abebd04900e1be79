//! A peer that holds a certificate and sends whatever it likes.

use super::*;
use crate::config::TlsPaths;
use crate::mesh::message::{CARD_KEY, Entry, Message, NodeDelta};
use chitchat::{ChitchatId, Serializable};
use quinn::Connection;
use tradewind_protocol::wire::{Announcement, Envelope, Kind, Published, Pushed, Version, codec};

/// The peer: an endpoint and an identity, and no mesh.
pub(super) struct Hostile {
    pub(super) identity: Identity,
    pub(super) endpoint: Endpoint,
    _dir: tempfile::TempDir,
}

impl Hostile {
    /// One that holds the certificate of `tls`, whatever it is worth.
    pub(super) async fn with(tls: &TlsPaths) -> Self {
        Self::speaking(tls, Version::NEWEST).await
    }

    /// The same, of an earlier version.
    pub(super) async fn speaking(tls: &TlsPaths, wire_version: Version) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let identity = Identity::load_unchecked(tls).unwrap();
        let endpoint =
            open_endpoint(&env, &identity, &config(tls.clone(), &Setup { wire_version, ..Setup::default() }), &env.seed).await.unwrap();
        Self { identity, endpoint, _dir: dir }
    }

    pub(super) async fn new(pki: &Pki, name: &str) -> Self {
        Self::with(&pki.paths(name)).await
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(super) async fn connect(&self, to: &Agent) -> Result<Connection, quinn::ConnectionError> {
        let connection = self.endpoint.connect(to.addr(), tradewind_protocol::pki::MESH_NAME).unwrap().await?;
        Ok(connection)
    }

    /// A connection on which this peer has introduced itself with a valid card.
    pub(super) async fn introduced(&self, to: &Agent) -> Connection {
        let connection = self.connect(to).await.unwrap();
        send(&connection, Kind::Cards, &codec::encode(&vec![self.card(1, 1, &[])]).unwrap()).await;
        to.until_live_contains(self.identity.region.as_str()).await;
        connection
    }

    /// What this peer announces of itself, validly signed.
    pub(super) fn card(&self, generation: u64, sequence: u64, body: &[u8]) -> Card {
        card::sign(&self.identity, self.announcement(self.identity.region.as_str(), generation, sequence, body))
    }

    /// An announcement of anybody, at this peer's address.
    pub(super) fn announcement(&self, name: &str, generation: u64, sequence: u64, body: &[u8]) -> Announcement {
        Announcement {
            cluster: "mesh".into(),
            region: region(name),
            generation,
            sequence,
            address: self.addr(),
            issued_at: pki::now(),
            body_hash: card::hash(body),
            body_bytes: body.len() as u32,
        }
    }

    /// This peer's own chitchat node, as an honest digest lists it.
    pub(super) fn entry(&self) -> Entry {
        let id = ChitchatId::new(self.identity.region.as_str(), 1, self.addr());
        Entry { id, heartbeat: 5, last_gc_version: 0, max_version: 1 }
    }
}

impl Agent {
    async fn until_live_contains(&self, name: &str) {
        self.until(&format!("{name} alive"), |view| live(view).contains(&name)).await;
    }
}

/// What was agreed on for `connection`.
pub(super) fn spoken(connection: &Connection) -> Version {
    tls::version(connection).unwrap()
}

/// Sends an envelope on a stream and waits until the other end has it.
pub(super) async fn send(connection: &Connection, kind: Kind, body: &[u8]) {
    send_bytes(connection, &Envelope { kind, body }.to_bytes(spoken(connection))).await;
}

/// Sends any bytes on a stream, as far as the other end takes them.
pub(super) async fn send_bytes(connection: &Connection, bytes: &[u8]) {
    let mut stream = connection.open_uni().await.unwrap();
    if stream.write_all(bytes).await.is_ok() && stream.finish().is_ok() {
        let _ = timeout(PATIENCE, stream.stopped()).await;
    }
}

/// Sends a chitchat message in the mesh's frame.
pub(super) async fn gossip(connection: &Connection, message: &[u8]) {
    send(connection, Kind::Gossip, &frame::Packer::new().pack(message)).await;
}

/// Sends a state.
pub(super) async fn push(connection: &Connection, card: Card, body: &[u8]) {
    let published = Published { card, body: body.to_vec() };
    let message = match spoken(connection) {
        Version::V1 => codec::encode(&published),
        Version::V2 => codec::encode(&Pushed::from(published)),
    };
    send(connection, Kind::Push, &message.unwrap()).await;
}

/// Answers the next request on `connection` with `response`, and returns what was asked.
pub(super) async fn answer(connection: &Connection, response: &Response) -> Request {
    let (mut answer, mut question) = timeout(PATIENCE, connection.accept_bi()).await.unwrap().unwrap();
    let question = question.read_to_end(10_000).await.unwrap();
    let body = codec::encode(response).unwrap();
    answer.write_all(&Envelope { kind: Kind::Response, body: &body }.to_bytes(spoken(connection))).await.unwrap();
    answer.finish().unwrap();
    codec::decode(Envelope::parse(&question, spoken(connection)).unwrap().body).unwrap()
}

/// The chitchat node of `agent`.
pub(super) fn node_of(agent: &Agent) -> ChitchatId {
    let announcement = agent.mesh.mesh.core().own.card.announcement.clone();
    ChitchatId::new(announcement.region.as_str(), announcement.generation, announcement.address)
}

/// An ACK with one operation stream, in one plain block a chunk.
pub(super) fn raw_ack(blocks: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Message::Ack { delta: vec![] }.to_bytes();
    bytes.pop();
    for (kind, content) in blocks {
        bytes.push(*kind);
        (content.len() as u16).serialize(&mut bytes);
        bytes.extend(content);
    }
    bytes.push(0);
    bytes
}

/// The operations that set `key` of `id` to `text`.
pub(super) fn operations(id: &ChitchatId, key: &str, text: &str, version: u64) -> Vec<u8> {
    let mut ops = vec![0];
    id.serialize(&mut ops);
    0u64.serialize(&mut ops);
    0u64.serialize(&mut ops);
    ops.push(1);
    key.serialize(&mut ops);
    text.serialize(&mut ops);
    version.serialize(&mut ops);
    ops.push(0);
    ops
}

/// An ACK that relays `text` as the card of `id`.
pub(super) fn relay(id: &ChitchatId, text: String, version: u64) -> Vec<u8> {
    assert_eq!(CARD_KEY, "card");
    Message::Ack { delta: vec![NodeDelta { id: id.clone(), text, version, from_version: 0 }] }.to_bytes()
}
