//! Records a second through ingest and history on one core, beside two baselines of the same run:
//! copying the same bytes, and parsing them into `serde_json::Value`. `cargo bench -p tradewind-agent
//! --bench ingest`.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tradewind_agent::config::IngestConfig;
use tradewind_agent::env::Env;
use tradewind_agent::history::{self, HistoryHandle};
use tradewind_agent::ingest::{Encoding, Rules, decompress, parse};
use tradewind_agent::store::Store;
use tradewind_protocol::{IdempotencyKey, RegionId, Step, Timestamp};

/// Records in a body: what the aim of 200,000 records a second is stated for.
const RECORDS: usize = 1_000;

/// How long each figure is measured: long enough that a busy machine's pauses even out.
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let region = RegionId::new("frankfurt")?;
    let config = IngestConfig {
        lateness: Duration::from_secs(3600),
        max_ahead: Duration::from_secs(60),
        close_after: Duration::from_secs(5),
        max_body_bytes: 8 << 20,
        max_pending_records: 100_000,
        max_series: 10_000,
        max_series_per_tenant: 10_000,
        retention: Duration::from_secs(14 * 86_400),
        retention_5m: Duration::from_secs(14 * 86_400),
        retention_1h: Duration::from_secs(14 * 86_400),
    };
    let step = Step::new(Duration::from_secs(60))?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let env = Env::real(dir.path())?;
    let rules = Rules { region: &region, step, now: env.clock.now(), config: &config };

    let lines: Vec<String> = (0..RECORDS).map(|i| record(i, rules.now, None)).collect();
    let (ndjson, array) = (lines.join("\n").into_bytes(), format!("[{}]", lines.join(",")).into_bytes());
    let identified: Vec<String> = (0..RECORDS).map(|i| record(i, rules.now, Some(i))).collect();
    let identified = identified.join("\n").into_bytes();
    let (gzip, zstd) = (gzip(&ndjson)?, zstd::stream::encode_all(&ndjson[..], 3)?);
    println!("{RECORDS} records, {} bytes a record, one thread", ndjson.len() / RECORDS);

    let mut copy = vec![0; array.len()];
    measure("copy the bytes", None, || copy.copy_from_slice(black_box(&array)));
    let value = measure("serde_json::Value of the array", None, || {
        black_box(serde_json::from_slice::<serde_json::Value>(&array).is_ok());
    });
    for (name, body) in [("parse + fold array", &array), ("parse + fold NDJSON", &ndjson), ("parse + fold NDJSON with ids", &identified)] {
        measure(name, Some(value), || assert_eq!(parse(body, &rules).map(|batch| batch.records()).unwrap_or(0), RECORDS));
    }
    for (name, encoding, body) in [("gzip, parse + fold", Encoding::Gzip, &gzip), ("zstd, parse + fold", Encoding::Zstd, &zstd)] {
        measure(name, Some(value), || {
            let bytes = decompress(encoding, body, config.max_body_bytes).unwrap_or_default();
            assert_eq!(parse(&bytes, &rules).map(|batch| batch.records()).unwrap_or(0), RECORDS);
        });
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&env).await?;
        let (handle, history) = history::open(&env, &store, step, &region, &config).await?;
        let history = tokio::spawn(history.run());
        for senders in [1, 8, 32] {
            commit(&format!("parse + fold + commit, {senders} senders"), value, senders, &handle, &ndjson, &rules).await?;
        }
        drop(handle);
        history.await?;
        let began = Instant::now();
        let reopened = history::open(&env, &store, step, &region, &config).await?;
        println!("{:<38} {:>12.1} ms for {} series", "open again", began.elapsed().as_secs_f64() * 1e3, reopened.0.stats().series);
        anyhow::Ok(())
    })
}

/// As many appends with a key as fit into the time, from `senders` at once.
async fn commit(name: &str, baseline: f64, senders: usize, handle: &HistoryHandle, body: &[u8], rules: &Rules<'_>) -> anyhow::Result<()> {
    let before = handle.stats();
    let began = Instant::now();
    let send = async |sender: usize| {
        let mut round = 0;
        while began.elapsed() < MEASURED {
            let key = IdempotencyKey::new(&format!("{senders}-{sender}-{round}"))?;
            handle.append(parse(body, rules)?, Some(key)).await?;
            round += 1;
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join_all((0..senders).map(send)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = handle.stats();
    let (records, commits) = (after.accepted - before.accepted, after.commits - before.commits);
    print(name, records as f64 / seconds, Some(baseline));
    println!(
        "{:<38} {:>12.2} ms a commit, {:.1} batches in one",
        "",
        seconds * 1e3 / commits as f64,
        records as f64 / 1e3 / commits as f64
    );
    Ok(())
}

/// Records a second of `work`, which does one body.
fn measure(name: &str, baseline: Option<f64>, mut work: impl FnMut()) -> f64 {
    work();
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < MEASURED {
        work();
        rounds += 1;
    }
    let rate = (rounds * RECORDS) as f64 / began.elapsed().as_secs_f64();
    print(name, rate, baseline);
    rate
}

fn print(name: &str, rate: f64, baseline: Option<f64>) {
    let ratio = baseline.map(|baseline| format!("{:.2} x serde_json::Value", rate / baseline)).unwrap_or_default();
    println!("{name:<38} {rate:>12.0} records/s  {:>8.0} ns each  {ratio}", 1e9 / rate);
}

/// One of 144 series: twelve regions, three services, four types.
fn record(i: usize, now: Timestamp, id: Option<usize>) -> String {
    let id = id.map(|id| format!(r#""id":"0190f5fe-7b3a-7c6e-9d2b-{id:012}","#)).unwrap_or_default();
    let at = Timestamp::from_millis(now.as_millis() - i as i64 % 1_000).unwrap_or(now);
    format!(
        r#"{{{id}"source_region":"frankfurt","destination_region":"region-{}","service":"service-{}","transaction_type":"type-{}","user":"user-{i}","timestamp":"{at}","count":{},"latency_ms":12.5}}"#,
        i % 12,
        i / 12 % 3,
        i / 36 % 4,
        i % 7 + 1,
    )
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
