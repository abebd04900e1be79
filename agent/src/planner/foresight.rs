//! How high the demand of one series may be: a predictive distribution for every step of the lead.
//!
//! Several opinions, each a centre and the window of what demand lay above it (filtered historical simulation: Barone-Adesi et al. 1999), are
//! weighted by their pinball loss of late, for every probability by itself: see `panel`.
//!
//! Pure: no clock, no chance. The memory of one series is bounded by its season, a week of five-minute steps, and by ten windows a step of the lead
//! (some 160 KB).
//! Read next: [`super::own`], which feeds it and asks it.

mod alike;
mod model;
mod panel;
mod ridge;
mod series;
mod window;

use alike::Alike;
use model::{Center, LEAST_SCALE};
use panel::Panel;
pub use panel::{LEVELS, between};
use series::Series;

/// The longest lead, in steps: longer ones are treated like it.
pub const MAX_LEAD: usize = 48;
/// The longest season that is remembered.
const MAX_SEASON: usize = 20_000;

/// No forecast from outside is taken to be higher, in units: its square can still be summed.
const MOST: f64 = 1e9;

/// A forecast's distributions for one series, learned as it goes.
#[derive(Debug, Clone)]
pub struct Foresight {
    series: Series,
    alike: Alike,
    steps: Vec<Panel>,
    known: u64,
}

impl Foresight {
    /// For orders that are ready `lead` steps on (1 to 48), with a season of so many steps if there is one.
    pub fn new(lead: usize, season: Option<usize>) -> Self {
        let lead = lead.clamp(1, MAX_LEAD);
        let season = season.filter(|season| (2..=MAX_SEASON).contains(season));
        let steps = (1..=lead).map(Panel::new).collect();
        Self { series: Series::new(lead, season), alike: Alike::default(), steps, known: 0 }
    }

    /// The lead in steps.
    pub fn lead(&self) -> usize {
        self.steps.len()
    }

    /// One step's demand, in units, if it is known (what is negative or no number counts as none), and what is forecast from outside for
    /// the next steps: median and 95 % quantile of each, as far as it goes.
    pub fn observe(&mut self, demand: Option<f64>, forecast: &[(f64, f64)]) {
        let demand = demand.map(|demand| if demand.is_finite() { demand.max(0.0) } else { 0.0 });
        let within = |value: f64, least: f64| if value.is_nan() { least } else { value.clamp(least, MOST) };
        let center = |(median, upper): &(f64, f64)| Center { location: within(*median, 0.0), scale: within(upper - median, LEAST_SCALE) };
        self.series.forecast.clear();
        self.series.forecast.extend(forecast.iter().take(self.steps.len()).map(center));
        // An unknown step is taken to be like the one before.
        self.series.push(demand.unwrap_or(self.series.ago(0)));
        self.alike.push(&self.series);
        for step in &mut self.steps {
            step.observe(&self.series, &self.alike, demand);
        }
        self.known += u64::from(demand.is_some());
    }

    /// How many steps were known.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// What is foreseen now.
    pub fn foreseen(&self) -> Foreseen {
        Foreseen { steps: self.steps.iter().map(Panel::agreed).collect() }
    }
}

/// What is foreseen of one series' next steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Foreseen {
    steps: Vec<[f32; LEVELS.len()]>,
}

#[cfg(test)]
impl Foreseen {
    /// So much in each step, for certain.
    pub(super) fn certain(steps: &[f32]) -> Self {
        Self { steps: steps.iter().map(|units| [*units; LEVELS.len()]).collect() }
    }
}

impl Foreseen {
    /// The demand that is exceeded with probability `late` at `ahead` steps from now, in units; nothing beyond the lead. It tends to be a
    /// little too high: a mean of quantiles is wider than the best of them.
    pub fn upper(&self, ahead: usize, late: f64) -> Option<f64> {
        Some(between(self.steps.get(ahead.checked_sub(1)?)?, late))
    }

