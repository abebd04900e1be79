//! How well anomalies are found: the agent's detector on the labelled series of the Numenta Anomaly Benchmark.
//!
//! `tradewind-sim nab bench --data DIR` reads the recorded series, lets the agent's own forecasts and detector run
//! over them step by step, and prints the NAB score ([`score`]) with the false alarms a series and week. The
//! same detector is also measured without forecasts, the last value standing for the median. A silent, a random
//! and a perfect detector stand beside them, so that the scorer can be seen to be right. Nothing is tuned per series.

mod data;
pub mod score;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use data::Series;
use score::{Judged, Profile, Score};
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tradewind_agent::anomaly::{Detector, Expected};
use tradewind_agent::config::ForecastConfig;
use tradewind_agent::forecast::Forecasts;
use tradewind_protocol::{Quantile, SeriesKey, Step, StepIndex, Timestamp};

/// `tradewind-sim nab ...`
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Scores the anomaly detector on labelled series.
    Bench {
        /// Where `*.csv` or `*.csv.gz` (series,timestamp,value,...) and `labels.json` are. The labels say when something
        /// was out of the ordinary, series by series, in UTC:
        /// {"SERIES": {"windows": [["2014-02-26 13:45:00", "2014-02-27 06:25:00"]]}}.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    /// Does what is asked; the text to print.
    pub fn run(self) -> anyhow::Result<String> {
        let Command::Bench { data, json } = self.command;
        let report = bench(&data)?;
        Ok(if json { serde_json::to_string_pretty(&report)? } else { report.to_text() })
    }
}

/// The threshold that an agent has unless it is configured otherwise.
const DEFAULT_FALSE_ALARM_PROBABILITY: f64 = 3e-4;
/// A day: the season of what people do.
const DAY: Duration = Duration::from_secs(86_400);
/// A week, in seconds.
const WEEK_SECONDS: f64 = 7.0 * 86_400.0;

/// What all detectors achieve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Of how many series.
    pub series: usize,
    /// Of how many rows.
    pub rows: usize,
    /// Detector by detector, the agent's first.
    pub detectors: Vec<Standing>,
}

/// What one detector achieves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Which.
    pub detector: String,
    /// NAB's score, standard profile, with the threshold that serves the whole corpus best.
    pub score: f64,
    /// That threshold.
    pub threshold: f64,
    /// Windows found.
    pub found: usize,
    /// All windows.
    pub windows: usize,
    /// False alarms a series and week.
    pub false_alarms_per_series_week: f64,
    /// The score with the agent's default threshold, fixed beforehand.
    pub default_score: Option<f64>,
    /// False alarms a series and week with it.
    pub default_false_alarms_per_series_week: Option<f64>,
    /// Mean time a step, microseconds, without the forecast.
    pub step_us: Option<f64>,
    /// Series by series, with the common threshold.
    pub by_series: Vec<Line>,
}

/// What one detector achieves on one series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Which series.
    pub series: String,
    /// Its score alone.
    pub score: f64,
    /// Windows found.
    pub found: usize,
    /// All windows.
    pub windows: usize,
    /// Alarms outside of them.
    pub false_alarms: usize,
    /// The same a week.
    pub false_alarms_per_week: f64,
}

/// Measures all detectors on the series in `dir`.
pub fn bench(dir: &Path) -> anyhow::Result<Report> {
    let corpus = data::load(dir).with_context(|| format!("cannot read labelled series from {}", dir.display()))?;
    let mut foreseen = vec![];
    for series in &corpus {
        foreseen.push(expectations(series)?);
    }
    let rows = corpus.iter().map(|series| series.values.len()).sum();
    let mut detectors = vec![];
    let nothing: Vec<Vec<Option<Expected>>> = corpus.iter().map(|series| vec![None; series.values.len()]).collect();
    for (name, expected) in [("agent", &foreseen), ("agent, without forecasts", &nothing)] {
        let started = Instant::now();
        let scores = corpus.iter().zip(expected).map(|(series, expected)| surprises(&series.values, expected)).collect();
        let step_us = started.elapsed().as_secs_f64() * 1e6 / rows as f64;
        detectors.push(Standing { step_us: Some(step_us), ..standing(name, &corpus, scores, true) });
    }
    let each = |score: &mut dyn FnMut(&Series, usize) -> f64| -> Vec<Vec<f64>> {
        corpus.iter().map(|series| (0..series.values.len()).map(|at| score(series, at)).collect()).collect()
    };
    let mut chance = chance();
    let perfect = |series: &Series, at: usize| {
        let from = score::probation(series.values.len());
        let first = |window: &score::Window| window.first.max(from) == at && window.last >= from;
        f64::from(u8::from(series.windows.iter().any(first)))
    };
    detectors.push(standing("random", &corpus, each(&mut |_, _| chance()), false));
    detectors.push(standing("silent", &corpus, each(&mut |_, _| 0.0), false));
    detectors.push(standing("perfect", &corpus, each(&mut |series, at| perfect(series, at)), false));
    Ok(Report { series: corpus.len(), rows, detectors })
}

