//! Cards: signing one's own, believing others'.
//!
//! A card is believed when its certificate is valid now under the mesh's authority, names the
//! card's region, and its key signed the announcement. In gossip a card travels as text without its
//! certificate: whoever may hear of a region already holds one with it.

use super::bounds;
use super::identity::Identity;
use super::tls::{Authority, CertificateError, ed25519_of};
use crate::marks::bug;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tradewind_protocol::wire::{Announcement, Card, MAX_CERTIFICATE_BYTES, MAX_CLUSTER_BYTES, codec};
use tradewind_protocol::{RegionId, Timestamp};

/// How long a certificate that was found valid is not looked at again: an expired one works that
/// much longer, which is far less than a certificate's own slack.
const RECHECK_AFTER: Duration = Duration::from_secs(60);

/// Length of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// The longest text of a card in gossip: an announcement with the longest names takes 450.
const MAX_TEXT_BYTES: usize = 1024;

/// Why a card is not believed. Nothing changed; the same card never succeeds, except one whose
/// certificate is not valid yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    /// A part is longer than any honest one.
    #[error("a part of the card is longer than the wire format allows")]
    Size,
    /// Another mesh's.
    #[error("the card belongs to the mesh {0:?}")]
    Cluster(String),
    /// The certificate proves nothing.
    #[error("the card's certificate proves nothing")]
    Certificate(#[source] CertificateError),
    /// The certificate is another region's.
    #[error("the card is for region {card}, its certificate for {certificate}")]
    OtherRegion {
        /// Whom the card speaks for.
        card: RegionId,
        /// Whom the certificate names.
        certificate: RegionId,
    },
    /// The signature is wrong.
    #[error("the card's signature is wrong")]
    Signature,
    /// Nobody can be reached there.
    #[error("the card's address {0} is none that an agent can be reached at")]
    Address(SocketAddr),
    /// Sequence numbers start at 1.
    #[error("the card's sequence number is 0")]
    Version,
}

/// `announcement`, signed.
pub(super) fn sign(identity: &Identity, announcement: Announcement) -> Card {
    let signature = identity.sign(&announcement.signing_bytes());
    Card { announcement, signature, certificate: identity.certificate.to_vec() }
}

/// SHA-256.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The card as it travels in gossip.
pub(super) fn to_text(card: &Card) -> String {
    // Encoding fails only beyond the limit, which an announcement of bounded fields cannot reach.
    STANDARD_NO_PAD.encode(codec::encode(&(&card.announcement, &card.signature)).unwrap_or_default())
}

/// The announcement and the signature in a card's text; neither is checked yet.
pub(super) fn from_text(text: &str) -> Option<(Announcement, Vec<u8>)> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    codec::decode(&STANDARD_NO_PAD.decode(text).ok()?).ok()
}

/// Believes or refuses cards, and remembers which certificates it has found valid.
pub(super) struct Verifier {
    authority: Authority,
    cluster: String,
    signatures: &'static dyn SignatureVerificationAlgorithm,
    /// By the certificate's hash. Bounded by [`bounds::MAX_REGIONS`]: the oldest makes room.
    valid: BTreeMap<[u8; 32], Valid>,
}

struct Valid {
    region: RegionId,
    checked_at: Timestamp,
}

impl Verifier {
    /// Signatures are checked by the provider's Ed25519.
    pub(super) fn new(authority: Authority, cluster: String, crypto: &CryptoProvider) -> Self {
        Self { authority, cluster, signatures: ed25519_of(crypto), valid: BTreeMap::new() }
    }

    /// Whether `card` is to be believed at `now`.
    pub(super) fn verify(&mut self, card: &Card, now: Timestamp) -> Result<(), CardError> {
        let Announcement { cluster, region, sequence, address, .. } = &card.announcement;
        if bug!("card-not-verified") {
            return Ok(());
        }
        if cluster.len() > MAX_CLUSTER_BYTES || card.certificate.len() > MAX_CERTIFICATE_BYTES || card.signature.len() != SIGNATURE_BYTES {
            return Err(CardError::Size);
        }
        if *cluster != self.cluster {
            return Err(CardError::Cluster(cluster.clone()));
        }
        if *sequence == 0 {
            return Err(CardError::Version);
        }
        if !is_reachable(*address) {
            return Err(CardError::Address(*address));
        }
        let certificate = CertificateDer::from_slice(&card.certificate);
        let proved = self.region_of(&certificate, now).map_err(CardError::Certificate)?;
        if proved != *region {
            return Err(CardError::OtherRegion { card: region.clone(), certificate: proved });
        }
        let leaf = webpki::EndEntityCert::try_from(&certificate).map_err(|e| CardError::Certificate(e.into()))?;
        let message = card.announcement.signing_bytes();
        leaf.verify_signature(self.signatures, &message, &card.signature).map_err(|_| CardError::Signature)
    }

