//! The ledger against one that keeps a list and looks at every instant.
//!
//! `cargo test` runs some tens of thousands of random operations; with `TRADEWIND_LEDGER_OPS=10000000` and a
//! release build it is the long check.

use crate::reservation::faults::operations;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tradewind_protocol::reservation::ledger::{Config, Error, Granted, Input, Ledger, Output, invariants};
use tradewind_protocol::reservation::{Confidence, Now, Offer, ReservationId, Terms, Tier, Window};
use tradewind_protocol::{Resources, TenantName, Timestamp};

/// Windows lie within so many milliseconds of the moment.
const REACH: i64 = 40;
const CAPACITY: u64 = 12;
const OVERBOOKED: u64 = 18;
/// The quota of the tenant that has one.
const QUOTA: u64 = 6;

/// A generator of one's own: the same numbers everywhere, and quick (Vigna's splitmix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub(crate) fn cpu(cpu_millis: u64) -> Resources {
    Resources { cpu_millis, ..Resources::ZERO }
}

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms).unwrap()
}

fn id(number: u64) -> ReservationId {
    ReservationId::remote(&"east".parse().unwrap(), number)
}

/// One reservation of the naive ledger: where it counts, and for how much.
#[derive(Debug, Clone)]
struct Kept {
    terms: Terms,
    until: i64,
    sequence: u64,
}

/// The rules, an instant at a time.
#[derive(Default)]
struct Naive {
    live: BTreeMap<u64, Kept>,
    spent: BTreeSet<u64>,
    sequence: u64,
}

impl Naive {
    fn promised(&self, instant: i64, counts: impl Fn(&Terms) -> bool) -> u64 {
        let inside =
            self.live.values().filter(|kept| kept.terms.window.from.as_millis() <= instant && instant < kept.until && counts(&kept.terms));
        inside.map(|kept| u64::from(kept.terms.units)).sum()
    }

    fn fits(&self, terms: &Terms) -> bool {
        let (from, until) = (terms.window.from.as_millis(), terms.window.until.as_millis());
        let units = u64::from(terms.units);
        let quota = if terms.tenant.as_str() == "small" { QUOTA } else { u64::MAX };
        (from..until).all(|instant| {
            let (taken, room) = match terms.tier {
                Tier::Firm => (self.promised(instant, |t| t.tier == Tier::Firm), CAPACITY),
                Tier::Soft => (self.promised(instant, |_| true), OVERBOOKED),
            };
            taken + units <= room && self.promised(instant, |t| t.tenant == terms.tenant).saturating_add(units) <= quota
        })
    }

    /// Those that give way to firm terms, and when they stop to count.
    fn preempted(&mut self, terms: &Terms) -> Vec<u64> {
        let (from, until) = (terms.window.from.as_millis(), terms.window.until.as_millis());
        let units = u64::from(terms.units);
        let mut order: Vec<u64> = self.live.iter().filter(|(_, kept)| kept.terms.tier == Tier::Soft).map(|(number, _)| *number).collect();
        order.sort_by_key(|number| (self.live[number].terms.confidence, std::cmp::Reverse(self.live[number].sequence)));
        let mut gone = vec![];
        for number in order {
            let kept = self.live[&number].clone();
            let (first, last) = (from.max(kept.terms.window.from.as_millis()), until.min(kept.until));
            if (first..last).any(|instant| self.promised(instant, |_| true) + units > OVERBOOKED) {
                gone.push(number);
                let kept = self.live.get_mut(&number).unwrap();
                kept.until = from.max(kept.terms.window.from.as_millis());
            }
        }
        gone
    }
}

fn random_terms(chance: &mut Chance, now: i64) -> Terms {
    let from = now + chance.below(REACH as u64) as i64;
    let until = from + 1 + chance.below(12) as i64;
    let most = if chance.one_in(4) { 14 } else { 5 };
    Terms {
        tenant: TenantName::new(if chance.one_in(3) { "small" } else { "large" }).unwrap(),
        unit: cpu(1),
        units: 1 + chance.below(most) as u32,
        window: Window { from: at(from), until: at(until) },
        tier: if chance.one_in(2) { Tier::Firm } else { Tier::Soft },
        confidence: Confidence::nearest(chance.below(5) as f64 / 4.0),
    }
}

