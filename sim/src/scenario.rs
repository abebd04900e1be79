//! Scenarios: who takes part, over which network, with which traffic, and what goes wrong when.
//!
//! A scenario is a TOML file. [`Scenario::parse`] checks it as a whole and reports every problem at
//! once; what it returns has each of its faults already with its end. The table
//! `[agent]` is the agents' own configuration file, less what differs from region to region; it is
//! the agent that checks it.

mod check;

use crate::chaos::in_order;
use crate::disk::Illness;
use crate::net::PathQuality;
use crate::world::Delay;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tradewind_agent::provider::simulated::Outage;
use tradewind_protocol::RegionId;
use tradewind_protocol::region::Coordinates;
use tradewind_protocol::wire::Version;

/// The scenarios that the program carries with it.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("smoke", include_str!("../scenarios/smoke.toml")),
    ("negotiation", include_str!("../scenarios/negotiation.toml")),
    ("lending", include_str!("../scenarios/lending.toml")),
    ("power", include_str!("../scenarios/power.toml")),
    ("upgrade", include_str!("../scenarios/upgrade.toml")),
    ("abilene12", include_str!("../scenarios/abilene12.toml")),
    ("planet30", include_str!("../scenarios/planet30.toml")),
    ("chaos", include_str!("../scenarios/chaos.toml")),
    ("gauntlet", include_str!("../scenarios/gauntlet.toml")),
    ("ordeal", include_str!("../scenarios/ordeal.toml")),
    ("relay", include_str!("../scenarios/relay.toml")),
];

/// A scenario, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// How long it lasts.
    pub duration: Duration,
    /// The regions, in the file's order.
    pub regions: Vec<Region>,
    /// The delay between each two regions, the smaller name first.
    pub delays: BTreeMap<(RegionId, RegionId), Delay>,
    /// What the paths do to single datagrams.
    pub quality: PathQuality,
    /// What single paths do instead, by sender and receiver.
    pub links: BTreeMap<(RegionId, RegionId), PathQuality>,
    /// The traffic that the agents are told of.
    pub workload: Workload,
    /// What goes wrong, each with its end, in the file's order.
    pub incidents: Vec<Vec<Fault>>,
    /// Until when faults are drawn anew for each seed, if they are; they come on top of `incidents`.
    pub chaos_until: Option<Duration>,
    /// What is to hold.
    pub expect: Expectations,
    /// What the report is to show.
    pub bounds: Bounds,
    /// What the report has of forecasts and capacity; nothing if left out.
    pub survey: Option<Survey>,
    /// The agents' configuration, less what differs from region to region.
    pub agent: toml::Table,
}

/// One region, with one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// Where it is.
    pub coordinates: Option<Coordinates>,
    /// The newest version of the wire that its agent speaks at first.
    pub wire_version: Version,
}

/// The traffic that the agents are told of.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    /// None.
    Silence,
    /// From every region to every other, with a season and noise.
    Synthetic {
        /// Transactions per second from one region to one other, on average.
        rate: f64,
        /// Length of the season.
        season: Duration,
        /// How often each region's client posts what has happened since.
        every: Duration,
        /// One batch in so many comes when its step is closed; none if 0.
        late_one_in: u64,
    },
    /// As a file has it: a column per pair, `from>to`, a row per step.
    Recorded {
        /// The CSV file, relative to where the program runs, gzip or not; or what is shipped.
        file: PathBuf,
        /// How long a row lasts in the simulation.
        row: Duration,
        /// Transactions per unit of the file.
        scale: f64,
        /// So many rows are posted at once at the beginning, as what happened before it.
        history_rows: usize,
        /// One batch in so many comes when its step is closed; none if 0.
        late_one_in: u64,
    },
}

/// What is looked at for the report, beyond what the rules need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// How often every agent's forecasts and capacity are fetched.
    pub every: Duration,
    /// How many steps ahead forecasts are scored: from the last known step to where an order serves.
    pub lead_steps: usize,
}

