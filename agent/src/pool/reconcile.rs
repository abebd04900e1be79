//! From what should be and what is to what is to be done. Pure, and idempotent: what was ordered
//! counts as if it had happened, so asking again orders nothing twice.
//!
//! Order of preference, and the tie-breaks:
//!
//! - to serve more: activate warm instances, those of the preferred provider first, and of these the oldest (they have proved
//!   themselves longest); only what is still missing is started;
//! - to serve less: active instances return to warm if warm ones are wanted, and drain if not, the
//!   newest first (they have had the least time to gather sessions);
//! - to stand by less: cancel what is starting, then drain what is warm, the newest first;
//! - where a pool has several providers, those of the last one go before all newer ones;
//! - where it has two markets, what is started is bought where too few are, and what goes is of the one that has too many. Where both have what
//!   they should not, they are exchanged one by one: the new one is ready before the old one goes, as long as there is room for both.
//!
//! Invariant: no start lifts the number of existing instances, draining ones included, above
//! [`Limits::max_instances`]: their resources are not free before they are gone.

use crate::marks::{bug, sometimes};
use crate::provider::Order;
use std::fmt;
use std::time::Duration;
use tradewind_protocol::api::InstanceState;
use tradewind_protocol::{InstanceId, Market};

/// How many instances should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) active: u32,
    pub(crate) warm: u32,
    /// How many of them are to be bought on the spot market.
    pub(crate) spot: u32,
    /// That market sells none now: what is missing of it is bought on demand.
    pub(crate) none_on_spot: bool,
}

/// What a pool's configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) min_instances: u32,
    pub(crate) max_instances: u32,
    pub(crate) min_warm: u32,
    /// How long an instance may take to become warm before it is given up.
    pub(crate) start_deadline: Duration,
}

impl Limits {
    /// Those of a pool that is to become empty.
    pub(crate) const NOTHING: Limits =
        Limits { min_instances: 0, max_instances: 0, min_warm: 0, start_deadline: Duration::from_secs(3_600) };

    /// `desired` as far as it is allowed; active instances come before warm ones.
    pub(crate) fn clamp(&self, desired: Desired) -> Desired {
        let active = desired.active.max(self.min_instances).min(self.max_instances);
        let warm = desired.warm.max(self.min_warm).min(self.max_instances - active);
        Desired { active, warm, spot: desired.spot.min(active + warm), ..desired }
    }
}

/// One existing instance, or one that was ordered to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: InstanceId,
    pub(crate) state: InstanceState,
    /// How long it has been in that state.
    pub(crate) age: Duration,
    /// The order that is being carried out on it.
    pub(crate) in_flight: Option<Order>,
    /// Its last order failed, and it is too early for another.
    pub(crate) waits: bool,
    /// So many orders failed in a row that it is to be replaced.
    pub(crate) broken: bool,
    /// Which of its pool's providers runs it, the preferred one being 0.
    pub(crate) rank: usize,
    /// On which terms it was bought.
    pub(crate) market: Market,
}

impl Member {
    /// Whether it can be counted on to do what it is told.
    fn obeys(&self) -> bool {
        !self.waits && !self.broken
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start one more instance, bought on these terms.
    Start(Market, Reason),
    /// Give an order to an instance.
    Order(Order, InstanceId, Reason),
}

/// Why something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    MoreActive,
    MoreWarm,
    FewerActive,
    FewerStandBy,
    OtherMarket,
    Overdue,
    Broken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::MoreActive => "more active instances are wanted",
            Reason::MoreWarm => "more warm instances are wanted",
            Reason::FewerActive => "fewer active instances are wanted",
            Reason::FewerStandBy => "fewer instances are wanted on stand-by",
            Reason::OtherMarket => "one of the other market is to take its place",
            Reason::Overdue => "it takes too long to start",
            Reason::Broken => "it does not obey",
        })
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// In the order in which to do it: what serves first comes first.
    pub(crate) actions: Vec<Action>,
    /// Starts that must wait until draining or broken instances are gone.
    pub(crate) waiting_for_room: u32,
}

