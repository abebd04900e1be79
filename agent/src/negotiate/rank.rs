//! Whom to ask first. Pure.
//!
//! A neighbour fits if it lives, acts, is healthy, has lately published a pool of the service and has
//! something free in it. Of those that fit the lowest sum of three terms comes first, and each term is kept, so that
//! the choice can be explained:
//!
//! - distance: the round trip in units of [`RTT_UNIT`], since users are served over it;
//! - price: per transaction, in units of the cheapest neighbour's;
//! - doubt: the share of earlier requests that the neighbour did not grant or did not keep, times [`DOUBT`].
//!
//! The weights are guesses: 50 ms more, double the price and half of the requests failing weigh the same.

use std::collections::BTreeMap;
use std::time::Duration;
use tradewind_protocol::region::{Health, Mode};
use tradewind_protocol::{RegionId, RegionState, ResourcePool, ServiceName};

/// Round trip that weighs as much as double the price.
const RTT_UNIT: Duration = Duration::from_millis(50);
/// Weight of never granting anything, against double the price.
const DOUBT: f64 = 2.0;
/// What is assumed of a neighbour without a measured round trip: half around the world.
const UNKNOWN_RTT: Duration = Duration::from_millis(300);

/// A neighbour as it is known.
pub(crate) struct Neighbour<'a> {
    pub(crate) region: &'a RegionId,
    pub(crate) live: bool,
    pub(crate) age: Duration,
    pub(crate) rtt: Option<Duration>,
    pub(crate) state: &'a RegionState,
}

/// A pool that could help.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) region: RegionId,
    pub(crate) pool: ResourcePool,
    /// How many more instances it may run by what it published.
    pub(crate) free: u32,
    pub(crate) distance: f64,
    pub(crate) price: f64,
    pub(crate) doubt: f64,
}

impl Candidate {
    pub(crate) fn score(&self) -> f64 {
        self.distance + self.price + self.doubt
    }
}

/// What became of earlier requests to a neighbour in this life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kept: u32,
    pub(crate) failed: u32,
}

impl Record {
    /// The share that failed, with one success and no failure assumed before the first.
    fn doubt(self) -> f64 {
        f64::from(self.failed) / (f64::from(self.kept) + f64::from(self.failed) + 1.0)
    }
}

/// Those that fit, the best first; of equals in the order of their names.
pub(crate) fn rank<'a>(
    neighbours: impl Iterator<Item = Neighbour<'a>>,
    service: &ServiceName,
    stale_after: Duration,
    records: &BTreeMap<RegionId, Record>,
) -> Vec<Candidate> {
    let mut candidates = vec![];
    for neighbour in neighbours {
        let state = neighbour.state;
        let fits = neighbour.live && state.mode == Mode::Active && state.health == Health::Healthy && neighbour.age <= stale_after;
        for pool in state.pools.iter().filter(|pool| fits && pool.service == *service && pool.rate_per_instance > 0.0) {
            let free = free(pool);
            if free > 0 {
                candidates.push(Candidate {
                    region: neighbour.region.clone(),
                    pool: pool.clone(),
                    free,
                    distance: neighbour.rtt.unwrap_or(UNKNOWN_RTT).as_secs_f64() / RTT_UNIT.as_secs_f64(),
                    price: pool.instance_hour_price.0 as f64 / pool.rate_per_instance,
                    doubt: DOUBT * records.get(neighbour.region).copied().unwrap_or_default().doubt(),
                });
            }
        }
    }
    let cheapest = candidates.iter().map(|c| c.price).filter(|price| *price > 0.0).fold(f64::INFINITY, f64::min);
    for candidate in &mut candidates {
        candidate.price = if candidate.price > 0.0 { candidate.price / cheapest } else { 0.0 };
    }
    candidates.sort_by(|a, b| a.score().total_cmp(&b.score()).then_with(|| (&a.region, &a.pool.name).cmp(&(&b.region, &b.pool.name))));
    candidates
}

