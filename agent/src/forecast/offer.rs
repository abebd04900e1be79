//! Experts from outside: quantile paths that somebody else has computed, with the step after which each was issued.
//!
//! A model that is trained off the step, or asked only now and then, offers what it foresees for a series. From then on it
//! stands among the experts by its name: it speaks for the steps that its last path covers, grows stale with it, and is
//! weighed by its errors like all others.

use std::collections::BTreeMap;
use tradewind_protocol::{QuantilePath, SeriesKey, StepIndex};

/// The most experts from outside: each takes part in every lane of every series.
pub const MAX_OFFERING: usize = 8;
/// The longest name of one.
const MAX_NAME_BYTES: usize = 64;

/// Why an offer was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefused {
    /// The name is empty, too long, or one of the experts inside.
    #[error("an expert's name has 1 to {MAX_NAME_BYTES} bytes and is not one of those inside, got {0:?}")]
    Name(String),
    /// There are as many experts from outside as there may be.
    #[error("there are {MAX_OFFERING} experts from outside already")]
    TooMany,
    /// The series is not forecast here.
    #[error("there is no such series")]
    UnknownSeries,
    /// The path was issued after a step that is not closed yet, or does not start after the step it was issued after.
    #[error("a path issued after step {} must start after it, and the step must be closed", .issued.0)]
    NotYet {
        /// After which step it was said to be issued.
        issued: StepIndex,
    },
    /// The path's steps are not as long as ours.
    #[error("the path's steps have another length")]
    Step,
}

/// What the experts from outside said last.
#[derive(Debug, Default)]
pub(super) struct Offers {
    names: Vec<String>,
    paths: BTreeMap<SeriesKey, BTreeMap<usize, Offered>>,
}

#[derive(Debug)]
struct Offered {
    issued: StepIndex,
    #[expect(dead_code, reason = "not mixed yet")]
    path: QuantilePath,
}

impl Offers {
    /// Takes a path in unless a newer one is there.
    pub(super) fn take(&mut self, expert: &str, key: &SeriesKey, issued: StepIndex, path: QuantilePath) -> Result<(), OfferRefused> {
        let at = match self.names.iter().position(|name| name == expert) {
            Some(at) => at,
            None if expert.is_empty() || expert.len() > MAX_NAME_BYTES || super::EXPERTS.contains(&expert) => {
                return Err(OfferRefused::Name(expert.chars().take(MAX_NAME_BYTES).collect()));
            }
            None if self.names.len() == MAX_OFFERING => return Err(OfferRefused::TooMany),
            None => {
                self.names.push(expert.to_owned());
                self.names.len() - 1
            }
        };
        let offered = self.paths.entry(key.clone()).or_default();
        if offered.get(&at).is_none_or(|old| old.issued <= issued) {
            offered.insert(at, Offered { issued, path });
        }
        Ok(())
    }

    /// Forgets what was said of a series.
    pub(super) fn forget(&mut self, key: &SeriesKey) {
        self.paths.remove(key);
    }
}