    /// How often demand lies above what is between `from` and `to` units at `ahead` steps from now, on average over that; nothing beyond the lead. Below the
    /// lowest of [`LEVELS`] it is taken to lie never.
    pub fn above(&self, ahead: usize, from: f64, to: f64) -> Option<f64> {
        let levels = self.steps.get(ahead.checked_sub(1)?)?;
        let mut sum = (f64::from(levels[0]).min(to) - from).max(0.0);
        for (demand, late) in levels.windows(2).zip(LEVELS.windows(2)) {
            let (a, b) = (f64::from(demand[0]), f64::from(demand[1]));
            let (low, high) = (a.max(from), b.min(to));
            if high > low {
                let late = |demand: f64| late[0] + (late[1] - late[0]) * (demand - a) / (b - a);
                sum += (high - low) * (late(low) + late(high)) / 2.0;
            }
        }
        Some(sum / (to - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn demand_exceeds_the_upper_quantile_no_more_often_than_promised() {
        let mut state = 1u64;
        let mut foresight = Foresight::new(2, Some(24));
        let (mut promised, mut over) = (VecDeque::from([f64::MAX; 2]), 0);
        for t in 0..6_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 11) as f64 / (1u64 << 53) as f64;
            let demand = 30.0 + 20.0 * (f64::from(t) * std::f64::consts::TAU / 24.0).sin() + 10.0 * noise;
            foresight.observe(Some(demand), &[]);
            promised.push_back(foresight.foreseen().upper(2, 0.1).unwrap());
            let then = promised.pop_front().unwrap();
            over += u32::from(t >= 1_000 && demand > then);
        }
        assert!((200..550).contains(&over), "{over} of 5000");
        let foreseen = foresight.foreseen();
        assert!(foreseen.upper(2, 0.01) >= foreseen.upper(2, 0.1) && foreseen.upper(9, 0.1).is_none() && foreseen.upper(0, 0.1).is_none());
    }

    #[test]
    fn how_often_demand_is_above_is_the_mean_over_what_lies_between() {
        // Uniform between 0 and 10.
        let uniform = Foreseen { steps: vec![LEVELS.map(|late| 10.0 * (1.0 - late) as f32)] };
        let above = |from, to| uniform.above(1, from, to).unwrap();
        assert!((above(5.0, 6.0) - 0.45).abs() < 1e-6 && (above(4.5, 9.5) - 0.3).abs() < 1e-6, "{} {}", above(5.0, 6.0), above(4.5, 9.5));
        assert_eq!((above(1.0, 2.0), above(11.0, 12.0), uniform.above(2, 0.0, 1.0)), (1.0, 0.0, None));
        assert!((Foreseen::certain(&[3.0]).above(1, 2.0, 4.0).unwrap() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_lone_burst_is_over_and_a_new_level_stays() {
        let upper = |demand: &dyn Fn(usize) -> f64| {
            let mut foresight = Foresight::new(2, None);
            (0..1_500).for_each(|t| foresight.observe(Some(demand(t) + (t * 7_919 % 11) as f64 / 5.0), &[]));
            (foresight.foreseen().upper(1, 0.2).unwrap(), foresight.foreseen().upper(2, 0.2).unwrap())
        };
        // At the end, what has come once in 37 steps, for a step each time; and what has come once in 300, for a hundred.
        let bursts = upper(&|t| if (1_499 - t) % 37 == 0 { 60.0 } else { 5.0 });
        let levels = upper(&|t| if t % 300 >= 200 { 60.0 } else { 5.0 });
        assert!(bursts.0 < 30.0 && bursts.1 < 30.0, "{bursts:?}");
        assert!(levels.0 > 55.0 && levels.1 > 55.0, "{levels:?}");
    }

    #[test]
    fn memory_is_bounded_and_nothing_breaks_it() {
        let mut foresight = Foresight::new(1, None);
        for t in 0..5_000u32 {
            let demand = match t % 5 {
                0 => f64::NAN,
                1 => -3.0,
                2 => 1e12,
                _ => 0.0,
            };
            foresight.observe((t % 7 != 0).then_some(demand), &[(1.0, f64::NAN), (f64::INFINITY, 2.0)]);
        }
        assert!(foresight.foreseen().upper(1, 0.01).is_some_and(f64::is_finite));
        assert!(foresight.series.recent.len() <= foresight.series.keep);
    }
}
