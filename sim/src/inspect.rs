//! Asks an agent for its plan, its forecasts and its view, and holds them against each other, against
//! what a second later follows from them, and against the instances that exist.
//!
//! The instances are counted where they are, on the machine, not where the agent says. Everything else
//! is what any operator could ask. An answer that is out of step with another by a hair is no finding:
//! what may be in flight has to be wrong in [`PATIENCE`] looks in a row.

mod recovery;

use crate::client::{Client, Sight};
use crate::clock::{virtual_now, wall_time};
use crate::oracle::{Rule, pair};
use crate::promises::{self, Broken, Look};
use crate::steady::{self, Point};
use recovery::Recovery;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tradewind_agent::config::{Config, PoolConfig};
use tradewind_agent::provider::Observed;
use tradewind_protocol::api::{Event, ForecastView, InstanceState, RegionView, Reservations};
use tradewind_protocol::region::Mode;
use tradewind_protocol::reservation::Tier;
use tradewind_protocol::{PoolDecision, PoolName, RegionId, RegionalResourcePlan, StepIndex};

/// How often instances are counted: several times while one drains.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// Counts from one look at the API to the next: the steps of a simulation last a second or more.
const COUNTS_PER_LOOK: u32 = 10;

/// What an owner says of a reservation that it does not have.
const FORGOTTEN: &str = "there is no reservation of this id";

/// Looks in a row in which something is wrong that is not merely in flight.
const PATIENCE: u32 = 3;

/// Counts in a row with more instances than any plan asked for, the newest among them: the agents as they are have shown none.
const EXCESS_PATIENCE: u32 = 6;

/// What a pool needs on top of a start to come to what was planned: a drain, the step in which the plan
/// is made, one with lost packets, and the look itself.
const SETTLING: Duration = Duration::from_secs(4);

/// What a hold may take beyond its round trip, besides half of it for jitter: ticks of the simulation on both sides.
const HOLD_SLACK_MS: u64 = 20;

/// What lapses is taken out of the ledger in the next round of its pool; and packets are under way for a while.
const ROUND: Duration = Duration::from_secs(2);

/// Plans that are remembered at most: the scale-in time of any sensible scenario, in steps.
const MAX_PLANS: usize = 1_000;

/// After trouble: what a clock that ran ahead by as much as chaos lets it needs until it is right again.
const CHAOS_SETTLING: Duration = Duration::from_secs(25);

/// How long after a step is closed the others must mostly have its forecasts: several of the longest trips, below
/// what gossip and a fetch take.
const PROMPT: Duration = Duration::from_millis(350);

/// How long two agents must have reached each other before.
const PROMPT_SETTLING: Duration = Duration::from_secs(15);

/// What an agent says of a state that was pushed by another than its owner.
const FOREIGN: &str = "a state pushed for another region";

/// Looks after which it shows whether word travels at once.
const PROMPT_LOOKS: u32 = 24;

/// No more than one look in so many may be behind. Where states are gossiped and fetched only, one in six to two in three are; with the agents
/// as they are, none.
const BEHIND: u32 = 8;

/// How long an agent has to tell of a lie.
const WARNING: Duration = Duration::from_secs(10);

/// Looks at one agent.
pub(crate) struct Inspector {
    others: Vec<RegionId>,
    chaos: bool,
    looks: usize,
    /// Looks at the others' forecasts, and how many of them were behind.
    prompt: (u32, u32),
    warned: bool,
    client: Client,
    config: Config,
    life: u64,
    since: Duration,
    plans: VecDeque<(Duration, RegionalResourcePlan)>,
    /// The version of the plan that was judged last.
    judged: Option<u64>,
    /// What other regions were owed, at each look.
    lent: VecDeque<(Duration, BTreeMap<PoolName, u32>)>,
    last_event: u64,
    /// The life and version of each region that the agent showed last.
    versions: BTreeMap<RegionId, (u64, u64)>,
    /// How often in a row each thing was wrong.
    wrong: BTreeMap<(Rule, &'static str), u32>,
    recovery: Recovery,
}

impl Inspector {
    pub(crate) fn new(client: Client, config: Config, others: Vec<RegionId>, chaos: bool) -> Self {
        Self {
            others,
            chaos,
            looks: 0,
            prompt: (0, 0),
            warned: false,
            client,
            config,
            life: 0,
            since: Duration::ZERO,
            plans: VecDeque::new(),
            judged: None,
            lent: VecDeque::new(),
            last_event: 0,
            versions: BTreeMap::new(),
            wrong: BTreeMap::new(),
            recovery: Recovery::default(),
        }
    }

