//! What is made ready for a service before it is needed: data, hooks, connections and storage.
//!
//! The step loop tells when each service is foreseen to be needed ([`StagingHandle::foresee`]); one actor drives an `engine` for each
//! service, which is pure, makes durable what it remembers, and has its jobs carried out by the [`Stager`] of the agent's
//! [`Env`], connections by the mesh (`links`). When what is needed changes, only the newest counts.
//!
//! Invariant: a step is remembered before it is begun, and forgotten after it is undone, so that no life of the agent leaves behind what
//! it does not know of. After a failed write nothing is begun any more.

mod claim;
mod copy;
mod engine;
mod hook;
mod links;
pub mod simulated;
mod stager;
mod storage;

pub use engine::{Job, Turn};
pub(crate) use links::Linked;
pub(crate) use stager::OsStager;
pub use stager::{Meter, Stager};

use crate::config::StageConfig;
use crate::env::{Clock, Env};
use crate::events::EventLog;
use crate::marks::bug;
use crate::stop::told;
use crate::store::{Facts, Store, StoreError};
use engine::{Input, Now, Output, Record, Track};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tradewind_protocol::api::{Severity, StageState, StagingView};
use tradewind_protocol::{RegionId, ServiceName, Timestamp};

/// Where what is remembered of each service is kept.
const RECORDS: Facts = Facts("staging");

/// Jobs that are carried out at a time: more copies at once make none of them faster.
const MAX_JOBS: usize = 4;

/// When each service is needed that is.
pub(crate) type Needs = BTreeMap<ServiceName, Timestamp>;

/// Staging at one moment.
#[derive(Debug, Clone, Default)]
struct Report {
    services: Vec<(StagingView, Option<Arc<Meter>>)>,
    totals: StagingTotals,
    /// Why nothing is begun any more.
    store_failure: Option<String>,
}

/// Counts of one life of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagingTotals {
    /// Steps that were done.
    pub done: u64,
    /// Steps that were undone.
    pub undone: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Bytes that preloads have copied.
    pub bytes: u64,
}

/// The way to the agent's staging. Clones lead to the same one.
#[derive(Clone)]
pub struct StagingHandle {
    needs: watch::Sender<Option<Needs>>,
    report: watch::Receiver<Arc<Report>>,
}

impl StagingHandle {
    /// From now on these services are foreseen to be needed, and no others.
    pub(crate) fn foresee(&self, needs: Needs) {
        self.needs.send_if_modified(|before| {
            let news = before.as_ref() != Some(&needs);
            *before = Some(needs);
            news
        });
    }

    /// The staging of every service, by name.
    pub fn view(&self) -> Vec<StagingView> {
        let report = self.report.borrow().clone();
        let shown = |(view, meter): &(StagingView, Option<Arc<Meter>>)| {
            let mut view = view.clone();
            if let (Some(meter), Some(step)) = (meter, view.steps.iter_mut().find(|step| step.state == StageState::Running)) {
                let (done, total) = meter.read();
                (step.bytes, step.total_bytes) = ((done > 0).then_some(done), total);
            }
            view
        };
        report.services.iter().map(shown).collect()
    }

    /// What does not work, in words.
    pub fn health_reasons(&self) -> Vec<String> {
        let report = self.report.borrow();
        let failing = report.services.iter().filter_map(|(view, _)| view.reason.as_ref().map(|reason| format!("staging of {reason}")));
        report.store_failure.iter().cloned().chain(failing).collect()
    }

    /// What happened in this life of the agent.
    pub fn totals(&self) -> StagingTotals {
        self.report.borrow().totals
    }
}

/// What staging is made of.
pub(crate) struct Parts {
    pub(crate) region: RegionId,
    pub(crate) config: BTreeMap<ServiceName, StageConfig>,
    pub(crate) store: Store,
    pub(crate) stager: Arc<dyn Stager>,
    pub(crate) events: EventLog,
}

/// How a job ended.
struct Done {
    service: ServiceName,
    turn: Turn,
    number: u64,
    result: Result<(), String>,
    bytes: u64,
}

/// What runs for a service.
struct Running {
    meter: Arc<Meter>,
    cut: Option<oneshot::Sender<()>>,
}

pub(crate) struct Actor {
    region: RegionId,
    clock: Arc<dyn Clock>,
    stager: Arc<dyn Stager>,
    store: Store,
    events: EventLog,
    chance: StdRng,
    begun: Instant,
    tracks: BTreeMap<ServiceName, Track>,
    running: BTreeMap<ServiceName, Running>,
    jobs: JoinSet<Done>,
    room: Arc<Semaphore>,
    totals: StagingTotals,
    store_failure: Option<String>,
    needs: watch::Receiver<Option<Needs>>,
    report: watch::Sender<Arc<Report>>,
}

