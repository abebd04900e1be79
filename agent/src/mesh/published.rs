//! A region's state as bytes: within its byte budget on the way out, within every limit and sane on
//! the way in. Pure.

use super::refusal::Refusal;
use super::zip;
use crate::marks::{bug, sometimes};
use std::cmp::Ordering;
use tradewind_protocol::calendar::MAX_EVENTS;
use tradewind_protocol::region::{Coordinates, Dropped};
use tradewind_protocol::wire::codec::{self, CodecError};
use tradewind_protocol::wire::{MAX_BODY_BYTES, MAX_MESSAGE_BYTES, MAX_STATE_BYTES};
use tradewind_protocol::{PredictionData, RegionState};

/// 64 KiB of forecasts take 2 ms; higher levels gain 2 % and take ten times as long.
const LEVEL: i32 = 3;

/// The codec refuses what is longer than a message, so a state is bounded by both.
const MAX_PLAIN_BYTES: usize = if MAX_STATE_BYTES < MAX_MESSAGE_BYTES { MAX_STATE_BYTES } else { MAX_MESSAGE_BYTES };

/// A state that fits, and its bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Built {
    /// What is published: `forecasts` rounded, sorted and cut, `dropped` filled in.
    pub(super) state: RegionState,
    /// zstd over its encoding.
    pub(super) body: Vec<u8>,
}

/// Why a state is not published. The one before stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Not even without forecasts.
    #[error(
        "the state takes {bytes} bytes without any forecast, the budget is {budget}: raise mesh.state_budget_bytes or have fewer pools"
    )]
    Budget {
        /// How many.
        bytes: usize,
        /// Of how many.
        budget: usize,
    },
    /// A number that peers would refuse.
    #[error("the state has a number that is negative, infinite or none: {0}")]
    Number(&'static str),
    /// It has no bytes.
    #[error("the state cannot be encoded")]
    Codec(#[source] CodecError),
    /// It cannot be compressed.
    #[error("the state cannot be compressed")]
    Zstd(#[source] std::io::Error),
}

/// The bytes of `state` within `budget`: as many forecasts as fit, those of the highest volume first, rounded.
pub(super) fn build(mut state: RegionState, budget: usize) -> Result<Built, BuildError> {
    if let Some(what) = insane_number(&state) {
        return Err(BuildError::Number(what));
    }
    let budget = if bug!("budget-ignored") { MAX_BODY_BYTES } else { budget.min(MAX_BODY_BYTES) };
    let mut forecasts = std::mem::take(&mut state.forecasts);
    forecasts.iter_mut().for_each(PredictionData::round);
    forecasts.sort_by(by_volume);
    let volumes: Vec<f64> = forecasts.iter().map(|forecast| forecast.mean_volume).collect();
    let whole: f64 = volumes.iter().sum();

    let mut attempt = |count: usize| {
        let left_out: f64 = volumes[count..].iter().sum();
        let volume_share = if whole > 0.0 { (left_out / whole).clamp(0.0, 1.0) } else { 0.0 };
        state.dropped = Dropped { forecasts: u32::try_from(volumes.len() - count).unwrap_or(u32::MAX), volume_share };
        // The forecasts are lent to the state for the encoding, not copied.
        let rest = forecasts.split_off(count);
        state.forecasts = std::mem::take(&mut forecasts);
        let body = encode(&state);
        forecasts = std::mem::take(&mut state.forecasts);
        forecasts.extend(rest);
        body.map(|body| (body, state.dropped))
    };

    let mut best = match attempt(volumes.len()) {
        Ok((body, dropped)) if body.len() <= budget => Some((volumes.len(), body, dropped)),
        Ok(_) | Err(BuildError::Codec(_)) => None,
        Err(error) => return Err(error),
    };
    if best.is_none() {
        sometimes!("mesh.state-cut-to-budget");
        let (body, dropped) = attempt(0)?;
        if body.len() > budget {
            return Err(BuildError::Budget { bytes: body.len(), budget });
        }
        let mut fits = (0, body, dropped);
        let (mut low, mut high) = (0, volumes.len());
        // Sizes grow with the count, but for a few bytes; whatever is chosen has been measured.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match attempt(middle) {
                Ok((body, dropped)) if body.len() <= budget => {
                    low = middle;
                    fits = (middle, body, dropped);
                }
                Ok(_) | Err(_) => high = middle,
            }
        }
        best = Some(fits);
    }
    let Some((count, body, dropped)) = best else { return Err(BuildError::Budget { bytes: 0, budget }) };
    forecasts.truncate(count);
    state.forecasts = forecasts;
    state.dropped = dropped;
    Ok(Built { state, body })
}

fn by_volume(a: &PredictionData, b: &PredictionData) -> Ordering {
    b.mean_volume.total_cmp(&a.mean_volume).then_with(|| a.series.cmp(&b.series))
}

