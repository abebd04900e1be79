//! History's tables in the file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `history_meta` | what | text: step length, region, format, the steps that ids and counts are kept from |
//! | `history_series` | id | since which step, `tenant/source/destination/service/type` |
//! | `history_last` | id | the last counted step, for series with sealed counts |
//! | `history_sizes` | id | the size of the sealed counts, and of what was folded before (see `places`): at which step, how much |
//! | `history_displaced` | id | nothing: the series has lost its place to a larger one |
//! | `history_counts` | step | pairs of varints, ascending: distance to the last series id, count |
//! | `history_columns` | level, number of the column, series id | the counts of 128 buckets (see `column`) |
//! | `history_ids` | step, number of the row | id hashes, 16 bytes each |
//! | `history_keys` | expiry, key hash | the receipt, JSON |
//!
//! One row a step while its counts are in memory: a commit rewrites the one or two steps that are open, and a start reads
//! the rows. What memory no longer holds is in columns: a row a series, level and 128 buckets, beside those of its
//! neighbours of the same time, since they are written and forgotten together. Ids are only ever added, a row a commit and step, since one row an id would rewrite a page
//! an id.

use super::HistoryError;
use super::column;
use super::group::{Delta, Limits, State};
use super::levels::{CHUNK, Level, Resolution};
use super::places::Size;
use super::rollups::{Sealed, SeriesId, boundary};
use crate::ingest::batch::IdHash;
use crate::marks::bug;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use tradewind_protocol::api::IngestReceipt;
use tradewind_protocol::{RegionId, SeriesKey, ServiceName, Step, StepIndex, TenantName, Timestamp, TransactionType};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("history_meta");
const SERIES: TableDefinition<'_, u64, (i64, &str)> = TableDefinition::new("history_series");
const COUNTS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("history_counts");
const LAST: TableDefinition<'_, u64, i64> = TableDefinition::new("history_last");
const SIZES: TableDefinition<'_, u64, (i64, f64)> = TableDefinition::new("history_sizes");
const DISPLACED: TableDefinition<'_, u64, ()> = TableDefinition::new("history_displaced");
const COLUMNS: TableDefinition<'_, (u8, i64, u64), &[u8]> = TableDefinition::new("history_columns");
const IDS: TableDefinition<'_, (i64, u64), &[u8]> = TableDefinition::new("history_ids");
const KEYS: TableDefinition<'_, (i64, u128), &[u8]> = TableDefinition::new("history_keys");

/// Raised whenever these tables change their meaning.
const FORMAT: &str = "2";

/// The format without columns: every file of it is one of today's in which nothing is sealed.
const FORMAT_WITHOUT_COLUMNS: &str = "1";

const META_FORMAT: &str = "format";
const META_STEP: &str = "step_ms";
const META_REGION: &str = "region";
const META_IDS_FROM: &str = "ids_from_step";
const META_COUNTS_FROM: &str = "counts_from_step";
const META_NEXT_ID: &str = "next_series_id";
const META_SEALED_STEP: &str = "sealed_through_step";
const META_SEALED_ID: &str = "sealed_cursor_id";

const HASH_BYTES: usize = 16;

