//! What was counted, durable before it is acknowledged.
//!
//! One actor ([`History::run`]) owns the counts; everyone else holds a [`HistoryHandle`]. A batch is
//! judged against what is known (`group`), written (`tables`) and only then counted in memory
//! (`rollups`, `ring`) and acknowledged. All batches that came while one commit ran go into the
//! next, so that an fsync is shared by everyone who waits for one.
//!
//! Memory holds the newest steps of every series (`levels::SLACK` and two columns at the most); what is older is sealed, rolled
//! up to five minutes and hours on the way, in columns of the file (`levels`, `column`), and read from there when somebody asks.
//!
//! Invariants: what was acknowledged survives the loss of power, counted once; what was not is
//! there whole or not at all; memory and columns together hold what was
//! counted, no count in both. After a failed commit history
//! refuses every batch and keeps answering questions: nobody writes over a failed fsync.

mod actor;
mod column;
#[cfg(test)]
mod disk;
mod group;
mod levels;
mod names;
mod places;
mod ring;
mod rollups;
mod seen;
mod tables;
#[cfg(test)]
mod tests;

pub use actor::History;
pub use levels::Resolution;
pub use rollups::Closed;

use crate::config::IngestConfig;
use crate::env::Env;
use crate::ingest::Batch;
use crate::store::{Store, StoreError};
use actor::{Append, Command, RolledQuestion};
use levels::Level;
use redb::ReadableDatabase as _;
use rollups::{Page, Part, Which};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tradewind_protocol::api::{FoldedTenant, IngestReceipt};
use tradewind_protocol::{IdempotencyKey, RegionId, SeriesKey, Step, StepIndex};

/// How many requests wait for the actor before their senders do: the actor takes them all at every
/// turn, so this only has to cover one turn.
const COMMANDS: usize = 256;

/// How long a sender is told to wait when too much is pending: several commits long even on a slow
/// disk, and the shortest that HTTP's `Retry-After` can say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why history cannot be opened. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file counts steps of another length.
    #[error(
        "the history in data_dir counts steps of {found} ms, the configuration says {wanted} ms: \
         set the step back, or move tradewind.redb away to begin anew"
    )]
    OtherStep {
        /// The file's, in milliseconds.
        found: String,
        /// The configuration's, in milliseconds.
        wanted: String,
    },
    /// The file is another region's.
    #[error("the history in data_dir is that of region {found}, the configuration says {wanted}: give each region its own data_dir")]
    OtherRegion {
        /// The file's.
        found: String,
        /// The configuration's.
        wanted: RegionId,
    },
    /// The file is another software's.
    #[error("the history in data_dir has format {found}, this software reads format 2: use the software that wrote it")]
    OtherFormat {
        /// The file's.
        found: String,
    },
    /// The database failed.
    #[error("cannot read the history")]
    Store(#[from] StoreError),
}

/// Why a batch was not counted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too much is pending. Nothing was counted; the same batch succeeds later.
    #[error("too many records wait to be made durable: try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// More records than may ever be pending. Nothing was counted; never succeeds.
    #[error("a batch of {records} records is more than the {limit} that may be pending: send fewer, or raise ingest.max_pending_records")]
    TooLarge {
        /// How many came.
        records: usize,
        /// How many may.
        limit: usize,
    },
    /// The disk failed, now or earlier. Whether the batch was counted shows after a restart; with
    /// the same key it can be sent again then.
    #[error(
        "the records could not be made durable: see the agent's log, mend what it names, restart the agent, and send them again with the same key"
    )]
    Storage(#[source] StoreError),
    /// The agent is shutting down. Whether the batch was counted is unknown, as above.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// History has ended, because the agent is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is shutting down")]
pub struct Stopped;

/// Figures of this life of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryStats {
    /// Series that are counted.
    pub series: usize,
    /// Records counted.
    pub accepted: u64,
    /// Records refused one by one.
    pub refused: u64,
    /// Records whose id had been counted before.
    pub duplicates: u64,
    /// Batches whose key had been counted before.
    pub replayed: u64,
    /// Requests turned away because too much was pending.
    pub busy: u64,
    /// Records that were counted in an `other` series, since their tenant has too many.
    pub folded: u64,
    /// What waits to be made durable, in records.
    pub pending: usize,
    /// Commits that wrote something.
    pub commits: u64,
    /// Whether a commit failed: history counts nothing more in this life.
    pub failed: bool,
}

