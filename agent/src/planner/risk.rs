//! How often a spot instance is taken, from what is expected, from prices of the past and from what was seen. Pure.
//!
//! **The rule.** Interruptions are taken for a Poisson process of unknown rate with a gamma prior, so that the expected rate is
//! `(a + interruptions + crossings) / (a / prior + instance hours + market hours)` (Gelman and others, Bayesian Data Analysis, third edition, section
//! 2.6). What is seen of the pool's own instances counts as it is. Prices count by the rule of a market that sells to whoever bids at least the spot
//! price: each time that the price rises above the bid, an instance of that market is taken (Zheng, Joe-Wong, Tan, Chiang and Wang, How to bid the
//! cloud, SIGCOMM 2015, section 3); the hours below the bid are those in which one could have run. Since sellers also take instances without raising the
//! price (EC2's prices are smoothed since the end of 2017), prices count as a week of one instance at most: a long quiet history does not outweigh what
//! is seen. What is seen fades, half in two weeks,
//! since markets change.
//!
//! Not in it: that instances of one market are taken together. How many go at once is for the plan ([`super::spot`]).

use crate::config::SpotConfig;
use serde::{Deserialize, Serialize};
use tradewind_protocol::Timestamp;

/// What is expected where the operators do not say: that an instance is taken once in a day and a bit. A guess on the safe side for large
/// clouds' common shapes, where it is once in weeks, and near what is seen of scarce ones.
const PRIOR_PER_HOUR: f64 = 0.04;
/// For how many interruptions what is expected counts, if the operators do not say it and if they do. Guesses: the first is to be learned away within
/// days, the second is what somebody knows.
const PRIOR_EVENTS: f64 = 1.0;
const STATED_EVENTS: f64 = 4.0;
/// Below that, a rate is as good as none, and a prior of none could never learn.
const LEAST_PER_HOUR: f64 = 1e-5;
/// The hours that prices count for at most, together.
const MAX_MARKET_HOURS: f64 = 168.0;
/// After so many hours, what was seen counts half.
const HALF_LIFE_HOURS: f64 = 336.0;
/// Between two looks that are further apart, nobody knows what the price did.
const MAX_GAP_HOURS: f64 = 2.0;

/// What prices of the past tell.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PastPrices {
    /// How often one rose above the bid.
    pub crossings: f64,
    /// For how many hours they were not above it, over all markets of the file.
    pub hours: f64,
}

/// What the pool has counted of its spot instances in this life of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// How many were taken.
    pub interrupted: u64,
    /// For how long one stood ready, all together, in milliseconds.
    pub instance_ms: u64,
}

/// What was seen of a pool's spot instances and of their price.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Risk {
    pub(super) interruptions: f64,
    pub(super) instance_hours: f64,
    prices: PastPrices,
    /// Whether the price was above the bid when it was last looked at, and when that was.
    above: Option<bool>,
    at: Option<Timestamp>,
    /// What was counted by then. Counts begin anew with every life of the agent.
    #[serde(skip)]
    counted: Counted,
}

impl Risk {
    /// Learns what has been counted by `now`, and whether the price is above the bid, if it is known.
    pub(super) fn learn(&mut self, counted: Counted, above: Option<bool>, now: Timestamp) {
        let hours = self.at.map_or(0.0, |at| now.since(at).as_secs_f64() / 3_600.0);
        let fade = 0.5f64.powf(hours / HALF_LIFE_HOURS);
        let before = std::mem::replace(&mut self.counted, counted);
        let newly = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now) as f64;
        self.interruptions = fade * self.interruptions + newly(before.interrupted, counted.interrupted);
        self.instance_hours = fade * self.instance_hours + newly(before.instance_ms, counted.instance_ms) / 3_600_000.0;
        let known = self.above.filter(|_| hours <= MAX_GAP_HOURS);
        let crossed = f64::from(u8::from(above == Some(true) && known == Some(false)));
        let below = if known == Some(false) { hours } else { 0.0 };
        self.prices = PastPrices { crossings: fade * self.prices.crossings + crossed, hours: fade * self.prices.hours + below };
        (self.above, self.at) = (above, Some(now));
    }

    /// How often an hour an instance is expected to be taken.
    pub(super) fn per_hour(&self, spot: &SpotConfig, past: PastPrices) -> f64 {
        let (prior, events) = prior(spot);
        let prices = self.prices(past);
        (events + self.interruptions + prices.crossings) / (events / prior + self.instance_hours + prices.hours)
    }

    /// What prices tell, those of the past and those seen since, as far as it counts.
    pub(super) fn prices(&self, past: PastPrices) -> PastPrices {
        let (crossings, hours) = (self.prices.crossings + past.crossings, self.prices.hours + past.hours);
        let part = if hours > MAX_MARKET_HOURS { MAX_MARKET_HOURS / hours } else { 1.0 };
        PastPrices { crossings: part * crossings, hours: part * hours }
    }

    /// Read from a file: what makes no sense is forgotten.
    pub(super) fn sound(self) -> Self {
        let figures = [self.interruptions, self.instance_hours, self.prices.crossings, self.prices.hours];
        if figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0) { self } else { Self::default() }
    }
}

