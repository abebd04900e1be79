//! The outside of a simulation: clients that post traffic to the agents' APIs, look at what they
//! answer, and keep book of what was acknowledged.
//!
//! A client repeats a batch, under the same idempotency key, until it is acknowledged, like any
//! sound client. Whenever its agent has begun a new life it posts its last acknowledged batches
//! once more: an agent that counts one of them again has forgotten what it acknowledged.

use crate::clock::{virtual_now, wall_time};
use crate::env::Machine;
use crate::http::Api;
use crate::model::{Acknowledged, Model};
use crate::oracle::Rule;
use crate::promises::Promises;
use crate::workload::Traffic;
use anyhow::{Context as _, bail};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use tradewind_protocol::api::{ForecastView, IngestReceipt, RegionView};
use tradewind_protocol::{RegionId, Step, TransactionRecord};

/// How often an agent's view is looked at. Shorter than the failure detector's reaction, long
/// enough to cost little beside the agents themselves.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Batches that wait for an agent that is away: ten minutes of two batches a second.
const MAX_WAITING: usize = 1_200;

/// Batches that are posted once more after a restart. Those acknowledged last are the ones at risk.
const REPEATED: usize = 8;

/// A batch that comes late does so many steps after its time: the steps are closed by then.
const HELD_STEPS: u32 = 3;

/// What a client was told, or was not.
#[derive(Debug)]
pub(crate) enum Sight {
    /// An agent's view of the mesh.
    Views(Vec<RegionView>),
    /// No sensible answer.
    Silence(String),
    /// An acknowledged batch that the agent no longer knows, or counts that do not add up.
    Lost(String),
    /// A batch that the agent will not take.
    Refused(String),
    /// A rule that does not hold for the agent's capacity.
    Broken(Rule, String),
}

/// What the clients have seen and done. Shared by all clients of a simulation.
#[derive(Default)]
pub(crate) struct Book {
    /// What was seen since it was last asked: when, of which agent, what.
    pub(crate) sights: Vec<(Duration, RegionId, Sight)>,
    /// Batches that were acknowledged.
    pub(crate) batches: u64,
    /// Transactions in them.
    pub(crate) transactions: u64,
    /// Posts that were not acknowledged, and repeated.
    pub(crate) retries: u64,
    /// Acknowledged batches that were posted again after a restart.
    pub(crate) repeated: u64,
    /// Series whose counts were compared at the end.
    pub(crate) compared: u64,
    /// Since when each agent is up and everything about it is sound; kept by who knows the world.
    pub(crate) sound_since: BTreeMap<RegionId, Duration>,
    /// Since when each two agents, the smaller name first, are that and reach each other.
    pub(crate) reachable_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// Since when the one of each two agents, the smaller name first, can have had no news of the other.
    pub(crate) parted_since: BTreeMap<(RegionId, RegionId), Duration>,
    /// When the liar first pushed another region's state to an agent, by the agent's machine's boots.
    pub(crate) lied_to: BTreeMap<(RegionId, u64), Duration>,
    /// When the liar last repeated honest gossip.
    pub(crate) carried: Option<Duration>,
    /// How often each agent's machine was booted, to be asked.
    pub(crate) boots: BTreeMap<RegionId, Boots>,
    /// How often its disk was lost, likewise.
    pub(crate) disk_losses: BTreeMap<RegionId, Boots>,
    /// When it last ended in order, likewise.
    pub(crate) ended: BTreeMap<RegionId, Box<dyn Fn() -> Option<Duration>>>,
    /// Lives whose durable state was compared with the reference model.
    pub(crate) recovered: u64,
    /// What owners have promised.
    pub(crate) promises: Promises,
    /// What is durable of each agent.
    models: BTreeMap<RegionId, Model>,
}

type Boots = Box<dyn Fn() -> u64>;

