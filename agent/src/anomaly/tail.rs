//! How rare a value is, judged by the largest values before it.
//!
//! Peaks over threshold with a Pareto tail: the largest values seen, at most [`PEAKS`], are kept; beyond
//! the smallest of them, the probability falls by a power law whose exponent is Hill's (1975) estimate from
//! the kept ones. Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory" (KDD 2017), fit
//! the general form of it. What is rare is so learnt from the stream itself: a spike that comes every night
//! is soon none, and no threshold has a unit.
//!
//! The past fades by thinning: after [`MEMORY`] values, every other peak is dropped and the count halved, which
//! leaves all estimated probabilities as they were.

/// How many of the largest values are kept. On the labelled series 16, 32 and 64 differ by less than two
/// other settings do; 32 take 128 bytes.
const PEAKS: usize = 32;
/// The share of values that count as the tail while there are few.
const TAIL_SHARE: f64 = 0.1;
/// The fewest peaks that an exponent is estimated from.
const MIN_PEAKS: usize = 4;
/// After so many values the past is halved: two weeks of minutes.
const MEMORY: f64 = 20_160.0;
/// Fewer values than this say nothing about the rare: one in a hundred would be the rarest of them.
const WARM_UP: f64 = 100.0;
/// The smallest tail index: no tail is taken to be so thin that twice the largest value so far is
/// rarer than one in a million.
const MIN_INDEX: f64 = 0.05;
/// Nothing is rarer than ten to the minus this.
const MAX_SURPRISE: f64 = 12.0;

/// The tail of a stream of values that are not negative.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// Descending; the first `kept` are valid.
    peaks: [f32; PEAKS],
    kept: u8,
    seen: f32,
}

impl Default for Tail {
    fn default() -> Self {
        Self { peaks: [0.0; PEAKS], kept: 0, seen: 0.0 }
    }
}

impl Tail {
    /// Minus the decimal logarithm of the probability of `value` or more: 3 is one in a thousand. Zero for
    /// all that is ordinary. Differences below `floor` are held to be none.
    pub(super) fn surprise(&self, value: f64, floor: f64) -> f64 {
        let (peaks, seen) = (&self.peaks[..usize::from(self.kept)], f64::from(self.seen));
        if seen < WARM_UP || peaks.len() <= MIN_PEAKS {
            return 0.0;
        }
        let tail = ((TAIL_SHARE * seen) as usize).clamp(MIN_PEAKS, peaks.len() - 1);
        let from = f64::from(peaks[tail]).max(floor).max(f64::MIN_POSITIVE);
        if value <= from {
            return 0.0;
        }
        let index = peaks[..tail].iter().map(|peak| (f64::from(*peak) / from).max(1.0).ln()).sum::<f64>() / tail as f64;
        let beyond = (value / from).log10() / index.max(MIN_INDEX);
        (((seen + 1.0) / (tail as f64 + 1.0)).log10() + beyond).min(MAX_SURPRISE)
    }

    /// Learns a value.
    pub(super) fn learn(&mut self, value: f64) {
        let value = value as f32;
        self.seen += 1.0;
        let kept = usize::from(self.kept);
        let place = self.peaks[..kept].partition_point(|peak| *peak >= value);
        if place < PEAKS {
            let end = (kept + 1).min(PEAKS);
            self.peaks.copy_within(place..end - 1, place + 1);
            self.peaks[place] = value;
            self.kept = end as u8;
        }
        if f64::from(self.seen) >= MEMORY {
            self.thin();
        }
    }

    fn thin(&mut self) {
        // The second largest of n is as rare as the largest of n / 2.
        let half = usize::from(self.kept) / 2;
        for at in 0..half {
            self.peaks[at] = self.peaks[2 * at + 1];
        }
        self.kept = half as u8;
        self.seen /= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    #[test]
    fn false_alarms_are_as_frequent_as_the_surprise_says() {
        // A Pareto tail, an exponential one, and one with an end.
        for (name, of) in
            [("pareto", (|u: f64| u.powf(-0.4)) as fn(f64) -> f64), ("exponential", |u: f64| -u.ln()), ("uniform", |u: f64| u)]
        {
            let (mut tail, mut state, mut alarms) = (Tail::default(), 11, 0);
            for _ in 0..200_000 {
                let value = of(uniform(&mut state));
                alarms += u32::from(tail.surprise(value, 0.0) > 3.0);
                tail.learn(value);
            }
            // One in a thousand would be 200; a tail that is thinner than a power law only gives fewer.
            assert!((1..=400).contains(&alarms) || name == "uniform" && alarms < 400, "{name}: {alarms}");
        }
    }

    #[test]
    fn what_comes_again_and_again_is_no_surprise() {
        let mut tail = Tail::default();
        (0..1_000).for_each(|at| tail.learn(f64::from(at % 7)));
        assert!(tail.surprise(60.0, 0.0) > 6.0);
        for _ in 0..20 {
            tail.learn(60.0);
            (0..100).for_each(|at| tail.learn(f64::from(at % 7)));
        }
        assert!(tail.surprise(60.0, 0.0) < 3.0);
    }

    #[test]
    fn the_young_are_silent_and_the_old_forget() {
        let mut tail = Tail::default();
        (0..99).for_each(|_| tail.learn(1.0));
        assert_eq!(tail.surprise(1e9, 0.0), 0.0);
        (0..1_000).for_each(|_| tail.learn(50.0));
        let before = tail.surprise(50.0, 0.0);
        (0..200_000).for_each(|at| tail.learn(f64::from(at % 5)));
        assert!(tail.surprise(50.0, 0.0) > before + 2.0, "after months of calm, 50 is rare again");
    }

    #[test]
    fn a_constant_stream_does_not_make_dust_a_surprise() {
        let mut tail = Tail::default();
        (0..500).for_each(|_| tail.learn(0.0));
        assert_eq!(tail.surprise(1e-9, 1e-3), 0.0);
        assert!(tail.surprise(1.0, 1e-3) > 6.0);
        assert!(tail.surprise(f64::INFINITY, 1e-3) <= MAX_SURPRISE);
    }
}
