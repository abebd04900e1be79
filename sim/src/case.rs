//! One run written down: a scenario, a seed, and which of its parts take part. What `shrink` writes,
//! `replay` runs, and the bugbase keeps.

use crate::chaos::{self, Incident};
use crate::oracle::Rule;
use crate::scenario::{Action, BUILT_IN, Fault, Scenario, Workload};
use crate::sweep::ask;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tradewind_protocol::RegionId;

/// A run, written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it showed, for people.
    #[serde(default)]
    pub about: String,
    /// A built-in scenario's name, or a TOML file.
    pub scenario: String,
    /// The seeded bug of the agents that it shows, if any; the agents as they are break no rule in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<String>,
    /// From which all chance follows.
    pub seed: u64,
    /// The rules that were broken.
    #[serde(default)]
    pub broke: BTreeSet<Rule>,
    /// Only these regions take part, if any are named.
    #[serde(default)]
    pub regions: Vec<RegionId>,
    /// So much of the scenario's traffic there is, if not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_share: Option<f64>,
    /// Whether there is no traffic.
    #[serde(default)]
    pub silent: bool,
    /// How long it lasts, if not as long as the scenario.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// What goes wrong, instead of what the seed draws.
    pub incidents: Vec<Incident>,
    /// What the scenario's own faults are less by: their places in its file, counted from 0.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_faults: BTreeSet<usize>,
}

impl Case {
    /// The run of `scenario` with `seed` as it is.
    pub fn of(name: &str, seed: u64) -> anyhow::Result<Case> {
        let scenario = load(name)?;
        let incidents = scenario.chaos_until.map(|until| chaos::draw(&scenario, until, seed)).unwrap_or_default();
        Ok(Case {
            about: String::new(),
            scenario: name.into(),
            bug: seeded(),
            seed,
            broke: BTreeSet::new(),
            regions: vec![],
            traffic_share: None,
            silent: false,
            duration_s: None,
            incidents,
            without_faults: BTreeSet::new(),
        })
    }

    /// Reads a case from a file.
    pub fn read(path: &Path) -> anyhow::Result<Case> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let case: Case = serde_json::from_str(&text).with_context(|| format!("{} is no case", path.display()))?;
        let bug = case.bug.as_deref().unwrap_or("none");
        let named = !bug.is_empty() && bug.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        ensure!(named, "{}: bug: {bug:?}, and a seeded bug has a name of lower case letters and dashes", path.display());
        Ok(case)
    }

    /// Writes the case to a file.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_string(self)? + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// The scenario as this case has it.
    pub fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut scenario = load(&self.scenario)?;
        if !self.regions.is_empty() {
            scenario.regions.retain(|region| self.regions.contains(&region.id));
            let here = |(a, b): &(RegionId, RegionId)| self.regions.contains(a) && self.regions.contains(b);
            scenario.delays.retain(|pair, _| here(pair));
            scenario.links.retain(|pair, _| here(pair));
        }
        if let Some(share) = self.traffic_share {
            ensure!((0.0..=1.0).contains(&share), "traffic_share: {share}, and a share is between 0 and 1");
            match &mut scenario.workload {
                Workload::Silence => {}
                Workload::Synthetic { rate, .. } => *rate *= share,
                Workload::Recorded { scale, .. } => *scale *= share,
            }
        }
        if self.silent {
            scenario.workload = Workload::Silence;
        }
        if let Some(duration) = self.duration_s {
            scenario.duration = Duration::try_from_secs_f64(duration).context("duration_s")?;
        }
        // Still a scenario of chaos, whose oracle forgives while something is broken.
        scenario.chaos_until = scenario.chaos_until.map(|_| Duration::ZERO);
        let known: BTreeSet<RegionId> = scenario.regions.iter().map(|region| region.id.clone()).collect();
        if let Some(place) = self.without_faults.iter().find(|place| **place >= scenario.incidents.len()) {
            bail!("without_faults: {place}, and the faults of {} are counted from 0 to below {}", self.scenario, scenario.incidents.len());
        }
        let own = scenario.incidents.into_iter().enumerate().filter(|(place, _)| !self.without_faults.contains(place));
        let all = self.incidents.iter().map(|incident| incident.faults.clone()).chain(own.map(|(_, faults)| faults));
        let kept = all
            .map(|faults| faults.into_iter().filter_map(|fault| Some(Fault { action: among(fault.action, &known)?, ..fault })).collect());
        scenario.incidents = kept.collect();
        Ok(scenario)
    }
}

/// The bug that the agents of this process have been given.
fn seeded() -> Option<String> {
    #[cfg(feature = "mutants")]
    return tradewind_agent::marks::chosen().map(str::to_owned);
    #[cfg(not(feature = "mutants"))]
    None
}

