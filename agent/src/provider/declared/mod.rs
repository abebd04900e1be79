//! Providers that are told a whole plan: every instance that is to be, and how it is to stand.
//!
//! Infrastructure as code, a webhook and Kubernetes converge on a plan; they take no orders for single instances. This module
//! turns the one into the other: orders change the plan ([`book`], pure), one task ([`worker`]) has the [`Backend`] carry it
//! out, reads back what came of it, and tells those who wait. Orders that come together are carried out together.
//!
//! Invariants: what the backend is told is durable first ([`record`]), so the agent's next life knows which instances are
//! its own; what the backend shows beyond that is listed too, and the pool ends what it does not want; what fails is tried
//! again, ever more slowly, and orders meanwhile fail with the reason instead of hammering the backend.

pub(crate) mod book;
pub(crate) mod reading;
pub(crate) mod record;
mod worker;

use super::{Ended, Observed, Order, Provider, ProviderError, Standing};
use async_trait::async_trait;
use book::{Book, Place};
use record::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName};

/// How long a start waits for the backend before it counts as under way: below the pool's own limit of a minute.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How long an instance may take to serve, or to stop serving: below the pool's own limit of a minute.
const TURN_PATIENCE: Duration = Duration::from_secs(50);

/// How long a list waits for the first look: below the pool's own limit of ten seconds.
const FIRST_LOOK: Duration = Duration::from_secs(8);

/// How an instance is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Started, and not serving.
    Warm,
    /// Serving.
    Active,
    /// Finishing what it has; it is to be gone when it has.
    Draining,
}

/// Everything that is to be in one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Who plans: drawn by chance for a pool, and the same as long as `data_dir` lives. Pools of other regions may have the same name.
    pub agent: String,
    /// Which pool.
    pub pool: PoolName,
    /// Grows with every plan of the pool, also across the agent's lives.
    pub serial: u64,
    /// The instances that are to be, and no others.
    pub instances: BTreeMap<InstanceId, Want>,
}

impl Plan {
    /// As it is handed over: `{"agent": .., "pool": .., "serial": .., "instances": {"ID": {"state": "warm"}}}`.
    pub fn to_json(&self) -> serde_json::Value {
        let instances: serde_json::Map<_, _> =
            self.instances.iter().map(|(id, want)| (id.to_string(), serde_json::json!({ "state": want }))).collect();
        serde_json::json!({ "agent": self.agent, "pool": self.pool, "serial": self.serial, "instances": instances })
    }
}

/// One instance as the backend reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which instance.
    pub id: InstanceId,
    /// Where it stands.
    pub state: InstanceState,
    /// How it is to stand, where the backend knows: what is starting may be on its way to serve.
    pub want: Option<Want>,
    /// Where it is reached or what it runs as, for people.
    pub handle: String,
}

/// What carries plans out. Calls never overlap.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Brings about `plan`, or begins to; what there is then. The same plan again changes nothing.
    async fn apply(&self, plan: &Plan) -> Result<Vec<Seen>, String>;
    /// What there is, `plan` being the last that was carried out.
    async fn read(&self, plan: &Plan) -> Result<Vec<Seen>, String>;
    /// Completes when something may have changed; backends that cannot tell are read every so often all the same.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// How a pool's plan is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How often the backend is read while nothing is ordered.
    pub refresh: Duration,
    /// How long a draining instance may take to finish.
    pub drain_timeout: Duration,
}

/// What a pool is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) pool: &'a PoolName,
    /// What kind of backend it is.
    pub(crate) kind: &'static str,
    /// What made the backend, for the agent's next life.
    pub(crate) origin: serde_json::Value,
    pub(crate) pace: Pace,
    pub(crate) standing: Standing,
}

/// Why a pool's record cannot be used. Nothing was started or stopped.
#[derive(Debug, thiserror::Error)]
#[error("pool {pool}: cannot use {path}; the agent must own data_dir")]
pub struct OpenError {
    pool: PoolName,
    path: String,
    source: io::Error,
}

/// Runs one pool by plans.
pub struct DeclaredProvider {
    shared: Arc<Shared>,
    worker: JoinHandle<()>,
}

