//! A token bucket: so many at once, so many a second. Pure; time is an argument.

use tokio::time::Instant;

/// Allows `burst` at once and `per_second` in the long run.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    tokens: f64,
    filled_at: Instant,
    burst: f64,
    per_second: f64,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self { tokens: f64::from(burst), filled_at: now, burst: f64::from(burst), per_second }
    }

    /// Takes a token if there is one.
    pub(super) fn try_take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + since * self.per_second).min(self.burst);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_allows_a_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, 0.5, start);
        assert!(bucket.try_take(start) && bucket.try_take(start) && !bucket.try_take(start));
        assert!(!bucket.try_take(start + Duration::from_secs(1)));
        assert!(bucket.try_take(start + Duration::from_secs(2)));
        let late = start + Duration::from_secs(1000);
        assert!(bucket.try_take(late) && bucket.try_take(late) && !bucket.try_take(late));
    }
}
