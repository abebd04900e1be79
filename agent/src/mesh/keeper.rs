//! The housekeeper: who should be connected, what should be fetched, who lives; and the view.

use super::bounds::CARDS_PER_MESSAGE;
use super::core::{Change, Heartbeats};
use super::{Mesh, gossip, link, rpc};
use crate::marks::{bug, sometimes};
use rand::RngExt as _;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tradewind_protocol::RegionId;
use tradewind_protocol::api::Severity;
use tradewind_protocol::pki::ENDS_SOON;
use tradewind_protocol::wire::{Request, Response};

/// How often everything is looked at, if nothing happens: what makes a fetch late at most.
const TICK: Duration = Duration::from_millis(250);
/// How long news waits after a look, so that what comes together is looked at together: when a mesh starts, every connection
/// and every card is news. The first is looked at when it comes, and states of regions that are known need no look.
const LULL: Duration = Duration::from_millis(20);
/// How long an agent waits to be dialled by a region of a smaller name that it has just heard of. Two
/// that hear of each other would else dial each other, and one connection of two is for nothing.
const DIAL_PATIENCE: Duration = Duration::from_secs(2);
/// How often seed names are looked up again.
const SEED_REFRESH: Duration = Duration::from_secs(60);
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one seed name that are tried.
const MAX_ADDRESSES_PER_SEED: usize = 16;
/// How often one peer, by chance, is told all cards: repairs what no message has brought, for 60
/// bytes a second in a mesh of 30.
const REPAIR_EVERY: Duration = Duration::from_secs(300);
/// How often it is told that the agent's certificate ends soon.
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// How often a region that is in doubt is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a connection may bring nothing in answer to what was sent before it is given up. QUIC
/// doubles its time-out with every probe, so that a connection that outlives a partition is silent
/// for as long again after it; a new one takes two round trips. Twelve of the longest round trips.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Datagrams that must have gone unanswered meanwhile: fewer may just have been lost.
const STALLED_SENT: u64 = 3;
/// How often that is looked at.
const STALL_LOOK: Duration = Duration::from_millis(500);
/// Looks in a row in which nothing was sent although a state was not acknowledged for `STALLED_AFTER`: QUIC waits for longer than any
/// time-out that is not backed off, the longest round trip and its variation, after losses that a few datagrams each way have not mended.
/// They are counted, not timed, since a machine that has stood still finds all its time passed at once.
const BACKED_OFF_LOOKS: u32 = 4;

/// Keeps house until the mesh closes.
pub(super) async fn run(mesh: Arc<Mesh>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut repair_at = Instant::now() + REPAIR_EVERY;
    let mut warn_at = Instant::now();
    let mut asked = BTreeMap::new();
    let mut traffic = BTreeMap::new();
    let mut looked_at = Instant::now();
    let mut stalls_at = looked_at;
    let closed = mesh.closed();
    tokio::pin!(closed);
    loop {
        let news = async {
            mesh.dirty.notified().await;
            sleep_until(looked_at + LULL).await;
        };
        // News that a tick overtakes is seen by the look of that tick.
        let ticked = tokio::select! {
            biased;
            () = &mut closed => return,
            () = news => false,
            _ = tick.tick() => true,
        };
        let now = Instant::now();
        looked_at = now;
        if ticked && now >= stalls_at {
            stalls_at = now + STALL_LOOK;
            give_up_stalled(&mesh, &mut traffic, now);
        }
        if now >= warn_at {
            warn_at = now + WARN_EVERY;
            warn_of_certificate(&mesh);
        }
        connect(&mesh, now);
        fetch(&mesh, now);
        judge(&mesh, &mut asked).await;
        if now >= repair_at {
            repair_at = now + REPAIR_EVERY;
            repair(&mesh);
        }
    }
}

