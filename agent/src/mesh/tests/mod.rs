//! The mesh under test: real QUIC on loopback, real certificates, a few agents in one process.

mod attacks;
mod hostile;
mod life;
pub(super) mod pki;
mod upgrade;

use self::pki::{Pki, state};
use super::*;
use std::path::PathBuf;
use tradewind_protocol::RegionId;
use tradewind_protocol::wire::Version;

/// How long anything may take before a test gives up: nothing here takes more than a few seconds
/// on an idle machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn region(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

/// Answers a planning request with the name of whoever asked.
struct Echo;

#[async_trait]
impl PeerService for Echo {
    async fn handle(&self, from: &RegionId, request: Request) -> Response {
        Response::Refused { reason: format!("{from} asked {request:?}") }
    }
}

/// One agent of a test.
struct Agent {
    mesh: MeshHandle,
    events: EventLog,
    _dir: tempfile::TempDir,
}

/// What an agent is started with, if not the usual.
struct Setup {
    generation: u64,
    seeds: Vec<SocketAddr>,
    budget: usize,
    listen: SocketAddr,
    gossip_interval: Duration,
    wire_version: Version,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            generation: 1,
            seeds: vec![],
            budget: 64 * 1024,
            listen: ([127, 0, 0, 1], 0).into(),
            gossip_interval: Duration::from_millis(100),
            wire_version: Version::NEWEST,
        }
    }
}

impl Agent {
    async fn start(pki: &Pki, name: &str, seeds: &[SocketAddr]) -> Self {
        Self::start_with(pki, name, Setup { seeds: seeds.to_vec(), ..Setup::default() }).await
    }

    async fn start_with(pki: &Pki, name: &str, setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let events = EventLog::new(region(name), env.clock.clone());
        let config = config(pki.paths(name), &setup);
        let mesh = start(&env, region(name), "mesh".into(), &config, setup.generation, Arc::new(Echo), events.clone()).await.unwrap();
        Self { mesh, events, _dir: dir }
    }

    /// Starts on a runtime of its own, with which the agent can be made to vanish.
    async fn start_apart(pki: &Arc<Pki>, name: &'static str, setup: Setup) -> (Self, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let pki = pki.clone();
        let agent = runtime.spawn(async move { Self::start_with(&pki, name, setup).await }).await.unwrap();
        (agent, runtime)
    }

    fn addr(&self) -> SocketAddr {
        self.mesh.local_addr()
    }

    /// Waits until the view satisfies `wanted`.
    async fn until(&self, what: &str, wanted: impl Fn(&MeshView) -> bool) -> Arc<MeshView> {
        let mut views = self.mesh.watch();
        let reached = timeout(PATIENCE, views.wait_for(|view| wanted(view))).await;
        match reached {
            Ok(view) => view.unwrap().clone(),
            Err(_) => panic!("{}: no view with {what}: {:#?}", self.mesh.view().this, self.mesh.view()),
        }
    }

    async fn until_live(&self, names: &[&str]) -> Arc<MeshView> {
        self.until(&format!("{names:?} alive"), |view| live(view) == names).await
    }

    /// Waits until the newest state of `name` has this `version` text.
    async fn until_state(&self, name: &str, version: &str) -> Arc<MeshView> {
        self.until(&format!("state {version} of {name}"), |view| version_of(view, name).as_deref() == Some(version)).await
    }

    /// Waits until a counter of the agent satisfies `wanted`; counters have no watch.
    async fn until_stats(&self, what: &str, wanted: impl Fn(&MeshStats) -> bool) -> MeshStats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.mesh.stats();
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{}: never {what}: {stats:#?}", self.mesh.view().this);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn publish(&self, version: &str) {
        let mut state = state(self.mesh.view().this.as_str());
        state.version = version.into();
        self.mesh.publish(state);
    }

    fn has_event(&self, kind: &str, text: &str) -> bool {
        self.events.since(0).iter().any(|event| event.kind == kind && event.message.contains(text))
    }

    /// Ends without a word, as a killed process does.
    fn kill(self) {
        // Closing the endpoint with the code of no goodbye: peers are told nothing they believe.
        self.mesh.mesh.closing.send_replace(true);
        self.mesh.mesh.gossip.stop();
        self.mesh.mesh.endpoint.close(quinn::VarInt::from_u32(99), b"");
    }
}

fn config(tls: crate::config::TlsPaths, setup: &Setup) -> MeshConfig {
    MeshConfig {
        listen: setup.listen,
        advertise: None,
        seeds: setup.seeds.iter().map(SocketAddr::to_string).collect(),
        tls,
        gossip_interval: setup.gossip_interval,
        state_budget_bytes: setup.budget,
        wire_version: setup.wire_version,
    }
}

/// A mesh of these regions, all alive to each other; the first one is everyone's seed.
async fn mesh_of(pki: &Pki, names: &[&str]) -> Vec<Agent> {
    let mut agents = Vec::<Agent>::new();
    for name in names {
        let seeds: Vec<_> = agents.first().map(Agent::addr).into_iter().collect();
        agents.push(Agent::start(pki, name, &seeds).await);
    }
    for agent in &agents {
        agent.until_live(names).await;
    }
    agents
}

fn live(view: &MeshView) -> Vec<&str> {
    view.live().map(|(region, _)| region.as_str()).collect()
}

fn version_of(view: &MeshView, name: &str) -> Option<String> {
    view.state(&region(name)).map(|state| state.version.clone())
}

/// The error that starting with this certificate ends in.
async fn start_error(tls: crate::config::TlsPaths, name: &str) -> String {
    let dir: PathBuf = tempfile::tempdir().unwrap().keep();
    let env = Env::real(&dir).unwrap();
    let events = EventLog::new(region(name), env.clock.clone());
    let started = start(&env, region(name), "mesh".into(), &config(tls, &Setup::default()), 1, Arc::new(Echo), events).await;
    std::fs::remove_dir_all(dir).unwrap();
    let error = started.err().expect("a mesh that does not start");
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}