impl Book {
    /// What was acknowledged, by series and step.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.models.values().flat_map(Model::acknowledged).collect()
    }

    /// What is durable of the agent of `region`.
    pub(crate) fn model(&mut self, region: &RegionId) -> &mut Model {
        self.models.entry(region.clone()).or_default()
    }

    pub(crate) fn see(&mut self, region: &RegionId, sight: Sight) {
        self.sights.push((virtual_now(), region.clone(), sight));
    }
}

/// One agent's client.
pub(crate) struct Client {
    pub(crate) region: RegionId,
    pub(crate) api: Rc<Api>,
    pub(crate) machine: Rc<Machine>,
    pub(crate) step: Step,
    pub(crate) book: Rc<RefCell<Book>>,
}

/// Which life of its agent a client has last spoken with.
struct Life {
    boots: u64,
    /// How often its disk had been lost.
    losses: u64,
}

struct Batch {
    key: String,
    body: Vec<u8>,
    records: Vec<TransactionRecord>,
}

impl Client {
    /// Looks at the agent's view of the mesh, for ever.
    pub(crate) async fn watch(self) -> anyhow::Result<()> {
        loop {
            // An agent that is away is seen to be.
            let _ = self.views().await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The agent's view of the mesh, which the book sees, too.
    pub(crate) async fn views(&self) -> anyhow::Result<Vec<RegionView>> {
        let views = self.get::<Vec<RegionView>>("/v1/regions").await;
        let seen = views.as_ref().map_or_else(|error| Sight::Silence(format!("{error:#}")), |views| Sight::Views(views.clone()));
        self.book.borrow_mut().see(&self.region, seen);
        views
    }

    /// Posts `traffic` until `until`, then waits for `settle` and compares what the agent has
    /// counted with what it acknowledged.
    pub(crate) async fn post(self, mut traffic: Traffic, until: Duration, settle: Duration) -> anyhow::Result<()> {
        let (mut waiting, mut acknowledged) = (VecDeque::new(), VecDeque::new());
        let (mut number, mut life) = (0, Life { boots: self.machine.boots(), losses: self.machine.disk.losses() });
        let mut next = virtual_now();
        for records in traffic.history(next + traffic.every()) {
            number += 1;
            waiting.push_back(self.open(number, records)?);
        }
        let mut held = VecDeque::new();
        while next < until {
            next += traffic.every();
            tokio::time::sleep(next.saturating_sub(virtual_now())).await;
            let records = traffic.batch(next);
            if !records.is_empty() && waiting.len() < MAX_WAITING {
                number += 1;
                let batch = self.open(number, records)?;
                if traffic.is_late(number) {
                    held.push_back((next + HELD_STEPS * self.step.length(), batch));
                } else {
                    waiting.push_back(batch);
                }
            }
            while held.front().is_some_and(|(due, _)| *due <= next) {
                waiting.extend(held.pop_front().map(|(_, batch)| batch));
            }
            self.deliver(&mut waiting, &mut acknowledged, &mut life).await;
        }
        waiting.extend(held.into_iter().map(|(_, batch)| batch));
        tokio::time::sleep(settle).await;
        self.deliver(&mut waiting, &mut acknowledged, &mut life).await;
        self.compare().await;
        Ok(())
    }

    fn open(&self, number: u64, records: Vec<TransactionRecord>) -> anyhow::Result<Batch> {
        self.book.borrow_mut().model(&self.region).open(&records, self.step);
        Ok(Batch { key: format!("{}-{number}", self.region), body: serde_json::to_vec(&records)?, records })
    }

    /// Posts what waits, oldest first, until the agent does not answer.
    async fn deliver(&self, waiting: &mut VecDeque<Batch>, acknowledged: &mut VecDeque<Batch>, life: &mut Life) {
        if life.losses != self.machine.disk.losses() {
            // Nothing that was acknowledged before can be expected of it.
            life.losses = self.machine.disk.losses();
            acknowledged.clear();
            self.book.borrow_mut().model(&self.region).lose(life.losses);
        }
        if life.boots != self.machine.boots() {
            if self.repeat(acknowledged).await.is_err() {
                return;
            }
            life.boots = self.machine.boots();
        }
        while let Some(batch) = waiting.pop_front() {
            // Two at once if two wait, so that the agent may put them into one commit.
            let next = waiting.pop_front();
            let second = async {
                match &next {
                    Some(next) => Some(self.send(next, &next.key).await),
                    None => None,
                }
            };
            let (first, second) = tokio::join!(self.send(&batch, &batch.key), second);
            let answered = std::iter::once((batch, Some(first))).chain(next.map(|next| (next, second)));
            let mut failed = VecDeque::new();
            for (batch, receipt) in answered {
                match receipt {
                    Some(Ok(receipt)) => self.acknowledge(batch, &receipt, acknowledged),
                    Some(Err(_)) | None => failed.push_front(batch),
                }
            }
            if !failed.is_empty() {
                self.book.borrow_mut().retries += failed.len() as u64;
                failed.into_iter().for_each(|batch| waiting.push_front(batch));
                return;
            }
        }
    }

    /// Keeps book of a batch that the agent has acknowledged.
    fn acknowledge(&self, batch: Batch, receipt: &IngestReceipt, acknowledged: &mut VecDeque<Batch>) {
        if receipt.refused > 0 {
            let why = receipt.refusals.first().map(|refusal| refusal.reason.clone()).unwrap_or_default();
            self.book.borrow_mut().see(&self.region, Sight::Refused(format!("{} records of {}: {why}", receipt.refused, batch.key)));
        }
        let mut book = self.book.borrow_mut();
        book.model(&self.region).acknowledge(&batch.key, &batch.records, self.step, receipt);
        book.batches += 1;
        book.transactions += batch.records.iter().map(|record| record.count).sum::<u64>();
        acknowledged.push_back(batch);
        if acknowledged.len() > REPEATED {
            acknowledged.pop_front();
        }
    }

    /// Posts again what an earlier life of the agent acknowledged.
    async fn repeat(&self, acknowledged: &VecDeque<Batch>) -> anyhow::Result<()> {
        for batch in acknowledged {
            // Where the records have ids, those alone must do.
            let key =
                if batch.records.iter().all(|record| record.id.is_some()) { format!("{}-again", batch.key) } else { batch.key.clone() };
            let receipt = self.send(batch, &key).await?;
            let mut book = self.book.borrow_mut();
            book.repeated += 1;
            if receipt.accepted > 0 && !receipt.replayed {
                book.see(&self.region, Sight::Lost(format!("batch {} was acknowledged, and counted again after a restart", batch.key)));
            } else if let Some(what) = book.model(&self.region).judge_receipt(&key, &receipt) {
                book.see(&self.region, Sight::Broken(Rule::Recovers, what));
            }
        }
        Ok(())
    }

    async fn send(&self, batch: &Batch, key: &str) -> anyhow::Result<IngestReceipt> {
        let response = self.api.post_json("/v1/records", key, &batch.body).await?;
        match response.status {
            200..300 => serde_json::from_slice(&response.body).context("the receipt"),
            status => bail!("{status}: {}", String::from_utf8_lossy(&response.body)),
        }
    }

    /// Compares what the agent has counted with what it acknowledged, step by step.
    async fn compare(&self) {
        let before = self.book.borrow_mut().model(&self.region).acknowledged();
        let over = self.step.index(wall_time(virtual_now()));
        let found = self.get::<Vec<ForecastView>>(&format!("/v1/forecasts?from={}", self.region)).await;
        let mut book = self.book.borrow_mut();
        match found {
            Ok(forecasts) => {
                let wrong = book.model(&self.region).judge_counts(&before, &forecasts, over, self.step);
                book.compared += forecasts.len() as u64;
                wrong.into_iter().for_each(|what| book.see(&self.region, Sight::Lost(what)));
            }
            Err(error) => book.see(&self.region, Sight::Silence(format!("{error:#}"))),
        }
    }

    pub(crate) async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.api.get(path).await?;
        match response.status {
            200 => serde_json::from_slice(&response.body).with_context(|| format!("the answer to {path}")),
            status => bail!("{path}: {status}"),
        }
    }
}
