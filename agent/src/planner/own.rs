//! The demand on one pool as it was, and what is foreseen from it. Pure.
//!
//! The forecasts of a mesh are of pairs of regions, and their quantiles end at 99 %. Whoever pays much for being late asks for more, and of the pool's
//! demand itself, which is their sum: [`OwnDemand`] hands it, with the forecasts, to [`Foresight`]. Units there are hundredths of the pool's
//! maximum.

use super::demand::{Demand, Incoming, StepDemand, sane};
use super::foresight::{Foreseen, Foresight, LEVELS, MAX_LEAD};
use super::sizing::{need, usable};
use super::{PoolSnapshot, Snapshot, costs, lead, share};
use crate::config::PoolConfig;
use std::collections::VecDeque;
use tradewind_protocol::{PoolName, Quantile, StepIndex};

/// Steps that are remembered over a restart: a week of five-minute steps.
const KEPT: usize = 2_016;
/// With so many steps known it has a say. A guess: the 95 % quantile was exceeded five times by then.
const AWAKE: u64 = 100;
/// More than what is exceeded once in so many steps is out of the ordinary: a surge.
const SURGE: f64 = 0.003;
/// The highest probability of being late that is told of.
const MOST_LATE: f64 = LEVELS[0];
/// Units of the pool's maximum.
const UNITS: f64 = 100.0;
/// What is ordered is taken to be paid for during so many leads: one in which it starts, half a one in which it is of use. 1.3 and 2 do as well on the
/// first 60 % of twelve recordings; not to count the time in which it starts costs 2 % more lateness.
const PAID_LEADS: f64 = 1.5;

/// What a round tells of the demand on one pool, in transactions per second.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Which pool.
    pub pool: PoolName,
    /// The demand of the last closed step; nothing where a source has not told of it yet.
    pub observed: Option<f64>,
    /// Median and 95 % quantile of what the mesh forecasts for each step of the lead time.
    pub forecast: Vec<(f64, f64)>,
}

/// What the round of `snapshot` tells of each of its pools.
pub fn rounds(snapshot: &Snapshot) -> Vec<Round> {
    const UPPER: Quantile = Quantile::CENTRAL_90.1;
    let leads: Vec<usize> = snapshot.pools.iter().map(|pool| lead(pool, snapshot)).collect();
    let incoming = Incoming::of(snapshot, leads.iter().copied().max().unwrap_or(0), [UPPER].into());
    let all_told = snapshot.forecasts.iter().filter(|forecast| forecast.prediction.series.destination == snapshot.region);
    let all_told = all_told.map(|forecast| forecast.prediction.path.start()).all(|start| start == snapshot.known_until.offset(1));
    let round = |(pool, lead): (&PoolSnapshot, usize)| {
        let demand = Demand::on(&pool.config.service, &incoming, lead, UPPER);
        let share = share(pool, snapshot);
        let rates = |step: &StepDemand| (share * step.median_rate, share * (step.median_rate + step.upper_rate));
        let known = all_told && demand.sources > 0;
        Round {
            pool: pool.config.name.clone(),
            observed: known.then_some(share * demand.observed_rate),
            forecast: demand.steps.iter().map(rates).collect(),
        }
    };
    snapshot.pools.iter().zip(leads).map(round).collect()
}

/// The demand on one pool, step by step.
#[derive(Debug, Clone, Default)]
pub struct OwnDemand {
    /// In transactions per second, the newest last; negative where it was not known.
    rates: VecDeque<f32>,
    /// The step of the newest.
    last: Option<StepIndex>,
    foresight: Option<Foresight>,
    /// Whether the newest was higher than nearly all that was held possible.
    surging: bool,
}

