//! One claim of the holder: how far it has come, what was sent when, and until when it may be relied upon.

use super::{Needs, Part, RequestId};
use crate::reservation::message;
use crate::reservation::terms::{Now, Phase};
use std::time::Duration;

/// How many sendings are remembered to count from: more are never under way.
const MAX_SENT: usize = 4;

/// How far a claim has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Asked for.
    Holding,
    /// Held, and waiting for the others of its request.
    Held,
    /// To be agreed.
    Confirming,
    /// Agreed.
    Confirmed,
    /// Being given back.
    Releasing {
        /// How often that was said.
        sent: u32,
    },
}

impl Stage {
    /// Whether the owner has promised it.
    pub(super) fn stands(self) -> bool {
        matches!(self, Self::Held | Self::Confirming | Self::Confirmed)
    }
}

/// A claim as the next input will find it: instants are distances from now, nothing where they are past.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Course {
    /// Its number.
    pub number: u64,
    /// Of which request.
    pub request: RequestId,
    /// Whether the rest of that is needed; none when it is being given up.
    pub needs: Option<Needs>,
    /// How far it has come.
    pub stage: Stage,
    /// How long until it is sent again.
    pub send_in: Duration,
    /// How long an answer to a hold or a confirmation is still waited for.
    pub give_up_in: Duration,
    /// How much longer it may be relied upon, if it stands.
    pub valid_for: Duration,
    /// Which request about it was the last.
    pub nonce: u32,
    /// Requests that were not answered yet, and how long ago they were sent.
    pub sent: Vec<(u32, Duration)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub(super) request: RequestId,
    pub(super) part: Part,
    pub(super) stage: Stage,
    /// When to send again.
    pub(super) next_send: Duration,
    /// When to stop waiting for an answer to a hold or a confirmation.
    pub(super) give_up: Duration,
    /// Until when it may be relied upon, by the holder's uptime.
    pub(super) valid_until: Duration,
    nonce: u32,
    /// Requests that were not answered yet, and when they were sent.
    sent: Vec<(u32, Duration)>,
}

impl Claim {
    pub(super) fn new(request: RequestId, part: Part, now: Now, give_up: Duration) -> Self {
        Self {
            request,
            part,
            stage: Stage::Holding,
            next_send: now.uptime,
            give_up: now.uptime.saturating_add(give_up),
            valid_until: Duration::ZERO,
            nonce: 0,
            sent: vec![],
        }
    }

    /// Notes a sending.
    pub(super) fn sending(&mut self, number: u64, now: Now, retry: Duration) -> message::Claim {
        self.nonce += 1;
        if self.sent.len() == MAX_SENT {
            self.sent.remove(0);
        }
        self.sent.push((self.nonce, now.uptime));
        self.next_send = now.uptime.saturating_add(retry);
        message::Claim { number, nonce: self.nonce }
    }

    /// Takes in that the owner promises it for `ttl` from a sending on. False for an answer to what was not sent.
    pub(super) fn renew(&mut self, nonce: u32, ttl: Duration, now: Now, refresh: Duration) -> bool {
        let Some(place) = self.sent.iter().position(|(sent, _)| *sent == nonce) else { return false };
        let (_, at) = self.sent[place];
        // Older ones promise less.
        self.sent.drain(..=place);
        self.valid_until = self.valid_until.max(at.saturating_add(ttl));
        // An answer that comes too late to be relied upon is none.
        if now.uptime >= self.valid_until {
            return false;
        }
        self.next_send = at.saturating_add(refresh).max(now.uptime + Duration::from_millis(1));
        true
    }

    pub(super) fn is_valid(&self, now: Now) -> bool {
        now.uptime < self.valid_until && now.wall < self.part.terms.window.until
    }

    pub(super) fn course(&self, number: u64, needs: Option<Needs>, now: Now) -> Course {
        let Self { request, part: _, stage, next_send, give_up, valid_until, nonce, sent } = self;
        let left = |at: &Duration| at.saturating_sub(now.uptime);
        Course {
            number,
            request: *request,
            needs,
            stage: *stage,
            send_in: left(next_send),
            give_up_in: left(give_up),
            valid_for: left(valid_until),
            nonce: *nonce,
            sent: sent.iter().map(|(nonce, at)| (*nonce, now.uptime.saturating_sub(*at))).collect(),
        }
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match self.stage {
            Stage::Holding => None,
            Stage::Held | Stage::Confirming => Some(Phase::Held),
            Stage::Confirmed => Some(Phase::Confirmed),
            Stage::Releasing { .. } => Some(Phase::Leaving),
        }
    }

    /// When it ends unless something comes.
    pub(super) fn ends(&self) -> Duration {
        match self.stage {
            Stage::Holding => self.give_up,
            Stage::Confirming => self.give_up.min(self.valid_until),
            Stage::Held | Stage::Confirmed => self.valid_until,
            Stage::Releasing { .. } => Duration::MAX,
        }
    }

    /// Whether something is to be done about it.
    pub(super) fn is_due(&self, now: Now) -> bool {
        let over = self.stage.stands() && self.part.terms.window.until <= now.wall;
        now.uptime >= self.next_send || now.uptime >= self.ends() || over
    }
}
