//! Policies for capacity, replayed over recorded demand: the agent's own and its rivals, judged by one cost model ([`cost`]).
//!
//! `tradewind-sim backtest --trace FILE --policy all` reads a table of demand ([`trace`]), tunes each policy's one knob on the first
//! 60 % of the rows (after one season), and reports on the last 40 % what was late and what was really paid, as a multiple of the
//! cheapest bill without lateness. A knob is one for all series; `best-rival` alone has a policy and a margin for each series, chosen by
//! a common price of lateness. Policies see the past only, which a test holds every one of them to.

pub(crate) mod boosted;
pub(crate) mod cost;
pub(crate) mod page;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod rivals;
#[cfg(test)]
mod tests;
pub mod trace;

use crate::report::PageFile;
use anyhow::{Context as _, bail, ensure};
use cost::{Score, clairvoyant, score};
use policy::Policy;
use rivals::Setting;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use trace::{By, Trace};
use tradewind_agent::planner::foresight::MAX_LEAD;

/// Multiples of the cheapest bill that policies are tuned to.
pub(crate) const TARGETS: [f64; 3] = [1.15, 1.3, 1.5];
/// Late shares that the bills of policies are compared at.
const LATE_SHARES: [f64; 3] = [0.01, 0.001, 0.0001];
/// The target whose plan is written under the policy's plain name.
const PLAIN_TARGET: &str = "1.15";

/// `tradewind-sim backtest ...`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// CSV, plain or gzip: one column a series, one row a step, and first, if you like, a column `ts`.
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// Which policies, by name, separated by commas; or all.
    #[arg(long, default_value = "all")]
    pub policy: String,
    /// Prints the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// Steps from order to service.
    #[arg(long, default_value_t = 1)]
    pub lead: usize,
    /// Steps of a season, 0 for none; found in the first 60 % of the rows if it is not given.
    #[arg(long)]
    pub season: Option<usize>,
    /// Sums columns named `source>destination`.
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// Leaves series out, by name, separated by commas.
    #[arg(long, value_name = "NAMES")]
    pub without: Option<String>,
    /// Writes each policy's plans there: `NAME@TARGET.csv`, and `NAME.csv` for the target 1.15. Row t is the desired units, of 1 % of the
    /// series' peak, after rows 0 to t have been seen.
    #[arg(long, value_name = "DIR")]
    pub plan_out: Option<PathBuf>,
    /// Writes a page with the frontiers to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Arguments {
    /// Does what is asked; the text to print.
    ///
    /// # Errors
    ///
    /// What cannot be read, is no table, or names no policy.
    pub fn run(self) -> anyhow::Result<String> {
        let text = crate::data::read(&self.trace)?;
        let mut trace = Trace::parse(&text, self.by).with_context(|| format!("cannot use {}", self.trace.display()))?;
        for name in self.without.iter().flat_map(|names| names.split(',')).map(str::trim) {
            let at = trace.names.iter().position(|series| series == name);
            let at = at.with_context(|| format!("--without {name}: there is no such series; there are {}", trace.names.join(", ")))?;
            trace.names.remove(at);
            trace.demand.remove(at);
            ensure!(!trace.names.is_empty(), "--without leaves no series");
        }
        ensure!((1..=MAX_LEAD).contains(&self.lead), "--lead {}: from 1 to {MAX_LEAD} steps are possible", self.lead);
        let season = match self.season {
            None => trace.season(),
            Some(0) => None,
            Some(season) => {
                ensure!(season < trace.split(), "--season {season}: it must be shorter than the {} rows that are tuned on", trace.split());
                Some(season)
            }
        };
        let setting = Setting { lead: self.lead, season, step_s: trace.step_s.unwrap_or(300.0), split: trace.split() };
        let policies = chosen(&self.policy)?;
        let html = self.html.as_deref().map(PageFile::create).transpose()?;
        let report = backtest(&trace, &setting, &policies);
        if let Some(directory) = &self.plan_out {
            write_plans(directory, &trace, &setting, &policies, &report)?;
        }
        if let Some(file) = html {
            file.fill(&page::html(&report))?;
        }
        Ok(if self.json { serde_json::to_string_pretty(&report)? } else { report.to_text() })
    }
}