/// Opens history in `store` and reads all of it. Nothing happens until [`History::run`] runs.
pub async fn open(
    env: &Env,
    store: &Store,
    step: Step,
    region: &RegionId,
    config: &IngestConfig,
) -> Result<(HistoryHandle, History), HistoryError> {
    let limits = group::Limits::new(step, config);
    let region = region.clone();
    let state = store.run("reading the history", move |database| tables::load(database, step, &region, limits)).await??;
    let shared = Arc::new(Shared { limit: config.max_pending_records, ..Shared::default() });
    shared.series.store(state.rollups.len(), Ordering::Relaxed);
    let (sender, receiver) = mpsc::channel(COMMANDS);
    let history = History::new(state, store.clone(), env.clock.clone(), receiver, shared.clone());
    let steps = limits.levels.get(Resolution::Step).unwrap_or(Level { resolution: Resolution::Step, factor: 1, kept_steps: 0 });
    Ok((HistoryHandle { sender, shared, store: store.clone(), steps }, history))
}

/// Asks history. Clones ask the same one; when the last is gone, history finishes and ends.
#[derive(Clone)]
pub struct HistoryHandle {
    sender: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    store: Store,
    /// The steps themselves.
    steps: Level,
}

/// Counts of a series in buckets. See [`HistoryHandle::rolled`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rolled {
    /// Steps of a bucket.
    pub factor: i64,
    /// The first bucket: it begins with step `first * factor`.
    pub first: i64,
    /// The counts, oldest first.
    pub counts: Vec<f64>,
}

