//! A network of machines, and the hand that steps it, breaks it and mends it.
//!
//! Knows nothing of scenarios or of what runs on the machines: a *program* is given an [`Env`] at
//! every boot. All of a world lives on one thread, which
//! [`entropy::on_fresh_thread`] has to have started.

use crate::entropy::{self, EPOCH};
use crate::env::{Machine, simulation_seed};
use crate::memory;
use crate::net::{PathQuality, Paths};
use crate::trace;
use anyhow::{Context as _, anyhow};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tradewind_agent::env::{Env, Seed};

/// How far one step goes: how late a datagram may be on a path that is shorter, see the module `switch`, and how
/// exact clients' requests are. Timers and datagrams within are exact to the millisecond.
pub const TICK: Duration = Duration::from_millis(10);

/// Segments that may wait at a TCP socket.
const TCP_CAPACITY: usize = 1024;

/// Virtual time after which turmoil gives up by itself: far beyond any scenario.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What runs on a machine: called at every boot. Ending with an error fails the simulation,
/// unless the machine's power was cut.
pub type Program = Rc<dyn Fn(Env) -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>>;

/// Delay of a link in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// The shortest.
    pub min: Duration,
    /// The longest; in between by an exponential law.
    pub max: Duration,
}

/// The machines, their links, and the time.
pub struct World {
    sim: turmoil::Sim<'static>,
    seed: Seed,
    paths: Paths,
    machines: BTreeMap<String, Rc<Machine>>,
    down: BTreeSet<String>,
    /// How many partitions keep datagrams from passing, by sender and receiver.
    cut: BTreeMap<(String, String), u32>,
    /// Machines that cannot be expected to do as they should, and why the paths cannot, for now.
    troubled: BTreeMap<String, BTreeSet<String>>,
    /// Machines that run, and that nothing leaves or reaches until they are resumed.
    paused: BTreeSet<String>,
    /// Participants that machines exchange messages with.
    participants: BTreeSet<String>,
    stopped: BTreeSet<String>,
    paths_troubled: bool,
}

impl World {
    /// An empty world of the simulation `seed`.
    pub fn new(seed: u64, quality: PathQuality) -> Self {
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(std::time::UNIX_EPOCH + EPOCH)
            .simulation_duration(FOREVER)
            .tick_duration(TICK)
            .tcp_capacity(TCP_CAPACITY)
            .build();
        Self {
            sim,
            seed: simulation_seed(seed),
            paths: Paths::new(quality, &simulation_seed(seed).child("delays")),
            machines: BTreeMap::new(),
            down: BTreeSet::new(),
            cut: BTreeMap::new(),
            troubled: BTreeMap::new(),
            paused: BTreeSet::new(),
            participants: BTreeSet::new(),
            stopped: BTreeSet::new(),
            paths_troubled: false,
        }
    }

    /// The root of the simulation's chance.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The quality of all paths.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The address that `name` has or will have.
    pub fn address_of(&self, name: &str) -> IpAddr {
        self.sim.lookup(name)
    }

    /// Adds a machine that runs `program` from now on.
    pub fn add_machine(&mut self, name: &str, program: Program) -> Rc<Machine> {
        let ip = self.sim.lookup(name);
        let machine = Rc::new(Machine::new(name, ip, self.paths.clone(), self.seed));
        self.machines.insert(name.into(), machine.clone());
        self.participants.insert(name.into());
        let (host, called) = (machine.clone(), String::from(name));
        self.sim.host(name, move || {
            let (machine, program, name) = (host.clone(), program.clone(), called.clone());
            async move {
                let pacer = machine.clone();
                tokio::task::spawn_local(async move { pacer.keep_pace().await });
                let ended = program(machine.boot()).await;
                // Nor is it one to give up over an ill disk.
                if machine.lost_power() || (ended.is_err() && machine.disk.was_ill()) {
                    // What a program does without power is no failure. The world notices the cut
                    // after this step and ends this life.
                    std::future::pending::<()>().await;
                }
                ended.map_err(|error| format!("{name} ended: {error:#}").into())
            }
        });
        machine
    }

