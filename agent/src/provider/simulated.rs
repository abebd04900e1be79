//! Instances that exist in memory only.
//!
//! Deterministic: what an instance is follows from the orders, the clock and the configured
//! durations alone. The instances belong to the value, not to a task, so clones of it are what
//! survives a simulated agent's restart. Waiting is on tokio's time, which must run with the clock.

use super::{EndCause, Ended, Observed, Order, Provider, ProviderError};
use crate::env::Clock;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, Timestamp};

/// The shortest that [`Provider::changed`] takes when something is due.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How many ended instances are remembered for [`Provider::take_ended`].
const MAX_ENDED: usize = 1_000;

/// How long simulated instances take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// From start to warm.
    pub startup: Duration,
    /// From drain to gone.
    pub drain: Duration,
}

/// What can be wrong with a provider. Instances that are ready go on serving meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// It starts nothing.
    Refuses,
    /// What it starts does not become ready before it is well again.
    Hangs,
    /// It does not answer.
    Away,
    /// It carries out orders, and does not list what there is.
    Unlisted,
}

/// A provider of simulated instances. Clones share them.
#[derive(Clone)]
pub struct SimulatedProvider {
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    changed: Notify,
}

struct World {
    durations: Durations,
    instances: BTreeMap<InstanceId, Simulated>,
    ended: VecDeque<Ended>,
    refusals: VecDeque<(Order, String)>,
    outage: Option<Outage>,
}

#[derive(Debug, Clone, Copy)]
struct Simulated {
    state: InstanceState,
    /// When it becomes warm by itself (starting), or is gone (draining).
    due: Option<Timestamp>,
}

impl SimulatedProvider {
    /// No instances yet.
    pub fn new(clock: Arc<dyn Clock>, durations: Durations) -> Self {
        let world = World { durations, instances: BTreeMap::new(), ended: VecDeque::new(), refusals: VecDeque::new(), outage: None };
        Self { clock, shared: Arc::new(Shared { world: Mutex::new(world), changed: Notify::new() }) }
    }

    /// Ends an instance behind the provider's back.
    pub fn kill(&self, id: &InstanceId) {
        let mut world = self.world();
        if world.instances.remove(id).is_some() {
            world.note_ended(id.clone(), EndCause::Unexpected, "it was killed");
            drop(world);
            self.shared.changed.notify_one();
        }
    }

    /// Refuses the next order of this kind, once per call.
    pub fn refuse_next(&self, order: Order, reason: &str) {
        self.world().refusals.push_back((order, reason.into()));
    }

    /// From now on this is wrong with it, or nothing is; then what hangs begins to start.
    pub fn set_outage(&self, outage: Option<Outage>) {
        let mut world = self.world();
        world.outage = outage;
        let due = self.clock.now().after(world.durations.startup);
        let hanging = world.instances.values_mut().filter(|i| i.state == InstanceState::Starting && i.due.is_none());
        if outage != Some(Outage::Hangs) {
            hanging.for_each(|instance| instance.due = Some(due));
        }
        drop(world);
        self.shared.changed.notify_one();
    }

    /// Changes how long instances take that are started or drained from now on.
    pub fn set_durations(&self, durations: Durations) {
        self.world().durations = durations;
    }

    /// The instances that exist now, without anyone being told of what has become due meanwhile.
    pub fn census(&self) -> Vec<Observed> {
        let now = self.clock.now();
        let world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |instance: &Simulated| match (instance.state, instance.due.is_some_and(|due| due <= now)) {
            (InstanceState::Draining, true) => None,
            (InstanceState::Starting, true) => Some(InstanceState::Warm),
            (state, _) => Some(state),
        };
        let present = world.instances.iter().filter_map(|(id, instance)| Some((id, state(instance)?)));
        present.map(|(id, state)| Observed { id: id.clone(), state, handle: "simulated".into() }).collect()
    }

    /// The world as it is now.
    fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.settle(self.clock.now());
        world
    }

    /// Carries out an order on an instance that must be there.
    fn turn(&self, order: Order, id: &InstanceId, from: InstanceState, to: InstanceState) -> Result<(), ProviderError> {
        let mut world = self.world();
        world.refuse(order, id)?;
        let found = world.instances.get_mut(id).ok_or_else(|| ProviderError::order(order, id, "there is no such instance"))?;
        if found.state != from && found.state != to {
            return Err(ProviderError::order(order, id, format!("it is {:?}", found.state)));
        }
        found.state = to;
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl World {
    /// Lets happen what was due by `now`.
    fn settle(&mut self, now: Timestamp) {
        let due: Vec<InstanceId> =
            self.instances.iter().filter(|(_, i)| i.due.is_some_and(|due| due <= now)).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            instance.due = None;
            match instance.state {
                InstanceState::Starting => instance.state = InstanceState::Warm,
                InstanceState::Draining => {
                    self.instances.remove(&id);
                    self.note_ended(id, EndCause::Ordered, "it has drained");
                }
                InstanceState::Warm | InstanceState::Active => {}
            }
        }
    }

    fn refuse(&mut self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        match self.outage {
            Some(Outage::Away) => return Err(ProviderError::order(order, id, "it does not answer")),
            Some(Outage::Refuses) if order == Order::Start => return Err(ProviderError::order(order, id, "it has no room")),
            Some(Outage::Refuses | Outage::Hangs | Outage::Unlisted) | None => {}
        }
        match self.refusals.iter().position(|(refused, _)| *refused == order).and_then(|at| self.refusals.remove(at)) {
            Some((_, reason)) => Err(ProviderError::order(order, id, reason)),
            None => Ok(()),
        }
    }

    fn note_ended(&mut self, id: InstanceId, cause: EndCause, reason: &str) {
        if self.ended.len() == MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { id, cause, reason: reason.into() });
    }
}