impl OwnDemand {
    /// Learns what `round` tells of `step`, once. `season` is in steps.
    pub fn observe(&mut self, step: StepIndex, round: &Round, pool: &PoolConfig, season: usize) {
        let mut missed = match self.last {
            Some(last) if step <= last => return,
            Some(last) => step.0.saturating_sub(last.0) - 1,
            None => 0,
        };
        if missed >= KEPT as i64 {
            (*self, missed) = (Self::default(), 0);
        }
        let units = |rate: f64| rate * UNITS / most(pool);
        let lead = round.forecast.len();
        if self.foresight.as_ref().is_none_or(|foresight| foresight.lead() < lead.min(MAX_LEAD)) {
            // A longer lead, or a new life.
            let mut foresight = Foresight::new(lead, Some(season));
            self.rates.iter().for_each(|rate| foresight.observe((*rate >= 0.0).then(|| units(f64::from(*rate))), &[]));
            self.foresight = Some(foresight);
        }
        let possible = self.foreseen().filter(|_| missed == 0).and_then(|foreseen| foreseen.upper(1, SURGE));
        self.surging = round.observed.zip(possible).is_some_and(|(rate, possible)| units(rate) > possible);
        let Some(foresight) = &mut self.foresight else { return };
        for _ in 0..missed {
            foresight.observe(None, &[]);
            self.rates.push_back(-1.0);
        }
        let forecast: Vec<(f64, f64)> = round.forecast.iter().map(|(median, upper)| (units(*median), units(*upper))).collect();
        foresight.observe(round.observed.map(units), &forecast);
        self.rates.push_back(round.observed.map_or(-1.0, |rate| rate as f32));
        self.rates.drain(..self.rates.len().saturating_sub(KEPT));
        self.last = Some(step);
    }

    /// What is foreseen, in hundredths of the pool's maximum; nothing as long as too little is known.
    pub fn foreseen(&self) -> Option<Foreseen> {
        self.foresight.as_ref().filter(|foresight| foresight.known() >= AWAKE).map(Foresight::foreseen)
    }

    /// Whether the demand of the last step was out of the ordinary, upwards.
    pub fn is_surging(&self) -> bool {
        self.surging
    }

    /// The demand as it is kept: the last step, then the rates, little endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(last) = self.last else { return vec![] };
        last.0.to_le_bytes().into_iter().chain(self.rates.iter().flat_map(|rate| rate.to_le_bytes())).collect()
    }

    /// The demand that `bytes` keep, as far as it makes sense.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let Some((last, rates)) = bytes.split_first_chunk::<8>() else { return Self::default() };
        let rates = rates.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let rates: VecDeque<f32> = rates.map(|rate| if rate.is_finite() { rate } else { -1.0 }).collect();
        if rates.len() > KEPT {
            return Self::default();
        }
        Self { rates, last: Some(StepIndex(i64::from_le_bytes(*last))), foresight: None, surging: false }
    }
}

/// What a pool is to provide for in a step: what the forecasts say with the margin that was learned, and what its own demand says, by their weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Provided<'a> {
    share: f64,
    margin: f64,
    own: Option<Own<'a>>,
    /// For how many steps what is provided is paid for, if it has to be ordered.
    paid: Option<f64>,
    /// Transactions per second of an instance, if each has to be worth its price: where costs are stated. Who states a quantile wants it kept.
    instance: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Own<'a> {
    foreseen: &'a Foreseen,
    weight: f64,
    /// The probability of being late.
    late: f64,
    /// Transactions per second of a unit.
    unit: f64,
}

impl<'a> Provided<'a> {
    /// For `pool` at `quantile`; at the pool's own, its demand is to be above what is provided for as often as its costs say.
    pub(super) fn of(pool: &'a PoolSnapshot, snapshot: &Snapshot, quantile: Quantile) -> Self {
        let costs_say = quantile == pool.quantile(snapshot);
        let late = if costs_say { 1.0 / costs::late_cost_ratio(pool, quantile).max(1.0) } else { 1.0 - quantile.probability() };
        let margins = &pool.memory.margins;
        let own = |foreseen| Own { foreseen, weight: margins.own_weight(), late, unit: most(&pool.config) / UNITS };
        Self { share: share(pool, snapshot), margin: margins.margin(), own: pool.foreseen.as_ref().map(own), paid: None, instance: None }
    }

