use super::*;
use std::time::Duration;
use tradewind_protocol::forecast::ForecastScore;
use tradewind_protocol::{QuantilePath, Timestamp};

fn minute() -> Step {
    Step::new(Duration::from_secs(60)).unwrap()
}

fn key(destination: &str) -> SeriesKey {
    SeriesKey {
        tenant: Default::default(),
        source: "eu".parse().unwrap(),
        destination: destination.parse().unwrap(),
        service: Default::default(),
        transaction_type: Default::default(),
    }
}

/// 100 give or take 10, for the next two steps.
fn foreseen(destination: &str, start: i64) -> PredictionData {
    let values = [90.0, 100.0, 110.0].repeat(2);
    let quantiles = vec![Quantile::CENTRAL_90.0, Quantile::MEDIAN, Quantile::CENTRAL_90.1];
    PredictionData {
        series: key(destination),
        issued_at: Timestamp::EPOCH,
        observed: 100.0,
        mean_volume: 100.0,
        path: QuantilePath::new(StepIndex(start), minute(), quantiles, values).unwrap(),
        model: "test".into(),
        score: ForecastScore::default(),
    }
}

fn noise(at: i64) -> f64 {
    ((at * 7_919).rem_euclid(21) - 10) as f64
}

fn anomalies() -> Anomalies {
    Anomalies::new(&AnomalyConfig { false_alarm_probability: 3e-4 }, minute())
}

/// Closes steps `from..until` of one series; says when something began.
fn run(anomalies: &mut Anomalies, steps: std::ops::Range<i64>, count: impl Fn(i64) -> f64) -> Vec<(i64, Anomaly)> {
    let close = |at| {
        let begun = anomalies.close(StepIndex(at), &[foreseen("us", at)], &[(key("us"), count(at))]);
        begun.into_iter().map(move |anomaly| (at, anomaly))
    };
    steps.flat_map(close).collect()
}

#[test]
fn an_incident_is_told_once_lasts_and_ends() {
    let mut anomalies = anomalies();
    assert!(run(&mut anomalies, 0..500, |at| 100.0 + noise(at)).is_empty());
    let begun = run(&mut anomalies, 500..503, |_| 900.0);
    let [(500, anomaly)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!((anomaly.kind, anomaly.direction, anomaly.observed, anomaly.expected), (AnomalyKind::Point, Direction::Up, 900.0, 100.0));
    assert!(anomaly.probability < 3e-4 && in_words(anomaly).contains("900 transactions in the step, 100 were foreseen"));
    assert_eq!(anomalies.report().ongoing(), 1);
    assert!(run(&mut anomalies, 503..600, |at| 100.0 + noise(at)).is_empty());
    let report = anomalies.report();
    assert_eq!((report.ongoing(), report.anomalies.len(), report.found[&AnomalyKind::Point]), (0, 1, 1));
    assert_eq!(report.anomalies[0].since, minute().start(StepIndex(500)));
    assert!(report.anomalies[0].until >= minute().end(StepIndex(500)));
}

#[test]
fn a_series_that_falls_silent_is_missing() {
    let mut anomalies = anomalies();
    run(&mut anomalies, 0..500, |at| 100.0 + noise(at));
    let begun: Vec<Anomaly> = (500..510).flat_map(|at| anomalies.close(StepIndex(at), &[foreseen("us", at)], &[])).collect();
    assert_eq!(begun.last().map(|anomaly| anomaly.kind), Some(AnomalyKind::MissingData), "{begun:?}");
}

#[test]
fn what_was_not_foreseen_is_not_judged_and_series_do_not_mix() {
    let mut anomalies = anomalies();
    for at in 0..500 {
        let counts = [(key("jp"), 0.0), (key("us"), 100.0 + noise(at))];
        assert!(anomalies.close(StepIndex(at), &[foreseen("us", at)], &counts).is_empty());
    }
    assert!(anomalies.close(StepIndex(500), &[foreseen("us", 400)], &[(key("us"), 9e9)]).is_empty(), "an old path");
    let both = [foreseen("jp", 501), foreseen("us", 501)];
    let begun = anomalies.close(StepIndex(501), &both, &[(key("jp"), 9e9), (key("us"), 9e9)]);
    assert_eq!(begun.iter().map(|a| a.series.clone()).collect::<Vec<_>>(), [key("us")], "jp is too young to judge");
    anomalies.retain(&[(key("jp"), 0.0)]);
    assert_eq!(anomalies.report().ongoing(), 0);
}

#[test]
fn what_is_ordinary_is_recalled_after_a_restart() {
    let mut anomalies = anomalies();
    let past: Vec<f64> = (0..500).map(|at| 100.0 + noise(at)).collect();
    anomalies.recall(&key("us"), &past);
    assert_eq!(run(&mut anomalies, 500..501, |_| 900.0).len(), 1, "no new warm-up");
}
