//! The main job by one command: a mesh of agents on recorded traffic.
//!
//! The demo starts one agent a region as a real process, with its own certificate, data directory
//! and ports; replays a day of recorded traffic between the regions through the agents' public API,
//! each recorded five minutes in one step of 200 ms, after a week of history; lets them gossip,
//! forecast, plan and run real worker processes; and compares what came of it with a reactive scaler
//! on the same traffic. It knows of the agents only what their API tells.

mod client;
mod fleet;
pub mod reactive;
mod report;
mod score;
mod trace;

use anyhow::{Context as _, ensure};
use fleet::Fleet;
use report::Report;
use score::Scores;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trace::{HISTORY_ROWS, Trace};
use tradewind_protocol::api::{CapacitySample, ForecastView};
use tradewind_protocol::{ServiceName, Step, StepIndex, TenantName, Timestamp, TransactionRecord, TransactionType};

/// One step of the agents, standing for five recorded minutes.
const STEP: Duration = Duration::from_millis(200);
/// What is ordered after step `t` serves from step `t + LEAD_STEPS` on.
const LEAD_STEPS: usize = 3;
/// The quantile that the agents provision for.
const QUANTILE: f64 = 0.975;
/// Between the end of the history's upload and the replay: the agents take it in.
const PAUSE: Duration = Duration::from_secs(3);
/// Records a request while the history is uploaded.
const HISTORY_BATCH: usize = 2_000;
/// How often the progress line is renewed.
const PROGRESS_EVERY: usize = 5;
/// Forecasts are fetched for scoring from so many regions a step, in turn: fetching and reading all
/// of twelve would take a core from the agents.
const FORECASTS_A_STEP: usize = 2;

/// What can be chosen on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many regions, each with an agent of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=12))]
    regions: u8,
    /// How long to replay: a recorded day, 288 steps, takes 58 s.
    #[arg(long, default_value = "50s", value_parser = duration)]
    duration: Duration,
    /// Print the summary as one JSON document.
    #[arg(long)]
    json: bool,
    /// Stay up after the summary and print the URLs and commands to try.
    #[arg(long)]
    keep: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let longest = STEP * trace::ROWS_PER_DAY as u32;
    let parsed = humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 30s or 1m"))?;
    if (STEP * 25..=longest).contains(&parsed) { Ok(parsed) } else { Err(format!("must be between 5s and {longest:?}, the recorded day")) }
}

/// Runs the demo until it is done or interrupted.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let interrupted = crate::agent::interrupted()?;
    tokio::pin!(interrupted);
    let say = Say { quiet: options.json };
    let trace = Trace::load(usize::from(options.regions))?;
    let program = std::env::current_exe().context("cannot find the demo's own program")?;
    say.line(format_args!("Starting {} agents, one a region, each with its own certificate, data and ports ...", options.regions));
    let mut fleet = tokio::select! {
        biased;
        () = &mut interrupted => return Ok(()),
        fleet = Fleet::start(&trace, &program) => fleet?,
    };
    let played = tokio::select! {
        biased;
        () = &mut interrupted => None,
        played = play(&options, &trace, &fleet, &say) => Some(played),
    };
    if let (Some(Ok(report)), true) = (&played, options.keep) {
        report.print(options.json)?;
        print_hints(&fleet);
        interrupted.await;
    }
    say.line(format_args!("Stopping the agents ..."));
    fleet.stop().await;
    let leaked = fleet.left_behind();
    match played {
        None => say.line(format_args!("Interrupted; nothing is left behind.")),
        Some(Ok(_)) if options.keep => {}
        Some(Ok(mut report)) => {
            report.workers.leaked = leaked;
            report.print(options.json)?;
        }
        Some(Err(error)) => {
            fleet.keep_files();
            return Err(error.context(format!("the agents' logs are in {}", fleet.directory.display())));
        }
    }
    ensure!(leaked == 0, "{leaked} processes were left behind");
    Ok(())
}

