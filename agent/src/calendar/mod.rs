//! What is known to come: holidays, maintenance, campaigns; what it does to traffic, stated or learnt; and
//! forecasts that take it into account.
//!
//! [`Calendar`] is a plain value and pure: given events and their effects, it takes them out of counts before forecasts
//! learn ([`Calendar::undisturbed`]) and puts them into the paths that forecasts make
//! ([`Calendar::apply`]). So a campaign that ended yesterday does not raise today's forecast, and the same
//! hour of next year's is not learnt twice. [`CalendarHandle`] keeps the events and hands out calendars.
//!
//! Invariant: a region's event changes only traffic that begins or ends in that region, whatever it claims to
//! concern; so another region's word counts for this one's traffic to it, and for nothing else. Read next: `effect`, `learn`, `holidays`; `keeper` is the shell.

mod effect;
mod holidays;
mod keeper;
mod learn;

pub use holidays::Country;
pub use keeper::{CalendarError, CalendarHandle};

use crate::config::CalendarConfig;
use std::time::Duration;
use tradewind_protocol::api::{CalendarEntry, EventApplied};
use tradewind_protocol::calendar::{Effect, EventKind};
use tradewind_protocol::{CalendarEvent, EventName, PredictionData, QuantilePath, SeriesKey, Step, StepIndex, Timestamp};

const DAY_MS: i64 = 86_400_000;

/// Below this factor a count says nothing about what it would have been without the event.
const MIN_FACTOR: f64 = 0.05;

/// Events and their effects, as of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    entries: Vec<CalendarEntry>,
}

impl Calendar {
    /// The calendar with these entries.
    pub fn new(mut entries: Vec<CalendarEntry>) -> Self {
        entries.sort_by(|a, b| (a.event.from, &a.region, &a.event.name).cmp(&(b.event.from, &b.region, &b.event.name)));
        Self { entries }
    }

    /// Everything in it, the earliest first.
    pub fn entries(&self) -> &[CalendarEntry] {
        &self.entries
    }

    /// The calendar of what falls between `from` and `until` alone: much shorter, where many series ask.
    pub fn during(mut self, from: Timestamp, until: Timestamp) -> Self {
        self.entries.retain(|entry| entry.event.from < until && entry.event.until > from);
        self
    }

    /// Whether no event falls between `from` and `until`: then nothing is changed.
    pub fn is_quiet(&self, from: Timestamp, until: Timestamp) -> bool {
        !self.entries.iter().any(|entry| entry.event.from < until && entry.event.until > from)
    }

    /// What all events together do to `series` in step `index`.
    pub fn effect(&self, series: &SeriesKey, index: StepIndex, step: Step) -> Effect {
        let (from, until) = (step.start(index), step.end(index));
        let entries = self.concerning(series).filter(|entry| entry.event.from < until && entry.event.until > from);
        entries.fold(Effect::NONE, |all, entry| effect::times(all, effect::partly(entry.effect, entry.event.share_of(from, until))))
    }

    /// The events that change `path`.
    pub fn applied(&self, series: &SeriesKey, path: &QuantilePath) -> Vec<EventApplied> {
        let from = path.step().start(path.start());
        let until = path.step().start(path.start().offset(path.horizon() as i64));
        let entries = self.concerning(series).filter(|entry| entry.event.from < until && entry.event.until > from);
        entries.map(|entry| EventApplied { region: entry.region.clone(), event: entry.event.name.clone(), effect: entry.effect }).collect()
    }

    /// The count without the events of its step: what forecasts learn. Where an event leaves next to
    /// nothing, what was `foreseen` without events stands for it.
    pub fn undisturbed(&self, series: &SeriesKey, index: StepIndex, step: Step, count: f64, foreseen: f64) -> f64 {
        let factor = self.effect(series, index, step).factor;
        if factor < MIN_FACTOR { foreseen } else { count / factor }
    }

    /// The same for consecutive counts up to and with step `until`, oldest first.
    pub fn undisturbed_window(&self, series: &SeriesKey, until: StepIndex, step: Step, window: &mut [f64]) {
        let first = until.offset(1 - window.len() as i64);
        if self.is_quiet(step.start(first), step.end(until)) {
            return;
        }
        let mut last = 0.0;
        for (at, count) in window.iter_mut().enumerate() {
            *count = self.undisturbed(series, first.offset(at as i64), step, *count, last);
            last = *count;
        }
    }

    /// A prediction that was made without events, with them. `observed` is what was counted indeed.
    pub fn apply(&self, prediction: &PredictionData, observed: f64) -> PredictionData {
        let step = prediction.path.step();
        let path = effect::applied(&prediction.path, |index| self.effect(&prediction.series, index, step));
        PredictionData { path, observed, ..prediction.clone() }
    }

    fn concerning<'a>(&'a self, series: &'a SeriesKey) -> impl Iterator<Item = &'a CalendarEntry> {
        self.entries.iter().filter(|entry| {
            let may = entry.region == series.source || entry.region == series.destination;
            may && entry.event.concerns(series)
        })
    }
}

/// The configured countries' holidays that touch the time between, as events.
pub(crate) fn holidays_between(config: &CalendarConfig, from: Timestamp, until: Timestamp) -> Vec<CalendarEvent> {
    let shift = i64::from(config.utc_offset_minutes) * 60_000;
    let day_of = |at: Timestamp| (at.as_millis() + shift).div_euclid(DAY_MS);
    let (first, last) = (day_of(from), day_of(until));
    let mut events = vec![];
    for country in &config.holidays {
        for year in holidays::year_of(first)..=holidays::year_of(last) {
            let within = holidays::holidays(*country, year).into_iter().filter(|holiday| (first..=last).contains(&holiday.day));
            events.extend(within.filter_map(|holiday| {
                let begins = Timestamp::from_millis(holiday.day * DAY_MS - shift).ok()?;
                let code = country.to_string().to_ascii_lowercase();
                Some(CalendarEvent {
                    name: EventName::new(&format!("{}{code}.{}", keeper::HOLIDAY_PREFIX, holiday.day)).ok()?,
                    kind: EventKind::Holiday,
                    title: format!("{} ({country})", holiday.name),
                    from: begins,
                    until: begins.after(Duration::from_millis(DAY_MS as u64)),
                    sources: vec![],
                    destinations: vec![],
                    service: None,
                    transaction_type: None,
                    effect: config.holiday_effect,
                })
            }));
        }
    }
    events
}

#[cfg(test)]
mod tests;