/// Everything in the file, or why it is not this agent's. Creates the tables.
pub(super) fn load(database: &Database, step: Step, region: &RegionId, limits: Limits) -> Result<Result<State, HistoryError>, redb::Error> {
    let write = database.begin_write()?;
    if let Err(error) = claim(&write, step, region)? {
        return Ok(Err(error));
    }
    let mut state = State::new(limits);
    state.ids_from = kept_from(&write, META_IDS_FROM)?;
    if let Some(from) = kept_from(&write, META_COUNTS_FROM)? {
        state.rollups.forget(from, &BTreeSet::new());
    }
    if let Some(next) = kept_from(&write, META_NEXT_ID)? {
        state.rollups.retire_ids(next.0 as u64);
    }
    let sealed = match (kept_from(&write, META_SEALED_STEP)?, kept_from(&write, META_SEALED_ID)?) {
        (Some(through), Some(cursor)) => Some(Sealed { through, cursor: SeriesId(cursor.0 as u64) }),
        (None, _) | (_, None) => None,
    };
    if let Some(sealed) = sealed {
        state.rollups.set_sealed(sealed);
    }
    write.open_table(COLUMNS)?;
    for row in write.open_table(SERIES)?.iter()? {
        let (id, series) = row?;
        let (since, key) = series.value();
        let key = series_key(key).ok_or_else(|| corrupt("history_series", id.value()))?;
        state.rollups.insert(SeriesId(id.value()), key, StepIndex(since));
    }
    for row in write.open_table(DISPLACED)?.iter()? {
        state.rollups.displace(SeriesId(row?.0.value()));
    }
    let mut sizes = BTreeMap::new();
    for row in write.open_table(SIZES)?.iter()? {
        let (id, size) = row?;
        let (at, sum) = size.value();
        sizes.insert(SeriesId(id.value()), Size { at: StepIndex(at), sum });
    }
    state.rollups.set_sizes(sizes);
    for row in write.open_table(LAST)?.iter()? {
        let (id, last) = row?;
        state.rollups.touch(SeriesId(id.value()), StepIndex(last.value()));
    }
    for row in write.open_table(COUNTS)?.iter()? {
        if bug!("counts-not-read") {
            break;
        }
        let (step, counts) = row?;
        let counts = decode_counts(counts.value()).ok_or_else(|| corrupt("history_counts", step.value()))?;
        // The row of a step is there until all of it is in columns.
        for (id, count) in counts.into_iter().filter(|(id, _)| step.value() >= boundary(sealed, *id).0) {
            state.rollups.add(id, StepIndex(step.value()), count);
        }
    }
    for row in write.open_table(IDS)?.iter()? {
        let (key, hashes) = row?;
        let (step, _) = key.value();
        let hashes: Vec<IdHash> = hashes.value().as_chunks().0.iter().map(|hash| IdHash(u128::from_le_bytes(*hash))).collect();
        state.seen.insert_ids(StepIndex(step), &hashes);
    }
    for row in write.open_table(KEYS)?.iter()? {
        if bug!("batch-keys-not-read") {
            break;
        }
        let (expires, hash) = row?.0.value();
        state.seen.insert_key(IdHash(hash), Timestamp::saturating_from_millis(expires));
    }
    write.commit()?;
    Ok(Ok(state))
}

/// Checks that the file is this region's and of this step, and makes it so if it is new.
fn claim(write: &WriteTransaction, step: Step, region: &RegionId) -> Result<Result<(), HistoryError>, redb::Error> {
    let mut meta = write.open_table(META)?;
    let step_ms = u32::from(step).to_string();
    for (name, wanted) in [(META_FORMAT, FORMAT), (META_STEP, step_ms.as_str()), (META_REGION, region.as_str())] {
        let found = meta.get(name)?.map(|found| found.value().to_owned());
        let older = |found: &str| name == META_FORMAT && found == FORMAT_WITHOUT_COLUMNS;
        let Some(found) = found.filter(|found| found != wanted && !older(found)) else {
            meta.insert(name, wanted)?;
            continue;
        };
        return Ok(Err(match name {
            META_STEP => HistoryError::OtherStep { found, wanted: wanted.to_owned() },
            META_REGION => HistoryError::OtherRegion { found, wanted: region.clone() },
            _ => HistoryError::OtherFormat { found },
        }));
    }
    Ok(Ok(()))
}

fn kept_from(write: &WriteTransaction, name: &str) -> Result<Option<StepIndex>, redb::Error> {
    match write.open_table(META)?.get(name)? {
        Some(from) => from.value().parse().map(|from| Some(StepIndex(from))).map_err(|_| corrupt("history_meta", name)),
        None => Ok(None),
    }
}

/// Makes `delta` durable: all of it, or nothing and an error.
pub(super) fn write(database: &Database, delta: &Delta) -> Result<(), redb::Error> {
    if delta.is_empty() {
        return Ok(());
    }
    let mut write = database.begin_write()?;
    if bug!("commit-without-sync") {
        let _ = write.set_durability(redb::Durability::None);
    }
    add_series(&write, delta)?;
    move_series(&write, delta)?;
    add_counts(&write, delta)?;
    add_columns(&write, delta)?;
    add_ids(&write, delta)?;
    add_keys(&write, delta)?;
    Ok(write.commit()?)
}

fn add_series(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    if delta.series.is_empty() && delta.forget.series.is_empty() {
        return Ok(());
    }
    let mut series = write.open_table(SERIES)?;
    for id in &delta.forget.series {
        series.remove(id.0)?;
        write.open_table(LAST)?.remove(id.0)?;
        write.open_table(SIZES)?.remove(id.0)?;
        write.open_table(DISPLACED)?.remove(id.0)?;
    }
    for (id, (key, since)) in &delta.series {
        series.insert(id.0, (since.0, series_text(key).as_str()))?;
    }
    if let Some((id, _)) = delta.series.last_key_value() {
        let mut meta = write.open_table(META)?;
        let before = meta.get(META_NEXT_ID)?.and_then(|next| next.value().parse().ok()).unwrap_or(0);
        meta.insert(META_NEXT_ID, before.max(id.0.saturating_add(1)).to_string().as_str())?;
    }
    Ok(())
}

