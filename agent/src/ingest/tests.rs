use super::*;
use crate::config::IngestConfig;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::{RegionId, SeriesKey, Step, StepIndex, Timestamp, TransactionRecord};

const NOW: &str = "2026-03-01T12:00:00Z";

struct Bench {
    region: RegionId,
    config: IngestConfig,
}

impl Bench {
    fn new() -> Self {
        let config = IngestConfig {
            lateness: Duration::from_secs(3600),
            max_ahead: Duration::from_secs(60),
            close_after: Duration::ZERO,
            max_body_bytes: 1 << 20,
            max_pending_records: 1000,
            max_series: 100,
            max_series_per_tenant: 100,
            retention: Duration::from_secs(86_400),
            retention_5m: Duration::from_secs(86_400),
            retention_1h: Duration::from_secs(86_400),
        };
        Self { region: RegionId::new("de").unwrap(), config }
    }

    fn rules(&self) -> Rules<'_> {
        let step = Step::new(Duration::from_secs(60)).unwrap();
        Rules { region: &self.region, step, now: Timestamp::parse(NOW).unwrap(), config: &self.config }
    }

    fn parse(&self, body: &str) -> Result<Batch, BodyError> {
        parse(body.as_bytes(), &self.rules())
    }

    /// The reason for which the only record of `body` is refused.
    fn reason(&self, body: &str) -> String {
        let batch = self.parse(body).unwrap();
        assert_eq!((batch.records(), batch.refused), (0, 1), "{body}");
        batch.refusals[0].reason.clone()
    }
}

