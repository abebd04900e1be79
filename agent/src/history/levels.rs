//! How counts are rolled up and cut into columns: steps, five minutes, hours. Pure.
//!
//! A level's *bucket* is a whole number of steps, and [`CHUNK`] buckets of one series are one column of the file. Counts
//! enter all levels at once, when they leave memory: a bucket holds the sum of its sealed counts, exactly, also after
//! late records.

use super::rollups::SeriesId;
use std::collections::BTreeMap;
use std::time::Duration;
use tradewind_protocol::{Step, StepIndex};

/// Buckets of a column. On recorded traffic pco takes 0.8 bytes a count at 128, 0.6 at 512; but so many steps more
/// stay in memory for every series.
pub(crate) const CHUNK: usize = 128;

/// Steps that stay in memory at least: what closing, the API's charts and most late records ask for.
pub(crate) const SLACK: i64 = 64;

/// How finely counts are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// Step by step.
    Step,
    /// In buckets of five minutes.
    FiveMinutes,
    /// In buckets of an hour.
    Hour,
}

impl Resolution {
    /// All of them, the finest first.
    pub const ALL: [Resolution; 3] = [Resolution::Step, Resolution::FiveMinutes, Resolution::Hour];

    /// Its number in the file: never change.
    pub(crate) fn number(self) -> u8 {
        match self {
            Resolution::Step => 0,
            Resolution::FiveMinutes => 1,
            Resolution::Hour => 2,
        }
    }

    fn length(self, step: Step) -> Duration {
        match self {
            Resolution::Step => step.length(),
            Resolution::FiveMinutes => Duration::from_secs(300),
            Resolution::Hour => Duration::from_secs(3600),
        }
    }
}

/// One level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) resolution: Resolution,
    /// Steps of a bucket.
    pub(crate) factor: i64,
    /// For how many steps its buckets are kept.
    pub(crate) kept_steps: i64,
}

impl Level {
    /// The bucket that `step` falls into.
    pub(crate) fn bucket(&self, step: StepIndex) -> i64 {
        step.0.div_euclid(self.factor)
    }

    /// The column of a bucket, and its place there.
    pub(crate) fn place(bucket: i64) -> (i64, usize) {
        (bucket.div_euclid(CHUNK as i64), bucket.rem_euclid(CHUNK as i64) as usize)
    }

    /// The first column that has anything at or after `step`.
    pub(crate) fn first_column(&self, step: StepIndex) -> i64 {
        Self::place(self.bucket(step)).0
    }
}

/// The levels of one step length: steps always, the others where they are whole numbers of steps and longer than one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Levels([Option<Level>; 3]);

impl Levels {
    /// Levels that keep their buckets for so long, in the order of [`Resolution::ALL`].
    pub(crate) fn new(step: Step, kept: [Duration; 3], max_kept_steps: u32) -> Self {
        let one = step.length().as_millis();
        Self(Resolution::ALL.map(|resolution| {
            let length = resolution.length(step).as_millis();
            let whole = length % one == 0 && (resolution == Resolution::Step || length > one);
            let kept = kept[usize::from(resolution.number())];
            let factor = (length / one) as i64;
            // The bound is one of buckets.
            let most = i64::from(max_kept_steps).saturating_mul(factor);
            whole.then_some(Level { resolution, factor, kept_steps: i64::from(step.count_covering(kept)).min(most) })
        }))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Level> {
        self.0.into_iter().flatten()
    }

    pub(crate) fn get(&self, resolution: Resolution) -> Option<Level> {
        self.0[usize::from(resolution.number())]
    }

    /// For how many steps anything at all is kept.
    pub(crate) fn longest(&self) -> i64 {
        self.iter().map(|level| level.kept_steps).max().unwrap_or(0)
    }
}

/// A column of the file: the level's number, the column's, the series.
pub(crate) type ColumnKey = (u8, i64, SeriesId);

/// What is to be added to columns, by place.
pub(crate) type ColumnAdds = BTreeMap<ColumnKey, BTreeMap<u8, u64>>;

/// Adds a count of `series` to the columns of all levels that still keep `step`.
pub(crate) fn add_to_columns(adds: &mut ColumnAdds, levels: &Levels, newest: StepIndex, series: SeriesId, step: StepIndex, count: u64) {
    if count == 0 {
        return;
    }
    for level in levels.iter().filter(|level| step.0 >= newest.0.saturating_sub(level.kept_steps)) {
        let (column, place) = Level::place(level.bucket(step));
        let sum = adds.entry((level.resolution.number(), column, series)).or_default().entry(place as u8).or_default();
        *sum = sum.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_whole_numbers_of_steps() {
        let levels = |ms| Levels::new(Step::new(Duration::from_millis(ms)).unwrap(), [Duration::from_secs(3600); 3], 1 << 20);
        let factors = |ms| levels(ms).iter().map(|level| level.factor).collect::<Vec<_>>();
        assert_eq!(factors(60_000), [1, 5, 60]);
        assert_eq!(factors(200), [1, 1_500, 18_000]);
        assert_eq!(factors(300_000), [1, 12]);
        assert_eq!(factors(7_000), [1]);
        assert_eq!(factors(3_600_000), [1]);
        assert_eq!(Level::place(-1), (-1, 127));
        assert_eq!(levels(60_000).get(Resolution::Hour).unwrap().bucket(StepIndex(-1)), -1);
    }
}
