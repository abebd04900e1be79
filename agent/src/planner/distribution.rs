//! How the demand on a pool in one step is distributed, as the planner sees it. Pure.
//!
//! Its quantiles above the median are as they are provided for, mirrored below it, linear in between, and end at the 99.9 % quantile.

use super::costs::LADDER;
use super::demand::{Demand, Incoming};
use super::own::Provided;
use super::{PoolSnapshot, Snapshot, share};
use tradewind_protocol::Quantile;

/// The quantiles that have to be summed for it.
pub(super) fn ladder() -> impl Iterator<Item = Quantile> {
    LADDER.iter().filter_map(|thousandths| Quantile::per_mille(*thousandths).ok())
}

/// The demand on a pool in one step, in instances.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    /// Probability and value, both ascending.
    points: Vec<(f64, f64)>,
}

impl Distribution {
    pub(super) fn of(pool: &PoolSnapshot, lead: usize, step: usize, snapshot: &Snapshot, incoming: &Incoming) -> Self {
        let rate = pool.config.rate_per_instance;
        let demand = |level: Quantile| Demand::on(&pool.config.service, incoming, lead, level);
        let median = demand(Quantile::MEDIAN).steps.get(step).map_or(0.0, |step| share(pool, snapshot) * step.median_rate / rate);
        let above = |level: Quantile| {
            let provided = demand(level).steps.get(step).map_or(0.0, |demand| Provided::of(pool, snapshot, level).rate(step, demand));
            (provided / rate - median).max(0.0)
        };
        // Quantiles of forecasts ascend; sums of them do as far as they are not clipped.
        let mut upper: Vec<(f64, f64)> = ladder().map(|level| (level.probability(), above(level))).collect();
        let mut highest = 0.0f64;
        for (_, value) in &mut upper {
            highest = highest.max(*value);
            *value = highest;
        }
        let lower = upper.iter().rev().map(|(p, value)| (1.0 - p, (median - value).max(0.0)));
        let points = lower.chain(upper.iter().map(|(p, value)| (*p, median + value))).collect();
        Self { points }
    }

    /// What `level` of the ladder provides for.
    pub(super) fn at(&self, level: Quantile) -> f64 {
        self.points.iter().find(|(p, _)| *p >= level.probability() - 1e-9).map_or(0.0, |(_, value)| *value)
    }

    /// What is missing on average where `instances` stand ready.
    pub(super) fn missing(&self, instances: f64) -> f64 {
        let part = |(p0, v0): (f64, f64), (p1, v1): (f64, f64)| {
            let (a, b, width) = (v0 - instances, v1 - instances, p1 - p0);
            if a >= 0.0 {
                width * (a + b) / 2.0
            } else if b > 0.0 {
                width * b * b / (2.0 * (b - a))
            } else {
                0.0
            }
        };
        let inner: f64 = self.points.windows(2).map(|pair| part(pair[0], pair[1])).sum();
        let last = self.points.last().map_or(0.0, |(p, value)| (1.0 - p) * (value - instances).max(0.0));
        inner + last
    }
}

#[cfg(test)]
impl Distribution {
    /// Any, for tests.
    pub(super) fn with_points(points: Vec<(f64, f64)>) -> Self {
        Self { points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_the_integral_of_the_quantiles_above_capacity() {
        // Uniform between 0 and 10.
        let uniform = Distribution { points: vec![(0.0, 0.0), (0.5, 5.0), (1.0, 10.0)] };
        for capacity in [0.0, 3.0, 5.0, 9.5, 12.0f64] {
            let exact = (10.0 - capacity).max(0.0).powi(2) / 20.0;
            assert!((uniform.missing(capacity) - exact).abs() < 1e-12, "{capacity}");
        }
    }
}
