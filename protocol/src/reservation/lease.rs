//! How long a holder may rely on a promise without comparing clocks.
//!
//! Each clock runs at a rate within `[1 - drift, 1 + drift]`. The owner counts `ttl` from taking a request,
//! the holder counts from sending it, which came before; so the holder has stopped relying on the promise
//! before the owner takes it back if
//! `ttl_holder <= ttl (1 - drift) / (1 + drift) - pause_guard`, where the guard covers the time between
//! looking at the clock and acting on it. After a restart the owner counts every promise from anew.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is assumed of clocks and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clocks {
    /// How far a clock's rate may be from 1, in millionths.
    pub drift_ppm: u32,
    /// The longest time between a look at the clock and what is done because of it.
    pub pause_guard: Duration,
}

impl Default for Clocks {
    /// 500 ppm: the bound that NTP assumes of any clock (RFC 5905, PHI is 15 ppm of a disciplined one, 500 ppm
    /// the most it corrects). A quarter of a second covers a scheduler's hiccup.
    fn default() -> Self {
        Self { drift_ppm: 500, pause_guard: Duration::from_millis(250) }
    }
}

impl Clocks {
    /// For how long from sending its request a holder may rely on a promise of `ttl`.
    pub fn holder_ttl(&self, ttl: Duration) -> Duration {
        let ppm = u128::from(self.drift_ppm.min(999_999));
        let nanos = ttl.as_nanos() * (1_000_000 - ppm) / (1_000_000 + ppm);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).saturating_sub(self.pause_guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_stops_before_the_owner_however_both_clocks_drift() {
        for ttl_ms in [1_000, 10_000, 3_600_000] {
            let clocks = Clocks::default();
            let ttl = Duration::from_millis(ttl_ms);
            let holder = clocks.holder_ttl(ttl).as_secs_f64();
            // Real time until each clock has counted that much, at the worst.
            let longest = holder / (1.0 - 500e-6) + clocks.pause_guard.as_secs_f64();
            let shortest = ttl.as_secs_f64() / (1.0 + 500e-6);
            assert!(longest <= shortest, "{longest} {shortest}");
            assert!(holder > 0.7 * ttl.as_secs_f64() - 0.01);
        }
        assert_eq!(Clocks::default().holder_ttl(Duration::from_millis(100)), Duration::ZERO, "too short to be relied on at all");
    }
}
