//! What has to hold in every simulation, as named rules in plain words.
//!
//! The oracle is told what happens to the world and what the clients see; it knows from that which
//! agents can reach each other, and since when, and judges every sight. It never looks into an
//! agent: what is wrong must show outside.

use crate::net::ETHERNET_PAYLOAD_BYTES;
use crate::scenario::Expectations;
use crate::trace::Summary;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tradewind_protocol::RegionId;
use tradewind_protocol::api::RegionView;

/// Datagrams longer than the path carries that one agent may send another for each connection that the two have to make: QUIC finds the MTU by a
/// binary search between 1,200 and 1,452 bytes, of five sizes at most, each tried three times. Two connections that cross search both: 18 were
/// seen of them. The most of a whole run that any two in `gauntlet`, `relay` and `chaos` have sent was 44, where 64 were allowed.
const PROBES: u64 = 32;

/// The same for each time that the path becomes narrower: four bursts of losses tell QUIC so, of a few datagrams each.
const LOST_TO_NARROWER: u64 = 16;

/// How often QUIC looks anew whether the path has become wider.
const PROBED_AGAIN: Duration = Duration::from_secs(600);

/// Two agents that have not lost each other for so long go on with the connection that they had.
const SAME_CONNECTION: Duration = Duration::from_secs(10);

