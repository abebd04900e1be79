//! Several opinions about the same step, weighted by how well each did of late, for every probability by itself.
//!
//! An opinion is a centre (the last value, a smoothed one, a season ago, the regression's, what the mesh forecasts) and the window of what demand lay above it;
//! one asks only how demand went on where it was like now (`alike`).
//! Which is best depends on the series, on the distance and on the probability asked for: persistence after a level shift, a season in
//! a daily wave, what was ever seen where nothing can be foreseen. Quantiles are averaged with weights that fall with a power of the
//! mean pinball loss of late, which needs no scale and no rate of learning. After a step without demand other opinions are right than after one with some
//! (whether it begins is another question than how it goes on): losses are kept of both apart ([`Record`]).
//!
//! Where all together hold less than the demand seen last, that demand is either over or a new level that none of them knows yet. Both were seen to happen
//! or not: the two are weighed in the same way ([`Stays`]).

use super::alike::{Alike, Rises};
use super::model::{Center, LEAST_SCALE, Model};
use super::series::Series;
use super::window::Window;
use std::collections::VecDeque;

/// Opinions.
const OPINIONS: usize = 10;
/// Probabilities of demand being higher that quantiles are kept for, the highest first.
pub const LEVELS: [f64; 26] = [
    0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.045, 0.03, 0.02, 0.014, 0.01, 0.006, 0.003, 0.0015, 0.0007, 0.0003,
    0.0001, 3e-5, 1e-5, 1e-6, 0.0,
];
/// Beyond this one (0.6 %) losses are too rare to tell opinions apart: its weights hold.
const LAST_JUDGED: usize = 16;
/// The power of the loss with which a weight falls: an opinion whose loss is 10 % higher has a quarter of the weight. This and the next two
/// were chosen on the first 60 % of eight recordings: 12 to 20, 0.997 to 0.999, and 20 to 200 make no difference worth telling.
const POWER: i32 = 14;
/// How fast losses are forgotten: half in about 350 steps.
const FORGET: f64 = 0.998;
/// What a step after some demand counts for in the record of those after none: who has seen none only in an outage takes its end for impossible. Of 0,
/// 0.02, 0.03 and 0.1 the first was late for the most where such an outage ends, the last gained half as much elsewhere.
const ELSEWHERE: f64 = 0.03;
/// The steps that the belief at the beginning counts for.
const PRIOR_STEPS: f64 = 50.0;
/// At the beginning the demand seen last is held to stay: its loss to be this much smaller. Of 1.1 and 1.3 the first cost no persistent series more.
const PRIOR_STAYS: f64 = 1.1;
/// At the beginning the regression is held to be this much better than the others. A guess.
const PRIOR_LOSS: f64 = 1.05;
/// Ratios are those of demand and this many units: next to nothing any ratio is possible.
const RATIO_UNITS: f64 = 2.0;

/// Where an opinion is centred.
#[derive(Debug, Clone, Copy)]
enum Opinion {
    /// The regression's location; what is left is measured by its scale.
    Regression,
    /// The last value.
    Last,
    /// Nothing: demand is what it was before, whenever that was.
    Ever,
    /// A season ago; where there is none a value smoothed over dozens of steps.
    Season,
    /// The higher of the last value and the season's (or a value smoothed over a few steps).
    Higher,
    /// The last value; what is left is a ratio.
    Ratio,
    /// Smoothed over a few steps.
    Fast,
    /// Smoothed over dozens of steps.
    Slow,
    /// The median of what the mesh forecasts; what is left is measured by how wide it says the demand is.
    Forecast,
    /// How demand went on where it was like now.
    Alike,
}

const ALL: [Opinion; OPINIONS] = [
    Opinion::Regression,
    Opinion::Last,
    Opinion::Ever,
    Opinion::Season,
    Opinion::Higher,
    Opinion::Ratio,
    Opinion::Fast,
    Opinion::Slow,
    Opinion::Forecast,
    Opinion::Alike,
];

/// What an opinion is centred on now.
#[derive(Debug, Clone, Copy)]
struct Centers {
    at: [f64; OPINIONS],
    scale: f64,
    /// The same of the forecast.
    forecast_scale: f64,
}

