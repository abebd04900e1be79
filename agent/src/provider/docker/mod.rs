//! Containers of a Docker engine.
//!
//! A warm instance is a paused container: its image is there, its processes have started and hold their memory, and
//! they take no CPU. Activating it thaws it. The engine is the only record: labels say whose a container is (the data
//! directory of the agent, the pool, the instance), its name says what neither labels nor the engine's state can, that
//! it is still starting or drains already. So a killed agent's successor sees what its predecessor did, whatever the
//! moment:
//!
//! | killed | what the next agent finds |
//! |---|---|
//! | before the container is made | nothing |
//! | before it is started, ready, paused or renamed | a starting container: made warm, or removed if it cannot start |
//! | between drain and end | a draining container: ended |
//! | after the end | remains: reported, and removed |
//!
//! A container is ready when its health check says so, or as soon as it runs if it has none.

mod engine;

use super::process::control::ENV_POOL;
use super::{EndCause, Ended, Observed, Order, Provider, ProviderError};
use crate::config::{DockerConfig, PoolConfig};
use async_trait::async_trait;
use engine::{Container, Engine, Readiness, Recipe};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName, Resources};

/// What a chain of providers calls this one.
pub(crate) const KIND: &str = "docker";

/// How often a starting container is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How often the containers are looked at when the engine says nothing, and how long after it has failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How many ended instances are remembered for [`Provider::take_ended`], which only explains.
const MAX_ENDED: usize = 1_000;

/// How long a drain may take in a pool that is no longer configured.
const RETIRED_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the agent notes which pools have had containers, and behind which socket.
const NOTES: &str = "docker";

/// Why the containers of a pool cannot be looked after. Nothing was started or stopped.
#[derive(Debug, thiserror::Error)]
#[error("pool {pool}: cannot write {path}; the agent must own data_dir")]
pub struct OpenError {
    pool: PoolName,
    path: String,
    source: io::Error,
}

/// Runs one pool's containers.
pub struct DockerProvider {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    recipe: Recipe,
    drain_timeout: Duration,
    /// Instances that live as far as is known.
    known: Mutex<BTreeMap<InstanceId, Known>>,
    ended: Mutex<VecDeque<Ended>>,
    changed: Notify,
    tasks: Mutex<JoinSet<()>>,
    closed: AtomicBool,
    /// Whether the containers were looked at in this life.
    surveyed: AtomicBool,
    /// The note of a retired pool, removed once the pool is empty.
    note: Option<PathBuf>,
}

/// What is remembered of an instance beside what the engine says.
#[derive(Debug, Clone, Default)]
struct Known {
    /// One change of state at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Its container may not be there yet.
    making: bool,
    /// A task brings it to its next state.
    attended: bool,
    /// It was told to end.
    ordered: bool,
}

impl DockerProvider {
    /// Looks after the containers of `pool` that belong to the agent with this `data_dir`; adopts those of its
    /// earlier lives. Must be called inside a tokio runtime.
    pub fn open(data_dir: &Path, pool: &PoolConfig, docker: &DockerConfig) -> Result<Self, OpenError> {
        let notes = data_dir.join(NOTES);
        let path = notes.join(pool.name.as_str());
        let noted = std::fs::create_dir_all(&notes).and_then(|()| std::fs::write(&path, &docker.socket));
        noted.map_err(|source| OpenError { pool: pool.name.clone(), path: path.display().to_string(), source })?;
        let recipe = Recipe {
            image: docker.image.clone(),
            command: docker.command.clone(),
            env: docker.env.iter().map(|(name, value)| format!("{name}={value}")).chain([format!("{ENV_POOL}={}", pool.name)]).collect(),
            network: docker.network.clone(),
            limits: pool.instance,
        };
        Ok(Self::open_as(data_dir, &pool.name, &docker.socket, recipe, pool.drain_timeout, None))
    }

    /// Like [`open`](Self::open), for a pool that is no longer configured: its containers can only be ended.
    fn open_retired(data_dir: &Path, pool: &PoolName, socket: &str) -> Self {
        let recipe = Recipe { image: String::new(), command: vec![], env: vec![], network: None, limits: Resources::ZERO };
        let note = data_dir.join(NOTES).join(pool.as_str());
        Self::open_as(data_dir, pool, socket, recipe, RETIRED_DRAIN_TIMEOUT, Some(note))
    }

    fn open_as(data_dir: &Path, pool: &PoolName, socket: &str, recipe: Recipe, drain_timeout: Duration, note: Option<PathBuf>) -> Self {
        let owner = data_dir.canonicalize().unwrap_or_else(|_| data_dir.into()).display().to_string();
        let shared = Arc::new(Shared {
            engine: Engine::new(socket, &owner, pool),
            recipe,
            drain_timeout,
            known: Mutex::default(),
            ended: Mutex::default(),
            changed: Notify::new(),
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
            surveyed: AtomicBool::new(false),
            note,
        });
        shared.spawn(watch(Arc::clone(&shared)));
        Self { shared }
    }
}

