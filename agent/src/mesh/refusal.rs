//! Why something that a peer sent changes nothing: one word each, counted.

use super::card::CardError;

/// A reason. Refusals are told apart only to be counted and read; none of them changes state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub(crate) enum Refusal {
    /// Bytes that are no message.
    #[error("bytes that are no message")]
    Malformed,
    /// Beyond a limit of the wire format.
    #[error("larger than the wire format allows")]
    Oversized,
    /// A kind of message on a carrier where it does not belong.
    #[error("a message on the wrong carrier")]
    Misplaced,
    /// More of it than any agent sends.
    #[error("more messages than any agent sends")]
    Rate,
    /// The other end proved no region, or none of this mesh.
    #[error("no certificate of a region of this mesh")]
    Certificate,
    /// The other end proved this agent's own region.
    #[error("this agent's own region at another place")]
    OwnRegion,
    /// Gossip that does not list its sender.
    #[error("gossip that speaks for another region than the certificate's")]
    Impostor,
    /// A state that is another region's.
    #[error("a state pushed for another region than the certificate's")]
    Foreign,
    /// Another mesh's message or card.
    #[error("it belongs to another mesh")]
    Cluster,
    /// A region of which no valid card is known (yet).
    #[error("a region of which no valid card is known")]
    Unknown,
    /// A generation or address that no valid card names.
    #[error("a generation or address that no valid card names")]
    Unproven,
    /// A signature, certificate or hash that does not fit.
    #[error("a card or state that its region did not sign")]
    Forged,
    /// A card or key that contradicts another one of the same version.
    #[error("a card that contradicts what it claims to be")]
    Contradiction,
    /// A heartbeat that the region cannot have reached.
    #[error("a heartbeat that the region cannot have reached")]
    Heartbeat,
    /// More regions than a mesh may have.
    #[error("more regions than a mesh may have")]
    Crowd,
    /// A delta that grows beyond any honest one.
    #[error("a delta that grows beyond any honest one")]
    Bomb,
    /// A key or operation that agents never use.
    #[error("a key or operation that agents never use")]
    Key,
    /// A new life of a region, too soon after too many others.
    #[error("too many lives of one region in a short time")]
    Generation,
}

impl Refusal {
    /// The name it is counted under.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Oversized => "oversized",
            Refusal::Misplaced => "misplaced",
            Refusal::Rate => "rate",
            Refusal::Certificate => "certificate",
            Refusal::OwnRegion => "own_region",
            Refusal::Impostor => "impostor",
            Refusal::Foreign => "foreign",
            Refusal::Cluster => "cluster",
            Refusal::Unknown => "unknown",
            Refusal::Unproven => "unproven",
            Refusal::Forged => "forged",
            Refusal::Contradiction => "contradiction",
            Refusal::Heartbeat => "heartbeat",
            Refusal::Crowd => "crowd",
            Refusal::Bomb => "bomb",
            Refusal::Key => "key",
            Refusal::Generation => "generation",
        }
    }

    /// Whether honest peers cause it too, when messages overtake each other: counted, not noted.
    pub(crate) fn is_benign(self) -> bool {
        matches!(self, Refusal::Unknown | Refusal::Unproven)
    }
}

impl From<&CardError> for Refusal {
    fn from(error: &CardError) -> Self {
        match error {
            CardError::Certificate(_) | CardError::OtherRegion { .. } | CardError::Signature => Refusal::Forged,
            CardError::Cluster(_) => Refusal::Cluster,
            CardError::Size => Refusal::Oversized,
            CardError::Address(_) | CardError::Version => Refusal::Contradiction,
        }
    }
}
