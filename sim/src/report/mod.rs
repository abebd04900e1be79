//! What came of a run: the verdict, what it was like in figures, and a page with charts.
//!
//! A [`Report`] is the run's JSON document, and [`Figures`] are part of it. [`page::html`] makes of it one file that needs
//! nothing else: inline SVG, no script, light and dark.

pub(crate) mod chart;
pub mod page;
pub mod survey;

use crate::oracle::{Rule, Settled, THE_SIMULATION, Violation};
use crate::scenario::Bounds;
use crate::trace::Summary;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use survey::{CapacityFigures, ForecastFigures};

/// A file for the page that comes at the end of a long run: made before it, so that a name that cannot be written is known at once.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    path: PathBuf,
}

impl PageFile {
    /// Makes the file, or empties it.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write the page to {}", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Fills it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn fill(mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write the page to {}", self.path.display()))
    }
}

/// By fault, how often it met an agent in each state.
pub type Crossings = BTreeMap<String, BTreeMap<String, u64>>;

/// What came of a simulation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// From which all chance followed.
    pub seed: u64,
    /// Whether another process gives the same run for the seed.
    pub deterministic: bool,
    /// How long it lasted in the simulation, seconds.
    pub simulated_s: f64,
    /// How long it took, seconds.
    pub wall_s: f64,
    /// Processor time that it took, seconds: what it would take on an idle machine.
    pub cpu_s: f64,
    /// How many agents took part.
    pub agents: usize,
    /// What was traced.
    pub trace: Summary,
    /// Bytes of datagrams that an agent sent per second.
    pub bytes_per_agent_second: f64,
    /// Batches of records that were acknowledged, and transactions in them.
    pub acknowledged_batches: u64,
    /// See `acknowledged_batches`.
    pub acknowledged_transactions: u64,
    /// Posts that had to be repeated.
    pub retries: u64,
    /// Acknowledged batches that were posted again after a restart.
    pub repeated_after_restart: u64,
    /// Series whose counts were compared with what was acknowledged.
    pub series_compared: u64,
    /// Lives of agents whose durable state was compared with the reference model.
    #[serde(default)]
    pub lives_compared: u64,
    /// How many rules were judged: not those of the inspectors where a survey is in their place, nor the figures where no bound is set.
    #[serde(default)]
    pub rules_judged: usize,
    /// How long the views took to be right after each change.
    pub settled: Vec<Settled>,
    /// What was measured beside the rules.
    pub figures: Figures,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// How often each fault met an agent in each state.
    #[serde(default)]
    pub crossings: Crossings,
    /// The largest database at the end.
    #[serde(default)]
    pub largest_database_bytes: u64,
    /// The most memory that an agent held at the end, without its disk.
    #[serde(default)]
    pub largest_memory_bytes: i64,
    /// The fastest that an agent's memory grew in each half of the last third, in one life.
    #[serde(default)]
    pub fastest_growth_bytes_per_s: f64,
    /// How often each coverage mark was reached, in builds with the feature `mutants`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, u64>,
}

impl Report {
    /// Of a run that did not come to its end, which is all that is known of it.
    pub(crate) fn broken_off(scenario: &str, seed: u64, agents: usize, at: Duration, took: Duration, why: &str) -> Report {
        let at = at.as_secs_f64();
        let broken = Violation { rule: Rule::Runs, subject: THE_SIMULATION.into(), what: why.into(), first_s: at, last_s: at, times: 1 };
        Report {
            scenario: scenario.into(),
            seed,
            simulated_s: at,
            wall_s: took.as_secs_f64(),
            agents,
            violations: vec![broken],
            ..Report::default()
        }
    }

