//! `tradewind events`: what happened, and what happens.

use super::yaml;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::human::{self, clean};
use crate::output::{Format, Output, Tone};
use serde::de::IgnoredAny;
use tradewind_protocol::api::{Event, Severity};

const ROUTE: &str = "/v1/events";

pub(super) fn query(since: Option<u64>, follow: Option<()>) -> [(&'static str, Option<String>); 2] {
    [("since", since.map(|id| id.to_string())), ("follow", follow.map(|()| "true".to_owned()))]
}

pub(super) fn print(events: &[Event], out: &mut Output) -> Result<(), Failure> {
    events.iter().try_for_each(|event| print_one(event, out))
}

/// Prints events as they come, until the agent or the reader goes. An interrupt ends the process as
/// it ends any other.
pub(super) fn follow(client: &Client, since: Option<u64>, out: &mut Output) -> Result<(), Failure> {
    let mut lines = client.follow(ROUTE, &query(since, Some(())))?;
    while let Some(line) = lines.next()? {
        // An empty line is how a stream shows that it lives.
        if !line.body.trim_ascii().is_empty() {
            print_line(&line, out)?;
            out.finish()?;
        }
    }
    Err(lines.ended())
}

fn print_line(line: &Answer, out: &mut Output) -> Result<(), Failure> {
    match out.format {
        Format::Table => print_one(&line.parse()?, out),
        Format::Json => {
            line.parse::<IgnoredAny>()?;
            out.raw(line.body.trim_ascii_end())?;
            out.raw(b"\n")
        }
        Format::Yaml => {
            let document = yaml(line)?;
            out.raw(b"---\n")?;
            out.raw(document.as_bytes())
        }
    }
}

fn print_one(event: &Event, out: &mut Output) -> Result<(), Failure> {
    let (word, tone) = match event.severity {
        Severity::Info => ("info", Tone::Plain),
        Severity::Warning => ("warning", Tone::Warning),
        Severity::Error => ("error", Tone::Bad),
    };
    let head = out.paint(Tone::Faint, &format!("{:>6}  {}", event.id, human::time(event.at)));
    let rest = out.paint(tone, &format!("{word:<7}  {}  {:<24}  {}", event.region, clean(&event.kind), clean(&event.message)));
    out.line(&format!("{head}  {rest}"))
}
