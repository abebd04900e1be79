//! The wire format between agents: what travels on a QUIC connection, and every limit of it.
//!
//! Every message is an [`Envelope`]: one version byte, one kind byte, then the body. Gossip bodies
//! belong to chitchat; all others are [`codec`] encodings of the types here.
//!
//! | carrier | kinds |
//! |---|---|
//! | datagram | `Gossip` |
//! | unidirectional stream | `Gossip` too large for a datagram, `Cards`, `Push` |
//! | bidirectional stream | one `Request`, then one `Response` |
//!
//! Which [`Version`] is spoken, the two ends of a connection agree on by ALPN: the newest that both know. So agents are
//! upgraded one by one, in any order. Cards and bodies are no part of it: they are signed once and relayed as they are to
//! agents of every version, so their layout stays as long as any version that reads them is spoken.
//!
//! What a region publishes is a [`Card`] (small, signed, says who, where, which version and the
//! hash of the body) and a body (the region's state). chitchat carries the cards of all regions
//! and repairs; bodies are pushed straight to every live peer, and fetched by hash where a push
//! was missed. So a forged relay is worthless, and no gossip message grows with a region's state.

mod bytes;
pub mod codec;

use crate::{RegionId, RegionalResourcePlan, Timestamp, reservation};
pub(crate) use bytes::AtMost;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A version of the wire format. A release speaks its own and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Version {
    /// A [`Kind::Push`] is a [`Published`].
    V1 = 1,
    /// A [`Kind::Push`] is a [`Pushed`]: the sender's certificate, which its handshake has shown, is not sent again.
    V2 = 2,
}

impl Version {
    /// All versions that this code speaks, the newest first.
    pub const ALL: [Version; 2] = [Version::V2, Version::V1];

    /// The newest.
    pub const NEWEST: Version = Version::V2;

    /// The version's number: the first byte of every message.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its ALPN protocol name: a connection is only made between agents that share one.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Version::V1 => b"tradewind/1",
            Version::V2 => b"tradewind/2",
        }
    }

    /// The version of this ALPN protocol name.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.alpn() == name)
    }

    /// What an agent speaks whose newest version is this one, the newest first.
    pub fn and_before(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |version| *version <= self)
    }
}

impl From<Version> for u8 {
    fn from(version: Version) -> u8 {
        version.number()
    }
}

/// No version that this code speaks has this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 or 2, the versions of the wire that agents speak")]
pub struct UnknownVersion(pub u8);

impl TryFrom<u8> for Version {
    type Error = UnknownVersion;

    fn try_from(number: u8) -> Result<Self, UnknownVersion> {
        Self::ALL.into_iter().find(|version| version.number() == number).ok_or(UnknownVersion(number))
    }
}

/// The largest message on a stream. Twice the largest body, so that a limit is hit by whoever
/// builds a message, never by framing.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;

/// The largest encoded and compressed state of a region, whatever its byte budget says.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// The largest state of a region once decompressed: one value of the codec, like every message.
/// Forecasts compress about 4:1, so that this is twice what the default budget of 64 KiB holds.
pub const MAX_STATE_BYTES: usize = MAX_MESSAGE_BYTES;

/// The length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The largest certificate: an Ed25519 leaf with one name takes 350 to 450 bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 2048;

/// The most cards in one message: five times the largest mesh that was measured, and with the
/// longest names (about 830 bytes a card) still within [`MAX_MESSAGE_BYTES`].
pub const MAX_CARDS: usize = 500;

/// The longest cluster name.
pub const MAX_CLUSTER_BYTES: usize = 64;

/// What a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One chitchat message, in the mesh's frame.
    Gossip = 1,
    /// `Vec<Card>`: regions that the sender knows of.
    Cards = 2,
    /// The sender's new state: a [`Published`] or a [`Pushed`], as the [`Version`] has it.
    Push = 3,
    /// [`Request`].
    Request = 4,
    /// [`Response`].
    Response = 5,
}

/// Why the first two bytes of a message are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer than two bytes.
    #[error("message of {0} bytes has no version and kind")]
    Short(usize),
    /// Another wire version than the connection's.
    #[error("message of wire version {found} on a connection of version {}", .spoken.number())]
    Version {
        /// The message's.
        found: u8,
        /// What both ends have agreed on.
        spoken: Version,
    },
    /// A kind that no version has.
    #[error("message kind {0} is unknown")]
    Kind(u8),
}

/// A message's kind and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Bytes before the body.
    pub const HEADER_BYTES: usize = 2;

    /// Splits a message of a connection on which `spoken` was agreed.
    pub fn parse(message: &'a [u8], spoken: Version) -> Result<Self, EnvelopeError> {
        let &[version, kind, ref body @ ..] = message else { return Err(EnvelopeError::Short(message.len())) };
        if version != spoken.number() {
            return Err(EnvelopeError::Version { found: version, spoken });
        }
        let kind = match kind {
            1 => Kind::Gossip,
            2 => Kind::Cards,
            3 => Kind::Push,
            4 => Kind::Request,
            5 => Kind::Response,
            other => return Err(EnvelopeError::Kind(other)),
        };
        Ok(Self { kind, body })
    }

    /// The message's bytes on a connection on which `spoken` was agreed.
    pub fn to_bytes(self, spoken: Version) -> Vec<u8> {
        let mut message = Vec::with_capacity(Self::HEADER_BYTES + self.body.len());
        message.extend([spoken.number(), self.kind as u8]);
        message.extend_from_slice(self.body);
        message
    }
}

