//! One simulation from beginning to end: builds the world of a scenario, steps it, breaks and mends
//! it when the scenario says so, and reports what the oracle found.

use crate::agents::{API_PORT, Cast, Controls};
use crate::chaos;
use crate::client::{Book, Client, Sight};
use crate::clock::wall_time;
use crate::entropy;
use crate::env::simulation_seed;
use crate::http::Api;
use crate::inspect::Inspector;
use crate::liar;
use crate::memory;
use crate::net::{PathQuality, Paths};
use crate::oracle::{Oracle, Rule, Topology};
use crate::report::survey::{self, Findings, Scale, Surveyor};
use crate::report::{Crossings, Report, Sampler, beyond};
use crate::scenario::{Action, Bounds, Fault, Scenario, Workload};
use crate::standstill::{self, Watch};
use crate::trace::{self, Detail, Recording};
use crate::workload::Traffic;
use crate::world::{Delay, TICK, World};
use anyhow::Context as _;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tradewind_agent::pool::RuleWatch;
use tradewind_protocol::RegionId;

/// The participant that all clients run on. No region can be called so.
const OUTSIDE: &str = "outside.";

/// Delay between a client and its agent: they stand in one data centre.
const CLIENT_DELAY: Duration = Duration::from_millis(1);

/// Delay between the peer that lies and every agent: a distance within a continent.
const LIAR_DELAY: Duration = Duration::from_millis(20);

/// How long before the end clients stop posting, beyond what the agents need to close the last step.
const TAIL: Duration = Duration::from_secs(3);

/// The largest database that any scenario may leave: a loose bound, which only what grows without end breaks.
const MAX_DATABASE_BYTES: u64 = 256 << 20;

/// When memory is looked at, in sixths of a run. Agents that live from the first look to the end are judged, by what they take between the others.
const MEMORY_LOOKS: [u32; 3] = [3, 4, 5];

/// The fastest that an agent's memory may grow in each sixth of the last third of a run: by this, and by so much for each
/// region of the mesh. While series, logs and caches fill it is 1 to 4 KB, with 30 regions as with 4. An agent of `chaos`, seed 46155036, that was 25 s
/// old then grew by 19 KB, and by 4 where the run went on for 300 s: it was still filling. One of seed 500316 took 1 MB at once, and no more.
const MAX_GROWTH_BYTES_PER_S: f64 = 8_192.0;
const MAX_GROWTH_BYTES_PER_S_AND_REGION: f64 = 2_048.0;

/// How to run a scenario.
pub struct Options {
    /// From which all chance follows.
    pub seed: u64,
    /// How much is traced.
    pub detail: Detail,
    /// Where the trace goes, besides into its hash.
    pub sink: Option<Box<dyn Write + Send>>,
    /// Is given the report if virtual time stands still, on a thread beside the simulation's: such a run never comes to its end, so this has to end
    /// the process.
    pub on_standstill: Box<dyn FnOnce(Report) + Send>,
}

