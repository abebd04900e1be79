//! What holder and owner say to each other. The holder is whoever the connection's certificate names, so
//! only the number of an id travels.

use super::ledger::{Error, Granted};
use super::terms::{Offer, Phase, Terms};
use crate::{PoolName, Timestamp};
use serde::{Deserialize, Serialize};

/// The most claims in one refresh: with two integers each it stays within a request's 4 KiB.
pub const MAX_RENEWALS: usize = 256;

/// What one region asks of another, or tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Set aside. The holder asks nothing more about its numbers below `settled_below`.
    Hold {
        /// Of which pool.
        pool: PoolName,
        /// The holder's number for it.
        number: u64,
        /// Which request about this number.
        nonce: u32,
        /// What.
        terms: Terms,
        /// For how long without a refresh, in milliseconds.
        ttl_ms: u64,
        /// The lowest number that may still be asked about.
        settled_below: u64,
    },
    /// Agree to what is held.
    Confirm {
        /// Of which pool.
        pool: PoolName,
        /// Which.
        claim: Claim,
    },
    /// Keep these.
    Refresh {
        /// Of which pool.
        pool: PoolName,
        /// Which; at most [`MAX_RENEWALS`].
        claims: Vec<Claim>,
    },
    /// Give it back.
    Release {
        /// Of which pool.
        pool: PoolName,
        /// Which.
        number: u64,
    },
    /// From the owner: a firm reservation needs your soft one's room.
    Preempted {
        /// Of which pool.
        pool: PoolName,
        /// Which.
        number: u64,
        /// When it must be given up.
        leave_by: Timestamp,
    },
}

/// One id, and which request about it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Which.
    pub number: u64,
    /// Which request about it.
    pub nonce: u32,
}

/// The answer to a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// It stands: the answer to a hold, a confirmation, and each claim of a refresh.
    Held {
        /// Which, and the request that is answered.
        claim: Claim,
        /// How far it has come.
        phase: Phase,
        /// How long it stands without a refresh, in milliseconds from when the request was taken.
        ttl_ms: u64,
    },
    /// It does not fit; this would.
    Countered {
        /// Which, and the request that is answered.
        claim: Claim,
        /// Not empty; the most alike first.
        offers: Vec<Offer>,
    },
    /// It does not stand.
    Refused {
        /// Which, and the request that is answered.
        claim: Claim,
        /// Why not.
        reason: Refusal,
    },
    /// It is given back.
    Released {
        /// Which.
        number: u64,
    },
    /// The answers to a refresh, in its order.
    Many(Vec<Answer>),
    /// Noted: the answer to what needs none.
    Noted,
}

impl Answer {
    /// What a holder is told of a ledger's reply about `claim`; the ledger replies to some inputs only.
    pub fn of(claim: Claim, reply: Option<Result<Granted, Error>>) -> Answer {
        match reply {
            Some(Ok(Granted::Stands { phase, ttl })) => {
                Answer::Held { claim, phase, ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) }
            }
            Some(Ok(Granted::Released)) => Answer::Released { number: claim.number },
            Some(Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. })) if !offers.is_empty() => {
                Answer::Countered { claim, offers }
            }
            Some(Err(error)) => Answer::Refused { claim, reason: Refusal::Ledger(error) },
            None => Answer::Noted,
        }
    }
}

/// Why something does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The owner has no pool of this name.
    #[error("there is no such pool")]
    NoSuchPool,
    /// The owner only watches, or is going away.
    #[error("the owner grants nothing: {0}")]
    NotGranting(String),
    /// The ledger says no.
    #[error("{0}")]
    Ledger(Error),
}
