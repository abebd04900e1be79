//! Recorded demand: one column a series, one row a step.
//!
//! A first column named `ts`, `time`, `timestamp`, `date` or `t` tells when; from its first rows follows how long a step is.
//! Empty cells and `NaN` are gaps: the last value stands. Series that never demand anything are left out.

use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;

/// Names of a first column that is a time.
const TIMES: [&str; 6] = ["ts", "time", "timestamp", "date", "datetime", "t"];
/// Units of a series' peak: one unit is 1 % of it.
pub(crate) const UNITS_OF_PEAK: f64 = 100.0;
/// Fewer rows than this leave nothing to tune on.
const MIN_ROWS: usize = 50;
/// The least autocorrelation that makes a lag a season.
const LEAST_CORRELATION: f64 = 0.3;
const DAY_SECONDS: f64 = 86_400.0;

/// How columns named `source>destination` are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// One series for each destination.
    Destination,
    /// One series for each source.
    Source,
}

/// Demand of several series over the same steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// One name a series.
    pub names: Vec<String>,
    /// `demand[series][step]` in units of 1 % of the series' peak over all steps, at least 0.
    pub demand: Vec<Vec<f64>>,
    /// How long a step is, in seconds; unknown where the file does not tell.
    pub step_s: Option<f64>,
}

impl Trace {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// What is no table of numbers, with the line and the column.
    pub fn parse(text: &str, by: Option<By>) -> anyhow::Result<Self> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, header) = lines.next().context("the file is empty: a header with one name a series is wanted")?;
        let header = crate::data::heading(header)?;
        let timed = TIMES.contains(&header[0].to_ascii_lowercase().as_str());
        let names = &header[usize::from(timed)..];
        ensure!(!names.is_empty(), "the header names no series: {:?}", header.join(","));
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        let mut order: Vec<String> = Vec::new();
        let mut group_of = Vec::with_capacity(names.len());
        for name in names {
            let group = match by {
                None => (*name).to_string(),
                Some(by) => {
                    let (source, destination) = name.split_once('>').with_context(|| {
                        format!("--by needs columns named source>destination, and there is {name:?}: leave --by out, or rename it")
                    })?;
                    String::from(match by {
                        By::Destination => destination,
                        By::Source => source,
                    })
                }
            };
            group_of.push(*groups.entry(group.clone()).or_insert_with(|| {
                order.push(group);
                order.len() - 1
            }));
        }
        let mut sums = vec![Vec::new(); order.len()];
        let mut last = vec![0.0; names.len()];
        let mut times = Vec::new();
        for (at, line) in lines {
            let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
            let wanted = header.len();
            ensure!(cells.len() == wanted, "line {}: {} cells where the header has {wanted}", at + 1, cells.len());
            if timed && times.len() < 200 {
                times.push(seconds(cells[0]));
            }
            let mut row = vec![0.0; order.len()];
            for (i, cell) in cells[usize::from(timed)..].iter().enumerate() {
                if !cell.is_empty() && !cell.eq_ignore_ascii_case("nan") {
                    last[i] = match cell.parse::<f64>() {
                        Ok(value) if value.is_finite() && value >= 0.0 => value,
                        _ => bail!("line {}, column {}: {cell:?} is no demand: a number of at least 0 is wanted", at + 1, names[i]),
                    };
                }
                row[group_of[i]] += last[i];
            }
            sums.iter_mut().zip(row).for_each(|(sum, value)| sum.push(value));
        }
        let rows = sums[0].len();
        ensure!(rows >= MIN_ROWS, "{rows} rows are too few to tune and to judge: at least {MIN_ROWS} are wanted");
        let (mut kept, mut demand) = (Vec::new(), Vec::new());
        for (name, values) in order.into_iter().zip(sums) {
            let peak = values.iter().copied().fold(0.0, f64::max);
            if peak > 0.0 && peak.is_finite() {
                kept.push(name);
                demand.push(values.iter().map(|value| UNITS_OF_PEAK * value / peak).collect());
            }
        }
        ensure!(!kept.is_empty(), "no series has any demand");
        Ok(Self { names: kept, demand, step_s: step_of(&times) })
    }

    /// How many steps there are.
    pub fn rows(&self) -> usize {
        self.demand[0].len()
    }

    /// The rows that are tuned on end here, and those that are reported on begin.
    pub fn split(&self) -> usize {
        self.rows() * 3 / 5
    }

    /// The season in steps, seen in the rows that are tuned on: the lag at which the sum over all series is most like itself, a day
    /// where the steps' length is known and a day repeats; nothing where nothing does.
    pub fn season(&self) -> Option<usize> {
        let rows = self.split();
        let longest = rows * 2 / 5;
        let sum: Vec<f64> = (0..rows).map(|t| self.demand.iter().map(|series| series[t]).sum()).collect();
        let correlation = |lag: usize| correlation(&sum, lag);
        if let Some(step) = self.step_s {
            let day = (DAY_SECONDS / step).round() as usize;
            if (4..=longest).contains(&day) && correlation(day) >= LEAST_CORRELATION {
                return Some(day);
            }
        }
        // A lag counts from where the correlation has been below half of what it comes to: a slow walk is like itself at once.
        let all: Vec<f64> = (0..=longest).map(|lag| if lag < 2 { 1.0 } else { correlation(lag) }).collect();
        let dip = all.iter().position(|r| *r < LEAST_CORRELATION / 2.0)?;
        let best = all[dip..].iter().copied().fold(0.0, f64::max);
        // The multiples of a season are as like: the first peak that is as good counts.
        let peak = |lag: &usize| all[*lag] >= 0.98 * best && all[*lag] >= all[lag - 1] && all[*lag] >= all[lag + 1];
        (dip.max(4)..longest).find(peak).filter(|_| best >= LEAST_CORRELATION)
    }
}