    /// Whether the run did not come to its end: virtual time stood still, or it panicked.
    pub fn is_broken_off(&self) -> bool {
        // Whoever records anything has a hash of it.
        self.trace.digest.is_empty()
    }

    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// How much faster than time the simulation went, by processor time: what an idle core would give.
    pub fn speed(&self) -> f64 {
        self.simulated_s / if self.cpu_s > 0.0 { self.cpu_s } else { self.wall_s }.max(1e-9)
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            format!(
                "{}, seed {}: {} agents, {:.0} s in {:.2} s, {:.2} s of one processor ({:.0} times real time)",
                self.scenario,
                self.seed,
                self.agents,
                self.simulated_s,
                self.wall_s,
                self.cpu_s,
                self.speed()
            ),
            format!("  {} datagrams, {:.0} bytes per agent and second", self.trace.packets, self.bytes_per_agent_second),
            format!(
                "  {} batches acknowledged ({} transactions), {} posts repeated, {} batches posted again after a restart, {} series compared, \
                 {} lives compared",
                self.acknowledged_batches,
                self.acknowledged_transactions,
                self.retries,
                self.repeated_after_restart,
                self.series_compared,
                self.lives_compared
            ),
            format!("  trace {} ({} lines)", self.trace.digest, self.trace.lines),
        ];
        lines.extend(
            self.settled
                .iter()
                .map(|settled| format!("  views right {:.1} s after {} at {:.1} s", settled.took_s, settled.after, settled.at_s)),
        );
        if let Some(forecast) = self.figures.forecast.as_ref().filter(|forecast| forecast.scored == 0) {
            lines.push(format!(
                "  no forecast was scored {} steps ahead: agents have to look as far (`horizon` under [agent.forecast]), and the run to last",
                forecast.lead_steps
            ));
        } else if let Some(forecast) = &self.figures.forecast {
            lines.push(format!(
                "  {} forecasts scored {} steps ahead: error {:.3}, seasonal naive {:.3}; {:.1} % inside the 90 % interval",
                forecast.scored,
                forecast.lead_steps,
                forecast.pinball,
                forecast.seasonal_naive_pinball,
                100.0 * forecast.coverage_90
            ));
        }
        if let Some(capacity) = &self.figures.capacity {
            lines.push(format!(
                "  short of capacity in {:.2} % of {} steps for {:.2} instance-hours; a reactive scaler in {:.2} % for {:.2}",
                100.0 * capacity.late_share,
                capacity.region_steps,
                capacity.instance_hours,
                100.0 * capacity.reactive_late_share,
                capacity.reactive_instance_hours
            ));
        }
        if !self.deterministic {
            lines.push("  NOT DETERMINISTIC: another run of this seed may differ (the operating system's chance and clock are replaced with glibc only, and for the first simulation of a process)".into());
        }
        if self.passed() {
            lines.push(format!("  {}", self.held()));
        }
        for violation in &self.violations {
            lines.push(format!("  VIOLATED ({}): {}", violation.subject, violation.rule.text()));
            lines.push(format!("    at {:.2} s{}: {}", violation.first_s, again(violation), violation.what));
        }
        lines.join("\n")
    }

    /// What held, in words.
    pub(crate) fn held(&self) -> String {
        let inspected = Rule::ALL.iter().filter(|rule| rule.is_inspected()).count();
        // A scenario without bounds of figures says nothing of them.
        if self.rules_judged + inspected > Rule::ALL.len() {
            return format!("all {} rules held", self.rules_judged);
        }
        format!(
            "{} rules held; {inspected}, about capacity and restarts, were not judged: a survey is in place of the inspectors",
            self.rules_judged
        )
    }
}

fn again(violation: &Violation) -> String {
    if violation.times > 1 { format!(" ({} times until {:.2} s)", violation.times, violation.last_s) } else { String::new() }
}

/// Seconds of the simulation, and a value.
pub type Point = (f64, f64);

/// How many samples there are at most of what is looked at over time: a pixel pair each.
const MAX_SAMPLES: u32 = 300;

/// What was measured beside the rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Share of the running agents whose last view of the mesh was right.
    pub right: Vec<Point>,
    /// Bytes of datagrams that an agent sent per second, all agents' mean since the sample before.
    pub bytes_per_agent_second: Vec<Point>,
    /// How good the forecasts were; only with a survey.
    pub forecast: Option<ForecastFigures>,
    /// Whether capacity stood ready; only with a survey.
    pub capacity: Option<CapacityFigures>,
}

