//! One pool as the actor keeps it: its members, merged from what the provider lists, and what is to
//! be ordered next. Touches nothing itself: the actor lists, persists and orders.

use super::accounting::{Accounting, Closed, Standing};
use super::book::Book;
use super::reconcile::{Action, Desired, Limits, Member, Reason, reconcile};
use super::{SpotSeen, Totals, limits};
use crate::backoff::Backoff;
use crate::config::PoolConfig;
use crate::marks::{bug, sometimes};
use crate::provider::{self, EndCause, Ended, LinkStatus, Observed, Order, Provider, ProviderError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::api::{InstanceState, InstanceView, ProviderView, Severity};
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::ledger::{Error, Reservation};
use tradewind_protocol::{InstanceCounts, InstanceId, Market, PoolName, ResourcePool, Resources, Step, Timestamp, reservation};

/// After so many failed orders in a row an instance is replaced: with the backoff's waits it had
/// some four seconds to come round.
const MAX_ORDER_FAILURES: u32 = 5;

/// From so many failures in a row on, one instance is started at a time: to find out whether the
/// cause is mended takes only one, and all others are started as soon as that is ready.
const CAREFUL_FROM: u32 = 3;

/// How many measured start-up times the published one is the longest of. The longest, because a
/// plan that relies on it must not be late; few, so that it follows.
const STARTUPS_KEPT: usize = 8;

/// For so long after spot instances were taken, what is missing is bought on demand: what takes one takes more, and what it has taken cannot be
/// had. A guess.
const SPOT_PAUSE: Duration = Duration::from_secs(300);

/// For so long at least after it sold none.
const SPOT_RETRY: Duration = Duration::from_secs(1);

/// How many orders of one pool are carried out at the same time.
const MAX_IN_FLIGHT: usize = 64;

/// When something happens: on the clock, and since the actor's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) clock: Timestamp,
    pub(super) uptime: Duration,
}

impl Now {
    /// The same, as ledgers take it.
    pub(super) fn ledger(self) -> reservation::Now {
        reservation::Now { wall: self.clock, uptime: self.uptime }
    }
}

