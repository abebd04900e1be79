//! The region's pools: what should be, what is, and what is done about the difference.
//!
//! [`PoolHandle`] is the way in; one actor behind it owns all state. What decides is pure:
//! `reconcile` what to do, [`tradewind_protocol::reservation::ledger`] what fits, `accounting` what it came
//! to; `book` makes what the ledgers promise durable.
//!
//! Invariants: every instance holds a firm reservation, durable before it is started, until it is
//! gone. In advisory mode nothing is started, stopped or written. What fails is tried again, ever
//! more slowly, and is in the status until it works.

mod accounting;
mod actor;
mod book;
mod fleet;
mod reconcile;
mod store;

pub use crate::backoff::LONGEST as LONGEST_PAUSE;
use crate::config::{PoolConfig, ReservationConfig};
use crate::env::{Clock, Env};
use crate::events::EventLog;
use crate::store::{Store, StoreError};
use actor::{Actor, Command, Opened};
use book::Book;
pub(crate) use book::Notice;
use reconcile::{Desired, Limits};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tradewind_protocol::api::{CapacitySample, InstanceView, ProviderView, ReservationView};
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::ledger::{self, Reservation, invariants};
use tradewind_protocol::reservation::message::{Answer, Message};
use tradewind_protocol::{PoolName, RegionId, ResourcePool, Step, StepIndex, reservation};

/// How many commands may wait: a plan a step and a few people.
const MAX_COMMANDS: usize = 64;

/// How many capacity samples are kept, over all pools: a week of one pool's minutes.
pub(crate) const MAX_SAMPLES: usize = 10_000;

/// An instance is given up when it has not become warm after so many times its stated start-up
/// time, and at the earliest after [`MIN_START_DEADLINE`]: a start may be slow, but not for ever.
const START_DEADLINE_FACTOR: u32 = 10;
const MIN_START_DEADLINE: Duration = Duration::from_secs(30);

/// What the pools are made of.
pub struct Setup {
    /// The pools.
    pub pools: Vec<PoolConfig>,
    /// The length of a step.
    pub step: Step,
    /// Whether anything is to be done, or only watched.
    pub mode: Mode,
    /// Where the ledgers are kept.
    pub store: Store,
    /// Where to say what happened.
    pub events: EventLog,
    /// What other regions are granted.
    pub reservations: ReservationConfig,
}

/// Why the pools cannot be looked after. Nothing was started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The ledgers cannot be read.
    #[error("the pools' ledgers cannot be read")]
    Store(#[from] StoreError),
    /// A pool's provider cannot be opened.
    #[error("pool {pool}: its provider cannot be opened: {reason}")]
    Provider {
        /// Which pool.
        pool: PoolName,
        /// Why not, and how to mend it.
        reason: String,
    },
    /// The pools that are no longer configured cannot be looked for.
    #[error("instances of pools that are no longer configured cannot be looked for: {0}")]
    Retired(String),
}

/// How many instances of one pool are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which pool.
    pub pool: PoolName,
    /// How many are to serve.
    pub active: u32,
    /// How many more are to stand by.
    pub warm: u32,
    /// How many of both are to be bought on the spot market.
    pub spot: u32,
}

/// Targets of pools that exist, one a pool, within the pools' limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedTargets(BTreeMap<PoolName, Desired>);

/// Why a target cannot be one. Nothing changed; the same target never succeeds under this
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No such pool is configured.
    #[error("there is no pool {0}; name one of the configuration")]
    UnknownPool(PoolName),
    /// Two targets for one pool.
    #[error("pool {0} has two targets; give it one")]
    Twice(PoolName),
    /// More or less than the configuration allows.
    #[error("pool {pool}: {active} active and {warm} warm must be at least {min} active and at most {max} together")]
    OutOfBounds {
        /// Which pool.
        pool: PoolName,
        /// What was asked for.
        active: u32,
        /// What was asked for.
        warm: u32,
        /// The fewest active.
        min: u32,
        /// The most together.
        max: u32,
    },
}

/// The pools have been shut down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent's pools have been shut down")]
pub struct Closed;

/// What becomes of the instances when the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// They stay as they are, to be adopted by the agent's next life.
    KeepInstances,
    /// They drain and end; what does not is stopped.
    DrainAll,
}

