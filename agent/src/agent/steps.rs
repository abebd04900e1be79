//! The step loop: what the agent does each time a step of the clock is over.
//!
//! Close the step in history, let the forecasts learn it, publish what is foreseen, wait for the others
//! to do the same, plan, have the plan checked, and carry it out. One task does all of it, so that no
//! two steps ever overlap; planning rounds that people and peers ask for come in between.

use super::late::Late;
use super::memories::Memories;
use super::outlook::Outlook;
use super::snapshots::Snapshots;
use super::training::InTraining;
use crate::calendar::CalendarHandle;
use crate::config::{Config, PoolConfig};
use crate::env::{Clock, Env, Offload};
use crate::events::EventLog;
use crate::forecast::global::{GlobalConfig, Globals};
use crate::forecast::{Explanation, Forecasts};
use crate::history::{Closed, HistoryHandle, Stopped};
use crate::http::Progress;
use crate::marks::{bug, sometimes};
use crate::mesh::MeshHandle;
use crate::negotiate::NegotiatorHandle;
use crate::planner::{self, Counted, Outturn, PastPrices, PoolSnapshot, Snapshot, SourceForecast, SpotSnapshot};
use crate::pool::{PoolHandle, Target};
use crate::prices::PriceHandle;
use crate::staging::StagingHandle;
use crate::stop::told;
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tradewind_protocol::api::{PlanExplanation, Severity};
use tradewind_protocol::region::{Dropped, Health, Mode};
use tradewind_protocol::{PoolName, PredictionData, RegionId, RegionState, RegionalResourcePlan, SeriesKey, StepIndex, Timestamp};

/// The most steps that are closed one by one after the clock has jumped or the agent has slept; what is
/// older is skipped, as if nothing had been counted.
const MAX_CATCH_UP: i64 = 1_000;
/// How many seasons of counts a forecast is rebuilt from.
const REBUILD_SEASONS: usize = 8;
/// The fewest steps that it is rebuilt from.
const MIN_REBUILD_STEPS: usize = 64;
/// The most.
const MAX_REBUILD_STEPS: usize = 20_160;

/// A series that has counted nothing for so many seasons is cold: it is forecast no more, until it counts again.
const COLD_SEASONS: usize = 2;
/// And for at least so many steps.
const MIN_COLD_STEPS: usize = 256;
/// After so many steps the series that all experts forecast are chosen anew: hourly, where steps are minutes.
const CHOOSE_EVERY: i64 = 60;
/// So many of the newly chosen are learnt in a step: where steps are minutes, each takes up to 0.2 s.
const CHOSEN_A_STEP: usize = 8;
/// Series that are learnt from history at a time: a page of windows is at most 10 MiB.
const RECALL_PAGE: usize = 64;
/// For so long the agent learns before it does anything else; what is left is learnt between the steps.
const RECALL_FIRST: Duration = Duration::from_secs(5);

/// What somebody asks of the loop.
pub(super) enum Ask {
    /// A planning round.
    Plan { dry_run: bool, reply: oneshot::Sender<Result<RegionalResourcePlan, String>> },
    /// What stands behind the newest plan; none before the first.
    ExplainPlan { reply: oneshot::Sender<Option<PlanExplanation>> },
    /// What stands behind forecasts.
    Explain { keys: Vec<SeriesKey>, reply: oneshot::Sender<Vec<Option<Explanation>>> },
}

/// What the loop works with.
pub(super) struct Parts {
    pub config: Arc<Config>,
    /// Where others are told to find the API.
    pub api_url: String,
    pub history: HistoryHandle,
    pub mesh: MeshHandle,
    pub pool: PoolHandle,
    pub calendar: CalendarHandle,
    pub events: EventLog,
    pub negotiator: NegotiatorHandle,
    pub staging: StagingHandle,
    pub store: Store,
    pub snapshots: Snapshots,
    pub prices: PriceHandle,
    /// What prices of the past tell of spot markets, or why they tell nothing.
    pub past_prices: BTreeMap<PoolName, Result<PastPrices, String>>,
}

