//! `[calendar]` and `[[event]]`: holidays, and events that are known when the agent is configured.

use super::CalendarConfig;
use super::section::{Section, number, text, texts, whole};
use crate::calendar::Country;
use std::collections::BTreeSet;
use toml::Value;
use tradewind_protocol::calendar::{Effect, EventKind, MAX_EVENTS, MAX_FACTOR};
use tradewind_protocol::{CalendarEvent, RegionId, Timestamp};

/// Time zones reach from 12 hours behind UTC to 14 ahead of it.
pub(super) const OFFSETS: (i32, i32) = (-720, 840);

/// Reads both from the file's root.
pub(super) fn read(root: &mut Section) -> CalendarConfig {
    let mut config = root.table("calendar", |s| {
        let holidays = s.or("holidays", vec![], |v| {
            texts(v).map_err(String::from)?.iter().map(|code| code.parse::<Country>().map_err(|e| e.to_string())).collect()
        });
        let utc_offset_minutes = s.or("utc_offset_minutes", 0, whole(OFFSETS.0, OFFSETS.1));
        let holiday_effect = if s.has("holiday_effect") { s.table("holiday_effect", effect) } else { None };
        CalendarConfig { holidays, utc_offset_minutes, holiday_effect, events: vec![] }
    });
    let mut names = BTreeSet::new();
    let events: Vec<Option<CalendarEvent>> = root.tables("event", |s| {
        let event = event(s)?;
        if !names.insert(event.name.clone()) {
            s.problem("name", &event.name, "must differ from the other events' names");
            return None;
        }
        Some(event)
    });
    if events.len() > MAX_EVENTS {
        root.problem("event", events.len(), format!("at most {MAX_EVENTS} events"));
    }
    config.events = events.into_iter().flatten().collect();
    config
}

fn event(s: &mut Section) -> Option<CalendarEvent> {
    let name = s.required("name", "name the event, like name = \"spring-sale\"", text);
    let kind = s.or("kind", EventKind::Other, |v| match v.as_str() {
        Some("holiday") => Ok(EventKind::Holiday),
        Some("maintenance") => Ok(EventKind::Maintenance),
        Some("campaign") => Ok(EventKind::Campaign),
        Some("other") => Ok(EventKind::Other),
        _ => Err("must be \"holiday\", \"maintenance\", \"campaign\" or \"other\""),
    });
    let title = s.or("title", String::new(), |v| v.as_str().map(String::from).ok_or("must be text in quotes"));
    let from = s.required("from", "when it begins, like from = \"2026-03-01T08:00:00Z\"", time);
    let until = s.required("until", "when it is over, like until = \"2026-03-01T20:00:00Z\"", time);
    let sources = s.or("sources", vec![], regions);
    let destinations = s.or("destinations", vec![], regions);
    let service = s.optional("service", text);
    let transaction_type = s.optional("transaction_type", text);
    let stated = ["factor", "low", "high"].iter().any(|key| s.has(key));
    let effect = if stated { Some(effect(s)?) } else { None };
    let (name, from, until) = (name?, from?, until?);
    let event = CalendarEvent { name, kind, title, from, until, sources, destinations, service, transaction_type, effect };
    match event.check() {
        Ok(()) => Some(event),
        Err(error) => {
            s.problem("name", &event.name, error.to_string());
            None
        }
    }
}

fn effect(s: &mut Section) -> Option<Effect> {
    let factor = s.required("factor", "what traffic is multiplied by, like factor = 2.5", number(0.0, MAX_FACTOR));
    // Without a stated interval, a third either way: people guess effects no better.
    let low = s.optional("low", number(0.0, MAX_FACTOR));
    let high = s.optional("high", number(0.0, MAX_FACTOR));
    let factor = factor?;
    let effect = Effect { factor, low: low.unwrap_or(factor / 1.33), high: high.unwrap_or((factor * 1.33).min(MAX_FACTOR)) };
    if !effect.is_valid() {
        s.problem("factor", factor, format!("must lie between low ({}) and high ({})", effect.low, effect.high));
        return None;
    }
    Some(effect)
}

pub(super) fn time(value: &Value) -> Result<Timestamp, String> {
    match value {
        Value::Datetime(time) => Timestamp::parse(&time.to_string()).map_err(|e| e.to_string()),
        other => Timestamp::parse(other.as_str().ok_or("must be a time, like \"2026-03-01T08:00:00Z\"")?).map_err(|e| e.to_string()),
    }
}

fn regions(value: &Value) -> Result<Vec<RegionId>, String> {
    texts(value)?.iter().map(|region| region.parse::<RegionId>().map_err(|e| e.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{BASE, Config};

    fn parse(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{BASE}{more}"), []).map_err(|e| e.to_string())
    }

    #[test]
    fn holidays_and_events_are_read() {
        let text = "[calendar]\nholidays = [\"DE\", \"us\"]\nutc_offset_minutes = 60\nholiday_effect = { factor = 0.6 }\n\
            [[event]]\nname = \"sale\"\nkind = \"campaign\"\nfrom = \"2026-03-01T08:00:00Z\"\nuntil = 2026-03-01T20:00:00Z\n\
            destinations = [\"eu\"]\nfactor = 3\nlow = 2\nhigh = 5\n";
        let calendar = parse(text).unwrap().calendar;
        assert_eq!(calendar.holidays.len(), 2);
        assert!(calendar.holiday_effect.unwrap().low < 0.6);
        let event = &calendar.events[0];
        assert_eq!((event.name.as_str(), event.effect.unwrap().high), ("sale", 5.0));
        assert_eq!(parse("").unwrap().calendar.events, []);
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = "[calendar]\nholidays = [\"XX\"]\nutc_offset_minutes = 2000\n[anomaly]\nfalse_alarm_probability = 2\n\
            [[event]]\nname = \"a\"\nfrom = \"2026-03-02T00:00:00Z\"\nuntil = \"2026-03-01T00:00:00Z\"\n\
            [[event]]\nname = \"b\"\nfrom = \"soon\"\nuntil = \"2026-03-01T00:00:00Z\"\nfactor = 2\nlow = 3\n";
        let error = parse(text).unwrap_err();
        for wanted in [
            "calendar.holidays",
            "calendar.utc_offset_minutes",
            "anomaly.false_alarm_probability",
            "must end",
            "event[1].from",
            "event[1].factor",
        ] {
            assert!(error.contains(wanted), "{wanted} in {error}");
        }
    }
}
