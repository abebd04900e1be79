//! How many of a pool's instances are bought on the spot market. Pure.
//!
//! **Newsvendor in two variables.** `o` instances on demand and `s` spot ones cost `o * p + s * p'` an hour, with the spot price `p'` including what the
//! starts cost that follow interruptions, and being late: `L * (u * E[(D - o - s + lost)+] + (1 - u) * E[(D - o - s)+])`. `D` is the demand of the highest step
//! within the lead time as the planner sees it ([`super::distribution`]), `L` the cost of being late, `lost` the part of `s` that is taken at once, and `u` the
//! probability of being within an outage: the rate at which the market takes that part times how long an instance takes to be replaced, less the notice.
//! With all of them taken at once the best `o` is the demand's quantile at `1 - (p - p') / (L * u)`: the same rule as for the whole pool
//! ([`super::costs`]), with what spot saves for the cost of idling. That instances of one market are taken together, and that some on demand and
//! more spot than needed hold what has to be held, is as in Mao and others, SkyServe (EuroSys 2025, sections 2 and 4).
//!
//! **What costs do not decide.** What the demand seen last needs is left when everything that may be taken at once is taken: by instances on demand, or
//! by more spot instances than are needed (`reserve`). At most `max_share` of the pool is spot. None is where the price is not lower.
//!
//! **Never to and fro.** More on demand is planned for at once, less only when less was wanted for as long as scale-in waits; the same for the reserve.

use super::budget::cost_of;
use super::costs::{late_cost_ratio, waits};
use super::distribution::Distribution;
use super::history::MAX_STEPS;
use super::risk::{Counted, PastPrices, Risk};
use super::sizing::{self, Bounds};
use super::{PoolSnapshot, Snapshot};
use crate::config::SpotConfig;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use tradewind_protocol::pool::MicroUsd;
use tradewind_protocol::{Quantile, SpotMix, StepIndex};

/// How many numbers of instances on demand are looked at in one pass over a range; each pass narrows it down to what lies beside the best.
const PASS: u32 = 48;

/// A pool's spot market as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct SpotSnapshot {
    /// What an instance costs an hour now, if that is known.
    pub price: Option<MicroUsd>,
    /// What is to be said of that price and those of the past, if they are not as they should be.
    pub doubts: Vec<String>,
    /// What prices of the past tell.
    pub past: PastPrices,
    /// What the pool has counted in this life of the agent.
    pub counted: Counted,
    /// How many spot instances there are or are ordered.
    pub instances: u32,
}

/// What the rounds of a pool leave for the next ones about its spot instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpotMemory {
    /// How often they are taken.
    pub(super) risk: Risk,
    /// What was wanted on demand and as reserve in the last steps, ascending by step.
    wanted: VecDeque<(StepIndex, u32, u32)>,
}

impl SpotMemory {
    /// Notes what `mix` wanted by itself after the step `known_until`. Of several plans of one step the most counts.
    pub(super) fn note(&mut self, known_until: StepIndex, mix: &SpotMix) {
        let (mut on_demand, mut reserve) = (mix.wanted_on_demand, mix.wanted_reserve);
        while let Some((step, earlier, kept)) = self.wanted.pop_back_if(|(step, _, _)| *step >= known_until) {
            if step == known_until {
                (on_demand, reserve) = (on_demand.max(earlier), reserve.max(kept));
            }
        }
        if self.wanted.len() == MAX_STEPS {
            self.wanted.pop_front();
        }
        self.wanted.push_back((known_until, on_demand, reserve));
    }

    /// Learns what the pool has counted, and what the price is.
    pub(super) fn learn(&mut self, pool: &PoolSnapshot, snapshot: &Snapshot) {
        if let (Some(config), Some(spot)) = (&pool.config.spot, &pool.spot) {
            let above = spot.price.map(|price| price > bid(config, pool));
            self.risk.learn(spot.counted, above, snapshot.now);
        }
    }

    /// The most that was wanted in the `steps` steps before `known_until`.
    fn highest(&self, known_until: StepIndex, steps: u32) -> (u32, u32) {
        let from = known_until.offset(-i64::from(steps));
        let recent = self.wanted.iter().filter(|(step, _, _)| (from..known_until).contains(step));
        recent.fold((0, 0), |(on_demand, reserve), (_, o, r)| (on_demand.max(*o), reserve.max(*r)))
    }

    /// Read from a file: what makes no sense is forgotten.
    pub(super) fn sound(self) -> Self {
        let good = self.wanted.len() <= MAX_STEPS && self.wanted.iter().is_sorted_by(|a, b| a.0 < b.0);
        Self { risk: self.risk.sound(), wanted: if good { self.wanted } else { VecDeque::new() } }
    }
}

