//! Figures, not verdicts: `cargo test --release -p tradewind-agent --lib measure -- --ignored --nocapture`.

use super::*;

const AGENTS: usize = 30;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute, and says how fast and how chatty a mesh of 30 is"]
async fn measure_a_mesh_of_30() {
    let pki = Pki::new("mesh");
    let names: Vec<String> = (0..AGENTS).map(|i| format!("r{i:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let started = Instant::now();
    let mut agents = Vec::<Agent>::new();
    for name in &names {
        let seeds = agents.first().map(Agent::addr).into_iter().collect();
        let setup = Setup { seeds, gossip_interval: Duration::from_secs(1), ..Setup::default() };
        agents.push(Agent::start_with(&pki, name, setup).await);
    }
    for agent in &agents {
        agent.until_live(&names).await;
    }
    println!("all see all alive {:?} after the first began to start", started.elapsed());
    for agent in &agents {
        agent.until_stats("connected to all", |stats| stats.links == AGENTS as u64 - 1).await;
    }
    println!("all connected to all {:?} after the first began to start", started.elapsed());

    let mut times = vec![];
    for round in 0..20 {
        let (publisher, text) = (&agents[round], format!("round {round}"));
        let started = Instant::now();
        publisher.publish(&text);
        for agent in &agents {
            agent.until_state(names[round], &text).await;
        }
        times.push(started.elapsed());
    }
    times.sort();
    println!("a change at all {AGENTS}: median {:?}, worst {:?}", times[10], times[19]);

    // Let the paths' packet sizes settle.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before: Vec<MeshStats> = agents.iter().map(|agent| agent.mesh.stats()).collect();
    let idle = Duration::from_secs(30);
    tokio::time::sleep(idle).await;
    let per_second = |pick: fn(&MeshStats) -> u64| {
        let sum: u64 = agents.iter().zip(&before).map(|(agent, before)| pick(&agent.mesh.stats()) - pick(before)).sum();
        sum / (AGENTS as u64 * idle.as_secs())
    };
    println!(
        "idle, per agent and second: {} bytes of gossip in {} datagrams and {} streams, {} bytes of UDP in {} packets",
        per_second(|s| s.datagram_bytes_sent + s.stream_bytes_sent),
        per_second(|s| s.datagrams_sent),
        per_second(|s| s.streams_sent),
        per_second(|s| s.udp_bytes_sent),
        per_second(|s| s.udp_packets_sent),
    );
    let stats = agents[7].mesh.stats();
    println!("one agent's counts: {}", serde_json::to_string(&stats).unwrap());
}
