//! All policies under one name: ours, the rivals, the optimum.

use super::boosted::Boosted;
use super::rivals::{Rival, Setting};
use super::{clairvoyant, cost::need};
use tradewind_agent::planner::foresight::between;

/// Makes the plan of one series for a knob.
pub(crate) type Planner<'a> = Box<dyn Fn(f64) -> Vec<u16> + 'a>;

/// A policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The agent's.
    Tradewind,
    /// Knows the future.
    Clairvoyant,
    /// A plain rule for each series, with a margin for each.
    BestRival,
    /// Gradient-boosted quantiles at the lead.
    Boosted,
    /// One of the rules.
    Rival(Rival),
}

impl Policy {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        [Self::Tradewind, Self::Clairvoyant, Self::BestRival, Self::Boosted].into_iter().chain(Rival::ALL.map(Self::Rival)).collect()
    }

    /// As it is named on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tradewind => "tradewind",
            Self::Clairvoyant => "clairvoyant",
            Self::BestRival => "best-rival",
            Self::Boosted => "boosted-quantile",
            Self::Rival(rival) => rival.name(),
        }
    }

    /// Those it chooses among: itself, unless it is `best-rival`.
    pub(crate) fn parts(self) -> Vec<Self> {
        match self {
            Self::BestRival => Rival::PLAIN.map(Self::Rival).to_vec(),
            Self::Tradewind | Self::Clairvoyant | Self::Boosted | Self::Rival(_) => vec![self],
        }
    }

    /// Knobs that are tried: probabilities of being late, or margins.
    pub(crate) fn knobs(self) -> Vec<f64> {
        match self {
            Self::Clairvoyant => vec![1.0],
            Self::Tradewind => (0..44).map(|i| 0.6 * 0.75_f64.powi(i)).collect(),
            Self::Boosted | Self::Rival(Rival::RollingQuantile) => (0..130).map(|i| 0.6 * 0.91_f64.powi(i)).collect(),
            Self::BestRival | Self::Rival(_) => (0..110).map(|i| 0.75 * 1.02_f64.powi(i)).collect(),
        }
    }

    /// A planner for one series.
    pub(crate) fn prepare<'a>(self, demand: &'a [f64], setting: &'a Setting) -> Planner<'a> {
        match self {
            Self::Tradewind => super::replay::replay(demand, setting),
            Self::Boosted => {
                let levels = Boosted::foresee(demand, setting);
                Box::new(move |late| levels.iter().map(|levels| need(between(levels, late))).collect())
            }
            Self::Rival(rival) => Box::new(move |knob| rival.plan(demand, setting, knob)),
            Self::Clairvoyant | Self::BestRival => Box::new(|_| clairvoyant(demand, setting.lead)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_but_the_clairvoyant_looks_ahead() {
        let noise = |t: usize, salt: usize| ((t * 7919 + salt * 104_729) % 1009) as f64 / 1009.0;
        let wave = |t: usize| 50.0 + 30.0 * (t as f64 / 24.0 * std::f64::consts::TAU).sin();
        let mut demand: Vec<f64> = (0..600).map(|t| wave(t) + 15.0 * noise(t, 1)).collect();
        demand[0] = 100.0;
        for lead in [1, 2, 6] {
            let setting = Setting { lead, season: Some(24), step_s: 300.0, split: 360 };
            for policy in Policy::all().into_iter().filter(|policy| *policy != Policy::BestRival) {
                // What is learned on the first 60 % may know all of them.
                for cut in [400, 500] {
                    let changed: Vec<f64> = (0..600).map(|t| if t <= cut { demand[t] } else { 100.0 * noise(t, 2) }).collect();
                    let knobs = policy.knobs();
                    let knob = knobs[25.min(knobs.len() - 1)];
                    let (a, b) = (policy.prepare(&demand, &setting)(knob), policy.prepare(&changed, &setting)(knob));
                    let same = a[..=cut] == b[..=cut];
                    assert_eq!(same, policy != Policy::Clairvoyant, "{} at {cut}, lead {lead}", policy.name());
                    assert_ne!(a, b, "{} sees nothing", policy.name());
                }
            }
        }
    }
}
