//! The known series, and the newest counts of each, in memory. Pure.
//!
//! Memory holds the counts from a series' *boundary* on; those before are *sealed*: in columns of the file. Invariants:
//! what is here from the boundary on is exactly what was committed; a step that was closed and counted again
//! afterwards is reported as revised by the next close, once.

use super::group::OTHER;
use super::levels::{CHUNK, ColumnAdds, Levels, SLACK, add_to_columns};
use super::names::Names;
use super::places::{HalfLife, Size};
use super::ring::Ring;
use crate::marks::{bug, sometimes};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use tradewind_protocol::{SeriesKey, StepIndex, TenantName};

/// Stands for a series in the file: given out once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeriesId(pub(crate) u64);

/// One closed step. See [`super::HistoryHandle::close`].
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// Which step.
    pub step: StepIndex,
    /// The step's count for every known series, ascending by series: zero where nothing came.
    pub counts: Vec<(SeriesKey, f64)>,
    /// Series with records that came, since the last close, for steps closed before: the earliest
    /// of those steps. What was learnt from there on has to be learnt again.
    pub revised: BTreeMap<SeriesKey, StepIndex>,
    /// Known series among the counts that were not among those of the close before: cold ones that counted again, and all at
    /// the first close. What was known of them has to be learnt from their windows.
    pub woken: BTreeSet<SeriesKey>,
}

/// Which series are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All that counted something within the retention.
    Awake,
    /// Those that are not cold: that counted something in so many steps up to the closed one.
    Warm(i64),
}

/// How far counts have left memory for columns: those of all series before `through`, and those of the series below
/// `cursor` a column further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) through: StepIndex,
    pub(crate) cursor: SeriesId,
}

impl Sealed {
    /// The first step of the series that is in memory.
    pub(crate) fn boundary(&self, id: SeriesId) -> StepIndex {
        if id < self.cursor { self.through.offset(CHUNK as i64) } else { self.through }
    }
}

/// The boundary of `id`.
pub(crate) fn boundary(sealed: Option<Sealed>, id: SeriesId) -> StepIndex {
    sealed.map_or(StepIndex(i64::MIN), |sealed| sealed.boundary(id))
}

fn column_start(step: StepIndex) -> StepIndex {
    StepIndex(step.0.saturating_sub(step.0.rem_euclid(CHUNK as i64)))
}

/// What is to be sealed, and how far that gets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sealing {
    pub(crate) sealed: Option<Sealed>,
    pub(crate) columns: ColumnAdds,
    /// The last counted step of each series that is sealed.
    pub(crate) lasts: BTreeMap<SeriesId, StepIndex>,
    /// The size of all that is sealed of each series of which something is.
    pub(crate) sizes: BTreeMap<SeriesId, Size>,
}

/// Windows of the first `most` series after one.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) which: Which,
    pub(crate) after: Option<SeriesKey>,
    pub(crate) most: usize,
    pub(crate) until: StepIndex,
    pub(crate) steps: usize,
}

/// Part of a window: what memory has of it, and where the rest is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) id: SeriesId,
    /// The steps of the window that are sealed: from the first to before the second.
    pub(crate) cold: (StepIndex, StepIndex),
    pub(crate) hot: Vec<f64>,
}

/// A close: what memory has of it, and for which of the series the count is sealed.
#[derive(Debug)]
pub(crate) struct ClosePart {
    pub(crate) closed: Closed,
    /// Places in `closed.counts`.
    pub(crate) cold: Vec<(usize, SeriesId)>,
}

/// Counts of a series: its id, since when it is known, and the steps of which memory has counts.
pub(crate) type Hot = (SeriesId, StepIndex, Vec<(StepIndex, u64)>);

