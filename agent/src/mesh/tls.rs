//! Certificates and QUIC configurations: mutual TLS 1.3, Ed25519 only, the region in the peer's one
//! URI name. No resumption, no tickets, no 0-RTT, no QUIC migration.
//!
//! All chance of an endpoint comes from the agent's seed, in the real world too; only the keys
//! that must outlive a restart (stateless reset, address tokens) come from the certificate's key.

use super::congestion::Floored;
use super::identity::Identity;
use crate::env::{Clock, Env, Seed};
use crate::marks::bug;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionError, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tradewind_protocol::pki::REGION_URI;
use tradewind_protocol::wire::{self, Version};
use tradewind_protocol::{RegionId, Timestamp};

/// When a silent connection is given up: three keep-alives. chitchat notices a death within ten
/// intervals, so this only cleans up.
const IDLE_TIMEOUT_MS: u32 = 30_000;
/// Gossip alone keeps most links of a mesh of 30 awake; the rest costs 1 packet in 10 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Streams that one peer may have open towards us: a push, cards and a few large gossip messages.
/// With [`wire::MAX_MESSAGE_BYTES`] each, this bounds what a peer can make us hold: 4 MiB.
const MAX_UNI_STREAMS: u32 = 8;
/// Requests that one peer may have under way with us.
pub(super) const MAX_REQUESTS_PER_PEER: u32 = 8;
/// Bytes in flight towards us on one connection: four messages of the largest size.
const RECEIVE_WINDOW: u32 = 4 * wire::MAX_MESSAGE_BYTES as u32;
/// Datagrams that wait to be read: 200 gossip messages.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Handshakes that wait to be accepted; a mesh of 500 that all dial at once.
const MAX_INCOMING: usize = 512;

/// One algorithm for the authority, the leaves and the handshakes; its signatures draw no chance.
static ED25519_ONLY: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[webpki::ring::ED25519], mapping: &[(rustls::SignatureScheme::ED25519, &[webpki::ring::ED25519])] };

/// What an Ed25519 SubjectPublicKeyInfo begins with (RFC 8410); the 32 bytes of the key follow.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The provider's Ed25519, so that whoever replaces the provider sees every signature; ring's if it has none.
pub(super) fn ed25519_of(crypto: &CryptoProvider) -> &'static dyn SignatureVerificationAlgorithm {
    let all = crypto.signature_verification_algorithms.all;
    all.iter().copied().find(|one| one.signature_alg_id() == webpki::ring::ED25519.signature_alg_id()).unwrap_or(webpki::ring::ED25519)
}

/// The provider's algorithms, if they are Ed25519 and nothing else; ring's Ed25519 if not.
fn ed25519_alone(crypto: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    let own = crypto.signature_verification_algorithms;
    let is_it = |one: &&dyn SignatureVerificationAlgorithm| one.signature_alg_id() == webpki::ring::ED25519.signature_alg_id();
    let mapped = |(scheme, all): &(_, &[_])| *scheme == rustls::SignatureScheme::ED25519 && all.iter().all(is_it);
    let alone = !own.mapping.is_empty() && own.all.iter().all(is_it) && own.mapping.iter().all(mapped);
    if alone { own } else { ED25519_ONLY }
}

/// Why a certificate proves nothing. The same certificate never will, except one that is not valid
/// yet.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Its time is over.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("the certificate is not valid before {0}: check the clock")]
    Early(Timestamp),
    /// Not X.509, not of the authority, or not for this use.
    #[error("the certificate is not valid: {0}")]
    Invalid(webpki::Error),
    /// Not exactly one URI name.
    #[error("the certificate has {0} URI names, it must have exactly one")]
    Names(usize),
    /// The URI name is no region's.
    #[error("the certificate's name {0:?} is not {REGION_URI}<region>")]
    NoRegion(String),
    /// The key is of another kind.
    #[error("the certificate's key is not an Ed25519 key")]
    Key,
    /// The clock stands before 1970.
    #[error("the clock says {0}, which no certificate's validity covers: set the clock")]
    Clock(Timestamp),
    /// No certificate came.
    #[error("no certificate was presented")]
    Missing,
}

