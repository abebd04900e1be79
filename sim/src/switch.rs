//! What is under way between the machines: every datagram until it is read, lost or cut off.
//!
//! turmoil has a network of its own, which moves a datagram at the beginning of a step at the earliest, looks
//! at every link of every machine in every step, and so wants short steps. Here a datagram arrives at the very
//! millisecond, between two steps or within one, and a machine is only woken in a step in which something
//! arrives. TCP, over which clients talk to an agent, stays with turmoil.
//!
//! Invariant: a datagram is read at its time, or at the beginning of the step after if its reader has had its
//! turn in the step in which it was sent: late by less than a step, and never early.

use crate::memory;
use crate::world::Delay;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;
use tradewind_agent::env::Seed;

/// Datagrams under way to one socket or waiting at it. More are lost: 16,384 full ones are 24 MB, many times what a kernel holds.
const MAX_QUEUED: usize = 16_384;

/// Where ephemeral ports begin (RFC 6335).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// Of the law by which delays are spread between the shortest and the longest: a fifth of the span on average.
const DELAY_RATE: f64 = 5.0;

/// Between machines whose delay was not set.
const USUAL: Delay = Delay { min: Duration::ZERO, max: Duration::from_millis(100) };

/// The switch of one world.
#[derive(Debug)]
pub(crate) struct Switch(Mutex<State>);

#[derive(Debug)]
struct State {
    chance: StdRng,
    /// By the two addresses, the smaller one first.
    delays: BTreeMap<(IpAddr, IpAddr), Delay>,
    /// Senders and receivers between whom nothing passes.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Machines that stand still, and what was sent to them or by them meanwhile.
    held: BTreeSet<IpAddr>,
    kept: Vec<Kept>,
    ports: BTreeMap<SocketAddr, Port>,
    /// When the step that is running ends.
    horizon: Duration,
    sent: u64,
    bound: u64,
}

