//! Demand on one service: many forecasts as one.
//!
//! Quantiles do not add up. The 95 % quantiles of ten pairs sum to far more than the 95 % quantile of
//! their sum, unless all ten surge together. So the medians are summed, and what the quantiles lie
//! above them is combined as standard deviations are, at a correlation `r` between the pairs'
//! errors: `sqrt((1 - r) * sum(d^2) + r * sum(d)^2)`. At `r = 0` that is the root of the sum of squares
//! (independent pairs), at `r = 1` the plain sum (comonotone).
//!
//! Demand on one service is load on all that it calls ([`super::graph`]): a forecast of a caller counts as many times as a
//! transaction of it makes transactions here.

use super::{Snapshot, SourceForecast};
use crate::marks::{bug, sometimes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::{PredictionData, Quantile, RegionId, ServiceName, StepIndex};

/// Correlation of the errors of pairs with one destination. Measured on Abilene (132 pairs, 12
/// destinations, five-minute steps): errors of two pairs correlate by 0.01 to 0.02 in the mean (four
/// fifths of them within -0.03 and 0.07), and demand lies above the combined 90, 95 and 99 % quantile in
/// 13, 5.9 and 0.5 % of steps at a correlation of 0, in 10.7, 4.3 and 0.3 % at 0.05, in 8.9, 3.1 and 0.2 %
/// at 0.1, and in 1.2, 0.3 and 0.05 % at 1. So 0.05 keeps the promise with the least to spare; what
/// differs elsewhere is learned by [`super::tuner`].
const CORRELATION: f64 = 0.05;

/// The demand on one service, in transactions per second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Demand {
    /// For each step from the one after the last closed one.
    pub(super) steps: Vec<StepDemand>,
    /// What was seen last.
    pub(super) observed_rate: f64,
    /// How many forecasts were summed.
    pub(super) forecasts: u32,
    /// How many there are, too old ones included.
    pub(super) sources: u32,
    /// Sources whose forecast is missing or too old.
    pub(super) stale: BTreeSet<RegionId>,
    /// Sources whose agent is gone, but whose forecast is not too old yet.
    pub(super) departed: BTreeSet<RegionId>,
    /// Whether some forecast ends before the last step asked for, and was held at its last value.
    pub(super) held: bool,
}

/// Demand in one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct StepDemand {
    pub(super) median_rate: f64,
    /// What the provisioned quantile lies above the median.
    pub(super) upper_rate: f64,
}

/// What comes in for each service, summed once for all pools: each forecast is read once, however many services its own calls.
pub(super) struct Incoming<'a> {
    snapshot: &'a Snapshot,
    /// The quantiles that are summed, ascending.
    levels: Vec<Quantile>,
    services: BTreeMap<&'a ServiceName, Entering<'a>>,
    /// Sources that are expected and have told nothing.
    silent: BTreeSet<&'a RegionId>,
}

/// What enters at one service, in transactions per step.
#[derive(Debug, Clone, Default)]
struct Entering<'a> {
    /// For each step, one a level.
    sums: Vec<Sum>,
    observed: f64,
    forecasts: u32,
    sources: u32,
    stale: BTreeSet<&'a RegionId>,
    departed: BTreeSet<&'a RegionId>,
    /// From this step on some forecast is held at its last value.
    held_from: Option<usize>,
}

impl<'a> Incoming<'a> {
    /// Over the `steps` steps after the last closed one, at the quantiles of `levels`.
    pub(super) fn of(snapshot: &'a Snapshot, steps: usize, levels: BTreeSet<Quantile>) -> Self {
        let levels: Vec<Quantile> = levels.into_iter().collect();
        let mut services: BTreeMap<&ServiceName, Entering> = BTreeMap::new();
        let mut heard = BTreeSet::new();
        for forecast in snapshot.forecasts.iter().filter(|f| f.prediction.series.destination == snapshot.region) {
            heard.insert(&forecast.source);
            let entering = services.entry(&forecast.prediction.series.service).or_default();
            entering.sums.resize(steps * levels.len(), Sum::default());
            entering.add(forecast, snapshot, &levels);
        }
        let silent = snapshot.expected_sources.iter().filter(|source| !heard.contains(source)).collect();
        Self { snapshot, levels, services, silent }
    }

    /// The highest median on `service` in the steps after the first `from` up to the `until`-th, as far as forecasts reach, in transactions per second.
    pub(super) fn median_within(&self, service: &ServiceName, from: usize, until: usize) -> f64 {
        let width = self.levels.len();
        let callers: Vec<_> = self
            .snapshot
            .config
            .graph
            .load_on(service)
            .filter_map(|(caller, factor)| self.services.get(caller).map(|entering| (entering, factor)))
            .collect();
        let median = |at: usize| {
            let known = callers.iter().filter(|(entering, _)| entering.held_from.is_none_or(|held| at < held));
            known.filter_map(|(entering, factor)| entering.sums.get(at * width).map(|sum| factor * sum.median)).sum::<f64>()
        };
        (from..until).map(median).fold(0.0, f64::max) / self.snapshot.step.seconds()
    }
}