/// All series. Those that have been silent for the whole retention are *dormant*: known, neither closed nor shown. So are those that have lost
/// their place to a larger one of the tenant, until they have one again.
#[derive(Debug, Default)]
pub(crate) struct Rollups {
    ids: BTreeMap<Arc<SeriesKey>, SeriesId>,
    series: BTreeMap<SeriesId, Series>,
    names: Names,
    /// The series that were not cold at the last close, and those that were counted since.
    warm: BTreeMap<Arc<SeriesKey>, Warm>,
    /// Awake series of each tenant.
    awake: BTreeMap<TenantName, usize>,
    awake_total: usize,
    /// Steps before this one are forgotten.
    from: Option<StepIndex>,
    newest: Option<StepIndex>,
    closed: Option<StepIndex>,
    revised: BTreeMap<SeriesId, StepIndex>,
    sealed: Option<Sealed>,
    /// Ids below this one were given out.
    next_id: u64,
}

#[derive(Debug)]
struct Warm {
    id: SeriesId,
    /// Whether no close has told of it yet.
    fresh: bool,
}

#[derive(Debug)]
struct Series {
    key: Arc<SeriesKey>,
    /// The earliest step that ever had a count: from there on, no count means none.
    since: StepIndex,
    last: Option<StepIndex>,
    awake: bool,
    /// Whether it has lost its place: it does not wake by itself.
    displaced: bool,
    /// See [`Rollups::sealed_size`].
    sealed: Size,
    ring: Ring,
}

impl Rollups {
    /// How many series are awake.
    pub(crate) fn len(&self) -> usize {
        self.awake_total
    }

    /// How many series of `tenant` are awake.
    pub(crate) fn of_tenant(&self, tenant: &TenantName) -> usize {
        self.awake.get(tenant).copied().unwrap_or(0)
    }

    /// The series' id, if it is known.
    pub(crate) fn id(&self, key: &SeriesKey) -> Option<SeriesId> {
        self.ids.get(key).copied()
    }

    /// Whether the series is awake.
    pub(crate) fn is_awake(&self, id: SeriesId) -> bool {
        self.series.get(&id).is_some_and(|series| series.awake)
    }

    /// The lowest id that was never given out.
    pub(crate) fn next_id(&self) -> SeriesId {
        SeriesId(self.next_id.max(self.series.last_key_value().map_or(0, |(id, _)| id.0.saturating_add(1))))
    }

    /// Ids below `next` are not given out again.
    pub(crate) fn retire_ids(&mut self, next: u64) {
        self.next_id = self.next_id.max(next);
    }

    /// The newest step that has a count.
    pub(crate) fn newest(&self) -> Option<StepIndex> {
        self.newest
    }

    /// How far counts have left memory.
    pub(crate) fn sealed(&self) -> Option<Sealed> {
        self.sealed
    }

    /// Makes a series known, or known since another step.
    pub(crate) fn insert(&mut self, id: SeriesId, key: SeriesKey, since: StepIndex) {
        self.retire_ids(id.0.saturating_add(1));
        match self.series.entry(id) {
            Entry::Occupied(mut known) => known.get_mut().since = since,
            Entry::Vacant(room) => {
                let key = Arc::new(self.names.share(key));
                self.ids.insert(key.clone(), id);
                let (awake, displaced) = (false, false);
                room.insert(Series { key, since, last: None, awake, displaced, sealed: Size::default(), ring: Ring::default() });
            }
        }
    }

    /// The series' key, and since when it is known.
    pub(crate) fn get(&self, id: SeriesId) -> Option<(&SeriesKey, StepIndex)> {
        self.series.get(&id).map(|series| (&*series.key, series.since))
    }

    /// The series' last counted step.
    pub(crate) fn last(&self, id: SeriesId) -> Option<StepIndex> {
        self.series.get(&id)?.last
    }

    /// The step before which everything is forgotten, if anything is.
    pub(crate) fn from(&self) -> Option<StepIndex> {
        self.from
    }

    /// Counts, and notes the series as revised if the step is closed. What is sealed was counted in its column.
    pub(crate) fn add(&mut self, id: SeriesId, step: StepIndex, count: u64) {
        if bug!("late-counts-dropped") && Some(step) <= self.closed {
            return;
        }
        let step = if bug!("rollup-off-by-one") { step.offset(1) } else { step };
        let boundary = boundary(self.sealed, id);
        let Some(series) = self.series.get_mut(&id) else { return };
        if step >= boundary {
            series.ring.add(step, count);
        }
        self.touch(id, step);
        if Some(step) <= self.closed {
            sometimes!("ingest.late-record-counted");
            let earliest = self.revised.entry(id).or_insert(step);
            *earliest = step.min(*earliest);
        }
    }

