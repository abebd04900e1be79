//! `tradewind-sim`: runs scenarios of the real agents on a simulated network.

mod allocator;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tradewind_sim::case::{self, Case, load};
use tradewind_sim::report::{PageFile, Report};
use tradewind_sim::run::{Options, run};
use tradewind_sim::scenario::{BUILT_IN, Scenario};
use tradewind_sim::sweep::Sweep;
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
        /// Writes the report as a page with charts to this file.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
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
    /// Forecasts of recorded series.
    Forecast(tradewind_sim::forecast::Arguments),
    /// Anomaly detection on labelled series.
    Nab(tradewind_sim::nab::Arguments),
    /// Replays recorded demand through the planner's policy and its rivals: what is late, at which bill.
    Backtest(tradewind_sim::backtest::Arguments),
    /// Runs many seeds of a scenario, each in a process of its own. The last line is a summary.
    Sweep {
        /// A built-in scenario's name, or a TOML file.
        scenario: String,
        /// How many seeds.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed_base: u64,
        /// How many processes at a time; as many as there are cores if it is not given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Writes what the first failing seeds did to this directory, one case a seed, to be replayed or shrunk.
        #[arg(long, value_name = "DIRECTORY")]
        save: Option<PathBuf>,
        /// Fails if a coverage mark of the agents is reached by no seed; needs a build with the feature `mutants`.
        #[arg(long)]
        require_marks: bool,
        /// Seeds bugs in the agents, one at a time, and shows how many seeds it took to catch each: `mutants` with this scenario alone.
        #[cfg(feature = "mutants")]
        #[arg(long, conflicts_with_all = ["save", "require_marks"])]
        mutants: bool,
    },
    /// Runs a case again that `sweep --save` or `shrink` has written.
    Replay {
        /// The case.
        file: PathBuf,
        /// Prints the report as JSON.
        #[arg(long)]
        json: bool,
        /// Writes the trace to this file.
        #[arg(long, value_name = "FILE")]
        trace: Option<String>,
    },
    /// Makes a case smaller that breaks a rule: fewer faults, less traffic or none, fewer regions, less time.
    Shrink {
        /// The case, or a scenario's name with `--seed`.
        file: String,
        /// The seed, where a scenario is named.
        #[arg(long)]
        seed: Option<u64>,
        /// Where the smaller one is written.
        #[arg(long, short)]
        output: PathBuf,
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
    allocator::spare_the_kernel();
    let passed = match Arguments::parse().command {
        Command::Run { scenario, seed, json, html, trace, detail } => {
            run_scenario(&scenario, seed, json, html.as_deref(), trace.as_deref(), detail)
        }
        Command::Meta { scenario, seed, json } => compare(&scenario, seed, json),
        Command::Forecast(arguments) => arguments.run().and_then(|text| say(&text)).map(|()| true),
        Command::Nab(arguments) => arguments.run().and_then(|text| say(&text)).map(|()| true),
        Command::Backtest(arguments) => arguments.run().and_then(|text| say(&text)).map(|()| true),
        #[cfg(feature = "mutants")]
        Command::Sweep { scenario, seeds, seed_base, jobs, mutants: true, .. } => {
            let jobs = jobs.unwrap_or_else(cores);
            let hunt = tradewind_sim::mutants::Arguments::one(scenario, seeds, seed_base, jobs);
            tradewind_sim::mutants::run(&hunt).and_then(|(text, passed)| say(&text).map(|()| passed))
        }
        Command::Sweep { scenario, seeds, seed_base, jobs, save, require_marks, .. } => {
            sweep(&scenario, seeds, seed_base, jobs, save.as_deref(), require_marks)
        }
        Command::Replay { file, json, trace } => replay(&file, json, trace.as_deref()),
        Command::Shrink { file, seed, output } => shrink(&file, seed, &output),
        #[cfg(feature = "mutants")]
        Command::Mutants(arguments) => tradewind_sim::mutants::run(&arguments).and_then(|(text, passed)| say(&text).map(|()| passed)),
        Command::List => list(),
    };
    ExitCode::from(u8::try_from(code(passed)).unwrap_or(u8::MAX))
}

/// The exit code, for whether everything passed; an error is told.
fn code(passed: anyhow::Result<bool>) -> i32 {
    match passed {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            eprintln!("tradewind-sim: {error:#}");
            2
        }
    }
}

fn run_scenario(name: &str, seed: u64, json: bool, html: Option<&Path>, trace: Option<&str>, detail: TraceDetail) -> anyhow::Result<bool> {
    #[cfg(feature = "mutants")]
    tradewind_sim::mutants::check_chosen()?;
    let scenario = load(name)?;
    let detail = match detail {
        TraceDetail::Brief => Detail::Brief,
        TraceDetail::Full => Detail::Full,
    };
    let page = html.map(PageFile::create).transpose()?;
    let quiet = trace == Some("-");
    let (file, about) = (html.map(Path::to_owned), scenario.about.clone());
    let on_standstill = move |report: Report| {
        let page = file.as_deref().map(PageFile::create).transpose();
        std::process::exit(code(page.and_then(|page| tell(&report, json, quiet, page, &about)).map(|()| false)))
    };
    let report = run(&scenario, Options { seed, detail, sink: sink(trace)?, on_standstill: Box::new(on_standstill) })?;
    tell(&report, json, quiet, page, &scenario.about)?;
    traced(&report)?;
    Ok(report.passed())
}

