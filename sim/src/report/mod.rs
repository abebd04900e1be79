//! What a run was like: figures beside the verdict, and a page with charts.
//!
//! [`Figures`] are part of the run's JSON document. [`page::html`] makes of it one file that needs
//! nothing else: inline SVG, no script, light and dark.

pub(crate) mod chart;
pub mod page;
pub mod survey;

use crate::scenario::Bounds;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
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
    let most = |name, bound: Option<f64>, value: Option<f64>| {
        let bound = bound.filter(|bound| value.is_none_or(|value| value.is_nan() || value > *bound))?;
        Some((name, value.map_or("nothing was measured".to_owned(), |value| format!("{value:.4}, where at most {bound} is wanted"))))
    };
    let least = |name, bound: Option<f64>, value: Option<f64>| {
        let bound = bound.filter(|bound| value.is_none_or(|value| value.is_nan() || value < *bound))?;
        Some((name, value.map_or("nothing was measured".to_owned(), |value| format!("{value:.4}, where at least {bound} is wanted"))))
    };
    let found = [
        most("late share", bounds.late_share, capacity.map(|capacity| capacity.late_share)),
        most("forecast ratio", bounds.forecast_ratio, forecast.map(ForecastFigures::ratio)),
        least("coverage of 90 %", bounds.coverage_90, forecast.map(|forecast| forecast.coverage_90)),
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
