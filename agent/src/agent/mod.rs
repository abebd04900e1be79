//! The composition root: the only module that knows all the others.
//!
//! [`Agent::start`] opens the store, joins the mesh, adopts the pool's instances, serves the API and
//! runs the [step loop](steps); [`Agent::shutdown`] takes it down in the opposite order, so that what
//! was acknowledged is durable and what is told to the others is true until the end.

mod feeds;
mod late;
mod memories;
mod outlook;
mod runtime;
mod silence;
mod snapshots;
mod steps;
mod training;

use crate::calendar::CalendarHandle;
use crate::config::{Config, OnShutdown};
use crate::env::Env;
use crate::events::EventLog;
use crate::forecast::Explanation;
use crate::history::{self, HistoryHandle};
use crate::http::{self, Api, Planning, Progress};
use crate::keda::{self, Keda};
use crate::mesh::{self, MeshHandle, PeerService};
use crate::negotiate::{self, NegotiatorHandle};
use crate::pool::{self, PoolHandle, Shutdown};
use crate::prices;
use crate::staging::{self, Linked};
use crate::store::Store;
use anyhow::Context as _;
use async_trait::async_trait;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steps::{Ask, Parts, StepLoop};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tradewind_protocol::api::{PlanExplanation, Severity};
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::message::Message;
use tradewind_protocol::wire::{Request, Response};
use tradewind_protocol::{RegionId, RegionalResourcePlan, SeriesKey};

pub use runtime::Runtime;
pub(crate) use runtime::interrupted;
use runtime::stdin_closed;
use snapshots::Snapshots;

/// Planning rounds asked for at a time: by people and peers, who can wait.
const MAX_PLAN_REQUESTS: usize = 16;

/// How long history may take to make durable what it was given last: one commit, on a slow disk.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the agent that the file at `config` describes, until it is told to stop.
pub async fn run(config: &Path, until_stdin_closes: bool) -> anyhow::Result<()> {
    let interrupted = interrupted()?;
    let config = Config::load(config)?;
    log();
    let data_dir = config.data_dir.clone();
    let env = Env::real(&data_dir).with_context(|| {
        format!("cannot use data_dir = {}: make it a directory that the agent may write to, or name another", data_dir.display())
    })?;
    let agent = Agent::start(config, env).await?;
    agent.runtime().write(&data_dir).with_context(|| format!("cannot write to data_dir = {}", data_dir.display()))?;
    tokio::select! {
        biased;
        () = interrupted => {}
        () = stdin_closed(), if until_stdin_closes => {}
    }
    agent.shutdown().await;
    Runtime::remove(&data_dir);
    Ok(())
}

/// Writes traces to standard error: `RUST_LOG` chooses which, JSON lines with `TRADEWIND_LOG=json`.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    // Fails only if a log was set before, which then is the one to use.
    let _ = if std::env::var("TRADEWIND_LOG").is_ok_and(|format| format == "json") { lines.json().try_init() } else { lines.try_init() };
}

/// A running agent.
pub struct Agent {
    runtime: Runtime,
    on_shutdown: OnShutdown,
    stop: watch::Sender<bool>,
    steps: JoinHandle<()>,
    negotiator: JoinHandle<()>,
    api: JoinHandle<()>,
    mesh: MeshHandle,
    pool: PoolHandle,
    history: HistoryHandle,
    counting: JoinHandle<()>,
    feeds: Vec<JoinHandle<()>>,
    events: EventLog,
}