async fn play(options: &Options, trace: &Trace, fleet: &Fleet, say: &Say) -> anyhow::Result<Report> {
    let steps = (options.duration.as_millis() / STEP.as_millis()) as usize;
    say.line(format_args!("The mesh is complete: every agent sees every region after {:?}.", round(fleet.convergence)));
    say.line(format_args!("Uploading a week of recorded traffic between the regions ..."));
    let step = Step::new(STEP)?;
    // The first replayed step; the history ends just before it.
    let upload = Duration::from_millis(trace.regions.len() as u64 * 250);
    let first = step.index(now()?.after(upload + PAUSE));
    let mut records = upload_history(trace, fleet, step, first).await?;
    say.line(format_args!("Replaying {steps} steps: each is five recorded minutes in {STEP:?}."));
    let mut scores = Scores::new(trace);
    let mut mesh_bytes = BytesMeter::start(fleet).await?;
    for live in 0..steps {
        let row = HISTORY_ROWS + live;
        let at = step.start(first.offset(live as i64));
        tokio::time::sleep_until(Instant::now() + at.since(now()?)).await;
        records += post_row(trace, fleet, row, at).await?;
        for turn in 0..FORECASTS_A_STEP {
            let source = (live * FORECASTS_A_STEP + turn) % fleet.members.len();
            let path = format!("/v1/forecasts?from={}", fleet.members[source].region);
            let forecasts: Vec<ForecastView> = fleet.members[source].client.get(&path).await?;
            scores.note(trace, source, &forecasts, first);
        }
        if live % PROGRESS_EVERY == PROGRESS_EVERY - 1 {
            let workers = ready_workers(fleet).await?;
            say.progress(format_args!(
                "step {:>3}/{steps}  records {records:>6}  {}  workers ready {workers:>3}",
                live + 1,
                scores.latest(trace, row),
            ));
        }
    }
    say.line(format_args!(""));
    // The last step has to be closed before its capacity is known.
    tokio::time::sleep(STEP * 3).await;
    let mut capacity = vec![];
    for member in &fleet.members {
        capacity.push(member.client.get::<Vec<CapacitySample>>(&format!("/v1/capacity?since={}", first.0 - 1)).await?);
    }
    let bytes_per_agent_second = mesh_bytes.stop(fleet).await?;
    let started = workers_started(fleet).await?;
    Report::new(trace, fleet, report::Played { steps, first, records, scores, capacity, bytes_per_agent_second, started })
}

