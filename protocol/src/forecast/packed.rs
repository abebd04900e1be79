//! A path's values as bytes on the wire: what [rounding](super::PredictionData::round) has left of them, as differences.
//!
//! A rounded value is the upper half of its `f32`, and as an integer that half orders and spaces values by their ratio. Each is
//! foretold from its neighbours (the quantile before it, the same quantile one step earlier and the one before that), and the
//! bytes are what it is off by: zigzag, then seven bits a byte, the lowest first. Neighbours differ little, so that most take one
//! byte where an `f32` takes four. Values that are not rounded are four bytes each.
//!
//! In text, such as JSON, a path is its values.

use super::{MAX_HORIZON, MAX_QUANTILES, QuantilePath, RawPath};
use crate::wire::AtMost;
use crate::{Quantile, Step, StepIndex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path, each value as long as can be.
const MAX_BYTES: usize = 4 * MAX_HORIZON * MAX_QUANTILES;

/// How a path's values are written in text.
#[derive(Serialize)]
struct Plain<'a> {
    start: StepIndex,
    step: Step,
    quantiles: &'a [Quantile],
    values: &'a [f32],
}

/// How they are written in bytes.
#[derive(Serialize, Deserialize)]
struct Packed {
    start: StepIndex,
    step: Step,
    quantiles: Vec<Quantile>,
    rounded: bool,
    #[serde(with = "AtMost::<MAX_BYTES>")]
    values: Vec<u8>,
}

impl Serialize for QuantilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { start, step, quantiles, values } = self;
        if serializer.is_human_readable() {
            return Plain { start: *start, step: *step, quantiles, values }.serialize(serializer);
        }
        let rounded = values.iter().all(|value| value.to_bits() & 0xffff == 0);
        let values = if rounded { pack(values, quantiles.len()) } else { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        Packed { start: *start, step: *step, quantiles: quantiles.clone(), rounded, values }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for QuantilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let raw = if deserializer.is_human_readable() {
            RawPath::deserialize(deserializer)?
        } else {
            let Packed { start, step, quantiles, rounded, values } = Packed::deserialize(deserializer)?;
            let values = if rounded { unpack(&values, quantiles.len()) } else { exact(&values) };
            let values = values.ok_or_else(|| D::Error::custom("the values of a path are cut off"))?;
            RawPath { start, step, quantiles, values }
        };
        raw.try_into().map_err(D::Error::custom)
    }
}

/// The value that follows `past`: differences between quantiles stay as they were in the step before.
fn foretold(past: &[i32], quantiles: usize) -> i32 {
    let n = past.len();
    match (n.is_multiple_of(quantiles), n < quantiles) {
        _ if n == 0 => 0,
        (true, _) => past[n - quantiles],
        (false, true) => past[n - 1],
        (false, false) => past[n - 1] + past[n - quantiles] - past[n - quantiles - 1],
    }
}

/// The values, row by row of so many quantiles.
fn pack(values: &[f32], quantiles: usize) -> Vec<u8> {
    let mut past = Vec::with_capacity(values.len());
    let mut bytes = Vec::with_capacity(values.len() + values.len() / 4);
    for value in values {
        let value = (value.to_bits() >> 16) as i32;
        let off = value - foretold(&past, quantiles);
        let mut left = ((off << 1) ^ (off >> 31)) as u32;
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        past.push(value);
    }
    bytes
}

/// None if the bytes are no values, or more than a path may have.
fn unpack(bytes: &[u8], quantiles: usize) -> Option<Vec<f32>> {
    let values = bytes.iter().filter(|byte| **byte < 0x80).count();
    if quantiles == 0 || values > MAX_HORIZON * MAX_QUANTILES || bytes.last().is_some_and(|byte| *byte >= 0x80) {
        return None;
    }
    let mut past = Vec::with_capacity(values);
    let (mut zigzag, mut shift) = (0u32, 0);
    for byte in bytes {
        zigzag |= u32::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if *byte < 0x80 {
            let off = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
            // Sixteen bits each, so that none of the sums overflows.
            past.push(i32::from(u16::try_from(foretold(&past, quantiles).checked_add(off)?).ok()?));
            (zigzag, shift) = (0, 0);
        }
    }
    Some(past.into_iter().map(|value| f32::from_bits((value as u32) << 16)).collect())
}

fn exact(bytes: &[u8]) -> Option<Vec<f32>> {
    let (values, []) = bytes.as_chunks::<4>() else { return None };
    Some(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;
    use std::time::Duration;

    /// A day of hours, the later quantiles the wider.
    fn path() -> QuantilePath {
        let level = |hour: usize| 100.0 + 60.0 * (hour as f32 / 24.0 * std::f32::consts::TAU).sin();
        let values = (0..24).flat_map(|hour| (0..9).map(move |q| level(hour) * (0.8 + 0.05 * q as f32))).collect();
        QuantilePath::new(StepIndex(1_000), Step::new(Duration::from_secs(60)).unwrap(), Quantile::GRID.to_vec(), values).unwrap()
    }

    #[test]
    fn paths_come_back_as_they_were_and_rounded_ones_are_a_quarter() {
        let exact = path();
        let mut rounded = path();
        rounded.round();
        let bytes = |path: &QuantilePath| {
            let bytes = codec::encode(path).unwrap();
            assert_eq!(codec::decode::<QuantilePath>(&bytes).unwrap(), *path);
            bytes.len()
        };
        let (exact, rounded) = (bytes(&exact), bytes(&rounded));
        assert!(exact > 4 * 24 * 9 && rounded < 24 * 9 + 60, "{exact} {rounded}");
    }

    #[test]
    fn extremes_come_back_as_they_were() {
        let step = Step::new(Duration::from_secs(60)).unwrap();
        let largest = f32::from_bits(0x7f7f_0000);
        let values = vec![-0.0, 0.0, largest, 0.0, largest, largest, 1.0, 1.0, 1.0];
        let path = QuantilePath::new(StepIndex(-7), step, Quantile::GRID[..3].to_vec(), values).unwrap();
        let back: QuantilePath = codec::decode(&codec::encode(&path).unwrap()).unwrap();
        assert!(back == path && back.values[0].is_sign_negative());
    }

    #[test]
    fn bytes_that_are_no_values_are_refused() {
        assert_eq!(unpack(&[0x80], 1), None, "cut off");
        assert_eq!(unpack(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 1), None, "too long");
        assert_eq!(unpack(&[1], 1), None, "below zero");
        assert_eq!(unpack(&[0xff, 0xff, 0x0f], 1), None, "beyond sixteen bits");
        assert_eq!(unpack(&[2, 1], 1), Some(vec![f32::from_bits(0x0001_0000), 0.0]));
        assert_eq!(exact(&[0, 0, 0]), None);
        assert_eq!(unpack(&[0], 0), None, "of no quantiles");
        assert_eq!(unpack(&[], 1), Some(vec![]));
    }
}
