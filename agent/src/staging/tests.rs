//! The actor with its store, over real files, a real server and real hooks.

use super::simulated::SimulatedStager;
use super::*;
use crate::config::{PreloadConfig, StageAction, StageHookConfig, StageStep, StorageConfig};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::task::JoinHandle;
use tradewind_protocol::StageName;
use tradewind_protocol::api::StagingState;

/// A guard against waiting for ever, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

fn game() -> ServiceName {
    ServiceName::new("game").unwrap()
}

fn step(name: &str, action: StageAction) -> StageStep {
    StageStep { name: StageName::new(name).unwrap(), action }
}

fn preload(source: &str, to: &Path) -> PreloadConfig {
    PreloadConfig {
        source: source.into(),
        to: to.into(),
        sha256: None,
        max_bytes: 1 << 30,
        bytes_per_second: None,
        deadline: PATIENCE,
        ca: None,
    }
}

fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An agent's staging, life by life, on one directory.
struct Machine {
    dir: tempfile::TempDir,
    env: Env,
    store: Store,
    stager: Arc<dyn Stager>,
    steps: Vec<StageStep>,
    keep: Duration,
}

struct Life {
    handle: StagingHandle,
    events: EventLog,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Machine {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { offload: crate::env::Offload::Inline, ..Env::real(dir.path()).unwrap() };
        let store = Store::open(&env).await.unwrap();
        let stager = env.stager.clone();
        Self { dir, env, store, stager, steps: vec![], keep: Duration::ZERO }
    }

    async fn start(&self) -> Life {
        let region = RegionId::new("here").unwrap();
        let events = EventLog::new(region.clone(), self.env.clock.clone());
        let config = StageConfig { lead: PATIENCE, keep: self.keep, from: 1.0, steps: self.steps.clone() };
        let config = if self.steps.is_empty() { BTreeMap::new() } else { BTreeMap::from([(game(), config)]) };
        let (store, stager) = (self.store.clone(), self.stager.clone());
        let (handle, actor) = open(&self.env, Parts { region, config, store, stager, events: events.clone() }).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        Life { handle, events, stop, task: tokio::spawn(actor.run(stopped)) }
    }
}

impl Life {
    fn need(&self, by: Timestamp) {
        self.handle.foresee(BTreeMap::from([(game(), by)]));
    }

    async fn until(&self, what: &str, wanted: impl Fn(&StagingView) -> bool) -> StagingView {
        let mut report = self.handle.report.clone();
        let waited = report.wait_for(|report| report.services.first().is_some_and(|(view, _)| wanted(view)));
        match tokio::time::timeout(PATIENCE, waited).await {
            Ok(found) => found.unwrap().services[0].0.clone(),
            Err(_) => panic!("waited in vain until {what}: {:?}", self.handle.view()),
        }
    }

