//! Certificates: what stands in them, who verifies under whom, and that TLS agrees.

use crate::samples::region;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection};
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::pki::{CLIENT_URI, Issued, MESH_NAME, PkiError, REGION_URI, Subject, Validity, issue_ca, issue_leaf};
use tradewind_protocol::wire::MAX_CERTIFICATE_BYTES;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// 2026, all of it.
const YEAR: Validity = Validity { not_before: 1_767_225_600, not_after: 1_798_761_599 };
const SUMMER: u64 = 1_782_000_000;

pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn ca(seed: u8) -> Issued {
    issue_ca("abilene", YEAR, [seed; 32]).unwrap()
}

fn agent(ca: &Issued, name: &str) -> Issued {
    issue_leaf(ca, &Subject::Agent(region(name), Vec::new()), YEAR, [7; 32]).unwrap()
}

fn client(ca: &Issued, name: &str) -> Issued {
    issue_leaf(ca, &Subject::Client(name.parse().unwrap()), YEAR, [8; 32]).unwrap()
}

/// The names of a certificate by kind: URIs, then DNS names and addresses.
fn names(issued: &Issued) -> (Vec<String>, Vec<String>) {
    let der = der(&issued.certificate_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in &certificate.subject_alternative_name().unwrap().unwrap().value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
            GeneralName::IPAddress(bytes) => hosts.push(format!("{bytes:?}")),
            other => panic!("{other}"),
        }
    }
    (uris, hosts)
}

#[test]
fn an_agents_certificate_names_one_region_and_the_mesh() {
    let ca = ca(1);
    let hosts = vec!["127.0.0.1".to_owned(), "agent.example".to_owned()];
    let leaf = issue_leaf(&ca, &Subject::Agent(region("new-york"), hosts), YEAR, [2; 32]).unwrap();
    let (uris, hosts) = names(&leaf);
    assert_eq!(uris, [format!("{REGION_URI}new-york")]);
    assert_eq!(hosts, ["[127, 0, 0, 1]", "agent.example", MESH_NAME]);
    assert_eq!(names(&agent(&ca, "denver")), (vec![format!("{REGION_URI}denver")], vec![MESH_NAME.to_owned()]));
}

#[test]
fn a_clients_certificate_names_the_client_and_no_host() {
    assert_eq!(names(&client(&ca(1), "anna")), (vec![format!("{CLIENT_URI}anna")], Vec::new()));
}

#[test]
fn no_host_name_smuggles_in_a_second_identity() {
    let ca = ca(1);
    for name in ["spiffe://tradewind/region/denver", "", "a b", "a\0b", "über", &"x".repeat(300), "denver@example", "..", "a_b/c"] {
        let refused = issue_leaf(&ca, &Subject::Agent(region("new-york"), vec![name.to_owned()]), YEAR, [2; 32]);
        assert!(matches!(refused, Err(PkiError::HostName(_))), "{name:?}");
    }
    for name in ["localhost", "a.b-c.example", "*.example", "2001:db8::1"] {
        let leaf = issue_leaf(&ca, &Subject::Agent(region("new-york"), vec![name.to_owned()]), YEAR, [2; 32]).unwrap();
        assert_eq!(names(&leaf).0, [format!("{REGION_URI}new-york")]);
    }
}

#[test]
fn a_certificate_that_no_card_could_carry_is_not_issued() {
    let many = (0..200).map(|i| format!("host-{i}.example")).collect();
    let refused = issue_leaf(&ca(1), &Subject::Agent(region("new-york"), many), YEAR, [2; 32]);
    assert!(matches!(refused, Err(PkiError::TooLarge { .. })));
    let longest = issue_leaf(&ca(1), &Subject::Agent(region(&"r".repeat(63)), Vec::new()), YEAR, [2; 32]).unwrap();
    assert!(der(&longest.certificate_pem).len() < MAX_CERTIFICATE_BYTES / 3);
}