    /// Adds a participant without a machine: it never crashes, and draws nothing.
    pub fn add_client(&mut self, name: &str, client: impl Future<Output = anyhow::Result<()>> + 'static) {
        self.participants.insert(name.into());
        self.sim.client(name, async move { Ok(client.await?) });
    }

    /// The machine called `name`.
    pub fn machine(&self, name: &str) -> anyhow::Result<&Rc<Machine>> {
        self.machines.get(name).with_context(|| format!("there is no machine {name:?}"))
    }

    /// Sets the delay between two participants, in both directions.
    pub fn set_delay(&self, a: &str, b: &str, delay: Delay) {
        self.sim.set_link_latency(a, b, delay.min);
        self.sim.set_link_max_message_latency(a, b, delay.max);
        self.paths.switch().set_delay(self.sim.lookup(a), self.sim.lookup(b), delay);
    }

    /// How long the world has existed.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets a [`TICK`] pass. Machines whose disk lost power during it are down afterwards, and
    /// named.
    pub fn step(&mut self) -> anyhow::Result<Vec<String>> {
        let now = self.sim.elapsed();
        entropy::set_now(now);
        self.paths.switch().begin_step(now, now + TICK);
        self.sim.step().map_err(|error| anyhow!("after {:?}: {error}", self.sim.elapsed()))?;
        let without_power = |(name, machine): &(&String, &Rc<Machine>)| !self.down.contains(*name) && machine.lost_power();
        let lost: Vec<String> = self.machines.iter().filter(without_power).map(|(name, _)| name.clone()).collect();
        let ill = self.machines.iter().filter(|(_, machine)| machine.disk.was_ill()).map(|(name, _)| name);
        trace::settle_errors(&lost.iter().chain(ill).cloned().collect::<Vec<_>>());
        lost.iter().try_for_each(|name| self.crash(name))?;
        Ok(lost)
    }

    /// Whether the machine is up.
    pub fn is_up(&self, name: &str) -> bool {
        self.machines.contains_key(name) && !self.down.contains(name) && !self.stopped.contains(name)
    }

