//! The forecast of one series: experts, mixed and calibrated by lane.

use super::blend::MEMBERS;
use super::experts::{EXPERTS, Experts, Forecaster, SHARES, SeasonalNaive};
use super::explain::{ExpertExplanation, Explanation, LaneExplanation};
use super::horizon::{between, lanes};
use super::lane::{Lane, MAX_ERROR, QUANTILES, Row, Saying, interval_90};
use super::lean::{self, Lean};
use super::past::Past;
use super::plain::PlainQuantiles;
use super::score::Scores;
use super::widths::{Factors, Widths, widened};
use serde::{Deserialize, Serialize};
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::{QuantilePath, StepIndex};

/// The spread is `(point + SPREAD_FLOOR * mean) ^ SPREAD_POWER`: between errors that do not depend on
/// the level (0) and errors proportional to it (1). A half is what counts do by nature, and measured best.
const SPREAD_POWER: f64 = 0.5;
/// See [`SPREAD_POWER`]: keeps the spread of an empty step from being nothing.
const SPREAD_FLOOR: f64 = 0.1;

/// Turbulence is how large the errors of the last steps are beside the usual ones. Their means forget
/// with these gains: fourteen steps and five hundred.
const RECENT_GAIN: f64 = 0.05;
const USUAL_GAIN: f64 = 0.002;
/// How far the spread follows turbulence: 0 not at all, 1 in proportion.
const TURBULENCE_POWER: f64 = 0.6;
/// Turbulence stays within these.
const TURBULENCE: (f64, f64) = (0.5, 20.0);

/// From so many seasons on, a count beyond both central 90 % intervals, that of the forecast and that around a season ago, is learnt as the
/// nearest end of them where it would be kept for days: in the shapes of the season and the week. So an anomaly weighs the less the farther out it
/// lies, and intervals and what is said of the next steps still see all of it: the cleaning of Gelper, Fried and Croux (2010, Robust
/// forecasting with exponential and Holt-Winters smoothing, section 2.3), where it costs nothing. On validation data it is worth up to 0.2 % of the
/// loss, and, with floods and gaps put in, 0.1 to 1.9 % of that of the days between them. The interval around a season ago is there because the
/// forecast's own goes astray after a flood; without it a third of that is lost.
const OLD_ENOUGH: u64 = 2;

/// The forecast of one series.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SeriesForecast {
    past: Past,
    experts: Experts,
    lanes: Vec<Lane>,
    lengths: Vec<usize>,
    #[serde(skip)]
    pub(super) panel: Panel,
    plain: PlainQuantiles,
    /// Seasonal naive with intervals from its own errors.
    yardstick: Lane,
    scores: Scores,
    observed: f64,
    /// Mean count over about the last season.
    mean: f64,
    /// Mean absolute errors one step ahead, in spreads of a calm series: of the last steps, and usually.
    recent_error: f64,
    usual_error: f64,
}

/// Seasonal naive is heard for so many seasons: two until the ridge speaks, and one more until that is known to be better.
const NAIVE_SEASONS: u64 = 3;
/// Where they stand among the experts. Seasonal naive is for a young series: the ridge knows the value of
/// a season ago too, and how much to believe it, so that from then on its noise would only disturb the mix (measured on
/// validation origins of five recorded sets: at most 0.4 % of the loss lost on any, 1 to 2 % gained on two).
const SEASONAL_NAIVE: usize = 2;
/// See [`SEASONAL_NAIVE`].
const DIRECT_RIDGE: usize = 10;

/// One number of each expert.
type Points = [f64; EXPERTS.len()];

/// Which of [`EXPERTS`] take part.
pub(super) type Panel = [bool; EXPERTS.len()];

impl SeriesForecast {
    pub(super) fn new(horizon: usize, season: usize, panel: Panel) -> Self {
        let lengths = lanes(horizon);
        Self {
            past: Past::new(season),
            lanes: lengths.iter().map(|ahead| Lane::new(*ahead, EXPERTS.len(), season)).collect(),
            panel,
            plain: PlainQuantiles::new(),
            yardstick: Lane::new(1, 1, season),
            lengths,
            experts: Experts::new(horizon, season),
            scores: Scores::default(),
            observed: 0.0,
            mean: 0.0,
            recent_error: 0.0,
            usual_error: 0.0,
        }
    }

    /// Learns the next step's count.
    pub(super) fn observe(&mut self, count: f64) {
        let count = if count.is_finite() { count.max(0.0) } else { 0.0 };
        let likely = self.learn(count);
        self.past.observe(count, likely);
        self.experts.observe(&self.past);
        self.plain.observe(count);
        self.observed = count;
        let gain = (1.0 / self.past.seen() as f64).max(1.0 / self.past.season() as f64);
        self.mean += gain * (count - self.mean);
        self.speak();
    }

