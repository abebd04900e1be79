//! One horizon of one series: what was said, what came, and how wide the interval has to be.
//!
//! A lane keeps what it said until the step it spoke of is closed, then learns from it: the mix's
//! weights, the window of the last errors, and the levels at which quantiles are read from that
//! window. Errors are kept in units of the lane's *spread*, a power of the predicted level times what is usual at that time of the day and the
//! week ([`super::rhythm`]), so that those of a quiet night and of a busy noon can stand in one window.
//!
//! The levels are adaptive conformal inference (Gibbs and Candes 2021, equation 2), one for each
//! quantile: when the actual lies at or below the quantile more often than the quantile promises,
//! the level falls by a small step, otherwise it rises. Coverage so tends to what was promised,
//! whatever the series does.

use super::blend::{Blend, Rows};
use super::errors::ErrorWindow;
use super::experts::EXPERTS;
use super::mix::Mix;
use super::rhythm::Rhythm;
use super::widths::Widths;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tradewind_protocol::Quantile;

/// How many errors a lane remembers: ten of them lie beyond the 99 % quantile. Measured on recorded
/// traffic, 600 cost 1 to 2 % more pinball loss and 300 cost 7 %, 2,000 gain nothing; 1,000 take 8 KiB a lane.
const WINDOW: usize = 1_000;
/// With fewer errors than this a lane leans on its shorter neighbour: with 20, one lies in each
/// tail of 90 %.
const MIN_ERRORS: usize = 20;
/// The most predictions of a lane that wait for their step. Longer lanes speak every few steps only;
/// a day ahead, neighbouring steps tell the same.
const MAX_PENDING: usize = 64;
/// Step size of the conformal levels. The authors use 0.005. On recorded traffic at 5 min, 15 min and 1 h,
/// 0.003, 0.01 and 0.02 cost more pinball loss, 0.0015 no less; 0.002 finds its coverage again within a
/// few hundred steps of a change (a test).
const LEVEL_GAIN: f64 = 0.002;
/// Levels stay within these, so that a long calm cannot wind them up.
const LEVELS: (f64, f64) = (0.001, 0.999);
/// Errors `h` steps ahead overlap, so `n` of them are worth `n / h`; intervals are widened by
/// `1 + INFLATION / (n / h)`, as Student's distribution widens those from few samples. At one step and
/// a full window that is nothing. On validation data 1, 3 and 8 lose 0.6 % less and 0.7 and 4 % more in the mean; 1 loses more on backbone traffic, and 8 makes
/// intervals a day ahead of road traffic twice as wide as they have to be.
pub(super) const INFLATION: f64 = 2.0;
/// With so many independent errors their median, by which what is said is moved, is believed half. A month of hours has as many, a day
/// ahead: before, it is the accident of a few days and adds to the error (believed at once it costs 4 % on validation data, on series of two weeks 18 %).
const BIAS: f64 = 50.0;
/// The same for errors that are only expected, of few losses: what is known of them is their mean alone.
const FEW: f64 = 0.5;
/// No fewer independent losses than this are said to be known.
const FEWEST: f64 = 0.3;
/// The mean absolute error of a normal distribution with standard deviation 1, inverted.
const DEVIATION: f64 = 1.253_314;
/// Standard normal quantiles at the grid.
pub(super) const NORMAL: [f64; QUANTILES] =
    [-1.644_854, -1.281_552, -0.674_490, 0.0, 0.674_490, 1.281_552, 1.644_854, 1.959_964, 2.326_348];
/// From so many seasons on the window of errors is believed the more, and from so many on alone: until then it holds errors of a mix that did
/// not know the season. Series of 20 to 288 steps that were told from their first step; levels and widths are learnt from the window throughout.
const GROWING: (f64, f64) = (2.0, 4.0);
/// Memory of the spread, as of the losses of a mix.
const SPREAD_GAIN: f64 = 0.01;
/// Half-width of the first 90 % interval, in spreads, before anything has been learnt.
const PRIOR: f64 = 1.0;
/// Errors beyond this many spreads are kept as this many: one flood after silence must not make all
/// later intervals absurd.
pub(super) const MAX_ERROR: f64 = 20.0;

