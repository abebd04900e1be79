//! Two owners and three holders under everything that goes wrong: clocks that drift by 500 ppm and jump by ten
//! seconds, pauses of three times a promise's life, lost, repeated and reordered messages, crashes of both
//! sides. The rules are judged from outside after every operation of a ledger.
//!
//! `cargo test` runs some tens of thousands of operations; `TRADEWIND_LEDGER_OPS=10000000 cargo test --release
//! -p tradewind-protocol --test main faults -- --nocapture` is the long check.

use crate::reservation::naive::{Chance, at, cpu};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;
use tradewind_protocol::reservation::holder::{self, Holder, Needs, Part, RequestId};
use tradewind_protocol::reservation::lease::Clocks;
use tradewind_protocol::reservation::ledger::invariants::{self, Promise};
use tradewind_protocol::reservation::ledger::{Change, Config, Error, Granted, Input, Ledger, Output};
use tradewind_protocol::reservation::message::{Answer, Claim, Message};
use tradewind_protocol::reservation::{Confidence, Now, ReservationId, Terms, Tier, Window};
use tradewind_protocol::{PoolName, RegionId, TenantName};

/// How many operations a check makes: `usual` ones, or what the environment says.
pub(crate) fn operations(usual: u64) -> u64 {
    std::env::var("TRADEWIND_LEDGER_OPS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

const OWNERS: usize = 2;
const HOLDERS: usize = 3;
const CAPACITY: u64 = 40;
const TTL: Duration = Duration::from_secs(3);
const SECOND: u64 = 1_000_000;
/// The clocks start well after 1970, so that they can jump back.
const EPOCH_MS: i64 = 1_000_000_000;

/// One machine's clocks. All times are microseconds.
struct Machine {
    /// Millionths by which its clocks run too fast.
    drift: i64,
    /// Added to real time.
    wall_offset: i64,
    booted: u64,
    paused_until: u64,
}

impl Machine {
    fn now(&self, real: u64) -> Now {
        let local = |real: u64| (real as i64 + real as i64 * self.drift / 1_000_000) as u64;
        let wall = EPOCH_MS + (local(real) as i64 + self.wall_offset) / 1_000;
        Now { wall: at(wall), uptime: Duration::from_micros(local(real) - local(self.booted)) }
    }
}

struct Owner {
    machine: Machine,
    ledger: Ledger,
    durable: BTreeMap<String, Change>,
    promises: BTreeMap<ReservationId, (Promise, u32)>,
}

struct Asker {
    machine: Machine,
    holder: Holder,
    life: u64,
    next_request: u64,
    open: Vec<RequestId>,
}

enum Event {
    ToOwner {
        owner: usize,
        from: usize,
        message: Message,
    },
    ToHolder {
        holder: usize,
        owner: usize,
        answer: Answer,
    },
    Preempted {
        holder: usize,
        owner: usize,
        number: u64,
        leave_by: tradewind_protocol::Timestamp,
    },
    /// An owner or holder looks at its clock.
    Wake(usize),
    /// Something goes wrong, or a holder wants something.
    Life,
}

/// What happened, so that a check that checked nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    operations: u64,
    granted: u64,
    refused: u64,
    lapsed: u64,
    preempted: u64,
    owner_crashes: u64,
    holder_crashes: u64,
    pauses: u64,
    jumps: u64,
    beliefs: u64,
    together: u64,
}

struct World {
    chance: Chance,
    real: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    owners: Vec<Owner>,
    askers: Vec<Asker>,
    seen: Seen,
}

fn region(name: &str, index: usize) -> RegionId {
    format!("{name}-{index}").parse().unwrap()
}

fn owner_name(index: usize) -> RegionId {
    region("owner", index)
}

fn pool() -> PoolName {
    "web".parse().unwrap()
}

fn config() -> Config {
    Config {
        overbooking_per_mille: 1_500,
        notice: Duration::from_secs(1),
        max_ttl: TTL,
        quotas: BTreeMap::from([("small".parse().unwrap(), 400)]),
        ..Config::plain(cpu(CAPACITY))
    }
}

fn new_holder(life: u64) -> Holder {
    let settings =
        holder::Config { clocks: Clocks::default(), ttl: TTL, retry: Duration::from_millis(400), give_up: Duration::from_secs(2) };
    Holder::new(settings, tradewind_protocol::reservation::first_number(life))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut machine = || Machine { drift: [-500, 500, 0][chance.below(3) as usize], wall_offset: 0, booted: 0, paused_until: 0 };
        let owners = (0..OWNERS).map(|_| Owner {
            machine: machine(),
            ledger: Ledger::new(config()),
            durable: BTreeMap::new(),
            promises: BTreeMap::new(),
        });
        let owners: Vec<Owner> = owners.collect();
        let askers: Vec<Asker> =
            (0..HOLDERS).map(|_| Asker { machine: machine(), holder: new_holder(1), life: 1, next_request: 0, open: vec![] }).collect();
        let mut world = Self {
            chance,
            real: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            owners,
            askers,
            seen: Seen::default(),
        };
        world.schedule(1, Event::Life);
        (0..OWNERS + HOLDERS).for_each(|node| world.schedule(1, Event::Wake(node)));
        world
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.queue.push(Reverse((at, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    /// Sends: lost once in ten, twice once in ten, between 1 and 200 ms on the way, once in fifty far longer.
    fn send(&mut self, make: impl Fn() -> Event) {
        let copies = if self.chance.one_in(10) { 0 } else { 1 + u64::from(self.chance.one_in(10)) };
        for _ in 0..copies {
            let most = if self.chance.one_in(50) { 8 * SECOND } else { SECOND / 5 };
            let delay = 1_000 + self.chance.below(most);
            self.schedule(self.real + delay, make());
        }
    }

    fn run(&mut self, operations: u64) {
        while self.seen.operations < operations {
            let Reverse((at, number)) = self.queue.pop().unwrap();
            self.real = at;
            let event = self.events.remove(&number).unwrap();
            // A machine that pauses handles what comes when it goes on.
            let resumes = match &event {
                Event::ToOwner { owner, .. } => self.owners[*owner].machine.paused_until,
                Event::ToHolder { holder, .. } | Event::Preempted { holder, .. } => self.askers[*holder].machine.paused_until,
                Event::Wake(node) => self.machine(*node).paused_until,
                Event::Life => 0,
            };
            if resumes > self.real {
                self.schedule(resumes, event);
                continue;
            }
            match event {
                Event::ToOwner { owner, from, message } => self.at_owner(owner, from, message),
                Event::ToHolder { holder, owner, answer } => {
                    self.at_holder(holder, holder::Input::Answered { owner: owner_name(owner), answer });
                }
                Event::Preempted { holder, owner, number, leave_by } => {
                    self.at_holder(holder, holder::Input::Preempted { owner: owner_name(owner), number, leave_by });
                }
                Event::Wake(node) => {
                    let next = if node < OWNERS {
                        self.tell(node, Input::Tick);
                        SECOND / 4
                    } else {
                        self.at_holder(node - OWNERS, holder::Input::Tick);
                        SECOND / 10
                    };
                    self.schedule(self.real + next, Event::Wake(node));
                }
                Event::Life => self.live(),
            }
            self.judge_beliefs();
        }
    }

    fn machine(&mut self, node: usize) -> &mut Machine {
        if node < OWNERS { &mut self.owners[node].machine } else { &mut self.askers[node - OWNERS].machine }
    }

    /// Something happens somewhere.
    fn live(&mut self) {
        let delay = 1_000 + self.chance.below(SECOND / 10);
        self.schedule(self.real + delay, Event::Life);
        let node = self.chance.below((OWNERS + HOLDERS) as u64) as usize;
        let real = self.real;
        match self.chance.below(400) {
            0 => {
                let length = self.chance.below(3 * TTL.as_micros() as u64);
                self.machine(node).paused_until = real + length;
                self.seen.pauses += 1;
            }
            1 => {
                // Never further than ten seconds from the truth.
                let offset = self.chance.below(20 * SECOND) as i64 - 10 * SECOND as i64;
                self.machine(node).wall_offset = offset;
                self.seen.jumps += 1;
            }
            2 => self.crash(node),
            3..=10 => {
                let asker = self.chance.below(HOLDERS as u64) as usize;
                let open = &mut self.askers[asker].open;
                if !open.is_empty() {
                    let request = open.remove(0);
                    self.at_holder(asker, holder::Input::Drop(request));
                }
            }
            _ if self.askers[node % HOLDERS].open.len() < 8 => self.ask(node % HOLDERS),
            _ => {
                self.askers[node % HOLDERS].open.remove(0);
            }
        }
    }

    fn ask(&mut self, asker: usize) {
        let wall = self.askers[asker].machine.now(self.real).wall;
        let from = wall.after(Duration::from_millis(self.chance.below(20_000)));
        let length = Duration::from_millis(1_000 + self.chance.below(20_000));
        let together = self.chance.one_in(3);
        let count = if together { OWNERS } else { 1 };
        let first = self.chance.below(OWNERS as u64) as usize;
        let terms = Terms {
            tenant: TenantName::new(if self.chance.one_in(4) { "small" } else { "large" }).unwrap(),
            unit: cpu(1),
            units: 1 + self.chance.below(12) as u32,
            window: Window::of(from, length),
            tier: if self.chance.one_in(3) { Tier::Soft } else { Tier::Firm },
            confidence: Confidence::nearest(self.chance.below(100) as f64 / 100.0),
        };
        let part = |n: usize| Part { owner: owner_name((first + n) % OWNERS), pool: pool(), terms: terms.clone() };
        let parts = (0..count).map(part).collect();
        let holder = &mut self.askers[asker];
        let request = RequestId(holder.next_request);
        holder.next_request += 1;
        holder.open.push(request);
        let needs = if together { Needs::All } else { Needs::Any };
        self.seen.together += u64::from(together);
        self.at_holder(asker, holder::Input::Ask { request, parts, needs });
    }

    fn crash(&mut self, node: usize) {
        let real = self.real;
        if node < OWNERS {
            self.seen.owner_crashes += 1;
            let owner = &mut self.owners[node];
            (owner.machine.booted, owner.machine.paused_until) = (real, real);
            let now = owner.machine.now(real);
            owner.ledger = Ledger::new(config());
            for change in owner.durable.values() {
                owner.ledger.restore(change.clone(), now);
            }
            // Every promise counts from anew.
            for (promise, nonce) in owner.promises.values_mut() {
                (promise.taken, *nonce) = (now.uptime, 0);
            }
            invariants::check(&owner.ledger).unwrap();
        } else {
            self.seen.holder_crashes += 1;
            let asker = &mut self.askers[node - OWNERS];
            asker.life += 1;
            (asker.machine.booted, asker.machine.paused_until) = (real, real);
            asker.holder = new_holder(asker.life);
            asker.open.clear();
        }
    }

    fn at_holder(&mut self, asker: usize, input: holder::Input) {
        let now = self.askers[asker].machine.now(self.real);
        for output in self.askers[asker].holder.handle(input, now) {
            if let holder::Output::Send { to, message } = output {
                let owner = (0..OWNERS).find(|owner| owner_name(*owner) == to).unwrap();
                self.send(|| Event::ToOwner { owner, from: asker, message: message.clone() });
            }
        }
    }

    fn at_owner(&mut self, owner: usize, from: usize, message: Message) {
        let name = region("holder", from);
        let id = |number| ReservationId::remote(&name, number);
        let answer = match message {
            Message::Hold { number, nonce, terms, ttl_ms, settled_below, .. } => {
                self.tell(owner, Input::Settled { holder: name.clone(), below: settled_below.min(number) });
                let input = Input::Hold { id: id(number), terms, ttl: Duration::from_millis(ttl_ms), nonce };
                self.ask_ledger(owner, Claim { number, nonce }, input)
            }
            Message::Confirm { claim, .. } => self.ask_ledger(owner, claim, Input::Confirm { id: id(claim.number), nonce: claim.nonce }),
            Message::Refresh { claims, .. } => {
                let refresh = |claim: Claim| Input::Refresh { id: id(claim.number), nonce: claim.nonce };
                Answer::Many(claims.into_iter().map(|claim| self.ask_ledger(owner, claim, refresh(claim))).collect())
            }
            Message::Release { number, .. } => {
                self.owners[owner].promises.remove(&id(number));
                self.ask_ledger(owner, Claim { number, nonce: 0 }, Input::Release { id: id(number) })
            }
            Message::Preempted { .. } => return,
        };
        self.send(|| Event::ToHolder { holder: from, owner, answer: answer.clone() });
    }

    fn ask_ledger(&mut self, owner: usize, claim: Claim, input: Input) -> Answer {
        Answer::of(claim, self.tell(owner, input))
    }

    /// One operation of a ledger: what it says is noted, and its rules are judged.
    fn tell(&mut self, index: usize, input: Input) -> Option<Result<Granted, Error>> {
        self.seen.operations += 1;
        let asked = match &input {
            Input::Hold { id, terms, ttl, nonce } => Some((id.clone(), Some((terms.clone(), *ttl)), *nonce)),
            Input::Confirm { id, nonce } | Input::Refresh { id, nonce } => Some((id.clone(), None, *nonce)),
            _ => None,
        };
        let owner = &mut self.owners[index];
        let now = owner.machine.now(self.real);
        let outputs = owner.ledger.handle(input, now);
        let mut answer = None;
        let mut notices = vec![];
        for output in outputs {
            match output {
                Output::Persist(change) => persist(&mut owner.durable, change),
                Output::Reply(_, _, reply) => answer = Some(reply),
                Output::Preempted { id, leave_by } => {
                    // It may be told twice to leave, each time earlier.
                    if let Some((promise, _)) = owner.promises.remove(&id) {
                        assert_eq!(promise.terms.tier, Tier::Soft, "R5: {id} is firm and was preempted");
                    }
                    self.seen.preempted += 1;
                    notices.push((id, leave_by));
                }
                Output::Lapsed(id) => {
                    self.seen.lapsed += 1;
                    if let Some((promise, _)) = owner.promises.remove(&id) {
                        invariants::r5_firm_is_kept(&owner.ledger, &promise, now).unwrap();
                    }
                }
            }
        }
        if let (Some((id, terms, nonce)), Some(Ok(Granted::Stands { .. }))) = (asked, &answer) {
            self.seen.granted += 1;
            match (owner.promises.get_mut(&id), terms) {
                (Some((promise, newest)), _) if nonce > *newest => (promise.taken, *newest) = (now.uptime, nonce),
                (Some(_), _) => {}
                (None, Some((terms, ttl))) => {
                    owner.promises.insert(id.clone(), (Promise { id, terms, ttl, taken: now.uptime }, nonce));
                }
                // Preempted, and being left.
                (None, None) => {}
            }
        } else if matches!(answer, Some(Err(_))) {
            self.seen.refused += 1;
        }
        for (promise, _) in owner.promises.values() {
            invariants::r4_unrefreshed_is_back(&owner.ledger, promise, now).unwrap();
            invariants::r5_firm_is_kept(&owner.ledger, promise, now).unwrap();
        }
        invariants::check(&owner.ledger).unwrap();
        for (id, leave_by) in notices {
            let ReservationId::Remote { holder, number } = id else { continue };
            let holder = (0..HOLDERS).find(|asker| region("holder", *asker) == holder).unwrap();
            self.send(|| Event::Preempted { holder, owner: index, number, leave_by });
        }
        answer
    }

    /// R2, for every holder that runs: what it relies on is counted, however long the owner has been away.
    fn judge_beliefs(&mut self) {
        for index in 0..HOLDERS {
            let asker = &self.askers[index];
            if asker.machine.paused_until > self.real {
                continue;
            }
            let now = asker.machine.now(self.real);
            for standing in asker.holder.standings(now) {
                if !asker.holder.relies_on(standing.number, now) || standing.part.terms.tier == Tier::Soft {
                    continue;
                }
                let owner = self.owners.iter().enumerate().find(|(owner, _)| owner_name(*owner) == standing.part.owner).unwrap().1;
                let id = ReservationId::remote(&region("holder", index), standing.number);
                let believed = Promise { id, terms: standing.part.terms, ttl: TTL, taken: Duration::ZERO };
                // What an owner would let lapse if it looked at its clock now is gone already.
                let due = owner.ledger.remaining(&believed.id, owner.machine.now(self.real));
                assert!(due.is_none_or(|left| left > Duration::ZERO), "R2: {} is relied upon and due to lapse", believed.id);
                invariants::r2_belief_is_right(&owner.ledger, &believed).unwrap();
                self.seen.beliefs += 1;
            }
        }
    }
}

fn persist(durable: &mut BTreeMap<String, Change>, change: Change) {
    match &change {
        Change::Live(reservation) => drop(durable.insert(format!("live/{}", reservation.id), change)),
        Change::Ended(id) => {
            durable.remove(&format!("live/{id}"));
            durable.insert(format!("spent/{id}"), change);
        }
        Change::LowWater { holder, covers, .. } => {
            for number in covers {
                durable.remove(&format!("spent/{holder}/{number}"));
            }
            durable.insert(format!("mark/{holder}"), change);
        }
    }
}

#[test]
fn no_fault_makes_a_ledger_promise_too_much_or_a_holder_believe_wrongly() {
    let mut total = Seen::default();
    let all = operations(12_000);
    // New machines now and then: other drifts.
    for seed in 0..4 {
        let mut world = World::new(seed);
        world.run(all / 4);
        let seen = &world.seen;
        let most = world.owners.iter().map(|owner| owner.durable.len()).max().unwrap();
        assert!(most < 8_000, "what is kept on disk is bounded: {most}");
        assert!(seen.beliefs > seen.operations / 10, "{seen:?}");
        total.operations += seen.operations;
        total.granted += seen.granted;
        total.refused += seen.refused;
        total.lapsed += seen.lapsed;
        total.preempted += seen.preempted;
        total.owner_crashes += seen.owner_crashes;
        total.holder_crashes += seen.holder_crashes;
        total.pauses += seen.pauses;
        total.jumps += seen.jumps;
        total.beliefs += seen.beliefs;
        total.together += seen.together;
    }
    let rare = [total.lapsed, total.preempted, total.owner_crashes, total.holder_crashes, total.pauses, total.jumps, total.together];
    assert!(rare.iter().all(|count| *count > 0), "{total:?}");
    println!("{total:?}");
}
