//! Forecasts: quantile paths over a horizon, and what a region publishes about a pair of regions.

mod packed;

use crate::{RegionId, ServiceName, Step, StepIndex, TenantName, Timestamp, TransactionType};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is counted and forecast as one: transactions of one kind, of one tenant, between two
/// regions, for one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeriesKey {
    /// Whose transactions.
    pub tenant: TenantName,
    /// Where they come from.
    pub source: RegionId,
    /// Where they are served.
    pub destination: RegionId,
    /// By which service.
    pub service: ServiceName,
    /// Of which kind.
    pub transaction_type: TransactionType,
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}>{}/{}/{}", self.tenant, self.source, self.destination, self.service, self.transaction_type)
    }
}

/// A probability strictly between 0 and 1, in thousandths, so that it orders and compares exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "u16", into = "u16")]
#[schema(value_type = u16)]
pub struct Quantile(u16);

/// Why a number is not a quantile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantile {0} must be between 1 and 999 thousandths")]
pub struct QuantileError(u16);

impl Quantile {
    /// The median.
    pub const MEDIAN: Quantile = Quantile(500);
    /// The lower and upper end of the central 90 % interval.
    pub const CENTRAL_90: (Quantile, Quantile) = (Quantile(50), Quantile(950));
    /// What every forecast carries, unless configured otherwise. Dense in the upper tail, where
    /// capacity is decided.
    pub const GRID: [Quantile; 9] = [
        Quantile(50),
        Quantile(100),
        Quantile(250),
        Quantile(500),
        Quantile(750),
        Quantile(900),
        Quantile(950),
        Quantile(975),
        Quantile(990),
    ];

    /// `thousandths` / 1000.
    pub const fn per_mille(thousandths: u16) -> Result<Self, QuantileError> {
        if thousandths == 0 || thousandths >= 1000 { Err(QuantileError(thousandths)) } else { Ok(Self(thousandths)) }
    }

    /// The quantile nearest to `probability`, inside the open interval.
    pub fn nearest(probability: f64) -> Self {
        // NaN casts to 0 and lands on the lowest.
        Self(((probability * 1000.0).round() as u16).clamp(1, 999))
    }

    /// As a probability.
    pub fn probability(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// As thousandths.
    pub fn thousandths(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Quantile {
    type Error = QuantileError;
    fn try_from(thousandths: u16) -> Result<Self, QuantileError> {
        Self::per_mille(thousandths)
    }
}

impl From<Quantile> for u16 {
    fn from(q: Quantile) -> u16 {
        q.0
    }
}

impl fmt::Debug for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q{:03}", self.0)
    }
}

/// Pinball (quantile) loss of predicting `predicted` for quantile `q` when `actual` came:
/// `q (a - p)` above, `(1 - q)(p - a)` below (Koenker and Bassett 1978). In the series' unit.
pub fn pinball(q: Quantile, predicted: f64, actual: f64) -> f64 {
    let (q, diff) = (q.probability(), actual - predicted);
    if diff >= 0.0 { q * diff } else { (q - 1.0) * diff }
}

/// The longest horizon, in steps: two days of minutes, rounded up.
pub const MAX_HORIZON: usize = 3_000;
/// The most quantiles a path may carry.
pub const MAX_QUANTILES: usize = 32;

/// Quantiles of a series over consecutive steps: `values[h * quantiles + q]` is the `q`-th quantile
/// of the count in step `start + h`, in transactions per step.
///
/// Invariant, kept by every way to make one: at least one step and one quantile, quantiles strictly
/// ascending, values finite, not negative and not crossing.
#[derive(Debug, Clone, PartialEq, utoipa::ToSchema)]
pub struct QuantilePath {
    start: StepIndex,
    step: Step,
    quantiles: Vec<Quantile>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct RawPath {
    start: StepIndex,
    step: Step,
    quantiles: Vec<Quantile>,
    values: Vec<f32>,
}

/// Why numbers are not a quantile path.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PathError {
    /// No quantiles, too many, or not ascending.
    #[error("a path needs 1 to {MAX_QUANTILES} strictly ascending quantiles, got {0:?}")]
    Quantiles(Vec<Quantile>),
    /// The values are not one row of quantiles a step.
    #[error("a path of {quantiles} quantiles needs 1 to {MAX_HORIZON} rows of that many values, got {values} values")]
    Shape {
        /// How many quantiles.
        quantiles: usize,
        /// How many values.
        values: usize,
    },
    /// A value is negative, infinite, not a number, or below its left neighbour.
    #[error("value {value} at step {row} of the path must be finite, at least 0 and not below the quantile before it")]
    Value {
        /// Which row.
        row: usize,
        /// What stood there.
        value: f32,
    },
}

impl TryFrom<RawPath> for QuantilePath {
    type Error = PathError;
    fn try_from(raw: RawPath) -> Result<Self, PathError> {
        let n = raw.quantiles.len();
        if n == 0 || n > MAX_QUANTILES || !raw.quantiles.is_sorted_by(|a, b| a < b) {
            return Err(PathError::Quantiles(raw.quantiles.into_iter().take(MAX_QUANTILES + 1).collect()));
        }
        if raw.values.is_empty() || !raw.values.len().is_multiple_of(n) || raw.values.len() / n > MAX_HORIZON {
            return Err(PathError::Shape { quantiles: n, values: raw.values.len() });
        }
        for (row, values) in raw.values.chunks_exact(n).enumerate() {
            let mut floor = 0.0;
            for &value in values {
                if !value.is_finite() || value < floor {
                    return Err(PathError::Value { row, value });
                }
                floor = value;
            }
        }
        Ok(Self { start: raw.start, step: raw.step, quantiles: raw.quantiles, values: raw.values })
    }
}

impl QuantilePath {
    /// A path from values that already keep the invariant.
    pub fn new(start: StepIndex, step: Step, quantiles: Vec<Quantile>, values: Vec<f32>) -> Result<Self, PathError> {
        RawPath { start, step, quantiles, values }.try_into()
    }