impl From<webpki::Error> for CertificateError {
    fn from(error: webpki::Error) -> Self {
        let at = |time: UnixTime| Timestamp::EPOCH.after(Duration::from_secs(time.as_secs()));
        match error {
            webpki::Error::CertExpired { not_after, .. } => Self::Expired(at(not_after)),
            webpki::Error::CertNotValidYet { not_before, .. } => Self::Early(at(not_before)),
            other => Self::Invalid(other),
        }
    }
}

/// The mesh's authority, to check certificates that come outside a handshake.
#[derive(Clone)]
pub(crate) struct Authority {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
}

impl Authority {
    /// The authority of this self-signed certificate.
    pub(crate) fn new(der: &CertificateDer<'static>) -> Result<Self, CertificateError> {
        let anchor = webpki::anchor_from_trusted_cert(der)?.to_owned();
        Ok(Self { der: der.clone(), anchor })
    }

    /// The region that `leaf` proves, if it is valid at `now`; its signature is checked by `ed25519`.
    pub(crate) fn region_of(
        &self,
        leaf: &CertificateDer<'_>,
        now: Timestamp,
        ed25519: &'static dyn SignatureVerificationAlgorithm,
    ) -> Result<RegionId, CertificateError> {
        let time = unix_time(now).ok_or(CertificateError::Clock(now))?;
        let certificate = webpki::EndEntityCert::try_from(leaf)?;
        let anchors = std::slice::from_ref(&self.anchor);
        // Agents are both, and a certificate for only one of the roles is no agent's.
        for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
            certificate.verify_for_usage(&[ed25519], anchors, &[], time, usage, None, None)?;
        }
        region_in(leaf)
    }

    /// Until when `leaf` is valid. webpki tells that only of one that no longer is.
    pub(super) fn ends(&self, leaf: &CertificateDer<'_>) -> Option<Timestamp> {
        match self.region_of(leaf, Timestamp::saturating_from_millis(i64::MAX), webpki::ring::ED25519) {
            Err(CertificateError::Expired(at)) => Some(at),
            Ok(_) | Err(_) => None,
        }
    }
}

/// The region in a certificate's one URI name, whoever issued it.
pub(super) fn region_in(leaf: &CertificateDer<'_>) -> Result<RegionId, CertificateError> {
    let certificate = webpki::EndEntityCert::try_from(leaf)?;
    let mut names = certificate.valid_uri_names();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(CertificateError::Names(certificate.valid_uri_names().count()));
    };
    let region = name.strip_prefix(REGION_URI).and_then(|region| RegionId::new(region).ok());
    region.ok_or_else(|| CertificateError::NoRegion(name.chars().take(120).collect()))
}

/// The certificate's public key.
pub(super) fn ed25519_key(leaf: &CertificateDer<'_>) -> Result<[u8; 32], CertificateError> {
    let spki = webpki::EndEntityCert::try_from(leaf)?.subject_public_key_info();
    spki.strip_prefix(&ED25519_SPKI[..]).and_then(|key| key.try_into().ok()).ok_or(CertificateError::Key)
}

/// The certificate that the other end of a connection has proved to hold in its handshake, and the region that it names.
pub(super) fn peer(connection: &quinn::Connection) -> Result<(RegionId, CertificateDer<'static>), CertificateError> {
    let chain = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.and_then(|chain| chain.into_iter().next()).ok_or(CertificateError::Missing)?;
    Ok((region_in(&leaf)?, leaf))
}

/// The version of the wire that both ends have agreed on; none only where a handshake was done without ALPN.
pub(super) fn version(connection: &quinn::Connection) -> Option<Version> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    Version::from_alpn(data.protocol.as_deref()?)
}

/// Whether a handshake failed because one side refused the other: QUIC carries TLS alerts as error
/// codes of their own range (RFC 9001, section 4.8).
pub(super) fn is_refusal(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => return false,
    };
    (0x100..0x200).contains(&u64::from(code))
}

