//! Reads a TOML table key by key, and remembers every mistake instead of stopping at the first.
//!
//! Whoever reads a key says what it must be; what is left unread at the end is an unknown key.

use super::check::Problem;
use std::fmt::Display;
use std::time::Duration;
use toml::{Table, Value};

/// One table of the file: its values that were not read yet, and its place in the file.
pub(super) struct Section<'p> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Section<'p> {
    pub(super) fn root(table: Table, problems: &'p mut Vec<Problem>) -> Self {
        Self { path: String::new(), table, known: vec![], problems }
    }

    /// The full name of `key`, as one would write it in a dotted key.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn problem(&mut self, key: &str, value: impl Display, remedy: impl Into<String>) {
        let key = self.name(key);
        self.problems.push(Problem { key, value: value.to_string(), remedy: remedy.into() });
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of `key`, as `parse` reads it. A missing key gives `None`, a bad one `None` and a
    /// problem.
    pub(super) fn optional<T, E: Display>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, E>) -> Option<T> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(remedy) => {
                self.problem(key, shown(&value), remedy.to_string());
                None
            }
        }
    }

    /// Like [`optional`](Self::optional); a missing key gives `default`.
    pub(super) fn or<T, E: Display>(&mut self, key: &'static str, default: T, parse: impl FnOnce(&Value) -> Result<T, E>) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// Like [`optional`](Self::optional); a missing key is a problem with this remedy.
    pub(super) fn required<T, E: Display>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl FnOnce(&Value) -> Result<T, E>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            self.problem(key, "(missing)", remedy);
            return None;
        }
        self.optional(key, parse)
    }

    /// Reads the table at `key`; an empty one where it is missing.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section) -> T) -> T {
        self.known.push(key);
        let table = match self.table.remove(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.problem(key, shown(&other), format!("write it as a table: [{}]", self.name(key)));
                Table::new()
            }
        };
        let path = self.name(key);
        self.nested(path, table, read)
    }

    /// Reads each table of the array of tables at `key`.
    pub(super) fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section) -> T) -> Vec<T> {
        self.known.push(key);
        let remedy = format!("write each as a table: [[{}]]", self.name(key));
        let values = match self.table.remove(key) {
            None => vec![],
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.problem(key, shown(&other), remedy);
                return vec![];
            }
        };
        let mut items = vec![];
        for (index, value) in values.into_iter().enumerate() {
            match value {
                Value::Table(table) => {
                    let path = format!("{}[{index}]", self.name(key));
                    items.push(self.nested(path, table, &mut read));
                }
                other => self.problem(key, shown(&other), remedy.clone()),
            }
        }
        items
    }

    fn nested<T>(&mut self, path: String, table: Table, read: impl FnOnce(&mut Section) -> T) -> T {
        let mut section = Section { path, table, known: vec![], problems: self.problems };
        let value = read(&mut section);
        section.finish();
        value
    }

    /// Every key that nobody read is a mistake.
    pub(super) fn finish(&mut self) {
        for (key, value) in std::mem::take(&mut self.table) {
            let nearest = self.known.iter().map(|known| (distance(known, &key), *known)).min();
            let remedy = match nearest {
                Some((0..=2, known)) => format!("unknown key: did you mean `{known}`?"),
                _ => format!("unknown key: remove it (known here: {})", self.known.join(", ")),
            };
            self.problem(&key, shown(&value), remedy);
        }
    }
}

/// How much of a value an error repeats.
const SHOWN_CHARS: usize = 60;

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS { text } else { text.chars().take(SHOWN_CHARS).chain("...".chars()).collect() }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

// ---- what a value must be -------------------------------------------------------------------

/// Text that `T` accepts.
pub(super) fn text<T: std::str::FromStr<Err: Display>>(value: &Value) -> Result<T, String> {
    value.as_str().ok_or("must be text in quotes")?.parse().map_err(|e: T::Err| e.to_string())
}

/// A socket address.
pub(super) fn address(value: &Value) -> Result<std::net::SocketAddr, &'static str> {
    value.as_str().and_then(|text| text.parse().ok()).ok_or("must be an IP address and a port, like \"127.0.0.1:7480\" or \"[::1]:7480\"")
}

/// A path; not empty.
pub(super) fn path(value: &Value) -> Result<std::path::PathBuf, &'static str> {
    value.as_str().filter(|text| !text.is_empty()).map(Into::into).ok_or("must be a path in quotes")
}

/// A duration like `"250ms"`, `"60s"` or `"1h 30m"`, within bounds.
pub(super) fn duration(min: Duration, max: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let (least, most) = (bound(min), bound(max));
        let wanted = || format!("must be a duration between {least} and {most}, like \"250ms\", \"60s\" or \"1h 30m\"");
        let parsed = value.as_str().and_then(|text| humantime::parse_duration(text).ok()).ok_or_else(wanted)?;
        if (min..=max).contains(&parsed) { Ok(parsed) } else { Err(wanted()) }
    }
}

/// As it would be written in the file. Humantime knows months, which are not whole days.
fn bound(duration: Duration) -> String {
    const DAY_SECONDS: u64 = 86_400;
    match (duration.as_secs() / DAY_SECONDS, duration.as_secs() % DAY_SECONDS, duration.subsec_nanos()) {
        (days @ 1.., 0, 0) => format!("{days}d"),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A whole number within bounds.
pub(super) fn whole<T: TryFrom<i64> + PartialOrd + Display>(min: T, max: T) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let parsed = value.as_integer().and_then(|n| T::try_from(n).ok()).filter(|n| *n >= min && *n <= max);
        parsed.ok_or_else(|| format!("must be a whole number between {min} and {max}"))
    }
}

/// A finite number within bounds; whole numbers count too.
pub(super) fn number(min: f64, max: f64) -> impl Fn(&Value) -> Result<f64, String> {
    move |value| {
        let parsed = value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).filter(|n| (min..=max).contains(n));
        parsed.ok_or_else(|| format!("must be a number between {min} and {max}"))
    }
}

/// Yes or no.
pub(super) fn switch(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("must be true or false")
}

/// A list of text.
pub(super) fn texts(value: &Value) -> Result<Vec<String>, &'static str> {
    let wanted = "must be a list of text, like [\"a\", \"b\"]";
    value.as_array().ok_or(wanted)?.iter().map(|item| item.as_str().map(Into::into).ok_or(wanted)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn distance_counts_edits() {
        assert_eq!(super::distance("listen", "listne"), 2);
        assert_eq!(super::distance("", "abc"), 3);
        assert_eq!(super::distance("same", "same"), 0);
    }
}
