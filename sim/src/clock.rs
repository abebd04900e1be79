//! Simulated time: one epoch for all, plus the virtual time that has passed, plus what a node's
//! own clock is wrong by.

use crate::entropy::{self, EPOCH};
use crate::world::TICK;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tradewind_agent::env::Clock;
use tradewind_protocol::Timestamp;

/// How long the simulation on this thread has run: to the millisecond inside a host, as of the
/// last step outside. A host whose own monotonic clock runs ahead does not see further than the step that runs.
pub fn virtual_now() -> Duration {
    turmoil::sim_elapsed().map_or_else(entropy::now, |elapsed| elapsed.min(entropy::now() + TICK))
}

/// What a faultless wall clock shows after `elapsed`.
pub fn wall_time(elapsed: Duration) -> Timestamp {
    Timestamp::EPOCH.after(EPOCH).after(elapsed)
}

/// One node's wall clock.
#[derive(Debug, Default)]
pub struct SimClock {
    offset_ms: AtomicI64,
}

impl SimClock {
    /// Lets the clock jump: from now on it is ahead (behind when negative) by this much.
    pub fn set_offset_ms(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let exact = wall_time(virtual_now());
        Timestamp::saturating_from_millis(exact.as_millis().saturating_add(self.offset_ms.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_follows_virtual_time_and_its_offset() {
        entropy::on_fresh_thread(1, || {
            let clock = SimClock::default();
            assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00Z");
            entropy::set_now(Duration::from_millis(1_500));
            clock.set_offset_ms(-500);
            assert_eq!(clock.now().to_string(), "2026-01-01T00:00:01Z");
        })
        .unwrap();
    }
}
