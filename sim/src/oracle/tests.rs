//! That each rule is violated by what it forbids, and by nothing else.

use super::*;
use tradewind_protocol::region::{Dropped, Health};

#[derive(Default)]
struct Fake {
    down: BTreeSet<&'static str>,
    cut: BTreeSet<(&'static str, &'static str)>,
    unsound: BTreeSet<&'static str>,
}

impl Topology for Fake {
    fn is_up(&self, region: &RegionId) -> bool {
        !self.down.contains(region.as_str())
    }
    fn is_connected(&self, a: &RegionId, b: &RegionId) -> bool {
        !self.cut.contains(&(a.as_str(), b.as_str())) && !self.cut.contains(&(b.as_str(), a.as_str()))
    }
    fn is_sound(&self, region: &RegionId) -> bool {
        !self.unsound.contains(region.as_str())
    }
}

fn id(name: &str) -> RegionId {
    RegionId::new(name).unwrap()
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn oracle() -> Oracle {
    let expect = Expectations { converge: s(10), detect: s(20), fresh: s(3), relay: None };
    let mut oracle = Oracle::new(["a", "b", "c"].map(id).into(), expect, 1000);
    oracle.on_change(s(0), "start", &Fake::default());
    oracle
}

fn view(region: &str, this: bool, live: bool) -> RegionView {
    RegionView {
        region: id(region),
        this,
        live,
        generation: 1,
        sequence: 1,
        address: String::new(),
        api: None,
        rtt_ms: None,
        wire_version: None,
        health: Health::Healthy,
        mode: None,
        coordinates: None,
        age_ms: Some(100),
        forecasts: 1,
        dropped: Dropped::default(),
        state_bytes: 10,
        version: None,
    }
}

/// The view of `viewer`, who sees all but `dead` live.
fn views(viewer: &str, dead: &str) -> Vec<RegionView> {
    ["a", "b", "c"].map(|region| view(region, region == viewer, region != dead)).into()
}

fn broken(oracle: &Oracle) -> Vec<(Rule, &str)> {
    oracle.violations().map(|violation| (violation.rule, violation.subject.as_str())).collect()
}

#[test]
fn a_mesh_that_sees_itself_breaks_nothing_and_its_convergence_is_timed() {
    let mut oracle = oracle();
    oracle.on_views(s(2), &id("a"), views("a", ""));
    oracle.on_views(s(2), &id("b"), views("b", "c"));
    oracle.on_views(s(3), &id("c"), views("c", ""));
    assert_eq!(oracle.settled(), [], "b does not see c yet");
    oracle.on_views(s(4), &id("b"), views("b", ""));
    assert_eq!(oracle.settled(), [Settled { after: "start".into(), at_s: 0.0, took_s: 4.0 }]);
    oracle.on_views(s(30), &id("a"), views("a", ""));
    oracle.on_end(s(31), true);
    assert_eq!(broken(&oracle), []);
}

#[test]
fn not_seeing_a_reachable_agent_or_its_new_life_is_a_violation_after_the_bound() {
    let mut oracle = oracle();
    oracle.on_views(s(9), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), []);
    oracle.on_views(s(11), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), [(Rule::Converges, "a about b")]);

    let mut newer = views("c", "");
    newer[2].generation = 2;
    oracle.on_views(s(12), &id("c"), newer);
    oracle.on_views(s(13), &id("b"), views("b", ""));
    assert!(broken(&oracle).contains(&(Rule::Converges, "b about c")), "b knows only c's first life");
}

#[test]
fn old_state_and_too_much_state_are_violations() {
    let mut oracle = oracle();
    let mut seen = views("a", "");
    seen[1].age_ms = Some(3_001);
    seen[2].state_bytes = 1_001;
    oracle.on_views(s(11), &id("a"), seen);
    assert_eq!(broken(&oracle), [(Rule::Fresh, "a about b"), (Rule::Budget, "c")]);
}

