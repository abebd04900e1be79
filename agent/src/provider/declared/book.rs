//! What is wanted of a backend, what it shows, and what follows from the two. Pure.
//!
//! An instance is listed from its start until a look that came after its end was carried out shows it no more. What is shown
//! without being wanted is taken over as it stands: only the pool ends anything.

use super::record::{Kept, Record};
use super::{Plan, Seen, Want};
use crate::backoff;
use crate::provider::{EndCause, Ended, Observed};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, PoolName};

/// How many ended instances are remembered; they only explain.
const MAX_ENDED: usize = 1_000;

/// The first pause after a failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// What a mended backend costs at most in lateness.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// One instance that is wanted, or wanted gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// `None`: it is to be gone.
    want: Option<Want>,
    /// The plan that says so.
    serial: u64,
    /// A plan that names it was carried out.
    applied: bool,
    /// The backend has shown it.
    seen: bool,
    /// Nobody has ordered anything of it: it was taken over, and is wanted as it stands.
    found: bool,
    /// Its start failed: whatever there is of it is not listed unless it shows.
    hidden: bool,
    /// When draining has taken too long.
    drain_by: Option<Instant>,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    At(InstanceState),
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    agent: String,
    entries: BTreeMap<InstanceId, Entry>,
    seen: BTreeMap<InstanceId, Seen>,
    serial: u64,
    applied: u64,
    rounds: u64,
    /// Failures in a row, all failures, and the last one's words.
    failures: u32,
    failures_ever: u64,
    failure: Option<String>,
    /// Why the last look saw nothing.
    unread: Option<String>,
    until: Option<Instant>,
    ended: VecDeque<Ended>,
}

impl Book {
    /// As an earlier life left it. What was never carried out is forgotten: if it is there after all, it will show.
    pub(crate) fn recall(record: Record) -> Self {
        let serial = record.serial;
        let entry = |want, applied| Entry { want, serial, applied, seen: applied, found: false, hidden: false, drain_by: None };
        let kept = record.instances.into_iter().filter(|(_, kept)| kept.applied).map(|(id, kept)| (id, entry(Some(kept.want), true)));
        let entries: BTreeMap<_, _> = kept.chain(record.ending.into_iter().map(|id| (id, entry(None, true)))).collect();
        // What was to end may not have been told.
        let applied = if entries.values().any(|entry| entry.want.is_none()) { serial.saturating_sub(1) } else { serial };
        Self { agent: record.agent, entries, serial, applied, ..Self::default() }
    }

    pub(crate) fn record(&self, origin: serde_json::Value) -> Record {
        let instances = self.entries.iter().filter_map(|(id, e)| Some((id.clone(), Kept { want: e.want?, applied: e.applied })));
        let ending = self.entries.iter().filter(|(_, e)| e.want.is_none()).map(|(id, _)| id.clone());
        Record { origin, agent: self.agent.clone(), serial: self.serial, instances: instances.collect(), ending: ending.collect() }
    }

