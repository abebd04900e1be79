//! The pools over real worker processes.

use crate::support::{PATIENCE, assert_no_leaks, our_worker, pid, pool, process, signal};
use rustix::process::Signal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::config::{PoolConfig, ReservationConfig};
use tradewind_agent::env::Env;
use tradewind_agent::events::EventLog;
use tradewind_agent::pool::{PoolHandle, Setup, Shutdown, Snapshot, Target};
use tradewind_agent::provider::Observed;
use tradewind_agent::provider::process::census;
use tradewind_agent::store::Store;
use tradewind_protocol::region::Mode;
use tradewind_protocol::{PoolName, RegionId, Step};

async fn start(data_dir: &Path, pools: Vec<PoolConfig>) -> PoolHandle {
    let env = Env::real(data_dir).unwrap();
    let store = Store::open(&env).await.unwrap();
    let events = EventLog::new(RegionId::new("here").unwrap(), env.clock.clone());
    let setup = Setup {
        pools,
        step: Step::new(Duration::from_secs(1)).unwrap(),
        mode: Mode::Active,
        store,
        events,
        reservations: ReservationConfig::default(),
    };
    PoolHandle::start(&env, setup).await.unwrap()
}

async fn apply(pools: &PoolHandle, active: u32, warm: u32) {
    let target = Target { pool: PoolName::new("edge").unwrap(), active, warm, spot: 0 };
    pools.apply(pools.validate(vec![target]).unwrap()).await.unwrap();
}

async fn until(pools: &PoolHandle, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut snapshots = pools.subscribe();
    let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(|snapshot| wanted(snapshot))).await;
    found.unwrap_or_else(|_| panic!("waited in vain until {what}: {:?} {:?}", pools.status(), pools.health_reasons())).unwrap().clone()
}

fn handles(snapshot: &Snapshot) -> Vec<String> {
    snapshot.instances.iter().map(|instance| instance.handle.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_live_through_restarts_deaths_and_scaling_and_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let config = || vec![pool("edge", process(our_worker(), &[("TRADEWIND_WORKER_STARTUP_MS", "100")]))];
    let pools = start(dir.path(), config()).await;
    apply(&pools, 3, 2).await;
    let before = until(&pools, "all are up", |s| (s.pools[0].instances.active, s.pools[0].instances.warm) == (3, 2)).await;
    assert!(before.pools[0].startup_ms >= 100);
    pools.shutdown(Shutdown::KeepInstances).await;
    drop(pools);
    assert_eq!(census(dir.path()).len(), 5);

    let pools = start(dir.path(), config()).await;
    let after = until(&pools, "they are back", |s| s.instances.len() == 5).await;
    assert_eq!(handles(&after), handles(&before));
    let victim = &after.instances[0];
    signal(pid(&Observed { id: victim.id.clone(), state: victim.state, handle: victim.handle.clone() }), Signal::KILL);
    until(&pools, "the dead one is noticed", |s| s.totals.lost == 1).await;
    apply(&pools, 3, 1).await;
    until(&pools, "it is made good", |s| (s.pools[0].instances.active, s.pools[0].instances.warm) == (3, 1)).await;
    apply(&pools, 1, 0).await;
    until(&pools, "there is one", |s| s.pools[0].instances.active == 1 && s.instances.len() == 1).await;
    pools.shutdown(Shutdown::DrainAll).await;
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_a_pool_that_is_no_longer_configured_are_drained() {
    let dir = tempfile::tempdir().unwrap();
    let pools = start(dir.path(), vec![pool("edge", process(our_worker(), &[]))]).await;
    apply(&pools, 2, 1).await;
    until(&pools, "all are up", |s| (s.pools[0].instances.active, s.pools[0].instances.warm) == (2, 1)).await;
    pools.shutdown(Shutdown::KeepInstances).await;
    drop(pools);

    let pools = start(dir.path(), vec![]).await;
    until(&pools, "they are gone", |s| s.totals.ended == 3 && s.instances.is_empty()).await;
    assert_no_leaks(dir.path());
    pools.shutdown(Shutdown::KeepInstances).await;
}
