//! The margin of one pool, chosen by what each choice would have cost.
//!
//! A plan provides for the median and a margin times what the provisioned quantile lies above it. The choices are seven fixed margins,
//! the one that [`Tuner`] has come to, and what the pool's own demand foretells ([`super::own`]), wherever that lies. What each of them would have cost is known once a step has been seen: the instances that its plans
//! would have had ready at their price, and the demand above them at the cost of being late, which is stated, or `1 / (1 - quantile)` times that
//! price for whoever provisions for the quantile (newsvendor). So nothing has to be tried out: this is prediction with expert advice under full
//! information. Weights fall exponentially with discounted cost, at the rate for costs of a known range over the time that is remembered
//! (Cesa-Bianchi and Lugosi 2006, theorem 2.2 and section 2.11). The range is never taken to be below the cost of one instance that is
//! missing: steps without lateness would otherwise teach within a few of them that margins are not worth their price. The margin played is
//! the weighted mean: cost is convex in capacity, so its cost is at most the mean of theirs, and no chance is needed. As long as the pool's own
//! demand says nothing it is played without, and what is played counts for it (sleeping experts: Freund, Schapire, Singer and Warmuth 1997).

use super::costs::{late_cost_ratio, waits};
use super::history::RecentNeeds;
use super::sizing::need;
use super::tuner::{Outcome, Tuner};
use super::{PoolSnapshot, Snapshot, SpotMemory, Standing};
use crate::config::PoolConfig;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use tradewind_protocol::api::{MarginChoice, MarginReasons};
use tradewind_protocol::{PoolDecision, Quantile, StepIndex};

/// The fixed margins. Their mean is 1, so that a pool of which nothing is known provides for the quantile as it is.
const FIXED: [f64; 7] = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75];
/// The tuner's choice, and that of the pool's own demand.
const TUNED: usize = FIXED.len();
const OWN: usize = TUNED + 1;
/// How many choices there are.
pub(super) const CHOICES: usize = OWN + 1;
/// The weight of the pool's own demand as long as nothing is known of its costs.
const OWN_PRIOR: f64 = 0.9;
/// The tuner's part of what is left for margins, as long as nothing is known. It keeps the promised share of late steps by itself, and it takes some
/// evidence to leave it: the costs of a few hundred steps say little about lateness that is to happen once in twenty.
const TUNERS_PRIOR: f64 = 0.95;
/// What a step's cost counts for a step later: half after 1,386 steps, a day of minutes, in which being late at the 95 % quantile happens some
/// seventy times. A guess.
const FORGET: f64 = 0.9995;
/// The most plans that are remembered: more than the longest lead in use. With a longer one nothing is learned.
const MAX_PLANS: usize = 360;

/// What is known of the choices, and what they would have ready.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Margins {
    tuner: Tuner,
    /// What each choice has cost more than the cheapest of its step, in instance-steps, discounted.
    costs: [f64; CHOICES],
    /// The same for what stood there.
    paid: f64,
    /// The widest range of the choices' costs in a step, discounted.
    range: f64,
    /// How many steps were learned from.
    learned: u64,
    last: Option<StepIndex>,
    /// What the choices' plans asked for, ascending by step.
    plans: VecDeque<Planned>,
}

/// What the choices would have planned after one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Planned {
    step: StepIndex,
    /// By the step's own forecast.
    needs: [u32; CHOICES],
    /// With the wait before scale-in.
    totals: [u32; CHOICES],
    /// What was planned.
    played: u32,
}

/// A plan that is to be noted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted<'a> {
    /// The last step that it knows.
    pub(super) known_until: StepIndex,
    /// What was decided.
    pub(super) decision: &'a PoolDecision,
    /// About which pool.
    pub(super) pool: &'a PoolConfig,
    /// For how many steps scale-in waits.
    pub(super) waits: u32,
    /// How many steps ahead it looks.
    pub(super) lead: u32,
}

/// A step of a pool as it came out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Which.
    pub(super) step: StepIndex,
    /// How many instances the pool's demand needed, in parts of one.
    pub(super) demand: f64,
    /// How many stood ready.
    pub(super) ready: u32,
    /// How many steps before it its plan had to be made.
    pub(super) lead: u32,
    /// The quantile that is provisioned for.
    pub(super) quantile: Quantile,
    /// What the demand of one instance costs when it is not served, in prices of one.
    pub(super) late_cost: f64,
    /// Whether its plan was blocked.
    pub(super) blocked: bool,
}

