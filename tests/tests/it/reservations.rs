//! Regions that help each other out, as real processes.

use serde_json::json;
use std::collections::BTreeSet;
use tradewind_protocol::api::{InstanceState, Reservations};
use tradewind_protocol::reservation::{Phase, Tier};
use tradewind_tests::{Cluster, Member, Setup, eventually, program};

/// A pool of at most `max` workers that serve 100 a second each.
fn workers(max: u32, extra: &str) -> Setup {
    let worker = program("tradewind-agent");
    let tables = format!(
        "[[pool]]\nname = \"workers\"\nservice = \"game\"\nrate_per_instance = 100.0\nmin_instances = 1\nmax_instances = {max}\n\
         instance = {{ cpu_millis = 100 }}\nstartup = \"100ms\"\ndrain_timeout = \"5s\"\n\
         process = {{ command = [{worker:?}, \"worker\"], env = {{ TRADEWIND_WORKER_STARTUP_MS = \"50\" }} }}\n{extra}"
    );
    Setup { top: "mode = \"active\"\n".into(), tables, ..Setup::default() }
}

/// Records `count` transactions of east's own users, now.
fn record(east: &Member, count: u64) {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let records = json!([{ "source_region": "east", "destination_region": "east", "service": "game", "timestamp": at, "count": count }]);
    assert_eq!(east.post("/v1/records", &records.to_string()).status, 200);
}

fn active(member: &Member) -> usize {
    member.instances().iter().filter(|instance| instance.state == InstanceState::Active).count()
}

/// What west has confirmed to east, firmly: the ids.
fn lent(west: &Member) -> Option<BTreeSet<String>> {
    let all: Reservations = west.try_get("/v1/reservations")?;
    let firm = all.granted.into_iter().filter(|r| r.id.starts_with("east/") && r.phase == Phase::Confirmed && r.terms.tier == Tier::Firm);
    Some(firm.map(|r| r.id).collect())
}

fn claimed(east: &Member) -> usize {
    let all: Reservations = east.get("/v1/reservations");
    let firm = all.claimed.iter().filter(|c| c.owner.as_str() == "west" && c.phase == Some(Phase::Confirmed) && c.valid_for_ms > 0);
    firm.filter(|c| c.terms.tier == Tier::Firm).count()
}

#[test]
fn a_gap_in_one_region_is_covered_by_another_and_a_killed_owner_loses_no_grant() {
    let mut cluster = Cluster::new();
    // The owner knows where the other is, so that it finds back at another address.
    cluster.start("east", &workers(2, "[reservations]\nborrow = true\n"));
    cluster.start("west", &Setup { seeds: vec!["east".into()], ..workers(8, "") });
    cluster.converged(&["east", "west"]);

    // 100 in each step of 200 ms are 500 a second: five instances, where east may run two.
    let most = eventually("west runs what east lacks", || {
        record(cluster.member("east"), 100);
        Some(active(cluster.member("west"))).filter(|n| *n >= 4)
    });
    assert!(most <= 8, "never more than west has room for");
    eventually("both sides say so", || {
        record(cluster.member("east"), 100);
        (!lent(cluster.member("west"))?.is_empty() && claimed(cluster.member("east")) > 0).then_some(())
    });

    let before = lent(cluster.member("west")).unwrap();
    cluster.kill("west");
    cluster.restart("west");
    let after = lent(cluster.member("west")).unwrap();
    // Windows are two seconds; what was granted is there until a minute after, unless east gave it back.
    let released: BTreeSet<_> = before.difference(&after).collect();
    assert!(released.is_empty(), "lost: {released:?} of {before:?}; {}", cluster.log("west"));
    cluster.converged(&["east", "west"]);
    eventually("east is covered again", || {
        record(cluster.member("east"), 100);
        (claimed(cluster.member("east")) > 0 && active(cluster.member("west")) >= 4).then_some(())
    });
}
