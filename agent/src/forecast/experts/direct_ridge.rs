//! Direct regression for each horizon: what the deviation from the mean day will be, from what it is.
//!
//! For each of a few horizons `h` one linear model says how far the step `h` ahead will lie from the season's mean and
//! shape, from the deviation of the last step, its averages over the last few and the last many steps, and the
//! deviation that the same step had one season ago, and from what the mean week says: the direct strategy of multi-step forecasting (Ben Taieb, Bontempi, Atiya and
//! Sorjamaa 2012, section 2.2), an autoregression on lags and seasonal lags. Coefficients are learnt by recursive ridge
//! regression ([`super::regression`]) from a prior in which a deviation fades, on the square-root scale of [`Past`]. Needs two seasons, as the
//! shape of the season does.

use super::super::horizon::{between, lanes};
use super::regression::Regression;
use super::{Forecaster, Past, Silent};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Last deviation, its short and its long average, that of a season ago, and that of the mean week.
const FEATURES: usize = 5;
/// Gains of the two averages: about five steps and about thirty.
const AVERAGES: [f64; 2] = [0.2, 0.03];
/// The prior says that of a deviation this share is left a step later.
const PRIOR_FADE: f64 = 0.97;
/// And of what the mean week has on top of that this share comes again: two weeks do not tell how much, so that it is said beforehand.
const PRIOR_WEEK: f64 = 0.5;
/// How many independent observations the prior is worth.
const PRIOR_WORTH: f64 = 10.0;
/// Memory of the regression: about a thousand steps.
const FORGET: f64 = 0.999;
/// Memory of the deviations' size, which makes the regression unitless.
const SIZE_GAIN: f64 = 0.01;
/// Deviations beyond this many times their usual size are taken as this many (Huber's idea): one flood must not turn the model.
/// A day off lies five of them from a working day, so that 4 loses it: 2 % on road traffic.
const MAX_DEVIATION: f64 = 6.0;
/// At most so many observations of a horizon wait for their step; longer horizons learn from every few steps only.
const MAX_PENDING: usize = 64;
/// No point beyond this many times the highest root of the last two seasons.
const REACH: f64 = 1.25;

/// Direct ridge regression by horizon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DirectRidge {
    deviation: f64,
    averages: [f64; AVERAGES.len()],
    /// Usual size of a deviation.
    size: f64,
    highest: f64,
    lengths: Vec<usize>,
    lines: Vec<Line>,
}

/// The regression at one horizon.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    stride: u64,
    pending: VecDeque<Pending>,
    regression: Regression<FEATURES>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    about: u64,
    base: f64,
    size: f64,
    features: [f64; FEATURES],
}

impl DirectRidge {
    /// For steps up to `horizon` ahead.
    pub(crate) fn new(horizon: usize) -> Self {
        let lengths = lanes(horizon);
        let lines = lengths.iter().map(|ahead| Line::new(*ahead)).collect();
        Self { deviation: 0.0, averages: [0.0; AVERAGES.len()], size: 0.0, highest: 0.0, lines, lengths }
    }

    /// Whether it is of this horizon.
    pub(super) fn fits(&self, horizon: usize) -> bool {
        self.lengths == lanes(horizon) && self.lines.len() == self.lengths.len() && self.lines.iter().all(|line| line.stride > 0)
    }

    fn features(&self, past: &Past, ahead: usize) -> [f64; FEATURES] {
        let unit = self.size.max(f64::MIN_POSITIVE);
        let then = past.root_a_season_before(ahead).map_or(0.0, |then| then - base(past, ahead));
        let week = mean_week(past, ahead);
        [self.deviation, self.averages[0], self.averages[1], then, week].map(|value| (value / unit).clamp(-MAX_DEVIATION, MAX_DEVIATION))
    }
}

/// The level and shape that the step `ahead` would have without deviation.
fn base(past: &Past, ahead: usize) -> f64 {
    past.mean() + past.deviation(ahead)
}

/// How far, in the mean week, the step `ahead` lies from where the deviation of now, fading, would leave it.
fn mean_week(past: &Past, ahead: usize) -> f64 {
    match (past.mean_week(ahead), past.mean_week(0)) {
        (Some(then), Some(now)) => {
            then - base(past, ahead) - (now - base(past, 0)) * PRIOR_FADE.powi(i32::try_from(ahead).unwrap_or(i32::MAX))
        }
        _ => 0.0,
    }
}