/// Something that goes wrong, or is mended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    #[serde(with = "seconds", rename = "at_s")]
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// What can go wrong, and be mended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The machine loses power.
    Crash(RegionId),
    /// The machine loses power, and its disk is replaced by an empty one.
    CrashAndLose(RegionId),
    /// The machine loses power after so many more writes and syncs of its disk.
    CrashAfterWrites(RegionId, u64),
    /// The machine boots.
    Restart(RegionId),
    /// Nothing passes between the two groups any more.
    Partition(Vec<RegionId>, Vec<RegionId>),
    /// The same groups reach each other again.
    Heal(Vec<RegionId>, Vec<RegionId>),
    /// Nothing passes from the one to the other any more; the way back stays open.
    Deafen(RegionId, RegionId),
    /// It passes again.
    Undeafen(RegionId, RegionId),
    /// The agent is told to stop, and does so in order.
    Stop(RegionId),
    /// From its next boot on, the agent is one that speaks this version of the wire at most.
    Wire(RegionId, Version),
    /// The machine's disk falls ill, or recovers.
    Disk(RegionId, Option<Illness>),
    /// The peer that lies begins to, or ends.
    Lie(bool),
    /// The machine stands still for so many milliseconds, at most until it is resumed.
    Pause(RegionId, u64),
    /// It goes on.
    Resume(RegionId),
    /// The machine's monotonic clock runs too fast by so many thousandths.
    Pace(RegionId, u32),
    /// The path from the one to the other has a quality of its own, or becomes as the others.
    Link(RegionId, RegionId, Option<PathQuality>),
    /// The paths change.
    Paths(PathQuality),
    /// The machine's wall clock jumps to this many milliseconds ahead of the truth.
    Clock(RegionId, i64),
    /// An instance of each of the machine's pools ends by itself.
    Kill(RegionId),
    /// The spot market takes all instances of the machine's pools that were bought there.
    Reclaim(RegionId),
    /// What runs the machine's pools falls ill, or recovers.
    Provider(RegionId, Option<Outage>),
}

impl Action {
    /// The fault's name, and the regions that it happens to; what mends is called after the same fault.
    pub fn names(&self) -> (&'static str, Vec<&RegionId>) {
        match self {
            Action::Crash(region) => ("crash", vec![region]),
            Action::CrashAndLose(region) => ("lost disk", vec![region]),
            Action::CrashAfterWrites(region, _) => ("crash in a write", vec![region]),
            Action::Restart(region) => ("restart", vec![region]),
            Action::Partition(left, right) => ("partition", left.iter().chain(right).collect()),
            Action::Heal(left, right) => ("partition's end", left.iter().chain(right).collect()),
            Action::Deafen(from, to) => ("one-way cut", vec![from, to]),
            Action::Undeafen(from, to) => ("one-way cut's end", vec![from, to]),
            Action::Stop(region) => ("stop", vec![region]),
            Action::Wire(region, version) if *version < Version::NEWEST => ("downgrade", vec![region]),
            Action::Wire(region, _) => ("upgrade", vec![region]),
            Action::Disk(region, Some(_)) => ("ill disk", vec![region]),
            Action::Disk(region, None) => ("ill disk's end", vec![region]),
            Action::Lie(_) => ("liar", vec![]),
            Action::Pause(region, _) => ("pause", vec![region]),
            Action::Resume(region) => ("pause's end", vec![region]),
            Action::Pace(region, _) => ("fast clock", vec![region]),
            Action::Link(from, to, _) => ("bad path", vec![from, to]),
            Action::Paths(_) => ("bad paths", vec![]),
            Action::Clock(region, _) => ("wall clock", vec![region]),
            Action::Kill(region) => ("lost instance", vec![region]),
            Action::Reclaim(region) => ("spot taken", vec![region]),
            Action::Provider(region, Some(_)) => ("ill provider", vec![region]),
            Action::Provider(region, None) => ("ill provider's end", vec![region]),
        }
    }
}

