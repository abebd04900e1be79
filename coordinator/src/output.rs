//! Where output goes: standard output, buffered, coloured only on a terminal, and without a panic
//! when its reader is gone.

use crate::failure::Failure;
use std::io::{self, IsTerminal, Write};

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// Exactly the API's document.
    Json,
    /// The same document as YAML.
    Yaml,
}

/// How a piece of text is meant; what it looks like is decided here alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// A heading.
    Strong,
    /// Of lesser weight.
    Faint,
    /// A curve in a chart.
    Accent,
    /// Worth a look.
    Warning,
    /// Someone has to act.
    Bad,
}

/// The width where none can be found out: what is piped is rarely narrower.
const DEFAULT_WIDTH: usize = 100;

/// Standard output and what it can do.
pub(crate) struct Output {
    writer: io::BufWriter<io::Stdout>,
    pub(crate) format: Format,
    /// Whether a person looks at a terminal.
    pub(crate) terminal: bool,
    /// How many characters fit in a line.
    pub(crate) width: usize,
    colour: bool,
}

impl Output {
    pub(crate) fn to_stdout(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(w, _)| usize::from(w.0)).or_else(columns).unwrap_or(DEFAULT_WIDTH);
        Self { writer: io::BufWriter::new(io::stdout()), format, terminal, width, colour: terminal && colour_wanted() }
    }

    /// `text` in the tone's colour, if there are colours.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour { painted(tone, text) } else { text.to_owned() }
    }

    /// One line. What came from an agent has gone through [`crate::human::clean`] before.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.writer, "{}", text.trim_end())?)
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Puts out what was written so far.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}

/// Prints why a command failed to standard error, whose own failure nobody could be told.
pub(crate) fn complain(failure: &Failure) {
    let mut stderr = io::stderr();
    let head = if stderr.is_terminal() && colour_wanted() { painted(Tone::Bad, "error:") } else { "error:".to_owned() };
    let _ = writeln!(stderr, "{head} {}", crate::human::clean_lines(&failure.to_string()));
}

/// See no-color.org: any value but the empty one means no.
fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

fn painted(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "1",
        Tone::Faint => "2",
        Tone::Accent => "36",
        Tone::Warning => "33",
        Tone::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}
