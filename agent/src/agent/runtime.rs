//! Where a running agent is reached, for whoever finds its data directory; and how it is told to
//! stop.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use tradewind_protocol::RegionId;

/// The file's name in the agent's data directory.
const FILE: &str = "agent.json";

/// Where a running agent is reached. Needed where ports were left to the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The agent's region.
    pub region: RegionId,
    /// Which life of the agent.
    pub generation: u64,
    /// Its process.
    pub pid: u32,
    /// Its QUIC address.
    pub mesh: String,
    /// Base URL of its API.
    pub api: String,
    /// The address of its external scaler, if it has one.
    #[serde(default)]
    pub keda: Option<String>,
}

impl Runtime {
    /// What the agent in `data_dir` last wrote, if it is there and whole.
    pub fn read(data_dir: &Path) -> Option<Runtime> {
        serde_json::from_slice(&std::fs::read(data_dir.join(FILE)).ok()?).ok()
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let partial = data_dir.join(format!("{FILE}.partial"));
        std::fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(partial, data_dir.join(FILE))
    }

    /// Removes the file at `data_dir`: the agent is reached nowhere any more.
    pub fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(data_dir.join(FILE));
    }
}

/// Completes at SIGINT (Ctrl-C) or SIGTERM. Fails where signals cannot be watched.
pub(crate) fn interrupted() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes when standard input ends, which it does when the process at its other end is gone.
pub(crate) async fn stdin_closed() {
    use tokio::io::AsyncReadExt as _;
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 256];
    while input.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}