/// Instances that a pool could run on top of those that it has.
fn free(pool: &ResourcePool) -> u32 {
    let left = pool.capacity.checked_sub(pool.in_use);
    // A pool whose instances are said to use nothing is not lent.
    let by_capacity = left.and_then(|left| pool.instance.times_in(left)).unwrap_or(0);
    let by_number = pool.max_instances.saturating_sub(pool.instances.total());
    u32::try_from(by_capacity).unwrap_or(u32::MAX).min(by_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::pool::MicroUsd;
    use tradewind_protocol::region::Dropped;
    use tradewind_protocol::{InstanceCounts, Resources, Step, Timestamp};

    fn state(region: &str, price: u64, in_use: u64) -> RegionState {
        let cpu = |cpu_millis| Resources { cpu_millis, ..Resources::ZERO };
        RegionState {
            region: region.parse().unwrap(),
            published_at: Timestamp::EPOCH,
            version: String::new(),
            api: None,
            coordinates: None,
            health: Health::Healthy,
            mode: Mode::Active,
            step: Step::new(Duration::from_secs(1)).unwrap(),
            pools: vec![ResourcePool {
                name: "web".parse().unwrap(),
                service: "shop".parse().unwrap(),
                capacity: cpu(1_000),
                in_use: cpu(in_use),
                instance: cpu(100),
                rate_per_instance: 10.0,
                instances: InstanceCounts { active: (in_use / 100) as u32, ..InstanceCounts::default() },
                min_instances: 0,
                max_instances: 8,
                instance_hour_price: MicroUsd(price),
                startup_ms: 0,
            }],
            forecasts: vec![],
            dropped: Dropped::default(),
            events: vec![],
        }
    }

    fn ranked(states: &[(RegionState, u64)], records: &BTreeMap<RegionId, Record>) -> Vec<(String, u32)> {
        let neighbours = states.iter().map(|(state, rtt)| Neighbour {
            region: &state.region,
            live: true,
            age: Duration::ZERO,
            rtt: Some(Duration::from_millis(*rtt)),
            state,
        });
        let found = rank(neighbours, &"shop".parse().unwrap(), Duration::from_secs(5), records);
        found.into_iter().map(|c| (c.region.to_string(), c.free)).collect()
    }

    #[test]
    fn near_cheap_and_reliable_come_first_and_full_ones_not_at_all() {
        let none = BTreeMap::new();
        let (near, far) = ((state("near", 100, 300), 10), (state("far", 100, 0), 120));
        assert_eq!(ranked(&[far.clone(), near.clone()], &none), [("near".into(), 5), ("far".into(), 8)]);
        let dear = (state("near", 400, 300), 10);
        assert_eq!(ranked(&[dear, far.clone()], &none)[0].0, "far", "three times the price more outweighs 110 ms");
        let full = (state("near", 100, 1_000), 10);
        assert_eq!(ranked(&[full, far.clone()], &none), [("far".into(), 8)]);
        let records = BTreeMap::from([("near".parse().unwrap(), Record { kept: 0, failed: 40 })]);
        assert_eq!(ranked(&[near, (far.0, 60)], &records)[0].0, "far", "what is never granted is not near");
    }

    #[test]
    fn only_neighbours_that_live_act_and_are_fresh_fit() {
        let good = state("a", 1, 0);
        let asked = |change: &dyn Fn(&mut RegionState), live: bool, age: u64, service: &str| {
            let mut state = good.clone();
            change(&mut state);
            let neighbour = Neighbour { region: &good.region, live, age: Duration::from_secs(age), rtt: None, state: &state };
            rank([neighbour].into_iter(), &service.parse().unwrap(), Duration::from_secs(5), &BTreeMap::new()).len()
        };
        assert_eq!(asked(&|_| {}, true, 5, "shop"), 1);
        assert_eq!(asked(&|_| {}, false, 5, "shop"), 0);
        assert_eq!(asked(&|_| {}, true, 6, "shop"), 0);
        assert_eq!(asked(&|_| {}, true, 5, "game"), 0);
        assert_eq!(asked(&|s| s.mode = Mode::Advisory, true, 5, "shop"), 0);
        assert_eq!(asked(&|s| s.health = Health::Draining, true, 5, "shop"), 0);
        assert_eq!(asked(&|s| s.pools[0].instance = Resources::ZERO, true, 5, "shop"), 0);
    }
}
