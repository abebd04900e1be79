//! Our own worker: the `worker` subcommand.
//!
//! It keeps the contract of [`control`](crate::provider::process::control) to the letter and serves
//! nothing: what the demo and the tests run, and a model for real workers. It loads for
//! `TRADEWIND_WORKER_STARTUP_MS` before it is warm, and drains for `TRADEWIND_WORKER_DRAIN_MS`; both
//! are 0 when left out. Without an agent's control socket, as in a container, it does the same and lives until SIGTERM.

use crate::provider::process::control::{
    DEFAULT_ORPHAN_TIMEOUT, ENV_CONTROL, ENV_INSTANCE, ENV_ORPHAN_TIMEOUT, FromWorker, Lines, RECONNECT, ToWorker,
};
use anyhow::Context;
use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

const ENV_STARTUP: &str = "TRADEWIND_WORKER_STARTUP_MS";
const ENV_DRAIN: &str = "TRADEWIND_WORKER_DRAIN_MS";

/// Runs a worker until it has drained. Its whole configuration is in its environment.
pub fn run() -> anyhow::Result<()> {
    // One thread: a worker that only waits should cost next to nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    if std::env::var_os(ENV_CONTROL).is_none() {
        return runtime.block_on(serve_alone());
    }
    runtime.block_on(work(Settings::from_env()?))
}

/// What a container's process does: nobody talks to it but by signals.
async fn serve_alone() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::time::sleep(millis(ENV_STARTUP, Duration::ZERO)?).await;
    terminate.recv().await;
    tokio::time::sleep(millis(ENV_DRAIN, Duration::ZERO)?).await;
    Ok(())
}

fn millis(name: &str, default: Duration) -> anyhow::Result<Duration> {
    match std::env::var(name) {
        Ok(text) => {
            let ms = text.parse().with_context(|| format!("{name} is {text:?} and must be a whole number of milliseconds"))?;
            Ok(Duration::from_millis(ms))
        }
        Err(_) => Ok(default),
    }
}

struct Settings {
    instance: InstanceId,
    control: PathBuf,
    startup: Duration,
    drain: Duration,
    orphan_timeout: Duration,
}

impl Settings {
    fn from_env() -> anyhow::Result<Self> {
        let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set; an agent starts its workers with it"));
        Ok(Self {
            instance: InstanceId::new(&var(ENV_INSTANCE)?)?,
            control: var(ENV_CONTROL)?.into(),
            startup: millis(ENV_STARTUP, Duration::ZERO)?,
            drain: millis(ENV_DRAIN, Duration::ZERO)?,
            orphan_timeout: millis(ENV_ORPHAN_TIMEOUT, DEFAULT_ORPHAN_TIMEOUT)?,
        })
    }
}

struct Worker {
    settings: Settings,
    state: InstanceState,
    link: Option<(Lines<OwnedReadHalf>, OwnedWriteHalf)>,
    /// When loading or draining is done.
    busy_until: Option<Instant>,
    /// Whether the agent has said anything on this link.
    in_contact: bool,
    /// Since when there has been no agent, while there is none.
    alone_since: Instant,
}

async fn work(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let start = Instant::now();
    let mut worker = Worker {
        state: InstanceState::Starting,
        link: None,
        busy_until: Some(start + settings.startup),
        in_contact: false,
        alone_since: start,
        settings,
    };
    worker.connect().await;
    loop {
        let busy_until = worker.busy_until;
        let (linked, alone) = (worker.link.is_some(), !worker.in_contact);
        let orphaned_at = worker.alone_since + worker.settings.orphan_timeout;
        tokio::select! {
            biased;
            _ = terminate.recv() => worker.drain().await,
            () = async { match busy_until { Some(at) => sleep_until(at).await, None => pending().await } } => match worker.state {
                InstanceState::Draining => return Ok(()),
                InstanceState::Starting | InstanceState::Warm | InstanceState::Active => {
                    worker.busy_until = None;
                    worker.turn(InstanceState::Warm).await;
                }
            },
            () = sleep_until(orphaned_at), if alone && worker.state != InstanceState::Draining => worker.drain().await,
            () = tokio::time::sleep(RECONNECT), if !linked => worker.connect().await,
            line = next_line(&mut worker.link) => match line {
                Ok(Some(line)) => {
                    worker.in_contact = true;
                    worker.obey(ToWorker::parse(&line)).await;
                }
                Ok(None) | Err(_) => worker.disconnect(),
            },
        }
    }
}

async fn next_line(link: &mut Option<(Lines<OwnedReadHalf>, OwnedWriteHalf)>) -> io::Result<Option<String>> {
    match link {
        Some((lines, _)) => lines.next().await,
        None => pending().await,
    }
}

impl Worker {
    async fn connect(&mut self) {
        if let Ok(stream) = UnixStream::connect(&self.settings.control).await {
            let (reader, writer) = stream.into_split();
            self.link = Some((Lines::new(reader), writer));
            self.say(FromWorker::Hello(self.settings.instance.clone(), self.state)).await;
        }
    }

    fn disconnect(&mut self) {
        self.link = None;
        // A connection on which nobody spoke was no contact.
        if std::mem::take(&mut self.in_contact) {
            self.alone_since = Instant::now();
        }
    }

    async fn say(&mut self, message: FromWorker) {
        if let Some((_, writer)) = &mut self.link
            && writer.write_all(message.line().as_bytes()).await.is_err()
        {
            self.disconnect();
        }
    }

    async fn turn(&mut self, state: InstanceState) {
        self.state = state;
        self.say(FromWorker::State(state)).await;
    }

    async fn drain(&mut self) {
        if self.state != InstanceState::Draining {
            self.busy_until = Some(Instant::now() + self.settings.drain);
            self.turn(InstanceState::Draining).await;
        }
    }

    async fn obey(&mut self, order: Option<ToWorker>) {
        match (order, self.state) {
            (Some(ToWorker::Activate), InstanceState::Warm) => self.turn(InstanceState::Active).await,
            (Some(ToWorker::Deactivate), InstanceState::Active) => self.turn(InstanceState::Warm).await,
            (Some(ToWorker::Drain), _) => self.drain().await,
            (Some(ToWorker::Activate | ToWorker::Deactivate | ToWorker::Status) | None, state) => self.say(FromWorker::State(state)).await,
        }
    }
}
