//! A group of batches against what is known already: what is new of them, and what each sender is
//! told. Pure.
//!
//! [`State::judge`] changes nothing; it returns a [`Delta`], which the shell makes durable and then
//! hands to [`State::apply`]. Invariant: only one delta exists at a time, so that what was judged
//! against the state is applied to the same state.

use super::rollups::{Rollups, SeriesId};
use super::seen::{MAX_BATCH_KEYS, MAX_RECORD_IDS, Seen};
use crate::config::IngestConfig;
use crate::ingest::Batch;
use crate::ingest::batch::{IdHash, Sum};
use crate::marks::{bug, sometimes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::api::IngestReceipt;
use tradewind_protocol::{IdempotencyKey, SeriesKey, Step, StepIndex, Timestamp};

/// The most steps that are kept, whatever the retention: two years of minutes, 4 MiB a series.
pub(crate) const MAX_KEPT_STEPS: u32 = 1 << 20;

/// For how long a batch key is remembered at least: longer than any sender's retries.
const MIN_KEY_TIME: Duration = Duration::from_secs(3600);

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    step: Step,
    lateness: Duration,
    kept_steps: u32,
    key_time: Duration,
    max_series: usize,
    pub(crate) max_ids: usize,
    pub(crate) max_keys: usize,
}

impl Limits {
    pub(crate) fn new(step: Step, config: &IngestConfig) -> Self {
        Self {
            step,
            lateness: config.lateness,
            kept_steps: step.count_covering(config.retention.max(config.lateness)).min(MAX_KEPT_STEPS),
            key_time: config.lateness.max(MIN_KEY_TIME),
            max_series: config.max_series,
            max_ids: MAX_RECORD_IDS,
            max_keys: MAX_BATCH_KEYS,
        }
    }
}

/// Everything that is known.
#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    pub(crate) rollups: Rollups,
    pub(crate) seen: Seen,
    /// Ids of steps before this one are forgotten.
    pub(crate) ids_from: Option<StepIndex>,
}

/// What a group adds, and what is forgotten by the way.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// New series, and known ones with counts for steps before they were known.
    pub(crate) series: BTreeMap<SeriesId, (SeriesKey, StepIndex)>,
    pub(crate) counts: BTreeMap<StepIndex, BTreeMap<SeriesId, u64>>,
    pub(crate) ids: BTreeMap<StepIndex, Vec<IdHash>>,
    pub(crate) keys: BTreeMap<IdHash, (Timestamp, IngestReceipt)>,
    pub(crate) forget: Forget,
}

/// What is too old. `None` and empty where that has not changed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Forget {
    pub(crate) ids_before: Option<StepIndex>,
    pub(crate) counts_before: Option<StepIndex>,
    pub(crate) keys_before: Option<Timestamp>,
    pub(crate) series: BTreeSet<SeriesId>,
}

/// What one sender is told once the delta is durable.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The batch was counted.
    Counted(IngestReceipt),
    /// It is the same batch as this earlier one of the group.
    SameAs(usize),
    /// It was counted before; its receipt is in the file.
    Replay { key: IdHash, expires: Timestamp },
    /// There is no room to remember its key until one is forgotten.
    NoRoom { until: Option<Timestamp> },
}