impl Margins {
    /// With a tuner's margin known from earlier.
    pub fn with_tuner(tuner: Tuner) -> Self {
        Self { tuner, ..Self::default() }
    }

    /// Read from a file: what makes no sense is forgotten.
    pub fn sound(self) -> Self {
        let mut figures = self.costs.iter().chain([&self.range]);
        let good = figures.all(|figure| figure.is_finite() && *figure >= 0.0) && self.paid.is_finite() && self.plans.len() <= MAX_PLANS;
        let tuner = Tuner::with_margin(self.tuner.margin());
        if good && self.plans.iter().is_sorted_by(|a, b| a.step < b.step) { Self { tuner, ..self } } else { Self::with_tuner(tuner) }
    }

    /// The margin that a plan is to be made with.
    pub fn margin(&self) -> f64 {
        let weights = self.weights();
        self.margins().iter().zip(weights).map(|(margin, weight)| margin * weight).sum::<f64>() / (1.0 - weights[OWN])
    }

    /// How much what the pool's own demand foretells has to say, when it says anything.
    pub fn own_weight(&self) -> f64 {
        self.weights()[OWN]
    }

    /// How the margin comes about: the choices, the fixed ones ascending, then the tuner's. The regret is negative where the pool was cheaper
    /// than any of them.
    pub fn reasons(&self) -> MarginReasons {
        let (margins, weights, best) = (self.margins(), self.weights(), self.best());
        let regret = |at: usize| self.costs[at] - best;
        let choice = |at: usize| MarginChoice { margin: margins[at], tuned: at == TUNED, weight: weights[at], regret: regret(at) };
        MarginReasons {
            margin: self.margin(),
            learned_steps: self.learned,
            regret: self.paid - best,
            own_weight: weights[OWN],
            own_regret: regret(OWN),
            choices: (0..OWN).map(choice).collect(),
        }
    }

    /// How many instances the plans of the `rounds` steps before `known_until` have all asked for; nothing where there were none.
    pub(super) fn ordered(&self, known_until: StepIndex, rounds: usize) -> Option<u32> {
        let from = known_until.offset(-i64::try_from(rounds).unwrap_or(i64::MAX));
        self.plans.iter().filter(|plan| (from..known_until).contains(&plan.step)).map(|plan| plan.played).min()
    }

