//! The rivals, each after its public description, each with one knob.
//!
//! | name | what | knob |
//! |---|---|---|
//! | `last-value` | the last step's demand | margin: a factor |
//! | `seasonal-naive` | the most that was demanded one season before the steps of the lead | margin |
//! | `max-last-seasonal` | the larger of the two | margin |
//! | `hpa` | Kubernetes Horizontal Pod Autoscaler | 1 / target utilisation |
//! | `target-tracking` | target tracking as clouds document it | 1 / target utilisation |
//! | `cloud-predictive` | hourly forecast of 48 h, renewed every 6 h, and target tracking below it | 1 / target utilisation |
//! | `hybrid-histogram` | keep-alive of warm instances by the histogram of idle times | margin |
//! | `rolling-quantile` | the last value and a quantile of what it lacked of late | the probability of being late |
//!
//! Every one sees the demand up to a step before it names a total for it: plans are made step by step, forwards.

use super::cost::need;
use std::collections::VecDeque;

/// What a policy knows beside the demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Setting {
    /// Steps from order to service, at least 1.
    pub(crate) lead: usize,
    /// Steps of a season, if there is one.
    pub(crate) season: Option<usize>,
    /// Seconds of a step; 300 where the trace does not tell.
    pub(crate) step_s: f64,
    /// Rows that may be tuned on.
    pub(crate) split: usize,
}

impl Setting {
    /// From here on policies are tuned: they have seen one season.
    pub(crate) fn warm(&self) -> usize {
        self.season.unwrap_or(self.split / 5).min(self.split / 2)
    }

    fn steps(&self, seconds: f64) -> usize {
        (seconds / self.step_s).ceil().max(1.0) as usize
    }
}

/// A policy that scales what it foresees by a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rival {
    LastValue,
    SeasonalNaive,
    MaxLastSeasonal,
    Hpa,
    TargetTracking,
    CloudPredictive,
    HybridHistogram,
    RollingQuantile,
}

impl Rival {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::LastValue,
        Self::SeasonalNaive,
        Self::MaxLastSeasonal,
        Self::Hpa,
        Self::TargetTracking,
        Self::CloudPredictive,
        Self::HybridHistogram,
        Self::RollingQuantile,
    ];
    /// Those among which `best-rival` chooses for each series: the rules that are in use.
    pub(crate) const PLAIN: [Self; 7] = [
        Self::LastValue,
        Self::SeasonalNaive,
        Self::MaxLastSeasonal,
        Self::Hpa,
        Self::TargetTracking,
        Self::CloudPredictive,
        Self::HybridHistogram,
    ];

    /// As it is named on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LastValue => "last-value",
            Self::SeasonalNaive => "seasonal-naive",
            Self::MaxLastSeasonal => "max-last-seasonal",
            Self::Hpa => "hpa",
            Self::TargetTracking => "target-tracking",
            Self::CloudPredictive => "cloud-predictive",
            Self::HybridHistogram => "hybrid-histogram",
            Self::RollingQuantile => "rolling-quantile",
        }
    }

    /// The plan for one series: row `t` after having seen `demand[..= t]`.
    pub(crate) fn plan(self, demand: &[f64], setting: &Setting, knob: f64) -> Vec<u16> {
        let scaled = |forecast: f64| need(forecast * knob);
        match self {
            Self::LastValue => demand.iter().map(|d| scaled(*d)).collect(),
            Self::SeasonalNaive => (0..demand.len()).map(|t| scaled(seasonal(demand, t, setting))).collect(),
            Self::MaxLastSeasonal => (0..demand.len()).map(|t| scaled(seasonal(demand, t, setting).max(demand[t]))).collect(),
            Self::Hpa => hpa(demand, setting, 1.0 / knob),
            Self::TargetTracking => target_tracking(demand, setting, 1.0 / knob),
            Self::CloudPredictive => cloud_predictive(demand, setting, knob),
            Self::HybridHistogram => hybrid_histogram(demand, setting).into_iter().map(|d| scaled(f64::from(d))).collect(),
            Self::RollingQuantile => rolling_quantile(demand, setting, knob),
        }
    }
}

