//! The service graph: how many transactions of one service a transaction of another brings along. Pure.
//!
//! Demand is observed where it enters. A checkout that calls the inventory twice and the payment once puts load on both, directly or
//! through others, and a plan that sees only what enters would leave them short. The graph is checked when it is made:
//! no cycles, no names that nobody serves, no factor that makes no sense. Read next: [`super::demand`].

use std::collections::{BTreeMap, BTreeSet};
use tradewind_protocol::ServiceName;

/// What each service calls, and how often for each transaction of its own.
pub type Calls = BTreeMap<ServiceName, BTreeMap<ServiceName, f64>>;

/// The most transactions of one service that a transaction of another may bring along: far above any fan-out, and far below what would
/// make a sum of rates lose digits.
const MAX_FACTOR: f64 = 1e6;

/// Which services put load on which.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceGraph {
    /// For a called service: who puts load on it, by how many transactions for each of theirs. Without itself.
    callers: BTreeMap<ServiceName, BTreeMap<ServiceName, f64>>,
}

/// Why calls make no graph that can be walked. Nothing is changed; mending the calls helps.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Demand would go round for ever.
    #[error("the calls go round: {}", .0.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<ServiceName>),
    /// The product of the calls on the way is out of bounds.
    #[error("a transaction of {caller} makes {factor:.0} of {service}; at most {MAX_FACTOR:.0} can be planned for")]
    TooMany {
        /// Where it begins.
        caller: ServiceName,
        /// Where it ends.
        service: ServiceName,
        /// How many.
        factor: f64,
    },
}

impl ServiceGraph {
    /// The graph of these calls. Factors are finite and at least 0 (the configuration's check sees to it).
    pub fn new(calls: &Calls) -> Result<Self, GraphError> {
        let mut brings: BTreeMap<&ServiceName, BTreeMap<&ServiceName, f64>> = BTreeMap::new();
        for service in callees_first(calls)? {
            let mut sums: BTreeMap<&ServiceName, f64> = BTreeMap::new();
            for (called, times) in calls.get(service).into_iter().flatten() {
                *sums.entry(called).or_default() += times;
                for (further, factor) in brings.get(called).into_iter().flatten() {
                    *sums.entry(further).or_default() += times * factor;
                }
            }
            if let Some((called, factor)) = sums.iter().find(|(_, factor)| **factor > MAX_FACTOR) {
                return Err(GraphError::TooMany { caller: service.clone(), service: (*called).clone(), factor: *factor });
            }
            brings.insert(service, sums);
        }
        let mut callers: BTreeMap<ServiceName, BTreeMap<ServiceName, f64>> = BTreeMap::new();
        for (caller, sums) in brings {
            for (called, factor) in sums.into_iter().filter(|(_, factor)| *factor > 0.0) {
                callers.entry(called.clone()).or_default().insert(caller.clone(), factor);
            }
        }
        Ok(Self { callers })
    }

    /// The services whose demand is load on `service`, with the transactions of `service` that one of theirs makes: itself first.
    pub(crate) fn load_on<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = (&'a ServiceName, f64)> {
        let callers = self.callers.get(service).into_iter().flatten().map(|(caller, factor)| (caller, *factor));
        std::iter::once((service, 1.0)).chain(callers)
    }
}

