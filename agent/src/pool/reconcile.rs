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
//! - where a pool has several providers, those of the last one go before all newer ones.
//!
//! Invariant: no start lifts the number of existing instances, draining ones included, above
//! [`Limits::max_instances`]: their resources are not free before they are gone.

use crate::marks::{bug, sometimes};
use crate::provider::Order;
use std::fmt;
use std::time::Duration;
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// How many instances should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) active: u32,
    pub(crate) warm: u32,
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
        Desired { active, warm }
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
    pub(crate) standing: Obedience,
    /// Which of its pool's providers runs it, the preferred one being 0.
    pub(crate) rank: usize,
}

/// How an instance took its last orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obedience {
    /// As it should.
    Good,
    /// The last order failed, and it is too early to try again: not to be counted on.
    Waiting,
    /// It has failed so often that it is to be replaced.
    Broken,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start one more instance.
    Start(Reason),
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
    let wanted = limits.clamp(desired);
    let mut round = Round::default();
    let mut sides = Sides::sort(limits, members, &mut round.actions);
    let activated = sides.activate(wanted.active, &mut round.actions);
    let active = sides.active.count + activated;
    let missing = wanted.active.saturating_sub(active);
    let returning = sides.retire_active(active.saturating_sub(wanted.active), wanted.warm, &mut round.actions);

    let starting = if bug!("double-start") { 0 } else { sides.starting.count };
    let stand_by = sides.warm.count + starting + returning;
    let needed = missing + wanted.warm;
    if stand_by < needed {
        let room = limits.max_instances.saturating_sub(u32::try_from(members.len()).unwrap_or(u32::MAX));
        let room = if bug!("max-not-kept") { u32::MAX } else { room };
        let starts = (needed - stand_by).min(room);
        let serving = missing.saturating_sub(stand_by).min(starts);
        let reasons = std::iter::repeat_n(Reason::MoreActive, serving as usize);
        let reasons = reasons.chain(std::iter::repeat_n(Reason::MoreWarm, (starts - serving) as usize));
        round.actions.extend(reasons.map(Action::Start));
        round.waiting_for_room = needed - stand_by - starts;
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
    free: Vec<(usize, Duration, InstanceId)>,
}

impl Side {
    fn add(&mut self, member: &Member) {
        self.count += 1;
        if member.in_flight.is_none() && member.standing == Obedience::Good {
            self.free.push((member.rank, member.age, member.id.clone()));
        }
    }

    /// Takes out up to `count`: the last provider's first, and of these the newest.
    fn take_newest(&mut self, count: u32) -> Vec<InstanceId> {
        let keep = self.free.len().saturating_sub(count as usize);
        let taken: Vec<_> = self.free.drain(keep..).rev().map(|(_, _, id)| id).collect();
        self.count -= u32::try_from(taken.len()).unwrap_or(u32::MAX).min(self.count);
        taken
    }
}

#[derive(Default)]
struct Sides {
    starting: Side,
    warm: Side,
    active: Side,
}

impl Sides {
    /// Sorts the members, and ends those that there is no hope for.
    fn sort(limits: &Limits, members: &[Member], actions: &mut Vec<Action>) -> Self {
        let mut sides = Self::default();
        for member in members {
            let state = match member.in_flight {
                Some(Order::Drain | Order::Stop) => InstanceState::Draining,
                Some(Order::Activate) => InstanceState::Active,
                Some(Order::Deactivate) => InstanceState::Warm,
                Some(Order::Start) | None => member.state,
            };
            let overdue = state == InstanceState::Starting && member.age > limits.start_deadline;
            let hopeless = match member.standing {
                Obedience::Broken => Some(Reason::Broken),
                Obedience::Good | Obedience::Waiting => overdue.then_some(Reason::Overdue),
            };
            if let (Some(reason), None) = (hopeless, member.in_flight) {
                actions.push(Action::Order(Order::Stop, member.id.clone(), reason));
                continue;
            }
            match (state, member.standing) {
                // It serves, whatever it thinks of our orders.
                (InstanceState::Active, _) => sides.active.add(member),
                (InstanceState::Warm, Obedience::Good) => sides.warm.add(member),
                (InstanceState::Starting, Obedience::Good) => sides.starting.add(member),
                (InstanceState::Warm | InstanceState::Starting, Obedience::Waiting | Obedience::Broken) | (InstanceState::Draining, _) => {}
            }
        }
        for side in [&mut sides.starting, &mut sides.warm, &mut sides.active] {
            side.free.sort_by(|(r, a, x), (s, b, y)| r.cmp(s).then_with(|| b.cmp(a)).then_with(|| x.cmp(y)));
        }
        sides
    }

    /// Activates warm instances up to `wanted`; how many.
    fn activate(&mut self, wanted: u32, actions: &mut Vec<Action>) -> u32 {
        let missing = if bug!("activation-forgotten") { 0 } else { wanted.saturating_sub(self.active.count) as usize };
        let taken = missing.min(self.warm.free.len());
        for (_, _, id) in self.warm.free.drain(..taken) {
            actions.push(Action::Order(Order::Activate, id, Reason::MoreActive));
        }
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        self.warm.count -= taken.min(self.warm.count);
        taken
    }

    /// Takes `surplus` active instances out of service; as many of them as are wanted become warm.
    /// How many are going to, but have to wait for another order to be done: nothing needs to be
    /// started in their place.
    fn retire_active(&mut self, surplus: u32, wanted_warm: u32, actions: &mut Vec<Action>) -> u32 {
        let taken = self.active.take_newest(surplus);
        let busy = surplus - u32::try_from(taken.len()).unwrap_or(u32::MAX).min(surplus);
        for id in taken {
            let order = if self.warm.count < wanted_warm { Order::Deactivate } else { Order::Drain };
            if order == Order::Deactivate {
                sometimes!("pool.returned-to-warm");
                self.warm.count += 1;
            }
            actions.push(Action::Order(order, id, Reason::FewerActive));
        }
        busy.min(wanted_warm.saturating_sub(self.warm.count))
    }

    /// Ends `surplus` instances that do not serve: starting ones first, also when their turn has to
    /// wait for an order in flight.
    fn retire_stand_by(&mut self, surplus: u32, actions: &mut Vec<Action>) {
        let warm = surplus.saturating_sub(self.starting.count);
        for id in self.starting.take_newest(surplus) {
            actions.push(Action::Order(Order::Stop, id, Reason::FewerStandBy));
        }
        for id in self.warm.take_newest(warm) {
            actions.push(Action::Order(Order::Drain, id, Reason::FewerStandBy));
        }
    }
}

#[cfg(test)]
mod tests;
