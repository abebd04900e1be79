//! Starts what reads from elsewhere and tells elsewhere, as configured.

use crate::config::Config;
use crate::env::Env;
use crate::events::EventLog;
use crate::history::HistoryHandle;
use crate::http::Progress;
use crate::prometheus::{read::Reader, write::Writer};
use crate::store::Store;
use crate::tail::Tail;
use crate::webhook;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A task for each. They end with `stop`.
pub(super) fn start(
    env: &Env,
    config: &Arc<Config>,
    store: &Store,
    history: &HistoryHandle,
    events: &EventLog,
    progress: &watch::Receiver<Progress>,
    stop: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![];
    if let Some(read) = config.feeds.read.clone() {
        let (clock, offload, store) = (env.clock.clone(), env.offload, store.clone());
        let reader = Reader { config: config.clone(), read, clock, offload, store, history: history.clone(), events: events.clone() };
        tasks.push(tokio::spawn(reader.run(stop.clone())));
    }
    if let Some(write) = config.feeds.write.clone() {
        let writer = Writer { config: config.clone(), write, offload: env.offload, progress: progress.clone(), events: events.clone() };
        tasks.push(tokio::spawn(writer.run(stop.clone())));
    }
    for tail in config.feeds.tails.clone() {
        let (clock, offload, store) = (env.clock.clone(), env.offload, store.clone());
        let tail = Tail { config: config.clone(), tail, clock, offload, store, history: history.clone(), events: events.clone() };
        tasks.push(tokio::spawn(tail.run(stop.clone())));
    }
    if let Some(hook) = config.feeds.webhook.clone() {
        tasks.push(tokio::spawn(webhook::run(hook, events.clone(), env.offload, stop.clone())));
    }
    tasks
}
