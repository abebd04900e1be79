//! The proof that the simulator finds bugs: seeds one bug at a time into the agents, runs a scenario
//! with one seed after another, each in a process of its own, and shows how soon a rule caught it.
//!
//! A bug counts as caught by the first seed whose run breaks a rule. One that no seed catches is a
//! survivor: either it cannot be told from the agent without it, or a rule is missing. The agents
//! without any bug are run with the same seeds, and have to pass: a rule that is broken anyway
//! catches nothing.

use crate::oracle::Rule;
use crate::report::Report;
use crate::sweep::ask;
use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use tradewind_agent::marks::{BUGS, Bug, CHOSEN_BY, MARKS, chosen};

/// The scenarios in which all bugs must show and all marks be reached.
pub const SCENARIOS: &str = "gauntlet,ordeal,relay,lending,power";

/// Which bugs, and how long to look for each.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Built-in scenarios' names, or TOML files: each seed runs them in this order until one catches the bug.
    #[arg(default_value = SCENARIOS, value_delimiter = ',')]
    pub scenarios: Vec<String>,
    /// How many seeds each bug is looked for with.
    #[arg(long, default_value_t = 20)]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub seed_base: u64,
    /// Runs all seeds, also after one has caught the bug.
    #[arg(long)]
    pub all_seeds: bool,
    /// How many processes at a time.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// Only these bugs.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Prints the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// Fails if the agents as they are do not reach a coverage mark.
    #[arg(long)]
    pub require_marks: bool,
}

impl Arguments {
    /// All bugs, by one scenario.
    pub fn one(scenario: String, seeds: u64, seed_base: u64, jobs: usize) -> Self {
        Self { scenarios: vec![scenario], seeds, seed_base, all_seeds: false, jobs, only: vec![], json: false, require_marks: false }
    }
}

/// What became of one bug; without a name, of the agents as they are.
#[derive(Debug, Clone, Serialize)]
pub struct Hunt {
    /// The bug's name.
    pub bug: Option<&'static str>,
    /// The part of the agent that has it.
    pub part: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// How many seeds were run.
    pub runs: u64,
    /// Those of them that ran into the place of the bug.
    pub reached: u64,
    /// Those of them that broke a rule.
    pub caught: Vec<u64>,
    /// How many seeds it took, counted from one.
    pub seeds_until_caught: Option<u64>,
    /// The rules that were broken, and by how many seeds.
    pub rules: BTreeMap<Rule, u64>,
    /// The scenarios that broke one.
    pub scenarios: BTreeSet<String>,
}

/// What became of all of them.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenarios' names.
    pub scenarios: Vec<String>,
    /// The agents as they are.
    pub control: Hunt,
    /// One entry a bug.
    pub hunts: Vec<Hunt>,
    /// The median of the seeds until a bug was caught, over those that were.
    pub median_seeds: Option<u64>,
    /// Names of the bugs that no seed has caught.
    pub survivors: Vec<&'static str>,
    /// How often each coverage mark was reached by the agents as they are, over all seeds.
    pub marks: BTreeMap<&'static str, u64>,
}

/// Hunts for all bugs; the result as text, and whether the agents as they are pass and every bug was caught.
pub fn run(arguments: &Arguments) -> anyhow::Result<(String, bool)> {
    let outcome = hunt(&std::env::current_exe()?, arguments)?;
    let unreached = outcome.marks.values().any(|times| *times == 0);
    let passed = outcome.control.caught.is_empty() && outcome.survivors.is_empty() && !(arguments.require_marks && unreached);
    let text = if arguments.json { serde_json::to_string_pretty(&outcome)? } else { outcome.to_text() };
    Ok((text, passed))
}

/// The names of all coverage marks.
pub fn marks() -> &'static [&'static str] {
    MARKS
}

/// Refuses a run that is to have a bug which does not exist.
pub fn check_chosen() -> anyhow::Result<()> {
    match chosen() {
        Some(name) if !BUGS.iter().any(|bug| bug.name == name) => bail!("{CHOSEN_BY}={name}: there is no such bug"),
        Some(_) | None => Ok(()),
    }
}

/// Hunts for all bugs with `program`, which is this one, built with the feature `mutants`.
pub fn hunt(program: &Path, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let unknown = arguments.only.iter().find(|name| !BUGS.iter().any(|bug| bug.name == **name));
    if let Some(name) = unknown {
        bail!("there is no bug {name:?}; there are {}", BUGS.iter().map(|bug| bug.name).collect::<Vec<_>>().join(", "));
    }
    ensure!(arguments.seeds > 0 && arguments.jobs > 0, "seeds and jobs must be at least 1");
    let chosen = BUGS.iter().filter(|bug| arguments.only.is_empty() || arguments.only.iter().any(|name| name == bug.name));
    let waiting: VecDeque<Option<&Bug>> = std::iter::once(None).chain(chosen.map(Some)).collect();
    let waiting = Mutex::new(waiting.into_iter().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((place, bug)) = next else { return Ok(()) };
                let hunted = hunt_one(program, arguments, bug)?;
                eprintln!("{}", hunted.0.to_line());
                done.lock().unwrap_or_else(PoisonError::into_inner).insert(place, hunted);
            }
        };
        let workers: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker has panicked")))
    })?;
    let mut hunts = done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values();
    let (control, marks) = hunts.next().context("the agents as they are were not run")?;
    let hunts: Vec<Hunt> = hunts.map(|(hunt, _)| hunt).collect();
    let mut seeds: Vec<u64> = hunts.iter().filter_map(|hunt| hunt.seeds_until_caught).collect();
    seeds.sort_unstable();
    Ok(Outcome {
        scenarios: arguments.scenarios.clone(),
        control,
        median_seeds: seeds.get(seeds.len() / 2).copied(),
        survivors: hunts.iter().filter(|hunt| hunt.caught.is_empty()).filter_map(|hunt| hunt.bug).collect(),
        hunts,
        marks: MARKS.iter().map(|mark| (*mark, marks.get(*mark).copied().unwrap_or(0))).collect(),
    })
}

