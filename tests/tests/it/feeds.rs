//! Counts from and to the real Prometheus and VictoriaMetrics, and from a file that somebody appends to.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tradewind_protocol::api::ForecastView;
use tradewind_tests::{Cluster, Member, Setup, eventually, get, now_ms};

/// In continuous integration a missing server is a failure.
const CI: &str = "TRADEWIND_CI";

/// A server that ends with the test.
struct Server {
    url: String,
    process: Child,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts `program` on a free port with the arguments for it and a directory, or says that the test is skipped.
fn server(program: &str, arguments: impl Fn(u16, &str) -> Vec<String>) -> Option<Server> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = tempfile::tempdir().unwrap();
    let arguments = arguments(port, &data.path().to_string_lossy());
    let started = Command::new(program).args(arguments).current_dir(data.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(process) = started else {
        assert!(std::env::var_os(CI).is_none(), "{program} is not installed");
        eprintln!("SKIPPED: {program} is not installed (Debian packages prometheus and victoria-metrics)");
        return None;
    };
    let server = Server { url: format!("http://127.0.0.1:{port}"), process, _data: data };
    eventually(&format!("{program} answers"), || {
        get(&format!("{}/api/v1/query?query=1", server.url)).filter(|answer| answer.status == 200)
    });
    Some(server)
}

/// Starts an agent with steps of a second.
fn start<'c>(cluster: &'c mut Cluster, region: &str, setup: &Setup) -> &'c Member {
    cluster.start(region, &Setup { step: Some("1s".into()), ..setup.clone() })
}

fn push(member: &Member, destination: &str, count: u64) {
    let record = json!([{"source_region": member.region, "destination_region": destination, "service": "game", "timestamp": now_ms(), "count": count}]);
    assert_eq!(member.post("/v1/records", &record.to_string()).status, 200);
}

/// What the server answers to `query`: labels and newest value.
fn ask(server: &Server, query: &str) -> Vec<(Value, f64)> {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = get(&format!("{}/api/v1/query?query={escaped}", server.url)).unwrap();
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let series = body["data"]["result"].as_array().unwrap_or_else(|| panic!("{}", answer.body)).iter();
    series.map(|found| (found["metric"].clone(), found["value"][1].as_str().unwrap().parse().unwrap())).collect()
}

/// What one agent writes to the server, another reads from it.
fn there_and_back(server: &Server, write: &str) {
    let mut cluster = Cluster::new();
    let tables = format!("[prometheus.write]\nurl = \"{}{write}\"\nlabels = [\"cluster=test\"]\n", server.url);
    let writer = start(&mut cluster, "writer", &Setup { tables, ..Setup::default() }.with_workers(1));
    push(writer, "east", 41);
    let highest = "max_over_time(tradewind_observed_transactions{source=\"writer\",destination=\"east\"}[5m])";
    let found = eventually("the observation is there", || {
        Some(ask(server, highest)).filter(|found| found.first().is_some_and(|(_, n)| *n == 41.0))
    });
    assert_eq!((found.len(), &found[0].0["service"], &found[0].0["cluster"]), (1, &json!("game"), &json!("test")));
    let quantiles = ask(server, "last_over_time(tradewind_forecast_transactions{source=\"writer\",ahead_seconds=\"1\"}[5m])");
    assert!(quantiles.iter().any(|(labels, _)| labels["quantile"] == json!("0.95")), "{quantiles:?}");
    assert!(!ask(server, "last_over_time(tradewind_planned_instances{pool=\"workers\",state=\"active\"}[5m])").is_empty());

    let tables = format!(
        "[prometheus.read]\nurl = {:?}\nbackfill = \"5m\"\ndelay = \"5s\"\n[[prometheus.read.query]]\nname = \"seen\"\n\
         query = \"tradewind_observed_transactions{{source=\\\"writer\\\"}}\"\nservice_label = \"service\"\ntype = \"read\"\n",
        server.url
    );
    let reader = start(&mut cluster, "reader", &Setup { tables, ingest: "lateness = \"10m\"\n".into(), ..Setup::default() });
    let counted = |member: &Member| {
        let forecasts: Vec<ForecastView> = member.get("/v1/forecasts?from=reader&to=east&type=read");
        forecasts.first().map(|forecast| forecast.recent.iter().sum::<f64>())
    };
    eventually("what was written is counted by the other agent", || counted(reader).filter(|sum| *sum == 41.0));
    // Killed and started again, it goes on where it was.
    let before = reader.status().records_accepted;
    assert!(before >= 1);
    cluster.kill("reader");
    cluster.restart("reader");
    let reader = cluster.member("reader");
    eventually("it is known again", || counted(reader));
    push(cluster.member("writer"), "east", 1);
    let sum = eventually("the next is counted too", || counted(reader).filter(|sum| *sum >= 42.0));
    assert_eq!(sum, 42.0, "nothing is counted twice");
}

#[test]
fn prometheus_takes_what_an_agent_writes_and_another_reads_it() {
    let arguments = |port, data: &str| {
        let config = format!("{data}/prometheus.yml");
        fs::write(&config, "global: {}\n").unwrap();
        vec![
            format!("--config.file={config}"),
            format!("--storage.tsdb.path={data}/tsdb"),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".into(),
        ]
    };
    if let Some(server) = server("prometheus", arguments) {
        there_and_back(&server, "/api/v1/write");
    }
}

#[test]
fn victoria_metrics_takes_what_an_agent_writes_and_another_reads_it() {
    let arguments = |port, data: &str| {
        vec![
            format!("-storageDataPath={data}/vm"),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-search.latencyOffset=1ms".into(),
            "-search.disableCache".into(),
        ]
    };
    if let Some(server) = server("victoria-metrics", arguments) {
        there_and_back(&server, "/api/v1/write");
    }
}

#[test]
fn a_file_is_tailed_across_a_crash_and_a_rotation() {
    let mut cluster = Cluster::new();
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("records.ndjson");
    let line =
        |count: u64| format!("{}\n", json!({"source_region": "west", "destination_region": "east", "timestamp": now_ms(), "count": count}));
    let append = |text: &str| File::options().create(true).append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    append(&(line(1) + "no record\n" + &line(10)));
    let tables = format!("[[tail]]\npath = {path:?}\ninterval = \"20ms\"\n");
    let west = start(&mut cluster, "west", &Setup { tables, ..Setup::default() });
    eventually("both are counted", || (west.status().records_accepted == 2).then_some(()));
    assert_eq!(west.status().records_refused, 1);
    cluster.kill("west");
    append(&line(100));
    fs::rename(&path, logs.path().join("records.ndjson.1")).unwrap();
    append(&line(1_000));
    cluster.restart("west");
    let west = cluster.member("west");
    eventually("the rest is counted", || (west.status().records_accepted == 2).then_some(()));
    let sum = eventually("all of it is in the counts", || {
        let forecasts: Vec<ForecastView> = west.get("/v1/forecasts?from=west&to=east");
        forecasts.first().map(|forecast| forecast.recent.iter().sum::<f64>()).filter(|sum| *sum >= 1_111.0)
    });
    assert_eq!(sum, 1_111.0, "nothing is counted twice");
}