/// A good record with `extra` fields.
fn record(extra: &str) -> String {
    format!(r#"{{"source_region":"de","destination_region":"fr","timestamp":"{NOW}"{extra}}}"#)
}

#[test]
fn records_of_one_series_and_step_become_one_sum() {
    let bench = Bench::new();
    let body = format!("[{}, {}, {}]", record(""), record(r#","count":41,"user":"u1","latency_ms":3.5"#), record(r#","service":"db""#));
    let batch = bench.parse(&body).unwrap();
    assert_eq!((batch.records(), batch.refused), (3, 0));
    let keys: Vec<_> = batch.series.iter().map(|series| series.key.to_string()).collect();
    assert_eq!(keys, ["default/de>fr/default/default", "default/de>fr/db/default"]);
    let sums: Vec<_> = batch.sums.values().map(|sum| (sum.count, sum.records)).collect();
    assert_eq!(sums, [(42, 2), (1, 1)]);
}

#[test]
fn an_array_and_its_lines_are_the_same_batch() {
    let bench = Bench::new();
    let records = [record(""), record(r#","id":"a""#), record(r#","count":"x""#), record(r#","tenant":"t""#)];
    assert_eq!(bench.parse(&format!(" [{}]\n", records.join(","))).unwrap(), bench.parse(&records.join("\r\n")).unwrap());
}

#[test]
fn a_refusal_names_the_place_and_the_good_records_are_kept() {
    let bench = Bench::new();
    let body = format!("{}\n\nnonsense\n{}\n{}\n", record(""), record(r#","count":-3"#), record(""));
    let batch = bench.parse(&body).unwrap();
    assert_eq!((batch.records(), batch.refused), (2, 2));
    assert_eq!(batch.refusals.iter().map(|refusal| refusal.line).collect::<Vec<_>>(), [3, 4]);
    assert!(batch.refusals[0].reason.starts_with("broken JSON at column 2"), "{}", batch.refusals[0].reason);
    let array = format!("[{},\n{},7]", record(""), record(r#","count":-3"#));
    let batch = bench.parse(&array).unwrap();
    assert_eq!(batch.refusals.iter().map(|refusal| refusal.line).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_reason_names_the_field_what_came_and_what_was_wanted() {
    let bench = Bench::new();
    for (extra, wanted) in [
        (r#","count":"7""#, r#"count is "7": wanted an integer from 0 to 1099511627776"#),
        (r#","count":1.5"#, "count is 1.5: wanted an integer"),
        (r#","count":1099511627777"#, "count 1099511627777 must be at most"),
        (r#","latency_ms":-1"#, "latency_ms -1 must be a finite number"),
        (r#","latency_ms":[1]"#, "latency_ms is an array: wanted a number"),
        (r#","tenant":null"#, "tenant is null: wanted text"),
        (r#","tenant":"""#, r#"tenant: tenant "" must be 1 to 64"#),
        (r#","service":"a b""#, r#"service: service "a b" must be"#),
        (r#","transaction_type":{}"#, "transaction_type is an object: wanted text"),
        (r#","user":"""#, r#"user: user "" must be 1 to 128"#),
        (r#","id":5"#, "id is 5: wanted text"),
        (r#","colour":"red""#, r#"field "colour" is unknown: wanted id, tenant"#),
        (r#","count":1,"count":2"#, "count is given twice"),
        (r#","resources":{"cpu_millis":-1}"#, "resources.cpu_millis is -1: wanted an integer of at least 0"),
        (r#","resources":{"cpu":1}"#, r#"resources field "cpu" is unknown: wanted cpu_millis"#),
        (r#","resources":7"#, "resources is 7: wanted an object"),
    ] {
        let reason = bench.reason(&record(extra));
        assert!(reason.starts_with(wanted), "{extra}: {reason}");
    }
    let at = |time: &str| format!(r#"{{"source_region":"de","destination_region":"fr","timestamp":{time}}}"#);
    for (body, wanted) in [
        (at(r#""noon""#), r#"timestamp "noon" must be RFC 3339"#),
        (at("true"), "timestamp is true: wanted RFC 3339 text"),
        (r#"{"source_region":"de","destination_region":"fr"}"#.into(), "timestamp is missing: wanted"),
        (r#"{"source_region":"de","timestamp":0}"#.into(), "destination_region is missing: wanted text"),
        (r#"{"destination_region":"de","timestamp":0}"#.into(), "source_region is missing: wanted text"),
        ("[7]".into(), "7 is no record: wanted a JSON object"),
        ("[[1]]".into(), "an array is no record"),
        (r#"[{"source_region":"de","destination_region":"F R","timestamp":1772366400000}]"#.into(), r#"destination_region: region "F R""#),
    ] {
        let reason = bench.reason(&body);
        assert!(reason.starts_with(wanted), "{body}: {reason}");
    }
}

#[test]
fn a_record_of_another_region_is_refused_with_the_agent_to_tell() {
    let reason = Bench::new().reason(r#"{"source_region":"fr","destination_region":"de","timestamp":"2026-03-01T12:00:00Z"}"#);
    assert!(reason.starts_with(r#"source_region "fr" is not this agent's region "de""#), "{reason}");
    assert!(reason.ends_with(r#"send it to the agent of "fr""#), "{reason}");
}

#[test]
fn time_is_bounded_on_both_sides_to_the_millisecond() {
    let bench = Bench::new();
    let now = bench.rules().now.as_millis();
    let at = |ms: i64| format!(r#"{{"source_region":"de","destination_region":"fr","timestamp":{ms}}}"#);
    for good in [now - 3_600_000, now, now + 60_000] {
        assert_eq!(bench.parse(&at(good)).unwrap().records(), 1, "{good}");
    }
    assert!(bench.reason(&at(now - 3_600_001)).contains("is more than 3600s old (ingest.lateness): wanted 2026-03-01T11:00:00Z or later"));
    assert!(bench.reason(&at(now + 60_001)).contains("is more than 60s ahead of the agent's clock (ingest.max_ahead)"));
    assert!(bench.reason(&at(i64::MIN)).contains("must be RFC 3339"));
}

#[test]
fn broken_array_syntax_refuses_the_body_with_its_position() {
    let bench = Bench::new();
    let body = format!("[{},\n{} {}]", record(""), record(""), record(""));
    match bench.parse(&body) {
        Err(BodyError::Syntax { line: 2, column, reason }) => {
            assert_eq!(column, record("").len() + 2);
            assert_eq!(reason, "expected `,` or `]`");
        }
        other => panic!("{other:?}"),
    }
    for broken in ["[", "[1,]", "[]]", "[{]", "[1e999]", "[\"\\ud800\"]"] {
        assert!(matches!(bench.parse(broken), Err(BodyError::Syntax { line: 1, .. })), "{broken}");
    }
    let error = parse(b"[\n \"\xff\"]", &bench.rules()).unwrap_err();
    assert!(error.to_string().contains("line 2, column 3: invalid UTF-8"), "{error}");
    assert!(matches!(bench.parse(&"x".repeat((1 << 20) + 1)), Err(BodyError::TooLarge { .. })));
}

#[test]
fn nesting_without_end_is_refused_not_followed() {
    let bench = Bench::new();
    let deep = "[".repeat(100_000);
    assert!(bench.parse(&deep).is_err());
    assert_eq!(bench.parse(&record(&format!(r#","x":{deep}"#))).unwrap().refused, 1);
    let shut = record(&format!(r#","x":{}{}"#, "[".repeat(5_000), "]".repeat(5_000)));
    assert_eq!(bench.parse(&shut).unwrap().refused, 1);
}

#[test]
fn a_receipt_names_the_first_hundred_refusals_and_counts_all() {
    let batch = Bench::new().parse(&"7\n".repeat(5_000)).unwrap();
    assert_eq!((batch.refused, batch.refusals.len()), (5_000, 100));
}

#[test]
fn ids_are_those_of_their_tenant() {
    let bench = Bench::new();
    let body = [record(r#","id":"1""#), record(r#","id":"1","tenant":"t""#), record(r#","id":"1","count":5"#)].join("\n");
    let batch = bench.parse(&body).unwrap();
    let ids: Vec<_> = batch.identified.iter().map(|record| record.id).collect();
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn escapes_name_the_same_series() {
    let body = [record(r#","service":"db""#), record(r#","service":"d\u0062""#), record(r#","\u0073ervice":"db""#)].join("\n");
    let batch = Bench::new().parse(&body).unwrap();
    assert_eq!((batch.series.len(), batch.records()), (1, 3));
}

/// A value for a field: mostly good, sometimes anything.
fn field(good: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    const ODD: &[&str] = &["null", "true", "-1", "2.5", "\"\"", "\"a b\"", "[]", "{}", "[{\"x\":1}]", "18446744073709551615", "1e300"];
    prop_oneof![
        6 => proptest::sample::select(good).prop_map(|value| Some(value.to_string())),
        2 => Just(None),
        1 => proptest::sample::select(ODD).prop_map(|value| Some(value.to_string())),
    ]
}

fn any_record() -> impl Strategy<Value = String> {
    let times: &[&str] = &["\"2026-03-01T12:00:00Z\"", "1772366341000", "\"2026-03-01T13:59:30+02:00\"", "\"soon\""];
    let fields = (
        (field(&["\"de\""]), field(&["\"fr\"", "\"it\""]), field(times), field(&["\"a\"", "\"b\""])),
        (field(&["\"s\"", "\"t\""]), field(&["\"read\"", "\"w\\u0041\""]), field(&["0", "1", "1099511627776"])),
        (field(&["\"u\""]), field(&["0", "1.5", "7"]), field(&["{}", "{\"cpu_millis\":5}", "{\"cpu_millis\":true}", "{\"x\":1}"])),
        (proptest::bool::weighted(0.05), proptest::bool::weighted(0.05)),
    );
    fields.prop_map(|((source, destination, time, tenant), (service, kind, count), (user, latency, resources), (unknown, twice))| {
        let fields = [
            ("source_region", source.clone()),
            ("destination_region", destination),
            ("timestamp", time),
            ("tenant", tenant),
            ("service", service),
            ("transaction_type", kind),
            ("count", count),
            ("user", user),
            ("latency_ms", latency),
            ("resources", resources),
            ("other", unknown.then(|| "1".into())),
            ("source_region", if twice { source } else { None }),
        ];
        let fields: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?))).collect();
        format!("{{{}}}", fields.join(", "))
    })
}

/// Transactions and records, by series and step.
type Sums = BTreeMap<(SeriesKey, StepIndex), (u64, u64)>;

/// What the types of the protocol make of the same lines, one by one.
fn naive(lines: &[String], rules: &Rules<'_>) -> (Sums, BTreeSet<u64>) {
    let (mut sums, mut refused) = (Sums::new(), BTreeSet::new());
    for (line, text) in (1..).zip(lines) {
        // serde takes an array for an object, field by field; a sender that does so is mistaken.
        let positional = text.contains("\"resources\":[");
        let good = serde_json::from_str::<TransactionRecord>(text).ok().filter(|_| !positional).filter(|record| {
            let oldest = rules.now.before(rules.config.lateness);
            let newest = rules.now.after(rules.config.max_ahead);
            record.check().is_ok() && record.source_region == *rules.region && (oldest..=newest).contains(&record.timestamp)
        });
        match good {
            Some(record) => {
                let sum = sums.entry((record.series(), rules.step.index(record.timestamp))).or_default();
                *sum = (sum.0 + record.count, sum.1 + 1);
            }
            None => {
                refused.insert(line);
            }
        }
    }
    (sums, refused)
}

proptest! {
    #[test]
    fn folding_agrees_with_the_protocols_own_types(lines in proptest::collection::vec(any_record(), 0..40)) {
        let bench = Bench::new();
        let batch = bench.parse(&lines.join("\n")).unwrap();
        let (sums, refused) = naive(&lines, &bench.rules());
        let ours: BTreeMap<_, _> = batch
            .sums
            .iter()
            .map(|((place, step), sum)| ((batch.series[*place].key.clone(), *step), (sum.count, sum.records)))
            .collect();
        prop_assert_eq!(ours, sums);
        prop_assert_eq!(batch.refusals.iter().map(|refusal| refusal.line).collect::<BTreeSet<_>>(), refused);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bench = Bench::new();
        let _ = parse(&bytes, &bench.rules());
        let _ = parse(&[b"[", &bytes[..]].concat(), &bench.rules());
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let _ = decompress(encoding, &bytes, 1000);
        }
    }

    #[test]
    fn a_damaged_body_never_panics_and_loses_no_line(
        lines in proptest::collection::vec(any_record(), 1..8), at in any::<proptest::sample::Index>(), byte in any::<u8>()
    ) {
        let bench = Bench::new();
        let mut bytes = lines.join("\n").into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = parse(&[b"[", &bytes[..], b"]"].concat(), &bench.rules());
        if let Ok(batch) = parse(&bytes, &bench.rules()) {
            let written = bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            prop_assert_eq!(batch.records() as u64 + batch.refused, written as u64);
        }
    }
}
