//! ring's rustls provider with its two sources of chance replaced by the simulation's.
//!
//! ring draws TLS randoms and key shares for itself, and neither can be seeded: the randoms come
//! from a sealed trait, private keys cannot be imported. So both are made here, the key exchange
//! with x25519-dalek. Signatures need nothing: all certificates are Ed25519, which draws nothing. But
//! a card that one agent signs is checked by every other, and so is a certificate; so what one has found
//! valid, or has signed in a handshake, is remembered for all agents of the simulation. The others still
//! come to the same answer, sooner.

use crate::entropy;
use crate::memory;
use ring::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureAlgorithm, SignatureScheme};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use webpki::ring::ED25519;
use x25519_dalek::{PublicKey, StaticSecret};

/// The provider. It draws from the stream of the simulation whose thread it is used on, and fails
/// on any other thread.
pub fn provider() -> CryptoProvider {
    let signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: &[&Ed25519], mapping: &[(SignatureScheme::ED25519, &[&Ed25519])] };
    CryptoProvider {
        secure_random: &SimRandom,
        kx_groups: vec![&X25519],
        signature_verification_algorithms,
        key_provider: &Keys,
        ..rustls::crypto::ring::default_provider()
    }
}

/// Signatures that are remembered: some minutes of a mesh of 30 with steps of a second. 4 MB.
const MAX_REMEMBERED: usize = 1 << 16;

thread_local! {
    /// Hashes of key, message and signature of what was found valid in this thread's simulation.
    static VALID: RefCell<BTreeSet<[u8; 32]>> = const { RefCell::new(BTreeSet::new()) };
}

/// ring's Ed25519, asked once a signature.
#[derive(Debug)]
struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let hash = hash(public_key, message, signature);
        if VALID.with_borrow(|valid| valid.contains(&hash)) {
            return Ok(());
        }
        ED25519.verify_signature(public_key, message, signature)?;
        remember(hash);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        ED25519.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        ED25519.signature_alg_id()
    }
}

fn hash(public_key: &[u8], message: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [public_key, signature, message] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn remember(hash: [u8; 32]) {
    let _unowned = memory::unowned();
    VALID.with_borrow_mut(|valid| {
        if valid.len() >= MAX_REMEMBERED {
            valid.clear();
        }
        valid.insert(hash);
    });
}

/// ring's keys, whose signatures are remembered.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Ok(Arc::new(Key(rustls::crypto::ring::default_provider().key_provider.load_private_key(key)?)))
    }
}

#[derive(Debug)]
struct Key(Arc<dyn SigningKey>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Pen { signer: self.0.choose_scheme(offered)?, key: self.0.public_key()?.into_owned() }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct Pen {
    signer: Box<dyn Signer>,
    key: SubjectPublicKeyInfoDer<'static>,
}

impl Signer for Pen {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.signer.sign(message)?;
        // The key itself is the end of what says what it is.
        if let (SignatureScheme::ED25519, Some(key)) = (self.signer.scheme(), self.key.last_chunk::<ED25519_KEY_BYTES>()) {
            remember(hash(key, message, &signature));
        }
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

/// Length of a public key of Ed25519 (RFC 8032).
const ED25519_KEY_BYTES: usize = 32;

#[derive(Debug)]
struct SimRandom;

impl SecureRandom for SimRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        if entropy::fill(bytes) { Ok(()) } else { Err(GetRandomFailed) }
    }
}

#[derive(Debug)]
struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        SimRandom.fill(&mut secret)?;
        let secret = StaticSecret::from(secret);
        Ok(Box::new(KeyShare { public: PublicKey::from(&secret), secret }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }
}

struct KeyShare {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for KeyShare {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| Error::from(PeerMisbehaved::InvalidKeyShare))?;
        let shared = self.secret.diffie_hellman(&peer.into());
        // RFC 8446, 7.4.2: an all-zero secret comes from a key of small order.
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(shared.as_bytes()[..].into())
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_shares_agree_and_are_the_seeds() {
        let shares = |seed| {
            entropy::on_fresh_thread(seed, || {
                let (a, b) = (X25519.start().unwrap(), X25519.start().unwrap());
                let (a_public, b_public) = (a.pub_key().to_vec(), b.pub_key().to_vec());
                let (from_a, from_b) = (a.complete(&b_public).unwrap(), b.complete(&a_public).unwrap());
                assert_eq!(from_a.secret_bytes(), from_b.secret_bytes());
                (a_public, b_public)
            })
            .unwrap()
        };
        assert_eq!(shares(1), shares(1));
        assert_ne!(shares(1), shares(2));
        assert_ne!(shares(1).0, shares(1).1);
    }

    #[test]
    fn a_key_share_of_small_order_is_refused() {
        entropy::on_fresh_thread(1, || {
            assert!(X25519.start().unwrap().complete(&[0; 32]).is_err());
            assert!(X25519.start().unwrap().complete(&[9; 31]).is_err());
        })
        .unwrap();
    }

    #[test]
    fn a_signature_is_valid_again_and_another_never() {
        let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = ring::signature::KeyPair::public_key(&key).as_ref().to_vec();
        let signature = key.sign(b"message").as_ref().to_vec();
        for _ in 0..3 {
            assert!(Ed25519.verify_signature(&public, b"message", &signature).is_ok());
            assert!(Ed25519.verify_signature(&public, b"massage", &signature).is_err());
            assert!(Ed25519.verify_signature(&public[1..], b"message", &signature).is_err());
            assert!(Ed25519.verify_signature(&public, b"message", &[signature.clone(), vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn what_was_signed_here_is_known_to_be_valid_and_nothing_else_is() {
        let issued = tradewind_protocol::pki::issue_ca("mesh", tradewind_protocol::pki::Validity { not_before: 0, not_after: 1 }, [7; 32]);
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(issued.unwrap().key_pem.as_bytes()).unwrap();
        let key = Keys.load_private_key(key).unwrap();
        let spki = key.public_key().unwrap();
        let public = &spki[spki.len() - ED25519_KEY_BYTES..];
        let signature = key.choose_scheme(&[SignatureScheme::ED25519]).unwrap().sign(b"message").unwrap();
        assert!(VALID.with_borrow(|valid| valid.contains(&hash(public, b"message", &signature)) && valid.len() == 1));
        ED25519.verify_signature(public, b"message", &signature).unwrap();
        assert!(Ed25519.verify_signature(public, b"message", &signature).is_ok());
        assert!(Ed25519.verify_signature(public, b"massage", &signature).is_err());
    }

    #[test]
    fn outside_a_simulation_there_is_no_chance() {
        assert!(SimRandom.fill(&mut [0; 4]).is_err());
    }
}
