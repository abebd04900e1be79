//! Both sides exhaustively, in small: the real cores of one owner and one holder, every order of everything
//! that can happen within the bound.
//!
//! The network is the set of all messages ever sent: any of them may arrive at any time, again and again, or
//! never, so that loss, repetition, reordering and delay need no steps of their own. Both machines may crash
//! after any step; a step is atomic, because a shell answers only what is durable, and a crash in between is one
//! before the step, or one after it whose answer is lost. Time passes in ticks of one second; at any of them
//! one of the two clocks may stand still, once in the four ticks that a promise lives, which is the drift
//! that the holder is told to expect. Neither side looks at its clock unless that step is taken: a pause is a
//! row of ticks without it. The owner's wall clock may jump.
//!
//! `cargo test` looks at the nearest states only; `TRADEWIND_MODEL=1000000 cargo test --release -p tradewind-protocol --test main
//! model -- --nocapture` at so many of the nearest, and `TRADEWIND_MODEL=deep` at all within the bound, for which 15 GB were too little.

use crate::reservation::naive::{at, cpu};
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::reservation::holder::{self, Holder, Needs, Part, RequestId};
use tradewind_protocol::reservation::lease::Clocks;
use tradewind_protocol::reservation::ledger::invariants::{self, Promise};
use tradewind_protocol::reservation::ledger::{Change, Config, Error, Granted, Input, Ledger, Output};
use tradewind_protocol::reservation::message::{Answer, Claim, Message, Refusal};
use tradewind_protocol::reservation::{Confidence, Now, ReservationId, Terms, Tier, Window, first_number};
use tradewind_protocol::wire::codec;
use tradewind_protocol::{RegionId, TenantName};

const TICK: Duration = Duration::from_secs(1);
const TTL_TICKS: u32 = 4;
/// One clock may stand still once in a promise's life: from 4 (1 - d) / (1 + d) <= 3.
const DRIFT_PPM: u32 = 143_000;

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// The holder assumes that clocks do not drift.
    NoDriftMargin,
    /// The holder counts from its newest request, whichever was answered.
    CountsFromLastSending,
    /// The holder relies on what was once promised.
    BelievesForEver,
    /// A grant is answered and not written.
    GrantNotDurable,
    /// The end of a reservation is not written.
    EndNotDurable,
    /// What was restored lapses as if the owner had not been away.
    TtlNotRestarted,
    /// A holder's next life uses the numbers of the last.
    NumbersReused,
    /// The owner counts promises by its wall clock.
    TtlByWallClock,
    /// The owner forgets a release of what it does not know yet.
    EarlyReleaseForgotten,
    /// The owner gives a promise back to the pool a tick early.
    LapsesEarly,
}

struct Pair {
    mutant: Mutant,
    ticks: u32,
    asks: u32,
    crashes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    ledger: Ledger,
    holder: Holder,
    durable: BTreeMap<String, Change>,
    to_owner: BTreeSet<Vec<u8>>,
    to_holder: BTreeSet<Vec<u8>>,
    /// Ticks of each clock since its machine's start.
    owner_up: u32,
    holder_up: u32,
    /// Ticks since the beginning.
    ticks: u32,
    /// When a clock last stood still.
    slipped: Option<u32>,
    jumped: bool,
    life: u64,
    asked: u32,
    crashes: u32,
    /// What the owner has said and not been released of.
    promises: BTreeMap<ReservationId, (Promise, u32)>,
    /// Ids that have ended.
    ended: BTreeSet<ReservationId>,
    /// The newest request about each number.
    newest: BTreeMap<u64, u32>,
    broken: Option<&'static str>,
    granted: bool,
    lapsed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Ask,
    Drop(RequestId),
    ToOwner(Vec<u8>),
    ToHolder(Vec<u8>),
    OwnerLooks,
    HolderLooks,
    Tick(Clock),
    OwnerCrashes,
    HolderCrashes,
    WallClockJumps,
}