/// The pools that are not `configured` to run containers and may still have some of the agent with this `data_dir`.
pub fn retired(data_dir: &Path, configured: impl Fn(&PoolName) -> bool) -> io::Result<Vec<(PoolName, DockerProvider)>> {
    let notes = data_dir.join(NOTES);
    if !notes.exists() {
        return Ok(vec![]);
    }
    let mut retired = vec![];
    for entry in std::fs::read_dir(&notes)? {
        let entry = entry?;
        let pool = entry.file_name().to_str().and_then(|name| PoolName::new(name).ok());
        if let Some(pool) = pool.filter(|pool| !configured(pool)) {
            let socket = std::fs::read_to_string(entry.path())?;
            let provider = DockerProvider::open_retired(data_dir, &pool, &socket);
            retired.push((pool, provider));
        }
    }
    retired.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(retired)
}

/// Tells the pool when anything happens to its containers.
async fn watch(shared: Arc<Shared>) {
    loop {
        let mut events = match shared.engine.events().await {
            Ok(events) => Box::pin(events),
            Err(error) => {
                tracing::warn!(%error, "containers cannot be watched");
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
        };
        // What happened before the engine listened.
        shared.changed.notify_one();
        while let Ok(Some(())) | Err(_) = tokio::time::timeout(LOOK_AGAIN, events.next()).await {
            shared.changed.notify_one();
        }
        tokio::time::sleep(POLL).await;
    }
}

#[async_trait]
impl Provider for DockerProvider {
    async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
        let containers = self.shared.survey().await.map_err(|reason| ProviderError::List { reason })?;
        let observed = |container: Container| {
            let short: String = container.handle.chars().take(12).collect();
            Some(Observed { id: container.id, state: container.state?, handle: format!("container {short}") })
        };
        Ok(containers.into_iter().filter_map(observed).collect())
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        let refused = |reason: String| ProviderError::order(Order::Start, id, reason);
        self.open_for(Order::Start, id)?;
        if !id.as_str().chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(refused("the id must be letters, digits, '.', '_' or '-'".into()));
        }
        let shared = Arc::clone(&self.shared);
        let instance = id.clone();
        // To its end, also when the caller stops waiting half-way.
        let started = tokio::spawn(async move {
            let turn = {
                let mut known = shared.known();
                let known = known.entry(instance.clone()).or_default();
                known.making = true;
                known.turn.clone()
            };
            let _turn = turn.lock().await;
            let started = shared.engine.start(&instance, &shared.recipe).await;
            if started.is_err() {
                shared.known().remove(&instance);
            } else {
                if let Some(known) = shared.known().get_mut(&instance) {
                    known.making = false;
                }
                shared.attend(&instance);
            }
            started
        });
        started.await.unwrap_or_else(|_| Err("the agent is shutting down".into())).map_err(refused)
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Activate, id).await
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Deactivate, id).await
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.end(Order::Drain, id).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.end(Order::Stop, id).await
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

impl Drop for DockerProvider {
    fn drop(&mut self) {
        self.shared.let_go();
    }
}

impl DockerProvider {
    /// Refuses orders after [`Provider::close`].
    fn open_for(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        match self.shared.closed.load(Ordering::Acquire) {
            true => Err(ProviderError::order(order, id, "the provider is closed")),
            false => Ok(()),
        }
    }

    async fn turn(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(order, id)?;
        let refused = |reason: String| ProviderError::order(order, id, reason);
        let turn = self.shared.turn_of(id);
        let _turn = turn.lock().await;
        let container = self.shared.engine.get(id).await.map_err(refused)?;
        let state = container.as_ref().and_then(|container| container.state);
        let (Some(container), Some(state)) = (container, state) else { return Err(refused("there is no such instance".into())) };
        match (order, state) {
            (Order::Activate, InstanceState::Warm) => self.shared.engine.unpause(&container).await.map_err(refused),
            (Order::Deactivate, InstanceState::Active) => self.shared.engine.pause(&container).await.map_err(refused),
            (_, InstanceState::Starting) => Err(refused("it is not ready yet".into())),
            (_, InstanceState::Draining) => Err(refused("it is draining".into())),
            (_, InstanceState::Warm | InstanceState::Active) => Ok(()),
        }
    }

