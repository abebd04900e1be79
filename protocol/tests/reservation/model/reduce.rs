//! Which states are told apart: what of a state can still make a difference to what follows. Two states with the same
//! key do the same about the same steps, and come to states with the same keys.
//!
//! None of the times, nonces and messages of a state has an end; of what is left of them there is one. What is
//! left out, and why that changes nothing:
//!
//! - *Uptimes.* The cores only compare them with an instant that they noted, so only the distance counts, and
//!   only up to where it counts no more: an instant that is past stays past. Time goes in whole ticks, so distances
//!   are rounded up to them. What a stage does not look at is not looked at: `give_up` while nothing is waited for,
//!   `valid_until` while nothing stands.
//! - *Sendings* whose answer would come too late to be counted from. They are the oldest that the holder remembers,
//!   so they are the first to be forgotten, and an answer to them takes away none but those like them.
//! - *When a clock last stood still*, once it may again.
//! - *Wall clocks.* The cores compare them with the ends of windows only, and no window is over while a clock
//!   is right. Where the owner's is not, every step says so itself.
//! - *Nonces.* New ones are higher than all there were, old ones are compared, so only their order counts, and of what
//!   the owner has heard, how many of the requests that may still come it is above.
//! - *Numbers.* Ones are given once and in order, so the number's place among all that were given stands for it.
//! - *Answers without effect*: a grant that answers what is not awaited any more, for a nonce never comes back into
//!   the list of what is; an offer for what is not being asked for; anything about a claim that the holder has
//!   forgotten, and never again gives the number of. Their arrival is a look at the holder's clock, which is a step anyway.
//! - *Requests of another name*: a hold of what stands, or has ended, and a confirmation of what is
//!   confirmed, or has ended, do what a refresh does. A hold's `settled_below` does nothing before sixteen numbers have ended.
//! - *Requests about what has ended*, for ever, all get the same refusal. One is enough, and none is needed if the holder has
//!   forgotten the claim, or the refusal is on the network anyway: it stays there while it has an effect.
//! - *Requests about what stands whose answer has no effect*, if a newer one is left to be refused when it has ended.
//!   All that they do is to let the promise stand for its whole ttl from now, and a crash of the owner does the same,
//!   which is a step at any time: it forgets what was heard, but all that may still come is newer than the
//!   request. (A crash does so to every promise. There is one at a time: the capacity is one unit.)
//!
//! "For ever" means that a restart finds the same, so what is durable is asked as well; "never again" asks for the next
//! life's first number. So what a mutant forgets or uses again is not left out for it. `faithful` compares all this with
//! states of which nothing was left out.

use super::faithful::Blunder;
use super::letters::{Reply, Request, put};
use super::pair::{Space, State, Wall};
use super::sides::{TICK, id};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;
use tradewind_protocol::reservation::holder::{Course, Stage};
use tradewind_protocol::reservation::ledger::{Change, Reservation};
use tradewind_protocol::reservation::message::Claim;
use tradewind_protocol::reservation::{Phase, ReservationId};

/// Drops the messages that have no effect any more, and gives the state its key: 64 bits, so that among ten million
/// states two of the same key by chance are a matter of one in 400,000.
pub(super) fn settle(space: &Space, state: &mut State) {
    let courses: Vec<Course> = state.holder.courses(state.holder_now()).collect();
    let (to_owner, to_holder) = View { space, state, courses: &courses }.effective();
    (state.to_owner, state.to_holder) = (to_owner, to_holder);
    state.key = View { space, state, courses: &courses }.key();
}

/// A state, and what is asked about it.
struct View<'a> {
    space: &'a Space,
    state: &'a State,
    courses: &'a [Course],
}

/// How far the owner has come with a number, restarts or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Stands(Phase),
    Spent,
    /// Neither, or a restart would find something else.
    Nothing,
}

