//! Worker processes of this machine.
//!
//! [`control`] says what a worker must do, `record` what is remembered of it, `os` how it is told
//! from every other process. Workers lead process groups of their own, so that Ctrl-C on the agent's
//! terminal does not end them before the agent drains them.
//!
//! Invariant: a process that this provider started is listed until it, its group and all that bear
//! its mark are gone, whatever moments the agent is killed at and started again.
//!
//! | killed | what the next agent finds |
//! |---|---|
//! | before the intent is durable | nothing, and nothing was started |
//! | before the process is started | an intent and no process with its mark: forgotten |
//! | before the process is noted | an intent and a process with its mark: adopted |
//! | later | a record with an identity: adopted, or forgotten if that process is gone |
//!
//! A worker whose agent never returns ends by its orphan timeout.

pub mod control;
mod keeper;
mod link;
mod os;
mod record;

use super::{EndCause, Ended, Observed, Order, Provider, ProviderError};
use crate::config::{PoolConfig, ProcessConfig};
use async_trait::async_trait;
use control::{ENV_CONTROL, ENV_INSTANCE, ENV_ORPHAN_TIMEOUT, ENV_POOL, ToWorker};
use keeper::{Slot, Status};
use os::Process;
use record::{Record, Sync};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName};

/// What a chain of providers calls this one.
pub(crate) const KIND: &str = "process";

/// How long a worker may take to obey an order, contact included: an adopted worker needs
/// [`control::RECONNECT`] to be back, and any worker a scheduler's pause to answer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest path of a unix socket: macOS allows 103 bytes, Linux 107.
const MAX_SOCKET_PATH_BYTES: usize = 103;

/// How many ended instances are remembered for [`Provider::take_ended`], which only explains: the
/// list alone says what exists.
const MAX_ENDED: usize = 1_000;

/// How long a drain may take in a pool that is no longer configured.
const RETIRED_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Variables of the agent's environment that workers inherit.
const INHERITED: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"];

/// Why the processes of a pool cannot be looked after. Nothing was started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the socket of the pool cannot be used.
    #[error("pool {pool}: cannot {action} {path}; the agent must own data_dir")]
    Io {
        /// Which pool.
        pool: PoolName,
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The path of the control socket is longer than the system can name.
    #[error("pool {pool}: the control socket {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter data_dir or pool name")]
    PathTooLong {
        /// Which pool.
        pool: PoolName,
        /// The path.
        path: String,
    },
}

/// Runs one pool's worker processes.
pub struct ProcessProvider {
    shared: Arc<Shared>,
}

struct Shared {
    pool: PoolName,
    command: Vec<String>,
    env: Vec<(String, String)>,
    drain_timeout: Duration,
    orphan_timeout: Duration,
    dir: PathBuf,
    control: PathBuf,
    slots: Mutex<BTreeMap<InstanceId, Arc<Slot>>>,
    ended: Mutex<VecDeque<Ended>>,
    changed: Notify,
    tasks: Mutex<JoinSet<()>>,
    closed: AtomicBool,
}

impl ProcessProvider {
    /// Looks after the processes of `pool`, whose files are under `data_dir`; adopts those that an
    /// earlier life of the agent started. Must be called inside a tokio runtime.
    pub fn open(data_dir: &Path, pool: &PoolConfig, process: &ProcessConfig) -> Result<Self, OpenError> {
        Self::open_as(data_dir, &pool.name, process, pool.drain_timeout)
    }

    /// Like [`open`](Self::open), for a pool that is no longer configured: nothing can be started.
    pub fn open_retired(data_dir: &Path, pool: &PoolName) -> Result<Self, OpenError> {
        Self::open_as(data_dir, pool, &ProcessConfig { command: vec![], env: vec![] }, RETIRED_DRAIN_TIMEOUT)
    }

