//! What is on the network: the messages and answers of the protocol, as far as they differ within the model, in
//! which every part has the same terms, owner and ttl.

use std::time::Duration;
use tradewind_protocol::reservation::Phase;
use tradewind_protocol::reservation::ledger::Error;
use tradewind_protocol::reservation::message::{Answer, Claim, Message, Refusal};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Hold { claim: Claim, settled_below: u64 },
    Confirm(Claim),
    Refresh(Vec<Claim>),
    Release(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reply {
    Held {
        claim: Claim,
        phase: Phase,
    },
    /// The holder does not look at which request it was, nor at the offers.
    Countered(u64),
    /// Nor here; of the reasons, only whether it is an end.
    Refused {
        number: u64,
        ends: bool,
    },
    Released(u64),
    /// Not one: that is the same as the one by itself.
    Many(Vec<Reply>),
}

impl Request {
    pub(super) fn from_message(message: Message) -> Self {
        match message {
            Message::Hold { number, nonce, settled_below, .. } => Self::Hold { claim: Claim { number, nonce }, settled_below },
            Message::Confirm { claim, .. } => Self::Confirm(claim),
            Message::Refresh { claims, .. } => Self::Refresh(claims),
            Message::Release { number, .. } => Self::Release(number),
            Message::Preempted { .. } => unreachable!("a holder preempts nothing"),
        }
    }

    /// What it asks to have, or to keep.
    pub(super) fn claims(&self) -> &[Claim] {
        match self {
            Self::Hold { claim, .. } | Self::Confirm(claim) => std::slice::from_ref(claim),
            Self::Refresh(claims) => claims,
            Self::Release(_) => &[],
        }
    }
}

impl Reply {
    pub(super) fn from_answer(answer: Answer, ttl: Duration) -> Self {
        match answer {
            Answer::Held { claim, phase, ttl_ms } => {
                assert_eq!(u128::from(ttl_ms), ttl.as_millis());
                Self::Held { claim, phase }
            }
            Answer::Countered { claim, .. } => Self::Countered(claim.number),
            Answer::Refused { claim, reason } => {
                let ends = matches!(reason, Refusal::Ledger(Error::Spent | Error::Unknown) | Refusal::NoSuchPool);
                Self::Refused { number: claim.number, ends }
            }
            Answer::Released { number } => Self::Released(number),
            Answer::Many(answers) => {
                let mut answers: Vec<Reply> = answers.into_iter().map(|answer| Self::from_answer(answer, ttl)).collect();
                if answers.len() == 1 { answers.remove(0) } else { Self::Many(answers) }
            }
            Answer::Noted => unreachable!("every request has an answer"),
        }
    }

    pub(super) fn into_answer(self, ttl: Duration) -> Answer {
        match self {
            Self::Held { claim, phase } => Answer::Held { claim, phase, ttl_ms: ttl.as_millis() as u64 },
            Self::Countered(number) => Answer::Countered { claim: Claim { number, nonce: 0 }, offers: vec![] },
            Self::Refused { number, ends } => {
                let reason = Refusal::Ledger(if ends { Error::Spent } else { Error::Full });
                Answer::Refused { claim: Claim { number, nonce: 0 }, reason }
            }
            Self::Released(number) => Answer::Released { number },
            Self::Many(replies) => Answer::Many(replies.into_iter().map(|reply| reply.into_answer(ttl)).collect()),
        }
    }
}

/// Into a sorted list, once.
pub(super) fn put<T: Ord>(list: &mut Vec<T>, item: T) {
    if let Err(place) = list.binary_search(&item) {
        list.insert(place, item);
    }
}