/// Runs `scenario`. An error means that it could not be run; what agents do wrong is in the report.
///
/// Only the first run of a process is the seed's own: whatever libraries set up once a process
/// (lazy statics with a `HashMap` in them, mostly) draws from the first simulation's chance and not
/// from those of later ones, which are sound but not the run that another process gives.
pub fn run(scenario: &Scenario, mut options: Options) -> anyhow::Result<Report> {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let deterministic = entropy::is_covered() && !BEGUN.swap(true, Ordering::Relaxed);
    // Here, so that its name is drawn from the operating system's chance, not from the simulation's.
    let certificates = tempfile::tempdir().context("cannot make a directory for the certificates")?;
    let directory = certificates.path();
    // This thread's clock is the operating system's; the simulation's own thread has another.
    let begun = Instant::now();
    let (seed, limit) = (options.seed, standstill::limit());
    let on_standstill = std::mem::replace(&mut options.on_standstill, Box::new(|_| {}));
    let broken_off = {
        let (scenario, agents) = (scenario.name.clone(), scenario.regions.len());
        move |at: Duration, why: &str| Report::broken_off(&scenario, seed, agents, at, begun.elapsed(), why)
    };
    let tell = broken_off.clone();
    let watch = Watch::begin(limit, move |at| {
        let why = format!("virtual time stands still at {:.3} s for {limit:?}: an agent goes round without waiting", at.as_secs_f64());
        eprintln!("seed {seed}: {why}");
        // Its turn would never end.
        on_standstill(tell(at, &why));
    });
    let clock = &watch;
    let simulated = std::panic::catch_unwind(AssertUnwindSafe(move || {
        entropy::on_fresh_thread(seed, move || {
            let mut report = Simulation::new(scenario, options, directory)?.run(clock)?;
            report.cpu_s = entropy::processor_time().as_secs_f64();
            anyhow::Ok(report)
        })
    }));
    let mut report = match simulated {
        Ok(ended) => ended??,
        // What panicked is gone with its thread, and nothing of it is looked at any more.
        Err(panic) => broken_off(watch.now(), &format!("it panicked: {}", words(&*panic))),
    };
    report.wall_s = begun.elapsed().as_secs_f64();
    report.deterministic = deterministic;
    Ok(report)
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    seed: u64,
    recording: Recording,
    world: World,
    faults: VecDeque<Fault>,
    oracle: Oracle,
    book: Rc<RefCell<Book>>,
    sampler: Sampler,
    findings: Rc<RefCell<Findings>>,
    scale: Scale,
    /// When clients stop posting.
    posted_until: Duration,
    /// Whose address it is.
    addresses: BTreeMap<IpAddr, RegionId>,
    controls: BTreeMap<RegionId, Rc<Controls>>,
    watches: Rc<RefCell<BTreeMap<RegionId, RuleWatch>>>,
    lying: Rc<Cell<bool>>,
    /// How the paths are when nothing is wrong with them.
    usual: PathQuality,
    crossings: Crossings,
    /// What was held at each of the [`MEMORY_LOOKS`], and when that was.
    held: Vec<(Duration, Holdings)>,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, options: Options, certificates: &Path) -> anyhow::Result<Self> {
        let recording = Recording::start(options.detail, options.sink.map(|sink| sink as Box<dyn Write>));
        let mut world = World::new(options.seed, scenario.quality);
        let cast = Cast::new(scenario, options.seed, &world, certificates)?;
        let mut controls = BTreeMap::new();
        for region in &scenario.regions {
            let own = Rc::new(Controls::new(region.wire_version));
            controls.insert(region.id.clone(), own.clone());
            world.add_machine(region.id.as_str(), cast.program(&region.id, own)?);
        }
        let lying = Rc::<Cell<bool>>::default();
        let book = Rc::<RefCell<Book>>::default();
        if scenario.chaos_until.is_some() || scenario.incidents.iter().flatten().any(|fault| matches!(fault.action, Action::Lie(_))) {
            let papers = cast.liar(scenario, &world)?;
            world.add_machine(liar::NAME, liar::program(papers, lying.clone(), book.clone()));
            for region in &scenario.regions {
                world.set_delay(liar::NAME, region.id.as_str(), Delay { min: LIAR_DELAY, max: LIAR_DELAY });
            }
        }
        for ((a, b), delay) in &scenario.delays {
            world.set_delay(a.as_str(), b.as_str(), *delay);
        }
        for ((from, to), quality) in &scenario.links {
            world.paths().set_between(world.address_of(from.as_str()), world.address_of(to.as_str()), Some(*quality));
        }
        let ids: Vec<RegionId> = scenario.regions.iter().map(|region| region.id.clone()).collect();
        let budget = cast.configs.values().map(|config| config.mesh.state_budget_bytes as u64).max().unwrap_or(0);
        let config = cast.configs.values().next().context("a scenario has regions")?;
        let scale = Scale { step: config.step, first: config.step.index(wall_time(Duration::ZERO)), season: config.forecast.season };
        let addresses = ids.iter().map(|id| (world.address_of(id.as_str()), id.clone())).collect();
        let mut simulation = Self {
            scenario,
            seed: options.seed,
            recording,
            world,
            faults: faults(scenario, options.seed).into(),
            oracle: Oracle::new(ids, scenario.expect.clone(), budget),
            book,
            sampler: Sampler::new(scenario.duration, scenario.regions.len()),
            findings: Rc::default(),
            scale,
            posted_until: Duration::ZERO,
            addresses,
            controls,
            watches: cast.watches.clone(),
            lying,
            usual: scenario.quality,
            crossings: Crossings::new(),
            held: vec![],
        };
        simulation.add_clients(&cast)?;
        for region in &scenario.regions {
            let machine = simulation.world.machine(region.id.as_str())?.clone();
            let disk = machine.disk.clone();
            let mut book = simulation.book.borrow_mut();
            book.boots.insert(region.id.clone(), Box::new(move || machine.boots()));
            book.disk_losses.insert(region.id.clone(), Box::new(move || disk.losses()));
            if let Some(controls) = simulation.controls.get(&region.id).cloned() {
                book.ended.insert(region.id.clone(), Box::new(move || controls.ended.get()));
            }
        }
        simulation.changed(Duration::ZERO, "start");
        Ok(simulation)
    }

    fn add_clients(&mut self, cast: &Cast) -> anyhow::Result<()> {
        let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>> = vec![];
        for (id, config) in &cast.configs {
            let (machine, book) = (self.world.machine(id.as_str())?.clone(), self.book.clone());
            let api = Rc::new(Api::new(SocketAddr::new(self.world.address_of(id.as_str()), API_PORT), machine.clone()));
            let client =
                || Client { region: id.clone(), api: api.clone(), machine: machine.clone(), step: config.step, book: book.clone() };
            let others: Vec<RegionId> = cast.configs.keys().filter(|other| *other != id).cloned().collect();
            // A survey asks the questions of an inspector.
            if let Some(survey) = self.scenario.survey.clone() {
                tasks.push(Box::pin(client().watch()));
                let (region, api, findings) = (id.clone(), api.clone(), self.findings.clone());
                tasks.push(Box::pin(Surveyor { region, api, survey, findings }.run()));
            } else {
                let chaos = self.scenario.chaos_until.is_some();
                tasks.push(Box::pin(Inspector::new(client(), config.clone(), others.clone(), chaos).run()));
            }
            if let Some(traffic) = Traffic::new(&self.scenario.workload, id, &others, simulation_seed(self.seed))? {
                let settle = 2 * config.step.length() + config.ingest.close_after + TAIL / 2;
                let until = self.scenario.duration.saturating_sub(settle + TAIL);
                self.posted_until = until;
                tasks.push(Box::pin(client().post(traffic, until, settle)));
            }
        }
        self.world.add_client(OUTSIDE, async move {
            let mut running = tokio::task::JoinSet::new();
            tasks.into_iter().for_each(|task| {
                running.spawn_local(task);
            });
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            Ok(())
        });
        for id in cast.configs.keys() {
            self.world.set_delay(OUTSIDE, id.as_str(), Delay { min: CLIENT_DELAY, max: CLIENT_DELAY });
        }
        Ok(())
    }

    fn run(mut self, watch: &Watch) -> anyhow::Result<Report> {
        while self.world.elapsed() < self.scenario.duration {
            let now = self.world.elapsed();
            watch.passed(now);
            while self.faults.front().is_some_and(|fault| fault.at <= now)
                && let Some(fault) = self.faults.pop_front()
            {
                self.act(now, fault.action)?;
            }
            match self.world.step() {
                Ok(lost) => lost.into_iter().for_each(|name| self.changed(now, &format!("power cut of {name}"))),
                Err(error) => {
                    self.oracle.on_failure(now, format!("{error:#}"));
                    break;
                }
            }
            for (region, watch) in self.watches.borrow_mut().iter_mut() {
                for what in watch.look() {
                    self.oracle.on_finding(self.world.elapsed(), Rule::Promises, region, what);
                }
            }
            self.look();
            self.look_at_trace();
            if MEMORY_LOOKS.get(self.held.len()).is_some_and(|sixths| 6 * self.world.elapsed() >= *sixths * self.scenario.duration) {
                self.held.push((self.world.elapsed(), holdings(self.scenario, &self.world)));
            }
            if self.sampler.is_due(self.world.elapsed()) {
                let bytes = self.recording.so_far(|trace| trace.packet_bytes).unwrap_or_default();
                self.sampler.sample(self.world.elapsed(), self.oracle.right_share(), bytes);
            }
        }
        Ok(self.report())
    }

    /// Who is up, connected or sound has changed.
    fn changed(&mut self, now: Duration, what: &str) {
        self.oracle.on_change(now, what, &self.world);
        let mut book = self.book.borrow_mut();
        book.sound_since.clone_from(self.oracle.sound_since());
        book.reachable_since.clone_from(self.oracle.reachable_since());
        book.parted_since.clone_from(self.oracle.parted_since());
    }

    /// Changes the quality of paths, and tells the oracle which carry only shorter datagrams since.
    fn change_paths(&mut self, change: impl FnOnce(&Paths)) {
        let mtus = |simulation: &Self| -> BTreeMap<(RegionId, RegionId), usize> {
            let all = simulation.addresses.iter().flat_map(|from| simulation.addresses.iter().map(move |to| (from, to)));
            let mtu = |(from, to): ((&IpAddr, &RegionId), (&IpAddr, &RegionId))| {
                ((from.1.clone(), to.1.clone()), simulation.world.paths().between(*from.0, *to.0).mtu)
            };
            all.map(mtu).collect()
        };
        let before = mtus(self);
        change(self.world.paths());
        for ((from, to), mtu) in mtus(self) {
            if before.get(&(from.clone(), to.clone())).is_some_and(|before| mtu < *before) {
                self.oracle.on_narrower(&from, &to);
            }
        }
    }

    /// Counts in which states of its agents an action found the world.
    fn note_crossing(&mut self, action: &Action) {
        let (fault, regions) = action.names();
        for region in regions {
            let state = self.oracle.state_of(region, &self.world);
            *self.crossings.entry(fault.into()).or_default().entry(state.into()).or_default() += 1;
        }
    }

    fn act(&mut self, now: Duration, action: Action) -> anyhow::Result<()> {
        self.note_crossing(&action);
        let change = match action {
            Action::Crash(region) => {
                self.world.crash(region.as_str())?;
                format!("crash of {region}")
            }
            Action::CrashAndLose(region) => {
                self.world.crash_and_lose(region.as_str())?;
                format!("crash and loss of the disk of {region}")
            }
            Action::Pause(region, length_ms) => {
                self.world.pause(region.as_str(), Duration::from_millis(length_ms))?;
                self.world.set_troubled(region.as_str(), "pause", true);
                format!("pause of {region}")
            }
            Action::Resume(region) => {
                self.world.resume(region.as_str());
                self.world.set_troubled(region.as_str(), "pause", false);
                format!("resumption of {region}")
            }
            Action::Pace(region, per_mille) => {
                // A clock that is as wrong as that is no excuse.
                trace::remark(format_args!("pace of {region} {per_mille}"));
                self.world.machine(region.as_str())?.set_pace(per_mille);
                return Ok(());
            }
            Action::Link(from, to, quality) => {
                let (a, b) = (self.world.address_of(from.as_str()), self.world.address_of(to.as_str()));
                // What is over leaves it as the scenario has it.
                let now = quality.or_else(|| self.scenario.links.get(&(from.clone(), to.clone())).copied());
                self.change_paths(|paths| paths.set_between(a, b, now));
                if self.scenario.chaos_until.is_none() {
                    return Ok(());
                }
                for region in [&from, &to] {
                    self.world.set_troubled(region.as_str(), &format!("path {from} {to}"), quality.is_some());
                }
                format!("another path from {from} to {to}")
            }
            Action::CrashAfterWrites(region, writes) => {
                self.world.machine(region.as_str())?.disk.cut_after(writes);
                return Ok(());
            }
            Action::Restart(region) => {
                self.world.restart(region.as_str())?;
                self.oracle.on_new_life(&region);
                format!("restart of {region}")
            }
            Action::Partition(left, right) => {
                pairs(&left, &right).for_each(|(a, b)| self.world.disconnect(a.as_str(), b.as_str()));
                format!("partition of {}", names(&left))
            }
            Action::Heal(left, right) => {
                pairs(&left, &right).for_each(|(a, b)| self.world.reconnect(a.as_str(), b.as_str()));
                format!("healing of {}", names(&left))
            }
            Action::Deafen(from, to) => {
                self.world.deafen(from.as_str(), to.as_str());
                format!("{to} no longer hearing {from}")
            }
            Action::Undeafen(from, to) => {
                self.world.undeafen(from.as_str(), to.as_str());
                format!("{to} hearing {from} again")
            }
            Action::Stop(region) => {
                if self.world.is_up(region.as_str())
                    && let Some(controls) = self.controls.get(&region)
                {
                    controls.stop.notify_one();
                    self.world.on_stop(region.as_str());
                }
                format!("stop of {region}")
            }
            Action::Wire(region, version) => {
                trace::remark(format_args!("{region} is of wire version {} from its next boot on", version.number()));
                if let Some(controls) = self.controls.get(&region) {
                    controls.wire_version.set(version);
                }
                return Ok(());
            }
            Action::Disk(region, illness) => {
                self.world.machine(region.as_str())?.disk.set_ill(illness);
                self.world.set_troubled(region.as_str(), "disk", illness.is_some());
                format!("disk of {region} {}", if illness.is_some() { "ill" } else { "well" })
            }
            Action::Lie(lying) => {
                trace::remark(format_args!("the liar {}", if lying { "lies" } else { "is silent" }));
                self.lying.set(lying);
                return Ok(());
            }
            Action::Paths(quality) => {
                self.change_paths(|paths| paths.set_quality(quality));
                // The scenario's own changes of quality are moderate, and its bounds hold in spite of them.
                if self.scenario.chaos_until.is_none() {
                    return Ok(());
                }
                self.world.set_paths_troubled(quality != self.usual);
                "other paths".into()
            }
            Action::Kill(region) => {
                trace::remark(format_args!("instances of {region} end"));
                self.world.machine(region.as_str())?.providers.kill_one_of_each();
                return Ok(());
            }
            Action::Reclaim(region) => {
                trace::remark(format_args!("the spot market takes its instances of {region}"));
                self.world.machine(region.as_str())?.providers.reclaim();
                return Ok(());
            }
            Action::Provider(region, outage) => {
                trace::remark(format_args!("what runs the instances of {region}: {outage:?}"));
                self.world.machine(region.as_str())?.providers.set_outage(outage);
                return Ok(());
            }
            Action::Clock(region, ahead_ms) => {
                self.world.machine(region.as_str())?.clock.set_offset_ms(ahead_ms);
                if self.scenario.chaos_until.is_none() {
                    return Ok(());
                }
                self.world.set_troubled(region.as_str(), "clock", ahead_ms != 0);
                format!("clock of {region} {ahead_ms} ms ahead")
            }
        };
        self.changed(now, &change);
        Ok(())
    }

    /// Shows the oracle what the clients have seen.
    fn look(&mut self) {
        let (sights, carried) = {
            let mut book = self.book.borrow_mut();
            (std::mem::take(&mut book.sights), book.carried.take())
        };
        if let Some(at) = carried {
            self.oracle.on_carried(at);
        }
        for (at, region, sight) in sights {
            match sight {
                Sight::Views(views) => self.oracle.on_views(at, &region, views),
                Sight::Silence(why) => self.oracle.on_silence(at, &region, why),
                Sight::Lost(what) => self.oracle.on_finding(at, Rule::Durable, &region, what),
                Sight::Broken(rule, what) => self.oracle.on_finding(at, rule, &region, what),
                Sight::Refused(what) => self.oracle.on_finding(at, Rule::Takes, &region, what),
            }
        }
    }

    /// Shows the oracle what the recording has of errors and of datagrams that were too long, as it happens.
    fn look_at_trace(&mut self) {
        let now = self.world.elapsed();
        let (oracle, addresses) = (&mut self.oracle, &self.addresses);
        self.recording.so_far(|trace| oracle.on_trace(now, trace, |address| addresses.get(&address)));
    }

    fn report(self) -> Report {
        let Self { scenario, seed, recording, world, mut oracle, book, sampler, findings, scale, posted_until, crossings, held, .. } = self;
        let addresses = self.addresses;
        let now = world.elapsed();
        let mut largest_database_bytes = 0;
        for region in &scenario.regions {
            let bytes = world.machine(region.id.as_str()).map_or(0, |machine| machine.disk.bytes());
            largest_database_bytes = largest_database_bytes.max(bytes);
            if bytes > MAX_DATABASE_BYTES {
                oracle.on_finding(now, Rule::Lean, &region.id, format!("{bytes} bytes, the bound is {MAX_DATABASE_BYTES}"));
            }
        }
        let (mut largest_memory_bytes, mut fastest_growth) = (0, 0.0f64);
        for (region, (life, bytes)) in holdings(scenario, &world) {
            largest_memory_bytes = largest_memory_bytes.max(bytes);
            let at =
                |(at, held): &(Duration, Holdings)| held.get(&region).filter(|(before, _)| *before == life).map(|(_, bytes)| (*at, *bytes));
            // A young agent's memory still fills: of peers that come back with it, and of series.
            let looks: Option<Vec<(Duration, i64)>> = held.iter().map(at).chain([Some((now, bytes))]).collect();
            // A run that broke off was not looked at often enough.
            let looks = looks.filter(|looks| looks.len() > MEMORY_LOOKS.len());
            if let Some(growth) = looks.as_deref().and_then(|looks| slowest_growth(looks.get(1..)?)) {
                fastest_growth = fastest_growth.max(growth);
                if growth > MAX_GROWTH_BYTES_PER_S + MAX_GROWTH_BYTES_PER_S_AND_REGION * scenario.regions.len() as f64 {
                    oracle.on_finding(now, Rule::Slim, &region, format!("{bytes} bytes, and {growth:.0} more a second"));
                }
            }
        }
        // Its destructors trace, too.
        drop(world);
        let trace = recording.finish();
        oracle.on_trace(now, &trace, |address| addresses.get(&address));
        oracle.on_end(now, scenario.workload != Workload::Silence);
        let book = book.borrow();
        let agents = scenario.regions.len();
        let mut figures = sampler.into_figures();
        if let Some(survey) = &scenario.survey {
            // The last step that was posted whole.
            let last = scale.step.index(wall_time(posted_until)).offset(-1);
            let (findings, counts) = (findings.borrow(), book.acknowledged());
            figures.forecast = Some(survey::score(&findings, &counts, last, survey.lead_steps, scale));
            figures.capacity = Some(survey::compare(&findings, &counts, last, survey.lead_steps, scale));
        }
        let bytes_per_agent_second = trace.packet_bytes as f64 / agents as f64 / now.max(TICK).as_secs_f64();
        for (figure, what) in beyond(&scenario.bounds, &figures, bytes_per_agent_second) {
            oracle.on_figure(now, figure, what);
        }
        let judged = |rule: &Rule| match rule {
            Rule::Figures => scenario.bounds != Bounds::default(),
            rule => scenario.survey.is_none() || !rule.is_inspected(),
        };
        Report {
            scenario: scenario.name.clone(),
            seed,
            deterministic: false,
            simulated_s: now.as_secs_f64(),
            wall_s: 0.0,
            cpu_s: 0.0,
            agents,
            figures,
            bytes_per_agent_second,
            trace,
            acknowledged_batches: book.batches,
            acknowledged_transactions: book.transactions,
            retries: book.retries,
            repeated_after_restart: book.repeated,
            series_compared: book.compared,
            lives_compared: book.recovered,
            rules_judged: Rule::ALL.iter().filter(|rule| judged(rule)).count(),
            settled: oracle.settled().to_vec(),
            violations: oracle.violations().cloned().collect(),
            crossings,
            largest_database_bytes,
            largest_memory_bytes,
            fastest_growth_bytes_per_s: fastest_growth,
            #[cfg(feature = "mutants")]
            marks: tradewind_agent::marks::reached(),
            #[cfg(not(feature = "mutants"))]
            marks: BTreeMap::new(),
        }
    }
}