/// What to do so that `members` become what is `desired`.
pub(crate) fn reconcile(desired: Desired, limits: &Limits, members: &[Member]) -> Round {
    let mut wanted = limits.clamp(desired);
    let mut round = Round::default();
    let mut sides = Sides::sort(limits, members, wanted, &mut round.actions);
    let room = limits.max_instances.saturating_sub(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let exchanged = sides.exchanged(room);
    wanted.warm += exchanged;
    let activated = sides.activate(wanted.active, &mut round.actions);
    let active = sides.active.count + activated;
    let missing = wanted.active.saturating_sub(active);
    let returning = sides.retire_active(active.saturating_sub(wanted.active), wanted.warm, &mut round.actions);

    let starting = if bug!("double-start") { 0 } else { sides.starting.count };
    let stand_by = sides.warm.count + starting + returning;
    let needed = missing + wanted.warm;
    if stand_by < needed {
        let room = if bug!("max-not-kept") { u32::MAX } else { room };
        let starts = (needed - stand_by).min(room);
        let serving = missing.saturating_sub(stand_by).min(starts);
        let more_warm = if exchanged > 0 { Reason::OtherMarket } else { Reason::MoreWarm };
        let reasons = std::iter::repeat_n(Reason::MoreActive, serving as usize);
        let reasons = reasons.chain(std::iter::repeat_n(more_warm, (starts - serving) as usize));
        round.actions.extend(reasons.map(|reason| Action::Start(sides.mix.buy(), reason)));
        // What is exchanged can wait.
        round.waiting_for_room = needed.saturating_sub(exchanged + stand_by + starts);
        if round.waiting_for_room > 0 {
            sometimes!("pool.waits-for-room");
        }
    } else {
        sides.retire_stand_by(stand_by - needed, &mut round.actions);
    }
    round
}

/// The instances of one state, orders in flight counted as carried out.
#[derive(Default)]
struct Side {
    count: u32,
    /// Those that can be given an order now, with rank and age: the preferred provider's first, and of these the oldest.
    free: Vec<Free>,
}

/// An instance that can be given an order now.
struct Free {
    rank: usize,
    age: Duration,
    id: InstanceId,
    market: Market,
}

/// How many instances are too many, by market; negative where too few are.
#[derive(Debug, Clone, Copy, Default)]
struct Mix {
    on_demand: i64,
    spot: i64,
    /// The same without those that are starting.
    ready_on_demand: i64,
    ready_spot: i64,
}

impl Mix {
    fn of(&mut self, market: Market) -> &mut i64 {
        match market {
            Market::OnDemand => &mut self.on_demand,
            Market::Spot => &mut self.spot,
        }
    }

    /// What is missing of the spot market is to be had on demand only.
    fn none_on_spot(&mut self) {
        let missing = (-self.spot).max(0);
        (self.spot, self.ready_spot) = (self.spot + missing, self.ready_spot + missing);
        (self.on_demand, self.ready_on_demand) = (self.on_demand - missing, self.ready_on_demand - missing);
    }

    /// Where the next one is bought.
    fn buy(&mut self) -> Market {
        let market = if self.spot < 0 { Market::Spot } else { Market::OnDemand };
        *self.of(market) += 1;
        market
    }

    /// The market of which there are too many while there are none too many of the other, if so.
    fn surplus_of_all(&self) -> Option<Market> {
        match (self.on_demand > 0, self.spot > 0) {
            (true, false) => Some(Market::OnDemand),
            (false, true) => Some(Market::Spot),
            (true, true) | (false, false) => None,
        }
    }

    /// The market of which there are too many while there are too few of the other, if so.
    fn surplus(&self) -> Option<Market> {
        match (self.ready_on_demand > 0 && self.ready_spot < 0, self.ready_spot > 0 && self.ready_on_demand < 0) {
            (true, _) => Some(Market::OnDemand),
            (false, true) => Some(Market::Spot),
            (false, false) => None,
        }
    }
}

impl Side {
    fn add(&mut self, member: &Member) {
        self.count += 1;
        if member.in_flight.is_none() && member.obeys() {
            self.free.push(Free { rank: member.rank, age: member.age, id: member.id.clone(), market: member.market });
        }
    }

    /// Takes out up to `count`: those of a market that has too many first, then the last provider's, and of these the newest.
    fn take_newest(&mut self, count: u32, mix: &mut Mix) -> Vec<Free> {
        let mut taken = vec![];
        for _ in 0..count {
            let Some(last) = self.free.len().checked_sub(1) else { break };
            let surplus = self.free.iter().rposition(|free| *mix.of(free.market) > 0);
            let free = self.free.remove(surplus.unwrap_or(last));
            *mix.of(free.market) -= 1;
            taken.push(free);
        }
        self.count -= u32::try_from(taken.len()).unwrap_or(u32::MAX).min(self.count);
        taken
    }
}

#[derive(Default)]
struct Sides {
    starting: Side,
    warm: Side,
    active: Side,
    mix: Mix,
    /// The markets of those that are being activated.
    activated: Vec<Market>,
}

impl Sides {
    /// Sorts the members, and ends those that there is no hope for.
    fn sort(limits: &Limits, members: &[Member], wanted: Desired, actions: &mut Vec<Action>) -> Self {
        let (spot, on_demand) = (i64::from(wanted.spot), i64::from(wanted.active + wanted.warm - wanted.spot));
        let mix = Mix { on_demand: -on_demand, spot: -spot, ready_on_demand: -on_demand, ready_spot: -spot };
        let mut sides = Self { mix, ..Self::default() };
        for member in members {
            // One whose start is not answered yet may be ready already.
            let state = member.in_flight.filter(|order| !order.is_start()).map_or(member.state, Order::leads_to);
            let overdue = state == InstanceState::Starting && member.age > limits.start_deadline;
            let hopeless = match (overdue, member.broken) {
                (true, _) => Some((Order::GiveUp, Reason::Overdue)),
                (false, true) => Some((Order::Stop, Reason::Broken)),
                (false, false) => None,
            };
            if let (Some((order, reason)), None) = (hopeless, member.in_flight) {
                if !member.waits || bug!("end-not-delayed") {
                    actions.push(Action::Order(order, member.id.clone(), reason));
                }
                continue;
            }
            if state != InstanceState::Draining && (state == InstanceState::Active || member.obeys()) {
                *sides.mix.of(member.market) += 1;
                if member.in_flight == Some(Order::Activate) {
                    sides.activated.push(member.market);
                }
                match (member.market, state) {
                    (_, InstanceState::Starting) => {}
                    (Market::OnDemand, _) => sides.mix.ready_on_demand += 1,
                    (Market::Spot, _) => sides.mix.ready_spot += 1,
                }
            }
            match (state, member.obeys()) {
                // It serves, whatever it thinks of our orders.
                (InstanceState::Active, _) => sides.active.add(member),
                (InstanceState::Warm, true) => sides.warm.add(member),
                (InstanceState::Starting, true) => sides.starting.add(member),
                (InstanceState::Warm | InstanceState::Starting, false) | (InstanceState::Draining, _) => {}
            }
        }
        if wanted.none_on_spot {
            sides.mix.none_on_spot();
        }
        for side in [&mut sides.starting, &mut sides.warm, &mut sides.active] {
            side.free.sort_by(|a, b| a.rank.cmp(&b.rank).then_with(|| b.age.cmp(&a.age)).then_with(|| a.id.cmp(&b.id)));
        }
        sides
    }

    /// How many are to be there on top while they are exchanged for such of the other market: one, from when it is ordered until it is ready, if
    /// there is room for it.
    fn exchanged(&self, room: u32) -> u32 {
        let mix = &self.mix;
        let Some(surplus) = mix.surplus() else { return 0 };
        let lacking = match surplus {
            Market::OnDemand => mix.spot - mix.ready_spot,
            Market::Spot => mix.on_demand - mix.ready_on_demand,
        };
        // Otherwise there is no surplus to be had: what is ready is what is wanted, or less.
        let none_is_spare = mix.ready_on_demand + mix.ready_spot <= 0;
        u32::from(none_is_spare && (lacking > 0 || room > 0))
    }

    /// Activates warm instances up to `wanted`; how many.
    fn activate(&mut self, wanted: u32, actions: &mut Vec<Action>) -> u32 {
        let missing = if bug!("activation-forgotten") { 0 } else { wanted.saturating_sub(self.active.count) as usize };
        let taken = missing.min(self.warm.free.len());
        for free in self.warm.free.drain(..taken) {
            actions.push(Action::Order(Order::Activate, free.id, Reason::MoreActive));
        }
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        self.warm.count -= taken.min(self.warm.count);
        taken
    }

    /// Takes `surplus` active instances out of service; as many of them as are wanted become warm.
    /// How many are going to, but have to wait for another order to be done: nothing needs to be
    /// started in their place.
    fn retire_active(&mut self, surplus: u32, wanted_warm: u32, actions: &mut Vec<Action>) -> u32 {
        // What is exchanged goes once the other one serves.
        let awaited = self.mix.surplus_of_all().map_or(0, |market| self.activated.iter().filter(|other| **other != market).count());
        let going = surplus.saturating_sub(u32::try_from(awaited).unwrap_or(u32::MAX));
        let taken = self.active.take_newest(going, &mut self.mix);
        let busy = surplus - u32::try_from(taken.len()).unwrap_or(u32::MAX).min(surplus);
        for free in taken {
            let order = if self.warm.count < wanted_warm { Order::Deactivate } else { Order::Drain };
            if order == Order::Deactivate {
                sometimes!("pool.returned-to-warm");
                self.warm.count += 1;
                *self.mix.of(free.market) += 1;
            }
            actions.push(Action::Order(order, free.id, Reason::FewerActive));
        }
        busy.min(wanted_warm.saturating_sub(self.warm.count))
    }

    /// Ends `surplus` instances that do not serve: starting ones first, also when their turn has to
    /// wait for an order in flight.
    fn retire_stand_by(&mut self, surplus: u32, actions: &mut Vec<Action>) {
        let mut warm = surplus.saturating_sub(self.starting.count);
        for free in self.starting.take_newest(surplus, &mut self.mix) {
            actions.push(Action::Order(Order::Stop, free.id, Reason::FewerStandBy));
        }
        warm = warm.saturating_sub(self.spared(warm, actions));
        for free in self.warm.take_newest(warm, &mut self.mix) {
            actions.push(Action::Order(Order::Drain, free.id, Reason::FewerStandBy));
        }
    }

    /// How many of the `surplus` instances that stand by are not to go, since none of them is of the market that has too many: those of it that serve
    /// are. One that stands by begins to serve in the place of one of these, which goes in the next round.
    fn spared(&mut self, surplus: u32, actions: &mut Vec<Action>) -> u32 {
        let Some(market) = self.mix.surplus_of_all() else { return 0 };
        let of = |side: &Side| side.free.iter().any(|free| free.market == market);
        if surplus == 0 || of(&self.warm) {
            return 0;
        }
        if of(&self.active) && !self.warm.free.is_empty() {
            let free = self.warm.free.remove(0);
            self.warm.count -= 1;
            actions.push(Action::Order(Order::Activate, free.id, Reason::OtherMarket));
        }
        u32::try_from(*self.mix.of(market)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
