//! The agent's end of the control channel: one task a connection.

use super::Shared;
use super::control::{FromWorker, Lines, ToWorker};
use super::keeper::{LOG_NAME, Link, Slot};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tradewind_protocol::api::InstanceState;

/// How many workers may be connected: more than a machine runs, fewer than it has descriptors for.
const MAX_CONNECTIONS: usize = 4_096;

/// How long a connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How many orders may wait for one worker, which is told one at a time by the pool.
const MAX_WAITING_ORDERS: usize = 8;

/// How long to wait after the system refused a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The size at which the pool's log is emptied, and how often that is looked at: what workers write
/// in between is all that can come on top.
const MAX_LOG_BYTES: u64 = 1 << 20;
const LOG_CHECK: Duration = Duration::from_secs(5);

/// Accepts workers' connections, and keeps their log small.
pub(super) async fn accept(shared: Arc<Shared>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut log_check = tokio::time::interval(LOG_CHECK);
    let me = rustix::process::geteuid().as_raw();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = log_check.tick() => {
                trim_log(&shared);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // The directory is ours alone; this holds even if somebody opened it up.
        let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == me || peer.uid() == 0);
        let (true, Ok(permit)) = (ours, Arc::clone(&room).try_acquire_owned()) else { continue };
        let task_shared = Arc::clone(&shared);
        shared.spawn(async move {
            if let Err(error) = converse(&task_shared, stream).await {
                tracing::debug!(pool = %task_shared.pool, %error, "a worker's connection ended");
            }
            drop(permit);
        });
    }
}

/// Speaks with one worker until the connection ends.
async fn converse(shared: &Shared, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = Lines::new(reader);
    let first = tokio::time::timeout(HELLO_TIMEOUT, lines.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let Some(FromWorker::Hello(id, state)) = first.as_deref().and_then(FromWorker::parse) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("wanted hello <instance> <state>, got {first:?}")));
    };
    let Some(slot) = shared.slot(&id) else {
        tracing::warn!(pool = %shared.pool, instance = %id, "a worker of no known instance said hello; it is told to drain");
        return writer.write_all(ToWorker::Drain.line().as_bytes()).await;
    };
    let (orders, mut waiting) = mpsc::channel(MAX_WAITING_ORDERS);
    let number = slot.update(|status| {
        status.links += 1;
        status.link = Some(Link { number: status.links, orders });
        status.links
    });
    heard(shared, &slot, state);
    // A worker that drains may have been told so while it was away.
    let drains = slot.status().state == InstanceState::Draining;
    slot.tell(if drains { ToWorker::Drain } else { ToWorker::Status });
    let result = loop {
        tokio::select! {
            biased;
            order = waiting.recv() => match order {
                Some(order) => if let Err(error) = writer.write_all(order.line().as_bytes()).await { break Err(error) },
                // A newer connection has taken over.
                None => break Ok(()),
            },
            line = lines.next() => match line {
                Ok(Some(line)) => match FromWorker::parse(&line) {
                    Some(FromWorker::State(state) | FromWorker::Hello(_, state)) => heard(shared, &slot, state),
                    None => break Err(io::Error::new(io::ErrorKind::InvalidData, format!("wanted state <state>, got {line:?}"))),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
        }
    };
    slot.update(|status| {
        if status.link_number() == Some(number) {
            status.link = None;
        }
    });
    result
}

/// Takes note of what a worker says about itself. What is to drain drains, whatever it says.
fn heard(shared: &Shared, slot: &Slot, said: InstanceState) {
    let news = slot.update(|status| {
        let news = status.state != said && status.state != InstanceState::Draining;
        if news {
            status.state = said;
        }
        news
    });
    if news {
        shared.save(slot);
        shared.changed.notify_one();
    }
}

/// Empties the pool's log when it is full. Workers append, so they go on at its new end.
fn trim_log(shared: &Shared) {
    let path = shared.dir.join(LOG_NAME);
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES)
        && let Err(error) = std::fs::OpenOptions::new().write(true).open(&path).and_then(|log| log.set_len(0))
    {
        tracing::warn!(path = %path.display(), %error, "the workers' log is full and cannot be emptied");
    }
}