/// Everything that a [`quinn::Endpoint`] needs.
pub(super) struct QuicConfig {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

/// Why an endpoint cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused the certificate, the key or the provider.
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authority cannot be used to check clients.
    #[error("cannot set up TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The provider lacks the cipher suite of QUIC's first packets.
    #[error("cannot set up QUIC: {0}")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The configuration of `identity`'s endpoint; chance from `seed`.
/// It speaks `newest` and the versions of the wire before it.
pub(super) fn quic_config(identity: &Identity, env: &Env, seed: &Seed, newest: Version) -> Result<QuicConfig, TlsError> {
    let mut provider = (*env.crypto).clone();
    provider.signature_verification_algorithms = ed25519_alone(&env.crypto);
    let provider = Arc::new(provider);
    let time: Arc<dyn TimeProvider> = Arc::new(WallTime(env.clock.clone()));
    let tls13 = &[&rustls::version::TLS13];
    // The server's order decides, and is everyone's.
    let versions: Vec<Vec<u8>> = newest.and_before().map(|version| version.alpn().to_vec()).collect();
    let chain = vec![identity.certificate.clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.authority.der.clone())?;
    let roots = Arc::new(roots);

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let mut server = rustls::ServerConfig::builder_with_details(provider.clone(), time.clone())
        .with_protocol_versions(tls13)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), identity.key())?;
    server.alpn_protocols.clone_from(&versions);
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let mut client = rustls::ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(tls13)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, identity.key())?;
    client.alpn_protocols = versions;
    client.resumption = rustls::client::Resumption::disabled();

    let server: Arc<QuicServerConfig> = Arc::new(server.try_into()?);
    let client: Arc<QuicClientConfig> = Arc::new(client.try_into()?);
    let transport = Arc::new(transport_config());

    let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.lasting_secret("stateless reset"));
    let mut endpoint = EndpointConfig::new(Arc::new(reset));
    endpoint.rng_seed(Some(seed.child("endpoint").bytes()));
    let ids = seed.child("connection ids");
    endpoint.cid_generator(move || Box::new(SeededIds::new(&ids)));

    let token = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&identity.lasting_secret("address token"));
    let mut server = ServerConfig::new(server, Arc::new(token));
    server.time_source(Arc::new(WallTime(env.clock.clone()))).migration(false).max_incoming(MAX_INCOMING);
    server.transport_config(transport.clone());

    let mut client = ClientConfig::new(client);
    let first_ids = Mutex::new(SeededIds::new(&seed.child("initial connection ids")));
    client.initial_dst_cid_provider(Arc::new(move || first_ids.lock().unwrap_or_else(PoisonError::into_inner).next(20)));
    client.transport_config(transport);
    Ok(QuicConfig { endpoint, server, client })
}

fn transport_config() -> TransportConfig {
    let mut transport = TransportConfig::default();
    if bug!("mtu-assumed") {
        transport.initial_mtu(1452).min_mtu(1452);
    }
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNI_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_REQUESTS_PER_PEER))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(wire::MAX_MESSAGE_BYTES as u32))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(Floored::default()));
    transport
}

/// Connection ids from a seed: quinn's own generators draw from the operating system.
struct SeededIds(StdRng);

impl SeededIds {
    fn new(seed: &Seed) -> Self {
        Self(StdRng::from_seed(seed.bytes()))
    }

    fn next(&mut self, len: usize) -> ConnectionId {
        let mut bytes = [0; 20];
        let bytes = &mut bytes[..len.min(20)];
        self.0.fill_bytes(bytes);
        ConnectionId::new(bytes)
    }
}

/// Long enough that two connections of an agent never share one by chance.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.next(CONNECTION_ID_BYTES)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The agent's clock, for TLS and QUIC.
#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        unix_time(self.0.now())
    }
}

impl quinn::TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.now().since(Timestamp::EPOCH)
    }
}

fn unix_time(now: Timestamp) -> Option<UnixTime> {
    (now >= Timestamp::EPOCH).then(|| UnixTime::since_unix_epoch(now.since(Timestamp::EPOCH)))
}