    /// Notes that the series was counted at `step`, and wakes it if that is recent.
    pub(crate) fn touch(&mut self, id: SeriesId, step: StepIndex) {
        self.newest = self.newest.max(Some(step));
        let Some(series) = self.series.get_mut(&id) else { return };
        series.last = series.last.max(Some(step));
        if series.displaced {
            return;
        }
        if !self.warm.contains_key(&series.key) {
            self.warm.insert(series.key.clone(), Warm { id, fresh: true });
        }
        if !series.awake && series.last >= self.from {
            series.awake = true;
            *self.awake.entry(series.key.tenant.clone()).or_default() += 1;
            self.awake_total += 1;
        }
    }

    /// The series that have no count from `step` on and are sealed, and of the dormant ones the longest silent beyond
    /// `most` series.
    pub(crate) fn silent_since(&self, step: StepIndex, most: usize) -> BTreeSet<SeriesId> {
        let sealed = |id: SeriesId, series: &Series| series.last < Some(boundary(self.sealed, id));
        let idle = self.series.iter().filter(|(id, series)| !series.awake && sealed(**id, series));
        let mut idle: Vec<_> = idle.map(|(id, series)| (series.last, *id)).collect();
        idle.sort_unstable();
        let beyond = self.series.len().saturating_sub(most);
        idle.iter().enumerate().filter(|(place, (last, _))| *place < beyond || *last < Some(step)).map(|(_, (_, id))| *id).collect()
    }

    /// Forgets all counts before `step`, and the series `gone` altogether.
    pub(crate) fn forget(&mut self, step: StepIndex, gone: &BTreeSet<SeriesId>) {
        self.from = Some(step);
        for id in gone {
            self.revised.remove(id);
            if let Some(series) = self.series.remove(id) {
                self.ids.remove(&*series.key);
                self.warm.remove(&*series.key);
                self.names.clear();
            }
        }
        self.awake.clear();
        self.awake_total = 0;
        for series in self.series.values_mut() {
            series.awake = series.last >= self.from && !series.displaced;
            if series.awake {
                *self.awake.entry(series.key.tenant.clone()).or_default() += 1;
                self.awake_total += 1;
            }
        }
    }

    /// What of at most `most` series' columns is to be sealed when `newest` is the newest step.
    pub(crate) fn seal(&self, levels: &Levels, half_life: HalfLife, newest: StepIndex, most: usize) -> Sealing {
        let target = column_start(newest.offset(-SLACK));
        let oldest = |from: StepIndex| {
            let hot = self.series.iter().filter_map(|(id, series)| series.ring.first_from(from.max(boundary(self.sealed, *id))));
            hot.min()
        };
        let begin =
            || Sealed { through: oldest(StepIndex(i64::MIN)).map_or(target, |first| column_start(first).min(target)), cursor: SeriesId(0) };
        let mut sealed = self.sealed.unwrap_or_else(begin);
        let mut sealing = Sealing::default();
        let mut room = most;
        while sealed.through < target && room > 0 {
            let end = sealed.through.offset(CHUNK as i64);
            if sealed.cursor == SeriesId(0) {
                // Nothing is in memory for a while: over it at once.
                match oldest(sealed.through).map(column_start) {
                    None => sealed.through = target,
                    Some(next) if next >= end => sealed.through = next.min(target),
                    Some(_) => {}
                }
                if sealed.through.offset(CHUNK as i64) != end {
                    continue;
                }
            }
            let mut reached = None;
            for (id, series) in self.series.range(sealed.cursor..).take(room) {
                room -= 1;
                reached = Some(*id);
                let Some(first) = series.ring.first_from(sealed.through).filter(|first| *first < end) else { continue };
                let mut size = sealing.sizes.get(id).copied().unwrap_or(series.sealed);
                for step in (first.0..end.0).map(StepIndex) {
                    let count = series.ring.get(step);
                    add_to_columns(&mut sealing.columns, levels, newest, *id, step, count);
                    if count > 0 {
                        size.add(step, count, half_life);
                    }
                }
                sealing.sizes.insert(*id, size);
                if let Some(last) = series.ring.last() {
                    sealing.lasts.insert(*id, last.min(end.offset(-1)));
                }
            }
            let over = reached.is_none_or(|id| self.series.range(SeriesId(id.0.saturating_add(1))..).next().is_none());
            sealed = match reached {
                Some(id) if !over => Sealed { cursor: SeriesId(id.0.saturating_add(1)), ..sealed },
                _ => Sealed { through: end, cursor: SeriesId(0) },
            };
        }
        sealing.sealed = Some(sealed).filter(|sealed| Some(*sealed) != self.sealed);
        sealing
    }