/// Of whom it is said that it could not go on.
pub(crate) const THE_SIMULATION: &str = "the simulation";

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// See [`Rule::text`], as for all of them.
    Converges,
    /// The state is fresh.
    Fresh,
    /// The dead are noticed.
    Detects,
    /// The byte budget is kept.
    Budget,
    /// The MTU is kept.
    Mtu,
    /// Nothing is wrong by the agents' own account.
    NoErrors,
    /// Acknowledged records are kept.
    Durable,
    /// Good records are taken.
    Takes,
    /// The API answers.
    Answers,
    /// Forecasts reach everyone.
    Forecasts,
    /// The agents run.
    Runs,
    /// Capacity is not exceeded.
    Bounded,
    /// What is planned is done.
    Planned,
    /// Scale-in waits.
    Patient,
    /// Old forecasts are not believed.
    Doubts,
    /// Plans look far enough ahead.
    Foresees,
    /// Every step is closed when it is over.
    Timely,
    /// Lives are numbered.
    Remembers,
    /// Views only advance.
    Onward,
    /// Ledgers promise no more than there is.
    Promises,
    /// A hold costs one round trip.
    Swift,
    /// Nobody knows the future.
    Knows,
    /// What was seen is served.
    Floored,
    /// Word travels at once.
    Prompt,
    /// Word travels by third parties.
    Relayed,
    /// Lies are told of.
    Warns,
    /// Memory is bounded.
    Slim,
    /// Databases stay small.
    Lean,
    /// Promises outlive their owner's restarts.
    Kept,
    /// And do not outlive their holder.
    Returns,
    /// So does everything else that is durable.
    Recovers,
    /// Plans do not oscillate.
    Steady,
    /// The report shows what the scenario wants.
    Figures,
}

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 33] = [
        Rule::Converges,
        Rule::Fresh,
        Rule::Detects,
        Rule::Budget,
        Rule::Mtu,
        Rule::NoErrors,
        Rule::Durable,
        Rule::Takes,
        Rule::Answers,
        Rule::Forecasts,
        Rule::Runs,
        Rule::Bounded,
        Rule::Planned,
        Rule::Patient,
        Rule::Doubts,
        Rule::Foresees,
        Rule::Timely,
        Rule::Remembers,
        Rule::Onward,
        Rule::Promises,
        Rule::Swift,
        Rule::Knows,
        Rule::Floored,
        Rule::Prompt,
        Rule::Relayed,
        Rule::Warns,
        Rule::Slim,
        Rule::Lean,
        Rule::Kept,
        Rule::Returns,
        Rule::Recovers,
        Rule::Steady,
        Rule::Figures,
    ];

    /// Whether it takes an inspector to judge it, who asks an agent about its capacity and after a restart: a scenario with a
    /// survey has none, and judges [`Recovers`](Rule::Recovers) by the receipts of batches only.
    pub fn is_inspected(self) -> bool {
        match self {
            Rule::Bounded
            | Rule::Planned
            | Rule::Patient
            | Rule::Doubts
            | Rule::Foresees
            | Rule::Timely
            | Rule::Remembers
            | Rule::Onward
            | Rule::Swift
            | Rule::Knows
            | Rule::Floored
            | Rule::Prompt
            | Rule::Warns
            | Rule::Kept
            | Rule::Returns
            | Rule::Recovers
            | Rule::Steady => true,
            Rule::Converges
            | Rule::Fresh
            | Rule::Detects
            | Rule::Budget
            | Rule::Mtu
            | Rule::NoErrors
            | Rule::Durable
            | Rule::Takes
            | Rule::Answers
            | Rule::Forecasts
            | Rule::Runs
            | Rule::Promises
            | Rule::Relayed
            | Rule::Slim
            | Rule::Lean
            | Rule::Figures => false,
        }
    }

    /// The rule in words.
    pub fn text(self) -> &'static str {
        match self {
            Rule::Converges => "two agents that can reach each other for the convergence bound see each other live, in the newest life",
            Rule::Fresh => "what an agent holds of a region that it can reach is never older than the freshness bound",
            Rule::Detects => "an agent that nobody can reach for the detection bound is not seen live",
            Rule::Budget => "what a region publishes never exceeds its byte budget",
            Rule::Mtu => "no datagram is longer than Ethernet carries, and none but a few probes longer than the path does",
            Rule::NoErrors => "no agent traces an event at level ERROR",
            Rule::Durable => "a record that was acknowledged is counted, exactly once, also after a power cut",
            Rule::Takes => "a well-formed record is not refused",
            Rule::Answers => "an agent that has been up for the convergence bound answers its API",
            Rule::Forecasts => "at the end every agent holds forecasts of every region that it can reach and that has traffic",
            Rule::Runs => "no agent ends by itself",
            Rule::Bounded => "a pool's instances never take more than its capacity, nor are more than its maximum",
            Rule::Planned => "the instances that exist, and those that serve, are as many as the plans of the last steps asked for",
            Rule::Patient => "no plan takes away what a plan within the scale-in time before it needed",
            Rule::Doubts => "a plan names every region as stale whose state is older than the bound",
            Rule::Foresees => "a plan looks further ahead than an instance takes to start",
            Rule::Timely => "the last closed step is the last or the last but one that is over, for plans and forecasts alike",
            Rule::Remembers => "no agent begins a life under a number that an earlier life had",
            Rule::Onward => "in one life an agent never shows a region in an older life or version than before",
            Rule::Promises => "no ledger promises more than its pool has, at any instant of any window (R1, R1s, R3, R6), after every step",
            Rule::Swift => "a hold in another region is answered after one round trip and the owner's commit",
            Rule::Knows => "no plan and no forecast knows a step that is not over",
            Rule::Floored => "a plan that nothing limits serves at least what live load needs",
            Rule::Prompt => "mostly an agent holds another's newest forecasts a moment after they were made",
            Rule::Relayed => "what an agent holds of a region that only third parties reach is not older than the relay bound",
            Rule::Warns => "an agent to which a peer pushes another region's state says so in its events",
            Rule::Slim => "no agent goes on and on taking memory",
            Rule::Lean => "no agent's database grows beyond its bound",
            Rule::Kept => "no owner forgets a reservation that its holder may still rely upon, also after a restart (R2, R5)",
            Rule::Returns => {
                "no owner keeps anything for a holder that has been cut off for longer than its reservations are good for (R4)"
            }
            Rule::Recovers => "after a restart an agent shows all durable state that it showed or acknowledged before",
            Rule::Steady => "no plan goes up and down without what it needs doing so",
            Rule::Figures => "the report's figures keep the bounds that the scenario sets",
        }
    }
}

/// A rule that did not hold, about one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Of whom, or of whom about whom.
    pub subject: String,
    /// What was seen first.
    pub what: String,
    /// When, in seconds of the simulation.
    pub first_s: f64,
    /// When it was seen last.
    pub last_s: f64,
    /// How often it was seen.
    pub times: u64,
}

/// How long the views took to be right again after something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// After what.
    pub after: String,
    /// When that was, in seconds of the simulation.
    pub at_s: f64,
    /// How long it took until every view that was looked at was right, in seconds.
    pub took_s: f64,
}

