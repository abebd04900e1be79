//! Agents as real processes in one directory, with certificates of one authority.

use crate::{Answer, eventually, get, http, now_ms, processes, program};
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tradewind_agent::agent::Runtime;
use tradewind_protocol::RegionId;
use tradewind_protocol::api::{InstanceView, RegionView, Status};
use tradewind_protocol::pki::{self, Issued, Subject, Validity};

const DAY: i64 = 86_400;

/// What an agent is started with, beyond the defaults of the tests.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Lines at the top level of the configuration.
    pub top: String,
    /// Lines of `[ingest]`.
    pub ingest: String,
    /// How long a step is, where not as long as the tests' usual.
    pub step: Option<String>,
    /// Lines of `[forecast]`, where not the tests' usual.
    pub forecast: Option<String>,
    /// Whole tables at the end, such as pools.
    pub tables: String,
    /// The agents whose addresses are the seeds.
    pub seeds: Vec<String>,
}

impl Setup {
    /// One pool of worker processes, which the agent may start and stop.
    pub fn with_workers(mut self, min_instances: u32) -> Self {
        let worker = program("tradewind-agent");
        write!(
            self.tables,
            "[[pool]]\nname = \"workers\"\nservice = \"game\"\nrate_per_instance = 100.0\nmin_instances = {min_instances}\nmax_instances = 8\n\
             instance = {{ cpu_millis = 100 }}\nstartup = \"100ms\"\ndrain_timeout = \"5s\"\n\
             process = {{ command = [{worker:?}, \"worker\"], env = {{ TRADEWIND_WORKER_STARTUP_MS = \"50\" }} }}\n"
        )
        .expect("a string takes text");
        self.top.push_str("mode = \"active\"\n");
        self
    }
}

/// Agents and their directory.
pub struct Cluster {
    directory: tempfile::TempDir,
    ca: Issued,
    members: Vec<Member>,
}

/// One agent's process.
pub struct Member {
    pub region: String,
    pub runtime: Runtime,
    process: Child,
}