/// The built-in scenario of that name, or the one in that file.
pub fn load(name: &str) -> anyhow::Result<Scenario> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Ok(Scenario::parse(text)?);
    }
    let text = std::fs::read_to_string(name)
        .with_context(|| format!("{name:?} is neither a built-in scenario (see `tradewind-sim list`) nor a file that can be read"))?;
    Scenario::parse(&text).with_context(|| format!("in {name}"))
}

/// What is left of an action where only these regions are.
fn among(action: Action, known: &BTreeSet<RegionId>) -> Option<Action> {
    let here = |region: &RegionId| known.contains(region);
    let group = |regions: Vec<RegionId>| regions.into_iter().filter(here).collect::<Vec<_>>();
    let kept = match &action {
        Action::Crash(region)
        | Action::CrashAndLose(region)
        | Action::Pause(region, _)
        | Action::Resume(region)
        | Action::Pace(region, _)
        | Action::CrashAfterWrites(region, _)
        | Action::Restart(region)
        | Action::Stop(region)
        | Action::Wire(region, _)
        | Action::Disk(region, _)
        | Action::Kill(region)
        | Action::Reclaim(region)
        | Action::Provider(region, _)
        | Action::Clock(region, _) => here(region),
        Action::Deafen(from, to) | Action::Undeafen(from, to) | Action::Link(from, to, _) => here(from) && here(to),
        Action::Partition(left, right) | Action::Heal(left, right) => left.iter().any(here) && right.iter().any(here),
        Action::Paths(_) | Action::Lie(_) => true,
    };
    kept.then(|| match action {
        Action::Partition(left, right) => Action::Partition(group(left), group(right)),
        Action::Heal(left, right) => Action::Heal(group(left), group(right)),
        Action::Crash(_)
        | Action::CrashAndLose(_)
        | Action::Pause(..)
        | Action::Resume(_)
        | Action::Pace(..)
        | Action::Link(..)
        | Action::CrashAfterWrites(..)
        | Action::Restart(_)
        | Action::Stop(_)
        | Action::Wire(..)
        | Action::Disk(..)
        | Action::Kill(_)
        | Action::Reclaim(_)
        | Action::Provider(..)
        | Action::Clock(..)
        | Action::Deafen(..)
        | Action::Undeafen(..)
        | Action::Lie(_)
        | Action::Paths(_) => action,
    })
}

/// The most runs of one shrinking: each takes seconds, and what is left after so many is small.
const MAX_RUNS: usize = 200;

/// How often the traffic is halved: to a sixteenth, of which few posts are left.
const MAX_HALVINGS: u32 = 4;

/// Calm that a shortened run keeps after what was broken: the longest bound of the rules, and a look.
const CALM_AFTER_S: f64 = 2.0;

/// Makes a case that breaks a rule smaller as long as it breaks one of the same rules: first without
/// faults, then with less traffic or none, with fewer regions, in less time. Each run is a process of its
/// own; `scratch` is where they read their cases from.
pub fn shrink(program: &Path, case: Case, scratch: &Path, tell: impl FnMut(&str)) -> anyhow::Result<Case> {
    let mut shrinker = Shrinker { program, scratch, case, last_s: 0.0, runs: 0, tell };
    if shrinker.case.broke.is_empty() {
        let report = shrinker.run(&shrinker.case.clone())?;
        shrinker.case.broke = report.violations.iter().map(|violation| violation.rule).collect();
        shrinker.last_s = report.violations.iter().map(|violation| violation.first_s).fold(0.0, f64::max);
        if shrinker.case.broke.is_empty() {
            bail!("this run breaks no rule");
        }
    }
    shrinker.incidents()?;
    shrinker.own_faults()?;
    shrinker.traffic()?;
    shrinker.regions()?;
    shrinker.time()?;
    Ok(shrinker.case)
}

struct Shrinker<'a, F> {
    program: &'a Path,
    scratch: &'a Path,
    case: Case,
    /// When the last rule was broken first.
    last_s: f64,
    runs: usize,
    tell: F,
}

