//! The process provider with real processes.

use crate::support::{assert_no_leaks, id, open, our_worker, pid, process, shell, signal, until, until_empty, until_state};
use async_trait::async_trait;
use rustix::process::Signal;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tradewind_agent::provider::conformance::{self, Subject};
use tradewind_agent::provider::process::{ProcessProvider, census};
use tradewind_agent::provider::{EndCause, Observed, Provider};
use tradewind_protocol::api::InstanceState::{Active, Draining, Starting, Warm};

struct Real(Arc<ProcessProvider>);

#[async_trait]
impl Subject for Real {
    fn provider(&self) -> Arc<dyn Provider> {
        self.0.clone()
    }

    async fn kill(&self, instance: &Observed) {
        signal(pid(instance), Signal::KILL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&Real(open(dir.path(), process(our_worker(), &[])))).await.unwrap();
    assert_no_leaks(dir.path());
}

/// The least that the contract asks for, in a shell, with nothing but a client for unix sockets.
const SHELL_WORKER: &str = r#"
exec python3 -u -c '
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["TRADEWIND_CONTROL"])
state = "warm"
s.sendall(("hello %s %s\n" % (os.environ["TRADEWIND_INSTANCE"], state)).encode())
for line in s.makefile():
    order = line.strip()
    if order == "drain": sys.exit(0)
    state = {"activate": "active", "deactivate": "warm"}.get(order, state)
    s.sendall(("state %s\n" % state).encode())
'"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_with_a_worker_that_knows_only_the_contract() {
    if Command::new("python3").arg("-V").output().is_err() {
        eprintln!("skipped: no python3 on this machine");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&Real(open(dir.path(), process(shell(SHELL_WORKER), &[])))).await.unwrap();
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_adopted_with_their_states_by_the_next_provider() {
    let dir = tempfile::tempdir().unwrap();
    let slow_to_drain = process(our_worker(), &[("TRADEWIND_WORKER_DRAIN_MS", "3000")]);
    let provider = open(dir.path(), slow_to_drain.clone());
    let mut before = vec![];
    for (name, state) in [("a", Active), ("b", Warm), ("c", Draining)] {
        provider.start(&id(name)).await.unwrap();
        until_state(&*provider, name, Warm).await;
        match state {
            Active => provider.activate(&id(name)).await.unwrap(),
            Draining => provider.drain(&id(name)).await.unwrap(),
            Warm | Starting => {}
        }
        before.push(until_state(&*provider, name, state).await);
    }
    drop(provider);
    assert_eq!(census(dir.path()).len(), 3, "letting go ends nobody");

    let provider = open(dir.path(), slow_to_drain);
    assert_eq!(provider.list().await.unwrap(), before, "known at once, by the same pids");
    provider.activate(&id("b")).await.unwrap();
    provider.deactivate(&id("a")).await.unwrap();
    until(&*provider, "the draining one is gone", |all| all.len() == 2).await;
    for name in ["a", "b"] {
        provider.drain(&id(name)).await.unwrap();
    }
    until_empty(&*provider).await;
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ended_while_the_agent_was_away_is_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), process(our_worker(), &[]));
    provider.start(&id("a")).await.unwrap();
    let seen = until_state(&*provider, "a", Warm).await;
    drop(provider);
    signal(pid(&seen), Signal::KILL);
    rustix::process::waitpid(rustix::process::Pid::from_raw(pid(&seen) as i32), rustix::process::WaitOptions::empty()).unwrap();

    let provider = open(dir.path(), process(our_worker(), &[]));
    assert_eq!(provider.list().await.unwrap(), []);
    let ended = provider.take_ended();
    assert_eq!((ended[0].id.as_str(), ended[0].cause), ("a", EndCause::Unexpected));
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recycled_pid_is_neither_adopted_nor_killed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), process(our_worker(), &[])));
    // An innocent process that has, by chance, the pid that is on record.
    let mut innocent = Command::new("sleep").arg("600").spawn().unwrap();
    let record = format!(r#"{{"instance":"a","process":{{"pid":{},"started":"another life/1"}},"state":"active"}}"#, innocent.id());
    std::fs::write(dir.path().join("pools/edge/a.json"), record).unwrap();

    let provider = open(dir.path(), process(our_worker(), &[]));
    assert_eq!(provider.list().await.unwrap(), []);
    provider.stop(&id("a")).await.unwrap();
    drop(provider);
    assert!(innocent.try_wait().unwrap().is_none(), "it still runs");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    assert_no_leaks(dir.path());
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_start_and_record_is_found_by_the_mark() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), process(our_worker(), &[]));
    for name in ["noted", "unrecorded"] {
        provider.start(&id(name)).await.unwrap();
        until_state(&*provider, name, Warm).await;
    }
    let noted = until_state(&*provider, "noted", Warm).await;
    drop(provider);
    // As if the agent had died before it could write the pid, and as if a record had been lost.
    let pools = dir.path().join("pools/edge");
    std::fs::write(pools.join("noted.json"), r#"{"instance":"noted","process":null,"state":"starting"}"#).unwrap();
    std::fs::write(pools.join("never.json"), r#"{"instance":"never","process":null,"state":"starting"}"#).unwrap();
    std::fs::remove_file(pools.join("unrecorded.json")).unwrap();

    let provider = open(dir.path(), process(our_worker(), &[]));
    let adopted = until_state(&*provider, "noted", Warm).await;
    assert_eq!(adopted.handle, noted.handle);
    assert_eq!(provider.list().await.unwrap().len(), 1);
    until(&*provider, "only the adopted one runs", |_| census(dir.path()) == [pid(&noted)]).await;
    provider.drain(&id("noted")).await.unwrap();
    until_empty(&*provider).await;
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_leaves_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), process(vec!["/nonexistent/worker".into()], &[]));
    let error = provider.start(&id("a")).await.unwrap_err().to_string();
    assert!(
        error.contains("cannot start a") && error.contains("/nonexistent/worker") && error.contains("check the pool's command"),
        "{error}"
    );
    assert_eq!(provider.list().await.unwrap(), []);
    let error = provider.start(&id("../a")).await.unwrap_err().to_string();
    assert!(error.contains("letters"), "{error}");
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_exits_while_starting_is_reported_with_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), process(shell("echo no licence >&2; exit 7"), &[]));
    provider.start(&id("a")).await.unwrap();
    until_empty(&*provider).await;
    let ended = provider.take_ended();
    assert_eq!((ended[0].cause, ended[0].reason.as_str()), (EndCause::Unexpected, "exit code 7"));
    assert_eq!(std::fs::read_to_string(dir.path().join("pools/edge/workers.log")).unwrap(), "no licence\n");
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stubborn_workers_and_their_descendants_are_killed_after_the_drain_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let stubborn = process(shell("trap '' TERM; setsid sleep 600 & sleep 600 & wait; wait; wait"), &[]);
    let mut config = crate::support::pool("edge", stubborn.clone());
    config.drain_timeout = Duration::from_millis(200);
    let provider = ProcessProvider::open(dir.path(), &config, &stubborn).unwrap();
    provider.start(&id("a")).await.unwrap();
    provider.drain(&id("a")).await.unwrap();
    until_empty(&provider).await;
    assert_eq!(provider.take_ended()[0].reason, "it did not drain in time");
    assert_no_leaks(dir.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_an_agent_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let provider = open(dir.path(), process(our_worker(), &[("TRADEWIND_ORPHAN_TIMEOUT_MS", "300")]));
    provider.start(&id("a")).await.unwrap();
    let seen = until_state(&*provider, "a", Warm).await;
    drop(provider);
    // Completes only because the worker ends without being told to.
    let worker = rustix::process::Pid::from_raw(pid(&seen) as i32);
    let ended = tokio::task::spawn_blocking(move || rustix::process::waitpid(worker, rustix::process::WaitOptions::empty()));
    let (_, status) = tokio::time::timeout(crate::support::PATIENCE, ended).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
    drop(open(dir.path(), process(our_worker(), &[])));
    assert_no_leaks(dir.path());
}

