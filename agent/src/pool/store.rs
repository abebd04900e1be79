//! The ledgers' entries in the agent's database.

use super::ledger::{Change, ReservationId};
use crate::marks::bug;
use crate::store::{Facts, Store, StoreError};
use tradewind_protocol::PoolName;

/// JSON of a [`Change`], by `<pool>/<reservation>`; a pool's name has no slash.
const ENTRIES: Facts = Facts("pool_reservations");

/// Every entry, with its pool.
pub(super) async fn load(store: &Store) -> Result<Vec<(PoolName, Change)>, StoreError> {
    let mut entries = vec![];
    if bug!("ledger-not-read") {
        return Ok(entries);
    }
    for (key, value) in store.all(ENTRIES).await? {
        let pool = key.split_once('/').and_then(|(pool, _)| PoolName::new(pool).ok());
        match (pool, serde_json::from_slice(&value)) {
            (Some(pool), Ok(change)) => entries.push((pool, change)),
            // Written by another version. What exists is counted anyway, as soon as it is seen.
            (_, _) => tracing::warn!(key, "an entry of the ledger is not understood and left out"),
        }
    }
    Ok(entries)
}

/// Makes all `changes` durable, or none.
pub(super) async fn commit(store: &Store, changes: &[(PoolName, Change)]) -> Result<(), StoreError> {
    if changes.is_empty() || bug!("ledger-not-written") {
        return Ok(());
    }
    let entry = |(pool, change): &(PoolName, Change)| {
        let (id, value): (&ReservationId, _) = match change {
            Change::Live(reservation) => (&reservation.id, serde_json::to_vec(change).ok()),
            Change::Spent(id, _) => (id, serde_json::to_vec(change).ok()),
            Change::Forgotten(id) => (id, None),
        };
        (format!("{pool}/{id}"), value)
    };
    store.change(ENTRIES, changes.iter().map(entry).collect()).await
}
