//! Several providers as one: each takes over while those before it fail.
//!
//! A start goes to the first provider that does not fail; one that has failed is left alone for a while, ever longer, and then tried
//! again. Every other order goes to the provider that runs the instance. What there is is what all of them list; one that cannot be
//! listed is taken to run what it ran when it last could. When fewer instances are wanted, those of the last provider go first
//! ([`Provider::rank`]). Retired providers start nothing: they only end what they still run. Each link has its market; a start goes to those of its own.
//!
//! A provider fails that refuses a start, or whose instance ends by itself before it was ever ready, or takes so long for it that the pool
//! gives it up. When one that has failed is tried again, it is with one instance: until that is ready, the others take the next ones.

use super::{EndCause, Ended, LinkStatus, Observed, Order, Provider, ProviderError, Standing, carry_out};
use crate::backoff;
use crate::config::PoolConfig;
use crate::env::Providers;
use crate::marks::bug;
use async_trait::async_trait;
use futures_util::future::{join_all, select_all};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, Market};

/// The first pause after a failed start; each further one is twice as long, up to the longest. Long, since the next provider
/// serves meanwhile, and each try costs a start its time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// What a mended provider costs at most in lateness.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The longest that a provider which cannot be listed is not asked again.
const LONGEST_UNLISTED: Duration = Duration::from_secs(30);

/// How long one provider may take to list its instances: below the pool's own limit of ten seconds.
const LIST_TIMEOUT: Duration = Duration::from_secs(9);

/// For so long after the start, what a provider that cannot be listed runs is not taken for nothing: then the others go on without it.
const FIRST_LIST: Duration = Duration::from_secs(30);

/// More than a chain ever has: a kind each, and those that are no longer configured.
const MAX_LINKS: usize = 64;

/// One provider of a chain.
pub(crate) struct Link {
    /// What kind it is.
    pub(crate) kind: &'static str,
    pub(crate) provider: Arc<dyn Provider>,
    /// On which terms what it runs is bought.
    pub(crate) market: Market,
    pub(crate) standing: Standing,
}

/// Runs one pool by several providers.
pub struct Chain {
    links: Vec<Link>,
    opened: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owners: BTreeMap<InstanceId, Owner>,
    links: Vec<Health>,
    ended: Vec<Ended>,
}

/// Which provider runs an instance.
#[derive(Debug, Clone, Copy)]
struct Owner {
    link: usize,
    /// Whether it was ever ready.
    ready: bool,
    /// Its start is under way: a list need not show it.
    starting: bool,
}

/// What is known of one provider.
#[derive(Debug, Clone, Default)]
struct Health {
    starts: Trial,
    lists: Trial,
    /// What it listed last.
    seen: Option<Vec<Observed>>,
}

/// Failures in a row, and until when to leave it alone because of them.
#[derive(Debug, Clone, Default)]
struct Trial {
    failures: u32,
    until: Option<Instant>,
    reason: Option<String>,
}

impl Trial {
    fn fail(&mut self, reason: String, longest: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff::pause(self.failures, FIRST_PAUSE, longest);
        (self.until, self.reason) = (Some(now + pause), Some(reason));
    }

