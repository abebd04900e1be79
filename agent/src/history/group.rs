//! A group of batches against what is known already: what is new of them, and what each sender is
//! told. Pure.
//!
//! [`State::judge`] changes nothing; it returns a [`Delta`], which the shell makes durable and then
//! hands to [`State::apply`]. Invariant: only one delta exists at a time, so that what was judged
//! against the state is applied to the same state.

use super::levels::{ColumnAdds, Levels, add_to_columns};
use super::places::{CLEARLY, FoldedCounts, HalfLife, Places, Size};
use super::rollups::{Rollups, Sealed, Sealing, SeriesId, boundary};
use super::seen::{MAX_BATCH_KEYS, MAX_RECORD_IDS, Seen};
use crate::config::IngestConfig;
use crate::ingest::Batch;
use crate::ingest::batch::{IdHash, Sum};
use crate::marks::{bug, sometimes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::api::{FoldedTenant, IngestReceipt};
use tradewind_protocol::{IdempotencyKey, SeriesKey, ServiceName, Step, StepIndex, TenantName, Timestamp, TransactionType};

/// The most buckets of a level that are kept, whatever the retention: two years of minutes.
pub(crate) const MAX_KEPT_STEPS: u32 = 1 << 20;

/// Known series beyond this multiple of `max_series` are forgotten, the longest silent first: a series that sleeps takes half a
/// kilobyte.
const KNOWN_SERIES_FACTOR: usize = 4;

/// Series that one commit moves from memory into columns at least: 20 ms of encoding.
const MIN_SEALED: usize = 512;

/// And at least one of so many, so that all are done within the steps that stay in memory, at one commit a step.
const SEALED_SHARE: usize = 48;

/// What series of too many are folded into.
pub(super) const OTHER: &str = "other";

/// For how long a batch key is remembered at least: longer than any sender's retries.
const MIN_KEY_TIME: Duration = Duration::from_secs(3600);

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    step: Step,
    lateness: Duration,
    pub(crate) levels: Levels,
    half_life: HalfLife,
    key_time: Duration,
    max_series: usize,
    max_series_per_tenant: usize,
    pub(crate) max_ids: usize,
    pub(crate) max_keys: usize,
}