impl Centers {
    fn of(series: &Series, ahead: usize, model: Center) -> Self {
        let forecast = series.forecast.get(ahead - 1).copied().unwrap_or(model);
        let last = series.ago(0);
        let season = series.a_season_ago(ahead);
        let at = ALL.map(|opinion| match opinion {
            Opinion::Regression => model.location,
            Opinion::Last | Opinion::Ratio | Opinion::Alike => last,
            Opinion::Ever => 0.0,
            Opinion::Season => season.unwrap_or(series.slow),
            Opinion::Higher => last.max(season.unwrap_or(series.fast)),
            Opinion::Fast => series.fast,
            Opinion::Slow => series.slow,
            Opinion::Forecast => forecast.location,
        });
        Self { at, scale: model.scale, forecast_scale: forecast.scale }
    }

    /// What demand left of an opinion.
    fn left(&self, i: usize, demand: f64) -> f64 {
        match ALL[i] {
            Opinion::Regression => (demand - self.at[i]) / self.scale,
            Opinion::Forecast => (demand - self.at[i]) / self.forecast_scale,
            Opinion::Ratio => ((demand + RATIO_UNITS) / (self.at[i] + RATIO_UNITS)).ln(),
            Opinion::Last | Opinion::Ever | Opinion::Season | Opinion::Higher | Opinion::Fast | Opinion::Slow | Opinion::Alike => {
                demand - self.at[i]
            }
        }
    }

    /// The demand that an opinion holds to be exceeded with probability `late`.
    fn upper(&self, i: usize, (window, rises): (&Window, &Rises), late: f64) -> f64 {
        let upper = match ALL[i] {
            Opinion::Regression => self.at[i] + self.scale * window.beyond(late),
            Opinion::Forecast => self.at[i] + self.forecast_scale * window.beyond(late),
            Opinion::Ratio => (self.at[i] + RATIO_UNITS) * window.seen(late).exp() - RATIO_UNITS,
            // A tail of what was ever seen has nothing to do with now.
            Opinion::Ever => window.seen(late),
            Opinion::Last | Opinion::Season | Opinion::Higher | Opinion::Fast | Opinion::Slow => self.at[i] + window.beyond(late),
            Opinion::Alike => self.at[i] + rises.upper(late, window.beyond(late)),
        };
        upper.max(0.0)
    }
}

/// What was said about one step to come.
#[derive(Debug, Clone)]
struct Said {
    centers: Centers,
    /// By level and opinion.
    upper: [[f32; OPINIONS]; LEVELS.len()],
    /// By level, what all together held.
    together: [f32; LEVELS.len()],
    /// The demand seen last then.
    last: f32,
}

/// Whether demand that was seen stays, at one level: the pinball losses of late of what all together held, and of the demand seen last, in the steps in
/// which the first was the lower.
#[derive(Debug, Clone, Copy, Default)]
struct Stays {
    together: f64,
    last: f64,
    judged: f64,
}

impl Stays {
    fn judge(&mut self, said: &Said, level: usize, demand: f64) {
        let (together, last) = (said.together[level], said.last);
        if together < last {
            self.together = FORGET * self.together + loss(demand, together, LEVELS[level]);
            self.last = FORGET * self.last + loss(demand, last, LEVELS[level]);
            self.judged = FORGET * self.judged + 1.0;
        }
    }

    /// The part of what all together lack of the demand seen last that is to be provided for.
    fn part(&self) -> f64 {
        let least = self.together.min(self.last).max(1e-9) / self.judged.max(1.0);
        let mean = |loss: f64, prior: f64| loss + PRIOR_STEPS * least * prior;
        1.0 / (1.0 + (mean(self.last, 1.0) / mean(self.together, PRIOR_STAYS)).powi(POWER))
    }
}

/// Pinball losses of late by level and opinion, and the steps they are of.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    losses: [[f64; OPINIONS]; LEVELS.len()],
    judged: f64,
}

impl Record {
    /// Takes in a step that counts for `share` of one.
    fn judge(&mut self, said: &Said, demand: f64, share: f64) {
        let forget = 1.0 - share * (1.0 - FORGET);
        for ((losses, upper), late) in self.losses.iter_mut().zip(&said.upper).zip(LEVELS) {
            for (loss, upper) in losses.iter_mut().zip(upper) {
                *loss = forget * *loss + share * self::loss(demand, *upper, late);
            }
        }
        self.judged = forget * self.judged + share;
    }