impl Cluster {
    /// A directory and an authority, no agents yet.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ca = pki::issue_ca("test", validity(), [1; 32]).expect("an authority");
        fs::write(directory.path().join("ca.pem"), &ca.certificate_pem).expect("a file");
        Self { directory, ca, members: vec![] }
    }

    /// The home of `region`'s agent.
    pub fn home(&self, region: &str) -> PathBuf {
        self.directory.path().join(region)
    }

    /// Text that every process of this cluster carries.
    pub fn marker(&self) -> String {
        self.directory.path().to_string_lossy().into_owned()
    }

    /// The authority of the cluster.
    pub fn ca(&self) -> &Issued {
        &self.ca
    }

    /// Writes a leaf of the cluster's authority and a configuration for `region`, and returns its
    /// path.
    pub fn configure(&self, region: &str, setup: &Setup) -> PathBuf {
        // The region's name makes the key differ from the others'.
        let mut seed = [7; 32];
        seed.iter_mut().zip(region.bytes()).for_each(|(to, from)| *to ^= from);
        let subject = Subject::Agent(RegionId::new(region).expect("a region"), vec![]);
        let leaf = pki::issue_leaf(&self.ca, &subject, validity(), seed).expect("a leaf");
        self.configure_with(region, setup, &leaf)
    }

    /// Like [`configure`](Self::configure), with a certificate from anywhere.
    pub fn configure_with(&self, region: &str, setup: &Setup, leaf: &Issued) -> PathBuf {
        let home = self.home(region);
        fs::create_dir_all(&home).expect("a directory");
        fs::write(home.join("agent.pem"), &leaf.certificate_pem).expect("a file");
        fs::write(home.join("agent.key"), &leaf.key_pem).expect("a file");
        let seeds: Vec<&str> = self.members.iter().filter(|m| setup.seeds.contains(&m.region)).map(|m| m.runtime.mesh.as_str()).collect();
        let Setup { top, ingest, tables, .. } = setup;
        let step = setup.step.as_deref().unwrap_or("200ms");
        let forecast = setup.forecast.as_deref().unwrap_or("horizon = 4\nseason = 10");
        let text = format!(
            "region = {region:?}\ncluster = \"test\"\nstep = {step:?}\ndata_dir = {home:?}\n{top}\n\
             [mesh]\nlisten = \"127.0.0.1:0\"\nseeds = {seeds:?}\ngossip_interval = \"200ms\"\n\
             tls = {{ ca = {ca:?}, certificate = {certificate:?}, key = {key:?} }}\n\
             [api]\nlisten = \"127.0.0.1:0\"\n[ingest]\n{ingest}\n[forecast]\n{forecast}\n{tables}\n",
            ca = self.directory.path().join("ca.pem"),
            certificate = home.join("agent.pem"),
            key = home.join("agent.key"),
        );
        let path = home.join("agent.toml");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Starts the agent of `region` and waits until it answers.
    pub fn start(&mut self, region: &str, setup: &Setup) -> &Member {
        self.configure(region, setup);
        self.restart(region)
    }

    /// Starts the agent of `region` from the configuration that it has.
    pub fn restart(&mut self, region: &str) -> &Member {
        let home = self.home(region);
        Runtime::remove(&home);
        let log = fs::File::options().create(true).append(true).open(home.join("agent.log")).expect("a log");
        let process = Command::new(program("tradewind-agent"))
            .args(["run", "--until-stdin-closes", "--config"])
            .arg(home.join("agent.toml"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        let mut process = Some(process);
        let runtime = eventually(&format!("the agent of {region} is up"), || {
            let ended = process.as_mut().and_then(|p| p.try_wait().ok()).flatten();
            assert!(ended.is_none(), "the agent of {region} ended with {ended:?}: {}", self.log(region));
            Runtime::read(&home).filter(|runtime| get(&format!("{}/healthz", runtime.api)).is_some())
        });
        self.members.retain(|member| member.region != region);
        self.members.push(Member { region: region.into(), runtime, process: process.take().expect("it was just started") });
        self.member(region)
    }

    /// The agent of `region`.
    pub fn member(&self, region: &str) -> &Member {
        self.members.iter().find(|member| member.region == region).unwrap_or_else(|| panic!("{region} was not started"))
    }

    /// What the agent of `region` has logged.
    pub fn log(&self, region: &str) -> String {
        fs::read_to_string(self.home(region).join("agent.log")).unwrap_or_default()
    }

    /// Kills the agent of `region` as a crash would (SIGKILL).
    pub fn kill(&mut self, region: &str) {
        let member = self.members.iter_mut().find(|member| member.region == region).expect("it was started");
        member.process.kill().expect("it can be killed");
        member.process.wait().expect("it ends");
    }

    /// Asks the agent of `region` to stop with `signal` and waits until it has; panics unless it ends
    /// well.
    pub fn stop(&mut self, region: &str, signal: &str) {
        let member = self.members.iter_mut().find(|member| member.region == region).expect("it was started");
        processes::signal(member.process.id(), signal);
        let status = eventually("the agent stops", || member.process.try_wait().ok().flatten());
        assert!(status.success(), "{status}: {}", self.log(region));
    }

    /// Waits until every running agent sees exactly `regions` alive, with their state.
    pub fn converged(&self, regions: &[&str]) {
        for member in &self.members {
            eventually(&format!("{} sees {regions:?}", member.region), || {
                let seen: Vec<RegionView> = member.try_get("/v1/regions")?;
                let live: Vec<&str> = seen.iter().filter(|r| r.live && r.age_ms.is_some()).map(|r| r.region.as_str()).collect();
                let mut wanted = regions.to_vec();
                wanted.sort_unstable();
                (live == wanted).then_some(())
            });
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    /// Nothing survives a test: agents are killed, and so is whatever they started.
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
        for pid in processes::carrying(&self.marker()) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

impl Member {
    /// The URL of `path` at this agent.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.runtime.api)
    }

    /// GET of JSON, if the agent answers it.
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        get(&self.url(path)).filter(|answer| answer.status == 200).map(|answer| answer.json())
    }

    /// GET of JSON.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|| panic!("{} does not answer {path}", self.region))
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        http::post(&self.url(path), body)
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        http::delete(&self.url(path))
    }

    /// The agent in brief.
    pub fn status(&self) -> Status {
        self.get("/v1/status")
    }

    /// Its instances.
    pub fn instances(&self) -> Vec<InstanceView> {
        self.get("/v1/instances")
    }
}

/// A day before and after now.
pub fn validity() -> Validity {
    let now = now_ms() / 1_000;
    Validity { not_before: now - DAY, not_after: now + DAY }
}