    /// The size of what is sealed of the series, and of what of it was folded before it had its place.
    pub(crate) fn sealed_size(&self, id: SeriesId) -> Size {
        self.series.get(&id).map(|series| series.sealed).unwrap_or_default()
    }

    /// Takes in the sizes of what is sealed.
    pub(crate) fn set_sizes(&mut self, sizes: BTreeMap<SeriesId, Size>) {
        for (id, size) in sizes {
            if let Some(series) = self.series.get_mut(&id) {
                series.sealed = size;
            }
        }
    }

    /// The series' size at `now`. Late counts of what is sealed are left out.
    pub(crate) fn size(&self, id: SeriesId, now: StepIndex, half_life: HalfLife) -> f64 {
        let Some(series) = self.series.get(&id) else { return 0.0 };
        let mut hot = Size::default();
        if let (Some(first), Some(last)) = (series.ring.first_from(boundary(self.sealed, id)), series.ring.last()) {
            let step = half_life.left(StepIndex(0), StepIndex(1));
            let sum = (first.0..=last.0).fold(0.0, |sum, at| sum * step + series.ring.get(StepIndex(at)) as f64);
            hot = Size { at: last, sum };
        }
        series.sealed.left(now, half_life) + hot.left(now, half_life)
    }

    /// The sizes of the series with a place of the tenant of `key`, without what others are folded into.
    pub(crate) fn sizes_of_tenant(&self, key: &SeriesKey, now: StepIndex, half_life: HalfLife) -> Vec<(f64, SeriesId)> {
        let from_here = self.ids.range::<SeriesKey, _>(key..).take_while(|(of, _)| of.tenant == key.tenant);
        let before = self.ids.range::<SeriesKey, _>(..key).rev().take_while(|(of, _)| of.tenant == key.tenant);
        let own = from_here.chain(before).filter(|(of, id)| of.transaction_type.as_str() != OTHER && self.is_awake(**id));
        own.map(|(_, id)| (self.size(*id, now, half_life), *id)).collect()
    }

    /// The sizes of the series that are not cold, ascending by key.
    pub(crate) fn warm_sizes(&self, now: StepIndex, half_life: HalfLife) -> Vec<(SeriesKey, f64)> {
        self.iter(Which::Warm(0), None).map(|(id, series)| ((*series.key).clone(), self.size(id, now, half_life))).collect()
    }

    /// Whether the series has lost its place.
    pub(crate) fn is_displaced(&self, id: SeriesId) -> bool {
        self.series.get(&id).is_some_and(|series| series.displaced)
    }

    /// Takes the series' place away; its key, if it is known.
    pub(crate) fn displace(&mut self, id: SeriesId) -> Option<&SeriesKey> {
        let series = self.series.get_mut(&id)?;
        series.displaced = true;
        self.warm.remove(&*series.key);
        if std::mem::take(&mut series.awake) {
            self.awake_total -= 1;
            if let Some(awake) = self.awake.get_mut(&series.key.tenant) {
                *awake -= 1;
            }
        }
        Some(&series.key)
    }

    /// Gives the series a place again, which its next count wakes it in; its key, if it is known.
    pub(crate) fn give_back(&mut self, id: SeriesId) -> Option<&SeriesKey> {
        let series = self.series.get_mut(&id)?;
        series.displaced = false;
        Some(&series.key)
    }

