//! Many seeds of one scenario, each in a process of its own: only the first simulation of a process
//! is its seed's own run, and processes use all cores.

use crate::report::{Crossings, Report};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The states of [`Oracle::state_of`](crate::oracle::Oracle::state_of).
const STATES: [&str; 4] = ["starting", "joining", "settled", "down"];

/// Cells of the progress bar.
const BAR: usize = 40;

/// What to sweep over.
pub struct Sweep<'a> {
    /// A built-in scenario's name, or a TOML file.
    pub scenario: &'a str,
    /// The first seed.
    pub base: u64,
    /// How many.
    pub seeds: u64,
    /// How many processes at a time.
    pub jobs: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Seeds that ran.
    pub ran: u64,
    /// Seeds that broke a rule, each with its report, or that could not be run, with the reason.
    pub failed: BTreeMap<u64, Result<Report, String>>,
    /// Virtual seconds of all runs.
    pub simulated_s: f64,
    /// By fault, how often it met an agent in each state.
    pub crossings: Crossings,
    /// How often each coverage mark was reached, in builds with the feature `mutants`.
    pub marks: BTreeMap<String, Reached>,
    /// Seconds that it took.
    pub wall_s: f64,
}

/// How often something was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// In all seeds together.
    pub times: u64,
    /// In how many of them.
    pub seeds: u64,
}

impl Outcome {
    fn mark(&mut self, marks: &BTreeMap<String, u64>) {
        for (mark, times) in marks {
            let reached = self.marks.entry(mark.clone()).or_default();
            *reached = Reached { times: reached.times + times, seeds: reached.seeds + 1 };
        }
    }

    /// Those of `all` that no seed has reached.
    pub fn unreached<'a>(&self, all: &[&'a str]) -> Vec<&'a str> {
        all.iter().copied().filter(|mark| !self.marks.contains_key(*mark)).collect()
    }

    /// How often each of `all` marks was reached, also those that no seed has reached.
    pub fn marks_table(&self, all: &[&str]) -> String {
        let row = |mark: &&str| {
            let Reached { times, seeds } = self.marks.get(*mark).copied().unwrap_or_default();
            format!("| {mark} | {times} | {seeds} |")
        };
        let head = ["| mark | times | seeds |".to_owned(), "|---|---|---|".to_owned()];
        head.into_iter().chain(all.iter().map(row)).collect::<Vec<_>>().join("\n")
    }
}

