//! The pools' one task: wakes when something changed or is due, looks at everything, persists what
//! it promises, and orders the difference.

use super::book::{Book, KeepOthers, Notice, PageSetup};
use super::fleet::{Begin, Fleet, News, Now};
use super::reconcile::Desired;
use super::{PoolError, Samples, Setup, Shutdown, Snapshot, Totals};
use crate::config::{PoolConfig, ReservationConfig};
use crate::env::{Clock, Env};
use crate::events::EventLog;
use crate::provider::{Order, ProviderError, carry_out, chain};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tradewind_protocol::api::Severity;
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::ledger;
use tradewind_protocol::{InstanceId, PoolName, Resources};

/// How often everything is looked at even if nobody says that anything changed: for providers whose
/// notices can get lost.
const RESYNC: Duration = Duration::from_secs(5);

/// The shortest sleep: a deadline that is due to the millisecond is not waited for in zero steps.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How long a provider may take to list its instances, or to carry out one order. Beyond, it counts
/// as failed and is tried again.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
const ORDER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long orders in flight may take to end at a shutdown that keeps instances.
const LAST_ORDERS: Duration = Duration::from_secs(5);

/// How long stopping may take, once draining has taken as long as it may.
const LAST_STOPS: Duration = Duration::from_secs(10);

/// The longest drain that is waited for where no pool's configuration says.
const DRAIN_WITHOUT_CONFIG: Duration = Duration::from_secs(30);

/// What the handle asks for.
pub(super) enum Command {
    Apply(BTreeMap<PoolName, Desired>, oneshot::Sender<()>),
    Shutdown(Shutdown, oneshot::Sender<()>),
}

/// How an order went.
struct Done {
    pool: PoolName,
    id: InstanceId,
    order: Order,
    result: Result<(), ProviderError>,
}

pub(super) struct Actor {
    clock: Arc<dyn Clock>,
    begun: Instant,
    mode: Mode,
    book: Arc<Book>,
    events: EventLog,
    samples: Samples,
    snapshot: watch::Sender<Arc<Snapshot>>,
    fleets: BTreeMap<PoolName, Fleet>,
    totals: Totals,
    orders: JoinSet<Done>,
    changed: Arc<Notify>,
    listeners: JoinSet<()>,
    /// Why nothing is promised any more: the ledger could not be written.
    ledger_failure: Option<String>,
}

