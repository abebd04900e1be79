//! The last step of the combination: paths of the global models beside the path of all other experts.
//!
//! Quantiles are averaged level by level, each with the weight of who said them (Vincentization; Lichtendahl, Grushka-Cockayne and
//! Winkler, Management Science 2013). Weights are those of the exponentially weighted average forecaster with forgetting,
//! as in `super::super::mix`, but on the pinball loss of the whole grid, by series and lane. What comes out is held to its promise by
//! adaptive conformal inference (Gibbs and Candes 2021) on the distance of each quantile from the median, by lane and pooled over
//! all series, so that one week tells enough even of the tails.
//!
//! Where no global model speaks, a path is left exactly as it is.

use super::super::horizon::{between, lanes};
use super::Said;
use super::quantiles::QUANTILES;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tradewind_protocol::forecast::pinball;
use tradewind_protocol::{PredictionData, Quantile, QuantilePath, SeriesKey, StepIndex};

/// Who is blended: the other experts, and the global models.
const MEMBERS: usize = 1 + super::Kind::ALL.len();
/// How sharply a worse member loses weight, as in the mix of the other experts.
const ETA: f64 = 4.0;
/// Memory of the losses: about 100 steps.
const LOSS_GAIN: f64 = 0.01;
/// The most that wait for their step at a lane; longer lanes remember every few steps only.
const MAX_PENDING: usize = 64;
/// Gain of the widths a step, over all series: ten steps of certain error widen by a tenth.
const WIDTH_GAIN: f64 = 0.01;
/// Logarithms of widths stay within these. Hardly narrower than what the members say, who are calibrated themselves: a calm that all series
/// share is one observation, not as many as there are series.
const WIDTHS: (f64, f64) = (-0.1, 0.7);
/// Errors `h` steps ahead overlap, so `n` of them are worth `n / h`; weights are as equal as if so many of those had been equal.
const EQUAL: f64 = 10.0;
/// Where the median stands.
const MEDIAN: usize = 3;

pub(super) type Row = [f64; QUANTILES];
/// What the members of a series have lost lately, by lane.
pub(super) type Losses = Vec<[Loss; MEMBERS]>;

/// Weights and widths, and what was said to learn them from.
#[derive(Debug)]
pub(super) struct Blend {
    lengths: Vec<usize>,
    series: BTreeMap<SeriesKey, Vec<Lane>>,
    /// By lane and quantile: the logarithm of the factor on its distance from the median.
    widths: Vec<Row>,
}

#[derive(Debug, Default)]
struct Lane {
    pending: VecDeque<Pending>,
    losses: [Loss; MEMBERS],
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Loss {
    mean: f64,
    /// Mean absolute error of the median.
    error: f64,
    seen: u32,
}

#[derive(Debug)]
struct Pending {
    about: StepIndex,
    rows: [Option<Row>; MEMBERS],
    blended: Row,
}

impl Blend {
    pub(super) fn new(horizon: usize) -> Self {
        let lengths = lanes(horizon);
        Self { widths: vec![[0.0; QUANTILES]; lengths.len()], lengths, series: BTreeMap::new() }
    }

    /// What was lost by series, but for what waits for its step.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&SeriesKey, Losses)> {
        self.series.iter().map(|(key, lanes)| (key, lanes.iter().map(|lane| lane.losses).collect()))
    }

    pub(super) fn widths(&self) -> &[Row] {
        &self.widths
    }

    /// One that has learnt this. Nothing if it does not fit the horizon or is none.
    pub(super) fn restored(horizon: usize, widths: Vec<Row>, losses: Vec<(SeriesKey, Losses)>) -> Option<Self> {
        let lengths = lanes(horizon);
        let sound = |loss: &Loss| [loss.mean, loss.error].iter().all(|loss| loss.is_finite() && *loss >= 0.0);
        let fits = widths.len() == lengths.len()
            && widths.iter().flatten().all(|width| (WIDTHS.0..=WIDTHS.1).contains(width))
            && losses.iter().all(|(_, lanes)| lanes.len() == lengths.len() && lanes.iter().flatten().all(sound));
        let lane = |losses| Lane { losses, ..Lane::default() };
        let series = losses.into_iter().map(|(key, lanes)| (key, lanes.into_iter().map(lane).collect())).collect();
        fits.then_some(Self { lengths, series, widths })
    }

