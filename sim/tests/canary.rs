//! The canaries: bugs seeded into the agents, which every run of the checks has to catch. A simulator
//! that no longer notices them would pass anything, and so would scenarios that no longer reach what they are there for.

use crate::bugbase::cases;
use std::path::Path;
use std::process::Command;
use tradewind_agent::marks::{BUGS, CHOSEN_BY};
use tradewind_sim::case::Case;
use tradewind_sim::mutants::{Arguments, SCENARIOS, hunt, unreached};
use tradewind_sim::oracle::Rule;
use tradewind_sim::report::Report;

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

#[test]
fn each_case_of_the_bugbase_that_names_a_seeded_bug_catches_it() {
    let mut missed = vec![];
    for path in cases() {
        let case = Case::read(&path).unwrap();
        let Some(bug) = case.bug else { continue };
        assert!(BUGS.iter().any(|known| known.name == bug), "{}: there is no bug {bug}", path.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
        let output = command.args(["replay", "--json"]).arg(&path).env(CHOSEN_BY, &bug).output().unwrap();
        let report = serde_json::from_slice::<Report>(&output.stdout).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let caught = report.violations.iter().any(|violation| case.broke.contains(&violation.rule));
        if !caught {
            missed.push(format!("{bug}, by {}", path.display()));
        }
    }
    assert_eq!(missed, [""; 0]);
}
