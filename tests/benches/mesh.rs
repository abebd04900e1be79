//! How fast a change reaches everyone, and what an idle mesh costs.
//!
//! `cargo bench -p tradewind-tests --bench mesh`
//!
//! Thirty agents' meshes in one process, real QUIC on loopback. The floor under a change is one one-way
//! message to each of the others: the same bytes sent over plain UDP sockets by one thread and received by
//! another, in the same run.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tradewind_agent::config::{MeshConfig, TlsPaths};
use tradewind_agent::env::Env;
use tradewind_agent::events::EventLog;
use tradewind_agent::mesh::{self, MeshHandle, PeerService};
use tradewind_protocol::pki::{self, Subject};
use tradewind_protocol::region::{Dropped, Health, Mode};
use tradewind_protocol::wire::{Request, Response};
use tradewind_protocol::{RegionId, RegionState, Step, Timestamp};
use tradewind_tests::cluster::validity;

const AGENTS: usize = 30;
const CHANGES: usize = 50;
const IDLE: Duration = Duration::from_secs(20);
/// What QUIC can carry in a packet at its smallest MTU, and what the floor is cut into.
const PACKET: usize = 1200;

struct Deaf;

#[async_trait::async_trait]
impl PeerService for Deaf {
    async fn handle(&self, _: &RegionId, _: Request) -> Response {
        Response::NotHeld
    }
}

fn name(i: usize) -> RegionId {
    RegionId::new(&format!("region-{i:02}")).expect("a region")
}

async fn start(count: usize, interval: Duration) -> Vec<MeshHandle> {
    let ca = pki::issue_ca("bench", validity(), [1; 32]).expect("an authority");
    let mut handles: Vec<MeshHandle> = vec![];
    for i in 0..count {
        let region = name(i);
        let leaf = pki::issue_leaf(&ca, &Subject::Agent(region.clone(), vec![]), validity(), [i as u8 + 2; 32]).expect("a leaf");
        let directory = std::env::temp_dir().join(format!("tradewind-bench-{}-{i}", std::process::id()));
        let env = Env::real(&directory).expect("an environment");
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let tls = TlsPaths {
            ca: file("ca.pem", &ca.certificate_pem),
            certificate: file("agent.pem", &leaf.certificate_pem),
            key: file("agent.key", &leaf.key_pem),
        };
        let config = MeshConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: None,
            seeds: handles.first().map(|first| first.local_addr().to_string()).into_iter().collect(),
            tls,
            gossip_interval: interval,
            state_budget_bytes: 64 * 1024,
            wire_version: tradewind_protocol::wire::Version::NEWEST,
        };
        let events = EventLog::new(region.clone(), env.clock.clone());
        let handle = mesh::start(&env, region, "bench".into(), &config, 1, Arc::new(Deaf), events).await.expect("a mesh");
        let _ = std::fs::remove_dir_all(directory);
        handles.push(handle);
    }
    for (i, handle) in handles.iter().enumerate() {
        handle.publish(state(i, 0));
    }
    for handle in &handles {
        let mut view = handle.watch();
        view.wait_for(|view| view.regions.len() == count && view.regions.values().all(|r| r.live && r.state.is_some()))
            .await
            .expect("a view");
    }
    handles
}

/// A state whose content differs from change to change.
fn state(region: usize, change: usize) -> RegionState {
    RegionState {
        region: name(region),
        published_at: Timestamp::EPOCH.after(Duration::from_millis(change as u64)),
        version: format!("change {change}"),
        api: Some("http://127.0.0.1:7480".into()),
        coordinates: None,
        health: Health::Healthy,
        mode: Mode::Advisory,
        step: Step::new(Duration::from_secs(60)).expect("a step"),
        pools: vec![],
        forecasts: vec![],
        dropped: Dropped::default(),
        events: vec![],
    }
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The floor: `bytes` in packets to each of the others over plain UDP, until the last has arrived.
fn floor(bytes: usize) -> Duration {
    let receivers: Vec<UdpSocket> = (1..AGENTS).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
    let addresses: Vec<_> = receivers.iter().map(|r| r.local_addr().expect("an address")).collect();
    let packets = bytes.div_ceil(PACKET);
    let once = || {
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; PACKET];
                for receiver in &receivers {
                    for _ in 0..packets {
                        receiver.recv(&mut buffer).expect("a packet");
                    }
                }
            });
            let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            for address in &addresses {
                for _ in 0..packets {
                    sender.send_to(&[0; PACKET], address).expect("a packet");
                }
            }
        });
        started.elapsed()
    };
    median((0..CHANGES).map(|_| once()).collect()).0
}

async fn changes(handles: &[MeshHandle]) -> Vec<Duration> {
    let mut times = vec![];
    for change in 1..=CHANGES {
        let region = name(0);
        let wanted = format!("change {change}");
        let started = Instant::now();
        handles[0].publish(state(0, change));
        for handle in &handles[1..] {
            let mut view = handle.watch();
            let arrived = view.wait_for(|view| view.state(&region).is_some_and(|state| state.version == wanted));
            tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("the change arrives").expect("a view");
        }
        times.push(started.elapsed());
    }
    times
}

async fn idle(count: usize) {
    let handles = start(count, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sent = || handles.iter().map(|h| h.stats().udp_bytes_sent).sum::<u64>();
    let before = sent();
    tokio::time::sleep(IDLE).await;
    let rate = (sent() - before) as f64 / count as f64 / IDLE.as_secs_f64();
    println!("idle, {count:>2} agents, gossip every second: {rate:>7.0} bytes of UDP payload a second and agent");
    for handle in handles {
        handle.shutdown().await;
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let handles = start(AGENTS, Duration::from_secs(1)).await;
        let bytes = handles[1].view().regions.get(&name(0)).map_or(0, |entry| entry.body_bytes as usize) + 800;
        let floor = floor(bytes);
        let (half, worst) = median(changes(&handles).await);
        println!(
            "a change to all of {AGENTS} agents: median {half:.2?}, p99 {worst:.2?}; the floor, the same bytes over plain UDP: {floor:.2?}; ratio {:.1}",
            half.as_secs_f64() / floor.as_secs_f64()
        );
        for handle in handles {
            handle.shutdown().await;
        }
        for count in [5, 30] {
            idle(count).await;
        }
    });
}