/// What is not within its bound: the figure's name, and what it is. One that nothing was measured of keeps no bound.
pub(crate) fn beyond(bounds: &Bounds, figures: &Figures, bytes_per_agent_second: f64) -> Vec<(&'static str, String)> {
    let forecast = figures.forecast.as_ref().filter(|forecast| forecast.scored > 0);
    let capacity = figures.capacity.as_ref().filter(|capacity| capacity.region_steps > 0);
    let within = |name, keeps: fn(&f64, &f64) -> bool, word, bound: Option<f64>, value: Option<f64>| {
        let bound = bound.filter(|bound| !value.is_some_and(|value| keeps(&value, bound)))?;
        Some((name, value.map_or("nothing was measured".to_owned(), |value| format!("{value:.4}, where {word} {bound} is wanted"))))
    };
    let most = |name, bound, value| within(name, f64::le, "at most", bound, value);
    let found = [
        most("late share", bounds.late_share, capacity.map(|capacity| capacity.late_share)),
        most("forecast ratio", bounds.forecast_ratio, forecast.map(ForecastFigures::ratio)),
        within("coverage of 90 %", f64::ge, "at least", bounds.coverage_90, forecast.map(|forecast| forecast.coverage_90)),
        most("bytes per agent and second", bounds.bytes_per_agent_second, Some(bytes_per_agent_second)),
    ];
    found.into_iter().flatten().collect()
}

/// Takes samples of a running simulation.
#[derive(Debug)]
pub(crate) struct Sampler {
    every: Duration,
    next: Duration,
    bytes: u64,
    agents: usize,
    figures: Figures,
}

impl Sampler {
    /// For a simulation of `agents` that lasts `duration`.
    pub(crate) fn new(duration: Duration, agents: usize) -> Self {
        let every = (duration / MAX_SAMPLES).max(Duration::from_secs(1));
        Self { every, next: every, bytes: 0, agents, figures: Figures::default() }
    }

    /// Whether a sample is due.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// The share of agents with a right view, and the bytes that all agents have sent so far.
    pub(crate) fn sample(&mut self, now: Duration, right: f64, bytes: u64) {
        let at = now.as_secs_f64();
        self.figures.right.push((at, right));
        let rate = bytes.saturating_sub(self.bytes) as f64 / self.every.as_secs_f64() / self.agents.max(1) as f64;
        self.figures.bytes_per_agent_second.push((at, rate));
        self.bytes = bytes;
        self.next = now + self.every;
    }

    /// What was sampled.
    pub(crate) fn into_figures(self) -> Figures {
        self.figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_its_bound_and_one_that_was_not_measured_keeps_none() {
        let bounds =
            Bounds { late_share: Some(0.05), forecast_ratio: Some(0.9), coverage_90: Some(0.8), bytes_per_agent_second: Some(1e3) };
        let measured = |late_share, pinball, coverage_90| Figures {
            forecast: Some(ForecastFigures { scored: 10, pinball, seasonal_naive_pinball: 2.0, coverage_90, ..ForecastFigures::default() }),
            capacity: Some(CapacityFigures { region_steps: 10, late_share, ..CapacityFigures::default() }),
            ..Figures::default()
        };
        let names = |figures: &Figures, bytes| beyond(&bounds, figures, bytes).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&measured(0.05, 1.8, 0.8), 1e3), [""; 0]);
        assert_eq!(names(&measured(0.06, 1.8, 0.8), 1e3), ["late share"]);
        assert_eq!(names(&measured(0.05, 1.9, 0.79), 1_001.0), ["forecast ratio", "coverage of 90 %", "bytes per agent and second"]);
        let nothing = Figures { forecast: Some(ForecastFigures::default()), ..Figures::default() };
        assert_eq!(names(&nothing, 0.0), ["late share", "forecast ratio", "coverage of 90 %"]);
        assert_eq!(beyond(&Bounds::default(), &nothing, 1e9), []);
    }
}
