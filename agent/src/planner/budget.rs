//! The region's budget: cuts what its pools would cost together. Pure.
//!
//! First every pool keeps what nobody may take (its own minima, or all of it while it is frozen), then what the demand seen last needs is
//! paid for, then the rest. What a level costs above what is left is shared: every pool gets the same part of what it lacks. Where a pool has two
//! markets its instances cost what they cost on average, and both parts are cut alike.

use super::sizing::{paid_by, usd};
use super::{PoolSnapshot, seated, spot};
use tradewind_protocol::PoolDecision;
use tradewind_protocol::pool::MicroUsd;

/// One pool's decision, and what the budget has to know of it.
pub(super) struct Share<'a> {
    pub(super) pool: &'a PoolSnapshot,
    pub(super) decision: PoolDecision,
    pub(super) frozen: bool,
}

impl Share<'_> {
    fn total(&self) -> u32 {
        self.decision.total()
    }

    /// What one of its instances costs, on average.
    fn price(&self) -> MicroUsd {
        price(self.pool, &self.decision)
    }

    fn cost(&self, instances: u32) -> u128 {
        u128::from(self.price().0) * u128::from(instances)
    }
}

/// What nobody takes from a pool whose decision comes to `total`.
pub(super) fn untouchable(pool: &PoolSnapshot, total: u32, frozen: bool) -> u32 {
    if frozen { total } else { pool.config.promised().min(total) }
}

/// What `total` instances of the pool cost an hour, `spot` of which are bought on its spot market.
pub(super) fn cost_of(pool: &PoolSnapshot, total: u32, spot: u32) -> u128 {
    let spot_price = pool.spot.as_ref().and_then(|spot| spot.price).unwrap_or(pool.price);
    u128::from(pool.price.0) * u128::from(total.saturating_sub(spot)) + u128::from(spot_price.0) * u128::from(spot)
}

/// What an instance costs an hour as `decision` mixes them, rounded up.
pub(super) fn price(pool: &PoolSnapshot, decision: &PoolDecision) -> MicroUsd {
    let (total, spot) = (decision.total(), decision.spot());
    if spot == 0 {
        return pool.price;
    }
    MicroUsd(u64::try_from(cost_of(pool, total, spot).div_ceil(u128::from(total.max(1)))).unwrap_or(u64::MAX))
}

/// Cuts the decisions so that all pools together cost no more than `budget` an hour.
pub(super) fn keep(budget: MicroUsd, shares: &mut [Share<'_>]) {
    let asked: u128 = shares.iter().map(|share| cost_of(share.pool, share.total(), share.decision.spot())).sum();
    if asked <= u128::from(budget.0) {
        return;
    }
    let mut granted: Vec<u32> = shares.iter().map(|share| untouchable(share.pool, share.total(), share.frozen)).collect();
    let floors: Vec<u32> = shares.iter().map(|share| share.total().min(share.decision.reason.reactive_floor)).collect();
    let totals: Vec<u32> = shares.iter().map(Share::total).collect();
    let spent: u128 = shares.iter().zip(&granted).map(|(share, granted)| share.cost(*granted)).sum();
    let mut left = u128::from(budget.0).saturating_sub(spent);
    for goals in [floors, totals] {
        raise(&mut granted, &goals, shares, &mut left);
    }
    for (share, granted) in shares.iter_mut().zip(granted) {
        let wanted = share.total();
        if granted < wanted {
            let decision = &mut share.decision;
            if let Some(mix) = &mut decision.mix {
                spot::cut(mix, share.pool, (wanted, granted), decision.reason.reactive_floor, decision.reason.quantile);
            }
            decision.active = seated(decision.active, granted, share.pool);
            decision.warm = granted - decision.active;
            let why = format!(
                "{wanted} instances are wanted, but planner.max_cost_per_hour_usd ({}) pays for {granted} of them beside the other pools",
                usd(budget)
            );
            decision.blocked = Some(match decision.blocked.take() {
                Some(before) => format!("{before}; {why}"),
                None => why,
            });
        }
    }
}

/// Raises what is granted towards the goals as far as what is left pays for it.
fn raise(granted: &mut [u32], goals: &[u32], shares: &[Share<'_>], left: &mut u128) {
    let lacking = |granted: u32, goal: u32| goal.saturating_sub(granted);
    let all: u128 = shares.iter().zip(granted.iter().zip(goals)).map(|(share, (g, goal))| share.cost(lacking(*g, *goal))).sum();
    let before = *left;
    if all > before {
        for (share, (granted, goal)) in shares.iter().zip(granted.iter_mut().zip(goals)) {
            let part = (u128::from(lacking(*granted, *goal)) * before / all) as u32;
            if share.price().0 > 0 {
                *granted += part;
                *left -= share.cost(part);
            }
        }
    }
    // What rounding has left over, or all of it where it suffices.
    for (share, (granted, goal)) in shares.iter().zip(granted.iter_mut().zip(goals)) {
        let payable = paid_by(MicroUsd(u64::try_from(*left).unwrap_or(u64::MAX)), share.price());
        let more = lacking(*granted, *goal).min(payable);
        *granted += more;
        *left -= share.cost(more);
    }
}