impl HistoryHandle {
    /// Counts `batch` once, however often it comes with the same `key`; returns when that is
    /// durable. A caller that stops waiting does not take the batch back.
    pub async fn append(&self, batch: Batch, key: Option<IdempotencyKey>) -> Result<IngestReceipt, AppendError> {
        if batch.records() == 0 && key.is_none() {
            self.shared.refused.fetch_add(batch.refused, Ordering::Relaxed);
            return Ok(batch.receipt(0, 0));
        }
        let reservation = self.shared.reserve(&batch)?;
        let (reply, answer) = oneshot::channel();
        let append = Append { batch, key, reply, reservation };
        self.sender.send(Command::Append(Box::new(append))).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)?
    }

    /// The counts of `step`, which is over. Records that come for it later are counted too, and
    /// reported by the next close.
    pub async fn close(&self, step: StepIndex) -> Result<Closed, Stopped> {
        self.close_some(step, Which::Awake).await
    }

    /// The same without *cold* series: those that have counted nothing in the `quiet` steps before `step`. They cost nothing here;
    /// the first count makes them warm again, and [`Closed::woken`] tells of it.
    pub async fn close_warm(&self, step: StepIndex, quiet: usize) -> Result<Closed, Stopped> {
        self.close_some(step, Which::Warm(i64::try_from(quiet).unwrap_or(i64::MAX))).await
    }

    async fn close_some(&self, step: StepIndex, which: Which) -> Result<Closed, Stopped> {
        let part = self.ask(|reply| Command::Close { step, which, reply }).await?;
        let mut closed = part.closed;
        let wanted = part.cold.iter().map(|(_, id)| Part { id: *id, cold: (step, step.offset(1)), hot: vec![] }).collect();
        for ((place, _), count) in part.cold.iter().zip(self.with_sealed(wanted).await) {
            closed.counts[*place].1 = count.last().copied().unwrap_or(0.0);
        }
        Ok(closed)
    }

    /// The counts of the `steps` steps that end with `until`, oldest first. Begins later if the
    /// series does, and is empty if the series is not known.
    pub async fn window(&self, key: &SeriesKey, until: StepIndex, steps: usize) -> Result<Vec<f64>, Stopped> {
        self.some_window(key, Some(until), steps).await
    }

    /// The [`window`](Self::window) that ends with the last step closed in this life, empty before
    /// the first close.
    pub async fn recent(&self, key: &SeriesKey, steps: usize) -> Result<Vec<f64>, Stopped> {
        self.some_window(key, None, steps).await
    }

    async fn some_window(&self, key: &SeriesKey, until: Option<StepIndex>, steps: usize) -> Result<Vec<f64>, Stopped> {
        let key = key.clone();
        let part = self.ask(|reply| Command::Window { key, until, steps, reply }).await?;
        Ok(self.with_sealed(part.into_iter().collect()).await.pop().unwrap_or_default())
    }

    /// The [`window`](Self::window) of every known series, ascending by series.
    pub async fn windows(&self, until: StepIndex, steps: usize) -> Result<Vec<(SeriesKey, Vec<f64>)>, Stopped> {
        self.windows_after(None, usize::MAX, until, steps).await
    }

    /// The [`windows`](Self::windows) of the first `most` series after `after`: page by page, so that not all of them need fit
    /// into memory.
    pub async fn windows_after(
        &self,
        after: Option<SeriesKey>,
        most: usize,
        until: StepIndex,
        steps: usize,
    ) -> Result<Vec<(SeriesKey, Vec<f64>)>, Stopped> {
        self.page(Page { which: Which::Awake, after, most, until, steps }).await
    }

    /// The same of the series that were not cold at the last [`close_warm`](Self::close_warm).
    pub async fn warm_windows(
        &self,
        after: Option<SeriesKey>,
        most: usize,
        until: StepIndex,
        steps: usize,
    ) -> Result<Vec<(SeriesKey, Vec<f64>)>, Stopped> {
        self.page(Page { which: Which::Warm(0), after, most, until, steps }).await
    }

    /// How large each of them is, ascending by series: its count, half of which is forgotten in a day.
    pub async fn warm_sizes(&self) -> Result<Vec<(SeriesKey, f64)>, Stopped> {
        self.ask(|reply| Command::Sizes { reply }).await
    }

    async fn page(&self, page: Page) -> Result<Vec<(SeriesKey, Vec<f64>)>, Stopped> {
        let parts = self.ask(|reply| Command::Windows { page, reply }).await?;
        let (keys, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok(keys.into_iter().zip(self.with_sealed(parts).await).collect())
    }

    /// The counts of the `buckets` buckets that end with the one of `until`, oldest first; begins later if the series, or what is
    /// kept of it, does. `None` if the series is not known, or there are no such buckets: they must be whole numbers of steps.
    pub async fn rolled(
        &self,
        key: &SeriesKey,
        resolution: Resolution,
        until: StepIndex,
        buckets: usize,
    ) -> Result<Option<Rolled>, Stopped> {
        let key = key.clone();
        let asked = self.ask(|reply| Command::Rolled(RolledQuestion { key, resolution, until, buckets, reply })).await;
        let Some(part) = asked? else { return Ok(None) };
        let work = move |_: &_| {
            let until = part.first.saturating_add(part.hot.len() as i64);
            let sealed = tables::sealed(&part.read, part.level, part.id, part.first, until)?;
            let counts = sealed.iter().zip(&part.hot).map(|(sealed, hot)| sealed.saturating_add(*hot) as f64).collect();
            Ok(Rolled { factor: part.level.factor, first: part.first, counts })
        };
        Ok(self.store.run("reading the history", work).await.inspect_err(told).ok())
    }

    /// The columns of each resolution: how many there are, and their bytes without the database's own.
    pub async fn size(&self) -> Result<Vec<(Resolution, u64, u64)>, StoreError> {
        let read = self.store.read()?;
        self.store.run("measuring the history", move |_| tables::size(&read)).await
    }

    /// The windows with what is sealed of them; only what memory has, if the file cannot be read.
    async fn with_sealed(&self, parts: Vec<Part>) -> Vec<Vec<f64>> {
        if parts.iter().all(|part| part.cold.0 >= part.cold.1) {
            return parts.into_iter().map(|part| part.hot).collect();
        }
        let (hot, level): (Vec<_>, _) = (parts.iter().map(|part| part.hot.clone()).collect(), self.steps);
        let work = move |database: &redb::Database| {
            let read = database.begin_read()?;
            let warm = |part: Part| {
                let sealed = tables::sealed(&read, level, part.id, part.cold.0.0, part.cold.1.0)?;
                Ok(sealed.into_iter().map(|count| count as f64).chain(part.hot).collect())
            };
            parts.into_iter().map(warm).collect()
        };
        self.store.run("reading the history", work).await.inspect_err(told).unwrap_or(hot)
    }

    /// The tenants of which series are folded, those with the most transactions first.
    pub fn folded(&self) -> Arc<Vec<FoldedTenant>> {
        self.shared.folded_tenants.borrow().clone()
    }

    /// How it goes.
    pub fn stats(&self) -> HistoryStats {
        self.shared.stats()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Questions are answered also when the disk fails, with what memory has.
fn told(error: &StoreError) {
    tracing::error!(%error, source = ?std::error::Error::source(error), "sealed counts cannot be read");
}

/// What handles and actor both see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    limit: usize,
    pending: AtomicUsize,
    series: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    duplicates: AtomicU64,
    replayed: AtomicU64,
    busy: AtomicU64,
    folded: AtomicU64,
    folded_tenants: watch::Sender<Arc<Vec<FoldedTenant>>>,
    commits: AtomicU64,
    failed: AtomicBool,
}

/// Room among what is pending, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    shared: Arc<Shared>,
    weight: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.pending.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl Shared {
    /// A batch weighs as its records, and one for itself and each refusal that it carries.
    fn reserve(self: &Arc<Self>, batch: &Batch) -> Result<Reservation, AppendError> {
        let records = batch.records();
        if records > self.limit {
            return Err(AppendError::TooLarge { records, limit: self.limit });
        }
        let weight = (records + batch.refusals.len()).clamp(1, self.limit.max(1));
        let more = |pending: usize| pending.checked_add(weight).filter(|sum| *sum <= self.limit.max(1));
        match self.pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Reservation { shared: self.clone(), weight }),
            Err(_) => {
                self.busy.fetch_add(1, Ordering::Relaxed);
                Err(AppendError::Busy { retry_after: RETRY_AFTER })
            }
        }
    }

    fn stats(&self) -> HistoryStats {
        HistoryStats {
            series: self.series.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            replayed: self.replayed.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
            folded: self.folded.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
