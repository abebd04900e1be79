//! The Docker provider with a real engine: the one at `TRADEWIND_DOCKER_SOCKET`.

use crate::support::{id, our_worker, pool, process, until, until_empty, until_state};
use async_trait::async_trait;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tradewind_agent::config::{DockerConfig, PoolConfig, ProviderConfig};
use tradewind_agent::provider::conformance::{self, Subject};
use tradewind_agent::provider::docker::{DockerProvider, retired};
use tradewind_agent::provider::{EndCause, Observed, Provider};
use tradewind_protocol::api::InstanceState::{Active, Draining, Starting, Warm};

const IMAGE: &str = "tradewind-worker:test";

/// The engine's socket, or `None`, said aloud.
fn engine() -> Option<String> {
    let socket = std::env::var("TRADEWIND_DOCKER_SOCKET").ok();
    if socket.is_none() {
        eprintln!("skipped: TRADEWIND_DOCKER_SOCKET names no Docker engine");
    }
    socket
}

fn docker(socket: &str, arguments: &[&str]) -> String {
    let output = Command::new("docker").arg("-H").arg(format!("unix://{socket}")).args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an image of our own worker and the libraries that it needs.
fn image(socket: &str) {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let worker = our_worker().remove(0);
        let strip = Command::new("strip").args(["-o", root.path().join("worker").to_str().unwrap(), &worker]).status().unwrap();
        assert!(strip.success());
        let libraries = String::from_utf8(Command::new("ldd").arg(&worker).output().unwrap().stdout).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.path().join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
        let mut tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn().unwrap();
        let import = Command::new("docker")
            .arg("-H")
            .arg(format!("unix://{socket}"))
            .args(["import", "-", IMAGE])
            .stdin(tar.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status();
        assert!(import.unwrap().success() && tar.wait().unwrap().success());
    });
}

fn containers(socket: &str) -> DockerConfig {
    DockerConfig {
        image: IMAGE.into(),
        command: vec!["/worker".into(), "worker".into()],
        env: vec![("TRADEWIND_WORKER_STARTUP_MS".into(), "50".into())],
        network: Some("none".into()),
        socket: socket.into(),
    }
}

fn config(name: &str, socket: &str) -> PoolConfig {
    let mut config = pool(name, process(vec![], &[]));
    // The engine of a test may not be able to limit CPU time.
    config.instance.cpu_millis = 0;
    config.drain_timeout = Duration::from_secs(5);
    config.provider = ProviderConfig::Docker(containers(socket));
    config
}

fn open(dir: &Path, name: &str, socket: &str) -> Arc<DockerProvider> {
    Arc::new(DockerProvider::open(dir, &config(name, socket), &containers(socket)).unwrap())
}

/// The containers of the agent with this directory, whatever state they are in.
fn census(dir: &Path, socket: &str) -> Vec<String> {
    let filter = format!("label=io.tradewind.owner={}", dir.canonicalize().unwrap().display());
    docker(socket, &["ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", &filter]).lines().map(String::from).collect()
}

struct Real(Arc<DockerProvider>, String);

#[async_trait]
impl Subject for Real {
    fn provider(&self) -> Arc<dyn Provider> {
        self.0.clone()
    }

    async fn kill(&self, instance: &Observed) {
        docker(&self.1, &["kill", instance.handle.trim_start_matches("container ")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let Some(socket) = engine() else { return };
    image(&socket);
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), "edge", &socket);
    conformance::check(&Real(provider.clone(), socket.clone())).await.unwrap();
    nothing_is_left(dir.path(), &socket).await;
}

/// Remains of ended containers are cleared away in the background.
async fn nothing_is_left(dir: &Path, socket: &str) {
    for _ in 0..100 {
        if census(dir, socket).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("left behind: {:?}", census(dir, socket));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_adopted_whatever_they_were_doing() {
    let Some(socket) = engine() else { return };
    image(&socket);
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), "edge", &socket);
    for name in ["warm", "active", "dead"] {
        first.start(&id(name)).await.unwrap();
        until_state(&*first, name, Warm).await;
    }
    first.activate(&id("active")).await.unwrap();
    // Given up in the middle of its start and of a drain, as by a crash.
    first.start(&id("starting")).await.unwrap();
    first.start(&id("draining")).await.unwrap();
    first.drain(&id("draining")).await.unwrap();
    first.close().await;
    assert!(first.start(&id("late")).await.is_err());
    drop(first);
    let dead = census(dir.path(), &socket).iter().find(|line| line.contains("-dead ")).unwrap().split(' ').next().unwrap().to_string();
    docker(&socket, &["kill", &dead]);

    let next = open(dir.path(), "edge", &socket);
    until_state(&*next, "starting", Warm).await;
    let listed = until(&*next, "what drained is gone", |all| all.iter().all(|seen| seen.state != Draining)).await;
    let states: Vec<_> = listed.iter().map(|seen| (seen.id.as_str(), seen.state)).collect();
    assert_eq!(states, [("active", Active), ("starting", Warm), ("warm", Warm)]);
    let ended = next.take_ended();
    let cause = |name: &str| ended.iter().find(|ended| ended.id.as_str() == name).map(|ended| ended.cause);
    assert_eq!((cause("dead"), cause("draining")), (Some(EndCause::Unexpected), Some(EndCause::Ordered)), "{ended:?}");

    // Pools are told apart, and one that is no longer configured is found.
    let other = open(dir.path(), "other", &socket);
    assert!(other.list().await.unwrap().is_empty());
    drop((next, other));
    let configured = [config("other", &socket).name].into();
    let (name, orphans) = retired(dir.path(), &configured).unwrap().remove(0);
    assert_eq!(name.as_str(), "edge");
    for seen in orphans.list().await.unwrap() {
        orphans.stop(&seen.id).await.unwrap();
    }
    until_empty(&orphans).await;
    nothing_is_left(dir.path(), &socket).await;
    orphans.list().await.unwrap();
    assert!(retired(dir.path(), &configured).unwrap().is_empty(), "an empty pool is not looked for again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_leaves_nothing_and_says_why() {
    let Some(socket) = engine() else { return };
    image(&socket);
    let dir = tempfile::tempdir().unwrap();
    let with = |change: fn(&mut DockerConfig)| {
        let mut docker = containers(&socket);
        change(&mut docker);
        DockerProvider::open(dir.path(), &config("edge", &socket), &docker).unwrap()
    };
    for (provider, words) in [
        (with(|docker| docker.image = "tradewind-no-such-image:0".into()), "pull or build the image first"),
        (with(|docker| docker.command = vec!["/no-such-program".into()]), "no-such-program"),
        (with(|docker| docker.socket = "/no/such/socket".into()), "/no/such/socket"),
    ] {
        let error = provider.start(&id("one")).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(census(dir.path(), &socket).is_empty());

    // One that starts and ends at once is reported.
    let provider = with(|docker| docker.command = vec!["/worker".into(), "no-such-subcommand".into()]);
    provider.start(&id("one")).await.unwrap();
    until(&provider, "it is gone", |all| all.iter().all(|seen| seen.state != Starting) && all.is_empty()).await;
    let ended = provider.take_ended();
    assert_eq!(ended.first().map(|ended| ended.cause), Some(EndCause::Unexpected), "{ended:?}");
    nothing_is_left(dir.path(), &socket).await;
}
