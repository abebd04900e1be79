//! Agents that come, go, crash and come again.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tradewind_protocol::api::{ForecastView, IngestReceipt, InstanceState, InstanceView, ScaleOutcome};
use tradewind_tests::{Cluster, Member, Setup, eventually, get, now_ms, processes};

/// Records `count` transactions from `member` to `destination`, now.
fn record(member: &Member, destination: &str, count: u64) -> IngestReceipt {
    let records = json!([{
        "source_region": member.region, "destination_region": destination, "service": "game",
        "timestamp": now_ms(), "count": count,
    }]);
    let answer = member.post("/v1/records", &records.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn active(member: &Member) -> Vec<InstanceView> {
    member.instances().into_iter().filter(|i| i.state == InstanceState::Active).collect()
}

fn handles(instances: &[InstanceView]) -> BTreeSet<String> {
    instances.iter().map(|i| i.handle.clone()).collect()
}

fn three(setup: &Setup) -> Cluster {
    let mut cluster = Cluster::new();
    for region in ["east", "north", "west"] {
        let seeds = if region == "east" { vec![] } else { vec!["east".into()] };
        cluster.start(region, &Setup { seeds, ..setup.clone() });
    }
    cluster.converged(&["east", "north", "west"]);
    cluster
}

#[test]
fn a_killed_agent_keeps_its_records_and_adopts_its_workers() {
    let mut cluster = three(&Setup::default().with_workers(2));
    let before = eventually("two workers serve", || Some(active(cluster.member("west"))).filter(|a| a.len() == 2));
    assert_eq!(record(cluster.member("west"), "east", 41).accepted, 1);
    let generation = cluster.member("west").status().generation;

    cluster.kill("west");
    cluster.restart("west");

    let west = cluster.member("west");
    let after = eventually("two workers serve again", || Some(active(west)).filter(|a| a.len() == 2));
    assert_eq!(handles(&before), handles(&after), "the workers are the same processes");
    assert!(west.status().generation > generation);
    let forecasts = eventually("the series is known again", || {
        Some(west.get::<Vec<ForecastView>>("/v1/forecasts?from=west&to=east")).filter(|f| !f.is_empty())
    });
    let counted: f64 = forecasts[0].recent.iter().sum();
    assert_eq!(counted, 41.0, "what was acknowledged is still counted, once");
    // At another address, under a new generation, and still one member.
    cluster.converged(&["east", "north", "west"]);
    let regions: Vec<Value> = cluster.member("east").get("/v1/regions");
    assert_eq!(regions.len(), 3, "{regions:#?}");
}

#[test]
fn an_agent_that_is_told_to_stop_leaves_its_workers_or_ends_them_as_configured() {
    let mut cluster = Cluster::new();
    cluster.start("keeps", &Setup::default().with_workers(1));
    cluster.start("drains", &Setup { top: "on_shutdown = \"drain\"\n".into(), ..Setup::default() }.with_workers(1));
    let pids = |cluster: &Cluster, region: &str| processes::carrying(&cluster.home(region).join("pools").to_string_lossy());
    for region in ["keeps", "drains"] {
        eventually("one worker serves", || (active(cluster.member(region)).len() == 1).then_some(()));
        cluster.stop(region, if region == "keeps" { "TERM" } else { "INT" });
    }
    assert_eq!(pids(&cluster, "keeps").len(), 1);
    eventually("the drained worker is gone", || pids(&cluster, "drains").is_empty().then_some(()));
}

#[test]
fn a_region_that_dies_is_seen_dead_and_seen_again_when_it_returns() {
    let mut cluster = three(&Setup::default());
    cluster.kill("north");
    let live = |cluster: &Cluster, of: &str| -> usize { cluster.member(of).status().regions_live };
    eventually("north is seen dead", || (live(&cluster, "east") == 2 && live(&cluster, "west") == 2).then_some(()));
    cluster.restart("north");
    cluster.converged(&["east", "north", "west"]);
}

#[test]
fn demand_in_one_region_brings_capacity_in_another() {
    let cluster = three(&Setup::default().with_workers(1));
    let (west, east) = (cluster.member("west"), cluster.member("east"));
    // 100 a second and instance; 110 in each step of 200 ms are 550 a second: six instances.
    let ready = eventually("east has grown for what west sends", || {
        record(west, "east", 110);
        Some(active(east).len()).filter(|n| *n >= 6)
    });
    assert!(ready <= 8, "never more than max_instances");
    let plan: Value = east.get("/v1/plan");
    assert_eq!(plan["decisions"][0]["pool"], "workers");
    assert!(plan["decisions"][0]["reason"]["forecasts"].as_u64() >= Some(1), "{plan:#}");
    let forecasts: Vec<ForecastView> = east.get("/v1/forecasts?from=west&to=east");
    assert_eq!(forecasts.len(), 1, "east holds west's forecast");
}

#[test]
fn a_planning_round_can_be_asked_of_any_region_through_any_agent() {
    let cluster = three(&Setup::default().with_workers(1));
    let west = cluster.member("west");
    for region in ["west", "east"] {
        eventually("a plan can be made", || {
            let answer = west.post(&format!("/regions/{region}/predictiveScale?dry_run=true"), "");
            (answer.status == 200).then(|| {
                let outcome: ScaleOutcome = answer.json();
                assert!(outcome.dry_run);
                assert_eq!((outcome.planned_by.as_str(), outcome.plan.region.as_str()), (region, region));
                assert_eq!(outcome.plan.decisions.len(), 1);
            })
        });
    }
    assert_eq!(west.post("/regions/atlantis/predictiveScale", "").status, 404);
    assert_eq!(west.post("/regions/Not%20A%20Region/predictiveScale", "").status, 400);
    assert_eq!(west.post("/regions/east/predictiveScale?dryrun=1", "").status, 400);
}

#[test]
fn what_a_pool_has_seen_has_a_say_after_a_hundred_steps_and_outlives_the_agent() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup::default().with_workers(1));
    record(cluster.member("solo"), "solo", 20);
    let said = |cluster: &Cluster| {
        let plan: Option<Value> = cluster.member("solo").try_get("/v1/plan");
        plan?["decisions"][0]["reason"]["own_rate"].as_f64()
    };
    let begun = std::time::Instant::now();
    eventually("the pool's own demand has a say", || said(&cluster));
    let steps = begun.elapsed().as_millis() / 200;
    assert!(steps >= 95, "after {steps} steps");
    cluster.stop("solo", "TERM");
    cluster.restart("solo");
    let begun = std::time::Instant::now();
    record(cluster.member("solo"), "solo", 20);
    eventually("it has a say at once", || said(&cluster));
    assert!(begun.elapsed().as_millis() / 200 < 60, "it began anew");
}

#[test]
fn advice_changes_nothing() {
    let mut cluster = Cluster::new();
    let mut setup = Setup::default().with_workers(2);
    setup.top = "mode = \"advisory\"\n".into();
    cluster.start("solo", &setup);
    let plan: Value = eventually("a plan is made", || cluster.member("solo").try_get("/v1/plan"));
    assert_eq!(plan["decisions"][0]["active"], 2, "the plan wants two: {plan:#}");
    let answer = cluster.member("solo").post("/regions/solo/predictiveScale", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(cluster.member("solo").instances().len(), 0);
    assert!(get(&cluster.member("solo").url("/readyz")).is_some_and(|a| a.status == 200));
}
