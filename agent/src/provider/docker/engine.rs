//! The Docker engine as this provider uses it: containers that bear the labels of one pool.

use super::super::process::control::ENV_INSTANCE;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum as State, HealthStatusEnum, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::OnceCell;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName, Resources};

/// Labels of every container that is ours.
const LABEL_OWNER: &str = "io.tradewind.owner";
const LABEL_POOL: &str = "io.tradewind.pool";
const LABEL_INSTANCE: &str = "io.tradewind.instance";

/// How long the engine may take for one request, beside the time that a stopping container has.
const TIMEOUT_SECONDS: u64 = 60;

/// What a container's name ends with while it becomes warm, and from when it drains: labels cannot be changed, names
/// can, and they outlive the agent.
const STARTING: &str = ".starting";
const DRAINING: &str = ".draining";

/// A container of the pool.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) id: InstanceId,
    /// The engine's id.
    pub(super) handle: String,
    /// `None`: it has ended and only its remains are there.
    pub(super) state: Option<InstanceState>,
    /// The engine's words: `Exited (137) 2 seconds ago`.
    pub(super) status: String,
    /// Whether it was told to end.
    pub(super) ordered: bool,
    /// Paused processes do not hear signals.
    pub(super) paused: bool,
}

/// Where a container on its way to warm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    NotYet,
    Ready,
    Paused,
    /// It has ended, or its health check says that it never will be ready.
    Failed,
}

/// How a new container is made.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) network: Option<String>,
    pub(super) limits: Resources,
}

/// The engine behind one socket, as one pool sees it.
pub(super) struct Engine {
    socket: String,
    /// Whose containers: several agents may share an engine.
    owner: String,
    /// The beginning of every name.
    prefix: String,
    pool: PoolName,
    client: OnceCell<Docker>,
}

