//! The canaries: bugs seeded into the agents, which every run of the checks has to catch. A simulator
//! that no longer notices them would pass anything, and so would scenarios that no longer reach what they are there for.

use std::path::Path;
use tradewind_sim::mutants::{Arguments, SCENARIOS, hunt, unreached};
use tradewind_sim::oracle::Rule;

#[test]
fn canaries_are_caught_and_the_agents_as_they_are_pass() {
    let program = Path::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let only: Vec<String> = ["batch-keys-not-read", "new-life-ignored"].map(String::from).into();
    let arguments = Arguments {
        scenarios: vec!["gauntlet".into()],
        seeds: 1,
        seed_base: 1,
        all_seeds: false,
        jobs: 2,
        only: only.clone(),
        json: false,
        require_marks: false,
    };
    let outcome = hunt(program, &arguments).unwrap();
    assert!(outcome.control.caught.is_empty(), "{}", outcome.to_text());
    assert_eq!(outcome.survivors, [""; 0], "{}", outcome.to_text());
    let rules: Vec<bool> =
        outcome.hunts.iter().zip([Rule::Durable, Rule::Converges]).map(|(hunt, rule)| hunt.rules.contains_key(&rule)).collect();
    assert_eq!(rules, [true, true], "{}", outcome.to_text());
}

#[test]
fn every_mark_is_reached_by_the_scenarios_that_are_there_for_it() {
    let program = Path::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let scenarios: Vec<String> = SCENARIOS.split(',').map(String::from).collect();
    assert_eq!(unreached(program, &scenarios, 1).unwrap(), [""; 0]);
}
