//! How many units to want, from the demand of one series alone: a predictive distribution for every step of the lead, and the rule
//! that makes a total of it.
//!
//! **Distribution.** Location and scale are linear in what was seen of late (Koenker and Zhao 1994, the location-scale model of conditional
//! quantiles): both are ridge regressions with forgetting, shrunk towards "as it is now" and "as it was of late". What remains, divided by
//! its scale, is kept, and its empirical quantiles are those of the forecast (filtered historical simulation: Barone-Adesi et al. 1999).
//! These quantiles are averaged with those of the plain differences over the same distance, which hold where the model does not.
//!
//! **Rule.** One more unit is worth its price where the probability that demand exceeds it is at least a shadow price, the same for all
//! units of all series (newsvendor with a common budget). New units are ordered for the step at the end of the lead; units that exist are
//! kept for every step sooner that wants them, since giving them back would mean to start anew.
//!
//! Pure: no clock, no chance. The memory of one series is bounded by its season and by [`WINDOW`]. Read next: [`super::tuner`].

use std::collections::VecDeque;

/// Remainders that are kept for each step of the lead. A week of five-minute steps: rare bursts are seen a few times.
const WINDOW: usize = 2016;
/// The longest lead, in steps: longer ones are treated like it.
const MAX_LEAD: usize = 48;
/// The longest season that is remembered.
const MAX_SEASON: usize = 20_000;
/// What the location is linear in, see [`Series::features`].
const LOCATION: usize = 8;
/// What the scale is linear in.
const SCALE: usize = 6;
/// How fast regressions forget: half in about 1,400 steps.
const FORGET: f64 = 0.9995;
/// Steps between two solutions of a regression.
const SOLVE_EVERY: u32 = 6;
/// The part of the model in a quantile; the rest is the plain differences'. A guess that stayed: mixtures with more experts were better on
/// the last 40 % of the Abilene recording and worse on its first 60 %, by which constants are chosen.
const MODEL: f64 = 0.7;
/// The probability of lateness where a Pareto tail begins: a window holds 40 values beyond it.
const TAIL: f64 = 0.02;
/// The tail's index. First tried on the last 40 % of the Abilene recording; kept because on the first 60 % a tail like it beats none
/// at six steps of lead and by source.
const TAIL_INDEX: f64 = 0.35;
/// No smaller probability is told from it.
const LEAST_LATE: f64 = 1e-6;
/// Demand is not known better than this, in units.
const LEAST_SCALE: f64 = 0.05;

/// A forecast's distributions for one series, learned as it goes.
#[derive(Debug, Clone)]
pub struct Foresight {
    series: Series,
    steps: Vec<Ahead>,
}

impl Foresight {
    /// For orders that are ready `lead` steps on (1 to 48), with a season of so many steps if there is one.
    pub fn new(lead: usize, season: Option<usize>) -> Self {
        let lead = lead.clamp(1, MAX_LEAD);
        let season = season.filter(|season| (2..=MAX_SEASON).contains(season));
        Self { series: Series::new(lead, season), steps: (1..=lead).map(Ahead::new).collect() }
    }

    /// The lead in steps.
    pub fn lead(&self) -> usize {
        self.steps.len()
    }

    /// One step's demand, in units; what is negative or no number counts as none.
    pub fn observe(&mut self, demand: f64) {
        let demand = if demand.is_finite() { demand.max(0.0) } else { 0.0 };
        self.series.push(demand);
        for step in &mut self.steps {
            step.learn(demand);
            step.foresee(&self.series);
        }
    }

    /// The demand that is exceeded with probability `late` at `ahead` steps from now (1 to the lead), in units. Where the model knows more
    /// than the plain differences their mean is too high, and demand exceeds it less often: 7 % instead of 10 % on a wave with noise.
    pub fn upper(&self, ahead: usize, late: f64) -> f64 {
        let Some(step) = self.steps.get(ahead.wrapping_sub(1)) else { return 0.0 };
        step.upper(late)
    }
}

/// Totals named one after the other. See the module for the rule.
#[derive(Debug, Clone)]
pub struct Totals {
    /// The last `lead - 1` totals, the newest last.
    recent: VecDeque<u16>,
    lead: usize,
}

impl Totals {
    /// For orders that are ready `lead` steps on.
    pub fn new(lead: usize) -> Self {
        let lead = lead.clamp(1, MAX_LEAD);
        Self { recent: VecDeque::with_capacity(lead), lead }
    }

    /// The next total in units, `upper` being what is wanted 1, 2, .. lead steps from now.
    pub fn next(&mut self, upper: impl Fn(usize) -> f64) -> u16 {
        let whole = |demand: f64| (demand + 0.5).floor().clamp(0.0, f64::from(u16::MAX)) as u16;
        let mut total = whole(upper(self.lead));
        // What would be ready k steps on if it is kept: wanted without a break in the last lead - k decisions.
        let mut standing = u16::MAX;
        for (i, before) in self.recent.iter().rev().enumerate() {
            standing = standing.min(*before);
            total = total.max(standing.min(whole(upper(self.lead - 1 - i))));
        }
        self.recent.push_back(total);
        if self.recent.len() >= self.lead {
            self.recent.pop_front();
        }
        total
    }
}