/// Where the median stands among the quantiles.
pub(super) const MEDIAN: usize = 3;
/// Where the ends of the central 90 % interval stand.
const INTERVAL_90: [usize; 2] = [0, 6];
/// The number of quantiles that a lane forecasts.
pub(super) const QUANTILES: usize = Quantile::GRID.len();

/// One horizon of one series.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lane {
    ahead: usize,
    stride: u64,
    pending: VecDeque<Said>,
    mix: Mix,
    errors: ErrorWindow,
    rhythm: Rhythm,
    levels: [f64; QUANTILES],
    /// The levels' values in the window of errors, in spreads.
    offsets: [f64; QUANTILES],
    /// What is said while the series is young: see [`GROWING`].
    young: [f64; QUANTILES],
    /// How many forecasts were judged, and their mean spread.
    judged: u64,
    spread: f64,
    blend: Blend,
    widths: Widths,
    tally: Tally,
}

/// Memory of how good a lane was: about 200 of its forecasts.
const TALLY_GAIN: f64 = 0.005;

/// How good a lane was of late.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// How many of its forecasts were judged.
    pub(super) judged: u64,
    /// Share of what came that lay within the central 90 % interval.
    pub(super) coverage_90: f64,
    /// Mean absolute error of the median, and that of seasonal naive.
    pub(super) error: f64,
    pub(super) seasonal_naive_error: f64,
}

impl Tally {
    fn learn(&mut self, said: &Saying, seasonal_naive: f64, actual: f64) {
        self.judged += 1;
        let gain = TALLY_GAIN.max(1.0 / self.judged as f64);
        let [low, high] = interval_90(&said.published);
        let covered = if (low..=high).contains(&actual) { 1.0 } else { 0.0 };
        self.coverage_90 += gain * (covered - self.coverage_90);
        self.error += gain * ((actual - f64::from(said.published[MEDIAN])).abs() - self.error);
        self.seasonal_naive_error += gain * ((actual - seasonal_naive).abs() - self.seasonal_naive_error);
    }
}

/// What a lane said about one step.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    about: u64,
    saying: Saying,
}

/// What is said of one step. Much of it waits for its step at any time, so that what need not be exact is narrow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saying {
    /// What the experts say; not a number from the silent.
    pub(super) points: [f32; EXPERTS.len()],
    pub(super) point: f64,
    pub(super) spread: f64,
    /// How much of the spread is owed to the time of the step.
    pub(super) rhythm: f64,
    /// What each member of the blend says: the lane itself first, by its window of errors alone.
    pub(super) rows: Rows,
    /// What the window of errors alone makes of them: widths are learnt from that.
    pub(super) settled: Row,
    pub(super) quantiles: Row,
    /// What the series' forecast was in the end, which is what is judged: other models may have had a say in it.
    pub(super) published: Row,
}

/// Quantiles that are kept.
pub(super) type Row = [f32; QUANTILES];

/// The ends of the central 90 % interval.
pub(super) fn interval_90(row: &Row) -> [f64; 2] {
    INTERVAL_90.map(|at| f64::from(row[at]))
}

impl Lane {
    pub(super) fn new(ahead: usize, experts: usize, season: usize) -> Self {
        Self {
            ahead,
            stride: ahead.div_ceil(MAX_PENDING) as u64,
            pending: VecDeque::new(),
            mix: Mix::new(experts),
            errors: ErrorWindow::new(WINDOW),
            rhythm: Rhythm::new(season),
            levels: Quantile::GRID.map(Quantile::probability),
            offsets: prior(),
            young: prior(),
            judged: 0,
            spread: 0.0,
            blend: Blend::new(),
            widths: Widths::default(),
            tally: Tally::default(),
        }
    }

    /// Whether it is one of `experts` experts and of this season, and whole.
    pub(super) fn fits(&self, experts: usize, season: usize) -> bool {
        self.stride > 0 && self.mix.experts() == experts && self.rhythm.fits(season)
    }

    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    pub(super) fn mix(&self) -> &Mix {
        &self.mix
    }