/// Who has lost its place, and who has one again.
fn move_series(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    if delta.displaced.is_empty() && delta.returned.is_empty() {
        return Ok(());
    }
    let mut displaced = write.open_table(DISPLACED)?;
    for id in &delta.returned {
        displaced.remove(id.0)?;
    }
    for id in &delta.displaced {
        displaced.insert(id.0, ())?;
    }
    Ok(())
}

fn add_counts(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    let mut rows = write.open_table(COUNTS)?;
    if let Some(before) = delta.forget.counts_before {
        write.open_table(META)?.insert(META_COUNTS_FROM, before.0.to_string().as_str())?;
    }
    if let Some(sealed) = delta.sealed {
        let mut meta = write.open_table(META)?;
        meta.insert(META_SEALED_STEP, sealed.through.0.to_string().as_str())?;
        meta.insert(META_SEALED_ID, sealed.cursor.0.to_string().as_str())?;
        rows.retain_in(..sealed.through.0, |_, _| false)?;
    }
    for (step, added) in &delta.counts {
        let mut counts = match rows.get(step.0)? {
            Some(row) => decode_counts(row.value()).ok_or_else(|| corrupt("history_counts", step.0))?,
            None => BTreeMap::new(),
        };
        for (id, count) in added {
            let sum = counts.entry(*id).or_default();
            *sum = sum.saturating_add(*count);
        }
        rows.insert(step.0, encode_counts(&counts).as_slice())?;
    }
    Ok(())
}

fn add_columns(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    if !delta.lasts.is_empty() {
        let mut lasts = write.open_table(LAST)?;
        for (id, last) in &delta.lasts {
            lasts.insert(id.0, last.0)?;
        }
    }
    if !delta.sizes.is_empty() {
        let mut sizes = write.open_table(SIZES)?;
        for (id, size) in &delta.sizes {
            sizes.insert(id.0, (size.at.0, size.sum))?;
        }
    }
    if delta.columns.is_empty() && delta.forget.columns_before.is_empty() {
        return Ok(());
    }
    let mut columns = write.open_table(COLUMNS)?;
    for (level, before) in &delta.forget.columns_before {
        columns.retain_in((*level, i64::MIN, 0)..(*level, *before, 0), |_, _| false)?;
    }
    for ((level, number, id), added) in &delta.columns {
        let key = (*level, *number, id.0);
        let mut column = match columns.get(key)? {
            Some(row) => column::decode(row.value()).ok_or_else(|| corrupt("history_columns", format!("{key:?}")))?,
            None => [0; CHUNK],
        };
        for (place, count) in added {
            let sum = &mut column[usize::from(*place)];
            *sum = sum.saturating_add(*count);
        }
        columns.insert(key, column::encode(&column).as_slice())?;
    }
    Ok(())
}

/// The sealed counts of one series, one for each bucket from `from` to before `until`.
pub(super) fn sealed(read: &ReadTransaction, level: Level, id: SeriesId, from: i64, until: i64) -> Result<Vec<u64>, redb::Error> {
    let columns = read.open_table(COLUMNS)?;
    let mut counts = Vec::with_capacity(usize::try_from(until.saturating_sub(from)).unwrap_or(0));
    let mut bucket = from;
    while bucket < until {
        let (number, place) = Level::place(bucket);
        let wanted = (CHUNK - place).min(usize::try_from(until - bucket).unwrap_or(CHUNK));
        let key = (level.resolution.number(), number, id.0);
        match columns.get(key)? {
            Some(row) => {
                let column = column::decode(row.value()).ok_or_else(|| corrupt("history_columns", format!("{key:?}")))?;
                counts.extend(&column[place..place + wanted]);
            }
            None => counts.resize(counts.len() + wanted, 0),
        }
        bucket += wanted as i64;
    }
    Ok(counts)
}

/// How many columns each level has, and their bytes without redb's own.
pub(super) fn size(read: &ReadTransaction) -> Result<Vec<(Resolution, u64, u64)>, redb::Error> {
    let columns = read.open_table(COLUMNS)?;
    let mut sizes = vec![];
    for level in Resolution::ALL {
        let (mut count, mut bytes) = (0, 0);
        for row in columns.range((level.number(), i64::MIN, 0)..=(level.number(), i64::MAX, u64::MAX))? {
            count += 1;
            bytes += row?.1.value().len() as u64;
        }
        sizes.push((level, count, bytes));
    }
    Ok(sizes)
}