impl Engine {
    pub(super) fn new(socket: &str, owner: &str, pool: &PoolName) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, owner.as_bytes());
        let short: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let prefix = format!("tradewind-{short}-{pool}-");
        Self { socket: socket.into(), owner: owner.into(), prefix, pool: pool.clone(), client: OnceCell::new() }
    }

    /// Connected at the first use, so that an agent can start before its engine does.
    async fn client(&self) -> Result<&Docker, String> {
        let connect = async {
            let client = Docker::connect_with_unix(&self.socket, TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)?;
            client.negotiate_version().await
        };
        self.client
            .get_or_try_init(|| connect)
            .await
            .map_err(|error| format!("the Docker engine at {} does not answer: {error}", self.socket))
    }

    /// All containers of the pool, ascending by instance.
    pub(super) async fn list(&self) -> Result<Vec<Container>, String> {
        self.find(None).await
    }

    /// The container of one instance.
    pub(super) async fn get(&self, id: &InstanceId) -> Result<Option<Container>, String> {
        Ok(self.find(Some(id)).await?.pop())
    }

    async fn find(&self, id: Option<&InstanceId>) -> Result<Vec<Container>, String> {
        let mut labels = self.labels();
        labels.extend(id.map(|id| format!("{LABEL_INSTANCE}={id}")));
        let options = ListContainersOptionsBuilder::new().all(true).filters(&HashMap::from([("label", labels)])).build();
        let summaries = self.client().await?.list_containers(Some(options)).await.map_err(words)?;
        let mut found: Vec<Container> = summaries.into_iter().filter_map(read).collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        Ok(found)
    }

    fn labels(&self) -> Vec<String> {
        vec![format!("{LABEL_OWNER}={}", self.owner), format!("{LABEL_POOL}={}", self.pool)]
    }

    /// Makes and starts a container that is starting. Succeeds when there is one already; leaves nothing behind when
    /// it fails.
    pub(super) async fn start(&self, id: &InstanceId, recipe: &Recipe) -> Result<(), String> {
        if self.get(id).await?.is_some() {
            return Ok(());
        }
        let client = self.client().await?;
        let name = format!("{}{id}{STARTING}", self.prefix);
        let labels = [(LABEL_OWNER, self.owner.clone()), (LABEL_POOL, self.pool.to_string()), (LABEL_INSTANCE, id.to_string())];
        let positive = |amount: u64| i64::try_from(amount).ok().filter(|amount| *amount > 0);
        let body = ContainerCreateBody {
            image: Some(recipe.image.clone()),
            cmd: (!recipe.command.is_empty()).then(|| recipe.command.clone()),
            env: Some(recipe.env.iter().cloned().chain([format!("{ENV_INSTANCE}={id}")]).collect()),
            labels: Some(labels.map(|(label, value)| (label.to_string(), value)).into()),
            host_config: Some(HostConfig {
                network_mode: recipe.network.clone(),
                nano_cpus: positive(recipe.limits.cpu_millis.saturating_mul(1_000_000)),
                memory: positive(recipe.limits.memory_bytes),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let made = client.create_container(Some(options), body).await.map_err(|error| match error {
            Error::DockerResponseServerError { status_code: 404, message } => format!("{message}; pull or build the image first"),
            error => words(error),
        })?;
        if let Err(error) = client.start_container(&made.id, None).await {
            self.remove(&made.id).await?;
            return Err(words(error));
        }
        Ok(())
    }

    /// How far a starting container has come.
    pub(super) async fn readiness(&self, container: &Container) -> Result<Readiness, String> {
        let seen = match self.client().await?.inspect_container(&container.handle, None).await {
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(Readiness::Failed),
            seen => seen.map_err(words)?,
        };
        let Some(state) = seen.state else { return Ok(Readiness::NotYet) };
        Ok(match (state.paused, state.running, state.health.and_then(|health| health.status)) {
            (Some(true), _, _) => Readiness::Paused,
            (_, Some(false), _) | (_, _, Some(HealthStatusEnum::UNHEALTHY)) => Readiness::Failed,
            (_, _, Some(HealthStatusEnum::STARTING)) => Readiness::NotYet,
            _ => Readiness::Ready,
        })
    }

    pub(super) async fn pause(&self, container: &Container) -> Result<(), String> {
        tolerate(409, self.client().await?.pause_container(&container.handle).await)
    }

    pub(super) async fn unpause(&self, container: &Container) -> Result<(), String> {
        tolerate(409, self.client().await?.unpause_container(&container.handle).await)
    }

    /// From now on the container is warm when it is paused and active when it is not.
    pub(super) async fn mark_started(&self, container: &Container) -> Result<(), String> {
        self.rename(container, "").await
    }

    /// From now on the container drains, whatever becomes of the agent.
    pub(super) async fn mark_draining(&self, container: &Container) -> Result<(), String> {
        self.rename(container, DRAINING).await
    }

    async fn rename(&self, container: &Container, suffix: &str) -> Result<(), String> {
        let options = RenameContainerOptionsBuilder::new().name(&format!("{}{}{suffix}", self.prefix, container.id)).build();
        self.client().await?.rename_container(&container.handle, options).await.map_err(words)
    }

    /// Asks the container's processes to end, and ends them after `patience`. Returns when they have.
    pub(super) async fn end(&self, container: &Container, patience: Duration) -> Result<(), String> {
        if container.paused {
            self.unpause(container).await?;
        }
        let seconds = i32::try_from(patience.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        // The request lasts as long as the container takes.
        let client = self.client().await?.clone().with_timeout(patience + Duration::from_secs(TIMEOUT_SECONDS));
        tolerate(404, tolerate_error(304, client.stop_container(&container.handle, Some(options)).await))
    }

    /// Ends the container and removes what is left of it.
    pub(super) async fn remove(&self, handle: &str) -> Result<(), String> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.client().await?.remove_container(handle, Some(options)).await;
        // 409: somebody else removes it already.
        tolerate(404, tolerate_error(409, removed))
    }

    /// Something for everything that happens to the pool's containers. Ends when the connection does.
    pub(super) async fn events(&self) -> Result<impl Stream<Item = ()> + use<>, String> {
        let filters = HashMap::from([("label", self.labels()), ("type", vec!["container".to_string()])]);
        let client = self.client().await?.clone();
        let stream = client.events(Some(EventsOptionsBuilder::new().filters(&filters).build()));
        Ok(stream.take_while(|event| std::future::ready(event.is_ok())).map(|_| ()))
    }
}

/// A container that bears our labels.
fn read(summary: ContainerSummary) -> Option<Container> {
    let label = summary.labels.as_ref()?.get(LABEL_INSTANCE)?;
    let id = InstanceId::new(label.as_str()).ok()?;
    let names = summary.names.unwrap_or_default();
    let marked = |suffix: &str| names.iter().any(|name| name.ends_with(suffix));
    let engine = summary.state.unwrap_or(State::EMPTY);
    let state = match engine {
        // What was told to end is there until nothing is left of it.
        State::EXITED | State::DEAD if !marked(DRAINING) => None,
        _ if marked(DRAINING) => Some(InstanceState::Draining),
        State::REMOVING | State::STOPPING => Some(InstanceState::Draining),
        _ if marked(STARTING) => Some(InstanceState::Starting),
        State::PAUSED => Some(InstanceState::Warm),
        State::EMPTY | State::CREATED | State::RESTARTING => Some(InstanceState::Starting),
        State::RUNNING => Some(InstanceState::Active),
        State::EXITED | State::DEAD => None,
    };
    let ordered = marked(DRAINING);
    let status = summary.status.unwrap_or_else(|| engine.to_string());
    Some(Container { id, handle: summary.id?, state, status, ordered, paused: engine == State::PAUSED })
}

fn words(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { status_code, message } => format!("the Docker engine answers {status_code}: {message}"),
        error => format!("the Docker engine: {error}"),
    }
}

/// Takes an answer that says "it is so already" for success.
fn tolerate_error(tolerated: u16, answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(Error::DockerResponseServerError { status_code, .. }) if status_code == tolerated => Ok(()),
        answer => answer,
    }
}

fn tolerate(tolerated: u16, answer: Result<(), Error>) -> Result<(), String> {
    tolerate_error(tolerated, answer).map_err(words)
}