    /// How good it was of late, where seasonal naive spoke as well.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn blend(&self) -> &Blend {
        &self.blend
    }

    pub(super) fn widths(&self) -> &Widths {
        &self.widths
    }

    /// What the window of errors says.
    pub(super) fn offsets(&self) -> &[f64; QUANTILES] {
        &self.offsets
    }

    /// What is said: the same, but of a young series.
    pub(super) fn said(&self) -> &[f64; QUANTILES] {
        &self.young
    }

    /// Learns that step `number`, counted from 1, in seasons of `season` steps, closed with `actual`, of which seasonal naive said this if
    /// anything, and returns what had been said about it.
    pub(super) fn learn(&mut self, number: u64, season: usize, actual: f64, seasonal_naive: Option<f64>) -> Option<Saying> {
        let said = self.pending.pop_front_if(|said| said.about <= number)?.saying;
        if let Some(naive) = seasonal_naive {
            self.tally.learn(&said, naive, actual);
        }
        self.mix.learn(&said.points, actual);
        self.rhythm.learn(number, (actual - said.point).abs() / said.spread * said.rhythm);
        self.errors.push(((actual - said.point) / said.spread).clamp(-MAX_ERROR, MAX_ERROR));
        self.judged += 1;
        self.spread += SPREAD_GAIN.max(1.0 / self.judged as f64) * (said.spread - self.spread);
        self.blend.learn(self.ahead as f64, number as f64 / season as f64, &said.rows, actual);
        self.widths.learn(&said.settled, actual, self.stride as f64, self.ahead as f64);
        for ((level, q), value) in self.levels.iter_mut().zip(Quantile::GRID).zip(said.rows[0]) {
            let inside = if actual <= f64::from(value) { 1.0 } else { 0.0 };
            *level = (*level + LEVEL_GAIN * (q.probability() - inside)).clamp(LEVELS.0, LEVELS.1);
        }
        Some(said)
    }

    /// Forgets what was said of steps to come.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }

    /// Reads the levels from the window, leaning on the next shorter lane's offsets while there are few errors.
    pub(super) fn settle(&mut self, shorter: Option<(usize, [f64; QUANTILES])>) {
        let seen = self.errors.len();
        let trust = (seen as f64 / MIN_ERRORS as f64).min(1.0);
        let fallback = self.longer(shorter);
        let independent = (seen as f64 * self.stride as f64 / self.ahead as f64).max(1.0);
        let inflation = 1.0 + INFLATION / independent;
        let believed = independent / (independent + BIAS);
        let own = self.levels.map(|level| self.errors.quantile(level).unwrap_or(0.0));
        for (at, offset) in self.offsets.iter_mut().enumerate() {
            let inflated = believed * own[MEDIAN] + inflation * (own[at] - own[MEDIAN]);
            *offset = trust * inflated + (1.0 - trust) * fallback[at];
        }
        // Levels move independently of each other and may cross.
        self.offsets.sort_by(f64::total_cmp);
    }

    /// Whether the window of errors of a series that is so many seasons old is not believed alone yet.
    pub(super) fn is_young(age: f64) -> bool {
        age < GROWING.1
    }

    /// Sees what is said of a series that is `age` seasons old: while it is young, what the losses of those that have the weights now let
    /// expect, and without losses what the next shorter lane says. Weights are not looked at otherwise.
    pub(super) fn grow(&mut self, shorter: Option<(usize, [f64; QUANTILES])>, weights: &[f64], age: f64) {
        self.young = self.offsets;
        let (from, to) = GROWING;
        if Self::is_young(age) {
            let expected = self.expected(weights).unwrap_or_else(|| self.longer(shorter));
            let share = ((age - from) / (to - from)).max(0.0);
            self.young.iter_mut().zip(expected).for_each(|(said, expected)| *said = share * *said + (1.0 - share) * expected);
        }
    }

    /// The offsets of a shorter lane at this one's horizon. A random walk's errors grow with the root of the horizon.
    fn longer(&self, shorter: Option<(usize, [f64; QUANTILES])>) -> [f64; QUANTILES] {
        let times = |ahead: usize| (self.ahead as f64 / ahead as f64).sqrt();
        shorter.map_or_else(prior, |(ahead, offsets)| offsets.map(|offset| offset * times(ahead)))
    }

    /// Normal offsets with the mean error that the experts' losses let expect, once there are any.
    fn expected(&self, weights: &[f64]) -> Option<[f64; QUANTILES]> {
        let loss = self.mix.expected_loss(weights).filter(|_| self.spread > 0.0)?;
        let independent = (self.judged as f64 * self.stride as f64 / self.ahead as f64).max(FEWEST);
        let deviation = DEVIATION * loss / self.spread * (1.0 + FEW / independent);
        Some(NORMAL.map(|z| (z * deviation).clamp(-MAX_ERROR, MAX_ERROR)))
    }

    /// How much wider than usual errors are at step `number`.
    pub(super) fn rhythm(&self, number: u64) -> f64 {
        self.rhythm.factor(number)
    }

    /// Whether the lane wants to say something after step `number`.
    pub(super) fn speaks_after(&self, number: u64) -> bool {
        number.is_multiple_of(self.stride)
    }

    /// Remembers what was said after step `number`.
    pub(super) fn say(&mut self, number: u64, saying: Saying) {
        self.pending.push_back(Said { about: number + self.ahead as u64, saying });
    }

    /// Remembers what was published after step `number`, if it spoke after it.
    pub(super) fn published(&mut self, number: u64, row: Row) {
        if let Some(said) = self.pending.back_mut().filter(|said| said.about == number + self.ahead as u64) {
            said.saying.published = row;
        }
    }
}