/// Uploads the rows before the replay, all agents at a time, and returns how many records it took.
async fn upload_history(trace: &Trace, fleet: &Fleet, step: Step, first: StepIndex) -> anyhow::Result<u64> {
    let mut uploads = JoinSet::new();
    for (source, member) in fleet.members.iter().enumerate() {
        let all: Vec<TransactionRecord> = (0..HISTORY_ROWS)
            .flat_map(|row| records_of(trace, row, source, step.start(first.offset(row as i64 - HISTORY_ROWS as i64))))
            .collect();
        let client = member.client.clone();
        uploads.spawn(async move {
            let mut accepted = 0;
            for batch in all.chunks(HISTORY_BATCH) {
                accepted += counted(client.post(batch.to_vec()).await?)?;
            }
            anyhow::Ok(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(upload) = uploads.join_next().await {
        accepted += upload??;
    }
    ensure!(step.start(first) > now()?, "this machine is too slow: the history took longer to upload than was planned for");
    Ok(accepted)
}

async fn post_row(trace: &Trace, fleet: &Fleet, row: usize, at: Timestamp) -> anyhow::Result<u64> {
    let mut posts = JoinSet::new();
    for (source, member) in fleet.members.iter().enumerate() {
        let (client, records) = (member.client.clone(), records_of(trace, row, source, at));
        posts.spawn(async move { counted(client.post(records).await?) });
    }
    let mut accepted = 0;
    while let Some(post) = posts.join_next().await {
        accepted += post??;
    }
    Ok(accepted)
}

fn counted(receipt: tradewind_protocol::api::IngestReceipt) -> anyhow::Result<u64> {
    ensure!(receipt.refused == 0, "records were refused: {:?}", receipt.refusals.first());
    Ok(receipt.accepted)
}

/// What the region `source` saw in `row`: one record a destination, one transaction a megabyte.
fn records_of(trace: &Trace, row: usize, source: usize, at: Timestamp) -> Vec<TransactionRecord> {
    let others = trace.regions.iter().enumerate().filter(|(destination, _)| *destination != source);
    let record = |(destination, node): (usize, &trace::Node)| TransactionRecord {
        id: None,
        tenant: TenantName::default(),
        source_region: trace.regions[source].region.clone(),
        destination_region: node.region.clone(),
        service: service(),
        transaction_type: TransactionType::default(),
        user: None,
        timestamp: at,
        count: trace.from(row, source)[destination],
        latency_ms: None,
        resources: None,
    };
    others.map(record).collect()
}

fn service() -> ServiceName {
    ServiceName::new("transfer").unwrap_or_default()
}

async fn ready_workers(fleet: &Fleet) -> anyhow::Result<u32> {
    let mut ready = 0;
    for member in &fleet.members {
        ready += member.client.get::<tradewind_protocol::api::Status>("/v1/status").await?.instances_ready;
    }
    Ok(ready)
}

/// How many workers the agents have started, by their own metrics.
async fn workers_started(fleet: &Fleet) -> anyhow::Result<u64> {
    let mut started = 0.0;
    for member in &fleet.members {
        started += member.client.metric("tradewind_instances_started_total").await?;
    }
    Ok(started as u64)
}

/// Bytes that the agents sent to each other, by their own metrics.
struct BytesMeter {
    since: Instant,
    before: f64,
}

impl BytesMeter {
    async fn start(fleet: &Fleet) -> anyhow::Result<Self> {
        Ok(Self { since: Instant::now(), before: Self::total(fleet).await? })
    }

    async fn stop(&mut self, fleet: &Fleet) -> anyhow::Result<f64> {
        let sent = Self::total(fleet).await? - self.before;
        Ok(sent / fleet.members.len() as f64 / self.since.elapsed().as_secs_f64())
    }

    async fn total(fleet: &Fleet) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for member in &fleet.members {
            total += member.client.metric("tradewind_mesh_sent_bytes_total").await?;
        }
        Ok(total)
    }
}

fn print_hints(fleet: &Fleet) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "\nThe agents stay up; Ctrl-C ends them. To look around:");
    for member in &fleet.members {
        let _ = writeln!(out, "  {:<8} {}/v1/status   {}", member.region.to_string(), member.client.base(), member.config.display());
    }
    if let [one, other, ..] = &fleet.members[..] {
        let cli = "cargo run --release -p tradewind-coordinator --";
        let _ = writeln!(out, "\n  export TRADEWIND_AGENT={}", one.client.base());
        let _ = writeln!(out, "  {cli} status");
        let _ = writeln!(out, "  {cli} regions");
        let _ = writeln!(out, "  {cli} forecasts --from {} --to {}", one.region, other.region);
        let _ = writeln!(out, "  {cli} plan");
        let _ = writeln!(out, "  {cli} events -f");
    }
}

fn now() -> anyhow::Result<Timestamp> {
    Ok(Timestamp::EPOCH.after(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?))
}

fn round(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}

/// What the demo says while it runs: on standard error, so that `--json` prints one document.
struct Say {
    quiet: bool,
}

impl Say {
    fn line(&self, text: std::fmt::Arguments) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A line that the next one replaces, on a terminal.
    fn progress(&self, text: std::fmt::Arguments) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stderr();
        let _ = if out.is_terminal() { write!(out, "\r\x1b[2K{text}") } else { writeln!(out, "{text}") };
        let _ = out.flush();
    }
}