/// The highest price that is paid for a spot instance.
pub(super) fn bid(spot: &SpotConfig, pool: &PoolSnapshot) -> MicroUsd {
    spot.bid.unwrap_or(pool.price)
}

/// What a mix is weighed with. Amounts are in prices of an instance on demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Terms {
    pub(super) price: MicroUsd,
    pub(super) per_hour: f64,
    pub(super) outage: Duration,
    /// Price of a spot instance, with the starts that follow interruptions.
    spot: f64,
    /// Whether there is a price to compare it with.
    priced: bool,
    /// The probability of being within an outage.
    within: f64,
    late: f64,
    at_once: f64,
    max_share: f64,
}

impl Terms {
    /// Those of `pool`, which is provisioned for `quantile`; none if it has no spot instances.
    pub(super) fn of(pool: &PoolSnapshot, quantile: Quantile) -> Option<Self> {
        let (config, spot) = (pool.config.spot.as_ref()?, pool.spot.as_ref()?);
        let startup = pool.startup();
        let outage = startup.saturating_sub(config.notice);
        let hours = |duration: Duration| duration.as_secs_f64() / 3_600.0;
        let per_hour = pool.memory.spot.risk.per_hour(config, spot.past);
        let on_demand = pool.price.0 as f64;
        let priced = pool.price.0 > 0 && spot.price.is_some();
        let prices = |amount: f64| if on_demand > 0.0 { amount / on_demand } else { 0.0 };
        let known = spot.price.unwrap_or(pool.price);
        let price = known.0 as f64;
        let restart = pool.config.costs.start.0 as f64 + price * hours(startup);
        Some(Self {
            price: known,
            per_hour,
            outage,
            spot: prices(price + per_hour * restart),
            priced,
            within: (per_hour / config.at_once * hours(outage)).clamp(0.0, 1.0),
            late: late_cost_ratio(pool, quantile),
            at_once: config.at_once,
            max_share: config.max_share,
        })
    }

    /// How many of `spot` instances may be taken at once.
    pub(super) fn lost(&self, spot: u32) -> u32 {
        if self.outage.is_zero() { 0 } else { ((f64::from(spot) * self.at_once).ceil() as u32).min(spot) }
    }

    /// The most of `total` instances that may be spot.
    pub(super) fn most(&self, total: u32) -> u32 {
        if self.priced && self.spot < 1.0 { ((f64::from(total) * self.max_share + 1e-9) as u32).min(total) } else { 0 }
    }

    /// Demand that is not served on average, in instances, because spot instances are taken.
    pub(super) fn missing_by_interruptions(&self, on_demand: u32, spot: u32, demand: &Distribution) -> f64 {
        let all = on_demand.saturating_add(spot);
        let left = all - self.lost(spot);
        self.within * (demand.missing(f64::from(left)) - demand.missing(f64::from(all))).max(0.0)
    }

    /// Demand that is not served on average, in instances.
    pub(super) fn missing(&self, on_demand: u32, spot: u32, demand: &Distribution) -> f64 {
        demand.missing(f64::from(on_demand.saturating_add(spot))) + self.missing_by_interruptions(on_demand, spot, demand)
    }

    /// What is paid and what is expected to be lost by being late, an hour.
    pub(super) fn cost(&self, on_demand: u32, spot: u32, demand: &Distribution) -> f64 {
        f64::from(on_demand) + self.spot * f64::from(spot) + self.late * self.missing(on_demand, spot, demand)
    }

    /// The fewest spot instances that make up `total` with `on_demand` ones and leave `floor` instances when some are taken; none if no number does.
    fn fewest(&self, on_demand: u32, total: u32, floor: u32) -> Option<u32> {
        let make_up = total.saturating_sub(on_demand);
        let short = floor.saturating_sub(on_demand);
        if short == 0 || self.outage.is_zero() {
            return Some(make_up);
        }
        let kept = 1.0 - self.at_once;
        if kept < 1e-9 {
            return None;
        }
        let held = (f64::from(short) / kept * (1.0 - 1e-12)).ceil() as u32;
        // What is lost is rounded up.
        let held = if held - self.lost(held) < short { held.saturating_add(1) } else { held };
        (held - self.lost(held) >= short).then_some(make_up.max(held))
    }
}

/// What is to be mixed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// How many instances there are to be, spot or not.
    pub(super) total: u32,
    /// How many the demand seen last needs.
    pub(super) floor: u32,
    pub(super) quantile: Quantile,
    pub(super) demand: &'a Distribution,
}

