//! Events that are known beforehand, from one region's API into another region's forecasts.

use serde_json::{Value, json};
use std::process::Command;
use tradewind_protocol::api::{Anomaly, CalendarEntry, EventOrigin, ForecastExplanation, ForecastView, HistoryView, Problem};
use tradewind_protocol::{Quantile, Timestamp};
use tradewind_tests::{Answer, Cluster, Member, Setup, eventually, get, get_text, now_ms, program};

/// Five times the traffic to anywhere, for a day.
fn rush() -> Value {
    let at = |ms: i64| Timestamp::from_millis(ms).unwrap();
    json!({"name": "rush", "kind": "campaign", "from": at(now_ms() - 60_000), "until": at(now_ms() + 86_400_000),
        "effect": {"factor": 5.0, "low": 4.0, "high": 6.0}})
}

fn fetch(member: &Member, path: &str) -> Answer {
    get(&member.url(path)).unwrap()
}

fn calendar(member: &Member) -> Vec<CalendarEntry> {
    member.get("/v1/calendar")
}

#[test]
fn an_event_reaches_the_forecasts_of_the_regions_it_concerns_and_goes_again() {
    let mut cluster = Cluster::new();
    cluster.start("east", &Setup::default());
    cluster.start("west", &Setup { seeds: vec!["east".into()], ..Setup::default() });
    cluster.converged(&["east", "west"]);
    let (east, west) = (cluster.member("east"), cluster.member("west"));
    for destination in ["east", "north"] {
        let record = json!([{"source_region": "west", "destination_region": destination, "timestamp": now_ms(), "count": 500}]);
        assert_eq!(west.post("/v1/records", &record.to_string()).status, 200);
    }

    assert_eq!(east.post("/v1/calendar", &rush().to_string()).status, 204);
    assert_eq!(calendar(east)[0].origin, EventOrigin::Api);
    let entry = eventually("the event is in the other region's calendar", || calendar(west).first().cloned());
    assert_eq!((entry.region.as_str(), entry.event.name.as_str(), entry.origin), ("east", "rush", EventOrigin::Mesh));

    let to = |member: &Member, region: &str| -> Option<ForecastView> {
        let views: Vec<ForecastView> = member.get(&format!("/v1/forecasts?from=west&to={region}"));
        views.into_iter().next()
    };
    let applied = eventually("traffic to east is forecast with it", || to(west, "east").filter(|view| !view.events_applied.is_empty()));
    assert_eq!(applied.events_applied[0].effect.factor, 5.0);
    assert!(applied.prediction.path.value(applied.prediction.path.start(), Quantile::MEDIAN).is_some());
    let elsewhere = eventually("traffic elsewhere is forecast", || to(west, "north"));
    assert!(elsewhere.events_applied.is_empty(), "east has no say in traffic from west to north");

    let removed = cluster.member("east").delete("/v1/calendar/rush");
    assert_eq!(removed.status, 204, "{}", removed.body);
    assert!(calendar(east).is_empty());
    eventually("it is gone everywhere", || calendar(west).is_empty().then_some(()));
}

#[test]
fn events_survive_a_crash_and_nonsense_is_refused() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup::default());
    let solo = cluster.member("solo");
    assert_eq!(solo.post("/v1/calendar", &rush().to_string()).status, 204);
    let mut backwards = rush();
    backwards["until"] = json!(0);
    let mut unknown = rush();
    unknown["faktor"] = json!(2);
    for (body, word) in [(backwards, "must end"), (unknown, "faktor"), (json!([]), "")] {
        let answer = solo.post("/v1/calendar", &body.to_string());
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        let problem: Problem = answer.json();
        assert!(problem.detail.unwrap_or_default().contains(word), "{body}");
    }
    assert_eq!(solo.delete("/v1/calendar/other").status, 404);
    assert_eq!(solo.get::<Vec<Anomaly>>("/v1/anomalies"), []);
    assert!(get_text(&solo.url("/metrics")).contains("tradewind_anomalies_ongoing 0"));

    cluster.kill("solo");
    cluster.restart("solo");
    assert_eq!(calendar(cluster.member("solo"))[0].event.name.as_str(), "rush");
}

#[test]
fn a_backlog_that_comes_before_the_first_close_is_in_the_forecasts() {
    let mut cluster = Cluster::new();
    // The first step is closed only well after the backlog has come.
    cluster.start("solo", &Setup { ingest: "close_after = \"3s\"\nlateness = \"1h\"".into(), ..Setup::default() });
    let solo = cluster.member("solo");
    let (now, step, backlog) = (now_ms(), 200, 400);
    let record = |back: i64| json!({"source_region": "solo", "destination_region": "far", "timestamp": now - back * step, "count": 700});
    // Older than the step in which the agent started.
    let records: Vec<Value> = (50..50 + backlog).map(record).collect();
    assert_eq!(solo.post("/v1/records", &json!(records).to_string()).status, 200);

    let first = eventually("a step is closed", || {
        let status: tradewind_protocol::api::Status = solo.get("/v1/status");
        let views: Vec<ForecastView> = solo.get("/v1/forecasts?from=solo&to=far");
        (status.records_accepted == backlog as u64).then_some(views.into_iter().next()?)
    });
    // Eight seasons of ten steps, less the first.
    assert!(first.prediction.score.steps > 50, "learnt from the backlog: {:?}", first.prediction.score);
}

