//! `tradewind calendar` and `anomalies`: what is known to come, and what nobody knew of.

use super::present_all;
use crate::args::{Calendar, Kind, NewEvent};
use crate::client::Client;
use crate::failure::Failure;
use crate::human::{self, clean};
use crate::output::{Output, Tone};
use crate::table::Column::{Left, Right};
use crate::table::Table;
use tradewind_protocol::CalendarEvent;
use tradewind_protocol::api::{Anomaly, AnomalyKind, CalendarEntry, Direction, EventOrigin};
use tradewind_protocol::calendar::{Effect, EventKind};

const ROUTE: &str = "/v1/calendar";

pub(super) fn run(command: Option<Calendar>, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match command.unwrap_or(Calendar::List) {
        Calendar::List => present_all(&client.get(ROUTE, &[])?, out, print),
        Calendar::Add(new) => {
            let event = event(new)?;
            client.post_json(ROUTE, &event)?;
            out.line(&format!("{} is in the calendar, and in the forecasts from the next step on.", event.name))
        }
        Calendar::Remove { name } => {
            client.delete(&format!("{ROUTE}/{name}"))?;
            out.line(&format!("{name} is no longer in the calendar."))
        }
    }
}

fn event(new: NewEvent) -> Result<CalendarEvent, Failure> {
    let kind = match new.kind {
        Kind::Holiday => EventKind::Holiday,
        Kind::Maintenance => EventKind::Maintenance,
        Kind::Campaign => EventKind::Campaign,
        Kind::Other => EventKind::Other,
    };
    let effect = new.factor.map(|factor| Effect { factor, low: new.low.unwrap_or(factor), high: new.high.unwrap_or(factor) });
    let NewEvent { name, title, from, until, sources, destinations, service, transaction_type, .. } = new;
    let event = CalendarEvent { name, kind, title, from, until, sources, destinations, service, transaction_type, effect };
    event.check().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(event)
}

fn print(entries: &[CalendarEntry], out: &mut Output) -> Result<(), Failure> {
    if entries.is_empty() {
        return out.line("The calendar is empty: `tradewind calendar add` or [[event]] in the configuration fills it.");
    }
    let mut table = Table::new(&[
        Left("REGION"),
        Left("EVENT"),
        Left("KIND"),
        Left("FROM (UTC)"),
        Left("UNTIL (UTC)"),
        Right("EFFECT"),
        Left("TRAFFIC"),
        Left("ORIGIN"),
        Left("TITLE"),
    ]);
    for CalendarEntry { region, origin, event, effect } in entries {
        let learnt = if event.effect.is_none() { ", learnt" } else { "" };
        table.row(
            Tone::Plain,
            [
                region.to_string(),
                event.name.to_string(),
                kind(event.kind).to_owned(),
                human::time(event.from),
                human::time(event.until),
                format!("x {} ({} to {}{learnt})", factor(effect.factor), factor(effect.low), factor(effect.high)),
                scope(event),
                self::origin(*origin).to_owned(),
                clean(&event.title),
            ],
        );
    }
    table.print(out)
}

fn factor(value: f64) -> String {
    format!("{value:.2}")
}

/// `denver -> all`.
fn scope(event: &CalendarEvent) -> String {
    let names = |regions: &[tradewind_protocol::RegionId]| match regions {
        [] => "all".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let mut text = format!("{} -> {}", names(&event.sources), names(&event.destinations));
    event.service.iter().for_each(|service| text += &format!(" {service}"));
    event.transaction_type.iter().for_each(|kind| text += &format!(" {kind}"));
    text
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Holiday => "holiday",
        EventKind::Maintenance => "maintenance",
        EventKind::Campaign => "campaign",
        EventKind::Other => "other",
    }
}

fn origin(origin: EventOrigin) -> &'static str {
    match origin {
        EventOrigin::Holidays => "holidays",
        EventOrigin::Configuration => "configuration",
        EventOrigin::Api => "API",
        EventOrigin::Mesh => "mesh",
    }
}

pub(super) fn print_anomalies(anomalies: &[Anomaly], out: &mut Output) -> Result<(), Failure> {
    if anomalies.is_empty() {
        return out.line("Nothing is or was out of the ordinary in this life of the agent.");
    }
    let mut table = Table::new(&[
        Left("SINCE (UTC)"),
        Left("UNTIL (UTC)"),
        Left("KIND"),
        Right("SEEN"),
        Right("FORESEEN"),
        Right("CHANCE"),
        Left("SERIES"),
    ]);
    for anomaly in anomalies {
        let direction = match anomaly.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        let kind = match anomaly.kind {
            AnomalyKind::Point => format!("point {direction}"),
            AnomalyKind::LevelShift => format!("level shift {direction}"),
            AnomalyKind::MissingData => "missing data".to_owned(),
        };
        table.row(
            if anomaly.ongoing { Tone::Warning } else { Tone::Plain },
            [
                human::time(anomaly.since),
                if anomaly.ongoing { "goes on".to_owned() } else { human::time(anomaly.until) },
                kind,
                human::quantity(anomaly.observed),
                human::quantity(anomaly.expected),
                format!("{:.0e}", anomaly.probability),
                anomaly.series.to_string(),
            ],
        );
    }
    table.print(out)
}
