//! Reads labelled series: CSV with one row a measurement, and `labels.json` with the windows.

use super::score::Window;
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tradewind_protocol::{Step, Timestamp};

/// What the labels look like.
const LABELS: &str = r#"{"SERIES": {"windows": [["2014-02-26 13:45:00", "2014-02-27 06:25:00"]]}}"#;

/// How much of a timestamp counts: to the second.
const SECONDS_CHARS: usize = 19;

/// One labelled series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
    pub(super) windows: Vec<Window>,
    /// The median time between two rows.
    pub(super) interval: Duration,
}

#[derive(Deserialize)]
struct Labels {
    windows: Vec<(String, String)>,
}

/// All series in the directory, ascending by name.
pub(super) fn load(dir: &Path) -> anyhow::Result<Vec<Series>> {
    let labels = crate::data::read(&dir.join("labels.json"))?;
    let labels: BTreeMap<String, Labels> =
        serde_json::from_str(&labels).with_context(|| format!("labels.json is not as it should be, like {LABELS}"))?;
    let mut rows: BTreeMap<String, Vec<(Timestamp, f64)>> = BTreeMap::new();
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".csv") || name.ends_with(".csv.gz") {
            read(&crate::data::read(&path)?, &mut rows).with_context(|| format!("in {name}"))?;
        }
    }
    ensure!(!rows.is_empty(), "there is no *.csv or *.csv.gz with rows in it");
    rows.into_iter().map(|(name, rows)| series(name, &rows, &labels)).collect()
}

/// Rows of `series,timestamp,value,...`, under a heading.
fn read(csv: &str, rows: &mut BTreeMap<String, Vec<(Timestamp, f64)>>) -> anyhow::Result<()> {
    for (at, line) in csv.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let mut cells = line.split(',');
        let (Some(series), Some(when), Some(value)) = (cells.next(), cells.next(), cells.next()) else {
            bail!("line {}: want series,timestamp,value, got {line:?}", at + 1);
        };
        let when = time(when).with_context(|| format!("line {}", at + 1))?;
        let value: f64 = value.parse().with_context(|| format!("line {}: not a number: {value:?}", at + 1))?;
        rows.entry(series.to_owned()).or_default().push((when, value));
    }
    Ok(())
}

/// `2014-02-26 13:45:00`, taken as UTC, perhaps with a fraction of a second, which is left out.
fn time(text: &str) -> anyhow::Result<Timestamp> {
    let seconds = text.get(..SECONDS_CHARS).unwrap_or(text);
    Ok(Timestamp::parse(&format!("{}Z", seconds.replace(' ', "T")))?)
}

fn series(name: String, rows: &[(Timestamp, f64)], labels: &BTreeMap<String, Labels>) -> anyhow::Result<Series> {
    let labelled = labels.get(&format!("{name}.csv")).or_else(|| labels.get(&name));
    let labelled = labelled.with_context(|| format!("labels.json says nothing of {name}"))?;
    let mut windows = vec![];
    for (from, until) in &labelled.windows {
        let wrong = || format!("labels.json, {name}, window {from:?} to {until:?}");
        let (begin, end) = (time(from).with_context(wrong)?, time(until).with_context(wrong)?);
        let inside = |(when, _): &(Timestamp, f64)| (begin..=end).contains(when);
        if let (Some(first), Some(last)) = (rows.iter().position(inside), rows.iter().rposition(inside)) {
            windows.push(Window { first, last });
        } else {
            bail!("{}: the series has no row in it", wrong());
        }
    }
    windows.sort_by_key(|window| window.first);
    let mut gaps: Vec<Duration> = rows.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    gaps.sort();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or(Step::MAX);
    let values = rows.iter().map(|(_, value)| *value).collect();
    Ok(Series { name, values, windows, interval: median.clamp(Step::MIN, Step::MAX) })
}
