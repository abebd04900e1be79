//! What is remembered of a pool that is run by plans, from life to life of the agent.
//!
//! One small file a pool and kind of backend, `data_dir/declared/KIND/POOL.json`, written whole or not at all, before the backend is
//! told. Versions that knew one provider a pool wrote `declared/POOL.json`; such a record is taken over as what its origin says.

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
    /// Who plans: see [`super::Plan::agent`].
    #[serde(default)]
    pub(crate) agent: String,
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

pub(crate) fn path(data_dir: &Path, kind: &str, pool: &PoolName) -> PathBuf {
    data_dir.join(DIR).join(kind).join(format!("{pool}.json"))
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

/// The kinds of backends that have records.
const KINDS: [&str; 3] = [crate::provider::exec::ORIGIN, crate::provider::webhook::ORIGIN, crate::provider::kubernetes::ORIGIN];

/// The pools with a record under `data_dir`, and of which kind, ascending.
pub(crate) fn all(data_dir: &Path) -> io::Result<BTreeSet<(PoolName, &'static str)>> {
    take_over(data_dir)?;
    let mut found = BTreeSet::new();
    for kind in KINDS {
        found.extend(pools(&data_dir.join(DIR).join(kind))?.into_iter().map(|pool| (pool, kind)));
    }
    Ok(found)
}

/// Brings records of former versions to where they are now looked for.
pub(crate) fn take_over(data_dir: &Path) -> io::Result<()> {
    let dir = data_dir.join(DIR);
    for pool in pools(&dir)? {
        let old = dir.join(format!("{pool}.json"));
        let Some(record) = Record::read(&old)? else { continue };
        let Some(kind) = KINDS.into_iter().find(|kind| record.origin.get(kind).is_some()) else { continue };
        let new = path(data_dir, kind, &pool);
        if new.exists() {
            // It was taken over, and has been written since.
            continue;
        }
        record.write(&new)?;
        std::fs::remove_file(&old)?;
    }
    Ok(())
}

/// The pools with a record in `dir`.
fn pools(dir: &Path) -> io::Result<BTreeSet<PoolName>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut pools = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".json"));
        pools.extend(name.and_then(|name| PoolName::new(name).ok()));
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_former_versions_are_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { origin: serde_json::json!({ "webhook": {} }), serial: 7, ..Record::default() };
        let pool = PoolName::new("edge").unwrap();
        let old = dir.path().join("declared/edge.json");
        record.write(&old).unwrap();
        for _ in 0..2 {
            assert_eq!(all(dir.path()).unwrap(), [(pool.clone(), "webhook")].into());
        }
        let new = path(dir.path(), "webhook", &pool);
        assert_eq!(Record::read(&new).unwrap().map(|record| record.serial), Some(7));
        assert!(!old.exists());
        // One that was left behind does not replace what was written since.
        Record { serial: 1, ..record }.write(&old).unwrap();
        take_over(dir.path()).unwrap();
        assert_eq!(Record::read(&new).unwrap().map(|record| record.serial), Some(7));
    }
}
