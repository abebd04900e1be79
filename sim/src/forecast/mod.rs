//! How good forecasts are: the agent's own forecaster on recorded series, with rolling origins.
//!
//! `tradewind-sim forecast bench --data DIR` reads pairs of `NAME.csv[.gz]` (a column a series) and `NAME.json` (see
//! [`data`]), feeds the agent's forecaster step by step, and at each origin scores what it foresees by what came
//! ([`score`]): scaled pinball loss as a ratio to seasonal naive's, scaled error of the median, and how often the
//! central 90 % interval held. Beside the combination stand each expert alone, the plain mean of their quantiles,
//! the combination without each of them, and the quantiles of the last 2,000 values.
//!
//! Nothing is tuned here, and nothing after an origin is read before it is scored (a test replaces it by noise).

mod data;
mod page;
mod score;

use crate::report::PageFile;
use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use data::Set;
use score::{QUANTILES, Yardstick};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tradewind_agent::config::ForecastConfig;
use tradewind_agent::forecast::global::{GlobalConfig, Globals, Kind, Said};
use tradewind_agent::forecast::{EXPERTS, Forecasts};
use tradewind_protocol::{RegionId, SeriesKey, Step, StepIndex, Timestamp};

pub use score::{Figures, Scores};

/// `tradewind-sim forecast ...`
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scores the forecaster on recorded series.
    Bench {
        /// Where `NAME.csv` or `NAME.csv.gz` (a column a series) and, if it is to be scored otherwise than over its last
        /// fifth, `NAME.json` are: {"season": STEPS, "origins": [ROW, ..], "horizons": [1, 4, ..]}.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The season, in steps, of a CSV that has no JSON beside it.
        #[arg(long, value_name = "STEPS")]
        season: Option<usize>,
        /// Measures the combination only: no single experts, no ablation.
        #[arg(long)]
        brief: bool,
        /// The models that are trained on all series at once, by name, or `none`. They are trained as in an agent: on what is
        /// known until then, now and then.
        #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "global-boosting,global-nhits")]
        global: Vec<String>,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
        /// Writes the result as a page with charts to this file.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
}

impl Arguments {
    /// Does what is asked; the text to print.
    pub fn run(self) -> anyhow::Result<String> {
        let Command::Bench { data, season, brief, global, json, html } = self.command;
        let known = || format!("--global takes {} and none, got {global:?}", Kind::ALL.map(Kind::name).join(", "));
        let kinds = global.iter().filter(|name| *name != "none").map(|name| Kind::named(name));
        let kinds = kinds.collect::<Option<Vec<_>>>().with_context(known)?;
        let html = html.as_deref().map(PageFile::create).transpose()?;
        let report = bench(&data, season, if brief { Depth::Brief } else { Depth::Full }, &kinds)?;
        if let Some(file) = html {
            file.fill(&page::html(&report))?;
        }
        Ok(if json { serde_json::to_string_pretty(&report)? } else { report.to_text() })
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The combination.
    Brief,
    /// Also each expert alone, their plain mean, and the combination without each.
    Full,
}

/// What came out, set by set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// By name.
    pub sets: BTreeMap<String, SetReport>,
}

/// What came out on one set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetReport {
    /// How many series were scored.
    pub series: usize,
    /// Series that never change from season to season before the first origin: their scale is zero, and nothing is
    /// measured in it.
    pub unscaled: Vec<String>,
    /// Cells that were no numbers; the value before each stands for it, and none is scored.
    pub missing: usize,
    /// The combination: what the agent publishes.
    #[serde(flatten)]
    pub scores: Scores,
    /// Each expert alone, with the same calibration.
    pub experts: BTreeMap<String, Scores>,
    /// The mean of the experts' quantiles.
    pub plain_mean: Option<Scores>,
    /// The combination without one of them.
    pub ablation: BTreeMap<String, Scores>,
    /// What needs no model: seasonal naive, and the quantiles of the last 2,000 values.
    pub baselines: BTreeMap<String, Scores>,
    /// A few paths, for the page.
    #[serde(skip)]
    samples: Vec<Sample>,
}

/// One path beside what came.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    title: String,
    before: Vec<f64>,
    after: Vec<f64>,
    rows: Vec<[f64; QUANTILES]>,
}

/// How many paths a page shows for each set.
const SAMPLES: usize = 6;

