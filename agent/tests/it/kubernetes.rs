//! Replicas of a workload, against a double of Kubernetes' HTTP API with its conflicts, throttling and watch expiry; and against a real
//! API server when one is given.

use crate::support::{PATIENCE, assert_retires, id, pool, process, until, until_empty, until_state};
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tradewind_agent::config::{KubernetesConfig, ProviderConfig};
use tradewind_agent::provider::conformance::{self, Subject};
use tradewind_agent::provider::{Observed, Provider, kubernetes};
use tradewind_protocol::api::InstanceState;

const TOKEN: &str = "the-service-accounts-token";

#[derive(Default)]
struct Pod {
    owner: String,
    /// Looks until it is ready.
    unready: u32,
    /// Looks until it is gone, once it ends.
    ending: Option<u32>,
    cost: i64,
}

#[derive(Default)]
struct World {
    version: u64,
    /// Replicas by the workload's name.
    replicas: BTreeMap<String, u64>,
    scale_versions: BTreeMap<String, u64>,
    pods: BTreeMap<String, Pod>,
    made: u64,
    placeholder: Option<Value>,
    requests: u64,
    lists: u64,
    refused: BTreeMap<u16, u64>,
    /// Versions before this one are forgotten.
    compacted: u64,
    /// Every how many requests one is throttled, and every how many changes of a scale somebody else is quicker.
    throttle_every: Option<u64>,
    conflict_every: Option<u64>,
    scalings: u64,
    /// Without a selector, as some custom resources are.
    bare: bool,
    /// Of a StatefulSet: pods have numbers, and the highest goes first, whatever its deletion cost.
    stateful: bool,
}

#[derive(Clone)]
struct Double {
    world: Arc<Mutex<World>>,
    versions: watch::Sender<u64>,
}

impl World {
    /// What the controllers do: as many pods as replicas.
    fn control(&mut self) {
        for (owner, wanted) in self.replicas.clone() {
            let living = |world: &World| world.pods.values().filter(|pod| pod.owner == owner && pod.ending.is_none()).count() as u64;
            while living(self) < wanted {
                self.made += 1;
                let pod = Pod { owner: owner.clone(), unready: 1, ..Pod::default() };
                let number = if self.stateful { living(self) } else { self.made };
                self.pods.insert(format!("{owner}-{number:04}"), pod);
            }
            while living(self) > wanted {
                let mut all = self.pods.iter_mut().filter(|(_, pod)| pod.owner == owner && pod.ending.is_none());
                let cheapest = |(name, pod): &(&String, &mut Pod)| (pod.unready == 0, pod.cost, std::cmp::Reverse((*name).clone()));
                let victim = if self.stateful { all.next_back() } else { all.min_by_key(cheapest) };
                victim.unwrap().1.ending = Some(1);
            }
        }
        self.version += 1;
    }

    fn refuse(&mut self, status: StatusCode, message: &str) -> Response {
        *self.refused.entry(status.as_u16()).or_default() += 1;
        let body = json!({ "kind": "Status", "status": "Failure", "code": status.as_u16(), "message": message });
        (status, [("retry-after", "1")], axum::Json(body)).into_response()
    }