fn chosen(names: &str) -> anyhow::Result<Vec<Policy>> {
    let all = Policy::all();
    let mut chosen = Vec::new();
    for name in names.split(',').map(str::trim) {
        match all.iter().find(|policy| policy.name() == name) {
            _ if name == "all" => chosen = all.clone(),
            Some(policy) if !chosen.contains(policy) => chosen.push(*policy),
            Some(_) => {}
            None => bail!("there is no policy {name:?}: all, or of {}", all.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ")),
        }
    }
    Ok(chosen)
}

/// What all policies achieve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Steps from order to service.
    pub lead: usize,
    /// Steps of a season, if there is one.
    pub season: Option<usize>,
    /// Rows in all, and the first that is reported on.
    pub rows: usize,
    /// The first row that is reported on; those before are tuned on.
    pub split: usize,
    /// How many series.
    pub series: usize,
    /// Policy by policy.
    pub policies: BTreeMap<String, Standing>,
}

/// What one policy achieves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Its knob swept, on the rows that are reported on: cheapest first.
    pub frontier: Vec<Point>,
    /// By late share: the bill, as a multiple of the cheapest without lateness, at which no more is late; nothing where the frontier does not reach.
    pub cost_at: BTreeMap<String, Option<f64>>,
    /// By the multiple that its knob was tuned to.
    pub tuned: BTreeMap<String, Tuned>,
}

/// A point of a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// The bill as a multiple of the cheapest without lateness.
    pub cost_ratio: f64,
    /// Demand above ready units, as a part of the demand.
    pub late_share: f64,
}

/// What came of a knob that was tuned on the first rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuned {
    /// The bill really paid, as a multiple of the cheapest without lateness.
    pub cost_ratio: f64,
    /// Demand above ready units, as a part of the demand.
    pub late_share: f64,
    /// Ready units above demand, as a part of the demand.
    pub slack: f64,
    /// Units ordered or given back, a series and step.
    pub churn: f64,
    /// Steps with demand above ready units, as a part of all.
    pub late_steps: f64,
    /// Unit-steps billed, a unit being 1 % of a series' peak.
    pub resource_steps: f64,
    /// The same in unit-hours.
    pub resource_hours: f64,
    /// Demand above ready units, in unit-steps.
    pub unserved: f64,
    /// The knob; for `best-rival` the price of a unit-step of lateness.
    pub knob: f64,
    /// Series by series.
    pub by_series: BTreeMap<String, Point>,
}

/// One series' way through all knobs of one policy.
struct Sweep {
    /// `(train, test)` a knob.
    scores: Vec<(Score, Score)>,
}

/// A choice for every series: which policy, which of its knobs.
type Choice = Vec<(usize, usize)>;

/// Tunes and judges.
pub(crate) fn backtest(trace: &Trace, setting: &Setting, policies: &[Policy]) -> Report {
    let mut cache: BTreeMap<&'static str, Vec<Sweep>> = BTreeMap::new();
    for part in policies.iter().flat_map(|policy| policy.parts()) {
        cache.entry(part.name()).or_insert_with(|| trace.demand.iter().map(|demand| sweep(part, demand, setting)).collect());
    }
    let standing = |policy: &Policy| {
        let parts = policy.parts();
        let sweeps: Vec<&Vec<Sweep>> = parts.iter().map(|part| &cache[part.name()]).collect();
        standing(trace, setting, &candidates(policy, &sweeps, trace.names.len()), &sweeps)
    };
    let policies = policies.iter().map(|policy| (policy.name().to_string(), standing(policy))).collect();
    Report { lead: setting.lead, season: setting.season, rows: trace.rows(), split: setting.split, series: trace.names.len(), policies }
}

fn sweep(policy: Policy, demand: &[f64], setting: &Setting) -> Sweep {
    let planner = policy.prepare(demand, setting);
    let judge = |knob: &f64| {
        let plan = planner(*knob);
        let judge = |range| score(demand, &plan, setting.lead, range);
        (judge(setting.warm()..setting.split), judge(setting.split..demand.len()))
    };
    Sweep { scores: policy.knobs().iter().map(judge).collect() }
}

