//! The test of the simulator itself: one seed, two processes, one trace.
//!
//! Both processes write their whole trace into pipes, which are compared line by line; nothing is
//! kept, and the first difference ends it.

use anyhow::{Context as _, bail};
use serde::Serialize;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Lines before a difference that are shown with it.
const CONTEXT_LINES: usize = 5;

/// The longest line that is compared; a trace's longest are some kilobytes.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Lines that were equal.
    pub equal_lines: u64,
    /// Where the traces part, if they do.
    pub difference: Option<Difference>,
}

/// The first line that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The last lines that were equal.
    pub before: Vec<String>,
    /// The first process's line; none if its trace had ended.
    pub first: Option<String>,
    /// The second process's line.
    pub second: Option<String>,
}

/// Runs `program run SCENARIO --seed SEED --trace - --detail full` twice, and compares.
pub fn compare(program: &Path, scenario: &str, seed: u64) -> anyhow::Result<Comparison> {
    let [mut first, mut second] = [spawn(program, scenario, seed)?, spawn(program, scenario, seed)?];
    let compared = compare_lines(&mut first.1, &mut second.1);
    let differ = compared.as_ref().map_or(true, |compared| compared.difference.is_some());
    for (child, stdout) in [first, second] {
        // A process that still writes notices that nobody reads.
        drop(stdout);
        end(child, differ)?;
    }
    compared
}

fn spawn(program: &Path, scenario: &str, seed: u64) -> anyhow::Result<(Child, BufReader<ChildStdout>)> {
    let mut child = Command::new(program)
        .args(["run", scenario, "--seed", &seed.to_string(), "--trace", "-", "--detail", "full"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let stdout = child.stdout.take().context("the process has no output")?;
    Ok((child, BufReader::with_capacity(1 << 20, stdout)))
}

/// Waits for a process. One whose rules were violated (exit code 1) has still traced all there was.
fn end(mut child: Child, differ: bool) -> anyhow::Result<()> {
    if differ {
        let _ = child.kill();
    }
    let output = child.wait_with_output()?;
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        _ if differ => Ok(()),
        _ => bail!("a run ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

fn compare_lines(first: &mut impl BufRead, second: &mut impl BufRead) -> anyhow::Result<Comparison> {
    let mut before = VecDeque::with_capacity(CONTEXT_LINES + 1);
    let mut equal_lines = 0;
    loop {
        let lines = (line(first)?, line(second)?);
        match lines {
            (None, None) => return Ok(Comparison { equal_lines, difference: None }),
            (Some(a), Some(b)) if a == b => {
                equal_lines += 1;
                before.push_back(a);
                if before.len() > CONTEXT_LINES {
                    before.pop_front();
                }
            }
            (first, second) => {
                let text = |line: Vec<u8>| String::from_utf8_lossy(&line).trim_end().to_string();
                let difference =
                    Difference { before: before.into_iter().map(text).collect(), first: first.map(text), second: second.map(text) };
                return Ok(Comparison { equal_lines, difference: Some(difference) });
            }
        }
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    std::io::Read::take(from, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(first: &str, second: &str) -> Comparison {
        compare_lines(&mut first.as_bytes(), &mut second.as_bytes()).unwrap()
    }

    #[test]
    fn the_first_line_that_differs_is_named_with_what_came_before() {
        assert_eq!(compared("a\nb\n", "a\nb\n"), Comparison { equal_lines: 2, difference: None });
        let found = compared("a\nb\nc\n", "a\nB\nc\n");
        let difference = found.difference.unwrap();
        assert_eq!((found.equal_lines, difference.first.unwrap(), difference.second.unwrap()), (1, "b".into(), "B".into()));
        assert_eq!(difference.before, ["a"]);
    }

    #[test]
    fn a_trace_that_ends_early_differs() {
        let difference = compared("a\n", "a\nb\n").difference.unwrap();
        assert_eq!((difference.first, difference.second), (None, Some("b".into())));
    }
}
