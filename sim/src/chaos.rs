//! Faults drawn anew for each seed.
//!
//! By swarm (Groce et al. 2012): each class of faults is on or off for a whole run, with an
//! intensity of its own, since a run with everything at once hides what one class alone would show.
//! An [`Incident`] is a fault together with its end, so that whichever incidents are left out of a
//! run, nothing stays broken: after the last one everything is as it should be.

use crate::disk::Illness;
use crate::env::simulation_seed;
use crate::net::{ETHERNET_PAYLOAD_BYTES, PathQuality};
use crate::scenario::{Action, Fault, Scenario};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tradewind_agent::provider::simulated::Outage;
use tradewind_protocol::RegionId;
use tradewind_protocol::wire::Version;

/// Agents come up and know each other before the first fault.
const CALM_S: f64 = 6.0;

/// The most faults of one class: as many as fit into a safety phase of a minute without overlapping
/// each other beyond recognition.
const MAX_PER_CLASS: usize = 8;

/// How long the machines' wall clocks drift, in steps of a second.
const MAX_DRIFT_STEPS: u32 = 30;

/// A fault with its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its class.
    pub class: Class,
    /// What happens, in order.
    pub faults: Vec<Fault>,
}

/// What kind of thing goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Power fails at any moment.
    Crash,
    /// Power fails between two writes.
    TornWrite,
    /// Power fails again while the agent recovers.
    CrashTwice,
    /// The agent is stopped in order.
    Stop,
    /// Some regions are cut off.
    Partition,
    /// Some cannot be heard by some.
    Asymmetric,
    /// A partition that comes and goes.
    Flapping,
    /// Datagrams are lost, doubled, late.
    Lossy,
    /// Little bandwidth.
    Narrow,
    /// A smaller MTU.
    Mtu,
    /// A wall clock jumps.
    ClockJump,
    /// A wall clock drifts.
    ClockDrift,
    /// Writes or syncs fail, or the disk is full.
    Disk,
    /// A peer with a valid certificate lies.
    Liar,
    /// A process stands still, for longer than any time-out.
    Pause,
    /// A monotonic clock goes too fast.
    Pace,
    /// Some paths, each in one direction, are bad.
    BadLinks,
    /// The agent is started, and started again before it is up.
    RestartTwice,
    /// The disk is lost.
    LostDisk,
    /// An instance of each pool ends by itself.
    Instance,
    /// The spot market takes all instances that were bought there.
    Reclaim,
    /// What runs the pools starts nothing, or nothing that becomes ready, or does not answer.
    Provider,
    /// An agent is one of the version of the wire before, and is upgraded later.
    Upgrade,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 23] = [
        Class::Crash,
        Class::TornWrite,
        Class::CrashTwice,
        Class::Stop,
        Class::Partition,
        Class::Asymmetric,
        Class::Flapping,
        Class::Lossy,
        Class::Narrow,
        Class::Mtu,
        Class::ClockJump,
        Class::ClockDrift,
        Class::Disk,
        Class::Liar,
        Class::Pause,
        Class::Pace,
        Class::BadLinks,
        Class::RestartTwice,
        Class::LostDisk,
        Class::Instance,
        Class::Reclaim,
        Class::Provider,
        Class::Upgrade,
    ];
}

/// The incidents of `seed`, all over by `until`.
pub fn draw(scenario: &Scenario, until: Duration, seed: u64) -> Vec<Incident> {
    let regions: Vec<RegionId> = scenario.regions.iter().map(|region| region.id.clone()).collect();
    let mut dice = Dice {
        rng: StdRng::from_seed(simulation_seed(seed).child("chaos").bytes()),
        regions,
        usual: scenario.quality,
        until: until.as_secs_f64(),
    };
    if dice.regions.len() < 2 || dice.until <= CALM_S {
        return vec![];
    }
    let mut incidents = vec![];
    for class in Class::ALL {
        // A third, so that most runs have a few classes, some one and some none.
        if !dice.rng.random_bool(1.0 / 3.0) {
            continue;
        }
        for _ in 0..dice.rng.random_range(1..=MAX_PER_CLASS) {
            let faults = dice.incident(class);
            incidents.push(Incident { class, faults });
        }
    }
    incidents
}

