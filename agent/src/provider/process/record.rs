//! What is known about a worker process across the agent's lives: one small JSON file each.
//!
//! A record is durable *before* its process is started (the intent), and again with the process's
//! [`Identity`] after; it is removed when the process is known to be gone. So whatever moment the
//! agent is killed at, every process it started has a record, or is about to find none and end.

use super::os::Identity;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) instance: InstanceId,
    /// `None` from the intent until the process has been started.
    pub(super) process: Option<Identity>,
    /// What it said last.
    pub(super) state: InstanceState,
}

/// Whether a write must have reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// A power cut must not undo it.
    Durable,
    /// It must outlive the agent, not the machine, whose processes end with it anyway.
    Cached,
}

/// The largest record that is read; one is written with less than 500 bytes.
const MAX_RECORD_BYTES: u64 = 4096;

/// The name under which `id` is filed; `None` for an id that is not safe as a file name.
pub(super) fn file_name(id: &InstanceId) -> Option<String> {
    let text = id.as_str();
    let safe = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !text.starts_with('.');
    safe.then(|| format!("{text}.json"))
}

impl Record {
    fn path(&self, dir: &Path) -> io::Result<PathBuf> {
        let name = file_name(&self.instance)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the id must be letters, digits, '.', '_' or '-'"))?;
        Ok(dir.join(name))
    }

    /// Replaces the record's file in `dir` as a whole.
    pub(super) fn write(&self, dir: &Path, sync: Sync) -> io::Result<()> {
        let path = self.path(dir)?;
        let draft = path.with_extension("draft");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        if sync == Sync::Durable {
            file.sync_all()?;
        }
        fs::rename(&draft, &path)?;
        if sync == Sync::Durable {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Removes the record's file from `dir`. That may be undone by a power cut, which also ends the
    /// process: the next agent removes it again.
    pub(super) fn remove(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_file(self.path(dir)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All records in `dir`, ascending by id. A file that is not a record is left out and logged.
    pub(super) fn read_all(dir: &Path) -> io::Result<Vec<Record>> {
        let mut records = vec![];
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension().and_then(|e| e.to_str()) {
                // A power cut came before the rename: the process was not started, or its intent stands.
                Some("draft") => fs::remove_file(&path)?,
                Some("json") => match read(&path) {
                    Ok(record) => records.push(record),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "not a worker's record; remove it"),
                },
                Some(_) | None => {}
            }
        }
        records.sort_by(|a: &Record, b| a.instance.cmp(&b.instance));
        Ok(records)
    }
}

fn read(path: &Path) -> io::Result<Record> {
    if fs::metadata(path)?.len() > MAX_RECORD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {MAX_RECORD_BYTES} bytes")));
    }
    let record: Record = serde_json::from_slice(&fs::read(path)?)?;
    match file_name(&record.instance) {
        Some(name) if path.file_name().is_some_and(|file| file == name.as_str()) => Ok(record),
        Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "it is filed under another instance's name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record { instance: InstanceId::new(id).unwrap(), process: None, state: InstanceState::Starting }
    }

    #[test]
    fn records_are_found_again_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = record("b");
        known.write(dir.path(), Sync::Durable).unwrap();
        known.process = Some(Identity { pid: 7, started: "boot/1".into() });
        known.write(dir.path(), Sync::Cached).unwrap();
        record("a").write(dir.path(), Sync::Durable).unwrap();
        fs::write(dir.path().join("c.json"), "{").unwrap();
        fs::write(dir.path().join("d.json"), serde_json::to_vec(&record("e")).unwrap()).unwrap();
        fs::write(dir.path().join("f.draft"), "half").unwrap();
        assert_eq!(Record::read_all(dir.path()).unwrap(), [record("a"), known.clone()]);
        assert!(!dir.path().join("f.draft").exists());
        known.remove(dir.path()).unwrap();
        known.remove(dir.path()).unwrap();
        assert_eq!(Record::read_all(dir.path()).unwrap(), [record("a")]);
    }

    #[test]
    fn an_id_cannot_leave_the_directory() {
        for bad in ["../x", "a/b", ".hidden", "a\\b", "a:b"] {
            assert!(record(bad).write(Path::new("/nonexistent"), Sync::Cached).unwrap_err().to_string().contains("letters"), "{bad}");
        }
    }
}