impl Forecaster for DirectRidge {
    fn name(&self) -> &'static str {
        "direct-ridge"
    }

    fn observe(&mut self, past: &Past) {
        let (value, number) = (past.root(), past.seen());
        self.lines.iter_mut().for_each(|line| line.learn(number, value));
        // The highest fades as the past is forgotten, without a scan at each step.
        self.highest = value.max(self.highest * (1.0 - 0.5 / (2 * past.season()) as f64));
        self.deviation = value - base(past, 0);
        let fading_in = 1.0 / number as f64;
        for (average, gain) in self.averages.iter_mut().zip(AVERAGES) {
            *average += gain.max(fading_in) * (self.deviation - *average);
        }
        self.size += SIZE_GAIN.max(fading_in) * (self.deviation.abs() - self.size);
        if self.ready(past, 1).is_err() || self.size <= 0.0 {
            return;
        }
        for at in 0..self.lines.len() {
            if number.is_multiple_of(self.lines[at].stride) {
                let ahead = self.lengths[at];
                let (base, features) = (base(past, ahead), self.features(past, ahead));
                self.lines[at].pending.push_back(Pending { about: number + ahead as u64, base, size: self.size, features });
            }
        }
    }

    fn ready(&self, past: &Past, _ahead: usize) -> Result<(), Silent> {
        Silent::until(past.shape_needs(), past)
    }

    fn point(&self, past: &Past, ahead: usize) -> f64 {
        let place = between(&self.lengths, ahead);
        let features = self.features(past, ahead);
        let says = |lane: usize| self.lines[lane].regression.says(&features);
        let (low, high) = (says(place.lower), says(place.upper));
        let root = base(past, ahead) + self.size * (low + place.share * (high - low));
        let root = root.clamp(0.0, REACH * self.highest);
        root * root
    }
}

impl Line {
    fn new(ahead: usize) -> Self {
        let mut prior = [0.0; FEATURES];
        prior[0] = PRIOR_FADE.powi(i32::try_from(ahead).unwrap_or(i32::MAX));
        prior[FEATURES - 1] = PRIOR_WEEK;
        // Errors `ahead` steps ahead overlap: so many of them are worth one.
        let variance = 1.0 / (PRIOR_WORTH * (ahead as f64).sqrt());
        Self { stride: ahead.div_ceil(MAX_PENDING) as u64, pending: VecDeque::new(), regression: Regression::new(prior, variance, FORGET) }
    }

    fn learn(&mut self, number: u64, value: f64) {
        let Some(told) = self.pending.pop_front_if(|told| told.about <= number) else { return };
        let target = ((value - told.base) / told.size).clamp(-MAX_DEVIATION, MAX_DEVIATION);
        self.regression.learn(&told.features, target);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;
    use crate::testing::noise;

    /// Roots around 20 whose deviation from it keeps `share` of itself from step to step.
    fn fed(share: f64) -> Told<DirectRidge> {
        let (mut told, mut deviation) = (Told::new(DirectRidge::new(8), 12), 0.0);
        for at in 0..3_000 {
            deviation = share * deviation + 4.0 * (noise(at) - 0.5);
            told.observe((20.0_f64 + deviation).powi(2));
        }
        told
    }

    #[test]
    fn it_learns_how_long_a_deviation_lasts() {
        let kept = |share, ahead: usize| {
            let (mut told, size) = (fed(share), 5.0);
            let before = told.point(ahead).sqrt();
            told.observe((20.0_f64 + size).powi(2));
            (told.point(ahead).sqrt() - before) / size
        };
        assert!(kept(0.9, 1) > kept(0.2, 1) + 0.3, "{} {}", kept(0.9, 1), kept(0.2, 1));
        assert!(kept(0.2, 8) < 0.3, "{}", kept(0.2, 8));
    }

    #[test]
    fn it_says_what_it_needs_and_stays_in_reach() {
        let mut told = Told::new(DirectRidge::new(8), 4);
        (0..7).for_each(|_| told.observe(9.0));
        assert_eq!(told.ready(1), Err(Silent::TooShort { seen: 7, needed: 8 }));
        (0..200).for_each(|_| told.observe(9.0));
        assert!((told.point(3) - 9.0).abs() < 1e-6);
        told.observe(1e12);
        assert!((1..9).all(|ahead| told.point(ahead) <= REACH * REACH * 1e12));
        (0..5_000).for_each(|_| told.observe(0.0));
        assert!(told.point(8).is_finite() && told.expert.lines.iter().all(|line| line.pending.len() <= MAX_PENDING));
    }
}
