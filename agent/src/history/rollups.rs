//! Counts per series and step, in memory. Pure.
//!
//! Invariant: holds exactly what was committed, for as long as it is kept; a step that was closed
//! and counted again afterwards is reported as revised by the next close, once.

use super::ring::Ring;
use crate::marks::{bug, sometimes};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use tradewind_protocol::{SeriesKey, StepIndex};

/// Stands for a series in the file: given out once, and again only after every count of the series
/// that had it is gone.
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
}

/// All series.
#[derive(Debug, Default)]
pub(crate) struct Rollups {
    ids: BTreeMap<SeriesKey, SeriesId>,
    series: BTreeMap<SeriesId, Series>,
    /// Steps before this one are forgotten.
    from: Option<StepIndex>,
    newest: Option<StepIndex>,
    closed: Option<StepIndex>,
    revised: BTreeMap<SeriesId, StepIndex>,
}

#[derive(Debug)]
struct Series {
    key: SeriesKey,
    /// The earliest step that ever had a count: from there on, no count means none.
    since: StepIndex,
    ring: Ring,
}

impl Rollups {
    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The series' id, if it is known.
    pub(crate) fn id(&self, key: &SeriesKey) -> Option<SeriesId> {
        self.ids.get(key).copied()
    }

    /// The lowest id above all that are in use.
    pub(crate) fn next_id(&self) -> SeriesId {
        SeriesId(self.series.last_key_value().map_or(0, |(id, _)| id.0.saturating_add(1)))
    }

    /// The newest step that has a count.
    pub(crate) fn newest(&self) -> Option<StepIndex> {
        self.newest
    }

    /// Makes a series known, or known since another step.
    pub(crate) fn insert(&mut self, id: SeriesId, key: SeriesKey, since: StepIndex) {
        match self.series.entry(id) {
            Entry::Occupied(mut known) => known.get_mut().since = since,
            Entry::Vacant(room) => {
                self.ids.insert(key.clone(), id);
                room.insert(Series { key, since, ring: Ring::default() });
            }
        }
    }

    /// The series' key, and since when it is known.
    pub(crate) fn get(&self, id: SeriesId) -> Option<(&SeriesKey, StepIndex)> {
        self.series.get(&id).map(|series| (&series.key, series.since))
    }

    /// The step before which everything is forgotten, if anything is.
    pub(crate) fn from(&self) -> Option<StepIndex> {
        self.from
    }

    /// Counts, and notes the series as revised if the step is closed.
    pub(crate) fn add(&mut self, id: SeriesId, step: StepIndex, count: u64) {
        let Some(series) = self.series.get_mut(&id) else { return };
        if bug!("late-counts-dropped") && Some(step) <= self.closed {
            return;
        }
        let step = if bug!("rollup-off-by-one") { step.offset(1) } else { step };
        series.ring.add(step, count);
        self.newest = self.newest.max(Some(step));
        if Some(step) <= self.closed {
            sometimes!("ingest.late-record-counted");
            let earliest = self.revised.entry(id).or_insert(step);
            *earliest = step.min(*earliest);
        }
    }

    /// The series that have no count from `step` on.
    pub(crate) fn silent_since(&self, step: StepIndex) -> BTreeSet<SeriesId> {
        self.series.iter().filter(|(_, series)| series.ring.last() < Some(step)).map(|(id, _)| *id).collect()
    }

    /// Drops all counts before `step`, and the series `gone`.
    pub(crate) fn forget(&mut self, step: StepIndex, gone: &BTreeSet<SeriesId>) {
        self.from = Some(step);
        for id in gone {
            self.revised.remove(id);
            if let Some(series) = self.series.remove(id) {
                self.ids.remove(&series.key);
            }
        }
        for series in self.series.values_mut() {
            series.ring.forget_before(step);
        }
    }

    /// Closes `step`, and all before it.
    pub(crate) fn close(&mut self, step: StepIndex) -> Closed {
        let revised = std::mem::take(&mut self.revised);
        let revised = revised.into_iter().filter_map(|(id, step)| Some((self.series.get(&id)?.key.clone(), step))).collect();
        self.closed = self.closed.max(Some(step));
        let counts = self.iter().map(|series| (series.key.clone(), series.ring.get(step) as f64)).collect();
        Closed { step, counts, revised }
    }

    /// The last closed step of this life.
    pub(crate) fn closed(&self) -> Option<StepIndex> {
        self.closed
    }

    /// See [`super::HistoryHandle::window`].
    pub(crate) fn window(&self, key: &SeriesKey, until: StepIndex, steps: usize) -> Vec<f64> {
        let series = self.id(key).and_then(|id| self.series.get(&id));
        series.map(|series| self.window_of(series, until, steps)).unwrap_or_default()
    }

    /// See [`super::HistoryHandle::windows`].
    pub(crate) fn windows(&self, until: StepIndex, steps: usize) -> Vec<(SeriesKey, Vec<f64>)> {
        self.iter().map(|series| (series.key.clone(), self.window_of(series, until, steps))).collect()
    }

    fn window_of(&self, series: &Series, until: StepIndex, steps: usize) -> Vec<f64> {
        let asked = until.offset(1).offset(-i64::try_from(steps).unwrap_or(i64::MAX));
        let from = asked.max(series.since).max(self.from.unwrap_or(asked));
        (from.0..=until.0).map(|step| series.ring.get(StepIndex(step)) as f64).collect()
    }

    /// All series, ascending by key.
    fn iter(&self) -> impl Iterator<Item = &Series> {
        self.ids.values().filter_map(|id| self.series.get(id))
    }
}
