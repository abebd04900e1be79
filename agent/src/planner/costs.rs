//! What a pool's costs say: the quantile to provision for, and for how long an idle instance is kept. Pure.
//!
//! **Newsvendor.** An instance is paid for whether it is used or not, and an instance-hour of demand that is not served costs more. The
//! cheapest capacity is the demand's quantile at `1 - price / late cost` (Arrow, Harris and Marschak 1951; unit cost and penalty).
//!
//! **Ski rental.** Whoever keeps an instance rents, whoever gives it back and needs it again buys a start. Renting until the rent has
//! come to the price of a start costs at most twice what hindsight would (Karlin, Manasse, Rudolph and Sleator 1988). A forecast knows more:
//! what it needs again before that is kept. The rent of the time that a start takes is part of its price, until the pool's own demand is known: then it is
//! weighed when something is ordered ([`Provided::to_order`](super::own::Provided::to_order)).

use super::history::MAX_STEPS;
use super::{PoolSnapshot, Snapshot};
use std::time::Duration;
use tradewind_protocol::Quantile;

/// The quantiles that costs lead to, in thousandths: costs are not known better, forecasts carry no more, and every one that is in use has
/// to be summed.
pub(super) const LADDER: [u16; 13] = [500, 600, 700, 750, 800, 850, 900, 925, 950, 975, 990, 995, 999];

/// The quantile that the pool is provisioned for: by its costs if they are stated, as the lowest of the ladder that is not below what they say.
pub(super) fn quantile(pool: &PoolSnapshot, default: Quantile) -> Quantile {
    let Some(late) = pool.config.costs.late_per_instance_hour else { return default };
    let wanted = if late.0 == 0 { 0.0 } else { 1000.0 * (1.0 - pool.price.0 as f64 / late.0 as f64) };
    // Forgives what rounding adds.
    let step = LADDER.iter().find(|step| f64::from(**step) >= wanted - 1e-6).unwrap_or(&LADDER[LADDER.len() - 1]);
    Quantile::per_mille(*step).unwrap_or(default)
}

/// What an instance-hour of demand costs when it is not served, in prices of one: as stated, or as who provisions for `quantile` takes it to be.
pub(super) fn late_cost_ratio(pool: &PoolSnapshot, quantile: Quantile) -> f64 {
    match pool.config.costs.late_per_instance_hour {
        Some(late) if pool.price.0 > 0 => late.0 as f64 / pool.price.0 as f64,
        Some(_) | None => 1.0 / (1.0 - quantile.probability()).max(1e-3),
    }
}

/// For how many steps the rent of an idle instance stays below the price of a start.
pub(super) fn break_even(pool: &PoolSnapshot, snapshot: &Snapshot) -> u32 {
    let hours = match (pool.config.costs.start.0, pool.price.0) {
        (0, _) => 0.0,
        (_, 0) => return MAX_STEPS as u32,
        (start, price) => start as f64 / price as f64,
    };
    // Where the pool's own demand is known, an order is weighed with the rent of the time that it starts.
    let starting = if pool.foreseen.is_some() { Duration::ZERO } else { pool.startup() };
    let rented = Duration::try_from_secs_f64(hours * 3_600.0).unwrap_or(Duration::MAX).saturating_add(starting);
    snapshot.step.count_covering(rented).min(MAX_STEPS as u32)
}

/// For how many steps a need must have been lower before anything is taken away.
pub(super) fn waits(pool: &PoolSnapshot, snapshot: &Snapshot) -> u32 {
    snapshot.step.count_covering(snapshot.config.scale_in_after).max(break_even(pool, snapshot))
}