/// Which agents are up and can reach each other.
pub trait Topology {
    /// Whether the agent's machine is up.
    fn is_up(&self, region: &RegionId) -> bool;
    /// Whether datagrams pass between two machines.
    fn is_connected(&self, a: &RegionId, b: &RegionId) -> bool;
    /// Whether no datagram passes between two machines in either direction.
    fn is_apart(&self, a: &RegionId, b: &RegionId) -> bool {
        !self.is_connected(a, b)
    }
    /// Whether the machine and its paths can be expected to keep the bounds.
    fn is_sound(&self, _region: &RegionId) -> bool {
        true
    }
}

/// Judges a simulation.
pub struct Oracle {
    regions: Vec<RegionId>,
    expect: Expectations,
    budget_bytes: u64,
    up_since: BTreeMap<RegionId, Duration>,
    /// Pairs, the smaller first, that are up and directly connected.
    reachable_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// Pairs that are not, but each of which is connected so with one same third region.
    relayed_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// Pairs between which there is no path at all, or one of which is down; since when the one can have had no news of the other.
    parted_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// Those of them of which something can be expected, and since when.
    apart_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// The generation that each agent gave as its own since it last booted.
    lives: BTreeMap<RegionId, u64>,
    /// Whether the newest view of each agent since the last change was right.
    right: BTreeSet<RegionId>,
    /// How many of the trace's errors have been judged.
    errors: usize,
    /// Datagrams longer than the path carried, by sender and receiver.
    oversized: BTreeMap<(RegionId, RegionId), u64>,
    /// The same of all senders, whoever they are.
    all_oversized: u64,
    /// The longest datagram so far.
    longest: usize,
    /// How often a path has become such that it carries only shorter datagrams, by sender and receiver.
    narrowed: BTreeMap<(RegionId, RegionId), u64>,
    /// How often each two have had to make a connection, the smaller name first, and when last.
    connections: BTreeMap<(RegionId, RegionId), (u64, Duration)>,
    unsettled: Option<(String, Duration)>,
    settled: Vec<Settled>,
    newest: BTreeMap<RegionId, Vec<RegionView>>,
    violations: BTreeMap<(Rule, String), Violation>,
}

impl Oracle {
    /// The judge of `regions`, none of which is up yet.
    pub fn new(regions: Vec<RegionId>, expect: Expectations, budget_bytes: u64) -> Self {
        Self {
            regions,
            expect,
            budget_bytes,
            up_since: BTreeMap::new(),
            reachable_since: BTreeMap::new(),
            relayed_since: BTreeMap::new(),
            parted_since: BTreeMap::new(),
            apart_since: BTreeMap::new(),
            lives: BTreeMap::new(),
            right: BTreeSet::new(),
            errors: 0,
            oversized: BTreeMap::new(),
            all_oversized: 0,
            longest: ETHERNET_PAYLOAD_BYTES,
            narrowed: BTreeMap::new(),
            connections: BTreeMap::new(),
            unsettled: None,
            settled: vec![],
            newest: BTreeMap::new(),
            violations: BTreeMap::new(),
        }
    }

    /// A machine has booted, perhaps in the very moment in which it had lost power: what its agent said of
    /// itself was said by its former life.
    pub fn on_new_life(&mut self, region: &RegionId) {
        self.up_since.remove(region);
        self.lives.remove(region);
        self.newest.remove(region);
        self.reachable_since.retain(|(a, b), _| a != region && b != region);
    }

    /// `what` has changed who is up or connected.
    pub fn on_change(&mut self, now: Duration, what: &str, topology: &impl Topology) {
        for region in &self.regions {
            if !topology.is_up(region) {
                self.up_since.remove(region);
                self.lives.remove(region);
                self.newest.remove(region);
            } else if !topology.is_sound(region) {
                // Its life goes on, but nothing can be expected of it.
                self.up_since.remove(region);
                self.newest.remove(region);
            } else {
                self.up_since.entry(region.clone()).or_insert(now);
            }
        }
        let groups = groups(&self.regions, topology);
        for (i, a) in self.regions.iter().enumerate() {
            for b in &self.regions[i + 1..] {
                let pair = pair(a, b);
                let sound = topology.is_sound(a) && topology.is_sound(b);
                if sound && topology.is_up(a) && topology.is_up(b) && topology.is_connected(a, b) {
                    if let Entry::Vacant(vacant) = self.reachable_since.entry(pair.clone()) {
                        vacant.insert(now);
                        let (times, last) = self.connections.entry(pair.clone()).or_insert((1, now));
                        if now.saturating_sub(*last) >= SAME_CONNECTION {
                            (*times, *last) = (*times + 1, now);
                        }
                    }
                } else {
                    self.reachable_since.remove(&pair);
                }
                let parted = groups.get(a).is_none_or(|group| groups.get(b) != Some(group));
                if parted {
                    self.parted_since.entry(pair.clone()).or_insert(now);
                } else {
                    self.parted_since.remove(&pair);
                }
                if sound && parted {
                    self.apart_since.entry(pair).or_insert(now);
                } else {
                    self.apart_since.remove(&pair);
                }
            }
        }
        self.share_news(&groups);
        self.relay(now);
        self.right.clear();
        self.unsettled = Some((what.into(), now));
    }