/// How the instances of `pool` are to be divided; none if it has no spot market. There are [`SpotMix::reserve`] more of them than asked for.
pub(super) fn mix(pool: &PoolSnapshot, snapshot: &Snapshot, bounds: &Bounds<'_>, wanted: Wanted<'_>) -> Option<SpotMix> {
    let terms = Terms::of(pool, wanted.quantile)?;
    let total = wanted.total;
    let most = bounds.limit.instances.max(total);
    let choice = Choice { pool, terms, total, floor: wanted.floor.min(total), most, demand: wanted.demand };
    if bounds.frozen.is_some() {
        let spot = pool.spot.as_ref().map_or(0, |spot| spot.instances).min(total);
        let kept = Mixed { on_demand: total - spot, spot, rule: "frozen: the mix stays as it is" };
        return Some(choice.told(kept, kept));
    }
    let cheapest = choice.cheapest();
    let (recent, reserved) = pool.memory.spot.highest(snapshot.known_until, waits(pool, snapshot));
    let all = cheapest.total().max(total.saturating_add(reserved).min(most));
    let on_demand = cheapest.on_demand.max(recent).min(all);
    let kept = Mixed { on_demand, spot: all - on_demand, rule: "kept: more was wanted on demand lately" };
    let same = (kept.on_demand, kept.spot) == (cheapest.on_demand, cheapest.spot);
    let stays = !same && kept.spot <= terms.most(all) && choice.affordable(kept.on_demand, kept.spot);
    Some(choice.told(if stays { kept } else { cheapest }, cheapest))
}

/// How many instances `budget` an hour pays for where as many of them are spot as may be.
pub(super) fn paid_by(pool: &PoolSnapshot, budget: MicroUsd) -> u32 {
    let on_demand = sizing::paid_by(budget, pool.price);
    let Some(terms) = Terms::of(pool, Quantile::MEDIAN) else { return on_demand };
    let pays = |total: u32| cost_of(pool, total, terms.most(total)) <= u128::from(budget.0);
    // One more instance never costs less, and all of them cost no less than if all were spot.
    largest(on_demand, sizing::paid_by(budget, terms.price.min(pool.price)), pays)
}

/// The largest number up to `most` for which `holds`, which is taken to hold for `least` and for none above one for which it does not.
fn largest(mut least: u32, mut most: u32, holds: impl Fn(u32) -> bool) -> u32 {
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        (least, most) = if holds(middle) { (middle, most) } else { (least, middle - 1) };
    }
    least
}

/// Cuts `mix` where only `granted` of `wanted` instances are paid for: both parts alike.
pub(super) fn cut(mix: &mut SpotMix, pool: &PoolSnapshot, (wanted, granted): (u32, u32), floor: u32, quantile: Quantile) {
    let part = u64::from(mix.spot) * u64::from(granted);
    let of = u64::from(wanted.max(1));
    // Never dearer than on average.
    let part = if mix.spot_price <= mix.on_demand_price { part.div_ceil(of) } else { part / of };
    mix.spot = u32::try_from(part).unwrap_or(u32::MAX).min(granted);
    mix.reserve = mix.reserve.min(granted);
    if let Some(terms) = Terms::of(pool, quantile) {
        mix.exposed = exposed(&terms, granted - mix.spot, mix.spot, floor.min(granted), "planner.max_cost_per_hour_usd pays for no more");
    }
}

/// Why `floor` instances would not be left when spot instances are taken, if so.
pub(super) fn exposed(terms: &Terms, on_demand: u32, spot: u32, floor: u32, why: &str) -> Option<String> {
    let lost = terms.lost(spot);
    let left = on_demand.saturating_add(spot) - lost;
    (left < floor)
        .then(|| format!("if {lost} spot instances are taken at once, {left} are left of {floor} that the demand seen last needs: {why}"))
}

/// A mix, and the rule that made it.
#[derive(Debug, Clone, Copy)]
struct Mixed {
    on_demand: u32,
    spot: u32,
    rule: &'static str,
}

impl Mixed {
    fn total(self) -> u32 {
        self.on_demand.saturating_add(self.spot)
    }
}

/// A mix with what it is expected to cost.
#[derive(Clone, Copy)]
struct Candidate {
    cost: f64,
    on_demand: u32,
    spot: u32,
}

impl Candidate {
    /// Whether it is cheaper, or has more on demand for the same within what sums are rounded by.
    fn beats(self, other: Candidate) -> bool {
        const ROUNDING: f64 = 1e-9;
        self.cost < other.cost - ROUNDING || (self.cost < other.cost + ROUNDING && self.on_demand > other.on_demand)
    }
}