    /// A path from raw model output: each row is clipped at zero (what is not a number becomes
    /// zero, what is infinite the largest `f32`) and sorted, which never worsens its pinball loss
    /// (Chernozhukov, Fernandez-Val and Galichon 2010).
    pub fn rearranged(start: StepIndex, step: Step, quantiles: Vec<Quantile>, mut values: Vec<f32>) -> Result<Self, PathError> {
        for value in &mut values {
            *value = if value.is_nan() { 0.0 } else { value.clamp(0.0, f32::MAX) };
        }
        if let n @ 1.. = quantiles.len() {
            values.chunks_mut(n).for_each(|row| row.sort_by(f32::total_cmp));
        }
        Self::new(start, step, quantiles, values)
    }

    /// Rounds every value to eight significant bits, those of a bfloat16. Order is kept.
    fn round(&mut self) {
        for value in &mut self.values {
            let rounded = f32::from_bits(value.to_bits().saturating_add(0x8000) & 0xffff_0000);
            // The largest stay as they are, or they would become infinite.
            *value = if rounded.is_finite() { rounded } else { *value };
        }
    }

    /// The first step that is forecast.
    pub fn start(&self) -> StepIndex {
        self.start
    }

    /// The length of each step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// How many steps are forecast.
    pub fn horizon(&self) -> usize {
        self.values.len() / self.quantiles.len()
    }

    /// The quantiles, ascending.
    pub fn quantiles(&self) -> &[Quantile] {
        &self.quantiles
    }

    /// The quantiles' values `ahead` steps after the start.
    pub fn row(&self, ahead: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.quantiles.len()).nth(ahead)
    }

    /// The quantiles' values in step `index`, if the path covers it.
    pub fn at(&self, index: StepIndex) -> Option<&[f32]> {
        usize::try_from(index.0.checked_sub(self.start.0)?).ok().and_then(|ahead| self.row(ahead))
    }

    /// The value of `q` in step `index`: linear between the quantiles that the path carries, the
    /// outermost beyond them. `None` outside the path.
    pub fn value(&self, index: StepIndex, q: Quantile) -> Option<f64> {
        let row = self.at(index)?;
        let above = self.quantiles.partition_point(|x| *x < q);
        if above == 0 {
            return row.first().map(|v| f64::from(*v));
        }
        let Some(upper) = self.quantiles.get(above) else { return row.last().map(|v| f64::from(*v)) };
        let lower = self.quantiles[above - 1];
        let share = f64::from(q.0 - lower.0) / f64::from(upper.0 - lower.0);
        let (low, high) = (f64::from(row[above - 1]), f64::from(row[above]));
        Some(low + share * (high - low))
    }
}

/// How well a series was forecast lately, one step ahead, over `steps` closed steps.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ForecastScore {
    /// How many steps the means below are over.
    pub steps: u32,
    /// Mean pinball loss over the quantiles, in transactions per step.
    pub pinball: f64,
    /// The same for the seasonal naive forecast.
    pub seasonal_naive_pinball: f64,
    /// Share of steps inside the central 90 % interval.
    pub coverage_90: f64,
}

