//! What a run was like: figures beside the verdict, and a page with charts.
//!
//! [`Figures`] are part of the run's JSON document. [`page::html`] makes of it one file that needs
//! nothing else: inline SVG, no script, light and dark.

pub(crate) mod chart;
pub mod page;
pub mod survey;

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
