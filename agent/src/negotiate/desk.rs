//! Which claims are wanted, and which of them are asked for where: keeps what was asked of others in line with
//! what the newest plan lacks. Pure.
//!
//! Each gap is covered by claims of the same pool, slot and tier; what is missing is asked of the best
//! neighbour, and what that one does not grant, of the next. A neighbour that has just refused is left alone for
//! [`COOL_DOWN`]. Where nobody is left to ask for something firm, a soft promise is better than none. Claims on slots
//! that no plan lacked anything in for [`PATIENCE`] rounds are given back. Where a part is no use (`whole`), all that is missing is asked for at once,
//! of as many neighbours as it takes: they all hold it, or nobody does.
//!
//! Invariant: no slot is asked for more than it lacks, counting what is still being asked.

use super::gap::Gap;
use super::rank::{Candidate, Record};
use crate::config::ReservationConfig;
use std::collections::BTreeMap;
use std::time::Duration;
use tradewind_protocol::api::{ClaimView, Severity};
use tradewind_protocol::reservation::holder::{Failure, Holder, Input, MAX_CLAIMS, Needs, Output, Part, RequestId, Standing};
use tradewind_protocol::reservation::message::Message;
use tradewind_protocol::reservation::{Now, Offer, Phase, Terms, Tier, Window};
use tradewind_protocol::{PoolName, RegionId, ServiceName, TenantName};

/// How long a neighbour that did not grant something is not asked for the same slot again.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// Rounds of planning without a gap after which its claims are given back.
const PATIENCE: u32 = 3;
/// A gap below this share of one unit is none: it comes of rounding.
const WORTH_ASKING: f64 = 1e-6;
/// The most requests at a time: far below what the holder takes.
const MAX_REQUESTS: usize = MAX_CLAIMS / 4;

/// What is to be done, in order.
#[derive(Debug)]
pub(crate) enum Action {
    Send { to: RegionId, message: Message },
    Note(Severity, &'static str, String),
}

/// What a gap is told apart by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    pool: PoolName,
    window: Window,
    tier: Tier,
}

/// What a request was made for.
#[derive(Debug, Clone)]
struct Purpose {
    place: Place,
    /// What one unit of each owner asked serves, in transactions per second.
    rates: BTreeMap<RegionId, f64>,
    /// Whether it is asked for as it stands, without bargaining: it takes up an offer, or is wanted whole.
    settled: bool,
    granted: bool,
}

/// Counts of one life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were made.
    pub asked: u64,
    /// Requests that were granted.
    pub granted: u64,
    /// Requests that were refused, countered or not answered.
    pub refused: u64,
    /// Promises that ended before their window.
    pub lost: u64,
}

pub(crate) struct Desk {
    holder: Holder,
    /// Whose quota is asked for.
    tenant: TenantName,
    /// Whether a part of what is missing is no use.
    whole: bool,
    purposes: BTreeMap<RequestId, Purpose>,
    wanted: Vec<Gap>,
    candidates: BTreeMap<ServiceName, Vec<Candidate>>,
    /// Rounds since a place was last lacking something.
    idle: BTreeMap<Place, u32>,
    /// Until when a neighbour is not asked again for a place.
    cooling: BTreeMap<(RegionId, Place), Duration>,
    records: BTreeMap<RegionId, Record>,
    next_request: u64,
    stats: Stats,
}

impl Desk {
    pub(crate) fn new(holder: Holder, config: &ReservationConfig) -> Self {
        Self {
            holder,
            tenant: config.tenant.clone(),
            whole: config.whole,
            purposes: BTreeMap::new(),
            wanted: vec![],
            candidates: BTreeMap::new(),
            idle: BTreeMap::new(),
            cooling: BTreeMap::new(),
            records: BTreeMap::new(),
            next_request: 0,
            stats: Stats::default(),
        }
    }