/// Measures the forecaster on all sets in `dir`, with these global models. `season` is for sets without JSON.
pub fn bench(dir: &Path, season: Option<usize>, depth: Depth, kinds: &[Kind]) -> anyhow::Result<Report> {
    let sets = data::load(dir, season).with_context(|| format!("cannot read series from {}", dir.display()))?;
    for set in &sets {
        let scaled = set.series.iter().any(|series| series.scale > 0.0);
        ensure!(scaled, "{}: no series ever differs from itself a season before: there is no scale to measure errors in", set.name);
    }
    Ok(Report { sets: sets.iter().map(|set| Ok((set.name.clone(), measure(set, depth, kinds)?))).collect::<anyhow::Result<_>>()? })
}

/// Paths by origin, series and horizon.
type Paths = Vec<Vec<Vec<[f64; QUANTILES]>>>;

fn measure(set: &Set, depth: Depth, kinds: &[Kind]) -> anyhow::Result<SetReport> {
    let yardstick = Yardstick::new(set);
    let score = |paths: &Paths| yardstick.score(set, paths);
    let globals = record(set, &GlobalConfig::of(kinds.to_vec(), set.season))?;
    let combined = foresee(set, &EXPERTS, &globals)?;
    let (mut experts, mut ablation, mut plain_mean) = (BTreeMap::new(), BTreeMap::new(), None);
    if depth == Depth::Full {
        let mut alone = vec![];
        for name in EXPERTS {
            let paths = foresee(set, &[name], &Recorded::none())?;
            experts.insert(name.to_owned(), score(&paths));
            alone.push(paths);
            let others: Vec<&str> = EXPERTS.into_iter().filter(|other| *other != name).collect();
            ablation.insert(name.to_owned(), score(&foresee(set, &others, &globals)?));
        }
        for kind in kinds {
            if let Some(paths) = globals.alone(set, *kind)? {
                experts.insert(kind.name().to_owned(), score(&paths));
                alone.push(paths);
            }
            let others = globals.without(*kind);
            ablation.insert(kind.name().to_owned(), score(&foresee(set, &EXPERTS, &others)?));
        }
        plain_mean = Some(score(&mean(&alone)));
    }
    Ok(SetReport {
        series: set.series.iter().filter(|series| series.scale > 0.0).count(),
        unscaled: set.series.iter().filter(|series| series.scale <= 0.0).map(|series| series.name.clone()).collect(),
        missing: set.series.iter().map(|series| series.missing.len()).sum(),
        scores: score(&combined),
        experts,
        plain_mean,
        ablation,
        baselines: yardstick.baselines(set),
        samples: samples(set, &combined),
    })
}

/// What the global models said after every step: trained once, whatever company they are measured in.
#[derive(Debug)]
struct Recorded {
    config: GlobalConfig,
    said: Vec<Arc<BTreeMap<SeriesKey, Said>>>,
}

fn record(set: &Set, config: &GlobalConfig) -> anyhow::Result<Recorded> {
    let (mut globals, mut said) = (fresh(set, config), vec![]);
    let keys = (0..set.series.len()).map(key).collect::<anyhow::Result<Vec<_>>>()?;
    for step in 0..set.origins.last().copied().unwrap_or(0) {
        globals.close(StepIndex(step as i64), keys.iter().zip(&set.series).map(|(key, series)| (key, series.values[step])));
        if let Some(trained) = globals.due().and_then(|training| training.run()) {
            globals.install(trained);
        }
        globals.speak();
        said.push(globals.said());
    }
    Ok(Recorded { config: config.clone(), said })
}

/// As an agent has them, for all series.
fn fresh(set: &Set, config: &GlobalConfig) -> Globals {
    let horizon = set.horizons.iter().copied().max().unwrap_or(1);
    Globals::new(GlobalConfig { max_series: set.series.len(), ..config.clone() }, horizon, set.season)
}

impl Recorded {
    fn none() -> Self {
        Self { config: GlobalConfig::none(), said: vec![] }
    }

    fn without(&self, kind: Kind) -> Self {
        let models = self.config.models.iter().copied().filter(|other| *other != kind).collect();
        let others = |said: &Said| said.iter().filter(|(other, _)| *other != kind).cloned().collect();
        let said = self.said.iter().map(|said| Arc::new(said.iter().map(|(key, said)| (key.clone(), others(said))).collect()));
        Self { config: GlobalConfig { models, ..self.config.clone() }, said: said.collect() }
    }