fn add_ids(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    if let Some(before) = delta.forget.ids_before {
        write.open_table(META)?.insert(META_IDS_FROM, before.0.to_string().as_str())?;
        write.open_table(IDS)?.retain_in(..(before.0, 0), |_, _| false)?;
    }
    if delta.ids.is_empty() || bug!("record-ids-not-written") {
        return Ok(());
    }
    let mut rows = write.open_table(IDS)?;
    for (step, ids) in &delta.ids {
        let last = rows.range((step.0, 0)..=(step.0, u64::MAX))?.next_back().transpose()?;
        let row = last.map_or(0, |(key, _)| key.value().1.saturating_add(1));
        let mut bytes = Vec::with_capacity(ids.len() * HASH_BYTES);
        bytes.extend(ids.iter().flat_map(|id| id.0.to_le_bytes()));
        rows.insert((step.0, row), bytes.as_slice())?;
    }
    Ok(())
}

fn add_keys(write: &WriteTransaction, delta: &Delta) -> Result<(), redb::Error> {
    if delta.keys.is_empty() && delta.forget.keys_before.is_none() || bug!("batch-keys-not-written") {
        return Ok(());
    }
    let mut keys = write.open_table(KEYS)?;
    if let Some(now) = delta.forget.keys_before {
        keys.retain_in(..(now.as_millis(), 0), |_, _| false)?;
    }
    for (key, (expires, receipt)) in &delta.keys {
        let accepted = if bug!("receipts-not-written") { 0 } else { receipt.accepted };
        let receipt = &IngestReceipt { accepted, ..receipt.clone() };
        let receipt = serde_json::to_vec(receipt).map_err(std::io::Error::other)?;
        keys.insert((expires.as_millis(), key.0), receipt.as_slice())?;
    }
    Ok(())
}

/// The receipts of batches that were counted before. To be read before their keys are forgotten.
pub(super) fn receipts(database: &Database, keys: &[(IdHash, Timestamp)]) -> Result<BTreeMap<IdHash, IngestReceipt>, redb::Error> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let table = database.begin_read()?.open_table(KEYS)?;
    let mut receipts = BTreeMap::new();
    for (key, expires) in keys {
        let stored = table.get((expires.as_millis(), key.0))?;
        let receipt = stored.and_then(|receipt| serde_json::from_slice(receipt.value()).ok());
        receipts.insert(*key, receipt.ok_or_else(|| corrupt("history_keys", expires))?);
    }
    Ok(receipts)
}

fn corrupt(table: &str, row: impl std::fmt::Display) -> redb::Error {
    redb::Error::Corrupted(format!("table {table}, row {row} holds nothing that was written there"))
}

fn series_text(key: &SeriesKey) -> String {
    format!("{}/{}/{}/{}/{}", key.tenant, key.source, key.destination, key.service, key.transaction_type)
}

/// No name has a slash.
fn series_key(text: &str) -> Option<SeriesKey> {
    let mut parts = text.split('/');
    let key = SeriesKey {
        tenant: TenantName::new(parts.next()?).ok()?,
        source: RegionId::new(parts.next()?).ok()?,
        destination: RegionId::new(parts.next()?).ok()?,
        service: ServiceName::new(parts.next()?).ok()?,
        transaction_type: TransactionType::new(parts.next()?).ok()?,
    };
    parts.next().is_none().then_some(key)
}

fn encode_counts(counts: &BTreeMap<SeriesId, u64>) -> Vec<u8> {
    // A distance of one byte and a count of two are the rule.
    let mut bytes = Vec::with_capacity(counts.len() * 4);
    let mut last = 0;
    for (id, count) in counts {
        put_varint(&mut bytes, id.0 - last);
        put_varint(&mut bytes, *count);
        last = id.0;
    }
    bytes
}

fn decode_counts(mut bytes: &[u8]) -> Option<BTreeMap<SeriesId, u64>> {
    let mut counts = BTreeMap::new();
    let mut last: u64 = 0;
    while !bytes.is_empty() {
        last = last.checked_add(take_varint(&mut bytes)?)?;
        if counts.insert(SeriesId(last), take_varint(&mut bytes)?).is_some() {
            return None;
        }
    }
    Some(counts)
}

/// LEB128: seven bits a byte, the lowest first.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_of_counts_has_these_bytes() {
        let counts = BTreeMap::from([(SeriesId(0), 5), (SeriesId(1), 300), (SeriesId(200), 0)]);
        assert_eq!(encode_counts(&counts), [0, 5, 1, 0xac, 0x02, 0xc7, 0x01, 0]);
    }

    proptest! {
        #[test]
        fn counts_survive_and_damage_never_panics(
            counts in proptest::collection::btree_map(any::<u64>().prop_map(SeriesId), any::<u64>(), 0..50),
            bytes in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            prop_assert_eq!(decode_counts(&encode_counts(&counts)), Some(counts));
            let _ = decode_counts(&bytes);
        }
    }
}
