//! The language of the tests with real processes: a [`Cluster`] of agents, started, killed and asked
//! over their public API like any other.
//!
//! A test reads as a story; the harness waits for things to come true (within a bound that a broken
//! program cannot meet and a slow machine can), never for time to pass. Whatever a test started ends
//! with it, also when it fails.

pub mod cluster;
pub mod docker;
pub mod http;
pub mod processes;

pub use cluster::{Cluster, Member, Setup};
pub use http::{Answer, get, get_text, post, send};

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take to come true. Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look.
const POLL: Duration = Duration::from_millis(50);

/// The time of the wall clock, milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}

/// Waits until `look` finds what the test wants to be true. Panics, saying `what`, when it does not.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?}, still not true: {what}");
        std::thread::sleep(POLL);
    }
}

/// A program of this workspace, built by the same `cargo test --workspace`.
pub fn program(name: &str) -> PathBuf {
    // The test binary is in target/<profile>/deps.
    let mut path = std::env::current_exe().expect("a test knows where it is");
    path.pop();
    path.pop();
    path.push(name);
    assert!(path.exists(), "{} is missing: run `cargo test --workspace`, which builds it", path.display());
    path
}