/// The knobs a policy may be tuned to, each with what every series does then.
fn candidates(policy: &Policy, sweeps: &[&Vec<Sweep>], series: usize) -> Vec<(f64, Choice)> {
    if *policy != Policy::BestRival {
        return policy.knobs().iter().enumerate().map(|(at, knob)| (*knob, vec![(0, at); series])).collect();
    }
    // For a price of lateness each series takes the rule and the margin that were cheapest in all on the first rows.
    let price = |i: u32| 1.5 * 1.12_f64.powi(i as i32);
    let choose = |price: f64, at: usize| {
        let all = sweeps.iter().enumerate().flat_map(|(p, sweep)| sweep[at].scores.iter().enumerate().map(move |(k, s)| (p, k, s.0)));
        let best = all.min_by(|a, b| (a.2.cost + price * a.2.late).total_cmp(&(b.2.cost + price * b.2.late)));
        best.map_or((0, 0), |best| (best.0, best.1))
    };
    (0..90).map(price).map(|price| (price, (0..series).map(|at| choose(price, at)).collect())).collect()
}

fn standing(trace: &Trace, setting: &Setting, candidates: &[(f64, Choice)], sweeps: &[&Vec<Sweep>]) -> Standing {
    let total = |choice: &Choice| {
        choice.iter().enumerate().fold((Score::default(), Score::default()), |(mut train, mut test), (series, (p, k))| {
            let score = &sweeps[*p][series].scores[*k];
            train += score.0;
            test += score.1;
            (train, test)
        })
    };
    let totals: Vec<(Score, Score)> = candidates.iter().map(|(_, choice)| total(choice)).collect();
    let point = |score: &Score| Point { cost_ratio: score.cost_ratio(), late_share: score.late_share() };
    let mut frontier: Vec<Point> = totals.iter().map(|(_, test)| point(test)).collect();
    frontier.sort_by(|a, b| a.cost_ratio.total_cmp(&b.cost_ratio).then(b.late_share.total_cmp(&a.late_share)));
    frontier.dedup();
    let tune = |target: f64| {
        let distance = |at: &usize| (totals[*at].0.cost_ratio() - target).abs();
        let at = (0..totals.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0);
        let (knob, choice) = &candidates[at];
        let test = totals[at].1;
        let by_series = choice.iter().enumerate().map(|(s, (p, k))| (trace.names[s].clone(), point(&sweeps[*p][s].scores[*k].1)));
        Tuned {
            cost_ratio: test.cost_ratio(),
            late_share: test.late_share(),
            slack: test.slack / test.demand.max(f64::MIN_POSITIVE),
            churn: test.churn / test.steps.max(1.0),
            late_steps: test.late_steps / test.steps.max(1.0),
            resource_steps: test.cost,
            resource_hours: test.cost * setting.step_s / 3_600.0,
            unserved: test.late,
            knob: *knob,
            by_series: by_series.collect(),
        }
    };
    let cost_at = LATE_SHARES.iter().map(|share| (share.to_string(), cost_at(&frontier, *share))).collect();
    Standing { frontier, cost_at, tuned: TARGETS.iter().map(|target| (target.to_string(), tune(*target))).collect() }
}

/// The points of a frontier that are late for less than every cheaper one.
fn hull(frontier: &[Point]) -> Vec<Point> {
    let mut hull: Vec<Point> = Vec::new();
    for point in frontier {
        if hull.last().is_none_or(|last| point.late_share < last.late_share) {
            hull.push(*point);
        }
    }
    hull
}

/// The scale that lateness is compared on.
fn log(share: f64) -> f64 {
    share.max(1e-9).ln()
}

/// The bill at which no more than this is late: the same line as that of [`Standing::late_at`], read the other way. Nothing where the frontier does not reach.
fn cost_at(frontier: &[Point], late_share: f64) -> Option<f64> {
    let hull = hull(frontier);
    let below = hull.iter().position(|point| point.late_share <= late_share)?;
    let Some(a) = below.checked_sub(1).map(|above| hull[above]) else { return Some(hull[0].cost_ratio) };
    let b = hull[below];
    let part = (log(a.late_share) - log(late_share)) / (log(a.late_share) - log(b.late_share)).max(f64::MIN_POSITIVE);
    Some(a.cost_ratio + part * (b.cost_ratio - a.cost_ratio))
}