    /// What all together hold, by level.
    fn together(&self, upper: &[[f32; OPINIONS]; LEVELS.len()]) -> [f32; LEVELS.len()] {
        let mut highest = 0.0_f32;
        std::array::from_fn(|level| {
            let weights = weights(&self.losses[level.min(LAST_JUDGED)], self.judged);
            let mean = weights.iter().zip(&upper[level]).map(|(weight, upper)| weight * f64::from(*upper)).sum::<f64>();
            highest = highest.max(mean as f32);
            highest
        })
    }
}

/// Whether that is no demand to speak of.
fn is_quiet(demand: f32) -> bool {
    f64::from(demand) <= LEAST_SCALE
}

/// The opinions about the step `ahead` steps from now.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    ahead: usize,
    model: Model,
    windows: [Window; OPINIONS],
    /// Of steps after some demand, and of those after none.
    busy: Record,
    quiet: Record,
    stays: [Stays; LEVELS.len()],
    said: VecDeque<Said>,
    /// What is to be provided for, by level.
    agreed: [f32; LEVELS.len()],
}

impl Panel {
    pub(super) fn new(ahead: usize) -> Self {
        Self {
            ahead,
            model: Model::new(ahead),
            windows: Default::default(),
            busy: Record::default(),
            quiet: Record::default(),
            stays: [Stays::default(); LEVELS.len()],
            said: VecDeque::new(),
            agreed: [0.0; LEVELS.len()],
        }
    }

    /// Judges what was said about the newest step of `series` if its demand is known, and foresees the one `ahead` steps on.
    pub(super) fn observe(&mut self, series: &Series, alike: &Alike, demand: Option<f64>) {
        self.model.learn(demand);
        if self.said.len() >= self.ahead
            && let Some(said) = self.said.pop_front()
            && let Some(demand) = demand
        {
            self.judge(&said, demand);
        }
        let centers = Centers::of(series, self.ahead, self.model.foresee(series));
        let windows = &self.windows;
        let rises = alike.rises(self.ahead);
        let upper = LEVELS.map(|late| std::array::from_fn(|i| centers.upper(i, (&windows[i], &rises), late) as f32));
        let last = series.ago(0) as f32;
        let together = self.record(last).together(&upper);
        let part = |level: usize| self.stays[level.min(LAST_JUDGED)].part() as f32;
        let provided = |level: usize| together[level] + part(level) * (last - together[level]).max(0.0);
        self.agreed = std::array::from_fn(provided);
        // Parts differ from level to level.
        (1..LEVELS.len()).for_each(|level| self.agreed[level] = self.agreed[level].max(self.agreed[level - 1]));
        self.said.push_back(Said { centers, upper, together, last });
    }

    /// What is foreseen, at [`LEVELS`].
    pub(super) fn agreed(&self) -> [f32; LEVELS.len()] {
        self.agreed
    }

    /// Of steps after one with such a demand.
    fn record(&self, last: f32) -> &Record {
        if is_quiet(last) { &self.quiet } else { &self.busy }
    }

    fn judge(&mut self, said: &Said, demand: f64) {
        for (i, window) in self.windows.iter_mut().enumerate() {
            window.push(said.centers.left(i, demand));
        }
        if is_quiet(said.last) {
            self.quiet.judge(said, demand, 1.0);
        } else {
            self.busy.judge(said, demand, 1.0);
            self.quiet.judge(said, demand, ELSEWHERE);
        }
        self.stays.iter_mut().enumerate().for_each(|(level, stays)| stays.judge(said, level, demand));
    }
}

/// The pinball loss of who held `upper` to be exceeded with probability `late`.
fn loss(demand: f64, upper: f32, late: f64) -> f64 {
    let over = demand - f64::from(upper);
    if over > 0.0 { (1.0 - late) * over } else { -late * over }
}

/// The quantile that is exceeded with this probability, in proportion between those at [`LEVELS`].
pub fn between(levels: &[f32; LEVELS.len()], late: f64) -> f64 {
    let above = LEVELS.iter().position(|level| *level <= late).unwrap_or(LEVELS.len() - 1);
    if above == 0 {
        return f64::from(levels[0]);
    }
    let part = (LEVELS[above - 1] - late) / (LEVELS[above - 1] - LEVELS[above]);
    f64::from(levels[above - 1]) * (1.0 - part) + f64::from(levels[above]) * part
}

