//! Whether the newest step of one series is out of the ordinary.
//!
//! Two views, each made a probability by its own [`Tail`]: the *residual* against the forecast's median, upward and
//! downward apart, which sees points; and the *shift* of a short mean of the counts against a long one, which
//! sees changes that every single step hides. Fisher's method (1932) combines them: the sum of two
//! surprises `s = -log10 p` is exceeded with probability `10^-s (1 + s ln 10)`. Missing data is judged apart, by
//! how long nothing came where the forecast's lower end said that something would, and how often that was so.
//!
//! Only a surprise above the decaying peak of the last ones is *fresh*: an incident is told once, and again only
//! when it grows. Invariant: a verdict depends on the steps up to its own alone (a test replaces the rest). State is
//! of constant size, [`Detector::BYTES`]. Not here: which series there are, and whom to tell. See [`super`].

use super::tail::Tail;
use std::f64::consts::LN_10;
use tradewind_protocol::api::{AnomalyKind, Direction};

/// The short mean, in steps: on the labelled series, which have steps of five minutes, 6, 12 and 24 score alike.
const SHORT: f64 = 12.0;
/// The long mean, in steps. 100, 200 and 400 score alike.
const LONG: f64 = 400.0;
/// Over about so many steps a peak of surprise fades. 30 to 200 score alike.
const FADE: f64 = 100.0;
/// The level, over which differences are judged, is a mean over about so many steps.
const LEVEL: f64 = 1_000.0;
/// Differences below this share of the level are none: no plan would change for them.
const DUST: f64 = 1e-3;

/// What was foreseen for a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The 5 % quantile.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The 95 % quantile.
    pub high: f64,
}

/// What the detector holds of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Minus the decimal logarithm of the probability that an ordinary step looks like this.
    pub surprise: f64,
    /// Whether it is above the fading peak of the surprises before it.
    pub fresh: bool,
    /// What it would be.
    pub kind: AnomalyKind,
    /// Where to.
    pub direction: Direction,
}

/// The detector of one series.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    above: Tail,
    below: Tail,
    shifts: Tail,
    seen: u32,
    last: f64,
    level: f64,
    short: f64,
    long: f64,
    peak: f64,
    silence: Silence,
}

impl Detector {
    /// What one detector takes.
    pub const BYTES: usize = size_of::<Detector>();

    /// Judges the next step's count, then learns it. Without a forecast, the last count is expected. Differences
    /// below `unit` are held to be none.
    pub fn observe(&mut self, count: f64, expected: Option<Expected>, unit: f64) -> Verdict {
        let count = if count.is_finite() { count } else { self.last };
        let verdict = self.judge(count, expected, unit);
        self.learn(count, self.expects(count, expected));
        verdict
    }

    fn expects(&self, count: f64, expected: Option<Expected>) -> f64 {
        let median = expected.map(|expected| expected.median).filter(|median| median.is_finite());
        median.unwrap_or(if self.seen == 0 { count } else { self.last })
    }

    fn judge(&mut self, count: f64, expected: Option<Expected>, unit: f64) -> Verdict {
        let floor = (DUST * self.level).max(unit);
        let residual = count - self.expects(count, expected);
        let (above, below) = (self.above.surprise(residual, floor), self.below.surprise(-residual, floor));
        let shift = self.short_with(count) - self.long;
        let shifted = self.shifts.surprise(shift.abs(), floor);
        let (point, towards) = if above >= below { (above, residual) } else { (below, -residual.abs()) };
        let moving = shifted > point;
        let up = if moving { shift > 0.0 } else { towards > 0.0 };
        let mut surprise = fisher(point + shifted);
        let mut kind = if moving { AnomalyKind::LevelShift } else { AnomalyKind::Point };
        let missing = self.silence.surprise(count, expected);
        if missing >= surprise && count == 0.0 && missing > 0.0 {
            surprise = missing;
            kind = AnomalyKind::MissingData;
        }
        let fresh = surprise > self.peak;
        self.peak = (self.peak * (1.0 - 1.0 / FADE)).max(surprise);
        Verdict { surprise, fresh, kind, direction: if up { Direction::Up } else { Direction::Down } }
    }

    fn short_with(&self, count: f64) -> f64 {
        self.short + self.gain(SHORT) * (count - self.short)
    }

    fn gain(&self, length: f64) -> f64 {
        (1.0 / length).max(1.0 / (f64::from(self.seen) + 1.0))
    }

    fn learn(&mut self, count: f64, expected: f64) {
        let residual = count - expected;
        self.above.learn(residual.max(0.0));
        self.below.learn((-residual).max(0.0));
        self.short = self.short_with(count);
        self.shifts.learn(if self.seen == 0 { 0.0 } else { (self.short - self.long).abs() });
        self.long += self.gain(LONG) * (count - self.long);
        self.level += self.gain(LEVEL) * (count.abs() - self.level);
        self.last = count;
        self.seen = self.seen.saturating_add(1);
    }
}

/// Runs of steps in which nothing came where something was as good as certain.
#[derive(Debug, Clone, Default)]
struct Silence {
    /// The length of the run that goes on.
    run: u32,
    /// How long runs are, step by step: zero outside of them.
    runs: Tail,
}

