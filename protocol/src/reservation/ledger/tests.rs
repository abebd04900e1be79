//! The ledger's rules one by one. `protocol/tests/reservation` holds it against a naive one and under faults.

use super::*;
use crate::reservation::terms::{Confidence, Offer};
use invariants::{check, r6_placing_conserves};

fn cpu(cpu_millis: u64) -> Resources {
    Resources { cpu_millis, ..Resources::ZERO }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms).unwrap()
}

fn now(ms: i64) -> Now {
    Now { wall: at(ms), uptime: Duration::from_millis(ms as u64) }
}

fn id(number: u64) -> ReservationId {
    ReservationId::remote(&"east".parse().unwrap(), number)
}

fn instance(name: &str) -> InstanceId {
    name.parse().unwrap()
}

fn terms(tier: Tier, units: u32, from: i64, until: i64) -> Terms {
    let window = Window { from: at(from), until: at(until) };
    Terms { tenant: TenantName::default(), unit: cpu(1), units, window, tier, confidence: Confidence::nearest(0.5) }
}

const LONG: Duration = Duration::from_secs(1_000);

fn ledger(capacity: u64, overbooking_per_mille: u32) -> Ledger {
    Ledger::new(Config { overbooking_per_mille, ..Config::plain(cpu(capacity)) })
}

fn tell(ledger: &mut Ledger, input: Input, at: Now) -> (Vec<Output>, Result<Granted, Error>) {
    let outputs = ledger.handle(input, at);
    check(ledger).unwrap();
    r6_placing_conserves(ledger).unwrap();
    let answer = outputs.iter().find_map(|output| match output {
        Output::Reply(_, _, answer) => Some(answer.clone()),
        Output::Persist(_) | Output::Preempted { .. } | Output::Lapsed(_) => None,
    });
    (outputs, answer.unwrap())
}

fn hold(ledger: &mut Ledger, number: u64, terms: Terms, ms: i64) -> Result<Granted, Error> {
    tell(ledger, Input::Hold { id: id(number), terms, ttl: LONG, nonce: 1 }, now(ms)).1
}

fn offers(refusal: Result<Granted, Error>) -> Vec<Offer> {
    match refusal {
        Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. }) => offers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn windows_that_touch_share_the_same_room() {
    let mut ledger = ledger(10, 1_000);
    hold(&mut ledger, 1, terms(Tier::Firm, 10, 1_000, 5_000), 0).unwrap();
    hold(&mut ledger, 2, terms(Tier::Firm, 10, 5_000, 9_000), 0).unwrap();
    let refused = hold(&mut ledger, 3, terms(Tier::Firm, 1, 4_000, 6_000), 0).unwrap_err();
    assert_eq!(refused.to_string(), format!("cpu_millis=1 does not fit: of cpu_millis=10, cpu_millis=10 are promised at {}", at(4_000)));
}

#[test]
fn what_does_not_fit_is_answered_with_what_would() {
    let mut ledger = ledger(10, 1_500);
    hold(&mut ledger, 1, terms(Tier::Firm, 7, 0, 5_000), 0).unwrap();
    let asked = terms(Tier::Firm, 5, 1_000, 3_000);
    let offered = offers(hold(&mut ledger, 2, asked.clone(), 0));
    let later = Terms { window: Window { from: at(5_000), until: at(7_000) }, ..asked.clone() };
    let (less, soft) = (Terms { units: 3, ..asked.clone() }, Terms { tier: Tier::Soft, ..asked });
    assert_eq!(offered, [Offer::Less { terms: less }, Offer::Later { terms: later }, Offer::OtherTier { terms: soft }]);
    for (number, offer) in (3..).zip(offered) {
        let mut taken = ledger.clone();
        hold(&mut taken, number, offer.terms().clone(), 0).unwrap();
    }
    let too_many = offers(hold(&mut ledger, 9, terms(Tier::Firm, 11, 0, 100), 0));
    assert_eq!(too_many, [Offer::Less { terms: terms(Tier::Firm, 3, 0, 100) }], "never that many firmly, and 18 of 15 not softly either");
}