/// What the agent foresees for each row from those before it.
fn expectations(series: &Series) -> anyhow::Result<Vec<Option<Expected>>> {
    let step = Step::new(series.interval)?;
    let season = (DAY.as_secs_f64() / series.interval.as_secs_f64()).round().max(1.0) as usize;
    let mut forecasts = Forecasts::new(&ForecastConfig { horizon: 1, season }, step);
    let key = SeriesKey {
        tenant: Default::default(),
        source: "here".parse()?,
        destination: "here".parse()?,
        service: Default::default(),
        transaction_type: Default::default(),
    };
    let mut expected = vec![];
    for (at, value) in series.values.iter().enumerate() {
        let prediction = forecasts.predictions(Timestamp::EPOCH).pop();
        expected.push(prediction.and_then(|prediction| {
            let of = |quantile| prediction.path.value(prediction.path.start(), quantile);
            let (low, high) = Quantile::CENTRAL_90;
            Some(Expected { low: of(low)?, median: of(Quantile::MEDIAN)?, high: of(high)? })
        }));
        forecasts.close(StepIndex(at as i64), [(&key, *value)]);
    }
    Ok(expected)
}

/// The detector's surprise at each row; nothing where it is not fresh, as the agent tells nobody then.
fn surprises(values: &[f64], expected: &[Option<Expected>]) -> Vec<f64> {
    let mut detector = Detector::default();
    let judge = |(value, expected): (&f64, &Option<Expected>)| {
        let verdict = detector.observe(*value, *expected, 0.0);
        if verdict.fresh { verdict.surprise } else { 0.0 }
    };
    values.iter().zip(expected).map(judge).collect()
}

