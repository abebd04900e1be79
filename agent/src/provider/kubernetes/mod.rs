//! Replicas of a Kubernetes workload: a Deployment, a StatefulSet, or anything else with a scale sub-resource.
//!
//! An active instance is a replica of the operator's workload; a warm one is a pod of a placeholder Deployment of ours, which holds room
//! at a priority below everything else, so that the scheduler gives the room away as soon as a replica needs it. Instances are bound
//! to pods while both are there. Whose pod goes when replicas become fewer is Kubernetes' choice: we ask for the drained one by its
//! deletion cost, which Deployments heed; where another one goes, the instances' bindings change, not their number.
//!
//! The scale is changed only in the version that was read (409: read again); the placeholders are applied server-side. Watches tell
//! when to look ([`watch`]); what is true is always read.

mod api;
mod watch;

use super::Standing;
use super::declared::{Backend, DeclaredProvider, OpenError, Opening, Pace, Plan, Seen, Want};
use crate::config::{KubernetesConfig, PoolConfig};
use api::{Cluster, Refused};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName, Resources};

/// How often a scale is read again because somebody else has changed it meanwhile.
const MAX_CONFLICTS: u32 = 5;

/// How long a drain may take in a pool that is no longer configured.
const RETIRED_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a Deployment deletes first: lower than what pods have by themselves.
const DRAINED_COST: &str = "-1000";

/// The name under which a record tells whose it is.
pub(crate) const ORIGIN: &str = "kubernetes";

/// Why a pool of replicas cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Its record cannot be used.
    #[error(transparent)]
    Record(#[from] OpenError),
    /// There is no way to the cluster.
    #[error("{0}")]
    Unfit(String),
}

/// Opens the provider of `pool`. Must be called inside a tokio runtime.
pub fn open(data_dir: &Path, pool: &PoolConfig, config: &KubernetesConfig) -> Result<DeclaredProvider, KubernetesError> {
    let pace = Pace { refresh: config.refresh, drain_timeout: pool.drain_timeout };
    let backend = Arc::new(Replicas::new(&pool.name, pool.instance, config).map_err(KubernetesError::Unfit)?);
    let origin = json!({ ORIGIN: config, "instance": pool.instance });
    let opening = Opening { data_dir, pool: &pool.name, kind: ORIGIN, origin, pace, standing: Standing::Configured };
    Ok(DeclaredProvider::open(opening, backend)?)
}

/// Opens the provider of a pool that is no longer configured so.
pub(crate) fn open_retired(data_dir: &Path, pool: &PoolName, config: &KubernetesConfig) -> Result<DeclaredProvider, KubernetesError> {
    let pace = Pace { refresh: config.refresh, drain_timeout: RETIRED_DRAIN_TIMEOUT };
    let backend = Arc::new(Replicas::new(pool, Resources::ZERO, config).map_err(KubernetesError::Unfit)?);
    let origin = super::origin(ORIGIN, config);
    let opening = Opening { data_dir, pool, kind: ORIGIN, origin, pace, standing: Standing::Retired };
    Ok(DeclaredProvider::open(opening, backend)?)
}

struct Replicas {
    shared: Arc<Shared>,
    memory: Mutex<Memory>,
    _watches: JoinSet<()>,
}

struct Shared {
    cluster: Cluster,
    /// Path of the namespace's core objects.
    core: String,
    /// Path of the workload.
    workload: String,
    /// Path of the placeholder Deployment, and its name.
    placeholder: String,
    placeholder_name: String,
    pool: PoolName,
    instance: Resources,
    config: KubernetesConfig,
    changed: Notify,
}

/// What is remembered between looks; all of it can be found out again.
#[derive(Default)]
struct Memory {
    /// The last plan that was carried out.
    applied: Option<Plan>,
    /// Which pod an instance is.
    bound: BTreeMap<InstanceId, String>,
    /// Warm instances that were ready.
    stood: BTreeSet<InstanceId>,
}

/// A replica of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    name: String,
    ready: bool,
    ending: bool,
}

/// What the cluster says.
struct Facts {
    /// How many replicas the workload is to have.
    replicas: usize,
    pods: Vec<Pod>,
    /// How many placeholders there are to be, and how many are ready.
    placeholders: usize,
    placeholders_ready: usize,
}

impl Replicas {
    fn new(pool: &PoolName, instance: Resources, config: &KubernetesConfig) -> Result<Self, String> {
        let cluster = Cluster::connect(config.kubeconfig.as_deref())?;
        let namespace = config.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
        let placeholder_name = format!("tradewind-{pool}");
        let shared = Arc::new(Shared {
            core: format!("/api/v1/namespaces/{namespace}"),
            workload: format!("{}/namespaces/{namespace}/{}", config.group, config.object),
            placeholder: format!("/apis/apps/v1/namespaces/{namespace}/deployments/{placeholder_name}"),
            placeholder_name,
            pool: pool.clone(),
            instance,
            config: config.clone(),
            changed: Notify::new(),
            cluster,
        });
        let mut watches = JoinSet::new();
        watches.spawn(watch::run(Arc::clone(&shared)));
        Ok(Self { shared, memory: Mutex::default(), _watches: watches })
    }
}