#[derive(Debug, Default)]
struct Port {
    queue: BinaryHeap<Datagram>,
    /// Which socket is bound to it.
    socket: Option<u64>,
    /// Whoever waits for a datagram.
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Datagram {
    at: Duration,
    /// Of two that arrive at once, the one that was sent first comes first.
    number: u64,
    from: SocketAddr,
    contents: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    from: SocketAddr,
    to: SocketAddr,
    contents: Vec<u8>,
}

/// The earliest datagram is the greatest, as the heap wants it.
impl Ord for Datagram {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Datagram {}

/// What a socket finds at its port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// So many bytes from there, written to the front of the buffer.
    Datagram(usize, SocketAddr),
    /// The next one arrives at this time, within the running step.
    At(Duration),
    /// None in the running step; the reader is woken in the step in which one arrives.
    None,
}

impl Switch {
    /// A switch without sockets. How long datagrams take follows from `seed`.
    pub(crate) fn new(seed: &Seed) -> Self {
        Self(Mutex::new(State {
            chance: StdRng::from_seed(seed.bytes()),
            delays: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            kept: vec![],
            ports: BTreeMap::new(),
            horizon: Duration::ZERO,
            sent: 0,
            bound: 0,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the delay between two machines, in both directions.
    pub(crate) fn set_delay(&self, a: IpAddr, b: IpAddr, delay: Delay) {
        self.state().delays.insert((a.min(b), a.max(b)), delay);
    }

    /// Lets nothing pass from the one to the other from now on; what is under way is lost.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.state();
        state.cut.insert((from, to));
        for (_, port) in state.ports.iter_mut().filter(|(address, _)| address.ip() == to) {
            port.queue.retain(|datagram| datagram.from.ip() != from);
        }
        state.kept.retain(|kept| (kept.from.ip(), kept.to.ip()) != (from, to));
    }

    /// Keeps what is sent to the machine or by it from now on, and what is under way to it, until
    /// [`release`](Self::release).
    pub(crate) fn hold(&self, machine: IpAddr) {
        let mut state = self.state();
        state.held.insert(machine);
        let mut kept = vec![];
        for (to, port) in state.ports.iter_mut().filter(|(address, _)| address.ip() == machine) {
            // The earliest first.
            while let Some(Datagram { from, contents, .. }) = port.queue.pop() {
                kept.push(Kept { from, to: *to, contents });
            }
        }
        state.kept.append(&mut kept);
    }

    /// Undoes [`hold`](Self::hold): what was kept leaves now.
    pub(crate) fn release(&self, machine: IpAddr, now: Duration) {
        let kept = {
            let mut state = self.state();
            state.held.remove(&machine);
            std::mem::take(&mut state.kept)
        };
        // What another machine that stands still is concerned with is kept again.
        kept.into_iter().for_each(|kept| self.send(kept.from, kept.to, &kept.contents, now));
    }

    /// Undoes [`cut`](Self::cut).
    pub(crate) fn mend(&self, from: IpAddr, to: IpAddr) {
        self.state().cut.remove(&(from, to));
    }

    /// A step begins that ends at `horizon`: wakes whoever has something to read in it.
    pub(crate) fn begin_step(&self, now: Duration, horizon: Duration) {
        let mut readers = vec![];
        let mut state = self.state();
        state.horizon = horizon;
        state.ports.retain(|_, port| {
            if port.socket.is_none() {
                // Nobody is there to take it.
                while port.queue.peek().is_some_and(|datagram| datagram.at < now) {
                    port.queue.pop();
                }
            } else if port.queue.peek().is_some_and(|datagram| datagram.at < horizon) {
                readers.extend(port.reader.take());
            }
            port.socket.is_some() || !port.queue.is_empty()
        });
        // A reader that is woken, or forgotten, may be one that ends: never under the lock, which its end takes.
        drop(state);
        readers.into_iter().for_each(Waker::wake);
    }

    /// Binds a socket to `address`, or to a free port if it names none. Returns where, and the socket's number.
    pub(crate) fn bind(&self, mut address: SocketAddr, now: Duration) -> io::Result<(SocketAddr, u64)> {
        let mut state = self.state();
        let taken = |state: &State, address: &SocketAddr| state.ports.get(address).is_some_and(|port| port.socket.is_some());
        if address.port() == 0 {
            let free = (FIRST_EPHEMERAL_PORT..=u16::MAX).find(|port| {
                address.set_port(*port);
                !taken(&state, &address)
            });
            free.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, format!("no port is free at {}", address.ip())))?;
        } else if taken(&state, &address) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{address} is bound already")));
        }
        state.bound += 1;
        let number = state.bound;
        let port = state.ports.entry(address).or_default();
        port.socket = Some(number);
        // What arrived while nobody was there was not heard.
        port.queue.retain(|datagram| datagram.at >= now);
        Ok((address, number))
    }

    /// The socket with this number is gone.
    pub(crate) fn unbind(&self, address: SocketAddr, number: u64) {
        let mut state = self.state();
        let port = state.ports.get_mut(&address).filter(|port| port.socket == Some(number));
        let reader = port.and_then(|port| {
            port.socket = None;
            port.reader.take()
        });
        drop(state);
        drop(reader);
    }

