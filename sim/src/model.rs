//! The reference model of what is durable of one agent: what it acknowledged, and what its API showed as durable.
//!
//! Told both while the agent is up, it says after a restart what is not as it has to be, each difference by itself and in words. Pure:
//! who asks the agent is `inspect::recovery` and the client, who judge nothing themselves. What two agents know of each other is
//! `promises`' matter; instances are counted where they are.
//!
//! Not in it, since no API shows it: counts that have left memory for columns, series' own sums of demand, what was learnt of events'
//! effects. Nor places in tailed files, cursors of Prometheus queries and prices, which are not simulated.

use crate::clock::wall_time;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tradewind_protocol::api::{CalendarEntry, EventOrigin, ForecastView, IngestReceipt, PlanExplanation, StageState, StagingView};
use tradewind_protocol::{
    CalendarEvent, EventName, PoolName, RegionId, SeriesKey, ServiceName, StageName, Step, StepIndex, TransactionRecord,
};

/// Receipts that are remembered: more than the client posts again.
const MAX_RECEIPTS: usize = 64;

/// What is remembered of how much a pool's margins had learned: at a look in ten, some minutes.
const MAX_LEARNED: usize = 32;

/// Within what time the planner's memories are made durable: every minute (`agent/memories.rs`), in the round after, on a slow disk.
pub(crate) const KEPT_WITHIN: Duration = Duration::from_secs(65);

/// How many steps before the last closed one a series has counted that must be among the forecasts.
const FORECAST_AFTER: i64 = 3;

/// Counts of one series and step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    acknowledged: u64,
    /// Posted or about to be, without an answer so far.
    open: u64,
}

/// Acknowledged counts at one moment.
pub(crate) type Acknowledged = BTreeMap<SeriesKey, BTreeMap<StepIndex, u64>>;

/// An event of the calendar as it was left: `None` is removed.
#[derive(Debug, Default)]
struct Event {
    acknowledged: Option<CalendarEvent>,
    /// Changes that were not answered: each may have been made or not.
    open: Vec<Option<CalendarEvent>>,
}

/// How the last life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: everything that it showed is durable.
    InOrder,
    /// It was last heard of then.
    After(Duration),
}

/// What is durable of one agent.
#[derive(Debug, Default)]
pub(crate) struct Model {
    counts: BTreeMap<SeriesKey, BTreeMap<StepIndex, Count>>,
    receipts: VecDeque<(String, IngestReceipt)>,
    events: BTreeMap<EventName, Event>,
    /// The number of the last life.
    generation: Option<u64>,
    /// Steps of staging that were shown as done.
    staged: BTreeSet<(ServiceName, StageName)>,
    /// How many steps each pool's margins had learned from, by when that was shown.
    learned: BTreeMap<PoolName, VecDeque<(Duration, u64)>>,
    /// How many steps they must have learned from, now that the agent has been restarted.
    due: BTreeMap<PoolName, u64>,
    /// How often its disk was lost, as far as that is told.
    losses: u64,
}

impl Model {
    /// These are posted, or about to be.
    pub(crate) fn open(&mut self, records: &[TransactionRecord], step: Step) {
        self.count(records, step, |count, n| count.open += n);
    }

    /// The batch with this key is acknowledged.
    pub(crate) fn acknowledge(&mut self, key: &str, records: &[TransactionRecord], step: Step, receipt: &IngestReceipt) {
        self.count(records, step, |count, n| {
            count.open = count.open.saturating_sub(n);
            count.acknowledged += n;
        });
        if self.receipts.len() == MAX_RECEIPTS {
            self.receipts.pop_front();
        }
        self.receipts.push_back((key.to_owned(), IngestReceipt { replayed: true, ..receipt.clone() }));
    }

    fn count(&mut self, records: &[TransactionRecord], step: Step, change: impl Fn(&mut Count, u64)) {
        for record in records {
            let steps = self.counts.entry(record.series()).or_default();
            change(steps.entry(step.index(record.timestamp)).or_default(), record.count);
        }
    }

