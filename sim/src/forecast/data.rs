//! Reads sets of series: a CSV with a column a series, and a JSON that says how it is to be scored.
//!
//! The JSON's keys: `season` (steps), `origins` (an origin `o` knows the rows before row `o` and is asked for rows from
//! `o` on, counted from 0), `horizons` (1 is row `o` itself), `train_end`, and, if they are to be others than this program
//! computes, `scale` and `cols`. A CSV without JSON is scored at 12 origins over its last fifth.

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tradewind_protocol::Step;
use tradewind_protocol::forecast::MAX_HORIZON;

/// Origins of a CSV without JSON.
const ORIGINS: usize = 12;
/// Its horizons.
const HORIZONS: [usize; 5] = [1, 2, 4, 8, 24];
/// The season is taken for a day, to have a step's length.
const DAY: Duration = Duration::from_secs(86_400);

/// Series and how they are scored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) series: Vec<Series>,
    /// In steps.
    pub(super) season: usize,
    /// Ascending; each lies within the series with its longest horizon.
    pub(super) origins: Vec<usize>,
    /// Ascending.
    pub(super) horizons: Vec<usize>,
    pub(super) step: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
    /// Steps whose value was not given.
    pub(super) missing: BTreeSet<usize>,
    /// Mean absolute difference to the value a season ago, before `train_end`; at most 0 if there is none.
    pub(super) scale: f64,
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    cols: Option<Vec<String>>,
    #[serde(default)]
    season: Option<usize>,
    #[serde(default)]
    seasons: Vec<usize>,
    horizons: Vec<usize>,
    origins: Vec<usize>,
    #[serde(default)]
    train_end: Option<usize>,
    #[serde(default)]
    scale: Option<Vec<Option<f64>>>,
}

/// All sets in the directory, ascending by name.
pub(super) fn load(dir: &Path, season: Option<usize>) -> anyhow::Result<Vec<Set>> {
    let mut files = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    let mut sets = vec![];
    for path in files {
        let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = file.strip_suffix(".csv").or_else(|| file.strip_suffix(".csv.gz")) else { continue };
        sets.push(set(name, &path, season).with_context(|| format!("in {file}"))?);
    }
    ensure!(!sets.is_empty(), "there is no *.csv or *.csv.gz");
    Ok(sets)
}

fn set(name: &str, path: &Path, season: Option<usize>) -> anyhow::Result<Set> {
    let mut series = columns(&crate::data::read(path)?)?;
    let rows = series.first().map_or(0, |series| series.values.len());
    let json = path.with_file_name(format!("{name}.json"));
    let reach = HORIZONS[HORIZONS.len() - 1];
    let told = if json.exists() {
        let text = std::fs::read_to_string(&json)?;
        serde_json::from_str(&text).with_context(|| format!("{name}.json is not as it should be"))?
    } else {
        let season = season.with_context(|| format!("there is no {name}.json: say --season STEPS"))?;
        let (first, last) = (rows - rows / 5, rows.saturating_sub(reach));
        ensure!(
            first <= last,
            "{rows} rows are too few: the last fifth is scored, up to {reach} steps ahead, so that {} are wanted",
            5 * reach
        );
        ensure!(
            (1..first).contains(&season),
            "--season {season}: it must be at least 1, and shorter than the {first} rows before the first origin"
        );
        let origins = (0..ORIGINS).map(|at| first + last.saturating_sub(first) * at / ORIGINS).collect();
        let (horizons, train_end) = (HORIZONS.to_vec(), Some(first));
        Description { cols: None, season: Some(season), seasons: vec![], horizons, origins, train_end, scale: None }
    };
    let Some(season) = told.season.or(told.seasons.first().copied()).filter(|season| *season > 0) else {
        bail!("{name}.json: \"season\" is missing or 0; want the number of steps");
    };
    if let Some(cols) = &told.cols {
        let named: Vec<&String> = series.iter().map(|series| &series.name).collect();
        ensure!(cols.iter().eq(named.iter().copied()), "\"cols\" of {name}.json are not the CSV's columns {named:?}");
    }
    let (mut origins, mut horizons) = (told.origins, told.horizons);
    origins.sort_unstable();
    origins.dedup();
    horizons.sort_unstable();
    horizons.dedup();
    ensure!(
        horizons.first().is_some_and(|h| *h > 0) && horizons.last().is_some_and(|h| *h <= MAX_HORIZON),
        "{name}.json: \"horizons\" are {horizons:?}; want some between 1 and {MAX_HORIZON}"
    );
    let reach = horizons.last().copied().unwrap_or(1);
    ensure!(
        origins.first().is_some_and(|o| *o > 0) && origins.last().is_some_and(|o| o + reach <= rows),
        "{name}.json: \"origins\" are {origins:?}; want some from 1 to {}, so that {reach} of the {rows} rows follow",
        rows.saturating_sub(reach)
    );
    let train_end = told.train_end.unwrap_or(origins[0]).min(rows);
    if let Some(scale) = &told.scale {
        ensure!(scale.len() == series.len(), "{name}.json: {} in \"scale\", {} columns in the CSV", scale.len(), series.len());
    }
    for (at, series) in series.iter_mut().enumerate() {
        let given = told.scale.as_ref().and_then(|scale| scale[at]);
        series.scale = given.filter(|scale| scale.is_finite()).unwrap_or_else(|| seasonal_difference(&series.values[..train_end], season));
    }
    let step = DAY.div_f64(season as f64).clamp(Step::MIN, Step::MAX);
    let step = Duration::from_millis(u64::try_from(step.as_millis()).unwrap_or(u64::MAX));
    Ok(Set { name: name.to_owned(), series, season, origins, horizons, step })
}