impl Agent {
    /// Starts an agent. When it returns, the API answers.
    pub async fn start(config: Config, env: Env) -> anyhow::Result<Agent> {
        let config = Arc::new(config);
        let started_at = env.clock.now();
        let events = EventLog::new(config.region.clone(), env.clock.clone());
        let store = Store::open(&env).await.with_context(|| format!("cannot open the database in {}", config.data_dir.display()))?;
        let generation = store.next_generation(started_at).await?;
        let (history, counting) = history::open(&env, &store, config.step, &config.region, &config.ingest).await?;
        let counting = tokio::spawn(counting.run());
        let calendar = CalendarHandle::open(config.region.clone(), config.calendar.clone(), store.clone()).await?;
        let pools = pool::Setup {
            pools: config.pools.clone(),
            step: config.step,
            mode: config.mode,
            store: store.clone(),
            events: events.clone(),
            reservations: config.reservations.clone(),
        };
        let pool = PoolHandle::start(&env, pools).await?;

        let (plan_tx, plan_rx) = mpsc::channel(MAX_PLAN_REQUESTS);
        let planning = Arc::new(Planner(plan_tx));
        let (negotiator, waiting) = negotiate::handle();
        let service = Arc::new(Peers { planner: planning.clone(), pool: pool.clone(), negotiator: negotiator.clone() });
        let mesh =
            mesh::start(&env, config.region.clone(), config.cluster.clone(), &config.mesh, generation, service, events.clone()).await?;

        let tls = config.api.tls.as_ref().map(|paths| http::acceptor(paths, &env, b"http/1.1")).transpose().context("[api.tls]")?;
        let listener = env.network.bind_tcp(config.api.listen).await;
        let listener =
            listener.with_context(|| format!("cannot listen on api.listen = {}: is another agent running?", config.api.listen))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let api_url = format!("{scheme}://{}", listener.local_addr()?);

        let (stop, stopped) = watch::channel(false);
        let parts = staging::Parts {
            region: config.region.clone(),
            config: config.staging.clone(),
            store: store.clone(),
            stager: Arc::new(Linked { stager: env.stager.clone(), mesh: mesh.clone() }),
            events: events.clone(),
        };
        let (staging, stages) = staging::open(&env, parts).await?;
        let (progress_tx, progress) = watch::channel(Progress::default());
        let (prices, pricing) = prices::start(&config.prices, &store, (env.clock.clone(), env.offload), &stopped).await;
        let parts = Parts {
            config: config.clone(),
            api_url: config.api.public_url.clone().unwrap_or_else(|| api_url.clone()),
            history: history.clone(),
            mesh: mesh.clone(),
            pool: pool.clone(),
            calendar: calendar.clone(),
            events: events.clone(),
            negotiator: negotiator.clone(),
            staging: staging.clone(),
            store: store.clone(),
            snapshots: Snapshots::open(&env).await,
            prices: prices.clone(),
            past_prices: prices::read_past(&config.pools, env.offload).await,
        };
        let steps = StepLoop::new(&env, parts, progress_tx);
        let steps = tokio::spawn(steps.run(plan_rx, stopped.clone()));
        let parts = negotiate::Parts {
            config: config.clone(),
            mesh: mesh.clone(),
            pool: pool.clone(),
            events: events.clone(),
            clock: env.clock.clone(),
        };
        let negotiating = tokio::spawn(negotiate::run(waiting, parts, stopped.clone()));

        let mut feeds = feeds::start(&env, &config, &store, &history, &events, &progress, &stopped);
        // An advisory agent watches: what an earlier life has staged stays.
        if config.mode == Mode::Active {
            feeds.push(tokio::spawn(stages.run(stopped.clone())));
        }
        feeds.extend(pricing);
        let mut keda_at = None;
        if let Some(keda) = config.keda.clone() {
            let tls = keda.tls.as_ref().map(|paths| http::acceptor(paths, &env, b"h2")).transpose().context("[keda.tls]")?;
            let listener = env.network.bind_tcp(keda.listen).await;
            let listener = listener.with_context(|| format!("cannot listen on keda.listen = {}", keda.listen))?;
            keda_at = Some(listener.local_addr()?.to_string());
            let scaler = Arc::new(Keda { config: config.clone(), progress: progress.clone() });
            feeds.push(tokio::spawn(keda::serve(scaler, listener, tls, stopped.clone())));
        }

        let runtime = Runtime {
            region: config.region.clone(),
            generation: mesh.generation(),
            pid: std::process::id(),
            mesh: mesh.local_addr().to_string(),
            api: api_url,
            keda: keda_at,
        };
        let api = Api {
            config: config.clone(),
            clock: env.clock.clone(),
            started_at,
            history: history.clone(),
            mesh: mesh.clone(),
            pool: pool.clone(),
            negotiator,
            staging,
            events: events.clone(),
            calendar,
            prices,
            progress,
            planning,
            offload: env.offload,
            bodies: Api::body_permits(),
        };
        let api = tokio::spawn(http::serve(listener, tls, http::router(Arc::new(api)), stopped));
        events.note(
            Severity::Info,
            "agent.started",
            format!("the agent of {} is up: mesh at {}, API at {}", runtime.region, runtime.mesh, runtime.api),
        );
        Ok(Agent {
            runtime,
            on_shutdown: config.on_shutdown,
            stop,
            steps,
            negotiator: negotiating,
            api,
            mesh,
            pool,
            history,
            counting,
            feeds,
            events,
        })
    }