impl Topology for World {
    fn is_up(&self, region: &RegionId) -> bool {
        World::is_up(self, region.as_str())
    }
    fn is_connected(&self, a: &RegionId, b: &RegionId) -> bool {
        World::is_connected(self, a.as_str(), b.as_str())
    }
    fn is_apart(&self, a: &RegionId, b: &RegionId) -> bool {
        self.is_cut(a.as_str(), b.as_str()) && self.is_cut(b.as_str(), a.as_str())
    }
    fn is_sound(&self, region: &RegionId) -> bool {
        World::is_sound(self, region.as_str())
    }
}

/// Which life each agent is in, and the memory that it holds, bytes.
type Holdings = BTreeMap<RegionId, (u64, i64)>;

/// Of each agent that is up.
fn holdings(scenario: &Scenario, world: &World) -> Holdings {
    let up = scenario.regions.iter().filter(|region| world.is_up(region.id.as_str()));
    let held = up.filter_map(|region| {
        let machine = world.machine(region.id.as_str()).ok()?;
        let bytes = memory::held(trace::number_of(region.id.as_str())?);
        Some((region.id.clone(), (machine.boots(), bytes)))
    });
    held.collect()
}

/// By how many bytes a second what is held grew between two of these looks, where it did so the least: what is taken once does not go on.
fn slowest_growth(looks: &[(Duration, i64)]) -> Option<f64> {
    let rate = |pair: &[(Duration, i64)]| (pair[1].1 - pair[0].1) as f64 / pair[1].0.saturating_sub(pair[0].0).max(TICK).as_secs_f64();
    looks.windows(2).map(rate).min_by(f64::total_cmp)
}

