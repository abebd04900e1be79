//! The demo's agents: real processes with their own certificate, data directory and ports.
//!
//! Each agent is told to stop when its standard input closes, so that none survives the demo
//! whatever ends it; and its workers end by themselves when no agent speaks to them.

use super::client::Client;
use super::trace::Trace;
use crate::provider::process::census;
use anyhow::{Context as _, bail};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};
use tradewind_protocol::RegionId;
use tradewind_protocol::api::RegionView;
use tradewind_protocol::pki::{self, Issued, Subject, Validity};

use super::STEP;

/// How long an agent may take to answer after it was started.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the mesh may take to be complete.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent may take to drain its workers and stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often to look whether something has come true.
const POLL: Duration = Duration::from_millis(20);
/// What a worker takes from order to ready: one and a half steps. With the closing of a step and the
/// planning before it, what is ordered after step t serves from step t + 3 on.
pub(super) const WORKER_STARTUP: Duration = Duration::from_millis(300);
/// Most instances a region may run.
pub(super) const MAX_INSTANCES: u32 = 40;
/// Instances that a region's busy hours need: small enough to start, large enough to be planned.
const BUSY_INSTANCES: f64 = 8.0;
const DAY: i64 = 86_400;

/// One running agent.
pub(super) struct Member {
    pub region: RegionId,
    pub client: Client,
    pub config: PathBuf,
    /// Transactions per second that one of its instances serves.
    pub rate_per_instance: f64,
    process: Child,
}

/// All agents, and the directory they live in. Whatever still runs is killed when it is dropped.
pub(super) struct Fleet {
    pub members: Vec<Member>,
    pub directory: PathBuf,
    /// From the start of the last agent until every agent saw every region.
    pub convergence: Duration,
    keep_files: bool,
}

