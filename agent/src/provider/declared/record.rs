//! What is remembered of a pool that is run by plans, from life to life of the agent.
//!
//! One small file a pool under `data_dir/declared`, written whole or not at all, before the backend is told.

use super::Want;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use tradewind_protocol::{InstanceId, PoolName};

/// Where the records are, under `data_dir`.
const DIR: &str = "declared";

/// The largest record: a hundred thousand instances' names.
const MAX_BYTES: u64 = 16 << 20;

/// A pool's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What made the backend, so that a pool that is no longer configured can still be ended.
    #[serde(default)]
    pub(crate) origin: serde_json::Value,
    /// The number of the last plan.
    pub(crate) serial: u64,
    /// The instances that are to be.
    pub(crate) instances: BTreeMap<InstanceId, Kept>,
    /// The instances that are to be gone, and may not be.
    #[serde(default)]
    pub(crate) ending: BTreeSet<InstanceId>,
}

/// One instance of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) want: Want,
    /// Whether a plan that names it was carried out.
    pub(crate) applied: bool,
}

pub(crate) fn path(data_dir: &Path, pool: &PoolName) -> PathBuf {
    data_dir.join(DIR).join(format!("{pool}.json"))
}

impl Record {
    /// The record at `path`, if there is one.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Record>> {
        let length = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?.len(),
        };
        if length > MAX_BYTES {
            return Err(io::Error::other(format!("{length} bytes are too many for a record")));
        }
        Ok(Some(serde_json::from_slice(&std::fs::read(path)?)?))
    }

    /// Replaces the record at `path`, durably.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().ok_or_else(|| io::Error::other("a record needs a directory"))?;
        std::fs::create_dir_all(dir)?;
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        File::open(dir)?.sync_all()
    }
}

/// The pools with a record under `data_dir`.
pub(crate) fn pools(data_dir: &Path) -> io::Result<BTreeSet<PoolName>> {
    let dir = data_dir.join(DIR);
    if !dir.exists() {
        return Ok(BTreeSet::new());
    }
    let mut pools = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
        pools.extend(name.and_then(|name| PoolName::new(name).ok()));
    }
    Ok(pools)
}