/// What is to hold; see [`crate::oracle::Rule`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// How soon agents that can reach each other know each other's newest life.
    pub converge: Duration,
    /// How soon an agent that cannot be reached is held to be gone.
    pub detect: Duration,
    /// How old the state of a region that can be reached may be.
    pub fresh: Duration,
    /// How old it may be where only a third region can reach both; no bound if there is none.
    pub relay: Option<Duration>,
}

/// Bounds of the report's figures; see [`crate::oracle::Rule::Figures`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// The largest share of regions' steps that are short of capacity.
    pub late_share: Option<f64>,
    /// The largest error of forecasts, where that of seasonal naive is 1.
    pub forecast_ratio: Option<f64>,
    /// The smallest share of counts inside the 90 % interval.
    pub coverage_90: Option<f64>,
    /// The most that an agent sends, bytes a second.
    pub bytes_per_agent_second: Option<f64>,
}

/// Everything that is wrong with a scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ScenarioError {
    /// At least one.
    pub problems: Vec<String>,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the scenario is not valid:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Scenario {
    /// The scenario in `text`, or everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        check::parse(text)
    }

    /// What goes wrong, and is mended, in the order of time.
    pub fn faults(&self) -> Vec<Fault> {
        in_order(self.incidents.iter().flatten().cloned().collect())
    }

    /// The delay between two regions.
    pub fn delay(&self, a: &RegionId, b: &RegionId) -> Option<Delay> {
        self.delays.get(&ordered(a, b)).copied()
    }
}

