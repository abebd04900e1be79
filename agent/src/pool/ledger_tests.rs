//! The ledger against a naive one that looks at every instant.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn cpu(cpu_millis: u64) -> Resources {
    Resources { cpu_millis, ..Resources::ZERO }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms).unwrap()
}

fn id(n: u8) -> ReservationId {
    ReservationId(format!("r{n}"))
}

fn terms(tier: Tier, amount: u64, from: i64, until: i64) -> Terms {
    Terms { resources: cpu(amount), window: Window { from: at(from), until: at(until) }, tier }
}

const LONG: Duration = Duration::from_millis(1_000_000);

fn hold(ledger: &mut Ledger, n: u8, terms: Terms, now: i64) -> Result<Granted, Error> {
    answer(ledger.handle(Input::Hold { id: id(n), terms, ttl: LONG }, at(now)))
}

fn answer(outputs: Vec<Output>) -> Result<Granted, Error> {
    let replies = outputs.into_iter().filter_map(|output| match output {
        Output::Reply(_, answer) => Some(answer),
        Output::Persist(_) | Output::Ended(..) => None,
    });
    replies.last().unwrap()
}

#[test]
fn windows_that_touch_share_the_same_room() {
    let mut ledger = Ledger::new(cpu(10), 1_000);
    hold(&mut ledger, 1, terms(Tier::Firm, 10, 0, 5), 0).unwrap();
    hold(&mut ledger, 2, terms(Tier::Firm, 10, 5, 9), 0).unwrap();
    let refused = hold(&mut ledger, 3, terms(Tier::Firm, 1, 4, 6), 0).unwrap_err();
    assert_eq!(refused.to_string(), format!("cpu_millis=1 does not fit: of cpu_millis=10, cpu_millis=10 are promised at {}", at(4)));
}

#[test]
fn firm_preempts_the_newest_soft_ones_only_as_far_as_needed() {
    let mut ledger = Ledger::new(cpu(10), 1_500);
    for n in 1..=3 {
        hold(&mut ledger, n, terms(Tier::Soft, 5, 0, 10), 0).unwrap();
    }
    assert!(hold(&mut ledger, 4, terms(Tier::Soft, 1, 0, 10), 0).is_err(), "15 of 15 are promised");
    let outputs = ledger.handle(Input::Hold { id: id(5), terms: terms(Tier::Firm, 6, 2, 3), ttl: LONG }, at(0));
    let ended: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::Ended(..))).collect();
    assert_eq!(ended, [&Output::Ended(id(3), Why::Preempted), &Output::Ended(id(2), Why::Preempted)]);
    assert!(ledger.stands(&id(1)) && ledger.stands(&id(5)));
}

#[test]
fn an_id_is_spent_by_its_end_even_if_the_end_arrives_first() {
    let mut ledger = Ledger::new(cpu(10), 1_000);
    let wanted = terms(Tier::Firm, 1, 0, 10);
    answer(ledger.handle(Input::Release { id: id(1) }, at(0))).unwrap();
    assert_eq!(hold(&mut ledger, 1, wanted, 1), Err(Error::Spent));
    hold(&mut ledger, 2, wanted, 1).unwrap();
    assert_eq!(hold(&mut ledger, 2, terms(Tier::Firm, 2, 0, 10), 1), Err(Error::Conflict));
    assert_eq!(answer(ledger.handle(Input::Refresh { id: id(2), ttl: LONG }, at(10))), Err(Error::Spent), "its window is over");
    assert_eq!(answer(ledger.handle(Input::Confirm { id: id(3), ttl: LONG }, at(10))), Err(Error::Unknown));
    let later = 10 + i64::try_from(SPENT_FOR.as_millis()).unwrap();
    hold(&mut ledger, 2, terms(Tier::Firm, 1, 0, later + 5), later).unwrap();
}