    /// Learns from what was said of `step`, which closed with these counts.
    pub(super) fn learn(&mut self, step: StepIndex, counts: &BTreeMap<&SeriesKey, f64>) {
        // By lane and quantile: how often the actual lay at or below it, and how often it was asked.
        let mut below = vec![([0.0; QUANTILES], 0.0_f64); self.lengths.len()];
        for (key, lanes) in &mut self.series {
            let actual = counts.get(key).copied().unwrap_or(0.0);
            for (lane, (below, asked)) in lanes.iter_mut().zip(&mut below) {
                while let Some(said) = lane.pending.pop_front_if(|said| said.about <= step) {
                    if said.about < step {
                        continue;
                    }
                    for (loss, row) in lane.losses.iter_mut().zip(&said.rows) {
                        if let Some(row) = row {
                            loss.seen = loss.seen.saturating_add(1);
                            let gain = LOSS_GAIN.max(1.0 / f64::from(loss.seen));
                            loss.mean += gain * (total(row, actual) - loss.mean);
                            loss.error += gain * ((row[MEDIAN] - actual).abs() - loss.error);
                        }
                    }
                    below.iter_mut().zip(said.blended).filter(|(_, value)| actual <= *value).for_each(|(below, _)| *below += 1.0);
                    *asked += 1.0;
                }
            }
        }
        for (widths, (below, asked)) in self.widths.iter_mut().zip(&below).filter(|(_, (_, asked))| *asked > 0.0) {
            for (at, (width, q)) in widths.iter_mut().zip(Quantile::GRID).enumerate() {
                let short = q.probability() - below[at] / asked;
                let wider = if at < MEDIAN { -short } else { short };
                // Tails are rare: their errors weigh as much as those of the middle.
                let usual = (q.probability() * (1.0 - q.probability())).sqrt();
                *width = (*width + WIDTH_GAIN * wider / usual).clamp(WIDTHS.0, WIDTHS.1);
            }
            widths[MEDIAN] = 0.0;
        }
    }