#[test]
fn firm_preempts_the_least_confident_only_as_far_as_needed_and_with_notice() {
    let mut ledger = Ledger::new(Config { overbooking_per_mille: 1_500, notice: Duration::from_secs(2), ..Config::plain(cpu(10)) });
    let sure = |confidence| Terms { confidence: Confidence::nearest(confidence), ..terms(Tier::Soft, 5, 0, 10_000) };
    hold(&mut ledger, 1, sure(0.2), 0).unwrap();
    hold(&mut ledger, 2, sure(0.9), 0).unwrap();
    hold(&mut ledger, 3, sure(0.4), 0).unwrap();
    assert!(hold(&mut ledger, 4, terms(Tier::Soft, 1, 0, 10_000), 0).is_err(), "15 of 15 are promised");
    let firm = Input::Hold { id: id(5), terms: terms(Tier::Firm, 6, 5_000, 6_000), ttl: LONG, nonce: 1 };
    let (outputs, answer) = tell(&mut ledger, firm, now(0));
    answer.unwrap();
    let preempted: Vec<&Output> = outputs.iter().filter(|output| matches!(output, Output::Preempted { .. })).collect();
    let leave = |number, ms| Output::Preempted { id: id(number), leave_by: at(ms) };
    assert_eq!(preempted, [&leave(1, 5_000), &leave(3, 5_000)], "they keep the part before");
    assert_eq!(ledger.get(&id(1)).unwrap().phase, Phase::Leaving);
    assert_eq!(ledger.get(&id(2)).unwrap().phase, Phase::Held);
    // One that begins within the notice leaves it to them, and counts no less.
    let firm = Input::Hold { id: id(6), terms: terms(Tier::Firm, 9, 500, 900), ttl: LONG, nonce: 1 };
    let (outputs, answer) = tell(&mut ledger, firm, now(100));
    answer.unwrap();
    assert!(outputs.contains(&leave(1, 2_100)), "{outputs:?}");
    assert_eq!(ledger.promised(at(600)).0, cpu(9));
}

#[test]
fn an_id_is_spent_by_its_end_even_if_the_end_arrives_first() {
    let mut ledger = ledger(10, 1_000);
    let wanted = terms(Tier::Firm, 1, 0, 100_000);
    tell(&mut ledger, Input::Release { id: id(1) }, now(0)).1.unwrap();
    assert_eq!(hold(&mut ledger, 1, wanted.clone(), 1), Err(Error::Spent));
    hold(&mut ledger, 2, wanted.clone(), 1).unwrap();
    assert!(hold(&mut ledger, 2, wanted.clone(), 2).is_ok(), "the same again is the same");
    assert_eq!(ledger.promised(at(50)).0, cpu(1));
    assert_eq!(hold(&mut ledger, 2, terms(Tier::Firm, 2, 0, 100), 3), Err(Error::Conflict));
    tell(&mut ledger, Input::Release { id: id(2) }, now(4)).1.unwrap();
    assert_eq!(tell(&mut ledger, Input::Refresh { id: id(2), nonce: 9 }, now(5)).1, Err(Error::Spent));
    assert_eq!(tell(&mut ledger, Input::Confirm { id: id(3), nonce: 1 }, now(5)).1, Err(Error::Unknown));
}

#[test]
fn spent_ids_are_few_and_the_low_water_mark_remembers_the_rest() {
    let mut ledger = ledger(10, 1_000);
    let holder: RegionId = "east".parse().unwrap();
    for number in 1..=3_000 {
        tell(&mut ledger, Input::Release { id: id(number) }, now(0)).1.unwrap();
    }
    assert!(ledger.holders[&holder].len() <= spent::MAX_SPENT);
    for number in [1, 1_500, 3_000] {
        assert_eq!(hold(&mut ledger, number, terms(Tier::Firm, 1, 0, 9), 0), Err(Error::Spent));
    }
    let outputs = ledger.handle(Input::Settled { holder: holder.clone(), below: 3_001 }, now(0));
    assert!(matches!(&outputs[..], [Output::Persist(Change::LowWater { below: 3_001, covers, .. })] if covers.len() == spent::MAX_SPENT));
    assert_eq!(ledger.holders[&holder].len(), 0);
    assert_eq!(hold(&mut ledger, 3_000, terms(Tier::Firm, 1, 0, 9), 0), Err(Error::Spent));
    hold(&mut ledger, 3_001, terms(Tier::Firm, 1, 0, 9), 0).unwrap();
}