/// Tells that the certificate ends soon: without one that is valid no peer speaks with the agent, and it does not start again.
fn warn_of_certificate(mesh: &Mesh) {
    if let Some(ends) = mesh.identity.ends.filter(|ends| ends.since(mesh.now().wall) < ENDS_SOON) {
        let words =
            format!("the agent's certificate ends at {ends}: issue a new one with `tradewind tls agent`, and restart the agent with it");
        mesh.events.note(Severity::Warning, "mesh.certificate_ends", words);
    }
}

/// What was last seen of a connection.
struct Traffic {
    connection: usize,
    received: u64,
    /// How much had been sent when something was received last.
    answered: u64,
    unanswered_since: Option<Instant>,
    sent: u64,
    /// Looks in a row in which nothing was sent.
    quiet_looks: u32,
}

/// One look at a connection.
#[derive(Debug, Clone, Copy)]
struct Look {
    received: u64,
    sent: u64,
    /// Since when a state waits to be acknowledged.
    unacknowledged_since: Option<Instant>,
    at: Instant,
}

impl Traffic {
    fn new(connection: usize, look: Look) -> Self {
        let Look { received, sent, .. } = look;
        Self { connection, received, answered: sent, unanswered_since: None, sent, quiet_looks: 0 }
    }

    /// Takes note of a look, and says whether the connection is stalled: nothing comes in answer to what is sent, or QUIC hardly
    /// sends although it has something to say.
    fn is_stalled(&mut self, look: Look) -> bool {
        let long = |since: Instant| look.at.saturating_duration_since(since) >= STALLED_AFTER;
        self.quiet_looks = if look.sent == self.sent { self.quiet_looks.saturating_add(1) } else { 0 };
        self.sent = look.sent;
        if look.received != self.received {
            (self.received, self.answered, self.unanswered_since) = (look.received, look.sent, None);
        } else if look.sent > self.answered {
            self.unanswered_since.get_or_insert(look.at);
        }
        let unanswered = look.sent.saturating_sub(self.answered) >= STALLED_SENT && self.unanswered_since.is_some_and(long);
        let backed_off =
            self.quiet_looks >= BACKED_OFF_LOOKS && look.unacknowledged_since.is_some_and(long) && !bug!("backed-off-link-kept");
        unanswered || backed_off
    }
}

/// Closes the connections that a partition has left in QUIC's back-off, so that they are dialled anew.
fn give_up_stalled(mesh: &Mesh, traffic: &mut BTreeMap<RegionId, Traffic>, now: Instant) {
    let links = mesh.pool.all();
    traffic.retain(|region, _| links.binary_search_by(|link| link.region.cmp(region)).is_ok());
    for link in links {
        let (connection, stats) = (link.connection.stable_id(), link.connection.stats());
        let (received, sent) = (stats.udp_rx.datagrams, stats.udp_tx.datagrams);
        let look = Look { received, sent, unacknowledged_since: link.unacknowledged_since(), at: now };
        match traffic.get_mut(&link.region) {
            Some(last) if last.connection == connection => {
                if last.is_stalled(look) && !bug!("stalled-link-kept") {
                    sometimes!("mesh.connection-stalled");
                    tracing::debug!(region = %link.region, "connection stalled");
                    link.connection.close(link::CODE_STALLED, b"stalled");
                }
            }
            _ => {
                traffic.insert(link.region.clone(), Traffic::new(connection, look));
            }
        }
    }
}

/// Dials every known region that is not connected, and every seed that is none of them.
fn connect(mesh: &Arc<Mesh>, now: Instant) {
    let links = mesh.pool.all();
    let mut connected: Vec<SocketAddr> = links.iter().map(|link| link.connection.remote_address()).collect();
    let mut wanted = BTreeSet::new();
    {
        let core = mesh.core();
        // Both are in the order of names.
        let mut links = links.iter().peekable();
        for (region, known) in core.roster.iter() {
            let address = known.card.announcement.address;
            while links.next_if(|link| link.region < *region).is_some() {}
            if links.peek().is_some_and(|link| link.region == *region) {
                connected.push(address);
            } else if mesh.region < *region || now.saturating_duration_since(known.since) >= DIAL_PATIENCE {
                wanted.insert(address);
            }
        }
    }
    wanted.extend(mesh.seeds.borrow().iter().copied());
    wanted.retain(|address| !connected.contains(address) && *address != mesh.address);
    mesh.pool.want(mesh, &wanted, now);
}