fn encode(state: &RegionState) -> Result<Vec<u8>, BuildError> {
    let plain = codec::encode(state).map_err(BuildError::Codec)?;
    zip::compress(&plain, LEVEL).map_err(BuildError::Zstd)
}

/// The state in a body that a peer has sent. Whose it is, is for the caller to judge.
pub(super) fn open(body: &[u8]) -> Result<RegionState, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refusal::Oversized);
    }
    let decoded = zip::decompress(body, MAX_PLAIN_BYTES, codec::decode).map_err(|_| Refusal::Malformed)?;
    let state: RegionState = decoded.map_err(|_| Refusal::Malformed)?;
    if insane_number(&state).is_some() { Err(Refusal::Malformed) } else { Ok(state) }
}

/// What is wrong with a state's numbers, so that no peer need ask again.
fn insane_number(state: &RegionState) -> Option<&'static str> {
    let sane = |number: f64| number.is_finite() && number >= 0.0;
    let forecast_is_sane = |f: &PredictionData| {
        let numbers = [f.observed, f.mean_volume, f.score.pinball, f.score.seasonal_naive_pinball, f.score.coverage_90];
        numbers.into_iter().all(sane)
    };
    if !state.forecasts.iter().all(forecast_is_sane) {
        Some("in a forecast")
    } else if !state.pools.iter().all(|pool| sane(pool.rate_per_instance)) {
        Some("a pool's rate_per_instance")
    } else if !state.coordinates.is_none_or(Coordinates::is_valid) {
        Some("in the coordinates")
    } else if state.events.len() > MAX_EVENTS || state.events.iter().any(|event| event.check().is_err()) {
        Some("in the events, or too many of them")
    } else if !sane(state.dropped.volume_share) {
        Some("the dropped volume share")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::tests::pki::{state, state_with};

    #[test]
    fn what_fits_is_published_whole() {
        let built = build(state_with("eu", 10), 64 * 1024).unwrap();
        assert_eq!(built.state.forecasts.len(), 10);
        assert_eq!(built.state.dropped, Dropped::default());
        assert!(built.state.forecasts.is_sorted_by(|a, b| a.mean_volume >= b.mean_volume));
        assert_eq!(open(&built.body), Ok(built.state));
    }

    #[test]
    fn what_does_not_fit_is_dropped_lowest_volume_first_and_the_drop_is_published() {
        let all = state_with("eu", 400);
        let budget = 8 * 1024;
        let built = build(all.clone(), budget).unwrap();
        let kept = built.state.forecasts.len();
        assert!(built.body.len() <= budget && kept > 0 && kept < 400, "{kept} in {}", built.body.len());
        assert_eq!(built.state.dropped.forecasts as usize, 400 - kept);
        let lowest_kept = built.state.forecasts.last().unwrap().mean_volume;
        let dropped: Vec<_> = all.forecasts.iter().filter(|f| f.mean_volume < lowest_kept).collect();
        assert_eq!(dropped.len(), 400 - kept);
        let share = dropped.iter().map(|f| f.mean_volume).sum::<f64>() / all.forecasts.iter().map(|f| f.mean_volume).sum::<f64>();
        assert!((built.state.dropped.volume_share - share).abs() < 1e-9);
        assert_eq!(open(&built.body).as_ref(), Ok(&built.state));
        // One more would not have fitted.
        let mut more = all;
        more.forecasts.sort_by(by_volume);
        more.forecasts.truncate(kept + 1);
        more.forecasts.iter_mut().for_each(PredictionData::round);
        assert!(encode(&more).unwrap().len() > budget - 16);
    }

    #[test]
    fn more_than_a_message_is_cut_even_if_it_would_compress_well() {
        let built = build(state_with("eu", 5_000), MAX_BODY_BYTES).unwrap();
        assert!(built.state.dropped.forecasts > 0);
        assert_eq!(open(&built.body), Ok(built.state));
    }

    #[test]
    fn a_state_that_never_fits_or_makes_no_sense_is_refused_with_the_remedy() {
        assert!(build(state("eu"), 20).unwrap_err().to_string().contains("raise mesh.state_budget_bytes"));
        let mut bad = state_with("eu", 2);
        bad.forecasts[1].mean_volume = f64::NAN;
        assert!(build(bad.clone(), 64 * 1024).unwrap_err().to_string().contains("in a forecast"));
        assert_eq!(open(&encode(&bad).unwrap()), Err(Refusal::Malformed));
    }

    #[test]
    fn hostile_bodies_are_refused_within_bounds() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(open(&bomb), Err(Refusal::Malformed));
        assert_eq!(open(&vec![0; MAX_BODY_BYTES + 1]), Err(Refusal::Oversized));
        assert_eq!(open(b""), Err(Refusal::Malformed));
        assert_eq!(open(b"junk"), Err(Refusal::Malformed));
        let mut trailing = codec::encode(&state("eu")).unwrap();
        trailing.push(0);
        assert_eq!(open(&zstd::bulk::compress(&trailing, 1).unwrap()), Err(Refusal::Malformed));
    }
}