    fn open_as(data_dir: &Path, pool: &PoolName, process: &ProcessConfig, drain_timeout: Duration) -> Result<Self, OpenError> {
        let dir = pools_dir(data_dir).join(pool.as_str());
        let failed = |action, path: &Path| {
            let (pool, path) = (pool.clone(), path.display().to_string());
            move |source| OpenError::Io { pool, action, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("create", &dir))?;
        // Marks are compared by path, also by an agent that was started from another directory.
        let dir = dir.canonicalize().map_err(failed("resolve", &dir))?;
        let control = dir.join("control");
        if control.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            return Err(OpenError::PathTooLong { pool: pool.clone(), path: control.display().to_string() });
        }
        match fs::remove_file(&control) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &control)(error)),
            Ok(()) | Err(_) => {}
        }
        let orphan_timeout = process.env.iter().find(|(name, _)| name == ENV_ORPHAN_TIMEOUT).and_then(|(_, ms)| ms.parse().ok());
        let shared = Arc::new(Shared {
            pool: pool.clone(),
            command: process.command.clone(),
            env: process.env.clone(),
            drain_timeout,
            orphan_timeout: orphan_timeout.map_or(control::DEFAULT_ORPHAN_TIMEOUT, Duration::from_millis),
            control: control.clone(),
            slots: Mutex::default(),
            ended: Mutex::default(),
            changed: Notify::new(),
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
            dir: dir.clone(),
        });
        // Before anybody listens: a worker that says hello must find that it is known.
        shared.adopt().map_err(failed("read the workers' records in", &dir))?;
        let listener = tokio::net::UnixListener::bind(&control).map_err(failed("listen on", &control))?;
        shared.spawn(link::accept(Arc::clone(&shared), listener));
        Ok(Self { shared })
    }
}

/// The pools of which there are workers or records under `data_dir`.
pub fn known_pools(data_dir: &Path) -> io::Result<BTreeSet<PoolName>> {
    let mut pools = BTreeSet::new();
    let dir = pools_dir(data_dir);
    if !dir.exists() {
        return Ok(pools);
    }
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| PoolName::new(name).ok())
            && entry.file_type()?.is_dir()
            && !Record::read_all(&entry.path())?.is_empty()
        {
            pools.insert(name);
        }
    }
    pools.extend(os::marked_under(&dir.canonicalize()?).iter().filter_map(|marked| {
        let pool = Path::new(&marked.control).parent()?.file_name()?.to_str()?;
        PoolName::new(pool).ok()
    }));
    Ok(pools)
}

/// The pids of all processes of this machine that were started as workers under `data_dir`, and
/// their descendants: what must be empty when everything has been drained. Linux only; empty
/// elsewhere.
pub fn census(data_dir: &Path) -> Vec<u32> {
    // A directory that is gone is looked for under the path it was given.
    let dir = pools_dir(&data_dir.canonicalize().unwrap_or_else(|_| data_dir.into()));
    os::marked_under(&dir).into_iter().map(|marked| marked.pid).collect()
}

fn pools_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pools")
}

impl Drop for ProcessProvider {
    fn drop(&mut self) {
        self.shared.let_go();
    }
}

#[async_trait]
impl Provider for ProcessProvider {
    async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
        Ok(self.shared.slots().values().map(|slot| slot.observe()).collect())
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Start, id)?;
        let (shared, instance) = (Arc::clone(&self.shared), id.clone());
        let runtime = tokio::runtime::Handle::current();
        // On its own thread and to its end, also when the caller stops waiting half-way.
        let started = tokio::task::spawn_blocking(move || {
            let _context = runtime.enter();
            shared.start(&instance)
        });
        match started.await {
            Ok(result) => result.map_err(|reason| ProviderError::order(Order::Start, id, reason)),
            Err(_) => Err(ProviderError::order(Order::Start, id, "the agent is shutting down")),
        }
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Activate, id).await
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Deactivate, id).await
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Drain, id)?;
        if let Some(slot) = self.shared.slot(id) {
            let drained = slot.update(|status| {
                let news = status.state != InstanceState::Draining;
                status.state = InstanceState::Draining;
                news
            });
            if drained {
                self.shared.save(&slot, InstanceState::Draining);
                if !slot.tell(ToWorker::Drain) {
                    slot.terminate();
                }
                self.shared.changed.notify_one();
            }
        }
        Ok(())
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(Order::Stop, id)?;
        if let Some(slot) = self.shared.slot(id) {
            slot.update(|status| status.doomed = true);
        }
        Ok(())
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn take_ended(&self) -> Vec<Ended> {
        lock(&self.shared.ended).drain(..).collect()
    }

    async fn close(&self) {
        self.shared.let_go();
    }
}