impl Fleet {
    /// Starts one agent a region of `trace` and waits until they are one mesh.
    pub(super) async fn start(trace: &Trace, program: &Path) -> anyhow::Result<Fleet> {
        let directory = std::env::temp_dir().join(format!("tradewind-demo-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut fleet = Fleet { members: vec![], directory, convergence: Duration::ZERO, keep_files: false };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        let validity = Validity { not_before: now - DAY, not_after: now + DAY };
        let ca = pki::issue_ca("demo", validity, random()?)?;
        write(&fleet.directory.join("ca.pem"), &ca.certificate_pem)?;
        let mut seed = None;
        let mut last_start = Instant::now();
        for (index, node) in trace.regions.iter().enumerate() {
            let leaf = pki::issue_leaf(&ca, &Subject::Agent(node.region.clone(), vec![]), validity, random()?)?;
            let rate_per_instance = trace.busy(index) / STEP.as_secs_f64() / BUSY_INSTANCES;
            let config = fleet.configure(node, &leaf, rate_per_instance, seed.as_deref(), program)?;
            last_start = Instant::now();
            let process = spawn(program, &config)?;
            let data = fleet.directory.join(node.region.as_str());
            let mut member = Member { region: node.region.clone(), client: Client::new(""), config, rate_per_instance, process };
            let runtime = wait_for_runtime(&data, &mut member.process).await;
            let runtime = runtime.with_context(|| format!("the agent of {} did not start; its log: {}", node.region, tail(&data)))?;
            member.client = Client::new(&runtime.api);
            seed.get_or_insert(runtime.mesh);
            fleet.members.push(member);
        }
        fleet.converge(last_start).await?;
        Ok(fleet)
    }

    fn configure(
        &self,
        node: &super::trace::Node,
        leaf: &Issued,
        rate: f64,
        seed: Option<&str>,
        program: &Path,
    ) -> anyhow::Result<PathBuf> {
        let (region, at) = (&node.region, node.coordinates);
        let home = self.directory.join(region.as_str());
        std::fs::create_dir_all(&home)?;
        write(&home.join("agent.pem"), &leaf.certificate_pem)?;
        write(&home.join("agent.key"), &leaf.key_pem)?;
        let seeds = seed.map(|seed| format!("{seed:?}")).unwrap_or_default();
        let mut text = String::new();
        write!(
            text,
            r#"# Written by `tradewind-agent demo`.
region = "{region}"
cluster = "demo"
mode = "active"
step = "{step}ms"
data_dir = {home:?}
on_shutdown = "drain"
coordinates = {{ latitude = {lat:?}, longitude = {lon:?} }}

[mesh]
listen = "127.0.0.1:0"
seeds = [{seeds}]
gossip_interval = "200ms"
tls = {{ ca = {ca:?}, certificate = {cert:?}, key = {key:?} }}

[api]
listen = "127.0.0.1:0"

[ingest]
# A week of recorded traffic comes in at the start.
lateness = "{lateness}s"
max_ahead = "60s"
retention = "1h"

[forecast]
horizon = 12
season = {season}

[forecast.global]
# All agents train on one machine, and a demo is over before that has paid off.
models = []

[planner]
quantile = {quantile}
settle = "{settle}ms"
scale_in_after = "{step}ms"

[[pool]]
name = "workers"
service = "transfer"
rate_per_instance = {rate:?}
min_instances = 1
max_instances = {MAX_INSTANCES}
instance = {{ cpu_millis = 250, memory_bytes = 134217728 }}
startup = "{startup}ms"
drain_timeout = "2s"
instance_hour_usd = 0.0416

[pool.process]
command = [{program:?}, "worker"]
env = {{ TRADEWIND_WORKER_STARTUP_MS = "{startup}", TRADEWIND_ORPHAN_TIMEOUT_MS = "5000" }}
"#,
            step = STEP.as_millis(),
            lat = at.latitude,
            lon = at.longitude,
            ca = self.directory.join("ca.pem"),
            cert = home.join("agent.pem"),
            key = home.join("agent.key"),
            lateness = (STEP * 2 * super::trace::HISTORY_ROWS as u32).as_secs(),
            season = super::trace::ROWS_PER_DAY,
            quantile = super::QUANTILE,
            settle = (STEP / 5).as_millis(),
            startup = WORKER_STARTUP.as_millis(),
        )?;
        let path = home.join("agent.toml");
        write(&path, &text)?;
        Ok(path)
    }

    async fn converge(&mut self, since: Instant) -> anyhow::Result<()> {
        let all = self.members.len();
        loop {
            let mut complete = 0;
            for member in &self.members {
                let regions: Vec<RegionView> = member.client.get("/v1/regions").await?;
                complete += usize::from(regions.iter().filter(|r| r.live && r.age_ms.is_some()).count() == all);
            }
            self.convergence = since.elapsed();
            if complete == all {
                return Ok(());
            }
            if self.convergence > CONVERGENCE_TIMEOUT {
                bail!(
                    "after {CONVERGENCE_TIMEOUT:?} only {complete} of {all} agents see every region; logs in {}",
                    self.directory.display()
                );
            }
            sleep(POLL).await;
        }
    }

    /// Leaves the files where they are.
    pub(super) fn keep_files(&mut self) {
        self.keep_files = true;
    }

    /// Asks every agent to stop and waits until it has; kills those that do not.
    pub(super) async fn stop(&mut self) {
        for member in &mut self.members {
            // Closing its standard input is the order to stop.
            drop(member.process.stdin.take());
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for member in &mut self.members {
            while member.process.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
                sleep(POLL).await;
            }
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }

    /// How many worker processes of the fleet are still there.
    pub(super) fn left_behind(&self) -> usize {
        self.members.iter().map(|member| census(&self.directory.join(member.region.as_str())).len()).sum()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
        if !self.keep_files {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn spawn(program: &Path, config: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(config.with_extension("log"))?;
    Command::new(program)
        .arg("run")
        .arg("--until-stdin-closes")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in the terminal reaches the demo alone, which then stops the agents in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

async fn wait_for_runtime(data: &Path, process: &mut Child) -> anyhow::Result<crate::agent::Runtime> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(runtime) = crate::agent::Runtime::read(data) {
            return Ok(runtime);
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended with {status}");
        }
        if Instant::now() > deadline {
            bail!("it was not ready after {START_TIMEOUT:?}");
        }
        sleep(POLL).await;
    }
}

fn tail(data: &Path) -> String {
    let log = std::fs::read_to_string(data.join("agent.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).ok().context("the operating system has no entropy")?;
    Ok(seed)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
