//! The certificate profile: who may be whom in a mesh.
//!
//! One authority (CA) a mesh. An agent's leaf carries exactly one URI name,
//! `spiffe://tradewind/region/<region>`, and the DNS name [`MESH_NAME`]; a client's leaf carries
//! `spiffe://tradewind/client/<name>`. All keys are Ed25519: signatures are deterministic, and one
//! algorithm is one less to get wrong. Keys are made from seeds that the caller draws, so that the
//! simulator can issue certificates too.

use crate::RegionId;
use crate::wire::MAX_CERTIFICATE_BYTES;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType,
};
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;

/// The DNS name in every agent's certificate: peers are dialled by address, and this is the name
/// that TLS asks for.
pub const MESH_NAME: &str = "mesh.tradewind.internal";

/// What an agent's SPIFFE id begins with; its region follows.
pub const REGION_URI: &str = "spiffe://tradewind/region/";

/// What a client's SPIFFE id begins with; its name follows.
pub const CLIENT_URI: &str = "spiffe://tradewind/client/";

/// A certificate that ends sooner than this is to be replaced: who shows one says so, from then on.
pub const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

/// From when until when a certificate is valid, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

/// Why a certificate was not issued. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused, for instance because the authority's key is not an Ed25519 key.
    #[error("cannot issue the certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// A name that is neither a host name nor an address.
    #[error("host name {0:?} must be a DNS name (letters, digits, '-' and '.') or an IP address")]
    HostName(String),
    /// So many names that no card could carry the certificate.
    #[error("a certificate of {bytes} bytes, the limit is {MAX_CERTIFICATE_BYTES}: give it fewer or shorter names")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// A time outside the calendar.
    #[error("validity {0:?} is outside the calendar")]
    Validity(Validity),
}

/// Whom a leaf certificate is for.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The agent of a region; more DNS names or addresses under which its HTTP API is reached.
    Agent(RegionId, Vec<String>),
    /// A client of the HTTP API, by name.
    Client(crate::UserId),
}

/// A self-signed authority for the mesh called `cluster`.
pub fn issue_ca(cluster: &str, validity: Validity, seed: [u8; 32]) -> Result<Issued, PkiError> {
    let key = key_from_seed(seed)?;
    let mut params = params(&format!("{cluster} Tradewind CA"), validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// A leaf for `subject`, signed by the authority `ca`.
pub fn issue_leaf(ca: &Issued, subject: &Subject, validity: Validity, seed: [u8; 32]) -> Result<Issued, PkiError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, KeyPair::from_pem(&ca.key_pem)?)?;
    let key = key_from_seed(seed)?;
    let mut params = match subject {
        Subject::Agent(region, names) => {
            let mut params = params(region.as_str(), validity)?;
            params.subject_alt_names = names.iter().map(|name| host(name)).collect::<Result<_, _>>()?;
            params.subject_alt_names.push(SanType::DnsName(MESH_NAME.try_into()?));
            params.subject_alt_names.push(SanType::URI(format!("{REGION_URI}{region}").try_into()?));
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params
        }
        Subject::Client(name) => {
            let mut params = params(name.as_str(), validity)?;
            params.subject_alt_names = vec![SanType::URI(format!("{CLIENT_URI}{name}").try_into()?)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params
        }
    };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    if certificate.der().len() > MAX_CERTIFICATE_BYTES {
        return Err(PkiError::TooLarge { bytes: certificate.der().len() });
    }
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// The longest DNS name (RFC 1035, section 2.3.4, as text).
const MAX_HOST_BYTES: usize = 253;

/// A host name, its first label perhaps `*`, or an address. Checked here, because a verifier that
/// meets a malformed name may refuse the whole certificate.
fn host(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric();
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| inner(b) || b == b'-')
            && label.bytes().next().is_some_and(inner)
            && label.bytes().last().is_some_and(inner)
    };
    if name.len() > MAX_HOST_BYTES || !name.strip_prefix("*.").unwrap_or(name).split('.').all(is_label) {
        return Err(PkiError::HostName(name.chars().take(80).collect()));
    }
    Ok(SanType::DnsName(name.try_into()?))
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Validity(validity));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = at(validity.not_before)?;
    params.not_after = at(validity.not_after)?;
    Ok(params)
}

/// An Ed25519 key whose private part is `seed`: PKCS #8 version 1 (RFC 8410, section 7).
fn key_from_seed(seed: [u8; 32]) -> Result<KeyPair, PkiError> {
    const PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = [&PREFIX[..], &seed].concat();
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519)?)
}
