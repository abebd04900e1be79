//! Direct regression for each horizon: what the deviation from the mean day will be, from what it is.
//!
//! For each of a few horizons `h` one linear model says how far the step `h` ahead will lie from the season's mean and
//! shape, from the deviation of the last step, its averages over the last few and the last many steps, and the
//! deviation that the same step had one season ago, and from what came a week ago ([`super::week`]): the direct strategy of multi-step forecasting (Ben Taieb, Bontempi, Atiya and
//! Sorjamaa 2012, section 2.2), an autoregression on lags and seasonal lags. Coefficients are learnt by recursive least
//! squares with forgetting (Ljung, System Identification, 2nd edition, equations 11.16 and 11.17), from a prior in which a deviation
//! fades, on a square-root scale as in [`super::holt_winters`]. Needs two seasons, as the profile does.

use super::expert::{Forecaster, Silent};
use super::horizon::{between, lanes};
use super::profile::SeasonalProfile;
use super::week::LastWeek;
use std::collections::VecDeque;

/// Last deviation, its short and its long average, that of a season ago, and that of a week ago.
const FEATURES: usize = 5;
/// Gains of the two averages: about five steps and about thirty.
const AVERAGES: [f64; 2] = [0.2, 0.03];
/// The prior says that of a deviation this share is left a step later.
const PRIOR_FADE: f64 = 0.97;
/// And of what a week ago came on top of that this share comes again: two weeks do not tell how much, so that it is said beforehand.
const PRIOR_WEEK: f64 = 0.3;
/// How many independent observations the prior is worth.
const PRIOR_WORTH: f64 = 10.0;
/// Memory of the regression: about a thousand steps.
const FORGET: f64 = 0.999;
/// Memory of the deviations' size, which makes the regression unitless.
const SIZE_GAIN: f64 = 0.01;
/// Deviations beyond this many times their usual size are taken as this many (Huber's idea): one flood must not turn the model.
const MAX_DEVIATION: f64 = 4.0;
/// At most so many observations of a horizon wait for their step; longer horizons learn from every few steps only.
const MAX_PENDING: usize = 64;
/// No point beyond this many times the highest root of the last two seasons.
const REACH: f64 = 1.25;

/// Direct ridge regression by horizon.
#[derive(Debug)]
pub(crate) struct DirectRidge {
    season: usize,
    profile: SeasonalProfile,
    week: LastWeek,
    /// Roots of the last two seasons' counts, oldest first.
    recent: VecDeque<f64>,
    deviation: f64,
    averages: [f64; AVERAGES.len()],
    /// Usual size of a deviation.
    size: f64,
    highest: f64,
    lengths: Vec<usize>,
    lines: Vec<Line>,
}

/// The regression at one horizon.
#[derive(Debug)]
struct Line {
    stride: u64,
    pending: VecDeque<Pending>,
    coefficients: [f64; FEATURES],
    /// The inverse of the information matrix.
    covariance: [[f64; FEATURES]; FEATURES],
}

#[derive(Debug)]
struct Pending {
    about: u64,
    base: f64,
    size: f64,
    features: [f64; FEATURES],
}

impl DirectRidge {
    /// For steps up to `horizon` ahead and a season of `season` steps.
    pub(crate) fn new(horizon: usize, season: usize) -> Self {
        let lengths = lanes(horizon);
        Self {
            season: season.max(1),
            profile: SeasonalProfile::new(season),
            week: LastWeek::new(season),
            recent: VecDeque::new(),
            deviation: 0.0,
            averages: [0.0; AVERAGES.len()],
            size: 0.0,
            highest: 0.0,
            lines: lengths.iter().map(|ahead| Line::new(*ahead)).collect(),
            lengths,
        }
    }

    /// The level and shape that the step `ahead` would have without deviation.
    fn base(&self, ahead: usize) -> f64 {
        self.profile.mean() + self.profile.deviation(ahead)
    }

    /// How far, a week ago, the step `ahead` lay from where the deviation of then, fading, would have left it.
    fn week_ago(&self, ahead: usize) -> f64 {
        let deviation = |ahead: usize| Some(self.week.above_mean(ahead)? - self.profile.deviation(ahead));
        match (deviation(ahead), deviation(0)) {
            (Some(came), Some(was)) => came - was * PRIOR_FADE.powi(i32::try_from(ahead).unwrap_or(i32::MAX)),
            _ => 0.0,
        }
    }

    fn features(&self, ahead: usize) -> [f64; FEATURES] {
        let unit = self.size.max(f64::MIN_POSITIVE);
        // The step one season before, or as many seasons as lie ahead.
        let ago = self.season - (ahead.max(1) - 1) % self.season;
        let then = self.recent.len().checked_sub(ago).and_then(|at| self.recent.get(at));
        let then = then.map_or(0.0, |then| then - self.base(ahead));
        let week = self.week_ago(ahead);
        [self.deviation, self.averages[0], self.averages[1], then, week].map(|value| (value / unit).clamp(-MAX_DEVIATION, MAX_DEVIATION))
    }
}