    /// Takes a datagram that leaves at `leaves`. To an address that nobody is at it is silence, as on a network.
    pub(crate) fn send(&self, from: SocketAddr, to: SocketAddr, contents: &[u8], leaves: Duration) {
        // What is under way is in neither machine.
        let _unowned = memory::unowned();
        let mut state = self.state();
        if state.cut.contains(&(from.ip(), to.ip())) {
            return;
        }
        if state.held.contains(&from.ip()) || state.held.contains(&to.ip()) {
            if state.kept.len() < MAX_QUEUED {
                state.kept.push(Kept { from, to, contents: contents.to_vec() });
            }
            return;
        }
        let at = whole_millis(leaves + state.delay(from.ip(), to.ip()));
        state.sent += 1;
        let (number, horizon) = (state.sent, state.horizon);
        let port = state.ports.entry(to).or_default();
        if port.queue.len() >= MAX_QUEUED {
            return;
        }
        port.queue.push(Datagram { at, number, from, contents: contents.to_vec() });
        let reader = if at < horizon { port.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// What has arrived at `address` by `now`. If nothing has, `reader` is woken when it may have.
    pub(crate) fn receive(&self, address: SocketAddr, buffer: &mut [u8], now: Duration, reader: &Waker) -> Arrival {
        let mut state = self.state();
        let horizon = state.horizon;
        let Some(port) = state.ports.get_mut(&address) else { return Arrival::None };
        let due = port.queue.peek().map(|datagram| datagram.at);
        let Some(datagram) = due.filter(|at| *at <= now).and_then(|_| port.queue.pop()) else {
            let former = port.wait(reader);
            drop(state);
            drop(former);
            return due.filter(|at| *at < horizon).map_or(Arrival::None, Arrival::At);
        };
        // As a kernel does, a datagram that the buffer does not hold is cut.
        let length = datagram.contents.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram.contents[..length]);
        Arrival::Datagram(length, datagram.from)
    }
}

impl Port {
    /// Returns who waited before.
    fn wait(&mut self, reader: &Waker) -> Option<Waker> {
        if self.reader.as_ref().is_some_and(|waits| waits.will_wake(reader)) { None } else { self.reader.replace(reader.clone()) }
    }
}

impl State {
    fn delay(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        let Delay { min, max } = self.delays.get(&(from.min(to), from.max(to))).copied().unwrap_or(USUAL);
        let span = max.saturating_sub(min);
        if span.is_zero() {
            return min;
        }
        // An exponential law by inversion; 1 - u is never 0.
        let spread = -(1.0 - self.chance.random::<f64>()).ln() / DELAY_RATE;
        min + span.mul_f64(spread.min(1.0))
    }
}

/// Timers of a simulated machine know milliseconds.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 7000).into()
    }

    /// Two sockets that are 20 to 60 ms apart, in the step from 0 to 10 ms.
    fn pair() -> Switch {
        let switch = Switch::new(&Seed::new([1; 32]));
        switch.set_delay(at(2).ip(), at(1).ip(), Delay { min: ms(20), max: ms(60) });
        switch.bind(at(1), ms(0)).unwrap();
        switch.bind(at(2), ms(0)).unwrap();
        switch.begin_step(ms(0), ms(10));
        switch
    }

    #[test]
    fn what_is_sent_to_a_machine_that_stands_still_arrives_when_it_goes_on() {
        let switch = pair();
        switch.send(at(2), at(1), b"under way", ms(0));
        switch.hold(at(1).ip());
        switch.send(at(2), at(1), b"later", ms(5));
        switch.send(at(1), at(2), b"answer", ms(5));
        switch.begin_step(ms(1_000), ms(1_010));
        assert_eq!((read(&switch, 1, ms(1_005)), read(&switch, 2, ms(1_005))), (Arrival::None, Arrival::None));
        switch.release(at(1).ip(), ms(1_005));
        switch.begin_step(ms(1_070), ms(1_080));
        let mut lengths = [read(&switch, 1, ms(1_070)), read(&switch, 1, ms(1_070))].map(|arrival| match arrival {
            Arrival::Datagram(length, _) => length,
            Arrival::At(_) | Arrival::None => 0,
        });
        lengths.sort_unstable();
        assert_eq!(lengths, [5, 9]);
        assert!(matches!(read(&switch, 2, ms(1_070)), Arrival::Datagram(6, _)));
    }

    fn read(switch: &Switch, host: u8, now: Duration) -> Arrival {
        switch.receive(at(host), &mut [0; 100], now, Waker::noop())
    }

