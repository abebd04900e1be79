//! The two programs as typed in a shell, with good and bad input.

use serde_json::Value;
use std::process::{Command, Output, Stdio};
use tradewind_tests::{Cluster, Setup, eventually, program};

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_prints_every_mistake_at_once() {
    let cluster = Cluster::new();
    let good = cluster.configure("solo", &Setup::default());
    let checked = run("tradewind-agent", &["check", good.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("good; region solo, 0 pools, advisory mode"), "{}", text(&checked.stdout));

    let bad = good.with_file_name("bad.toml");
    let broken = std::fs::read_to_string(&good).unwrap().replace("horizon = 4", "horizon = 0").replace("step =", "stpe =");
    std::fs::write(&bad, broken).unwrap();
    let checked = run("tradewind-agent", &["check", bad.to_str().unwrap()]);
    assert!(!checked.status.success());
    let said = text(&checked.stderr);
    for expected in ["2 mistakes", "forecast.horizon = 0: must be a whole number between 1 and", "did you mean `step`?"] {
        assert_eq!(said.matches(expected).count(), 1, "{expected:?} once in {said}");
    }
    let missing = run("tradewind-agent", &["check", "/nowhere/at/all.toml"]);
    assert!(text(&missing.stderr).contains("cannot read the configuration /nowhere/at/all.toml"));
    assert!(text(&missing.stderr).contains("`check FILE`"), "{}", text(&missing.stderr));
}

#[test]
fn the_openapi_document_can_be_printed_without_an_agent() {
    let printed = run("tradewind-agent", &["openapi"]);
    let document: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
}

#[test]
fn whoever_stops_reading_is_no_error_and_a_full_disk_is_one() {
    let mut unread = Command::new(program("tradewind-agent")).arg("openapi").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(unread.stdout.take());
    let ended = unread.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", text(&ended.stderr));

    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let ended = Command::new(program("tradewind-agent")).arg("openapi").stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).starts_with("tradewind-agent: cannot write the output"), "{}", text(&ended.stderr));
}

#[test]
fn the_cli_reads_a_live_mesh() {
    let mut cluster = Cluster::new();
    cluster.start("east", &Setup::default().with_workers(1));
    cluster.start("west", &Setup { seeds: vec!["east".into()], ..Setup::default() });
    cluster.converged(&["east", "west"]);
    let east = cluster.member("east");
    eventually("a plan is made", || east.try_get::<Value>("/v1/plan"));
    eventually("a worker is there", || (!east.instances().is_empty()).then_some(()));
    let agent = east.runtime.api.as_str();
    for command in ["status", "regions", "pools", "instances", "forecasts", "plan", "events"] {
        for format in ["table", "json", "yaml"] {
            let done = run("tradewind", &["--agent", agent, command, "-o", format]);
            assert!(done.status.success(), "{command} -o {format}: {}", text(&done.stderr));
            if format == "json" {
                serde_json::from_slice::<Value>(&done.stdout).unwrap_or_else(|e| panic!("{command}: {e}"));
            }
        }
    }
    let regions = text(&run("tradewind", &["--agent", agent, "regions"]).stdout);
    assert!(regions.contains("east") && regions.contains("west"), "{regions}");
    let nowhere = run("tradewind", &["--agent", "http://127.0.0.1:9", "status"]);
    assert_eq!(nowhere.status.code(), Some(3), "{}", text(&nowhere.stderr));
}

#[test]
fn certificates_made_by_the_cli_make_a_mesh() {
    let mut cluster = Cluster::new();
    let pki = cluster.home("pki");
    let pki = pki.to_str().unwrap();
    for arguments in [
        vec!["tls", "ca", "--cluster", "test", "--out", pki],
        vec!["tls", "agent", "east", "--ca-dir", pki, "--out", pki],
        vec!["tls", "agent", "west", "--ca-dir", pki, "--out", pki],
    ] {
        let done = run("tradewind", &arguments);
        assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
    }
    for region in ["east", "west"] {
        let seeds = if region == "east" { vec![] } else { vec!["east".to_string()] };
        let config = cluster.configure(region, &Setup { seeds, ..Setup::default() });
        let own = std::fs::read_to_string(&config).unwrap();
        let made = own
            .replace(&format!("{}/ca.pem", cluster.marker()), &format!("{pki}/ca.pem"))
            .replace(&format!("{}/agent.pem", cluster.home(region).display()), &format!("{pki}/agent-{region}.pem"))
            .replace(&format!("{}/agent.key", cluster.home(region).display()), &format!("{pki}/agent-{region}-key.pem"));
        assert_ne!(own, made);
        std::fs::write(&config, made).unwrap();
        cluster.restart(region);
    }
    cluster.converged(&["east", "west"]);
}
