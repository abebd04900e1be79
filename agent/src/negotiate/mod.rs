//! Asks other regions for what this one lacks, and tells holders when to leave.
//!
//! One actor drives the holder's core ([`tradewind_protocol::reservation::holder`]) through the mesh: `gap` says what
//! a plan lacks, `rank` whom to ask, `desk` what to ask for; all three are pure. The owner's side is the
//! pools' ([`crate::pool`]).
//!
//! Invariant: the actor never waits for a peer; each request is a task of its own, and their number is
//! bounded. What is not sent, or not answered, is asked again by the core.

mod desk;
mod gap;
mod rank;

pub use desk::Stats;

use crate::config::Config;
use crate::env::Clock;
use crate::events::EventLog;
use crate::mesh::MeshHandle;
use crate::pool::{Notice, PoolHandle};
use desk::{Action, Desk};
use rank::{Candidate, Neighbour};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tradewind_protocol::api::{ClaimView, Severity};
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::first_number;
use tradewind_protocol::reservation::holder::{self, Holder, Input};
use tradewind_protocol::reservation::message::{Answer, Message};
use tradewind_protocol::wire::{Request, Response};
use tradewind_protocol::{RegionId, RegionalResourcePlan, ServiceName, Timestamp};

/// Commands that wait: a plan a step, and notices of peers.
const MAX_COMMANDS: usize = 256;
/// Requests under way at a time; the transport allows a hundred streams a peer.
const MAX_UNDER_WAY: usize = 256;
/// The longest sleep: the wall clock may jump, and windows with it.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

enum Command {
    Plan(Arc<RegionalResourcePlan>),
    Preempted { owner: RegionId, number: u64, leave_by: Timestamp },
}

/// What others may see of the negotiations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// What was asked of others, in the order in which it was asked.
    pub claims: Vec<ClaimView>,
    /// Counts of this life.
    pub stats: Stats,
}

/// The way to the negotiator. Clones lead to the same one.
#[derive(Clone)]
pub struct NegotiatorHandle {
    commands: mpsc::Sender<Command>,
    claims: watch::Receiver<Arc<Claims>>,
}

/// The other end of a [`NegotiatorHandle`], until the negotiator is started.
pub(crate) struct Waiting {
    commands: mpsc::Receiver<Command>,
    claims: watch::Sender<Arc<Claims>>,
}

/// A handle to a negotiator that is to be started: peers may be heard before there is a mesh to answer on.
pub(crate) fn handle() -> (NegotiatorHandle, Waiting) {
    let (to, commands) = mpsc::channel(MAX_COMMANDS);
    let (claims, seen) = watch::channel(Arc::default());
    (NegotiatorHandle { commands: to, claims: seen }, Waiting { commands, claims })
}

impl NegotiatorHandle {
    /// Takes in what the newest plan lacks. Where the negotiator is behind, the next plan says it again.
    pub(crate) fn on_plan(&self, plan: Arc<RegionalResourcePlan>) {
        let _ = self.commands.try_send(Command::Plan(plan));
    }

    /// Takes in a notice of `owner`. What is lost is learnt with the next refresh.
    pub(crate) fn on_preempted(&self, owner: &RegionId, number: u64, leave_by: Timestamp) {
        let _ = self.commands.try_send(Command::Preempted { owner: owner.clone(), number, leave_by });
    }

    /// What was asked of others, as of the last change.
    pub fn claims(&self) -> Arc<Claims> {
        self.claims.borrow().clone()
    }
}

/// What the negotiator works with.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) mesh: MeshHandle,
    pub(crate) pool: PoolHandle,
    pub(crate) events: EventLog,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Negotiates until `stop` says so.
pub(crate) async fn run(waiting: Waiting, parts: Parts, mut stop: watch::Receiver<bool>) {
    let settings = holder::Config { ttl: parts.config.reservations.ttl, ..holder::Config::default() };
    let holder = Holder::new(settings, first_number(parts.mesh.generation()));
    let Waiting { commands, claims } = waiting;
    let Some(notices) = parts.pool.take_notices() else { return };
    let negotiator = Negotiator { desk: Desk::new(holder, &parts.config.reservations), parts, claims, under_way: JoinSet::new() };
    tokio::select! {
        biased;
        () = crate::stop::told(&mut stop) => {}
        () = negotiator.run(commands, notices) => {}
    }
}

