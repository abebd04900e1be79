//! From a scenario's text to a [`Scenario`], or to everything that is wrong with it.

use super::{Action, Bounds, Expectations, Fault, Region, Scenario, ScenarioError, Survey, Workload, ordered};
use crate::data;
use crate::disk::Illness;
use crate::net::PathQuality;
use crate::world::Delay;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tradewind_agent::provider::simulated::Outage;
use tradewind_protocol::RegionId;
use tradewind_protocol::forecast::MAX_HORIZON;
use tradewind_protocol::region::Coordinates;
use tradewind_protocol::wire::Version;

/// The most regions: every tick visits every pair of them.
const MAX_REGIONS: usize = 100;

/// The longest scenario: a month. Virtual time is cheap, traces of years are not.
const MAX_DURATION_S: f64 = 31.0 * 86_400.0;

/// The shortest period of a partition that comes and goes: two steps of the world for each of the two.
const LEAST_FLAP_S: f64 = 0.04;

/// How often a partition may come and go: each time changes every pair of regions.
const MAX_FLAPS: f64 = 1_000.0;

/// How long a wall clock may drift, in steps of a second each.
const MAX_DRIFT_S: f64 = 86_400.0;

/// Delay of a link of no length: two passages through an edge. A guess.
const LEAST_DELAY_MS: f64 = 1.0;

/// Delay in one direction per kilometre of great circle: half the median round-trip time over
/// distance of 496 pairs of cloud regions more than 500 km apart, 1.74 ms per 100 km (measured by
/// cloudping.co over a year).
const DELAY_MS_PER_KM: f64 = 0.0087;