    /// Whether datagrams between the two reach each other.
    pub fn is_connected(&self, a: &str, b: &str) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// Pulls the plug: nothing that was not synced is safe, and no destructor reaches the disk.
    pub fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        let machine = self.machine(name)?;
        if self.down.contains(name) {
            return Ok(());
        }
        machine.disk.cut_power();
        trace::remark(format_args!("crash {name}"));
        self.down.insert(name.into());
        self.sim.crash(name);
        if let Some(number) = trace::number_of(name) {
            memory::forget(number);
        }
        trace::forget_unsettled_errors();
        Ok(())
    }

    /// Pulls the plug of a machine whose disk is replaced by an empty one.
    pub fn crash_and_lose(&mut self, name: &str) -> anyhow::Result<()> {
        self.machine(name)?.disk.lose();
        trace::remark(format_args!("lost disk of {name}"));
        self.crash(name)
    }

    /// Lets a machine stand still for `length`, as others and its own clock see it: what is sent to it or
    /// by it is kept until [`resume`](Self::resume), and its monotonic clock has gone on all at once.
    /// (What runs on it goes on, unheard: a host of the simulation cannot be held.)
    pub fn pause(&mut self, name: &str, length: Duration) -> anyhow::Result<()> {
        if self.paused.insert(name.into()) {
            self.machine(name)?.jump(length);
            trace::remark(format_args!("pause {name}"));
            self.paths.switch().hold(self.sim.lookup(name));
            self.others(name).iter().filter(|other| !self.is_cut(name, other) && !self.is_cut(other, name)).for_each(|other| {
                self.sim.hold(name, other.as_str());
            });
        }
        Ok(())
    }

    /// Ends a pause: everything that was kept arrives now.
    pub fn resume(&mut self, name: &str) {
        if self.paused.remove(name) {
            trace::remark(format_args!("resume {name}"));
            let now = self.sim.elapsed();
            self.paths.switch().release(self.sim.lookup(name), now);
            let free = |other: &&String| !self.paused.contains(*other) && !self.is_cut(name, other) && !self.is_cut(other, name);
            self.others(name).iter().filter(free).for_each(|other| self.sim.release(name, other.as_str()));
        }
    }

    fn others(&self, name: &str) -> Vec<String> {
        self.participants.iter().filter(|other| *other != name).cloned().collect()
    }

    /// Boots a machine that was crashed, or ends its agent's life and boots it anew.
    pub fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.down.contains(name) {
            self.crash(name)?;
        }
        self.machine(name)?;
        trace::remark(format_args!("restart {name}"));
        self.down.remove(name);
        self.stopped.remove(name);
        self.sim.bounce(name);
        Ok(())
    }

    /// The machine's program was told to end: from now on the machine does not count as up.
    pub fn on_stop(&mut self, name: &str) {
        trace::remark(format_args!("stop {name}"));
        self.stopped.insert(name.into());
    }

    /// Drops everything between the two from now on, and what is under way.
    pub fn disconnect(&mut self, a: &str, b: &str) {
        self.deafen(a, b);
        self.deafen(b, a);
    }

    /// Undoes one [`disconnect`](Self::disconnect).
    pub fn reconnect(&mut self, a: &str, b: &str) {
        self.undeafen(a, b);
        self.undeafen(b, a);
    }

    /// Drops everything from the one to the other from now on.
    pub fn deafen(&mut self, from: &str, to: &str) {
        let partitions = self.cut.entry((from.into(), to.into())).or_default();
        *partitions += 1;
        if *partitions == 1 {
            trace::remark(format_args!("cut {from} {to}"));
            if self.is_held(from, to) && !self.is_cut(to, from) {
                self.sim.release(from, to);
            }
            self.sim.partition_oneway(from, to);
            self.paths.switch().cut(self.sim.lookup(from), self.sim.lookup(to));
        }
    }

    /// Undoes one [`deafen`](Self::deafen).
    pub fn undeafen(&mut self, from: &str, to: &str) {
        let between = (from.to_string(), to.to_string());
        match self.cut.get_mut(&between) {
            None => {}
            Some(partitions @ 2..) => *partitions -= 1,
            Some(_) => {
                self.cut.remove(&between);
                trace::remark(format_args!("mend {from} {to}"));
                self.sim.repair_oneway(from, to);
                self.paths.switch().mend(self.sim.lookup(from), self.sim.lookup(to));
                if self.is_held(from, to) && !self.is_cut(to, from) {
                    self.sim.hold(from, to);
                }
            }
        }
    }

    fn is_held(&self, from: &str, to: &str) -> bool {
        self.paused.contains(from) || self.paused.contains(to)
    }

    /// Whether nothing passes from the one to the other.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut.contains_key(&(from.into(), to.into()))
    }

    /// Marks a machine as one that cannot do as it should because of `cause`, or no longer because of it.
    pub fn set_troubled(&mut self, name: &str, cause: &str, troubled: bool) {
        let causes = self.troubled.entry(name.into()).or_default();
        if troubled {
            causes.insert(cause.into());
        } else {
            causes.remove(cause);
        }
    }

    /// Marks the paths as such that no bound can be kept over them, or as sound again.
    pub fn set_paths_troubled(&mut self, troubled: bool) {
        self.paths_troubled = troubled;
    }

    /// Whether the machine and its paths can be expected to keep the bounds.
    pub fn is_sound(&self, name: &str) -> bool {
        !self.paths_troubled && self.troubled.get(name).is_none_or(BTreeSet::is_empty)
    }
}