/// All services, each after those that it calls.
fn callees_first(calls: &Calls) -> Result<Vec<&ServiceName>, GraphError> {
    let (mut order, mut done) = (vec![], BTreeSet::new());
    for start in calls.keys() {
        // The way from `start`, with the calls of each service on it that are still to be walked.
        let mut way = vec![(start, calls.get(start).into_iter().flatten())];
        while let Some((service, next)) = way.last_mut() {
            let service = *service;
            if done.contains(service) {
                way.pop();
                continue;
            }
            match next.next() {
                Some((called, _)) => {
                    if let Some(at) = way.iter().position(|(on_way, _)| *on_way == called) {
                        let round = way[at..].iter().map(|(on_way, _)| (*on_way).clone()).chain([called.clone()]);
                        return Err(GraphError::Cycle(round.collect()));
                    }
                    if !done.contains(called) {
                        way.push((called, calls.get(called).into_iter().flatten()));
                    }
                }
                None => {
                    done.insert(service);
                    order.push(service);
                    way.pop();
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }

    fn calls(of: &[(&str, &[(&str, f64)])]) -> Calls {
        let called = |calls: &[(&str, f64)]| calls.iter().map(|(service, times)| (name(service), *times)).collect();
        of.iter().map(|(service, calls)| (name(service), called(calls))).collect()
    }

    fn load(graph: &ServiceGraph, service: &str) -> Vec<(String, f64)> {
        graph.load_on(&name(service)).map(|(service, factor)| (service.to_string(), factor)).collect()
    }

    #[test]
    fn calls_multiply_along_a_way_and_add_up_over_ways() {
        let of: &[(&str, &[(&str, f64)])] =
            &[("shop", &[("cart", 2.0), ("pay", 0.5)]), ("cart", &[("stock", 3.0)]), ("pay", &[("stock", 4.0), ("log", 1.0)])];
        let graph = ServiceGraph::new(&calls(of)).unwrap();
        assert_eq!(load(&graph, "stock"), [("stock".into(), 1.0), ("cart".into(), 3.0), ("pay".into(), 4.0), ("shop".into(), 8.0)]);
        assert_eq!(load(&graph, "log"), [("log".into(), 1.0), ("pay".into(), 1.0), ("shop".into(), 0.5)]);
        assert_eq!(load(&graph, "shop"), [("shop".into(), 1.0)]);
        assert_eq!(load(&graph, "never-heard-of"), [("never-heard-of".into(), 1.0)]);
    }

    #[test]
    fn a_round_is_named_and_so_is_a_fan_out_beyond_sense() {
        let of: &[(&str, &[(&str, f64)])] = &[("a", &[("b", 1.0)]), ("b", &[("c", 1.0)]), ("c", &[("b", 1.0)])];
        assert_eq!(ServiceGraph::new(&calls(of)).unwrap_err().to_string(), "the calls go round: b -> c -> b");
        let of: &[(&str, &[(&str, f64)])] = &[("a", &[("a", 1.0)])];
        assert_eq!(ServiceGraph::new(&calls(of)).unwrap_err().to_string(), "the calls go round: a -> a");
        let of: &[(&str, &[(&str, f64)])] = &[("a", &[("b", 1e4)]), ("b", &[("c", 1e4)])];
        let refused = ServiceGraph::new(&calls(of)).unwrap_err().to_string();
        assert_eq!(refused, "a transaction of a makes 100000000 of c; at most 1000000 can be planned for");
    }

    proptest! {
        /// Walking each transaction by hand through a random graph without rounds gives the same factors.
        #[test]
        fn the_factors_are_those_of_a_walk(edges in proptest::collection::btree_map((0usize..7, 0usize..7), 0.0..3.0f64, 0..20)) {
            let service = |at: usize| name(&format!("s{at}"));
            let mut of: Calls = (0..7).map(|at| (service(at), BTreeMap::new())).collect();
            for ((from, to), times) in edges.iter().filter(|((from, to), _)| from < to) {
                of.get_mut(&service(*from)).unwrap().insert(service(*to), *times);
            }
            fn walk(of: &Calls, at: &ServiceName, times: f64, seen: &mut BTreeMap<ServiceName, f64>) {
                for (called, factor) in &of[at] {
                    *seen.entry(called.clone()).or_default() += times * factor;
                    walk(of, called, times * factor, seen);
                }
            }
            let graph = ServiceGraph::new(&of).unwrap();
            for start in of.keys() {
                let mut seen = BTreeMap::new();
                walk(&of, start, 1.0, &mut seen);
                for (called, factor) in seen.iter().filter(|(_, factor)| **factor > 0.0) {
                    let found = graph.load_on(called).find(|(caller, _)| *caller == start).map(|(_, factor)| factor);
                    prop_assert!(found.is_some_and(|found| (found - factor).abs() <= 1e-9 * factor));
                }
            }
        }
    }
}
