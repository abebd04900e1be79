//! What can happen to one owner, one holder and the network between them: the model that is checked. What each side
//! does about it is in `sides`, which states are told apart in `reduce`.

use super::faithful::Blunder;
use super::letters::{Reply, Request, put};
use super::mutants::Mutant;
use super::reduce;
use super::sides::{END, TICK, right};
use stateright::{Model, Property};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tradewind_protocol::reservation::holder::{Holder, RequestId, Stage};
use tradewind_protocol::reservation::ledger::{Change, Ledger, WALL_GUARD};
use tradewind_protocol::reservation::{Now, ReservationId};

/// What may happen, and how often.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) mutant: Mutant,
    /// How many ticks a promise lives.
    pub(super) ttl: u32,
    /// How many requests the holder makes; all else happens any number of times.
    pub(super) asks: usize,
    /// Whether clocks may stand still.
    pub(super) drift: bool,
    /// Whether the owner's wall clock jumps.
    pub(super) jumps: bool,
    /// Whether an instance is started for what was agreed.
    pub(super) placing: bool,
    pub(super) blunder: Blunder,
    pub(super) seen: Arc<Seen>,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = if self.asks == 1 { "request" } else { "requests" };
        write!(f, "{} {requests}, a promise lives {} ticks, crashes", self.asks, self.ttl)?;
        let more = [(self.drift, ", drift"), (self.jumps, ", jumps"), (self.placing, ", instances")];
        more.iter().filter(|(with, _)| *with).try_for_each(|(_, what)| f.write_str(what))
    }
}

/// What has happened somewhere in a space.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) granted: AtomicBool,
    pub(super) lapsed: AtomicBool,
    pub(super) placed: AtomicBool,
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) ledger: Arc<Ledger>,
    pub(super) holder: Arc<Holder>,
    /// The last change of each id, those that stand first.
    pub(super) durable: Arc<Vec<Change>>,
    pub(super) to_owner: Vec<Request>,
    pub(super) to_holder: Vec<Reply>,
    /// Ticks of each clock since its machine's start.
    pub(super) owner_up: u32,
    pub(super) holder_up: u32,
    /// Ticks since the beginning.
    pub(super) ticks: u32,
    /// When a clock last stood still.
    pub(super) slipped: Option<u32>,
    /// The number of each request.
    pub(super) asked: Vec<u64>,
    /// How often the holder has crashed.
    pub(super) life: u32,
    /// What the owner has said and not been released of: of which number, when it last took a request, and which.
    pub(super) promises: Vec<(u64, Duration, u32)>,
    /// Numbers that have ended.
    pub(super) ended: Vec<u64>,
    pub(super) broken: Option<&'static str>,
    /// Of all that follows from it.
    pub(super) key: u64,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Ask,
    Drop(RequestId),
    ToOwner(Request, Wall),
    ToHolder(Reply),
    OwnerLooks(Wall),
    HolderLooks,
    Tick(Clock),
    OwnerCrashes,
    HolderCrashes,
    /// The owner starts an instance for a reservation.
    Places(u64),
    /// That instance ends.
    Stops,
}

/// Which clocks go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Both,
    OwnerOnly,
    HolderOnly,
}

/// What the owner's wall clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    Right,
    /// That the window is over, by less than the guard.
    Jumped,
}

impl State {
    pub(super) fn owner_now(&self, wall: Wall) -> Now {
        let wall = match wall {
            Wall::Right => right(self.ticks),
            Wall::Jumped => END.after(WALL_GUARD - TICK),
        };
        Now { wall, uptime: TICK * self.owner_up }
    }

    pub(super) fn holder_now(&self) -> Now {
        Now { wall: right(self.ticks), uptime: TICK * self.holder_up }
    }
}

impl Space {
    /// What the owner's wall clock may show.
    pub(super) fn walls(&self) -> &[Wall] {
        if self.jumps { &[Wall::Right, Wall::Jumped] } else { &[Wall::Right] }
    }

    /// What follows, with nothing left out.
    pub(super) fn follow(&self, last: &State, step: Step) -> State {
        let mut next = last.clone();
        let state = &mut next;
        match step {
            Step::Ask => self.holder_asks(state),
            Step::Drop(request) => self.holder_drops(state, request),
            Step::ToOwner(request, wall) => self.owner_hears(state, request, wall),
            Step::ToHolder(reply) => self.holder_hears(state, reply),
            Step::OwnerLooks(wall) => self.owner_looks(state, wall),
            Step::HolderLooks => self.holder_looks(state),
            Step::Tick(clock) => {
                state.ticks += 1;
                state.owner_up += u32::from(clock != Clock::HolderOnly);
                state.holder_up += u32::from(clock != Clock::OwnerOnly);
                if clock != Clock::Both {
                    state.slipped = Some(state.ticks);
                }
            }
            Step::OwnerCrashes => self.owner_crashes(state),
            Step::HolderCrashes => self.holder_crashes(state),
            Step::Places(number) => {
                self.seen.placed.store(true, Ordering::Relaxed);
                self.owner_places(state, number);
            }
            Step::Stops => self.owner_stops(state),
        }
        self.judge(last, state);
        next
    }
}

impl Model for Space {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            ledger: Arc::new(Ledger::new(self.config())),
            holder: Arc::new(self.new_holder(0)),
            durable: Arc::default(),
            to_owner: vec![],
            to_holder: vec![],
            owner_up: 0,
            holder_up: 0,
            ticks: 0,
            slipped: None,
            asked: vec![],
            life: 0,
            promises: vec![],
            ended: vec![],
            broken: None,
            key: 0,
        };
        reduce::settle(self, &mut state);
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        if state.asked.len() < self.asks {
            steps.push(Step::Ask);
        }
        let mut requests: Vec<RequestId> = vec![];
        for course in state.holder.courses(state.holder_now()).filter(|course| !matches!(course.stage, Stage::Releasing { .. })) {
            put(&mut requests, course.request);
        }
        steps.extend(requests.into_iter().map(Step::Drop));
        for wall in self.walls() {
            steps.extend(state.to_owner.iter().map(|request| Step::ToOwner(request.clone(), *wall)));
            steps.push(Step::OwnerLooks(*wall));
        }
        steps.extend(state.to_holder.iter().map(|reply| Step::ToHolder(reply.clone())));
        steps.push(Step::HolderLooks);
        steps.push(Step::Tick(Clock::Both));
        if self.drift && state.slipped.is_none_or(|at| state.ticks >= at + self.ttl) {
            steps.extend([Step::Tick(Clock::OwnerOnly), Step::Tick(Clock::HolderOnly)]);
        }
        steps.extend([Step::OwnerCrashes, Step::HolderCrashes]);
        if self.placing {
            let remote = |id: &ReservationId| match id {
                ReservationId::Remote { number, .. } => Some(*number),
                ReservationId::Instance(_) => None,
            };
            steps.extend(state.ledger.reservations().filter_map(|standing| remote(&standing.id)).map(Step::Places));
            steps.push(Step::Stops);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = self.follow(last, step);
        reduce::settle(self, &mut state);
        (state.key != last.key).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |_, state: &State| state.broken.is_none())]
    }
}