/// The pools at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The configured pools, ascending by name.
    pub pools: Vec<ResourcePool>,
    /// All instances, also of pools that are no longer configured, by pool and id.
    pub instances: Vec<InstanceView>,
    /// The providers of the pools that have several, in the order in which they are tried.
    pub providers: Vec<ProviderView>,
    /// What was seen of spot instances, of the pools that may have some.
    pub spot: BTreeMap<PoolName, SpotSeen>,
    /// How many instances stand ready in the pools of which no provider has started any lately, however often it was told to.
    pub stranded: BTreeMap<PoolName, u32>,
    /// What does not work, in words; empty when all is well.
    pub health_reasons: Vec<String>,
    /// What happened in this life of the agent.
    pub totals: Totals,
}

/// What was seen of a pool's spot instances in this life of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpotSeen {
    /// How many there are or are ordered.
    pub instances: u32,
    /// How many were taken.
    pub interrupted: u64,
    /// For how long one stood ready, all together, in milliseconds.
    pub instance_ms: u64,
}

/// Counts of one life of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Instances that were started.
    pub started: u64,
    /// Instances of earlier lives that were found.
    pub adopted: u64,
    /// Instances that ended as they were told.
    pub ended: u64,
    /// Instances that ended unexpectedly.
    pub lost: u64,
    /// Orders that failed.
    pub failed_orders: u64,
}

/// The way to the region's pools. Clones lead to the same ones.
#[derive(Clone)]
pub struct PoolHandle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    samples: Samples,
    limits: Arc<BTreeMap<PoolName, Limits>>,
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    begun: Instant,
    notices: Arc<Mutex<Option<mpsc::Receiver<Notice>>>>,
}

impl PoolHandle {
    /// Adopts what is there and begins to look after it. What was adopted stays as it is until the
    /// first [`apply`](Self::apply), but for the configured minimum.
    pub async fn start(env: &Env, setup: Setup) -> Result<PoolHandle, PoolError> {
        let limits = setup.pools.iter().map(|pool| (pool.name.clone(), limits(pool))).collect();
        let samples = Samples::default();
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let Opened { actor, snapshot, book, begun, notices } = Actor::open(env, setup, samples.clone()).await?;
        tokio::spawn(actor.run(receiver));
        let notices = Arc::new(Mutex::new(Some(notices)));
        Ok(PoolHandle { commands, snapshot, samples, limits: Arc::new(limits), book, clock: env.clock.clone(), begun, notices })
    }

    /// Answers another region about reservations, once what the answer says is durable.
    pub async fn reserve(&self, from: &RegionId, message: Message) -> Answer {
        self.book.answer(from, message, self.now()).await
    }

    /// What the pools are promised to, instances included, by pool and id.
    pub fn reservations(&self) -> Vec<ReservationView> {
        let now = self.now();
        let views = self.book.each(|(pool, ledger)| {
            let view = |r: &Reservation| view(pool, r, ledger.remaining(&r.id, now));
            ledger.reservations().map(view).collect::<Vec<_>>()
        });
        views.into_iter().flatten().collect()
    }

    /// What was counted of each pool's ledger in this life, and how many reservations stand.
    pub fn ledger_stats(&self) -> Vec<(PoolName, ledger::Stats, usize)> {
        self.book.each(|(pool, ledger)| (pool.clone(), ledger.stats(), ledger.reservations().filter(|r| !r.id.is_instance()).count()))
    }

    /// Watches the ledgers' rules; for the simulator, which looks all the time.
    pub fn rules(&self) -> RuleWatch {
        RuleWatch { book: Arc::downgrade(&self.book), seen: None }
    }

    /// The holders that are to be told to leave, for whoever tells them; the first caller gets it.
    pub(crate) fn take_notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Now, as ledgers take it.
    pub(crate) fn now(&self) -> reservation::Now {
        reservation::Now { wall: self.clock.now(), uptime: self.begun.elapsed() }
    }

    /// Checks targets against the configuration.
    pub fn validate(&self, targets: Vec<Target>) -> Result<ValidatedTargets, TargetError> {
        let mut checked = BTreeMap::new();
        for Target { pool, active, warm, spot } in targets {
            let limits = self.limits.get(&pool).ok_or_else(|| TargetError::UnknownPool(pool.clone()))?;
            let (min, max) = (limits.min_instances, limits.max_instances);
            if active < min || active.checked_add(warm).is_none_or(|all| all > max) {
                return Err(TargetError::OutOfBounds { pool, active, warm, min, max });
            }
            if checked.insert(pool.clone(), Desired { active, warm, spot, none_on_spot: false }).is_some() {
                return Err(TargetError::Twice(pool));
            }
        }
        Ok(ValidatedTargets(checked))
    }