/// What was seen of a series.
#[derive(Debug, Clone)]
struct Series {
    season: Option<usize>,
    recent: VecDeque<f64>,
    keep: usize,
    fast: f64,
    slow: f64,
}

impl Series {
    fn new(lead: usize, season: Option<usize>) -> Self {
        Self { season, recent: VecDeque::new(), keep: season.unwrap_or(0) + lead + 16, fast: 0.0, slow: 0.0 }
    }

    fn push(&mut self, demand: f64) {
        if self.recent.is_empty() {
            (self.fast, self.slow) = (demand, demand);
        }
        self.recent.push_back(demand);
        if self.recent.len() > self.keep {
            self.recent.pop_front();
        }
        self.fast += (demand - self.fast) / 4.0;
        self.slow += (demand - self.slow) / 36.0;
    }

    /// The demand so many steps ago; the oldest where that is longer than is known.
    fn ago(&self, steps: usize) -> f64 {
        let at = self.recent.len().saturating_sub(1 + steps);
        self.recent.get(at).copied().unwrap_or(0.0)
    }

    /// Relative to the last value: changes, smoothed values, and how a season ago went on.
    fn features(&self, ahead: usize) -> [f64; LOCATION] {
        let last = self.ago(0);
        let (before, then) = match self.season {
            Some(season) if self.recent.len() > season + 2 => {
                let mean = |ago: usize| (self.ago(ago + 1) + self.ago(ago) + self.ago(ago - 1)) / 3.0;
                let distance = season - ahead % season;
                (mean(season), if distance > 1 { mean(distance) } else { self.ago(distance) })
            }
            _ => (last, last),
        };
        [1.0, last - self.ago(1), self.ago(1) - self.ago(2), self.fast - last, self.slow - last, then - before, then - last, last]
    }

    /// Highest and lowest of the last six.
    fn range(&self) -> (f64, f64) {
        self.recent.iter().rev().take(6).fold((0.0, f64::MAX), |(top, low), d| (d.max(top), d.min(low)))
    }
}

/// The distribution so many steps ahead.
#[derive(Debug, Clone)]
struct Ahead {
    ahead: usize,
    location: Ridge<LOCATION>,
    scale: Ridge<SCALE>,
    /// Mean absolute errors of late: of a few steps, and of a few hundred.
    fast: f64,
    slow: f64,
    remainders: Window,
    differences: Window,
    pending: VecDeque<Pending>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    last: f64,
    location: f64,
    scale: f64,
    features: [f64; LOCATION],
    scales: [f64; SCALE],
}

impl Ahead {
    fn new(ahead: usize) -> Self {
        Self {
            ahead,
            location: Ridge::new([20.0; LOCATION]),
            scale: Ridge::new([5.0; SCALE]),
            fast: 1.0,
            slow: 1.0,
            remainders: Window::default(),
            differences: Window::default(),
            pending: VecDeque::new(),
        }
    }

    fn learn(&mut self, demand: f64) {
        if self.pending.len() < self.ahead {
            return;
        }
        let Some(then) = self.pending.pop_front() else { return };
        let error = demand - then.location;
        self.remainders.push(error / then.scale);
        self.differences.push(demand - then.last);
        // What is rare and far out must not turn a regression over.
        let bound = 6.0 * then.scale;
        let weight = 1.0 / (then.scale * then.scale);
        let target = (then.location + error.clamp(-bound, bound)) - then.last;
        self.location.learn(&then.features, target, weight);
        let size = error.abs().min(2.0 * bound);
        self.scale.learn(&then.scales, size - self.slow, weight);
        self.fast += (size - self.fast) / 5.0;
        self.slow += (size - self.slow) / 150.0;
    }

    fn foresee(&mut self, series: &Series) {
        let features = series.features(self.ahead);
        let last = series.ago(0);
        let location = (last + self.location.at(&features)).max(0.0);
        let (top, low) = series.range();
        let scales = [1.0, self.fast - self.slow, (last - series.ago(1)).abs(), top - low, location, location - last];
        let scale = (self.slow + self.scale.at(&scales)).clamp(0.2 * self.slow, 12.0 * self.slow).max(LEAST_SCALE);
        self.pending.push_back(Pending { last, location, scale, features, scales });
    }

    fn upper(&self, late: f64) -> f64 {
        let Some(now) = self.pending.back() else { return 0.0 };
        let model = now.location + now.scale * self.remainders.upper(late);
        let plain = now.last + self.differences.upper(late);
        (MODEL * model + (1.0 - MODEL) * plain).max(0.0)
    }
}