/// Sorts by time; of one moment, in the order given.
pub fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| fault.at);
    faults
}

struct Dice {
    rng: StdRng,
    regions: Vec<RegionId>,
    usual: PathQuality,
    until: f64,
}

impl Dice {
    fn incident(&mut self, class: Class) -> Vec<Fault> {
        let region = self.region();
        match class {
            Class::Crash => self.down(Action::Crash(region.clone()), Action::Restart(region), 20.0),
            Class::TornWrite => {
                let writes = self.rng.random_range(0..40);
                self.down(Action::CrashAfterWrites(region.clone(), writes), Action::Restart(region), 20.0)
            }
            Class::CrashTwice => {
                let mut faults = self.down(Action::Crash(region.clone()), Action::Restart(region.clone()), 5.0);
                let again = faults.last().map_or(0.0, |last| last.at.as_secs_f64()) + self.rng.random_range(0.005..1.5);
                let writes = self.rng.random_range(0..20);
                faults.push(fault(again.min(self.until), Action::CrashAfterWrites(region.clone(), writes)));
                faults.push(fault((again + 0.5).min(self.until), Action::Restart(region)));
                faults
            }
            Class::Stop => self.down(Action::Stop(region.clone()), Action::Restart(region), 15.0),
            Class::Partition => {
                let (left, right) = self.sides();
                self.down(Action::Partition(left.clone(), right.clone()), Action::Heal(left, right), 25.0)
            }
            Class::Asymmetric => {
                let (left, right) = self.sides();
                let (at, end) = self.span(25.0);
                let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a.clone(), b.clone())));
                pairs.flat_map(|(a, b)| [fault(at, Action::Deafen(a.clone(), b.clone())), fault(end, Action::Undeafen(a, b))]).collect()
            }
            Class::Flapping => {
                let (left, right) = self.sides();
                let (mut at, end) = self.span(20.0);
                let period = self.rng.random_range(0.3..4.0);
                let mut faults = vec![];
                while at < end {
                    faults.push(fault(at, Action::Partition(left.clone(), right.clone())));
                    faults.push(fault((at + period / 2.0).min(end), Action::Heal(left.clone(), right.clone())));
                    at += period;
                }
                faults
            }
            Class::Lossy => {
                let quality = PathQuality {
                    loss: self.rng.random_range(0.0..0.4),
                    duplicate: self.rng.random_range(0.0..0.3),
                    late: self.rng.random_range(0.0..0.5),
                    late_ms: self.rng.random_range(1..1_500),
                    ..self.usual
                };
                self.down(Action::Paths(quality), Action::Paths(self.usual), 20.0)
            }
            Class::Narrow => {
                let quality = PathQuality { bytes_per_s: self.rng.random_range(4_000..100_000), ..self.usual };
                self.down(Action::Paths(quality), Action::Paths(self.usual), 20.0)
            }
            Class::Mtu => {
                let quality = PathQuality { mtu: self.rng.random_range(1_200..ETHERNET_PAYLOAD_BYTES), ..self.usual };
                self.down(Action::Paths(quality), Action::Paths(self.usual), 20.0)
            }
            Class::ClockJump => {
                let ahead = self.rng.random_range(-20_000..20_000);
                self.down(Action::Clock(region.clone(), ahead), Action::Clock(region, 0), 20.0)
            }
            Class::ClockDrift => {
                let (at, end) = self.span(f64::from(MAX_DRIFT_STEPS));
                // Up to 5 %, many times what a quartz is wrong by.
                let rate = self.rng.random_range(-50..50);
                let steps = (1..=MAX_DRIFT_STEPS).take_while(|step| at + f64::from(*step) < end);
                let drift = steps.map(|step| fault(at + f64::from(step), Action::Clock(region.clone(), i64::from(step) * rate)));
                drift.chain([fault(end, Action::Clock(region.clone(), 0))]).collect()
            }
            Class::Pause => {
                let (at, end) = self.span(45.0);
                let length = ((end - at) * 1e3) as u64;
                vec![fault(at, Action::Pause(region.clone(), length)), fault(end, Action::Resume(region))]
            }
            Class::Pace => {
                // Up to 5 %, as for wall clocks.
                let pace = self.rng.random_range(1..50);
                self.down(Action::Pace(region.clone(), pace), Action::Pace(region, 0), 40.0)
            }
            Class::BadLinks => {
                let (from, to) = self.sides();
                let quality = PathQuality {
                    loss: self.rng.random_range(0.0..0.9),
                    duplicate: self.rng.random_range(0.0..0.3),
                    late: self.rng.random_range(0.0..0.5),
                    late_ms: self.rng.random_range(1..1_500),
                    ..self.usual
                };
                let (at, end) = self.span(30.0);
                let pairs: Vec<(RegionId, RegionId)> = from
                    .iter()
                    .flat_map(|a| to.iter().map(move |b| (a.clone(), b.clone())))
                    .filter(|_| self.rng.random_bool(0.5))
                    .collect();
                let begin = pairs.iter().map(|(a, b)| fault(at, Action::Link(a.clone(), b.clone(), Some(quality))));
                begin.chain(pairs.iter().map(|(a, b)| fault(end, Action::Link(a.clone(), b.clone(), None)))).collect()
            }
            Class::RestartTwice => {
                let mut faults = self.down(Action::Crash(region.clone()), Action::Restart(region.clone()), 5.0);
                let mut at = faults.last().map_or(0.0, |last| last.at.as_secs_f64());
                for _ in 0..self.rng.random_range(1..4) {
                    at = (at + self.rng.random_range(0.001..0.1)).min(self.until);
                    faults.push(fault(at, Action::Restart(region.clone())));
                }
                faults
            }
            Class::LostDisk => self.down(Action::CrashAndLose(region.clone()), Action::Restart(region), 15.0),
            Class::Instance => vec![fault(self.rng.random_range(CALM_S..self.until), Action::Kill(region))],
            Class::Reclaim => vec![fault(self.rng.random_range(CALM_S..self.until), Action::Reclaim(region))],
            Class::Provider => {
                let outage = [Outage::Refuses, Outage::Hangs, Outage::Away, Outage::Unlisted][self.rng.random_range(0..4)];
                self.down(Action::Provider(region.clone(), Some(outage)), Action::Provider(region, None), 40.0)
            }
            Class::Upgrade => {
                let mut faults = if self.rng.random_bool(0.5) {
                    vec![fault(0.0, Action::Wire(region.clone(), Version::V1))]
                } else {
                    self.reboot_as(&region, Version::V1, CALM_S)
                };
                let from = faults.last().map_or(CALM_S, |last| last.at.as_secs_f64().max(CALM_S));
                faults.extend(self.reboot_as(&region, Version::NEWEST, from));
                faults
            }
            Class::Liar => self.down(Action::Lie(true), Action::Lie(false), 30.0),
            Class::Disk => {
                let illness = [Illness::Write, Illness::Sync, Illness::Full, Illness::Slow][self.rng.random_range(0..4)];
                let (at, end) = self.span(10.0);
                // Whoever looks after the machine mends the disk and boots it again.
                vec![
                    fault(at, Action::Disk(region.clone(), Some(illness))),
                    fault(end, Action::Disk(region.clone(), None)),
                    fault(end, Action::Restart(region)),
                ]
            }
        }
    }

    fn region(&mut self) -> RegionId {
        let one = self.rng.random_range(0..self.regions.len());
        self.regions[one].clone()
    }

    /// Two groups, neither empty.
    fn sides(&mut self) -> (Vec<RegionId>, Vec<RegionId>) {
        let mut regions = self.regions.clone();
        let of_left = self.rng.random_range(1..=regions.len() / 2);
        let left: Vec<RegionId> = (0..of_left).map(|_| regions.swap_remove(self.rng.random_range(0..regions.len()))).collect();
        (left, regions)
    }

    /// A span of at most so many seconds within the safety phase; short ones are as likely as long ones.
    fn span(&mut self, longest: f64) -> (f64, f64) {
        let at = self.rng.random_range(CALM_S..self.until);
        let length = longest * self.rng.random_range(0.05_f64.sqrt()..1.0).powi(2);
        (at, (at + length).min(self.until))
    }

    /// Stops an agent after `from`, and boots it as one of `version`.
    fn reboot_as(&mut self, region: &RegionId, version: Version, from: f64) -> Vec<Fault> {
        let at = self.rng.random_range(from..=self.until);
        let back = (at + self.rng.random_range(0.1..8.0)).min(self.until);
        let [stop, other, boot] = [Action::Stop(region.clone()), Action::Wire(region.clone(), version), Action::Restart(region.clone())];
        vec![fault(at, stop), fault(back, other), fault(back, boot)]
    }

    fn down(&mut self, begin: Action, end: Action, longest: f64) -> Vec<Fault> {
        let (from, to) = self.span(longest);
        vec![fault(from, begin), fault(to, end)]
    }
}