/// Offsets before anything has been learnt: a triangle around the point.
fn prior() -> [f64; QUANTILES] {
    Quantile::GRID.map(|q| PRIOR * (q.probability() - 0.5) / 0.45)
}

#[cfg(test)]
mod tests {
    use super::super::blend::MEMBERS;
    use super::*;

    /// One expert's point, a spread of 1, and the lane's quantiles, which nobody else adds to.
    fn saying(point: f64, quantiles: [f64; QUANTILES]) -> Saying {
        let (mut rows, mut points) = ([[f32::NAN; QUANTILES]; MEMBERS], [f32::NAN; EXPERTS.len()]);
        let quantiles = quantiles.map(|value| value as f32);
        (rows[0], points[0]) = (quantiles, point as f32);
        Saying { points, point, spread: 1.0, rhythm: 1.0, rows, settled: quantiles, quantiles, published: quantiles }
    }

    #[test]
    fn the_median_is_where_it_is_said_to_be() {
        assert_eq!(Quantile::GRID[MEDIAN], Quantile::MEDIAN);
        assert_eq!((Quantile::GRID[INTERVAL_90[0]], Quantile::GRID[INTERVAL_90[1]]), Quantile::CENTRAL_90);
    }

    #[test]
    fn a_lane_learns_only_of_the_step_it_spoke_about() {
        let mut lane = Lane::new(2, 1, 1);
        lane.say(10, saying(5.0, [5.0; QUANTILES]));
        lane.say(11, saying(6.0, [6.0; QUANTILES]));
        assert!(lane.learn(11, 1, 99.0, None).is_none());
        assert_eq!(lane.learn(12, 1, 7.0, None).map(|said| said.point), Some(5.0));
        assert_eq!(lane.errors.quantile(0.5), Some(2.0));
        assert_eq!(lane.learn(13, 1, 7.0, None).map(|said| said.point), Some(6.0));
    }