struct Negotiator {
    desk: Desk,
    parts: Parts,
    claims: watch::Sender<Arc<Claims>>,
    under_way: JoinSet<Option<(RegionId, Answer)>>,
}

impl Negotiator {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut notices: mpsc::Receiver<Notice>) {
        loop {
            let due = self.desk.next_deadline(self.parts.pool.now()).unwrap_or(LONGEST_SLEEP).clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
            let actions = tokio::select! {
                biased;
                Some(answered) = self.under_way.join_next() => match answered {
                    Ok(Some((owner, answer))) => self.desk.on_input(Input::Answered { owner, answer }, self.parts.pool.now()),
                    Ok(None) | Err(_) => continue,
                },
                Some(command) = commands.recv() => self.on_command(command),
                Some(notice) = notices.recv() => vec![notify(notice)],
                () = tokio::time::sleep(due) => self.desk.on_input(Input::Tick, self.parts.pool.now()),
            };
            self.carry_out(actions);
            self.publish();
        }
    }

    fn on_command(&mut self, command: Command) -> Vec<Action> {
        let now = self.parts.pool.now();
        match command {
            Command::Plan(plan) => {
                let config = &self.parts.config;
                if config.mode != Mode::Active || !config.reservations.borrow {
                    return vec![];
                }
                let gaps = gap::gaps(&plan, &config.pools, &self.parts.pool.stranded(), config.step, now.wall);
                let mut candidates = BTreeMap::new();
                for gap in &gaps {
                    if !candidates.contains_key(&gap.service) {
                        candidates.insert(gap.service.clone(), self.candidates(&gap.service));
                    }
                }
                self.desk.on_plan(gaps, candidates, now)
            }
            Command::Preempted { owner, number, leave_by } => self.desk.on_input(Input::Preempted { owner, number, leave_by }, now),
        }
    }

    fn candidates(&self, service: &ServiceName) -> Vec<Candidate> {
        let (view, now) = (self.parts.mesh.view(), self.parts.clock.now());
        let neighbours = view.regions.iter().filter(|(region, _)| **region != view.this).filter_map(|(region, entry)| {
            let (state, age) = (entry.state.as_deref()?, entry.age(now)?);
            Some(Neighbour { region, live: entry.live, age, rtt: entry.rtt(), state })
        });
        rank::rank(neighbours, service, self.parts.config.planner.stale_after, self.desk.records())
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Note(severity, kind, words) => self.parts.events.note(severity, kind, words),
                Action::Send { to, message } => {
                    if self.under_way.len() >= MAX_UNDER_WAY {
                        continue;
                    }
                    let (mesh, events, sent) = (self.parts.mesh.clone(), self.parts.events.clone(), Instant::now());
                    let is_hold = matches!(message, Message::Hold { .. });
                    self.under_way.spawn(async move {
                        match mesh.request(&to, Request::Reserve(Box::new(message))).await {
                            Ok(Response::Reserved(answer)) => {
                                if is_hold {
                                    note_hold(&mesh, &events, &to, sent.elapsed());
                                }
                                Some((to, *answer))
                            }
                            Ok(Response::Published(_) | Response::NotHeld | Response::Plan(_) | Response::Refused { .. }) => None,
                            Err(error) => {
                                tracing::debug!(%to, %error, "no answer about a reservation");
                                None
                            }
                        }
                    });
                }
            }
        }
    }

    fn publish(&self) {
        let claims = Claims { claims: self.desk.claims(self.parts.pool.now()), stats: self.desk.stats() };
        self.claims.send_if_modified(|before| {
            let news = **before != claims;
            if news {
                *before = Arc::new(claims);
            }
            news
        });
    }
}

/// How long a hold took, beside the round trip: what is more is the owner's commit.
fn note_hold(mesh: &MeshHandle, events: &EventLog, owner: &RegionId, took: Duration) {
    if let Some(rtt) = mesh.view().regions.get(owner).and_then(|entry| entry.rtt()) {
        let words = format!("{owner} answered a hold in {} ms, the round trip is {} ms", took.as_millis(), rtt.as_millis());
        events.note(Severity::Info, "reserve.answered", words);
    }
}

fn notify(notice: Notice) -> Action {
    let Notice { holder, pool, number, leave_by } = notice;
    Action::Send { to: holder, message: Message::Preempted { pool, number, leave_by } }
}