    /// Puts what the global models say of a series into its `prediction`, and remembers it.
    pub(super) fn blend(&mut self, mut prediction: PredictionData, said: &Said) -> PredictionData {
        let spoken = |number: usize| said.iter().find(|(kind, _)| *kind as usize == number).and_then(|(_, said)| said.as_ref().ok());
        let speaking = speaking(said);
        if speaking[1..].iter().all(|speaks| !speaks) {
            return prediction;
        }
        let path = &prediction.path;
        let rows = |ahead: usize| -> [Option<Row>; MEMBERS] {
            std::array::from_fn(|member| match member.checked_sub(1) {
                None => path.row(ahead - 1).and_then(|row| row.iter().map(|value| f64::from(*value)).collect::<Vec<_>>().try_into().ok()),
                Some(number) => spoken(number).map(|path| path.row(ahead)),
            })
        };
        let lanes = self.series.entry(prediction.series.clone()).or_default();
        lanes.resize_with(self.lengths.len(), Lane::default);
        let weights: Vec<[f64; MEMBERS]> = lanes.iter().zip(&self.lengths).map(|(lane, ahead)| lane.weights(*ahead, &speaking)).collect();
        let blended: Vec<Row> = (1..=path.horizon())
            .map(|ahead| {
                let place = between(&self.lengths, ahead);
                let mix = |low: f64, high: f64| low + place.share * (high - low);
                let (low, high) = (&weights[place.lower], &weights[place.upper]);
                let mut row = [0.0; QUANTILES];
                let said = rows(ahead);
                for (member, said) in said.iter().enumerate() {
                    let weight = mix(low[member], high[member]);
                    said.iter().for_each(|said| row.iter_mut().zip(said).for_each(|(row, said)| *row += weight * said));
                }
                let median = row[MEDIAN];
                let (low, high) = (&self.widths[place.lower], &self.widths[place.upper]);
                // No narrower than what a single member says would cost 4 % on validation data, and cover 93 %.
                std::array::from_fn(|at| (median + (row[at] - median) * mix(low[at], high[at]).exp()).max(0.0))
            })
            .collect();
        let values = blended.iter().flatten().map(|value| *value as f32).collect();
        let start = path.start();
        // Sorts what the widths may have crossed. Refused only if something is not finite, and then nothing is blended.
        let Ok(made) = QuantilePath::rearranged(start, path.step(), Quantile::GRID.to_vec(), values) else { return prediction };
        for (lane, ahead) in lanes.iter_mut().zip(&self.lengths) {
            let about = start.offset(*ahead as i64 - 1);
            let stride = ahead.div_ceil(MAX_PENDING) as i64;
            if about.0 % stride == 0
                && lane.pending.back().is_none_or(|last| last.about < about)
                && let Some(row) = blended.get(ahead - 1)
            {
                if lane.pending.len() > MAX_PENDING {
                    lane.pending.pop_front();
                }
                lane.pending.push_back(Pending { about, rows: rows(*ahead), blended: *row });
            }
        }
        if let Some((best, _)) = weights[0].iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))
            && let Some(number) = best.checked_sub(1)
            && let Some((kind, _)) = said.iter().find(|(kind, _)| *kind as usize == number)
        {
            prediction.model = kind.name().into();
        }
        prediction.path = made;
        prediction
    }

    /// By lane of a series of which the models have `said` this: the share that each member has in it, and its recent mean absolute error once it was
    /// judged. The other experts first, then the models by number.
    pub(super) fn parts(&self, key: &SeriesKey, said: &Said) -> Vec<[Part; MEMBERS]> {
        let (speaking, unheard) = (speaking(said), Lane::default());
        let lane = |at: usize| self.series.get(key).and_then(|lanes| lanes.get(at)).unwrap_or(&unheard);
        let parts = |(at, ahead): (usize, &usize)| {
            let (lane, weights) = (lane(at), lane(at).weights(*ahead, &speaking));
            std::array::from_fn(|member| {
                let loss = lane.losses[member];
                Part { weight: weights[member], error: (loss.seen > 0).then_some(loss.error) }
            })
        };
        self.lengths.iter().enumerate().map(parts).collect()
    }

    /// Forgets the series that are not among these.
    pub(super) fn retain(&mut self, keep: impl Fn(&SeriesKey) -> bool) {
        self.series.retain(|key, _| keep(key));
    }
}

impl Lane {
    /// Of those that say something; they sum to 1. Who was not judged yet counts as the best that was.
    fn weights(&self, ahead: usize, speaking: &[bool; MEMBERS]) -> [f64; MEMBERS] {
        let speaks = |at: usize| speaking[at];
        let judged = (0..MEMBERS).filter(|at| speaks(*at) && self.losses[*at].seen > 0);
        let best = judged.map(|at| self.losses[at].mean).min_by(f64::total_cmp).unwrap_or(0.0);
        let mut weights: [f64; MEMBERS] = std::array::from_fn(|at| {
            let loss = self.losses[at];
            let excess = if loss.seen == 0 || loss.mean <= best { 0.0 } else { loss.mean / best - 1.0 };
            let independent = f64::from(loss.seen) / ahead as f64;
            let trust = independent / (independent + EQUAL);
            if speaks(at) { (-ETA * trust * excess).exp() } else { 0.0 }
        });
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum.max(f64::MIN_POSITIVE));
        weights
    }
}

/// What a member has to say in a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub(super) weight: f64,
    pub(super) error: Option<f64>,
}

/// Which members say something; the other experts always do.
fn speaking(said: &Said) -> [bool; MEMBERS] {
    let mut speaking = [false; MEMBERS];
    speaking[0] = true;
    said.iter().for_each(|(kind, said)| speaking[1 + *kind as usize] = said.is_ok());
    speaking
}

