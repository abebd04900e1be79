//! ring's rustls provider with its two sources of chance replaced by the simulation's.
//!
//! ring draws TLS randoms and key shares for itself, and neither can be seeded: the randoms come
//! from a sealed trait, private keys cannot be imported. So both are made here, the key exchange
//! with x25519-dalek. Signatures need nothing: all certificates are Ed25519, which draws nothing. But
//! a card that one agent signs is checked by every other, so what one has found valid is remembered
//! for all agents of the simulation; the others still come to the same answer, sooner.

use crate::entropy;
use ring::digest;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use std::cell::RefCell;
use std::collections::BTreeSet;
use webpki::ring::ED25519;
use x25519_dalek::{PublicKey, StaticSecret};

/// The provider. It draws from the stream of the simulation whose thread it is used on, and fails
/// on any other thread.
pub fn provider() -> CryptoProvider {
    let signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: &[&Ed25519], mapping: &[(rustls::SignatureScheme::ED25519, &[&Ed25519])] };
    CryptoProvider {
        secure_random: &SimRandom,
        kx_groups: vec![&X25519],
        signature_verification_algorithms,
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
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [public_key, signature, message] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(hash.finish().as_ref());
        if VALID.with_borrow(|valid| valid.contains(&key)) {
            return Ok(());
        }
        ED25519.verify_signature(public_key, message, signature)?;
        VALID.with_borrow_mut(|valid| {
            if valid.len() >= MAX_REMEMBERED {
                valid.clear();
            }
            valid.insert(key);
        });
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        ED25519.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        ED25519.signature_alg_id()
    }
}

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
    fn outside_a_simulation_there_is_no_chance() {
        assert!(SimRandom.fill(&mut [0; 4]).is_err());
    }
}
