//! The reconciler against a small world that obeys it.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use tradewind_protocol::api::InstanceState::{Active, Draining, Starting, Warm};

const LIMITS: Limits = Limits { min_instances: 0, max_instances: 6, min_warm: 0, start_deadline: Duration::from_secs(100) };

fn member(name: &str, state: InstanceState, age: u64) -> Member {
    let id = InstanceId::new(name).unwrap();
    Member { id, state, age: Duration::from_secs(age), in_flight: None, waits: false, broken: false, rank: 0, market: Market::OnDemand }
}

fn orders(desired: (u32, u32), members: &[Member]) -> Vec<String> {
    let desired = Desired { active: desired.0, warm: desired.1, spot: 0, ..Default::default() };
    let said = |action| match action {
        Action::Start(_, _) => "start".into(),
        Action::Order(order, id, _) => format!("{order} {id}"),
    };
    reconcile(desired, &LIMITS, members).actions.into_iter().map(said).collect()
}

#[test]
fn warm_instances_are_activated_before_new_ones_are_started() {
    let members = [member("new", Warm, 1), member("old", Warm, 9)];
    assert_eq!(orders((1, 1), &members), ["activate old"]);
    assert_eq!(orders((2, 1), &members), ["activate old", "activate new", "start"]);
    assert_eq!(orders((1, 2), &members), ["activate old", "start"]);
}

#[test]
fn what_is_starting_is_waited_for() {
    assert_eq!(orders((2, 0), &[member("a", Starting, 1), member("b", Starting, 1)]), [""; 0]);
}

#[test]
fn scaling_in_cancels_then_gives_up_warm_then_drains_the_newest() {
    let members = [member("s", Starting, 1), member("w", Warm, 1), member("a1", Active, 9), member("a2", Active, 5)];
    assert_eq!(orders((2, 1), &members), ["stop s"]);
    assert_eq!(orders((2, 0), &members), ["stop s", "drain w"]);
    assert_eq!(orders((1, 0), &members), ["drain a2", "stop s", "drain w"]);
    assert_eq!(orders((1, 2), &members), ["deactivate a2", "stop s"]);
    assert_eq!(orders((0, 1), &members), ["drain a2", "drain a1", "stop s"]);
}

#[test]
fn orders_in_flight_count_as_carried_out_and_are_not_repeated() {
    let mut members = vec![member("a", Warm, 1), member("b", Starting, 1)];
    members[0].in_flight = Some(Order::Activate);
    members[1].in_flight = Some(Order::Start);
    assert_eq!(orders((1, 1), &members), [""; 0]);
    assert_eq!(orders((1, 0), &members), [""; 0], "a start in flight cannot be cancelled yet, and nothing else goes instead");
}

#[test]
fn nothing_is_started_in_the_place_of_what_is_about_to_return() {
    let mut members = vec![member("a", Warm, 1), member("b", Active, 1)];
    members[0].in_flight = Some(Order::Activate);
    members[1].in_flight = Some(Order::Deactivate);
    assert_eq!(orders((0, 2), &members), [""; 0]);
}

#[test]
fn draining_instances_take_room_until_they_are_gone() {
    let members: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| member(name, Draining, 1)).into();
    let round = reconcile(Desired { active: 3, warm: 0, spot: 0, ..Default::default() }, &LIMITS, &members);
    assert_eq!((round.actions.len(), round.waiting_for_room), (1, 2));
}

#[test]
fn what_hangs_or_disobeys_is_replaced() {
    let mut members = vec![member("late", Starting, 101), member("broken", Warm, 1), member("waiting", Warm, 1)];
    members[1].broken = true;
    members[2].waits = true;
    assert_eq!(orders((2, 0), &members), ["give up late", "stop broken", "start", "start"]);
    // Also what hangs does not always obey at once.
    (members[0].waits, members[1].waits) = (true, true);
    assert_eq!(orders((2, 0), &members), ["start", "start"]);
}

#[test]
fn limits_bound_what_is_desired() {
    let limits = Limits { min_instances: 2, min_warm: 1, ..LIMITS };
    for (desired, wanted) in [((0, 0), (2, 1)), ((9, 9), (6, 0)), ((4, 9), (4, 2))] {
        let clamped = limits.clamp(Desired { active: desired.0, warm: desired.1, spot: 0, ..Default::default() });
        assert_eq!((clamped.active, clamped.warm), wanted);
    }
}

/// A provider that obeys, some of the time at once.
struct World {
    members: Vec<Member>,
    next: u32,
}

