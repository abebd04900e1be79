//! What the agents foresaw and had ready, fetched while a simulation runs and judged when it is over,
//! against the traffic that was acknowledged. The agents' own opinion of themselves is not asked.

use crate::clock::virtual_now;
use crate::http::Api;
use crate::report::Point;
use crate::scenario::Survey;
use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tradewind_agent::demo::reactive;
use tradewind_protocol::api::{CapacitySample, ForecastView};
use tradewind_protocol::forecast::pinball;
use tradewind_protocol::{Quantile, QuantilePath, RegionId, SeriesKey, Step, StepIndex};

/// The fewest errors of its own that the seasonal naive forecast is given quantiles from: fewer have
/// no 5th percentile.
const MIN_NAIVE_ERRORS: usize = 20;

/// The most instances that the reactive scaler may have a region: as many as it wants.
const MAX_REACTIVE_INSTANCES: u32 = 100_000;

/// What was acknowledged, by series and step.
pub(crate) type Counts = BTreeMap<SeriesKey, BTreeMap<StepIndex, u64>>;

/// One region's surveyor.
pub(crate) struct Surveyor {
    pub(crate) region: RegionId,
    pub(crate) api: Rc<Api>,
    pub(crate) survey: Survey,
    pub(crate) findings: Rc<RefCell<Findings>>,
}

impl Surveyor {
    /// Fetches, for ever. What is not answered is not there.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut next = virtual_now();
        let mut since = i64::MIN;
        loop {
            next += self.survey.every;
            tokio::time::sleep(next.saturating_sub(virtual_now())).await;
            if let Ok(views) = get::<Vec<ForecastView>>(&self.api, &format!("/v1/forecasts?from={}", self.region)).await {
                let mut findings = self.findings.borrow_mut();
                for view in views.iter().filter(|view| view.prediction.series.source == self.region) {
                    findings.foresee(&view.prediction.series, &view.prediction.path, self.survey.lead_steps);
                }
            }
            if let Ok(samples) = get::<Vec<CapacitySample>>(&self.api, &format!("/v1/capacity?since={since}")).await {
                since = samples.iter().map(|sample| sample.step.0).max().unwrap_or(since);
                self.findings.borrow_mut().count_ready(&self.region, &samples);
            }
        }
    }
}

async fn get<T: DeserializeOwned>(api: &Api, path: &str) -> anyhow::Result<T> {
    let response = api.get(path).await?;
    ensure!(response.status == 200, "{path}: {}", response.status);
    serde_json::from_slice(&response.body).with_context(|| format!("the answer to {path}"))
}

/// What was fetched.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// By series and the step that is foreseen.
    foreseen: BTreeMap<SeriesKey, BTreeMap<StepIndex, Row>>,
    ready: BTreeMap<RegionId, BTreeMap<StepIndex, Ready>>,
}

/// Quantiles and their values.
type Row = (Vec<Quantile>, Vec<f32>);

/// What a region had ready in a step.
#[derive(Debug, Default, Clone, Copy)]
struct Ready {
    instances: f64,
    /// Transactions per second.
    rate: f64,
    instance_ms: f64,
}

impl Findings {
    fn foresee(&mut self, series: &SeriesKey, path: &QuantilePath, lead: usize) {
        if let Some(row) = path.row(lead - 1) {
            let step = path.start().offset(lead as i64 - 1);
            let steps = self.foreseen.entry(series.clone()).or_default();
            steps.entry(step).or_insert_with(|| (path.quantiles().to_vec(), row.to_vec()));
        }
    }

    fn count_ready(&mut self, region: &RegionId, samples: &[CapacitySample]) {
        let steps = self.ready.entry(region.clone()).or_default();
        for step in samples.iter().map(|sample| sample.step).collect::<BTreeSet<_>>() {
            let ready = samples.iter().filter(|sample| sample.step == step).fold(Ready::default(), |sum, sample| Ready {
                instances: sum.instances + f64::from(sample.ready),
                rate: sum.rate + f64::from(sample.ready) * sample.rate_per_instance,
                instance_ms: sum.instance_ms + sample.instance_ms as f64,
            });
            steps.insert(step, ready);
        }
    }
}

