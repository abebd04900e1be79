//! Keeps the calendar: what the configuration and the API say, durable, and what was learnt of effects.
//!
//! The API's events and the learnt effects are small facts of the [`Store`], written before they are
//! answered. Handles share one calendar; readers take a [`Calendar`], a value that stays as it is.

use super::learn::Learner;
use super::{Calendar, holidays_between};
use crate::config::CalendarConfig;
use crate::marks::bug;
use crate::mesh::MeshView;
use crate::store::{Facts, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tradewind_protocol::api::{CalendarEntry, EventOrigin};
use tradewind_protocol::calendar::{EventError, MAX_EVENTS};
use tradewind_protocol::{CalendarEvent, EventName, PredictionData, RegionId, SeriesKey, Step, StepIndex, Timestamp};

const EVENTS: Facts = Facts("calendar_events");
const LEARNT: Facts = Facts("calendar_learnt");
const CLASSES: &str = "classes";

/// The most events of the API that are kept, past ones too: a year of one a day.
const MAX_KEPT: usize = 400;
/// How long past events stay: forecasts that are rebuilt from history ask what it was that happened.
const PAST: Duration = Duration::from_secs(60 * 86_400);
/// How far ahead holidays are listed and events are published: longer than any forecast.
const AHEAD: Duration = Duration::from_secs(60 * 86_400);

/// Why an event was not taken or removed. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// It makes no sense.
    #[error(transparent)]
    Event(#[from] EventError),
    /// It is not the API's to change.
    #[error("event {0} comes from the configuration or the holidays: change it there")]
    NotOurs(EventName),
    /// There is none.
    #[error("there is no event {0} in this region's calendar; GET /v1/calendar lists them")]
    Unknown(EventName),
    /// There are too many.
    #[error("{MAX_KEPT} events are in the calendar, and none of them is long past: remove some")]
    Full,
    /// It cannot be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A region's calendar. Clones share it.
#[derive(Clone)]
pub struct CalendarHandle {
    shared: Arc<Shared>,
}

struct Shared {
    region: RegionId,
    config: CalendarConfig,
    store: Store,
    state: Mutex<State>,
    /// One change of the store at a time, so that memory and disk never differ in their order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    events: BTreeMap<EventName, CalendarEvent>,
    learner: Learner,
}

impl CalendarHandle {
    /// The calendar of `region` as it was kept. What cannot be read any more is left out, and said so.
    pub async fn open(region: RegionId, config: CalendarConfig, store: Store) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (name, bytes) in store.all(EVENTS).await? {
            if bug!("events-not-read") {
                break;
            }
            match serde_json::from_slice::<CalendarEvent>(&bytes) {
                Ok(event) => {
                    state.events.insert(event.name.clone(), event);
                }
                Err(error) => tracing::warn!(name, %error, "an event of the calendar cannot be read: it is left out"),
            }
        }
        if let Some(bytes) = store.get(LEARNT, CLASSES).await? {
            match Learner::from_bytes(&bytes) {
                Ok(learner) => state.learner = learner,
                Err(error) => tracing::warn!(%error, "what was learnt of events cannot be read: it is learnt anew"),
            }
        }
        let shared = Shared { region, config, store, state: Mutex::new(state), writing: tokio::sync::Mutex::new(()) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes an event, or a new version of one of the API's; durable when this returns.
    pub async fn put(&self, event: CalendarEvent, now: Timestamp) -> Result<(), CalendarError> {
        event.check()?;
        let _writing = self.shared.writing.lock().await;
        if self.shared.config.events.iter().any(|known| known.name == event.name) || is_holiday(&event.name) {
            return Err(CalendarError::NotOurs(event.name));
        }
        let mut changes = vec![(event.name.to_string(), serde_json::to_vec(&event).ok())];
        let forgotten: Vec<EventName> =
            self.state().events.values().filter(|known| known.until < now.before(PAST)).map(|known| known.name.clone()).collect();
        let kept = self.state().events.len() - forgotten.len();
        if kept >= MAX_KEPT && !self.state().events.contains_key(&event.name) {
            return Err(CalendarError::Full);
        }
        changes.extend(forgotten.iter().filter(|name| **name != event.name).map(|name| (name.to_string(), None)));
        self.shared.store.change(EVENTS, changes).await?;
        let mut state = self.state();
        forgotten.iter().for_each(|name| {
            state.events.remove(name);
        });
        state.events.insert(event.name.clone(), event);
        Ok(())
    }

    /// Removes one of the API's events; durable when this returns.
    pub async fn remove(&self, name: &EventName) -> Result<(), CalendarError> {
        let _writing = self.shared.writing.lock().await;
        if !self.state().events.contains_key(name) {
            let configured = self.shared.config.events.iter().any(|known| known.name == *name) || is_holiday(name);
            return Err(if configured { CalendarError::NotOurs(name.clone()) } else { CalendarError::Unknown(name.clone()) });
        }
        self.shared.store.remove(EVENTS, name.as_str()).await?;
        self.state().events.remove(name);
        Ok(())
    }

    /// The calendar as it stands, with the events that other regions publish.
    pub fn calendar(&self, others: impl IntoIterator<Item = (RegionId, CalendarEvent)>, now: Timestamp) -> Calendar {
        let Shared { region, config, .. } = &*self.shared;
        let state = self.state();
        let holidays = holidays_between(config, now.before(PAST), now.after(AHEAD));
        let own = holidays.into_iter().map(|event| (EventOrigin::Holidays, event));
        let own = own.chain(config.events.iter().map(|event| (EventOrigin::Configuration, event.clone())));
        let own = own.chain(state.events.values().map(|event| (EventOrigin::Api, event.clone())));
        let own = own.map(|(origin, event)| (region.clone(), origin, event));
        let others = others.into_iter().map(|(other, event)| (other, EventOrigin::Mesh, event));
        let entries = own.chain(others).map(|(region, origin, event)| {
            let effect = event.effect.unwrap_or_else(|| state.learner.effect(&event));
            CalendarEntry { region, origin, event, effect }
        });
        Calendar::new(entries.collect())
    }

    /// The calendar with the events that the regions in `view` publish.
    pub(crate) fn calendar_in(&self, view: &MeshView, now: Timestamp) -> Calendar {
        let others = view.regions.iter().filter(|(region, _)| **region != self.shared.region);
        let events = others.filter_map(|(region, entry)| Some((region, entry.state.as_ref()?)));
        self.calendar(events.flat_map(|(region, state)| state.events.iter().map(|event| (region.clone(), event.clone()))), now)
    }

    /// What is to be published: what goes on or comes soon, the earliest first, within `budget` bytes.
    pub(crate) fn to_publish(&self, now: Timestamp, budget: usize) -> Vec<CalendarEvent> {
        // An event takes about this much, compressed.
        const EVENT_BYTES: usize = 128;
        let calendar = self.calendar([], now);
        let coming = calendar.entries().iter().filter(|entry| entry.event.until > now && entry.event.from < now.after(AHEAD));
        // Others cannot know what this region has learnt, so the effect goes along.
        let told = coming.map(|entry| CalendarEvent { effect: Some(entry.effect), ..entry.event.clone() });
        told.take((budget / EVENT_BYTES).min(MAX_EVENTS)).collect()
    }

    /// Lets what closed steps tell of events be learnt, and kept.
    pub(crate) async fn observe(&self, at: (StepIndex, Step), foreseen: &[PredictionData], counts: &[(SeriesKey, f64)]) {
        let start = at.1.start(at.0);
        let calendar = self.calendar([], start);
        let own = calendar.entries().iter().map(|entry| &entry.event);
        let learnt = {
            let mut state = self.state();
            state.learner.observe(own, at, foreseen, counts).then(|| state.learner.to_bytes())
        };
        let Some(bytes) = learnt else { return };
        if let Err(error) = self.shared.store.put(LEARNT, CLASSES, bytes).await {
            tracing::warn!(%error, "what was learnt of an event is not kept");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names of the holidays' events begin with this.
pub(super) const HOLIDAY_PREFIX: &str = "holiday.";

fn is_holiday(name: &EventName) -> bool {
    name.as_str().starts_with(HOLIDAY_PREFIX)
}