impl World {
    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Start(market, _) => {
                self.members.push(Member { market: *market, ..member(&format!("new-{}", self.next), Starting, 0) });
                self.next += 1;
            }
            Action::Order(order, id, _) => {
                let member = self.members.iter_mut().find(|m| m.id == *id).expect("orders go to instances that exist");
                assert_eq!(member.in_flight, None, "one order at a time");
                match order {
                    Order::Activate => assert_eq!(member.state, Warm),
                    Order::Deactivate => assert_eq!(member.state, Active),
                    Order::Drain | Order::Stop => assert_ne!(member.state, Draining),
                    Order::GiveUp => assert_eq!(member.state, Starting),
                    Order::Start | Order::StartSpot => panic!("a start has no instance"),
                }
                member.in_flight = Some(*order);
            }
        }
    }

    /// Lets the order or the transition of member `which` happen.
    fn progress(&mut self, which: usize) {
        if self.members.is_empty() {
            return;
        }
        let at = which % self.members.len();
        let member = &mut self.members[at];
        let next = match (member.in_flight.take(), member.state) {
            (Some(Order::Activate), _) => Some(Active),
            (Some(Order::Deactivate), _) => Some(Warm),
            (Some(Order::Drain), _) => Some(Draining),
            (Some(Order::Stop | Order::GiveUp), _) | (None, Draining) => None,
            (Some(Order::Start | Order::StartSpot), _) => Some(Starting),
            (None, Starting) => Some(Warm),
            (None, state) => Some(state),
        };
        match next {
            Some(state) => member.state = state,
            None => drop(self.members.remove(at)),
        }
    }
}

fn any_member() -> impl Strategy<Value = (InstanceState, u64, Option<Order>)> {
    let state = prop::sample::select(vec![Starting, Warm, Active, Draining]);
    (state, 0u64..50, prop::bool::ANY).prop_map(|(state, age, busy)| {
        let order = match state {
            Starting => Order::Stop,
            Warm => Order::Activate,
            Active => Order::Deactivate,
            Draining => Order::Drain,
        };
        (state, age, busy.then_some(order))
    })
}

proptest! {
    /// From any state, under any interleaving: it converges, exceeds no limit on the way, never
    /// starts what it then ends, and then rests.
    #[test]
    fn it_converges_without_excess_or_thrashing(
        initial in prop::collection::vec(any_member(), 0..10),
        desired in (0u32..9, 0u32..9),
        progress in prop::collection::vec(0usize..100, 0..200),
    ) {
        let desired = Desired { active: desired.0, warm: desired.1, spot: 0, ..Default::default() };
        let wanted = LIMITS.clamp(desired);
        let members = initial.into_iter().enumerate().map(|(n, (state, age, in_flight))| {
            Member { in_flight, ..member(&format!("old-{n}"), state, age) }
        });
        let mut world = World { members: members.collect(), next: 0 };
        let before = world.members.len();
        let mut ordered = BTreeSet::new();
        let quiet = std::iter::repeat_n((0..40usize).rev(), 40).flatten();
        for which in progress.into_iter().chain(quiet) {
            let round = reconcile(desired, &LIMITS, &world.members);
            for action in &round.actions {
                world.carry_out(action);
                if let Action::Order(order, id, _) = action {
                    prop_assert!(!id.as_str().starts_with("new") || *order == Order::Activate, "{order} {id}: what was just started is ended again");
                    prop_assert!(ordered.insert((id.clone(), *order)), "{order} {id} twice");
                }
            }
            prop_assert!(world.members.len() <= before.max(LIMITS.max_instances as usize));
            prop_assert_eq!(reconcile(desired, &LIMITS, &world.members).actions, [], "asking again orders nothing more");
            world.progress(which);
        }
        let count = |state| world.members.iter().filter(|m| m.state == state).count() as u32;
        prop_assert_eq!((count(Active), count(Warm), count(Starting), count(Draining)), (wanted.active, wanted.warm, 0, 0));
    }

    /// The same with two markets: where there is room for one more, the mix becomes what is wanted, and nothing is missing meanwhile that was there.
    #[test]
    fn the_mix_is_reached_one_by_one(
        initial in prop::collection::vec((any_member(), any::<bool>()), 0..8),
        desired in (0u32..4, 0u32..3, 0u32..6),
        progress in prop::collection::vec(0usize..100, 0..200),
    ) {
        let desired = Desired { active: desired.0, warm: desired.1, spot: desired.2, ..Default::default() };
        let wanted = LIMITS.clamp(desired);
        let members = initial.into_iter().enumerate().map(|(n, ((state, age, in_flight), spot))| {
            let market = if spot { Market::Spot } else { Market::OnDemand };
            Member { in_flight, market, ..member(&format!("old-{n}"), state, age) }
        });
        let mut world = World { members: members.collect(), next: 0 };
        let ready = |world: &World| {
            let ready = |m: &&Member| matches!(m.state, Warm | Active) && !m.in_flight.is_some_and(Order::ends);
            world.members.iter().filter(ready).count() as u32
        };
        let mut ordered = BTreeSet::new();
        let quiet = std::iter::repeat_n((0..40usize).rev(), 80).flatten();
        for which in progress.into_iter().chain(quiet) {
            let before = ready(&world);
            // What goes makes way for what is exchanged next, and then there is nothing more to order.
            for asked in 0..3 {
                let round = reconcile(desired, &LIMITS, &world.members);
                prop_assert!(asked < 2 || round.actions.is_empty(), "{:?}", round);
                for action in &round.actions {
                    world.carry_out(action);
                    if let Action::Order(order, id, _) = action {
                        prop_assert!(!id.as_str().starts_with("new") || *order == Order::Activate, "{order} {id}: what was just started is ended again");
                        prop_assert!(ordered.insert((id.clone(), *order)), "{order} {id} twice");
                    }
                }
                prop_assert!(ready(&world) >= before.min(wanted.active + wanted.warm), "{:?}", round);
            }
            world.progress(which);
        }
        let count = |state| world.members.iter().filter(|m| m.state == state).count() as u32;
        prop_assert_eq!((count(Active), count(Warm), count(Starting), count(Draining)), (wanted.active, wanted.warm, 0, 0));
        let spot = world.members.iter().filter(|m| m.market == Market::Spot).count() as u32;
        prop_assert_eq!(spot, wanted.spot);
    }

    /// The same question has the same answer, in whatever order the members are listed.
    #[test]
    fn the_order_of_the_list_does_not_matter(initial in prop::collection::vec(any_member(), 0..10), desired in (0u32..9, 0u32..9), turn in 0usize..10) {
        let desired = Desired { active: desired.0, warm: desired.1, spot: 0, ..Default::default() };
        let mut members: Vec<Member> = initial.into_iter().enumerate().map(|(n, (state, age, in_flight))| {
            Member { in_flight, ..member(&format!("old-{n}"), state, age) }
        }).collect();
        let one = reconcile(desired, &LIMITS, &members);
        let by = turn.min(members.len());
        members.rotate_left(by);
        prop_assert_eq!(reconcile(desired, &LIMITS, &members), one);
    }
}