    /// Who can reach one that was in touch with a third later than itself has later news of it.
    fn share_news(&mut self, groups: &BTreeMap<RegionId, RegionId>) {
        // One that is down is a group of its own.
        let between = |(a, b): &(RegionId, RegionId)| pair(groups.get(a).unwrap_or(a), groups.get(b).unwrap_or(b));
        let mut latest: BTreeMap<(RegionId, RegionId), Duration> = BTreeMap::new();
        for (regions, since) in &self.parted_since {
            let latest = latest.entry(between(regions)).or_default();
            *latest = (*latest).max(*since);
        }
        for (regions, since) in &mut self.parted_since {
            *since = latest.get(&between(regions)).copied().unwrap_or(*since);
        }
        for (regions, since) in &mut self.apart_since {
            *since = self.parted_since.get(regions).map_or(*since, |parted| (*since).max(*parted));
        }
    }

    /// A third party that reaches all, whom nobody reckons among the agents, has passed on what an agent had told it: until then everyone
    /// can have had news of everyone.
    pub fn on_carried(&mut self, at: Duration) {
        for since in self.parted_since.values_mut().chain(self.apart_since.values_mut()) {
            *since = (*since).max(at);
        }
    }

    /// Finds the pairs that have to hear of each other through others.
    fn relay(&mut self, now: Duration) {
        let connected = |a: &RegionId, b: &RegionId| self.reachable_since.contains_key(&pair(a, b));
        let relayed = |a: &RegionId, b: &RegionId| {
            let up = [a, b].iter().all(|one| self.up_since.contains_key(*one));
            up && !connected(a, b) && self.regions.iter().any(|c| connected(a, c) && connected(c, b))
        };
        let pairs = self.regions.iter().enumerate().flat_map(|(i, a)| self.regions[i + 1..].iter().map(move |b| (a, b)));
        let relayed: BTreeSet<_> = pairs.filter(|(a, b)| relayed(a, b)).map(|(a, b)| pair(a, b)).collect();
        self.relayed_since.retain(|pair, _| relayed.contains(pair));
        for pair in relayed {
            self.relayed_since.entry(pair).or_insert(now);
        }
    }

    /// Since when each agent is up, and everything about it sound.
    pub(crate) fn sound_since(&self) -> &BTreeMap<RegionId, Duration> {
        &self.up_since
    }

    /// Since when each two agents, the smaller name first, are sound and reach each other.
    pub(crate) fn reachable_since(&self) -> &BTreeMap<(RegionId, RegionId), Duration> {
        &self.reachable_since
    }

    /// Between which two agents, the smaller name first, there is no path at all, and since when the one can have had no news of the other.
    pub(crate) fn parted_since(&self) -> &BTreeMap<(RegionId, RegionId), Duration> {
        &self.parted_since
    }

