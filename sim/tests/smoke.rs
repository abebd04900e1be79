//! The smoke scenario: all rules hold, and it did what it is there for.

use tradewind_sim::run::{Options, Report, run};
use tradewind_sim::scenario::{BUILT_IN, Scenario};
use tradewind_sim::trace::Detail;

fn smoke(seed: u64) -> Report {
    let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == "smoke").unwrap();
    run(&Scenario::parse(text).unwrap(), Options { seed, detail: Detail::Brief, sink: None }).unwrap()
}

#[test]
fn a_mesh_lives_through_a_crash_and_a_partition_without_breaking_a_rule() {
    let report = smoke(1);
    assert!(report.passed(), "{}", report.to_text());
    assert_eq!(report.settled.len(), 5, "start, crash, restart, partition, healing: {:?}", report.settled);
    assert!(report.acknowledged_batches > 300 && report.retries > 0 && report.repeated_after_restart > 0, "{}", report.to_text());
    assert!(report.series_compared >= 20, "every pair of regions: {}", report.series_compared);
}
