//! How many operations one core does on a ledger with 10,000 live reservations.
//!
//! `cargo bench -p tradewind-protocol --bench ledger`. The mix is what an owner sees: of a hundred operations
//! forty are refreshes, thirty holds of random windows over a day (two thirds firm, one third soft; some do not
//! fit and are answered with offers), fifteen confirmations and fifteen releases. Nothing is made durable here; the
//! agent does that once for all that wait together. The number of live reservations is kept at 10,000.

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use std::time::{Duration, Instant};
use tradewind_protocol::reservation::ledger::{Config, Error, Granted, Input, Ledger, MAX_RESERVATIONS, Output};
use tradewind_protocol::reservation::{Confidence, Now, ReservationId, Terms, Tier, Window};
use tradewind_protocol::{RegionId, Resources, TenantName, Timestamp};

/// The least that must be done, with 10,000 live reservations.
const WANTED_PER_SECOND: f64 = 50_000.0;
const OPERATIONS: u32 = 400_000;
const DAY_MS: u64 = 86_400_000;

struct Chance(u64);

impl Chance {
    /// Vigna's splitmix64.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn amounts(units: u64) -> Resources {
    Resources {
        cpu_millis: 500 * units,
        memory_bytes: units << 29,
        storage_bytes: units << 33,
        storage_iops: 100 * units,
        bandwidth_bps: units << 20,
    }
}

struct Load {
    ledger: Ledger,
    chance: Chance,
    holders: Vec<RegionId>,
    tenants: Vec<TenantName>,
    live: Vec<ReservationId>,
    next: u64,
    uptime: Duration,
    counts: [u64; 5],
}

impl Load {
    fn now(&mut self) -> Now {
        self.uptime += Duration::from_micros(20);
        Now { wall: Timestamp::EPOCH.after(self.uptime), uptime: self.uptime }
    }

    fn hold(&mut self) {
        let holder = self.holders[self.chance.below(20) as usize].clone();
        let from = Timestamp::EPOCH.after(self.uptime + Duration::from_millis(self.chance.below(DAY_MS)));
        let terms = Terms {
            tenant: self.tenants[self.chance.below(10) as usize].clone(),
            unit: amounts(1),
            units: 1 + self.chance.below(8) as u32,
            window: Window::of(from, Duration::from_millis(60_000 + self.chance.below(6 * 3_600_000))),
            tier: if self.chance.below(3) < 2 { Tier::Firm } else { Tier::Soft },
            confidence: Confidence::nearest(self.chance.below(100) as f64 / 100.0),
        };
        let id = ReservationId::remote(&holder, self.next);
        self.next += 1;
        let now = self.now();
        let input = Input::Hold { id: id.clone(), terms, ttl: Duration::from_secs(3_600), nonce: 1 };
        for output in self.ledger.handle(input, now) {
            match output {
                Output::Reply(_, _, Ok(Granted::Stands { .. })) => self.live.push(id.clone()),
                Output::Reply(_, _, Err(Error::DoesNotFit { offers, .. } | Error::OverQuota { offers, .. })) => {
                    self.counts[usize::from(offers.is_empty())] += 1;
                }
                Output::Reply(..) => self.counts[4] += 1,
                Output::Preempted { .. } => self.counts[2] += 1,
                Output::Lapsed(_) => self.counts[3] += 1,
                Output::Persist(_) => {}
            }
        }
    }

    fn any(&mut self) -> ReservationId {
        let index = self.chance.below(self.live.len() as u64) as usize;
        self.live[index].clone()
    }

    fn step(&mut self, nonce: u32) {
        let now = self.now();
        match self.chance.below(100) {
            0..40 => {
                let id = self.any();
                self.ledger.handle(Input::Refresh { id, nonce }, now);
            }
            40..55 => {
                let id = self.any();
                self.ledger.handle(Input::Confirm { id, nonce }, now);
            }
            55..70 => self.release(now),
            70.. => {
                // Full ledgers answer before they look.
                while self.ledger.reservations_of_others() >= MAX_RESERVATIONS {
                    self.release(now);
                }
                self.hold();
            }
        }
    }

    fn release(&mut self, now: Now) {
        let index = self.chance.below(self.live.len() as u64) as usize;
        let id = self.live.swap_remove(index);
        self.ledger.handle(Input::Release { id }, now);
    }
}

fn main() {
    // About what 10,000 such reservations need at their peak: some do not fit, and some preempt.
    let config = Config {
        overbooking_per_mille: 1_300,
        notice: Duration::from_secs(30),
        default_quota_per_mille: Some(200),
        ..Config::plain(amounts(4_200))
    };
    let mut load = Load {
        ledger: Ledger::new(config),
        chance: Chance(7),
        holders: (0..20).map(|n| format!("region-{n}").parse().expect("a region")).collect(),
        tenants: (0..10).map(|n| format!("tenant-{n}").parse().expect("a tenant")).collect(),
        live: vec![],
        next: 0,
        uptime: Duration::from_secs(1),
        counts: [0; 5],
    };
    while load.ledger.reservations_of_others() < MAX_RESERVATIONS {
        load.hold();
    }
    load.counts = [0; 5];
    let (begun, mut slowest, mut fewest) = (Instant::now(), Duration::ZERO, MAX_RESERVATIONS);
    for operation in 0..OPERATIONS {
        let before = Instant::now();
        load.step(operation + 2);
        slowest = slowest.max(before.elapsed());
        // Releases are made good at once.
        while load.ledger.reservations_of_others() < MAX_RESERVATIONS - 100 {
            load.hold();
        }
        fewest = fewest.min(load.ledger.reservations_of_others());
    }
    let taken = begun.elapsed();
    let per_second = f64::from(OPERATIONS) / taken.as_secs_f64();
    let [countered, refused, preempted, lapsed, other] = load.counts;
    println!(
        "{OPERATIONS} operations, {fewest} to {MAX_RESERVATIONS} live reservations: {per_second:.0} a second on one core, wanted {WANTED_PER_SECOND}"
    );
    println!(
        "countered {countered}, refused {refused}, preempted {preempted}, lapsed {lapsed}, other {other}; slowest operation {slowest:?}"
    );
    assert!(per_second >= WANTED_PER_SECOND, "too slow");
}