    /// Is told what was published of the steps to come, to be judged by.
    pub(super) fn published(&mut self, path: &QuantilePath) {
        let seen = self.past.seen();
        for lane in &mut self.lanes {
            let row = path.row(lane.ahead() - 1).and_then(|row| row.try_into().ok());
            row.into_iter().for_each(|row| lane.published(seen, row));
        }
    }

    /// Whether it is of this horizon and season: one that was kept may be of others.
    pub(super) fn fits(&self, horizon: usize, season: usize) -> bool {
        let lanes = self.lengths == lanes(horizon) && self.lengths.iter().copied().eq(self.lanes.iter().map(Lane::ahead));
        let season = season.max(1);
        let whole = self.lanes.iter().all(|lane| lane.fits(EXPERTS.len(), season)) && self.yardstick.fits(1, season);
        lanes && whole && self.past.fits(season) && self.experts.fits(horizon)
    }

    /// Whether these counts, oldest first, end with those that it was told of last.
    pub(super) fn was_told(&self, counts: &[f64]) -> bool {
        self.past.was_told(counts)
    }

    /// What a lean forecast makes of it.
    pub(super) fn to_lean(&self) -> Lean {
        Lean::with(self.past.seen(), self.mean, self.past.last(lean::WINDOW))
    }

    pub(super) fn observed(&self) -> f64 {
        self.observed
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    pub(super) fn score(&self) -> ForecastScore {
        self.scores.mean()
    }

    /// Why it says what it says.
    pub(super) fn explain(&self, until: StepIndex) -> Explanation {
        let lanes = self.lanes.iter().map(|lane| {
            let points = self.points(lane.ahead());
            let weights = weights(lane, &points);
            let blend = lane.blend();
            let shares =
                if self.plain.ready().is_ok() { blend.shares() } else { std::array::from_fn(|at| if at == 0 { 1.0 } else { 0.0 }) };
            let experts = self.experts.all().into_iter().enumerate().map(|(at, expert)| ExpertExplanation {
                name: expert.name().to_owned(),
                weight: shares[0] * weights[at],
                error: lane.mix().loss(at),
                silent: match expert.ready(&self.past, lane.ahead()) {
                    Err(silent) => Some(silent.to_string()),
                    Ok(()) if points[at].is_finite() => None,
                    Ok(()) if !self.panel[at] => Some("was not asked".to_owned()),
                    Ok(()) if at == SEASONAL_NAIVE => Some(format!("is no longer asked: {} knows more by now", EXPERTS[DIRECT_RIDGE])),
                    Ok(()) => Some("has nothing to say that is a number".to_owned()),
                },
            });
            let plain = PlainQuantiles::NAMES.iter().enumerate().map(|(at, name)| ExpertExplanation {
                name: (*name).to_owned(),
                weight: shares[1 + at],
                error: blend.error(1 + at),
                silent: self.plain.ready().err().map(|silent| silent.to_string()),
            });
            let tally = lane.tally();
            LaneExplanation {
                ahead: lane.ahead(),
                judged: tally.judged,
                coverage_90: tally.coverage_90,
                error: tally.error,
                seasonal_naive_error: tally.seasonal_naive_error,
                experts: experts.chain(plain).collect(),
            }
        });
        Explanation { until, steps: self.past.seen(), season: self.past.season() as u64, trained_ago: None, lanes: lanes.collect() }
    }

    /// The name of the expert that errs least one step ahead, or of the only one that speaks.
    pub(super) fn model(&self) -> &'static str {
        let best = self.lanes.first().and_then(|lane| lane.mix().best()).and_then(|at| EXPERTS.get(at));
        best.copied().unwrap_or(EXPERTS[0])
    }

    /// The quantiles of the counts of the next `horizon` steps, where all series have these widths in the mean, by lane.
    pub(super) fn path(&self, horizon: usize, all: &[Factors]) -> impl Iterator<Item = [f64; QUANTILES]> {
        let mut weights = vec![(0, Points::default()); self.lanes.len()];
        (1..=horizon).map(move |ahead| {
            let points = self.points(ahead);
            let place = between(&self.lengths, ahead);
            let (lower, upper) = (&self.lanes[place.lower], &self.lanes[place.upper]);
            let between = |low: f64, high: f64| low + place.share * (high - low);
            // Weights change along the path only where others speak.
            let speaking = points.iter().fold(1, |bits, point| bits << 1 | u32::from(point.is_finite()));
            let mut mixed = |at: usize| {
                let (of, weights) = &mut weights[at];
                if *of != speaking {
                    (*of, *weights) = (speaking, self::weights(&self.lanes[at], &points));
                }
                mixed(weights, &points)
            };
            let point = between(mixed(place.lower), mixed(place.upper));
            let mut offsets = *lower.said();
            offsets.iter_mut().zip(upper.said()).for_each(|(low, high)| *low = between(*low, *high));
            let about = self.past.seen() + ahead as u64;
            let rhythm = between(lower.rhythm(about), upper.rhythm(about));
            let rows = self.rows(self.quantiles(point, &offsets, rhythm));
            let row = |lane: &Lane, at: usize| widened(&lane.blend().blend(&rows), &all[at]);
            let low = row(lower, place.lower);
            if place.lower == place.upper {
                return low;
            }
            let high = row(upper, place.upper);
            std::array::from_fn(|at| between(low[at], high[at]))
        })
    }