/// Weights that sum to 1, from losses summed over so many steps.
fn weights(losses: &[f64; OPINIONS], judged: f64) -> [f64; OPINIONS] {
    let least = losses.iter().copied().fold(f64::MAX, f64::min).max(1e-9) / judged.max(1.0);
    let mean: [f64; OPINIONS] = std::array::from_fn(|i| {
        let prior = if i == 0 { 1.0 } else { PRIOR_LOSS };
        (losses[i] + PRIOR_STEPS * least * prior) / (judged + PRIOR_STEPS)
    });
    let best = mean.iter().copied().fold(f64::MAX, f64::min);
    let weights = mean.map(|mean| (best / mean).powi(POWER));
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_opinion_has_the_weight_and_none_is_ever_without() {
        let start = weights(&[0.0; OPINIONS], 0.0);
        assert!(start[0] > start[1] && start[1] == start[7] && (start.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut losses = [200.0; OPINIONS];
        losses[2] = 100.0;
        let later = weights(&losses, 500.0);
        assert!(later[2] > 0.99 && later.iter().all(|weight| weight.is_finite() && *weight > 0.0), "{later:?}");
    }

    #[test]
    fn who_is_right_after_none_is_another_than_who_is_right_after_some() {
        // One opinion always holds nothing, one 60, and the others something between: nothing comes after nothing, and 60 after 60.
        let upper = [std::array::from_fn(|i| [0.0, 60.0].get(i).copied().unwrap_or(30.0)); LEVELS.len()];
        let centers = Centers { at: [0.0; OPINIONS], scale: 1.0, forecast_scale: 1.0 };
        let mut panel = Panel::new(1);
        for _ in 0..100 {
            for last in [0.0, 60.0] {
                panel.judge(&Said { centers, upper, together: [30.0; LEVELS.len()], last }, f64::from(last));
            }
        }
        let (after_none, after_some) = (panel.record(0.0).together(&upper)[8], panel.record(60.0).together(&upper)[8]);
        assert!(after_none < 1.0 && after_some > 59.0, "{after_none} {after_some}");
        assert!(panel.quiet.judged > panel.busy.judged, "a little of it is known from steps after some");
    }

    #[test]
    fn demand_that_was_seen_is_held_to_stay_until_it_was_seen_not_to() {
        let said = Said {
            centers: Centers { at: [0.0; OPINIONS], scale: 1.0, forecast_scale: 1.0 },
            upper: [[0.0; OPINIONS]; LEVELS.len()],
            together: [20.0; LEVELS.len()],
            last: 60.0,
        };
        let seen = |demand: f64, steps: usize| {
            let mut stays = Stays::default();
            (0..steps).for_each(|_| stays.judge(&said, 8, demand));
            stays.part()
        };
        assert!(seen(0.0, 0) > 0.5 && seen(65.0, 100) > 0.99 && seen(15.0, 100) < 0.01, "{}", seen(0.0, 0));
        let mut stays = Stays::default();
        stays.judge(&Said { last: 10.0, ..said }, 8, 5.0);
        assert_eq!(stays.judged, 0.0, "there was nothing to tell them apart");
    }

    #[test]
    fn a_level_shift_is_followed_at_once() {
        // The regression alone takes a jump for a burst that returns: it planned below the demand just seen.
        let mut series = Series::new(2, Some(288));
        let (mut panel, mut alike) = (Panel::new(2), Alike::default());
        let noise = |t: usize| ((t * 7919) % 13) as f64 / 6.0;
        for t in 0..1_200 {
            let burst = if t % 150 == 0 { 40.0 } else { 0.0 };
            series.push(10.0 + noise(t) + burst);
            alike.push(&series);
            panel.observe(&series, &alike, Some(series.ago(0)));
        }
        series.push(85.0);
        alike.push(&series);
        panel.observe(&series, &alike, Some(85.0));
        let upper = between(&panel.agreed(), 0.001);
        assert!(upper > 85.0, "{upper}");
    }
}