    /// What one model said at the origins, as it said it. Nothing if it was silent anywhere.
    fn alone(&self, set: &Set, kind: Kind) -> anyhow::Result<Option<Paths>> {
        let keys = (0..set.series.len()).map(key).collect::<anyhow::Result<Vec<_>>>()?;
        let path = |origin: usize, key: &SeriesKey| {
            let (_, path) = self.said.get(origin - 1)?.get(key)?.iter().find(|(of, _)| *of == kind)?;
            let path = path.as_ref().ok()?;
            Some(set.horizons.iter().map(|h| path.row(*h)).collect())
        };
        Ok(set.origins.iter().map(|origin| keys.iter().map(|key| path(*origin, key)).collect()).collect())
    }
}

/// What the agent foresees at each origin, with these experts and global models.
fn foresee(set: &Set, experts: &[&str], recorded: &Recorded) -> anyhow::Result<Paths> {
    let step = Step::new(set.step)?;
    let horizon = set.horizons.iter().copied().max().unwrap_or(1);
    let mut forecasts = Forecasts::with_experts(&ForecastConfig { horizon, season: set.season }, step, experts);
    let mut globals = fresh(set, &recorded.config);
    let keys = (0..set.series.len()).map(key).collect::<anyhow::Result<Vec<_>>>()?;
    let mut paths = vec![];
    let mut at = 0;
    for origin in &set.origins {
        let mut predictions = vec![];
        for step in at..*origin {
            let counts = || keys.iter().zip(&set.series).map(|(key, series)| (key, series.values[step]));
            forecasts.close(StepIndex(step as i64), counts());
            globals.close(StepIndex(step as i64), counts());
            recorded.said.get(step).cloned().into_iter().for_each(|said| globals.repeat(said));
            // Asked for after every step, since the weights of the global models are learnt from what was said.
            if !recorded.config.models.is_empty() || step + 1 == *origin {
                predictions = globals.blend(forecasts.predictions(Timestamp::EPOCH));
            }
        }
        at = *origin;
        // Ascending by key, which is the order of the columns.
        let row = |row: &[f32]| -> [f64; QUANTILES] { std::array::from_fn(|at| row.get(at).map_or(f64::NAN, |value| f64::from(*value))) };
        paths.push(predictions.iter().map(|p| set.horizons.iter().filter_map(|h| p.path.row(h - 1)).map(row).collect()).collect());
    }
    Ok(paths)
}

/// A name that orders as the columns do.
fn key(column: usize) -> anyhow::Result<SeriesKey> {
    Ok(SeriesKey {
        tenant: Default::default(),
        source: RegionId::new(&format!("column-{column:06}"))?,
        destination: RegionId::new("bench")?,
        service: Default::default(),
        transaction_type: Default::default(),
    })
}

fn mean(all: &[Paths]) -> Paths {
    let Some((first, others)) = all.split_first() else { return vec![] };
    let mut sum = first.clone();
    for other in others {
        for (sum, other) in sum.iter_mut().flatten().flatten().zip(other.iter().flatten().flatten()) {
            sum.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
        }
    }
    sum.iter_mut().flatten().flatten().flatten().for_each(|value| *value /= all.len() as f64);
    sum
}

fn samples(set: &Set, paths: &Paths) -> Vec<Sample> {
    let every = set.series.len().div_ceil(SAMPLES).max(1);
    let (at, Some(&origin)) = (set.origins.len() / 2, set.origins.get(set.origins.len() / 2)) else { return vec![] };
    let last = set.horizons.iter().copied().max().unwrap_or(1);
    let sample = |(column, series): (usize, &data::Series)| Sample {
        title: format!("{}, step {origin}", series.name),
        before: series.values[origin.saturating_sub(2 * last)..origin].to_vec(),
        after: set.horizons.iter().map(|h| series.values[origin + h - 1]).collect(),
        rows: paths[at][column].clone(),
    };
    set.series.iter().enumerate().step_by(every).map(sample).collect()
}

