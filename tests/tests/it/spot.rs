//! A pool with a spot market, as real processes: what is bought there, what is taken, and how it is told.

use std::process::Command;
use tradewind_protocol::Market;
use tradewind_protocol::api::{AlternativeKind, InstanceState, InstanceView, PlanExplanation};
use tradewind_tests::{Cluster, Setup, eventually, get_text, program};

/// Recorded prices: of 46 markets one rose above 0.202 USD, in 115 hours of all of them.
const HISTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/data/spot_prices.csv");

/// At least four workers, of which four fifths may be spot.
fn spotted() -> Setup {
    let worker = program("tradewind-agent");
    let process = format!("process = {{ command = [{worker:?}, \"worker\"], env = {{ TRADEWIND_WORKER_STARTUP_MS = \"50\" }} }}\n");
    let tables = format!(
        "[[pool]]\nname = \"workers\"\nservice = \"game\"\nrate_per_instance = 100.0\nmin_instances = 4\nmax_instances = 8\n\
         instance = {{ cpu_millis = 100 }}\nstartup = \"100ms\"\ndrain_timeout = \"5s\"\ninstance_hour_usd = 0.1\n{process}\
         [pool.spot]\ninstance_hour_usd = 0.03\nbid_usd = 0.202\nhistory = {HISTORY:?}\n{process}"
    );
    Setup { top: "mode = \"active\"\n".into(), tables, ..Setup::default() }
}

/// On demand and spot, if all of them serve.
fn mix(instances: &[InstanceView]) -> Option<(usize, usize)> {
    let spot = instances.iter().filter(|instance| instance.market == Market::Spot).count();
    instances.iter().all(|instance| instance.state == InstanceState::Active).then_some((instances.len() - spot, spot))
}

#[test]
fn a_part_of_a_pool_is_bought_on_the_spot_market_and_replaced_when_it_is_taken() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &spotted());
    let solo = cluster.member("solo");
    let of_spot = || solo.instances().into_iter().filter(|instance| instance.market == Market::Spot);
    eventually("one is on demand and three are spot", || (mix(&solo.instances())? == (1, 3)).then_some(()));

    for spot in of_spot() {
        let pid = spot.handle.strip_prefix("pid ").unwrap().split_whitespace().next().unwrap().to_owned();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    }
    eventually("what was taken is replaced on demand", || (mix(&solo.instances())? == (4, 0)).then_some(()));
    assert!(get_text(&solo.url("/metrics")).contains("tradewind_spot_interruptions_total{pool=\"workers\"} 3"));

    let explained: PlanExplanation = eventually("a plan knows of it", || {
        let explained: PlanExplanation = solo.try_get("/v1/plan/explain")?;
        (explained.pools[0].costs.spot.as_ref()?.interruptions > 2.9).then_some(explained)
    });
    let pool = &explained.pools[0];
    let terms = pool.costs.spot.as_ref().unwrap();
    assert!(terms.crossings > 0.9 && terms.market_hours > 50.0, "what prices of the past tell counts: {terms:?}");
    let expected = (1.0 + terms.interruptions + terms.crossings) / (1.0 / 0.04 + terms.instance_hours + terms.market_hours);
    assert!((terms.interruptions_per_hour - expected).abs() < 1e-9 && terms.prior_per_hour == 0.04, "{terms:?}");
    for kind in [AlternativeKind::AllOnDemand, AlternativeKind::AllSpot] {
        let other = pool.alternatives.iter().find(|alternative| alternative.kind == kind).unwrap();
        assert!(other.rejected.is_some() || other.spot == Some(pool.decision.spot()), "{other:?}");
    }
    for (command, words) in
        [(&["plan"][..], "on demand and 3 spot"), (&["explain", "plan"], "all on demand"), (&["pools"], "process (spot)")]
    {
        let out = Command::new(program("tradewind")).args(["--agent", &solo.runtime.api]).args(command).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains(words), "{command:?}: {text} {}", String::from_utf8_lossy(&out.stderr));
    }
}