/// What a source region foresees for one pair of regions: published, and used by the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PredictionData {
    /// What is forecast.
    pub series: SeriesKey,
    /// When it was made.
    pub issued_at: Timestamp,
    /// The count in the last closed step, the one before the path's start.
    pub observed: f64,
    /// Mean count per step over the recent past: what decides when the byte budget is short.
    pub mean_volume: f64,
    /// The forecast.
    pub path: QuantilePath,
    /// Which model made it.
    pub model: String,
    /// How good it has been.
    pub score: ForecastScore,
}

impl PredictionData {
    /// Rounds the path and the score to eight significant bits, within 0.2 % of what they were: far closer than any forecast is, and
    /// less than half the bytes once it is compressed. What was counted stays.
    pub fn round(&mut self) {
        self.path.round();
        let ForecastScore { pinball, seasonal_naive_pinball, coverage_90, .. } = &mut self.score;
        for value in [pinball, seasonal_naive_pinball, coverage_90] {
            let rounded = f64::from_bits(value.to_bits().saturating_add(1 << 44) & !((1 << 45) - 1));
            *value = if rounded.is_finite() { rounded } else { *value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn path(values: &[f32]) -> Result<QuantilePath, PathError> {
        let step = Step::new(Duration::from_secs(60)).unwrap();
        QuantilePath::new(StepIndex(10), step, vec![Quantile(100), Quantile(500), Quantile(900)], values.to_vec())
    }

    #[test]
    fn a_path_cannot_cross_explode_or_be_ragged() {
        assert!(path(&[1.0, 2.0, 3.0]).is_ok());
        for bad in [&[3.0, 2.0, 1.0][..], &[-1.0, 0.0, 1.0], &[0.0, 1.0, f32::NAN], &[0.0, 1.0, f32::INFINITY], &[1.0, 2.0], &[]] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        let json = r#"{"start":1,"step":60000,"quantiles":[900,100],"values":[1,2]}"#;
        assert!(serde_json::from_str::<QuantilePath>(json).unwrap_err().to_string().contains("ascending"));
    }

    #[test]
    fn what_is_rounded_stays_near_in_order_and_finite() {
        let exact: Vec<f32> = (0..300).map(|i| (i as f32 * 0.37).exp2() * 1e-9).chain([f32::MAX; 3]).collect();
        let mut rounded = path(&[&[0.0, 1.0, 255.0][..], &exact].concat()).unwrap();
        rounded.round();
        assert_eq!(rounded.row(0).unwrap(), [0.0, 1.0, 255.0], "small counts are exact");
        assert_eq!(QuantilePath::new(rounded.start, rounded.step, rounded.quantiles.clone(), rounded.values.clone()), Ok(rounded.clone()));
        assert!(exact.iter().zip(&rounded.values[3..]).all(|(a, b)| (b - a).abs() <= a / 256.0));
    }

    #[test]
    fn values_are_interpolated_inside_and_held_outside() {
        let path = path(&[0.0, 4.0, 8.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!(path.value(StepIndex(10), Quantile(300)), Some(2.0));
        assert_eq!(path.value(StepIndex(10), Quantile(500)), Some(4.0));
        assert_eq!(path.value(StepIndex(10), Quantile(999)), Some(8.0));
        assert_eq!(path.value(StepIndex(11), Quantile(1)), Some(1.0));
        assert_eq!(path.value(StepIndex(12), Quantile(500)), None);
        assert_eq!(path.value(StepIndex(9), Quantile(500)), None);
    }

    #[test]
    fn rearrangement_makes_any_numbers_a_path() {
        let step = Step::new(Duration::from_secs(60)).unwrap();
        let quantiles = vec![Quantile(100), Quantile(900)];
        let path = QuantilePath::rearranged(StepIndex(0), step, quantiles, vec![5.0, 1.0, f32::NAN, f32::INFINITY, -3.0, -4.0]).unwrap();
        assert_eq!(path.row(0), Some(&[1.0, 5.0][..]));
        assert_eq!(path.row(1), Some(&[0.0, f32::MAX][..]));
        assert_eq!(path.row(2), Some(&[0.0, 0.0][..]));
    }

    #[test]
    fn pinball_weighs_the_two_sides() {
        let q90 = Quantile(900);
        assert!((pinball(q90, 10.0, 20.0) - 9.0).abs() < 1e-12);
        assert!((pinball(q90, 20.0, 10.0) - 1.0).abs() < 1e-12);
    }
}