/// Random operations on both; every answer, every preemption and every level must agree.
fn compare(seed: u64, operations: u64) {
    let config = Config {
        overbooking_per_mille: 1_500,
        quotas: BTreeMap::from([("small".parse().unwrap(), 500)]),
        // So that nobody is gone before the naive ledger is told.
        notice: Duration::from_secs(1),
        ..Config::plain(cpu(CAPACITY))
    };
    let mut ledger = Ledger::new(config);
    let mut naive = Naive::default();
    let mut chance = Chance(seed);
    let mut numbers: Vec<u64> = vec![];
    let (mut next, mut now, mut refused, mut offered, mut preempted) = (1, 0i64, 0u64, 0u64, 0u64);
    for operation in 0..operations {
        now += chance.below(3) as i64;
        let moment = Now { wall: at(now), uptime: Duration::from_millis(now as u64) };
        // What is long over is given back, so that both stay small.
        if numbers.len() > 40 {
            let old = numbers.remove(chance.below(20) as usize);
            naive.live.remove(&old);
            naive.spent.insert(old);
            ledger.handle(Input::Release { id: id(old) }, moment);
            continue;
        }
        let again = chance.one_in(10) && !numbers.is_empty();
        let number = if again { numbers[chance.below(numbers.len() as u64) as usize] } else { next };
        next += u64::from(!again);
        let terms = random_terms(&mut chance, now);
        let input = Input::Hold { id: id(number), terms: terms.clone(), ttl: Duration::from_secs(3_000), nonce: 1 };
        let outputs = ledger.handle(input, moment);
        let answer = outputs.iter().find_map(|output| match output {
            Output::Reply(_, _, answer) => Some(answer.clone()),
            Output::Persist(_) | Output::Preempted { .. } | Output::Lapsed(_) => None,
        });
        let answer = answer.unwrap();
        if let Some(kept) = naive.live.get(&number) {
            assert_eq!(answer.is_ok(), kept.terms == terms, "seed {seed}, operation {operation}");
            continue;
        }
        let fits = naive.fits(&terms);
        match &answer {
            Ok(Granted::Stands { .. }) => assert!(fits, "seed {seed}, operation {operation}: granted {terms:?}"),
            Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. }) => {
                assert!(!fits, "seed {seed}, operation {operation}: refused {terms:?}");
                refused += 1;
                offered += u64::from(!offers.is_empty());
                judge_offers(&naive, &terms, offers);
            }
            other => panic!("seed {seed}, operation {operation}: {other:?}"),
        }
        let gone: Vec<u64> = if fits && terms.tier == Tier::Firm { naive.preempted(&terms) } else { vec![] };
        let told: Vec<u64> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Preempted { id: ReservationId::Remote { number, .. }, .. } => Some(*number),
                Output::Persist(_) | Output::Reply(..) | Output::Preempted { .. } | Output::Lapsed(_) => None,
            })
            .collect();
        assert_eq!(told, gone, "seed {seed}, operation {operation}");
        preempted += gone.len() as u64;
        if fits {
            naive.sequence += 1;
            let until = terms.window.until.as_millis();
            naive.live.insert(number, Kept { terms, until, sequence: naive.sequence });
            numbers.push(number);
        }
        for instant in [now, now + 7, now + REACH] {
            let (firm, all) = ledger.promised(at(instant));
            assert_eq!(firm.cpu_millis, naive.promised(instant, |t| t.tier == Tier::Firm), "seed {seed}, operation {operation}");
            assert_eq!(all.cpu_millis, naive.promised(instant, |_| true), "seed {seed}, operation {operation}");
        }
        if operation % 64 == 0 {
            invariants::check(&ledger).unwrap_or_else(|broken| panic!("seed {seed}, operation {operation}: {broken}"));
        }
    }
    assert!(operations < 5_000 || (refused > operations / 20 && offered > refused / 4 && preempted > 0), "{refused} {offered} {preempted}");
}

/// Fewer: as many as fit, not one more. Later: the first start at which it fits. Other tier: it fits.
fn judge_offers(naive: &Naive, asked: &Terms, offers: &[Offer]) {
    for offer in offers {
        let terms = offer.terms();
        assert!(naive.fits(terms), "{offer:?} does not fit");
        match offer {
            Offer::Less { .. } => {
                assert!(terms.units < asked.units && !naive.fits(&Terms { units: terms.units + 1, ..terms.clone() }));
            }
            Offer::Later { .. } => {
                // A quota is not looked at on the way, so an earlier start may be free only by it.
                let (from, found) = (asked.window.from.as_millis(), terms.window.from.as_millis());
                let length = asked.window.length();
                let early = (from..found).find(|start| naive.fits(&Terms { window: Window::of(at(*start), length), ..asked.clone() }));
                assert_eq!(early, None, "{asked:?} fits earlier than {found}");
            }
            Offer::OtherTier { .. } => assert!(terms.tier != asked.tier && terms.units == asked.units),
        }
    }
}

#[test]
fn every_answer_is_that_of_a_ledger_that_looks_at_every_instant() {
    for seed in 1..=4 {
        compare(seed, operations(40_000) / 4);
    }
}