    fn best(&self) -> f64 {
        self.costs.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn margins(&self) -> [f64; OWN] {
        std::array::from_fn(|at| FIXED.get(at).copied().unwrap_or_else(|| self.tuner.margin()))
    }

    fn weights(&self) -> [f64; CHOICES] {
        let best = self.best();
        // Nothing was learned while the range is 0, and all costs are 0 then.
        let rate = (8.0 * (CHOICES as f64).ln() * (1.0 - FORGET)).sqrt() / self.range.max(f64::MIN_POSITIVE);
        let prior = |at: usize| match at {
            OWN => OWN_PRIOR,
            TUNED => (1.0 - OWN_PRIOR) * TUNERS_PRIOR,
            _ => (1.0 - OWN_PRIOR) * (1.0 - TUNERS_PRIOR) / FIXED.len() as f64,
        };
        // Neither margins nor the pool's own demand are ever quite without a say.
        let raw: [f64; CHOICES] = std::array::from_fn(|at| prior(at) * (-rate * (self.costs[at] - best)).exp().max(1e-9));
        let sum: f64 = raw.iter().sum();
        raw.map(|weight| weight / sum)
    }

    /// Notes what the choices would have asked for where `noted` was decided. Of several plans of one step the highest need counts.
    pub(super) fn note(&mut self, noted: Noted<'_>) {
        let Noted { known_until, decision, pool, waits, lead } = noted;
        let reason = &decision.reason;
        let least = reason.reactive_floor.max(pool.min_instances);
        let margins = self.margins();
        let rate = |at: usize| match margins.get(at) {
            Some(margin) => reason.median_rate + margin * reason.upper_rate,
            None => reason.own_rate.unwrap_or(reason.demand_rate),
        };
        let mut needs: [u32; CHOICES] = std::array::from_fn(|at| need(rate(at), pool.rate_per_instance).max(least));
        while let Some(earlier) = self.plans.pop_back_if(|earlier| earlier.step >= known_until) {
            if earlier.step == known_until {
                needs = std::array::from_fn(|at| needs[at].max(earlier.needs[at]));
            }
        }
        let from = known_until.offset(-i64::from(waits));
        let recent = self.plans.iter().filter(|earlier| earlier.step >= from);
        let totals = recent.fold(needs, |highest, earlier| std::array::from_fn(|at| highest[at].max(earlier.needs[at])));
        let totals = totals.map(|total| total.min(pool.max_instances));
        // What neither a wait nor a step that is still to be seen reaches back to.
        let oldest = known_until.offset(-i64::from(waits.max(lead).saturating_add(1)));
        while self.plans.len() >= MAX_PLANS || self.plans.front().is_some_and(|plan| plan.step < oldest) {
            self.plans.pop_front();
        }
        let played = decision.active.saturating_add(decision.warm);
        self.plans.push_back(Planned { step: known_until, needs, totals, played });
    }

    /// Learns how a step came out. One that was learned from already, or that the plans do not reach back to, teaches nothing; nor does one whose
    /// plan was blocked.
    pub(super) fn learn(&mut self, seen: Seen) {
        if self.last.is_some_and(|last| seen.step <= last) {
            return;
        }
        self.last = Some(seen.step);
        let from = seen.step.offset(-i64::from(seen.lead));
        let Some(ordered) = self.plans.iter().rposition(|plan| plan.step <= from) else { return };
        if seen.blocked || !seen.demand.is_finite() {
            return;
        }
        // Ready is what was ordered in time, and wanted ever since. What stood there differs from that by what no plan decides (starts that
        // took longer, instances that were lost, minima), and would have differed by it with every choice.
        let since = self.plans.range(ordered..).filter(|plan| plan.step < seen.step);
        let nothing = ([u32::MAX; CHOICES], u32::MAX);
        let (totals, played) = since
            .fold(nothing, |(totals, played), plan| (std::array::from_fn(|at| plan.totals[at].min(totals[at])), played.min(plan.played)));
        let ready = totals.map(|total| (f64::from(seen.ready) + f64::from(total) - f64::from(played)).max(0.0));
        let late_cost = seen.late_cost;
        let cost = |ready: f64| ready + late_cost * (seen.demand - ready).max(0.0);
        let costs = ready.map(cost);
        let (least, most) = costs.iter().fold((f64::INFINITY, 0.0f64), |(least, most), cost| (least.min(*cost), most.max(*cost)));
        self.range = (FORGET * self.range).max(most - least).max(late_cost);
        self.costs = std::array::from_fn(|at| FORGET * self.costs[at] + costs[at] - least);
        self.paid = FORGET * self.paid + cost(f64::from(seen.ready)) - least;
        self.learned += 1;
        // By what its own margin would have had ready: what was played is not its doing.
        let outcome = Outcome { demand_rate: seen.demand, ready_rate: ready[TUNED], blocked: false };
        self.tuner.learn(outcome, seen.quantile);
    }
}

/// What the rounds of a pool leave for the next ones; it survives a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// What it needed lately.
    pub recent: RecentNeeds,
    /// What was learned from its steps.
    pub margins: Margins,
    /// What the last round planned.
    pub standing: Option<Standing>,
    /// What is known of its spot instances.
    #[serde(default)]
    pub spot: SpotMemory,
}

/// How the step that was closed last came out for a pool, beside its demand.
#[derive(Debug, Clone, Copy)]
pub struct Outturn {
    /// How many instances stood ready.
    pub ready: u32,
    /// Whether the plan before was blocked.
    pub blocked: bool,
}

impl Memory {
    /// Remembers what `decision` was made about `pool`, and learns how the step that was closed last came out, if that is known.
    pub fn close(&mut self, decision: &PoolDecision, pool: &PoolSnapshot, snapshot: &Snapshot, outturn: Option<Outturn>) {
        let (step, config) = (snapshot.known_until, &pool.config);
        let lead = snapshot.step.count_covering(Duration::from_millis(decision.reason.lead_ms));
        // What a choice has ordered is needed until it is ready, and longer where what it says of the steps before is the higher: that is not in the decision.
        let waits = waits(pool, snapshot).max(lead.saturating_sub(1));
        self.margins.note(Noted { known_until: step, decision, pool: config, waits, lead });
        if let (Some(observed), Some(Outturn { ready, blocked })) = (pool.observed, outturn) {
            self.margins.learn(Seen {
                step,
                demand: observed / config.rate_per_instance,
                ready,
                lead,
                quantile: decision.reason.quantile,
                late_cost: late_cost_ratio(pool, decision.reason.quantile),
                blocked,
            });
        }
        self.recent.note(step, decision, config);
        if let Some(mix) = &decision.mix {
            self.spot.note(step, mix);
            self.spot.learn(pool, snapshot);
        }
        self.standing = Some(Standing { active: decision.active, warm: decision.warm });
    }