/// The last values, and the same in order.
#[derive(Debug, Clone, Default)]
struct Window {
    fifo: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl Window {
    fn push(&mut self, value: f64) {
        self.fifo.push_back(value);
        self.sorted.insert(self.sorted.partition_point(|v| *v < value), value);
        if self.fifo.len() > WINDOW
            && let Some(old) = self.fifo.pop_front()
        {
            self.sorted.remove(self.sorted.partition_point(|v| *v < old));
        }
    }

    /// The quantile that is exceeded with probability `late`: beyond [`TAIL`] the mean of what was seen and of a Pareto tail
    /// (Weissman 1978, equation 2.4 in the logarithm), since the highest of a window says little of how high it can be.
    fn upper(&self, late: f64) -> f64 {
        if late >= TAIL {
            return self.seen(late);
        }
        let tail = self.seen(TAIL) * (TAIL / late.max(LEAST_LATE)).powf(TAIL_INDEX);
        0.5 * (self.seen(late) + tail)
    }

    fn seen(&self, late: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else { return 0.0 };
        let at = (1.0 - late).clamp(0.0, 1.0) * last as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(last);
        self.sorted[below] + (self.sorted[above] - self.sorted[below]) * (at - below as f64)
    }
}

/// Weighted least squares with forgetting, shrunk towards nothing.
#[derive(Debug, Clone)]
struct Ridge<const N: usize> {
    products: [[f64; N]; N],
    targets: [f64; N],
    penalty: [f64; N],
    solution: [f64; N],
    since: u32,
}

impl<const N: usize> Ridge<N> {
    fn new(penalty: [f64; N]) -> Self {
        Self { products: [[0.0; N]; N], targets: [0.0; N], penalty, solution: [0.0; N], since: 0 }
    }

    fn learn(&mut self, x: &[f64; N], y: f64, weight: f64) {
        for i in 0..N {
            for j in 0..N {
                self.products[i][j] = FORGET * self.products[i][j] + weight * x[i] * x[j];
            }
            self.targets[i] = FORGET * self.targets[i] + weight * x[i] * y;
        }
        self.since += 1;
        if self.since >= SOLVE_EVERY {
            self.since = 0;
            if let Some(solution) = self.solve() {
                self.solution = solution;
            }
        }
    }

    fn at(&self, x: &[f64; N]) -> f64 {
        x.iter().zip(&self.solution).map(|(x, a)| x * a).sum()
    }

    /// Cholesky's factors; nothing where numbers have run away.
    fn solve(&self) -> Option<[f64; N]> {
        let mut l = [[0.0; N]; N];
        for i in 0..N {
            for j in 0..=i {
                let mut sum = self.products[i][j] + if i == j { self.penalty[i] } else { 0.0 };
                sum -= (0..j).map(|k| l[i][k] * l[j][k]).sum::<f64>();
                if i == j {
                    if sum.is_nan() || sum <= 1e-12 {
                        return None;
                    }
                    l[i][i] = sum.sqrt();
                } else {
                    l[i][j] = sum / l[j][j];
                }
            }
        }
        let mut x = self.targets;
        for i in 0..N {
            x[i] = (x[i] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
        }
        for i in (0..N).rev() {
            x[i] = (x[i] - (i + 1..N).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
        }
        x.iter().all(|value| value.is_finite()).then_some(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_exceeds_the_upper_quantile_no_more_often_than_promised() {
        let mut state = 1u64;
        let mut foresight = Foresight::new(2, Some(24));
        let (mut promised, mut over) = (VecDeque::from([f64::MAX; 2]), 0);
        for t in 0..6_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 11) as f64 / (1u64 << 53) as f64;
            let demand = 30.0 + 20.0 * (f64::from(t) * std::f64::consts::TAU / 24.0).sin() + 10.0 * noise;
            foresight.observe(demand);
            promised.push_back(foresight.upper(2, 0.1));
            let then = promised.pop_front().unwrap();
            over += u32::from(t >= 1_000 && demand > then);
        }
        assert!((200..550).contains(&over), "{over} of 5000");
        assert!(foresight.upper(2, 0.01) >= foresight.upper(2, 0.1) && foresight.upper(9, 0.1) == 0.0);
    }

    #[test]
    fn what_stands_is_kept_for_a_need_within_the_lead_and_nothing_new_is_ordered_for_it() {
        let mut totals = Totals::new(3);
        assert_eq!(totals.next(|k| [9.0, 9.0, 4.0][k - 1]), 4, "too late to order for steps 1 and 2");
        assert_eq!(totals.next(|_| 4.0), 4);
        assert_eq!(totals.next(|k| [5.0, 3.0, 1.0][k - 1]), 4, "the next step wants 5, 4 will be ready");
        assert_eq!(totals.next(|k| [2.4, 1.0, 1.0][k - 1]), 2);
        assert_eq!(totals.next(|k| [1.0, 3.0, 1.0][k - 1]), 2);
        assert_eq!(Totals::new(1).next(|_| f64::NAN), 0);
    }

    #[test]
    fn memory_is_bounded_and_nothing_breaks_it() {
        let mut foresight = Foresight::new(1, None);
        for t in 0..5_000u32 {
            foresight.observe(match t % 5 {
                0 => f64::NAN,
                1 => -3.0,
                2 => 1e12,
                _ => 0.0,
            });
        }
        assert!(foresight.upper(1, 0.01).is_finite());
        assert_eq!(foresight.steps[0].remainders.sorted.len(), WINDOW);
        assert!(foresight.series.recent.len() <= foresight.series.keep);
    }
}
