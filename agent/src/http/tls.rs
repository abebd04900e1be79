//! Mutual TLS for the API: clients need a certificate of the mesh's authority.

use crate::config::TlsPaths;
use crate::env::Env;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Why the API cannot speak TLS. The agent does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read as what it should be.
    #[error("{path}: no {wanted} in PEM form: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// The files do not fit together.
    #[error("the certificate, key and authority do not fit together: {0}")]
    Config(String),
}

/// What turns a TCP stream into a TLS one that speaks `protocol`.
pub(crate) fn acceptor(paths: &TlsPaths, env: &Env, protocol: &[u8]) -> Result<TlsAcceptor, TlsError> {
    let unfit = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let mut roots = RootCertStore::empty();
    for ca in certificates(&paths.ca, "authority's certificate")? {
        roots.add(ca).map_err(|e| unfit(&e))?;
    }
    let key = PrivateKeyDer::from_pem_file(&paths.key).map_err(file(&paths.key, "private key"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), env.crypto.clone()).build().map_err(|e| unfit(&e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(env.crypto.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unfit(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&paths.certificate, "certificate")?, key)
        .map_err(|e| unfit(&e))?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path, wanted: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(file(path, wanted))?;
    if read.is_empty() { Err(file(path, wanted)(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(read) }
}

fn file(path: &Path, wanted: &'static str) -> impl Fn(rustls::pki_types::pem::Error) -> TlsError {
    move |source| TlsError::File { path: path.into(), wanted, source }
}
