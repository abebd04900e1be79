//! What would fit instead of what does not: less, later, or in the other tier. Every offer is checked as if it
//! had been asked for, so that an offer taken up at once is granted.

use super::{Error, Ledger, MAX_AMOUNT};
use crate::Resources;
use crate::reservation::terms::{Offer, Terms, Tier, Window};
use crate::reservation::timeline::Load;
use std::time::Duration;

/// How much later, in lengths of the window that was asked for.
const LATER_LENGTHS: u32 = 4;
/// How much later at most: beyond, a new forecast says more than an old request.
const LATEST: Duration = Duration::from_secs(24 * 3_600);
/// How many full places are looked beyond: each costs two searches.
const TRIES: usize = 8;

impl Ledger {
    /// Puts what would fit instead into a refusal.
    pub(super) fn with_offers(&self, mut error: Error, terms: &Terms) -> Error {
        if let Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. } = &mut error {
            let candidates = [self.less(terms), self.later(terms), Some(other_tier(terms))];
            offers.extend(candidates.into_iter().flatten().filter(|offer| self.fits(offer.terms()).is_ok()));
        }
        error
    }

    /// As many units as there is room for throughout the window.
    fn less(&self, terms: &Terms) -> Option<Offer> {
        let level = self.timeline.peak(terms.window);
        let free = match terms.tier {
            Tier::Firm => minus(self.config.capacity, level.firm_part()),
            Tier::Soft => minus(self.overbooked, level.all_part()),
        };
        let mut units = terms.unit.times_in(free)?;
        if let Some(quota) = self.quota(&terms.tenant) {
            let taken = self.tenants.get(&terms.tenant).map_or(Resources::ZERO, |timeline| timeline.peak(terms.window).all_part());
            units = units.min(terms.unit.times_in(minus(quota, taken))?);
        }
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(terms.units);
        (units > 0).then(|| Offer::Less { terms: Terms { units, ..terms.clone() } })
    }

    /// All units at the next start at which there is room for them.
    fn later(&self, terms: &Terms) -> Option<Offer> {
        let total = terms.total().filter(|total| total.kinds().iter().all(|(_, amount)| *amount <= MAX_AMOUNT))?;
        let load = match terms.tier {
            Tier::Firm => Load::firm(total),
            Tier::Soft => Load::soft(total),
        };
        let length = terms.window.length();
        let starts = Window::of(terms.window.from, length.saturating_mul(LATER_LENGTHS).min(LATEST));
        let from = self.timeline.earliest(starts, length, &self.room(terms.tier).beside(load), TRIES)?;
        (from > terms.window.from).then(|| Offer::Later { terms: Terms { window: Window::of(from, length), ..terms.clone() } })
    }
}

fn other_tier(terms: &Terms) -> Offer {
    let tier = match terms.tier {
        Tier::Firm => Tier::Soft,
        Tier::Soft => Tier::Firm,
    };
    Offer::OtherTier { terms: Terms { tier, ..terms.clone() } }
}

/// What is left; nothing of a kind of which more is taken than there is.
fn minus(all: Resources, taken: Resources) -> Resources {
    Resources {
        cpu_millis: all.cpu_millis.saturating_sub(taken.cpu_millis),
        memory_bytes: all.memory_bytes.saturating_sub(taken.memory_bytes),
        storage_bytes: all.storage_bytes.saturating_sub(taken.storage_bytes),
        storage_iops: all.storage_iops.saturating_sub(taken.storage_iops),
        bandwidth_bps: all.bandwidth_bps.saturating_sub(taken.bandwidth_bps),
    }
}
