//! What stood ready and what was paid for, step by step. Pure: fed with every change of the counts.

use tradewind_protocol::{Step, StepIndex, Timestamp};

/// One closed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) step: StepIndex,
    /// Instances that served when the step began.
    pub(crate) ready: u32,
    /// Milliseconds of one instance that were paid for during the step.
    pub(crate) instance_ms: u64,
}

/// How many instances there are from some moment on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Those that serve. Warm ones do not count: each needs an order before it can.
    pub(crate) ready: u32,
    /// All that exist, in whatever state.
    pub(crate) paid: u32,
}

/// The longest silence that is filled in, in steps: after a longer one (a suspended machine, a clock
/// set ahead) counting begins anew rather than inventing history.
const MAX_GAP_STEPS: i64 = 1_000;

/// Counts one pool. What it tells of a step was all observed: the step that counting begins in is
/// never told, since nobody saw its start.
#[derive(Debug)]
pub(crate) struct Accounting {
    step: Step,
    /// Since when the counts are what they are.
    since: Timestamp,
    standing: Standing,
    open: Open,
    /// The last step that was told: no step is told twice, also when the clock goes back.
    told: Option<StepIndex>,
}

#[derive(Debug)]
struct Open {
    index: StepIndex,
    /// What stood ready when it began, if that was seen.
    ready: Option<u32>,
    instance_ms: u64,
}

impl Accounting {
    /// Counts from `now` on.
    pub(crate) fn new(step: Step, now: Timestamp, standing: Standing) -> Self {
        let open = Open { index: step.index(now), ready: None, instance_ms: 0 };
        Self { step, since: now, standing, open, told: None }
    }

    /// Takes note that from `now` on `standing` is so; the steps that have ended since the last time.
    pub(crate) fn observe(&mut self, now: Timestamp, standing: Standing) -> Vec<Closed> {
        let mut closed = vec![];
        let gap = self.step.index(now).0.saturating_sub(self.open.index.0);
        if now < self.since || gap > MAX_GAP_STEPS {
            let told = self.told;
            *self = Self { told, ..Self::new(self.step, now, standing) };
            return closed;
        }
        while self.step.end(self.open.index) <= now {
            let end = self.step.end(self.open.index);
            self.pay_until(end);
            if let (Some(ready), true) = (self.open.ready, self.told.is_none_or(|told| told < self.open.index)) {
                closed.push(Closed { step: self.open.index, ready, instance_ms: self.open.instance_ms });
                self.told = Some(self.open.index);
            }
            self.open = Open { index: self.open.index.offset(1), ready: Some(self.standing.ready), instance_ms: 0 };
        }
        self.pay_until(now);
        self.standing = standing;
        closed
    }

    /// When the open step ends.
    pub(crate) fn next(&self) -> Timestamp {
        self.step.end(self.open.index)
    }

    fn pay_until(&mut self, until: Timestamp) {
        let ms = u64::try_from(until.since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.open.instance_ms = self.open.instance_ms.saturating_add(ms.saturating_mul(u64::from(self.standing.paid)));
        self.since = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms).unwrap()
    }

    fn stand(ready: u32, paid: u32) -> Standing {
        Standing { ready, paid }
    }

    fn minutes() -> Step {
        Step::new(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_step_is_told_with_what_stood_at_its_start_and_was_paid_throughout() {
        let mut accounting = Accounting::new(minutes(), at(30_000), stand(1, 2));
        assert_eq!(accounting.observe(at(60_000), stand(3, 4)), [], "its start was not seen");
        assert_eq!(accounting.observe(at(90_000), stand(5, 6)), []);
        let told = accounting.observe(at(190_000), stand(0, 0));
        let wanted = [(1, 1, 30_000 * 4 + 30_000 * 6), (2, 5, 60_000 * 6)];
        assert_eq!(told, wanted.map(|(step, ready, instance_ms)| Closed { step: StepIndex(step), ready, instance_ms }));
        assert_eq!(accounting.next(), at(240_000));
    }

    #[test]
    fn clocks_that_jump_invent_nothing_and_repeat_nothing() {
        let mut accounting = Accounting::new(minutes(), at(0), stand(1, 1));
        assert_eq!(accounting.observe(at(150_000), stand(1, 1)).len(), 1);
        assert_eq!(accounting.observe(at(30_000), stand(1, 1)), [], "back");
        assert_eq!(accounting.observe(at(150_000), stand(1, 1)), [], "step 1 was told before");
        assert_eq!(accounting.observe(at(180_000), stand(1, 1)).len(), 1);
        assert_eq!(accounting.observe(at(180_000 + 60_000 * 5_000), stand(1, 1)), [], "far ahead");
    }

    proptest! {
        /// However the changes fall, the told steps are consecutive and their sum is the integral.
        #[test]
        fn no_millisecond_is_lost_or_paid_twice(changes in prop::collection::vec((0i64..100_000, 0u32..9), 1..60)) {
            let mut accounting = Accounting::new(minutes(), at(0), stand(1, 1));
            let (mut now, mut standing, mut told) = (0, 1, vec![]);
            let mut naive = std::collections::BTreeMap::<i64, u64>::new();
            for (wait, next) in changes {
                for ms in (now..now + wait).step_by(1_000) {
                    let width = (now + wait - ms).min(1_000);
                    let split = (60_000 - ms % 60_000).min(width);
                    *naive.entry(ms / 60_000).or_default() += u64::from(standing) * split as u64;
                    *naive.entry(ms / 60_000 + 1).or_default() += u64::from(standing) * (width - split) as u64;
                }
                now += wait;
                told.extend(accounting.observe(at(now), stand(next, next)));
                standing = next;
            }
            for (n, closed) in told.iter().enumerate() {
                prop_assert_eq!(closed.step, StepIndex(n as i64 + 1));
                prop_assert_eq!(closed.instance_ms, naive.get(&closed.step.0).copied().unwrap_or(0));
            }
            prop_assert_eq!(told.len() as i64, (now / 60_000 - 1).max(0));
        }
    }
}