impl Limits {
    pub(crate) fn new(step: Step, config: &IngestConfig) -> Self {
        Self {
            step,
            lateness: config.lateness,
            levels: Levels::new(step, [config.retention.max(config.lateness), config.retention_5m, config.retention_1h], MAX_KEPT_STEPS),
            half_life: HalfLife::new(step),
            key_time: config.lateness.max(MIN_KEY_TIME),
            max_series: config.max_series,
            max_series_per_tenant: config.max_series_per_tenant,
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
    pub(crate) places: Places,
    pub(crate) seen: Seen,
    /// Ids of steps before this one are forgotten.
    pub(crate) ids_from: Option<StepIndex>,
    /// By level: columns before this one were forgotten in this life.
    columns_from: BTreeMap<u8, i64>,
}

/// What a group adds, and what is forgotten by the way.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// New series, and known ones with counts for steps before they were known.
    pub(crate) series: BTreeMap<SeriesId, (SeriesKey, StepIndex)>,
    /// Counts of steps that are in memory.
    pub(crate) counts: BTreeMap<StepIndex, BTreeMap<SeriesId, u64>>,
    /// Counts of steps that are sealed: they are among `columns` too.
    pub(crate) late: BTreeMap<StepIndex, BTreeMap<SeriesId, u64>>,
    /// What is sealed now, and late counts of what is.
    pub(crate) columns: ColumnAdds,
    /// The last counted steps of series with sealed counts, where they are others than before.
    pub(crate) lasts: BTreeMap<SeriesId, StepIndex>,
    pub(crate) sealed: Option<Sealed>,
    /// The sizes of what is sealed of series, where they are others than before.
    pub(crate) sizes: BTreeMap<SeriesId, Size>,
    /// Records that were folded into the series of another type.
    pub(crate) folded: u64,
    /// What they counted, of tenants that have as many series as they may.
    pub(crate) folded_counts: FoldedCounts,
    /// Series that have lost their place to a larger one.
    pub(crate) displaced: BTreeSet<SeriesId>,
    /// Series that had lost theirs, and have one again.
    pub(crate) returned: BTreeSet<SeriesId>,
    /// The size of the smallest series of tenants at some step, as far as that was looked at.
    pub(crate) floors: BTreeMap<TenantName, (StepIndex, f64)>,
    pub(crate) ids: BTreeMap<StepIndex, Vec<IdHash>>,
    pub(crate) keys: BTreeMap<IdHash, (Timestamp, IngestReceipt)>,
    pub(crate) forget: Forget,
}

/// What is too old. `None` and empty where that has not changed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Forget {
    pub(crate) ids_before: Option<StepIndex>,
    pub(crate) counts_before: Option<StepIndex>,
    /// By level: columns before this one.
    pub(crate) columns_before: BTreeMap<u8, i64>,
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
        // Series come with counts only, and ids and new keys make a write needed by themselves. Floors are of this life.
        *self == Delta { floors: self.floors.clone(), ..Delta::default() }
    }
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        let places = Places::new(limits.half_life, limits.max_series_per_tenant);
        Self { limits, rollups: Rollups::default(), places, seen: Seen::default(), ids_from: None, columns_from: BTreeMap::new() }
    }

    /// How counts are rolled up.
    pub(crate) fn levels(&self) -> &Levels {
        &self.limits.levels
    }

    /// The sizes of the series that are not cold, ascending by key.
    pub(crate) fn warm_sizes(&self) -> Vec<(SeriesKey, f64)> {
        let now = self.rollups.newest().unwrap_or_default();
        self.rollups.warm_sizes(now, self.limits.half_life)
    }

    /// What is folded of which tenants.
    pub(crate) fn folded(&self) -> Vec<FoldedTenant> {
        self.places.report(self.rollups.newest())
    }

    /// What `group` comes to at `now`, in the order in which the batches came.
    pub(crate) fn judge(&self, group: Vec<(Batch, Option<IdempotencyKey>)>, now: Timestamp) -> (Delta, Vec<Outcome>) {
        let newest = group.iter().filter_map(|(batch, _)| batch.newest()).max();
        let mut judge = Judge::new(self, self.forget(now, newest), self.newest(now, newest));
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
            self.places.retain(|tenant| self.rollups.of_tenant(tenant) > 0);
        }
        self.columns_from.extend(delta.forget.columns_before);
        if let Some(now) = delta.forget.keys_before {
            self.seen.forget_keys_before(now);
        }
        self.places.fold(delta.folded_counts);
        let newest = self.rollups.newest().unwrap_or_default();
        for id in delta.displaced {
            let size = self.rollups.size(id, newest, self.limits.half_life);
            if let Some(key) = self.rollups.displace(id) {
                self.places.enter(key, size, newest);
            }
        }
        for id in delta.returned {
            if let Some(key) = self.rollups.give_back(id) {
                self.places.leave(key);
            }
        }
        for (id, (key, since)) in delta.series {
            self.places.leave(&key);
            self.rollups.insert(id, key, since);
        }
        for (tenant, (step, floor)) in delta.floors {
            self.places.set_floor(&tenant, step, floor);
        }
        if let Some(sealed) = delta.sealed {
            self.rollups.set_sealed(sealed);
        }
        self.rollups.set_sizes(delta.sizes);
        for (step, counts) in delta.late.into_iter().chain(delta.counts) {
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
        let Some(newest) = self.newest(now, newest) else { return forget };
        let ids_before = self.limits.step.index(now.before(self.limits.lateness)).min(newest);
        let steps = self.limits.levels.iter().next().map_or(0, |level| level.kept_steps);
        let counts_before = newest.offset(-steps);
        if Some(ids_before) > self.ids_from {
            forget.ids_before = Some(ids_before);
        }
        if Some(counts_before) > self.rollups.from() {
            forget.counts_before = Some(counts_before);
            let most = self.limits.max_series.saturating_mul(KNOWN_SERIES_FACTOR);
            forget.series = self.rollups.silent_since(newest.offset(-self.limits.levels.longest()), most);
            for level in self.limits.levels.iter() {
                let (number, before) = (level.resolution.number(), level.first_column(newest.offset(-level.kept_steps)));
                if self.columns_from.get(&number).is_none_or(|from| *from < before) {
                    forget.columns_before.insert(number, before);
                }
            }
        }
        forget
    }

    /// The newest step with a count, `newest` among them, as far as the clock has come.
    fn newest(&self, now: Timestamp, newest: Option<StepIndex>) -> Option<StepIndex> {
        self.rollups.newest().max(newest).map(|newest| newest.min(self.limits.step.index(now)))
    }
}