    fn told(&self, kind: &str) -> usize {
        self.events.since(0).iter().filter(|event| event.kind == kind).count()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// Serves `content` under one entity tag. The first answer breaks off half-way, when it is told to.
#[derive(Clone)]
struct Server {
    content: Arc<Vec<u8>>,
    cut: Arc<tokio::sync::Notify>,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    async fn start(content: Vec<u8>) -> (Self, String) {
        let server = Self { content: Arc::new(content), cut: Arc::default(), asked: Arc::default() };
        let shared = server.clone();
        let router = axum::Router::new().route("/maps", axum::routing::get(move |headers| shared.answer(headers)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/maps", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    async fn answer(self, headers: HeaderMap) -> axum::response::Response {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_string());
        let mut asked = self.asked.lock().unwrap();
        asked.push(text("range"));
        let length = self.content.len();
        if asked.len() == 1 {
            let half = self.content[..length / 2].to_vec();
            let cut = self.cut.clone();
            let end = futures_util::stream::once(async move {
                cut.notified().await;
                Err(std::io::Error::other("the cable is cut"))
            });
            let pieces = futures_util::StreamExt::chain(futures_util::stream::iter([Ok(half)]), end);
            let head = [("etag", "\"v1\"".to_string()), ("content-length", length.to_string())];
            return (head, Body::from_stream(pieces)).into_response();
        }
        let from: usize = text("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
        if from == 0 || text("if-range").as_deref() != Some("\"v1\"") {
            return ([("etag", "\"v1\"")], self.content.to_vec()).into_response();
        }
        let range = format!("bytes {from}-{}/{length}", length - 1);
        (StatusCode::PARTIAL_CONTENT, [("etag", "\"v1\"".to_string()), ("content-range", range)], self.content[from..].to_vec())
            .into_response()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_broke_off_goes_on_in_the_next_life_and_is_checked_and_removed_when_it_is_not_needed() {
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let (server, url) = Server::start(content.clone()).await;
    let mut machine = Machine::new().await;
    let to = machine.dir.path().join("staged/game/maps");
    let copy = PreloadConfig { sha256: Some(sha256(&content)), ..preload(&url, Path::new("game/maps")) };
    machine.steps = vec![step("maps", StageAction::Preload(copy))];
    let life = machine.start().await;
    life.need(machine.env.clock.now());
    let arrived = async {
        while life.handle.view()[0].steps[0].bytes.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("bytes arrive and show");
    server.cut.notify_one();
    let view = life.until("it has broken off", |view| view.failures > 0).await;
    assert!(view.late && !to.exists(), "{view:?}");
    life.end().await;
    let life = machine.start().await;
    life.need(machine.env.clock.now());
    life.until("it is there", |view| view.state == StagingState::Ready).await;
    assert_eq!(std::fs::read(&to).unwrap(), content);
    let asked = server.asked.lock().unwrap().clone();
    let resumed = asked.last().unwrap().as_ref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    assert!(resumed.is_some_and(|from| from > 0 && from <= content.len() / 2), "{asked:?}");
    life.handle.foresee(BTreeMap::new());
    life.until("it is gone", |view| view.state == StagingState::Idle).await;
    assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 0, "neither the file nor what stood beside it is left");
    life.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_in_order_are_told_what_they_are_for_and_are_undone_also_when_no_longer_configured() {
    let mut machine = Machine::new().await;
    let log = machine.dir.path().join("log");
    let hook = |name: &str| {
        let command = |word: &str| {
            let script = format!("read line; echo \"{name} {word} $line\" >> {}", log.display());
            ["/bin/sh", "-c", &script].map(String::from).to_vec()
        };
        let (run, undo) = (command("ran"), Some(command("undid")));
        step(name, StageAction::Hook(StageHookConfig { run, undo, directory: None, env: vec![], timeout: PATIENCE }))
    };
    machine.steps = vec![hook("ports"), hook("balancer")];
    let life = machine.start().await;
    life.need(machine.env.clock.now().after(PATIENCE));
    life.until("both are done", |view| view.state == StagingState::Ready).await;
    life.end().await;
    machine.steps = vec![];
    let life = machine.start().await;
    tokio::time::timeout(PATIENCE, life.task).await.expect("an actor with nothing left to undo ends").unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<(&str, serde_json::Value)> = log
        .lines()
        .map(|line| line.split_once(" {").map(|(who, rest)| (who, serde_json::from_str(&format!("{{{rest}")).unwrap())).unwrap())
        .collect();
    let order: Vec<&str> = lines.iter().map(|(who, _)| *who).collect();
    assert_eq!(order, ["ports ran", "balancer ran", "balancer undid", "ports undid"]);
    let document = &lines[3].1;
    let told = ["action", "region", "service", "step"].map(|key| document[key].as_str().unwrap());
    assert_eq!(told, ["undo", "here", "game", "ports"]);
    let numbers: BTreeSet<u64> = lines.iter().map(|(_, document)| document["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), 4, "every try has a number of its own, also across lives");
    assert!(machine.store.all(RECORDS).await.unwrap().is_empty(), "nothing is remembered of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_is_too_slow_too_large_or_not_what_it_should_be_is_told_and_leaves_nothing() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let machine = Machine::new().await;
    let source = machine.dir.path().join("source");
    std::fs::write(&source, [7; 5_000]).unwrap();
    let file = format!("file://{}", source.display());
    let to = machine.dir.path().join("to");
    let slow = format!("http://{}/", silent.local_addr().unwrap());
    let cases = [
        (PreloadConfig { deadline: Duration::from_millis(50), ..preload(&slow, &to) }, "after 50ms"),
        (PreloadConfig { max_bytes: 4_999, ..preload(&file, &to) }, "max_bytes = 4999"),
        (PreloadConfig { sha256: Some(sha256(b"other")), ..preload(&file, &to) }, "SHA-256"),
        (preload("file:///no/such/file", &to), "/no/such/file"),
    ];
    for (config, named) in cases {
        let error = copy::fetch(&config, &to, &Meter::default()).await.unwrap_err();
        assert!(error.contains(named), "{error}");
        assert!(!to.exists());
    }
    copy::remove(&to).await.unwrap();
    assert_eq!(
        std::fs::read_dir(machine.dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("to"))
            .count(),
        0
    );
}

/// Time stands still but for the waits, which are what is measured.
#[tokio::test(start_paused = true)]
async fn a_copy_takes_no_more_than_its_bandwidth() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("source"), dir.path().join("to"));
    std::fs::write(&source, vec![1; 1 << 20]).unwrap();
    let config = PreloadConfig { bytes_per_second: Some(256 << 10), ..preload(&format!("file://{}", source.display()), &to) };
    let (begun, meter) = (Instant::now(), Meter::default());
    copy::fetch(&config, &to, &meter).await.unwrap();
    assert_eq!(begun.elapsed().as_millis() / 10, 400, "{:?}", begun.elapsed());
    assert_eq!((meter.read(), std::fs::metadata(&to).unwrap().len()), ((1 << 20, Some(1 << 20)), 1 << 20));
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_is_undone_after_the_time_that_it_is_kept_and_a_life_that_ends_in_between_changes_nothing() {
    let mut machine = Machine::new().await;
    let stager = SimulatedStager::new(Duration::from_secs(5));
    machine.stager = Arc::new(stager.clone());
    machine.keep = Duration::from_secs(30);
    let storage = |name: &str| step(name, StageAction::Storage(StorageConfig { file: name.into(), bytes: 1 }));
    machine.steps = vec![storage("a"), storage("b")];
    let life = machine.start().await;
    let now = machine.env.clock.now();
    life.need(now.after(Duration::from_secs(3600)));
    stager.refuse_next("no room");
    life.until("it failed once", |view| view.failures == 1).await;
    life.until("a is done", |view| view.steps[0].state == StageState::Done).await;
    life.end().await;
    assert_eq!(stager.standing().len(), 1, "b was cut short");
    let life = machine.start().await;
    life.need(now.after(Duration::from_secs(3600)));
    life.until("both are done", |view| view.state == StagingState::Ready).await;
    assert_eq!((stager.standing().len(), life.told("staging.ready")), (2, 1));
    let begun = Instant::now();
    life.handle.foresee(BTreeMap::new());
    life.until("it is kept", |view| view.state == StagingState::Waning).await;
    life.until("it is undone", |view| view.state == StagingState::Idle).await;
    assert!((39..42).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(stager.standing().is_empty());
    assert_eq!(life.handle.totals(), StagingTotals { done: 1, undone: 2, failed: 0, bytes: 0 });
    life.end().await;
}
