//! What tests share: a clock, numbers that look random, and for whatever speaks TLS an authority, and servers and clients that it knows.

use crate::client::Identity;
use crate::config::TlsPaths;
use crate::env::Clock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_rustls::TlsAcceptor;
use tradewind_protocol::pki::{self, Issued, Subject, Validity};
use tradewind_protocol::{RegionId, Timestamp, UserId};

const DAY: i64 = 86_400;

/// A wall clock that stands where it is put.
#[derive(Debug, Default)]
pub(crate) struct Hand(pub(crate) AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// Bits that look random, the upper ones more than the lower, and are the same everywhere.
pub(crate) fn mixed(at: u64) -> u64 {
    let mixed = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Numbers in 0..1 of them.
pub(crate) fn noise(at: usize) -> f64 {
    (mixed(at as u64) >> 11) as f64 / (1u64 << 53) as f64
}

pub(crate) struct Authority {
    dir: tempfile::TempDir,
    ca: Issued,
}

impl Authority {
    /// Another one for every seed.
    pub(crate) fn new(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = pki::issue_ca("test", validity(), [seed; 32]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), &ca.certificate_pem).unwrap();
        Self { dir, ca }
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.ca.certificate_pem.clone().into_bytes()
    }

    /// The files of a server that is reached under 127.0.0.1.
    pub(crate) fn server(&self) -> TlsPaths {
        let subject = Subject::Agent(RegionId::new("here").unwrap(), vec!["127.0.0.1".into()]);
        let leaf = pki::issue_leaf(&self.ca, &subject, validity(), [101; 32]).unwrap();
        let write = |name: &str, pem: &str| -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path
        };
        TlsPaths {
            ca: self.dir.path().join("ca.pem"),
            certificate: write("server.pem", &leaf.certificate_pem),
            key: write("server.key", &leaf.key_pem),
        }
    }

    /// The same server, which asks clients for no certificate.
    pub(crate) fn open_server(&self) -> TlsAcceptor {
        let paths = self.server();
        let chain = CertificateDer::pem_file_iter(&paths.certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(&paths.key).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that trusts this authority alone, and that it knows.
    pub(crate) fn client(&self) -> Identity {
        let leaf = pki::issue_leaf(&self.ca, &Subject::Client(UserId::new("tester").unwrap()), validity(), [102; 32]).unwrap();
        Identity { authority: Some(self.pem()), certificate: Some((leaf.certificate_pem.into_bytes(), leaf.key_pem.into_bytes())) }
    }

    /// The same, for a protocol that is negotiated.
    pub(crate) fn client_config(&self, protocol: &[u8]) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.pem()).unwrap()).unwrap();
        let (certificate, key) = self.client().certificate.unwrap();
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>().unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }
}

fn validity() -> Validity {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    Validity { not_before: now - DAY, not_after: now + DAY }
}