#[test]
fn a_promise_stands_for_its_ttl_by_uptime_whatever_the_wall_clock_does() {
    let mut ledger = ledger(10, 1_000);
    let short = Duration::from_secs(10);
    let input = Input::Hold { id: id(1), terms: terms(Tier::Firm, 10, 0, 1_000_000), ttl: short, nonce: 1 };
    tell(&mut ledger, input, now(0)).1.unwrap();
    let jumped = |uptime: u64, wall: i64| Now { wall: at(wall), uptime: Duration::from_millis(uptime) };
    for (uptime, wall) in [(5_000, 500_000), (9_999, -500_000)] {
        ledger.handle(Input::Tick, jumped(uptime, wall));
        assert!(ledger.get(&id(1)).is_some());
    }
    tell(&mut ledger, Input::Refresh { id: id(1), nonce: 2 }, jumped(9_999, 0)).1.unwrap();
    // An older request that was overtaken renews nothing.
    tell(&mut ledger, Input::Refresh { id: id(1), nonce: 1 }, jumped(15_000, 0)).1.unwrap();
    assert!(ledger.handle(Input::Tick, jumped(19_998, 0)).is_empty());
    assert_eq!(ledger.next_deadline(jumped(19_998, 0)).unwrap().0, Duration::from_millis(1));
    let ended = ledger.handle(Input::Tick, jumped(19_999, 0));
    assert!(ended.contains(&Output::Lapsed(id(1))), "{ended:?}");
    hold(&mut ledger, 2, terms(Tier::Firm, 10, 0, 1_000_000), 20_000).unwrap();
}

#[test]
fn a_window_that_is_over_ends_only_when_clocks_cannot_disagree_any_more() {
    let mut ledger = ledger(10, 1_000);
    hold(&mut ledger, 1, terms(Tier::Firm, 10, 0, 5_000), 0).unwrap();
    ledger.handle(Input::Tick, now(15_000));
    assert!(ledger.get(&id(1)).is_some(), "the clock may have jumped by ten seconds");
    hold(&mut ledger, 2, terms(Tier::Firm, 10, 5_000, 20_000), 15_000).unwrap();
    ledger.handle(Input::Tick, now(5_000 + WALL_GUARD.as_millis() as i64));
    assert!(ledger.get(&id(1)).is_none());
}

#[test]
fn a_tenant_takes_no_more_than_its_quota() {
    let quotas = BTreeMap::from([("small".parse().unwrap(), 300)]);
    let mut ledger = Ledger::new(Config { quotas, default_quota_per_mille: Some(800), ..Config::plain(cpu(10)) });
    let of = |tenant: &str, units| Terms { tenant: tenant.parse().unwrap(), ..terms(Tier::Firm, units, 0, 1_000) };
    assert_eq!(offers(hold(&mut ledger, 1, of("small", 4), 0)), [Offer::Less { terms: of("small", 3) }]);
    hold(&mut ledger, 2, of("small", 3), 0).unwrap();
    let refused = hold(&mut ledger, 3, of("small", 1), 0).unwrap_err().to_string();
    assert!(refused.starts_with("tenant small may take cpu_millis=3:"), "{refused}");
    hold(&mut ledger, 4, of("other", 7), 0).unwrap();
    tell(&mut ledger, Input::Release { id: id(2) }, now(0)).1.unwrap();
    assert!(hold(&mut ledger, 5, of("other", 2), 0).is_err(), "nine of ten are more than eight tenths");
    hold(&mut ledger, 6, of("other", 1), 0).unwrap();
}

#[test]
fn instances_are_counted_even_where_they_do_not_fit_and_nothing_is_granted_beside_them() {
    let mut ledger = ledger(10, 1_000);
    for name in ["a", "b", "c"] {
        ledger.handle(Input::Adopt { id: instance(name), unit: cpu(5) }, now(0));
    }
    assert_eq!(ledger.promised(at(0)).0, cpu(15));
    assert!(hold(&mut ledger, 4, terms(Tier::Firm, 1, 0, 5_000), 0).is_err());
    assert_eq!(ledger.handle(Input::Adopt { id: instance("a"), unit: cpu(5) }, now(9)), [], "once");
    ledger.handle(Input::Capacity(cpu(16)), now(0));
    hold(&mut ledger, 5, terms(Tier::Firm, 1, 0, 5_000), 0).unwrap();
    assert!(tell(&mut ledger, Input::Occupy { id: instance("d"), unit: cpu(1) }, now(0)).1.is_err());
    tell(&mut ledger, Input::Release { id: ReservationId::Instance(instance("a")) }, now(0)).1.unwrap();
    tell(&mut ledger, Input::Occupy { id: instance("d"), unit: cpu(1) }, now(0)).1.unwrap();
}

