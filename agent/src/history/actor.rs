//! The task that owns the counts: one commit at a time, questions answered meanwhile.

use super::group::{Delta, MAX_KEPT_STEPS, Outcome, State};
use super::levels::{Level, Resolution};
use super::rollups::{ClosePart, Page, Part, SeriesId, Which};
use super::{AppendError, RETRY_AFTER, Reservation, Shared, tables};
use crate::env::Clock;
use crate::ingest::Batch;
use crate::ingest::batch::IdHash;
use crate::marks::{bug, sometimes};
use crate::store::{Store, StoreError};
use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use tradewind_protocol::api::IngestReceipt;
use tradewind_protocol::{IdempotencyKey, SeriesKey, StepIndex};

/// What a handle asks.
pub(crate) enum Command {
    Append(Box<Append>),
    Close { step: StepIndex, which: Which, reply: oneshot::Sender<ClosePart> },
    Window { key: SeriesKey, until: Option<StepIndex>, steps: usize, reply: oneshot::Sender<Option<Part>> },
    Windows { page: Page, reply: oneshot::Sender<Vec<(SeriesKey, Part)>> },
    Sizes { reply: oneshot::Sender<Vec<(SeriesKey, f64)>> },
    Rolled(RolledQuestion),
}

/// See [`super::HistoryHandle::rolled`].
pub(crate) struct RolledQuestion {
    pub(crate) key: SeriesKey,
    pub(crate) resolution: Resolution,
    pub(crate) until: StepIndex,
    pub(crate) buckets: usize,
    pub(crate) reply: oneshot::Sender<Option<RolledPart>>,
}

/// What memory has of it, and the file as it is now.
pub(crate) struct RolledPart {
    pub(crate) id: SeriesId,
    pub(crate) level: Level,
    /// The first bucket, and how many.
    pub(crate) first: i64,
    pub(crate) hot: Vec<u64>,
    pub(crate) read: redb::ReadTransaction,
}

/// A batch, and who waits for it.
pub(crate) struct Append {
    pub(crate) batch: Batch,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) reply: Reply,
    pub(crate) reservation: Reservation,
}

type Reply = oneshot::Sender<Result<IngestReceipt, AppendError>>;
type Receipts = BTreeMap<IdHash, IngestReceipt>;

/// The actor. See [`super::open`].
pub struct History {
    state: State,
    store: Store,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    /// Everything in it has a reservation, so it is never longer than `max_pending_records`.
    queue: Vec<Append>,
    /// Asked while a commit ran: file and memory have to be of one moment.
    questions: Vec<RolledQuestion>,
    failed: Option<StoreError>,
}

/// A group on its way to the disk.
struct Commit {
    waiting: Vec<(Reply, Outcome, Reservation)>,
    written: Result<(Delta, Receipts), StoreError>,
}

impl History {
    pub(super) fn new(state: State, store: Store, clock: Arc<dyn Clock>, commands: mpsc::Receiver<Command>, shared: Arc<Shared>) -> Self {
        Self { state, store, clock, commands, shared, queue: Vec::new(), questions: Vec::new(), failed: None }
    }

