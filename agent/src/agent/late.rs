//! When what late records have changed is learnt afresh.
//!
//! To learn a series afresh takes as many steps of work as its window has. The first late records of a series are learnt in
//! the step that they are told of; after that it waits until no more come, so that a backlog is learnt once and whole, but not
//! for ever where records always come late. All told, learning afresh takes at most [`SHARE`] times what closing steps takes.

use crate::marks::sometimes;
use std::collections::{BTreeMap, BTreeSet};
use tradewind_protocol::SeriesKey;

/// How much more may be spent on late records than on records in time. A guess: of a window of 8 days of minutes, twelve hours.
const SHARE: i64 = 16;

/// Steps without a late record after which no more are expected. A guess.
const QUIET: i64 = 4;

/// The series that wait, and those that were learnt lately.
#[derive(Default)]
pub(super) struct Late {
    /// How many steps were closed, or passed while the clock stood behind the last closed one.
    turn: i64,
    series: BTreeMap<SeriesKey, Series>,
}

struct Series {
    /// The turn in which it was last learnt afresh.
    learnt: Option<i64>,
    /// The turn in which late records last came that are not learnt yet.
    changed: Option<i64>,
}

impl Late {
    /// The next turn has come: late records have changed these series.
    pub(super) fn note<'a>(&mut self, revised: impl Iterator<Item = &'a SeriesKey>) {
        self.turn += 1;
        for key in revised {
            let series = self.series.entry(key.clone()).or_insert(Series { learnt: None, changed: None });
            series.changed = Some(self.turn);
        }
    }

    /// The series to be learnt now, if learning one takes `window` steps of work. They count as learnt.
    pub(super) fn take_due(&mut self, window: usize) -> BTreeSet<SeriesKey> {
        let (turn, patience) = (self.turn, window as i64 / SHARE);
        let long_ago = |learnt: Option<i64>| learnt.is_none_or(|learnt| turn - learnt > patience);
        let mut due = BTreeSet::new();
        for (key, series) in &mut self.series {
            let Some(changed) = series.changed else { continue };
            if long_ago(series.learnt) || turn - changed >= QUIET {
                due.insert(key.clone());
                *series = Series { learnt: Some(turn), changed: None };
            } else {
                sometimes!("steps.late-counts-wait");
            }
        }
        self.series.retain(|_, series| series.changed.is_some() || !long_ago(series.learnt));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::{ServiceName, TenantName, TransactionType};

    const WINDOW: usize = 160;

    fn key() -> SeriesKey {
        SeriesKey {
            tenant: TenantName::new("default").unwrap(),
            source: "eu".parse().unwrap(),
            destination: "us".parse().unwrap(),
            service: ServiceName::new("web").unwrap(),
            transaction_type: TransactionType::new("request").unwrap(),
        }
    }

    /// The steps, of so many, in which the series is learnt afresh if late records come in those that `late` says.
    fn learnt(steps: i64, late: impl Fn(i64) -> bool) -> Vec<i64> {
        let (mut waiting, key) = (Late::default(), key());
        let mut in_step = |step: i64| {
            waiting.note(late(step).then_some(&key).into_iter());
            !waiting.take_due(WINDOW).is_empty()
        };
        (0..steps).filter(|step| in_step(*step)).collect()
    }

    #[test]
    fn a_late_record_now_and_then_is_learnt_at_once() {
        assert_eq!(learnt(100, |step| step == 7 || step == 50), [7, 50]);
        assert_eq!(learnt(100, |step| step == 7 || step == 9), [7, 13], "but not twice in a row");
    }

    #[test]
    fn a_backlog_is_learnt_once_it_is_whole() {
        assert_eq!(learnt(100, |step| (10..=15).contains(&step)), [10, 19]);
    }

    #[test]
    fn records_that_always_come_late_cost_a_bounded_share() {
        let times = learnt(1_000, |_| true);
        assert!(times.len() * WINDOW <= 1_000 * SHARE as usize && times.is_sorted_by(|a, b| b - a <= 11), "{times:?}");
    }
}
