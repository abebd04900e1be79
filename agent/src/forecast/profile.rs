//! The shape of a season, learned online by classical decomposition.
//!
//! Slot `i` holds how far a step lies above or below the season around it: the step's value less the
//! mean of the season that is centred on it (Hyndman and Athanasopoulos, section 3.4). A centred
//! mean is known half a season late, which costs nothing, since the slot is asked for again only
//! half a season after that. Values are whatever the user of the profile decomposes: it uses a
//! transformed scale.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A slot forgets its past days at this rate once it has seen enough of them. 0.2 is a memory of
/// about five days: weekdays dominate, and a changed habit is learned in a week.
const SLOT_GAIN: f64 = 0.2;

/// A slot takes the mean over its neighbours within this share of the season (half an hour of a
/// day on each side): single steps are noise, and the shape of a day is smooth.
const NEIGHBOUR_SHARE: usize = 48;

/// The shape of a season.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SeasonalProfile {
    season: usize,
    neighbours: usize,
    /// The last season and the values before it that the neighbours need, oldest first.
    recent: VecDeque<f64>,
    /// Sum of the newest `season` of `recent`.
    sum: f64,
    slots: Vec<f64>,
    /// How many seasons each slot has seen, up to where it stops mattering.
    visits: Vec<u8>,
    seen: u64,
}

impl SeasonalProfile {
    /// A season of `season` steps, at least 1.
    pub(crate) fn new(season: usize) -> Self {
        let season = season.max(1);
        Self {
            season,
            neighbours: season / NEIGHBOUR_SHARE,
            recent: VecDeque::with_capacity(season),
            sum: 0.0,
            slots: vec![0.0; season],
            visits: vec![0; season],
            seen: 0,
        }
    }

    /// Whether it is of this season.
    pub(crate) fn fits(&self, season: usize) -> bool {
        [self.season, self.slots.len(), self.visits.len()] == [season; 3] && self.recent.len() <= season
    }

    /// Learns the next step's value.
    pub(crate) fn observe(&mut self, value: f64) {
        if self.recent.len() == self.season {
            self.sum -= self.recent.pop_front().unwrap_or(0.0);
        }
        self.recent.push_back(value);
        self.sum += value;
        self.seen += 1;
        if self.seen.is_multiple_of(self.season as u64) {
            // Once a season the sum is taken afresh, so that rounding does not add up.
            self.sum = self.recent.iter().sum();
        }
        if self.recent.len() == self.season {
            self.learn_centre();
        }
    }

    /// Whether every slot has been seen.
    pub(crate) fn ready(&self) -> bool {
        self.seen >= self.needed()
    }

    /// How many steps make it ready.
    pub(crate) fn needed(&self) -> u64 {
        2 * self.season as u64
    }

    /// The mean of the last season.
    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.recent.len().max(1) as f64
    }

    /// How far the step `ahead` after the last one lies above the season's mean; 0 is the last one.
    pub(crate) fn deviation(&self, ahead: usize) -> f64 {
        if !self.ready() {
            return 0.0;
        }
        // Step number `seen` (counting from 0) is the next.
        let slot = (self.seen + ahead as u64).wrapping_sub(1) % self.season as u64;
        self.slots[slot as usize]
    }

    fn learn_centre(&mut self) {
        let middle = self.season / 2;
        let (from, to) = (middle.saturating_sub(self.neighbours), (middle + self.neighbours + 1).min(self.season));
        let around = self.recent.range(from..to).sum::<f64>() / (to - from) as f64;
        let first = self.seen - self.season as u64;
        let slot = ((first + middle as u64) % self.season as u64) as usize;
        self.visits[slot] = self.visits[slot].saturating_add(1);
        let gain = (1.0 / f64::from(self.visits[slot])).max(SLOT_GAIN);
        self.slots[slot] += gain * (around - self.mean() - self.slots[slot]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_the_shape_and_forgets_the_level() {
        let mut profile = SeasonalProfile::new(4);
        for step in 0..400 {
            let level = if step < 200 { 10.0 } else { 50.0 };
            profile.observe(level + [1.0, 0.0, -1.0, 0.0][step % 4]);
        }
        // Step 400 is the next: slot 0.
        let shape: Vec<f64> = (1..=4).map(|ahead| profile.deviation(ahead)).collect();
        for (got, wanted) in shape.iter().zip([1.0, 0.0, -1.0, 0.0]) {
            assert!((got - wanted).abs() < 1e-3, "{shape:?}");
        }
        assert!((profile.mean() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn it_says_nothing_of_a_season_it_has_not_seen_twice() {
        let mut profile = SeasonalProfile::new(3);
        for value in [1.0, 2.0, 9.0, 1.0, 2.0] {
            profile.observe(value);
            assert!(!profile.ready());
            assert_eq!(profile.deviation(1), 0.0);
        }
        profile.observe(9.0);
        assert!(profile.ready());
    }
}