impl<F: FnMut(&str)> Shrinker<'_, F> {
    fn run(&mut self, case: &Case) -> anyhow::Result<crate::report::Report> {
        self.runs += 1;
        let file = self.scratch.join("candidate.json");
        case.write(&file)?;
        ask(Command::new(self.program).arg("replay").arg(&file).arg("--json"), &case.scenario, case.seed)
    }

    /// Takes the candidate if it breaks one of the rules, too.
    fn try_one(&mut self, what: &str, candidate: Case) -> anyhow::Result<bool> {
        if self.runs >= MAX_RUNS || candidate == self.case {
            return Ok(false);
        }
        let report = match self.run(&candidate) {
            Ok(report) => report,
            // An agent's configuration may name a region that is no longer there.
            Err(error) => {
                (self.tell)(&format!("cannot be run: {what}: {error:#}"));
                return Ok(false);
            }
        };
        let same: Vec<f64> = report
            .violations
            .iter()
            .filter(|violation| self.case.broke.contains(&violation.rule))
            .map(|violation| violation.first_s)
            .collect();
        let broken = !same.is_empty();
        (self.tell)(&format!("{}: {what}", if broken { "still broken" } else { "holds" }));
        if broken {
            self.last_s = same.into_iter().fold(f64::INFINITY, f64::min);
            self.case = candidate;
        }
        Ok(broken)
    }

    fn incidents(&mut self) -> anyhow::Result<()> {
        let all = self.case.incidents.clone();
        self.leave_out("incidents", all, |case, left| case.incidents = left)
    }

    /// The same with the faults that the scenario names.
    fn own_faults(&mut self) -> anyhow::Result<()> {
        let count = load(&self.case.scenario)?.incidents.len();
        let places: Vec<usize> = (0..count).filter(|place| !self.case.without_faults.contains(place)).collect();
        self.leave_out("faults of the scenario", places, |case, left| {
            case.without_faults = (0..count).filter(|place| !left.contains(place)).collect();
        })
    }

    /// Halves, quarters and so on are left out, as in delta debugging (Zeller and Hildebrandt 2002).
    fn leave_out<T: Clone>(&mut self, what: &str, mut left: Vec<T>, put: impl Fn(&mut Case, Vec<T>)) -> anyhow::Result<()> {
        let mut chunk = left.len();
        while chunk > 0 {
            let mut at = 0;
            while at < left.len() {
                let end = (at + chunk).min(left.len());
                let (mut fewer, mut candidate) = (left.clone(), self.case.clone());
                fewer.drain(at..end);
                put(&mut candidate, fewer.clone());
                if self.try_one(&format!("without {} of {} {what}", end - at, left.len()), candidate)? {
                    left = fewer;
                } else {
                    at = end;
                }
            }
            chunk /= 2;
        }
        Ok(())
    }

    /// Half of the traffic, then none; if it takes some, a quarter and so on.
    fn traffic(&mut self) -> anyhow::Result<()> {
        if self.case.silent || self.case.scenario()?.workload == Workload::Silence {
            return Ok(());
        }
        let whole = self.case.traffic_share.unwrap_or(1.0);
        for halvings in 1..=MAX_HALVINGS {
            let share = whole / f64::from(1 << halvings);
            let less = Case { traffic_share: Some(share), ..self.case.clone() };
            let enough = self.try_one(&format!("with {share} of the traffic"), less)?;
            if halvings == 1 {
                let none = Case { silent: true, traffic_share: None, ..self.case.clone() };
                if self.try_one("without traffic", none)? {
                    return Ok(());
                }
            }
            if !enough {
                break;
            }
        }
        Ok(())
    }

    fn regions(&mut self) -> anyhow::Result<()> {
        let all: Vec<RegionId> = self.case.scenario()?.regions.into_iter().map(|region| region.id).collect();
        for region in &all {
            let mut left = if self.case.regions.is_empty() { all.clone() } else { self.case.regions.clone() };
            left.retain(|one| one != region);
            if left.is_empty() {
                break;
            }
            let candidate = Case { regions: left, ..self.case.clone() };
            self.try_one(&format!("without {region}"), candidate)?;
        }
        Ok(())
    }

    fn time(&mut self) -> anyhow::Result<()> {
        let whole = self.case.scenario()?.duration.as_secs_f64();
        let shorter = (self.last_s + CALM_AFTER_S).ceil();
        if self.last_s > 0.0 && shorter < whole {
            let candidate = Case { duration_s: Some(shorter), ..self.case.clone() };
            self.try_one(&format!("{shorter} s long"), candidate)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_bug_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let read = |bug: &str| {
            let file = folder.path().join("case.json");
            let case = Case { bug: Some(bug.into()), ..Case::of("chaos", 3).unwrap() };
            case.write(&file).unwrap();
            Case::read(&file).map(|read| assert_eq!(read, case))
        };
        read("stalled-link-kept").unwrap();
        for bug in ["", "Stalled", "a b"] {
            assert!(format!("{:#}", read(bug).unwrap_err()).contains("bug:"), "{bug:?}");
        }
    }

    #[test]
    fn a_case_reads_back_and_leaves_out_whom_it_does_not_name() {
        let mut case = Case::of("chaos", 3).unwrap();
        case.broke = [Rule::Converges].into();
        let text = serde_json::to_string(&case).unwrap();
        assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
        let whole = case.scenario().unwrap();
        assert_eq!(whole.regions.len(), 8);
        case.regions = vec![RegionId::new("us-east").unwrap(), RegionId::new("eu-west").unwrap()];
        let small = case.scenario().unwrap();
        assert_eq!((small.regions.len(), small.delays.len()), (2, 1));
        assert!(small.faults().len() <= whole.faults().len());
    }
}