    /// What the newest plan lacks, and who could help, by service, the best first.
    pub(crate) fn on_plan(&mut self, wanted: Vec<Gap>, candidates: BTreeMap<ServiceName, Vec<Candidate>>, now: Now) -> Vec<Action> {
        (self.wanted, self.candidates) = (wanted, candidates);
        self.cooling.retain(|(_, place), until| *until > now.uptime && place.window.until > now.wall);
        let mut out = vec![];
        self.give_back(now, &mut out);
        self.fill(now, &mut out);
        out
    }

    /// Anything the holder has to know.
    pub(crate) fn on_input(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut out = vec![];
        self.drive(input, now, &mut out);
        self.fill(now, &mut out);
        out
    }

    /// How long until a tick is due.
    pub(crate) fn next_deadline(&self, now: Now) -> Option<Duration> {
        self.holder.next_deadline(now).map(|(due, _)| due)
    }

    /// What became of earlier requests, by neighbour.
    pub(crate) fn records(&self) -> &BTreeMap<RegionId, Record> {
        &self.records
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    /// All claims.
    pub(crate) fn claims(&self, now: Now) -> Vec<ClaimView> {
        let view = |Standing { number, part, phase, valid_for, .. }: Standing| ClaimView {
            owner: part.owner,
            pool: part.pool,
            number,
            terms: part.terms,
            phase,
            valid_for_ms: u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX),
        };
        self.holder.standings(now).map(view).collect()
    }

    /// Gives back what has not been needed for long, unless it has begun.
    fn give_back(&mut self, now: Now, out: &mut Vec<Action>) {
        let lacking: Vec<Place> = self.wanted.iter().map(place_of).collect();
        for purpose in self.purposes.values() {
            let rounds = self.idle.entry(purpose.place.clone()).or_default();
            *rounds = if lacking.contains(&purpose.place) { 0 } else { rounds.saturating_add(1) };
        }
        self.idle.retain(|place, _| place.window.until > now.wall);
        let unneeded = |purpose: &&Purpose| {
            purpose.place.window.from > now.wall && self.idle.get(&purpose.place).is_some_and(|rounds| *rounds >= PATIENCE)
        };
        let over: Vec<RequestId> = self.purposes.iter().filter(|(_, purpose)| unneeded(purpose)).map(|(id, _)| *id).collect();
        for request in over {
            self.purposes.remove(&request);
            self.drive(Input::Drop(request), now, out);
        }
    }

    /// Asks for what is missing.
    fn fill(&mut self, now: Now, out: &mut Vec<Action>) {
        self.forget_ended(now);
        for gap in self.wanted.clone() {
            let place = place_of(&gap);
            if place.window.until <= now.wall {
                continue;
            }
            let mut missing = gap.rate - self.covered(&place, now);
            let mut parts: Vec<(Part, f64)> = vec![];
            for candidate in self.candidates.get(&gap.service).cloned().unwrap_or_default() {
                let rate = candidate.pool.rate_per_instance;
                if missing <= WORTH_ASKING * rate || self.purposes.len() + parts.len() >= MAX_REQUESTS {
                    break;
                }
                let is_among = parts.iter().any(|(part, _)| part.owner == candidate.region);
                if is_among || !self.may_be_asked(&candidate.region, &place, now) {
                    continue;
                }
                // At most what is free there, so the number is small.
                let units = (missing / rate - WORTH_ASKING).ceil().clamp(1.0, f64::from(candidate.free)) as u32;
                missing -= f64::from(units) * rate;
                let terms = Terms {
                    tenant: self.tenant.clone(),
                    unit: candidate.pool.instance,
                    units,
                    window: place.window,
                    tier: place.tier,
                    confidence: gap.confidence,
                };
                let part = Part { owner: candidate.region, pool: candidate.pool.name, terms };
                parts.push((part, rate));
            }
            let lacks = parts.last().is_none_or(|(_, rate)| missing > WORTH_ASKING * rate);
            let requests: Vec<Vec<(Part, f64)>> = match self.whole {
                true if lacks => vec![],
                true => vec![parts],
                false => parts.into_iter().map(|part| vec![part]).collect(),
            };
            for parts in requests {
                self.ask(&place, parts, self.whole, now, out);
            }
        }
    }

