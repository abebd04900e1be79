//! Location and scale, linear in what was seen of late (Koenker and Zhao 1994, the location-scale model of conditional quantiles): both
//! are ridge regressions with forgetting, shrunk towards "as it is now" and "as it was of late".

use super::ridge::Ridge;
use super::series::{LOCATION, Series};
use std::collections::VecDeque;

/// What the scale is linear in.
const SCALE: usize = 6;
/// Demand is not known better than this, in units.
pub(super) const LEAST_SCALE: f64 = 0.05;

/// Where demand is foreseen to be so many steps ahead, and how far it may be from there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Center {
    pub(super) location: f64,
    pub(super) scale: f64,
}

/// The regressions for one distance.
#[derive(Debug, Clone)]
pub(super) struct Model {
    ahead: usize,
    location: Ridge<LOCATION>,
    scale: Ridge<SCALE>,
    /// Mean absolute errors of late: of a few steps, and of a few hundred.
    fast: f64,
    slow: f64,
    pending: VecDeque<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    last: f64,
    center: Center,
    features: [f64; LOCATION],
    scales: [f64; SCALE],
}

impl Model {
    pub(super) fn new(ahead: usize) -> Self {
        Self {
            ahead,
            location: Ridge::new([20.0; LOCATION]),
            scale: Ridge::new([5.0; SCALE]),
            fast: 1.0,
            slow: 1.0,
            pending: VecDeque::new(),
        }
    }

    /// Learns from the demand that was foreseen `ahead` steps ago, if it is known.
    pub(super) fn learn(&mut self, demand: Option<f64>) {
        if self.pending.len() < self.ahead {
            return;
        }
        let Some(Pending { last, center, features, scales }) = self.pending.pop_front() else { return };
        let Some(demand) = demand else { return };
        let error = demand - center.location;
        // What is rare and far out must not turn a regression over.
        let bound = 6.0 * center.scale;
        let weight = 1.0 / (center.scale * center.scale);
        self.location.learn(&features, (center.location + error.clamp(-bound, bound)) - last, weight);
        let size = error.abs().min(2.0 * bound);
        self.scale.learn(&scales, size - self.slow, weight);
        self.fast += (size - self.fast) / 5.0;
        self.slow += (size - self.slow) / 150.0;
    }

    pub(super) fn foresee(&mut self, series: &Series) -> Center {
        let features = series.features(self.ahead);
        let last = series.ago(0);
        let location = (last + self.location.at(&features)).max(0.0);
        let (top, low) = series.range();
        let scales = [1.0, self.fast - self.slow, (last - series.ago(1)).abs(), top - low, location, location - last];
        let scale = (self.slow + self.scale.at(&scales)).clamp(0.2 * self.slow, 12.0 * self.slow).max(LEAST_SCALE);
        let center = Center { location, scale };
        self.pending.push_back(Pending { last, center, features, scales });
        center
    }
}