    /// How much wider each lane has to be.
    pub(super) fn widths(&self) -> impl Iterator<Item = &Widths> {
        self.lanes.iter().map(Lane::widths)
    }

    /// What the members of the blend say, of which the lane says this.
    fn rows(&self, own: [f64; QUANTILES]) -> [[f64; QUANTILES]; MEMBERS] {
        let mut rows = [[f64::NAN; QUANTILES]; MEMBERS];
        rows[0] = own;
        if self.plain.ready().is_ok() {
            rows[1..].iter_mut().zip(self.plain.rows()).for_each(|(row, plain)| *row = plain.map(f64::from));
        }
        rows
    }

    /// Learns how good what was said of the step is; what of its count was likely. See [`OLD_ENOUGH`].
    fn learn(&mut self, count: f64) -> f64 {
        if self.mean == 0.0 && count > 0.0 {
            // The first that ever counts: what was said before was in no unit, and to have missed it tells nothing of what is to come.
            self.lanes.iter_mut().for_each(Lane::forget);
            self.yardstick.forget();
            return count;
        }
        let (mut score, number, season) = (None, self.past.seen() + 1, self.past.season());
        // The count of one season ago is what seasonal naive says of this step at every horizon within a season.
        let naive = self.naive();
        for lane in &mut self.lanes {
            let said = lane.learn(number, season, count, naive.filter(|_| lane.ahead() <= season));
            if lane.ahead() == 1 {
                score = said;
            }
        }
        if let Some(said) = &score {
            let error = ((count - said.point).abs() / self.calm_spread(said.point)).min(MAX_ERROR);
            let fading_in = 1.0 / number as f64;
            self.recent_error += RECENT_GAIN.max(fading_in) * (error - self.recent_error);
            self.usual_error += USUAL_GAIN.max(fading_in) * (error - self.usual_error);
        }
        let (Some(said), Some(naive)) = (score, self.yardstick.learn(number, season, count, None)) else { return count };
        self.scores.push(&said.published, &naive.published, count);
        if self.past.seen() > OLD_ENOUGH * season as u64 { likely(count, [&said, &naive]) } else { count }
    }

    fn speak(&mut self) {
        let (mut shorter, mut shorter_young) = (None, None);
        let seen = self.past.seen();
        let age = seen as f64 / self.past.season() as f64;
        for at in 0..self.lanes.len() {
            let speaks = self.lanes[at].speaks_after(seen);
            let heard = (speaks || Lane::is_young(age)).then(|| {
                let points = self.points(self.lengths[at]);
                let weights = weights(&self.lanes[at], &points);
                (points, weights)
            });
            let lane = &mut self.lanes[at];
            lane.settle(shorter);
            lane.grow(shorter_young, heard.as_ref().map_or(&[], |(_, weights)| &weights[..]), age);
            (shorter, shorter_young) = (Some((lane.ahead(), *lane.offsets())), Some((lane.ahead(), *lane.said())));
            let Some((points, weights)) = heard.filter(|_| speaks) else { continue };
            let lane = &self.lanes[at];
            let point = mixed(&weights, &points);
            let rhythm = lane.rhythm(seen + lane.ahead() as u64);
            let say = |offsets| {
                let rows = self.rows(self.quantiles(point, offsets, rhythm));
                (rows, widened(&lane.blend().blend(&rows), &lane.widths().factors()))
            };
            let (rows, settled) = say(lane.offsets());
            let quantiles = if lane.said() == lane.offsets() { settled } else { say(lane.said()).1 };
            let (settled, quantiles) = (narrow(&settled), narrow(&quantiles));
            let points = points.map(|point| point as f32);
            let rows = rows.map(|row| narrow(&row));
            let spread = rhythm * self.spread(point);
            let said = Saying { points, point, spread, rhythm, rows, settled, quantiles, published: quantiles };
            self.lanes[at].say(seen, said);
        }
        if let Some(point) = self.naive() {
            self.yardstick.settle(None);
            let quantiles = narrow(&self.quantiles(point, self.yardstick.offsets(), 1.0));
            let (spread, mut rows, mut points) = (self.spread(point), [[f32::NAN; QUANTILES]; MEMBERS], [f32::NAN; EXPERTS.len()]);
            (rows[0], points[0]) = (quantiles, point as f32);
            let said = Saying { points, point, spread, rhythm: 1.0, rows, settled: quantiles, quantiles, published: quantiles };
            self.yardstick.say(seen, said);
        }
    }

