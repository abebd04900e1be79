//! The rivals reach what independent measurements say they reach.

use super::rivals::{Rival, Setting};
use super::*;

/// Late % at 1.15, 1.3, 1.5 and 2 x clairvoyant on the Abilene recording by destination, at leads 1, 2 and 6, measured elsewhere.
const PUBLISHED: [(Rival, [[f64; 4]; 3]); 4] = [
    (Rival::LastValue, [[0.32, 0.12, 0.052, 0.019], [0.55, 0.26, 0.15, 0.065], [1.09, 0.64, 0.44, 0.21]]),
    (Rival::SeasonalNaive, [[4.9, 3.4, 2.8, 2.3], [4.7, 3.3, 2.7, 2.3], [4.0, 3.0, 2.6, 2.2]]),
    (Rival::MaxLastSeasonal, [[0.79, 0.11, 0.031, 0.009], [1.01, 0.18, 0.067, 0.022], [1.11, 0.28, 0.13, 0.056]]),
    (Rival::Hpa, [[0.34, 0.11, 0.048, 0.019], [0.48, 0.22, 0.13, 0.061], [0.86, 0.51, 0.35, 0.18]]),
];

/// The Abilene recording by destination, from the directory that TRADEWIND_DATA names, or `shared/data` beside the repository.
fn recorded() -> Option<Trace> {
    const FILE: &str = "abilene/abilene_5min_mbps_20040301_20040314.csv.gz";
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path = std::env::var_os("TRADEWIND_DATA").map_or_else(beside, PathBuf::from).join(FILE);
    if !path.exists() {
        // Past the harness, which keeps what a passing test prints to itself.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: there is no {}\n", path.display()).as_bytes());
        return None;
    }
    Some(Trace::parse(&crate::data::read(&path).unwrap(), Some(By::Destination)).unwrap())
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation: cargo test --release -p tradewind-sim --lib backtest")]
fn rivals_reach_what_was_measured_elsewhere() {
    let Some(trace) = recorded() else { return };
    assert_eq!((trace.season(), trace.step_s, trace.names.len()), (Some(288), Some(300.0), 12));
    for (at, lead) in [1, 2, 6].into_iter().enumerate() {
        let setting = Setting { lead, season: trace.season(), step_s: 300.0, split: trace.split() };
        let policies: Vec<Policy> = PUBLISHED.iter().map(|(rival, _)| Policy::Rival(*rival)).collect();
        let report = backtest(&trace, &setting, &policies);
        for (rival, rows) in PUBLISHED {
            for (ratio, published) in [1.15, 1.3, 1.5, 2.0].into_iter().zip(rows[at]) {
                let late = report.policies[rival.name()].late_at(ratio).unwrap() * 100.0;
                let off = (late / published - 1.0).abs();
                assert!(off < 0.1, "{} at lead {lead}, {ratio} x: {late:.4} %, published {published} %", rival.name());
            }
        }
    }
}

/// Our own, beside the best rule with a margin for each series and the last value with a rolling quantile: the README's claim, with a little room.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimisation: cargo test --release -p tradewind-sim --lib backtest")]
fn ours_is_late_for_less_than_the_best_rule_for_each_series() {
    let Some(trace) = recorded() else { return };
    let setting = Setting { lead: 2, season: trace.season(), step_s: 300.0, split: trace.split() };
    let report = backtest(&trace, &setting, &chosen("tradewind,best-rival,rolling-quantile").unwrap());
    // A frontier that ends sooner, as the rolling quantile's does, stands by the best that it reaches.
    let least = |name: &str| report.policies[name].frontier.iter().map(|point| point.late_share).fold(1.0, f64::min);
    let late = |name: &str, ratio: f64| report.policies[name].late_at(ratio).unwrap_or_else(|| least(name));
    for (ratio, most) in [(1.15, 0.65), (1.3, 0.7), (1.5, 0.75)] {
        let (ours, best) = (late("tradewind", ratio), late("best-rival", ratio));
        assert!(ours < most * best && ours < late("rolling-quantile", ratio), "{ratio} x: {ours} against {best}");
    }
}

#[test]
fn a_step_that_no_agent_could_have_is_planned_for_all_the_same() {
    let demand: Vec<f64> = (0..300).map(|t| 50.0 + 40.0 * (f64::from(t) / 24.0 * std::f64::consts::TAU).sin()).collect();
    let late = |step_s| {
        let setting = Setting { lead: 2, season: Some(24), step_s, split: 180 };
        let plan = Policy::Tradewind.prepare(&demand, &setting)(0.01);
        score(&demand, &plan, setting.lead, 180..300).late_share()
    };
    for step_s in [0.001, 300.0, 86_400.0] {
        assert!(late(step_s) < 0.01, "{step_s} s: {}", late(step_s));
    }
}

#[test]
fn a_report_has_every_policy_at_every_target_and_unknown_names_are_refused() {
    let rows = (0..300).fold("a,b".to_string(), |text, t| {
        format!("{text}\n{:.3},{}", 10.0 + 8.0 * (f64::from(t) / 24.0 * std::f64::consts::TAU).sin(), (t * 7919) % 13)
    });
    let trace = Trace::parse(&rows, None).unwrap();
    let setting = Setting { lead: 2, season: Some(24), step_s: 300.0, split: trace.split() };
    let report = backtest(&trace, &setting, &chosen("all").unwrap());
    assert_eq!(report.policies.len(), Policy::all().len());
    for (name, standing) in &report.policies {
        assert_eq!(standing.tuned.keys().map(String::as_str).collect::<Vec<_>>(), ["1.15", "1.3", "1.5"], "{name}");
        assert!(standing.frontier.windows(2).all(|pair| pair[0].cost_ratio <= pair[1].cost_ratio), "{name}");
    }
    for (name, standing) in &report.policies {
        for (share, cost) in standing.cost_at.iter().filter_map(|(share, cost)| Some((share, (*cost)?))) {
            let (wanted, late): (f64, f64) = (share.parse().unwrap(), standing.late_at(cost).unwrap());
            let cheapest = standing.frontier[0].cost_ratio;
            assert!(
                late <= wanted * 1.000_001 && (late >= wanted * 0.999_999 || cost <= cheapest),
                "{name}: {late} at {cost}, {wanted} asked"
            );
        }
    }
    assert_eq!(report.policies["clairvoyant"].cost_at["0.0001"].map(|cost| (cost * 1e6).round()), Some(1e6));
    let hours = |tuned: &Tuned| tuned.resource_steps / 12.0;
    assert!(report.policies.values().flat_map(|s| s.tuned.values()).all(|t| (t.resource_hours - hours(t)).abs() < 1e-6));
    assert!(report.to_text().contains("unit-hours") && page::html(&report).contains("unserved"));
    let best = report.policies["clairvoyant"].frontier[0];
    assert_eq!((best.late_share, (best.cost_ratio * 1e6).round()), (0.0, 1e6));
    assert!(page::html(&report).contains("tradewind"));
    let refused = chosen("hpa,nothing").unwrap_err().to_string();
    assert!(refused.contains("\"nothing\"") && refused.contains("last-value"), "{refused}");

    let directory = tempfile::tempdir().unwrap();
    let policies = chosen("tradewind,best-rival").unwrap();
    write_plans(directory.path(), &trace, &setting, &policies, &report).unwrap();
    for name in ["tradewind.csv", "tradewind@1.5.csv", "best-rival@1.3.csv"] {
        let plan = std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((plan.lines().next(), plan.lines().count()), (Some("a,b"), 301), "{name}");
    }
}