    /// Marks the container as draining and lets it end.
    async fn end(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        self.open_for(order, id)?;
        let refused = |reason: String| ProviderError::order(order, id, reason);
        let turn = self.shared.turn_of(id);
        let _turn = turn.lock().await;
        let Some(container) = self.shared.engine.get(id).await.map_err(refused)? else { return Ok(()) };
        self.shared.known().entry(id.clone()).or_default().ordered = true;
        if container.state.is_some_and(|state| state != InstanceState::Draining) {
            self.shared.engine.mark_draining(&container).await.map_err(refused)?;
        }
        let shared = Arc::clone(&self.shared);
        if order == Order::Stop {
            self.shared.spawn(async move {
                if let Err(error) = shared.engine.remove(&container.handle).await {
                    tracing::warn!(instance = %container.id, %error, "a container was not removed");
                }
                shared.changed.notify_one();
            });
        } else {
            self.shared.attend(id);
        }
        Ok(())
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Known>> {
        lock(&self.known)
    }

    fn turn_of(&self, id: &InstanceId) -> Arc<tokio::sync::Mutex<()>> {
        self.known().get(id).cloned().unwrap_or_default().turn
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

    /// The containers as the engine has them. What is new is adopted, what has ended is reported and cleared away.
    async fn survey(self: &Arc<Self>) -> Result<Vec<Container>, String> {
        // Before the engine is asked: what is made meanwhile is not missed.
        let expected: BTreeSet<InstanceId> = {
            let known = self.known();
            known.iter().filter(|(_, known)| !known.making).map(|(id, _)| id.clone()).collect()
        };
        let mut containers = self.engine.list().await?;
        let first = !self.surveyed.swap(true, Ordering::AcqRel);
        for container in &containers {
            match container.state {
                Some(state) => {
                    self.known().entry(container.id.clone()).or_default().ordered |= container.ordered;
                    if matches!(state, InstanceState::Starting | InstanceState::Draining) {
                        self.attend(&container.id);
                    }
                }
                None => {
                    if first {
                        // It ended while the agent was away.
                        self.known().entry(container.id.clone()).or_default().ordered |= container.ordered;
                    }
                    self.note_ended(&container.id, &container.status);
                    let (shared, handle) = (Arc::clone(self), container.handle.clone());
                    self.spawn(async move {
                        if let Err(error) = shared.engine.remove(&handle).await {
                            tracing::warn!(%handle, %error, "an ended container was not removed");
                        }
                    });
                }
            }
        }
        for id in expected.iter().filter(|id| containers.iter().all(|container| container.id != **id)) {
            self.note_ended(id, "its container was removed");
        }
        containers.retain(|container| container.state.is_some());
        if let Some(note) = self.note.as_ref().filter(|_| containers.is_empty()) {
            // Looked at again after the next start if it cannot be removed now.
            let _ = std::fs::remove_file(note);
        }
        Ok(containers)
    }

    /// Brings an instance to its next state, once at a time: a starting one to warm, a draining one to its end.
    fn attend(self: &Arc<Self>, id: &InstanceId) {
        let Some(turn) =
            self.known().get_mut(id).and_then(|known| (!std::mem::replace(&mut known.attended, true)).then(|| known.turn.clone()))
        else {
            return;
        };
        let (shared, id) = (Arc::clone(self), id.clone());
        self.spawn(async move {
            while let Some(error) = shared.bring_on(&id, &turn).await.err() {
                tracing::warn!(instance = %id, %error, "a container is not where it should be");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if let Some(known) = shared.known().get_mut(&id) {
                known.attended = false;
            }
            shared.changed.notify_one();
        });
    }

    async fn bring_on(&self, id: &InstanceId, turn: &tokio::sync::Mutex<()>) -> Result<(), String> {
        loop {
            let guard = turn.lock().await;
            let Some(container) = self.engine.get(id).await? else { return Ok(()) };
            match container.state {
                Some(InstanceState::Starting) => match self.engine.readiness(&container).await? {
                    Readiness::NotYet => {}
                    Readiness::Ready => self.engine.pause(&container).await?,
                    Readiness::Paused => return self.engine.mark_started(&container).await,
                    Readiness::Failed => return self.engine.remove(&container.handle).await,
                },
                Some(InstanceState::Draining) => {
                    drop(guard);
                    self.engine.end(&container, self.drain_timeout).await?;
                    return self.clear_away(id).await;
                }
                Some(InstanceState::Warm | InstanceState::Active) | None => return Ok(()),
            }
            drop(guard);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Removes what a drained container left.
    async fn clear_away(&self, id: &InstanceId) -> Result<(), String> {
        match self.engine.get(id).await? {
            Some(container) => self.engine.remove(&container.handle).await,
            None => Ok(()),
        }
    }

    /// Reports the end of an instance, once.
    fn note_ended(&self, id: &InstanceId, reason: &str) {
        let Some(known) = self.known().remove(id) else { return };
        let cause = if known.ordered { EndCause::Ordered } else { EndCause::Unexpected };
        let mut ended = lock(&self.ended);
        if ended.len() == MAX_ENDED {
            ended.pop_front();
        }
        ended.push_back(Ended { id: id.clone(), cause, reason: reason.into() });
    }
}

/// What a panicking thread leaves behind is still whole: no invariant spans two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
