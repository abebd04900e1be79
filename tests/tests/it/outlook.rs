//! Events that are known beforehand, from one region's API into another region's forecasts.

use serde_json::{Value, json};
use tradewind_protocol::api::{Anomaly, CalendarEntry, EventOrigin, ForecastView, Problem};
use tradewind_protocol::{Quantile, Timestamp};
use tradewind_tests::{Cluster, Member, Setup, eventually, get_text};

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Five times the traffic to anywhere, for a day.
fn rush() -> Value {
    let at = |ms: i64| Timestamp::from_millis(ms).unwrap();
    json!({"name": "rush", "kind": "campaign", "from": at(now_ms() - 60_000), "until": at(now_ms() + 86_400_000),
        "effect": {"factor": 5.0, "low": 4.0, "high": 6.0}})
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