/// The state of the loop.
pub(super) struct StepLoop {
    config: Arc<Config>,
    /// Where others are told to find the API.
    api_url: String,
    clock: Arc<dyn Clock>,
    offload: Offload,
    history: HistoryHandle,
    mesh: MeshHandle,
    pool: PoolHandle,
    events: EventLog,
    negotiator: NegotiatorHandle,
    staging: StagingHandle,
    progress: watch::Sender<Progress>,
    forecasts: Forecasts,
    /// The global models, and the ones that are being trained.
    globals: Globals,
    training: InTraining,
    outlook: Outlook,
    /// The last closed step.
    closed: Option<StepIndex>,
    /// While series are learnt from history: the last that was.
    recalling: Option<Option<SeriesKey>>,
    late: Late,
    /// When the region last published.
    spoke: Instant,
    plans: u64,
    /// The newest plan that was carried out, and what it was made from.
    newest: Option<Planned>,
    prices: PriceHandle,
    past_prices: BTreeMap<PoolName, Result<PastPrices, String>>,
    memories: Memories,
    snapshots: Snapshots,
    /// Regions that have forecast traffic to this one.
    sources: BTreeSet<RegionId>,
}

/// A checked plan, and what it was made from.
#[derive(Debug, Clone)]
struct Planned {
    plan: Arc<RegionalResourcePlan>,
    snapshot: Arc<Snapshot>,
}

impl StepLoop {
    pub(super) fn new(env: &Env, parts: Parts, progress: watch::Sender<Progress>) -> Self {
        let Parts { config, api_url, history, mesh, pool, calendar, events, negotiator, staging, store, snapshots, prices, past_prices } =
            parts;
        let outlook = Outlook::new(config.clone(), calendar, mesh.clone(), events.clone());
        let forecasts = Forecasts::new(&config.forecast, config.step).limited_to(config.full_series);
        let globals = Globals::new(config.global.clone(), config.forecast.horizon, config.forecast.season);
        Self {
            clock: env.clock.clone(),
            offload: env.offload,
            config,
            api_url,
            history,
            mesh,
            pool,
            events,
            negotiator,
            staging,
            progress,
            forecasts,
            globals,
            training: InTraining::new(env.offload),
            outlook,
            closed: None,
            recalling: None,
            late: Late::default(),
            spoke: Instant::now(),
            plans: 0,
            newest: None,
            prices,
            past_prices,
            memories: Memories::new(store),
            snapshots,
            sources: BTreeSet::new(),
        }
    }

    /// Runs until `stop` is true or history has ended.
    pub(super) async fn run(mut self, requests: mpsc::Receiver<Ask>, stop: watch::Receiver<bool>) {
        self.memories.recall(self.config.pools.iter().map(|pool| pool.name.clone())).await;
        self.drive(requests, stop).await;
        self.memories.finish().await;
        // What is still to be taken up is in the file alone.
        if self.closed.is_some() && self.recalling.is_none() {
            self.snapshots.finish(&self.forecasts, &self.globals).await;
        }
    }