    /// What is worth having ordered for `pool`. Who orders pays from then on: what is first needed in the `k`-th of `n` steps is of use in `n - k + 1` of
    /// them, and worth its price where demand exceeds it so much more often (the newsvendor's ratio, by the unit and the time that it is paid for).
    pub(super) fn to_order(pool: &'a PoolSnapshot, snapshot: &Snapshot) -> Self {
        let stated = pool.config.costs.late_per_instance_hour.is_some() && usable(pool.config.rate_per_instance);
        Self {
            paid: Some(PAID_LEADS * lead(pool, snapshot) as f64),
            instance: stated.then_some(pool.config.rate_per_instance),
            ..Self::of(pool, snapshot, pool.quantile(snapshot))
        }
    }

    /// In transactions per second, in the step `at` after the last closed one, from 0.
    pub(super) fn rate(&self, at: usize, step: &StepDemand) -> f64 {
        let mesh = self.share * (step.median_rate + self.margin * step.upper_rate);
        let both = self.quantile(at).zip(self.own).map_or(mesh, |(rate, own)| (1.0 - own.weight) * mesh + own.weight * rate);
        self.worth(at, both, Some(mesh))
    }

    /// What the pool's own demand says of that step, if it says anything.
    pub(super) fn own_rate(&self, at: usize) -> Option<f64> {
        self.quantile(at).map(|rate| self.worth(at, rate, None))
    }

    /// The probability of being late that is worth its price in that step.
    fn late(&self, at: usize) -> Option<f64> {
        let idle = self.paid.map_or(1.0, |steps| steps.max(1.0) / (steps - at as f64).max(1.0));
        self.own.map(|own| (own.late * idle).min(MOST_LATE.max(own.late)))
    }

    /// What the pool's own demand exceeds that often.
    fn quantile(&self, at: usize) -> Option<f64> {
        let own = self.own?;
        own.foreseen.upper(at + 1, self.late(at)?).map(|units| sane(units * own.unit))
    }

    /// `rate` without the last instance that it calls for in part, if that is not worth its price: demand is above the others too seldom, on average over what
    /// one serves (the newsvendor's ratio, for whole instances). The mesh, where it has a say, takes its own rate for certain.
    fn worth(&self, at: usize, rate: f64, mesh: Option<f64>) -> f64 {
        let (Some(own), Some(late), Some(instance)) = (self.own, self.late(at), self.instance) else { return rate };
        let others = f64::from(need(rate, instance).saturating_sub(1)) * instance;
        let Some(above) = own.foreseen.above(at + 1, others / own.unit, (others + instance) / own.unit) else { return rate };
        let of_mesh = mesh.map_or(above, |mesh| ((mesh - others) / instance).clamp(0.0, 1.0));
        let above = own.weight * above + (1.0 - own.weight) * of_mesh;
        if above < late { others.min(rate) } else { rate }
    }

    /// Which step is the highest of those from `from` on, from 0.
    pub(super) fn highest(&self, steps: &[StepDemand], from: usize) -> usize {
        let rates = steps.iter().enumerate().skip(from).map(|(at, step)| (at, self.rate(at, step)));
        rates.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(at, _)| at)
    }
}

