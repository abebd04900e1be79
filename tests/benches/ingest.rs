//! Records a second through HTTP, the agent on one core.
//!
//! `cargo bench -p tradewind-tests --bench ingest`
//!
//! A real agent process, held to processor 0 where `taskset` is there, takes batches of 1,000 records over
//! a few connections from this process; every batch is durable before it is answered. The baseline, in
//! the same run: how fast one core parses the same bytes into `serde_json::Value`, which a collector
//! that looks at its records at all has to do.

use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tradewind_tests::{Cluster, Setup};

const BATCH: usize = 1_000;
const CONNECTIONS: usize = 4;
const RUN: Duration = Duration::from_secs(10);

fn batch(now: i64, salt: u64) -> String {
    let record = |i: usize| {
        json!({
            "source_region": "solo", "destination_region": format!("region-{}", (i as u64 + salt) % 30), "service": "game",
            "transaction_type": if i.is_multiple_of(3) { "read" } else { "write" }, "timestamp": now - (i % 60) as i64 * 1000, "count": 1 + i % 7,
        })
    };
    Value::Array((0..BATCH).map(record).collect()).to_string()
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as i64
}

fn main() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup { top: "mode = \"advisory\"\n".into(), ..Setup::default() });
    let member = cluster.member("solo");
    let pinned = Command::new("taskset").args(["-a", "-p", "-c", "0", &member.runtime.pid.to_string()]).output();
    let pinned = pinned.is_ok_and(|done| done.status.success());
    let (url, body) = (member.url("/v1/records"), batch(now(), 0));

    let started = Instant::now();
    let mut parsed = 0;
    while started.elapsed() < Duration::from_secs(2) {
        let records: Value = serde_json::from_str(&body).expect("JSON");
        parsed += records.as_array().map_or(0, Vec::len);
    }
    let baseline = parsed as f64 / started.elapsed().as_secs_f64();

    let accepted = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (accepted, url) = (&accepted, &url);
            scope.spawn(move || {
                let client = tradewind_tests::http::Connection::new();
                let mut body = batch(now(), connection as u64);
                let mut renewed = Instant::now();
                while started.elapsed() < RUN {
                    if renewed.elapsed() > Duration::from_secs(5) {
                        (body, renewed) = (batch(now(), connection as u64), Instant::now());
                    }
                    let answer = client.send(url, &[("content-type", "application/json")], body.as_bytes());
                    match answer.status {
                        200 => accepted.fetch_add(BATCH as u64, Ordering::Relaxed),
                        429 => 0,
                        status => panic!("{status}: {}", answer.body),
                    };
                }
            });
        }
    });
    let rate = accepted.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let counted = member.status().records_accepted;
    assert_eq!(counted, accepted.load(Ordering::Relaxed), "what was acknowledged was counted");
    let held = if pinned { "agent held to one core" } else { "agent NOT held to one core: taskset is missing" };
    println!("ingest over HTTP, batches of {BATCH}, {CONNECTIONS} connections, {held}: {rate:.0} records/s");
    println!("baseline, serde_json::Value on one core: {baseline:.0} records/s; ratio {:.2}", rate / baseline);
}