fn ordered(a: &RegionId, b: &RegionId) -> (RegionId, RegionId) {
    if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

/// Durations in JSON are seconds.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_valid_and_named_as_it_is_called() {
        for (name, text) in BUILT_IN {
            assert_eq!(Scenario::parse(text).unwrap().name, *name);
        }
    }

    #[test]
    fn the_scenario_that_the_readme_writes_is_valid_with_either_traffic() {
        let readme = include_str!("../README.md");
        let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
        let recorded = |block: &&str| block.contains("kind = \"recorded\"");
        let synthetic = |block: &&str| block.contains("kind = \"synthetic\"");
        assert!(blocks.iter().any(recorded) && blocks.iter().any(synthetic));
        // Top-level keys come first in TOML, so the first block stays the first.
        for left_out in [recorded as fn(&&str) -> bool, synthetic] {
            let blocks = blocks.iter().copied().filter(|block| !left_out(block));
            let text = blocks.collect::<String>().replace("our-rtt.csv", "shipped:cloud_rtt_ms.csv");
            let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((scenario.regions.len(), scenario.faults().len(), scenario.survey.is_some()), (3, 47, true));
        }
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = r#"
            name = "x"
            about = "x"
            duration_s = 10
            region = [{ name = "a", latitude = 91.0, longitude = 0.0 }, { name = "B" }, { name = "c" }]
            network = { loss = 1.5, mtu = 100, rtt_file = "shipped:none" }
            link = [{ between = ["a", "z"], rtt_ms = 10 }]
            survey = { every_s = 0, lead_steps = 3 }
            fault = [
                { kind = "crash", at_s = 5, region = "nowhere" },
                { kind = "partition", at_s = 8, for_s = 5, regions = ["a"] },
                { kind = "partition", at_s = 8, regions = ["a", "B", "c"] },
            ]
        "#;
        let problems = Scenario::parse(text).unwrap_err().problems;
        for expected in
            ["globe", "\"B\"", "network.loss", "network.mtu", "= z:", "= nowhere:", "= 13:", "both sides", "shipped:none", "every_s"]
        {
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected} in {problems:#?}");
        }
        assert_eq!(problems.len(), 10, "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.starts_with("fault[1].at_s + for_s = 13")), "{problems:#?}");
    }

    #[test]
    fn a_wrong_duration_and_a_name_given_twice_are_one_problem_each() {
        let text = r#"
            name = "x"
            about = "x"
            duration_s = 1e308
            region = [{ name = "a" }, { name = "b" }, { name = "a" }]
            fault = [{ kind = "crash", at_s = 5, region = "a" }]
        "#;
        let expected =
            ["duration_s = 1e308: must be between 0.001 and 2678400", "region.name = a: must differ from the other regions' names"];
        assert_eq!(Scenario::parse(text).unwrap_err().problems, expected);
    }

    #[test]
    fn an_agent_may_be_of_the_version_before_and_is_upgraded_by_a_boot() {
        let scenario = |fault: &str| {
            let region = "region = [{ name = \"a\", wire_version = 1 }, { name = \"b\" }]";
            Scenario::parse(&format!(
                "name = \"x\"\nabout = \"x\"\nduration_s = 60\n{region}\nfault = [{{ kind = \"stop\", at_s = 5, region = \"a\", {fault} }}]"
            ))
        };
        let good = scenario("down_s = 2, wire_version = 2").unwrap();
        assert_eq!(good.regions.iter().map(|region| region.wire_version).collect::<Vec<_>>(), [Version::V1, Version::V2]);
        let a = RegionId::new("a").unwrap();
        let expected = [(5, Action::Stop(a.clone())), (7, Action::Wire(a.clone(), Version::V2)), (7, Action::Restart(a))];
        assert_eq!(good.faults(), expected.map(|(at, action)| Fault { at: Duration::from_secs(at), action }));
        let problem = scenario("wire_version = 1").unwrap_err().to_string();
        assert!(problem.contains("fault[0].wire_version = 1: an agent that never boots again speaks none: say down_s"), "{problem}");
        let problem = scenario("down_s = 2, wire_version = 3").unwrap_err().to_string();
        assert!(problem.contains("must be 1 or 2, the versions of the wire that agents speak"), "{problem}");
    }

    /// Three regions, and `rest`.
    fn with(rest: &str) -> Result<Scenario, ScenarioError> {
        let head = "name = \"x\"\nabout = \"x\"\nduration_s = 60\nregion = [{ name = \"a\" }, { name = \"b\" }, { name = \"c\" }]\n";
        Scenario::parse(&format!("{head}{rest}"))
    }

    fn ids() -> [RegionId; 3] {
        ["a", "b", "c"].map(|name| RegionId::new(name).unwrap())
    }

    #[test]
    fn a_link_has_a_quality_of_its_own_in_one_direction_or_both() {
        let scenario = with(
            "network = { loss = 0.1, late = 0.2, late_ms = 30, bytes_per_s = 5000 }
             link = [
                { between = [\"a\", \"b\"], rtt_ms = 40, jitter = 0.5 },
                { between = [\"b\", \"c\"], mtu = 1300 },
                { between = [\"c\", \"a\"], one_way = true, loss = 0.7 },
             ]
             fault = [{ kind = \"paths\", between = [\"b\", \"c\"], one_way = true, at_s = 5, for_s = 2, duplicate = 0.3 }]",
        )
        .unwrap();
        let [a, b, c] = ids();
        let usual = PathQuality { loss: 0.1, late: 0.2, late_ms: 30, bytes_per_s: 5_000, ..PathQuality::default() };
        let narrow = PathQuality { mtu: 1_300, ..usual };
        assert_eq!(scenario.quality, usual);
        let expected = [
            ((b.clone(), c.clone()), narrow),
            ((c.clone(), b.clone()), narrow),
            ((c.clone(), a.clone()), PathQuality { loss: 0.7, ..usual }),
        ];
        assert_eq!(scenario.links, expected.into());
        let delay = scenario.delay(&a, &b).unwrap();
        assert_eq!((delay.min, delay.max), (Duration::from_millis(20), Duration::from_millis(30)));
        let worse = Action::Link(b.clone(), c.clone(), Some(PathQuality { duplicate: 0.3, ..narrow }));
        let expected = [(5, worse), (7, Action::Link(b, c, None))];
        assert_eq!(scenario.faults(), expected.map(|(at, action)| Fault { at: Duration::from_secs(at), action }), "it stays narrow");
    }

    #[test]
    fn a_partition_is_of_one_direction_or_comes_and_goes_and_a_clock_drifts() {
        let at = |at_ms: u64, action: Action| Fault { at: Duration::from_millis(at_ms), action };
        let [a, b, c] = ids();
        let scenario = with(
            "fault = [
                { kind = \"partition\", regions = [\"a\"], from = [\"b\"], one_way = true, flap_s = 2, at_s = 1, for_s = 2.5 },
                { kind = \"restart\", region = \"c\", at_s = 9 },
                { kind = \"drift\", region = \"c\", per_mille = -20, at_s = 20, for_s = 3 },
             ]",
        );
        let (cut, whole) = (Action::Deafen(a.clone(), b.clone()), Action::Undeafen(a, b));
        let expected = [
            vec![at(1_000, cut.clone()), at(2_000, whole.clone()), at(3_000, cut), at(3_500, whole)],
            vec![at(9_000, Action::Restart(c.clone()))],
            [(21, -20), (22, -40), (23, 0)].map(|(second, ahead)| at(1_000 * second, Action::Clock(c.clone(), ahead))).into(),
        ];
        assert_eq!(scenario.unwrap().incidents, expected);
    }

    #[test]
    fn what_has_no_direction_no_end_or_no_survey_is_told() {
        let problems = with(
            "expect = { late_share_at_most = 0.1, bytes_per_agent_second_at_most = 0 }
             link = [{ between = [\"a\", \"b\"], one_way = true, rtt_ms = 4 }, { between = [\"a\", \"c\"] }]
             fault = [
                { kind = \"partition\", regions = [\"a\"], flap_s = 2, at_s = 1 },
                { kind = \"partition\", regions = [\"a\"], flap_s = 0.001, at_s = 1, for_s = 2 },
                { kind = \"paths\", one_way = true, at_s = 1, loss = 0.1 },
                { kind = \"drift\", region = \"a\", per_mille = 2000, at_s = 20, for_s = 3 },
             ]",
        )
        .unwrap_err()
        .problems;
        let starts = [
            "link.one_way = true: rtt_ms and jitter are of both directions",
            "link.between = [\"a\", \"c\"]: nothing is said of it",
            "fault[0].flap_s = 2: what comes and goes has to end",
            "fault[1].flap_s = 0.001: must be between 0.04 and 2",
            "fault[2].one_way = true: all paths have no direction",
            "fault[3].per_mille = 2000: must be between -1000 and 1000",
            "expect.late_share_at_most = (without [survey]): only a survey",
            "expect.bytes_per_agent_second_at_most = 0: must be between 1 and",
        ];
        assert!(
            problems.len() == starts.len() && problems.iter().zip(starts).all(|(problem, start)| problem.starts_with(start)),
            "{problems:#?}"
        );
    }

    #[test]
    fn faults_come_in_order_with_their_ends() {
        let text = r#"
            name = "x"
            about = "x"
            duration_s = 60
            region = [{ name = "a" }, { name = "b" }, { name = "c" }]
            link = [{ between = ["b", "a"], rtt_ms = 30 }]
            fault = [
                { kind = "partition", at_s = 20, for_s = 10, regions = ["c"] },
                { kind = "crash", at_s = 5, down_s = 20, region = "a", after_writes = 3 },
            ]
        "#;
        let scenario = Scenario::parse(text).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| RegionId::new(name).unwrap());
        let (left, right) = (vec![c.clone()], vec![a.clone(), b.clone()]);
        let expected = [
            (5, Action::CrashAfterWrites(a.clone(), 3)),
            (20, Action::Partition(left.clone(), right.clone())),
            (25, Action::Restart(a.clone())),
            (30, Action::Heal(left, right)),
        ];
        assert_eq!(scenario.faults(), expected.map(|(at, action)| Fault { at: Duration::from_secs(at), action }));
        assert_eq!(scenario.delay(&a, &b).unwrap().min, Duration::from_millis(15), "the link's");
        assert_eq!(scenario.delay(&c, &b).unwrap().min, Duration::from_millis(50), "the network's");
    }
}