/// The most that was demanded a season before the steps until an order would be ready; the last value where there is no season yet.
fn seasonal(demand: &[f64], t: usize, setting: &Setting) -> f64 {
    let Some(season) = setting.season else { return demand[t] };
    if t + 1 < season {
        return demand[t];
    }
    (1..=setting.lead).filter_map(|k| demand.get((t + k) - season).filter(|_| t + k - season <= t)).copied().fold(0.0, f64::max)
}

/// The Horizontal Pod Autoscaler's rule (Kubernetes documentation, "Algorithm details"; defaults of `autoscaling/v2`): ready units times the
/// ratio of utilisation to target, nothing within a tolerance of 10 %, the highest recommendation of the last 300 s when scaling in,
/// no more than 100 % out or in within 15 s, which at steps of a minute and more is no limit. It is asked in every step, also where those are shorter than the
/// 15 s between its own looks, and may double in each: that is to its favour.
fn hpa(demand: &[f64], setting: &Setting, target: f64) -> Vec<u16> {
    const TOLERANCE: f64 = 0.1;
    const STABILISATION_SECONDS: f64 = 300.0;
    /// Four doublings a minute: beyond a minute this exceeds any peak.
    const DOUBLING_SECONDS: f64 = 15.0;
    // Recommendations that are exactly as old count too, beside the one of now.
    let window = setting.steps(STABILISATION_SECONDS) + 1;
    let growth = 2_f64.powf((setting.step_s / DOUBLING_SECONDS).clamp(1.0, 16.0));
    let mut desired = need(demand[0] / target).max(1);
    let mut recent: VecDeque<u16> = VecDeque::new();
    let mut plan = Vec::with_capacity(demand.len());
    for d in demand {
        let running = f64::from(desired).max(1.0);
        let ratio = d / (running * target);
        let wanted = if (ratio - 1.0).abs() <= TOLERANCE { desired } else { need(running * ratio) }.max(1);
        let wanted = wanted.min(need((running * growth).max(running + 4.0)));
        recent.push_back(wanted);
        if recent.len() > window {
            recent.pop_front();
        }
        let floor = recent.iter().copied().max().unwrap_or(0);
        desired = if wanted >= desired { wanted } else { floor.min(desired) };
        plan.push(desired);
    }
    plan
}

/// Target tracking as public clouds describe it: out at once to what the target asks for, in only when demand has been below 90 % of
/// the target for 15 minutes, and then no sooner than 300 s after the last change.
fn target_tracking(demand: &[f64], setting: &Setting, target: f64) -> Vec<u16> {
    const CALM_SECONDS: f64 = 900.0;
    const COOLDOWN_SECONDS: f64 = 300.0;
    let (calm_steps, cooldown) = (setting.steps(CALM_SECONDS), setting.steps(COOLDOWN_SECONDS));
    let (mut desired, mut calm, mut since) = (need(demand[0] / target).max(1), 0, 0);
    let mut plan = Vec::with_capacity(demand.len());
    for d in demand {
        let utilisation = d / f64::from(desired);
        since += 1;
        calm = if utilisation < 0.9 * target { calm + 1 } else { 0 };
        let wanted = need(d / target).max(1);
        if utilisation > target {
            (desired, since) = (wanted.max(desired), 0);
        } else if calm >= calm_steps && since >= cooldown && wanted < desired {
            (desired, since) = (wanted, 0);
        }
        plan.push(desired);
    }
    plan
}

/// Predictive scaling as public clouds describe it: from up to 14 days of history a forecast of 48 hours in hours, renewed every 6 hours;
/// capacity is there before the hour begins, and target tracking works below it.
fn cloud_predictive(demand: &[f64], setting: &Setting, knob: f64) -> Vec<u16> {
    const DAYS: usize = 14;
    let reactive = target_tracking(demand, setting, 1.0 / knob);
    let hour = setting.steps(3600.0);
    let Some(season) = setting.season.filter(|season| *season >= 4) else { return reactive };
    let hour = hour.min(season / 4).max(1);
    let hours = season.div_ceil(hour);
    let mut profile = vec![0.0; hours];
    let mut plan = Vec::with_capacity(demand.len());
    for t in 0..demand.len() {
        if t + 1 >= season && (t + 1) % (6 * hour) == 0 {
            let (mut sum, mut count) = (vec![0.0; hours], vec![0.0; hours]);
            for at in (t + 1).saturating_sub(DAYS * season)..=t {
                sum[at % season / hour] += demand[at];
                count[at % season / hour] += 1.0;
            }
            profile = sum.iter().zip(&count).map(|(sum, count): (&f64, &f64)| sum / count.max(1.0)).collect();
        }
        let ahead = (1..=setting.lead).map(|k| profile[(t + k) % season / hour]).fold(0.0, f64::max);
        plan.push(reactive[t].max(need(ahead * knob)));
    }
    plan
}