#[test]
fn what_exists_is_counted_even_where_it_does_not_fit() {
    let mut ledger = Ledger::new(cpu(10), 1_000);
    for n in 1..=3 {
        ledger.handle(Input::Adopt { id: id(n), resources: cpu(5) }, at(0));
    }
    assert_eq!(ledger.reservations().count(), 3);
    assert!(hold(&mut ledger, 4, terms(Tier::Firm, 1, 0, 5), 0).is_err());
    assert_eq!(ledger.handle(Input::Adopt { id: id(1), resources: cpu(5) }, at(0)), [], "once");
    ledger.handle(Input::Capacity(cpu(16)), at(0));
    hold(&mut ledger, 5, terms(Tier::Firm, 1, 0, 5), 0).unwrap();
}

#[test]
fn sums_beyond_any_number_do_not_fit() {
    let mut ledger = Ledger::new(cpu(u64::MAX), 2_000);
    hold(&mut ledger, 1, terms(Tier::Firm, u64::MAX, 0, 5), 0).unwrap();
    assert!(hold(&mut ledger, 2, terms(Tier::Firm, 1, 0, 5), 0).is_err());
    assert!(hold(&mut ledger, 3, terms(Tier::Soft, 1, 0, 5), 0).is_err());
}

/// The ledger's rules, an instant at a time.
struct Naive {
    capacity: u64,
    overbooked: u64,
    granted: Vec<(u8, Terms, i64)>,
    ended: BTreeSet<u8>,
}

/// All windows lie before this instant.
const END: i64 = 24;

impl Naive {
    fn promised(&self, instant: i64, firm_only: bool) -> u64 {
        let covers = |terms: &Terms| terms.window.from <= at(instant) && at(instant) < terms.window.until;
        let counted = self.granted.iter().filter(|(_, terms, _)| covers(terms) && (!firm_only || terms.tier == Tier::Firm));
        counted.map(|(_, terms, _)| terms.resources.cpu_millis).sum()
    }

    fn fits(&self, terms: &Terms) -> bool {
        let (firm_only, room) = match terms.tier {
            Tier::Firm => (true, self.capacity),
            Tier::Soft => (false, self.overbooked),
        };
        let inside = |instant: &i64| terms.window.from <= at(*instant) && at(*instant) < terms.window.until;
        (0..END).filter(inside).all(|instant| self.promised(instant, firm_only) + terms.resources.cpu_millis <= room)
    }

    fn end(&mut self, n: u8) {
        self.granted.retain(|(other, ..)| *other != n);
        self.ended.insert(n);
    }
}

#[derive(Debug, Clone)]
enum Act {
    Hold { n: u8, firm: bool, amount: u64, from: i64, length: i64, ttl: u64 },
    Confirm { n: u8, ttl: u64 },
    Refresh { n: u8, ttl: u64 },
    Release { n: u8 },
    Wait(i64),
}