    fn region_of(&mut self, certificate: &CertificateDer<'_>, now: Timestamp) -> Result<RegionId, CertificateError> {
        let key = hash(certificate);
        if let Some(valid) = self.valid.get(&key)
            && now >= valid.checked_at
            && now.since(valid.checked_at) < RECHECK_AFTER
        {
            return Ok(valid.region.clone());
        }
        self.valid.remove(&key);
        let region = self.authority.region_of(certificate, now, self.signatures)?;
        if self.valid.len() >= bounds::MAX_REGIONS {
            let oldest = self.valid.iter().min_by_key(|(_, valid)| valid.checked_at).map(|(key, _)| *key);
            oldest.map(|key| self.valid.remove(&key));
        }
        self.valid.insert(key, Valid { region: region.clone(), checked_at: now });
        Ok(region)
    }
}

/// Whether an agent can be dialled at `address`.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::pki::{Pki, YEAR, now};

    fn announcement(region: &str) -> Announcement {
        Announcement {
            cluster: "mesh".into(),
            region: RegionId::new(region).unwrap(),
            generation: 3,
            sequence: 1,
            address: "192.0.2.1:7000".parse().unwrap(),
            issued_at: now(),
            body_hash: hash(b"body"),
            body_bytes: 4,
        }
    }

    fn verifier(pki: &Pki) -> Verifier {
        Verifier::new(pki.identity("eu").authority, "mesh".into(), &rustls::crypto::ring::default_provider())
    }

    #[test]
    fn a_card_is_believed_under_its_authority_until_its_certificate_expires() {
        let pki = Pki::new("mesh");
        let card = sign(&pki.identity("eu"), announcement("eu"));
        let mut verifier = verifier(&pki);
        verifier.verify(&card, now()).unwrap();
        verifier.verify(&card, now()).unwrap();
        assert!(matches!(verifier.verify(&card, now().after(2 * YEAR)), Err(CardError::Certificate(_))));
        assert!(matches!(self::verifier(&Pki::new("mesh")).verify(&card, now()), Err(CardError::Certificate(_))));
    }

    #[test]
    fn whatever_is_changed_about_a_card_is_noticed() {
        let pki = Pki::new("mesh");
        let (eu, us) = (pki.identity("eu"), pki.identity("us"));
        let mut verifier = verifier(&pki);
        let good = sign(&eu, announcement("eu"));
        let mut refused = |change: &dyn Fn(&mut Card)| {
            let mut card = good.clone();
            change(&mut card);
            verifier.verify(&card, now()).expect_err("a changed card")
        };
        assert!(matches!(refused(&|c| c.announcement.generation += 1), CardError::Signature));
        assert!(matches!(refused(&|c| c.announcement.body_hash[0] ^= 1), CardError::Signature));
        assert!(matches!(refused(&|c| c.signature[5] ^= 1), CardError::Signature));
        assert!(matches!(refused(&|c| c.signature.push(0)), CardError::Size));
        assert!(matches!(refused(&|c| c.certificate = vec![0; 5000]), CardError::Size));
        assert!(matches!(refused(&|c| c.certificate = vec![1, 2, 3]), CardError::Certificate(_)));
        assert!(matches!(refused(&|c| c.certificate = us.certificate.to_vec()), CardError::OtherRegion { .. }));
        assert!(matches!(refused(&|c| c.announcement.region = us.region.clone()), CardError::OtherRegion { .. }));
        assert!(matches!(refused(&|c| *c = sign(&us, announcement("eu"))), CardError::OtherRegion { .. }));
        let with = |f: &dyn Fn(&mut Announcement)| {
            let mut a = announcement("eu");
            f(&mut a);
            sign(&eu, a)
        };
        assert!(matches!(refused(&|c| *c = with(&|a| a.cluster = "other".into())), CardError::Cluster(_)));
        assert!(matches!(refused(&|c| *c = with(&|a| a.sequence = 0)), CardError::Version));
        for bad in ["0.0.0.0:1", "224.0.0.1:7", "255.255.255.255:7", "10.0.0.1:0", "[::ffff:0.0.0.0]:5"] {
            assert!(matches!(refused(&|c| *c = with(&|a| a.address = bad.parse().unwrap())), CardError::Address(_)), "{bad}");
        }
    }

    #[test]
    fn a_card_fits_into_gossip_and_back() {
        let pki = Pki::new("mesh");
        let card = sign(&pki.identity("eu"), announcement("eu"));
        let text = to_text(&card);
        assert!(text.len() < 300, "{} bytes", text.len());
        assert_eq!(from_text(&text), Some((card.announcement, card.signature)));
        for junk in ["", "é", "AAAA", &"A".repeat(5000), &text[1..]] {
            assert!(from_text(junk).is_none_or(|(a, _)| a.cluster != "mesh"), "{junk}");
        }
    }
}
