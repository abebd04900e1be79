//! What each side does about what happens: the real cores, what they have made durable, and the rules, judged after
//! every step.

use super::letters::{Reply, Request, put};
use super::mutants::Mutant;
use super::pair::{Space, State, Wall};
use crate::reservation::naive::cpu;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tradewind_protocol::reservation::holder::{self, Holder, Needs, Part, RequestId, Stage};
use tradewind_protocol::reservation::lease::Clocks;
use tradewind_protocol::reservation::ledger::invariants::{self, Promise};
use tradewind_protocol::reservation::ledger::{Change, Config, Error, Granted, Input, Ledger, Output, WALL_GUARD};
use tradewind_protocol::reservation::message::{Answer, Claim};
use tradewind_protocol::reservation::{Confidence, Now, ReservationId, Terms, Tier, Window, first_number};
use tradewind_protocol::{InstanceId, RegionId, TenantName, Timestamp};

pub(super) const TICK: Duration = Duration::from_secs(1);
/// The window of every part.
const BEGIN: Timestamp = Timestamp::EPOCH;
pub(super) static END: LazyLock<Timestamp> = LazyLock::new(|| BEGIN.after(TICK * 1_000_000));

static OWNER: LazyLock<RegionId> = LazyLock::new(|| "owner".parse().unwrap());
static HOLDER: LazyLock<RegionId> = LazyLock::new(|| "holder".parse().unwrap());
static INSTANCE: LazyLock<InstanceId> = LazyLock::new(|| "instance".parse().unwrap());
static PART: LazyLock<Part> = LazyLock::new(|| {
    let window = Window { from: BEGIN, until: *END };
    let (tenant, confidence) = (TenantName::default(), Confidence::CERTAIN);
    let terms = Terms { tenant, unit: cpu(1), units: 1, window, tier: Tier::Firm, confidence };
    Part { owner: OWNER.clone(), pool: "web".parse().unwrap(), terms }
});

/// What a wall clock that is right shows.
pub(super) fn right(ticks: u32) -> Timestamp {
    let right = BEGIN.after(TICK * ticks);
    assert!(right < *END, "the window is over, which the reductions do not expect");
    right
}

pub(super) fn id(number: u64) -> ReservationId {
    ReservationId::remote(&HOLDER, number)
}

fn instance() -> ReservationId {
    ReservationId::Instance(INSTANCE.clone())
}

impl Space {
    pub(super) fn new_holder(&self, life: u32) -> Holder {
        let settings = holder::Config { clocks: self.clocks(), ttl: TICK * self.ttl, retry: TICK, give_up: TICK * 2 };
        Holder::new(settings, self.first_number(life))
    }

    /// One clock may stand still once in a promise's life of `t` ticks: from `t (1 - d) / (1 + d) <= t - 1`.
    fn clocks(&self) -> Clocks {
        let drift_ppm = if self.mutant == Mutant::NoDriftMargin || !self.drift { 0 } else { 1_000_000 / (2 * self.ttl - 1) + 1 };
        Clocks { drift_ppm, pause_guard: Duration::ZERO }
    }

    /// For how long from a sending on its answer is relied upon.
    pub(super) fn holder_ttl(&self) -> Duration {
        self.clocks().holder_ttl(TICK * self.ttl)
    }

    pub(super) fn first_number(&self, life: u32) -> u64 {
        first_number(u64::from(if self.mutant == Mutant::NumbersReused { 1 } else { 1 + life }))
    }

    pub(super) fn config(&self) -> Config {
        Config { max_ttl: TICK * self.ttl, ..Config::plain(cpu(1)) }
    }

    /// What the owner takes for now.
    fn taken_now(&self, state: &State, wall: Wall) -> Now {
        let Now { wall: shown, uptime } = state.owner_now(wall);
        match (self.mutant, wall) {
            (Mutant::TtlByWallClock, Wall::Jumped) => Now { wall: shown, uptime: uptime + TICK * 2 },
            (Mutant::NoWallGuard, Wall::Jumped) => Now { wall: shown.after(WALL_GUARD), uptime },
            _ => Now { wall: shown, uptime },
        }
    }