#[async_trait]
impl Provider for SimulatedProvider {
    async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
        let world = self.world();
        if matches!(world.outage, Some(Outage::Away | Outage::Unlisted)) {
            return Err(ProviderError::List { reason: "it does not answer".into() });
        }
        Ok(world.instances.iter().map(|(id, i)| Observed { id: id.clone(), state: i.state, handle: "simulated".into() }).collect())
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        let mut world = self.world();
        world.refuse(Order::Start, id)?;
        let due = (world.outage != Some(Outage::Hangs)).then(|| self.clock.now().after(world.durations.startup));
        world.instances.entry(id.clone()).or_insert(Simulated { state: InstanceState::Starting, due });
        self.shared.changed.notify_one();
        Ok(())
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Activate, id, InstanceState::Warm, InstanceState::Active)
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Deactivate, id, InstanceState::Active, InstanceState::Warm)
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        let mut world = self.world();
        world.refuse(Order::Drain, id)?;
        let due = Some(self.clock.now().after(world.durations.drain));
        if let Some(instance) = world.instances.get_mut(id)
            && instance.state != InstanceState::Draining
        {
            *instance = Simulated { state: InstanceState::Draining, due };
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        let mut world = self.world();
        world.refuse(Order::Stop, id)?;
        if world.instances.remove(id).is_some() {
            world.note_ended(id.clone(), EndCause::Ordered, "it was stopped");
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    async fn changed(&self) {
        let (now, due) = {
            // Not settled: what is due now is a change that nobody has seen.
            let world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
            (self.clock.now(), world.instances.values().filter_map(|i| i.due).min())
        };
        let notified = self.shared.changed.notified();
        match due {
            // Never at once: whoever asks again before it has looked (its disk may be slow) would leave virtual time no
            // moment to pass in.
            Some(due) => drop(tokio::time::timeout(due.since(now).max(SHORTEST_WAIT), notified).await),
            None => notified.await,
        }
    }

    fn take_ended(&self) -> Vec<Ended> {
        self.world().ended.drain(..).collect()
    }

    async fn close(&self) {}
}

/// A wall clock that follows tokio's, which tests pause.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct TokioClock {
    start: tokio::time::Instant,
}

#[cfg(test)]
impl TokioClock {
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { start: tokio::time::Instant::now() })
    }
}

#[cfg(test)]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(1_800_000_000)).after(self.start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::conformance::{self, Subject};

    #[async_trait]
    impl Subject for SimulatedProvider {
        fn provider(&self) -> Arc<dyn Provider> {
            Arc::new(self.clone())
        }
        async fn kill(&self, instance: &Observed) {
            SimulatedProvider::kill(self, &instance.id);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_conforms() {
        for millis in [0, 1, 5_000] {
            let time = Duration::from_millis(millis);
            let provider = SimulatedProvider::new(TokioClock::start(), Durations { startup: time, drain: time });
            conformance::check(&provider).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn start_up_takes_as_long_as_stated() {
        let durations = Durations { startup: Duration::from_secs(5), drain: Duration::ZERO };
        let provider = SimulatedProvider::new(TokioClock::start(), durations);
        let begun = tokio::time::Instant::now();
        provider.start(&InstanceId::new("a").unwrap()).await.unwrap();
        while provider.list().await.unwrap()[0].state != InstanceState::Warm {
            provider.changed().await;
        }
        let took = begun.elapsed();
        assert!((5_000..5_010).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_and_what_hung_starts_then() {
        let second = Duration::from_secs(1);
        let provider = SimulatedProvider::new(TokioClock::start(), Durations { startup: second, drain: second });
        let id = |name| InstanceId::new(name).unwrap();
        provider.set_outage(Some(Outage::Refuses));
        assert!(provider.start(&id("a")).await.unwrap_err().to_string().contains("it has no room"));
        provider.set_outage(Some(Outage::Away));
        assert!(provider.list().await.is_err() && provider.stop(&id("a")).await.is_err());
        provider.set_outage(Some(Outage::Hangs));
        provider.start(&id("a")).await.unwrap();
        tokio::time::sleep(3_600 * second).await;
        assert_eq!(provider.list().await.unwrap()[0].state, InstanceState::Starting);
        provider.set_outage(None);
        tokio::time::sleep(second).await;
        assert_eq!(provider.list().await.unwrap()[0].state, InstanceState::Warm);
    }

    /// Found by the simulator: with a slow disk, nothing else could ever happen.
    #[tokio::test(start_paused = true)]
    async fn time_passes_for_whoever_asks_again_without_having_looked() {
        let provider = SimulatedProvider::new(TokioClock::start(), Durations { startup: Duration::ZERO, drain: Duration::ZERO });
        provider.start(&InstanceId::new("a").unwrap()).await.unwrap();
        let begun = tokio::time::Instant::now();
        for _ in 0..10 {
            provider.changed().await;
        }
        assert!(begun.elapsed() >= SHORTEST_WAIT * 9, "{:?}", begun.elapsed());
    }
}