/// Which clocks go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Clock {
    Both,
    OwnerOnly,
    HolderOnly,
}

fn owner_name() -> RegionId {
    "owner".parse().unwrap()
}

fn holder_name() -> RegionId {
    "holder".parse().unwrap()
}

fn config() -> Config {
    Config { max_ttl: TICK * TTL_TICKS, ..Config::plain(cpu(1)) }
}

impl State {
    fn owner_now(&self, mutant: Mutant) -> Now {
        let jump = if self.jumped { 3 } else { 0 };
        let early = u32::from(mutant == Mutant::LapsesEarly && self.owner_up >= TTL_TICKS - 1);
        let uptime = self.owner_up + early + if mutant == Mutant::TtlByWallClock { jump } else { 0 };
        Now { wall: at(1_000 * i64::from(1_000 + self.ticks + jump)), uptime: TICK * uptime }
    }

    fn holder_now(&self) -> Now {
        Now { wall: at(1_000 * i64::from(1_000 + self.ticks)), uptime: TICK * self.holder_up }
    }

    /// What the holder relies on, the owner counts, and so does it a moment later if it looks at its clock.
    fn judge(&mut self, mutant: Mutant) {
        let now = self.holder_now();
        let owner_now = self.owner_now(mutant);
        for standing in self.holder.standings(now) {
            let relies = self.holder.relies_on(standing.number, now) || (mutant == Mutant::BelievesForEver && standing.phase.is_some());
            if !relies {
                continue;
            }
            let id = ReservationId::remote(&holder_name(), standing.number);
            let due = self.ledger.remaining(&id, owner_now);
            let believed = Promise { id, terms: standing.part.terms, ttl: TICK, taken: TICK };
            if due == Some(Duration::ZERO) || invariants::r2_belief_is_right(&self.ledger, &believed).is_err() {
                self.broken = Some("R2");
            }
        }
        if invariants::check(&self.ledger).is_err() {
            self.broken = Some("R1");
        }
        if self.ended.iter().any(|id| self.ledger.get(id).is_some()) {
            self.broken = Some("R3");
        }
    }

    fn at_holder(&mut self, input: holder::Input) {
        for output in self.holder.handle(input, self.holder_now()) {
            match output {
                holder::Output::Send { message, .. } => {
                    let mut note = |claim: &Claim| {
                        self.newest.insert(claim.number, claim.nonce);
                    };
                    match &message {
                        Message::Hold { number, nonce, .. } => note(&Claim { number: *number, nonce: *nonce }),
                        Message::Confirm { claim, .. } => note(claim),
                        Message::Refresh { claims, .. } => claims.iter().for_each(note),
                        Message::Release { .. } | Message::Preempted { .. } => {}
                    }
                    self.to_owner.insert(codec::encode(&message).unwrap());
                }
                holder::Output::Granted { .. } => self.granted = true,
                holder::Output::Refused { .. } | holder::Output::Lost { .. } => {}
            }
        }
    }

    fn at_owner(&mut self, mutant: Mutant, message: Message) {
        let id = |number| ReservationId::remote(&holder_name(), number);
        let answer = match message {
            Message::Hold { number, nonce, terms, ttl_ms, settled_below, .. } => {
                self.tell(mutant, Input::Settled { holder: holder_name(), below: settled_below.min(number) });
                let input = Input::Hold { id: id(number), terms, ttl: Duration::from_millis(ttl_ms), nonce };
                self.ask_ledger(mutant, Claim { number, nonce }, input)
            }
            Message::Confirm { claim, .. } => self.ask_ledger(mutant, claim, Input::Confirm { id: id(claim.number), nonce: claim.nonce }),
            Message::Refresh { claims, .. } => Answer::Many(
                claims
                    .into_iter()
                    .map(|claim| self.ask_ledger(mutant, claim, Input::Refresh { id: id(claim.number), nonce: claim.nonce }))
                    .collect(),
            ),
            Message::Release { number, .. } => {
                let known = self.ledger.get(&id(number)).is_some();
                self.promises.remove(&id(number));
                self.ended.insert(id(number));
                if mutant == Mutant::EarlyReleaseForgotten && !known {
                    Answer::Released { number }
                } else {
                    self.ask_ledger(mutant, Claim { number, nonce: 0 }, Input::Release { id: id(number) })
                }
            }
            Message::Preempted { .. } => return,
        };
        self.to_holder.insert(codec::encode(&answer).unwrap());
    }

