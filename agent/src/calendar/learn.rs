//! What events of a kind have done so far, so that the next one need not be guessed.
//!
//! Each event without a stated effect gives one observation: the logarithm of what came over what had been foreseen
//! just before it began, over as much of the event as that forecast covered. Later forecasts would not
//! do, since they have learnt the event already. Observations of one class (kind and title) are averaged under a
//! normal prior around "no effect" worth [`PRIOR_EVENTS`] events, so that the first observation moves the
//! factor half of the way.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tradewind_protocol::calendar::{Effect, EventKind};
use tradewind_protocol::{CalendarEvent, EventName, PredictionData, Quantile, SeriesKey, Step, StepIndex};

/// Standard deviation of the logarithm of a factor that nobody has seen: 90 % of events lie between 0.72
/// and 1.39. A guess, until events have been observed.
const PRIOR_SPREAD: f64 = 0.2;
/// How many events the prior is worth.
const PRIOR_EVENTS: f64 = 1.0;
/// The 95 % quantile of the standard normal.
const Z95: f64 = 1.644_853_6;
/// The most classes that are remembered; those of the fewest events are forgotten first.
const MAX_CLASSES: usize = 200;
/// The most events that are observed at a time.
const MAX_OPEN: usize = 64;
/// No event is taken to do more than this, either way.
const MAX_LOG: f64 = 4.0;

/// What makes events alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Class {
    kind: EventKind,
    title: String,
}

impl Class {
    fn of(event: &CalendarEvent) -> Self {
        // Without a title, the name says what comes again.
        let title = if event.title.is_empty() { event.name.to_string() } else { event.title.clone() };
        Self { kind: event.kind, title }
    }
}

/// Observations of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Observed {
    events: f64,
    sum: f64,
    squares: f64,
}

/// An event that takes place: what was foreseen of it, step by step, and what came so far.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    event: CalendarEvent,
    first: StepIndex,
    foreseen: Vec<f64>,
    expected: f64,
    actual: f64,
}

/// What was learnt of all classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Learner {
    classes: BTreeMap<Class, Observed>,
    open: BTreeMap<EventName, Open>,
}

impl Learner {
    /// The effect of events like `event`.
    pub(super) fn effect(&self, event: &CalendarEvent) -> Effect {
        let Observed { events, sum, squares } = self.classes.get(&Class::of(event)).copied().unwrap_or_default();
        let mean = sum / (events + PRIOR_EVENTS);
        let scatter = (squares - sum * sum / events.max(1.0)).max(0.0) + PRIOR_EVENTS * PRIOR_SPREAD * PRIOR_SPREAD;
        // Of the next event: its own scatter, and how unsure the mean is.
        let spread = (scatter / (events + PRIOR_EVENTS) * (1.0 + 1.0 / (events + PRIOR_EVENTS))).sqrt();
        let spread = if events == 0.0 { PRIOR_SPREAD } else { spread };
        let at = |z: f64| (mean + z * spread).exp();
        Effect { factor: at(0.0), low: at(-Z95), high: at(Z95) }
    }

    /// Observes the closed `step`: what had been `foreseen`, without events, in the step before, and the `counts`.
    /// Says whether a class has learnt something.
    pub(super) fn observe<'a>(
        &mut self,
        events: impl Iterator<Item = &'a CalendarEvent>,
        (index, step): (StepIndex, Step),
        foreseen: &[PredictionData],
        counts: &[(SeriesKey, f64)],
    ) -> bool {
        let (start, end) = (step.start(index), step.end(index));
        for event in events.filter(|event| event.effect.is_none() && event.share_of(start, end) >= 1.0) {
            if self.open.len() < MAX_OPEN && !self.open.contains_key(&event.name) && event.from > start.before(step.length()) {
                self.open.insert(event.name.clone(), Open::new(event, index, foreseen));
            }
        }
        let mut over = vec![];
        for (name, open) in &mut self.open {
            if !open.observe(index, open.event.share_of(start, end), counts) {
                over.push(name.clone());
            }
        }
        let over: Vec<Open> = over.iter().filter_map(|name| self.open.remove(name)).collect();
        over.iter().filter(|open| self.conclude(open)).count() > 0
    }

    fn conclude(&mut self, open: &Open) -> bool {
        // Half of a step's traffic at least must have been foreseen for a ratio to mean anything.
        if open.expected < 1.0 {
            return false;
        }
        let log = ((open.actual + 0.5) / (open.expected + 0.5)).ln().clamp(-MAX_LOG, MAX_LOG);
        let class = self.classes.entry(Class::of(&open.event)).or_default();
        class.events += 1.0;
        class.sum += log;
        class.squares += log * log;
        if self.classes.len() > MAX_CLASSES
            && let Some(least) = self.classes.iter().min_by(|a, b| a.1.events.total_cmp(&b.1.events)).map(|(class, _)| class.clone())
        {
            self.classes.remove(&least);
        }
        true
    }

    /// What survives a restart, as JSON.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Text and numbers: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(&self.classes.iter().collect::<Vec<_>>()).unwrap_or_default()
    }

    /// From what survived.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let classes: Vec<(Class, Observed)> = serde_json::from_slice(bytes)?;
        Ok(Self { classes: classes.into_iter().take(MAX_CLASSES).collect(), open: BTreeMap::new() })
    }
}

impl Open {
    fn new(event: &CalendarEvent, first: StepIndex, foreseen: &[PredictionData]) -> Self {
        let concerned: Vec<&PredictionData> = foreseen.iter().filter(|p| event.concerns(&p.series)).collect();
        let horizon = concerned.iter().map(|p| p.path.horizon()).min().unwrap_or(0);
        let sum = |ahead| {
            let at = first.offset(ahead as i64);
            concerned.iter().map(|p| p.path.value(at, Quantile::MEDIAN).unwrap_or(0.0)).sum()
        };
        Self { event: event.clone(), first, foreseen: (0..horizon).map(sum).collect(), expected: 0.0, actual: 0.0 }
    }

    /// Adds the step, of which `share` is in the event; says whether there may be more.
    fn observe(&mut self, index: StepIndex, share: f64, counts: &[(SeriesKey, f64)]) -> bool {
        let ahead = usize::try_from(index.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        let Some(foreseen) = self.foreseen.get(ahead).filter(|_| share >= 1.0) else { return false };
        self.expected += foreseen;
        self.actual += counts.iter().filter(|(series, _)| self.event.concerns(series)).map(|(_, count)| count).sum::<f64>();
        true
    }
}