/// Shows the report where it is wanted: printed, unless the trace is, and as a page.
fn tell(report: &Report, json: bool, quiet: bool, page: Option<PageFile>, about: &str) -> anyhow::Result<()> {
    if !quiet {
        show(report, json)?;
    }
    page.map_or(Ok(()), |page| page.fill(&tradewind_sim::report::page::html(report, about)))
}

/// A trace that is not whole is an error, unless whoever reads it has stopped.
fn traced(report: &Report) -> anyhow::Result<()> {
    match &report.trace.unwritten {
        Some(error) => bail!("the trace could not be written whole: {error}"),
        None => Ok(()),
    }
}

fn sink(trace: Option<&str>) -> anyhow::Result<Option<Box<dyn Write + Send>>> {
    Ok(match trace {
        None => None,
        Some("-") => Some(Box::new(BufWriter::with_capacity(1 << 20, std::io::stdout()))),
        Some(file) => {
            let file = std::fs::File::create(file).with_context(|| format!("cannot write the trace to {file}"))?;
            Some(Box::new(BufWriter::with_capacity(1 << 20, file)))
        }
    })
}

fn show(report: &Report, json: bool) -> anyhow::Result<bool> {
    say(&if json { serde_json::to_string_pretty(report)? } else { report.to_text() })?;
    Ok(report.passed())
}

/// The marks of this program's agents, none but with the feature `mutants`.
fn marks() -> Vec<&'static str> {
    #[cfg(feature = "mutants")]
    return tradewind_sim::mutants::marks().to_vec();
    #[cfg(not(feature = "mutants"))]
    vec![]
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn sweep(scenario: &str, seeds: u64, base: u64, jobs: Option<usize>, save: Option<&Path>, require_marks: bool) -> anyhow::Result<bool> {
    let marks = marks();
    if require_marks && marks.is_empty() {
        bail!("--require-marks: this program has no marks; build it with `--features mutants`");
    }
    load(scenario)?;
    if let Some(directory) = save {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let jobs = jobs.unwrap_or_else(cores);
    let sweep = Sweep { scenario, base, seeds, jobs };
    let outcome = sweep.run(&std::env::current_exe()?)?;
    if let Some(directory) = save {
        for seed in outcome.failed.keys() {
            Case::of(scenario, *seed)?.write(&directory.join(format!("seed-{seed}.json")))?;
        }
    }
    say(&sweep.table(&outcome))?;
    if !marks.is_empty() {
        say("")?;
        say(&outcome.marks_table(&marks))?;
    }
    let missing = if require_marks { outcome.unreached(&marks) } else { vec![] };
    if !missing.is_empty() {
        say(&format!("no seed reached: {}", missing.join(", ")))?;
    }
    say(&sweep.summary(&outcome))?;
    Ok(outcome.failed.is_empty() && missing.is_empty())
}

fn replay(file: &Path, json: bool, trace: Option<&str>) -> anyhow::Result<bool> {
    #[cfg(feature = "mutants")]
    tradewind_sim::mutants::check_chosen()?;
    let case = Case::read(file)?;
    let on_standstill = move |report: Report| std::process::exit(code(show(&report, json).map(|_| false)));
    let options = Options { seed: case.seed, detail: Detail::Brief, sink: sink(trace)?, on_standstill: Box::new(on_standstill) };
    let report = run(&case.scenario()?, options)?;
    let passed = show(&report, json)?;
    traced(&report)?;
    Ok(passed)
}

fn shrink(file: &str, seed: Option<u64>, output: &Path) -> anyhow::Result<bool> {
    let case = match seed {
        Some(seed) => Case::of(file, seed)?,
        None if file.ends_with(".json") => Case::read(Path::new(file))?,
        None => bail!("{file}: give a case (.json), or a scenario's name and --seed"),
    };
    if let Some(directory) = output.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.is_dir()) {
        bail!("cannot write {}: there is no directory {}", output.display(), directory.display());
    }
    let scratch = std::env::temp_dir().join(format!("tradewind-shrink-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let small = case::shrink(&std::env::current_exe()?, case, &scratch, |line| eprintln!("{line}"));
    let _ = std::fs::remove_dir_all(&scratch);
    let small = small?;
    small.write(output)?;
    let left = small.scenario()?;
    say(&format!(
        "{}: {} faults, {} regions, {:.0} s",
        output.display(),
        left.incidents.len(),
        left.regions.len(),
        left.duration.as_secs_f64()
    ))?;
    Ok(true)
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

/// Prints to standard output; whoever has stopped reading is no error.
fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}