    /// Asks for `parts` of a place, all of them or nothing, each with what one unit of it serves.
    fn ask(&mut self, place: &Place, parts: Vec<(Part, f64)>, settled: bool, now: Now, out: &mut Vec<Action>) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.stats.asked += 1;
        for (part, _) in &parts {
            out.push(Action::Note(Severity::Info, "reserve.asked", format!("pool {}: asks {}", place.pool, in_words(part))));
        }
        let rates = parts.iter().map(|(part, rate)| (part.owner.clone(), *rate)).collect();
        self.purposes.insert(request, Purpose { place: place.clone(), rates, settled, granted: false });
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        self.drive(Input::Ask { request, parts, needs: Needs::All }, now, out);
    }

    fn drive(&mut self, input: Input, now: Now, out: &mut Vec<Action>) {
        for output in self.holder.handle(input, now) {
            match output {
                Output::Send { to, message } => out.push(Action::Send { to, message }),
                Output::Granted { request } => self.on_granted(request, now, out),
                Output::Refused { request, part, offers, why } => self.on_refused(request, *part, &offers, &why, now, out),
                Output::Lost { request, part, why } => self.on_lost(request, &part, &why, now, out),
            }
        }
    }

    fn on_granted(&mut self, request: RequestId, now: Now, out: &mut Vec<Action>) {
        let Some(purpose) = self.purposes.get_mut(&request) else { return };
        purpose.granted = true;
        let place = purpose.place.clone();
        self.stats.granted += 1;
        for standing in self.holder.standings(now).filter(|standing| standing.request == request) {
            let words = format!("pool {}: {} is agreed", place.pool, in_words(&standing.part));
            self.records.entry(standing.part.owner).or_default().kept += 1;
            out.push(Action::Note(Severity::Info, "reserve.agreed", words));
        }
    }

    fn on_refused(&mut self, request: RequestId, part: Part, offers: &[Offer], why: &Failure, now: Now, out: &mut Vec<Action>) {
        let Some(purpose) = self.purposes.remove(&request) else { return };
        self.stats.refused += 1;
        let words = format!("pool {}: {} is not granted: {why}", purpose.place.pool, in_words(&part));
        out.push(Action::Note(Severity::Info, "reserve.refused", words));
        self.cool(&part.owner, &purpose.place, now);
        let alike = |terms: &Terms| terms.window == part.terms.window && terms.unit == part.terms.unit;
        let is_last = !self.is_another_left(&part.owner, &purpose.place, now);
        let taken = offers.iter().find_map(|offer| match offer {
            Offer::Less { terms } if alike(terms) => Some(terms.clone()),
            // The next neighbour may have it firmly.
            Offer::OtherTier { terms } if alike(terms) && terms.tier == Tier::Soft && is_last => Some(terms.clone()),
            // Of a later slot the plan asks for itself what it lacks.
            Offer::Less { .. } | Offer::Later { .. } | Offer::OtherTier { .. } => None,
        });
        match taken {
            Some(terms) if !purpose.settled => {
                let rate = purpose.rates.get(&part.owner).copied().unwrap_or(0.0);
                self.ask(&purpose.place, vec![(Part { terms, ..part }, rate)], true, now, out);
            }
            Some(_) | None => self.records.entry(part.owner).or_default().failed += 1,
        }
    }

    fn on_lost(&mut self, request: RequestId, part: &Part, why: &Failure, now: Now, out: &mut Vec<Action>) {
        let Some(purpose) = self.purposes.remove(&request) else { return };
        self.stats.lost += 1;
        self.records.entry(part.owner.clone()).or_default().failed += 1;
        self.cool(&part.owner, &purpose.place, now);
        let words = format!("pool {}: {} is lost: {why}", purpose.place.pool, in_words(part));
        out.push(Action::Note(Severity::Warning, "reserve.lost", words));
    }

    fn cool(&mut self, region: &RegionId, place: &Place, now: Now) {
        self.cooling.insert((region.clone(), place.clone()), now.uptime.saturating_add(COOL_DOWN));
    }

    /// Transactions per second of a place that are claimed, or being asked for.
    fn covered(&self, place: &Place, now: Now) -> f64 {
        let of_place = |standing: &Standing| {
            let purpose = self.purposes.get(&standing.request).filter(|purpose| purpose.place == *place)?;
            purpose.rates.get(&standing.part.owner).copied()
        };
        self.holder.standings(now).filter_map(|standing| Some(of_place(&standing)? * f64::from(standing.part.terms.units))).sum()
    }

    /// Whether a neighbour is being asked for a place already.
    fn is_asked(&self, region: &RegionId, place: &Place, now: Now) -> bool {
        self.holder.standings(now).any(|standing| {
            standing.part.owner == *region
                && standing.phase != Some(Phase::Confirmed)
                && self.purposes.get(&standing.request).is_some_and(|purpose| purpose.place == *place)
        })
    }

    /// Whether there is a neighbour beside `owner` that may still be asked for a place.
    fn is_another_left(&self, owner: &RegionId, place: &Place, now: Now) -> bool {
        let service = self.wanted.iter().find(|gap| place_of(gap) == *place).map(|gap| &gap.service);
        let all = service.and_then(|service| self.candidates.get(service)).into_iter().flatten();
        all.map(|candidate| &candidate.region).any(|region| region != owner && self.may_be_asked(region, place, now))
    }

    /// Whether a neighbour neither has just refused a place nor is being asked for it.
    fn may_be_asked(&self, region: &RegionId, place: &Place, now: Now) -> bool {
        !self.cooling.contains_key(&(region.clone(), place.clone())) && !self.is_asked(region, place, now)
    }

    /// Forgets the purpose of requests that the holder has nothing of any more: their windows are over.
    fn forget_ended(&mut self, now: Now) {
        let stand: std::collections::BTreeSet<RequestId> = self.holder.standings(now).map(|standing| standing.request).collect();
        self.purposes.retain(|request, _| stand.contains(request));
    }
}