/// The marks that the agents as they are do not reach in these scenarios, with one seed.
pub fn unreached(program: &Path, scenarios: &[String], seed: u64) -> anyhow::Result<Vec<&'static str>> {
    let arguments = Arguments { scenarios: scenarios.to_vec(), ..Arguments::one(String::new(), 1, seed, 1) };
    let (_, reached) = hunt_one(program, &arguments, None)?;
    Ok(MARKS.iter().copied().filter(|mark| !reached.contains_key(*mark)).collect())
}

/// One bug, or none: seed after seed until it is caught. Also how often each mark was reached.
fn hunt_one(program: &Path, arguments: &Arguments, bug: Option<&Bug>) -> anyhow::Result<(Hunt, BTreeMap<String, u64>)> {
    let mut hunt = Hunt {
        bug: bug.map(|bug| bug.name),
        part: bug.map_or("none", |bug| bug.part),
        what: bug.map_or("the agents as they are", |bug| bug.what),
        runs: 0,
        reached: 0,
        caught: vec![],
        seeds_until_caught: None,
        rules: BTreeMap::new(),
        scenarios: BTreeSet::new(),
    };
    let mut marks = BTreeMap::new();
    for seed in arguments.seed_base..arguments.seed_base.saturating_add(arguments.seeds) {
        hunt.runs += 1;
        let (mut broken, mut caught, mut reached) = (BTreeSet::new(), false, false);
        for scenario in &arguments.scenarios {
            let report = simulate(program, scenario, seed, hunt.bug)?;
            // One that was broken off does not know what it reached.
            reached |= hunt.bug.is_some_and(|name| report.marks.contains_key(name) || report.is_broken_off());
            report.marks.iter().for_each(|(mark, times)| *marks.entry(mark.clone()).or_default() += times);
            broken.extend(report.violations.iter().map(|violation| violation.rule));
            if !report.violations.is_empty() {
                caught = true;
                hunt.scenarios.insert(scenario.clone());
                if bug.is_some() {
                    break;
                }
            }
        }
        hunt.reached += u64::from(reached);
        broken.iter().for_each(|rule| *hunt.rules.entry(*rule).or_default() += 1);
        if caught {
            hunt.caught.push(seed);
            hunt.seeds_until_caught.get_or_insert(hunt.runs);
            if bug.is_some() && !arguments.all_seeds {
                break;
            }
        }
    }
    Ok((hunt, marks))
}

/// The report of a run.
fn simulate(program: &Path, scenario: &str, seed: u64, bug: Option<&str>) -> anyhow::Result<Report> {
    let mut command = Command::new(program);
    command.args(["run", scenario, "--json", "--seed", &seed.to_string()]).env_remove(CHOSEN_BY);
    if let Some(bug) = bug {
        command.env(CHOSEN_BY, bug);
    }
    ask(&mut command, scenario, seed).with_context(|| format!("{scenario}, seed {seed}, bug {bug:?}"))
}

impl Hunt {
    /// A row of a Markdown table.
    fn to_line(&self) -> String {
        let name = self.bug.unwrap_or("none");
        let rules: Vec<String> = self.rules.keys().map(|rule| format!("{rule:?}")).collect();
        let until = self.seeds_until_caught.map_or("not caught".into(), |seeds| seeds.to_string());
        let rules = if rules.is_empty() { "-".into() } else { rules.join(", ") };
        format!(
            "| {} | `{name}` | {} | {until} | {} of {} | {} | {} | {rules} |",
            self.part,
            self.what,
            self.caught.len(),
            self.runs,
            self.reached,
            if self.scenarios.is_empty() { "-".into() } else { self.scenarios.iter().cloned().collect::<Vec<_>>().join(", ") }
        )
    }
}

impl Outcome {
    /// The result for people: tables in Markdown, and a last line that sums it up.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            "| part | bug | what goes wrong | seeds until caught | caught by | ran into it | scenario | rules |".to_owned(),
            "|---|---|---|---|---|---|---|---|".to_owned(),
            self.control.to_line(),
        ];
        lines.extend(self.hunts.iter().map(Hunt::to_line));
        lines.extend([String::new(), format!("| mark | times, in {} runs |", self.control.runs), "|---|---|".into()]);
        lines.extend(self.marks.iter().map(|(mark, times)| format!("| {mark} | {times} |")));
        let caught = self.hunts.len() - self.survivors.len();
        let median = self.median_seeds.map_or("none".into(), |seeds| seeds.to_string());
        lines.extend([
            String::new(),
            format!(
                "{}: {caught} of {} bugs caught, median seeds until caught {median}, survivors: {}; without a bug {} of {} seeds broke a rule",
                self.scenarios.join(", "),
                self.hunts.len(),
                if self.survivors.is_empty() { "none".into() } else { self.survivors.join(", ") },
                self.control.caught.len(),
                self.control.runs
            ),
        ]);
        lines.join("\n")
    }
}