impl Report {
    /// The report as text.
    pub fn to_text(&self) -> String {
        let mut text = String::from(
            "RATIO: scaled pinball loss beside seasonal naive's (below 1 is better). MASE: error of the median. COVERAGE: of 90 % intervals.\n",
        );
        // Strings take everything, so that what is written cannot fail.
        for (name, set) in &self.sets {
            let _ = writeln!(text, "\n{name}: {} series", set.series);
            if !set.unscaled.is_empty() || set.missing > 0 {
                let _ = writeln!(text, "({} series without a scale, {} cells that were missing)", set.unscaled.len(), set.missing);
            }
            let horizons: String = set.scores.by_horizon.keys().map(|h| format!("{:>13}", format!("{h} ahead"))).collect();
            let _ = writeln!(text, "{:32} {:>6} {:>6} {:>9}{horizons}", "", "RATIO", "MASE", "COVERAGE");
            let mut line = |name: &str, scores: &Scores| {
                let Figures { ratio, mase, coverage_90 } = scores.overall;
                let by: String = scores.by_horizon.values().map(|f| format!("{:8.3} {:3.0}%", f.ratio, 100.0 * f.coverage_90)).collect();
                let _ = writeln!(text, "{name:32} {ratio:6.3} {mase:6.3} {coverage_90:9.3}{by}");
            };
            line("combination", &set.scores);
            set.plain_mean.iter().for_each(|scores| line("plain mean", scores));
            set.experts.iter().for_each(|(name, scores)| line(&format!("{name} alone"), scores));
            set.ablation.iter().for_each(|(name, scores)| line(&format!("without {name}"), scores));
            set.baselines.iter().for_each(|(name, scores)| line(name, scores));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_agent::forecast::global::Effort;

    fn noise(at: usize) -> f64 {
        let mixed = (at as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Two daily series of 24 steps a day, and their description.
    fn write(dir: &Path, after: impl Fn(usize) -> Option<f64>) {
        let mut csv = String::from("a>b,b>a\n");
        for at in 0..900_usize {
            let wave = 50.0 + 30.0 * (at as f64 / 24.0 * std::f64::consts::TAU).sin() + 10.0 * noise(at);
            let (a, b) = after(at).map_or((wave, 2.0 * wave + 10.0 * noise(at + 7_000)), |value| (value, value));
            csv += &format!("{a},{b}\n");
        }
        std::fs::write(dir.join("made.csv"), csv).unwrap();
        let json = r#"{"n": 900, "train_end": 760, "horizons": [1, 4], "season": 24, "origins": [760, 780, 800]}"#;
        std::fs::write(dir.join("made.json"), json).unwrap();
    }

    #[test]
    fn a_daily_series_is_foreseen_better_than_by_its_last_day() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), |_| None);
        let report = bench(dir.path(), None, Depth::Full, &[]).unwrap();
        let set = &report.sets["made"];
        assert!(set.scores.overall.ratio < 0.95, "{:?}", set.scores.overall);
        let naive = &set.baselines["seasonal naive"].overall;
        assert!((naive.ratio - 1.0).abs() < 1e-12, "{naive:?}");
        assert_eq!((set.series, set.experts.len(), set.ablation.len()), (2, EXPERTS.len(), EXPERTS.len()));
        let json = serde_json::to_value(&report).unwrap();
        let told = &json["sets"]["made"];
        assert_eq!(told["by_horizon"].as_object().unwrap().keys().collect::<Vec<_>>(), ["1", "4"]);
        for figures in [told, &told["by_horizon"]["4"], &told["experts"][EXPERTS[0]], &told["plain_mean"]["by_horizon"]["1"]] {
            assert!(["ratio", "mase", "coverage_90"].iter().all(|name| figures[name].is_f64()), "{figures}");
        }
        assert!(report.to_text().contains("combination") && page::html(&report).contains("a&gt;b"));
    }

    #[test]
    fn what_has_no_scale_is_refused_and_not_scored_with_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), |_| Some(7.0));
        let error = bench(dir.path(), None, Depth::Brief, &[]).unwrap_err();
        assert!(error.to_string().starts_with("made: no series ever differs"), "{error}");
    }

    #[test]
    fn nothing_after_an_origin_changes_what_was_foreseen_there() {
        let (told, changed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(told.path(), |_| None);
        write(changed.path(), |at| (at >= 780).then(|| 1e6 * noise(at)));
        let set = |dir: &Path| data::load(dir, None).unwrap().remove(0);
        let (told, changed) = (set(told.path()), set(changed.path()));
        let (none, brief) = (GlobalConfig::none(), GlobalConfig { effort: Effort::Brief, ..GlobalConfig::of(vec![Kind::Nhits], 24) });
        let single = EXPERTS.iter().map(std::slice::from_ref).map(|experts| (experts, &none));
        for (experts, global) in single.chain([(&EXPERTS[..], &none), (&EXPERTS[..], &brief)]) {
            let paths = |set: &Set| foresee(set, experts, &record(set, global).unwrap()).unwrap();
            let (told, changed) = (paths(&told), paths(&changed));
            assert_eq!(told[..2], changed[..2], "{experts:?} knew what comes after step 780");
            assert_ne!(told[2], changed[2], "{experts:?} does not see what is before step 800");
        }
    }
}
