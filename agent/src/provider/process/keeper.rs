//! One worker process from its start or adoption to its end.

use super::control::ToWorker;
use super::os::Process;
use super::record::Record;
use super::{EndCause, Ended, Observed, Shared, lock};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// The file in a pool's directory that its workers' output goes to.
pub(super) const LOG_NAME: &str = "workers.log";

/// Where a connection to a worker can be spoken to, and which of the worker's connections it is.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) orders: mpsc::Sender<ToWorker>,
}

/// What is known of a worker.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// What it said last; draining from the moment it was told so.
    pub(super) state: InstanceState,
    /// The way to it, while it is connected.
    pub(super) link: Option<Link>,
    /// How often it connected.
    pub(super) links: u64,
    /// It is to be killed.
    pub(super) doomed: bool,
    /// Its process has ended.
    pub(super) gone: bool,
}

impl Status {
    pub(super) fn link_number(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.number)
    }
}

/// One instance.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: InstanceId,
    process: OnceLock<Arc<Process>>,
    status: watch::Sender<Status>,
    record: Mutex<Record>,
}

impl Slot {
    pub(super) fn new(record: Record) -> Self {
        let status = Status { state: record.state, link: None, links: 0, doomed: false, gone: false };
        Self { id: record.instance.clone(), process: OnceLock::new(), status: watch::Sender::new(status), record: Mutex::new(record) }
    }

    pub(super) fn set_process(&self, process: Arc<Process>) {
        // Set once, by whoever made the slot.
        let _ = self.process.set(process);
    }

    pub(super) fn observe(&self) -> Observed {
        let handle = self.process.get().map_or_else(|| "no process yet".into(), |process| format!("pid {}", process.pid()));
        Observed { id: self.id.clone(), state: self.status.borrow().state, handle }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes the status and tells everyone who watches it.
    pub(super) fn update<T: Default>(&self, change: impl FnOnce(&mut Status) -> T) -> T {
        let mut result = T::default();
        self.status.send_modify(|status| result = change(status));
        result
    }

    /// Works on the record; one at a time, so that its file is written by one hand.
    pub(super) fn record<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut lock(&self.record))
    }

    /// Says `order` to the worker. Whether it is connected and has room for it.
    pub(super) fn tell(&self, order: ToWorker) -> bool {
        self.status.borrow().link.as_ref().is_some_and(|link| link.orders.try_send(order).is_ok())
    }

    /// Asks the process itself to drain.
    pub(super) fn terminate(&self) {
        if let Some(process) = self.process.get() {
            process.terminate();
        }
    }
}

/// Looks after a process until it is gone: kills it when it is doomed, takes too long to drain, or
/// is out of contact, and clears up after it.
pub(super) async fn keep(shared: Arc<Shared>, slot: Arc<Slot>, process: Arc<Process>) {
    let mut status = slot.watch();
    let mut deadlines = Deadlines::default();
    let ending = loop {
        let now = status.borrow_and_update().clone();
        if now.doomed {
            process.kill_group();
            process.exited().await;
            break Some("it was stopped");
        }
        let due = deadlines.next(&now, &shared);
        tokio::select! {
            biased;
            () = process.exited() => break None,
            changed = status.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(due) => {
                let why = match now.state {
                    InstanceState::Draining => "it did not drain in time",
                    InstanceState::Starting | InstanceState::Warm | InstanceState::Active => "it was out of contact for too long",
                };
                process.kill_group();
                process.exited().await;
                break Some(why);
            }
        }
    };
    let ordered = {
        let status = slot.status();
        status.doomed || status.state == InstanceState::Draining
    };
    let cause = if ordered { EndCause::Ordered } else { EndCause::Unexpected };
    // Reads all of /proc, and is carried through even if nobody waits any more.
    let cleared = tokio::task::spawn_blocking(move || {
        process.kill_group();
        shared.end_remnants(&slot.id);
        let reason = match (ending, process.reap()) {
            (Some(ending), _) => ending.into(),
            (None, Some(status)) => status,
            (None, None) => "its process is gone".into(),
        };
        shared.note_ended(Ended { id: slot.id.clone(), cause, reason });
        shared.forget(&slot);
        shared.changed.notify_one();
    });
    let _ = cleared.await;
}

/// Since when a worker drains and is out of contact.
#[derive(Debug, Default)]
struct Deadlines {
    draining_since: Option<Instant>,
    silent_since: Option<Instant>,
}

/// How long nothing is waited for; woken earlier by any change.
const NEVER: Duration = Duration::from_secs(24 * 3600);

impl Deadlines {
    /// When the worker is to be killed if nothing changes.
    fn next(&mut self, status: &Status, shared: &Shared) -> Instant {
        let now = Instant::now();
        let draining = status.state == InstanceState::Draining;
        self.draining_since = draining.then(|| self.draining_since.unwrap_or(now));
        self.silent_since = status.link.is_none().then(|| self.silent_since.unwrap_or(now));
        // A worker out of contact drains by itself after the orphan timeout.
        let silent = self.silent_since.map(|since| since + shared.orphan_timeout + shared.drain_timeout);
        let drained = self.draining_since.map(|since| since + shared.drain_timeout);
        // A draining worker may close its connection before it ends.
        drained.or(silent).unwrap_or(now + NEVER)
    }
}