/// What a region says about itself in few bytes. Signed as a whole, see [`Card`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Which mesh: a card of another one is refused even under the same authority.
    pub cluster: String,
    /// Who.
    pub region: RegionId,
    /// Which life of the region's agent; a higher one replaces a lower one.
    pub generation: u64,
    /// Which state within that life; a higher one replaces a lower one.
    pub sequence: u64,
    /// Where the region's QUIC endpoint is.
    pub address: SocketAddr,
    /// When, by the region's clock.
    pub issued_at: Timestamp,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
    /// Length of the body in bytes.
    pub body_bytes: u32,
}

/// Stands before every signed announcement, so that the signature means nothing elsewhere.
const SIGNING_DOMAIN: &[u8] = b"tradewind announcement v1\0";

impl Announcement {
    /// The order in which announcements of one region replace each other.
    pub fn version(&self) -> (u64, u64) {
        (self.generation, self.sequence)
    }

    /// The bytes that are signed.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut bytes = SIGNING_DOMAIN.to_vec();
        // Fails only beyond the limit, which an announcement of bounded fields cannot reach.
        bytes.extend(codec::encode(self).unwrap_or_default());
        bytes
    }
}

/// An announcement with its proof: valid if the certificate is valid under the mesh's authority,
/// names the announcement's region, and its key signed [`Announcement::signing_bytes`] (Ed25519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What is said.
    pub announcement: Announcement,
    /// The Ed25519 signature, 64 bytes.
    #[serde(with = "AtMost::<SIGNATURE_BYTES>")]
    pub signature: Vec<u8>,
    /// The region's leaf certificate, DER.
    #[serde(with = "AtMost::<MAX_CERTIFICATE_BYTES>")]
    pub certificate: Vec<u8>,
}

/// A region's state as it travels: the card, and the body that its hash names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Who, which version, which hash.
    pub card: Card,
    /// The region's state: zstd over the [`codec`] encoding of [`crate::RegionState`].
    #[serde(with = "AtMost::<MAX_BODY_BYTES>")]
    pub body: Vec<u8>,
}

/// The sender's own state as [`Version::V2`] pushes it: a [`Published`] whose certificate is the one that the sender's end of the
/// connection was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// What is said.
    pub announcement: Announcement,
    /// Of the announcement, see [`Card`].
    #[serde(with = "AtMost::<SIGNATURE_BYTES>")]
    pub signature: Vec<u8>,
    /// As in [`Published`].
    #[serde(with = "AtMost::<MAX_BODY_BYTES>")]
    pub body: Vec<u8>,
}

impl Pushed {
    /// The whole of it, with the sender's certificate (DER).
    pub fn into_published(self, certificate: Vec<u8>) -> Published {
        let Pushed { announcement, signature, body } = self;
        Published { card: Card { announcement, signature, certificate }, body }
    }
}

impl From<Published> for Pushed {
    fn from(Published { card, body }: Published) -> Self {
        Self { announcement: card.announcement, signature: card.signature, body }
    }
}

/// What one agent asks of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// The newest state that the peer holds of a region.
    Fetch {
        /// Whose state.
        region: RegionId,
    },
    /// Run a planning round for your region now.
    PredictiveScale {
        /// Plan only; change nothing.
        dry_run: bool,
    },
    /// About capacity of a pool.
    Reserve(Box<reservation::message::Message>),
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The state asked for.
    Published(Box<Published>),
    /// The peer holds no such state.
    NotHeld,
    /// The plan that was made.
    Plan(Box<RegionalResourcePlan>),
    /// The peer will not, or could not.
    Refused {
        /// Why, for a person.
        reason: String,
    },
    /// The answer to [`Request::Reserve`].
    Reserved(Box<reservation::message::Answer>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_refuse_what_they_do_not_know() {
        for version in Version::ALL {
            let message = Envelope { kind: Kind::Push, body: b"xyz" }.to_bytes(version);
            assert_eq!(message, [version.number(), 3, b'x', b'y', b'z']);
            assert_eq!(Envelope::parse(&message, version), Ok(Envelope { kind: Kind::Push, body: b"xyz" }));
            assert_eq!(Envelope::parse(&[], version), Err(EnvelopeError::Short(0)));
            assert_eq!(Envelope::parse(&[9, 1], version), Err(EnvelopeError::Version { found: 9, spoken: version }));
            assert_eq!(Envelope::parse(&[version.number(), 77], version), Err(EnvelopeError::Kind(77)));
        }
        let older = Envelope { kind: Kind::Push, body: b"" }.to_bytes(Version::V1);
        assert_eq!(Envelope::parse(&older, Version::V2), Err(EnvelopeError::Version { found: 1, spoken: Version::V2 }));
    }

    #[test]
    fn a_version_has_one_number_and_one_name_and_knows_those_before() {
        for version in Version::ALL {
            assert_eq!(Version::try_from(version.number()), Ok(version));
            assert_eq!(Version::from_alpn(version.alpn()), Some(version));
            assert!(version <= Version::NEWEST);
        }
        assert_eq!((Version::try_from(0), Version::from_alpn(b"h3")), (Err(UnknownVersion(0)), None));
        assert!(Version::V2.and_before().eq([Version::V2, Version::V1]), "the newest is preferred");
        assert!(Version::V1.and_before().eq([Version::V1]));
    }
}