    /// What stands before every request.
    fn gate(&mut self, headers: &HeaderMap) -> Option<Response> {
        self.requests += 1;
        if headers.get("authorization").is_none_or(|value| value.as_bytes() != format!("Bearer {TOKEN}").as_bytes()) {
            return Some(self.refuse(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        let throttled = self.throttle_every.is_some_and(|every| self.requests.is_multiple_of(every));
        throttled.then(|| self.refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests"))
    }

    fn scale(&self, name: &str) -> Value {
        let selector = if self.bare { String::new() } else { format!("app={name}") };
        let running = self.pods.values().filter(|pod| pod.owner == name).count();
        json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": { "name": name, "resourceVersion": self.scale_versions.get(name).copied().unwrap_or(0).to_string() },
            "spec": { "replicas": self.replicas[name] },
            "status": { "replicas": running, "selector": selector },
        })
    }

    fn set_scale(&mut self, name: &str, replicas: u64) {
        self.replicas.insert(name.into(), replicas);
        *self.scale_versions.entry(name.into()).or_default() += 1;
        self.control();
    }
}

type Names = Path<(String, String)>;

async fn get_scale(State(double): State<Double>, Path((_, name)): Names, headers: HeaderMap) -> Response {
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    if !world.replicas.contains_key(&name) {
        return world.refuse(StatusCode::NOT_FOUND, "not found");
    }
    axum::Json(world.scale(&name)).into_response()
}

async fn patch_scale(State(double): State<Double>, Path((_, name)): Names, headers: HeaderMap, body: Bytes) -> Response {
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    assert_eq!(headers["content-type"], "application/merge-patch+json");
    let patch: Value = serde_json::from_slice(&body).unwrap();
    world.scalings += 1;
    if world.conflict_every.is_some_and(|every| world.scalings.is_multiple_of(every)) {
        // Somebody else writes, say a label, just before.
        *world.scale_versions.entry(name.clone()).or_default() += 1;
    }
    if patch["metadata"]["resourceVersion"] != world.scale(&name)["metadata"]["resourceVersion"] {
        return world.refuse(StatusCode::CONFLICT, "the object has been modified; please apply your changes to the latest version");
    }
    world.set_scale(&name, patch["spec"]["replicas"].as_u64().unwrap());
    double.versions.send_replace(world.version);
    axum::Json(world.scale(&name)).into_response()
}

async fn get_placeholder(State(double): State<Double>, headers: HeaderMap) -> Response {
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    let Some(mut object) = world.placeholder.clone() else { return world.refuse(StatusCode::NOT_FOUND, "not found") };
    let name = object["metadata"]["name"].as_str().unwrap().to_string();
    let ready = world.pods.values().filter(|pod| pod.owner == name && pod.ending.is_none() && pod.unready == 0).count();
    let (mut moved, mut gone) = (false, vec![]);
    for (pod_name, pod) in world.pods.iter_mut().filter(|(_, pod)| pod.owner == name) {
        moved |= pod.unready > 0 || pod.ending.is_some();
        pod.unready = pod.unready.saturating_sub(1);
        gone.extend(pod.ending.map(|_| pod_name.clone()));
    }
    gone.iter().for_each(|pod| drop(world.pods.remove(pod)));
    if moved {
        world.version += 1;
        double.versions.send_replace(world.version);
    }
    object["status"] = json!({ "readyReplicas": ready });
    axum::Json(object).into_response()
}

async fn apply_placeholder(
    State(double): State<Double>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    assert_eq!((headers["content-type"].to_str().unwrap(), query["fieldManager"].as_str()), ("application/apply-patch+yaml", "tradewind"));
    let object: Value = serde_json::from_slice(&body).unwrap();
    let (name, replicas) = (object["metadata"]["name"].as_str().unwrap().to_string(), object["spec"]["replicas"].as_u64().unwrap());
    world.placeholder = Some(object.clone());
    world.set_scale(&name, replicas);
    double.versions.send_replace(world.version);
    axum::Json(object).into_response()
}

async fn list_pods(State(double): State<Double>, Query(query): Query<BTreeMap<String, String>>, headers: HeaderMap) -> Response {
    let selector = query.get("labelSelector").cloned().unwrap_or_default();
    if query.contains_key("watch") {
        return watch_pods(double, &query["resourceVersion"], &headers);
    }
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    world.lists += 1;
    let owner = selector.strip_prefix("app=").unwrap_or_default().to_string();
    let item = |(name, pod): (&String, &Pod)| {
        let ready = if pod.unready == 0 { "True" } else { "False" };
        let mut metadata = json!({ "name": name });
        if pod.ending.is_some() {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        json!({ "metadata": metadata, "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] } })
    };
    let items: Vec<Value> = world.pods.iter().filter(|(_, pod)| pod.owner == owner).map(item).collect();
    let version = world.version.to_string();
    // Time passes: pods become ready, and end.
    let mut moved = false;
    world.pods.retain(|_, pod| {
        if pod.owner != owner {
            return true;
        }
        moved |= pod.unready > 0 || pod.ending.is_some();
        pod.unready = pod.unready.saturating_sub(1);
        pod.ending = pod.ending.map(|looks| looks.saturating_sub(1));
        pod.ending != Some(0)
    });
    if moved {
        world.version += 1;
        double.versions.send_replace(world.version);
    }
    axum::Json(json!({ "kind": "PodList", "metadata": { "resourceVersion": version }, "items": items })).into_response()
}

fn watch_pods(double: Double, from: &str, headers: &HeaderMap) -> Response {
    let from: u64 = from.parse().unwrap();
    {
        let mut world = double.world.lock().unwrap();
        if let Some(refusal) = world.gate(headers) {
            return refusal;
        }
        if from < world.compacted {
            return world.refuse(StatusCode::GONE, "too old resource version");
        }
    }
    let events = futures_util::stream::unfold((double.versions.subscribe(), double, from), |(mut versions, double, seen)| async move {
        let version = *versions.wait_for(|version| *version > seen).await.ok()?;
        let gone = seen < double.world.lock().unwrap().compacted;
        let event = if gone {
            *double.world.lock().unwrap().refused.entry(410).or_default() += 1;
            json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "message": "too old resource version" } })
        } else {
            json!({ "type": "MODIFIED", "object": { "metadata": { "resourceVersion": version.to_string() } } })
        };
        Some((Ok::<_, std::io::Error>(format!("{event}\n")), (versions, double, version)))
    });
    Body::from_stream(events).into_response()
}

async fn patch_pod(State(double): State<Double>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let mut world = double.world.lock().unwrap();
    if let Some(refusal) = world.gate(&headers) {
        return refusal;
    }
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let Some(pod) = world.pods.get_mut(&name) else { return world.refuse(StatusCode::NOT_FOUND, "not found") };
    pod.cost = patch["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].as_str().unwrap().parse().unwrap();
    axum::Json(json!({})).into_response()
}

struct Cluster {
    double: Double,
    provider: Arc<dyn Provider>,
    dir: tempfile::TempDir,
    config: KubernetesConfig,
}

fn open(dir: &std::path::Path, config: &KubernetesConfig) -> Arc<dyn Provider> {
    Arc::new(kubernetes::open(dir, &pool("edge", process(vec![], &[])), config).unwrap())
}

async fn cluster(world: World, group: &str, object: &str, refresh: Duration) -> Cluster {
    let name = object.rsplit('/').next().unwrap().to_string();
    let mut world = world;
    world.stateful = object.starts_with("statefulsets/");
    world.replicas.entry(name).or_insert(0);
    let double = Double { world: Arc::new(Mutex::new(world)), versions: watch::channel(0).0 };
    let router = axum::Router::new()
        .route("/apis/apps/v1/namespaces/games/deployments/tradewind-edge", get(get_placeholder).patch(apply_placeholder))
        .route(&format!("{group}/namespaces/games/{{plural}}/{{name}}/scale"), get(get_scale).patch(patch_scale))
        .route("/api/v1/namespaces/games/pods", get(list_pods))
        .route("/api/v1/namespaces/games/pods/{name}", patch(patch_pod))
        .with_state(double.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    let text = format!(
        "current-context: here\ncontexts:\n- name: here\n  context: {{cluster: c, user: u, namespace: games}}\nclusters:\n- name: c\n  \
         cluster: {{server: \"{server}\"}}\nusers:\n- name: u\n  user: {{tokenFile: token}}\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let config = KubernetesConfig {
        group: group.into(),
        object: object.into(),
        namespace: None,
        kubeconfig: Some(kubeconfig),
        priority_class: "tradewind-placeholder".into(),
        placeholder_image: "registry.k8s.io/pause:3.10".into(),
        refresh,
    };
    Cluster { provider: open(dir.path(), &config), double, dir, config }
}

#[async_trait]
impl Subject for Cluster {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }
    /// Somebody lowers the scale, and that pod goes.
    async fn kill(&self, instance: &Observed) {
        let mut world = self.double.world.lock().unwrap();
        let pod = instance.handle.strip_prefix("pod ").unwrap();
        let owner = world.pods.remove(pod).unwrap().owner;
        let fewer = world.replicas[&owner] - 1;
        world.set_scale(&owner, fewer);
    }
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_conform_through_conflicts_and_throttling() {
    let world = World { conflict_every: Some(3), throttle_every: Some(7), ..World::default() };
    let cluster = cluster(world, "/apis/apps/v1", "deployments/game", SHORT).await;
    conformance::check(&cluster).await.unwrap();
    let world = cluster.double.world.lock().unwrap();
    assert!(world.refused[&409] > 0 && world.refused[&429] > 0, "{:?}", world.refused);
    let spec = &world.placeholder.as_ref().unwrap()["spec"]["template"]["spec"];
    assert_eq!(spec["priorityClassName"], "tradewind-placeholder");
    assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "100m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drained_replica_goes_and_what_is_there_is_taken_over() {
    let found = World { replicas: [("game".to_string(), 2)].into(), ..World::default() };
    let cluster = cluster(found, "/apis/apps/v1", "deployments/game", SHORT).await;
    cluster.double.world.lock().unwrap().control();
    let all = |n: usize| move |all: &[Observed]| all.len() == n && all.iter().all(|i| i.state == InstanceState::Active);
    let before = until(&*cluster.provider, "both are taken over", all(2)).await;
    cluster.provider.drain(&before[0].id).await.unwrap();
    let after = until(&*cluster.provider, "one is left", all(1)).await;
    assert_eq!(after[0], before[1]);
    cluster.provider.close().await;
    let next = open(cluster.dir.path(), &cluster.config);
    assert_eq!(until(&*next, "the next life knows it", all(1)).await[0].id, before[1].id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_stateful_set_the_highest_replica_goes_whichever_is_drained() {
    let found = World { replicas: [("game".to_string(), 3)].into(), ..World::default() };
    let cluster = cluster(found, "/apis/apps/v1", "statefulsets/game", SHORT).await;
    cluster.double.world.lock().unwrap().control();
    let all = |n: usize| move |all: &[Observed]| all.len() == n && all.iter().all(|i| i.state == InstanceState::Active);
    let before = until(&*cluster.provider, "all are taken over", all(3)).await;
    let first = before.iter().find(|instance| instance.handle == "pod game-0000").unwrap();
    cluster.provider.drain(&first.id).await.unwrap();
    let mut pods: Vec<String> = until(&*cluster.provider, "two are left", all(2)).await.into_iter().map(|left| left.handle).collect();
    pods.sort();
    assert_eq!(pods, ["pod game-0000", "pod game-0001"]);
    assert_eq!(cluster.double.world.lock().unwrap().replicas["game"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_expires_begins_anew_and_misses_nothing() {
    // Nothing is looked at by itself within the test.
    let cluster = cluster(World::default(), "/apis/apps/v1", "deployments/game", Duration::from_secs(3_000)).await;
    cluster.provider.list().await.unwrap();
    cluster.provider.start(&id("a")).await.unwrap();
    until_state(&*cluster.provider, "a", InstanceState::Warm).await;
    cluster.provider.activate(&id("a")).await.unwrap();
    {
        let mut world = cluster.double.world.lock().unwrap();
        world.version += 10;
        world.compacted = world.version;
        cluster.double.versions.send_replace(world.version);
    }
    let expired = async {
        while !cluster.double.world.lock().unwrap().refused.contains_key(&410) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.unwrap();
    {
        let mut world = cluster.double.world.lock().unwrap();
        world.set_scale("game", 0);
        cluster.double.versions.send_replace(world.version);
    }
    until_empty(&*cluster.provider).await;
    assert_eq!(cluster.provider.take_ended().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_resource_is_scaled_by_its_count() {
    let world = World { bare: true, ..World::default() };
    let cluster = cluster(world, "/apis/agones.dev/v1", "fleets/game", SHORT).await;
    cluster.provider.list().await.unwrap();
    for name in ["a", "b"] {
        cluster.provider.start(&id(name)).await.unwrap();
        until_state(&*cluster.provider, name, InstanceState::Warm).await;
        cluster.provider.activate(&id(name)).await.unwrap();
    }
    assert_eq!(cluster.double.world.lock().unwrap().replicas["game"], 2);
}

/// Against the cluster of `$KUBECONFIG`, with a workload that nobody needs: `TRADEWIND_TEST_WORKLOAD=deployments/idle`, at 0 replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_scales_a_workload() {
    let (Ok(_), Ok(object)) = (std::env::var("KUBECONFIG"), std::env::var("TRADEWIND_TEST_WORKLOAD")) else {
        eprintln!("SKIPPED: KUBECONFIG and TRADEWIND_TEST_WORKLOAD (like deployments/idle) are not both set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = KubernetesConfig {
        group: "/apis/apps/v1".into(),
        object,
        namespace: None,
        kubeconfig: None,
        priority_class: "tradewind-placeholder".into(),
        placeholder_image: "registry.k8s.io/pause:3.10".into(),
        refresh: Duration::from_secs(2),
    };
    let provider = open(dir.path(), &config);
    assert!(provider.list().await.unwrap().is_empty(), "the workload is in use");
    provider.start(&id("a")).await.unwrap();
    until_state(&*provider, "a", InstanceState::Warm).await;
    provider.activate(&id("a")).await.unwrap();
    provider.drain(&id("a")).await.unwrap();
    until_empty(&*provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_a_workload_that_is_no_longer_configured_are_ended() {
    let cluster = cluster(World::default(), "/apis/apps/v1", "deployments/game", SHORT).await;
    cluster.provider.close().await;
    assert_retires(cluster.dir.path(), ProviderConfig::Kubernetes(cluster.config.clone())).await;
    let world = cluster.double.world.lock().unwrap();
    assert_eq!(world.replicas["game"], 0);
}
