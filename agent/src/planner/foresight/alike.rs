//! How demand went on where it was like now: quantiles by nearest neighbours (Bhattacharya and Gangopadhyay 1990, "Kernel and nearest-neighbor
//! estimation of a conditional quantile").
//!
//! Whether load that was seen last stays depends on how it stands to what is usual: a burst is mostly over by the next step, the start of a busy
//! hour is not. The past tells, wherever it has been alike.

use super::series::Series;
use std::collections::VecDeque;

/// Steps of the past that are looked at: a week of five-minute steps.
const WINDOW: usize = 2_016;
/// Beyond it, for what came after the oldest of them.
const AHEAD: usize = super::MAX_LEAD;
/// How many of them, the most alike, are asked. Of 40, 50 and 100, chosen on the first 60 % of twelve recordings, 100 lost where bursts are rare.
const NEAREST: usize = 50;
/// Fewer than this say nothing.
const FEWEST: usize = 10;
/// What alike means: the last value, one smoothed over a few steps, and the highest of the last six, as ratios, by how much each counts. A guess.
const WEIGHTS: [f32; 3] = [1.0, 0.5, 0.25];

/// Ratios are those of demand and this many units. As differences 1 % more is late where demand is bursty, as much elsewhere.
const RATIO_UNITS: f32 = 0.5;

/// The past of one series, and where in it demand was like now.
#[derive(Debug, Clone, Default)]
pub(super) struct Alike {
    /// The newest first.
    past: VecDeque<Past>,
    /// How many steps ago demand was most like now.
    nearest: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    demand: f32,
    /// Logarithms of what alike means.
    like: [f32; WEIGHTS.len()],
}

impl Alike {
    /// Takes in the newest step of `series`.
    pub(super) fn push(&mut self, series: &Series) {
        let like = [series.ago(0), series.fast, series.range().0].map(|value| (value as f32 + RATIO_UNITS).ln());
        let now = Past { demand: series.ago(0) as f32, like };
        let distance = |then: &Past| -> f32 { (0..WEIGHTS.len()).map(|i| WEIGHTS[i] * (now.like[i] - then.like[i]).abs()).sum() };
        let mut far: Vec<(f32, u32)> = (1..).zip(self.past.iter().take(WINDOW)).map(|(ago, then)| (distance(then), ago)).collect();
        if far.len() > NEAREST {
            far.select_nth_unstable_by(NEAREST, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            far.truncate(NEAREST);
        }
        self.nearest = far.into_iter().map(|(_, ago)| ago).collect();
        self.past.push_front(now);
        self.past.truncate(WINDOW + AHEAD);
    }

    /// By how much demand rose within `ahead` steps of then.
    pub(super) fn rises(&self, ahead: usize) -> Rises {
        let rise = |ago: usize| Some(self.past.get(ago.checked_sub(ahead)?)?.demand - self.past.get(ago)?.demand);
        let mut rises: Vec<f32> = self.nearest.iter().filter_map(|ago| rise(*ago as usize)).collect();
        rises.sort_by(f32::total_cmp);
        Rises(rises)
    }
}

/// Rises of demand, ascending.
#[derive(Debug, Clone)]
pub(super) struct Rises(Vec<f32>);

impl Rises {
    /// The rise that is exceeded with probability `late`, where there are enough to tell; beyond what they can show no less than `ever`, what is
    /// true of all times.
    pub(super) fn upper(&self, late: f64, ever: f64) -> f64 {
        let (rises, n) = (&self.0, self.0.len());
        if n < FEWEST {
            return ever;
        }
        // Plotting positions i / (n + 1).
        let at = ((1.0 - late) * (n + 1) as f64 - 1.0).clamp(0.0, (n - 1) as f64);
        let below = at.floor() as usize;
        let (low, high) = (f64::from(rises[below]), f64::from(rises[(below + 1).min(n - 1)]));
        let seen = low + (high - low) * (at - below as f64);
        if late * 2.0 * (n as f64) < 1.0 { seen.max(ever) } else { seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bursts of one step that come at odd times, on a low level.
    fn bursty() -> (Series, Alike) {
        let (mut series, mut alike) = (Series::new(2, None), Alike::default());
        for t in 0..1_500_usize {
            series.push(if t % 13 == 0 || t % 29 == 0 { 60.0 } else { 5.0 + (t * 7_919 % 11) as f64 / 5.0 });
            alike.push(&series);
        }
        (series, alike)
    }

    #[test]
    fn a_burst_is_told_from_what_stays_by_what_followed_its_like() {
        let (mut series, mut alike) = bursty();
        series.push(60.0);
        alike.push(&series);
        assert!(alike.rises(1).upper(0.2, 0.0) < -40.0, "after a burst demand has fallen");
        (0..3).for_each(|_| {
            series.push(6.0);
            alike.push(&series);
        });
        let calm = alike.rises(1);
        assert!((-5.0..10.0).contains(&calm.upper(0.2, 0.0)) && calm.upper(0.001, 70.0) == 70.0, "{calm:?}");
    }

    #[test]
    fn who_has_seen_little_says_what_is_true_of_all_times() {
        let (mut series, mut alike) = (Series::new(2, None), Alike::default());
        (0..FEWEST).for_each(|t| {
            series.push(t as f64);
            alike.push(&series);
        });
        assert_eq!(alike.rises(2).upper(0.1, 33.0), 33.0);
        (0..3 * WINDOW).for_each(|_| alike.push(&series));
        assert_eq!((alike.past.len(), alike.nearest.len()), (WINDOW + AHEAD, NEAREST));
    }
}