    /// What the holder relies on, the owner counts, and so does it a moment later if it looks at its clock.
    pub(super) fn judge(&self, last: &State, state: &mut State) {
        let now = state.holder_now();
        for course in state.holder.courses(now) {
            let believes = self.mutant == Mutant::BelievesForEver && matches!(course.stage, Stage::Confirming | Stage::Confirmed);
            if !believes && !state.holder.relies_on(course.number, now) {
                continue;
            }
            let id = id(course.number);
            let gone = |wall: &Wall| {
                let mut owner_now = self.taken_now(state, *wall);
                if self.mutant == Mutant::LapsesEarly {
                    owner_now.uptime += TICK;
                }
                state.ledger.remaining(&id, owner_now) == Some(Duration::ZERO)
            };
            let believed = Promise { id: id.clone(), terms: PART.terms.clone(), ttl: TICK, taken: TICK };
            if self.walls().iter().any(gone) || invariants::r2_belief_is_right(&state.ledger, &believed).is_err() {
                state.broken = Some("R2");
            }
        }
        if !Arc::ptr_eq(&last.ledger, &state.ledger) {
            if invariants::check(&state.ledger).is_err() {
                state.broken = Some("R1");
            }
            if invariants::r6_placing_conserves(&state.ledger).is_err() {
                state.broken = Some("R6");
            }
        }
        if state.ended.iter().any(|number| state.ledger.get(&id(*number)).is_some()) {
            state.broken = Some("R3");
        }
    }

    pub(super) fn holder_asks(&self, state: &mut State) {
        let request = RequestId(state.asked.len() as u64);
        state.asked.push(state.holder.next_number());
        self.at_holder(state, holder::Input::Ask { request, parts: vec![PART.clone()], needs: Needs::All });
    }

    pub(super) fn holder_drops(&self, state: &mut State, request: RequestId) {
        self.at_holder(state, holder::Input::Drop(request));
    }

    pub(super) fn holder_hears(&self, state: &mut State, reply: Reply) {
        let mut answer = reply.into_answer(TICK * self.ttl);
        if self.mutant == Mutant::CountsFromLastSending
            && let Answer::Held { claim, .. } = &mut answer
            && let Some(course) = state.holder.courses(state.holder_now()).find(|course| course.number == claim.number)
        {
            claim.nonce = course.nonce;
        }
        self.at_holder(state, holder::Input::Answered { owner: OWNER.clone(), answer });
    }

    pub(super) fn holder_looks(&self, state: &mut State) {
        self.at_holder(state, holder::Input::Tick);
    }

    pub(super) fn holder_crashes(&self, state: &mut State) {
        state.life += 1;
        state.holder_up = 0;
        state.holder = Arc::new(self.new_holder(state.life));
    }

    fn at_holder(&self, state: &mut State, input: holder::Input) {
        let now = state.holder_now();
        for output in Arc::make_mut(&mut state.holder).handle(input, now) {
            match output {
                holder::Output::Send { message, .. } => put(&mut state.to_owner, Request::from_message(message)),
                holder::Output::Granted { .. } => self.seen.granted.store(true, Ordering::Relaxed),
                holder::Output::Refused { .. } | holder::Output::Lost { .. } => {}
            }
        }
    }

    pub(super) fn owner_looks(&self, state: &mut State, wall: Wall) {
        self.tell(state, Input::Tick, wall);
    }

    pub(super) fn owner_places(&self, state: &mut State, number: u64) {
        self.tell(state, Input::Place { of: id(number), id: INSTANCE.clone() }, Wall::Right);
    }

    pub(super) fn owner_stops(&self, state: &mut State) {
        self.tell(state, Input::Release { id: instance() }, Wall::Right);
    }

    pub(super) fn owner_crashes(&self, state: &mut State) {
        state.owner_up = 0;
        let now = state.owner_now(Wall::Right);
        let mut ledger = Ledger::new(self.config());
        for change in state.durable.iter() {
            ledger.restore(change.clone(), now);
        }
        state.ledger = Arc::new(ledger);
        if self.mutant == Mutant::TtlNotRestarted {
            // As if all of its ticks but one had passed before.
            state.owner_up = self.ttl - 1;
        }
        for (_, taken, nonce) in &mut state.promises {
            (*taken, *nonce) = (TICK * state.owner_up, 0);
        }
    }

    pub(super) fn owner_hears(&self, state: &mut State, request: Request, wall: Wall) {
        let ttl = TICK * self.ttl;
        let answer = match request {
            Request::Hold { claim, settled_below } => {
                let below = settled_below.min(claim.number);
                self.tell(state, Input::Settled { holder: HOLDER.clone(), below }, wall);
                let input = Input::Hold { id: id(claim.number), terms: PART.terms.clone(), ttl, nonce: claim.nonce };
                self.ask_ledger(state, claim, input, wall)
            }
            Request::Confirm(claim) => self.ask_ledger(state, claim, Input::Confirm { id: id(claim.number), nonce: claim.nonce }, wall),
            Request::Refresh(claims) => {
                let mut refresh = |claim: Claim| {
                    let input = Input::Refresh { id: id(claim.number), nonce: claim.nonce };
                    self.ask_ledger(state, claim, input, wall)
                };
                Answer::Many(claims.into_iter().map(&mut refresh).collect())
            }
            Request::Release(number) => {
                let known = state.ledger.get(&id(number)).is_some();
                state.promises.retain(|(promised, ..)| *promised != number);
                put(&mut state.ended, number);
                if self.mutant == Mutant::EarlyReleaseForgotten && !known {
                    Answer::Released { number }
                } else {
                    self.ask_ledger(state, Claim { number, nonce: 0 }, Input::Release { id: id(number) }, wall)
                }
            }
        };
        put(&mut state.to_holder, Reply::from_answer(answer, ttl));
    }