impl Forecaster for DirectRidge {
    fn name(&self) -> &'static str {
        "direct-ridge"
    }

    fn observe(&mut self, count: f64) {
        let value = count.max(0.0).sqrt();
        let number = self.profile.seen() + 1;
        self.lines.iter_mut().for_each(|line| line.learn(number, value));
        self.profile.observe(value);
        self.week.observe(value, self.profile.mean());
        if self.recent.len() == 2 * self.season {
            self.recent.pop_front();
        }
        self.recent.push_back(value);
        // The highest fades as the past is forgotten, without a scan at each step.
        self.highest = value.max(self.highest * (1.0 - 0.5 / (2 * self.season) as f64));
        self.deviation = value - self.base(0);
        let fading_in = 1.0 / number as f64;
        for (average, gain) in self.averages.iter_mut().zip(AVERAGES) {
            *average += gain.max(fading_in) * (self.deviation - *average);
        }
        self.size += SIZE_GAIN.max(fading_in) * (self.deviation.abs() - self.size);
        if self.ready(1).is_err() || self.size <= 0.0 {
            return;
        }
        for at in 0..self.lines.len() {
            if number.is_multiple_of(self.lines[at].stride) {
                let ahead = self.lengths[at];
                let (base, features) = (self.base(ahead), self.features(ahead));
                self.lines[at].pending.push_back(Pending { about: number + ahead as u64, base, size: self.size, features });
            }
        }
    }

    fn ready(&self, _ahead: usize) -> Result<(), Silent> {
        if self.profile.ready() { Ok(()) } else { Err(Silent::TooShort { seen: self.profile.seen(), needed: self.profile.needed() }) }
    }

    fn point(&self, ahead: usize) -> f64 {
        let place = between(&self.lengths, ahead);
        let features = self.features(ahead);
        let (low, high) = (self.lines[place.lower].says(&features), self.lines[place.upper].says(&features));
        let root = self.base(ahead) + self.size * (low + place.share * (high - low));
        let root = root.clamp(0.0, REACH * self.highest);
        root * root
    }
}

impl Line {
    fn new(ahead: usize) -> Self {
        let mut coefficients = [0.0; FEATURES];
        coefficients[0] = PRIOR_FADE.powi(i32::try_from(ahead).unwrap_or(i32::MAX));
        coefficients[FEATURES - 1] = PRIOR_WEEK;
        // Errors `ahead` steps ahead overlap: so many of them are worth one.
        let variance = 1.0 / (PRIOR_WORTH * (ahead as f64).sqrt());
        let covariance = std::array::from_fn(|row| std::array::from_fn(|column| if row == column { variance } else { 0.0 }));
        Self { stride: ahead.div_ceil(MAX_PENDING) as u64, pending: VecDeque::new(), coefficients, covariance }
    }

    fn says(&self, features: &[f64; FEATURES]) -> f64 {
        self.coefficients.iter().zip(features).map(|(coefficient, feature)| coefficient * feature).sum()
    }

    fn learn(&mut self, number: u64, value: f64) {
        let Some(told) = self.pending.pop_front_if(|told| told.about <= number) else { return };
        let target = ((value - told.base) / told.size).clamp(-MAX_DEVIATION, MAX_DEVIATION);
        let error = target - self.says(&told.features);
        let moved: [f64; FEATURES] = std::array::from_fn(|row| self.covariance[row].iter().zip(&told.features).map(|(p, x)| p * x).sum());
        let scale = FORGET + moved.iter().zip(&told.features).map(|(m, x)| m * x).sum::<f64>();
        self.coefficients.iter_mut().zip(&moved).for_each(|(coefficient, m)| *coefficient += m / scale * error);
        let spent: f64 = (0..FEATURES).map(|at| self.covariance[at][at]).sum();
        // While nothing moves, forgetting alone would let the covariance grow without bound.
        let forget = if spent < 1.0 { FORGET } else { 1.0 };
        for (row, of) in self.covariance.iter_mut().zip(&moved) {
            row.iter_mut().zip(&moved).for_each(|(p, m)| *p = (*p - of * m / scale) / forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(at: usize) -> f64 {
        let mixed = (at as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roots around 20 whose deviation from it keeps `share` of itself from step to step.
    fn fed(share: f64) -> DirectRidge {
        let (mut expert, mut deviation) = (DirectRidge::new(8, 12), 0.0);
        for at in 0..3_000 {
            deviation = share * deviation + 4.0 * (noise(at) - 0.5);
            expert.observe((20.0_f64 + deviation).powi(2));
        }
        expert
    }

    #[test]
    fn it_learns_how_long_a_deviation_lasts() {
        let kept = |share, ahead: usize| {
            let (mut expert, size) = (fed(share), 5.0);
            let before = expert.point(ahead).sqrt();
            expert.observe((20.0_f64 + size).powi(2));
            (expert.point(ahead).sqrt() - before) / size
        };
        assert!(kept(0.9, 1) > kept(0.2, 1) + 0.3, "{} {}", kept(0.9, 1), kept(0.2, 1));
        assert!(kept(0.2, 8) < 0.3, "{}", kept(0.2, 8));
    }

    #[test]
    fn it_says_what_it_needs_and_stays_in_reach() {
        let mut expert = DirectRidge::new(8, 4);
        (0..7).for_each(|_| expert.observe(9.0));
        assert_eq!(expert.ready(1), Err(Silent::TooShort { seen: 7, needed: 8 }));
        (0..200).for_each(|_| expert.observe(9.0));
        assert!((expert.point(3) - 9.0).abs() < 1e-6);
        expert.observe(1e12);
        assert!((1..9).all(|ahead| expert.point(ahead) <= REACH * REACH * 1e12));
        (0..5_000).for_each(|_| expert.observe(0.0));
        assert!(expert.point(8).is_finite() && expert.lines.iter().all(|line| line.pending.len() <= MAX_PENDING));
    }
}