#[async_trait]
impl Backend for Replicas {
    async fn apply(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        let count = |want: Want| plan.instances.values().filter(|w| **w == want).count();
        let mut memory = self.memory.lock().await;
        let words = |refused: Refused| refused.reason;
        // Serving comes first; the room that placeholders held is free by then, or taken from them.
        for (id, pod) in &memory.bound {
            if plan.instances.get(id) != Some(&Want::Active) {
                self.shared.cheapen(pod).await;
            }
        }
        self.shared.scale(count(Want::Active)).await.map_err(words)?;
        self.shared.placeholders(count(Want::Warm)).await.map_err(words)?;
        memory.applied = Some(plan.clone());
        let facts = self.shared.facts().await.map_err(words)?;
        Ok(memory.settle(&self.shared.pool, plan, &facts))
    }

    async fn read(&self, plan: &Plan) -> Result<Vec<Seen>, String> {
        let facts = self.shared.facts().await.map_err(|refused| refused.reason)?;
        Ok(self.memory.lock().await.settle(&self.shared.pool, plan, &facts))
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl Memory {
    /// From what was carried out and what is, to instances.
    fn settle(&mut self, pool: &PoolName, plan: &Plan, facts: &Facts) -> Vec<Seen> {
        let mut basis = self.applied.clone().unwrap_or_else(|| plan.clone());
        let ids = |basis: &Plan, want: Want| -> Vec<InstanceId> {
            basis.instances.iter().filter(|(_, w)| **w == want).map(|(id, _)| id.clone()).collect()
        };
        let mut seen = vec![];
        self.bound.retain(|_, bound| facts.pods.iter().any(|pod| pod.name == *bound));
        // What was told to go: there until its pod is not, unless another pod went in its place.
        let active = ids(&basis, Want::Active);
        let running = facts.pods.iter().filter(|pod| !pod.ending).count();
        let leaving: Vec<(InstanceId, String)> =
            self.bound.iter().filter(|(id, _)| !active.contains(id)).map(|(id, pod)| (id.clone(), pod.clone())).collect();
        for (id, name) in leaving {
            let ending = facts.pods.iter().any(|pod| pod.name == name && pod.ending);
            // A warm instance of that name stands elsewhere.
            let warm = basis.instances.get(&id) == Some(&Want::Warm);
            if (ending || running > facts.replicas) && !warm {
                seen.push(Seen { id, state: InstanceState::Draining, want: None, handle: format!("pod {name}") });
            } else {
                self.bound.remove(&id);
            }
        }
        // Active instances to pods.
        self.bound.retain(|id, bound| !active.contains(id) || facts.pods.iter().any(|pod| pod.name == *bound && !pod.ending));
        let mut free: Vec<&Pod> =
            facts.pods.iter().filter(|pod| !pod.ending && !self.bound.values().any(|bound| *bound == pod.name)).collect();
        free.sort_by(|a, b| b.ready.cmp(&a.ready).then_with(|| a.name.cmp(&b.name)));
        let mut free = free.into_iter();
        let mut homeless = vec![];
        for id in &active {
            if self.bound.contains_key(id) {
                continue;
            }
            match free.next() {
                Some(pod) => drop(self.bound.insert(id.clone(), pod.name.clone())),
                None => homeless.push(id.clone()),
            }
        }
        // Somebody has lowered the scale: as many are no more.
        let lost = active.len().saturating_sub(facts.replicas).min(homeless.len());
        for id in homeless.split_off(homeless.len() - lost) {
            basis.instances.remove(&id);
        }
        let waits = |id| Seen { id, state: InstanceState::Starting, want: Some(Want::Active), handle: "no pod yet".into() };
        seen.extend(homeless.into_iter().map(waits));
        // Somebody has raised it: these are taken over.
        for pod in free.take(facts.replicas.saturating_sub(active.len())) {
            if let Ok(id) = InstanceId::new(&pod.name) {
                self.bound.insert(id.clone(), pod.name.clone());
                basis.instances.insert(id, Want::Active);
            }
        }
        for id in ids(&basis, Want::Active) {
            let Some(pod) = self.bound.get(&id).and_then(|bound| facts.pods.iter().find(|pod| pod.name == *bound)) else { continue };
            let state = if pod.ready { InstanceState::Active } else { InstanceState::Starting };
            seen.push(Seen { id, state, want: Some(Want::Active), handle: format!("pod {}", pod.name) });
        }
        self.settle_warm(pool, &mut basis, facts, &mut seen);
        self.applied = Some(basis);
        seen
    }

    /// Placeholders are alike: those that were ready longest are taken to be ready still.
    fn settle_warm(&mut self, pool: &PoolName, basis: &mut Plan, facts: &Facts, seen: &mut Vec<Seen>) {
        let mut warm: Vec<InstanceId> = basis.instances.iter().filter(|(_, w)| **w == Want::Warm).map(|(id, _)| id.clone()).collect();
        warm.sort_by_key(|id| (!self.stood.contains(id), id.clone()));
        for id in warm.split_off(warm.len().min(facts.placeholders)) {
            basis.instances.remove(&id);
        }
        let mut number = 0;
        while warm.len() < facts.placeholders && number < facts.placeholders * 2 {
            number += 1;
            match InstanceId::new(&format!("{pool}-placeholder-{number}")) {
                Ok(id) if !basis.instances.contains_key(&id) => {
                    basis.instances.insert(id.clone(), Want::Warm);
                    warm.push(id);
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.stood = warm.iter().take(facts.placeholders_ready).cloned().collect();
        seen.extend(warm.into_iter().map(|id| {
            let state = if self.stood.contains(&id) { InstanceState::Warm } else { InstanceState::Starting };
            Seen { id, state, want: Some(Want::Warm), handle: "a placeholder".into() }
        }));
    }
}

impl Shared {
    async fn facts(&self) -> Result<Facts, Refused> {
        let scale = self.cluster.get(&format!("{}/scale", self.workload)).await?;
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(0);
        let replicas = number(&scale["spec"]["replicas"]);
        let pods = match scale["status"]["selector"].as_str().filter(|selector| !selector.is_empty()) {
            Some(selector) => pods(&self.cluster.get(&format!("{}/pods?labelSelector={}", self.core, escape(selector))).await?),
            // It does not say which pods are its own: they are counted, and taken to be ready.
            None => (0..number(&scale["status"]["replicas"]))
                .map(|at| Pod { name: format!("{}-replica-{at}", self.pool), ready: true, ending: false })
                .collect(),
        };
        let (placeholders, placeholders_ready) = match self.cluster.get(&self.placeholder).await {
            Ok(deployment) => (number(&deployment["spec"]["replicas"]), number(&deployment["status"]["readyReplicas"])),
            Err(refused) if refused.status == 404 => (0, 0),
            Err(refused) => return Err(refused),
        };
        Ok(Facts { replicas, pods, placeholders, placeholders_ready })
    }

    /// Has the workload run `wanted` replicas.
    async fn scale(&self, wanted: usize) -> Result<(), Refused> {
        let path = format!("{}/scale", self.workload);
        for attempt in 1.. {
            let scale = self.cluster.get(&path).await?;
            if scale["spec"]["replicas"].as_u64().unwrap_or(0) == wanted as u64 {
                return Ok(());
            }
            let version = &scale["metadata"]["resourceVersion"];
            let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": wanted } });
            match self.cluster.merge(&path, &patch).await {
                Err(refused) if refused.status == 409 && attempt < MAX_CONFLICTS => continue,
                answer => return answer.map(drop),
            }
        }
        Ok(())
    }

    /// Has `wanted` placeholders hold room. Nothing is made where nothing is wanted.
    async fn placeholders(&self, wanted: usize) -> Result<(), Refused> {
        if wanted == 0 {
            match self.cluster.get(&self.placeholder).await {
                Err(refused) if refused.status == 404 => return Ok(()),
                answer => drop(answer?),
            }
        }
        let labels = json!({ "app.kubernetes.io/managed-by": "tradewind", "tradewind.io/pool": self.pool });
        let room =
            json!({ "cpu": format!("{}m", self.instance.cpu_millis.max(1)), "memory": self.instance.memory_bytes.max(1).to_string() });
        let object = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": self.placeholder_name, "labels": labels },
            "spec": {
                "replicas": wanted,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "priorityClassName": self.config.priority_class,
                        "terminationGracePeriodSeconds": 0,
                        "automountServiceAccountToken": false,
                        "containers": [{ "name": "room", "image": self.config.placeholder_image, "resources": { "requests": room } }],
                    },
                },
            },
        });
        // Ours alone: whatever else has changed it is undone.
        self.cluster.apply(&self.placeholder, &object, true).await.map(drop)
    }

    /// Asks for `pod` to go before others. It is a wish: replicas are right without it.
    async fn cheapen(&self, pod: &str) {
        let patch = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": DRAINED_COST } } });
        if let Err(refused) = self.cluster.merge(&format!("{}/pods/{pod}", self.core), &patch).await
            && refused.status != 404
        {
            tracing::debug!(pod, reason = refused.reason, "a pod's deletion cost was not set");
        }
    }
}

/// The pods of a list, ascending by name.
fn pods(list: &Value) -> Vec<Pod> {
    let pod = |item: &Value| {
        let finished = matches!(item["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let conditions = item["status"]["conditions"].as_array();
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        let name = item["metadata"]["name"].as_str()?.to_string();
        (!finished).then_some(Pod { name, ready, ending: !item["metadata"]["deletionTimestamp"].is_null() })
    };
    let mut pods: Vec<Pod> = list["items"].as_array().map(|items| items.iter().filter_map(pod).collect()).unwrap_or_default();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// For a query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