impl Sweep<'_> {
    /// Runs all seeds with the program at `program`, telling of progress and failures as they come.
    pub fn run(&self, program: &Path) -> anyhow::Result<Outcome> {
        if self.seeds == 0 || self.jobs == 0 {
            bail!("--seeds and --jobs must be at least 1");
        }
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let mut outcome = Outcome::default();
        let bar = Mutex::new(Bar { total: self.seeds, shown: std::io::stderr().is_terminal() });
        std::thread::scope(|scope| {
            let (done, results) = mpsc::channel();
            for _ in 0..self.jobs.min(usize::try_from(self.seeds).unwrap_or(usize::MAX)) {
                let (done, next) = (done.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.seeds {
                            return;
                        }
                        let seed = self.base.wrapping_add(number);
                        if done.send((seed, simulate(program, self.scenario, seed))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            for (seed, result) in results {
                outcome.ran += 1;
                let bar = bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match result {
                    Ok(report) => {
                        outcome.simulated_s += report.simulated_s;
                        outcome.mark(&report.marks);
                        for (fault, states) in &report.crossings {
                            let row = outcome.crossings.entry(fault.clone()).or_default();
                            states.iter().for_each(|(state, times)| *row.entry(state.clone()).or_default() += times);
                        }
                        if !report.passed() {
                            bar.clear();
                            tell(&self.failure(seed, &report));
                            outcome.failed.insert(seed, Ok(report));
                        }
                    }
                    Err(error) => {
                        bar.clear();
                        tell(&format!("seed {seed} could not be run: {error:#}\n  replay: {}", self.command(seed)));
                        outcome.failed.insert(seed, Err(format!("{error:#}")));
                    }
                }
                bar.show(outcome.ran, outcome.failed.len());
            }
        });
        outcome.wall_s = begun.elapsed().as_secs_f64();
        Ok(outcome)
    }

    fn command(&self, seed: u64) -> String {
        format!("tradewind-sim run {} --seed {seed}", self.scenario)
    }

    fn failure(&self, seed: u64, report: &Report) -> String {
        let mut text = format!("seed {seed} broke {} rules; replay: {}", report.violations.len(), self.command(seed));
        for violation in &report.violations {
            text.push_str(&format!("\n  {:?} ({}) at {:.2} s: {}", violation.rule, violation.subject, violation.first_s, violation.what));
        }
        text
    }

    /// What was met with what: each fault, and the states that it found agents in, over all seeds.
    pub fn table(&self, outcome: &Outcome) -> String {
        let mut lines = vec![format!("| fault | {} |", STATES.join(" | ")), format!("|---|{}", "---|".repeat(STATES.len()))];
        for (fault, states) in &outcome.crossings {
            let cells: Vec<String> = STATES.iter().map(|state| states.get(*state).copied().unwrap_or(0).to_string()).collect();
            lines.push(format!("| {fault} | {} |", cells.join(" | ")));
        }
        lines.join("\n")
    }

    /// The last line of a sweep.
    pub fn summary(&self, outcome: &Outcome) -> String {
        format!(
            "{}: {} seeds from {}, {} failed{}, {:.0} virtual seconds in {:.0} s ({:.0} times real time on {} processes)",
            self.scenario,
            outcome.ran,
            self.base,
            outcome.failed.len(),
            if outcome.failed.is_empty() { String::new() } else { format!(" ({:?})", outcome.failed.keys().collect::<Vec<_>>()) },
            outcome.simulated_s,
            outcome.wall_s,
            outcome.simulated_s / outcome.wall_s.max(1e-9),
            self.jobs
        )
    }
}

struct Bar {
    total: u64,
    shown: bool,
}

impl Bar {
    fn show(&self, done: u64, failed: usize) {
        if self.shown {
            let full = usize::try_from(done.saturating_mul(BAR as u64) / self.total.max(1)).unwrap_or(BAR).min(BAR);
            eprint!("\r[{}{}] {done}/{}, {failed} failed ", "#".repeat(full), " ".repeat(BAR - full), self.total);
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Prints to standard output. A sweep goes on where nobody reads: its last line and its exit code tell.
fn tell(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn simulate(program: &Path, scenario: &str, seed: u64) -> anyhow::Result<Report> {
    ask(Command::new(program).args(["run", scenario, "--json", "--seed", &seed.to_string()]), scenario, seed)
}

/// What this program says for itself where it could not run what it was asked to.
const COULD_NOT_BE_RUN: i32 = 2;

/// Runs a command of this program that prints a report of the scenario and the seed as JSON. A process that ends without one, killed for
/// its memory or with its stack used up, has a report that says so.
pub(crate) fn ask(command: &mut Command, scenario: &str, seed: u64) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let why = || format!("it ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    match serde_json::from_slice(&output.stdout) {
        Ok(report) => Ok(report),
        Err(error) if output.status.success() || output.status.code() == Some(COULD_NOT_BE_RUN) => Err(error).with_context(why),
        Err(_) => Ok(Report::broken_off(scenario, seed, 0, Duration::ZERO, begun.elapsed(), &why())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Rule;

    #[test]
    fn marks_are_counted_by_times_and_seeds_and_those_not_reached_are_there() {
        let mut outcome = Outcome::default();
        outcome.mark(&[("a".into(), 3), ("b".into(), 1)].into());
        outcome.mark(&[("a".into(), 4)].into());
        assert_eq!(
            outcome.marks_table(&["a", "b", "c"]),
            "| mark | times | seeds |\n|---|---|---|\n| a | 7 | 2 |\n| b | 1 | 1 |\n| c | 0 | 0 |"
        );
        assert_eq!(outcome.unreached(&["a", "b", "c"]), ["c"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_ends_without_a_report_has_broken_a_rule_unless_it_could_not_run() {
        let asked = |script: &str| ask(Command::new("sh").args(["-c", script]), "chaos", 3);
        for script in ["echo no words >&2; exit 101", "echo no words >&2; kill -ABRT $$"] {
            let report = asked(script).unwrap();
            let [broken] = &report.violations[..] else { panic!("{report:?}") };
            assert!(broken.rule == Rule::Runs && broken.what.ends_with(": no words"), "{broken:?}");
            assert_eq!((report.scenario.as_str(), report.seed), ("chaos", 3));
        }
        assert!(asked("echo no such scenario >&2; exit 2").unwrap_err().to_string().ends_with(": no such scenario"));
        assert!(asked("exit 0").is_err(), "nothing is wrong with it, and there is no report");
    }
}
