//! The HTTP API with good and bad input.

use serde_json::{Value, json};
use tradewind_protocol::api::{Event, IngestReceipt, Problem};
use tradewind_tests::{Answer, Cluster, Setup, eventually, get, get_text, now_ms, send};

fn alone(ingest: &str) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.start("solo", &Setup { ingest: ingest.into(), ..Setup::default() });
    cluster
}

fn good() -> Value {
    json!({"source_region": "solo", "destination_region": "other", "timestamp": now_ms()})
}

fn problem(answer: &Answer, status: u16) -> Problem {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.content_type, "application/problem+json");
    let problem: Problem = answer.json();
    assert_eq!(problem.status, status);
    assert!(problem.kind.starts_with("urn:tradewind:problem:"));
    problem
}

#[test]
fn records_come_as_array_or_lines_plain_or_compressed() {
    let cluster = alone("");
    let url = cluster.member("solo").url("/v1/records");
    let lines = format!("{}\n\n{}\n", good(), good());
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(lines.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::bulk::compress(lines.as_bytes(), 1).unwrap();
    let json = ("content-type", "application/json");
    let ndjson = ("content-type", "application/x-ndjson");
    for (headers, body) in [
        (vec![json], json!([good(), good()]).to_string().into_bytes()),
        (vec![ndjson], lines.into_bytes()),
        (vec![ndjson, ("content-encoding", "gzip")], gzip),
        (vec![ndjson, ("content-encoding", "zstd")], zstd),
    ] {
        let answer = send(&url, &headers, &body);
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.body);
        let receipt: IngestReceipt = answer.json();
        assert_eq!((receipt.accepted, receipt.refused), (2, 0), "{headers:?}");
    }
    assert_eq!(cluster.member("solo").status().records_accepted, 8);
}