impl Actor {
    /// Opens all providers, adopts what they have, and reads the ledgers.
    pub(super) async fn open(env: &Env, setup: Setup, samples: Samples) -> Result<Opened, PoolError> {
        let Setup { pools, step, mode, store, events, reservations } = setup;
        let mut pages: BTreeMap<PoolName, PageSetup> =
            pools.iter().map(|pool| (pool.name.clone(), page(pool, &reservations, mode))).collect();
        let mut opened = vec![];
        let spot_names = pools.iter().filter_map(|pool| pool.spot.as_ref().map(|spot| &spot.name));
        let configured: BTreeSet<PoolName> = pools.iter().map(|pool| &pool.name).chain(spot_names).cloned().collect();
        for pool in pools {
            let refused = |error: anyhow::Error| PoolError::Provider { pool: pool.name.clone(), reason: format!("{error:#}") };
            let provider = chain::open(&*env.providers, &pool).map_err(refused)?;
            opened.push((pool.name.clone(), Some(pool), provider));
        }
        for (name, provider) in env.providers.open_retired(&configured).map_err(|error| PoolError::Retired(format!("{error:#}")))? {
            events.note(Severity::Warning, "pool.retired", format!("{name} is no longer configured, and has instances"));
            opened.push((name, None, provider));
        }
        for (name, _, _) in &opened {
            pages.entry(name.clone()).or_insert_with(nothing);
        }
        let begun = Instant::now();
        let now = Now { clock: env.clock.now(), uptime: Duration::ZERO };
        let keep_others = if mode == Mode::Active { KeepOthers::No } else { KeepOthers::Yes };
        let (book, notices) = Book::open(store, pages, keep_others, now.ledger()).await?;
        let book = Arc::new(book);
        let seed = env.seed.child("pool");
        let mut fleets = BTreeMap::new();
        for (name, config, provider) in opened {
            let begin = Begin { step, clock: env.clock.now(), seed: seed.child(name.as_str()).bytes(), book: book.clone() };
            fleets.insert(name.clone(), Fleet::new(name, config, provider, begin));
        }
        let (snapshot, receiver) = watch::channel(Arc::default());
        let mut actor = Self {
            clock: env.clock.clone(),
            begun,
            mode,
            book: book.clone(),
            events,
            samples,
            snapshot,
            fleets,
            totals: Totals::default(),
            orders: JoinSet::new(),
            changed: Arc::new(Notify::new()),
            listeners: JoinSet::new(),
            ledger_failure: None,
        };
        actor.listen();
        actor.look().await;
        actor.publish();
        Ok(Opened { actor, snapshot: receiver, book, begun, notices })
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            self.act().await;
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Apply(targets, taken_up)) => {
                        self.want(targets);
                        let _ = taken_up.send(());
                    }
                    Some(Command::Shutdown(how, over)) => {
                        self.end(how).await;
                        self.book.let_go().await;
                        drop(commands);
                        // The store is free for another holder when this is answered.
                        drop(self);
                        let _ = over.send(());
                        return;
                    }
                    None => return self.end(Shutdown::KeepInstances).await,
                },
                () = self.wait() => {}
            }
        }
    }

    /// Wakes the loop whenever a provider says that something changed.
    fn listen(&mut self) {
        for fleet in self.fleets.values() {
            let (provider, changed) = (Arc::clone(&fleet.provider), Arc::clone(&self.changed));
            self.listeners.spawn(async move {
                loop {
                    provider.changed().await;
                    changed.notify_one();
                }
            });
        }
        let (reservations, changed) = (self.book.changed(), Arc::clone(&self.changed));
        self.listeners.spawn(async move {
            loop {
                reservations.notified().await;
                changed.notify_one();
            }
        });
    }

    fn now(&self) -> Now {
        Now { clock: self.clock.now(), uptime: self.begun.elapsed() }
    }

    /// Until an order is done, other regions' reservations change, a provider has news, or something is due. Cancel-safe.
    async fn wait(&mut self) {
        let now = self.now();
        let due = self.fleets.values().map(|fleet| fleet.next_wait(now)).min().unwrap_or(RESYNC).clamp(SHORTEST_SLEEP, RESYNC);
        let mut done = None;
        tokio::select! {
            biased;
            Some(result) = self.orders.join_next() => done = Some(result),
            () = self.changed.notified() => {}
            () = tokio::time::sleep(due) => {}
        }
        if let Some(result) = done {
            self.on_done(result);
        }
    }

    fn on_done(&mut self, result: Result<Done, tokio::task::JoinError>) {
        // An order neither panics nor is aborted before the actor ends.
        let Ok(done) = result else { return };
        let (now, mut news) = (self.now(), vec![]);
        if let Some(fleet) = self.fleets.get_mut(&done.pool) {
            fleet.on_done(&done.id, done.order, done.result, now, &mut self.totals, &mut news);
        }
        self.tell(news);
    }

    fn want(&mut self, targets: BTreeMap<PoolName, Desired>) {
        let mut news = vec![];
        for (name, desired) in targets {
            if let Some(fleet) = self.fleets.get_mut(&name) {
                fleet.want(desired, &mut news);
            }
        }
        self.tell(news);
    }

    /// One round: look, promise, order, publish.
    async fn act(&mut self) {
        self.look().await;
        if self.mode == Mode::Active {
            self.reconcile().await;
        }
        self.publish();
    }

    /// Learns what is.
    async fn look(&mut self) {
        while let Some(result) = self.orders.try_join_next() {
            self.on_done(result);
        }
        let names: Vec<PoolName> = self.fleets.keys().cloned().collect();
        let mut news = vec![];
        for name in names {
            let Some(provider) = self.fleets.get(&name).map(|fleet| Arc::clone(&fleet.provider)) else { continue };
            let late = || ProviderError::List { reason: format!("no answer within {LIST_TIMEOUT:?}") };
            let listed = tokio::time::timeout(LIST_TIMEOUT, provider.list()).await.unwrap_or_else(|_| Err(late()));
            let ended = provider.take_ended();
            let now = self.now();
            let Some(fleet) = self.fleets.get_mut(&name) else { continue };
            fleet.merge(listed, ended, now, &mut self.totals, &mut news);
            for closed in fleet.account(now) {
                if let Some(sample) = fleet.capacity_sample(closed) {
                    self.samples.push(sample);
                }
            }
        }
        self.tell(news);
    }

    /// Does what is missing between what is and what should be.
    async fn reconcile(&mut self) {
        let now = self.now();
        let (mut planned, mut news) = (vec![], vec![]);
        for (name, fleet) in &mut self.fleets {
            fleet.settle_ledger(now);
            planned.push((name.clone(), fleet.plan(now, &mut news)));
        }
        let ticket = self.book.ticket();
        if self.ledger_failure.is_none()
            && let Err(error) = self.book.durable(ticket).await
        {
            let words = format!("nothing is started any more: {error}");
            news.push((Severity::Error, "pool.ledger_failed", words.clone()));
            self.ledger_failure = Some(words);
        }
        self.tell(news);
        for (name, orders) in planned {
            let Some(fleet) = self.fleets.get_mut(&name) else { continue };
            let promised = self.ledger_failure.is_none();
            let (given, withheld): (Vec<_>, Vec<_>) = orders.into_iter().partition(|(order, _)| promised || !order.is_start());
            fleet.retract(&withheld);
            self.give(&name, given);
        }
        let over: Vec<PoolName> =
            self.fleets.iter().filter(|(_, f)| !f.is_configured() && f.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.events.note(Severity::Info, "pool.retired", format!("{name} is gone: its last instance has ended"));
            if let Some(fleet) = self.fleets.remove(&name) {
                fleet.provider.close().await;
            }
        }
    }

    /// Has orders carried out, all at the same time.
    fn give(&mut self, pool: &PoolName, orders: Vec<(Order, InstanceId)>) {
        let Some(fleet) = self.fleets.get(pool) else { return };
        for (order, id) in orders {
            let (provider, pool) = (Arc::clone(&fleet.provider), pool.clone());
            self.orders.spawn(async move {
                let result = tokio::time::timeout(ORDER_TIMEOUT, carry_out(&*provider, order, &id)).await;
                let late = |_| Err(ProviderError::Order { order, id: id.clone(), reason: format!("not done within {ORDER_TIMEOUT:?}") });
                let result = result.unwrap_or_else(late);
                Done { pool, id, order, result }
            });
        }
    }

    fn publish(&self) {
        let mut snapshot = Snapshot { totals: self.totals, ..Snapshot::default() };
        for fleet in self.fleets.values() {
            snapshot.pools.extend(fleet.status());
            snapshot.instances.extend(fleet.instances());
            snapshot.providers.extend(fleet.providers());
            snapshot.spot.extend(fleet.spot().map(|seen| (fleet.name.clone(), seen)));
            snapshot.stranded.extend(fleet.stranded().map(|ready| (fleet.name.clone(), ready)));
            snapshot.health_reasons.extend(fleet.health_reasons(self.mode));
        }
        snapshot.health_reasons.extend(self.ledger_failure.clone());
        self.snapshot.send_if_modified(|before| {
            let news = **before != snapshot;
            if news {
                *before = Arc::new(snapshot);
            }
            news
        });
    }

    fn tell(&self, news: Vec<News>) {
        for (severity, kind, words) in news {
            self.events.note(severity, kind, words);
        }
    }

    async fn end(&mut self, how: Shutdown) {
        self.book.close("its agent is stopping");
        match (how, self.mode) {
            (Shutdown::DrainAll, Mode::Active) => self.drain_all().await,
            (Shutdown::KeepInstances, _) | (Shutdown::DrainAll, Mode::Advisory) => {
                let last = async { while self.orders.join_next().await.is_some() {} };
                if tokio::time::timeout(LAST_ORDERS, last).await.is_err() {
                    tracing::warn!("some orders were still being carried out when the pools were let go");
                }
            }
        }
        self.listeners.abort_all();
        for fleet in self.fleets.values() {
            fleet.provider.close().await;
        }
    }

    async fn drain_all(&mut self) {
        let longest = self.fleets.values().filter_map(Fleet::drain_timeout).max().unwrap_or(DRAIN_WITHOUT_CONFIG);
        self.fleets.values_mut().for_each(Fleet::want_nothing);
        let drained = self.until_empty();
        // Providers end what drains for too long; this is for those that fail to.
        if tokio::time::timeout(longest + LAST_ORDERS, drained).await.is_ok() {
            return;
        }
        let all: Vec<_> = self.fleets.iter_mut().map(|(name, fleet)| (name.clone(), fleet.everything())).collect();
        for (name, orders) in all {
            self.give(&name, orders);
        }
        if tokio::time::timeout(LAST_STOPS, self.until_empty()).await.is_err() {
            let left: Vec<String> =
                self.fleets.values().flat_map(|f| f.instances().map(|i| format!("{} ({})", i.id, i.handle)).collect::<Vec<_>>()).collect();
            self.events.note(Severity::Error, "pool.not_drained", format!("these instances could not be ended: {}", left.join(", ")));
        }
    }

    async fn until_empty(&mut self) {
        loop {
            self.act().await;
            if self.orders.is_empty() && self.fleets.values().all(Fleet::is_empty) {
                return;
            }
            self.wait().await;
        }
    }
}