    fn waits(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// What runs `pool`: its provider, with that of its spot instances if it has any.
pub(crate) fn open(providers: &dyn Providers, pool: &PoolConfig) -> anyhow::Result<Arc<dyn Provider>> {
    let on_demand = providers.open(pool)?;
    let (Some(flavour), Some(spot)) = (pool.spot_flavour(), &pool.spot) else { return Ok(on_demand) };
    let link = |kind, provider, market| Link { kind, provider, market, standing: Standing::Configured };
    let spot = link(spot.provider.kind(), providers.open(&flavour)?, Market::Spot);
    Ok(Arc::new(Chain::new(vec![link(pool.provider.kind(), on_demand, Market::OnDemand), spot])))
}

impl Chain {
    /// The `links`, in the order in which they are tried.
    pub(crate) fn new(links: Vec<Link>) -> Self {
        let state = State { links: vec![Health::default(); links.len()], ..State::default() };
        Self { links, opened: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the provider `at` lists, within a time. One that failed a moment ago is not asked again.
    async fn look(&self, at: usize) -> Option<Result<Vec<Observed>, String>> {
        if self.state().links[at].lists.waits(Instant::now()) {
            return None;
        }
        match timeout(LIST_TIMEOUT, self.links[at].provider.list()).await {
            Ok(listed) => Some(listed.map_err(|error| error.to_string())),
            Err(_) => Some(Err(format!("no list within {LIST_TIMEOUT:?}"))),
        }
    }

    /// The provider that runs `id`, which was perhaps listed a moment too late.
    async fn owner(&self, id: &InstanceId) -> Option<usize> {
        let known = self.state().owners.get(id).map(|owner| owner.link);
        match known {
            Some(link) => Some(link),
            None => {
                let _ = self.list().await;
                self.state().owners.get(id).map(|owner| owner.link)
            }
        }
    }

    /// Has the provider `at` carry out an order. What it has done is known until it is listed, which is then tried at once.
    async fn give(&self, at: usize, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        carry_out(&*self.links[at].provider, order, id).await?;
        if bug!("orders-known-when-listed") {
            return Ok(());
        }
        let mut state = self.state();
        let health = &mut state.links[at];
        health.lists.until = None;
        let seen = health.seen.get_or_insert_default();
        match seen.iter_mut().find(|seen| seen.id == *id) {
            Some(seen) if !order.is_start() => seen.state = order.leads_to(),
            None if order.is_start() => {
                seen.push(Observed { id: id.clone(), state: order.leads_to(), handle: "not listed yet".into() });
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Gives an order that needs an instance to be there.
    async fn turn(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        match self.owner(id).await {
            Some(at) => self.give(at, order, id).await,
            None => Err(ProviderError::order(order, id, "there is no such instance")),
        }
    }

    /// Notes that an instance which was never ready is none that its provider could start.
    fn note_never_ready(&self, id: &InstanceId) {
        let mut state = self.state();
        let Some(owner) = state.owners.get(id).copied().filter(|owner| !owner.ready) else { return };
        state.links[owner.link].starts.fail(format!("{id} took too long to become ready"), LONGEST_PAUSE, Instant::now());
    }

    /// Gives an order that ends an instance; where nobody knows it, to all.
    async fn end(&self, order: Order, id: &InstanceId) -> Result<(), ProviderError> {
        if let Some(at) = self.owner(id).await {
            return self.give(at, order, id).await;
        }
        for link in &self.links {
            carry_out(&*link.provider, order, id).await?;
        }
        Ok(())
    }

    /// Takes in what ended, and what it says of the providers.
    fn gather(&self, state: &mut State) {
        for (at, link) in self.links.iter().enumerate() {
            for ended in link.provider.take_ended() {
                let owner = state.owners.get(&ended.id).copied().filter(|owner| owner.link == at);
                if ended.cause == EndCause::Unexpected && owner.is_some_and(|owner| !owner.ready) {
                    let reason = format!("{} ended before it was ready: {}", ended.id, ended.reason);
                    state.links[at].starts.fail(reason, LONGEST_PAUSE, Instant::now());
                }
                state.ended.push(ended);
            }
        }
    }
}

/// A start that is under way, until whoever waits for it goes away.
struct Underway<'a> {
    chain: &'a Chain,
    id: &'a InstanceId,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if let Some(owner) = self.chain.state().owners.get_mut(self.id) {
            owner.starting = false;
        }
    }
}

impl State {
    /// Whether the provider `at` has failed, and either it is too early to try it again, or an instance that is not ready yet does so.
    fn is_left_alone(&self, at: usize) -> bool {
        let starts = &self.links[at].starts;
        let tried = || self.owners.values().any(|owner| owner.link == at && !owner.ready);
        starts.failures > 0 && (starts.waits(Instant::now()) || tried())
    }

    /// Takes in what was listed; all that is known to be there, and what runs in two places and is to be ended in one.
    fn merge(&mut self, listed: Vec<Option<Result<Vec<Observed>, String>>>) -> (BTreeMap<InstanceId, Observed>, Vec<(usize, InstanceId)>) {
        for (health, listed) in self.links.iter_mut().zip(listed) {
            match listed {
                Some(Ok(listed)) => (health.seen, health.lists) = (Some(listed), Trial::default()),
                Some(Err(reason)) => health.lists.fail(reason, LONGEST_UNLISTED, Instant::now()),
                None => {}
            }
        }
        let (mut union, mut twice) = (BTreeMap::new(), vec![]);
        for (at, health) in self.links.iter_mut().enumerate() {
            for seen in health.seen.iter().flatten() {
                let ready = matches!(seen.state, InstanceState::Warm | InstanceState::Active);
                if union.contains_key(&seen.id) {
                    twice.push((at, seen.id.clone()));
                    continue;
                }
                let owner = self.owners.entry(seen.id.clone()).or_insert(Owner { link: at, ready: false, starting: false });
                if ready && !owner.ready {
                    owner.ready = true;
                    health.starts = Trial::default();
                }
                owner.link = at;
                union.insert(seen.id.clone(), seen.clone());
            }
        }
        self.owners.retain(|id, owner| owner.starting || union.contains_key(id));
        (union, twice)
    }
}

#[async_trait]
impl Provider for Chain {
    async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
        let listed = join_all((0..self.links.len()).map(|at| self.look(at))).await;
        let (union, twice, unknown) = {
            let mut state = self.state();
            self.gather(&mut state);
            let (union, twice) = state.merge(listed);
            let blind = state.links.iter().all(|health| health.lists.failures > 0);
            let early = self.opened.elapsed() < FIRST_LIST;
            let mut links = self.links.iter().zip(&state.links);
            let unknown = links.find(|(_, health)| blind || (early && health.seen.is_none()));
            let unknown = unknown.map(|(link, health)| format!("{}: {}", link.kind, health.lists.reason.as_deref().unwrap_or_default()));
            (union, twice, unknown)
        };
        if let Some(reason) = unknown {
            return Err(ProviderError::List { reason });
        }
        for (at, id) in twice {
            tracing::warn!(provider = self.links[at].kind, instance = %id, "it runs in two places, and is ended here");
            let _ = self.links[at].provider.stop(&id).await;
        }
        Ok(union.into_values().collect())
    }

    async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.start_on(Order::Start, Market::OnDemand, id).await
    }

    async fn start_spot(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.start_on(Order::StartSpot, Market::Spot, id).await
    }

    fn offers_spot(&self) -> bool {
        let state = self.state();
        let waits = |at: usize| state.links[at].starts.waits(Instant::now());
        self.of(Market::Spot).any(|(at, _)| if bug!("tried-market-offered") { !waits(at) } else { !state.is_left_alone(at) })
    }

    fn market(&self, id: &InstanceId) -> Market {
        let owner = self.state().owners.get(id).map(|owner| owner.link);
        owner.map_or(Market::OnDemand, |link| self.links[link].market)
    }

    async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Activate, id).await
    }