    /// What has been acknowledged so far, by series and step.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        let known = |steps: &BTreeMap<StepIndex, Count>| steps.iter().map(|(step, count)| (*step, count.acknowledged)).collect();
        self.counts.iter().map(|(series, steps)| (series.clone(), known(steps))).collect()
    }

    /// What is wrong with the receipt for a batch that was acknowledged before, and is posted again under its key.
    pub(crate) fn judge_receipt(&self, key: &str, again: &IngestReceipt) -> Option<String> {
        let (_, first) = self.receipts.iter().find(|(known, _)| known == key)?;
        (again != first).then(|| format!("the receipt of batch {key} is {again:?} after a restart, it was {first:?}"))
    }

    /// What is wrong with the counts in `shown`, the agent's forecasts of its own series when `closed` was the last closed step, if `before`
    /// is what was acknowledged when they were asked for. What came in meanwhile may be among them.
    pub(crate) fn judge_counts(&self, before: &Acknowledged, shown: &[ForecastView], closed: StepIndex, step: Step) -> Vec<String> {
        let mut wrong = vec![];
        for (series, steps) in &self.counts {
            let before = before.get(series);
            let due = |at: &StepIndex| *at <= closed.offset(-FORECAST_AFTER);
            let must = before.is_some_and(|before| before.iter().any(|(at, count)| *count > 0 && due(at)));
            let Some(view) = shown.iter().find(|view| view.prediction.series == *series && !view.recent.is_empty()) else {
                if must {
                    wrong.push(format!("{series} was acknowledged, and is not among the forecasts"));
                }
                continue;
            };
            let first = view.prediction.path.start().offset(-(view.recent.len() as i64));
            for (i, counted) in view.recent.iter().enumerate() {
                let at = first.offset(i as i64);
                let count = steps.get(&at).copied().unwrap_or_default();
                let least = before.and_then(|before| before.get(&at)).copied().unwrap_or(0);
                // A lost disk between question and answer makes less of them.
                let (least, most) = (least.min(count.acknowledged), count.acknowledged + count.open);
                if *counted < least as f64 || *counted > most as f64 {
                    let after = step.start(at).since(wall_time(Duration::ZERO));
                    let open = count.open;
                    wrong.push(format!(
                        "{series}, the step that begins after {after:?}: {counted} counted, {least} acknowledged, {open} open"
                    ));
                }
            }
        }
        wrong
    }

    /// The agent is asked to change its calendar: to take the event, or to remove that of the name.
    pub(crate) fn ask_event(&mut self, name: &EventName, wanted: Option<CalendarEvent>) {
        self.events.entry(name.clone()).or_default().open.push(wanted);
    }

    /// The agent has done what it was asked last.
    pub(crate) fn acknowledge_event(&mut self, name: &EventName) {
        if let Some(event) = self.events.get_mut(name)
            && let Some(done) = event.open.pop()
        {
            event.acknowledged = done;
        }
    }

    /// The agent has begun a new life: what is wrong with the calendar that it shows. Whatever was open is settled by it.
    pub(crate) fn judge_calendar(&mut self, region: &RegionId, shown: &[CalendarEntry]) -> Vec<String> {
        let own = shown.iter().filter(|entry| entry.region == *region && entry.origin == EventOrigin::Api);
        let shown: BTreeMap<EventName, CalendarEvent> = own.map(|entry| (entry.event.name.clone(), entry.event.clone())).collect();
        let told = |event: Option<&CalendarEvent>| event.map_or("not in the calendar".to_owned(), |event| format!("{event:?}"));
        let mut wrong = vec![];
        for (name, known) in &mut self.events {
            let found = shown.get(name);
            if known.acknowledged.as_ref() != found && !known.open.iter().any(|open| open.as_ref() == found) {
                wrong.push(format!("event {name} is {}, it was {}", told(found), told(known.acknowledged.as_ref())));
            }
            (known.acknowledged, known.open) = (found.cloned(), vec![]);
        }
        wrong.extend(shown.keys().filter(|name| !self.events.contains_key(*name)).map(|name| format!("event {name} was never asked for")));
        wrong
    }

    /// The agent has begun a new life: what is wrong with its number.
    pub(crate) fn judge_generation(&mut self, generation: u64) -> Option<String> {
        let former = self.generation.replace(generation);
        former.filter(|former| generation <= *former).map(|former| format!("its life is number {generation}, the one before was {former}"))
    }

    /// How many series have acknowledged records.
    pub(crate) fn series(&self) -> usize {
        self.counts.values().filter(|steps| steps.values().any(|count| count.acknowledged > 0)).count()
    }

    /// The agent has begun a new life: what is wrong with how many series it knows, if so many were `counted` when it was asked.
    pub(crate) fn judge_series(&self, known: usize, counted: usize) -> Option<String> {
        let counted = counted.min(self.series());
        (known < counted).then(|| format!("it knows {known} series, and has acknowledged records of {counted}"))
    }

    /// The agent shows this staging.
    pub(crate) fn see_staging(&mut self, shown: &[StagingView]) {
        self.staged = steps(shown).filter(|(_, state)| *state == StageState::Done).map(|(step, _)| step).collect();
    }

    /// The agent has begun a new life: what is wrong with the staging that it shows. Steps that were `undone` on the machine since are
    /// not missed.
    pub(crate) fn judge_staging(&mut self, shown: &[StagingView], undone: impl Fn(&ServiceName, &StageName) -> bool) -> Vec<String> {
        let shown: BTreeMap<(ServiceName, StageName), StageState> = steps(shown).collect();
        let missed = std::mem::take(&mut self.staged).into_iter().filter(|(service, step)| !undone(service, step));
        let wrong = missed.filter_map(|step| match shown.get(&step) {
            Some(StageState::Done | StageState::Undoing) => None,
            state => Some(format!("step {} of {} was done, it is {state:?}", step.1, step.0)),
        });
        wrong.collect()
    }

    /// The agent shows what its pools' margins have learned from. If `durable` is not certain to come, nothing is to be made of it.
    pub(crate) fn see_plan(&mut self, at: Duration, plan: &PlanExplanation, durable: bool) {
        if !durable {
            return self.learned.clear();
        }
        for pool in &plan.pools {
            let learned = self.learned.entry(pool.decision.pool.clone()).or_default();
            if learned.len() == MAX_LEARNED {
                learned.pop_front();
            }
            learned.push_back((at, pool.margin.learned_steps));
        }
    }

    /// The agent has been restarted. What a memory has to know that is made durable now and then follows from when it ended.
    pub(crate) fn on_restart(&mut self, end: End) {
        for (pool, learned) in std::mem::take(&mut self.learned) {
            let known = |(at, steps): &(Duration, u64)| match end {
                End::InOrder => Some(*steps),
                End::After(heard) => (*at + KEPT_WITHIN <= heard).then_some(*steps),
            };
            let known = learned.iter().filter_map(known).max().unwrap_or(0);
            // Whoever is restarted before the first plan still has what was there.
            let due = self.due.entry(pool).or_default();
            *due = known.max(*due);
        }
    }

    /// The agent has planned in its new life: what is wrong with what its pools' margins have learned from.
    pub(crate) fn judge_plan(&mut self, plan: &PlanExplanation) -> Vec<String> {
        let learned = |pool: &PoolName| plan.pools.iter().find(|shown| shown.decision.pool == *pool).map(|pool| pool.margin.learned_steps);
        let wrong = self.due.iter().filter(|(pool, due)| learned(pool).is_none_or(|learned| learned < **due)).map(|(pool, due)| {
            format!("the margins of pool {pool} have learned from {} steps, it was {due} before", learned(pool).unwrap_or(0))
        });
        wrong.collect()
    }

    /// What they have learned from was looked at.
    pub(crate) fn settle_plan(&mut self) {
        self.due.clear();
    }

    /// The agent's disk was lost so many times: nothing can be expected of it since the last, and what was acknowledged may yet be there.
    pub(crate) fn lose(&mut self, losses: u64) {
        if losses <= self.losses {
            return;
        }
        let mut counts = std::mem::take(&mut self.counts);
        for count in counts.values_mut().flat_map(BTreeMap::values_mut) {
            count.open += std::mem::take(&mut count.acknowledged);
        }
        *self = Self { counts, losses, ..Self::default() };
    }
}

/// Every step of staging, and where it stands.
fn steps(shown: &[StagingView]) -> impl Iterator<Item = ((ServiceName, StageName), StageState)> {
    shown.iter().flat_map(|view| view.steps.iter().map(|step| ((view.service.clone(), step.name.clone()), step.state)))
}

#[cfg(test)]
mod tests;