/// How good the forecasts were, at the lead time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ForecastFigures {
    /// How many steps ahead.
    pub lead_steps: usize,
    /// Forecasts that were scored: one a series and step.
    pub scored: u64,
    /// Mean pinball loss over the quantiles, in transactions a step.
    pub pinball: f64,
    /// The same for the count of one season before, with the quantiles of its own errors so far.
    pub seasonal_naive_pinball: f64,
    /// Share of the counts inside the central 90 % interval.
    pub coverage_90: f64,
    /// The loss over time, summed over the series.
    pub loss: Vec<Point>,
    /// The same for seasonal naive.
    pub seasonal_naive_loss: Vec<Point>,
}

impl ForecastFigures {
    /// The loss, where that of seasonal naive is 1.
    pub fn ratio(&self) -> f64 {
        self.pinball / self.seasonal_naive_pinball.max(f64::MIN_POSITIVE)
    }
}

/// Whether capacity stood ready when load came.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CapacityFigures {
    /// Steps of regions that were judged.
    pub region_steps: u64,
    /// Share of them in which load was above what stood ready.
    pub late_share: f64,
    /// Instance-hours paid for.
    pub instance_hours: f64,
    /// The late share of a reactive scaler (the Kubernetes rule, under ideal conditions) that spends at
    /// least as much.
    pub reactive_late_share: f64,
    /// What it spends.
    pub reactive_instance_hours: f64,
    /// Each region.
    pub by_region: Vec<RegionCapacity>,
    /// Load over time, all regions, in transactions per second.
    pub load: Vec<Point>,
    /// What stood ready for it.
    pub ready: Vec<Point>,
    /// Share of the regions that were late, over time.
    pub late: Vec<Point>,
}

/// All regions in one step.
#[derive(Debug, Default, Clone, Copy)]
struct Moment {
    load: f64,
    ready: f64,
    /// Regions that were late, of so many.
    late: f64,
    regions: f64,
}

/// One region's part of [`CapacityFigures`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionCapacity {
    /// Which region.
    pub region: RegionId,
    /// Share of its steps in which load was above what stood ready.
    pub late_share: f64,
    /// Instance-hours paid for.
    pub instance_hours: f64,
}

/// The time scale of a simulation: steps to seconds since its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) step: Step,
    /// The step that was running when it began.
    pub(crate) first: StepIndex,
    /// Steps in a season.
    pub(crate) season: usize,
}

impl Scale {
    fn seconds(self, step: StepIndex) -> f64 {
        (step.0 - self.first.0) as f64 * self.step.seconds()
    }
}