/// The hybrid histogram policy of Shahrad et al. ("Serverless in the Wild", USENIX ATC 2020, section 4.2), every unit taken for an
/// instance of its own: from the histogram of its idle times of up to four hours, it is let go after use until the 5 % quantile
/// (less 10 %) and kept until the 99 % quantile (plus 10 %); with too few idle times, and where they are spread so evenly that the histogram tells nothing
/// (its counts' coefficient of variation is below 2), it is kept for four hours. Left out is the forecast of idle times for what is idle for longer
/// than that most of the time.
fn hybrid_histogram(demand: &[f64], setting: &Setting) -> Vec<u16> {
    const RANGE_SECONDS: f64 = 4.0 * 3600.0;
    const LEAST_SEEN: u32 = 8;
    const LEAST_VARIATION: f64 = 2.0;
    let range = setting.steps(RANGE_SECONDS);
    struct Unit {
        idle: Vec<u32>,
        seen: u32,
        /// The sum of the squares of `idle`.
        squares: f64,
        last_used: Option<usize>,
        /// Steps after use, before which and after which it is not kept.
        window: (usize, usize),
    }
    let top = demand.iter().fold(0.0, |top: f64, d| top.max(*d));
    let mut units: Vec<Unit> =
        (0..need(top)).map(|_| Unit { idle: vec![0; range + 1], seen: 0, squares: 0.0, last_used: None, window: (0, range) }).collect();
    let mut plan = Vec::with_capacity(demand.len());
    for (t, d) in demand.iter().enumerate() {
        let used = need(*d);
        let mut kept = used;
        for (i, unit) in units.iter_mut().enumerate() {
            if i < usize::from(used) {
                let idle = unit.last_used.map_or(0, |last| t - last - 1);
                if idle > 0 && idle <= range {
                    unit.squares += 2.0 * f64::from(unit.idle[idle]) + 1.0;
                    unit.idle[idle] += 1;
                    unit.seen += 1;
                    let variation = range as f64 * unit.squares / f64::from(unit.seen).powi(2) - 1.0;
                    let tells = unit.seen >= LEAST_SEEN && variation >= LEAST_VARIATION.powi(2);
                    unit.window = if tells { window(&unit.idle, unit.seen) } else { (0, range) };
                }
                unit.last_used = Some(t);
            } else if let Some(last) = unit.last_used {
                // An order made now is ready `lead` steps on.
                let idle = t - last;
                if idle + setting.lead > unit.window.0 && idle <= unit.window.1 {
                    kept = kept.max(i as u16 + 1);
                }
            }
        }
        plan.push(kept);
    }
    plan
}

fn window(idle: &[u32], seen: u32) -> (usize, usize) {
    let quantile = |p: f64| {
        let (mut sum, wanted) = (0, (p * f64::from(seen)).ceil() as u32);
        idle.iter().position(|count| {
            sum += count;
            sum >= wanted.max(1)
        })
    };
    let (head, tail) = (quantile(0.05).unwrap_or(0), quantile(0.99).unwrap_or(idle.len() - 1));
    ((head as f64 * 0.9).floor() as usize, (tail as f64 * 1.1).ceil() as usize)
}

/// The last value, and the quantile of the last thousand differences over the lead.
fn rolling_quantile(demand: &[f64], setting: &Setting, late: f64) -> Vec<u16> {
    const WINDOW: usize = 1000;
    let mut order: Vec<f64> = Vec::new();
    let mut plan = Vec::with_capacity(demand.len());
    let error = |t: usize| demand[t] - demand[t - setting.lead];
    for (t, d) in demand.iter().enumerate() {
        if t >= setting.lead {
            let new = error(t);
            order.insert(order.partition_point(|e| *e < new), new);
            if order.len() > WINDOW {
                let old = error(t - WINDOW);
                order.remove(order.partition_point(|e| *e < old));
            }
        }
        let margin = upper(&order, late);
        plan.push(need(d + margin));
    }
    plan
}