fn total(row: &Row, actual: f64) -> f64 {
    row.iter().zip(Quantile::GRID).map(|(value, q)| pinball(q, *value, actual)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Path, Silence};
    use super::*;
    use crate::testing::noise;
    use std::time::Duration;
    use tradewind_protocol::{RegionId, Step, Timestamp};

    fn key() -> SeriesKey {
        let region = |name| RegionId::new(name).unwrap();
        SeriesKey {
            tenant: Default::default(),
            source: region("a"),
            destination: region("b"),
            service: Default::default(),
            transaction_type: Default::default(),
        }
    }

    /// Quantiles of what is even over `centre` +- `reach`.
    fn row(centre: f64, reach: f64) -> Row {
        Quantile::GRID.map(|q| centre + reach * (2.0 * q.probability() - 1.0))
    }

    fn prediction(after: i64, row: Row) -> PredictionData {
        let values = [row; 2].into_iter().flatten().map(|value| value as f32).collect();
        let step = Step::new(Duration::from_secs(60)).unwrap();
        PredictionData {
            series: key(),
            issued_at: Timestamp::EPOCH,
            observed: 0.0,
            mean_volume: 1.0,
            path: QuantilePath::rearranged(StepIndex(after + 1), step, Quantile::GRID.to_vec(), values).unwrap(),
            model: "inside".into(),
            score: Default::default(),
        }
    }

    fn global(row: Row) -> Said {
        vec![(Kind::Nhits, Ok(Path { lanes: vec![1, 2], rows: vec![row; 2] }))]
    }

    fn even(at: i64) -> f64 {
        2.0 * noise(at as usize) - 1.0
    }

    /// The row one step ahead after `steps` steps, when these are said and what comes is even over 100 +- 10.
    fn after(steps: i64, inside: Row, outside: Row) -> (Row, String) {
        let (mut blend, key) = (Blend::new(2), key());
        for at in 0..steps {
            blend.blend(prediction(at, inside), &global(outside));
            blend.learn(StepIndex(at + 1), &BTreeMap::from([(&key, 100.0 + 10.0 * even(at))]));
        }
        let made = blend.blend(prediction(steps, inside), &global(outside));
        (std::array::from_fn(|at| f64::from(made.path.row(0).unwrap()[at])), made.model)
    }

    #[test]
    fn weight_goes_to_whom_loses_least_on_the_whole_grid() {
        let (said, model) = after(200, row(150.0, 10.0), row(100.0, 10.0));
        assert!((said[MEDIAN] - 100.0).abs() < 2.0 && said[6] < 113.0 && model == "global-nhits", "{said:?} {model}");
        // The same median, but only one knows how wide.
        let (said, model) = after(200, row(100.0, 60.0), row(100.0, 10.0));
        assert!((said[6] - 109.0).abs() < 4.0 && (said[0] - 91.0).abs() < 4.0 && model == "global-nhits", "{said:?} {model}");
        let (said, model) = after(200, row(100.0, 10.0), row(150.0, 10.0));
        assert!((said[MEDIAN] - 100.0).abs() < 2.0 && model == "inside", "{said:?} {model}");
        // At first all count the same.
        assert_eq!(after(0, row(100.0, 10.0), row(150.0, 10.0)).0[MEDIAN], 125.0);
    }

    #[test]
    fn who_promises_too_narrowly_is_held_to_the_promise_and_who_does_too_widely_is_left() {
        for (reach, wanted, within) in [(6.0, 9.0, 1.5), (16.0, 16.0 * 0.9 * WIDTHS.0.exp(), 0.1)] {
            let (said, _) = after(3_000, row(100.0, reach), row(100.0, reach));
            assert!((said[6] - 100.0 - wanted).abs() < within && (said[0] - 100.0 + wanted).abs() < within, "{reach}: {said:?}");
        }
    }

    #[test]
    fn a_path_is_left_as_it_is_where_no_global_model_speaks_and_what_waits_is_bounded() {
        let mut blend = Blend::new(2);
        let said = vec![(Kind::Nhits, Err(Silence::Unlearnt))];
        assert_eq!(blend.blend(prediction(0, row(3.0, 1.0)), &said), prediction(0, row(3.0, 1.0)));
        // Said twice of the same step, and never closed.
        (0..500).for_each(|at| drop(blend.blend(prediction(at / 2, row(3.0, 1.0)), &global(row(3.0, 1.0)))));
        blend.learn(StepIndex(249), &BTreeMap::new());
        assert!(blend.series[&key()].iter().all(|lane| lane.pending.len() <= 2));
        blend.retain(|_| false);
        assert!(blend.series.is_empty());
    }
}