    /// The memory as it is kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Numbers and lists only: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The memory that `bytes` keep, as far as it makes sense; `None` for bytes of another kind.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let memory: Self = serde_json::from_slice(bytes).ok()?;
        Some(Self { recent: memory.recent.sound(), margins: memory.margins.sound(), standing: memory.standing, spot: memory.spot.sound() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, decision, forecast, pool, snapshot};
    use super::*;

    const Q90: Quantile = Quantile::GRID[5];

    /// Plays `steps` steps with a lead of two against `demand` of the step and of what is random in it, between -1 and 1; the forecast says
    /// a median of 100 with a quantile 20 above.
    fn play(margins: &mut Margins, steps: i64, demand: impl Fn(i64, f64) -> f64) -> (f64, f64) {
        let web = PoolConfig { max_instances: 1_000, ..config("web") };
        let mut ready = VecDeque::from([0, 0]);
        let (mut late, mut paid) = (0, 0.0);
        for at in 0..steps {
            let random = ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            let (step, demand, stood) = (StepIndex(at), demand(at, random), ready.pop_front().unwrap());
            late += u32::from(demand > f64::from(stood));
            paid += f64::from(stood);
            margins.learn(Seen { step, demand, ready: stood, lead: 2, quantile: Q90, late_cost: 10.0, blocked: false });
            let rate = 100.0 + 20.0 * margins.margin();
            let mut decision = decision(100.0, rate);
            decision.reason.upper_rate = 20.0;
            decision.active = need(rate, 1.0);
            margins.note(Noted { known_until: step, decision: &decision, pool: &web, waits: 0, lead: 2 });
            ready.push_back(need(rate, 1.0));
        }
        (f64::from(late) / steps as f64, paid / steps as f64)
    }

    #[test]
    fn what_was_ordered_is_what_all_plans_since_have_asked_for() {
        let mut margins = Margins::default();
        assert_eq!(margins.ordered(StepIndex(3), 3), None);
        for (step, active) in [(0, 9), (1, 4), (2, 6)] {
            let decision = PoolDecision { active, warm: 0, ..decision(4.0, 4.0) };
            margins.note(Noted { known_until: StepIndex(step), decision: &decision, pool: &config("web"), waits: 0, lead: 4 });
        }
        assert_eq!([1, 2, 3].map(|rounds| margins.ordered(StepIndex(3), rounds)), [Some(6), Some(4), Some(4)]);
        assert_eq!(margins.ordered(StepIndex(2), 1), Some(4), "a plan of the same step is made anew");
    }

    #[test]
    fn nothing_learned_plays_the_quantile_as_it_is() {
        let margins = Margins::default();
        assert!((margins.margin() - 1.0).abs() < 1e-12);
        let reasons = margins.reasons();
        assert!((reasons.own_weight + reasons.choices.iter().map(|choice| choice.weight).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn margins_follow_the_cheapest_choice() {
        // Demand uniform within 30 of the median: the 90 % quantile lies 24 above it, a margin of 1.2.
        let mut wide = Margins::default();
        let (late, _) = play(&mut wide, 3_000, |_, random| 100.0 + 30.0 * random);
        assert!((1.0..1.4).contains(&wide.margin()), "{}", wide.margin());
        assert!((0.06..0.14).contains(&late), "{late}");
        // Within 5: a margin of 0.2.
        let mut narrow = Margins::default();
        play(&mut narrow, 3_000, |_, random| 100.0 + 5.0 * random);
        assert!(narrow.margin() < 0.4, "{}", narrow.margin());
        let MarginReasons { choices, learned_steps, own_weight, .. } = narrow.reasons();
        assert!(choices[0].weight + choices[TUNED].weight > 0.9 * (1.0 - own_weight), "{choices:?}");
        assert!(choices[6].regret > 1_000.0 && learned_steps > 2_900);
    }

    #[test]
    fn the_pools_own_demand_keeps_its_say_only_where_it_is_worth_its_price() {
        // What it says beside a demand of 100 to 120, of which margins know as much as can be known.
        let weight = |own: f64| {
            let mut margins = Margins::default();
            let web = PoolConfig { max_instances: 1_000, ..config("web") };
            for at in 0..2_000 {
                let random = ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64;
                let seen = Seen {
                    step: StepIndex(at),
                    demand: 100.0 + 20.0 * random,
                    ready: 118,
                    lead: 2,
                    quantile: Q90,
                    late_cost: 10.0,
                    blocked: false,
                };
                margins.learn(seen);
                let mut decision = decision(100.0, 118.0);
                (decision.reason.own_rate, decision.active) = (Some(own), 118);
                margins.note(Noted { known_until: StepIndex(at), decision: &decision, pool: &web, waits: 0, lead: 2 });
            }
            margins.own_weight()
        };
        assert!(weight(118.0) > OWN_PRIOR, "{}", weight(118.0));
        assert!(weight(101.0) < 0.05 && weight(150.0) < 0.05, "{} {}", weight(101.0), weight(150.0));
    }

    #[test]
    fn what_was_right_is_left_when_it_no_longer_is() {
        let mut margins = Margins::default();
        play(&mut margins, 6_000, |at, random| 100.0 + if at < 3_000 { 5.0 } else { 30.0 } * random);
        assert!((0.9..1.5).contains(&margins.margin()), "{}", margins.margin());
    }

    #[test]
    fn regret_against_the_best_choice_grows_slower_than_time() {
        let regret = |steps| {
            let mut margins = Margins::default();
            play(&mut margins, steps, |_, random| 100.0 + 12.0 * random);
            margins.reasons().regret / steps as f64
        };
        let (soon, later) = (regret(100), regret(2_000));
        assert!(later < 0.35 * soon, "{soon} a step, then {later}");
    }

    #[test]
    fn a_step_teaches_once_and_only_what_the_plans_reach_back_to() {
        let mut margins = Margins::default();
        let seen = Seen { step: StepIndex(5), demand: 300.0, ready: 1, lead: 2, quantile: Q90, late_cost: 10.0, blocked: false };
        margins.learn(seen);
        assert_eq!(margins.learned, 0, "no plan was made in time");
        let (web, decision) = (config("web"), decision(10.0, 12.0));
        margins.note(Noted { known_until: StepIndex(6), decision: &decision, pool: &web, waits: 3, lead: 2 });
        margins.learn(Seen { step: StepIndex(8), blocked: true, ..seen });
        assert_eq!(margins.learned, 0);
        margins.learn(Seen { step: StepIndex(9), ..seen });
        let once = margins.clone();
        margins.learn(Seen { step: StepIndex(9), ..seen });
        assert_eq!((&margins, once.learned), (&once, 1));
    }

    #[test]
    fn a_round_is_remembered_whole_and_teaches_only_what_is_known() {
        let rounds = |outturn: Option<Outturn>, observed: Option<f64>| {
            let mut memory = Memory::default();
            for step in 0..6 {
                let mut snapshot = snapshot(vec![forecast("a", 5.0, &[(5.0, 7.0), (5.0, 7.0)])], vec![pool(config("web"))]);
                snapshot.known_until = StepIndex(100 + step);
                (snapshot.pools[0].observed, snapshot.pools[0].memory) = (observed, memory.clone());
                let decision = crate::planner::plan(&snapshot).decisions.remove(0);
                memory.close(&decision, &snapshot.pools[0], &snapshot, outturn);
                assert_eq!(memory.standing, Some(Standing { active: decision.active, warm: decision.warm }));
                assert!(memory.recent.highest(StepIndex(101 + step), 1) >= 7);
            }
            memory.margins.learned
        };
        let stood = Outturn { ready: 7, blocked: false };
        assert_eq!(rounds(Some(stood), Some(5.0)), 4, "the lead is two steps");
        assert_eq!((rounds(None, Some(5.0)), rounds(Some(stood), None)), (0, 0));
        assert_eq!(rounds(Some(Outturn { blocked: true, ..stood }), Some(5.0)), 0);
    }

    #[test]
    fn a_memory_survives_and_a_damaged_one_is_forgotten() {
        let mut memory = Memory { standing: Some(Standing { active: 3, warm: 1 }), ..Memory::default() };
        play(&mut memory.margins, 400, |_, random| 100.0 + 30.0 * random);
        memory.recent.note(StepIndex(7), &decision(1.0, 2.0), &config("web"));
        let back = Memory::from_bytes(&memory.to_bytes()).unwrap();
        assert_eq!((back.recent, back.standing), (memory.recent.clone(), memory.standing));
        assert!((back.margins.margin() - memory.margins.margin()).abs() < 1e-9);
        assert_eq!(Memory::from_bytes(b"{}x"), None);
        memory.margins.range = -1.0;
        assert_eq!(Memory::from_bytes(&memory.to_bytes()).unwrap().margins.learned, 0);
    }
}
