//! What a pool needed lately: the memory behind scale-in.

use super::sizing::need;
use crate::config::PoolConfig;
use crate::marks::bug;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tradewind_protocol::{PoolDecision, StepIndex};

/// The most steps remembered: an hour of steps of ten seconds. A longer stabilisation window works on
/// these.
pub(super) const MAX_STEPS: usize = 360;

/// What a pool needed in the last steps, by the plans made after them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentNeeds {
    /// Ascending by step.
    needs: VecDeque<(StepIndex, u32)>,
}

impl RecentNeeds {
    /// Notes what `decision`, made when `known_until` was the last closed step, asked for by itself,
    /// before stabilisation: with what was to be warm on top, which would else come and go with every instance that is
    /// active for a step. Of several plans of one step the highest need counts.
    pub fn note(&mut self, known_until: StepIndex, decision: &PoolDecision, pool: &PoolConfig) {
        let mut need = need(decision.reason.demand_rate, pool.rate_per_instance).max(decision.reason.reactive_floor);
        if pool.min_warm > 0 {
            need = need.max(decision.active.saturating_add(pool.min_warm));
        }
        while let Some((step, earlier)) = self.needs.pop_back_if(|(step, _)| *step >= known_until) {
            if step == known_until && !bug!("second-plan-replaces-need") {
                need = need.max(earlier);
            }
        }
        if self.needs.len() == MAX_STEPS {
            self.needs.pop_front();
        }
        self.needs.push_back((known_until, need));
    }

    /// Read from a file: what makes no sense is forgotten.
    pub(super) fn sound(self) -> Self {
        let good = self.needs.len() <= MAX_STEPS && self.needs.iter().is_sorted_by(|a, b| a.0 < b.0);
        if good { self } else { Self::default() }
    }

    /// The highest need of the `steps` steps before `known_until`.
    pub(super) fn highest(&self, known_until: StepIndex, steps: u32) -> u32 {
        let from = known_until.offset(-i64::from(steps));
        self.needs.iter().filter(|(step, _)| (from..known_until).contains(step)).map(|(_, need)| *need).max().unwrap_or(0)
    }
}
