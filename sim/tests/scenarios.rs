//! The built-in scenarios: all rules hold, and they did what they are there for.

use std::collections::BTreeSet;
use std::process::Command;
use tradewind_sim::oracle::Rule;
use tradewind_sim::report::Report;

/// Each in a process of its own, so that it is the run that the command line gives for the seed.
fn simulate(scenario: &str, seed: u64) -> Report {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let output = command.args(["run", scenario, "--json", "--seed", &seed.to_string()]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_mesh_lives_through_a_crash_and_a_partition_without_breaking_a_rule() {
    let report = simulate("smoke", 1);
    assert!(report.passed(), "{}", report.to_text());
    assert_eq!(report.settled.len(), 5, "start, crash, restart, partition, healing: {:?}", report.settled);
    assert!(report.acknowledged_batches > 300 && report.retries > 0 && report.repeated_after_restart > 0, "{}", report.to_text());
    assert!(report.series_compared >= 20, "every pair of regions: {}", report.series_compared);
}

#[test]
fn a_scenario_with_a_survey_does_not_claim_rules_that_nobody_judged() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("surveyed.toml");
    let text = "name = \"surveyed\"\nabout = \"x\"\nduration_s = 20\nregion = [{ name = \"a\" }, { name = \"b\" }]\n";
    for (survey, judged, words) in
        [("", 32, "all 32 rules held"), ("survey = { every_s = 1, lead_steps = 3 }\n", 15, "15 rules held; 17, about")]
    {
        std::fs::write(&scenario, format!("{text}{survey}")).unwrap();
        let report = simulate(scenario.to_str().unwrap(), 1);
        assert!(report.passed() && report.to_text().contains(words), "{}", report.to_text());
        assert_eq!(report.rules_judged, judged);
    }
}

#[test]
fn a_link_of_one_direction_and_a_bound_of_a_figure_are_seen_in_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("deaf.toml");
    // The fault of the path is over before anything could be told, and leaves it as deaf as before.
    let text = "name = \"deaf\"\nabout = \"x\"\nduration_s = 20\nregion = [{ name = \"a\" }, { name = \"b\" }]\n\
                fault = [{ kind = \"paths\", between = [\"a\", \"b\"], loss = 0.5, at_s = 0.1, for_s = 0.05 }]\n";
    // Without a bound, all but that of the figures.
    let all = Rule::ALL.len();
    for (rest, broken, judged) in [
        ("", vec![], all - 1),
        ("link = [{ between = [\"a\", \"b\"], one_way = true, loss = 1.0 }]\n", vec![Rule::Converges], all - 1),
        ("expect = { bytes_per_agent_second_at_most = 100000 }\n", vec![], all),
        ("expect = { bytes_per_agent_second_at_most = 1 }\n", vec![Rule::Figures], all),
    ] {
        std::fs::write(&scenario, format!("{text}{rest}")).unwrap();
        let report = simulate(scenario.to_str().unwrap(), 1);
        let rules: BTreeSet<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!((rules.into_iter().collect::<Vec<_>>(), report.rules_judged), (broken, judged), "{rest}: {}", report.to_text());
    }
}

#[test]
fn the_page_of_a_run_has_its_charts_and_needs_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (scenario, page) = (directory.path().join("page.toml"), directory.path().join("page.html"));
    let text = "name = \"page\"\nabout = \"Less < more\"\nduration_s = 20\nregion = [{ name = \"a\" }, { name = \"b\" }]\n\
                fault = [{ kind = \"restart\", region = \"b\", at_s = 9 }]\n";
    let mesh = ["Agents whose view is right", "Until every view was right, after each change", "Bytes that an agent sends"];
    let surveyed =
        ["Forecast error", "Load and what stood ready for it", "Regions short of capacity", "Steps short of capacity, by region"];
    for (survey, charts) in [("", mesh.to_vec()), ("survey = { every_s = 1, lead_steps = 3 }\n", [&mesh[..], &surveyed].concat())] {
        std::fs::write(&scenario, format!("{text}{survey}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
        let run = command.arg("run").arg(&scenario).arg("--html").arg(&page).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        let html = std::fs::read_to_string(&page).unwrap();
        let titles: Vec<&str> = html.split("<figcaption>").skip(1).filter_map(|rest| rest.split("</figcaption>").next()).collect();
        assert_eq!(titles, charts);
        assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (charts.len(), charts.len()));
        assert!(html.contains("<polyline class=\"line c\" points=\"") && html.contains("after each change"), "{html}");
        assert!(html.contains("Less &lt; more") && html.contains("rules held"), "{html}");
        for fetched in ["http:", "https:", "<script", "<link", "<img", "<iframe", "@import", "url(", " src=", " href="] {
            assert!(!html.contains(fetched), "{fetched} in {html}");
        }
    }
}