    /// Where the agent is reached.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What happened in it.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// The mesh as the agent sees it.
    pub fn mesh(&self) -> &MeshHandle {
        &self.mesh
    }

    /// The agent's pools.
    pub fn pool(&self) -> &PoolHandle {
        &self.pool
    }

    /// Takes the agent down: no more steps and requests, then the instances as configured, then the
    /// mesh, and the store last.
    pub async fn shutdown(self) {
        self.events.note(Severity::Info, "agent.stopping", format!("the agent of {} is stopping", self.runtime.region));
        self.stop.send_replace(true);
        for feed in self.feeds {
            // A request that is under way ends by itself, and nobody waits for its answer.
            feed.abort();
            let _ = feed.await;
        }
        let _ = self.steps.await;
        let _ = self.negotiator.await;
        let _ = self.api.await;
        let how = match self.on_shutdown {
            OnShutdown::Keep => Shutdown::KeepInstances,
            OnShutdown::Drain => Shutdown::DrainAll,
        };
        self.pool.shutdown(how).await;
        self.mesh.shutdown().await;
        // History ends when nobody can give it anything more.
        drop(self.history);
        let _ = timeout(LAST_COMMIT_TIMEOUT, self.counting).await;
    }
}

/// Asks the step loop for a planning round.
struct Planner(mpsc::Sender<Ask>);

impl Planner {
    /// Asks, and waits for the answer.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(question(reply)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(format!("{MAX_PLAN_REQUESTS} requests wait for the planner already")),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err("the agent is stopping".into()),
        }
        answer.await.map_err(|_| "the agent is stopping".to_string())
    }
}

#[async_trait]
impl Planning for Planner {
    async fn plan_now(&self, dry_run: bool) -> Result<RegionalResourcePlan, String> {
        self.ask(|reply| Ask::Plan { dry_run, reply }).await?
    }

    async fn explain_plan(&self) -> Result<Option<PlanExplanation>, String> {
        self.ask(|reply| Ask::ExplainPlan { reply }).await
    }

    async fn explain(&self, keys: Vec<SeriesKey>) -> Result<Vec<Option<Explanation>>, String> {
        self.ask(|reply| Ask::Explain { keys, reply }).await
    }
}

/// Answers what other regions' agents ask.
struct Peers {
    planner: Arc<Planner>,
    pool: PoolHandle,
    negotiator: NegotiatorHandle,
}

#[async_trait]
impl PeerService for Peers {
    async fn handle(&self, from: &RegionId, request: Request) -> Response {
        match request {
            // The mesh answers these itself.
            Request::Fetch { .. } => Response::NotHeld,
            Request::PredictiveScale { dry_run } => {
                tracing::debug!(%from, dry_run, "a peer asks for a planning round");
                match self.planner.plan_now(dry_run).await {
                    Ok(plan) => Response::Plan(Box::new(plan)),
                    Err(reason) => Response::Refused { reason },
                }
            }
            Request::Reserve(message) => {
                if let Message::Preempted { number, leave_by, .. } = *message {
                    self.negotiator.on_preempted(from, number, leave_by);
                }
                Response::Reserved(Box::new(self.pool.reserve(from, *message).await))
            }
        }
    }
}