/// The scenario's faults, and those that chaos draws.
fn faults(scenario: &Scenario, seed: u64) -> Vec<Fault> {
    let drawn = scenario.chaos_until.map(|until| chaos::draw(scenario, until, seed)).unwrap_or_default();
    chaos::in_order(drawn.into_iter().flat_map(|incident| incident.faults).chain(scenario.faults()).collect())
}

fn pairs<'a>(left: &'a [RegionId], right: &'a [RegionId]) -> impl Iterator<Item = (&'a RegionId, &'a RegionId)> {
    left.iter().flat_map(move |a| right.iter().map(move |b| (a, b)))
}

fn names(regions: &[RegionId]) -> String {
    regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace that nothing can be said to of a crash.
    struct Panics;

    impl Write for Panics {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            assert!(!line.ends_with(b"world crash a\n"), "no word of this");
            Ok(line.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_run_that_panics_is_one_that_broke_a_rule_then() {
        let text = "name = \"x\"\nabout = \"x\"\nduration_s = 9\nregion = [{ name = \"a\" }]\n\
                    fault = [{ kind = \"crash\", at_s = 0.5, region = \"a\" }]";
        let options = Options { seed: 7, detail: Detail::Brief, sink: Some(Box::new(Panics)), on_standstill: Box::new(|_| {}) };
        let report = run(&Scenario::parse(text).unwrap(), options).unwrap();
        let broken: Vec<_> = report.violations.iter().map(|one| (one.rule, one.what.as_str(), one.first_s)).collect();
        assert_eq!(broken, [(Rule::Runs, "it panicked: no word of this", 0.5)]);
        assert_eq!((report.scenario.as_str(), report.seed, report.agents, report.passed()), ("x", 7, 1, false));
    }

    #[test]
    fn what_is_taken_once_does_not_go_on() {
        let looks = |held: [i64; 3]| slowest_growth(&[80, 100, 120].map(Duration::from_secs).into_iter().zip(held).collect::<Vec<_>>());
        assert_eq!(looks([1_000, 3_000, 5_000]), Some(100.0));
        assert_eq!(looks([1_000, 9_000, 9_020]), Some(1.0));
        assert_eq!(looks([9_000, 1_000, 9_000]), Some(-400.0));
        assert_eq!(slowest_growth(&[(Duration::ZERO, 1)]), None);
    }
}