/// Scores what was foreseen against what came. Steps after `last` were not posted whole.
pub(crate) fn score(findings: &Findings, counts: &Counts, last: StepIndex, lead: usize, scale: Scale) -> ForecastFigures {
    let mut sums = ForecastFigures { lead_steps: lead, ..ForecastFigures::default() };
    let mut over_time: BTreeMap<StepIndex, (f64, f64)> = BTreeMap::new();
    let season = scale.season as i64;
    for (series, steps) in &findings.foreseen {
        let Some(came) = counts.get(series) else { continue };
        let Some(begin) = came.keys().next().copied() else { continue };
        let count = |step: StepIndex| came.get(&step).copied().unwrap_or(0) as f64;
        // Errors of seasonal naive up to what was known, ascending.
        let (mut errors, mut next): (Vec<f64>, StepIndex) = (vec![], begin.offset(season));
        for (&target, (quantiles, values)) in steps.range(..=last) {
            while next <= target.offset(-(lead as i64)) {
                let error = count(next) - count(next.offset(-season));
                errors.insert(errors.partition_point(|other| *other < error), error);
                next = next.offset(1);
            }
            if errors.len() < MIN_NAIVE_ERRORS {
                continue;
            }
            let (actual, naive, n) = (count(target), count(target.offset(-season)), quantiles.len() as f64);
            let (mut loss, mut naive_loss) = (0.0, 0.0);
            for (&q, &value) in quantiles.iter().zip(values) {
                let error = errors[((errors.len() - 1) as f64 * q.probability()).round() as usize];
                loss += pinball(q, f64::from(value), actual) / n;
                naive_loss += pinball(q, (naive + error).max(0.0), actual) / n;
            }
            let end = |q| quantiles.iter().position(|other| *other == q).map(|place| f64::from(values[place]));
            if let (Some(low), Some(high)) = (end(Quantile::CENTRAL_90.0), end(Quantile::CENTRAL_90.1)) {
                sums.coverage_90 += f64::from(u8::from((low..=high).contains(&actual)));
            }
            sums.scored += 1;
            sums.pinball += loss;
            sums.seasonal_naive_pinball += naive_loss;
            let both = over_time.entry(target).or_default();
            *both = (both.0 + loss, both.1 + naive_loss);
        }
    }
    let scored = sums.scored.max(1) as f64;
    let points = |which: fn(&(f64, f64)) -> f64| over_time.iter().map(|(step, both)| (scale.seconds(*step), which(both))).collect();
    ForecastFigures {
        pinball: sums.pinball / scored,
        seasonal_naive_pinball: sums.seasonal_naive_pinball / scored,
        coverage_90: sums.coverage_90 / scored,
        loss: points(|both| both.0),
        seasonal_naive_loss: points(|both| both.1),
        ..sums
    }
}

/// Compares what stood ready with the load that came, from the first step of the simulation to `last`.
pub(crate) fn compare(findings: &Findings, counts: &Counts, last: StepIndex, lead: usize, scale: Scale) -> CapacityFigures {
    // The first steps pass before anything could be ordered.
    let begin = scale.first.offset(lead as i64);
    if begin > last {
        return CapacityFigures::default();
    }
    let mut load: BTreeMap<(&RegionId, StepIndex), f64> = BTreeMap::new();
    for (series, steps) in counts {
        for (step, count) in steps.range(begin..=last) {
            *load.entry((&series.destination, *step)).or_default() += *count as f64 / scale.step.seconds();
        }
    }
    let mut figures = CapacityFigures::default();
    let mut over_time: BTreeMap<StepIndex, Moment> = BTreeMap::new();
    let (mut demands, mut late_steps, mut instance_steps) = (vec![], 0_usize, 0.0);
    for (region, steps) in &findings.ready {
        let (mut region_late, mut region_steps, mut demand) = (0_usize, 0.0, vec![]);
        for (&step, ready) in steps.range(begin..=last) {
            let due = load.get(&(region, step)).copied().unwrap_or(0.0);
            let late = due > ready.rate;
            region_late += usize::from(late);
            region_steps += ready.instance_ms / 1e3 / scale.step.seconds();
            if ready.instances > 0.0 {
                demand.push(due / (ready.rate / ready.instances));
            }
            let sums = over_time.entry(step).or_default();
            sums.load += due;
            sums.ready += ready.rate;
            sums.late += f64::from(u8::from(late));
            sums.regions += 1.0;
        }
        let steps = steps.range(begin..=last).count();
        figures.region_steps += steps as u64;
        late_steps += region_late;
        instance_steps += region_steps;
        figures.by_region.push(RegionCapacity {
            region: region.clone(),
            late_share: region_late as f64 / steps.max(1) as f64,
            instance_hours: hours(region_steps, scale),
        });
        demands.push(demand);
    }
    let (_, rival) = reactive::play_at_cost(&demands, lead, instance_steps, MAX_REACTIVE_INSTANCES);
    let region_steps = figures.region_steps.max(1) as f64;
    let points = |which: fn(&Moment) -> f64| over_time.iter().map(|(step, at)| (scale.seconds(*step), which(at))).collect();
    CapacityFigures {
        late_share: late_steps as f64 / region_steps,
        instance_hours: hours(instance_steps, scale),
        reactive_late_share: rival.late_steps as f64 / region_steps,
        reactive_instance_hours: hours(rival.instance_steps, scale),
        load: points(|at| at.load),
        ready: points(|at| at.ready),
        late: points(|at| at.late / at.regions),
        ..figures
    }
}

