//! What a week ago was, and what the mean week is, in blocks: seven seasons, where a season is a day.
//!
//! Work days and days off differ in most traffic, and a season cannot know it. A week of steps would take 40 KB a series at steps of a
//! minute; so the mean of each block of a hundredth of a season is kept, which is as fine as what a week ago tells. The mean week is a classical
//! decomposition with a period of a week: what each block lies above the mean of the week that it ends, over the weeks that were seen.
//!
//! Read next: [`super::experts`], of which some learn how much to believe it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Seasons in a week.
const SEASONS: u64 = 7;
/// A season has at most so many blocks: a quarter of an hour of a day.
const BLOCKS: u64 = 96;
/// Blocks on each side that are averaged with the one that is asked for. None where a season has fewer than [`BLOCKS`] steps: three hours around
/// the one that is asked for would blur the rush hour that a week has to tell (on recorded road traffic a tenth of the loss).
const NEIGHBOURS: u64 = 1;
/// The mean week forgets at this rate once it has seen enough: three weeks. Of 0.2, 0.3 and 0.5 the last loses 1 to 2 % on series of six weeks.
const WEEK_GAIN: f64 = 0.3;

/// The last week and a block, and the mean week.
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
    /// By time of the week: how far a block lies above the mean of the week that it ends.
    shape: Vec<f32>,
    /// Sum of the last week's blocks.
    week_sum: f64,
}

impl LastWeek {
    /// A season of `season` steps, at least 1.
    pub(crate) fn new(season: usize) -> Self {
        let season = (season as u64).max(1);
        let (block, week) = blocks(season);
        let capacity = week + 2 * NEIGHBOURS as usize + 2;
        Self { season, block, blocks: VecDeque::new(), capacity, sum: 0.0, seen: 0, shape: vec![0.0; week], week_sum: 0.0 }
    }

    /// Whether it is of this season.
    pub(crate) fn fits(&self, season: usize) -> bool {
        let season = season as u64;
        let (block, week) = blocks(season);
        (self.season, self.block, self.shape.len()) == (season, block, week)
            && self.blocks.len() == self.capacity.min(self.whole() as usize)
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
            self.learn_week();
        }
    }

    /// How many steps it takes to know a mean week.
    pub(crate) fn needed(&self) -> u64 {
        self.shape.len() as u64 * self.block
    }

    /// What the mean week says of the step `ahead` (0: the last one). Nothing before there was a week.
    pub(crate) fn mean_week(&self, ahead: usize) -> Option<f64> {
        let known = self.seen >= self.needed();
        known.then(|| self.week_sum / self.shape.len() as f64 + f64::from(self.shape[self.slot(self.seen - 1 + ahead as u64)]))
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
        let neighbours = if self.season < BLOCKS { 0 } else { NEIGHBOURS };
        let around = middle.saturating_sub(neighbours)..=middle + neighbours;
        let add = |(sum, count): (f64, f64), block: (f32, f32)| (sum + f64::from(block.0), count + 1.0);
        let (sum, count) = around.filter_map(|number| self.number(number)).fold((0.0, 0.0), add);
        (count > 0.0).then(|| sum / count - f64::from(known))
    }

    /// Takes the last block, which is whole, into the mean week.
    fn learn_week(&mut self) {
        let week = self.shape.len();
        let Some(before) = self.blocks.len().checked_sub(week) else { return };
        let weeks_before = (self.whole() - 1) / week as u64;
        if before == 0 || self.whole().is_multiple_of(week as u64) {
            // Once a week the sum is taken afresh, so that rounding does not add up.
            self.week_sum = self.blocks.range(before..).map(|(block, _)| f64::from(*block)).sum();
        } else {
            self.week_sum += f64::from(self.blocks[self.blocks.len() - 1].0) - f64::from(self.blocks[before - 1].0);
        }
        let mean = self.week_sum / week as f64;
        let gain = WEEK_GAIN.max(1.0 / (1 + weeks_before) as f64);
        // The first week is taken in as a whole, once its mean is known.
        for back in 0..if before == 0 { week } else { 1 } {
            let slot = self.slot(self.seen - 1 - back as u64 * self.block);
            let above = f64::from(self.blocks[self.blocks.len() - 1 - back].0) - mean;
            self.shape[slot] += (gain * (above - f64::from(self.shape[slot]))) as f32;
        }
    }

    /// The place of a step in the week.
    fn slot(&self, step: u64) -> usize {
        (step % (SEASONS * self.season) / self.block) as usize
    }

    /// How many blocks are whole.
    fn whole(&self) -> u64 {
        self.seen / self.block
    }

    fn number(&self, block: u64) -> Option<(f32, f32)> {
        let first = self.whole() - self.blocks.len() as u64;
        self.blocks.get(usize::try_from(block.checked_sub(first)?).ok()?).copied()
    }
}

/// How many steps make a block, and how many blocks a week.
fn blocks(season: u64) -> (u64, usize) {
    let block = season.div_ceil(BLOCKS);
    (block, (SEASONS * season).div_ceil(block) as usize)
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
            assert!(week.blocks.len() <= week.capacity && week.capacity < 700 && week.fits(season));
        }
    }

    #[test]
    fn the_mean_week_is_known_after_one_and_follows_the_level() {
        for season in [4, 24, 97, 480] {
            let mut week = LastWeek::new(season);
            // A rush hour in each of six days; three weeks at one level, then at one that is higher by 5.
            let rush = |step: usize| if step / season % 7 < 6 && step % season / (season / 4) == 1 { 8.0 } else { 0.0 };
            let value = |step: usize| rush(step) + if step < 21 * season { 10.0 } else { 15.0 };
            for step in 0..84 * season {
                week.observe(value(step), 0.0);
                assert_eq!(week.mean_week(1).is_some(), step as u64 + 1 >= week.needed());
            }
            let errors = (1..=7 * season).map(|ahead| (week.mean_week(ahead).unwrap() - value(84 * season - 1 + ahead)).abs());
            // Where blocks do not divide the week, the edges of a rush hour are a step off.
            assert!(errors.sum::<f64>() / ((7 * season) as f64) < 0.3, "season {season}");
        }
    }
}