/// What is expected before anything is seen, an hour, and for how many interruptions that counts.
pub(super) fn prior(spot: &SpotConfig) -> (f64, f64) {
    match spot.interruptions_per_hour {
        Some(stated) => (stated.max(LEAST_PER_HOUR), STATED_EVENTS),
        None => (PRIOR_PER_HOUR, PRIOR_EVENTS),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spot::tests::market;
    use super::*;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);
    const PRICES: Option<bool> = Some(false);

    fn at(minutes: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn what_is_seen_outweighs_what_was_expected() {
        let (guessed, stated) = (market(), SpotConfig { interruptions_per_hour: Some(0.5), ..market() });
        let rate = |risk: &Risk, spot: &SpotConfig| risk.per_hour(spot, PastPrices::default());
        let mut risk = Risk::default();
        assert_eq!((rate(&risk, &guessed), rate(&risk, &stated)), (PRIOR_PER_HOUR, 0.5));
        // Ten instances for 24 hours, six of which are taken: 0.025 an instance and hour.
        risk.learn(Counted::default(), PRICES, at(0));
        risk.learn(Counted { interrupted: 6, instance_ms: 240 * 3_600_000 }, PRICES, at(1));
        assert!((rate(&risk, &guessed) - 7.0 / 265.0).abs() < 1e-3, "{}", rate(&risk, &guessed));
        assert!((rate(&risk, &stated) - 10.0 / 248.0).abs() < 1e-3, "what operators state counts for more: {}", rate(&risk, &stated));
        // A new life counts anew, and what was seen fades.
        risk.learn(Counted { interrupted: 1, instance_ms: 0 }, PRICES, at(2));
        assert!((risk.interruptions - 7.0).abs() < 1e-3);
        risk.learn(Counted { interrupted: 1, instance_ms: 0 }, PRICES, at(2).after(14 * DAY));
        assert!((risk.interruptions - 3.5).abs() < 1e-2);
    }

    #[test]
    fn a_price_that_rises_above_the_bid_counts_once_and_only_if_it_was_watched() {
        let mut risk = Risk::default();
        for (minute, price) in [(0, 3), (60, 3), (120, 12), (125, 14), (130, 9), (190, 11), (400, 5), (700, 20)] {
            risk.learn(Counted::default(), Some(price > 10), at(minute));
        }
        let prices = risk.prices(PastPrices::default());
        assert!((prices.crossings - 2.0).abs() < 0.1, "{prices:?}");
        assert!((prices.hours - 3.0).abs() < 0.1, "from 0 to 120 and from 130 to 190 minutes: {prices:?}");
    }

    #[test]
    fn prices_count_for_a_week_at_most() {
        let past = PastPrices { crossings: 2.0, hours: 1_680.0 };
        let counted = Risk::default().prices(past);
        assert!((counted.crossings - 0.2).abs() < 1e-12 && counted.hours == 168.0, "{counted:?}");
        assert!(Risk::default().per_hour(&market(), PastPrices { crossings: 0.0, hours: 1e6 }) > 0.005);
    }
}