/// Correlation of a series with itself, `lag` steps later.
fn correlation(values: &[f64], lag: usize) -> f64 {
    let (early, late) = (&values[..values.len() - lag], &values[lag..]);
    let n = early.len() as f64;
    let (a, b) = (early.iter().sum::<f64>() / n, late.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in early.iter().zip(late) {
        ab += (x - a) * (y - b);
        aa += (x - a) * (x - a);
        bb += (y - b) * (y - b);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// The median distance of times.
fn step_of(times: &[Option<f64>]) -> Option<f64> {
    let times: Vec<f64> = times.iter().copied().collect::<Option<_>>()?;
    let mut steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().filter(|step| *step > 0.0)
}

/// Seconds of a number (milliseconds if it is that large), or of `YYYY-MM-DD[T ]hh:mm[:ss]`, counted from some epoch; zones are ignored.
fn seconds(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return Some(if number.abs() > 1e11 { number / 1e3 } else { number });
    }
    let (date, time) = text.split_at_checked(10)?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let time = time.trim_start_matches(['T', ' ']).trim_end_matches('Z');
    let time = time.split(['+', '-']).next().unwrap_or_default();
    let mut clock = [0.0; 3];
    for (slot, part) in clock.iter_mut().zip(time.split(':').filter(|part| !part.is_empty())) {
        *slot = part.parse().ok()?;
    }
    // Days of the civil calendar, counted from March (Hinnant, "chrono-compatible low-level date algorithms").
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    Some(days as f64 * DAY_SECONDS + clock[0] * 3600.0 + clock[1] * 60.0 + clock[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(header: &str, row: impl Fn(usize) -> String) -> String {
        (0..100).fold(header.to_string(), |text, t| text + "\n" + &row(t))
    }

    #[test]
    fn columns_are_scaled_by_their_peak_and_summed_by_destination() {
        let text = table("ts,a>b,c>b,a>c", |t| format!("2004-02-29T{:02}:{:02},{t},{t},5", t / 12, t % 12 * 5));
        let trace = Trace::parse(&text, Some(By::Destination)).unwrap();
        assert_eq!((trace.names.clone(), trace.step_s), (vec!["b".to_string(), "c".into()], Some(300.0)));
        assert_eq!((trace.demand[0][99], trace.demand[0][33], trace.demand[1][0]), (100.0, 100.0 / 3.0, 100.0));
        let (february, march) = (seconds("2004-02-29 23:59:30").unwrap(), seconds("2004-03-01T00:00+01:00").unwrap());
        assert_eq!(march - february, 30.0);
    }

    #[test]
    fn a_season_is_found_and_none_is_invented() {
        let wave = table("x", |t| format!("{}", 10.0 + (t as f64 * std::f64::consts::TAU / 12.0).sin()));
        assert_eq!(Trace::parse(&wave, None).unwrap().season().map(|season| season % 12), Some(0));
        let line = table("x", |t| format!("{t}"));
        assert_eq!(Trace::parse(&line, None).unwrap().season(), None);
    }

    #[test]
    fn what_is_no_table_is_refused_by_line_and_column() {
        let bad = |text: &str, by| Trace::parse(text, by).unwrap_err().to_string();
        assert!(bad("", None).contains("empty"));
        assert!(bad("a,b\n1,2\n1", None).contains("line 3: 1 cells"));
        assert!(bad("a,b\n1,-2", None).contains("line 2, column b: \"-2\""));
        assert!(bad("a,b\n1,inf", None).contains("\"inf\""));
        assert!(bad("a,b\n1,2", None).contains("1 rows are too few"));
        assert!(bad("a,b\n1,2", Some(By::Source)).contains("source>destination"));
        assert!(bad("a,a\n1,2", None).contains("two columns"));
        assert!(bad("a>b,a>b\n1,2", Some(By::Source)).contains("two columns"));
        assert!(bad("1,2\n3,4", None).contains("no heading"));
        assert!(bad(&table("a", |_| "0".into()), None).contains("any demand"));
    }
}