struct Shared {
    pool: PoolName,
    pace: Pace,
    path: PathBuf,
    /// What made the backend, for the agent's next life.
    origin: serde_json::Value,
    backend: Arc<dyn Backend>,
    book: Mutex<Book>,
    /// Wakes the worker.
    kick: Notify,
    /// Wakes the pool.
    changed: Notify,
    /// Wakes orders that wait: counts rounds.
    rounds: watch::Sender<u64>,
    closed: std::sync::atomic::AtomicBool,
    /// The record of a retired provider goes with its last instance.
    standing: Standing,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DeclaredProvider {
    /// Has `backend` run a pool. Must be called inside a tokio runtime.
    pub(crate) fn open(opening: Opening, backend: Arc<dyn Backend>) -> Result<Self, OpenError> {
        let Opening { data_dir, pool, kind, origin, pace, standing } = opening;
        let path = record::path(data_dir, kind, pool);
        let failed = |source| OpenError { pool: pool.clone(), path: path.display().to_string(), source };
        record::take_over(data_dir).map_err(failed)?;
        let mut record = Record::read(&path).map_err(failed)?.unwrap_or_default();
        if record.agent.is_empty() {
            record.agent = format!("{:016x}", rand::random::<u64>());
        }
        let shared = Arc::new(Shared {
            pool: pool.clone(),
            pace,
            path: path.clone(),
            origin,
            backend,
            book: Mutex::new(Book::recall(record)),
            kick: Notify::new(),
            changed: Notify::new(),
            rounds: watch::channel(0).0,
            closed: false.into(),
            standing,
        });
        let worker = tokio::spawn(worker::run(Arc::clone(&shared)));
        Ok(Self { shared, worker })
    }

    fn open_for(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        match self.shared.closed.load(std::sync::atomic::Ordering::Acquire) {
            true => Err(ProviderError::order(order, id, "the provider is closed")),
            false => Ok(()),
        }
    }

    /// Waits until the plan with `serial` is carried out, or an attempt fails.
    async fn carried_out(&self, serial: u64, failures: u64) -> Result<(), String> {
        let mut rounds = self.shared.rounds.subscribe();
        loop {
            {
                let book = self.shared.book();
                if book.applied() >= serial {
                    return Ok(());
                }
                if book.failures_ever() > failures {
                    return Err(book.failure().unwrap_or("it was not carried out").to_string());
                }
            }
            if rounds.changed().await.is_err() {
                return Err("the provider is closed".into());
            }
        }
    }

    /// Has the plan changed, unless the backend is left alone for now.
    fn change(&self, change: impl FnOnce(&mut Book) -> Result<u64, String>) -> Result<(u64, u64), String> {
        let mut book = self.shared.book();
        if let Some(reason) = book.waits(Instant::now()) {
            return Err(reason);
        }
        let failures = book.failures_ever();
        let serial = change(&mut book)?;
        drop(book);
        self.shared.kick.notify_one();
        Ok((serial, failures))
    }

    async fn turn(&self, order: Order, id: &InstanceId, want: Want, state: InstanceState) -> Result<(), ProviderError> {
        self.open_for(order, id)?;
        let refused = |reason: String| ProviderError::order(order, id, reason);
        let before = self.shared.book().want(id);
        let (serial, failures) = self.change(|book| book.turn(id, want)).map_err(refused)?;
        let turned = async {
            self.carried_out(serial, failures).await?;
            let mut rounds = self.shared.rounds.subscribe();
            loop {
                match self.shared.book().place(id) {
                    Place::At(now) if now == state => return Ok(()),
                    Place::At(InstanceState::Draining) => return Err("it is draining".to_string()),
                    Place::Unknown => return Err("it has ended".to_string()),
                    Place::At(_) => {}
                }
                if rounds.changed().await.is_err() {
                    return Err("the provider is closed".into());
                }
            }
        };
        match tokio::time::timeout(TURN_PATIENCE, turned).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => {
                if let Some(before) = before {
                    // It stays what it was, unless somebody has ended it since.
                    let _ = self.shared.book().turn(id, before);
                }
                Err(refused(reason))
            }
            Err(_) => Err(refused(format!("it is not {state:?} after {TURN_PATIENCE:?}"))),
        }
    }
}

impl Drop for DeclaredProvider {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

#[async_trait]
impl Provider for DeclaredProvider {
    async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
        let mut rounds = self.shared.rounds.subscribe();
        let looked = async { while self.shared.book().rounds() == 0 && rounds.changed().await.is_ok() {} };
        let late = |_| ProviderError::List { reason: "the backend has not answered yet".into() };
        tokio::time::timeout(FIRST_LOOK, looked).await.map_err(late)?;
        self.shared.book().list().map_err(|reason| ProviderError::List { reason })
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Start, id)?;
        let refused = |reason| ProviderError::order(Order::Start, id, reason);
        let (serial, failures) = self.change(|book| Ok(book.start(id))).map_err(refused)?;
        match tokio::time::timeout(START_PATIENCE, self.carried_out(serial, failures)).await {
            Ok(Err(reason)) => {
                self.shared.book().give_up(id);
                self.shared.kick.notify_one();
                Err(refused(reason))
            }
            // Under way: it is starting until the backend shows it, or the pool gives it up.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Activate, id, Want::Active, InstanceState::Active).await
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Deactivate, id, Want::Warm, InstanceState::Warm).await
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Drain, id)?;
        self.shared.book().drain(id, Instant::now() + self.shared.pace.drain_timeout);
        self.shared.kick.notify_one();
        self.shared.changed.notify_one();
        Ok(())
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Stop, id)?;
        self.shared.book().stop(id);
        self.shared.kick.notify_one();
        self.shared.changed.notify_one();
        Ok(())
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn take_ended(&self) -> Vec<Ended> {
        self.shared.book().take_ended()
    }

    async fn close(&self) {
        self.shared.closed.store(true, std::sync::atomic::Ordering::Release);
        self.worker.abort();
    }
}