    async fn drive(&mut self, mut requests: mpsc::Receiver<Ask>, mut stop: watch::Receiver<bool>) {
        // The step that was running when the agent started is closed as any other; those before it are
        // history.
        let running = self.config.step.index(self.clock.now());
        if self.recall(running.offset(-1)).await.is_err() {
            return;
        }
        self.publish();
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                Some(request) = requests.recv() => self.answer(request).await,
                () = sleep_until(due) => {
                    if self.step().await.is_err() {
                        return;
                    }
                }
                () = std::future::ready(()), if self.recalling.is_some() => {
                    if self.recall_page().await.is_err() {
                        return;
                    }
                }
                () = self.snapshots.turn(), if self.recalling.is_none() => self.snapshots.keep(&self.forecasts, &self.globals),
            }
        }
    }

    /// When the next step is to be closed.
    fn due(&self) -> Instant {
        let next = self.closed.map_or_else(|| self.config.step.index(self.clock.now()), |closed| closed.offset(1));
        let at = self.config.step.end(next).after(self.config.ingest.close_after);
        let at = Instant::now() + at.since(self.clock.now());
        // A clock that was set back must not silence the region until it has caught up.
        if bug!("clock-set-back-silences") { at } else { at.min(self.spoke + 2 * self.config.step.length()) }
    }

    /// Learns what was counted before this life: all of it, or what there is time for now.
    async fn recall(&mut self, until: StepIndex) -> Result<(), Stopped> {
        // Closed before it is read, so that records which come for it from now on are reported as late ones: without
        // this, a backlog that comes in before the first close is learnt only after a restart.
        self.history.close_warm(until, self.cold_steps()).await?;
        self.closed = Some(until);
        self.choose().await?;
        self.recalling = Some(None);
        let pieces = self.snapshots.read_globals().await;
        if !pieces.is_empty()
            && let Err(error) = self.globals.restore(until, &pieces)
        {
            tracing::info!(%error, "the global models of before are not used: they are trained again");
        }
        let began = Instant::now();
        while self.recalling.is_some() && began.elapsed() < RECALL_FIRST {
            self.recall_page().await?;
        }
        self.training.drive(&mut self.globals);
        if self.recalling.is_some() {
            tracing::info!(learnt = self.forecasts.len(), "more series are learnt from history between the steps");
        }
        Ok(())
    }

    /// Chooses the series that all experts forecast.
    async fn choose(&mut self) -> Result<(), Stopped> {
        self.forecasts.choose(&self.history.warm_sizes().await?);
        Ok(())
    }

    /// Learns the next series from their counts up to the last closed step.
    async fn recall_page(&mut self) -> Result<(), Stopped> {
        let (Some(after), Some(until)) = (self.recalling.clone(), self.closed) else { return Ok(()) };
        let mut windows = self.history.warm_windows(after, RECALL_PAGE, until, self.rebuild_steps()).await?;
        let Some((last, _)) = windows.last() else {
            self.recalling = None;
            return Ok(());
        };
        self.recalling = Some(Some(last.clone()));
        self.outlook.recall(self.offload, until, &mut windows, self.clock.now()).await;
        let kept = self.snapshots.read(windows.iter().map(|(key, _)| key.clone()).collect()).await;
        self.work(move |forecasts, globals| {
            for ((key, window), kept) in windows.iter().zip(kept) {
                match kept.map(|kept| forecasts.restore(key, until, &kept, window)) {
                    Some(Ok(())) => sometimes!("steps.forecast-restored"),
                    Some(Err(_)) | None => forecasts.rebuild(key, until, window),
                }
                globals.rebuild(key, until, window);
            }
        })
        .await;
        Ok(())
    }

    /// Has the forecasts and the global models worked on where that is in nobody's way.
    async fn work(&mut self, work: impl FnOnce(&mut Forecasts, &mut Globals) + Send + 'static) {
        let (horizon, season) = (self.config.forecast.horizon, self.config.forecast.season);
        let mut forecasts = std::mem::replace(&mut self.forecasts, Forecasts::new(&self.config.forecast, self.config.step));
        let mut globals = std::mem::replace(&mut self.globals, Globals::new(GlobalConfig::none(), horizon, season));
        (self.forecasts, self.globals) = self
            .offload
            .run(move || {
                work(&mut forecasts, &mut globals);
                (forecasts, globals)
            })
            .await;
    }

    /// Whether the series' turn to be learnt from history comes yet.
    fn is_to_come(&self, key: &SeriesKey) -> bool {
        self.recalling.as_ref().is_some_and(|learnt| learnt.as_ref() < Some(key))
    }

    fn cold_steps(&self) -> usize {
        self.config.forecast.season.saturating_mul(COLD_SEASONS).max(MIN_COLD_STEPS)
    }

    fn rebuild_steps(&self) -> usize {
        (self.config.forecast.season * REBUILD_SEASONS).clamp(MIN_REBUILD_STEPS, MAX_REBUILD_STEPS)
    }

    /// Everything that is to be done now that a step is over.
    async fn step(&mut self) -> Result<(), Stopped> {
        let now = self.clock.now();
        // The newest step that is due; usually the one after the last closed one.
        let newest =
            self.config.step.index(now.before(self.config.ingest.close_after)).offset(if bug!("step-closed-early") { 0 } else { -1 });
        let first = self.closed.map_or(newest, |closed| closed.offset(1)).max(newest.offset(1 - MAX_CATCH_UP));
        let mut step = first;
        if first < newest {
            sometimes!("steps.caught-up");
        }
        // To the steps, a clock that was set back stands still; to the records it does not.
        if first > newest && !bug!("late-counts-wait-for-the-clock") {
            self.learn_late().await?;
        }
        while step <= newest {
            let closed = self.history.close_warm(step, self.cold_steps()).await?;
            self.learn(closed).await?;
            self.closed = Some(if bug!("step-skipped") { step.offset(1) } else { step });
            step = step.offset(1);
        }
        self.publish();
        // Traffic that surges now does not wait for what the others foresee.
        if !self.outlook.surges() {
            tokio::time::sleep(self.config.planner.settle).await;
        }
        let plan = self.plan();
        self.carry_out(plan).await;
        Ok(())
    }

    /// Lets the forecasts learn a closed step, and afresh what late records have changed, in its turn, or what is no longer
    /// cold; and forget what has become cold.
    async fn learn(&mut self, closed: Closed) -> Result<(), Stopped> {
        let mut revised = self.revised(&closed).await?;
        let cold = self.outlook.no_longer_in(&closed.counts);
        if !cold.is_empty() {
            tracing::debug!(series = cold.len(), "cold: forecast no more until they count again");
        }
        let foreseen = self.progress.borrow().predictions.clone();
        let (step, counts) = self.outlook.close(closed, &foreseen, &mut revised, self.clock.now()).await;
        if step.0 % CHOOSE_EVERY == 0 {
            self.choose().await?;
        }
        self.globals.shift(&self.outlook.shifted());
        self.training.drive(&mut self.globals);
        self.work(move |forecasts, globals| {
            for key in &cold {
                forecasts.remove(key);
                globals.remove(key);
            }
            let counts = || counts.iter().map(|(key, count)| (key, *count));
            forecasts.close(step, counts());
            globals.close(step, counts());
            rebuild(forecasts, globals, step, &revised);
            globals.speak();
        })
        .await;
        Ok(())
    }

    /// Learns afresh what late records have changed while no step can be closed.
    async fn learn_late(&mut self) -> Result<(), Stopped> {
        let Some(until) = self.closed else { return Ok(()) };
        let closed = self.history.close_warm(until, self.cold_steps()).await?;
        let mut revised = self.revised(&closed).await?;
        if revised.is_empty() {
            return Ok(());
        }
        self.outlook.undisturb(until, &mut revised, self.clock.now());
        self.work(move |forecasts, globals| {
            rebuild(forecasts, globals, until, &revised);
            globals.speak();
        })
        .await;
        Ok(())
    }

    /// The series that are to be learnt afresh now, with their counts.
    async fn revised(&mut self, closed: &Closed) -> Result<Vec<(SeriesKey, Vec<f64>)>, Stopped> {
        self.late.note(closed.revised.keys());
        let mut afresh = self.late.take_due(self.rebuild_steps());
        afresh.extend(closed.woken.iter().cloned());
        afresh.extend(self.forecasts.waiting(CHOSEN_A_STEP));
        let mut revised = vec![];
        for key in afresh {
            let counted = closed.counts.binary_search_by(|(counted, _)| counted.cmp(&key)).is_ok();
            if counted && !self.is_to_come(&key) {
                let window = self.history.window(&key, closed.step, self.rebuild_steps()).await?;
                revised.push((key, window));
            }
        }
        Ok(revised)
    }

    /// Tells the others and the API what is foreseen now.
    fn publish(&mut self) {
        let now = self.clock.now();
        self.spoke = Instant::now();
        let predictions = self.globals.blend(self.forecasts.predictions(now));
        // Before events are put into it: counts are freed of them before they are learnt.
        self.forecasts.published(&predictions);
        let predictions = self.outlook.foresee(predictions, now);
        let (health, health_reasons) = self.health();
        let state = RegionState {
            region: self.config.region.clone(),
            published_at: now,
            version: env!("CARGO_PKG_VERSION").into(),
            api: Some(self.api_url.clone()),
            coordinates: self.config.coordinates,
            health,
            mode: self.config.mode,
            step: self.config.step,
            pools: self.prices.book().priced(self.pool.status(), &self.config.pools),
            forecasts: predictions.to_vec(),
            dropped: Dropped::default(),
            events: self.outlook.to_publish(now),
        };
        self.mesh.publish(state);
        let closed = self.closed;
        let anomalies = self.outlook.report();
        self.progress.send_modify(|progress| {
            progress.closed = closed;
            progress.predictions = predictions;
            progress.anomalies = anomalies;
            progress.health = health;
            progress.health_reasons = health_reasons;
        });
    }

    fn health(&self) -> (Health, Vec<String>) {
        let mut reasons = self.pool.health_reasons();
        reasons.extend(self.staging.health_reasons());
        if self.history.stats().failed {
            reasons.push("records can no longer be made durable; see the log, then restart the agent".into());
        }
        (if reasons.is_empty() { Health::Healthy } else { Health::Degraded }, reasons)
    }

    /// The plan for now, from everything that is known.
    fn plan(&mut self) -> Result<Planned, String> {
        let snapshot = self.snapshot().ok_or("no step was closed yet; ask again after one step")?;
        let plan = planner::plan(&snapshot);
        match planner::check(plan, &snapshot) {
            Ok(plan) => {
                self.plans += 1;
                Ok(Planned { plan: Arc::new(plan.into_inner()), snapshot: Arc::new(snapshot) })
            }
            Err(violations) => {
                let reasons: Vec<String> = violations.iter().map(ToString::to_string).collect();
                let reason = reasons.join("; ");
                self.events.note(Severity::Error, "plan.refused", format!("the checker refuses the plan, nothing is changed: {reason}"));
                Err(reason)
            }
        }
    }

    fn snapshot(&mut self) -> Option<Snapshot> {
        let known_until = self.closed?;
        let now = self.clock.now();
        let forecasts = self.incoming(now);
        self.sources.extend(forecasts.iter().map(|forecast| forecast.source.clone()));
        let status: BTreeMap<PoolName, _> = self.pool.status().into_iter().map(|pool| (pool.name.clone(), pool)).collect();
        let prices = self.prices.book();
        let seen = self.pool.spot();
        let spot = |config: &PoolConfig| {
            let spot = config.spot.as_ref()?;
            let seen = seen.get(&config.name).copied().unwrap_or_default();
            let past = self.past_prices.get(&config.name);
            let doubt = spot.price.as_ref().and_then(|name| prices.doubt_of(name, now));
            Some(SpotSnapshot {
                price: prices.of_spot(spot),
                doubts: doubt.into_iter().chain(past.and_then(|past| past.clone().err())).collect(),
                past: past.and_then(|past| past.clone().ok()).unwrap_or_default(),
                counted: Counted { interrupted: seen.interrupted, instance_ms: seen.instance_ms },
                instances: seen.instances,
            })
        };
        let pools = self.config.pools.iter().map(|config| {
            let memory = self.memories.of(&config.name).memory.clone();
            let status = status.get(&config.name);
            let counts = status.map(|pool| pool.instances).unwrap_or_default();
            PoolSnapshot {
                config: config.clone(),
                counts,
                price: prices.of(config),
                price_doubt: prices.doubt(config, now),
                measured_startup: status.map(|pool| Duration::from_millis(pool.startup_ms)),
                memory,
                observed: None,
                foreseen: None,
                surging: false,
                spot: spot(config),
            }
        });
        let mut snapshot = Snapshot {
            region: self.config.region.clone(),
            now,
            step: self.config.step,
            known_until,
            mode: self.config.mode,
            forecasts,
            expected_sources: self.sources.clone(),
            pools: pools.collect(),
            config: self.config.planner.clone(),
            version: self.plans + 1,
        };
        let rounds = planner::rounds(&snapshot);
        for (pool, round) in snapshot.pools.iter_mut().zip(rounds) {
            let own = &mut self.memories.of(&pool.config.name).own;
            own.observe(known_until, &round, &pool.config, self.config.forecast.season);
            (pool.observed, pool.foreseen, pool.surging) = (round.observed, own.foreseen(), own.is_surging());
        }
        Some(snapshot)
    }

    /// All forecasts of traffic to this region: its own, and those that the others have published.
    fn incoming(&self, now: Timestamp) -> Vec<SourceForecast> {
        let here = |p: &&PredictionData| p.series.destination == self.config.region;
        let own = self.progress.borrow().predictions.clone();
        let own = own.iter().filter(here).map(|prediction| SourceForecast {
            source: self.config.region.clone(),
            age: Duration::ZERO,
            live: true,
            prediction: Arc::new(prediction.clone()),
        });
        let view = self.mesh.view();
        let others = view.regions.iter().filter(|(region, _)| **region != self.config.region).flat_map(|(region, entry)| {
            let state = entry.state.as_deref().zip(entry.age(now)).filter(|(state, _)| state.step == self.config.step);
            let forecasts = state.map(|(state, age)| state.forecasts.iter().filter(here).map(move |prediction| (prediction, age)));
            forecasts.into_iter().flatten().map(|(prediction, age)| SourceForecast {
                source: region.clone(),
                age,
                live: entry.live,
                prediction: Arc::new(prediction.clone()),
            })
        });
        own.chain(others).collect()
    }

    /// Remembers the round, learns from the last one, and in active mode orders what was decided.
    async fn carry_out(&mut self, plan: Result<Planned, String>) {
        let Ok(planned) = plan else { return };
        let Planned { plan, snapshot } = planned.clone();
        let ready = if self.config.mode == Mode::Active { self.pool.capacity(plan.known_until) } else { vec![] };
        for decision in &plan.decisions {
            let Some(pool) = snapshot.pools.iter().find(|pool| pool.config.name == decision.pool) else { continue };
            let sample = ready.iter().find(|sample| sample.step == plan.known_until && sample.pool == decision.pool);
            let remembered = self.memories.of(&decision.pool);
            let blocked = remembered.blocked;
            let outturn = (self.config.mode == Mode::Active).then(|| Outturn { ready: sample.map_or(0, |sample| sample.ready), blocked });
            remembered.memory.close(decision, pool, &snapshot, outturn);
            let blocked_before = std::mem::replace(&mut remembered.blocked, decision.blocked.is_some());
            if let (Some(reason), false) = (&decision.blocked, blocked_before) {
                self.events.note(Severity::Warning, "plan.blocked", format!("pool {}: {reason}", decision.pool));
            }
        }
        self.memories.keep();
        if self.config.mode == Mode::Active {
            self.staging.foresee(planner::needs(&snapshot, &plan, &self.config.staging));
            let targets = plan.decisions.iter().map(|d| Target { pool: d.pool.clone(), active: d.active, warm: d.warm, spot: d.spot() });
            match self.pool.validate(targets.collect()) {
                // Refused only while the agent is stopping.
                Ok(_) if self.plans > 1 && bug!("plan-not-applied") => {}
                Ok(targets) => drop(self.pool.apply(targets).await),
                Err(error) => self.events.note(Severity::Error, "plan.refused", format!("nothing is changed: {error}")),
            }
        }
        self.newest = Some(planned);
        self.negotiator.on_plan(plan.clone());
        let margins = plan.decisions.iter().map(|decision| {
            let pool = decision.pool.clone();
            let reasons = self.memories.of(&pool).memory.margins.reasons();
            (pool, reasons)
        });
        let margins = margins.collect();
        self.progress.send_modify(|progress| {
            progress.plan = Some(plan);
            progress.margins = margins;
        });
    }

    /// Answers out of turn. Whoever asked may have gone away.
    async fn answer(&mut self, request: Ask) {
        match request {
            Ask::Plan { dry_run, reply } => {
                let plan = self.plan();
                if !dry_run {
                    self.carry_out(plan.clone()).await;
                }
                let _ = reply.send(plan.map(|planned| (*planned.plan).clone()));
            }
            Ask::ExplainPlan { reply } => {
                let newest = self.newest.as_ref();
                let _ = reply.send(newest.map(|newest| planner::explain(&newest.plan, &newest.snapshot)));
            }
            Ask::Explain { keys, reply } => {
                let explain = |key: &SeriesKey| {
                    let mut explanation = self.forecasts.explain(key)?;
                    self.globals.explain(key, &mut explanation);
                    Some(explanation)
                };
                let _ = reply.send(keys.iter().map(explain).collect());
            }
        }
    }
}

/// Learns series up to `step` from all their counts.
fn rebuild(forecasts: &mut Forecasts, globals: &mut Globals, step: StepIndex, windows: &[(SeriesKey, Vec<f64>)]) {
    for (key, window) in windows {
        forecasts.rebuild(key, step, window);
        globals.rebuild(key, step, window);
    }
}

#[cfg(test)]
mod tests;