    async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.turn(Order::Deactivate, id).await
    }

    async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.end(Order::Drain, id).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.end(Order::Stop, id).await
    }

    async fn give_up(&self, id: &InstanceId) -> Result<(), ProviderError> {
        self.note_never_ready(id);
        self.end(Order::GiveUp, id).await
    }

    async fn changed(&self) {
        let changes: Vec<_> = self.links.iter().map(|link| link.provider.changed()).collect();
        if !changes.is_empty() {
            select_all(changes).await;
        }
    }

    fn take_ended(&self) -> Vec<Ended> {
        let mut state = self.state();
        self.gather(&mut state);
        std::mem::take(&mut state.ended)
    }

    fn rank(&self, id: &InstanceId) -> usize {
        let owner = self.state().owners.get(id).map(|owner| owner.link);
        owner.map_or(0, |link| link * MAX_LINKS + self.links[link].provider.rank(id).min(MAX_LINKS - 1))
    }

    fn links(&self) -> Vec<LinkStatus> {
        let state = self.state();
        let status = |(at, (link, health)): (usize, (&Link, &Health))| {
            let own = LinkStatus {
                kind: link.kind,
                market: link.market,
                standing: link.standing,
                instances: state.owners.values().filter(|owner| owner.link == at).count(),
                failing: health.starts.reason.clone().or_else(|| health.lists.reason.clone()),
            };
            // A chain in a chain tells of its own links.
            let inner = link.provider.links().into_iter().map(|inner| LinkStatus { market: link.market, ..inner });
            let inner: Vec<LinkStatus> = inner.collect();
            if inner.is_empty() { vec![own] } else { inner }
        };
        self.links.iter().zip(&state.links).enumerate().flat_map(status).collect()
    }

    async fn close(&self) {
        for link in &self.links {
            link.provider.close().await;
        }
    }
}

