//! How long to wait after failures: bounded exponential, with jitter that the caller draws. Pure.

use std::time::Duration;

/// The wait after so many failures in a row: `first`, and twice as long after each further one, up to `longest`.
pub(crate) fn pause(failures: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
}

/// `pause`, shortened by up to a half by `jitter`, which is drawn evenly from 0 to 1, so that what failed together does not try again
/// together.
pub(crate) fn jittered(pause: Duration, jitter: f64) -> Duration {
    pause.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

/// The first wait: short, since most failures are one instance's own.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait: what a mended provider costs at most in lateness.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, and until when to wait because of them. Times are since any fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    delay: Duration,
    until: Duration,
}

impl Backoff {
    /// Counts a failure; for `jitter` see [`jittered`].
    pub(crate) fn fail(&mut self, now: Duration, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.delay = jittered(pause(self.failures, FIRST, LONGEST), jitter);
        self.until = now.saturating_add(self.delay);
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Forgets all failures when there was none for twice as long as the last wait. For things that
    /// fail some time after they seemed to succeed.
    pub(crate) fn forgive(&mut self, now: Duration) {
        if self.failures > 0 && now >= self.until + 2 * self.delay {
            self.reset();
        }
    }

    /// How often it failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether to go on waiting.
    pub(crate) fn waits(&self, now: Duration) -> bool {
        now < self.until
    }

    /// The next moment at which something changes by itself, if any.
    pub(crate) fn next(&self, now: Duration) -> Option<Duration> {
        let forgiven = self.until + 2 * self.delay;
        if self.failures == 0 {
            None
        } else if now < self.until {
            Some(self.until)
        } else {
            (now < forgiven).then_some(forgiven)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let mut backoff = Backoff::default();
        let mut now = Duration::ZERO;
        let mut waits = vec![];
        for _ in 0..40 {
            assert!(!backoff.waits(now));
            backoff.fail(now, 0.0);
            assert!(backoff.waits(now));
            waits.push(backoff.until - now);
            now = backoff.until;
        }
        assert_eq!(waits[..4], [250, 500, 1000, 2000].map(Duration::from_millis));
        assert!(waits.is_sorted() && waits.last() == Some(&LONGEST));
        backoff.fail(now, 1.0);
        assert_eq!(backoff.until - now, LONGEST / 2);
    }

    #[test]
    fn forgiveness_takes_longer_than_the_wait_did() {
        let mut backoff = Backoff::default();
        backoff.fail(Duration::ZERO, 0.0);
        backoff.forgive(Duration::from_millis(749));
        assert_eq!(backoff.failures(), 1);
        assert_eq!(backoff.next(Duration::from_millis(300)), Some(Duration::from_millis(750)));
        backoff.forgive(Duration::from_millis(750));
        assert_eq!((backoff.failures(), backoff.next(Duration::from_secs(1))), (0, None));
    }
}
