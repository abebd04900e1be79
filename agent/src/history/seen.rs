//! What must not be counted twice: ids of records and keys of batches, for as long as they are
//! remembered. Pure.

use crate::ingest::batch::IdHash;
use std::collections::{BTreeMap, BTreeSet};
use tradewind_protocol::{StepIndex, Timestamp};

/// The most record ids that are remembered: 1,165 records a second with ids over an hour of
/// lateness, in about 200 MB. Records beyond are refused, since they could not be told from
/// repetitions later; batches with a key have no such bound.
pub(crate) const MAX_RECORD_IDS: usize = 1 << 22;

/// The most batch keys that are remembered: one every 4 ms for an hour, in about 100 MB. Batches
/// with a key have to wait beyond.
pub(crate) const MAX_BATCH_KEYS: usize = 1 << 20;

/// Ids and keys.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    ids: BTreeSet<IdHash>,
    ids_by_step: BTreeMap<StepIndex, Vec<IdHash>>,
    keys: BTreeMap<IdHash, Timestamp>,
    keys_by_expiry: BTreeSet<(Timestamp, IdHash)>,
}

impl Seen {
    pub(crate) fn ids(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn has_id(&self, id: IdHash) -> bool {
        self.ids.contains(&id)
    }

    /// When the key will be forgotten, if it is remembered.
    pub(crate) fn key(&self, key: IdHash) -> Option<Timestamp> {
        self.keys.get(&key).copied()
    }

    /// When the first key will be forgotten.
    pub(crate) fn first_expiry(&self) -> Option<Timestamp> {
        self.keys_by_expiry.first().map(|(expires, _)| *expires)
    }

    pub(crate) fn insert_ids(&mut self, step: StepIndex, ids: &[IdHash]) {
        self.ids.extend(ids);
        self.ids_by_step.entry(step).or_default().extend(ids);
    }

    pub(crate) fn insert_key(&mut self, key: IdHash, expires: Timestamp) {
        self.keys.insert(key, expires);
        self.keys_by_expiry.insert((expires, key));
    }

    pub(crate) fn forget_ids_before(&mut self, step: StepIndex) {
        let kept = self.ids_by_step.split_off(&step);
        for id in std::mem::replace(&mut self.ids_by_step, kept).into_values().flatten() {
            self.ids.remove(&id);
        }
    }

    pub(crate) fn forget_keys_before(&mut self, now: Timestamp) {
        while let Some((expires, key)) = self.keys_by_expiry.first().copied()
            && expires < now
        {
            self.keys_by_expiry.pop_first();
            self.keys.remove(&key);
        }
    }
}
