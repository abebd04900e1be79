//! From a rate to instances, and from instances to what a pool may have.

use crate::config::PoolConfig;

/// Instances that serve `rate` at `rate_per_instance` each, rounded up; none where the latter makes
/// no sense.
pub(super) fn need(rate: f64, rate_per_instance: f64) -> u32 {
    if !usable(rate_per_instance) {
        return 0;
    }
    // Forgives what rounding adds to an exact multiple. The cast saturates, and maps not-a-number to 0.
    (rate / rate_per_instance * (1.0 - 1e-12)).ceil() as u32
}

/// Whether instances of that rate can be counted in.
pub(super) fn usable(rate_per_instance: f64) -> bool {
    rate_per_instance.is_finite() && rate_per_instance > 0.0
}

/// How many instances the pool may have, and what limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) instances: u32,
    pub(super) by: LimitedBy,
}

/// What limits a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitedBy {
    MaxInstances,
    Capacity,
}

impl Limit {
    pub(super) fn of(pool: &PoolConfig) -> Limit {
        let fits = pool.instance.times_in(pool.capacity).map_or(u32::MAX, |times| u32::try_from(times).unwrap_or(u32::MAX));
        if fits < pool.max_instances {
            Limit { instances: fits, by: LimitedBy::Capacity }
        } else {
            Limit { instances: pool.max_instances, by: LimitedBy::MaxInstances }
        }
    }

    /// The limit in words, with its key.
    pub(super) fn reason(self, pool: &PoolConfig) -> String {
        match self.by {
            LimitedBy::MaxInstances => format!("max_instances is {}", pool.max_instances),
            LimitedBy::Capacity => {
                format!("capacity ({}) holds {} instances of ({})", pool.capacity, self.instances, pool.instance)
            }
        }
    }
}