    /// What seasonal naive says of the next step.
    fn naive(&self) -> Option<f64> {
        SeasonalNaive.ready(&self.past, 1).ok().map(|()| SeasonalNaive.point(&self.past, 1))
    }

    /// What each expert says; not a number from the silent.
    fn points(&self, ahead: usize) -> Points {
        let spoken = |expert: &dyn Forecaster| match expert.ready(&self.past, ahead).map(|()| expert.point(&self.past, ahead)) {
            Ok(point) if point.is_finite() => point.max(0.0),
            _ => f64::NAN,
        };
        let experts = self.experts.all();
        let mut points: Points = std::array::from_fn(|at| if self.panel[at] { spoken(experts[at]) } else { f64::NAN });
        if points[DIRECT_RIDGE].is_finite() && self.past.seen() >= NAIVE_SEASONS * self.past.season() as u64 {
            points[SEASONAL_NAIVE] = f64::NAN;
        }
        if points.iter().all(|point| point.is_nan()) {
            points[0] = self.observed;
        }
        points
    }

    /// At a time of which errors are so much wider than usual.
    fn quantiles(&self, point: f64, offsets: &[f64; QUANTILES], rhythm: f64) -> [f64; QUANTILES] {
        let (spread, wider) = (self.calm_spread(point), rhythm * self.turbulence());
        // However turbulent it is, no interval is wider than the largest error that is kept.
        offsets.map(|offset| (point + (offset * wider).clamp(-MAX_ERROR, MAX_ERROR) * spread).max(0.0))
    }

    fn spread(&self, point: f64) -> f64 {
        self.calm_spread(point) * self.turbulence()
    }

    /// How large the errors of the last steps are beside the usual ones.
    fn turbulence(&self) -> f64 {
        let ratio = if self.usual_error > 0.0 { self.recent_error / self.usual_error } else { 1.0 };
        ratio.powf(TURBULENCE_POWER).clamp(TURBULENCE.0, TURBULENCE.1)
    }

    fn calm_spread(&self, point: f64) -> f64 {
        // A series that has never counted anything has no scale yet; one transaction will do.
        let mean = if self.mean > 0.0 { self.mean } else { 1.0 };
        let level = (point + SPREAD_FLOOR * mean) / mean;
        mean * level.powf(SPREAD_POWER)
    }
}

/// What of a count is within one of the central 90 % intervals that were said, or between them.
fn likely(count: f64, said: [&Saying; 2]) -> f64 {
    let [one, other] = said.map(|said| interval_90(&said.quantiles));
    count.max(one[0].min(other[0])).min(one[1].max(other[1]))
}

fn narrow(row: &[f64; QUANTILES]) -> Row {
    row.map(|value| value as f32)
}

fn weights(lane: &Lane, points: &Points) -> Points {
    let mut weights = Points::default();
    lane.mix().weights(&SHARES, points, &mut weights);
    weights
}

fn mixed(weights: &Points, points: &Points) -> f64 {
    // Silent experts are not numbers; their weight is zero.
    weights.iter().zip(points).filter(|(weight, _)| **weight > 0.0).map(|(weight, point)| weight * point).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEASON: usize = 24;

    /// What is known after so many steps around 100, with a flood in step `flood`.
    fn told(steps: usize, flood: usize) -> SeriesForecast {
        let mut series = SeriesForecast::new(12, SEASON, [true; EXPERTS.len()]);
        (0..steps).for_each(|at| series.observe(if at == flood { 1e6 } else { 90.0 + (at * 7 % 21) as f64 }));
        series
    }

    #[test]
    fn an_anomaly_does_not_become_a_habit() {
        let flood = 6 * SEASON + 10;
        let (ordinary, flooded) = (told(flood + 1, usize::MAX), told(flood + 1, flood));
        assert_eq!(flooded.past.root(), 1e3, "what came last is what came");
        assert!((flooded.past.mean() - ordinary.past.mean()).abs() < 0.2, "{} {}", flooded.past.mean(), ordinary.past.mean());
        // A season later all of it is in the shape.
        let (ordinary, flooded) = (told(flood + SEASON, usize::MAX), told(flood + SEASON, flood));
        let apart = (1..=SEASON).map(|ahead| (flooded.past.deviation(ahead) - ordinary.past.deviation(ahead)).abs());
        let farthest = apart.fold(0.0, f64::max);
        assert!(farthest < 1.5, "{farthest}");
        // In the first two seasons there is no interval to trust.
        assert!(told(SEASON + 1, SEASON).past.mean() > 40.0);
    }
}