    fn ask_ledger(&mut self, mutant: Mutant, claim: Claim, input: Input) -> Answer {
        match self.tell(mutant, input) {
            Some(Ok(Granted::Stands { phase, ttl })) => Answer::Held { claim, phase, ttl_ms: ttl.as_millis() as u64 },
            Some(Ok(Granted::Released)) => Answer::Released { number: claim.number },
            Some(Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. })) if !offers.is_empty() => {
                Answer::Countered { claim, offers }
            }
            Some(Err(error)) => Answer::Refused { claim, reason: Refusal::Ledger(error) },
            None => Answer::Noted,
        }
    }

    fn tell(&mut self, mutant: Mutant, input: Input) -> Option<Result<Granted, Error>> {
        let asked = match &input {
            Input::Hold { id, terms, ttl, nonce } => Some((id.clone(), Some((terms.clone(), *ttl)), *nonce)),
            Input::Confirm { id, nonce } | Input::Refresh { id, nonce } => Some((id.clone(), None, *nonce)),
            _ => None,
        };
        let now = self.owner_now(mutant);
        let truth = self.owner_now(Mutant::None);
        let mut answer = None;
        for output in self.ledger.handle(input, now) {
            match output {
                Output::Persist(change) => self.persist(mutant, change),
                Output::Reply(_, _, reply) => answer = Some(reply),
                Output::Preempted { .. } => self.broken = Some("R5"),
                Output::Lapsed(id) => {
                    self.lapsed = true;
                    self.ended.insert(id.clone());
                    if let Some((promise, _)) = self.promises.remove(&id)
                        && invariants::r5_firm_is_kept(&self.ledger, &promise, truth).is_err()
                    {
                        self.broken = Some("R5");
                    }
                }
            }
        }
        if let (Some((id, terms, nonce)), Some(Ok(Granted::Stands { .. }))) = (asked, &answer) {
            match (self.promises.get_mut(&id), terms) {
                (Some((promise, newest)), _) if nonce > *newest => (promise.taken, *newest) = (truth.uptime, nonce),
                (None, Some((terms, ttl))) => {
                    self.promises.insert(id.clone(), (Promise { id, terms, ttl, taken: truth.uptime }, nonce));
                }
                (Some(_), _) | (None, None) => {}
            }
        }
        if self.promises.values().any(|(promise, _)| invariants::r4_unrefreshed_is_back(&self.ledger, promise, truth).is_err()) {
            self.broken = Some("R4");
        }
        answer
    }

    fn persist(&mut self, mutant: Mutant, change: Change) {
        match &change {
            Change::Live(reservation) => {
                if mutant != Mutant::GrantNotDurable {
                    self.durable.insert(format!("live/{}", reservation.id), change);
                }
            }
            Change::Ended(id) => {
                self.durable.remove(&format!("live/{id}"));
                if mutant != Mutant::EndNotDurable {
                    self.durable.insert(format!("spent/{id}"), change);
                }
            }
            Change::LowWater { holder, .. } => drop(self.durable.insert(format!("mark/{holder}"), change)),
        }
    }
}