    /// From now on these are wanted; pools that are not named keep their targets. Returns when the
    /// targets are taken up, not when they are reached.
    pub async fn apply(&self, targets: ValidatedTargets) -> Result<(), Closed> {
        let (taken_up, done) = oneshot::channel();
        self.commands.send(Command::Apply(targets.0, taken_up)).await.map_err(|_| Closed)?;
        done.await.map_err(|_| Closed)
    }

    /// The configured pools, ascending by name.
    pub fn status(&self) -> Vec<ResourcePool> {
        self.snapshot.borrow().pools.clone()
    }

    /// All instances.
    pub fn instances(&self) -> Vec<InstanceView> {
        self.snapshot.borrow().instances.clone()
    }

    /// The providers of the pools that have several.
    pub fn providers(&self) -> Vec<ProviderView> {
        self.snapshot.borrow().providers.clone()
    }

    /// What was seen of spot instances, of the pools that may have some.
    pub fn spot(&self) -> BTreeMap<PoolName, SpotSeen> {
        self.snapshot.borrow().spot.clone()
    }

    /// What does not work, in words; empty when all is well.
    pub fn health_reasons(&self) -> Vec<String> {
        self.snapshot.borrow().health_reasons.clone()
    }

    /// The pools that no provider starts instances in for now, and what stands ready there all the same.
    pub fn stranded(&self) -> BTreeMap<PoolName, u32> {
        self.snapshot.borrow().stranded.clone()
    }

    /// What happened in this life of the agent.
    pub fn totals(&self) -> Totals {
        self.snapshot.borrow().totals
    }

    /// Follows the pools: changes whenever anything above does.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Capacity in the closed steps from `since` on, by step and pool, as far as it is kept.
    pub fn capacity(&self, since: StepIndex) -> Vec<CapacitySample> {
        self.samples.since(since)
    }

    /// Ends the pools' part of the agent. Returns when the instances are let go, or gone; after the
    /// first call the pools obey nobody.
    pub async fn shutdown(&self, how: Shutdown) {
        let (over, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown(how, over)).await.is_ok() {
            // An error says that another call has ended it.
            let _ = done.await;
        }
    }
}

/// Judges every ledger by its rules whenever one has changed. Keeps nothing alive.
#[derive(Clone)]
pub struct RuleWatch {
    book: Weak<Book>,
    seen: Option<u64>,
}

impl RuleWatch {
    /// What is broken, if anything has changed since the last look.
    pub fn look(&mut self) -> Vec<String> {
        let Some(book) = self.book.upgrade() else { return vec![] };
        let decided = Some(book.decided());
        if std::mem::replace(&mut self.seen, decided) == decided {
            return vec![];
        }
        let check = |(pool, ledger): (&PoolName, &ledger::Ledger)| {
            let broken = invariants::check(ledger).and_then(|()| invariants::r6_placing_conserves(ledger));
            broken.err().map(|broken| format!("pool {pool}: {broken}"))
        };
        book.each(check).into_iter().flatten().collect()
    }
}

fn view(pool: &PoolName, r: &Reservation, remaining: Option<Duration>) -> ReservationView {
    ReservationView {
        pool: pool.clone(),
        id: r.id.to_string(),
        terms: r.terms.clone(),
        phase: r.phase,
        placed: r.placed,
        serves: r.serves.as_ref().map(ToString::to_string),
        leave_by: r.cut.map(|cut| cut.leave_by),
        lapses_in_ms: remaining.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn limits(pool: &PoolConfig) -> Limits {
    Limits {
        min_instances: pool.min_instances,
        max_instances: pool.max_instances,
        min_warm: pool.min_warm,
        start_deadline: pool.startup.saturating_mul(START_DEADLINE_FACTOR).max(MIN_START_DEADLINE),
    }
}

/// The last capacity samples.
#[derive(Clone, Default)]
pub(crate) struct Samples(Arc<Mutex<VecDeque<CapacitySample>>>);

impl Samples {
    fn push(&self, sample: CapacitySample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn since(&self, since: StepIndex) -> Vec<CapacitySample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept: Vec<_> = samples.iter().filter(|sample| sample.step >= since).cloned().collect();
        kept.sort_by(|a, b| (a.step, &a.pool).cmp(&(b.step, &b.pool)));
        kept
    }
}

#[cfg(test)]
mod tests;
