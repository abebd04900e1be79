//! Whose a staged file is: beside each stands a small note that says that we made it, and from what.
//!
//! Invariant: a file without a note is somebody else's, and is neither overwritten nor removed.

use std::io;
use std::path::{Path, PathBuf};

/// What the names of notes and of unfinished files end with.
const NOTE: &str = ".tradewind-staged";
const PARTIAL: &str = ".tradewind-partial";

/// The largest note: a URL and what its server calls a version of it.
const MAX_NOTE_BYTES: u64 = 64 << 10;

/// A file that is staged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) file: PathBuf,
    /// Where it is while it is not whole.
    pub(super) partial: PathBuf,
    note: PathBuf,
}

/// Who made the file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    /// We did, or have begun to, from this.
    Us(String),
}

impl Claim {
    pub(super) fn of(file: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = file.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        Self { file: file.into(), partial: beside(PARTIAL), note: beside(NOTE) }
    }

    /// Who made what is there. Somebody else's file is an error.
    pub(super) fn owner(&self) -> Result<Owner, String> {
        let failed = |path: &Path, error: io::Error| format!("cannot read {}: {error}", path.display());
        match std::fs::metadata(&self.note) {
            Ok(found) if found.len() > MAX_NOTE_BYTES => Err(format!("{} is no note of ours: move it away", self.note.display())),
            Ok(_) => Ok(Owner::Us(std::fs::read_to_string(&self.note).map_err(|error| failed(&self.note, error))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.file.symlink_metadata() {
                Ok(_) => Err(format!("{} exists and was not staged by this agent: move it away, or stage elsewhere", self.file.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
                Err(error) => Err(failed(&self.file, error)),
            },
            Err(error) => Err(failed(&self.note, error)),
        }
    }

    /// Notes, before anything else of it is written, that the file is made by us from `from`.
    pub(super) fn take(&self, from: &str) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot write {}: {error}", self.note.display());
        if let Some(dir) = self.file.parent() {
            std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        std::fs::write(&self.note, from).map_err(failed)
    }

    /// The file is whole.
    pub(super) fn finish(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot write {}: {error}", self.file.display());
        std::fs::rename(&self.partial, &self.file).map_err(failed)?;
        let dir = self.file.parent().map_or(Ok(()), |dir| std::fs::File::open(dir).and_then(|dir| dir.sync_all()));
        dir.map_err(failed)
    }

    /// Removes all of it, if it is ours.
    pub(super) fn release(&self) -> Result<(), String> {
        // Somebody else's file is not there for us.
        let Ok(Owner::Us(_)) = self.owner() else { return Ok(()) };
        for path in [&self.partial, &self.file, &self.note] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(format!("cannot remove {}: {error}", path.display())),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_made_is_overwritten_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Claim::of(&dir.path().join("a/ours")), Claim::of(&dir.path().join("theirs")));
        std::fs::write(&theirs.file, "precious").unwrap();
        assert!(theirs.owner().unwrap_err().contains("move it away"));
        theirs.release().unwrap();
        assert_eq!(std::fs::read_to_string(&theirs.file).unwrap(), "precious");
        assert_eq!(ours.owner(), Ok(Owner::Nobody));
        ours.take("here").unwrap();
        std::fs::write(&ours.partial, "x").unwrap();
        ours.finish().unwrap();
        assert_eq!(ours.owner(), Ok(Owner::Us("here".into())));
        ours.release().unwrap();
        ours.release().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
    }
}