#[test]
fn everything_is_ed25519_and_valid_as_long_as_asked() {
    let ca = ca(1);
    for issued in [&ca, &agent(&ca, "denver"), &client(&ca, "anna")] {
        let der = der(&issued.certificate_pem);
        let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(certificate.signature_algorithm.algorithm, OID_SIG_ED25519);
        assert_eq!(certificate.public_key().algorithm.algorithm, OID_SIG_ED25519);
        let validity = certificate.validity();
        assert_eq!((validity.not_before.timestamp(), validity.not_after.timestamp()), (YEAR.not_before, YEAR.not_after));
        assert!(matches!(PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(), PrivateKeyDer::Pkcs8(_)));
    }
}

#[test]
fn only_the_authority_may_sign_and_only_leaves() {
    let ca = ca(1);
    let ca_der = der(&ca.certificate_pem);
    let (_, authority) = X509Certificate::from_der(&ca_der).unwrap();
    let constraints = authority.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0));
    let usage = authority.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    let leaf_der = der(&agent(&ca, "denver").certificate_pem);
    let (_, leaf) = X509Certificate::from_der(&leaf_der).unwrap();
    assert!(!leaf.is_ca());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    let client_der = der(&client(&ca, "anna").certificate_pem);
    let (_, client) = X509Certificate::from_der(&client_der).unwrap();
    let extended = client.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth);
}

#[test]
fn equal_seeds_make_equal_certificates() {
    let text = |ca: &Issued, leaf: &Issued| [ca, leaf].map(|i| format!("{}{}", i.certificate_pem, i.key_pem));
    let (a, b) = (ca(1), ca(1));
    assert_eq!(text(&a, &agent(&a, "denver")), text(&b, &agent(&b, "denver")));
    let other = ca(2);
    assert_ne!(a.certificate_pem, other.certificate_pem);
    assert_ne!(agent(&a, "denver").certificate_pem, agent(&other, "denver").certificate_pem);
    assert_ne!(agent(&a, "denver").certificate_pem, agent(&a, "new-york").certificate_pem);
}

#[test]
fn a_validity_outside_the_calendar_is_refused() {
    for validity in [Validity { not_before: i64::MIN, ..YEAR }, Validity { not_after: i64::MAX, ..YEAR }] {
        assert!(matches!(issue_ca("abilene", validity, [1; 32]), Err(PkiError::Validity(v)) if v == validity));
    }
}

#[test]
fn an_authority_that_is_none_signs_nothing() {
    let good = ca(1);
    for bad in [
        Issued { certificate_pem: String::new(), ..good.clone() },
        Issued { key_pem: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(), ..good.clone() },
    ] {
        assert!(issue_leaf(&bad, &Subject::Agent(region("denver"), Vec::new()), YEAR, [2; 32]).is_err());
    }
}

fn verify(leaf: &Issued, ca: &Issued, at: u64, usage: KeyUsage) -> Result<(), webpki::Error> {
    let (leaf, ca) = (der(&leaf.certificate_pem), der(&ca.certificate_pem));
    let anchors = [anchor_from_trusted_cert(&ca).unwrap()];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
    EndEntityCert::try_from(&leaf)?.verify_for_usage(&[webpki::ring::ED25519], &anchors, &[], now, usage, None, None).map(|_| ())
}

#[test]
fn a_leaf_verifies_under_its_authority_while_it_is_valid_and_under_no_other() {
    let (ours, other) = (ca(1), ca(2));
    let leaf = agent(&ours, "denver");
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        verify(&leaf, &ours, SUMMER, usage).unwrap();
        assert!(verify(&leaf, &other, SUMMER, usage).is_err());
        assert!(verify(&leaf, &ours, YEAR.not_before as u64 - 1, usage).is_err());
        assert!(verify(&leaf, &ours, YEAR.not_after as u64 + 1, usage).is_err());
    }
    verify(&client(&ours, "anna"), &ours, SUMMER, KeyUsage::client_auth()).unwrap();
    assert!(verify(&client(&ours, "anna"), &ours, SUMMER, KeyUsage::server_auth()).is_err(), "a client is no agent");
    // A leaf is no authority, whatever it signs.
    let forged = agent(&leaf, "new-york");
    assert!(verify(&forged, &ours, SUMMER, KeyUsage::server_auth()).is_err());
}