impl Delta {
    /// Whether nothing need be written.
    pub(crate) fn is_empty(&self) -> bool {
        // Series come with counts only, and ids and new keys make a write needed by themselves.
        *self == Delta::default()
    }
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, rollups: Rollups::default(), seen: Seen::default(), ids_from: None }
    }

    /// What `group` comes to at `now`, in the order in which the batches came.
    pub(crate) fn judge(&self, group: Vec<(Batch, Option<IdempotencyKey>)>, now: Timestamp) -> (Delta, Vec<Outcome>) {
        let newest = group.iter().filter_map(|(batch, _)| batch.newest()).max();
        let mut judge = Judge::new(self, self.forget(now, newest));
        let mut outcomes = Vec::with_capacity(group.len());
        let mut places = BTreeMap::new();
        for (place, (batch, key)) in group.into_iter().enumerate() {
            let Some(key) = key.map(|key| IdHash::of(&[key.as_str()])) else {
                outcomes.push(Outcome::Counted(judge.count(batch)));
                continue;
            };
            outcomes.push(if let Some(first) = places.get(&key) {
                Outcome::SameAs(*first)
            } else if let Some(expires) = self.seen.key(key).filter(|_| !bug!("key-not-checked")) {
                sometimes!("ingest.key-replayed");
                Outcome::Replay { key, expires }
            } else if self.seen.keys() + places.len() >= self.limits.max_keys {
                Outcome::NoRoom { until: self.seen.first_expiry() }
            } else {
                places.insert(key, place);
                let receipt = judge.count(batch);
                judge.delta.keys.insert(key, (now.after(self.limits.key_time), receipt.clone()));
                Outcome::Counted(receipt)
            });
        }
        (judge.finish(), outcomes)
    }

    /// Takes in what has become durable.
    pub(crate) fn apply(&mut self, delta: Delta) {
        // First, so that no ring has to reach over what is forgotten.
        if let Some(step) = delta.forget.ids_before {
            self.ids_from = Some(step);
            self.seen.forget_ids_before(step);
        }
        if let Some(step) = delta.forget.counts_before {
            self.rollups.forget(step, &delta.forget.series);
        }
        if let Some(now) = delta.forget.keys_before {
            self.seen.forget_keys_before(now);
        }
        for (id, (key, since)) in delta.series {
            self.rollups.insert(id, key, since);
        }
        for (step, counts) in delta.counts {
            for (id, count) in counts {
                self.rollups.add(id, step, count);
                if bug!("counted-twice") {
                    self.rollups.add(id, step, count);
                }
            }
        }
        for (step, ids) in delta.ids {
            self.seen.insert_ids(step, &ids);
        }
        for (key, (expires, _)) in delta.keys {
            self.seen.insert_key(key, expires);
        }
    }

    /// What is too old at `now`. Steps are never forgotten beyond the newest that has a count: a
    /// clock that runs ahead must not wipe what was measured.
    fn forget(&self, now: Timestamp, newest: Option<StepIndex>) -> Forget {
        let mut forget = Forget::default();
        if self.seen.first_expiry().is_some_and(|expires| expires < now) {
            forget.keys_before = Some(now);
        }
        let Some(newest) = self.rollups.newest().max(newest) else { return forget };
        let ids_before = self.limits.step.index(now.before(self.limits.lateness)).min(newest);
        let counts_before = self.limits.step.index(now).min(newest).offset(-i64::from(self.limits.kept_steps));
        if Some(ids_before) > self.ids_from {
            forget.ids_before = Some(ids_before);
        }
        if Some(counts_before) > self.rollups.from() {
            forget.counts_before = Some(counts_before);
            forget.series = self.rollups.silent_since(counts_before);
        }
        forget
    }
}

/// A delta in the making.
struct Judge<'s> {
    state: &'s State,
    /// Records of steps before this one cannot be told from repetitions, or would be forgotten.
    from: Option<StepIndex>,
    next_id: SeriesId,
    new_series: BTreeMap<SeriesKey, SeriesId>,
    new_ids: BTreeSet<IdHash>,
    delta: Delta,
}

/// Records of one series of a batch that are refused.
#[derive(Debug, Clone, Copy, Default)]
struct Refused {
    late: u64,
    series: u64,
    ids: u64,
}

impl<'s> Judge<'s> {
    fn new(state: &'s State, forget: Forget) -> Self {
        let from = forget.ids_before.or(state.ids_from).max(forget.counts_before.or(state.rollups.from()));
        let next_id = state.rollups.next_id();
        let delta = Delta { forget, ..Delta::default() };
        Self { state, from, next_id, new_series: BTreeMap::new(), new_ids: BTreeSet::new(), delta }
    }