impl Standing {
    /// The late share at this bill, between the neighbours on the lower hull of the frontier in proportion of its logarithm; nothing where
    /// the frontier does not reach.
    pub fn late_at(&self, cost_ratio: f64) -> Option<f64> {
        let hull = hull(&self.frontier);
        let above = hull.iter().position(|point| point.cost_ratio >= cost_ratio)?;
        if above == 0 {
            return (hull[0].cost_ratio - cost_ratio < 1e-9).then_some(hull[0].late_share);
        }
        let (a, b) = (hull[above - 1], hull[above]);
        let part = (cost_ratio - a.cost_ratio) / (b.cost_ratio - a.cost_ratio).max(f64::MIN_POSITIVE);
        Some((log(a.late_share) * (1.0 - part) + log(b.late_share) * part).exp())
    }
}

impl Report {
    /// A table a reader can compare by.
    pub fn to_text(&self) -> String {
        let season = self.season.map_or("no season".to_string(), |season| format!("a season of {season}"));
        let mut text = format!(
            "{} series, {} steps, {season}, lead {}; tuned on the first {}, reported on the rest\n\nlate % at the bill of 1.15, 1.3, 1.5, 2 x clairvoyant, and tuned to 1.15, 1.3, 1.5 x: late % at the bill really paid\n(-: its frontier does not reach there: all its bills are higher, or a lower one is late for no more)\n",
            self.series, self.rows, self.lead, self.split
        );
        for (name, standing) in &self.policies {
            let _ = write!(text, "{name:20}");
            for ratio in [1.15, 1.3, 1.5, 2.0] {
                let _ = match standing.late_at(ratio) {
                    Some(late) => write!(text, " {:7.4}", late * 100.0),
                    None => write!(text, "       -"),
                };
            }
            text.push_str("  |");
            for tuned in standing.tuned.values() {
                let _ = write!(text, " {:7.4} at {:.3}", tuned.late_share * 100.0, tuned.cost_ratio);
            }
            text.push('\n');
        }
        text.push_str("\nthe bill at which 1, 0.1, 0.01 % are late, and tuned to 1.3 x: unit-hours billed, unit-steps unserved, slack as a part of the demand, churn a step\n");
        for (name, standing) in &self.policies {
            let _ = write!(text, "{name:20}");
            for share in LATE_SHARES {
                let _ = match standing.cost_at.get(&share.to_string()).copied().flatten() {
                    Some(cost) => write!(text, " {cost:7.3}"),
                    None => write!(text, "       -"),
                };
            }
            if let Some(tuned) = standing.tuned.get("1.3") {
                let Tuned { resource_hours, unserved, slack, churn, .. } = tuned;
                let _ = write!(text, "  | {resource_hours:10.1} {unserved:10.1} {slack:7.3} {churn:7.3}");
            }
            text.push('\n');
        }
        text
    }
}

fn write_plans(directory: &Path, trace: &Trace, setting: &Setting, policies: &[Policy], report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for policy in policies {
        let parts = policy.parts();
        let planners: Vec<Vec<policy::Planner<'_>>> =
            parts.iter().map(|part| trace.demand.iter().map(|demand| part.prepare(demand, setting)).collect()).collect();
        let sweeps: Vec<Vec<Sweep>> = if *policy == Policy::BestRival {
            parts.iter().map(|part| trace.demand.iter().map(|demand| sweep(*part, demand, setting)).collect()).collect()
        } else {
            Vec::new()
        };
        let sweeps: Vec<&Vec<Sweep>> = sweeps.iter().collect();
        let candidates = candidates(policy, &sweeps, trace.names.len());
        for (target, tuned) in &report.policies[policy.name()].tuned {
            let Some((_, choice)) = candidates.iter().find(|(knob, _)| *knob == tuned.knob) else { continue };
            let plans: Vec<Vec<u16>> = choice.iter().enumerate().map(|(s, (p, k))| planners[*p][s](parts[*p].knobs()[*k])).collect();
            let mut text = trace.names.join(",");
            for t in 0..trace.rows() {
                let row: Vec<String> = plans.iter().map(|plan| plan[t].to_string()).collect();
                let _ = write!(text, "\n{}", row.join(","));
            }
            text.push('\n');
            let write = |name: String| {
                let file = directory.join(name);
                std::fs::write(&file, &text).with_context(|| format!("cannot write {}", file.display()))
            };
            write(format!("{}@{target}.csv", policy.name()))?;
            if target == PLAIN_TARGET {
                write(format!("{}.csv", policy.name()))?;
            }
        }
    }
    Ok(())
}