/// Recalls what earlier lives have staged. The actor is to be [run](Actor::run).
pub(crate) async fn open(env: &Env, parts: Parts) -> Result<(StagingHandle, Actor), StoreError> {
    let Parts { region, config, store, stager, events } = parts;
    let begun = Instant::now();
    let mut records = BTreeMap::new();
    for (service, bytes) in store.all(RECORDS).await? {
        if bug!("staging-not-read") {
            break;
        }
        match (ServiceName::new(&service), serde_json::from_slice::<Record>(&bytes)) {
            (Ok(service), Ok(record)) => drop(records.insert(service, record)),
            (name, record) => {
                let error = name.err().map(|e| e.to_string()).or_else(|| record.err().map(|e| e.to_string())).unwrap_or_default();
                let words = format!("what is staged for {service} is not known any more, and is left as it is: {error}");
                events.note(Severity::Error, "staging.record_unreadable", words);
            }
        }
    }
    let services: BTreeSet<ServiceName> = config.keys().chain(records.keys()).cloned().collect();
    let recall = |service: ServiceName| {
        let track = Track::recall(service.clone(), config.get(&service), records.remove(&service));
        (service, track)
    };
    let tracks = services.into_iter().map(recall).collect();
    let (needs, needed) = watch::channel(None);
    let (report, shown) = watch::channel(Arc::default());
    let actor = Actor {
        region,
        clock: env.clock.clone(),
        stager,
        store,
        events,
        chance: StdRng::from_seed(env.seed.child("staging").bytes()),
        begun,
        tracks,
        running: BTreeMap::new(),
        jobs: JoinSet::new(),
        room: Arc::new(Semaphore::new(MAX_JOBS)),
        totals: StagingTotals::default(),
        store_failure: None,
        needs: needed,
        report,
    };
    actor.publish();
    Ok((StagingHandle { needs, report: shown }, actor))
}

impl Actor {
    /// Runs until `stop`, or until there is nothing to look after. What is being done then is cut short, and begun again in the next life.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.on_tick().await;
        while !self.tracks.is_empty() {
            self.publish();
            let now = self.now();
            let due = self.tracks.values().filter_map(|track| track.next_deadline(now)).min().map(|due| self.begun + due);
            let idle = due.unwrap_or_else(|| self.begun + now.uptime);
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                Some(done) = self.jobs.join_next() => self.on_done(done).await,
                changed = self.needs.changed() => match changed {
                    Ok(()) => self.on_needs().await,
                    // Nobody plans any more.
                    Err(_) => return,
                },
                () = sleep_until(idle), if due.is_some() => self.on_tick().await,
            }
        }
        self.publish();
    }

    fn now(&self) -> Now {
        Now { clock: self.clock.now(), uptime: self.begun.elapsed() }
    }

    async fn on_needs(&mut self) {
        let needs = self.needs.borrow_and_update().clone().unwrap_or_default();
        let names: Vec<ServiceName> = self.tracks.keys().cloned().collect();
        for service in names {
            let input = needs.get(&service).map_or(Input::NotNeeded, |by| Input::Needed(*by));
            self.take(&service, input).await;
        }
    }

    async fn on_tick(&mut self) {
        let names: Vec<ServiceName> = self.tracks.keys().cloned().collect();
        for service in names {
            self.take(&service, Input::Tick).await;
        }
    }

    async fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // A job neither panics nor is aborted before the actor ends.
        let Ok(Done { service, turn, number, result, bytes }) = done else { return };
        self.running.remove(&service);
        self.totals.bytes += bytes;
        match (&result, turn) {
            (Ok(()), Turn::Do) => self.totals.done += 1,
            (Ok(()), Turn::Undo) => self.totals.undone += 1,
            (Err(_), _) => self.totals.failed += 1,
        }
        let jitter = self.chance.random();
        self.take(&service, Input::Ended { number, result, jitter }).await;
    }

    /// Gives `input` to the service's track, and does what follows.
    async fn take(&mut self, service: &ServiceName, input: Input) {
        let now = self.now();
        let Some(track) = self.tracks.get_mut(service) else { return };
        for output in track.handle(input, now) {
            if self.store_failure.is_some() {
                return;
            }
            match output {
                Output::Persist(record) => self.persist(service, record).await,
                Output::Run(job) => self.begin(job),
                Output::Cut(_) => {
                    if let Some(cut) = self.running.get_mut(service).and_then(|running| running.cut.take()) {
                        let _ = cut.send(());
                    }
                }
                Output::Tell(severity, kind, words) => self.events.note(severity, kind, words),
            }
        }
        if self.tracks.get(service).is_some_and(Track::is_over) {
            self.tracks.remove(service);
        }
    }

    async fn persist(&mut self, service: &ServiceName, record: Option<Record>) {
        let value = record.map(|record| serde_json::to_vec(&record)).transpose();
        let changed = match value {
            Ok(value) => self.store.change(RECORDS, vec![(service.to_string(), value)]).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = changed {
            let words = format!("nothing is staged any more: {error}");
            self.events.note(Severity::Error, "staging.store_failed", words.clone());
            self.store_failure = Some(words);
        }
    }

    fn begin(&mut self, job: Job) {
        let meter = Arc::new(Meter::default());
        let (cut, is_cut) = oneshot::channel();
        self.running.insert(job.service.clone(), Running { meter: meter.clone(), cut: Some(cut) });
        let (stager, room, region) = (self.stager.clone(), self.room.clone(), self.region.clone());
        self.jobs.spawn(async move {
            let work = async {
                // The semaphore is never closed.
                let _permit = room.acquire().await;
                stager.carry_out(&region, &job, &meter).await
            };
            let result = tokio::select! {
                biased;
                result = work => result,
                // The actor has gone: so does this task.
                _ = is_cut => Err("it is no longer needed".into()),
            };
            let Job { service, turn, number, .. } = job;
            Done { service, turn, number, result, bytes: meter.read().0 }
        });
    }

    fn publish(&self) {
        let meter = |service: &ServiceName| self.running.get(service).map(|running| running.meter.clone());
        let services = self.tracks.iter().map(|(service, track)| (track.view(), meter(service))).collect();
        let report = Report { services, totals: self.totals, store_failure: self.store_failure.clone() };
        self.report.send_replace(Arc::new(report));
    }
}

#[cfg(test)]
mod tests;