impl View<'_> {
    fn course(&self, number: u64) -> Option<&Course> {
        self.courses.iter().find(|course| course.number == number)
    }

    /// The holder may give this number to another request: none does but a mutant's.
    fn may_return(&self, number: u64) -> bool {
        number >= self.state.holder.next_number().min(self.space.first_number(self.state.life + 1))
    }

    /// The holder will never again do anything because of an answer about it.
    fn is_gone(&self, number: u64) -> bool {
        self.course(number).is_none() && !self.may_return(number)
    }

    /// What the holder has sent about a claim and would count from, oldest first.
    fn awaited(&self, course: &Course) -> impl Iterator<Item = (u32, Duration)> {
        let ttl = self.space.holder_ttl();
        course.sent.iter().copied().filter(move |(_, ago)| *ago < ttl)
    }

    fn is_awaited(&self, claim: Claim) -> bool {
        let awaits = |course| self.awaited(course).any(|(nonce, _)| nonce == claim.nonce);
        self.may_return(claim.number) || self.course(claim.number).is_some_and(awaits)
    }

    fn lasting(&self, number: u64) -> Lasting {
        let id = id(number);
        let now = match self.state.ledger.get(&id) {
            Some(standing) => Lasting::Stands(standing.phase),
            None if self.state.ledger.is_spent(&id) => Lasting::Spent,
            None => Lasting::Nothing,
        };
        let restored = |change: &Change| match change {
            Change::Live(reservation) if reservation.id == id => Some(Lasting::Stands(reservation.phase)),
            Change::Ended(ended) if *ended == id => Some(Lasting::Spent),
            Change::Live(_) | Change::Ended(_) | Change::LowWater { .. } => None,
        };
        let then = self.state.durable.iter().find_map(restored);
        if then == Some(now) { now } else { Lasting::Nothing }
    }

    /// The requests and answers that have an effect.
    fn effective(&self) -> (Vec<Request>, Vec<Reply>) {
        let (mut alike, mut replies) = (vec![], vec![]);
        self.state.to_holder.iter().filter_map(|reply| self.rest_of(reply)).for_each(|reply| put(&mut replies, reply));
        self.state.to_owner.iter().filter_map(|request| self.alike(request)).for_each(|request| put(&mut alike, request));
        let idle: Vec<bool> = alike.iter().map(|request| self.is_idle(request, &alike, &replies)).collect();
        let mut idle = idle.into_iter();
        alike.retain(|_| idle.next() == Some(false));
        (alike, replies)
    }

    /// What is left of an answer.
    fn rest_of(&self, reply: &Reply) -> Option<Reply> {
        let stage = |number: u64| self.course(number).map(|course| course.stage);
        let has_effect = match reply {
            Reply::Held { claim, phase } => {
                let newest = self.course(claim.number).is_none_or(|course| course.nonce == claim.nonce);
                if self.is_awaited(*claim) && (newest || self.space.blunder != Blunder::OldAnswers) {
                    // Whether it was confirmed by then makes no difference any more.
                    let done = matches!(stage(claim.number), Some(Stage::Confirmed | Stage::Releasing { .. }));
                    let phase = if done && *phase == Phase::Held { Phase::Confirmed } else { *phase };
                    return Some(Reply::Held { claim: *claim, phase });
                }
                false
            }
            Reply::Countered(number) => stage(*number) == Some(Stage::Holding) || self.may_return(*number),
            Reply::Refused { number, .. } => {
                !self.is_gone(*number) && (self.space.blunder != Blunder::Refusals || stage(*number) != Some(Stage::Confirmed))
            }
            Reply::Released(number) => !self.is_gone(*number),
            Reply::Many(replies) => {
                let mut rest: Vec<Reply> = replies.iter().filter_map(|reply| self.rest_of(reply)).collect();
                return if rest.len() > 1 { Some(Reply::Many(rest)) } else { rest.pop() };
            }
        };
        has_effect.then(|| reply.clone())
    }

    /// The plainest request that does the same.
    fn alike(&self, request: &Request) -> Option<Request> {
        match request {
            Request::Hold { claim, .. } => match self.lasting(claim.number) {
                Lasting::Nothing => Some(request.clone()),
                Lasting::Stands(_) | Lasting::Spent => Some(Request::Refresh(vec![*claim])),
            },
            Request::Confirm(claim) => match self.lasting(claim.number) {
                Lasting::Nothing | Lasting::Stands(Phase::Held) => Some(request.clone()),
                Lasting::Stands(Phase::Confirmed | Phase::Leaving) | Lasting::Spent => Some(Request::Refresh(vec![*claim])),
            },
            Request::Refresh(claims) if claims.len() > 1 => {
                let idle = |claim: &Claim| self.is_gone(claim.number) && self.lasting(claim.number) == Lasting::Spent;
                let rest: Vec<Claim> = claims.iter().copied().filter(|claim| !idle(claim)).collect();
                (!rest.is_empty()).then_some(Request::Refresh(rest))
            }
            Request::Refresh(_) | Request::Release(_) => Some(request.clone()),
        }
    }

    /// Whether it does nothing, now and later, that is not done without it.
    fn is_idle(&self, request: &Request, requests: &[Request], replies: &[Reply]) -> bool {
        let claim = match request {
            Request::Release(number) => {
                let answered = self.is_gone(*number) || replies.contains(&Reply::Released(*number));
                return self.lasting(*number) == Lasting::Spent && answered;
            }
            Request::Hold { claim, .. } | Request::Confirm(claim) => *claim,
            Request::Refresh(claims) => match claims[..] {
                [claim] => claim,
                _ => return false,
            },
        };
        let number = claim.number;
        let is_outdone = || {
            let outdoes = |other: &Request| matches!(other.claims(), [other] if other.number == number && other.nonce > claim.nonce);
            requests.iter().any(outdoes)
        };
        match self.lasting(number) {
            Lasting::Nothing => false,
            Lasting::Spent => {
                let refused = replies.contains(&Reply::Refused { number, ends: true });
                self.is_gone(number) || refused || is_outdone() || self.space.blunder == Blunder::AboutEnded
            }
            Lasting::Stands(phase) => {
                let confirms = matches!(request, Request::Confirm(_)) && phase == Phase::Held;
                let confirms = confirms && self.space.blunder != Blunder::OldConfirmations;
                !confirms && (self.is_gone(number) || (!self.is_awaited(claim) && is_outdone()))
            }
        }
    }

    fn key(&self) -> u64 {
        let (space, state) = (self.space, self.state);
        let mut hasher = DefaultHasher::new();
        let to = &mut hasher;
        (state.asked.len(), state.broken, self.name(state.holder.next_number())).hash(to);
        if space.blunder != Blunder::Slips {
            state.slipped.map_or(space.ttl, |at| space.ttl.min(state.ticks - at)).hash(to);
        }
        let nonces = self.nonces();
        let renamed = |claim: Claim| (self.name(claim.number), nonces.iter().filter(|older| is_as_old(**older, claim)).count());
        for course in self.courses {
            self.hash_course(course, renamed, to);
        }
        self.hash_owner(renamed, to);
        for request in &state.to_owner {
            match request {
                Request::Hold { claim, .. } => ('h', renamed(*claim)).hash(to),
                Request::Confirm(claim) => ('c', renamed(*claim)).hash(to),
                Request::Refresh(claims) => {
                    ('r', claims.len()).hash(to);
                    claims.iter().for_each(|claim| renamed(*claim).hash(to));
                }
                Request::Release(number) => ('g', self.name(*number)).hash(to),
            }
        }
        for reply in &state.to_holder {
            self.hash_reply(reply, renamed, to);
        }
        hasher.finish()
    }

    /// Which of all that were asked for.
    fn name(&self, number: u64) -> Option<usize> {
        self.state.asked.iter().position(|asked| *asked == number)
    }

    fn name_of(&self, id: &ReservationId) -> Option<usize> {
        match id {
            ReservationId::Instance(_) => None,
            ReservationId::Remote { number, .. } => self.name(*number),
        }
    }

    /// All that requests and answers are told apart by.
    fn nonces(&self) -> Vec<Claim> {
        let mut all = vec![];
        for course in self.courses {
            self.awaited(course).for_each(|(nonce, _)| put(&mut all, Claim { number: course.number, nonce }));
        }
        self.state.to_owner.iter().flat_map(Request::claims).for_each(|claim| put(&mut all, *claim));
        all
    }

    fn hash_course(&self, course: &Course, renamed: impl Fn(Claim) -> (Option<usize>, usize), to: &mut impl Hasher) {
        // Of the nonces the order counts; whatever is added here may count as well.
        let Course { number, request, needs, stage, send_in, give_up_in, valid_for, nonce: _, sent: _ } = course;
        let number = *number;
        ('a', self.name(number), request, needs, stage, in_ticks(*send_in)).hash(to);
        let (waits, valid) = (in_ticks(*give_up_in), in_ticks(*valid_for));
        match stage {
            Stage::Holding => waits.hash(to),
            Stage::Confirming => (waits, valid).hash(to),
            Stage::Held | Stage::Confirmed => valid.hash(to),
            Stage::Releasing { .. } => {}
        }
        for (nonce, ago) in self.awaited(course) {
            ('b', renamed(Claim { number, nonce }), ago).hash(to);
        }
    }

    fn hash_owner(&self, renamed: impl Fn(Claim) -> (Option<usize>, usize), to: &mut impl Hasher) {
        let (space, state) = (self.space, self.state);
        let now = state.owner_now(Wall::Right);
        let heard = |number: u64, nonce: u32| (space.blunder != Blunder::Heard).then(|| renamed(Claim { number, nonce }));
        let serves = |standing: &Reservation| standing.serves.as_ref().map(|id| self.name_of(id));
        for standing in state.ledger.reservations() {
            ('l', self.name_of(&standing.id), standing.phase, standing.placed, serves(standing)).hash(to);
            if let ReservationId::Remote { number, .. } = standing.id {
                let left = state.ledger.remaining(&standing.id, now).filter(|_| space.blunder != Blunder::Remaining);
                (left, heard(number, state.ledger.heard(&standing.id).unwrap_or(0))).hash(to);
            }
        }
        for number in state.asked.iter().filter(|number| state.ledger.is_spent(&id(**number))) {
            ('s', self.name(*number)).hash(to);
        }
        for change in state.durable.iter() {
            match change {
                Change::Live(kept) => ('d', self.name_of(&kept.id), kept.phase, kept.placed, serves(kept)).hash(to),
                Change::Ended(id) => ('e', self.name_of(id)).hash(to),
                Change::LowWater { .. } => {}
            }
        }
        for (number, taken, nonce) in &state.promises {
            let ago = now.uptime.saturating_sub(*taken).min(TICK * (space.ttl + 1));
            ('p', self.name(*number), Some(ago).filter(|_| space.blunder != Blunder::Remaining), heard(*number, *nonce)).hash(to);
        }
        state.ended.iter().for_each(|number| ('n', self.name(*number)).hash(to));
    }

    fn hash_reply(&self, reply: &Reply, renamed: impl Fn(Claim) -> (Option<usize>, usize) + Copy, to: &mut impl Hasher) {
        match reply {
            Reply::Held { claim, phase } => ('H', renamed(*claim), phase).hash(to),
            Reply::Countered(number) => ('C', self.name(*number)).hash(to),
            Reply::Refused { number, ends } => ('R', self.name(*number), ends).hash(to),
            Reply::Released(number) => ('G', self.name(*number)).hash(to),
            Reply::Many(replies) => {
                ('M', replies.len()).hash(to);
                replies.iter().for_each(|reply| self.hash_reply(reply, renamed, to));
            }
        }
    }
}

fn is_as_old(older: Claim, claim: Claim) -> bool {
    older.number == claim.number && older.nonce <= claim.nonce
}

/// How many ticks until then.
fn in_ticks(left: Duration) -> u128 {
    left.as_millis().div_ceil(TICK.as_millis())
}