#[test]
fn the_dead_may_be_seen_live_for_a_while_and_no_longer() {
    let mut oracle = oracle();
    oracle.on_change(s(50), "crash c", &Fake { down: ["c"].into(), ..Fake::default() });
    oracle.on_views(s(60), &id("a"), views("a", ""));
    oracle.on_views(s(61), &id("c"), views("c", "a"));
    assert_eq!(broken(&oracle), [], "within the bound; and an answer of the dead is no evidence");
    oracle.on_views(s(71), &id("a"), views("a", ""));
    assert_eq!(broken(&oracle), [(Rule::Detects, "a about c")]);
    oracle.on_change(s(80), "restart c", &Fake::default());
    oracle.on_views(s(81), &id("b"), views("b", "c"));
    assert_eq!(broken(&oracle).len(), 1, "the bound begins anew");
}

/// `chaos`, seed 500156: who had been cut off was told of a region that had died meanwhile, by those who had heard it last.
#[test]
fn who_comes_back_hears_of_the_dead_what_the_others_know() {
    let mut oracle = oracle();
    oracle.on_change(s(50), "cut off", &Fake { cut: [("a", "b"), ("a", "c")].into(), ..Fake::default() });
    oracle.on_change(s(65), "crash c", &Fake { cut: [("a", "b"), ("a", "c")].into(), down: ["c"].into(), ..Fake::default() });
    oracle.on_change(s(70), "mended", &Fake { down: ["c"].into(), ..Fake::default() });
    oracle.on_views(s(80), &id("a"), views("a", ""));
    assert_eq!(broken(&oracle), [], "it was alive at 65 s");
    oracle.on_views(s(86), &id("a"), views("a", ""));
    assert_eq!(broken(&oracle), [(Rule::Detects, "a about c")]);
}

#[test]
fn one_of_which_nothing_can_be_expected_brings_no_news_when_it_is_well_again() {
    let mut oracle = oracle();
    let cut = || [("a", "b"), ("a", "c")].into();
    oracle.on_change(s(50), "cut off", &Fake { cut: cut(), unsound: ["b"].into(), ..Fake::default() });
    oracle.on_change(s(60), "b is well", &Fake { cut: cut(), ..Fake::default() });
    oracle.on_views(s(71), &id("a"), views("a", ""));
    assert_eq!(broken(&oracle), [(Rule::Detects, "a about c")], "b has until 80 s");
}

/// `chaos`, seed 500523: the liar repeated to one that was cut off what another had told it a moment before.
#[test]
fn what_a_third_party_carries_is_news() {
    let mut oracle = oracle();
    oracle.on_change(s(50), "cut off", &Fake { cut: [("a", "b"), ("a", "c")].into(), ..Fake::default() });
    oracle.on_carried(s(65));
    oracle.on_views(s(80), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), []);
    oracle.on_views(s(86), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), [(Rule::Detects, "a about c")]);
}

#[test]
fn a_cut_link_with_a_way_round_it_allows_either_view() {
    let mut oracle = oracle();
    oracle.on_change(s(50), "cut", &Fake { cut: [("a", "b")].into(), ..Fake::default() });
    oracle.on_views(s(90), &id("a"), views("a", ""));
    oracle.on_views(s(90), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), []);
    oracle.on_change(s(100), "cut off", &Fake { cut: [("a", "b"), ("a", "c")].into(), ..Fake::default() });
    oracle.on_views(s(130), &id("a"), views("a", "b"));
    assert_eq!(broken(&oracle), [(Rule::Detects, "a about c")]);
}

#[test]
fn silence_errors_failures_and_missing_forecasts_are_violations() {
    let mut oracle = oracle();
    oracle.on_silence(s(5), &id("a"), "refused".into());
    assert_eq!(broken(&oracle), [], "it may still be starting");
    oracle.on_silence(s(15), &id("a"), "refused".into());
    oracle.on_finding(s(15), Rule::Durable, &id("b"), "gone".into());
    oracle.on_failure(s(16), "panicked".into());
    let mut seen = views("c", "");
    seen[0].forecasts = 0;
    oracle.on_views(s(20), &id("c"), seen);
    let trace = Summary { first_errors: vec!["x".into()], longest_packet: 1_500, ..Summary::default() };
    oracle.on_trace(s(25), &trace, |_| None);
    oracle.on_end(s(30), true);
    let rules: Vec<Rule> = oracle.violations().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::Mtu, Rule::NoErrors, Rule::Durable, Rule::Answers, Rule::Forecasts, Rule::Runs]);
}