fn any_act() -> impl Strategy<Value = Act> {
    let n = 0u8..12;
    prop_oneof![
        4 => (n.clone(), any::<bool>(), 0u64..8, 0..END, 1i64..8, 0u64..30)
            .prop_map(|(n, firm, amount, from, length, ttl)| Act::Hold { n, firm, amount, from, length: length.min(END - from), ttl }),
        1 => (n.clone(), 0u64..30).prop_map(|(n, ttl)| Act::Confirm { n, ttl }),
        1 => (n.clone(), 0u64..30).prop_map(|(n, ttl)| Act::Refresh { n, ttl }),
        1 => n.prop_map(|n| Act::Release { n }),
        1 => (1i64..5).prop_map(Act::Wait),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_the_naive_ledger(acts in prop::collection::vec(any_act(), 1..80)) {
        let mut ledger = Ledger::new(cpu(10), 1_500);
        let mut naive = Naive { capacity: 10, overbooked: 15, granted: vec![], ended: BTreeSet::new() };
        let mut durable = BTreeMap::new();
        let mut now = 0;
        for act in acts {
            let millis = Duration::from_millis;
            let input = match act {
                Act::Hold { n, firm, amount, from, length, ttl } => {
                    let tier = if firm { Tier::Firm } else { Tier::Soft };
                    Input::Hold { id: id(n), terms: terms(tier, amount, from, from + length), ttl: millis(ttl) }
                }
                Act::Confirm { n, ttl } => Input::Confirm { id: id(n), ttl: millis(ttl) },
                Act::Refresh { n, ttl } => Input::Refresh { id: id(n), ttl: millis(ttl) },
                Act::Release { n } => Input::Release { id: id(n) },
                Act::Wait(ms) => {
                    now += ms;
                    Input::Tick
                }
            };
            // R4: what has lapsed no longer counts.
            for n in 0..12 {
                if naive.granted.iter().any(|(other, terms, expires)| *other == n && (*expires <= now || terms.window.until <= at(now))) {
                    naive.end(n);
                }
            }
            let outputs = ledger.handle(input.clone(), at(now));
            // R5: only soft ones are preempted, and only for a firm one.
            for output in &outputs {
                if let Output::Ended(gone, Why::Preempted) = output {
                    let n = (0..12).find(|n| id(*n) == *gone).unwrap();
                    prop_assert!(naive.granted.iter().any(|(other, terms, _)| *other == n && terms.tier == Tier::Soft));
                    let for_firm = matches!(&input, Input::Hold { terms, .. } if terms.tier == Tier::Firm);
                    prop_assert!(for_firm);
                    naive.end(n);
                }
            }
            let index = |wanted: &ReservationId| (0..12).find(|n| id(*n) == *wanted).unwrap();
            match &input {
                Input::Hold { id, terms, ttl } => {
                    let n = index(id);
                    let expires = now + ttl.as_millis() as i64;
                    let known = naive.granted.iter().find(|(other, ..)| *other == n);
                    let wanted = if let Some((_, same, expires)) = known {
                        if same == terms { Ok(Some(*expires)) } else { Err(()) }
                    } else if naive.ended.contains(&n) || terms.window.until <= at(now) || !naive.fits(terms) {
                        Err(())
                    } else {
                        Ok(None)
                    };
                    match (wanted, answer(outputs.clone())) {
                        (Ok(Some(before)), Ok(Granted::Stands(_, expires))) => prop_assert_eq!(expires, at(before)),
                        (Ok(None), Ok(Granted::Stands(Phase::Held, stated))) => {
                            prop_assert_eq!(stated, at(expires));
                            naive.granted.push((n, *terms, expires));
                        }
                        (Err(()), Err(_)) => {}
                        (wanted, got) => prop_assert!(false, "wanted {wanted:?}, got {got:?}"),
                    }
                }
                Input::Confirm { id, .. } | Input::Refresh { id, .. } => {
                    let found = naive.granted.iter_mut().find(|(other, ..)| *other == index(id));
                    match (found, answer(outputs.clone())) {
                        (Some(found), Ok(Granted::Stands(_, expires))) => found.2 = expires.as_millis(),
                        (None, Err(_)) => {}
                        (found, got) => prop_assert!(false, "{found:?} {got:?}"),
                    }
                }
                Input::Release { id } => naive.end(index(id)),
                Input::Adopt { .. } | Input::Capacity(_) | Input::Tick => {}
            }
            // R1 and R1s, at every instant.
            for instant in 0..END {
                prop_assert!(naive.promised(instant, true) <= 10);
                prop_assert!(naive.promised(instant, false) <= 15);
            }
            let standing: BTreeSet<_> = naive.granted.iter().filter(|(_, terms, expires)| *expires > now && terms.window.until > at(now)).map(|(n, ..)| id(*n)).collect();
            let live: BTreeSet<_> = ledger.reservations().filter(|r| r.ends() > at(now)).map(|r| r.id.clone()).collect();
            prop_assert_eq!(live, standing);
            // What was persisted is the whole state.
            for output in outputs {
                if let Output::Persist(change) = output {
                    match &change {
                        Change::Live(r) => drop(durable.insert(r.id.clone(), change)),
                        Change::Spent(id, _) => drop(durable.insert(id.clone(), change)),
                        Change::Forgotten(id) => drop(durable.remove(id)),
                    }
                }
            }
            let mut restored = Ledger::new(cpu(10), 1_500);
            durable.values().cloned().for_each(|change| restored.restore(change));
            prop_assert_eq!(&restored.live, &ledger.live);
            prop_assert_eq!(&restored.spent, &ledger.spent);
        }
    }
}