fn place_of(gap: &Gap) -> Place {
    Place { pool: gap.pool.clone(), window: gap.window, tier: gap.tier }
}

fn in_words(part: &Part) -> String {
    let tier = match part.terms.tier {
        Tier::Firm => "firm",
        Tier::Soft => "soft",
    };
    format!("{} for {} {tier} units of {}, {}", part.owner, part.terms.units, part.pool, part.terms.window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tradewind_protocol::pool::{MicroUsd, ResourcePool};
    use tradewind_protocol::reservation::Confidence;
    use tradewind_protocol::reservation::message::{Answer, Claim, Refusal};
    use tradewind_protocol::{InstanceCounts, Resources, Timestamp};

    const SLOT: Duration = Duration::from_secs(10);

    fn now(seconds: u64) -> Now {
        Now { wall: Timestamp::EPOCH.after(Duration::from_secs(seconds)), uptime: Duration::from_secs(seconds) }
    }

    fn candidate(region: &str, free: u32) -> Candidate {
        let cpu = |cpu_millis| Resources { cpu_millis, ..Resources::ZERO };
        let pool = ResourcePool {
            name: "web".parse().unwrap(),
            service: "shop".parse().unwrap(),
            capacity: cpu(1_000),
            in_use: Resources::ZERO,
            instance: cpu(100),
            rate_per_instance: 10.0,
            instances: InstanceCounts::default(),
            min_instances: 0,
            max_instances: 10,
            instance_hour_price: MicroUsd(1),
            startup_ms: 0,
        };
        Candidate { region: region.parse().unwrap(), pool, free, distance: 0.0, price: 0.0, doubt: 0.0 }
    }

    /// A lack of so much in the slot that begins at second 20.
    fn gap(tier: Tier, rate: f64) -> Gap {
        Gap {
            pool: "web".parse().unwrap(),
            service: "shop".parse().unwrap(),
            window: Window::of(Timestamp::EPOCH.after(2 * SLOT), SLOT),
            tier,
            confidence: Confidence::CERTAIN,
            rate,
        }
    }

    fn desk() -> Desk {
        desk_that_asks(false)
    }

    fn desk_that_asks(whole: bool) -> Desk {
        let config = ReservationConfig { whole, tenant: "acme".parse().unwrap(), ..ReservationConfig::default() };
        Desk::new(Holder::new(Default::default(), 1), &config)
    }

    fn plan(desk: &mut Desk, gaps: &[Gap], neighbours: &[Candidate], at: u64) -> Vec<(String, Message)> {
        let candidates = BTreeMap::from([("shop".parse().unwrap(), neighbours.to_vec())]);
        sent(desk.on_plan(gaps.to_vec(), candidates, now(at)))
    }

    fn answer(desk: &mut Desk, owner: &str, answer: Answer, at: u64) -> Vec<(String, Message)> {
        sent(desk.on_input(Input::Answered { owner: owner.parse().unwrap(), answer }, now(at)))
    }

    fn sent(actions: Vec<Action>) -> Vec<(String, Message)> {
        let message = |action| match action {
            Action::Send { to, message } => Some((to.to_string(), message)),
            Action::Note(..) => None,
        };
        actions.into_iter().filter_map(message).collect()
    }

    /// Whom the only message asks, for how many units of which tier; and the claim that it makes.
    fn hold(sent: &[(String, Message)]) -> (&str, u32, Tier, Claim, Terms) {
        let [(to, Message::Hold { number, nonce, terms, .. })] = sent else { panic!("{sent:?}") };
        (to, terms.units, terms.tier, Claim { number: *number, nonce: *nonce }, terms.clone())
    }

    #[test]
    fn what_is_lacking_is_asked_of_the_best_and_then_of_the_next_and_not_again_at_once() {
        let (mut desk, neighbours) = (desk(), [candidate("near", 8), candidate("far", 8)]);
        let asked = plan(&mut desk, &[gap(Tier::Firm, 35.0)], &neighbours, 1);
        let (to, units, tier, claim, terms) = hold(&asked);
        assert_eq!((to, units, tier, terms.tenant.as_str()), ("near", 4, Tier::Firm, "acme"));
        let next = answer(&mut desk, "near", Answer::Refused { claim, reason: Refusal::NoSuchPool }, 2);
        assert_eq!(hold(&next).0, "far");
        let (.., claim, _) = hold(&next);
        assert_eq!(answer(&mut desk, "far", Answer::Refused { claim, reason: Refusal::NoSuchPool }, 3), []);
        assert_eq!(plan(&mut desk, &[gap(Tier::Firm, 35.0)], &neighbours, 5), [], "both have just refused");
        assert_eq!(hold(&plan(&mut desk, &[gap(Tier::Firm, 35.0)], &neighbours, 13)).0, "near");
        assert_eq!((desk.stats().asked, desk.stats().refused), (3, 2));
    }

    #[test]
    fn fewer_are_taken_and_the_rest_is_asked_of_the_next() {
        let (mut desk, neighbours) = (desk(), [candidate("near", 8), candidate("far", 8)]);
        let asked = plan(&mut desk, &[gap(Tier::Firm, 50.0)], &neighbours, 1);
        let (.., claim, terms) = hold(&asked);
        let offers = vec![Offer::Less { terms: Terms { units: 2, ..terms } }];
        let next = answer(&mut desk, "near", Answer::Countered { claim, offers }, 2);
        let of = |region: &str| next.iter().filter(|(to, _)| to == region).cloned().collect::<Vec<_>>();
        assert_eq!((hold(&of("near")).1, hold(&of("far")).1, next.len()), (2, 3, 2));
    }

    #[test]
    fn a_soft_promise_is_taken_for_a_firm_one_where_nobody_else_is_left() {
        let soft = |terms: &Terms| vec![Offer::OtherTier { terms: Terms { tier: Tier::Soft, ..terms.clone() } }];
        let (mut desk, neighbours) = (desk(), [candidate("near", 8), candidate("far", 8)]);
        let asked = plan(&mut desk, &[gap(Tier::Firm, 20.0)], &neighbours, 1);
        let (.., claim, terms) = hold(&asked);
        let next = answer(&mut desk, "near", Answer::Countered { claim, offers: soft(&terms) }, 2);
        let (to, _, tier, claim, _) = hold(&next);
        assert_eq!((to, tier), ("far", Tier::Firm), "the other may have it firmly");
        let last = answer(&mut desk, "far", Answer::Countered { claim, offers: soft(&terms) }, 3);
        assert_eq!((hold(&last).0, hold(&last).2), ("far", Tier::Soft));
        assert_eq!(plan(&mut desk, &[gap(Tier::Firm, 20.0)], &neighbours, 4), [], "it covers the gap");
    }

    #[test]
    fn what_no_plan_has_lacked_for_three_rounds_is_given_back() {
        let (mut desk, neighbours) = (desk(), [candidate("near", 8)]);
        let asked = plan(&mut desk, &[gap(Tier::Firm, 20.0)], &neighbours, 1);
        let (.., claim, _) = hold(&asked);
        let confirm = answer(&mut desk, "near", Answer::Held { claim, phase: Phase::Held, ttl_ms: 30_000 }, 2);
        let [(_, Message::Confirm { claim: again, .. })] = &confirm[..] else { panic!("{confirm:?}") };
        assert_eq!(answer(&mut desk, "near", Answer::Held { claim: *again, phase: Phase::Confirmed, ttl_ms: 30_000 }, 3), []);
        assert_eq!(desk.records()["near"].kept, 1);
        let mut back = vec![];
        for round in 0..3 {
            assert_eq!(back, [], "patience: round {round}");
            back = plan(&mut desk, &[], &neighbours, 4 + round);
        }
        assert!(matches!(&back[..], [(to, Message::Release { number, .. })] if to == "near" && *number == claim.number), "{back:?}");
    }

    #[test]
    fn what_is_wanted_whole_is_asked_of_several_at_once_and_is_nothing_where_one_refuses() {
        let (mut desk, neighbours) = (desk_that_asks(true), [candidate("near", 3), candidate("far", 3), candidate("farther", 3)]);
        assert_eq!(plan(&mut desk, &[gap(Tier::Firm, 100.0)], &neighbours, 1), [], "they have nine units, and ten are missing");
        let asked = plan(&mut desk, &[gap(Tier::Firm, 50.0)], &neighbours, 2);
        let of = |sent: &[(String, Message)], region: &str| sent.iter().filter(|(to, _)| to == region).cloned().collect::<Vec<_>>();
        assert_eq!((hold(&of(&asked, "near")).1, hold(&of(&asked, "far")).1, asked.len()), (3, 2, 2));
        let (.., near, _) = hold(&of(&asked, "near"));
        let (.., far, terms) = hold(&of(&asked, "far"));
        let held = |claim, phase| Answer::Held { claim, phase, ttl_ms: 30_000 };
        assert_eq!(answer(&mut desk, "near", held(near, Phase::Held), 3), [], "not before the other holds, too");
        // Fewer would be taken up where a part is of use.
        let offers = vec![Offer::Less { terms: Terms { units: 1, ..terms } }];
        let next = answer(&mut desk, "far", Answer::Countered { claim: far, offers }, 3);
        assert!(of(&next, "near").iter().any(|(_, message)| matches!(message, Message::Release { number, .. } if *number == near.number)));
        let again = |region: &str| next.iter().filter(|(to, message)| to == region && matches!(message, Message::Hold { .. })).count();
        assert_eq!((again("near"), again("far"), again("farther")), (1, 0, 1), "it is asked anew of those that have not refused: {next:?}");
    }
}