/// A delta in the making.
struct Judge<'s> {
    state: &'s State,
    /// Records of steps before this one cannot be told from repetitions, or would be forgotten.
    from: Option<StepIndex>,
    next_id: SeriesId,
    new_series: BTreeMap<SeriesKey, SeriesId>,
    new_of_tenant: BTreeMap<TenantName, usize>,
    new_ids: BTreeSet<IdHash>,
    newest: Option<StepIndex>,
    /// The series of tenants that one of theirs may displace, the smallest last.
    ranked: BTreeMap<TenantName, Vec<(f64, SeriesId)>>,
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
    fn new(state: &'s State, forget: Forget, newest: Option<StepIndex>) -> Self {
        let from = forget.ids_before.or(state.ids_from).max(forget.counts_before.or(state.rollups.from()));
        let next_id = state.rollups.next_id();
        let most = (state.rollups.len() / SEALED_SHARE).max(MIN_SEALED);
        let (levels, half_life) = (&state.limits.levels, state.limits.half_life);
        let Sealing { sealed, columns, lasts, sizes } =
            newest.map(|newest| state.rollups.seal(levels, half_life, newest, most)).unwrap_or_default();
        let delta = Delta { forget, columns, lasts, sealed, sizes, ..Delta::default() };
        let (new_series, new_of_tenant, ranked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { state, from, next_id, new_series, new_of_tenant, new_ids: BTreeSet::new(), newest, ranked, delta }
    }

    fn finish(mut self) -> Delta {
        let new: BTreeMap<SeriesId, SeriesKey> = std::mem::take(&mut self.new_series).into_iter().map(|(key, id)| (id, key)).collect();
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
        self.seal_late();
        self.delta
    }

    /// Counts of steps that are sealed, also by this very delta, belong into columns.
    fn seal_late(&mut self) {
        let sealed = self.delta.sealed.or(self.state.rollups.sealed());
        let (Some(newest), Some(reach)) = (self.newest, sealed.map(|sealed| sealed.boundary(SeriesId(0)))) else { return };
        for (step, counts) in &mut self.delta.counts {
            if *step >= reach {
                break;
            }
            let late: BTreeMap<SeriesId, u64> = counts.extract_if(.., |id, _| *step < boundary(sealed, *id)).collect();
            for (id, count) in &late {
                add_to_columns(&mut self.delta.columns, &self.state.limits.levels, newest, *id, *step, *count);
                if self.state.rollups.last(*id) < Some(*step) && self.delta.lasts.get(id).is_none_or(|last| last < step) {
                    self.delta.lasts.insert(*id, *step);
                }
            }
            if !late.is_empty() {
                self.delta.late.insert(*step, late);
            }
        }
        self.delta.counts.retain(|_, counts| !counts.is_empty());
    }

    /// Counts what is new of `batch`.
    fn count(&mut self, mut batch: Batch) -> IngestReceipt {
        let awake = |key| self.state.rollups.id(key).filter(|id| self.has_place(*id));
        let mut ids: Vec<Option<SeriesId>> = batch.series.iter().map(|series| awake(&series.key)).collect();
        let mut refused = vec![Refused::default(); ids.len()];
        let (mut accepted, mut duplicates) = (0, 0);
        for (&(place, step), &Sum { count, records }) in &batch.sums {
            if Some(step) < self.from {
                refused[place].late += records;
            } else if let Some(series) = self.series(&mut ids[place], &batch.series[place].key, step, Sum { count, records }) {
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
            } else if let Some(series) =
                self.series(&mut ids[place], &batch.series[place].key, record.step, Sum { count: record.count, records: 1 })
            {
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

    /// The id of the series in which `key` is counted, a new one if there is room for it, or the place of a clearly smaller one. A series beyond its
    /// tenant's limit is folded into that of the type `other`, or if that is one too many as well, of the service and type `other`, to the
    /// same destination.
    fn series(&mut self, known: &mut Option<SeriesId>, key: &SeriesKey, step: StepIndex, sum: Sum) -> Option<SeriesId> {
        if known.is_none() {
            *known = self.own(key, self.state.limits.max_series_per_tenant).or_else(|| self.displace(key, step, sum.count));
        }
        if known.is_some() {
            return *known;
        }
        let other = |text| TransactionType::new(text).ok();
        let by_type = SeriesKey { transaction_type: other(OTHER)?, ..key.clone() };
        let by_service = SeriesKey { service: ServiceName::new(OTHER).ok()?, ..by_type.clone() };
        // What is folded into gets as much room again: half of it for either kind.
        let limit = self.state.limits.max_series_per_tenant;
        let folded = self.own(&by_type, limit.saturating_add(limit / 2)).or_else(|| self.own(&by_service, limit.saturating_mul(2)));
        if folded.is_some() {
            self.delta.folded += sum.records;
            self.note_folded(key, step, sum.count);
        }
        // Not remembered in `known`: the next records are folded, and counted as such, too.
        folded
    }

    /// Whether the series is counted by itself, also after what this delta has changed.
    fn has_place(&self, id: SeriesId) -> bool {
        self.state.rollups.is_awake(id) && !self.delta.displaced.contains(&id)
    }

    /// How many series of the tenant have a place. Who displaces another one changes nothing in that.
    fn of_tenant(&self, tenant: &TenantName) -> usize {
        self.state.rollups.of_tenant(tenant) + self.new_of_tenant.get(tenant).copied().unwrap_or(0)
    }

    /// The id of the series itself, a new one if its tenant has fewer than `limit` and there is room.
    fn own(&mut self, key: &SeriesKey, limit: usize) -> Option<SeriesId> {
        if let Some(id) = self.new_series.get(key) {
            return Some(*id);
        }
        let known = self.state.rollups.id(key);
        if known.is_some_and(|id| self.has_place(id)) {
            return known;
        }
        let all = self.state.rollups.len() + self.new_series.len() - self.delta.displaced.len();
        if self.of_tenant(&key.tenant) >= limit || all >= self.state.limits.max_series {
            return None;
        }
        *self.new_of_tenant.entry(key.tenant.clone()).or_default() += 1;
        Some(self.give_place(key, known))
    }

    fn give_place(&mut self, key: &SeriesKey, known: Option<SeriesId>) -> SeriesId {
        let id = known.unwrap_or(self.next_id);
        self.next_id = self.next_id.max(SeriesId(id.0.saturating_add(1)));
        if self.state.rollups.is_displaced(id) {
            self.delta.returned.insert(id);
        }
        self.new_series.insert(key.clone(), id);
        id
    }

    /// The place of the smallest series of a tenant that has as many as it may, if `key` is clearly larger: of it, what was folded is known, and the
    /// `count` that comes now. Series that came with this very group are not displaced.
    fn displace(&mut self, key: &SeriesKey, step: StepIndex, count: u64) -> Option<SeriesId> {
        let (now, half_life, tenant) = (self.newest?, self.state.limits.half_life, &key.tenant);
        let known = self.state.rollups.id(key);
        // Whoever has lost its place in this group does not take another one in it.
        if self.of_tenant(tenant) < self.state.limits.max_series_per_tenant || known.is_some_and(|id| self.state.rollups.is_awake(id)) {
            return None;
        }
        let weighted = |(step, count): (&StepIndex, &u64)| *count as f64 * half_life.left(*step, now);
        let folded_now = self.delta.folded_counts.get(key).into_iter().flatten().map(weighted).sum::<f64>();
        let size = self.state.places.size(key, now) + folded_now + weighted((&step, &count));
        let floor = self.delta.floors.get(tenant).map(|(_, floor)| *floor).or_else(|| self.state.places.floor(tenant, now));
        if floor.is_some_and(|floor| size <= CLEARLY * floor) {
            return None;
        }
        let ranked = self.ranked.entry(tenant.clone()).or_insert_with(|| {
            let mut ranked = self.state.rollups.sizes_of_tenant(key, now, half_life);
            ranked.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
            ranked
        });
        let least = ranked.last().copied();
        let counted_now = |id| self.delta.counts.iter().filter_map(move |(step, counts)| Some((step, counts.get(&id)?))).map(weighted);
        let floor = least.map_or(f64::INFINITY, |(least, id)| least + counted_now(id).sum::<f64>());
        self.delta.floors.insert(tenant.clone(), (now, floor));
        let (_, smallest) = least.filter(|_| size > CLEARLY * floor)?;
        ranked.pop();
        self.delta.displaced.insert(smallest);
        let id = self.give_place(key, known);
        // What was folded of it is part of its size, or it would be the smallest now.
        let folded = (size - weighted((&step, &count)) - self.state.rollups.size(id, now, half_life)).max(0.0);
        let sealed = self.delta.sizes.get(&id).copied().unwrap_or_else(|| self.state.rollups.sealed_size(id));
        self.delta.sizes.insert(id, Size { at: now, sum: sealed.left(now, half_life) + folded });
        Some(id)
    }

    /// Remembers what was folded, where the tenant has as many series as it may.
    fn note_folded(&mut self, key: &SeriesKey, step: StepIndex, count: u64) {
        if self.of_tenant(&key.tenant) < self.state.limits.max_series_per_tenant {
            return;
        }
        if !self.delta.folded_counts.contains_key(key) {
            self.delta.folded_counts.insert(key.clone(), BTreeMap::new());
        }
        if let Some(counts) = self.delta.folded_counts.get_mut(key) {
            let sum = counts.entry(step).or_default();
            *sum = sum.saturating_add(count);
        }
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
                        "{} records of series {key}: it is beyond the {max_series} that are counted (ingest.max_series), or its tenant's, also for \
                         what is folded (ingest.max_series_per_tenant)",
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