    #[test]
    fn a_lane_is_judged_beside_seasonal_naive_by_its_own_horizon() {
        let mut lane = Lane::new(2, 1, 1);
        let quantiles = std::array::from_fn(|at| 10.0 + at as f64);
        for (number, actual) in [(1, 12.0), (2, 30.0), (3, 30.0)] {
            lane.say(number, saying(13.0, quantiles));
            lane.learn(number + 2, 1, actual, if number < 3 { Some(20.0) } else { None });
        }
        let Tally { judged, coverage_90, error, seasonal_naive_error } = *lane.tally();
        assert_eq!((judged, coverage_90, error, seasonal_naive_error), (2, 0.5, (1.0 + 17.0) / 2.0, (8.0 + 10.0) / 2.0));
    }

    #[test]
    fn what_was_published_is_judged() {
        let mut lane = Lane::new(2, 1, 1);
        lane.say(1, saying(13.0, [13.0; QUANTILES]));
        lane.published(1, [30.0; QUANTILES]);
        // Of a step that it said nothing about.
        lane.published(2, [99.0; QUANTILES]);
        lane.learn(3, 1, 30.0, Some(20.0));
        assert_eq!((lane.tally().coverage_90, lane.tally().error), (1.0, 0.0));
        assert_eq!(lane.errors.quantile(0.5), Some(17.0), "and learns from what it said itself");
    }

    #[test]
    fn levels_rise_where_the_quantile_promises_too_much() {
        let mut lane = Lane::new(1, 1, 1);
        for number in 0..50 {
            lane.say(number, saying(5.0, [5.0; QUANTILES]));
            lane.learn(number + 1, 1, 8.0, None);
        }
        assert!(lane.levels.iter().zip(Quantile::GRID).all(|(level, q)| *level >= q.probability()));
        assert!(lane.levels[MEDIAN] > 0.54);
    }

    #[test]
    fn a_lane_without_errors_leans_on_its_shorter_neighbour() {
        let mut lane = Lane::new(4, 1, 1);
        lane.settle(Some((1, prior())));
        let wider: Vec<f64> = prior().iter().map(|offset| 2.0 * offset).collect();
        assert_eq!(lane.offsets().to_vec(), wider, "a random walk's error at four steps is twice that at one");
    }

    #[test]
    fn a_bias_is_believed_as_far_as_there_are_independent_errors_of_it() {
        let median = |ahead: usize, errors: u64| {
            let mut lane = Lane::new(ahead, 1, 1);
            for number in 0..errors {
                lane.say(number, saying(5.0, [5.0; QUANTILES]));
                lane.learn(number + ahead as u64, 1, 15.0, None);
            }
            lane.settle(Some((1, [0.0; QUANTILES])));
            lane.offsets()[MEDIAN]
        };
        assert!((median(1, 1_000) - 9.5).abs() < 0.1 && median(1, 25) < 3.5, "{} {}", median(1, 1_000), median(1, 25));
        assert!(median(24, 240) < 2.0, "ten days, a day ahead: {}", median(24, 240));
    }

    #[test]
    fn a_young_lane_takes_its_width_from_what_its_experts_lose() {
        let mut lane = Lane::new(1, 1, 1);
        for number in 0..8 {
            lane.say(number, saying(100.0, [100.0; QUANTILES]));
            lane.learn(number + 1, 20, if number % 2 == 0 { 92.0 } else { 108.0 }, None);
        }
        lane.settle(None);
        lane.grow(None, &[1.0], 0.4);
        let (said, deviation) = (lane.said(), DEVIATION * 8.0);
        assert!((1.0..1.2).contains(&(said[6] / (1.645 * deviation))) && said[MEDIAN] == 0.0, "{said:?}");
        lane.grow(None, &[1.0], 4.0);
        assert_eq!(lane.said(), lane.offsets(), "grown up");
    }

    #[test]
    fn a_long_lane_speaks_seldom_and_keeps_little() {
        let mut lane = Lane::new(1_000, 1, 1);
        for number in 0..5_000 {
            if lane.speaks_after(number) {
                lane.say(number, saying(1.0, [1.0; QUANTILES]));
            }
            lane.learn(number + 1, 1, 1.0, None);
            assert!(lane.pending.len() <= MAX_PENDING);
        }
        assert!(lane.errors.len() > 200);
    }
}