impl Silence {
    /// How surprising the run is that `count` begins or lengthens, by the runs before it. A run begins where the
    /// forecast's lower end is positive; it goes on until something comes, whatever the forecast has learnt
    /// meanwhile. One empty step alone is never a surprise: it may be a late collector.
    fn surprise(&mut self, count: f64, expected: Option<Expected>) -> f64 {
        let begun = self.run > 0 || expected.is_some_and(|expected| expected.low > 0.0);
        self.run = if count == 0.0 && begun { self.run.saturating_add(1) } else { 0 };
        let surprise = self.runs.surprise(f64::from(self.run), 1.0);
        self.runs.learn(f64::from(self.run));
        surprise
    }
}

/// The surprise of a sum of two independent surprises: Fisher's method, chi-squared with four degrees of freedom.
fn fisher(sum: f64) -> f64 {
    sum - (1.0 + sum * LN_10).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in ten thousand.
    const ALARM: f64 = 4.0;

    /// A day of 288 steps with noise, and what a good forecast says of it.
    fn day(at: usize) -> (f64, Option<Expected>) {
        let median = 100.0 + 50.0 * (at as f64 / 288.0 * std::f64::consts::TAU).sin();
        let noise = ((at * 7_919) % 101) as f64 / 101.0 - 0.5;
        (median + 10.0 * noise, Some(Expected { low: median - 5.0, median, high: median + 5.0 }))
    }

    fn verdicts(counts: impl Fn(usize, f64) -> f64, steps: usize) -> Vec<Verdict> {
        let mut detector = Detector::default();
        let observe = |at| {
            let (count, expected) = day(at);
            detector.observe(counts(at, count), expected, 1.0)
        };
        (0..steps).map(observe).collect()
    }

    fn first_alarm(verdicts: &[Verdict], from: usize) -> Option<(usize, Verdict)> {
        let alarm = |(_, verdict): &(usize, Verdict)| verdict.fresh && verdict.surprise > ALARM;
        verdicts.iter().copied().enumerate().skip(from).find(alarm)
    }

    #[test]
    fn an_ordinary_week_is_quiet() {
        let alarms = verdicts(|_, count| count, 2_016).iter().filter(|v| v.fresh && v.surprise > ALARM).count();
        assert!(alarms <= 1, "{alarms}");
    }

    #[test]
    fn a_spike_is_a_point_at_once_and_told_once() {
        let all = verdicts(|at, count| if (1_500..1_504).contains(&at) { count * 4.0 } else { count }, 1_550);
        let (at, verdict) = first_alarm(&all, 1_400).unwrap();
        assert_eq!((at, verdict.kind, verdict.direction), (1_500, AnomalyKind::Point, Direction::Up));
        assert!(all[1_505..].iter().all(|v| !v.fresh || v.surprise < ALARM));
    }

    #[test]
    fn a_small_lasting_change_is_a_level_shift() {
        let shifted = |at, count| if at >= 1_500 { 0.05 * count } else { count };
        let mut detector = Detector::default();
        let mut found = None;
        for at in 0..1_540 {
            let (count, expected) = day(at);
            // A forecast that follows at once hides the change from the residuals.
            let expected = expected.filter(|_| at < 1_499);
            let verdict = detector.observe(shifted(at, count), expected, 1.0);
            if at >= 1_501 && verdict.surprise > 2.0 && verdict.kind == AnomalyKind::LevelShift {
                found = found.or(Some((at, verdict.direction)));
            }
        }
        assert!(matches!(found, Some((_, Direction::Down))), "{found:?}");
    }

    #[test]
    fn silence_where_traffic_was_certain_is_missing_data() {
        let all = verdicts(|at, count| if at >= 1_500 { 0.0 } else { count }, 1_510);
        assert_eq!(first_alarm(&all, 1_502).map(|(_, v)| (v.kind, v.direction)), Some((AnomalyKind::MissingData, Direction::Down)));
        assert!(first_alarm(&all, 1_400).is_some_and(|(at, _)| at <= 1_501));
        // A series that stops every few steps, whatever the forecast thinks of it.
        let gaps = verdicts(|at, count| if at % 11 < 4 { 0.0 } else { count }, 1_500);
        let missing = |v: &&Verdict| v.fresh && v.surprise > ALARM && v.kind == AnomalyKind::MissingData;
        assert_eq!(gaps[200..].iter().filter(missing).count(), 0);
        let mut rare = Detector::default();
        for at in 0..2_000 {
            let count = f64::from(u8::from(at % 9 == 0));
            let verdict = rare.observe(count, Some(Expected { low: 0.0, median: 0.0, high: 1.0 }), 1.0);
            assert_ne!(verdict.kind, AnomalyKind::MissingData, "where nothing is sure, nothing is missing");
        }
    }

    #[test]
    fn nothing_later_changes_a_verdict() {
        let plain = verdicts(|_, count| count, 1_200);
        let noisy = verdicts(|at, count| if at >= 1_000 { ((at * 31) % 977) as f64 } else { count }, 1_200);
        assert_eq!(plain[..1_000], noisy[..1_000]);
        assert_ne!(plain[1_000..], noisy[1_000..]);
    }

    #[test]
    fn hostile_numbers_are_survived_and_state_is_small() {
        let mut detector = Detector::default();
        for count in [f64::NAN, f64::INFINITY, 1e300, 0.0, -1.0].repeat(60) {
            let expected = Some(Expected { low: f64::NAN, median: f64::NAN, high: f64::INFINITY });
            let verdict = detector.observe(count, expected, 1.0);
            assert!(verdict.surprise.is_finite(), "{count}: {verdict:?}");
        }
        const { assert!(Detector::BYTES <= 640) };
    }
}
