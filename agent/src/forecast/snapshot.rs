//! A series' forecast as bytes, so that the next life of the agent goes on where this one was instead of learning for minutes.
//!
//! All state of a series is in it, to the last bit: what is restored says what it would have said. Bytes of another layout, of other settings, of
//! counts that late records have changed since, or of no sense are refused; who has them learns the series afresh from its counts, which are what
//! is true. Where and when bytes are kept is not known here.

use super::series::SeriesForecast;
use tradewind_protocol::StepIndex;
use tradewind_protocol::wire::codec::{self, CodecError};

/// Raise it whenever the fields of anything that a series holds change, or what they mean.
const LAYOUT: u32 = 4;

/// Why bytes are no forecast of a series. Learning it from its counts mends all of them.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They cannot be read, or would be too many.
    #[error("it cannot be read or written")]
    Codec(#[from] CodecError),
    /// Another version of the program wrote them.
    #[error("it has layout {found}, not {LAYOUT}")]
    Layout {
        /// Theirs.
        found: u32,
    },
    /// Horizon, season or experts were others, or it holds what cannot be.
    #[error("it is of another horizon or season")]
    Settings,
    /// A part is missing, or holds what cannot be.
    #[error("a part of it is missing or damaged")]
    Damaged,
    /// It is too old, or was learnt from other counts than those that are known now.
    #[error("it was learnt from other counts, or long ago")]
    Counts,
}

/// The bytes of a series that was last told of `step`.
pub(super) fn save(step: StepIndex, series: &SeriesForecast) -> Result<Vec<u8>, SnapshotError> {
    Ok(codec::encode(&(LAYOUT, step, series))?)
}

/// The series in `bytes`, and how many counts at the end of `window`, the last that of step `until`, it has yet to learn.
pub(super) fn restore(
    bytes: &[u8],
    (horizon, season): (usize, usize),
    until: StepIndex,
    window: &[f64],
) -> Result<(SeriesForecast, usize), SnapshotError> {
    // A small number is one byte, whatever comes behind it.
    let found = bytes.first().copied().map_or(0, u32::from);
    if found != LAYOUT {
        return Err(SnapshotError::Layout { found });
    }
    let (_, step, series): (u32, StepIndex, SeriesForecast) = codec::decode(bytes)?;
    if !series.fits(horizon, season) {
        return Err(SnapshotError::Settings);
    }
    let since = usize::try_from(until.0.saturating_sub(step.0)).map_err(|_| SnapshotError::Counts)?;
    let known = window.len().checked_sub(since).map(|known| &window[..known]);
    if known.is_some_and(|known| series.was_told(known)) { Ok((series, since)) } else { Err(SnapshotError::Counts) }
}
