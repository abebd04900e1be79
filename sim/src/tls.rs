//! ring's rustls provider with its two sources of chance replaced by the simulation's.
//!
//! ring draws TLS randoms and key shares for itself, and neither can be seeded: the randoms come
//! from a sealed trait, private keys cannot be imported. So both are made here, the key exchange
//! with x25519-dalek. Signatures need nothing: all certificates are Ed25519, which draws nothing.

use crate::entropy;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

/// The provider. It draws from the stream of the simulation whose thread it is used on, and fails
/// on any other thread.
pub fn provider() -> CryptoProvider {
    CryptoProvider { secure_random: &SimRandom, kx_groups: vec![&X25519], ..rustls::crypto::ring::default_provider() }
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
    fn outside_a_simulation_there_is_no_chance() {
        assert!(SimRandom.fill(&mut [0; 4]).is_err());
    }
}
