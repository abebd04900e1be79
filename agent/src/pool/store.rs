//! The ledgers' entries in the agent's database.

use crate::marks::bug;
use crate::store::{Facts, Store, StoreError};
use tradewind_protocol::reservation::ReservationId;
use tradewind_protocol::reservation::ledger::Change;
use tradewind_protocol::{PoolName, RegionId};

/// JSON of a [`Change`], by `<pool>/<what>/<of what>`; a pool's name has no slash.
const ENTRIES: Facts = Facts("reservations");

/// Every entry, with its pool.
pub(super) async fn load(store: &Store) -> Result<Vec<(PoolName, Change)>, StoreError> {
    let mut entries = vec![];
    if bug!("ledger-not-read") {
        return Ok(entries);
    }
    for (key, value) in store.all(ENTRIES).await? {
        let pool = key.split_once('/').and_then(|(pool, _)| PoolName::new(pool).ok());
        match (pool, serde_json::from_slice(&value)) {
            (Some(pool), Ok(change)) => entries.push((pool, as_read(change))),
            // Written by another version. What exists is counted anyway, as soon as it is seen.
            (_, _) => tracing::warn!(key, "an entry of the ledger is not understood and left out"),
        }
    }
    Ok(entries)
}

/// What is in the file, as it is.
fn as_read(change: Change) -> Change {
    match change {
        Change::Live(mut reservation) if !reservation.id.is_instance() && bug!("terms-read-short") => {
            reservation.terms.units = reservation.terms.units.saturating_sub(1);
            Change::Live(reservation)
        }
        change => change,
    }
}

/// Makes all `changes` durable, in their order, or none.
pub(super) async fn commit(store: &Store, changes: &[(PoolName, Change)]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut entries = Vec::with_capacity(changes.len());
    for (pool, change) in changes {
        let value = serde_json::to_vec(change).ok();
        match change {
            Change::Live(reservation) => entries.push((live(pool, &reservation.id), value)),
            Change::Ended(id) => {
                entries.push((live(pool, id), None));
                if let ReservationId::Remote { holder, number } = id {
                    entries.push((spent(pool, holder, *number), value));
                }
            }
            Change::LowWater { holder, below, covers } => {
                entries.extend(covers.iter().map(|number| (spent(pool, holder, *number), None)));
                let mark = Change::LowWater { holder: holder.clone(), below: *below, covers: vec![] };
                entries.push((format!("{pool}/mark/{holder}"), serde_json::to_vec(&mark).ok()));
            }
        }
    }
    store.change(ENTRIES, entries).await
}

/// Forgets entries as they were [`load`]ed.
pub(super) async fn forget(store: &Store, entries: &[(PoolName, Change)]) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let key = |(pool, change): &(PoolName, Change)| match change {
        Change::Live(reservation) => live(pool, &reservation.id),
        Change::Ended(ReservationId::Remote { holder, number }) => spent(pool, holder, *number),
        Change::Ended(id @ ReservationId::Instance(_)) => live(pool, id),
        Change::LowWater { holder, .. } => format!("{pool}/mark/{holder}"),
    };
    store.change(ENTRIES, entries.iter().map(|entry| (key(entry), None)).collect()).await
}

fn live(pool: &PoolName, id: &ReservationId) -> String {
    format!("{pool}/live/{id}")
}

fn spent(pool: &PoolName, holder: &RegionId, number: u64) -> String {
    format!("{pool}/spent/{holder}/{number:020}")
}