    /// What can be seen of an agent's part in the mesh, for the table of states and faults.
    pub fn state_of(&self, region: &RegionId, topology: &impl Topology) -> &'static str {
        if !topology.is_up(region) {
            "down"
        } else if !self.newest.contains_key(region) {
            "starting"
        } else if self.right.contains(region) {
            "settled"
        } else {
            "joining"
        }
    }

    /// `viewer` answered with its view of the mesh.
    pub fn on_views(&mut self, now: Duration, viewer: &RegionId, views: Vec<RegionView>) {
        // An answer that was under way when its agent died says nothing about the next life.
        if !self.up_since.contains_key(viewer) {
            return;
        }
        if let Some(own) = views.iter().find(|view| view.this) {
            self.lives.insert(viewer.clone(), own.generation);
        }
        let mut right = true;
        for subject in self.regions.clone() {
            let view = views.iter().find(|view| view.region == subject);
            if let Some(view) = view
                && u64::from(view.state_bytes) > self.budget_bytes
            {
                let what = format!("{} bytes, the budget is {}", view.state_bytes, self.budget_bytes);
                self.violated(now, Rule::Budget, subject.to_string(), what);
            }
            if subject != *viewer {
                right &= self.judge(now, viewer, &subject, view);
            }
        }
        self.newest.insert(viewer.clone(), views);
        if right {
            self.right.insert(viewer.clone());
        } else {
            self.right.remove(viewer);
        }
        if self.up_since.keys().all(|region| self.right.contains(region))
            && let Some((after, at)) = self.unsettled.take()
        {
            self.settled.push(Settled { after, at_s: at.as_secs_f64(), took_s: now.saturating_sub(at).as_secs_f64() });
        }
    }

    /// Share of the running agents whose last view was right.
    pub fn right_share(&self) -> f64 {
        self.right.len() as f64 / self.up_since.len().max(1) as f64
    }

    /// Whether `viewer` sees `subject` as it is, whatever time it has had to learn it.
    fn judge(&mut self, now: Duration, viewer: &RegionId, subject: &RegionId, view: Option<&RegionView>) -> bool {
        let (between, about) = (pair(viewer, subject), format!("{viewer} about {subject}"));
        let live = view.is_some_and(|view| view.live);
        if let Some(since) = self.reachable_since.get(&between).copied() {
            let known_life = view.is_some_and(|view| self.lives.get(subject).is_none_or(|life| *life == view.generation));
            let due = now.saturating_sub(since) > self.expect.converge;
            if due && !(live && known_life) {
                let what = match view {
                    None => "not known at all".into(),
                    Some(view) => format!("live: {live}, life {}, its own word {:?}", view.generation, self.lives.get(subject)),
                };
                self.violated(now, Rule::Converges, about.clone(), what);
            }
            let age = view.and_then(|view| view.age_ms);
            if due && let Some(age) = age.filter(|age| u128::from(*age) > self.expect.fresh.as_millis()) {
                self.violated(now, Rule::Fresh, about, format!("{age} ms old, the bound is {:?}", self.expect.fresh));
            }
            return live && known_life && age.is_some();
        }
        if let (Some(since), Some(bound)) = (self.relayed_since.get(&between).copied(), self.expect.relay)
            && now.saturating_sub(since) > self.expect.converge
            && let Some(age) = view.and_then(|view| view.age_ms).filter(|age| u128::from(*age) > bound.as_millis())
        {
            self.violated(now, Rule::Relayed, about.clone(), format!("{age} ms old, the bound is {bound:?}"));
        }
        if let Some(since) = self.apart_since.get(&between).copied() {
            if live && now.saturating_sub(since) > self.expect.detect {
                self.violated(now, Rule::Detects, about, format!("seen live {:?} after it was last reachable", now.saturating_sub(since)));
            }
            return !live;
        }
        // Connected through others only: both views are right.
        true
    }

    /// `region` gave no sensible answer.
    pub fn on_silence(&mut self, now: Duration, region: &RegionId, why: String) {
        if self.up_since.get(region).is_some_and(|since| now.saturating_sub(*since) > self.expect.converge) {
            self.violated(now, Rule::Answers, region.to_string(), why);
        }
    }

    /// A client found `rule` violated by itself.
    pub fn on_finding(&mut self, now: Duration, rule: Rule, region: &RegionId, what: String) {
        self.violated(now, rule, region.to_string(), what);
    }

    /// A figure of the report is not within its bound.
    pub fn on_figure(&mut self, now: Duration, figure: &str, what: String) {
        self.violated(now, Rule::Figures, figure.into(), what);
    }

    /// An agent ended, or the simulation could not go on.
    pub fn on_failure(&mut self, now: Duration, what: String) {
        self.violated(now, Rule::Runs, THE_SIMULATION.into(), what);
    }

    /// From now on the path from the one to the other carries only shorter datagrams than before.
    pub fn on_narrower(&mut self, from: &RegionId, to: &RegionId) {
        *self.narrowed.entry((from.clone(), to.clone())).or_default() += 1;
    }

    /// So much has been traced by now: judges what is new in it. `region_at` tells whose an address is; who has none may send what it likes.
    pub fn on_trace<'a>(&mut self, now: Duration, trace: &Summary, region_at: impl Fn(IpAddr) -> Option<&'a RegionId>) {
        for error in trace.first_errors.iter().skip(self.errors) {
            self.violated(now, Rule::NoErrors, "the trace".into(), error.trim_end().into());
        }
        self.errors = trace.first_errors.len();
        if trace.longest_packet > self.longest {
            self.longest = trace.longest_packet;
            self.violated(now, Rule::Mtu, "the longest".into(), format!("{} bytes", trace.longest_packet));
        }
        // Nothing new, as in nearly every step.
        let all = trace.oversized.values().sum();
        if std::mem::replace(&mut self.all_oversized, all) == all {
            return;
        }
        let mut counts: BTreeMap<(&RegionId, &RegionId), u64> = BTreeMap::new();
        for ((from, to), count) in &trace.oversized {
            if let (Some(from), Some(to)) = (region_at(from.ip()), region_at(to.ip())) {
                *counts.entry((from, to)).or_default() += count;
            }
        }
        for ((from, to), count) in counts {
            let path = (from.clone(), to.clone());
            let connections = self.connections.get(&pair(from, to)).map_or(1, |(times, _)| *times);
            let again = now.as_secs() / PROBED_AGAIN.as_secs();
            let narrowed = self.narrowed.get(&path).copied().unwrap_or(0);
            let allowed = PROBES * (connections + again) + LOST_TO_NARROWER * narrowed;
            let before = self.oversized.insert(path, count);
            if count > allowed && before != Some(count) {
                let what = format!("{count} datagrams longer than the path carries, where {allowed} find its MTU");
                self.violated(now, Rule::Mtu, format!("{from} to {to}"), what);
            }
        }
    }

    /// The end: judges what only the whole shows.
    pub fn on_end(&mut self, now: Duration, with_traffic: bool) {
        if with_traffic && self.regions.len() > 1 {
            for (viewer, views) in std::mem::take(&mut self.newest) {
                for subject in self.regions.clone() {
                    let reachable = self
                        .reachable_since
                        .get(&pair(&viewer, &subject))
                        .is_some_and(|since| now.saturating_sub(*since) > self.expect.converge);
                    if reachable && !views.iter().any(|view| view.region == subject && view.forecasts > 0) {
                        self.violated(now, Rule::Forecasts, format!("{viewer} about {subject}"), "holds none".into());
                    }
                }
            }
        }
    }

    fn violated(&mut self, now: Duration, rule: Rule, subject: String, what: String) {
        let at = now.as_secs_f64();
        let violation = self.violations.entry((rule, subject.clone())).or_insert_with(|| Violation {
            rule,
            subject,
            what,
            first_s: at,
            last_s: at,
            times: 0,
        });
        violation.last_s = at;
        violation.times += 1;
    }

    /// Everything that did not hold, by rule and subject.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.values()
    }

    /// How long the views took to be right after each change.
    pub fn settled(&self) -> &[Settled] {
        &self.settled
    }
}

/// The two, the smaller name first.
pub(crate) fn pair(a: &RegionId, b: &RegionId) -> (RegionId, RegionId) {
    if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

/// For every region that is up, the smallest one that it has a path to.
fn groups(regions: &[RegionId], topology: &impl Topology) -> BTreeMap<RegionId, RegionId> {
    let mut groups: BTreeMap<RegionId, RegionId> =
        regions.iter().filter(|region| topology.is_up(region)).map(|r| (r.clone(), r.clone())).collect();
    // Each round spreads the smallest name by a hop; there are no more hops than regions.
    for _ in regions {
        for (i, a) in regions.iter().enumerate() {
            for b in &regions[i + 1..] {
                let (Some(of_a), Some(of_b)) = (groups.get(a), groups.get(b)) else { continue };
                if !topology.is_apart(a, b) && of_a != of_b {
                    let smaller = of_a.min(of_b).clone();
                    groups.insert(a.clone(), smaller.clone());
                    groups.insert(b.clone(), smaller);
                }
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests;
