//! A real Docker engine, if the tests are told of one.

use crate::{now_ms, program};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The image of our own worker.
pub const IMAGE: &str = "tradewind-worker:test";

/// The engine's socket, or `None`, said aloud.
pub fn engine() -> Option<String> {
    let socket = std::env::var("TRADEWIND_DOCKER_SOCKET").ok();
    if socket.is_none() {
        assert!(std::env::var_os("TRADEWIND_CI").is_none(), "TRADEWIND_DOCKER_SOCKET must name a Docker engine");
        eprintln!("skipped: TRADEWIND_DOCKER_SOCKET names no Docker engine");
    }
    socket
}

/// Runs the docker command line; panics when it fails.
pub fn run(socket: &str, arguments: &[&str]) -> String {
    let output = command(socket).args(arguments).output().expect("the docker command line is installed");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command(socket: &str) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{socket}"));
    command
}

/// Makes [`IMAGE`] of our own worker and the libraries that it needs, once a process.
pub fn image(socket: &str) {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| make_image(socket).expect("an image of our own worker"));
}

fn make_image(socket: &str) -> io::Result<()> {
    let worker = program("tradewind-agent");
    let root = tempfile::tempdir()?;
    succeeded(Command::new("strip").arg("-o").arg(root.path().join("worker")).arg(&worker).status()?)?;
    let libraries = Command::new("ldd").arg(&worker).output()?.stdout;
    for library in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.path().join(library.trim_start_matches('/'));
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(library, to)?;
    }
    let mut tar = Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let files = tar.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    succeeded(command(socket).args(["import", "-", IMAGE]).stdin(files).stdout(Stdio::null()).status()?)?;
    succeeded(tar.wait()?)
}

fn succeeded(status: ExitStatus) -> io::Result<()> {
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

/// The containers of the agent with this directory, whatever state they are in: name and status a line.
pub fn census(dir: &Path, socket: &str) -> Vec<String> {
    run(socket, &["ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", &owner(dir)]).lines().map(String::from).collect()
}

/// What the engine has done since then to the containers of the agent in `dir`: an action and a container a line, in order.
pub fn log(dir: &Path, socket: &str, since_ms: i64) -> Vec<String> {
    let at = |ms: i64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    let (since, until) = (at(since_ms), at(now_ms()));
    let arguments = ["events", "--since", &since, "--until", &until, "--format", "{{.Action}} {{.Actor.ID}}", "--filter", &owner(dir)];
    run(socket, &arguments).lines().map(String::from).collect()
}

/// What tells the containers of the agent in `dir` from others.
fn owner(dir: &Path) -> String {
    let dir = dir.canonicalize().expect("the agent's directory");
    format!("label=io.tradewind.owner={}", dir.display())
}
