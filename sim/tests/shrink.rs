//! A run that breaks a rule is made smaller, part by part, and what is left still breaks it.

use std::path::Path;
use std::process::Command;
use tradewind_sim::case::{Case, shrink};
use tradewind_sim::oracle::Rule;
use tradewind_sim::report::Report;

/// The bound of detection is far below what detection takes: whoever crashes for good is seen live for too long. Nothing else in it matters.
const SCENARIO: &str = r#"
name = "shrinks"
about = "What cannot hold, and much beside it."
duration_s = 40
region = [{ name = "a" }, { name = "b" }, { name = "c" }]
workload = { kind = "synthetic", rate = 5.0, season_s = 20.0, every_s = 0.5 }
expect = { detect_s = 2 }
agent = { cluster = "x", step = "1s", mesh = { gossip_interval = "500ms" } }
fault = [
    { kind = "paths", at_s = 2, for_s = 2, loss = 0.1 },
    { kind = "clock", region = "a", at_s = 5, ahead_ms = 20 },
    { kind = "crash", region = "b", at_s = 8 },
    { kind = "paths", at_s = 12, for_s = 2, duplicate = 0.1 },
]
"#;

#[test]
fn faults_traffic_regions_and_time_are_left_out_in_turn_and_the_rest_replays() {
    let program = Path::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shrinks.toml");
    std::fs::write(&file, SCENARIO).unwrap();
    let mut told: Vec<String> = vec![];
    let whole = Case::of(file.to_str().unwrap(), 1).unwrap();
    let small = shrink(program, whole, directory.path(), |line| told.push(line.into())).unwrap();

    let place = |words: &str| told.iter().position(|line| line == words).unwrap_or_else(|| panic!("{words} in {told:#?}"));
    let order = [
        "holds: without 4 of 4 faults of the scenario",
        "still broken: without 2 of 4 faults of the scenario",
        "still broken: with 0.5 of the traffic",
        "still broken: without traffic",
        "still broken: without a",
        "holds: without b",
        "still broken: 13 s long",
    ];
    assert!(order.map(place).is_sorted(), "{told:#?}");
    let kept = directory.path().join("small.json");
    small.write(&kept).unwrap();
    let replayed = Command::new(program).args(["replay", "--json"]).arg(&kept).output().unwrap();
    let report: Report = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!((replayed.status.code(), report.agents), (Some(1), 2));
    assert!(report.violations.iter().all(|violation| violation.rule == Rule::Detects), "{}", report.to_text());
    assert_eq!((small.without_faults, small.silent, small.traffic_share), ([0, 1, 3].into(), true, None));
    assert_eq!(small.regions.iter().map(|region| region.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(small.broke, [Rule::Detects].into());
}