    /// Drops from memory what is in columns.
    pub(crate) fn set_sealed(&mut self, sealed: Sealed) {
        self.sealed = Some(sealed);
        for (id, series) in &mut self.series {
            series.ring.forget_before(sealed.boundary(*id));
        }
    }

    /// Closes `step`, and all before it, for the series of `which`.
    pub(crate) fn close(&mut self, step: StepIndex, which: Which) -> ClosePart {
        let revised = std::mem::take(&mut self.revised);
        let revised = revised.into_iter().filter_map(|(id, step)| Some(((*self.series.get(&id)?.key).clone(), step))).collect();
        self.closed = self.closed.max(Some(step));
        if let Which::Warm(steps) = which {
            let from = step.offset(-steps);
            self.warm.retain(|_, warm| self.series.get(&warm.id).is_some_and(|series| series.awake && series.last >= Some(from)));
        }
        let mut woken = BTreeSet::new();
        for warm in self.warm.values_mut().filter(|warm| warm.fresh) {
            warm.fresh = false;
            woken.extend(self.series.get(&warm.id).filter(|series| series.since < step).map(|series| (*series.key).clone()));
        }
        let (mut counts, mut cold) = (vec![], vec![]);
        for (id, series) in self.iter(which, None) {
            if step < boundary(self.sealed, id) && Some(step) >= self.from {
                cold.push((counts.len(), id));
            }
            counts.push(((*series.key).clone(), series.ring.get(step) as f64));
        }
        ClosePart { closed: Closed { step, counts, revised, woken }, cold }
    }

    /// The last closed step of this life.
    pub(crate) fn closed(&self) -> Option<StepIndex> {
        self.closed
    }

    /// See [`super::HistoryHandle::window`].
    pub(crate) fn window(&self, key: &SeriesKey, until: StepIndex, steps: usize) -> Option<Part> {
        let id = self.id(key)?;
        Some(self.window_of(id, self.series.get(&id)?, until, steps))
    }

    /// See [`super::HistoryHandle::windows_after`] and [`super::HistoryHandle::warm_windows`].
    pub(crate) fn windows(&self, page: &Page) -> Vec<(SeriesKey, Part)> {
        let wanted = self.iter(page.which, page.after.as_ref()).take(page.most);
        wanted.map(|(id, series)| ((*series.key).clone(), self.window_of(id, series, page.until, page.steps))).collect()
    }

    fn window_of(&self, id: SeriesId, series: &Series, until: StepIndex, steps: usize) -> Part {
        let asked = until.offset(1).offset(-i64::try_from(steps).unwrap_or(i64::MAX));
        let from = asked.max(series.since).max(self.from.unwrap_or(asked));
        let split = boundary(self.sealed, id).clamp(from.min(until.offset(1)), until.offset(1));
        Part { id, cold: (from, split), hot: (split.0..=until.0).map(|step| series.ring.get(StepIndex(step)) as f64).collect() }
    }

    /// What memory has of the steps from `from` to `until`, and the series' id.
    pub(crate) fn hot(&self, key: &SeriesKey, from: StepIndex, until: StepIndex) -> Option<Hot> {
        let id = self.id(key)?;
        let series = self.series.get(&id)?;
        let first = series.ring.first_from(from.max(boundary(self.sealed, id)));
        let steps = first.map_or(0..0, |first| first.0..until.offset(1).0.min(series.ring.last().map_or(first.0, |last| last.0 + 1)));
        Some((id, series.since, steps.map(|step| (StepIndex(step), series.ring.get(StepIndex(step)))).collect()))
    }

    /// The series of `which` after one, ascending by key.
    fn iter(&self, which: Which, after: Option<&SeriesKey>) -> impl Iterator<Item = (SeriesId, &Series)> {
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let (awake, warm) = match which {
            Which::Awake => (Some(self.ids.range::<SeriesKey, _>(from)), None),
            Which::Warm(_) => (None, Some(self.warm.range::<SeriesKey, _>(from))),
        };
        let ids = awake.into_iter().flatten().map(|(_, id)| *id).chain(warm.into_iter().flatten().map(|(_, warm)| warm.id));
        ids.filter_map(|id| Some((id, self.series.get(&id)?))).filter(|(_, series)| series.awake)
    }
}