/// What the pool serves at most, in transactions per second.
fn most(pool: &PoolConfig) -> f64 {
    f64::from(pool.max_instances.max(1)) * pool.rate_per_instance
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, forecast, pool, snapshot};
    use super::*;
    use tradewind_protocol::pool::MicroUsd;

    const SEASON: usize = 24;

    fn web() -> PoolConfig {
        PoolConfig { max_instances: 100, ..config("web") }
    }

    /// A day's wave with something random in it; the forecast says what it is without.
    fn round(step: i64) -> Round {
        let wave = |step: i64| 30.0 + 20.0 * (step as f64 / SEASON as f64 * std::f64::consts::TAU).sin();
        let random = ((step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64;
        let forecast = (1..=2).map(|ahead| (wave(step + ahead), wave(step + ahead) + 6.0)).collect();
        Round { pool: web().name, observed: Some(wave(step) + 10.0 * (random - 0.5)), forecast }
    }

    fn seen(steps: std::ops::Range<i64>, mut own: OwnDemand) -> OwnDemand {
        steps.for_each(|step| own.observe(StepIndex(step), &round(step), &web(), SEASON));
        own
    }

    #[test]
    fn demand_is_known_once_all_sources_have_told() {
        let behind = |steps: i64| {
            let mut late = forecast("b", 2.0, &[(2.0, 3.0), (2.0, 3.0)]);
            let prediction = std::sync::Arc::make_mut(&mut late.prediction);
            let values = (0..2).flat_map(|at| prediction.path.row(at).unwrap().to_vec()).collect();
            let start = prediction.path.start().offset(-steps);
            let quantiles = prediction.path.quantiles().to_vec();
            prediction.path = tradewind_protocol::QuantilePath::new(start, prediction.path.step(), quantiles, values).unwrap();
            rounds(&snapshot(vec![forecast("a", 1.0, &[(1.0, 2.0), (4.0, 6.0)]), late], vec![pool(web())])).remove(0)
        };
        let told = behind(0);
        assert_eq!((told.observed, told.forecast.len()), (Some(3.0), 2));
        assert!(told.forecast[1].0 == 6.0 && told.forecast[1].1 > 8.0, "{told:?}");
        assert_eq!(behind(1).observed, None);
        assert_eq!(rounds(&snapshot(vec![], vec![pool(web())]))[0].observed, None, "no source is no demand that is known");
    }

    #[test]
    fn it_has_a_say_once_enough_is_known_and_foresees_as_often_as_it_says() {
        assert_eq!(seen(0..AWAKE as i64 - 1, OwnDemand::default()).foreseen(), None);
        let mut own = seen(0..600, OwnDemand::default());
        let mut late = 0;
        for step in 600..1_600 {
            let upper = own.foreseen().unwrap().upper(1, 0.1).unwrap();
            own.observe(StepIndex(step), &round(step), &web(), SEASON);
            late += u32::from(round(step).observed.unwrap() > upper);
        }
        assert!((40..160).contains(&late), "{late} of 1000");
    }

    #[test]
    fn a_surge_is_what_nearly_never_comes() {
        let mut own = seen(0..600, OwnDemand::default());
        let mut surges = 0;
        for step in 600..1_600 {
            own.observe(StepIndex(step), &round(step), &web(), SEASON);
            surges += u32::from(own.is_surging());
        }
        assert!(surges < 10, "{surges} of 1000");
        let flood = |step| Round { observed: Some(100.0), ..round(step) };
        let mut late = own.clone();
        own.observe(StepIndex(1_600), &flood(1_600), &web(), SEASON);
        assert!(own.is_surging());
        own.observe(StepIndex(1_601), &round(1_601), &web(), SEASON);
        assert!(!own.is_surging());
        late.observe(StepIndex(1_605), &flood(1_605), &web(), SEASON);
        assert!(!late.is_surging(), "nothing was foreseen of it");
    }

    #[test]
    fn a_restart_knows_the_demand_and_a_step_teaches_once() {
        let own = seen(0..900, OwnDemand::default());
        let mut again = seen(890..900, own.clone());
        assert_eq!(again.foreseen(), own.foreseen());
        let back = seen(900..901, OwnDemand::from_bytes(&own.to_bytes()));
        again.observe(StepIndex(900), &round(900), &web(), SEASON);
        let upper = |own: &OwnDemand| own.foreseen().unwrap().upper(2, 0.05).unwrap();
        assert!((upper(&back) - upper(&again)).abs() < 8.0, "{} and {}", upper(&back), upper(&again));
        assert_eq!(OwnDemand::from_bytes(&[1, 2, 3]).foreseen(), None);
        assert_eq!(OwnDemand::from_bytes(&own.to_bytes()).to_bytes(), own.to_bytes());
    }

    #[test]
    fn steps_that_are_unknown_or_left_out_are_no_demand() {
        let mut own = seen(0..300, OwnDemand::default());
        let known = own.foresight.as_ref().unwrap().known();
        own.observe(StepIndex(300), &Round { observed: None, ..round(300) }, &web(), SEASON);
        own.observe(StepIndex(310), &round(310), &web(), SEASON);
        assert_eq!((own.foresight.as_ref().unwrap().known(), own.rates.len()), (known + 1, 311));
        assert!(own.foreseen().unwrap().upper(1, 0.05).unwrap() > 20.0);
        own.observe(StepIndex(310 + 2 * KEPT as i64), &round(0), &web(), SEASON);
        assert_eq!((own.foreseen(), own.rates.len()), (None, 1), "what is so long ago says nothing");
    }

    #[test]
    fn what_is_ordered_has_to_be_worth_the_time_in_which_it_starts() {
        let own = PoolSnapshot { foreseen: seen(0..600, OwnDemand::default()).foreseen(), ..pool(web()) };
        let snapshot = snapshot(vec![], vec![own.clone()]);
        let (of, to_order) = (Provided::of(&own, &snapshot, snapshot.config.quantile), Provided::to_order(&own, &snapshot));
        assert_eq!(to_order.own_rate(0), of.own_rate(0), "what is needed at once is of use for as long as it is paid for");
        let late = 1.0 - snapshot.config.quantile.probability();
        let third = own.foreseen.as_ref().unwrap().upper(2, late * 3.0 / 2.0);
        assert!(to_order.own_rate(1).unwrap() < of.own_rate(1).unwrap() && to_order.own_rate(1) == third, "two of three steps");
    }

    #[test]
    fn the_last_instance_has_to_be_worth_its_price_where_costs_are_stated() {
        let provided = |late_per_hour: Option<u64>, demand: &dyn Fn(usize) -> f64| {
            let mut web = PoolConfig { rate_per_instance: 10.0, max_instances: 10, ..web() };
            web.costs.late_per_instance_hour = late_per_hour.map(MicroUsd);
            let mut own = OwnDemand::default();
            for step in 0..900 {
                let observed = Some(demand(step));
                own.observe(StepIndex(step as i64), &Round { observed, forecast: vec![(0.0, 0.0); 2], ..round(0) }, &web, SEASON);
            }
            let own = PoolSnapshot { foreseen: own.foreseen(), price: MicroUsd(1_000), ..pool(web) };
            let snapshot = snapshot(vec![], vec![own.clone()]);
            Provided::to_order(&own, &snapshot).own_rate(0).unwrap()
        };
        // Half an instance in one step of four, and now nothing: it comes next as often.
        let random =
            |step: usize| (step as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 62;
        let now_and_then = |step: usize| if random(step) == 0 && step < 899 { 5.0 } else { 0.0 };
        assert!(provided(None, &now_and_then) > 0.0, "a quantile is kept");
        assert_eq!(provided(Some(5_000), &now_and_then), 0.0, "of an instance an eighth is used, and a fifth has to be");
        assert!(provided(Some(20_000), &now_and_then) > 0.0);
        let steady = |step: usize| 13.0 + (step % 3) as f64 / 10.0;
        assert!(provided(Some(5_000), &steady) > 10.0, "three tenths of the second are used in every step");
        assert_eq!(provided(Some(2_500), &steady), 10.0);
    }

    #[test]
    fn a_plan_provides_for_both_by_their_weights() {
        let alone = pool(web());
        let own = PoolSnapshot { foreseen: seen(0..600, OwnDemand::default()).foreseen(), ..alone.clone() };
        let snapshot = snapshot(vec![forecast("a", 5.0, &[(5.0, 7.0), (5.0, 7.0)])], vec![alone]);
        let step = StepDemand { median_rate: 5.0, upper_rate: 2.0 };
        let provided = Provided::of(&own, &snapshot, snapshot.config.quantile);
        let said = provided.own_rate(0).unwrap();
        let weight = own.memory.margins.own_weight();
        assert!(said > 20.0 && (provided.rate(0, &step) - (weight * said + (1.0 - weight) * 7.0)).abs() < 1e-9);
        assert_eq!(provided.own_rate(7), None, "beyond its lead");
        assert_eq!(provided.rate(7, &step), 7.0);
    }
}