    fn finish(mut self) -> Delta {
        let new: BTreeMap<SeriesId, SeriesKey> = self.new_series.into_iter().map(|(key, id)| (id, key)).collect();
        let mut since = BTreeMap::new();
        for (step, counts) in &self.delta.counts {
            for id in counts.keys() {
                since.entry(*id).or_insert(*step);
            }
        }
        for (id, step) in since {
            self.delta.forget.series.remove(&id);
            let known = self.state.rollups.get(id);
            if known.is_none_or(|(_, since)| step < since)
                && let Some(key) = known.map(|(key, _)| key).or(new.get(&id))
            {
                self.delta.series.insert(id, (key.clone(), step));
            }
        }
        self.delta
    }

    /// Counts what is new of `batch`.
    fn count(&mut self, mut batch: Batch) -> IngestReceipt {
        let mut ids: Vec<Option<SeriesId>> = batch.series.iter().map(|series| self.state.rollups.id(&series.key)).collect();
        let mut refused = vec![Refused::default(); ids.len()];
        let (mut accepted, mut duplicates) = (0, 0);
        for (&(place, step), &Sum { count, records }) in &batch.sums {
            if Some(step) < self.from {
                refused[place].late += records;
            } else if let Some(series) = self.series(&mut ids[place], &batch.series[place].key) {
                accepted += records;
                self.add(series, step, count);
            } else {
                refused[place].series += records;
            }
        }
        for record in &batch.identified {
            let place = record.series;
            if Some(record.step) < self.from {
                refused[place].late += 1;
            } else if (self.state.seen.has_id(record.id) || self.new_ids.contains(&record.id)) && !bug!("record-ids-not-checked") {
                sometimes!("ingest.id-repeated");
                duplicates += 1;
            } else if self.state.seen.ids() + self.new_ids.len() >= self.state.limits.max_ids {
                refused[place].ids += 1;
            } else if let Some(series) = self.series(&mut ids[place], &batch.series[place].key) {
                accepted += 1;
                self.new_ids.insert(record.id);
                self.delta.ids.entry(record.step).or_default().push(record.id);
                self.add(series, record.step, record.count);
            } else {
                refused[place].series += 1;
            }
        }
        self.refuse(&mut batch, &refused);
        batch.receipt(accepted, duplicates)
    }

    fn add(&mut self, series: SeriesId, step: StepIndex, count: u64) {
        let sum = self.delta.counts.entry(step).or_default().entry(series).or_default();
        *sum = sum.saturating_add(count);
    }

    /// The series' id, a new one if there is room for it.
    fn series(&mut self, known: &mut Option<SeriesId>, key: &SeriesKey) -> Option<SeriesId> {
        if known.is_none() {
            *known = self.new_series.get(key).copied();
        }
        if known.is_none() && self.state.rollups.len() + self.new_series.len() < self.state.limits.max_series {
            let id = self.next_id;
            self.next_id = SeriesId(id.0.saturating_add(1));
            self.new_series.insert(key.clone(), id);
            *known = Some(id);
        }
        *known
    }

    /// One refusal a series and cause, at the series' first record: a batch holds sums, not lines.
    fn refuse(&self, batch: &mut Batch, refused: &[Refused]) {
        let Limits { max_series, max_ids, .. } = self.state.limits;
        for (place, refused) in refused.iter().enumerate().filter(|(_, refused)| refused.late + refused.series + refused.ids > 0) {
            let (line, key) = (batch.series[place].line, batch.series[place].key.clone());
            if refused.late > 0 {
                batch.refuse(line, refused.late, || format!("{} records of series {key} came too late to be counted once", refused.late));
            }
            if refused.series > 0 {
                batch.refuse(line, refused.series, || {
                    format!(
                        "{} records of series {key}: it is beyond the {max_series} that are counted (ingest.max_series)",
                        refused.series
                    )
                });
            }
            if refused.ids > 0 {
                batch.refuse(line, refused.ids, || {
                    format!(
                        "{} records of series {key}: their ids are beyond the {max_ids} that are remembered within ingest.lateness; \
                         send batches with an idempotency key instead",
                        refused.ids
                    )
                });
            }
        }
    }
}
