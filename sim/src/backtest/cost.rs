//! What a plan costs and what it leaves unserved.
//!
//! At the end of step `t` a policy names a desired total `plan[t]`. Units that are missing are ordered, billed from step `t + 1` on and
//! ready for step `t + lead`; what is too much is given back at once, what is still starting first. So the bill of step `s` is `plan[s - 1]`,
//! and ready at step `s` is what has been wanted without a break for `lead` decisions: `min(plan[s - lead ..= s - 1])`.

use std::ops::{AddAssign, Range};

/// What came of a plan, in units of 1 % of the series' peak, summed over steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Score {
    /// Units billed.
    pub(crate) cost: f64,
    /// Units that the cheapest plan without lateness is billed.
    pub(crate) optimum: f64,
    /// Demand above the units that were ready.
    pub(crate) late: f64,
    /// Demand.
    pub(crate) demand: f64,
    /// Steps with demand above the units that were ready.
    pub(crate) late_steps: f64,
    /// Steps.
    pub(crate) steps: f64,
    /// Ready units above demand.
    pub(crate) slack: f64,
    /// Units ordered or given back.
    pub(crate) churn: f64,
}

impl Score {
    /// The bill as a multiple of the cheapest one without lateness.
    pub(crate) fn cost_ratio(&self) -> f64 {
        self.cost / self.optimum.max(1.0)
    }

    /// The part of the demand that found no ready unit.
    pub(crate) fn late_share(&self) -> f64 {
        self.late / self.demand.max(f64::MIN_POSITIVE)
    }
}

impl AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.cost += other.cost;
        self.optimum += other.optimum;
        self.late += other.late;
        self.demand += other.demand;
        self.late_steps += other.late_steps;
        self.steps += other.steps;
        self.slack += other.slack;
        self.churn += other.churn;
    }
}

/// Whole units that serve a demand.
pub(crate) fn need(demand: f64) -> u16 {
    (demand - 1e-9).ceil().clamp(0.0, f64::from(u16::MAX)) as u16
}

/// Judges a plan over the steps of `range`.
pub(crate) fn score(demand: &[f64], plan: &[u16], lead: usize, range: Range<usize>) -> Score {
    let mut score = Score::default();
    for s in range {
        let billed = if s > 0 { plan[s - 1] } else { 0 };
        let before = if s > 1 { plan[s - 2] } else { 0 };
        let ready = if s >= lead { plan[s - lead..s].iter().copied().min().unwrap_or(0) } else { 0 };
        let over = demand[s] - f64::from(ready);
        score += Score {
            cost: f64::from(billed),
            optimum: f64::from(cheapest(demand, lead, s)),
            late: over.max(0.0),
            demand: demand[s],
            late_steps: if over > 1e-9 { 1.0 } else { 0.0 },
            steps: 1.0,
            slack: (-over).max(0.0),
            churn: f64::from(billed.abs_diff(before)),
        };
    }
    score
}

/// What the cheapest plan without lateness is billed at step `s`: the highest need that units launched now would be in time for.
fn cheapest(demand: &[f64], lead: usize, s: usize) -> u16 {
    demand[s..(s + lead).min(demand.len())].iter().map(|d| need(*d)).max().unwrap_or(0)
}

/// The cheapest plan without lateness; it knows the future.
pub(crate) fn clairvoyant(demand: &[f64], lead: usize) -> Vec<u16> {
    (0..demand.len()).map(|t| if t + 1 < demand.len() { cheapest(demand, lead, t + 1) } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Steps that no plan is in time for at the beginning.
    const QUIET: usize = 3;

    fn drawn(seed: u64, rows: usize) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 4
        };
        (0..rows).map(|t| if t < QUIET { 0.0 } else { next() as f64 }).collect()
    }

    /// The cheapest bill without lateness by trying everything: a state is how many units there are of each age.
    fn brute_force(demand: &[f64], lead: usize) -> u32 {
        let mut states: BTreeMap<Vec<u16>, u32> = BTreeMap::from([(vec![0; lead], 0)]);
        for d in demand {
            let mut next: BTreeMap<Vec<u16>, u32> = BTreeMap::new();
            for (ages, cost) in states {
                let total: u16 = ages.iter().sum();
                for desired in 0..=3u16 {
                    // Ages: how long ago ordered, the last is "ready at the coming step or longer".
                    let mut units = ages.clone();
                    let mut surplus = total.saturating_sub(desired);
                    for unit in &mut units {
                        let given = surplus.min(*unit);
                        *unit -= given;
                        surplus -= given;
                    }
                    let ordered = desired.saturating_sub(total);
                    // An order ages by one at once: with a lead of 1 it is ready for the coming step.
                    let (last, mut aged) = (lead - 1, vec![0; lead]);
                    for (age, unit) in units.iter().enumerate() {
                        aged[(age + 1).min(last)] += unit;
                    }
                    aged[0] += ordered;
                    if f64::from(aged[last]) < *d {
                        continue;
                    }
                    let bill = cost + u32::from(desired);
                    let best = next.entry(aged).or_insert(bill);
                    *best = bill.min(*best);
                }
            }
            states = next;
        }
        states.into_values().min().expect("three units always do")
    }

    #[test]
    fn the_clairvoyant_bill_is_the_cheapest_of_all_plans() {
        for lead in 1..=3 {
            for seed in 0..20 {
                let demand = drawn(seed, 12);
                let score = score(&demand, &clairvoyant(&demand, lead), lead, 0..demand.len());
                assert_eq!((score.late, score.late_steps), (0.0, 0.0), "lead {lead}, seed {seed}");
                assert_eq!(score.optimum as u32, brute_force(&demand, lead), "lead {lead}, seed {seed}");
                assert!(score.cost <= score.optimum, "the first steps are billed to nobody");
            }
        }
    }

    #[test]
    fn an_order_is_billed_at_once_and_ready_after_its_lead() {
        let plan = [2, 2, 0, 2, 2, 2];
        let score = score(&[0.0, 1.5, 1.5, 1.5, 1.5, 1.5], &plan, 2, 1..6);
        assert_eq!(score.cost, 8.0);
        // Ready: 0, 2, 0, 0, 2: an order given back starts anew.
        assert_eq!((score.late, score.late_steps, score.slack), (4.5, 3.0, 1.0));
        assert_eq!((score.churn, score.optimum), (6.0, 10.0));
    }
}
