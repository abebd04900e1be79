//! What happened in this agent, for operators: a bounded log that can be read and followed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tradewind_protocol::api::{Event, Severity};
use tradewind_protocol::{RegionId, Timestamp};

use crate::env::Clock;

/// How many events are kept: hours of a lively agent, 200 KiB.
const MAX_EVENTS: usize = 1_000;

/// The log. Clones share it.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

struct Shared {
    region: RegionId,
    clock: Arc<dyn Clock>,
    events: Mutex<VecDeque<Event>>,
    last_id: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log of `region`.
    pub fn new(region: RegionId, clock: Arc<dyn Clock>) -> Self {
        let (last_id, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { region, clock, events: Mutex::default(), last_id }) }
    }

    /// Notes an event, and traces it at the level of its severity.
    pub fn note(&self, severity: Severity, kind: &'static str, message: String) {
        match severity {
            Severity::Info => tracing::info!(kind, "{message}"),
            Severity::Warning => tracing::warn!(kind, "{message}"),
            Severity::Error => tracing::error!(kind, "{message}"),
        }
        let at: Timestamp = self.shared.clock.now();
        let mut events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.shared.last_id.borrow() + 1;
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(Event { id, at, region: self.shared.region.clone(), kind: kind.into(), severity, message });
        // Inside the lock, so that ids are published in order.
        self.shared.last_id.send_replace(id);
    }

    /// The kept events with an id above `id`, oldest first.
    pub fn since(&self, id: u64) -> Vec<Event> {
        let events = self.shared.events.lock().unwrap_or_else(PoisonError::into_inner);
        let from = events.partition_point(|event| event.id <= id);
        events.range(from..).cloned().collect()
    }

    /// Changes whenever there is a new event; its value is the newest event's id.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.last_id.subscribe()
    }
}
