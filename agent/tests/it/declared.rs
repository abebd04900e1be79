//! Providers that take plans: infrastructure as code by a real script, and a webhook by a real server.

use crate::support::{assert_no_leaks, assert_retires, id, our_worker, pool, process, until, until_empty, until_state};
use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use ring::hmac;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tradewind_agent::config::{ExecConfig, HookConfig, ProviderConfig};
use tradewind_agent::env::Env;
use tradewind_agent::provider::conformance::{self, Subject};
use tradewind_agent::provider::{EndCause, Observed, Provider, exec, webhook};
use tradewind_protocol::api::InstanceState;

/// A tool in the manner of Terraform: takes a plan, keeps a file an instance, tells what there is.
const TOOL: &str = r#"#!/bin/sh
set -e
here=$(dirname "$0")
mkdir -p "$here/instances"
case "$1" in
apply)
    [ ! -e "$here/broken" ] || { echo "quota exceeded in zone b" >&2; exit 1; }
    tee "$here/last-plan" | grep -o '"[^"{}]*":{"state":"[a-z]*"}' | sed 's/"\(.*\)":{"state":"\(.*\)"}/\1 \2/' > "$here/wanted" || true
    for file in "$here"/instances/*; do
        [ -e "$file" ] || continue
        grep -q "^$(basename "$file") \(warm\|active\)$" "$here/wanted" || rm "$file"
    done
    grep -v ' draining$' "$here/wanted" | while read -r name state; do echo "$state" > "$here/instances/$name"; done
    ;;
destroy)
    cat > /dev/null
    rm -f "$here"/instances/*
    touch "$here/destroyed"
    ;;
output)
    separator=
    printf '{"instances": {"value": ['
    for file in "$here"/instances/*; do
        [ -e "$file" ] || continue
        printf '%s{"id": "%s", "state": "%s", "address": "10.0.0.1"}' "$separator" "$(basename "$file")" "$(cat "$file")"
        separator=,
    done
    printf ']}}\n'
    ;;
esac
"#;

struct Tool {
    dir: PathBuf,
    provider: Arc<dyn Provider>,
}

fn exec_config(dir: &Path) -> ExecConfig {
    let tool = dir.join("tool");
    std::fs::write(&tool, TOOL).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let verb = |verb: &str| vec!["/bin/sh".to_string(), tool.display().to_string(), verb.to_string()];
    ExecConfig {
        plan: Some(vec!["/bin/cat".into()]),
        apply: verb("apply"),
        destroy: Some(verb("destroy")),
        output: verb("output"),
        variables_file: Some("tradewind.auto.tfvars.json".into()),
        directory: Some(dir.into()),
        env: vec![],
        timeout: Duration::from_secs(30),
        refresh: Duration::from_millis(200),
    }
}

fn open_exec(dir: &Path, config: &ExecConfig) -> Arc<dyn Provider> {
    Arc::new(exec::open(&dir.join("data"), &pool("edge", process(vec![], &[])), config).unwrap())
}

#[async_trait]
impl Subject for Tool {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }
    async fn kill(&self, instance: &Observed) {
        std::fs::remove_file(self.dir.join("instances").join(instance.id.as_str())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infrastructure_as_code_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let config = exec_config(dir.path());
    let subject = Tool { dir: dir.path().into(), provider: open_exec(dir.path(), &config) };
    conformance::check(&subject).await.unwrap();
    assert!(dir.path().join("destroyed").exists(), "a plan was empty, and destroy was not run");
    let variables = || -> Value { serde_json::from_slice(&std::fs::read(dir.path().join("tradewind.auto.tfvars.json")).unwrap()).unwrap() };
    let told = async {
        while variables()["instances"] != json!({}) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, told).await.unwrap();
    assert_eq!(variables()["pool"], "edge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_next_life_adopts_what_was_made_and_finds_orphans() {
    let dir = tempfile::tempdir().unwrap();
    let config = exec_config(dir.path());
    let first = open_exec(dir.path(), &config);
    for name in ["a", "b"] {
        first.start(&id(name)).await.unwrap();
        until_state(&*first, name, InstanceState::Warm).await;
    }
    first.activate(&id("a")).await.unwrap();
    first.close().await;
    assert!(first.start(&id("c")).await.is_err(), "a closed provider takes no orders");
    std::fs::write(dir.path().join("instances/orphan"), "warm").unwrap();

    let second = open_exec(dir.path(), &config);
    let found: Vec<(String, InstanceState)> =
        second.list().await.unwrap().into_iter().map(|seen| (seen.id.to_string(), seen.state)).collect();
    let expected = [("a", InstanceState::Active), ("b", InstanceState::Warm), ("orphan", InstanceState::Warm)];
    assert_eq!(found, expected.map(|(name, state)| (name.to_string(), state)));
    second.stop(&id("orphan")).await.unwrap();
    until(&*second, "the orphan is gone", |all| all.len() == 2).await;
    for name in ["a", "b"] {
        second.drain(&id(name)).await.unwrap();
    }
    until_empty(&*second).await;
    assert!(second.take_ended().iter().all(|ended| ended.cause == EndCause::Ordered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_fails_is_reported_and_left_alone_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open_exec(dir.path(), &exec_config(dir.path()));
    provider.list().await.unwrap();
    std::fs::write(dir.path().join("broken"), "").unwrap();
    let refused = provider.start(&id("a")).await.unwrap_err().to_string();
    assert!(refused.contains("quota exceeded in zone b"), "{refused}");
    assert!(provider.list().await.unwrap().is_empty(), "a failed start leaves nothing behind");
    let again = provider.start(&id("b")).await.unwrap_err().to_string();
    assert!(again.contains("quota exceeded in zone b"), "{again}");
    std::fs::remove_file(dir.path().join("broken")).unwrap();
    let mended = async {
        while provider.start(&id("c")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, mended).await.unwrap();
    until_state(&*provider, "c", InstanceState::Warm).await;
    assert_eq!(provider.list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_a_tool_that_is_no_longer_configured_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    assert_retires(dir.path(), ProviderConfig::Exec(exec_config(dir.path()))).await;
    assert!(dir.path().join("destroyed").exists(), "the tool was told to take everything down");
}

const SECRET: &str = "a secret of the two of us";

/// What the operator's program is, to us.
#[derive(Default)]
struct Service {
    instances: BTreeMap<String, String>,
    /// Answers for the next requests in place of the real one.
    refusals: VecDeque<StatusCode>,
    keys: Vec<(String, u64)>,
    unsigned: usize,
}

type Shared = Arc<Mutex<Service>>;

async fn serve(shared: Shared, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let mut service = shared.lock().unwrap();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string();
    let signed = [text("tradewind-timestamp").as_bytes(), b".", &body].concat();
    let signature = text("tradewind-signature");
    let tag: Vec<u8> = (3..signature.len()).step_by(2).filter_map(|at| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok()).collect();
    if hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &signed, &tag).is_err() {
        service.unsigned += 1;
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let document: Value = serde_json::from_slice(&body).unwrap();
    if document["action"] == "apply" {
        assert!(document["agent"].as_str().is_some_and(|agent| text("idempotency-key").starts_with(&format!("{agent}-edge-"))));
        service.keys.push((text("idempotency-key"), document["serial"].as_u64().unwrap()));
    }
    if let Some(status) = service.refusals.pop_front() {
        return (status, [("retry-after", "0")], "not now").into_response();
    }
    if document["action"] == "apply" {
        let wanted = document["instances"].as_object().unwrap();
        let stays = |(id, want): (&String, &Value)| Some((id.clone(), want["state"].as_str().filter(|s| *s != "draining")?.to_string()));
        service.instances = wanted.iter().filter_map(stays).collect();
    }
    let instances: Vec<Value> = service.instances.iter().map(|(id, state)| json!({ "id": id, "state": state })).collect();
    axum::Json(json!({ "instances": instances })).into_response()
}

struct Hooked {
    service: Shared,
    provider: Arc<dyn Provider>,
    dir: tempfile::TempDir,
    config: HookConfig,
}

async fn hooked() -> Hooked {
    let service = Shared::default();
    let shared = service.clone();
    let router = axum::Router::new().route("/plan", axum::routing::post(move |headers, body| serve(shared.clone(), headers, body)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/plan", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    let config = HookConfig { url, secret_file, ca: None, timeout: Duration::from_secs(30), refresh: Duration::from_millis(100) };
    let provider = webhook::open(dir.path(), &pool("edge", process(vec![], &[])), &config).unwrap();
    Hooked { service, provider: Arc::new(provider), dir, config }
}

#[async_trait]
impl Subject for Hooked {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }
    async fn kill(&self, instance: &Observed) {
        self.service.lock().unwrap().instances.remove(instance.id.as_str()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_conforms_and_every_request_is_signed() {
    let hooked = hooked().await;
    conformance::check(&hooked).await.unwrap();
    let service = hooked.service.lock().unwrap();
    assert_eq!(service.unsigned, 0);
    assert!(service.keys.len() > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_retried_under_one_key_and_its_refusal_is_reported() {
    let hooked = hooked().await;
    hooked.provider.list().await.unwrap();
    // Reads go on all the time and may take some of these; three for whoever comes.
    hooked.service.lock().unwrap().refusals.extend([StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS]);
    hooked.provider.start(&id("a")).await.unwrap();
    {
        let service = hooked.service.lock().unwrap();
        let by_serial: BTreeMap<u64, &String> = service.keys.iter().map(|(key, serial)| (*serial, key)).collect();
        assert!(service.keys.iter().all(|(key, serial)| by_serial[serial] == key), "one plan has one key: {:?}", service.keys);
        let keys: std::collections::BTreeSet<&String> = service.keys.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), by_serial.len(), "another plan has another key: {:?}", service.keys);
    }
    until_state(&*hooked.provider, "a", InstanceState::Warm).await;
    // Whatever is asked is refused: no read can take the refusal away from the order.
    hooked.service.lock().unwrap().refusals.extend([StatusCode::FORBIDDEN; 64]);
    let refused = hooked.provider.start(&id("b")).await.unwrap_err().to_string();
    assert!(refused.contains("403") && refused.contains("not now"), "{refused}");
    hooked.service.lock().unwrap().refusals.clear();
    let mended = async {
        while hooked.provider.list().await.is_err() {
            hooked.provider.changed().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, mended).await.unwrap();
    assert_eq!(hooked.provider.list().await.unwrap().len(), 1, "a failed start leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_a_webhook_that_is_no_longer_configured_are_ended() {
    let hooked = hooked().await;
    hooked.provider.close().await;
    assert_retires(hooked.dir.path(), ProviderConfig::Webhook(hooked.config.clone())).await;
    assert!(hooked.service.lock().unwrap().instances.is_empty());
}

/// Starts go to worker processes while the tool has no quota, and to the tool again when it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_fails_is_stood_in_for_by_workers_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real(dir.path()).unwrap();
    let workers = ProviderConfig::Process(process(our_worker(), &[]));
    let mut edge = pool("edge", process(our_worker(), &[]));
    edge.provider = ProviderConfig::Chain(vec![ProviderConfig::Exec(exec_config(dir.path())), workers]);
    let chain = env.providers.open(&edge).unwrap();
    std::fs::write(dir.path().join("broken"), "").unwrap();
    chain.start(&id("a")).await.unwrap();
    let a = until_state(&*chain, "a", InstanceState::Warm).await;
    assert!(a.handle.starts_with("pid "), "{a:?}");
    let failing: Vec<Option<String>> = chain.links().into_iter().map(|link| link.failing).collect();
    assert!(failing[0].as_ref().is_some_and(|reason| reason.contains("quota exceeded in zone b")) && failing[1].is_none(), "{failing:?}");
    chain.activate(&id("a")).await.unwrap();
    chain.close().await;
    drop(chain);

    // The next life finds it, and the tool is mended.
    std::fs::remove_file(dir.path().join("broken")).unwrap();
    let chain = env.providers.open(&edge).unwrap();
    until_state(&*chain, "a", InstanceState::Active).await;
    chain.start(&id("b")).await.unwrap();
    until_state(&*chain, "b", InstanceState::Warm).await;
    assert!(dir.path().join("instances/b").exists());
    assert!(chain.rank(&id("a")) > chain.rank(&id("b")), "the stand-in goes first");
    for name in ["a", "b"] {
        chain.drain(&id(name)).await.unwrap();
    }
    until_empty(&*chain).await;
    chain.close().await;
    drop(chain);
    assert_no_leaks(dir.path());
}
