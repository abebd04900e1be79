//! The asking side: what this region has asked of others, what stands of it, and until when it may be relied
//! upon.
//!
//! A request has parts, each of one owner's pool. `Needs::All` holds every part, and only when all are
//! held confirms them; one refusal, or silence for too long, releases all. `Needs::Any` takes each part that is
//! granted. What stands is refreshed three times within its life, and given up by this side's clock before
//! the owner's can have taken it back ([`super::lease`]).
//!
//! Nothing here is durable: after a restart the region asks anew under higher numbers, and what it held before
//! lapses at its owners.

mod claim;

use super::lease::Clocks;
use super::ledger::Error;
use super::message::{Answer, MAX_RENEWALS, Message, Refusal};
use super::terms::{Now, Offer, Phase, Terms};
use crate::{PoolName, RegionId, Timestamp};
use claim::Claim;
pub use claim::{Course, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most claims at a time: ten regions with 100 each, four times over.
pub const MAX_CLAIMS: usize = 4_096;
/// The most parts of one request: more regions than a mesh that was measured has.
pub const MAX_PARTS: usize = 64;
/// How often a release is sent: what is lost three times lapses by itself.
const MAX_RELEASES: u32 = 3;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// What is assumed of clocks.
    pub clocks: Clocks,
    /// How long without a refresh a promise is to stand.
    pub ttl: Duration,
    /// How long an answer is waited for before the request is sent again.
    pub retry: Duration,
    /// How long a request may stay unanswered before it is given up.
    pub give_up: Duration,
}

impl Default for Config {
    /// 30 s outlast a lost connection and its new handshake; the rest follows from it.
    fn default() -> Self {
        Self { clocks: Clocks::default(), ttl: Duration::from_secs(30), retry: Duration::from_secs(2), give_up: Duration::from_secs(8) }
    }
}

/// Names a request of this life of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// One owner's share of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// Who is asked.
    pub owner: RegionId,
    /// For room in which of its pools.
    pub pool: PoolName,
    /// What.
    pub terms: Terms,
}

/// Whether a part is worth anything without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Needs {
    /// All or nothing.
    All,
    /// Whatever is granted.
    Any,
}

/// What the holder is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// Ask for these.
    Ask {
        /// A new name.
        request: RequestId,
        /// Of whom, and what.
        parts: Vec<Part>,
        /// Whether all are needed.
        needs: Needs,
    },
    /// Give up what is left of a request.
    Drop(RequestId),
    /// An owner has answered.
    Answered {
        /// Who.
        owner: RegionId,
        /// What.
        answer: Answer,
    },
    /// An owner needs a soft reservation's room.
    Preempted {
        /// Who.
        owner: RegionId,
        /// Which.
        number: u64,
        /// When it must be given up.
        leave_by: Timestamp,
    },
    /// Time has passed.
    Tick,
}

/// What the holder wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Output {
    /// Send this; its answer is an [`Input::Answered`], and a lost one needs nothing.
    Send {
        /// To whom.
        to: RegionId,
        /// What.
        message: Message,
    },
    /// A part is agreed, or with [`Needs::All`] the last of all.
    Granted {
        /// Of which request.
        request: RequestId,
    },
    /// A part will not be granted.
    Refused {
        /// Of which request.
        request: RequestId,
        /// Which part.
        part: Box<Part>,
        /// What would be.
        offers: Vec<Offer>,
        /// Why not.
        why: Failure,
    },
    /// What stood no longer does.
    Lost {
        /// Of which request.
        request: RequestId,
        /// Which part.
        part: Box<Part>,
        /// Why.
        why: Failure,
    },
}

/// Why a part is not granted, or stands no longer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The owner says no.
    #[error("{0}")]
    Refused(Refusal),
    /// The owner would grant something else.
    #[error("it does not fit; the owner offers something else")]
    Countered,
    /// The owner does not answer.
    #[error("no answer in time")]
    Silent,
    /// Another part of the same request was not granted.
    #[error("another part of the request was not granted")]
    Together,
    /// A firm reservation took its room.
    #[error("preempted, to be left by {0}")]
    Preempted(Timestamp),
    /// There are too many claims already, or the request has no parts, or too many.
    #[error("a request has 1 to {MAX_PARTS} parts, and there may be {MAX_CLAIMS} claims at a time")]
    TooMany,
}

/// A claim as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its number.
    pub number: u64,
    /// Of which request.
    pub request: RequestId,
    /// What was asked, of whom.
    pub part: Part,
    /// How far it has come; none while the owner has not answered.
    pub phase: Option<Phase>,
    /// How much longer it may be relied upon without a refresh.
    pub valid_for: Duration,
}