#[test]
fn bad_records_are_refused_one_by_one_with_line_and_reason() {
    let cluster = alone("");
    let lines = [
        good().to_string(),
        "{\"source_region\": \"solo\"}".into(),
        "not json".into(),
        json!({"source_region": "elsewhere", "destination_region": "other", "timestamp": now_ms()}).to_string(),
        json!({"source_region": "solo", "destination_region": "other", "timestamp": "2001-01-01T00:00:00Z"}).to_string(),
        json!({"source_region": "solo", "destination_region": "other", "timestamp": now_ms(), "count": -1}).to_string(),
        json!({"source_region": "solo", "destination_region": "other", "timestamp": now_ms(), "cuont": 1}).to_string(),
        good().to_string(),
    ];
    let answer = send(&cluster.member("solo").url("/v1/records"), &[("content-type", "application/x-ndjson")], lines.join("\n").as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let receipt: IngestReceipt = answer.json();
    assert_eq!((receipt.accepted, receipt.refused), (2, 6), "{receipt:#?}");
    let reasons: Vec<(u64, &str)> = receipt.refusals.iter().map(|r| (r.line, r.reason.as_str())).collect();
    for (line, word) in [(2, "destination_region"), (3, "JSON"), (4, "elsewhere"), (5, "old"), (6, "count"), (7, "cuont")] {
        assert!(reasons.iter().any(|(at, reason)| *at == line && reason.contains(word)), "line {line}, {word:?}: {reasons:#?}");
    }
}

#[test]
fn a_batch_with_a_key_counts_once() {
    let mut cluster = alone("");
    let (body, headers) = (json!([good()]).to_string(), [("content-type", "application/json"), ("idempotency-key", "batch-1")]);
    let first: IngestReceipt = send(&cluster.member("solo").url("/v1/records"), &headers, body.as_bytes()).json();
    let second: IngestReceipt = send(&cluster.member("solo").url("/v1/records"), &headers, body.as_bytes()).json();
    assert_eq!((first.accepted, first.replayed, second.accepted, second.replayed), (1, false, 1, true));
    cluster.kill("solo");
    cluster.restart("solo");
    let third: IngestReceipt = send(&cluster.member("solo").url("/v1/records"), &headers, body.as_bytes()).json();
    assert!(third.replayed, "a restart forgets nothing that was acknowledged");
    let long = "x".repeat(200);
    problem(&send(&cluster.member("solo").url("/v1/records"), &[("idempotency-key", &long)], body.as_bytes()), 400);
}

#[test]
fn too_much_at_once_is_turned_away_with_a_time_to_come_back() {
    let cluster = alone("max_pending_records = 2\n");
    let member = cluster.member("solo");
    let (url, body) = (member.url("/v1/records"), json!([good(), good()]).to_string());
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let post = || {
            let client = tradewind_tests::http::Connection::new();
            (0..25).map(|_| client.send(&url, &[("content-type", "application/json")], body.as_bytes())).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(post)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let (taken, turned_away): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!taken.is_empty() && !turned_away.is_empty(), "{} taken, {} turned away", taken.len(), turned_away.len());
    for answer in turned_away {
        problem(answer, 429);
        assert!(answer.retry_after.as_ref().is_some_and(|wait| wait.parse::<u32>().is_ok_and(|s| s >= 1)));
    }
    assert_eq!(member.status().records_accepted, 2 * taken.len() as u64, "what was turned away was not counted");
    let large = json!([good(), good(), good()]).to_string();
    problem(&send(&url, &[], large.as_bytes()), 413);
}

#[test]
fn what_cannot_be_read_is_a_problem_document() {
    let cluster = alone("max_body_bytes = 4096\n");
    let member = cluster.member("solo");
    let url = member.url("/v1/records");
    problem(&send(&url, &[("content-encoding", "br")], b"[]"), 415);
    problem(&send(&url, &[("content-encoding", "gzip")], b"not gzip"), 400);
    let broken = problem(&send(&url, &[], b"[{\"source_region\": "), 400);
    assert!(broken.detail.is_some_and(|d| d.contains("line 1")));
    let large = problem(&send(&url, &[], &vec![b' '; 5000]), 413);
    assert!(large.detail.is_some_and(|d| d.contains("max_body_bytes")));
    let bomb = zstd::bulk::compress(&vec![b'\n'; 10 << 20], 1).unwrap();
    problem(&send(&url, &[("content-encoding", "zstd")], &bomb), 413);
    problem(&get(&member.url("/v1/nothing")).unwrap(), 404);
    problem(&get(&url).unwrap(), 405);
    problem(&get(&member.url("/v1/forecasts?from=Not%20A%20Region")).unwrap(), 400);
    problem(&get(&member.url("/v1/forecasts?form=solo")).unwrap(), 400);
    assert_eq!(member.status().health_reasons, Vec::<String>::new());
}

#[test]
fn every_route_is_in_the_openapi_document() {
    let cluster = alone("");
    let document: Value = cluster.member("solo").get("/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/records",
        "/v1/status",
        "/v1/regions",
        "/v1/pools",
        "/v1/instances",
        "/v1/forecasts",
        "/v1/plan",
        "/v1/capacity",
        "/v1/events",
        "/regions/{regionId}/predictiveScale",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    // Every schema that is named is there.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "schema {name} is missing");
    }
}

#[test]
fn machines_can_ask_for_health_readiness_and_metrics() {
    let cluster = alone("");
    let member = cluster.member("solo");
    assert_eq!(get_text(&member.url("/healthz")), "ok\n");
    eventually("the agent is ready", || get(&member.url("/readyz")).filter(|a| a.status == 200));
    member.post("/v1/records", &json!([good()]).to_string());
    let metrics = get_text(&member.url("/metrics"));
    assert!(metrics.ends_with("# EOF\n"));
    assert!(metrics.contains("tradewind_records_accepted_total 1"), "{metrics}");
    for name in ["tradewind_mesh_sent_bytes_total", "tradewind_regions", "tradewind_step_seconds"] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[test]
fn events_can_be_read_and_followed() {
    let cluster = alone("");
    let events: Vec<Event> = cluster.member("solo").get("/v1/events");
    assert!(events.iter().any(|e| e.kind == "agent.started"));
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
    let last = events.last().unwrap().id;
    let later: Vec<Event> = cluster.member("solo").get(&format!("/v1/events?since={last}"));
    assert!(later.iter().all(|e| e.id > last));
}