/// What the actor should tell: severity, kind, words.
pub(super) type News = (Severity, &'static str, String);

/// One pool.
pub(super) struct Fleet {
    pub(super) name: PoolName,
    /// `None` for a pool that is no longer configured and only drains.
    config: Option<PoolConfig>,
    pub(super) provider: Arc<dyn Provider>,
    limits: Limits,
    desired: Option<Desired>,
    members: BTreeMap<InstanceId, Card>,
    /// How members ended that the last list still had.
    ended: BTreeMap<InstanceId, Ended>,
    book: Arc<Book>,
    accounting: Accounting,
    starts: Backoff,
    last_failure: Option<String>,
    list_failure: Option<String>,
    blocked: Option<String>,
    startups: VecDeque<Duration>,
    chance: StdRng,
    /// Whether the provider has ever been listed: before, nothing is known to be gone.
    listed: bool,
    /// Its providers as they stood at the last look, if it has several.
    links: Vec<LinkStatus>,
    spot: SpotSeen,
    /// Until when the spot instances are counted.
    spot_counted: Duration,
    /// Until when nothing is bought on the spot market.
    spot_pauses: Duration,
    /// An instance has become ready since the last failure.
    start_worked: bool,
}

/// What is known of one instance.
struct Card {
    state: InstanceState,
    since: Timestamp,
    entered: Duration,
    /// When this life of the agent ordered it, until it was ready.
    ordered: Option<Duration>,
    handle: String,
    in_flight: Option<Order>,
    obedience: Backoff,
    market: Market,
    /// Whether it was told to end, or has been counted as taken: its end is no news.
    leaving: bool,
}

impl Fleet {
    pub(super) fn new(name: PoolName, config: Option<PoolConfig>, provider: Arc<dyn Provider>, begin: Begin) -> Self {
        Self {
            name,
            limits: config.as_ref().map_or(Limits::NOTHING, limits),
            desired: config.is_none().then(Desired::default),
            config,
            provider,
            members: BTreeMap::new(),
            ended: BTreeMap::new(),
            book: begin.book,
            accounting: Accounting::new(begin.step, begin.clock, Standing::default()),
            starts: Backoff::default(),
            last_failure: None,
            list_failure: None,
            blocked: None,
            startups: VecDeque::new(),
            chance: StdRng::from_seed(begin.seed),
            listed: false,
            links: vec![],
            spot: SpotSeen::default(),
            spot_counted: Duration::ZERO,
            spot_pauses: Duration::ZERO,
            start_worked: false,
        }
    }

    pub(super) fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// Whether there is certainly nothing left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.listed && self.members.is_empty() && self.list_failure.is_none()
    }

    /// From now on `desired` is wanted.
    pub(super) fn want(&mut self, desired: Desired, news: &mut Vec<News>) {
        let before = self.desired.replace(desired);
        if before != Some(desired) {
            let was =
                before.map_or_else(|| "nothing was planned before".into(), |d| format!("was {} + {}{}", d.active, d.warm, of_spot(d)));
            let Desired { active, warm, .. } = desired;
            let words = format!("{}: {active} active + {warm} warm{} wanted ({was})", self.name, of_spot(desired));
            news.push((Severity::Info, "pool.target_changed", words));
        }
    }

    /// From now on nothing is wanted, and nothing is allowed either.
    pub(super) fn want_nothing(&mut self) {
        self.limits = Limits::NOTHING;
        self.desired = Some(Desired::default());
    }

    /// Takes in what the provider lists, and what it says of those that are gone.
    pub(super) fn merge(
        &mut self,
        listed: Result<Vec<Observed>, ProviderError>,
        ended: Vec<Ended>,
        now: Now,
        totals: &mut Totals,
        news: &mut Vec<News>,
    ) {
        self.look_at_links(news);
        self.ended.extend(ended.into_iter().map(|ended| (ended.id.clone(), ended)));
        match listed {
            Err(error) => {
                let words = error.to_string();
                if self.list_failure.replace(words.clone()).is_none() {
                    news.push((Severity::Warning, "pool.provider_failed", format!("{}: {words}", self.name)));
                }
            }
            Ok(listed) => {
                self.list_failure = None;
                let listed: BTreeMap<InstanceId, Observed> = listed.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
                let starting = |card: &Card| card.in_flight.is_some_and(Order::is_start);
                let gone: Vec<_> = self
                    .members
                    .iter()
                    .filter(|(id, card)| !listed.contains_key(id) && !starting(card))
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in gone {
                    let ended = self.ended.remove(&id);
                    self.remove(&id, ended, now, totals, news);
                }
                for seen in listed.into_values() {
                    self.see(seen, now, totals, news);
                }
                self.listed = true;
            }
        }
        // What is still a member ended after the list was made; the next list will miss it.
        for (id, ended) in self.ended.extract_if(.., |id, _| !self.members.contains_key(id)) {
            totals.lost += u64::from(ended.cause == EndCause::Unexpected);
            news.push((Severity::Warning, "pool.instance_lost", format!("{} {id}: {}", self.name, ended.reason)));
        }
    }

    /// Tells when one of several providers has begun to fail, or is well again.
    fn look_at_links(&mut self, news: &mut Vec<News>) {
        let links = self.provider.links();
        for link in &links {
            let same = |before: &&LinkStatus| (before.kind, before.market) == (link.kind, link.market);
            let before = self.links.iter().find(same).and_then(|before| before.failing.as_ref());
            match (before, &link.failing) {
                (None, Some(reason)) => {
                    let words = format!("{}: {} fails, others take over: {reason}", self.name, link.kind);
                    news.push((Severity::Warning, "pool.provider_failed", words));
                }
                (Some(_), None) => {
                    news.push((Severity::Info, "pool.provider_recovered", format!("{}: {} is well again", self.name, link.kind)))
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        self.links = links;
    }

    /// Its providers, if it has several.
    pub(super) fn providers(&self) -> impl Iterator<Item = ProviderView> {
        self.links.iter().map(|link| ProviderView {
            pool: self.name.clone(),
            provider: link.kind.into(),
            market: link.market,
            configured: link.standing == provider::Standing::Configured,
            instances: u32::try_from(link.instances).unwrap_or(u32::MAX),
            failing: link.failing.clone(),
        })
    }

    fn see(&mut self, seen: Observed, now: Now, totals: &mut Totals, news: &mut Vec<News>) {
        let Some(card) = self.members.get_mut(&seen.id) else {
            if bug!("adoption-forgotten") {
                return;
            }
            sometimes!("pool.adopted");
            totals.adopted += 1;
            news.push((
                Severity::Info,
                "pool.instance_adopted",
                format!("{} {} ({}): {}", self.name, seen.id, seen.handle, seen.state.word()),
            ));
            let card = Card {
                leaving: seen.state == InstanceState::Draining,
                market: self.provider.market(&seen.id),
                ..Card::new(seen.state, seen.handle, now)
            };
            self.members.insert(seen.id, card);
            return;
        };
        card.handle = seen.handle;
        if card.state == seen.state {
            return;
        }
        if let (InstanceState::Warm | InstanceState::Active, Some(ordered)) = (seen.state, card.ordered.take()) {
            let took = now.uptime.saturating_sub(ordered);
            self.start_worked = true;
            self.startups.push_back(took);
            if self.startups.len() > STARTUPS_KEPT {
                self.startups.pop_front();
            }
            let words = format!("{} {} ({}) was ready after {} ms", self.name, seen.id, card.handle, took.as_millis());
            news.push((Severity::Info, "pool.instance_ready", words));
        }
        let mut taken = None;
        if seen.state == InstanceState::Draining && card.market == Market::Spot && !card.leaving {
            card.leaving = true;
            taken = Some(format!("{} {} ({}) is being taken by its market", self.name, seen.id, card.handle));
        }
        tracing::debug!(pool = %self.name, instance = %seen.id, from = ?card.state, to = ?seen.state, "instance changed");
        card.enter(seen.state, now);
        if let Some(words) = taken {
            self.interrupt(now, words, news);
        }
    }

    /// The market has taken an instance: nothing more is bought there for a while.
    fn interrupt(&mut self, now: Now, words: String, news: &mut Vec<News>) {
        news.push((Severity::Warning, "pool.spot_interrupted", words));
        self.spot.interrupted += 1;
        self.spot_pauses = now.uptime + SPOT_PAUSE;
    }

    fn remove(&mut self, id: &InstanceId, ended: Option<Ended>, now: Now, totals: &mut Totals, news: &mut Vec<News>) {
        let Some(card) = self.members.remove(id) else { return };
        let draining = card.state == InstanceState::Draining;
        let ordered = match &ended {
            Some(ended) => ended.cause == EndCause::Ordered,
            None => draining,
        };
        let reason = ended.map_or_else(|| "it is no longer there".into(), |ended| ended.reason);
        let was_ready = matches!(card.state, InstanceState::Warm | InstanceState::Active);
        if card.market == Market::Spot && !ordered && !card.leaving && was_ready {
            // That it is taken is its nature: other starts do not wait for it.
            let words = format!("{} {id} ({:?}) was taken by its market: {reason}", self.name, card.state);
            self.interrupt(now, words, news);
            totals.lost += 1;
        } else if ordered || (card.market == Market::Spot && card.leaving) {
            totals.ended += 1;
            news.push((Severity::Info, "pool.instance_ended", format!("{} {id}: {reason}", self.name)));
        } else {
            sometimes!("pool.lost");
            totals.lost += 1;
            // One that has served for long says nothing of how others would start.
            let served_long = was_ready && now.uptime.saturating_sub(card.entered) > self.limits.start_deadline;
            if served_long && !self.starts.waits(now.uptime) && !bug!("long-served-is-failed-start") {
                self.starts.reset();
            }
            let words = format!("{} {id} ({:?}) ended unexpectedly: {reason}", self.name, card.state);
            self.fail(now, words.clone());
            news.push((Severity::Warning, "pool.instance_lost", words));
        }
    }

    /// Notes a failure of what was started. What fails while others wait was started before they failed: it is of the same cause, and counts once.
    fn fail(&mut self, now: Now, words: String) {
        let jitter = self.chance.random();
        if !self.starts.waits(now.uptime) || bug!("joint-failures-add-up") {
            self.starts.fail(now.uptime, jitter);
        }
        self.start_worked = false;
        self.last_failure = Some(words);
    }

    /// Notes how an order went.
    pub(super) fn on_done(
        &mut self,
        id: &InstanceId,
        order: Order,
        result: Result<(), ProviderError>,
        now: Now,
        totals: &mut Totals,
        news: &mut Vec<News>,
    ) {
        let jitter = self.chance.random();
        let Some(card) = self.members.get_mut(id) else { return };
        card.in_flight = None;
        let Err(error) = result else {
            card.obedience.reset();
            totals.started += u64::from(order.is_start());
            // Where nothing can be listed for a while, it must not be ordered again and again.
            if !order.is_start() && card.state != order.leads_to() && !bug!("orders-known-when-listed") {
                card.enter(order.leads_to(), now);
            }
            return;
        };
        totals.failed_orders += 1;
        card.obedience.fail(now.uptime, jitter);
        let words = format!("{}: {error}", self.name);
        match order {
            Order::Start => {
                self.members.remove(id);
                self.fail(now, words.clone());
            }
            // Others are started on demand, and only the market waits.
            Order::StartSpot => {
                self.members.remove(id);
                if !bug!("tried-market-offered") {
                    self.spot_pauses = self.spot_pauses.max(now.uptime + SPOT_RETRY);
                }
            }
            Order::Activate | Order::Deactivate | Order::Drain | Order::Stop | Order::GiveUp => {}
        }
        news.push((Severity::Warning, "pool.order_failed", words));
    }

    /// Brings the ledger in line with what exists.
    pub(super) fn settle_ledger(&self, now: Now) {
        if !self.listed {
            return;
        }
        let unit = self.instance_resources();
        let counts = |id: &InstanceId| {
            self.members.get(id).is_some_and(|card| card.state != InstanceState::Draining || !bug!("released-before-gone"))
        };
        for id in self.members.keys().filter(|id| counts(id)) {
            self.book.adopt(&self.name, id, unit, now.ledger());
        }
        self.book.settle(&self.name, counts, now.ledger());
    }

    /// How many instances other regions are owed by the time that a start takes.
    fn lent(&self, now: Now) -> Vec<Reservation> {
        let Some(config) = &self.config else { return vec![] };
        let startup = self.startups.iter().copied().max().unwrap_or(config.startup);
        self.book.lent(&self.name, startup, now.ledger())
    }

    /// Has instances that the region itself does not need serve what others are owed, rather than be counted
    /// beside it.
    fn assign(&self, desired: Desired, lent: &[Reservation], now: Now) {
        let serving = self.book.serving(&self.name);
        let free = self.members.iter().filter(|(id, card)| !serving.contains_key(*id) && card.state != InstanceState::Draining);
        let own = (desired.active + desired.warm) as usize;
        let mut surplus: Vec<&InstanceId> = free.map(|(id, _)| id).skip(own).collect();
        for reservation in lent {
            for _ in reservation.placed..reservation.terms.units {
                let Some(id) = surplus.pop() else { return };
                // Refused where the unit has changed; it is then counted beside it.
                let _ = self.book.occupy(&self.name, id, reservation.terms.unit, Some(&reservation.id), now.ledger());
            }
        }
    }

    /// What to order now. Starts have their reservations made, which are to be durable before any of it is
    /// carried out.
    pub(super) fn plan(&mut self, now: Now, news: &mut Vec<News>) -> Vec<(Order, InstanceId)> {
        if !self.listed {
            return vec![];
        }
        // Until the first plan: what was found stays.
        let found = Desired {
            active: self.count(InstanceState::Active),
            warm: self.count(InstanceState::Warm) + self.count(InstanceState::Starting),
            spot: self.spot_members(),
            none_on_spot: false,
        };
        let desired = *self.desired.get_or_insert(found);
        if self.count(InstanceState::Starting) == 0 {
            self.starts.forgive(now.uptime);
            if self.starts.failures() == 0 {
                self.last_failure = None;
            }
        }
        let lent = self.lent(now);
        if !lent.is_empty() {
            self.assign(desired, &lent, now);
        }
        let owed: u32 = lent.iter().map(|reservation| reservation.terms.units).fold(0, u32::saturating_add);
        let desired = Desired { active: desired.active.saturating_add(owed), none_on_spot: !self.buys_spot(now), ..desired };
        let counted = desired.none_on_spot && bug!("ending-spot-counted");
        let desired =
            if counted { Desired { spot: desired.spot.min(self.spot_members()), none_on_spot: false, ..desired } } else { desired };
        let members: Vec<Member> = self.members.iter().map(|(id, card)| card.member(id, self.provider.rank(id), now)).collect();
        let round = reconcile(desired, &self.limits, &members);
        let mut room = MAX_IN_FLIGHT.saturating_sub(members.iter().filter(|member| member.in_flight.is_some()).count());
        let mut starts = self.starts_allowed(now);
        let mut blocked =
            (round.waiting_for_room > 0).then(|| format!("{} starts wait for draining instances to end", round.waiting_for_room));
        let mut orders = vec![];
        for action in round.actions {
            if room == 0 {
                break;
            }
            match action {
                Action::Order(order, id, reason) => {
                    tracing::debug!(pool = %self.name, instance = %id, %order, %reason, "ordering");
                    let again = self.members.get(&id).is_some_and(|card| card.leaving);
                    if matches!(reason, Reason::Overdue | Reason::Broken) && !again {
                        let words = format!("{} {id} is stopped: {reason}", self.name);
                        news.push((Severity::Warning, "pool.instance_given_up", words.clone()));
                        self.fail(now, words);
                    }
                    if let Some(card) = self.members.get_mut(&id) {
                        card.in_flight = Some(order);
                        card.leaving |= order.ends();
                    }
                    if order != Order::Drain || !bug!("drain-forgotten") {
                        orders.push((order, id));
                    }
                    room -= 1;
                }
                Action::Start(market, reason) if starts > 0 => match self.reserve(market, now) {
                    Ok((order, id)) => {
                        tracing::debug!(pool = %self.name, instance = %id, %order, %reason, "starting");
                        orders.push((order, id));
                        starts -= 1;
                        room -= 1;
                    }
                    Err(why) => {
                        sometimes!("pool.does-not-fit");
                        blocked = Some(why);
                        starts = 0;
                    }
                },
                // Too early to find out whether it fits by now.
                Action::Start(_, _) => blocked = blocked.or_else(|| self.blocked.clone()),
            }
        }
        if blocked.is_some() && self.blocked.is_none() {
            let words = format!("{}: {}", self.name, blocked.as_deref().unwrap_or_default());
            news.push((Severity::Warning, "pool.blocked", words));
        }
        self.blocked = blocked;
        orders
    }

    /// Reserves the resources of one more instance, and makes room for it among the members.
    fn reserve(&mut self, market: Market, now: Now) -> Result<(Order, InstanceId), String> {
        let id =
            InstanceId::new(&format!("{}-{:012x}", self.name, self.chance.random::<u64>() >> 16)).map_err(|error| error.to_string())?;
        let unit = self.instance_resources();
        let owed = self.lent(now).into_iter().find(|reservation| reservation.placed < reservation.terms.units);
        let serve = owed.as_ref().map(|reservation| &reservation.id);
        self.book.occupy(&self.name, &id, unit, serve, now.ledger()).map_err(|refusal| match refusal {
            Error::DoesNotFit { shortage, .. } => {
                let (wanted, capacity, promised) = (shortage.wanted, shortage.capacity, shortage.promised);
                format!("one more instance ({wanted}) does not fit into its capacity ({capacity}, of which {promised} are promised)")
            }
            other => other.to_string(),
        })?;
        let order = match market {
            Market::OnDemand => Order::Start,
            Market::Spot => Order::StartSpot,
        };
        let card = Card {
            in_flight: Some(order),
            ordered: Some(now.uptime),
            market,
            ..Card::new(InstanceState::Starting, "no process yet".into(), now)
        };
        self.members.insert(id.clone(), card);
        Ok((order, id))
    }

    /// How many spot instances there are or will be, as far as is known.
    fn spot_members(&self) -> u32 {
        let there =
            self.members.values().filter(|card| card.market == Market::Spot && card.state != InstanceState::Draining && !card.leaving);
        u32::try_from(there.count()).unwrap_or(u32::MAX)
    }

    /// Whether the spot market is not said to have none.
    fn buys_spot(&self, now: Now) -> bool {
        self.provider.offers_spot() && now.uptime >= self.spot_pauses
    }

    /// What was seen of the pool's spot instances in this life of the agent, if it has any.
    pub(super) fn spot(&self) -> Option<SpotSeen> {
        self.config.as_ref().is_some_and(|config| config.spot.is_some()).then_some(self.spot)
    }

    /// Takes orders back that could not be given.
    pub(super) fn retract(&mut self, orders: &[(Order, InstanceId)]) {
        for (order, id) in orders {
            match order {
                Order::Start | Order::StartSpot => drop(self.members.remove(id)),
                Order::Activate | Order::Deactivate | Order::Drain | Order::Stop | Order::GiveUp => {
                    if let Some(card) = self.members.get_mut(id) {
                        card.in_flight = None;
                    }
                }
            }
        }
    }

    fn starts_allowed(&self, now: Now) -> usize {
        let starting = self.count(InstanceState::Starting) as usize;
        if self.starts.waits(now.uptime) {
            0
        } else if self.starts.failures() >= CAREFUL_FROM && (!self.start_worked || bug!("careful-until-forgiven")) {
            1usize.saturating_sub(starting)
        } else {
            usize::MAX
        }
    }

    /// Instances that are to be ended now, whatever state they are in.
    pub(super) fn everything(&mut self) -> Vec<(Order, InstanceId)> {
        let idle = self.members.iter_mut().filter(|(_, card)| card.in_flight.is_none());
        idle.map(|(id, card)| {
            (card.in_flight, card.leaving) = (Some(Order::Stop), true);
            (Order::Stop, id.clone())
        })
        .collect()
    }

    /// Brings the accounts up to date; the steps that have ended.
    pub(super) fn account(&mut self, now: Now) -> Vec<Closed> {
        let since = std::mem::replace(&mut self.spot_counted, now.uptime);
        let ready = |card: &&Card| card.market == Market::Spot && matches!(card.state, InstanceState::Warm | InstanceState::Active);
        let ready = self.members.values().filter(ready).count();
        let ms = u64::try_from(now.uptime.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        self.spot.instance_ms = self.spot.instance_ms.saturating_add(ms.saturating_mul(ready as u64));
        self.spot.instances = self.spot_members();
        let standing = Standing { ready: self.count(InstanceState::Active), paid: self.counts().total() };
        self.accounting.observe(now.clock, standing)
    }

    /// How long until something is due by itself.
    pub(super) fn next_wait(&self, now: Now) -> Duration {
        let step = self.accounting.next().since(now.clock);
        let cards = self.members.values().filter_map(|card| {
            let overdue =
                (card.state == InstanceState::Starting).then_some(card.entered + self.limits.start_deadline + Duration::from_millis(1));
            [overdue.filter(|at| *at > now.uptime), card.obedience.next(now.uptime)].into_iter().flatten().min()
        });
        let paused = (self.spot_pauses > now.uptime).then_some(self.spot_pauses);
        let due = cards.chain(self.starts.next(now.uptime)).chain(paused).min().map(|at| at.saturating_sub(now.uptime));
        due.map_or(step, |due| due.min(step))
    }

    /// The longest drain that its configuration allows.
    pub(super) fn drain_timeout(&self) -> Option<Duration> {
        self.config.as_ref().map(|config| config.drain_timeout)
    }

    pub(super) fn capacity_sample(&self, closed: Closed) -> Option<tradewind_protocol::api::CapacitySample> {
        let config = self.config.as_ref()?;
        Some(tradewind_protocol::api::CapacitySample {
            step: closed.step,
            pool: self.name.clone(),
            service: config.service.clone(),
            ready: closed.ready,
            instance_ms: closed.instance_ms,
            rate_per_instance: config.rate_per_instance,
        })
    }

    pub(super) fn status(&self) -> Option<ResourcePool> {
        let config = self.config.as_ref()?;
        let instances = self.counts();
        let in_use = config.instance.checked_mul(u64::from(instances.total())).unwrap_or(config.capacity);
        let startup = self.startups.iter().copied().max().unwrap_or(config.startup);
        Some(ResourcePool {
            name: self.name.clone(),
            service: config.service.clone(),
            capacity: config.capacity,
            in_use,
            instance: config.instance,
            rate_per_instance: config.rate_per_instance,
            instances,
            min_instances: config.min_instances,
            max_instances: config.max_instances,
            instance_hour_price: config.instance_hour_price,
            startup_ms: u64::try_from(startup.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn instances(&self) -> impl Iterator<Item = InstanceView> {
        self.members.iter().map(|(id, card)| InstanceView {
            id: id.clone(),
            pool: self.name.clone(),
            state: card.state,
            since: card.since,
            handle: card.handle.clone(),
            market: card.market,
        })
    }

    pub(super) fn health_reasons(&self, mode: Mode) -> Vec<String> {
        let failure = self.last_failure.as_ref().map(|words| format!("{words} ({} failures in a row)", self.starts.failures()));
        let retired = (self.config.is_none() && !self.members.is_empty()).then(|| match mode {
            Mode::Active => "it is no longer configured; its instances drain".into(),
            Mode::Advisory => "it is no longer configured, and its instances still run".into(),
        });
        let link = |link: &LinkStatus| link.failing.as_ref().map(|reason| format!("{} fails, others take over: {reason}", link.kind));
        let own =
            [self.list_failure.clone(), self.blocked.clone(), retired].into_iter().flatten().chain(self.links.iter().filter_map(link));
        own.map(|words| format!("pool {}: {words}", self.name)).chain(failure.map(|words| format!("pool {words}"))).collect()
    }

    /// How many instances stand ready, if no more can be had for now.
    pub(super) fn stranded(&self) -> Option<u32> {
        (self.starts.failures() >= CAREFUL_FROM).then(|| self.count(InstanceState::Warm).saturating_add(self.count(InstanceState::Active)))
    }

    fn counts(&self) -> InstanceCounts {
        InstanceCounts {
            starting: self.count(InstanceState::Starting),
            warm: self.count(InstanceState::Warm),
            active: self.count(InstanceState::Active),
            draining: self.count(InstanceState::Draining),
        }
    }

    fn count(&self, state: InstanceState) -> u32 {
        u32::try_from(self.members.values().filter(|card| card.state == state).count()).unwrap_or(u32::MAX)
    }

    fn instance_resources(&self) -> Resources {
        self.config.as_ref().map_or(Resources::ZERO, |config| config.instance)
    }
}

/// How many of them are spot, in words.
fn of_spot(desired: Desired) -> String {
    if desired.spot > 0 { format!(" ({} of them spot)", desired.spot) } else { String::new() }
}

/// What a fleet begins with.
pub(super) struct Begin {
    pub(super) step: Step,
    pub(super) clock: Timestamp,
    pub(super) seed: [u8; 32],
    pub(super) book: Arc<Book>,
}

impl Card {
    fn new(state: InstanceState, handle: String, now: Now) -> Self {
        Self {
            state,
            since: now.clock,
            entered: now.uptime,
            ordered: None,
            handle,
            in_flight: None,
            obedience: Backoff::default(),
            market: Market::OnDemand,
            leaving: false,
        }
    }

    fn enter(&mut self, state: InstanceState, now: Now) {
        (self.state, self.since, self.entered) = (state, now.clock, now.uptime);
    }

    fn member(&self, id: &InstanceId, rank: usize, now: Now) -> Member {
        let (waits, broken) = (self.obedience.waits(now.uptime), self.obedience.failures() >= MAX_ORDER_FAILURES);
        let age = now.uptime.saturating_sub(self.entered);
        Member { id: id.clone(), state: self.state, age, in_flight: self.in_flight, waits, broken, rank, market: self.market }
    }
}