    /// Looks, for ever.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut counts = 0;
        loop {
            self.count();
            self.see_end();
            // An agent that is away is another rule's matter.
            let _ = self.judge_excess().await;
            counts += 1;
            if counts % COUNTS_PER_LOOK == 0 {
                self.begin_life();
                // An agent that is away is another rule's matter.
                let _ = self.recover().await;
                if self.look().await.is_err() {
                    self.wrong.clear();
                }
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    fn begin_life(&mut self) {
        let life = self.client.machine.boots();
        if life != self.life {
            let in_order = self.begin_recovery();
            (self.life, self.since, self.last_event) = (life, virtual_now(), 0);
            if !in_order {
                // What was needed lately is durable now and then only.
                self.plans.clear();
            }
            self.judged = None;
            self.lent.clear();
            self.versions.clear();
            self.wrong.clear();
            self.warned = false;
        }
    }

    /// How long what was wrong goes on to show.
    fn settling(&self) -> Duration {
        if self.chaos { CHAOS_SETTLING } else { Duration::ZERO }
    }

    /// Whether all is well with the agent's machine and paths, and has been for long enough.
    fn is_calm(&self) -> bool {
        let settling = self.settling();
        let book = self.client.book.borrow();
        book.sound_since.get(&self.client.region).is_some_and(|since| virtual_now().saturating_sub(*since) >= settling)
    }

    /// Whether something was wrong with the instances `window` ago or since: what has ended by itself is replaced in as long a time as what was
    /// ordered.
    fn is_troubled(&self, window: Duration) -> bool {
        virtual_now() < self.client.machine.providers.troubled_until() + window
    }

    fn census(&self, pool: &PoolConfig) -> Vec<Observed> {
        self.client.machine.providers.census(pool)
    }

    fn count(&self) {
        for pool in &self.config.pools {
            let count = self.census(pool).len();
            let fits = pool.instance.times_in(pool.capacity).unwrap_or(u64::MAX).min(u64::from(pool.max_instances));
            if count as u64 > fits {
                self.broken(Rule::Bounded, format!("pool {} has {count} instances, and room for {fits}", pool.name));
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let views = self.client.views().await?;
        self.hear();
        let events: Vec<Event> = self.client.get(&format!("/v1/events?since={}", self.last_event)).await?;
        for event in &events {
            self.last_event = event.id;
            self.warned |= event.kind == "mesh.peer_refused" && event.message.contains(FOREIGN);
            if event.kind == "mesh.generation_raised" && self.client.machine.disk.losses() == 0 {
                self.broken(Rule::Remembers, event.message.clone());
            }
            if event.kind == "reserve.answered" {
                self.judge_hold(&event.message);
            }
            if event.kind == "reserve.lost" && self.is_calm() {
                self.judge_promise(&event.message);
            }
        }
        self.judge_reservations().await?;
        // In this order: forecasts are made before the plan of a step.
        let plan: RegionalResourcePlan = self.client.get("/v1/plan").await?;
        let forecasts = self.forecasts_to_one().await?;
        let calm = self.is_calm();
        if calm {
            self.judge_future(&plan, &forecasts);
            self.judge_time(&plan, &forecasts);
            self.judge_sources(&plan, &views);
            self.judge_warning();
            self.judge_promptness(&views).await?;
        } else {
            self.wrong.clear();
        }
        self.judge_versions(&views);
        if self.judged != Some(plan.version) {
            self.judged = Some(plan.version);
            for decision in &plan.decisions {
                if calm {
                    self.judge_patience(&plan, decision);
                }
                self.judge_floor(decision);
                self.judge_reach(decision);
            }
        }
        self.note_plan(plan);
        if calm {
            self.judge_steadiness();
        }
        if calm && self.config.mode == Mode::Active {
            for pool in self.config.pools.clone() {
                self.judge_pool(&pool);
            }
        }
        Ok(())
    }

    /// The agent's forecasts of traffic to one of the others in turn: those of a step are published together.
    async fn forecasts_to_one(&mut self) -> anyhow::Result<Vec<ForecastView>> {
        self.looks += 1;
        let Some(other) = self.others.get(self.looks % self.others.len().max(1)) else { return Ok(vec![]) };
        self.client.get(&format!("/v1/forecasts?from={}&to={other}", self.client.region)).await
    }

    /// What is promised to others, and what others have promised.
    async fn judge_reservations(&mut self) -> anyhow::Result<()> {
        let asked = virtual_now();
        let reservations: Reservations = self.client.get("/v1/reservations").await?;
        self.note_lent(&reservations);
        self.judge_returns(&reservations);
        let look = Look { life: self.life, asked, answered: virtual_now(), shown: reservations };
        let mut book = self.client.book.borrow_mut();
        if self.life != self.client.machine.boots() {
            return Ok(());
        }
        let broken = book.promises.see(&self.client.region, look);
        for (owner, what) in broken {
            if book.disk_losses.get(&owner).is_none_or(|losses| losses() == 0) {
                let (rule, what) = match what {
                    Broken::Forgotten(what) => (Rule::Kept, what),
                    Broken::Altered(what) => (Rule::Recovers, what),
                };
                book.see(&owner, Sight::Broken(rule, what));
            }
        }
        Ok(())
    }

    /// What is kept for holders that cannot have refreshed it.
    fn judge_returns(&self, shown: &Reservations) {
        let (owner, now) = (&self.client.region, virtual_now());
        let overdue = {
            let book = self.client.book.borrow();
            // Its clock, and its rounds, count from its start, and say nothing while it stands still.
            let Some(sound) = book.sound_since.get(owner) else { return };
            let latest = (*sound).max(self.since);
            let silent_for = |holder: &RegionId| {
                let parted = book.parted_since.get(&pair(owner, holder))?;
                Some(now.saturating_sub((*parted).max(latest)))
            };
            promises::overdue(&shown.granted, self.config.reservations.ttl + ROUND, silent_for)
        };
        overdue.into_iter().for_each(|what| self.broken(Rule::Returns, what));
    }

    /// The newest plan against those of the calm before it, in the same life.
    fn judge_steadiness(&self) {
        let settling = self.settling();
        let calm = self.client.book.borrow().sound_since.get(&self.client.region).map_or(Duration::MAX, |since| *since + settling);
        let waits = self.config.step.count_covering(self.config.planner.scale_in_after);
        for pool in &self.config.pools {
            let plans = self.plans.iter().filter(|(at, _)| *at >= calm.max(self.since));
            let points = plans.filter_map(|(_, plan)| {
                let decision = plan.decisions.iter().find(|decision| decision.pool == pool.name)?;
                let (total, seen) = (decision.active + decision.warm, decision.reason.observed_rate / pool.rate_per_instance);
                Some(Point { version: plan.version, known_until: plan.known_until, total, seen, blocked: decision.blocked.is_some() })
            });
            let points: Vec<Point> = points.collect();
            let wrong = steady::flap(&points, waits).or_else(|| steady::oscillation(&points, pool.min_warm));
            if let Some(words) = wrong {
                self.broken(Rule::Steady, format!("pool {}: {words}", pool.name));
            }
        }
    }

    /// Two round trips would be one too many, where nothing is lost; commits take no virtual time.
    fn judge_hold(&self, words: &str) {
        let owner = words.split(' ').next().and_then(|name| RegionId::new(name).ok());
        let reachable = owner.and_then(|owner| self.client.book.borrow().reachable_since.get(&pair(&self.client.region, &owner)).copied());
        if reachable.is_none_or(|since| virtual_now().saturating_sub(since) < self.settling()) {
            return;
        }
        let mut millis = words.split(' ').filter_map(|word| word.parse::<u64>().ok());
        if let (Some(took), Some(rtt)) = (millis.next(), millis.next())
            && took > rtt + rtt / 2 + HOLD_SLACK_MS
        {
            self.broken(Rule::Swift, words.to_owned());
        }
    }

    /// A holder gives up by itself what it may no longer rely upon. What an owner does not know before that, it has forgotten.
    fn judge_promise(&self, words: &str) {
        let owner =
            words.split_once(": ").and_then(|(_, rest)| Some(rest.split_once(" for ")?.0)).and_then(|name| RegionId::new(name).ok());
        let Some(owner) = owner.filter(|_| words.contains(FORGOTTEN)) else { return };
        if self.client.book.borrow().disk_losses.get(&owner).is_none_or(|losses| losses() == 0) {
            self.broken(Rule::Kept, words.to_owned());
        }
    }

    /// Remembers what other regions are owed: its instances are in no plan.
    fn note_lent(&mut self, reservations: &Reservations) {
        let firm = reservations.granted.iter().filter(|r| !r.id.starts_with("instance/") && r.terms.tier == Tier::Firm);
        let mut lent: BTreeMap<PoolName, u32> = BTreeMap::new();
        for reservation in firm {
            *lent.entry(reservation.pool.clone()).or_default() += reservation.terms.units;
        }
        if self.lent.len() == MAX_PLANS {
            self.lent.pop_front();
        }
        self.lent.push_back((virtual_now(), lent));
    }

    /// The most that other regions were owed of a pool lately.
    fn most_lent(&self, pool: &PoolName, window: Duration) -> u32 {
        let recent = self.lent.iter().filter(|(at, _)| virtual_now().saturating_sub(*at) <= window);
        recent.filter_map(|(_, lent)| lent.get(pool)).max().copied().unwrap_or(0)
    }

    /// What is not over cannot be known: this needs no patience.
    fn judge_future(&self, plan: &RegionalResourcePlan, forecasts: &[ForecastView]) {
        let over = self.config.step.index(wall_time(virtual_now())).offset(-1);
        if plan.known_until > over {
            self.broken(Rule::Knows, format!("the plan knows step {}, only {} is over", plan.known_until.0, over.0));
        }
        let known = forecasts.iter().map(|forecast| forecast.prediction.path.start().offset(-1)).max();
        if let Some(known) = known.filter(|known| *known > over) {
            self.broken(Rule::Knows, format!("a forecast knows step {}, only {} is over", known.0, over.0));
        }
    }

    fn judge_floor(&self, decision: &PoolDecision) {
        if decision.blocked.is_none() && decision.active < decision.reason.reactive_floor {
            let (active, floor) = (decision.active, decision.reason.reactive_floor);
            self.broken(Rule::Floored, format!("pool {}: {active} are to serve, {floor} are needed for what was seen last", decision.pool));
        }
    }

    /// An agent that was lied to so plainly has to say it.
    fn judge_warning(&self) {
        let since = self.client.book.borrow().lied_to.get(&(self.client.region.clone(), self.life)).copied();
        if let Some(since) = since.filter(|since| !self.warned && virtual_now().saturating_sub(*since) > WARNING) {
            self.broken(Rule::Warns, format!("a state of another region was pushed to it at {since:?}, and no event says so"));
        }
    }

    /// One of the others in turn: whether its newest forecasts are here.
    async fn judge_promptness(&mut self, views: &[RegionView]) -> anyhow::Result<()> {
        let Some(other) = self.others.get(self.looks % self.others.len().max(1)).cloned() else { return Ok(()) };
        let since = self.client.book.borrow().reachable_since.get(&pair(&self.client.region, &other)).copied();
        let told = views.iter().any(|view| view.region == other && view.live && view.forecasts > 0 && view.dropped.forecasts == 0);
        if since.is_none_or(|since| virtual_now().saturating_sub(since) < PROMPT_SETTLING) || !told {
            return Ok(());
        }
        let before = virtual_now();
        let held: Vec<ForecastView> = self.client.get(&format!("/v1/forecasts?from={other}&to={}", self.client.region)).await?;
        let Some(known) = held.iter().map(|view| view.prediction.path.start().offset(-1)).max() else { return Ok(()) };
        let due = self.config.step.index(wall_time(before.saturating_sub(self.config.ingest.close_after + PROMPT))).offset(-1);
        self.prompt.0 += 1;
        self.prompt.1 += u32::from(known < due);
        let (looks, behind) = self.prompt;
        if looks >= PROMPT_LOOKS {
            if BEHIND * behind > looks {
                self.broken(
                    Rule::Prompt,
                    format!("in {behind} of {looks} looks the others' last step was missing {PROMPT:?} after its close"),
                );
            }
            self.prompt = (0, 0);
        }
        Ok(())
    }

    fn judge_time(&mut self, plan: &RegionalResourcePlan, forecasts: &[ForecastView]) {
        let step = self.config.step;
        let over = step.index(wall_time(virtual_now())).offset(-1);
        let good = |closed: StepIndex| (over.offset(-1)..=over).contains(&closed);
        let wrong = (!good(plan.known_until)).then(|| format!("the plan knows step {}, step {} is over", plan.known_until.0, over.0));
        self.suspect(Rule::Timely, "plan", wrong, PATIENCE);
        let wrong = forecasts.iter().find_map(|forecast| {
            let known = forecast.prediction.path.start().offset(-1);
            let good = (plan.known_until..=plan.known_until.offset(1)).contains(&known);
            (!good).then(|| format!("a forecast knows step {}, the plan step {}", known.0, plan.known_until.0))
        });
        self.suspect(Rule::Timely, "forecasts", wrong, PATIENCE);
    }

    fn judge_sources(&mut self, plan: &RegionalResourcePlan, views: &[RegionView]) {
        // A plan is a step old at most, and then so much younger was what it was made from.
        let bound = self.config.planner.stale_after + 2 * self.config.step.length();
        // What did not fit into a state was perhaps never known here.
        let old = |view: &&RegionView| {
            view.forecasts > 0 && view.dropped.forecasts == 0 && view.age_ms.is_some_and(|age| u128::from(age) > bound.as_millis())
        };
        let wrong = views.iter().filter(|view| !view.this).filter(old).find_map(|view| {
            let named = plan.decisions.iter().all(|decision| decision.reason.stale_sources.contains(&view.region));
            (!named).then(|| format!("the state of {} is {} ms old, and not among the stale", view.region, view.age_ms.unwrap_or_default()))
        });
        self.suspect(Rule::Doubts, "sources", wrong, PATIENCE);
    }

    /// A plan against those before it, in the same life.
    fn judge_patience(&self, plan: &RegionalResourcePlan, decision: &PoolDecision) {
        let Some(pool) = self.config.pools.iter().find(|pool| pool.name == decision.pool) else { return };
        let waits = self.config.step.count_covering(self.config.planner.scale_in_after);
        let from = plan.known_until.offset(-i64::from(waits));
        let total = u64::from(decision.active) + u64::from(decision.warm);
        let needed = self.plans.iter().filter(|(_, earlier)| (from..plan.known_until).contains(&earlier.known_until));
        let needed = needed.flat_map(|(_, earlier)| &earlier.decisions).filter(|earlier| earlier.pool == decision.pool);
        let needed = needed.map(|earlier| need(earlier, pool)).max().unwrap_or(0);
        if decision.blocked.is_none() && total < needed {
            self.broken(Rule::Patient, format!("pool {}: {total} planned, {needed} were needed less than {waits} steps ago", pool.name));
        }
    }

    fn judge_reach(&self, decision: &PoolDecision) {
        let Some(pool) = self.config.pools.iter().find(|pool| pool.name == decision.pool) else { return };
        if u128::from(decision.reason.lead_ms) < pool.startup.as_millis() {
            let lead = decision.reason.lead_ms;
            self.broken(Rule::Foresees, format!("pool {}: the plan looks {lead} ms ahead, a start takes {:?}", pool.name, pool.startup));
        }
    }

    /// What exists against what the last plans asked for: within their range, since the newest has had no time yet.
    fn judge_pool(&mut self, pool: &PoolConfig) {
        let (now, window) = (virtual_now(), pool.startup + SETTLING);
        if self.is_troubled(window) || now.saturating_sub(self.since) < 2 * window {
            return;
        }
        let recent = self.plans.iter().filter(|(at, _)| now.saturating_sub(*at) <= window).flat_map(|(_, plan)| &plan.decisions);
        let recent: Vec<&PoolDecision> = recent.filter(|decision| decision.pool == pool.name).collect();
        let range = |of: &dyn Fn(&PoolDecision) -> u32| Some((recent.iter().map(|d| of(d)).min()?, recent.iter().map(|d| of(d)).max()?));
        let (Some(all), Some(active)) = (range(&|d| d.active + d.warm), range(&|d| d.active)) else { return };
        let census = self.census(pool);
        let count = |wanted: &dyn Fn(InstanceState) -> bool| census.iter().filter(|instance| wanted(instance.state)).count() as u32;
        let exist = count(&|state| state != InstanceState::Draining);
        let serve = count(&|state| state == InstanceState::Active);
        let lent = self.most_lent(&pool.name, window);
        let judge = |what: &str, found: u32, (least, most): (u32, u32)| {
            let most = most + lent;
            (!(least..=most).contains(&found))
                .then(|| format!("pool {}: {found} instances {what}, {least} to {most} were planned", pool.name))
        };
        let all = (all.0, all.1 + on_top(pool));
        let (exist, serve) = (judge("exist", exist, all), judge("serve", serve, active));
        self.suspect(Rule::Planned, "exist", exist, PATIENCE);
        self.suspect(Rule::Planned, "serve", serve, PATIENCE);
    }

    /// More than any recent plan asked for is too much at once, not only when it stays.
    async fn judge_excess(&mut self) -> anyhow::Result<()> {
        if !self.is_calm() || self.config.mode != Mode::Active || self.life != self.client.machine.boots() {
            return Ok(());
        }
        for pool in self.config.pools.clone() {
            if virtual_now().saturating_sub(self.since) < 2 * (pool.startup + SETTLING) || self.is_troubled(pool.startup + SETTLING) {
                continue;
            }
            let exist = self.census(&pool).iter().filter(|instance| instance.state != InstanceState::Draining).count();
            if self.most_planned(&pool).is_some_and(|most| exist > most as usize) {
                // They may have been asked for since the last look.
                let plan: RegionalResourcePlan = self.client.get("/v1/plan").await?;
                self.note_plan(plan);
                let reservations: Reservations = self.client.get("/v1/reservations").await?;
                self.note_lent(&reservations);
            }
            let Some(most) = self.most_planned(&pool) else { continue };
            let wrong =
                (exist > most as usize).then(|| format!("pool {}: {exist} instances exist, {most} at most were planned", pool.name));
            self.suspect(Rule::Planned, "excess", wrong, EXCESS_PATIENCE);
        }
        Ok(())
    }

    /// The most that any plan of late asked for, and what other regions were owed beside.
    fn most_planned(&self, pool: &PoolConfig) -> Option<u32> {
        let window = pool.startup + SETTLING;
        let recent = self.plans.iter().filter(|(at, _)| virtual_now().saturating_sub(*at) <= window).flat_map(|(_, plan)| &plan.decisions);
        let most = recent.filter(|decision| decision.pool == pool.name).map(|decision| decision.active + decision.warm).max()?;
        Some(most + on_top(pool) + self.most_lent(&pool.name, window))
    }

    /// Remembers a plan that was not seen before; whether it was not.
    fn note_plan(&mut self, plan: RegionalResourcePlan) -> bool {
        let new = self.plans.back().is_none_or(|(_, last)| last.version != plan.version);
        if new {
            if self.plans.len() == MAX_PLANS {
                self.plans.pop_front();
            }
            self.plans.push_back((virtual_now(), plan));
        }
        new
    }

    fn judge_versions(&mut self, views: &[RegionView]) {
        for view in views {
            let version = (view.generation, view.sequence);
            let newest = self.versions.insert(view.region.clone(), version).filter(|newest| version < *newest);
            if let Some(newest) = newest {
                self.broken(Rule::Onward, format!("{} is shown in life and version {version:?} after {newest:?}", view.region));
            }
        }
    }

    /// Reports what has been wrong for long enough.
    fn suspect(&mut self, rule: Rule, what: &'static str, wrong: Option<String>, patience: u32) {
        let Some(words) = wrong else {
            self.wrong.remove(&(rule, what));
            return;
        };
        let times = self.wrong.entry((rule, what)).or_default();
        *times += 1;
        if *times >= patience {
            self.broken(rule, words);
        }
    }

    fn broken(&self, rule: Rule, what: String) {
        self.client.book.borrow_mut().see(&self.client.region, Sight::Broken(rule, what));
    }
}

/// Instances that a decision's own figures ask for, before any limit, and with what is to be warm on top.
fn need(decision: &PoolDecision, pool: &PoolConfig) -> u64 {
    // As the planner rounds, less what a figure loses on its way through JSON.
    let by_demand = (decision.reason.demand_rate / pool.rate_per_instance * (1.0 - 1e-9)).ceil() as u64;
    let by_warmth = if pool.min_warm > 0 { u64::from(decision.active) + u64::from(pool.min_warm) } else { 0 };
    by_demand.max(by_warmth).max(u64::from(decision.reason.reactive_floor))
}

/// How many instances may be there beyond a plan: one of the other market, while it takes the place of one that is there.
fn on_top(pool: &PoolConfig) -> u32 {
    u32::from(pool.spot.is_some())
}
