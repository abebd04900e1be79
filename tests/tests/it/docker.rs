//! Pools of containers, with a real engine: the one at `TRADEWIND_DOCKER_SOCKET`.

use async_trait::async_trait;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::config::{DockerConfig, PoolConfig, ProviderConfig};
use tradewind_agent::provider::conformance::{self, Subject};
use tradewind_agent::provider::docker::{DockerProvider, retired};
use tradewind_agent::provider::{EndCause, Observed, Provider};
use tradewind_protocol::api::InstanceState::{self, Active, Draining, Starting, Warm};
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{InstanceId, PoolName, Resources, ServiceName};
use tradewind_tests::docker::{self, IMAGE, engine, image};
use tradewind_tests::{Cluster, PATIENCE, Setup, eventually, now_ms};

fn id(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

/// Waits until the instances are what `wanted` says, as a pool does.
async fn until(provider: &dyn Provider, what: &str, wanted: impl Fn(&[Observed]) -> bool) -> Vec<Observed> {
    let waited = async {
        loop {
            let listed = provider.list().await.unwrap();
            if wanted(&listed) {
                return listed;
            }
            provider.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

async fn until_state(provider: &dyn Provider, name: &str, state: InstanceState) {
    until(provider, name, |all| all.iter().any(|seen| seen.id.as_str() == name && seen.state == state)).await;
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
    // The engine of a test may not be able to limit CPU time.
    let instance = Resources { memory_bytes: 64 << 20, ..Resources::ZERO };
    PoolConfig {
        name: PoolName::new(name).unwrap(),
        service: ServiceName::default(),
        rate_per_instance: 10.0,
        instance,
        capacity: instance.checked_mul(8).unwrap(),
        min_instances: 0,
        max_instances: 8,
        min_warm: 0,
        startup: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(5),
        instance_hour_price: MicroUsd(1_000),
        costs: Default::default(),
        policies: vec![],
        provider: ProviderConfig::Docker(containers(socket)),
        spot: None,
    }
}

fn open(dir: &Path, name: &str, socket: &str) -> Arc<DockerProvider> {
    Arc::new(DockerProvider::open(dir, &config(name, socket), &containers(socket)).unwrap())
}

struct Real(Arc<DockerProvider>, String);

#[async_trait]
impl Subject for Real {
    fn provider(&self) -> Arc<dyn Provider> {
        self.0.clone()
    }

    async fn kill(&self, instance: &Observed) {
        docker::run(&self.1, &["kill", instance.handle.trim_start_matches("container ")]);
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
        if docker::census(dir, socket).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("left behind: {:?}", docker::census(dir, socket));
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
    let dead =
        docker::census(dir.path(), &socket).iter().find(|line| line.contains("-dead ")).unwrap().split(' ').next().unwrap().to_string();
    docker::run(&socket, &["kill", &dead]);

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
    let other = config("other", &socket).name;
    let configured = |pool: &PoolName| *pool == other;
    let (name, orphans) = retired(dir.path(), configured).unwrap().remove(0);
    assert_eq!(name.as_str(), "edge");
    for seen in orphans.list().await.unwrap() {
        orphans.stop(&seen.id).await.unwrap();
    }
    until(&orphans, "none is left", <[Observed]>::is_empty).await;
    nothing_is_left(dir.path(), &socket).await;
    orphans.list().await.unwrap();
    assert!(retired(dir.path(), configured).unwrap().is_empty(), "an empty pool is not looked for again");
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
    assert!(docker::census(dir.path(), &socket).is_empty());

    // One that starts and ends at once is reported.
    let provider = with(|docker| docker.command = vec!["/worker".into(), "no-such-subcommand".into()]);
    provider.start(&id("one")).await.unwrap();
    until(&provider, "it is gone", |all| all.iter().all(|seen| seen.state != Starting) && all.is_empty()).await;
    let ended = provider.take_ended();
    assert_eq!(ended.first().map(|ended| ended.cause), Some(EndCause::Unexpected), "{ended:?}");
    nothing_is_left(dir.path(), &socket).await;
}

fn record(cluster: &Cluster, count: u64) {
    let records =
        json!([{"source_region": "solo", "destination_region": "solo", "service": "game", "timestamp": now_ms(), "count": count}]);
    assert_eq!(cluster.member("solo").post("/v1/records", &records.to_string()).status, 200);
}

/// Containers of the agent of `solo`, thawed and frozen, as the engine has them.
fn count(cluster: &Cluster, socket: &str) -> (usize, usize) {
    let lines = docker::census(&cluster.home("solo"), socket);
    let settled: Vec<&String> = lines.iter().filter(|line| !line.contains(".starting") && !line.contains(".draining")).collect();
    let paused = settled.iter().filter(|line| line.contains("Paused")).count();
    (settled.len() - paused, paused)
}

#[test]
fn a_ramp_that_is_foreseen_finds_warm_containers_and_leaves_none() {
    const STEP_MS: i64 = 500;
    const SEASON_MS: i64 = 30_000;
    const RAMP_MS: i64 = 6_000;
    let Some(socket) = engine() else { return };
    image(&socket);
    let mut cluster = Cluster::new();
    let tables = format!(
        "[planner]\nscale_in_after = \"1s\"\n[[pool]]\nname = \"rooms\"\nservice = \"game\"\nrate_per_instance = 100.0\nmax_instances = 8\n\
         instance = {{ memory_bytes = 67108864 }}\nstartup = \"3s\"\ndrain_timeout = \"5s\"\n\
         docker = {{ image = {IMAGE:?}, command = [\"/worker\", \"worker\"], network = \"none\", socket = {socket:?} }}\n"
    );
    let top = "mode = \"active\"\non_shutdown = \"drain\"\n".into();
    let (step, forecast) = (Some(format!("{STEP_MS}ms")), Some(format!("horizon = 12\nseason = {}", SEASON_MS / STEP_MS)));
    cluster.start("solo", &Setup { top, step, forecast, tables, ingest: "lateness = \"1h\"".into(), ..Setup::default() });
    assert_eq!(count(&cluster, &socket), (0, 0), "nothing is to be there, frozen or not, while nothing is known");

    // Twelve seasons of ramps to 400 a second: more than three can serve. The last ended so long ago that nothing is expected of it any more.
    let ramp = now_ms() + 9_000;
    let load = |at: i64| {
        let count = 400 * STEP_MS / 1_000;
        json!({"source_region": "solo", "destination_region": "solo", "service": "game", "timestamp": at, "count": count})
    };
    let steps = (1..=12).flat_map(|season| (0..RAMP_MS / STEP_MS).map(move |step| ramp - season * SEASON_MS + step * STEP_MS));
    let history: Vec<_> = steps.map(load).collect();
    assert_eq!(cluster.member("solo").post("/v1/records", &json!(history).to_string()).status, 200);

    // The load comes a second late, so only a forecast can have asked for what is there by then: it was frozen first, and serves.
    std::thread::sleep(Duration::from_millis((ramp + 1_000 - now_ms()).max(0) as u64));
    let (serving, _) = count(&cluster, &socket);
    let log = docker::log(&cluster.home("solo"), &socket, ramp - 5_000);
    let frozen = log.iter().filter(|line| line.starts_with("pause ")).count();
    assert!(serving >= 3 && frozen >= 3, "{serving} containers serve as the load comes: {log:#?}");
    let post = |cluster: &Cluster| {
        std::thread::sleep(Duration::from_millis(STEP_MS as u64));
        assert_eq!(cluster.member("solo").post("/v1/records", &json!([load(now_ms())]).to_string()).status, 200);
    };
    while now_ms() < ramp + RAMP_MS / 2 {
        post(&cluster);
    }
    cluster.kill("solo");
    assert!(count(&cluster, &socket).0 >= 3, "and outlive their agent");
    cluster.restart("solo");
    while now_ms() < ramp + RAMP_MS {
        post(&cluster);
    }
    // A forecast never quite rules out that something comes: one may stay for that.
    eventually("the ramp is over, and they are drained", || (docker::census(&cluster.home("solo"), &socket).len() <= 1).then_some(()));
    cluster.stop("solo", "TERM");
    eventually("nothing is left", || docker::census(&cluster.home("solo"), &socket).is_empty().then_some(()));
}

#[test]
fn containers_follow_the_load_through_a_crash_and_none_is_left() {
    let Some(socket) = engine() else { return };
    image(&socket);
    let mut cluster = Cluster::new();
    let tables = format!(
        "[planner]\nscale_in_after = \"400ms\"\n[[pool]]\nname = \"rooms\"\nservice = \"game\"\nrate_per_instance = 100.0\n\
         min_instances = 1\nmax_instances = 8\nmin_warm = 1\ninstance = {{ memory_bytes = 67108864 }}\nstartup = \"1s\"\ndrain_timeout = \"5s\"\n\
         docker = {{ image = {IMAGE:?}, command = [\"/worker\", \"worker\"], network = \"none\", socket = {socket:?} }}\n"
    );
    let top = "mode = \"active\"\non_shutdown = \"drain\"\n".into();
    cluster.start("solo", &Setup { top, tables, ..Setup::default() });
    let home = cluster.home("solo");
    let count = |cluster: &Cluster| count(cluster, &socket);
    eventually("the least is there, one frozen in reserve", || (count(&cluster) == (1, 1)).then_some(()));

    let loaded = |cluster: &Cluster| {
        // 400 a second: more than three can serve.
        record(cluster, 80);
        std::thread::sleep(Duration::from_millis(150));
        count(cluster)
    };
    eventually("containers follow the load", || (loaded(&cluster).0 >= 3).then_some(()));
    cluster.kill("solo");
    assert!(count(&cluster).0 >= 3, "containers outlive their agent");
    cluster.restart("solo");
    let adopted = eventually("they are adopted", || Some(loaded(&cluster)).filter(|(active, _)| *active >= 3));
    assert!(adopted.0 + adopted.1 <= 8);
    let known = cluster.member("solo").instances().len();
    assert!(known >= 3, "the agent knows of {known}");

    eventually("the load is gone, and so are they", || (count(&cluster).0 == 1).then_some(()));
    cluster.stop("solo", "TERM");
    eventually("nothing is left", || docker::census(&home, &socket).is_empty().then_some(()));
}