/// What [`Actor::open`] gives.
pub(super) struct Opened {
    pub(super) actor: Actor,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(super) book: Arc<Book>,
    /// When uptime began.
    pub(super) begun: Instant,
    pub(super) notices: mpsc::Receiver<Notice>,
}

/// The ledger of a pool.
fn page(pool: &PoolConfig, reservations: &ReservationConfig, mode: Mode) -> PageSetup {
    // As many instances as may run, even if the capacity would hold more.
    let capacity =
        pool.instance.checked_mul(u64::from(pool.max_instances)).filter(|most| most.fits_in(pool.capacity)).unwrap_or(pool.capacity);
    let closed = match mode {
        Mode::Advisory => Some("its agent is advisory and only watches".to_owned()),
        Mode::Active if pool.instance == Resources::ZERO => Some("the pool does not say what one instance uses".to_owned()),
        Mode::Active if !reservations.lend => Some("it lends nothing: reservations.lend is false there".to_owned()),
        Mode::Active => None,
    };
    let config = ledger::Config {
        capacity,
        overbooking_per_mille: reservations.overbooking_per_mille,
        notice: reservations.notice,
        max_ttl: reservations.max_ttl,
        default_quota_per_mille: reservations.default_quota_per_mille,
        quotas: reservations.quotas.clone(),
    };
    PageSetup { config, unit: pool.instance, closed }
}

/// The ledger of a pool that only drains.
fn nothing() -> PageSetup {
    let closed = Some("the pool is no longer configured".to_owned());
    PageSetup { config: ledger::Config::plain(Resources::ZERO), unit: Resources::ZERO, closed }
}