fn seasonal_difference(values: &[f64], season: usize) -> f64 {
    let differences = values.iter().skip(season).zip(values).map(|(now, then)| (now - then).abs());
    differences.sum::<f64>() / values.len().saturating_sub(season).max(1) as f64
}

/// The columns, without one that holds the time (by its heading, or because nothing in it is a number).
fn columns(csv: &str) -> anyhow::Result<Vec<Series>> {
    let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().context("it is empty")?;
    let names = crate::data::heading(head)?;
    let empty = |name: &&str| Series { name: (*name).to_owned(), values: vec![], missing: BTreeSet::new(), scale: 0.0 };
    let mut series: Vec<Series> = names.iter().map(empty).collect();
    for (at, line) in lines {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
        ensure!(cells.len() == names.len(), "line {}: {} cells, {} in the heading", at + 1, cells.len(), names.len());
        for (series, cell) in series.iter_mut().zip(cells) {
            // Not a number, or not finite: missing.
            let value = cell.parse::<f64>().ok().filter(|value| value.is_finite());
            if value.is_none() {
                series.missing.insert(series.values.len());
            }
            let before = series.values.last().copied().unwrap_or(0.0);
            series.values.push(value.map_or(before, |value| value.max(0.0)));
        }
    }
    let time = |name: &str| matches!(name.to_ascii_lowercase().as_str(), "" | "t" | "ts" | "time" | "date" | "ds" | "timestamp");
    if series.first().is_some_and(|first| time(&first.name) || first.missing.len() == first.values.len()) {
        series.remove(0);
    }
    ensure!(!series.is_empty(), "it has no column besides the time: its heading is {head:?}, and names are told apart by commas");
    for series in &series {
        ensure!(series.missing.len() < series.values.len(), "nothing in column {:?} is a number", series.name);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_no_series_and_what_is_missing_is_known() {
        let series = columns("time,a,b\n2024,1,5\n2025,,nan\n2026,-3,7\n").unwrap();
        assert_eq!(series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((&series[0].values[..], &series[1].values[..]), (&[1.0, 1.0, 0.0][..], &[5.0, 5.0, 7.0][..]));
        assert_eq!((series[0].missing.len(), series[1].missing.contains(&1)), (1, true));
        assert!(columns("a,b\n1\n").unwrap_err().to_string().contains("line 2"));
        let quoted = columns("\"time\",\"a\"\n\"2024\",\"1.5\"\n").unwrap();
        assert_eq!((quoted[0].name.as_str(), &quoted[0].values[..], quoted[0].missing.len()), ("a", &[1.5][..], 0));
        for (bad, wanted) in [("a,a\n1,2\n", "two columns are named \"a\""), ("1,2\n3,4\n", "no heading"), ("t;a\n1;2\n", "commas")] {
            assert!(columns(bad).unwrap_err().to_string().contains(wanted), "{bad}: {}", columns(bad).unwrap_err());
        }
    }

    #[test]
    fn what_is_wrong_with_a_set_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = |season| format!("{:#}", load(dir.path(), season).unwrap_err());
        assert!(error(None).contains("no *.csv"));
        std::fs::write(dir.path().join("x.csv"), format!("a\n{}", "1\n2\n".repeat(60))).unwrap();
        assert!(error(None).contains("--season"));
        assert_eq!(load(dir.path(), Some(2)).unwrap()[0].horizons, HORIZONS);
        let json = dir.path().join("x.json");
        for season in [0, 96] {
            let wanted = format!("--season {season}: it must be at least 1, and shorter than the 96 rows");
            assert!(error(Some(season)).contains(&wanted), "{}", error(Some(season)));
        }
        std::fs::write(dir.path().join("x.csv"), format!("a\n{}", "1\n".repeat(119))).unwrap();
        assert!(error(Some(2)).contains("119 rows are too few"), "{}", error(Some(2)));
        std::fs::write(dir.path().join("x.csv"), format!("a\n{}", "1\n2\n".repeat(60))).unwrap();
        for (text, wanted) in [
            ("{}", "horizons"),
            (r#"{"horizons": [1], "origins": [100]}"#, "season"),
            (r#"{"horizons": [0], "origins": [100], "season": 2}"#, "horizons"),
            (r#"{"horizons": [24], "origins": [100], "season": 2}"#, "origins"),
            (r#"{"horizons": [4], "origins": [100], "season": 2, "scale": [1, 2]}"#, "scale"),
            (r#"{"horizons": [4], "origins": [100], "season": 2, "cols": ["b"]}"#, "cols"),
        ] {
            std::fs::write(&json, text).unwrap();
            assert!(error(None).contains(wanted), "{text}: {}", error(None));
        }
        std::fs::write(&json, r#"{"horizons": [4], "origins": [100], "season": 1}"#).unwrap();
        assert_eq!(load(dir.path(), None).unwrap()[0].series[0].scale, 1.0);
    }
}