impl Pair {
    fn new_holder(&self, life: u64) -> Holder {
        let drift_ppm = if self.mutant == Mutant::NoDriftMargin { 0 } else { DRIFT_PPM };
        let settings = holder::Config {
            clocks: Clocks { drift_ppm, pause_guard: Duration::ZERO },
            ttl: TICK * TTL_TICKS,
            retry: TICK,
            give_up: TICK * 2,
        };
        Holder::new(settings, first_number(if self.mutant == Mutant::NumbersReused { 1 } else { life }))
    }
}

impl Model for Pair {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            ledger: Ledger::new(config()),
            holder: self.new_holder(1),
            durable: BTreeMap::new(),
            to_owner: BTreeSet::new(),
            to_holder: BTreeSet::new(),
            owner_up: 0,
            holder_up: 0,
            ticks: 0,
            slipped: None,
            jumped: false,
            life: 1,
            asked: 0,
            crashes: 0,
            promises: BTreeMap::new(),
            ended: BTreeSet::new(),
            newest: BTreeMap::new(),
            broken: None,
            granted: false,
            lapsed: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.broken.is_some() {
            return;
        }
        if state.asked < self.asks {
            steps.push(Step::Ask);
        }
        let requests: BTreeSet<RequestId> = state.holder.standings(state.holder_now()).map(|standing| standing.request).collect();
        steps.extend(requests.into_iter().map(Step::Drop));
        steps.extend(state.to_owner.iter().cloned().map(Step::ToOwner));
        steps.extend(state.to_holder.iter().cloned().map(Step::ToHolder));
        steps.extend([Step::OwnerLooks, Step::HolderLooks]);
        if state.ticks < self.ticks {
            steps.push(Step::Tick(Clock::Both));
            if state.slipped.is_none_or(|at| state.ticks >= at + TTL_TICKS) {
                steps.extend([Step::Tick(Clock::OwnerOnly), Step::Tick(Clock::HolderOnly)]);
            }
        }
        if state.crashes < self.crashes {
            steps.extend([Step::OwnerCrashes, Step::HolderCrashes]);
        }
        if !state.jumped {
            steps.push(Step::WallClockJumps);
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Ask => {
                let terms = Terms {
                    tenant: TenantName::default(),
                    unit: cpu(1),
                    units: 1,
                    window: Window { from: at(1_000_000), until: at(9_000_000) },
                    tier: Tier::Firm,
                    confidence: Confidence::CERTAIN,
                };
                let part = Part { owner: owner_name(), pool: "web".parse().unwrap(), terms };
                let request = RequestId(u64::from(state.asked));
                state.asked += 1;
                state.at_holder(holder::Input::Ask { request, parts: vec![part], needs: Needs::All });
            }
            Step::Drop(request) => state.at_holder(holder::Input::Drop(request)),
            Step::ToOwner(bytes) => state.at_owner(self.mutant, codec::decode(&bytes).unwrap()),
            Step::ToHolder(bytes) => {
                let mut answer: Answer = codec::decode(&bytes).unwrap();
                if self.mutant == Mutant::CountsFromLastSending
                    && let Answer::Held { claim, .. } = &mut answer
                    && let Some(newest) = state.newest.get(&claim.number)
                {
                    claim.nonce = *newest;
                }
                state.at_holder(holder::Input::Answered { owner: owner_name(), answer });
            }
            Step::OwnerLooks => drop(state.tell(self.mutant, Input::Tick)),
            Step::HolderLooks => state.at_holder(holder::Input::Tick),
            Step::Tick(clock) => {
                state.ticks += 1;
                state.owner_up += u32::from(clock != Clock::HolderOnly);
                state.holder_up += u32::from(clock != Clock::OwnerOnly);
                if clock != Clock::Both {
                    state.slipped = Some(state.ticks);
                }
            }
            Step::OwnerCrashes => {
                state.crashes += 1;
                state.owner_up = 0;
                state.ledger = Ledger::new(config());
                let now = state.owner_now(Mutant::None);
                for change in state.durable.values() {
                    state.ledger.restore(change.clone(), now);
                }
                if self.mutant == Mutant::TtlNotRestarted {
                    // As if three of its ticks had passed before.
                    state.owner_up = TTL_TICKS - 1;
                }
                for (promise, nonce) in state.promises.values_mut() {
                    (promise.taken, *nonce) = (TICK * state.owner_up, 0);
                }
            }
            Step::HolderCrashes => {
                state.crashes += 1;
                state.life += 1;
                state.holder_up = 0;
                state.holder = self.new_holder(state.life);
            }
            Step::WallClockJumps => state.jumped = true,
        }
        state.judge(self.mutant);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, state: &State| state.broken.is_none()),
            Property::sometimes("a request is granted", |_, state: &State| state.granted),
            Property::sometimes("a promise lapses", |_, state: &State| state.lapsed),
            Property::sometimes("two requests have been granted", |_, state: &State| state.granted && state.ended.len() > 1),
        ]
    }
}

