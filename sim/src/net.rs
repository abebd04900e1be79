//! The agent's sockets.
//!
//! Datagrams go through the world's `Switch`, which delays them and cuts partitions; what
//! becomes of each on its way is decided here: loss, duplication, lateness, bandwidth and an MTU, by seeded choice.
//! Jitter of the delays reorders. `quinn::TokioRuntime` follows turmoil's paused clock as it is, so only the socket
//! differs. TCP is turmoil's own.

use crate::clock::virtual_now;
use crate::switch::{Arrival, Switch};
use crate::trace::{self, Fate};
use async_trait::async_trait;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tradewind_agent::env::{Listener, Network, Seed, Stream};

/// UDP payload that Ethernet carries over IPv4.
pub const ETHERNET_PAYLOAD_BYTES: usize = 1472;

/// How much may wait before a narrow path, in time: what home routers were found to hold (bufferbloat),
/// beyond which datagrams are dropped.
const MAX_QUEUE: Duration = Duration::from_millis(400);

/// What the paths do to single datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PathQuality {
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Probability that one that is not lost arrives twice.
    pub duplicate: f64,
    /// The longest UDP payload; longer ones vanish, as with the don't-fragment bit.
    pub mtu: usize,
    /// Probability that one is late, and overtaken by others.
    pub late: f64,
    /// How late at most.
    pub late_ms: u64,
    /// Bytes per second that leave one machine; 0 is no bound.
    pub bytes_per_s: u64,
}

impl Default for PathQuality {
    fn default() -> Self {
        Self { loss: 0.0, duplicate: 0.0, mtu: ETHERNET_PAYLOAD_BYTES, late: 0.0, late_ms: 0, bytes_per_s: 0 }
    }
}

/// The paths of one simulation. Clones are the same paths.
#[derive(Debug, Clone)]
pub struct Paths {
    qualities: Arc<Mutex<Qualities>>,
    switch: Arc<Switch>,
}

#[derive(Debug, Default)]
struct Qualities {
    usual: PathQuality,
    /// Of single paths, by sender and receiver.
    links: BTreeMap<(IpAddr, IpAddr), PathQuality>,
}

impl Paths {
    /// Paths of this quality. How long datagrams take on them follows from `seed`.
    pub fn new(quality: PathQuality, seed: &Seed) -> Self {
        let qualities = Qualities { usual: quality, links: BTreeMap::new() };
        Self { qualities: Arc::new(Mutex::new(qualities)), switch: Arc::new(Switch::new(seed)) }
    }

    /// How the paths are now, but for those that have a quality of their own.
    pub fn quality(&self) -> PathQuality {
        lock(&self.qualities).usual
    }

    /// How the path from the one to the other is now.
    pub fn between(&self, from: IpAddr, to: IpAddr) -> PathQuality {
        let qualities = lock(&self.qualities);
        qualities.links.get(&(from, to)).copied().unwrap_or(qualities.usual)
    }

    /// Gives the path from the one to the other a quality of its own, or makes it as the others.
    pub fn set_between(&self, from: IpAddr, to: IpAddr, quality: Option<PathQuality>) {
        let mut qualities = lock(&self.qualities);
        match quality {
            Some(quality) => qualities.links.insert((from, to), quality),
            None => qualities.links.remove(&(from, to)),
        };
    }

    /// Changes the paths, also for sockets that are open.
    pub fn set_quality(&self, quality: PathQuality) {
        lock(&self.qualities).usual = quality;
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }
}

/// The network as one life of one node sees it.
pub struct SimNetwork {
    ip: IpAddr,
    paths: Paths,
    seed: Seed,
    bound: AtomicU64,
}

impl SimNetwork {
    /// The network of the node at `ip`; which datagrams are lost follows from `seed`.
    pub fn new(ip: IpAddr, paths: Paths, seed: Seed) -> Self {
        Self { ip, paths, seed, bound: AtomicU64::new(0) }
    }

    /// turmoil binds wildcard and loopback addresses only, and a node has one address.
    fn bindable(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        match addr.ip() {
            ip if ip.is_loopback() => Ok(addr),
            ip if ip.is_unspecified() || ip == self.ip => Ok((Ipv4Addr::UNSPECIFIED, addr.port()).into()),
            ip => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{ip} is not this node's address, {}", self.ip))),
        }
    }

    /// The address that others see of a socket bound to `bound`.
    fn public(&self, bound: SocketAddr) -> SocketAddr {
        if bound.ip().is_unspecified() { (self.ip, bound.port()).into() } else { bound }
    }
}

