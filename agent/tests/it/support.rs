//! What the tests share: pools, workers, and the proof that nothing was left behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::config::{PoolConfig, ProcessConfig, ProviderConfig};
use tradewind_agent::env::Env;
use tradewind_agent::provider::process::{ProcessProvider, census};
use tradewind_agent::provider::{Observed, Provider};
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{InstanceId, PoolName, Resources, ServiceName};

/// A guard against waiting for ever, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn our_worker() -> Vec<String> {
    vec![env!("CARGO_BIN_EXE_tradewind-agent").into(), "worker".into()]
}

pub(crate) fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).into()
}

pub(crate) fn process(command: Vec<String>, env: &[(&str, &str)]) -> ProcessConfig {
    ProcessConfig { command, env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect() }
}

pub(crate) fn pool(name: &str, process: ProcessConfig) -> PoolConfig {
    let instance = Resources { cpu_millis: 100, ..Resources::ZERO };
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
        drain_timeout: Duration::from_secs(20),
        instance_hour_price: MicroUsd(1_000),
        costs: Default::default(),
        policies: vec![],
        provider: ProviderConfig::Process(process),
        spot: None,
    }
}

pub(crate) fn open(data_dir: &Path, process: ProcessConfig) -> Arc<ProcessProvider> {
    let config = pool("edge", process.clone());
    Arc::new(ProcessProvider::open(data_dir, &config, &process).unwrap())
}

pub(crate) fn id(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

/// Waits until the instances are what `wanted` says.
pub(crate) async fn until(provider: &dyn Provider, what: &str, wanted: impl Fn(&[Observed]) -> bool) -> Vec<Observed> {
    let waited = async {
        loop {
            let listed = provider.list().await.unwrap();
            if wanted(&listed) {
                return listed;
            }
            provider.changed().await;
        }
    };
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(listed) => listed,
        Err(_) => panic!("waited in vain until {what}: {:?}", provider.list().await),
    }
}

pub(crate) async fn until_state(provider: &dyn Provider, name: &str, state: InstanceState) -> Observed {
    let listed =
        until(provider, &format!("{name} is {state:?}"), |all| all.iter().any(|i| i.id.as_str() == name && i.state == state)).await;
    listed.into_iter().find(|i| i.id.as_str() == name).unwrap()
}

pub(crate) async fn until_empty(provider: &dyn Provider) {
    until(provider, "no instances are left", <[Observed]>::is_empty).await;
}

pub(crate) fn pid(instance: &Observed) -> u32 {
    instance.handle.strip_prefix("pid ").unwrap().parse().unwrap()
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Nothing that was started under `data_dir` runs, has a record, or waits to be reaped.
pub(crate) fn assert_no_leaks(data_dir: &Path) {
    assert_eq!(census(data_dir), [0u32; 0], "processes are left");
    for pool in std::fs::read_dir(data_dir.join("pools")).unwrap() {
        for file in std::fs::read_dir(pool.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            assert!(path.extension().is_none_or(|e| e != "json" && e != "draft"), "{} is left", path.display());
        }
    }
}

/// Starts two instances of a pool that is run by plans, and has them ended by agents whose configuration knows them no more: first one
/// that runs the pool otherwise, then one without the pool.
pub(crate) async fn assert_retires(data_dir: &Path, config: ProviderConfig) {
    let env = Env::real(data_dir).unwrap();
    let kind = config.kind();
    let mut edge = pool("edge", process(our_worker(), &[]));
    edge.provider = config;
    let first = env.providers.open(&edge).unwrap();
    for name in ["a", "b"] {
        first.start(&id(name)).await.unwrap();
        until_state(&*first, name, InstanceState::Warm).await;
    }
    first.activate(&id("a")).await.unwrap();
    first.close().await;
    drop(first);

    edge.provider = ProviderConfig::Process(process(our_worker(), &[]));
    let otherwise = env.providers.open(&edge).unwrap();
    until(&*otherwise, "both are found", |all| all.len() == 2).await;
    assert!(otherwise.rank(&id("a")) > 0 && otherwise.links().iter().any(|link| link.kind == kind && link.instances == 2));
    otherwise.drain(&id("b")).await.unwrap();
    until(&*otherwise, "b is gone", |all| all.len() == 1).await;
    otherwise.close().await;
    drop(otherwise);

    let mut retired = env.providers.open_retired(&BTreeSet::new()).unwrap();
    let (name, retired) = retired.pop().expect("the pool is found");
    assert_eq!(name, edge.name);
    let record = data_dir.join("declared").join(kind).join("edge.json");
    assert!(record.exists());
    until_state(&*retired, "a", InstanceState::Active).await;
    retired.drain(&id("a")).await.unwrap();
    until_empty(&*retired).await;
    let forgotten = async {
        while record.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("with its last instance the pool is forgotten");
    retired.close().await;
    assert!(env.providers.open_retired(&BTreeSet::new()).unwrap().is_empty());
}
