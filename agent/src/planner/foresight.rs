//! How many units to want, from the demand of one series alone: a predictive distribution for every step of the lead, and the rule
//! that makes a total of it.
//!
//! **Distribution.** Several opinions, each a centre and the window of what demand lay above it (filtered historical simulation:
//! Barone-Adesi et al. 1999), are weighted by their pinball loss of late, for every probability by itself: see `panel`.
//!
//! **Rule.** One more unit is worth its price where the probability that demand exceeds it is at least a shadow price, the same for all
//! units of all series (newsvendor with a common budget). New units are ordered for the step at the end of the lead; units that exist are
//! kept for every step sooner that wants them, since giving them back would mean to start anew.
//!
//! Pure: no clock, no chance. The memory of one series is bounded by its season and by eight windows a step of the lead (some 260 KB).
//! Read next: [`super::tuner`].

mod model;
mod panel;
mod ridge;
mod series;
mod window;

use panel::Panel;
use series::Series;
use std::collections::VecDeque;

/// The longest lead, in steps: longer ones are treated like it.
const MAX_LEAD: usize = 48;
/// The longest season that is remembered.
const MAX_SEASON: usize = 20_000;

/// A forecast's distributions for one series, learned as it goes.
#[derive(Debug, Clone)]
pub struct Foresight {
    series: Series,
    steps: Vec<Panel>,
}

impl Foresight {
    /// For orders that are ready `lead` steps on (1 to 48), with a season of so many steps if there is one.
    pub fn new(lead: usize, season: Option<usize>) -> Self {
        let lead = lead.clamp(1, MAX_LEAD);
        let season = season.filter(|season| (2..=MAX_SEASON).contains(season));
        Self { series: Series::new(lead, season), steps: (1..=lead).map(Panel::new).collect() }
    }

    /// The lead in steps.
    pub fn lead(&self) -> usize {
        self.steps.len()
    }

    /// One step's demand, in units; what is negative or no number counts as none.
    pub fn observe(&mut self, demand: f64) {
        let demand = if demand.is_finite() { demand.max(0.0) } else { 0.0 };
        self.series.push(demand);
        for step in &mut self.steps {
            step.observe(&self.series);
        }
    }

    /// The demand that is exceeded with probability `late` at `ahead` steps from now (1 to the lead), in units. It tends to be a little too
    /// high: a mean of quantiles is wider than the best of them.
    pub fn upper(&self, ahead: usize, late: f64) -> f64 {
        let Some(step) = self.steps.get(ahead.wrapping_sub(1)) else { return 0.0 };
        step.upper(late)
    }
}

/// Totals named one after the other. See the module for the rule.
#[derive(Debug, Clone)]
pub struct Totals {
    /// The last `lead - 1` totals, the newest last.
    recent: VecDeque<u16>,
    lead: usize,
}

impl Totals {
    /// For orders that are ready `lead` steps on.
    pub fn new(lead: usize) -> Self {
        let lead = lead.clamp(1, MAX_LEAD);
        Self { recent: VecDeque::with_capacity(lead), lead }
    }

    /// The next total in units, `upper` being what is wanted 1, 2, .. lead steps from now.
    pub fn next(&mut self, upper: impl Fn(usize) -> f64) -> u16 {
        let whole = |demand: f64| (demand + 0.5).floor().clamp(0.0, f64::from(u16::MAX)) as u16;
        let mut total = whole(upper(self.lead));
        // What would be ready k steps on if it is kept: wanted without a break in the last lead - k decisions.
        let mut standing = u16::MAX;
        for (i, before) in self.recent.iter().rev().enumerate() {
            standing = standing.min(*before);
            total = total.max(standing.min(whole(upper(self.lead - 1 - i))));
        }
        self.recent.push_back(total);
        if self.recent.len() >= self.lead {
            self.recent.pop_front();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_exceeds_the_upper_quantile_no_more_often_than_promised() {
        let mut state = 1u64;
        let mut foresight = Foresight::new(2, Some(24));
        let (mut promised, mut over) = (VecDeque::from([f64::MAX; 2]), 0);
        for t in 0..6_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 11) as f64 / (1u64 << 53) as f64;
            let demand = 30.0 + 20.0 * (f64::from(t) * std::f64::consts::TAU / 24.0).sin() + 10.0 * noise;
            foresight.observe(demand);
            promised.push_back(foresight.upper(2, 0.1));
            let then = promised.pop_front().unwrap();
            over += u32::from(t >= 1_000 && demand > then);
        }
        assert!((200..550).contains(&over), "{over} of 5000");
        assert!(foresight.upper(2, 0.01) >= foresight.upper(2, 0.1) && foresight.upper(9, 0.1) == 0.0);
    }

    #[test]
    fn what_stands_is_kept_for_a_need_within_the_lead_and_nothing_new_is_ordered_for_it() {
        let mut totals = Totals::new(3);
        assert_eq!(totals.next(|k| [9.0, 9.0, 4.0][k - 1]), 4, "too late to order for steps 1 and 2");
        assert_eq!(totals.next(|_| 4.0), 4);
        assert_eq!(totals.next(|k| [5.0, 3.0, 1.0][k - 1]), 4, "the next step wants 5, 4 will be ready");
        assert_eq!(totals.next(|k| [2.4, 1.0, 1.0][k - 1]), 2);
        assert_eq!(totals.next(|k| [1.0, 3.0, 1.0][k - 1]), 2);
        assert_eq!(Totals::new(1).next(|_| f64::NAN), 0);
    }

    #[test]
    fn memory_is_bounded_and_nothing_breaks_it() {
        let mut foresight = Foresight::new(1, None);
        for t in 0..5_000u32 {
            foresight.observe(match t % 5 {
                0 => f64::NAN,
                1 => -3.0,
                2 => 1e12,
                _ => 0.0,
            });
        }
        assert!(foresight.upper(1, 0.01).is_finite());
        assert!(foresight.series.recent.len() <= foresight.series.keep);
    }
}