#[async_trait]
impl Network for SimNetwork {
    async fn bind_udp(&self, addr: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let (local, number) = self.paths.switch.bind(self.public(self.bindable(addr)?), virtual_now())?;
        let seed = self.seed.child(&format!("udp {}", self.bound.fetch_add(1, Ordering::Relaxed)));
        Ok(Arc::new(SimUdpSocket {
            local,
            number,
            paths: self.paths.clone(),
            rng: Mutex::new(StdRng::from_seed(seed.bytes())),
            alarm: Mutex::new(None),
            free_at: Mutex::default(),
        }))
    }

    async fn bind_tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = turmoil::net::TcpListener::bind(self.bindable(addr)?).await?;
        let local = self.public(listener.local_addr()?);
        Ok(Box::new(SimListener { listener, local }))
    }
}

struct SimListener {
    listener: turmoil::net::TcpListener,
    local: SocketAddr,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

struct SimUdpSocket {
    local: SocketAddr,
    /// What the switch knows it by.
    number: u64,
    paths: Paths,
    rng: Mutex<StdRng>,
    /// Rings when the next datagram arrives.
    alarm: Mutex<Option<Pin<Box<Sleep>>>>,
    /// When the narrow path has carried what was sent so far.
    free_at: Mutex<Duration>,
}

impl fmt::Debug for SimUdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimUdpSocket({})", self.local)
    }
}

impl SimUdpSocket {
    fn fate(&self, length: usize, quality: &PathQuality) -> Fate {
        if length > quality.mtu {
            return Fate::Oversized;
        }
        let mut rng = lock(&self.rng);
        let mut happens = |probability: f64| probability > 0.0 && rng.random_bool(probability.min(1.0));
        Fate::Sent(if happens(quality.loss) {
            0
        } else if happens(quality.duplicate) {
            2
        } else {
            1
        })
    }
}

impl SimUdpSocket {
    /// How long a datagram waits before it leaves; none if the queue is full.
    fn wait(&self, length: usize, quality: &PathQuality) -> Option<Duration> {
        let mut wait = Duration::ZERO;
        if quality.bytes_per_s > 0 {
            let (now, mut free_at) = (virtual_now(), lock(&self.free_at));
            let begin = now.max(*free_at);
            if begin - now > MAX_QUEUE {
                return None;
            }
            *free_at = begin + Duration::from_secs_f64(length as f64 / quality.bytes_per_s as f64);
            wait = *free_at - now;
        }
        if quality.late > 0.0 {
            let mut rng = lock(&self.rng);
            if rng.random_bool(quality.late.min(1.0)) {
                wait += Duration::from_millis(rng.random_range(0..=quality.late_ms));
            }
        }
        Some(wait)
    }
}

impl AsyncUdpSocket for SimUdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let quality = self.paths.between(self.local.ip(), transmit.destination.ip());
        let fate = self.fate(transmit.contents.len(), &quality);
        let now = virtual_now();
        trace::packet(now, self.local, transmit.destination, transmit.contents, fate);
        let copies = match fate {
            Fate::Sent(copies) => copies,
            Fate::Oversized => 0,
        };
        for _ in 0..copies {
            if let Some(wait) = self.wait(transmit.contents.len(), &quality) {
                self.paths.switch.send(self.local, transmit.destination, transmit.contents, now + wait);
            }
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut received = 0;
        let mut slots = bufs.iter_mut().zip(meta.iter_mut());
        let Some((mut buf, mut slot)) = slots.next() else { return Poll::Ready(Ok(0)) };
        // It does not pass within a turn.
        let now = virtual_now();
        loop {
            let arrival = self.paths.switch.receive(self.local, buf, now, cx.waker());
            match arrival {
                Arrival::Datagram(len, addr) => {
                    *slot = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    received += 1;
                    match slots.next() {
                        Some(next) => (buf, slot) = next,
                        None => return Poll::Ready(Ok(received)),
                    }
                }
                Arrival::At(_) | Arrival::None if received > 0 => return Poll::Ready(Ok(received)),
                Arrival::None => return Poll::Pending,
                Arrival::At(time) => {
                    let deadline = Instant::now() + (time - now);
                    let mut alarm = lock(&self.alarm);
                    let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                    alarm.as_mut().reset(deadline);
                    if alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        // Which lets quinn discover the MTU, as it does on a real path.
        false
    }
}

impl Drop for SimUdpSocket {
    fn drop(&mut self) {
        self.paths.switch.unbind(self.local, self.number);
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
