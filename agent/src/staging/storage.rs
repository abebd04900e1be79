//! Files of a size whose blocks are allocated, so that the disk cannot be full when they are written.

use super::claim::{Claim, Owner};
use std::fs::OpenOptions;
use std::path::PathBuf;

/// Allocates `bytes` for `file`; what is there already stays.
pub(super) async fn allocate(file: PathBuf, bytes: u64) -> Result<(), String> {
    blocking(move || {
        let claim = Claim::of(&file);
        if claim.owner()? == Owner::Nobody {
            claim.take("storage")?;
        }
        let failed = |error: &dyn std::fmt::Display| format!("cannot allocate {bytes} bytes for {}: {error}", file.display());
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&file).map_err(|error| failed(&error))?;
        rustix::fs::fallocate(&opened, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(|error| match error {
            rustix::io::Errno::OPNOTSUPP => failed(&"its file system cannot allocate: put it on another one"),
            error => failed(&error),
        })?;
        opened.sync_all().map_err(|error| failed(&error))
    })
    .await
}

/// Removes what was allocated.
pub(super) async fn free(file: PathBuf) -> Result<(), String> {
    blocking(move || Claim::of(&file).release()).await
}

/// Does `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err("the agent is shutting down".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[tokio::test]
    async fn blocks_are_really_there_and_what_cannot_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below/scratch");
        for _ in 0..2 {
            allocate(file.clone(), 1 << 20).await.unwrap();
        }
        let found = std::fs::metadata(&file).unwrap();
        assert_eq!(found.len(), 1 << 20);
        assert!(found.blocks() * 512 >= 1 << 20, "{} blocks", found.blocks());
        free(file.clone()).await.unwrap();
        assert!(!file.exists());
        let refused = allocate(dir.path().join("huge"), i64::MAX as u64).await.unwrap_err();
        assert!(refused.contains("cannot allocate"), "{refused}");
    }
}