#[derive(Debug)]
struct At(u64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// One side of a connection: its own certificate, and the authority that the other's must have.
struct Side<'a> {
    own: &'a Issued,
    trusts: &'a Issued,
}

impl Side<'_> {
    fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (vec![der(&self.own.certificate_pem)], PrivateKeyDer::from_pem_slice(self.own.key_pem.as_bytes()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.trusts.certificate_pem)).unwrap();
        Arc::new(roots)
    }
}

/// A mutual TLS 1.3 handshake at `at`, asking for `name`, in memory.
fn handshake(dialler: &Side<'_>, listener: &Side<'_>, name: &'static str, at: u64) -> Result<(), rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(listener.roots(), provider.clone()).build().unwrap();
    let servers = WebPkiServerVerifier::builder_with_provider(dialler.roots(), provider.clone()).build().unwrap();
    let (chain, key) = listener.chain();
    let server = ServerConfig::builder_with_details(provider.clone(), Arc::new(At(at)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    let (chain, key) = dialler.chain();
    let client = ClientConfig::builder_with_details(provider, Arc::new(At(at)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(servers)
        .with_client_auth_cert(chain, key)?;
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name).unwrap())?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    // Three flights and the tickets; more rounds change nothing.
    for _ in 0..4 {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let seen = client.peer_certificates().unwrap();
    assert_eq!(seen[0], der(&listener.own.certificate_pem));
    Ok(())
}

fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), rustls::Error> {
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight).unwrap();
    }
    let mut flight = &flight[..];
    while !flight.is_empty() {
        to.read_tls(&mut flight).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn tls_accepts_two_agents_of_a_mesh_in_both_roles() {
    let ca = ca(1);
    let (denver, new_york) = (agent(&ca, "denver"), agent(&ca, "new-york"));
    let (a, b) = (Side { own: &denver, trusts: &ca }, Side { own: &new_york, trusts: &ca });
    handshake(&a, &b, MESH_NAME, SUMMER).unwrap();
    handshake(&b, &a, MESH_NAME, SUMMER).unwrap();
    let anna = client(&ca, "anna");
    handshake(&Side { own: &anna, trusts: &ca }, &b, MESH_NAME, SUMMER).unwrap();
}

#[test]
fn tls_refuses_strangers_the_expired_and_other_names() {
    let (ours, other) = (ca(1), ca(2));
    let (denver, new_york, stranger) = (agent(&ours, "denver"), agent(&ours, "new-york"), agent(&other, "new-york"));
    let a = Side { own: &denver, trusts: &ours };
    let b = Side { own: &new_york, trusts: &ours };
    let of_another_mesh = Side { own: &stranger, trusts: &ours };
    assert!(handshake(&a, &of_another_mesh, MESH_NAME, SUMMER).is_err());
    assert!(handshake(&of_another_mesh, &a, MESH_NAME, SUMMER).is_err());
    assert!(handshake(&a, &b, "agent.example", SUMMER).is_err(), "a name that the certificate does not have");
    assert!(handshake(&a, &b, MESH_NAME, YEAR.not_after as u64 + 1).is_err(), "expired");
    assert!(handshake(&a, &b, MESH_NAME, YEAR.not_before as u64 - 1).is_err(), "not valid yet");
    let anna = client(&ours, "anna");
    assert!(handshake(&a, &Side { own: &anna, trusts: &ours }, MESH_NAME, SUMMER).is_err(), "a client as an agent");
}