impl Chain {
    /// The configured providers of `market`.
    fn of(&self, market: Market) -> impl Iterator<Item = (usize, &Link)> {
        self.links.iter().enumerate().filter(move |(_, link)| link.standing == Standing::Configured && link.market == market)
    }

    async fn start_on(&self, order: Order, market: Market, id: &InstanceId) -> Result<(), ProviderError> {
        let known = self.state().owners.get(id).map(|owner| owner.link);
        if let Some(at) = known {
            return self.give(at, Order::Start, id).await;
        }
        // Nobody takes over for the only one: its pool tries it as often as it thinks right. For spot instances those on demand do.
        let alone = market == Market::OnDemand && self.of(market).count() == 1;
        let mut reasons = vec![];
        for (at, link) in self.of(market) {
            {
                let mut state = self.state();
                if state.is_left_alone(at) && !alone {
                    let reason = state.links[at].starts.reason.as_deref().unwrap_or_default();
                    reasons.push(format!("{}: {reason} (left alone for now)", link.kind));
                    continue;
                }
                state.owners.insert(id.clone(), Owner { link: at, ready: false, starting: true });
            }
            let underway = Underway { chain: self, id };
            let started = self.give(at, Order::Start, id).await;
            drop(underway);
            match started {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(provider = link.kind, instance = %id, %error, "a start failed; the next provider is tried");
                    let mut state = self.state();
                    state.owners.remove(id);
                    state.links[at].starts.fail(error.to_string(), LONGEST_PAUSE, Instant::now());
                    reasons.push(format!("{}: {error}", link.kind));
                }
            }
        }
        if reasons.is_empty() {
            reasons.push("no provider is configured for it".into());
        }
        Err(ProviderError::order(order, id, reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::conformance::{self, Subject};
    use crate::provider::simulated::{Durations, Outage, SimulatedProvider, TokioClock};

    const DURATIONS: Durations = Durations { startup: Duration::from_secs(2), drain: Duration::from_secs(1) };

    struct Pair {
        first: SimulatedProvider,
        second: SimulatedProvider,
        chain: Arc<Chain>,
    }

    impl Pair {
        fn new() -> Self {
            let clock = TokioClock::start();
            let provider = || SimulatedProvider::new(clock.clone(), DURATIONS);
            let (first, second) = (provider(), provider());
            Self::over(first, second)
        }

        fn over(first: SimulatedProvider, second: SimulatedProvider) -> Self {
            let link = |kind, provider: &SimulatedProvider| Link {
                kind,
                provider: Arc::new(provider.clone()),
                market: Market::OnDemand,
                standing: Standing::Configured,
            };
            let chain = Arc::new(Chain::new(vec![link("first", &first), link("second", &second)]));
            Self { first, second, chain }
        }

        async fn start(&self, name: &str) -> Result<(), ProviderError> {
            self.chain.start(&id(name)).await
        }

        /// How many run where.
        fn census(&self) -> (usize, usize) {
            (self.first.census().len(), self.second.census().len())
        }

        fn failing(&self) -> Vec<Option<String>> {
            self.chain.links().into_iter().map(|link| link.failing).collect()
        }
    }

    fn id(name: &str) -> InstanceId {
        InstanceId::new(name).unwrap()
    }

    #[async_trait]
    impl Subject for Pair {
        fn provider(&self) -> Arc<dyn Provider> {
            self.chain.clone()
        }
        async fn kill(&self, instance: &Observed) {
            self.first.kill(&instance.id);
            self.second.kill(&instance.id);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_conforms_whichever_provider_serves() {
        conformance::check(&Pair::new()).await.unwrap();
        let pair = Pair::new();
        for _ in 0..100 {
            pair.first.refuse_next(Order::Start, "no quota");
        }
        conformance::check(&pair).await.unwrap();
        assert!(pair.failing()[0].as_ref().is_some_and(|reason| reason.contains("no quota")));
    }

    #[tokio::test(start_paused = true)]
    async fn starts_go_to_the_next_while_the_first_fails_and_back_when_it_is_well() {
        let pair = Pair::new();
        pair.first.refuse_next(Order::Start, "no quota");
        pair.start("a").await.unwrap();
        assert_eq!(pair.census(), (0, 1), "at once, not after a pause");
        pair.start("b").await.unwrap();
        assert_eq!(pair.census(), (0, 2), "the first is left alone for now");
        tokio::time::sleep(FIRST_PAUSE).await;
        pair.start("c").await.unwrap();
        assert_eq!(pair.census(), (1, 2));
        tokio::time::sleep(DURATIONS.startup).await;
        assert_eq!(pair.chain.list().await.unwrap().len(), 3);
        assert_eq!(pair.failing(), [None, None], "what became ready shows that it is well");
        assert!(pair.chain.rank(&id("a")) > pair.chain.rank(&id("c")), "those of the second go first");
        // The next life finds each where it runs.
        let later = Pair::over(pair.first.clone(), pair.second.clone());
        for name in ["a", "b", "c"] {
            later.chain.activate(&id(name)).await.unwrap();
            later.chain.stop(&id(name)).await.unwrap();
        }
        assert_eq!(later.census(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_whose_instances_die_before_they_are_ready_fails() {
        let pair = Pair::new();
        pair.start("a").await.unwrap();
        pair.chain.list().await.unwrap();
        pair.first.kill(&id("a"));
        pair.chain.list().await.unwrap();
        pair.start("b").await.unwrap();
        assert_eq!(pair.census(), (0, 1));
        assert_eq!(pair.chain.take_ended().len(), 1, "and its end is still told");
        // Both fail: the order says why.
        pair.second.refuse_next(Order::Start, "no room");
        let refused = pair.start("c").await.unwrap_err().to_string();
        assert!(refused.contains("first: a ended before it was ready") && refused.contains("second: cannot start c: no room"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_whose_instances_never_become_ready_fails_and_is_tried_again_with_one() {
        let pair = Pair::new();
        let hanging = Durations { startup: Duration::from_secs(3_600), ..DURATIONS };
        pair.first.set_durations(hanging);
        for name in ["a", "b"] {
            pair.start(name).await.unwrap();
        }
        assert_eq!(pair.census(), (2, 0), "nothing is known against it yet");
        for name in ["a", "b"] {
            pair.chain.give_up(&id(name)).await.unwrap();
        }
        pair.chain.list().await.unwrap();
        assert!(
            pair.failing()[0].as_ref().is_some_and(|reason| reason.contains("b took too long to become ready")),
            "{:?}",
            pair.failing()
        );
        pair.start("c").await.unwrap();
        assert_eq!(pair.census(), (0, 1));
        // Two failures: twice the first pause.
        tokio::time::sleep(2 * FIRST_PAUSE).await;
        for name in ["d", "e"] {
            pair.start(name).await.unwrap();
        }
        assert_eq!(pair.census(), (1, 2), "one finds out whether it is well");
        pair.chain.give_up(&id("d")).await.unwrap();
        pair.chain.list().await.unwrap();
        pair.first.set_durations(DURATIONS);
        tokio::time::sleep(4 * FIRST_PAUSE).await;
        pair.start("f").await.unwrap();
        tokio::time::sleep(DURATIONS.startup).await;
        pair.chain.list().await.unwrap();
        for name in ["g", "h"] {
            pair.start(name).await.unwrap();
        }
        assert_eq!((pair.census(), pair.failing()), ((3, 2), vec![None, None]), "it is");
        // What was ready once is not held against it.
        pair.chain.give_up(&id("f")).await.unwrap();
        assert_eq!(pair.failing(), [None, None]);
    }

    /// Found by the simulator: what was listed before an outage stood for what is, and the same orders were given all the time.
    #[tokio::test(start_paused = true)]
    async fn what_is_ordered_is_known_before_it_is_listed() {
        let pair = Pair::new();
        for name in ["a", "b"] {
            pair.start(name).await.unwrap();
        }
        tokio::time::sleep(DURATIONS.startup).await;
        let states = async || {
            let listed = pair.chain.list().await.unwrap();
            listed.into_iter().map(|seen| (seen.id.to_string(), seen.state)).collect::<Vec<_>>()
        };
        let said = |states: &[(&str, InstanceState)]| states.iter().map(|(id, state)| ((*id).into(), *state)).collect::<Vec<_>>();
        assert_eq!(states().await, said(&[("a", InstanceState::Warm), ("b", InstanceState::Warm)]));
        pair.first.set_outage(Some(Outage::Away));
        assert_eq!(states().await, said(&[("a", InstanceState::Warm), ("b", InstanceState::Warm)]), "it runs what it ran");
        pair.first.set_outage(None);
        pair.chain.activate(&id("a")).await.unwrap();
        assert_eq!(states().await, said(&[("a", InstanceState::Active), ("b", InstanceState::Warm)]));
        // Also while it carries out orders, and lists nothing.
        pair.chain.state().links[0].lists.fail("no right to".into(), LONGEST_UNLISTED, Instant::now() + Duration::from_secs(60));
        pair.chain.stop(&id("b")).await.unwrap();
        pair.chain.state().links[0].lists.fail("no right to".into(), LONGEST_UNLISTED, Instant::now() + Duration::from_secs(60));
        assert_eq!(states().await, said(&[("a", InstanceState::Active), ("b", InstanceState::Draining)]));
        pair.start("c").await.unwrap();
        assert_eq!(states().await, said(&[("a", InstanceState::Active), ("c", InstanceState::Starting)]));
    }

    /// Lists nothing: its backend is away.
    struct Away;

    #[async_trait]
    impl Provider for Away {
        async fn list(&self) -> Result<Vec<Observed>, ProviderError> {
            Err(ProviderError::List { reason: "no route to it".into() })
        }
        async fn start(&self, id: &InstanceId) -> Result<(), ProviderError> {
            Err(ProviderError::order(Order::Start, id, "no route to it"))
        }
        async fn activate(&self, id: &InstanceId) -> Result<(), ProviderError> {
            self.start(id).await
        }
        async fn deactivate(&self, id: &InstanceId) -> Result<(), ProviderError> {
            self.start(id).await
        }
        async fn drain(&self, id: &InstanceId) -> Result<(), ProviderError> {
            self.start(id).await
        }
        async fn stop(&self, id: &InstanceId) -> Result<(), ProviderError> {
            self.start(id).await
        }
        async fn changed(&self) {
            std::future::pending().await
        }
        fn take_ended(&self) -> Vec<Ended> {
            vec![]
        }
        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_provider_runs_that_was_never_listed_is_not_taken_for_nothing_too_soon() {
        let second = SimulatedProvider::new(TokioClock::start(), DURATIONS);
        let link = |kind, provider: Arc<dyn Provider>| Link { kind, provider, market: Market::OnDemand, standing: Standing::Configured };
        let chain = Chain::new(vec![link("away", Arc::new(Away)), link("second", Arc::new(second))]);
        let early = chain.list().await.unwrap_err().to_string();
        assert!(early.contains("away: cannot list instances: no route to it"), "{early}");
        tokio::time::sleep(FIRST_LIST).await;
        assert!(chain.list().await.unwrap().is_empty());
        chain.start(&id("a")).await.unwrap();
        assert_eq!(chain.list().await.unwrap().len(), 1);
    }
}