impl ProcessProvider {
    /// Refuses orders after [`Provider::close`].
    fn open_for(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        match self.shared.closed.load(Ordering::Acquire) {
            true => Err(ProviderError::order(order, id, "the provider is closed")),
            false => Ok(()),
        }
    }

    /// Turns a warm worker active or an active one warm, and waits until it says so.
    async fn turn(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(order, id)?;
        let (line, wanted) = match order {
            Order::Activate => (ToWorker::Activate, InstanceState::Active),
            Order::Deactivate => (ToWorker::Deactivate, InstanceState::Warm),
            Order::Start | Order::StartSpot | Order::Drain | Order::Stop | Order::GiveUp => {
                return Err(ProviderError::order(order, id, "it is not a turn"));
            }
        };
        let refused = |reason: &str| ProviderError::order(order, id, reason);
        let slot = self.shared.slot(id).ok_or_else(|| refused("there is no such instance"))?;
        let mut status = slot.watch();
        let turned = async {
            let mut told = None;
            loop {
                let now = status.borrow_and_update().clone();
                if now.gone || now.doomed {
                    return Err(refused("it has ended"));
                }
                match now.state {
                    state if state == wanted => return Ok(()),
                    InstanceState::Starting => return Err(refused("it is not ready yet")),
                    InstanceState::Draining => return Err(refused("it is draining")),
                    InstanceState::Warm | InstanceState::Active => {}
                }
                // Again on every new connection: the order may have been lost with the old one.
                if now.link.is_some() && told != now.link_number() && slot.tell(line) {
                    told = now.link_number();
                }
                if status.changed().await.is_err() {
                    return Err(refused("it has ended"));
                }
            }
        };
        match tokio::time::timeout(ORDER_TIMEOUT, turned).await {
            Ok(result) => result,
            Err(_) => Err(refused("the worker did not obey in time; see the pool's workers.log")),
        }
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Slot>>> {
        lock(&self.slots)
    }

    fn slot(&self, id: &InstanceId) -> Option<Arc<Slot>> {
        self.slots().get(id).cloned()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        if !self.closed.load(Ordering::Acquire) {
            tasks.spawn(task);
        }
    }

    fn let_go(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.tasks).abort_all();
    }

    /// Starts the process of a new instance. On an error nothing is left of it.
    fn start(self: &Arc<Self>, id: &InstanceId) -> Result<(), String> {
        if record::file_name(id).is_none() {
            return Err("the id must be letters, digits, '.', '_' or '-'".into());
        }
        let slot = {
            let mut slots = self.slots();
            if slots.contains_key(id) {
                return Ok(());
            }
            let record = Record { instance: id.clone(), process: None, state: InstanceState::Starting };
            let slot = Arc::new(Slot::new(record));
            slots.insert(id.clone(), Arc::clone(&slot));
            slot
        };
        let process = match self.start_process(&slot) {
            Ok(process) => process,
            Err(reason) => {
                self.forget(&slot);
                return Err(reason);
            }
        };
        let noted = self.write_durably(&slot);
        if noted.is_err() {
            slot.update(|status| status.doomed = true);
        }
        self.spawn(keeper::keep(Arc::clone(self), slot, process));
        self.changed.notify_one();
        noted
    }

