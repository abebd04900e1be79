//! Amounts of resources, with arithmetic that cannot wrap.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount of each kind of resource. What is left out in JSON is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Storage, in bytes.
    pub storage_bytes: u64,
    /// Storage operations per second.
    pub storage_iops: u64,
    /// Network bandwidth, in bits per second.
    pub bandwidth_bps: u64,
}

impl Resources {
    /// Nothing of anything.
    pub const ZERO: Resources = Resources { cpu_millis: 0, memory_bytes: 0, storage_bytes: 0, storage_iops: 0, bandwidth_bps: 0 };

    /// The sum, or `None` where a kind would overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.zip(other, u64::checked_add)
    }

    /// The difference, or `None` where a kind would fall below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.zip(other, u64::checked_sub)
    }

    /// `count` times this, or `None` where a kind would overflow.
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.zip(Self::ZERO, |a, _| a.checked_mul(count))
    }

    /// Whether `other` has at least as much of every kind.
    pub fn fits_in(self, other: Self) -> bool {
        other.checked_sub(self).is_some()
    }

    /// How many times `self` fits into `total`: `None` when it is zero and fits without end.
    pub fn times_in(self, total: Self) -> Option<u64> {
        self.kinds().into_iter().zip(total.kinds()).filter_map(|((_, one), (_, all))| all.checked_div(one)).min()
    }

    /// Each kind's name and amount, in declaration order.
    pub fn kinds(self) -> [(&'static str, u64); 5] {
        [
            ("cpu_millis", self.cpu_millis),
            ("memory_bytes", self.memory_bytes),
            ("storage_bytes", self.storage_bytes),
            ("storage_iops", self.storage_iops),
            ("bandwidth_bps", self.bandwidth_bps),
        ]
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        Some(Self {
            cpu_millis: f(self.cpu_millis, other.cpu_millis)?,
            memory_bytes: f(self.memory_bytes, other.memory_bytes)?,
            storage_bytes: f(self.storage_bytes, other.storage_bytes)?,
            storage_iops: f(self.storage_iops, other.storage_iops)?,
            bandwidth_bps: f(self.bandwidth_bps, other.bandwidth_bps)?,
        })
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut some = false;
        for (kind, amount) in self.kinds().into_iter().filter(|(_, amount)| *amount > 0) {
            write!(f, "{}{kind}={amount}", if some { " " } else { "" })?;
            some = true;
        }
        if some { Ok(()) } else { f.write_str("nothing") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(cpu_millis: u64) -> Resources {
        Resources { cpu_millis, ..Resources::ZERO }
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(cpu(u64::MAX).checked_add(cpu(1)), None);
        assert_eq!(cpu(1).checked_sub(cpu(2)), None);
        assert_eq!(cpu(u64::MAX / 2).checked_mul(3), None);
        assert_eq!(cpu(2).checked_mul(3), Some(cpu(6)));
    }

    #[test]
    fn fits_means_every_kind() {
        let one = Resources { cpu_millis: 500, memory_bytes: 100, ..Resources::ZERO };
        let all = Resources { cpu_millis: 5_000, memory_bytes: 250, ..Resources::ZERO };
        assert!(one.fits_in(all) && !all.fits_in(one));
        assert_eq!(one.times_in(all), Some(2));
        assert_eq!(Resources::ZERO.times_in(all), None);
    }
}
