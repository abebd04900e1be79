//! What the step loop remembers of each pool from round to round, and over a restart.
//!
//! Memories are written beside the steps, now and then and at the end: grants wait for the same disk. What is lost with a crash is learned
//! again.

use crate::marks::bug;
use crate::planner::{Memory, OwnDemand};
use crate::store::{Facts, Store};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tradewind_protocol::PoolName;

const MEMORIES: Facts = Facts("planner");
const DEMANDS: Facts = Facts("demand");

/// What a crash may cost, beside what a write at every step would.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The memories, and the write that is under way.
pub(super) struct Memories {
    store: Store,
    pools: BTreeMap<PoolName, Remembered>,
    writing: Option<JoinHandle<()>>,
    /// When the last write began.
    kept: Option<Instant>,
}

/// What is remembered of one pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered {
    pub(super) memory: Memory,
    /// The demand on it.
    pub(super) own: OwnDemand,
    /// Whether its last plan was blocked, in this life.
    pub(super) blocked: bool,
}

impl Memories {
    pub(super) fn new(store: Store) -> Self {
        Self { store, pools: BTreeMap::new(), writing: None, kept: None }
    }

    /// Reads what earlier lives have left of `pools`. What cannot be read is learned again.
    pub(super) async fn recall(&mut self, pools: impl Iterator<Item = PoolName>) {
        let (mut memories, mut demands) = (self.all(MEMORIES).await, self.all(DEMANDS).await);
        for pool in pools {
            let memory = memories.remove(pool.as_str()).and_then(|bytes| Memory::from_bytes(&bytes)).unwrap_or_default();
            let own = demands.remove(pool.as_str()).map(|bytes| OwnDemand::from_bytes(&bytes)).unwrap_or_default();
            self.pools.insert(pool, Remembered { memory, own, blocked: false });
        }
    }

    async fn all(&self, facts: Facts) -> BTreeMap<String, Vec<u8>> {
        if bug!("memories-not-read") {
            return BTreeMap::new();
        }
        match self.store.all(facts).await {
            Ok(kept) => kept.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "what the planner had learned cannot be read: it learns again");
                BTreeMap::new()
            }
        }
    }

    pub(super) fn of(&mut self, pool: &PoolName) -> &mut Remembered {
        self.pools.entry(pool.clone()).or_default()
    }

    /// Begins to make them durable, unless that is under way or was done lately.
    pub(super) fn keep(&mut self) {
        let lately = self.kept.is_some_and(|kept| kept.elapsed() < KEEP_EVERY);
        if lately || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.kept = Some(Instant::now());
        self.write();
    }

    fn write(&mut self) {
        let changes = |bytes: fn(&Remembered) -> Vec<u8>| self.pools.iter().map(|(pool, of)| (pool.to_string(), Some(bytes(of)))).collect();
        let (memories, demands) = (changes(|of| of.memory.to_bytes()), changes(|of| of.own.to_bytes()));
        let store = self.store.clone();
        self.writing = Some(tokio::spawn(async move {
            for (facts, changes) in [(MEMORIES, memories), (DEMANDS, demands)] {
                if let Err(error) = store.change(facts, changes).await {
                    tracing::warn!(%error, "what the planner has learned is not durable");
                }
            }
        }));
    }

    /// Makes them durable as they are at the end.
    pub(super) async fn finish(&mut self) {
        self.wait().await;
        self.write();
        self.wait().await;
    }

    async fn wait(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::planner::Standing;

    #[tokio::test]
    async fn the_next_life_knows_what_was_kept_at_the_end_and_not_every_step_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Env::real(dir.path()).unwrap()).await.unwrap();
        let pool: PoolName = "web".parse().unwrap();
        let planned = |active| Some(Standing { active, warm: 0 });
        let kept = async || {
            let mut next = Memories::new(store.clone());
            next.recall([pool.clone()].into_iter()).await;
            (next.of(&pool).memory.standing, next.of(&pool).own.to_bytes())
        };
        // The last step, and what it demanded.
        let demand = |step: u32| [&i64::from(step).to_le_bytes()[..], &7.5f32.to_le_bytes()].concat();
        let mut memories = Memories::new(store.clone());
        for active in 1..=3 {
            memories.of(&pool).memory.standing = planned(active);
            memories.of(&pool).own = OwnDemand::from_bytes(&demand(active));
            memories.keep();
            memories.wait().await;
        }
        assert_eq!(kept().await, (planned(1), demand(1)));
        memories.finish().await;
        assert_eq!(kept().await, (planned(3), demand(3)));
    }
}
