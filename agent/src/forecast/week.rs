//! What a week ago was, in blocks: seven seasons, where a season is a day.
//!
//! Work days and days off differ in most traffic, and a season cannot know it. A week of steps would take 40 KB a series at steps of a
//! minute; so the mean of each block of a hundredth of a season is kept, which is as fine as what a week ago tells.
//!
//! Read next: [`super::experts`], of which some learn how much to believe it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Seasons in a week.
const SEASONS: u64 = 7;
/// A season has at most so many blocks: a quarter of an hour of a day.
const BLOCKS: u64 = 96;
/// Blocks on each side that are averaged with the one that is asked for.
const NEIGHBOURS: u64 = 1;

/// The last week and a block.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LastWeek {
    season: u64,
    /// Steps in a block.
    block: u64,
    /// The means of whole blocks, and the season's mean at the end of each, oldest first.
    blocks: VecDeque<(f32, f32)>,
    capacity: usize,
    /// Of the block that is not whole yet.
    sum: f64,
    seen: u64,
}

impl LastWeek {
    /// A season of `season` steps, at least 1.
    pub(crate) fn new(season: usize) -> Self {
        let season = (season as u64).max(1);
        let block = season.div_ceil(BLOCKS);
        let capacity = ((SEASONS * season).div_ceil(block) + 2 * NEIGHBOURS + 2) as usize;
        Self { season, block, blocks: VecDeque::new(), capacity, sum: 0.0, seen: 0 }
    }

    /// Whether it is of this season.
    pub(crate) fn fits(&self, season: usize) -> bool {
        self.season == season as u64 && self.block == self.season.div_ceil(BLOCKS) && self.blocks.len() as u64 <= self.seen / self.block
    }

    /// Learns the next step's value, which makes the last season's mean `mean`.
    pub(crate) fn observe(&mut self, value: f64, mean: f64) {
        self.sum += value;
        self.seen += 1;
        if self.seen.is_multiple_of(self.block) {
            if self.blocks.len() == self.capacity {
                self.blocks.pop_front();
            }
            self.blocks.push_back(((self.sum / self.block as f64) as f32, mean as f32));
            self.sum = 0.0;
        }
    }

    /// How far the step a week before the one `ahead` (0: the last one) lay above the mean of the season that was known a week before the
    /// last one. Nothing if there was no whole season then.
    pub(crate) fn above_mean(&self, ahead: usize) -> Option<f64> {
        // Steps count from 0; `seen` is the next.
        let week = SEASONS * self.season;
        let now = self.seen.checked_sub(1 + week).filter(|now| *now >= self.season)?;
        // As many weeks ago as lie ahead.
        let then = now + if ahead == 0 { 0 } else { (ahead as u64 - 1) % week + 1 };
        let (_, known) = self.number(now / self.block)?;
        let middle = then / self.block;
        let around = middle.saturating_sub(NEIGHBOURS)..=middle + NEIGHBOURS;
        let add = |(sum, count): (f64, f64), block: (f32, f32)| (sum + f64::from(block.0), count + 1.0);
        let (sum, count) = around.filter_map(|number| self.number(number)).fold((0.0, 0.0), add);
        (count > 0.0).then(|| sum / count - f64::from(known))
    }

    fn number(&self, block: u64) -> Option<(f32, f32)> {
        let first = self.seen / self.block - self.blocks.len() as u64;
        self.blocks.get(usize::try_from(block.checked_sub(first)?).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_the_day_off_to_come() {
        for season in [4, 480] {
            let mut week = LastWeek::new(season);
            // Six days at 10, one at 2.
            let value = |step: usize| if step / season % 7 == 6 { 2.0 } else { 10.0 };
            let mean = |step: usize| (0..season).map(|back| value(step.saturating_sub(back))).sum::<f64>() / season as f64;
            let until = 13 * season;
            for step in 0..until {
                assert!(step >= 8 * season || week.above_mean(1).is_none(), "step {step}");
                week.observe(value(step), mean(step));
            }
            assert_eq!(week.above_mean(season / 2), Some(-8.0), "season {season}");
            assert!(week.blocks.len() <= week.capacity && week.capacity < 700);
        }
    }
}