/// The quantile of sorted values that is exceeded with this probability, between neighbours in proportion.
pub(crate) fn upper(sorted: &[f64], late: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = (1.0 - late).clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes.
    const SETTING: Setting = Setting { lead: 1, season: None, step_s: 60.0, split: 100 };

    #[test]
    fn the_autoscaler_tolerates_a_tenth_and_scales_in_by_the_highest_of_five_minutes() {
        let demand = [80.0, 86.0, 120.0, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0, 40.0];
        // 100 units serve 80 at a target of 0.8; 86 are within the tolerance; 120 take 150, which stand until the 120 are six looks old.
        assert_eq!(Rival::Hpa.plan(&demand, &SETTING, 1.0 / 0.8), [100, 100, 150, 150, 150, 150, 150, 150, 50, 50]);
        // Within 15 s no more than twice as many, or four more.
        let quick = Setting { step_s: 15.0, ..SETTING };
        assert_eq!(Rival::Hpa.plan(&[1.0, 40.0, 40.0, 40.0, 40.0], &quick, 1.0), [1, 5, 10, 20, 40]);
    }

    #[test]
    fn target_tracking_is_out_at_once_and_in_after_a_quarter_of_an_hour_of_calm() {
        let demand: Vec<f64> = [50.0, 80.0].into_iter().chain([50.0; 20]).collect();
        let plan = Rival::TargetTracking.plan(&demand, &SETTING, 2.0);
        assert_eq!((&plan[..2], plan[15], plan[16]), (&[100, 160][..], 160, 100));
        // What is within a tenth of the target is no calm.
        assert_eq!(Rival::TargetTracking.plan(&[50.0, 46.0].repeat(30), &SETTING, 2.0), [100; 60]);
    }

    #[test]
    fn predictive_scaling_is_there_before_the_hour_that_it_has_seen_every_day() {
        let hourly = Setting { lead: 1, season: Some(24), step_s: 3_600.0, split: 100 };
        let demand: Vec<f64> = (0..96).map(|hour| if hour % 24 == 9 { 60.0 } else { 10.0 }).collect();
        let plan = Rival::CloudPredictive.plan(&demand, &hourly, 1.0);
        // After the eighth hour of the third day the ninth is known; on the first day it was not.
        assert_eq!((plan[8], plan[2 * 24 + 8], plan[2 * 24 + 6]), (10, 60, 10));
    }

    #[test]
    fn an_instance_is_let_go_and_is_back_by_its_histogram_of_idle_times() {
        // Used every 30 minutes: away from soon after, back from 90 % of the time on.
        let demand: Vec<f64> = (0..600).map(|minute| if minute % 30 == 0 { 1.0 } else { 0.0 }).collect();
        let plan = hybrid_histogram(&demand, &SETTING);
        assert_eq!((plan[570], plan[575], plan[590], plan[598]), (1, 0, 0, 1));
        assert!(plan[..200].iter().all(|kept| *kept == 1), "four hours, as long as little is known");
        // Idle times of every length alike tell nothing, once there are many.
        let (mut at, mut spread) = (0, vec![0.0; 20_000]);
        for idle in (1..120).map(|n| 2 * (n * 37 % 119) + 2) {
            spread[at] = 1.0;
            at += idle + 1;
        }
        assert!(hybrid_histogram(&spread[..at], &SETTING)[at * 2 / 3..].iter().all(|kept| *kept == 1));
    }

    #[test]
    fn the_rolling_quantile_adds_what_was_lacking_of_late() {
        let demand: Vec<f64> = (0..2_000).map(|t| if t % 10 == 0 { 15.0 } else { 10.0 }).collect();
        // One difference in ten is 5, one is -5.
        let plan = |late| Rival::RollingQuantile.plan(&demand, &SETTING, late)[1_995];
        assert_eq!((plan(0.2), plan(0.05)), (10, 15));
    }
}
