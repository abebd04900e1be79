//! Who this agent is: its certificate, its key, and the authority that everyone's certificate must
//! come from. Loaded once, at start; every mistake names the file and how to mend it.

use super::tls::{Authority, CertificateError};
use crate::config::TlsPaths;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tradewind_protocol::{RegionId, Timestamp, wire};

/// The largest PEM file that is read: a certificate takes under 1 KiB, a bundle of ten under this.
const MAX_PEM_BYTES: u64 = 64 * 1024;

/// A region's certificate with its key, checked against the authority.
pub(crate) struct Identity {
    /// The region that the certificate names.
    pub(crate) region: RegionId,
    /// The mesh's authority.
    pub(crate) authority: Authority,
    /// The certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Until when that is valid.
    pub(super) ends: Option<Timestamp>,
    key: PrivatePkcs8KeyDer<'static>,
    signing: Ed25519KeyPair,
}

/// Why there is no identity. Nothing was started; it helps to mend the file and start again.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: make it readable for the agent, or issue one with `tradewind tls`")]
    Read {
        /// Which of the three.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than any certificate or key.
    #[error("the {what} {path} is larger than {MAX_PEM_BYTES} bytes: is it the right file?")]
    TooLarge {
        /// Which of the three.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("the {what} {path} holds no {wanted}: issue one with `tradewind tls`")]
    Pem {
        /// Which of the three.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is looked for.
        wanted: &'static str,
    },
    /// The certificate is longer than peers accept.
    #[error(
        "the certificate {path} has {bytes} bytes, peers accept {}: issue it with `tradewind tls agent`, with fewer names",
        wire::MAX_CERTIFICATE_BYTES
    )]
    Long {
        /// Where.
        path: PathBuf,
        /// How long, DER.
        bytes: usize,
    },
    /// The key belongs to another certificate.
    #[error("the key {key} does not belong to the certificate {certificate}: give the pair that was issued together")]
    Mismatch {
        /// Where the key is.
        key: PathBuf,
        /// Where the certificate is.
        certificate: PathBuf,
    },
    /// The authority's certificate is none.
    #[error("the authority {path} is no CA certificate with an Ed25519 key: issue one with `tradewind tls ca`")]
    Authority {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// Peers would refuse the certificate.
    #[error("the certificate {path} is not valid under the authority {authority}: issue a new one with `tradewind tls agent`")]
    Invalid {
        /// Where.
        path: PathBuf,
        /// Where the authority is.
        authority: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate is another region's.
    #[error(
        "the certificate {path} is for region {found}, the configuration says region {wanted}: set `region`, or give {wanted}'s certificate"
    )]
    OtherRegion {
        /// Where.
        path: PathBuf,
        /// Whose certificate it is.
        found: RegionId,
        /// Whose it should be.
        wanted: RegionId,
    },
}

impl Identity {
    /// Reads and checks the three files.
    pub(crate) fn load(paths: &TlsPaths, region: &RegionId, now: Timestamp) -> Result<Self, IdentityError> {
        let identity = Self::load_unchecked(paths)?;
        let found = identity
            .authority
            .region_of(&identity.certificate, now, webpki::ring::ED25519)
            .map_err(|source| IdentityError::Invalid { path: paths.certificate.clone(), authority: paths.ca.clone(), source })?;
        if found != *region {
            return Err(IdentityError::OtherRegion { path: paths.certificate.clone(), found, wanted: region.clone() });
        }
        Ok(Self { region: found, ..identity })
    }