/// Plays the agent in a process of its own: opens a provider, starts workers, and waits to be killed.
/// Not a test by itself: without the variable it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_an_agent_until_killed() {
    let Some(dir) = std::env::var_os("TRADEWIND_TEST_AGENT_DIR") else { return };
    let provider = open(dir.as_ref(), process(our_worker(), &[]));
    for name in ["a", "b", "c"] {
        provider.start(&id(name)).await.unwrap();
    }
    until(&*provider, "all are warm", |all| all.iter().all(|i| i.state == Warm)).await;
    provider.activate(&id("a")).await.unwrap();
    println!("agent is up");
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_an_agent_that_was_killed_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::play_an_agent_until_killed", "--nocapture"])
        .env("TRADEWIND_TEST_AGENT_DIR", dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(agent.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("agent is up") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0, "the agent ended early");
    }
    let before = census(dir.path());
    assert_eq!(before.len(), 3);
    agent.kill().unwrap();
    agent.wait().unwrap();

    let provider = open(dir.path(), process(our_worker(), &[]));
    let listed = provider.list().await.unwrap();
    assert_eq!(listed.iter().map(|i| i.state).collect::<Vec<_>>(), [Active, Warm, Warm]);
    let mut pids: Vec<u32> = listed.iter().map(pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, before);
    provider.activate(&id("b")).await.unwrap();
    provider.deactivate(&id("a")).await.unwrap();
    for instance in &listed {
        provider.drain(&instance.id).await.unwrap();
    }
    until_empty(&*provider).await;
    assert_no_leaks(dir.path());
}