/// At a millisecond, so that a fault reads back from JSON as the one it was.
fn fault(at_s: f64, action: Action) -> Fault {
    Fault {
        at: Duration::from_secs_f64(at_s).max(Duration::from_millis(1)).as_millis().try_into().map_or(Duration::MAX, Duration::from_millis),
        action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::BUILT_IN;
    use std::collections::BTreeSet;

    fn chaos() -> Scenario {
        let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == "chaos").unwrap();
        Scenario::parse(text).unwrap()
    }

    #[test]
    fn a_seed_draws_its_own_faults_and_all_classes_occur() {
        let (scenario, until) = (chaos(), Duration::from_secs(60));
        assert_eq!(draw(&scenario, until, 1), draw(&scenario, until, 1));
        assert_ne!(draw(&scenario, until, 1), draw(&scenario, until, 2));
        let classes: BTreeSet<Class> = (0..100).flat_map(|seed| draw(&scenario, until, seed)).map(|incident| incident.class).collect();
        assert_eq!(classes, Class::ALL.into());
    }

    #[test]
    fn everything_is_mended_by_the_end_of_the_safety_phase_and_reads_back_from_json() {
        let (scenario, until) = (chaos(), Duration::from_secs(60));
        for incident in (0..100).flat_map(|seed| draw(&scenario, until, seed)) {
            assert!(incident.faults.iter().all(|fault| fault.at <= until), "{incident:?}");
            // Of bad links there may be none by chance.
            let mended = incident.faults.last().is_none_or(|last| match &last.action {
                Action::Restart(_)
                | Action::Heal(..)
                | Action::Undeafen(..)
                | Action::Clock(_, 0)
                | Action::Resume(_)
                | Action::Pace(_, 0)
                | Action::Link(_, _, None)
                | Action::Kill(_)
                | Action::Reclaim(_)
                | Action::Provider(_, None)
                | Action::Lie(false) => true,
                Action::Paths(quality) => *quality == scenario.quality,
                Action::Crash(_)
                | Action::CrashAfterWrites(..)
                | Action::CrashAndLose(_)
                | Action::Pause(..)
                | Action::Pace(..)
                | Action::Link(..)
                | Action::Partition(..)
                | Action::Deafen(..)
                | Action::Stop(_)
                | Action::Wire(..)
                | Action::Disk(..)
                | Action::Provider(..)
                | Action::Lie(true)
                | Action::Clock(..) => false,
            });
            assert!(mended, "{incident:?}");
            let last_version = incident.faults.iter().rev().find_map(|fault| match fault.action {
                Action::Wire(_, version) => Some(version),
                _ => None,
            });
            assert!(last_version.is_none_or(|version| version == Version::NEWEST), "{incident:?}");
            let text = serde_json::to_string(&incident).unwrap();
            assert_eq!(serde_json::from_str::<Incident>(&text).unwrap(), incident, "{text}");
        }
    }
}
