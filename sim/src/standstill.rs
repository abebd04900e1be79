//! Notices that virtual time stands still.
//!
//! A simulated agent that goes round and round without waiting for anything never lets its turn end, so that the simulation would take for
//! ever, and nothing in it could say so. A thread beside it looks at whether it comes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How long one turn of all agents may take, in real time: models that are trained in it take half a minute, on a busy machine several.
const LIMIT: Duration = Duration::from_secs(300);
/// The same where a bug is seeded, of which some have to show by it: nothing is trained in the runs that show them, and a turn takes a fraction of a second.
#[cfg(feature = "mutants")]
const LIMIT_OF_BUGS: Duration = Duration::from_secs(10);

/// How long virtual time may stand still in this process.
pub(crate) fn limit() -> Duration {
    #[cfg(feature = "mutants")]
    if tradewind_agent::marks::chosen().is_some() {
        return LIMIT_OF_BUGS;
    }
    LIMIT
}

/// Told of the time as it passes, until it is dropped.
pub(crate) struct Watch {
    now_ms: Arc<AtomicU64>,
    _over: Sender<()>,
}

impl Watch {
    /// Calls `found`, once, with the virtual time that did not pass for `limit`.
    pub(crate) fn begin(limit: Duration, found: impl FnOnce(Duration) + Send + 'static) -> Self {
        let now_ms = Arc::new(AtomicU64::new(0));
        let (over, ended) = mpsc::channel();
        let seen = now_ms.clone();
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(limit.min(Duration::from_secs(1))) {
                let now = seen.load(Ordering::Relaxed);
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() >= limit {
                    return found(Duration::from_millis(now));
                }
            }
        });
        Self { now_ms, _over: over }
    }

    /// How far virtual time has come.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    /// Virtual time has come to `now`.
    pub(crate) fn passed(&self, now: Duration) {
        self.now_ms.store(now.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_does_not_pass_is_found_and_the_end_is_none() {
        let (found, seen) = mpsc::channel();
        let watch = Watch::begin(Duration::from_millis(20), move |at| found.send(at).unwrap());
        watch.passed(Duration::from_millis(1_234));
        let at = seen.recv().unwrap();
        assert!([0, 1_234].contains(&at.as_millis()), "{at:?}");
        let (found, seen) = mpsc::channel();
        drop(Watch::begin(Duration::from_secs(3_600), move |at| found.send(at).unwrap()));
        assert!(seen.recv().is_err(), "the thread has ended without a word");
    }
}