    pub(crate) fn plan(&self, pool: &PoolName) -> Plan {
        let instances = self.entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.want?)));
        Plan { agent: self.agent.clone(), pool: pool.clone(), serial: self.serial, instances: instances.collect() }
    }

    pub(crate) fn want(&self, id: &InstanceId) -> Option<Want> {
        self.entries.get(id)?.want
    }

    /// One more instance; the number of the plan that has it.
    pub(crate) fn start(&mut self, id: &InstanceId) -> u64 {
        match self.entries.get(id) {
            Some(entry) if entry.want.is_some() => entry.serial,
            Some(_) | None => {
                self.serial += 1;
                let (want, serial) = (Some(Want::Warm), self.serial);
                let entry = Entry { want, serial, applied: false, seen: false, found: false, hidden: false, drain_by: None };
                self.entries.insert(id.clone(), entry);
                self.serial
            }
        }
    }

    /// Has an instance serve, or not; the number of the plan that says so.
    pub(crate) fn turn(&mut self, id: &InstanceId, want: Want) -> Result<u64, String> {
        let place = self.place(id);
        let entry = self.entries.get_mut(id).ok_or("there is no such instance")?;
        match (entry.want, place) {
            (None | Some(Want::Draining), _) | (_, Place::At(InstanceState::Draining)) => Err("it is draining".into()),
            (_, Place::At(InstanceState::Starting)) if entry.want == Some(Want::Warm) => Err("it is not ready yet".into()),
            (Some(now), _) if now == want => Ok(entry.serial),
            (Some(_), _) => {
                self.serial += 1;
                *entry = Entry { want: Some(want), serial: self.serial, found: false, ..*entry };
                Ok(self.serial)
            }
        }
    }

    pub(crate) fn drain(&mut self, id: &InstanceId, drain_by: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if matches!(entry.want, Some(Want::Warm | Want::Active)) {
            self.serial += 1;
            *entry = Entry { want: Some(Want::Draining), serial: self.serial, found: false, drain_by: Some(drain_by), ..*entry };
        }
    }

    pub(crate) fn stop(&mut self, id: &InstanceId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.want.is_some() {
            self.serial += 1;
            *entry = Entry { want: None, serial: self.serial, found: false, ..*entry };
        }
    }

    /// A start that failed: it is to leave nothing behind.
    pub(crate) fn give_up(&mut self, id: &InstanceId) {
        self.stop(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.hidden = !entry.seen;
        }
    }

    /// Ends what has drained for too long, and drains of an earlier life by `otherwise`; when to look again.
    pub(crate) fn hurry(&mut self, now: Instant, otherwise: Instant) -> Option<Instant> {
        let mut late = vec![];
        let mut next: Option<Instant> = None;
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.want == Some(Want::Draining)) {
            let by = *entry.drain_by.get_or_insert(otherwise);
            if by <= now {
                late.push(id.clone());
            } else {
                next = Some(next.map_or(by, |next| next.min(by)));
            }
        }
        late.iter().for_each(|id| self.stop(id));
        next
    }

    /// Whether there is anything to carry out.
    pub(crate) fn is_dirty(&self) -> bool {
        self.serial > self.applied
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether an instance is on its way from one state to another.
    pub(crate) fn is_moving(&self) -> bool {
        let moving = |(id, entry): (&InstanceId, &Entry)| match (entry.want, self.seen.get(id).map(|seen| seen.state)) {
            (Some(Want::Warm), Some(InstanceState::Warm)) | (Some(Want::Active), Some(InstanceState::Active)) => false,
            (Some(_) | None, _) => true,
        };
        self.entries.iter().any(moving)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.seen.is_empty()
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    pub(crate) fn failures_ever(&self) -> u64 {
        self.failures_ever
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Until when to leave the backend alone.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether there is a point in looking now.
    pub(crate) fn may_look(&self, now: Instant) -> bool {
        self.unread.is_none() || self.until.is_none_or(|until| until <= now)
    }

    /// Why orders are refused for now, if they are.
    pub(crate) fn waits(&self, now: Instant) -> Option<String> {
        let until = self.until.filter(|until| *until > now)?;
        let reason = self.failure.as_deref().unwrap_or("it failed");
        Some(format!("tried again in {:.1?} after {} failures in a row: {reason}", until - now, self.failures))
    }

    /// Nothing could be read.
    pub(crate) fn on_unread(&mut self, reason: String, now: Instant, jitter: f64) {
        self.unread = Some(reason.clone());
        self.on_failed(reason, now, jitter);
    }

    /// A plan was not carried out. `jitter` from 0 to 1 shortens the pause by up to a half.
    pub(crate) fn on_failed(&mut self, reason: String, now: Instant, jitter: f64) {
        self.rounds += 1;
        self.failures = self.failures.saturating_add(1);
        self.failures_ever += 1;
        self.until = Some(now + backoff::jittered(backoff::pause(self.failures, FIRST_PAUSE, LONGEST_PAUSE), jitter));
        self.failure = Some(reason);
    }

    /// The backend shows `seen`; `carried_out` is the plan it was told before, if it was told one. Whether the list has changed.
    pub(crate) fn on_seen(&mut self, seen: Vec<Seen>, carried_out: Option<u64>) -> bool {
        let before = (self.list(), self.ended.len());
        self.rounds += 1;
        self.unread = None;
        // A plan that fails again and again is no better for what can be read.
        if carried_out.is_some() || !self.is_dirty() {
            (self.failures, self.failure, self.until) = (0, None, None);
        }
        if let Some(serial) = carried_out {
            self.applied = self.applied.max(serial);
            self.entries.values_mut().filter(|entry| entry.serial <= serial).for_each(|entry| entry.applied = true);
        }
        self.seen = seen.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        self.settle();
        before != (self.list(), self.ended.len())
    }

    fn settle(&mut self) {
        let serial = self.serial;
        for (id, seen) in &self.seen {
            let want = seen.want.or(match seen.state {
                InstanceState::Starting | InstanceState::Warm => Some(Want::Warm),
                InstanceState::Active => Some(Want::Active),
                InstanceState::Draining => None,
            });
            let taken_over = Entry { want, serial, applied: true, seen: true, found: true, hidden: false, drain_by: None };
            let entry = self.entries.entry(id.clone()).or_insert(taken_over);
            (entry.seen, entry.hidden) = (true, false);
            if entry.found {
                // What it is on its way to shows when it is there.
                entry.want = want;
            }
        }
        let gone: BTreeSet<InstanceId> = self
            .entries
            .iter()
            .filter(|(id, e)| !self.seen.contains_key(*id) && e.serial <= self.applied)
            .filter(|(_, e)| e.seen || !matches!(e.want, Some(Want::Warm | Want::Active)))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            let Some(entry) = self.entries.remove(&id) else { continue };
            let (cause, reason) = match entry.want {
                None | Some(Want::Draining) => (EndCause::Ordered, "it is there no more"),
                Some(Want::Warm | Want::Active) => (EndCause::Unexpected, "the backend does not show it any more"),
            };
            // The plan is another one without it, and the backend is to know.
            self.serial += 1;
            if entry.hidden {
                continue;
            }
            if self.ended.len() == MAX_ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(Ended { id, cause, reason: reason.into() });
        }
    }

    pub(crate) fn place(&self, id: &InstanceId) -> Place {
        let Some(entry) = self.entries.get(id) else { return Place::Unknown };
        match (entry.want, self.seen.get(id)) {
            (None | Some(Want::Draining), _) => Place::At(InstanceState::Draining),
            (Some(_), Some(seen)) => Place::At(seen.state),
            (Some(_), None) => Place::At(InstanceState::Starting),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Observed>, String> {
        if let Some(reason) = &self.unread {
            return Err(reason.clone());
        }
        let shown = self.entries.iter().filter(|(_, entry)| !entry.hidden);
        let observed = |id: &InstanceId| {
            let Place::At(state) = self.place(id) else { return None };
            let handle = self.seen.get(id).map_or_else(|| "not there yet".into(), |seen| seen.handle.clone());
            Some(Observed { id: id.clone(), state, handle })
        };
        Ok(shown.filter_map(|(id, _)| observed(id)).collect())
    }

    pub(crate) fn take_ended(&mut self) -> Vec<Ended> {
        self.ended.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
