//! The rival: a purely reactive scaler on the same traffic, the rule of the Kubernetes Horizontal
//! Pod Autoscaler as its documentation states it (2026):
//!
//! `desired = ceil(current * utilisation / target)`, nothing done while the ratio is within 10 % of
//! one, and for scale-in the highest recommendation of the last five minutes.
//!
//! It is played under ideal conditions: it sees each step's demand the moment the step ends, what it
//! orders is ready after exactly our workers' start-up, and scale-in acts at once. An order is paid
//! from the moment it is placed, as ours are.

/// Kubernetes' default tolerance.
const TOLERANCE: f64 = 0.1;
/// Kubernetes' default stabilisation window for scale-in, 300 s, in rows of five minutes.
const STABILISATION_ROWS: usize = 1;

/// What a policy came to on one region's demand.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Steps in which demand was above capacity.
    pub late_steps: usize,
    /// Instance-steps that were paid for.
    pub instance_steps: f64,
}

/// Plays the scaler with utilisation `target` on `demand` (in instances, fractions allowed). What is
/// ordered after step `t` serves from step `t + lead` on. It starts with what the first step needs.
pub(super) fn play(demand: &[f64], lead: usize, target: f64, max_instances: u32) -> Outcome {
    let most = f64::from(max_instances);
    let need = |d: f64| (d / target).ceil().clamp(1.0, most);
    let mut ready = demand.first().map_or(1.0, |d| need(*d));
    let mut recommended = vec![ready];
    // (the step they serve from, how many)
    let mut starting: Vec<(usize, f64)> = vec![];
    let mut outcome = Outcome::default();
    for (t, d) in demand.iter().enumerate() {
        starting.retain(|(from, count)| {
            if *from <= t {
                ready += count;
            }
            *from > t
        });
        let ordered: f64 = starting.iter().map(|(_, count)| count).sum();
        outcome.late_steps += usize::from(*d > ready);
        outcome.instance_steps += ready + ordered;

        // The load is spread over what is ready; pods that are not ready yet count as idle when the
        // scaler would grow, so that it does not order twice.
        let current = ready + ordered;
        let ratio = d / current / target;
        let desired = if (ratio - 1.0).abs() <= TOLERANCE { current } else { need(*d) };
        recommended.push(desired);
        let window = &recommended[recommended.len().saturating_sub(STABILISATION_ROWS + 1)..];
        let floor = window.iter().copied().fold(0.0, f64::max);
        let goal = if desired > current { desired } else { floor.min(current) };
        if goal > current {
            starting.push((t + lead, goal - current));
        } else {
            let mut surplus = current - goal;
            while let Some((_, count)) = starting.last_mut().filter(|_| surplus > 0.0) {
                let cancelled = count.min(surplus);
                *count -= cancelled;
                surplus -= cancelled;
                if *count == 0.0 {
                    starting.pop();
                }
            }
            ready -= surplus;
        }
    }
    outcome
}

/// Plays the scaler on every region's demand with one utilisation target for all: the highest that
/// costs at least `instance_steps` in all, so that the rival never has less capacity than we had.
/// The targets go from 100 % down to 20 % in steps of 1 %.
pub fn play_at_cost(demands: &[Vec<f64>], lead: usize, instance_steps: f64, max_instances: u32) -> (f64, Outcome) {
    let total = |target: f64| {
        demands.iter().map(|demand| play(demand, lead, target, max_instances)).fold(Outcome::default(), |sum, one| Outcome {
            late_steps: sum.late_steps + one.late_steps,
            instance_steps: sum.instance_steps + one.instance_steps,
        })
    };
    let targets = (20..=100).rev().map(|percent| f64::from(percent) / 100.0);
    let mut last = (1.0, total(1.0));
    for target in targets {
        last = (target, total(target));
        if last.1.instance_steps >= instance_steps {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_up_is_late_for_the_lead_time() {
        let demand = [vec![2.0; 10], vec![6.0; 10]].concat();
        for lead in 1..=3 {
            assert_eq!(play(&demand, lead, 1.0, 100).late_steps, lead, "lead {lead}");
        }
    }

    #[test]
    fn it_orders_once_and_scales_in_after_the_window() {
        let demand = [vec![2.0; 5], vec![6.0; 10], vec![2.0; 10]].concat();
        let outcome = play(&demand, 2, 1.0, 100);
        // 6 steps of 2 (the change is seen one step later), 10 of 6 ordered or ready, one more while
        // the window holds, then 2 again.
        assert_eq!(outcome.instance_steps, 6.0 * 2.0 + 11.0 * 6.0 + 8.0 * 2.0);
    }

    #[test]
    fn a_lower_target_costs_more_and_is_late_less() {
        let demand: Vec<f64> = (0..200).map(|t| 5.0 + 3.0 * (f64::from(t) / 7.0).sin()).collect();
        let (tight, loose) = (play(&demand, 2, 0.95, 100), play(&demand, 2, 0.5, 100));
        assert!(tight.late_steps > loose.late_steps && tight.instance_steps < loose.instance_steps);
        let (target, outcome) = play_at_cost(std::slice::from_ref(&demand), 2, tight.instance_steps, 100);
        assert!(target >= 0.9 && outcome.instance_steps >= tight.instance_steps);
    }
}