#[test]
fn what_the_last_provider_runs_goes_first_and_what_the_preferred_one_runs_serves_first() {
    let of = |rank, name: &str, state, age| Member { rank, ..member(name, state, age) };
    let active = [of(1, "stand-in", Active, 9), of(0, "preferred", Active, 1)];
    assert_eq!(orders((1, 0), &active), ["drain stand-in"], "although it is the older one");
    let warm = [of(1, "stand-in", Warm, 9), of(0, "preferred", Warm, 1)];
    assert_eq!(orders((1, 1), &warm), ["activate preferred"]);
}

#[test]
fn markets_are_exchanged_by_starting_first_and_ending_then() {
    let on = |market, name: &str, state| Member { market, ..member(name, state, 1) };
    let said = |members: &[Member]| {
        let action = |action| match action {
            Action::Start(market, _) => format!("start {market:?}"),
            Action::Order(order, id, _) => format!("{order} {id}"),
        };
        reconcile(Desired { active: 2, warm: 0, spot: 1, ..Default::default() }, &LIMITS, members)
            .actions
            .into_iter()
            .map(action)
            .collect::<Vec<_>>()
    };
    let old = [on(Market::OnDemand, "a", Active), on(Market::OnDemand, "b", Active)];
    let with = |state| [&old[..], &[on(Market::Spot, "s", state)]].concat();
    assert_eq!(said(&[]), ["start Spot", "start OnDemand"]);
    assert_eq!(said(&old), ["start Spot"]);
    assert_eq!(said(&with(Starting)), [""; 0], "it is waited for");
    assert_eq!(said(&with(Warm)), ["activate s"]);
    assert_eq!(said(&with(Active)), ["drain b"]);
    assert_eq!(said(&with(Active)[1..]), [""; 0]);
    let full: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| on(Market::OnDemand, name, Draining)).into();
    assert_eq!(said(&[&old[..], &full[..4]].concat()), [""; 0], "there is no room to exchange in");
}

/// Found by the simulator: one that hung and could not be ended was asked for again and again, on a market that had none.
#[test]
fn what_the_spot_market_has_none_of_is_bought_on_demand() {
    let starts = |none_on_spot, members: &[Member]| {
        let round = reconcile(Desired { active: 2, warm: 0, spot: 2, none_on_spot }, &LIMITS, members);
        let market = |action: &Action| if let Action::Start(market, _) = action { Some(*market) } else { None };
        round.actions.iter().filter_map(market).collect::<Vec<_>>()
    };
    let spot = |name, age| Member { market: Market::Spot, ..member(name, Starting, age) };
    assert_eq!(starts(false, &[spot("a", 1)]), [Market::Spot]);
    assert_eq!(starts(true, &[spot("a", 1)]), [Market::OnDemand]);
    let hanging = Member { waits: true, ..spot("b", 101) };
    assert_eq!(starts(true, &[spot("a", 1), hanging.clone()]), [Market::OnDemand]);
    assert_eq!(starts(true, &[hanging.clone(), hanging]), [Market::OnDemand; 2]);
}