    /// Runs until all handles are gone and everything pending is answered.
    pub async fn run(mut self) {
        let mut commit: Option<BoxFuture<'static, Commit>> = None;
        let mut open = true;
        while open || commit.is_some() || !self.queue.is_empty() {
            self.drain();
            if commit.is_none() {
                self.answer_questions();
                commit = self.start_commit();
            }
            tokio::select! {
                biased;
                Some(done) = OptionFuture::from(commit.as_mut()), if commit.is_some() => {
                    commit = None;
                    self.finish_commit(done);
                }
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.on_command(command),
                    None => open = false,
                },
                else => {}
            }
        }
    }

    /// Takes what waits already, so that it goes into the next commit together.
    fn drain(&mut self) {
        for _ in 0..super::COMMANDS {
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let bounded = |steps: usize| steps.min(MAX_KEPT_STEPS as usize);
        // Whoever asked may be gone; then nobody misses the answer.
        match command {
            Command::Append(append) => self.queue.push(*append),
            Command::Close { step, which, reply } => {
                let _ = reply.send(self.state.rollups.close(step, which));
            }
            Command::Window { key, until, steps, reply } => {
                let until = until.or(self.state.rollups.closed());
                let _ = reply.send(until.and_then(|until| self.state.rollups.window(&key, until, bounded(steps))));
            }
            Command::Windows { page, reply } => {
                let _ = reply.send(self.state.rollups.windows(&Page { steps: bounded(page.steps), ..page }));
            }
            Command::Sizes { reply } => {
                let _ = reply.send(self.state.warm_sizes());
            }
            Command::Rolled(question) if self.questions.len() < super::COMMANDS => self.questions.push(question),
            // Whoever asks is told that nothing is known.
            Command::Rolled(_) => {}
        }
    }

    fn answer_questions(&mut self) {
        for question in std::mem::take(&mut self.questions) {
            let answer = self.rolled(&question);
            let _ = question.reply.send(answer);
        }
    }

    fn rolled(&self, question: &RolledQuestion) -> Option<RolledPart> {
        let level = self.state.levels().get(question.resolution)?;
        let last = level.bucket(question.until);
        let asked = last.saturating_add(1).saturating_sub(i64::try_from(question.buckets.min(MAX_KEPT_STEPS as usize)).ok()?);
        let kept = self.state.rollups.newest().map_or(asked, |newest| level.bucket(newest.offset(-level.kept_steps)));
        let first_step = |bucket: i64| StepIndex(bucket.saturating_mul(level.factor));
        let (id, since, hot) =
            self.state.rollups.hot(&question.key, first_step(asked.max(kept)), first_step(last.saturating_add(1)).offset(-1))?;
        let first = asked.max(kept).max(level.bucket(since));
        let mut sums = vec![0u64; usize::try_from(last - first + 1).unwrap_or(0)];
        for (step, count) in hot {
            if let Some(sum) = usize::try_from(level.bucket(step) - first).ok().and_then(|place| sums.get_mut(place)) {
                *sum = sum.saturating_add(count);
            }
        }
        let read = self.store.read().inspect_err(|error| tracing::error!(%error, "history cannot be read")).ok()?;
        Some(RolledPart { id, level, first, hot: sums, read })
    }

    /// Sends everything queued to the disk, or answers it if the disk has failed.
    fn start_commit(&mut self) -> Option<BoxFuture<'static, Commit>> {
        let queue = std::mem::take(&mut self.queue);
        if let Some(error) = &self.failed {
            for append in queue {
                let _ = append.reply.send(Err(AppendError::Storage(error.clone())));
            }
            return None;
        }
        if queue.is_empty() {
            return None;
        }
        let (mut group, mut senders) = (Vec::with_capacity(queue.len()), Vec::with_capacity(queue.len()));
        for append in queue {
            group.push((append.batch, append.key));
            senders.push((append.reply, append.reservation));
        }
        if group.len() > 1 {
            sometimes!("ingest.two-batches-in-one-commit");
        }
        let (delta, outcomes) = self.state.judge(group, self.clock.now());
        let waiting: Vec<_> =
            senders.into_iter().zip(outcomes).map(|((reply, reservation), outcome)| (reply, outcome, reservation)).collect();
        let replays: Vec<_> = waiting
            .iter()
            .filter_map(|(_, outcome, _)| match outcome {
                Outcome::Replay { key, expires } => Some((*key, *expires)),
                Outcome::Counted(_) | Outcome::SameAs(_) | Outcome::NoRoom { .. } => None,
            })
            .collect();
        let waiting = if bug!("ack-before-commit") {
            self.answer(waiting, &Receipts::new());
            vec![]
        } else {
            waiting
        };
        let store = self.store.clone();
        let commit = async move {
            let written = store.run("making records durable", move |database| {
                let receipts = tables::receipts(database, &replays)?;
                tables::write(database, &delta)?;
                Ok((delta, receipts))
            });
            Commit { written: written.await, waiting }
        };
        Some(commit.boxed())
    }

    fn finish_commit(&mut self, Commit { waiting, written }: Commit) {
        let (delta, stored) = match written {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "records cannot be made durable any more");
                sometimes!("storage.commit-failed");
                self.shared.failed.store(true, Ordering::Relaxed);
                for (reply, _, _) in waiting {
                    let _ = reply.send(Err(AppendError::Storage(error.clone())));
                }
                self.failed = Some(error);
                return;
            }
        };
        if !delta.is_empty() {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            tracing::trace!(batches = waiting.len(), steps = delta.counts.len(), "made durable");
        }
        self.shared.folded.fetch_add(delta.folded, Ordering::Relaxed);
        let folds_change = !delta.folded_counts.is_empty() || delta.forget.counts_before.is_some();
        self.state.apply(delta);
        if folds_change {
            self.shared.folded_tenants.send_replace(Arc::new(self.state.folded()));
        }
        self.shared.series.store(self.state.rollups.len(), Ordering::Relaxed);
        self.answer(waiting, &stored);
    }

    fn answer(&self, waiting: Vec<(Reply, Outcome, Reservation)>, stored: &Receipts) {
        let now = self.clock.now();
        let mut counted: BTreeMap<usize, IngestReceipt> = BTreeMap::new();
        for (place, (reply, outcome, reservation)) in waiting.into_iter().enumerate() {
            let answer = match outcome {
                Outcome::Counted(receipt) => {
                    self.shared.accepted.fetch_add(receipt.accepted, Ordering::Relaxed);
                    self.shared.refused.fetch_add(receipt.refused, Ordering::Relaxed);
                    self.shared.duplicates.fetch_add(receipt.duplicates, Ordering::Relaxed);
                    counted.insert(place, receipt.clone());
                    Ok(receipt)
                }
                Outcome::SameAs(first) => self.replayed(counted.get(&first)),
                Outcome::Replay { key, .. } => self.replayed(stored.get(&key)),
                Outcome::NoRoom { until } => {
                    self.shared.busy.fetch_add(1, Ordering::Relaxed);
                    Err(AppendError::Busy { retry_after: until.map_or(RETRY_AFTER, |until| until.since(now).max(RETRY_AFTER)) })
                }
            };
            // Before the answer, so that whoever has it finds the room.
            drop(reservation);
            let _ = reply.send(answer);
        }
    }

    /// Both kinds of repetition have their receipt at hand; if one had not, trying again finds it.
    fn replayed(&self, first: Option<&IngestReceipt>) -> Result<IngestReceipt, AppendError> {
        self.shared.replayed.fetch_add(1, Ordering::Relaxed);
        let busy = AppendError::Busy { retry_after: RETRY_AFTER };
        first.map(|receipt| IngestReceipt { replayed: true, ..receipt.clone() }).ok_or(busy)
    }
}