    /// Notes the intent and starts the process.
    fn start_process(&self, slot: &Slot) -> Result<Arc<Process>, String> {
        self.write_durably(slot)?;
        let mut command = self.command(&slot.id)?;
        let mut child = command.spawn().map_err(|error| format!("{:?} cannot be run: {error}; check the pool's command", self.command))?;
        // It is not reaped yet, so the pid is its own even if it has ended already. The handle is
        // not kept: the keeper waits for the process, ours or adopted, in one way.
        let Some(process) = os::look(child.id()).and_then(|(identity, _)| Process::attach(identity)) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err("the system does not tell about its processes; is /proc mounted?".into());
        };
        let process = Arc::new(process);
        slot.record(|record| record.process = Some(process.identity()));
        slot.set_process(Arc::clone(&process));
        Ok(process)
    }

    fn write_durably(&self, slot: &Slot) -> Result<(), String> {
        let written = slot.record(|record| record.write(&self.dir, Sync::Durable));
        written.map_err(|error| format!("its record cannot be written to {}: {error}", self.dir.display()))
    }

    fn command(&self, id: &InstanceId) -> Result<Command, String> {
        let (program, arguments) = self.command.split_first().ok_or("the pool has no command to run")?;
        let path = self.dir.join(keeper::LOG_NAME);
        let log = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env(ENV_ORPHAN_TIMEOUT, self.orphan_timeout.as_millis().to_string());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env(ENV_INSTANCE, id.as_str()).env(ENV_POOL, self.pool.as_str()).env(ENV_CONTROL, &self.control);
        let copy = log.try_clone().map_err(|e| format!("{}: {e}", path.display()))?;
        command.stdin(Stdio::null()).stdout(copy).stderr(log).process_group(0);
        Ok(command)
    }

    /// Takes over what an earlier life left, and ends what has no record.
    fn adopt(self: &Arc<Self>) -> io::Result<()> {
        let mut marked = os::marked_under(&self.dir);
        marked.retain(|marked| Path::new(&marked.control) == self.control);
        for mut record in Record::read_all(&self.dir)? {
            let by_mark = || {
                let leader = marked.iter().find(|m| m.instance == record.instance && os::leads_group(m.pid))?;
                Process::attach(os::look(leader.pid)?.0)
            };
            let process = record.process.clone().and_then(Process::attach).or_else(by_mark);
            let Some(process) = process.map(Arc::new) else {
                record.remove(&self.dir)?;
                let reason = "it ended while the agent was away".into();
                self.note_ended(Ended { id: record.instance, cause: EndCause::Unexpected, reason });
                continue;
            };
            let identity = Some(process.identity());
            if record.process != identity {
                record.process = identity;
                record.write(&self.dir, Sync::Durable)?;
            }
            let slot = Arc::new(Slot::new(record));
            slot.set_process(Arc::clone(&process));
            self.slots().insert(slot.id.clone(), Arc::clone(&slot));
            self.spawn(keeper::keep(Arc::clone(self), slot, process));
        }
        for stray in marked.iter().filter(|m| !self.slots().contains_key(&m.instance)) {
            tracing::warn!(pool = %self.pool, pid = stray.pid, instance = %stray.instance, "ending a worker of no known instance");
            os::kill_marked(stray.pid);
        }
        Ok(())
    }

    /// Ends whatever still bears the mark of `id`: descendants that left the worker's group. How many
    /// there were.
    fn end_remnants(&self, id: &InstanceId) -> usize {
        let mut marked = os::marked_under(&self.dir);
        marked.retain(|marked| marked.instance == *id && Path::new(&marked.control) == self.control);
        marked.iter().for_each(|marked| os::kill_marked(marked.pid));
        marked.len()
    }

    /// Writes what the worker said last, for the next life of the agent.
    fn save(&self, slot: &Slot, said: InstanceState) {
        let saved = slot.record(|record| {
            let now = slot.status();
            if now.gone {
                // The record has been removed, or is about to be.
                return Ok(());
            }
            record.state = if now.state == InstanceState::Draining { now.state } else { said };
            record.write(&self.dir, Sync::Cached)
        });
        if let Err(error) = saved {
            // The worker says it again when it is adopted.
            tracing::warn!(pool = %self.pool, instance = %slot.id, %error, "a worker's state was not noted");
        }
    }

    /// Removes a slot whose process is gone.
    fn forget(&self, slot: &Slot) {
        slot.update(|status: &mut Status| status.gone = true);
        if let Err(error) = slot.record(|record| record.remove(&self.dir)) {
            tracing::warn!(pool = %self.pool, instance = %slot.id, %error, "an ended worker's record was not removed");
        }
        self.slots().remove(&slot.id);
    }

    fn note_ended(&self, ended: Ended) {
        let mut log = lock(&self.ended);
        if log.len() == MAX_ENDED {
            log.pop_front();
        }
        log.push_back(ended);
    }
}

/// What a panicking thread leaves behind is still whole: no invariant spans two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