    fn ask_ledger(&self, state: &mut State, claim: Claim, input: Input, wall: Wall) -> Answer {
        Answer::of(claim, self.tell(state, input, wall))
    }

    fn tell(&self, state: &mut State, input: Input, wall: Wall) -> Option<Result<Granted, Error>> {
        let asked = match &input {
            Input::Hold { id: ReservationId::Remote { number, .. }, nonce, .. }
            | Input::Confirm { id: ReservationId::Remote { number, .. }, nonce }
            | Input::Refresh { id: ReservationId::Remote { number, .. }, nonce } => Some((*number, *nonce)),
            _ => None,
        };
        let now = self.taken_now(state, wall);
        let truth = state.owner_now(wall);
        let ledger = Arc::make_mut(&mut state.ledger);
        let mut outputs = vec![];
        if self.mutant == Mutant::LapsesEarly {
            outputs.extend(ledger.handle(Input::Tick, Now { uptime: now.uptime + TICK, ..now }));
        }
        outputs.extend(ledger.handle(input, now));
        let promise = |number: u64, taken: Duration| Promise { id: id(number), terms: PART.terms.clone(), ttl: TICK * self.ttl, taken };
        let mut answer = None;
        for output in outputs {
            match output {
                Output::Persist(change) => self.persist(state, change),
                Output::Reply(_, _, reply) => answer = Some(reply),
                Output::Preempted { .. } => state.broken = Some("R5"),
                Output::Lapsed(ReservationId::Instance(_)) => state.broken = Some("R6"),
                Output::Lapsed(ReservationId::Remote { number, .. }) => {
                    self.seen.lapsed.store(true, Ordering::Relaxed);
                    put(&mut state.ended, number);
                    if let Some(place) = state.promises.iter().position(|(promised, ..)| *promised == number) {
                        let (_, taken, _) = state.promises.remove(place);
                        if invariants::r5_firm_is_kept(&state.ledger, &promise(number, taken), truth).is_err() {
                            state.broken = Some("R5");
                        }
                    }
                }
            }
        }
        if let (Some((number, nonce)), Some(Ok(Granted::Stands { .. }))) = (asked, &answer) {
            match state.promises.iter_mut().find(|(promised, ..)| *promised == number) {
                Some((_, taken, newest)) if nonce > *newest => (*taken, *newest) = (truth.uptime, nonce),
                Some(_) => {}
                None => put(&mut state.promises, (number, truth.uptime, nonce)),
            }
        }
        let late = |(number, taken, _): &(u64, Duration, u32)| {
            invariants::r4_unrefreshed_is_back(&state.ledger, &promise(*number, *taken), truth).is_err()
        };
        if state.promises.iter().any(late) {
            state.broken = Some("R4");
        }
        answer
    }

    fn persist(&self, state: &mut State, change: Change) {
        let about = |id: &ReservationId| {
            let id = id.clone();
            move |kept: &Change| match kept {
                Change::Live(reservation) => reservation.id == id,
                Change::Ended(ended) => *ended == id,
                Change::LowWater { .. } => false,
            }
        };
        let durable = Arc::make_mut(&mut state.durable);
        match &change {
            Change::Live(reservation) => {
                let lost = match self.mutant {
                    Mutant::GrantNotDurable => !reservation.id.is_instance(),
                    Mutant::PlacingNotDurable => reservation.id.is_instance(),
                    _ => false,
                };
                if !lost {
                    let about = about(&reservation.id);
                    durable.retain(|kept| !about(kept));
                    durable.insert(0, change);
                }
            }
            Change::Ended(id) => {
                let about = about(id);
                durable.retain(|kept| !about(kept));
                if self.mutant != Mutant::EndNotDurable && !id.is_instance() {
                    durable.push(change);
                }
            }
            Change::LowWater { .. } => panic!("the mark is not raised for so few numbers"),
        }
        // Which of them was last does not matter.
        durable.sort_by_key(|change| match change {
            Change::Live(reservation) => (0, reservation.id.clone()),
            Change::Ended(id) => (1, id.clone()),
            Change::LowWater { .. } => (2, instance()),
        });
    }
}