/// Starts to fetch what is due: from the region itself, and after a failure from anyone, by chance.
fn fetch(mesh: &Arc<Mesh>, now: Instant) {
    let due = mesh.core().roster.start_fetches(now);
    for (region, failures) in due {
        let direct = mesh.pool.get(&region).filter(|_| failures % 2 == 0);
        let link = direct.or_else(|| mesh.any_link(Some(&region))).or_else(|| mesh.pool.get(&region));
        let Some(link) = link else {
            mesh.core().roster.settle_fetch(&region, now);
            continue;
        };
        let mesh = mesh.clone();
        tokio::spawn(async move {
            mesh.counters.fetches.bump();
            let request = Request::Fetch { region: region.clone() };
            let brought = match rpc::ask(&link, &request).await {
                Ok(Response::Published(published)) => match link::take_in(&mesh, &link, &region, *published).await {
                    Ok(brought) => brought,
                    Err(reason) => {
                        mesh.refuse(&link.region, reason);
                        false
                    }
                },
                Ok(Response::NotHeld | Response::Plan(_) | Response::Refused { .. } | Response::Reserved(_)) | Err(_) => false,
            };
            if !brought {
                mesh.counters.fetch_failures.bump();
            }
            mesh.core().roster.settle_fetch(&region, Instant::now());
        });
    }
}

/// Judges who lives, asks whom there is doubt about, and publishes the view.
async fn judge(mesh: &Arc<Mesh>, asked: &mut BTreeMap<RegionId, Instant>) {
    let mut alive = Heartbeats::new();
    if let Some(handle) = mesh.gossip.handle() {
        let chitchat = handle.chitchat();
        let chitchat = chitchat.lock().await;
        let heartbeats = chitchat.live_nodes().filter_map(|id| Some((id, chitchat.node_state(id)?.heartbeat())));
        alive.extend(heartbeats.map(|(id, heartbeat)| (id.node_id.clone(), id.generation_id, heartbeat.into())));
    }
    alive.sort_unstable();
    let (now, connected) = (mesh.now(), mesh.pool.connected());
    let (mut changes, mut ask) = (vec![], vec![]);
    {
        let mut core = mesh.core();
        // Under the lock: what is shown never goes back to before a state that came meanwhile.
        mesh.view.send_if_modified(|view| {
            let judged = core.judge(&alive, &connected, now, Arc::make_mut(view));
            (changes, ask) = (judged.changes, judged.ask);
            judged.news
        });
    }
    asked.retain(|_, at| now.instant.saturating_duration_since(*at) < ASK_EVERY);
    for region in ask {
        if let Entry::Vacant(due) = asked.entry(region) {
            gossip::ask(mesh, due.key());
            due.insert(now.instant);
        }
    }
    if changes.is_empty() {
        return;
    }
    let view = mesh.view.borrow().clone();
    for (region, change) in changes {
        let entry = &view.regions[&region];
        let at = format!("generation {} at {}", entry.generation, entry.address);
        let (kind, text) = match change {
            Change::Joined => ("mesh.region_joined", format!("{region} joined ({at})")),
            Change::Left => ("mesh.region_left", format!("{region} is not heard of any more ({at})")),
            Change::Returned => ("mesh.region_returned", format!("{region} is back ({at})")),
        };
        mesh.events.note(Severity::Info, kind, text);
        if let Change::Joined | Change::Returned = change {
            // Others hear it again, so it can be dialled again: what failed before says nothing now.
            mesh.pool.hurry(entry.address);
            mesh.dirty.notify_one();
        }
    }
}