/// How many states `cargo test` looks at, the nearest first: a few seconds in a build without optimisation.
const SHALLOW_STATES: usize = 20_000;

/// How many states are looked at in this run, the nearest first; none for all of them.
fn states() -> Option<usize> {
    let asked = std::env::var("TRADEWIND_MODEL").unwrap_or_default();
    if is_deep() { None } else { Some(asked.parse().unwrap_or(SHALLOW_STATES)) }
}

fn is_deep() -> bool {
    std::env::var("TRADEWIND_MODEL").is_ok_and(|depth| depth == "deep")
}

#[test]
fn no_order_of_events_breaks_a_rule() {
    let bounds: &[(u32, u32, u32)] = if is_deep() { &[(5, 1, 0), (4, 1, 1)] } else { &[(5, 1, 1)] };
    for &(ticks, asks, crashes) in bounds {
        let checker = Pair { mutant: Mutant::None, ticks, asks, crashes }.checker().threads(2);
        let checker = states().into_iter().fold(checker, |checker, most| checker.target_state_count(most));
        let checker = checker.spawn_bfs().join();
        println!(
            "{ticks} ticks, {asks} requests, {crashes} crashes: {} states, {} generated, depth {}, {}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
            if is_deep() { "complete" } else { "as far as the count goes" }
        );
        if let Some(path) = checker.discovery("no rule is broken") {
            let rule = path.last_state().broken;
            panic!("{rule:?}: {:#?}", path.into_actions());
        }
        assert!(checker.discovery("a request is granted").is_some());
        assert!(!is_deep() || checker.discovery("a promise lapses").is_some());
    }
}

#[test]
fn every_mutant_is_killed() {
    use Mutant::*;
    let mutants = [
        (NoDriftMargin, 5, 1, 0),
        (CountsFromLastSending, 5, 1, 0),
        (BelievesForEver, 5, 1, 0),
        (GrantNotDurable, 4, 1, 1),
        (EndNotDurable, 4, 1, 1),
        (TtlNotRestarted, 4, 1, 1),
        (NumbersReused, 5, 2, 1),
        (TtlByWallClock, 4, 1, 0),
        (EarlyReleaseForgotten, 4, 1, 0),
        (LapsesEarly, 5, 1, 0),
    ];
    for (mutant, ticks, asks, crashes) in mutants {
        if mutant == NumbersReused && states().is_some_and(|most| most <= SHALLOW_STATES) {
            println!("{mutant:?}: left to longer runs, it takes a hundred thousand states");
            continue;
        }
        let checker = Pair { mutant, ticks, asks, crashes }
            .checker()
            .threads(2)
            .finish_when(stateright::HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let Some(path) = checker.discovery("no rule is broken") else {
            panic!("{mutant:?} survives {} states", checker.unique_state_count());
        };
        let rule = path.last_state().broken;
        println!("{mutant:?}: {} in {} steps, {} states", rule.unwrap_or("-"), path.into_actions().len(), checker.unique_state_count());
    }
}