impl<'a> Entering<'a> {
    fn add(&mut self, forecast: &'a SourceForecast, snapshot: &Snapshot, levels: &[Quantile]) {
        let observed = sane(forecast.prediction.observed);
        self.observed += observed;
        self.sources += 1;
        if forecast.age > snapshot.config.stale_after && !bug!("stale-forecasts-used") {
            sometimes!("planner.stale-source");
            self.stale.insert(&forecast.source);
            // What was seen last goes on until something newer is known.
            self.sums.iter_mut().for_each(|sum| sum.median += observed);
            return;
        }
        if !forecast.live {
            sometimes!("planner.departed-source");
            self.departed.insert(&forecast.source);
        }
        self.forecasts += 1;
        for (at, sums) in self.sums.chunks_mut(levels.len().max(1)).enumerate() {
            let step = snapshot.known_until.offset(at as i64 + 1);
            let (value, held) = read(&forecast.prediction, step);
            if held {
                self.held_from = Some(self.held_from.map_or(at, |from| from.min(at)));
            }
            let median = value(Quantile::MEDIAN);
            sums.iter_mut().zip(levels).for_each(|(sum, level)| sum.add(median, value(*level)));
        }
    }
}

impl Demand {
    /// The demand on `service` over the `steps` steps after the last closed one, at `quantile`; `incoming` covers both.
    pub(super) fn on(service: &ServiceName, incoming: &Incoming, steps: usize, quantile: Quantile) -> Demand {
        let width = incoming.levels.len().max(1);
        let level = incoming.levels.binary_search(&quantile).unwrap_or(0);
        let seconds = incoming.snapshot.step.seconds();
        let mut demand = Demand {
            steps: vec![],
            observed_rate: 0.0,
            forecasts: 0,
            sources: 0,
            stale: incoming.silent.iter().map(|region| (*region).clone()).collect(),
            departed: BTreeSet::new(),
            held: false,
        };
        let mut sums = vec![Sum::default(); steps];
        for (caller, factor) in incoming.snapshot.config.graph.load_on(service) {
            let Some(entering) = incoming.services.get(caller) else { continue };
            demand.observed_rate += sane(factor * entering.observed / seconds);
            demand.forecasts += entering.forecasts;
            demand.sources += entering.sources;
            demand.stale.extend(entering.stale.iter().map(|region| (*region).clone()));
            demand.departed.extend(entering.departed.iter().map(|region| (*region).clone()));
            demand.held |= entering.held_from.is_some_and(|from| from < steps);
            let entering = entering.sums.iter().skip(level).step_by(width);
            sums.iter_mut().zip(entering).for_each(|(sum, entering)| sum.add_times(factor, *entering));
        }
        demand.steps = sums.into_iter().map(|sum| sum.demand(seconds)).collect();
        demand
    }
}

/// How many steps after the last closed one a plan has to look: an instance ordered now is ready
/// for the first step that begins after `startup`, and the step that runs already is unknown too.
pub(super) fn lead_steps(startup: Duration, snapshot: &Snapshot) -> usize {
    (snapshot.step.count_covering(startup) as usize).saturating_add(1).min(tradewind_protocol::forecast::MAX_HORIZON)
}

/// The quantiles of the count in `step`, and whether the path had to be held at its end: a
/// source may be a step ahead of us, or behind.
fn read(prediction: &PredictionData, step: StepIndex) -> (impl Fn(Quantile) -> f64, bool) {
    let path = &prediction.path;
    let last = path.start().offset(path.horizon() as i64 - 1);
    let at = step.clamp(path.start(), last.max(path.start()));
    // Inside the path by the line above.
    (move |q| path.value(at, q).unwrap_or(0.0), step > last)
}

/// The median count of the `at`-th step after `known_until`, from 0.
pub(super) fn path_median(prediction: &PredictionData, known_until: StepIndex, at: usize) -> f64 {
    read(prediction, known_until.offset(at as i64 + 1)).0(Quantile::MEDIAN)
}

/// Sums over forecasts, in transactions per step.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    median: f64,
    linear: f64,
    squares: f64,
}

impl Sum {
    fn add(&mut self, median: f64, quantile: f64) {
        let above = (quantile - median).max(0.0);
        self.median += median;
        self.linear += above;
        self.squares += above * above;
    }

    /// What enters at a caller, as often as it calls: the errors of one forecast grow with it.
    fn add_times(&mut self, factor: f64, entering: Sum) {
        self.median += factor * entering.median;
        self.linear += factor * entering.linear;
        self.squares += factor * factor * entering.squares;
    }

    fn demand(self, seconds: f64) -> StepDemand {
        let upper = ((1.0 - CORRELATION) * self.squares + CORRELATION * self.linear * self.linear).sqrt();
        StepDemand { median_rate: sane(self.median / seconds), upper_rate: sane(upper / seconds) }
    }
}

/// Numbers from other regions are data: not a number is nothing, infinity the largest number that
/// can still be summed.
pub(super) fn sane(value: f64) -> f64 {
    /// Far above any rate, and its square far below infinity.
    const LARGEST: f64 = 1e100;
    if value.is_nan() { 0.0 } else { value.clamp(0.0, LARGEST) }
}