#[test]
fn placing_a_unit_conserves_the_sum_and_its_instance_gives_it_back() {
    let mut ledger = ledger(4, 1_000);
    hold(&mut ledger, 1, terms(Tier::Firm, 3, 1_000, 5_000), 0).unwrap();
    let place = |name: &str| Input::Place { of: id(1), id: instance(name) };
    assert_eq!(tell(&mut ledger, place("a"), now(0)).1, Err(Error::NotPlaceable), "not agreed yet");
    tell(&mut ledger, Input::Confirm { id: id(1), nonce: 2 }, now(0)).1.unwrap();
    tell(&mut ledger, place("a"), now(500)).1.unwrap();
    tell(&mut ledger, place("b"), now(600)).1.unwrap();
    assert_eq!(ledger.promised(at(700)).0, cpu(2), "before the window only what runs");
    assert_eq!(ledger.promised(at(2_000)).0, cpu(3), "inside what was granted");
    assert_eq!(ledger.promised(at(5_000)).0, cpu(0), "and nothing after");
    // An instance that runs anyway can serve, and then counts no longer than it does.
    tell(&mut ledger, Input::Occupy { id: instance("c"), unit: cpu(1) }, now(700)).1.unwrap();
    assert_eq!(ledger.promised(at(2_000)).0, cpu(4));
    tell(&mut ledger, place("c"), now(800)).1.unwrap();
    assert_eq!(ledger.promised(at(2_000)).0, cpu(3));
    assert_eq!(tell(&mut ledger, place("d"), now(900)).1, Err(Error::NotPlaceable), "no unit is left");
    tell(&mut ledger, Input::Release { id: ReservationId::Instance(instance("b")) }, now(2_000)).1.unwrap();
    assert_eq!((ledger.promised(at(2_000)).0, ledger.get(&id(1)).unwrap().placed), (cpu(3), 2));
    tell(&mut ledger, Input::Release { id: id(1) }, now(2_100)).1.unwrap();
    assert_eq!(ledger.promised(at(2_100)).0, cpu(2), "instances count until they are gone");
}

#[test]
fn what_is_restored_stands_for_its_whole_ttl_again_and_grants_the_same() {
    let mut first = ledger(10, 1_500);
    let mut journal = vec![];
    let mut say = |ledger: &mut Ledger, input, ms| {
        let changes = ledger.handle(input, now(ms)).into_iter().filter_map(|output| match output {
            Output::Persist(change) => Some(change),
            Output::Reply(..) | Output::Preempted { .. } | Output::Lapsed(_) => None,
        });
        journal.extend(changes);
    };
    let input = |number, tier, units| Input::Hold { id: id(number), terms: terms(tier, units, 0, 900_000), ttl: LONG, nonce: 1 };
    say(&mut first, input(1, Tier::Firm, 5), 0);
    say(&mut first, Input::Confirm { id: id(1), nonce: 2 }, 10);
    say(&mut first, input(2, Tier::Soft, 8), 20);
    say(&mut first, input(4, Tier::Soft, 1), 20);
    say(&mut first, input(3, Tier::Firm, 4), 30);
    say(&mut first, Input::Release { id: id(3) }, 40);
    let mut second = ledger(10, 1_500);
    journal.into_iter().for_each(|change| second.restore(change, now(0)));
    check(&second).unwrap();
    assert!(second.reservations().eq(first.reservations()));
    assert_eq!(hold(&mut second, 3, terms(Tier::Firm, 4, 0, 900_000), 0), Err(Error::Spent));
    assert_eq!(second.remaining(&id(1), now(1)), Some(LONG - Duration::from_millis(1)));
}

#[test]
fn terms_that_make_no_sense_are_refused_with_what_was_wanted() {
    let mut ledger = ledger(10, 1_000);
    let mut refused = |terms: Terms| hold(&mut ledger, 1, terms, 1_000).unwrap_err().to_string();
    assert!(refused(terms(Tier::Firm, 1, 500, 900)).contains("must not be empty or over"));
    assert!(refused(terms(Tier::Firm, 1, 2_000, 2_000)).contains("must not be empty or over"));
    assert!(refused(terms(Tier::Firm, 0, 2_000, 3_000)).contains("ask for one at least"));
    assert!(refused(terms(Tier::Firm, 1, 2_000, i64::MAX / 100_000)).contains("within 366 days"));
    assert!(refused(Terms { unit: cpu(u64::MAX), ..terms(Tier::Firm, 3, 2_000, 3_000) }).contains("does not fit"));
}