    /// Reads the three files, and leaves it to the peers to judge the certificate's authority and
    /// time.
    pub(super) fn load_unchecked(paths: &TlsPaths) -> Result<Self, IdentityError> {
        let authority = certificate("authority", &paths.ca)?;
        let authority = Authority::new(&authority).map_err(|source| IdentityError::Authority { path: paths.ca.clone(), source })?;
        let leaf = certificate("certificate", &paths.certificate)?;
        if leaf.len() > wire::MAX_CERTIFICATE_BYTES {
            return Err(IdentityError::Long { path: paths.certificate.clone(), bytes: leaf.len() });
        }
        let invalid = |source| IdentityError::Invalid { path: paths.certificate.clone(), authority: paths.ca.clone(), source };
        let region = super::tls::region_in(&leaf).map_err(invalid)?;

        let no_key = || IdentityError::Pem { what: "key", path: paths.key.clone(), wanted: "Ed25519 private key (PKCS #8)" };
        let key = PrivatePkcs8KeyDer::from_pem_slice(&read("key", &paths.key)?).map_err(|_| no_key())?;
        let signing = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der()).map_err(|_| no_key())?;
        if super::tls::ed25519_key(&leaf).map_err(invalid)? != signing.public_key().as_ref() {
            return Err(IdentityError::Mismatch { key: paths.key.clone(), certificate: paths.certificate.clone() });
        }
        let ends = authority.ends(&leaf);
        Ok(Self { region, authority, certificate: leaf, ends, key, signing })
    }

    /// The private key, for TLS.
    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// A secret for `purpose` that lasts as long as the key, also over restarts.
    pub(super) fn lasting_secret(&self, purpose: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.secret_pkcs8_der());
        let tag = ring::hmac::sign(&key, format!("tradewind {purpose} v1").as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(&tag.as_ref()[..32]);
        secret
    }

    /// The key's Ed25519 signature of `message`.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |source| IdentityError::Read { what, path: path.into(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(IdentityError::TooLarge { what, path: path.into() });
    }
    Ok(bytes)
}

fn certificate(what: &'static str, path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    let pem = read(what, path)?;
    CertificateDer::from_pem_slice(&pem).map_err(|_| IdentityError::Pem { what, path: path.into(), wanted: "certificate (PEM)" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::pki::{Pki, now};

    fn error(paths: &TlsPaths, region: &str) -> String {
        Identity::load(paths, &RegionId::new(region).unwrap(), now()).err().unwrap().to_string()
    }

    #[test]
    fn a_pair_of_the_authority_is_an_identity_and_its_secrets_last() {
        let pki = Pki::new("mesh");
        let paths = pki.paths("eu");
        let load = || Identity::load(&paths, &RegionId::new("eu").unwrap(), now()).unwrap();
        assert_eq!(load().region.as_str(), "eu");
        assert_eq!(load().lasting_secret("reset"), load().lasting_secret("reset"));
        assert_ne!(load().lasting_secret("reset"), load().lasting_secret("token"));
    }

    #[test]
    fn every_mistake_names_the_file_and_how_to_mend_it() {
        let pki = Pki::new("mesh");
        let good = pki.paths("eu");
        let other = pki.paths("us");
        let text = error(&good, "us");
        assert!(text.contains("eu.pem") && text.contains("region eu") && text.contains("set `region`"), "{text}");
        let text = error(&TlsPaths { key: other.key.clone(), ..good.clone() }, "eu");
        assert!(text.contains("us.key") && text.contains("issued together"), "{text}");
        let text = error(&TlsPaths { key: "/nowhere".into(), ..good.clone() }, "eu");
        assert!(text.contains("cannot read the key /nowhere"), "{text}");
        let text = error(&TlsPaths { key: good.certificate.clone(), ..good.clone() }, "eu");
        assert!(text.contains("holds no Ed25519 private key"), "{text}");
        let text = error(&TlsPaths { ca: good.key.clone(), ..good.clone() }, "eu");
        assert!(text.contains("the authority") && text.contains("holds no certificate"), "{text}");
        let strangers = Pki::new("mesh");
        let text = error(&TlsPaths { ca: strangers.paths("eu").ca, ..good.clone() }, "eu");
        assert!(text.contains("not valid under the authority"), "{text}");
        let text = error(&pki.expired("eu"), "eu");
        assert!(text.contains("issue a new one"), "{text}");
        std::fs::write(&good.key, vec![b'x'; 70_000]).unwrap();
        assert!(error(&good, "eu").contains("is it the right file?"));
    }
}