/// Everything this region has asked of others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    config: Config,
    next_number: u64,
    claims: BTreeMap<u64, Claim>,
    needs: BTreeMap<RequestId, Needs>,
}

impl Holder {
    /// One that has asked nothing yet and numbers its requests from `first_number` on
    /// ([`super::first_number`]).
    pub fn new(config: Config, first_number: u64) -> Self {
        Self { config, next_number: first_number, claims: BTreeMap::new(), needs: BTreeMap::new() }
    }

    /// Takes an input in; what is to be done about it.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = vec![];
        match input {
            Input::Ask { request, parts, needs } => self.ask(request, parts, needs, now, &mut out),
            Input::Drop(request) => self.let_go(request, now, &mut out),
            Input::Answered { owner, answer } => self.on_answer(&owner, answer, now, &mut out),
            Input::Preempted { owner, number, leave_by } => {
                if self.claims.get(&number).is_some_and(|claim| claim.part.owner == owner && claim.stage.stands()) {
                    self.lose(number, Failure::Preempted(leave_by), now, &mut out);
                }
            }
            Input::Tick => {}
        }
        self.on_time(now, &mut out);
        out
    }

    /// How long until a tick is due, and why.
    pub fn next_deadline(&self, now: Now) -> Option<(Duration, &'static str)> {
        let due = |at: Duration| at.saturating_sub(now.uptime);
        let each = self.claims.values().flat_map(|claim| {
            let over = (claim.part.terms.window.until.since(now.wall), "a window is over");
            [(due(claim.next_send), "a request or refresh is due"), (due(claim.ends()), "a claim ends"), over]
        });
        each.min()
    }

    /// Whether the claim `number` may be relied upon now.
    pub fn relies_on(&self, number: u64, now: Now) -> bool {
        self.claims.get(&number).is_some_and(|claim| claim.stage.stands() && claim.is_valid(now))
    }

    /// All claims, ascending by number.
    pub fn standings(&self, now: Now) -> impl Iterator<Item = Standing> {
        self.claims.iter().filter(|(_, claim)| !matches!(claim.stage, Stage::Releasing { .. })).map(move |(number, claim)| Standing {
            number: *number,
            request: claim.request,
            part: claim.part.clone(),
            phase: claim.phase(),
            valid_for: if claim.stage.stands() { claim.valid_until.saturating_sub(now.uptime) } else { Duration::ZERO },
        })
    }

    /// All claims as the next input will find them, ascending by number: for those who check from outside. Two
    /// holders of one config with the same courses and the same next number do the same about each input.
    pub fn courses(&self, now: Now) -> impl Iterator<Item = Course> {
        // Whatever is added here belongs into a course.
        let Self { config: _, next_number: _, claims, needs } = self;
        claims.iter().map(move |(number, claim)| claim.course(*number, needs.get(&claim.request).copied(), now))
    }

    /// The number that the next part will have.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The lowest number that may still be asked about.
    pub fn settled_below(&self) -> u64 {
        self.claims.first_key_value().map_or(self.next_number, |(number, _)| *number)
    }

    fn ask(&mut self, request: RequestId, parts: Vec<Part>, needs: Needs, now: Now, out: &mut Vec<Output>) {
        let fits = (1..=MAX_PARTS).contains(&parts.len()) && self.claims.len() + parts.len() <= MAX_CLAIMS;
        if !fits || self.needs.contains_key(&request) {
            let refused = |part| Output::Refused { request, part: Box::new(part), offers: vec![], why: Failure::TooMany };
            return out.extend(parts.into_iter().map(refused));
        }
        self.needs.insert(request, needs);
        for part in parts {
            let number = self.next_number;
            self.next_number += 1;
            self.claims.insert(number, Claim::new(request, part, now, self.config.give_up));
            self.send(number, now, out);
        }
    }

    /// Sends what the claim's stage asks for, except refreshes, which go together.
    fn send(&mut self, number: u64, now: Now, out: &mut Vec<Output>) {
        let settled_below = self.settled_below();
        let ttl_ms = u64::try_from(self.config.ttl.as_millis()).unwrap_or(u64::MAX);
        let retry = self.config.retry;
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let sent = claim.sending(number, now, retry);
        let pool = claim.part.pool.clone();
        let message = match claim.stage {
            Stage::Holding => Message::Hold { pool, number, nonce: sent.nonce, terms: claim.part.terms.clone(), ttl_ms, settled_below },
            Stage::Confirming => Message::Confirm { pool, claim: sent },
            Stage::Held | Stage::Confirmed => Message::Refresh { pool, claims: vec![sent] },
            Stage::Releasing { .. } => Message::Release { pool, number },
        };
        out.push(Output::Send { to: claim.part.owner.clone(), message });
    }

    fn on_answer(&mut self, owner: &RegionId, answer: Answer, now: Now, out: &mut Vec<Output>) {
        match answer {
            Answer::Held { claim, phase, ttl_ms } => {
                let clocks = self.config.clocks;
                let Some(known) = self.known(owner, claim.number) else { return };
                if !known.renew(claim.nonce, clocks.holder_ttl(Duration::from_millis(ttl_ms)), now, self_refresh(ttl_ms)) {
                    return;
                }
                self.advance(claim.number, phase, now, out);
            }
            Answer::Countered { claim, offers } => {
                if self.known(owner, claim.number).is_some_and(|known| known.stage == Stage::Holding) {
                    self.refuse(claim.number, offers, Failure::Countered, now, out);
                }
            }
            Answer::Refused { claim, reason } => self.on_refusal(owner, claim.number, reason, now, out),
            Answer::Released { number } => {
                if self.known(owner, number).is_some_and(|known| matches!(known.stage, Stage::Releasing { .. })) {
                    self.forget(number);
                }
            }
            Answer::Many(answers) => {
                for answer in answers.into_iter().take(MAX_RENEWALS).filter(|answer| !matches!(answer, Answer::Many(_))) {
                    self.on_answer(owner, answer, now, out);
                }
            }
            Answer::Noted => {}
        }
    }

    fn on_refusal(&mut self, owner: &RegionId, number: u64, reason: Refusal, now: Now, out: &mut Vec<Output>) {
        let Some(known) = self.known(owner, number) else { return };
        match known.stage {
            Stage::Holding => self.refuse(number, vec![], Failure::Refused(reason), now, out),
            // An older request may be answered late; only an end is an end.
            Stage::Held | Stage::Confirming | Stage::Confirmed => {
                if matches!(reason, Refusal::Ledger(Error::Spent | Error::Unknown) | Refusal::NoSuchPool) {
                    self.lose(number, Failure::Refused(reason), now, out);
                }
            }
            Stage::Releasing { .. } => self.forget(number),
        }
    }

    /// A claim is held, or confirmed.
    fn advance(&mut self, number: u64, phase: Phase, now: Now, out: &mut Vec<Output>) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        let request = claim.request;
        match (claim.stage, phase) {
            (Stage::Holding, Phase::Held | Phase::Confirmed) => {
                claim.stage = Stage::Held;
                let ready: Vec<u64> = match self.needs.get(&request) {
                    Some(Needs::Any) => vec![number],
                    Some(Needs::All) if self.of(request).all(|(_, claim)| claim.stage == Stage::Held) => {
                        self.of(request).map(|(number, _)| number).collect()
                    }
                    Some(Needs::All) | None => vec![],
                };
                for number in ready {
                    if let Some(claim) = self.claims.get_mut(&number) {
                        claim.stage = Stage::Confirming;
                        claim.give_up = now.uptime.saturating_add(self.config.give_up);
                    }
                    self.send(number, now, out);
                }
            }
            (Stage::Confirming, Phase::Confirmed) => {
                claim.stage = Stage::Confirmed;
                let all = || self.of(request).all(|(_, claim)| claim.stage == Stage::Confirmed);
                let granted = match self.needs.get(&request) {
                    Some(Needs::Any) => true,
                    Some(Needs::All) => all(),
                    None => false,
                };
                if granted {
                    out.push(Output::Granted { request });
                }
            }
            // It was preempted, and the notice is on its way or lost.
            (Stage::Holding | Stage::Held | Stage::Confirming | Stage::Confirmed, Phase::Leaving) => {
                let until = claim.part.terms.window.until;
                self.lose(number, Failure::Preempted(until), now, out);
            }
            (Stage::Held | Stage::Confirming | Stage::Confirmed, Phase::Held | Phase::Confirmed) | (Stage::Releasing { .. }, _) => {}
        }
    }

    /// A part is not granted.
    fn refuse(&mut self, number: u64, offers: Vec<Offer>, why: Failure, now: Now, out: &mut Vec<Output>) {
        let Some(claim) = self.claims.get(&number) else { return };
        let (request, part) = (claim.request, Box::new(claim.part.clone()));
        if why == Failure::Silent {
            // It may be held by now.
            self.give_back(number, now, out);
        } else {
            self.forget(number);
        }
        out.push(Output::Refused { request, part, offers, why });
        self.fail_together(request, now, out);
    }

    /// A part stood, and does not any more.
    fn lose(&mut self, number: u64, why: Failure, now: Now, out: &mut Vec<Output>) {
        let Some(claim) = self.claims.get(&number) else { return };
        let (request, part) = (claim.request, Box::new(claim.part.clone()));
        match why {
            Failure::Refused(_) => self.forget(number),
            Failure::Countered | Failure::Silent | Failure::Together | Failure::Preempted(_) | Failure::TooMany => {
                self.give_back(number, now, out);
            }
        }
        out.push(Output::Lost { request, part, why });
        self.fail_together(request, now, out);
    }

    /// What is left of an all-or-nothing request is released with the part that failed.
    fn fail_together(&mut self, request: RequestId, now: Now, out: &mut Vec<Output>) {
        if self.needs.get(&request) == Some(&Needs::All) {
            let rest: Vec<(u64, Part)> = self.of(request).map(|(number, claim)| (number, claim.part.clone())).collect();
            self.needs.remove(&request);
            for (number, part) in rest {
                self.give_back(number, now, out);
                out.push(Output::Lost { request, part: Box::new(part), why: Failure::Together });
            }
        }
    }

    fn let_go(&mut self, request: RequestId, now: Now, out: &mut Vec<Output>) {
        let all: Vec<u64> = self.of(request).map(|(number, _)| number).collect();
        self.needs.remove(&request);
        for number in all {
            self.give_back(number, now, out);
        }
    }

    fn give_back(&mut self, number: u64, now: Now, out: &mut Vec<Output>) {
        let Some(claim) = self.claims.get_mut(&number) else { return };
        if !matches!(claim.stage, Stage::Releasing { .. }) {
            claim.stage = Stage::Releasing { sent: 1 };
            self.send(number, now, out);
        }
    }

    /// What is due by the clock.
    fn on_time(&mut self, now: Now, out: &mut Vec<Output>) {
        let numbers: Vec<u64> = self.claims.iter().filter(|(_, claim)| claim.is_due(now)).map(|(number, _)| *number).collect();
        let mut refreshes: BTreeMap<(RegionId, PoolName), Vec<super::message::Claim>> = BTreeMap::new();
        for number in numbers {
            let Some(claim) = self.claims.get_mut(&number) else { continue };
            match claim.stage {
                Stage::Holding if now.uptime >= claim.give_up => self.refuse(number, vec![], Failure::Silent, now, out),
                Stage::Held | Stage::Confirming | Stage::Confirmed if now.uptime >= claim.valid_until => {
                    self.lose(number, Failure::Silent, now, out);
                }
                Stage::Confirming if now.uptime >= claim.give_up => self.lose(number, Failure::Silent, now, out),
                Stage::Held | Stage::Confirming | Stage::Confirmed if claim.part.terms.window.until <= now.wall => {
                    self.give_back(number, now, out);
                }
                Stage::Releasing { sent } if sent >= MAX_RELEASES => self.forget(number),
                Stage::Releasing { sent } => {
                    claim.stage = Stage::Releasing { sent: sent + 1 };
                    self.send(number, now, out);
                }
                Stage::Holding | Stage::Confirming => self.send(number, now, out),
                Stage::Held | Stage::Confirmed => {
                    let sent = claim.sending(number, now, self.config.retry);
                    refreshes.entry((claim.part.owner.clone(), claim.part.pool.clone())).or_default().push(sent);
                }
            }
        }
        for ((to, pool), claims) in refreshes {
            for claims in claims.chunks(MAX_RENEWALS) {
                let message = Message::Refresh { pool: pool.clone(), claims: claims.to_vec() };
                out.push(Output::Send { to: to.clone(), message });
            }
        }
    }

    /// The claim, if `owner` is the one that was asked.
    fn known(&mut self, owner: &RegionId, number: u64) -> Option<&mut Claim> {
        self.claims.get_mut(&number).filter(|claim| claim.part.owner == *owner)
    }

    /// The claims of a request that are not being given back.
    fn of(&self, request: RequestId) -> impl Iterator<Item = (u64, &Claim)> {
        let all = self.claims.iter().filter(move |(_, claim)| claim.request == request);
        all.filter(|(_, claim)| !matches!(claim.stage, Stage::Releasing { .. })).map(|(number, claim)| (*number, claim))
    }

    fn forget(&mut self, number: u64) {
        let Some(claim) = self.claims.remove(&number) else { return };
        if !self.claims.values().any(|other| other.request == claim.request) {
            self.needs.remove(&claim.request);
        }
    }
}

/// How long after an answer the next refresh is due: a third of the life, so that two may be lost.
fn self_refresh(ttl_ms: u64) -> Duration {
    Duration::from_millis(ttl_ms / 3)
}

#[cfg(test)]
mod tests;