/// Traffic from `region` to itself in each of the `steps` steps before the running one, by `count` of the step's distance.
fn backlog(member: &Member, steps: i64, count: impl Fn(i64) -> u64) {
    let record = |back: i64| json!({"source_region": member.region, "destination_region": "far", "timestamp": now_ms() - back * 200, "count": count(back)});
    let records: Vec<Value> = (1..=steps).map(record).collect();
    assert_eq!(member.post("/v1/records", &json!(records).to_string()).status, 200);
}

#[test]
fn a_forecast_is_explained_in_the_api_the_terminal_and_the_metrics() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup { ingest: "lateness = \"1h\"".into(), ..Setup::default() });
    let solo = cluster.member("solo");
    let unknown: Problem = fetch(solo, "/v1/forecasts/explain?from=solo&to=far").json();
    assert!(unknown.detail.unwrap().contains("nothing is forecast yet"));
    backlog(solo, 60, |back| 500 + 100 * (back % 10) as u64);
    assert_eq!(solo.post("/v1/calendar", &rush().to_string()).status, 204);

    let explained = eventually("the forecast has learnt the backlog and knows the event", || {
        let all: Vec<ForecastExplanation> = solo.try_get("/v1/forecasts/explain?from=solo&to=far&service=default")?;
        let one = all.into_iter().next()?;
        let judged = one.reasons.as_ref()?.horizons.first()?.judged > 20;
        (judged && !one.view.events_applied.is_empty() && one.view.prediction.score.steps > 20).then_some(one)
    });
    let reasons = explained.reasons.unwrap();
    assert_eq!((explained.region.as_str(), reasons.season), ("solo", 10));
    assert!(reasons.steps >= 60 && reasons.until == explained.view.prediction.path.start().offset(-1), "{reasons:?}");
    let first = &reasons.horizons[0];
    assert!(first.ahead == 1 && first.seasonal_naive_error >= 0.0 && (0.0..=1.0).contains(&first.coverage_90), "{first:?}");
    let weight: f64 = first.experts.iter().map(|expert| expert.weight).sum();
    assert!((weight - 1.0).abs() < 1e-6, "the weights are shares: {first:?}");
    assert!(first.experts.iter().all(|expert| expert.silent.is_none() || expert.weight == 0.0), "{first:?}");
    assert!(first.experts.iter().any(|expert| expert.name == "global-boosting"), "those of all series are told of: {first:?}");

    let answer = fetch(solo, "/v1/forecasts/explain?from=solo&to=mars");
    let problem: Problem = answer.json();
    assert_eq!((answer.status, problem.detail.unwrap().contains("from solo forecasts go to: far")), (404, true));
    assert_eq!(fetch(solo, "/v1/forecasts/explain?from=solo").status, 400);
    // What was counted is told at every resolution: of 60 steps of 200 ms 57,000 in all.
    for (resolution, length_ms) in [("step", 200), ("5m", 300_000), ("1h", 3_600_000)] {
        let told: Vec<HistoryView> = solo.get(&format!("/v1/history?from=solo&to=far&resolution={resolution}&buckets=10000"));
        assert_eq!((told.len(), told[0].bucket_ms, told[0].counts.iter().sum::<f64>()), (1, length_ms, 57_000.0), "{resolution}");
        assert_eq!(told[0].since.as_millis() % length_ms as i64, 0, "{resolution}");
    }
    for (query, status) in [("from=solo&to=mars", 404), ("from=solo&to=far&buckets=0", 400), ("from=solo&to=far&resolution=2h", 400)] {
        assert_eq!(fetch(solo, &format!("/v1/history?{query}")).status, status, "{query}");
    }
    for format in ["table", "json", "yaml"] {
        let command = ["--agent", &solo.runtime.api, "explain", "solo", "far", "-o", format];
        let done = Command::new(program("tradewind")).args(command).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && text.contains("rush") && text.contains("seasonal-naive"), "{format}: {text}");
    }
    let metrics = get_text(&solo.url("/metrics"));
    let pair = r#"{tenant="default",source="solo",destination="far",service="default",type="default""#;
    for name in [
        "tradewind_forecast_pinball_loss",
        "tradewind_forecast_seasonal_naive_pinball_loss",
        "tradewind_forecast_coverage_ratio",
        "tradewind_observed_transactions",
    ] {
        assert!(metrics.contains(&format!("{name}{pair}}} ")), "{name} in {metrics}");
    }
    for quantile in ["0.05", "0.5", "0.95"] {
        let wanted = format!("tradewind_forecast_transactions{pair},quantile=\"{quantile}\"}} ");
        assert!(metrics.contains(&wanted), "{wanted} in {metrics}");
    }
}

#[test]
fn late_records_within_the_bound_are_folded_in_and_later_ones_are_refused_with_a_reason() {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup { ingest: "lateness = \"1m\"".into(), ..Setup::default() });
    let solo = cluster.member("solo");
    let record =
        |back_ms: i64| json!([{"source_region": "solo", "destination_region": "far", "timestamp": now_ms() - back_ms, "count": 7}]);
    assert_eq!(solo.post("/v1/records", &record(5_000).to_string()).status, 200);
    let receipt: Value = solo.post("/v1/records", &record(120_000).to_string()).json();
    assert_eq!((&receipt["accepted"], &receipt["refused"]), (&json!(0), &json!(1)), "{receipt}");
    let reason = receipt["refusals"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("(ingest.lateness)"), "{reason}");
    eventually("the late record is in the forecast's past", || {
        let views: Vec<ForecastView> = solo.get("/v1/forecasts?from=solo&to=far");
        views.first().filter(|view| view.prediction.mean_volume > 0.0).map(|_| ())
    });
}
