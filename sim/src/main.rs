//! `tradewind-sim`: runs scenarios of the real agents on a simulated network.

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use tradewind_sim::run::{Options, run};
use tradewind_sim::scenario::{BUILT_IN, Scenario};
use tradewind_sim::trace::Detail;
use tradewind_sim::{entropy, meta};

/// Runs the real agents on a simulated network: same seed, same run.
///
/// Exit codes: 0 all rules held, 1 a rule was violated or two runs of one seed differed, 2 it could
/// not be run.
#[derive(Parser)]
#[command(version, about, long_about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario and judges it by the rules.
    Run {
        /// A built-in scenario's name, or a TOML file.
        scenario: String,
        /// From which all chance follows.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Prints the report as JSON.
        #[arg(long)]
        json: bool,
        /// Writes the trace to this file; to standard output, instead of the report, with `-`.
        #[arg(long, value_name = "FILE")]
        trace: Option<String>,
        /// How much is traced.
        #[arg(long, value_enum, default_value_t = TraceDetail::Brief)]
        detail: TraceDetail,
    },
    /// Runs a scenario twice, in two processes, and compares every packet and every trace event.
    Meta {
        /// A built-in scenario's name, or a TOML file.
        scenario: String,
        /// From which all chance follows.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Seeds bugs in the agents, one at a time, and shows how soon the rules catch each.
    #[cfg(feature = "mutants")]
    Mutants(tradewind_sim::mutants::Arguments),
    /// Lists the built-in scenarios.
    List,
}

#[derive(Clone, Copy, ValueEnum)]
enum TraceDetail {
    /// Packets, and events from INFO up.
    Brief,
    /// Packets, and every event and span.
    Full,
}

fn main() -> ExitCode {
    let passed = match Arguments::parse().command {
        Command::Run { scenario, seed, json, trace, detail } => run_scenario(&scenario, seed, json, trace.as_deref(), detail),
        Command::Meta { scenario, seed, json } => compare(&scenario, seed, json),
        #[cfg(feature = "mutants")]
        Command::Mutants(arguments) => tradewind_sim::mutants::run(&arguments).and_then(|(text, passed)| say(&text).map(|()| passed)),
        Command::List => list(),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tradewind-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run_scenario(name: &str, seed: u64, json: bool, trace: Option<&str>, detail: TraceDetail) -> anyhow::Result<bool> {
    #[cfg(feature = "mutants")]
    tradewind_sim::mutants::check_chosen()?;
    let scenario = load(name)?;
    let detail = match detail {
        TraceDetail::Brief => Detail::Brief,
        TraceDetail::Full => Detail::Full,
    };
    let sink: Option<Box<dyn Write + Send>> = match trace {
        None => None,
        Some("-") => Some(Box::new(BufWriter::with_capacity(1 << 20, std::io::stdout()))),
        Some(file) => {
            let file = std::fs::File::create(file).with_context(|| format!("cannot write the trace to {file}"))?;
            Some(Box::new(BufWriter::with_capacity(1 << 20, file)))
        }
    };
    let report = run(&scenario, Options { seed, detail, sink })?;
    if trace == Some("-") {
        return Ok(report.passed());
    }
    say(&if json { serde_json::to_string_pretty(&report)? } else { report.to_text() })?;
    Ok(report.passed())
}

fn compare(name: &str, seed: u64, json: bool) -> anyhow::Result<bool> {
    load(name)?;
    if !entropy::is_covered() {
        eprintln!("tradewind-sim: on this platform chance and clock of the operating system are not replaced: runs of one seed may differ");
    }
    let compared = meta::compare(&std::env::current_exe()?, name, seed)?;
    let text = match &compared.difference {
        _ if json => serde_json::to_string_pretty(&compared)?,
        None => format!("{name}, seed {seed}: two processes, {} equal lines", compared.equal_lines),
        Some(difference) => {
            let shown = |line: &Option<String>| line.clone().unwrap_or_else(|| "(the trace ended)".into());
            let before: String = difference.before.iter().map(|line| format!("    {line}\n")).collect();
            let (first, second) = (shown(&difference.first), shown(&difference.second));
            format!("{name}, seed {seed}: the runs differ after {} equal lines\n{before}  - {first}\n  + {second}", compared.equal_lines)
        }
    };
    say(&text)?;
    Ok(compared.difference.is_none())
}

fn list() -> anyhow::Result<bool> {
    for (name, text) in BUILT_IN {
        say(&format!("{name:16} {}", Scenario::parse(text)?.about))?;
    }
    Ok(true)
}

/// The built-in scenario of that name, or the one in that file.
fn load(name: &str) -> anyhow::Result<Scenario> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Ok(Scenario::parse(text)?);
    }
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("{name:?} is neither a built-in scenario (see `tradewind-sim list`) nor a file that can be read"))?;
    Scenario::parse(&text).with_context(|| format!("in {name}"))
}

/// Prints to standard output; whoever has stopped reading is no error.
fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