    #[test]
    fn a_datagram_arrives_at_its_time_and_wakes_its_reader_in_that_step_only() {
        let (switch, woken) = (pair(), Arc::<Count>::default());
        let reader = Waker::from(woken.clone());
        assert_eq!(switch.receive(at(2), &mut [], ms(0), &reader), Arrival::None);
        switch.send(at(1), at(2), b"hello", ms(3));
        assert_eq!(woken.0.load(Relaxed), 0, "it is under way");
        let mut step = 0;
        while woken.0.load(Relaxed) == 0 {
            step += 1;
            switch.begin_step(ms(10 * step), ms(10 * step + 10));
        }
        assert!((2..=6).contains(&step), "{step}");
        let Arrival::At(due) = read(&switch, 2, ms(10 * step)) else { panic!("it is due in this step") };
        assert!(due >= ms(23) && due <= ms(63), "{due:?}");
        assert_eq!(read(&switch, 2, due - ms(1)), Arrival::At(due));
        assert_eq!(read(&switch, 2, due), Arrival::Datagram(5, at(1)));
        assert_eq!(read(&switch, 2, due), Arrival::None);
    }

    #[test]
    fn delays_keep_their_bounds_and_are_spread() {
        let switch = pair();
        for _ in 0..1000 {
            switch.send(at(1), at(2), b"x", ms(0));
        }
        let state = switch.state();
        let times: Vec<Duration> = state.ports[&at(2)].queue.iter().map(|datagram| datagram.at).collect();
        assert!(times.iter().all(|at| (ms(20)..=ms(60)).contains(at)));
        let mean = times.iter().map(Duration::as_secs_f64).sum::<f64>() / 1000.0;
        assert!((0.026..0.030).contains(&mean), "a fifth of the span: {mean}");
    }

    #[test]
    fn what_is_cut_off_is_lost_in_that_direction_only() {
        let switch = pair();
        switch.send(at(1), at(2), b"a", ms(0));
        switch.send(at(2), at(1), b"b", ms(0));
        switch.cut(at(1).ip(), at(2).ip());
        switch.send(at(1), at(2), b"c", ms(0));
        assert_eq!(read(&switch, 2, ms(100)), Arrival::None);
        assert_eq!(read(&switch, 1, ms(100)), Arrival::Datagram(1, at(2)));
        switch.mend(at(1).ip(), at(2).ip());
        switch.send(at(1), at(2), b"d", ms(0));
        assert_eq!(read(&switch, 2, ms(100)), Arrival::Datagram(1, at(1)));
    }

    #[test]
    fn a_port_has_one_socket_and_a_new_one_hears_only_what_arrives_from_then_on() {
        let switch = pair();
        assert_eq!(switch.bind(at(2), ms(0)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let (somewhere, _) = switch.bind((at(2).ip(), 0).into(), ms(0)).unwrap();
        assert_eq!(somewhere.port(), FIRST_EPHEMERAL_PORT);
        switch.send(at(1), at(2), b"old", ms(0));
        switch.send(at(1), at(2), b"new", ms(100));
        switch.unbind(at(2), 99);
        assert!(switch.bind(at(2), ms(0)).is_err(), "another socket's end frees nothing");
        switch.unbind(at(2), 2);
        switch.bind(at(2), ms(90)).unwrap();
        assert_eq!(read(&switch, 2, ms(200)), Arrival::Datagram(3, at(1)));
        assert_eq!(read(&switch, 2, ms(200)), Arrival::None);
    }

    #[test]
    fn nothing_is_kept_for_those_who_are_not_there_and_no_queue_grows_without_end() {
        let switch = pair();
        switch.send(at(1), at(9), b"x", ms(0));
        assert!(switch.state().ports.contains_key(&at(9)));
        switch.begin_step(ms(1000), ms(1010));
        assert!(!switch.state().ports.contains_key(&at(9)));
        for _ in 0..MAX_QUEUED + 10 {
            switch.send(at(1), at(2), b"x", ms(0));
        }
        assert_eq!(switch.state().ports[&at(2)].queue.len(), MAX_QUEUED);
    }
}
