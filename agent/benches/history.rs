//! What a hundred thousand series take: `cargo bench -p tradewind-agent --bench history [-- SERIES STEPS]`. One core.
//!
//! All series count in every one of STEPS steps; then one in a hundred goes on and the others fall silent until they are
//! cold. Each figure is this process's resident memory, above what it was before the first record, and the time that commits
//! and closes took.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tradewind_agent::config::IngestConfig;
use tradewind_agent::env::{Clock, Env};
use tradewind_agent::history::{self, HistoryHandle};
use tradewind_agent::ingest::{Rules, parse};
use tradewind_agent::store::Store;
use tradewind_protocol::{RegionId, SeriesKey, Step, StepIndex, Timestamp};

const MINUTE: i64 = 60_000;
/// A Monday at midnight.
const BEGIN: i64 = 1_767_571_200_000;
/// Steps without a count that make a series cold.
const COLD: usize = 256;
/// Records of one batch.
const BATCH: usize = 5_000;

#[derive(Debug)]
struct Wall(AtomicI64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::saturating_from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (series, steps) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(300));
    let day = Duration::from_secs(86_400);
    let config = IngestConfig {
        lateness: Duration::from_secs(3600),
        max_ahead: Duration::from_secs(60),
        close_after: Duration::from_secs(5),
        max_body_bytes: 8 << 20,
        max_pending_records: 200_000,
        max_series: series,
        max_series_per_tenant: series,
        retention: 14 * day,
        retention_5m: 92 * day,
        retention_1h: 400 * day,
    };
    let (region, step) = (RegionId::new("frankfurt")?, Step::new(Duration::from_secs(60))?);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let wall = Arc::new(Wall(AtomicI64::new(BEGIN)));
    let env = Env { clock: wall.clone(), ..Env::real(dir.path())? };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&env).await?;
        let (handle, history) = history::open(&env, &store, step, &region, &config).await?;
        let counting = tokio::spawn(history.run());
        let before = resident()?;
        let told = |name: &str, spent: &Spent| -> anyhow::Result<()> {
            let bytes = resident()?.saturating_sub(before);
            println!(
                "{name:<34} {:>6} bytes a series resident ({} MB); a step: {:.0} ms in commits, {:.1} ms to close, {} series closed",
                bytes / series,
                bytes >> 20,
                spent.commits.as_secs_f64() * 1e3 / spent.steps as f64,
                spent.closes.as_secs_f64() * 1e3 / spent.steps as f64,
                spent.closed,
            );
            Ok(())
        };
        let rules = |at: i64| Rules { region: &region, step, now: Timestamp::saturating_from_millis(BEGIN + at * MINUTE), config: &config };
        for (name, from, until, every) in
            [("all counted", 0, steps as i64, 1), ("then one in a hundred", steps as i64, steps as i64 + 400, 100)]
        {
            let mut spent = Spent::default();
            for at in from..until {
                wall.0.store(BEGIN + at * MINUTE + 30_000, Ordering::Relaxed);
                let numbers: Vec<usize> = (0..series).step_by(every).collect();
                for some in numbers.chunks(BATCH) {
                    let text: String = some.iter().map(|number| record(*number, BEGIN + at * MINUTE)).collect();
                    let batch = parse(text.as_bytes(), &rules(at))?;
                    let began = Instant::now();
                    let receipt = handle.append(batch, None).await?;
                    anyhow::ensure!(receipt.refused == 0, "{receipt:?}");
                    spent.commits += began.elapsed();
                }
                spent.close(&handle, step.index(Timestamp::saturating_from_millis(BEGIN + at * MINUTE))).await?;
            }
            told(name, &spent)?;
        }
        for (level, columns, bytes) in handle.size().await? {
            println!("{level:?}: {columns} columns, {} bytes a series", bytes / series as u64);
        }
        let until = step.index(Timestamp::saturating_from_millis(wall.0.load(Ordering::Relaxed)));
        let (began, mut after, mut pages) = (Instant::now(), None::<SeriesKey>, 0);
        loop {
            let page = handle.warm_windows(after.take(), 64, until, 768).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            pages += 1;
        }
        println!("reading windows of 768 steps: {:.1} s, {pages} pages", began.elapsed().as_secs_f64());
        drop(handle);
        counting.await?;
        let began = Instant::now();
        let (handle, _history) = history::open(&env, &store, step, &region, &config).await?;
        println!(
            "open again: {:.2} s for {} series, file {} MB",
            began.elapsed().as_secs_f64(),
            handle.stats().series,
            file(dir.path())? >> 20
        );
        anyhow::Ok(())
    })
}

#[derive(Default)]
struct Spent {
    commits: Duration,
    closes: Duration,
    steps: u32,
    closed: usize,
}

impl Spent {
    async fn close(&mut self, handle: &HistoryHandle, at: StepIndex) -> anyhow::Result<()> {
        let began = Instant::now();
        self.closed = handle.close_warm(at, COLD).await?.counts.len();
        self.closes += began.elapsed();
        self.steps += 1;
        Ok(())
    }
}

/// Series of one of fifty regions, forty services and as many types as it takes.
fn record(number: usize, at: i64) -> String {
    let (to, service, kind) = (number % 50, number / 50 % 40, number / 2_000);
    let count = 1 + (number * 31 + at as usize / 60_000 * 7) % 97;
    format!(
        r#"{{"source_region":"frankfurt","destination_region":"region-{to}","service":"service-{service}","transaction_type":"type-{kind}","timestamp":{at},"count":{count}}}"#
    ) + "\n"
}

/// Resident bytes of this process.
fn resident() -> anyhow::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}

fn file(dir: &std::path::Path) -> anyhow::Result<u64> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