#[test]
fn a_page_or_a_trace_that_cannot_be_written_is_an_error() {
    let sim = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_tradewind-sim")).args(arguments).output().unwrap();
    let page = sim(&["run", "smoke", "--html", "/nowhere/at/all.html"]);
    assert_eq!((page.status.code(), page.stdout.len()), (Some(2), 0), "before the run");
    assert!(String::from_utf8_lossy(&page.stderr).contains("cannot write the page to /nowhere/at/all.html"));
    for arguments in [
        &["shrink", "smoke", "--seed", "1", "-o", "/nowhere/at/all.json"][..],
        &["sweep", "smoke", "--seeds", "1", "--save", "/dev/null/failed"],
    ] {
        let refused = sim(arguments);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "before the runs: {arguments:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("tradewind-sim: cannot "), "{arguments:?}");
    }
    if std::fs::exists("/dev/full").unwrap() {
        let trace = sim(&["run", "smoke", "--trace", "/dev/full"]);
        assert_eq!(trace.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&trace.stderr).contains("the trace could not be written whole"));
        assert!(String::from_utf8_lossy(&trace.stdout).contains("rules held"), "and the report is there");
    }
}

#[test]
fn a_mesh_is_upgraded_one_agent_at_a_time_without_breaking_a_rule() {
    let report = simulate("upgrade", 1);
    assert!(report.passed(), "{}", report.to_text());
    let crossings = |fault: &str| report.crossings.get(fault).map_or(0, |states| states.values().sum::<u64>());
    assert_eq!((crossings("upgrade"), crossings("downgrade")), (6, 1), "{:?}", report.crossings);
    assert!(report.lives_compared >= 10, "{}", report.to_text());
}

#[test]
fn what_is_spoken_follows_the_upgrades() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let run = command.args(["run", "upgrade", "--seed", "1", "--detail", "full", "--trace"]).arg(&trace).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let trace = std::fs::read_to_string(trace).unwrap();
    let connected = trace.lines().filter(|line| line.contains("mesh::link") && line.contains(" connected region="));
    let spoken: Vec<(f64, u8)> = connected
        .filter_map(|line| Some((line.split(' ').next()?.parse().ok()?, line.split("version=").nth(1)?.trim().parse().ok()?)))
        .collect();
    let between = |from: f64, until: f64| -> BTreeSet<u8> {
        spoken.iter().filter(|(at, _)| (from..until).contains(at)).map(|(_, version)| *version).collect()
    };
    assert_eq!(between(0.0, 21.5), [1].into(), "one that is upgraded alone speaks the older version with all");
    assert_eq!(between(21.5, 28.0), [1, 2].into(), "two speak the newer one with each other");
    assert_eq!(between(59.5, 80.0), [2].into(), "the last that is upgraded finds nobody of the older one");
}

#[test]
fn nothing_acknowledged_is_lost_when_power_fails_inside_writes() {
    let report = simulate("power", 1);
    assert!(report.passed(), "{}", report.to_text());
    assert!(report.repeated_after_restart >= 8 * 8 && report.retries > 10, "eight restarts with eight batches each: {}", report.to_text());
}

#[test]
fn regions_help_each_other_and_no_ledger_promises_too_much() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
    let run = command.args(["run", "negotiation", "--seed", "1", "--trace"]).arg(&trace).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let trace = std::fs::read_to_string(trace).unwrap();
    let times = |kind: &str| trace.lines().filter(|line| line.contains(kind)).count();
    let (agreed, answered) = (times("reserve.agreed"), times("reserve.answered"));
    assert!(agreed >= 5 && answered >= agreed, "{agreed} agreed, {answered} answered");
}

#[test]
fn what_is_staged_is_the_same_in_every_run_of_a_seed_and_outlives_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (scenario, trace) = (directory.path().join("staged.toml"), directory.path().join("trace"));
    let smoke = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/smoke.toml")).unwrap();
    let stage = "[[agent.service]]\nname = \"default\"\n[[agent.service.stage]]\nname = \"data\"\nstorage = { file = \"data\", bytes = 1 }\n\
                 [[agent.service.stage]]\nname = \"links\"\nconnect = { regions = [\"us-east\", \"sa-east\"] }\n";
    std::fs::write(&scenario, format!("{smoke}\n{stage}")).unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"));
        let run = command.arg("run").arg(&scenario).args(["--seed", "1", "--trace"]).arg(&trace).output().unwrap();
        assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        std::fs::read_to_string(&trace).unwrap()
    };
    let first = run();
    let times = |kind: &str| first.lines().filter(|line| line.contains(kind)).count();
    assert_eq!((times("staging.ready"), times("staging.withdrawn")), (5, 0), "once a region, not again after the crash");
    assert!(first == run(), "the same seed stages otherwise");
}