/// Numbers between 0 and 1 (Knuth's MMIX generator).
fn chance() -> impl FnMut() -> f64 {
    let mut state = 1_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn standing(detector: &str, corpus: &[Series], scores: Vec<Vec<f64>>, agent: bool) -> Standing {
    let judged: Vec<Judged> =
        corpus.iter().zip(scores).map(|(series, scores)| Judged { windows: series.windows.clone(), scores }).collect();
    let best = score::best(&judged, Profile::STANDARD);
    let weeks: f64 = corpus.iter().map(Series::scored_weeks).sum();
    let default = agent.then(|| score::at(&judged, Profile::STANDARD, -DEFAULT_FALSE_ALARM_PROBABILITY.log10()));
    let by_series = corpus.iter().zip(&judged).map(|(series, judged)| {
        let Score { normalised, found, windows, false_alarms, .. } =
            score::at(std::slice::from_ref(judged), Profile::STANDARD, best.threshold);
        let false_alarms_per_week = false_alarms as f64 / series.scored_weeks();
        Line { series: series.name.clone(), score: normalised, found, windows, false_alarms, false_alarms_per_week }
    });
    Standing {
        detector: detector.into(),
        score: best.normalised,
        threshold: best.threshold.min(f64::MAX),
        found: best.found,
        windows: best.windows,
        false_alarms_per_series_week: best.false_alarms as f64 / weeks,
        default_score: default.map(|score| score.normalised),
        default_false_alarms_per_series_week: default.map(|score| score.false_alarms as f64 / weeks),
        step_us: None,
        by_series: by_series.collect(),
    }
}

impl Series {
    fn scored_weeks(&self) -> f64 {
        let rows = self.values.len() - score::probation(self.values.len());
        (rows as f64 * self.interval.as_secs_f64() / WEEK_SECONDS).max(f64::MIN_POSITIVE)
    }
}

impl Report {
    /// The report as text.
    pub fn to_text(&self) -> String {
        let mut text = format!("NAB, standard profile: {} series, {} rows. 0 is silence, 100 perfection.\n\n", self.series, self.rows);
        // Strings take everything, so that what is written cannot fail.
        let _ = writeln!(
            text,
            "{:26} {:>6} {:>9} {:>7} {:>21} {:>18}",
            "DETECTOR", "SCORE", "THRESHOLD", "FOUND", "FALSE ALARMS A WEEK", "DEFAULT THRESHOLD"
        );
        for standing in &self.detectors {
            let found = format!("{}/{}", standing.found, standing.windows);
            let default = match (standing.default_score, standing.default_false_alarms_per_series_week) {
                (Some(score), Some(alarms)) => format!("{score:.1} ({alarms:.1} a week)"),
                (None, _) | (_, None) => String::new(),
            };
            let threshold = if standing.threshold < f64::MAX { format!("{:.2}", standing.threshold) } else { "none".into() };
            let (name, score, alarms) = (&standing.detector, standing.score, standing.false_alarms_per_series_week);
            let _ = writeln!(text, "{name:26} {score:6.1} {threshold:>9} {found:>7} {alarms:21.2} {default:>18}");
        }
        if let Some(agent) = self.detectors.first() {
            let _ = writeln!(text, "\n{:50} {:>6} {:>7} {:>21}", "SERIES (agent)", "SCORE", "FOUND", "FALSE ALARMS A WEEK");
            for Line { series, score, found, windows, false_alarms_per_week, .. } in &agent.by_series {
                let found = format!("{found}/{windows}");
                let _ = writeln!(text, "{series:50} {score:6.1} {found:>7} {false_alarms_per_week:21.2}");
            }
            if let Some(us) = agent.step_us {
                let _ = write!(text, "\n{us:.2} us a step, {} bytes a series", Detector::BYTES);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two weeks of a daily cycle with one labelled spike.
    fn write(dir: &Path) {
        let mut csv = "series,timestamp,value,label_window\n".to_owned();
        for at in 0..3_000_i64 {
            let when = Timestamp::from_millis(at * 300_000).unwrap().to_string().replace('T', " ").replace('Z', "");
            let noise = ((at * 7_919) % 101) as f64 / 10.0;
            let value = 100.0 + 50.0 * (at as f64 / 288.0 * std::f64::consts::TAU).sin() + noise;
            let spike = if (2_500..2_510).contains(&at) { 300.0 } else { 0.0 };
            csv += &format!("made/up,{when},{},0\n", value + spike);
        }
        std::fs::write(dir.join("made.csv"), csv).unwrap();
        let labels = r#"{"made/up.csv": {"windows": [["1970-01-09 15:00:00.000000", "1970-01-09 18:00:00.000000"]]}}"#;
        std::fs::write(dir.join("labels.json"), labels).unwrap();
    }

    #[test]
    fn the_bench_finds_a_spike_and_knows_silence_and_perfection() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let report = bench(dir.path()).unwrap();
        let of = |name: &str| report.detectors.iter().find(|standing| standing.detector == name).unwrap();
        assert_eq!((of("silent").score, of("silent").found), (0.0, 0));
        assert!((of("perfect").score - 100.0).abs() < 1e-9);
        assert!(of("agent").score > 80.0, "{:?}", of("agent"));
        assert_eq!((report.series, report.rows, of("agent").windows), (1, 3_000, 1));
        assert!(report.to_text().contains("made/up"));
        assert!(serde_json::to_string(&report).unwrap().contains("false_alarms_per_series_week"));
    }

    #[test]
    fn what_is_wrong_with_the_data_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| format!("{:#}", bench(dir).unwrap_err());
        assert!(error(dir.path()).contains("labels.json"), "{}", error(dir.path()));
        write(dir.path());
        std::fs::write(dir.path().join("made.csv"), "series,timestamp,value\na,yesterday,1\n").unwrap();
        assert!(error(dir.path()).contains("line 2"), "{}", error(dir.path()));
        write(dir.path());
        let label = |windows: &str| {
            std::fs::write(dir.path().join("labels.json"), format!(r#"{{"made/up": {windows}}}"#)).unwrap();
            error(dir.path())
        };
        assert!(label("[]").contains(r#"like {"SERIES": {"windows": "#), "{}", label("[]"));
        for (window, wanted) in [
            (r#"["1970-01-09 18:00:00", "1970-01-09 15:00:00"]"#, "no row in it"),
            (r#"["1990-01-09 15:00:00", "1990-01-09 18:00:00"]"#, "no row in it"),
            (r#"["soon", "later"]"#, r#"window "soon" to "later": timestamp"#),
        ] {
            let error = label(&format!(r#"{{"windows": [{window}]}}"#));
            assert!(error.contains("made/up, window") && error.contains(wanted), "{error}");
        }
    }
}
