//! Carries steps out on this machine: copies, hooks and allocated files.

use super::engine::{Job, Turn};
use super::{copy, hook, storage};
use crate::config::StageAction;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tradewind_protocol::RegionId;

/// Where relative paths begin, under `data_dir`.
const DIR: &str = "staged";

/// What does and undoes steps. Every job is idempotent, and may come again after it was cut short.
#[async_trait]
pub trait Stager: Send + Sync + 'static {
    /// Does or undoes a step of `region`; how far it has come shows in `meter`. Connections are the mesh's, and never come here.
    async fn carry_out(&self, region: &RegionId, job: &Job, meter: &Meter) -> Result<(), String>;
}

/// How many bytes of how many are there.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
    /// 0 while it is not known.
    total: AtomicU64,
}

impl Meter {
    /// So many are there.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// So many are to be there.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Bytes that are there, and that are to be there where that is known.
    pub fn read(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed), (total > 0).then_some(total))
    }
}

/// The operating system's.
pub(crate) struct OsStager {
    dir: PathBuf,
}

impl OsStager {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join(DIR) }
    }
}

#[async_trait]
impl Stager for OsStager {
    async fn carry_out(&self, region: &RegionId, job: &Job, meter: &Meter) -> Result<(), String> {
        match (&job.step.action, job.turn) {
            (StageAction::Preload(preload), Turn::Do) => copy::fetch(preload, &self.dir.join(&preload.to), meter).await,
            (StageAction::Preload(preload), Turn::Undo) => copy::remove(&self.dir.join(&preload.to)).await,
            (StageAction::Storage(file), Turn::Do) => storage::allocate(self.dir.join(&file.file), file.bytes).await,
            (StageAction::Storage(file), Turn::Undo) => storage::free(self.dir.join(&file.file)).await,
            (StageAction::Hook(config), _) => hook::run(region, job, config).await,
            (StageAction::Webhook(config), _) => hook::post(region, job, config).await,
            (StageAction::Connect(_), _) => Ok(()),
        }
    }
}