/// `a` has sent `b` so many datagrams that the path does not carry; and the liar, whose address no region has, `liar` many.
fn oversized(a: u64, liar: u64) -> Summary {
    let at = |host: u8| std::net::SocketAddr::from(([10, 0, 0, host], 7470));
    Summary { oversized: [((at(1), at(2)), a), ((at(9), at(2)), liar)].into(), ..Summary::default() }
}

#[test]
fn probes_of_a_path_are_few_and_longer_datagrams_are_a_violation_when_they_are_sent() {
    let whose = [(IpAddr::from([10, 0, 0, 1]), id("a")), (IpAddr::from([10, 0, 0, 2]), id("b"))].into_iter().collect::<BTreeMap<_, _>>();
    let judged = |changes: &dyn Fn(&mut Oracle), at: u64, count: u64| {
        let mut oracle = oracle();
        changes(&mut oracle);
        oracle.on_trace(s(at), &oversized(count, 1_000), |address| whose.get(&address));
        oracle.on_trace(s(at + 1), &oversized(count, 1_000), |address| whose.get(&address));
        let found: Vec<_> = oracle.violations().map(|one| (one.rule, one.subject.clone(), one.first_s, one.times)).collect();
        found
    };
    let violated = |at: f64| vec![(Rule::Mtu, "a to b".to_owned(), at, 1)];
    let nothing = |_: &mut Oracle| {};
    assert_eq!(judged(&nothing, 8, PROBES), []);
    assert_eq!(judged(&nothing, 8, PROBES + 1), violated(8.0), "once, and not at the end");

    // Whatever becomes of others, and of the way back.
    let others = |oracle: &mut Oracle| {
        for at in [20, 40, 60] {
            oracle.on_change(s(at), "crash c", &Fake { down: ["c"].into(), ..Fake::default() });
            oracle.on_change(s(at + 10), "restart c", &Fake::default());
        }
        oracle.on_narrower(&id("b"), &id("a"));
    };
    assert_eq!(judged(&others, 80, PROBES + 1), violated(80.0));

    // A connection that has to be made anew, and a path that becomes narrower, cost a search each.
    let flapping = |oracle: &mut Oracle| {
        for at in 50..59 {
            oracle.on_change(s(at), "cut", &Fake { cut: [("a", "b")].into(), ..Fake::default() });
            oracle.on_change(s(at), "mended", &Fake::default());
        }
        oracle.on_narrower(&id("a"), &id("b"));
    };
    assert_eq!(judged(&flapping, 80, 2 * PROBES + LOST_TO_NARROWER), []);
    assert_eq!(judged(&flapping, 80, 2 * PROBES + LOST_TO_NARROWER + 1), violated(80.0));
    assert_eq!(judged(&nothing, 600, 2 * PROBES), [], "QUIC looks again now and then");
    assert_eq!(judged(&nothing, 600, 2 * PROBES + 1), violated(600.0));
}

#[test]
fn an_error_is_a_violation_when_it_is_traced_and_once() {
    let mut oracle = oracle();
    let traced =
        |errors: &[&str]| Summary { first_errors: errors.iter().map(|error| format!("{error}\n")).collect(), ..Summary::default() };
    oracle.on_trace(s(3), &traced(&[]), |_| None);
    oracle.on_trace(s(4), &traced(&["first"]), |_| None);
    oracle.on_trace(s(5), &traced(&["first"]), |_| None);
    oracle.on_trace(s(6), &traced(&["first", "second"]), |_| None);
    let found: Vec<_> = oracle.violations().map(|one| (one.rule, one.what.as_str(), one.first_s, one.last_s, one.times)).collect();
    assert_eq!(found, [(Rule::NoErrors, "first", 4.0, 6.0, 2)]);
}