/// The scenario in `text`, or everything that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario = toml::from_str(text).map_err(|error| ScenarioError { problems: vec![error.to_string().trim().to_string()] })?;
    let mut checked = Checker::new(&raw);
    let scenario = checked.scenario(raw);
    if checked.problems.is_empty() { Ok(scenario) } else { Err(ScenarioError { problems: checked.problems }) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: String,
    about: String,
    duration_s: f64,
    #[serde(default)]
    network: RawNetwork,
    region: Vec<RawRegion>,
    #[serde(default)]
    link: Vec<RawLink>,
    #[serde(default)]
    workload: RawWorkload,
    #[serde(default)]
    fault: Vec<RawFault>,
    /// Until when faults are drawn anew for each seed.
    chaos_until_s: Option<f64>,
    #[serde(default)]
    expect: RawExpect,
    survey: Option<RawSurvey>,
    #[serde(default)]
    agent: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawNetwork {
    /// Round trip where neither a link nor coordinates say otherwise.
    rtt_ms: f64,
    /// Round trips of pairs; before coordinates, behind links.
    rtt_file: Option<PathBuf>,
    /// How much longer than the shortest delay the longest is, as a share of it.
    jitter: f64,
    loss: Option<f64>,
    duplicate: Option<f64>,
    mtu: Option<usize>,
    late: Option<f64>,
    late_ms: Option<u64>,
    bytes_per_s: Option<u64>,
}

impl Default for RawNetwork {
    fn default() -> Self {
        Self {
            rtt_ms: 100.0,
            rtt_file: None,
            jitter: 0.1,
            loss: None,
            duplicate: None,
            mtu: None,
            late: None,
            late_ms: None,
            bytes_per_s: None,
        }
    }
}

/// What is said of the quality of a path; the keys are the same wherever it is said.
#[derive(Clone, Copy)]
struct RawQuality {
    loss: Option<f64>,
    duplicate: Option<f64>,
    mtu: Option<usize>,
    late: Option<f64>,
    late_ms: Option<u64>,
    bytes_per_s: Option<u64>,
}

impl RawQuality {
    /// What is left out is as `before`.
    fn over(self, before: PathQuality) -> PathQuality {
        PathQuality {
            loss: self.loss.unwrap_or(before.loss),
            duplicate: self.duplicate.unwrap_or(before.duplicate),
            mtu: self.mtu.unwrap_or(before.mtu),
            late: self.late.unwrap_or(before.late),
            late_ms: self.late_ms.unwrap_or(before.late_ms),
            bytes_per_s: self.bytes_per_s.unwrap_or(before.bytes_per_s),
        }
    }

    fn says_nothing(self) -> bool {
        let Self { loss, duplicate, mtu, late, late_ms, bytes_per_s } = self;
        loss.or(duplicate).or(late).is_none() && mtu.is_none() && late_ms.or(bytes_per_s).is_none()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSurvey {
    every_s: f64,
    lead_steps: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    name: String,
    latitude: Option<f64>,
    longitude: Option<f64>,
    /// What its agent speaks at most.
    wire_version: Option<Version>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    between: [String; 2],
    rtt_ms: Option<f64>,
    jitter: Option<f64>,
    /// Only what the first sends to the second.
    #[serde(default)]
    one_way: bool,
    loss: Option<f64>,
    duplicate: Option<f64>,
    mtu: Option<usize>,
    late: Option<f64>,
    late_ms: Option<u64>,
    bytes_per_s: Option<u64>,
}

impl RawLink {
    fn quality(&self) -> RawQuality {
        let Self { loss, duplicate, mtu, late, late_ms, bytes_per_s, .. } = *self;
        RawQuality { loss, duplicate, mtu, late, late_ms, bytes_per_s }
    }
}

#[derive(Deserialize, Default)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum RawWorkload {
    #[default]
    Silence,
    Synthetic {
        rate: f64,
        season_s: f64,
        every_s: f64,
        #[serde(default)]
        late_one_in: u64,
    },
    Recorded {
        file: PathBuf,
        row_s: f64,
        scale: f64,
        #[serde(default)]
        history_rows: usize,
        #[serde(default)]
        late_one_in: u64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum RawFault {
    Crash {
        at_s: f64,
        region: String,
        after_writes: Option<u64>,
        down_s: Option<f64>,
        #[serde(default)]
        loses_disk: bool,
    },
    Stop {
        at_s: f64,
        region: String,
        down_s: Option<f64>,
        /// What it speaks at most when it is back.
        wire_version: Option<Version>,
    },
    Partition {
        at_s: f64,
        regions: Vec<String>,
        from: Option<Vec<String>>,
        /// What these send does not arrive; they hear the others.
        #[serde(default)]
        one_way: bool,
        /// It comes and goes, once in so long.
        flap_s: Option<f64>,
        for_s: Option<f64>,
    },
    Restart {
        at_s: f64,
        region: String,
    },
    Paths {
        at_s: f64,
        between: Option<[String; 2]>,
        #[serde(default)]
        one_way: bool,
        loss: Option<f64>,
        duplicate: Option<f64>,
        mtu: Option<usize>,
        late: Option<f64>,
        late_ms: Option<u64>,
        bytes_per_s: Option<u64>,
        for_s: Option<f64>,
    },
    Pause {
        at_s: f64,
        region: String,
        for_s: f64,
    },
    Disk {
        at_s: f64,
        region: String,
        illness: Illness,
        for_s: f64,
    },
    Pace {
        at_s: f64,
        region: String,
        per_mille: u32,
        for_s: f64,
    },
    Liar {
        at_s: f64,
        for_s: f64,
    },
    Clock {
        at_s: f64,
        region: String,
        ahead_ms: i64,
    },
    Drift {
        at_s: f64,
        region: String,
        per_mille: i32,
        for_s: f64,
    },
    Instance {
        at_s: f64,
        region: String,
    },
    Reclaim {
        at_s: f64,
        region: String,
    },
    Provider {
        at_s: f64,
        region: String,
        outage: Outage,
        for_s: f64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawExpect {
    converge_s: f64,
    detect_s: f64,
    fresh_s: f64,
    relay_s: Option<f64>,
    late_share_at_most: Option<f64>,
    forecast_ratio_at_most: Option<f64>,
    coverage_90_at_least: Option<f64>,
    bytes_per_agent_second_at_most: Option<f64>,
}

impl Default for RawExpect {
    fn default() -> Self {
        // Cold convergence and detection of a crash took 6.5 s and 10.8 s at a gossip interval of
        // one second; the bounds are twice that. Freshness: a step of the default length and a half.
        Self {
            converge_s: 13.0,
            detect_s: 22.0,
            fresh_s: 90.0,
            relay_s: None,
            late_share_at_most: None,
            forecast_ratio_at_most: None,
            coverage_90_at_least: None,
            bytes_per_agent_second_at_most: None,
        }
    }
}

/// The quality of paths that have one of their own, by sender and receiver.
type Links = BTreeMap<(RegionId, RegionId), PathQuality>;

/// From each moment to its end, if it has one.
fn spans(times: impl IntoIterator<Item = (Duration, Option<Duration>)>, begin: &[Action], end: &[Action]) -> Vec<Fault> {
    let at = |at: Duration, actions: &[Action]| actions.iter().cloned().map(|action| Fault { at, action }).collect::<Vec<_>>();
    times
        .into_iter()
        .flat_map(|(from, until)| at(from, begin).into_iter().chain(until.into_iter().flat_map(|until| at(until, end))))
        .collect()
}

struct Checker {
    problems: Vec<String>,
    known: BTreeSet<String>,
    end: Duration,
}

impl Checker {
    fn new(raw: &RawScenario) -> Self {
        let mut checker =
            Self { problems: vec![], known: raw.region.iter().map(|region| region.name.clone()).collect(), end: Duration::MAX };
        let end = checker.seconds("duration_s", raw.duration_s);
        // Where it is wrong itself, nothing else is held against it.
        checker.end = if checker.problems.is_empty() { end } else { Duration::MAX };
        if !(1..=MAX_REGIONS).contains(&raw.region.len()) {
            checker.wrong("region", raw.region.len(), format_args!("there must be 1 to {MAX_REGIONS}"));
        }
        for (at, region) in raw.region.iter().enumerate() {
            if raw.region[..at].iter().any(|other| other.name == region.name) {
                checker.wrong("region.name", &region.name, "must differ from the other regions' names");
            }
        }
        checker
    }

    fn scenario(&mut self, raw: RawScenario) -> Scenario {
        let RawNetwork { loss, duplicate, mtu, late, late_ms, bytes_per_s, .. } = raw.network;
        let quality = RawQuality { loss, duplicate, mtu, late, late_ms, bytes_per_s }.over(PathQuality::default());
        let quality = self.quality("network", quality);
        let regions: Vec<Region> = raw.region.iter().filter_map(|region| self.region(region)).collect();
        let delays = self.delays(&regions, &raw.network, &raw.link);
        let links = self.links(&raw.link, quality);
        let mut incidents: Vec<Vec<Fault>> = vec![];
        for (at, fault) in raw.fault.into_iter().enumerate() {
            let before = self.problems.len();
            incidents.push(self.fault(fault, &regions, quality, &links));
            for problem in &mut self.problems[before..] {
                if let Some(rest) = problem.strip_prefix("fault.") {
                    *problem = format!("fault[{at}].{rest}");
                }
            }
        }
        let expect = Expectations {
            converge: self.seconds("expect.converge_s", raw.expect.converge_s),
            detect: self.seconds("expect.detect_s", raw.expect.detect_s),
            fresh: self.seconds("expect.fresh_s", raw.expect.fresh_s),
            relay: raw.expect.relay_s.map(|bound| self.seconds("expect.relay_s", bound)),
        };
        let bounds = self.bounds(&raw.expect, raw.survey.is_some());
        Scenario {
            name: raw.name,
            about: raw.about,
            duration: self.end,
            workload: self.workload(raw.workload),
            regions,
            delays,
            quality,
            links,
            incidents,
            chaos_until: raw.chaos_until_s.map(|until| self.time("chaos_until_s", until)),
            expect,
            bounds,
            survey: raw.survey.map(|survey| Survey {
                every: self.seconds("survey.every_s", survey.every_s),
                lead_steps: self.within("survey.lead_steps", survey.lead_steps as f64, 1.0, MAX_HORIZON as f64) as usize,
            }),
            agent: raw.agent,
        }
    }

    fn region(&mut self, raw: &RawRegion) -> Option<Region> {
        let id = self.id("region.name", &raw.name)?;
        let coordinates = match (raw.latitude, raw.longitude) {
            (None, None) => None,
            (Some(latitude), Some(longitude)) if (Coordinates { latitude, longitude }).is_valid() => {
                Some(Coordinates { latitude, longitude })
            }
            (latitude, longitude) => {
                self.wrong(
                    "region",
                    format_args!("{id} at {latitude:?}, {longitude:?}"),
                    "both coordinates must be on the globe, or neither given",
                );
                None
            }
        };
        Some(Region { id, coordinates, wire_version: raw.wire_version.unwrap_or(Version::NEWEST) })
    }

    fn delays(&mut self, regions: &[Region], network: &RawNetwork, links: &[RawLink]) -> BTreeMap<(RegionId, RegionId), Delay> {
        let jitter = self.within("network.jitter", network.jitter, 0.0, 10.0);
        let default = self.within("network.rtt_ms", network.rtt_ms, 0.0, 60_000.0) / 2.0;
        let delay = |ms: f64, jitter: f64| Delay {
            min: Duration::from_secs_f64(ms / 1e3),
            max: Duration::from_secs_f64(ms * (1.0 + jitter) / 1e3),
        };
        let measured = match network.rtt_file.as_ref().map(|file| (file, data::read(file).and_then(|text| data::round_trips(&text)))) {
            None => BTreeMap::new(),
            Some((_, Ok(measured))) => measured,
            Some((file, Err(error))) => {
                self.wrong("network.rtt_file", file.display(), format_args!("{error:#}"));
                BTreeMap::new()
            }
        };
        let mut delays = BTreeMap::new();
        for (i, a) in regions.iter().enumerate() {
            for b in &regions[i + 1..] {
                let pair = ordered(&a.id, &b.id);
                let ms = match (measured.get(&(pair.0.to_string(), pair.1.to_string())), a.coordinates, b.coordinates) {
                    (Some(rtt), _, _) => rtt / 2.0,
                    (None, Some(here), Some(there)) => LEAST_DELAY_MS + DELAY_MS_PER_KM * here.distance_km(there),
                    (None, _, _) => default,
                };
                delays.insert(pair, delay(ms, jitter));
            }
        }
        for link in links {
            let Some((a, b)) = self.two("link.between", &link.between) else { continue };
            if link.one_way && (link.rtt_ms.is_some() || link.jitter.is_some()) {
                self.wrong("link.one_way", link.one_way, "rtt_ms and jitter are of both directions: say them in another [[link]]");
            }
            if link.rtt_ms.is_none() && link.jitter.is_none() && link.quality().says_nothing() {
                self.wrong("link.between", format_args!("{:?}", link.between), "nothing is said of it: give it an rtt_ms, a loss or such");
            }
            let former = delays.get(&ordered(&a, &b)).map_or(default, |delay| delay.min.as_secs_f64() * 1e3);
            let ms = link.rtt_ms.map_or(former, |rtt| self.within("link.rtt_ms", rtt, 0.0, 60_000.0) / 2.0);
            let jitter = link.jitter.map_or(jitter, |jitter| self.within("link.jitter", jitter, 0.0, 10.0));
            delays.insert(ordered(&a, &b), delay(ms, jitter));
        }
        delays
    }

    /// Of the paths that have a quality of their own.
    fn links(&mut self, raw: &[RawLink], usual: PathQuality) -> Links {
        let mut links = Links::new();
        for link in raw.iter().filter(|link| !link.quality().says_nothing()) {
            let quality = self.quality("link", link.quality().over(usual));
            // Names that are wrong are told of with the delays.
            let [Ok(a), Ok(b)] = link.between.each_ref().map(|name| RegionId::new(name)) else { continue };
            if !link.one_way {
                links.insert((b.clone(), a.clone()), quality);
            }
            links.insert((a, b), quality);
        }
        links
    }

    fn bounds(&mut self, raw: &RawExpect, surveyed: bool) -> Bounds {
        let mut share = |key: &str, value: Option<f64>, most: f64| {
            let key = format!("expect.{key}");
            if value.is_some() && !surveyed {
                self.wrong(&key, "(without [survey])", "only a survey finds out what it bounds");
            }
            value.map(|value| self.within(&key, value, 0.0, most))
        };
        Bounds {
            late_share: share("late_share_at_most", raw.late_share_at_most, 1.0),
            forecast_ratio: share("forecast_ratio_at_most", raw.forecast_ratio_at_most, 1e3),
            coverage_90: share("coverage_90_at_least", raw.coverage_90_at_least, 1.0),
            bytes_per_agent_second: raw
                .bytes_per_agent_second_at_most
                .map(|bytes| self.within("expect.bytes_per_agent_second_at_most", bytes, 1.0, 1e12)),
        }
    }

    fn fault(&mut self, raw: RawFault, regions: &[Region], usual: PathQuality, links: &Links) -> Vec<Fault> {
        match raw {
            RawFault::Crash { at_s, region, after_writes, down_s, loses_disk } => {
                let at = self.time("fault.at_s", at_s);
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                let action = match after_writes {
                    None if loses_disk => Action::CrashAndLose(region.clone()),
                    None => Action::Crash(region.clone()),
                    Some(_) if loses_disk => {
                        self.wrong("fault.after_writes", "(with loses_disk)", "a lost disk counts no writes: leave one of the two out");
                        return vec![];
                    }
                    Some(writes) => Action::CrashAfterWrites(region.clone(), writes),
                };
                let restart =
                    down_s.map(|down| Fault { at: self.time("fault.at_s + down_s", at_s + down), action: Action::Restart(region) });
                std::iter::once(Fault { at, action }).chain(restart).collect()
            }
            RawFault::Stop { at_s, region, down_s, wire_version } => {
                let at = self.time("fault.at_s", at_s);
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                if let (Some(version), None) = (wire_version, down_s) {
                    self.wrong("fault.wire_version", version.number(), "an agent that never boots again speaks none: say down_s");
                }
                let back = down_s.map(|down| self.time("fault.at_s + down_s", at_s + down));
                let other = back.and_then(|at| Some(Fault { at, action: Action::Wire(region.clone(), wire_version?) }));
                let restart = back.map(|at| Fault { at, action: Action::Restart(region.clone()) });
                std::iter::once(Fault { at, action: Action::Stop(region) }).chain(other).chain(restart).collect()
            }
            RawFault::Partition { at_s, regions: names, from, one_way, flap_s, for_s } => {
                let at = self.time("fault.at_s", at_s);
                let left: Vec<RegionId> = names.iter().filter_map(|name| self.named("fault.regions", name)).collect();
                let right: Vec<RegionId> = match from {
                    None => regions.iter().map(|region| region.id.clone()).filter(|id| !left.contains(id)).collect(),
                    Some(from) => from.iter().filter_map(|name| self.named("fault.from", name)).filter(|id| !left.contains(id)).collect(),
                };
                if left.is_empty() || right.is_empty() {
                    self.wrong("fault.regions", format_args!("{names:?}"), "a partition needs regions on both sides");
                }
                let (begin, end) = if one_way {
                    let pairs = || left.iter().flat_map(|from| right.iter().map(|to| (from.clone(), to.clone())));
                    (
                        pairs().map(|(from, to)| Action::Deafen(from, to)).collect(),
                        pairs().map(|(from, to)| Action::Undeafen(from, to)).collect(),
                    )
                } else {
                    (vec![Action::Partition(left.clone(), right.clone())], vec![Action::Heal(left, right)])
                };
                let until = for_s.map(|length| self.time("fault.at_s + for_s", at_s + length));
                match (flap_s, until) {
                    (None, until) => spans([(at, until)], &begin, &end),
                    (Some(flap_s), None) => {
                        self.wrong("fault.flap_s", flap_s, "what comes and goes has to end: say for_s");
                        vec![]
                    }
                    (Some(flap_s), Some(until)) => {
                        let length = until.saturating_sub(at).as_secs_f64();
                        let least = LEAST_FLAP_S.max(length / MAX_FLAPS);
                        let period = Duration::from_secs_f64(self.within("fault.flap_s", flap_s, least, length.max(least)));
                        let starts = std::iter::successors(Some(at), |at| Some(*at + period)).take_while(|at| *at < until);
                        spans(starts.map(|at| (at, Some((at + period / 2).min(until)))), &begin, &end)
                    }
                }
            }
            RawFault::Restart { at_s, region } => self.once(at_s, &region, Action::Restart),
            RawFault::Paths { at_s, between, one_way, loss, duplicate, mtu, late, late_ms, bytes_per_s, for_s } => {
                let at = self.time("fault.at_s", at_s);
                let said = RawQuality { loss, duplicate, mtu, late, late_ms, bytes_per_s };
                let (begin, end) = match between {
                    None => {
                        if one_way {
                            self.wrong("fault.one_way", one_way, "all paths have no direction: say between");
                        }
                        (vec![Action::Paths(self.quality("fault", said.over(usual)))], vec![Action::Paths(usual)])
                    }
                    Some(ends) => {
                        let Some((a, b)) = self.two("fault.between", &ends) else { return vec![] };
                        let directions = if one_way { vec![(a, b)] } else { vec![(a.clone(), b.clone()), (b, a)] };
                        let worse = |(from, to): &(RegionId, RegionId)| {
                            let own = links.get(&(from.clone(), to.clone())).copied().unwrap_or(usual);
                            Action::Link(from.clone(), to.clone(), Some(self.quality("fault", said.over(own))))
                        };
                        let begin = directions.iter().map(worse).collect();
                        (begin, directions.into_iter().map(|(from, to)| Action::Link(from, to, None)).collect())
                    }
                };
                let until = for_s.map(|length| self.time("fault.at_s + for_s", at_s + length));
                spans([(at, until)], &begin, &end)
            }
            RawFault::Pause { at_s, region, for_s } => {
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                let length = self.seconds("fault.for_s", for_s).as_millis().try_into().unwrap_or(u64::MAX);
                self.span(at_s, for_s, Action::Pause(region.clone(), length), Action::Resume(region))
            }
            RawFault::Disk { at_s, region, illness, for_s } => {
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                let mut faults = self.span(at_s, for_s, Action::Disk(region.clone(), Some(illness)), Action::Disk(region.clone(), None));
                // An agent gives up over a disk that fails; one that is merely slow goes on.
                if let (Some(end), true) = (faults.last().map(|end| end.at), illness != Illness::Slow) {
                    faults.push(Fault { at: end, action: Action::Restart(region) });
                }
                faults
            }
            RawFault::Pace { at_s, region, per_mille, for_s } => {
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                self.within("fault.per_mille", f64::from(per_mille), 0.0, 1_000.0);
                self.span(at_s, for_s, Action::Pace(region.clone(), per_mille), Action::Pace(region, 0))
            }
            RawFault::Instance { at_s, region } => self.once(at_s, &region, Action::Kill),
            RawFault::Reclaim { at_s, region } => self.once(at_s, &region, Action::Reclaim),
            RawFault::Provider { at_s, region, outage, for_s } => {
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                self.span(at_s, for_s, Action::Provider(region.clone(), Some(outage)), Action::Provider(region, None))
            }
            RawFault::Liar { at_s, for_s } => self.span(at_s, for_s, Action::Lie(true), Action::Lie(false)),
            RawFault::Drift { at_s, region, per_mille, for_s } => {
                let (at, until) = (self.time("fault.at_s", at_s), self.time("fault.at_s + for_s", at_s + for_s));
                let Some(region) = self.named("fault.region", &region) else { return vec![] };
                self.within("fault.per_mille", f64::from(per_mille), -1_000.0, 1_000.0);
                self.within("fault.for_s", for_s, 1.0, MAX_DRIFT_S);
                // A thousandth of a second is a millisecond.
                let seconds = (1..).map(|second| (at + Duration::from_secs(second), second.cast_signed() * i64::from(per_mille)));
                let drift = seconds.take_while(|(at, _)| *at < until).take(MAX_DRIFT_S as usize);
                let drift = drift.map(|(at, ahead_ms)| Fault { at, action: Action::Clock(region.clone(), ahead_ms) });
                drift.chain([Fault { at: until, action: Action::Clock(region.clone(), 0) }]).collect()
            }
            RawFault::Clock { at_s, region, ahead_ms } => self.once(at_s, &region, |region| Action::Clock(region, ahead_ms)),
        }
    }

    /// A fault of one moment and one region.
    fn once(&mut self, at_s: f64, region: &str, action: impl FnOnce(RegionId) -> Action) -> Vec<Fault> {
        let at = self.time("fault.at_s", at_s);
        self.named("fault.region", region).map(|region| Fault { at, action: action(region) }).into_iter().collect()
    }

    /// A fault that lasts for a while.
    fn span(&mut self, at_s: f64, for_s: f64, begin: Action, end: Action) -> Vec<Fault> {
        let (from, until) = (self.time("fault.at_s", at_s), self.time("fault.at_s + for_s", at_s + for_s));
        vec![Fault { at: from, action: begin }, Fault { at: until, action: end }]
    }

    fn workload(&mut self, raw: RawWorkload) -> Workload {
        match raw {
            RawWorkload::Silence => Workload::Silence,
            RawWorkload::Synthetic { rate, season_s, every_s, late_one_in } => Workload::Synthetic {
                late_one_in,
                rate: self.within("workload.rate", rate, 0.0, 1e9),
                season: self.seconds("workload.season_s", season_s),
                every: self.seconds("workload.every_s", every_s),
            },
            RawWorkload::Recorded { file, row_s, scale, history_rows, late_one_in } => Workload::Recorded {
                file,
                history_rows,
                late_one_in,
                row: self.seconds("workload.row_s", row_s),
                scale: self.within("workload.scale", scale, 0.0, 1e9),
            },
        }
    }

    fn quality(&mut self, key: &str, quality: PathQuality) -> PathQuality {
        PathQuality {
            late: self.within(&format!("{key}.late"), quality.late, 0.0, 1.0),
            late_ms: quality.late_ms,
            bytes_per_s: quality.bytes_per_s,
            loss: self.within(&format!("{key}.loss"), quality.loss, 0.0, 1.0),
            duplicate: self.within(&format!("{key}.duplicate"), quality.duplicate, 0.0, 1.0),
            mtu: {
                // QUIC needs 1,200 (RFC 9000, section 14); beyond a jumbo frame there is no path.
                if !(1200..=9000).contains(&quality.mtu) {
                    self.wrong(&format!("{key}.mtu"), quality.mtu, "must be between 1200 and 9000 bytes of UDP payload");
                }
                quality.mtu
            },
        }
    }

    fn id(&mut self, key: &str, name: &str) -> Option<RegionId> {
        match RegionId::new(name) {
            Ok(id) => Some(id),
            Err(error) => {
                self.problems.push(format!("{key}: {error}"));
                None
            }
        }
    }

    fn named(&mut self, key: &str, name: &str) -> Option<RegionId> {
        if !self.known.contains(name) {
            self.wrong(key, name, "there is no such region in the scenario");
            return None;
        }
        RegionId::new(name).ok()
    }

    /// Two regions of the scenario.
    fn two(&mut self, key: &str, names: &[String; 2]) -> Option<(RegionId, RegionId)> {
        match names.each_ref().map(|name| self.named(key, name)) {
            [Some(a), Some(b)] if a != b => Some((a, b)),
            [Some(_), Some(_)] => {
                self.wrong(key, format_args!("{names:?}"), "must be two regions");
                None
            }
            _ => None,
        }
    }

    fn within(&mut self, key: &str, value: f64, least: f64, most: f64) -> f64 {
        if (least..=most).contains(&value) {
            return value;
        }
        // Not with three hundred zeros.
        let shown = if value.abs() < 1e15 { value.to_string() } else { format!("{value:e}") };
        self.wrong(key, shown, format_args!("must be between {least} and {most}"));
        least
    }

    /// A length of time above zero.
    fn seconds(&mut self, key: &str, value: f64) -> Duration {
        Duration::from_secs_f64(self.within(key, value, 0.001, MAX_DURATION_S))
    }

    /// A moment within the scenario.
    fn time(&mut self, key: &str, value: f64) -> Duration {
        let at = Duration::from_secs_f64(self.within(key, value, 0.0, MAX_DURATION_S));
        if at > self.end {
            self.wrong(key, value, format_args!("must be within the scenario's {} s", self.end.as_secs_f64()));
        }
        at
    }

    fn wrong(&mut self, key: &str, value: impl fmt::Display, remedy: impl fmt::Display) {
        self.problems.push(format!("{key} = {value}: {remedy}"));
    }
}