fn repair(mesh: &Arc<Mesh>) {
    let Some(link) = mesh.any_link(None) else { return };
    for card in mesh.core().cards() {
        link.forward(mesh, &Arc::new(card));
    }
}

/// Resolves the seeds, now and every minute: addresses as they are, names by look-up.
pub(super) async fn resolve_seeds(mesh: Arc<Mesh>, seeds: Vec<String>) {
    let (literal, names): (Vec<_>, Vec<_>) = seeds.into_iter().partition(|seed| seed.parse::<SocketAddr>().is_ok());
    let literal: BTreeSet<SocketAddr> = literal.iter().filter_map(|seed| seed.parse().ok()).collect();
    mesh.seeds.send_replace(literal.clone());
    mesh.dirty.notify_one();
    while !names.is_empty() {
        let mut addresses = literal.clone();
        for name in &names {
            match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(name)).await {
                Ok(Ok(found)) => addresses.extend(found.take(MAX_ADDRESSES_PER_SEED)),
                Ok(Err(error)) => tracing::warn!(seed = name, %error, "seed not found; trying again in {SEED_REFRESH:?}"),
                Err(_) => tracing::warn!(seed = name, "no answer from DNS in {LOOKUP_TIMEOUT:?}; trying again in {SEED_REFRESH:?}"),
            }
        }
        mesh.seeds.send_replace(addresses);
        mesh.dirty.notify_one();
        tokio::select! {
            biased;
            () = mesh.closed() => return,
            _ = tokio::time::sleep(SEED_REFRESH) => {}
        }
    }
}

impl Mesh {
    /// A connection by chance, but not with `except`.
    pub(super) fn any_link(&self, except: Option<&RegionId>) -> Option<Arc<link::Link>> {
        let mut links = self.pool.all();
        links.retain(|link| Some(&link.region) != except);
        (!links.is_empty()).then(|| links.swap_remove(self.chance().random_range(0..links.len())))
    }
}

const _: () = assert!(CARDS_PER_MESSAGE <= tradewind_protocol::wire::MAX_CARDS);

#[cfg(test)]
mod tests {
    use super::*;

    /// The looks of so many seconds at a connection: how much was received and sent in all, by the second.
    fn stalls(seconds: u32, unacknowledged: bool, traffic: impl Fn(u32) -> (u64, u64)) -> bool {
        let t = Instant::now();
        let look = |half: u32| {
            let (received, sent) = traffic(half / 2);
            Look { received, sent, unacknowledged_since: unacknowledged.then_some(t), at: t + half * STALL_LOOK }
        };
        let mut last = Traffic::new(1, look(0));
        (1..=2 * seconds).any(|half| last.is_stalled(look(half)))
    }

    #[test]
    fn a_connection_that_does_not_answer_is_stalled() {
        let silent = |second: u32| (7, 10 + u64::from(second));
        assert!(stalls(7, false, silent));
        assert!(!stalls(5, false, silent), "an answer may still come");
        assert!(!stalls(60, false, |second| (7, 10 + u64::from(second.min(2)))), "they may have been lost");
        assert!(!stalls(60, false, |second| (u64::from(second / 4), 10 + u64::from(second))), "answers came");
        assert!(!stalls(60, false, |_| (7, 10)), "nothing was said");
    }

    #[test]
    fn a_connection_is_stalled_if_quic_waits_although_a_state_is_not_acknowledged() {
        // Two probes each way every six seconds.
        let probes = |second: u32| (u64::from(second / 6) * 2, u64::from(second / 6) * 2);
        assert!(stalls(9, true, probes));
        assert!(!stalls(60, false, probes), "nothing waits");
        assert!(!stalls(60, true, |second| (u64::from(second), u64::from(second))), "a narrow path is in use");
        let t = Instant::now();
        let look = |at| Look { received: 1, sent: 1, unacknowledged_since: Some(t), at };
        let mut last = Traffic::new(1, look(t));
        assert!(!last.is_stalled(look(t + 9 * STALLED_AFTER)), "the machine may have stood still");
    }
}