/// The choice of a mix.
#[derive(Clone, Copy)]
struct Choice<'a> {
    pool: &'a PoolSnapshot,
    terms: Terms,
    total: u32,
    floor: u32,
    most: u32,
    demand: &'a Distribution,
}

impl Choice<'_> {
    /// The cheapest mix that keeps every rule and that the pool's budget pays for; of equals the one with the most on demand.
    fn cheapest(&self) -> Mixed {
        if let Some(found) = self.search(|on_demand| self.terms.fewest(on_demand, self.total, self.floor)) {
            return Mixed { rule: self.rule(found), ..found };
        }
        // What has to be left through an interruption costs more than there is: rather that in danger than less altogether, and as much on demand as
        // is paid for. The fewer there are, the less it costs.
        let pays = |on_demand: u32| self.affordable(on_demand, self.total - on_demand);
        let on_demand = largest(self.total - self.terms.most(self.total), self.total, pays);
        let found = Mixed { on_demand, spot: self.total - on_demand, rule: "max_cost_per_hour_usd pays for no more on demand" };
        if found.spot > 0 { found } else { Mixed { rule: self.rule(found), ..found } }
    }

    fn affordable(&self, on_demand: u32, spot: u32) -> bool {
        let (pool, Some(budget)) = (self.pool, self.pool.config.costs.max_per_hour) else { return true };
        let promised = cost_of(pool, pool.config.promised(), 0);
        cost_of(pool, on_demand.saturating_add(spot), spot) <= u128::from(budget.0).max(promised)
    }

    /// The cheapest of what `spot` names for each number of instances on demand, as far as it is allowed: by passes over ever narrower ranges, beside
    /// the numbers at which a rule begins to hold. In between costs are convex, so that the best lies beside the best of a pass.
    fn search(&self, spot: impl Fn(u32) -> Option<u32>) -> Option<Mixed> {
        let candidate = |on_demand: u32| {
            let spot = spot(on_demand)?;
            let all = on_demand.checked_add(spot)?;
            let allowed = all <= self.most && spot <= self.terms.most(all) && self.affordable(on_demand, spot);
            allowed.then(|| Candidate { cost: self.terms.cost(on_demand, spot, self.demand), on_demand, spot })
        };
        let better = |best: Option<Candidate>, on_demand: u32| match (best, candidate(on_demand)) {
            (Some(best), Some(new)) => Some(if new.beats(best) { new } else { best }),
            (best, new) => best.or(new),
        };
        let shared = self.total - self.terms.most(self.total);
        let ends = [0, shared, self.floor, self.total].into_iter().filter(|on_demand| *on_demand <= self.total);
        let mut best = ends.fold(None, better);
        let (mut first, mut last) = (0, self.total);
        loop {
            let stride = (last - first).div_ceil(PASS).max(1);
            best = (first..=last).step_by(stride as usize).fold(best, better);
            let found = best?;
            if stride == 1 {
                return Some(Mixed { on_demand: found.on_demand, spot: found.spot, rule: "" });
            }
            (first, last) = (found.on_demand.saturating_sub(stride), found.on_demand.saturating_add(stride).min(self.total));
        }
    }

    fn rule(&self, found: Mixed) -> &'static str {
        let terms = &self.terms;
        if !terms.priced {
            "all on demand: a price is not known"
        } else if terms.spot >= 1.0 {
            "all on demand: spot instances cost no less, with the starts that follow interruptions"
        } else if found.total() > self.total {
            "reserve: enough spot instances that what an interruption leaves serves the demand seen last"
        } else if found.on_demand == self.floor && !terms.outage.is_zero() {
            "on demand is what the demand seen last needs through an interruption; the rest is spot"
        } else if found.spot == terms.most(found.total()) {
            "max_share: the rest is on demand"
        } else if found.spot == 0 {
            "all on demand: being late by interruptions costs more than spot instances save"
        } else {
            "costs: the cheapest with interruptions counted"
        }
    }

    fn told(&self, mix: Mixed, wanted: Mixed) -> SpotMix {
        let terms = &self.terms;
        SpotMix {
            spot: mix.spot,
            reserve: mix.total().saturating_sub(self.total),
            wanted_on_demand: wanted.on_demand,
            wanted_reserve: wanted.total().saturating_sub(self.total),
            on_demand_price: self.pool.price,
            spot_price: terms.price,
            interruptions_per_hour: terms.per_hour,
            outage_ms: u64::try_from(terms.outage.as_millis()).unwrap_or(u64::MAX),
            expected_missing: terms.missing_by_interruptions(mix.on_demand, mix.spot, self.demand),
            rule: mix.rule.into(),
            exposed: exposed(terms, mix.on_demand, mix.spot, self.floor, mix.rule),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