fn hours(instance_steps: f64, scale: Scale) -> f64 {
    instance_steps * scale.step.seconds() / Duration::from_secs(3600).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, destination: &str) -> SeriesKey {
        SeriesKey {
            tenant: Default::default(),
            source: RegionId::new(source).unwrap(),
            destination: RegionId::new(destination).unwrap(),
            service: Default::default(),
            transaction_type: Default::default(),
        }
    }

    fn scale() -> Scale {
        Scale { step: Step::new(Duration::from_secs(1)).unwrap(), first: StepIndex(1_000), season: 10 }
    }

    #[test]
    fn a_forecast_that_knows_beats_seasonal_naive_and_the_naive_one_ties() {
        let came: BTreeMap<StepIndex, u64> = (0..100).map(|i| (StepIndex(1_000 + i), 50 + (i as u64 * 37) % 11)).collect();
        let counts: Counts = [(key("a", "b"), came.clone())].into();
        let mut findings = Findings::default();
        for i in 0..97 {
            let actual = came[&StepIndex(1_002 + i)] as f32;
            let path = QuantilePath::new(StepIndex(1_000 + i), scale().step, Quantile::GRID.to_vec(), actual_rows(actual)).unwrap();
            findings.foresee(&key("a", "b"), &path, 3);
        }
        let figures = score(&findings, &counts, StepIndex(1_090), 3, scale());
        // Steps 1,032 to 1,090 have twenty errors of seasonal naive behind them, from 1,010 on.
        assert_eq!((figures.scored, figures.pinball, figures.coverage_90), (59, 0.0, 1.0));
        assert!(figures.seasonal_naive_pinball > 0.1);
        assert_eq!((figures.loss.len(), figures.loss[0].0), (59, 32.0));
    }

    fn actual_rows(actual: f32) -> Vec<f32> {
        [vec![0.0; 2 * Quantile::GRID.len()], vec![actual; Quantile::GRID.len()]].concat()
    }

    #[test]
    fn capacity_is_late_where_load_is_above_it() {
        let counts: Counts = [(key("a", "b"), (1_000..1_020).map(|i| (StepIndex(i), 30)).collect())].into();
        let sample = |step, ready| CapacitySample {
            step: StepIndex(step),
            pool: Default::default(),
            service: Default::default(),
            ready,
            instance_ms: u64::from(ready) * 1_000,
            rate_per_instance: 10.0,
        };
        let mut findings = Findings::default();
        let samples: Vec<CapacitySample> = (1_000..1_020).map(|step| sample(step, if step < 1_007 { 2 } else { 3 })).collect();
        findings.count_ready(&RegionId::new("b").unwrap(), &samples);
        let figures = compare(&findings, &counts, StepIndex(1_011), 2, scale());
        assert_eq!((figures.region_steps, figures.late_share), (10, 0.5), "steps 1,002 to 1,006 of ten");
        assert_eq!(figures.load[0], (2.0, 30.0));
        assert_eq!(compare(&findings, &counts, StepIndex(1_001), 2, scale()), CapacityFigures::default(), "too short to be judged");
        assert!((figures.instance_hours - 25.0 / 3600.0).abs() < 1e-9);
        assert_eq!(figures.reactive_late_share, 0.0, "the load never changes");
    }
}
