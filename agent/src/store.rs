//! The agent's database: a redb file, opened once, shared by everything that must survive.
//!
//! Small facts go through [`Store::put`] and [`Store::get`], durable before they return;
//! [`crate::history`] has tables of its own in the same file. redb admits one writer at a time, so
//! a writer may wait for another's commit (a few fsyncs), which is why all work is done where
//! [`Env::offload`] says.
//!
//! What may be lost and is large has a file of its own ([`Store::open_file`]).
//!
//! Invariant: after a failed write redb refuses every further one until the file is opened again;
//! nobody writes over a failed fsync.

use crate::env::{Env, Offload, Storage};
use crate::marks::{bug, sometimes};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use tradewind_protocol::Timestamp;

/// The file's name.
const FILE: &str = "tradewind.redb";

/// How much of the file redb keeps in memory. Everything hot is held by its owner already; the
/// cache serves the inner pages of the trees. redb's own default is 1 GiB.
const CACHE_BYTES: usize = 16 << 20;

/// The largest value of [`Store::put`]: a ledger's entry takes hundreds of bytes, and redb reads
/// and writes a value as a whole.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const GENERATION: &str = "generation";

/// Why the database did not do something. Nothing changed; the agent has to be restarted, and the
/// disk looked at, before trying again helps. Cheap to clone: all who waited for one commit share it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("database {file}: {action} failed: {hint}")]
pub struct StoreError {
    file: &'static str,
    action: &'static str,
    hint: &'static str,
    #[source]
    source: Arc<redb::Error>,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, source: redb::Error) -> Self {
        Self::of(FILE, action, source)
    }

    fn of(file: &'static str, action: &'static str, source: redb::Error) -> Self {
        let hint = match &source {
            redb::Error::DatabaseAlreadyOpen => "another agent holds it, give each agent its own data_dir",
            redb::Error::UpgradeRequired(_) => "it was written by another version of the software, use that one or another data_dir",
            redb::Error::Corrupted(_) => "the file is damaged, restore a copy of it or move it away",
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                "it is no database of ours, or damaged: restore a copy of it or move it away"
            }
            redb::Error::ValueTooLarge(_) => "keep what is stored under one key below 1 MiB",
            _ => "look at the disk under data_dir, then restart the agent",
        };
        Self { file, action, hint, source: Arc::new(source) }
    }
}

/// The database. Clones share it.
#[derive(Clone)]
pub struct Store {
    file: &'static str,
    database: Arc<Database>,
    offload: Offload,
    storage: Arc<dyn Storage>,
}

/// The name of a table of small facts. Give each owner one, for all time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts(pub &'static str);

impl Facts {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

impl Store {
    /// Opens or creates the file, repairing it if the last life of the agent was cut short.
    pub async fn open(env: &Env) -> Result<Store, StoreError> {
        Self::open_file(env, FILE).await
    }

    /// The same with a file of this name, of what the agent can do without.
    pub(crate) async fn open_file(env: &Env, file: &'static str) -> Result<Store, StoreError> {
        let storage = env.storage.clone();
        let open = move || {
            let backend = Backend(storage.open(file)?);
            backend.mend_unborn()?;
            Ok::<_, redb::Error>(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
        };
        let database = env.offload.run(open).await.map_err(|error| StoreError::of(file, "opening it", error))?;
        Ok(Store { file, database: Arc::new(database), offload: env.offload, storage: env.storage.clone() })
    }

    /// Runs `work` on the database, where blocking work is done.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let delay = self.storage.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let file = self.file;
        self.offload.run(move || work(&database)).await.map_err(|error| StoreError::of(file, action, error))
    }

    /// The database as it is now. Takes no time and nobody's place.
    pub(crate) fn read(&self) -> Result<redb::ReadTransaction, StoreError> {
        self.database.begin_read().map_err(|error| StoreError::new("reading", error.into()))
    }

    /// The number of a new life of the agent: above all earlier ones, and not below the seconds
    /// since 1970, so that a life on a lost disk is above those before it too.
    pub async fn next_generation(&self, now: Timestamp) -> Result<u64, StoreError> {
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0);
        let work = move |database: &Database| {
            let write = database.begin_write()?;
            let mut counters = write.open_table(COUNTERS)?;
            let last = counters.get(GENERATION)?.map_or(0, |stored| stored.value());
            let next = last.saturating_add(1).max(seconds);
            if !bug!("generation-not-written") {
                counters.insert(GENERATION, next)?;
            }
            drop(counters);
            write.commit()?;
            Ok(next)
        };
        self.run("counting this life of the agent", work).await
    }

    /// Makes `value` durable under `key`.
    pub async fn put(&self, table: Facts, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        self.change(table, vec![(key.to_owned(), Some(value))]).await
    }

    /// Forgets `key`, durably.
    pub async fn remove(&self, table: Facts, key: &str) -> Result<(), StoreError> {
        self.change(table, vec![(key.to_owned(), None)]).await
    }

    /// Puts each key's value, or removes the key where there is none: all of them or nothing.
    pub async fn change(&self, table: Facts, changes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let work = move |database: &Database| {
            let write = database.begin_write()?;
            let mut facts = write.open_table(table.definition())?;
            for (key, value) in &changes {
                match value {
                    Some(value) if value.len() > MAX_VALUE_BYTES => return Err(redb::Error::ValueTooLarge(value.len())),
                    Some(value) => facts.insert(key.as_str(), value.as_slice())?,
                    None => facts.remove(key.as_str())?,
                };
            }
            drop(facts);
            Ok(write.commit()?)
        };
        self.run("writing", work).await
    }

    /// The value under `key`.
    pub async fn get(&self, table: Facts, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        let work = move |database: &Database| match database.begin_read()?.open_table(table.definition()) {
            Ok(facts) => Ok(facts.get(key.as_str())?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        };
        self.run("reading", work).await
    }

    /// All keys and values, ascending by key.
    pub async fn all(&self, table: Facts) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let work = move |database: &Database| {
            let facts = match database.begin_read()?.open_table(table.definition()) {
                Ok(facts) => facts,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            facts.iter()?.map(|row| row.map(|(key, value)| (key.value().to_owned(), value.value().to_vec())).map_err(Into::into)).collect()
        };
        self.run("reading", work).await
    }
}

/// What [`crate::env::Storage`] opened, as redb wants it.
#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

/// The longest file that redb has not finished creating; it begins with 1 MiB and a little.
const MAX_UNBORN_BYTES: u64 = 16 << 20;

/// How long redb's magic number is, at the start of the file.
const MAGIC_BYTES: usize = 9;

/// redb's header fits into this, and is all that it writes into a new file before the magic number.
const HEADER_BYTES: usize = 512;

impl Backend {
    /// Empties a file whose creation was cut short. redb writes the magic number last, and then
    /// refuses a file that has none; but one that holds nothing beyond its header never held
    /// anything. Whatever else has no magic number is left to redb to refuse.
    fn mend_unborn(&self) -> Result<(), redb::Error> {
        if !self.is_unborn()? {
            return Ok(());
        }
        let all = (Bound::Included(0), Bound::Unbounded);
        let locked = match self.try_lock_range(all.0, all.1) {
            Ok(true) => true,
            Ok(false) => return Err(redb::Error::DatabaseAlreadyOpen),
            Err(redb::BackendError::Unsupported) => false,
            Err(error) => return Err(error.into()),
        };
        if self.is_unborn()? {
            tracing::warn!("the creation of a database was cut short before it held anything: creating it anew");
            sometimes!("storage.file-made-anew");
            self.set_len(0)?;
            self.sync_data()?;
        }
        if locked {
            self.unlock_range(all.0, all.1)?;
        }
        Ok(())
    }

    fn is_unborn(&self) -> io::Result<bool> {
        let len = self.len()?;
        if !(1..=MAX_UNBORN_BYTES).contains(&len) {
            return Ok(false);
        }
        let mut magic = [0; MAGIC_BYTES];
        let magic = &mut magic[..MAGIC_BYTES.min(usize::try_from(len).unwrap_or(MAGIC_BYTES))];
        self.read(0, magic)?;
        if magic.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.read(0, &mut bytes)?;
        Ok(bytes.iter().skip(HEADER_BYTES).all(|byte| *byte == 0))
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, redb::BackendError> {
        self.0.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Facts = Facts("test_ledger");

    #[tokio::test]
    async fn facts_and_generations_survive_and_one_agent_holds_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let store = Store::open(&env).await.unwrap();
        assert_eq!(store.get(LEDGER, "a").await.unwrap(), None);
        assert!(store.all(LEDGER).await.unwrap().is_empty());
        store.change(LEDGER, vec![("b".into(), Some(vec![2])), ("a".into(), Some(vec![1])), ("c".into(), Some(vec![3]))]).await.unwrap();
        store.remove(LEDGER, "c").await.unwrap();
        assert_eq!(store.next_generation(Timestamp::from_millis(7_000_500).unwrap()).await.unwrap(), 7_000);
        // The clock went back.
        assert_eq!(store.next_generation(Timestamp::EPOCH).await.unwrap(), 7_001);

        let refused = Store::open(&env).await.err().unwrap().to_string();
        assert!(refused.contains("another agent holds it"), "{refused}");
        drop(store);
        let store = Store::open(&env).await.unwrap();
        assert_eq!(store.all(LEDGER).await.unwrap(), [("a".into(), vec![1]), ("b".into(), vec![2])]);
        assert_eq!(store.next_generation(Timestamp::EPOCH).await.unwrap(), 7_002);
    }

    #[tokio::test]
    async fn a_change_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Env::real(dir.path()).unwrap()).await.unwrap();
        let changes = vec![("a".into(), Some(vec![1])), ("b".into(), Some(vec![0; MAX_VALUE_BYTES + 1]))];
        assert!(store.change(LEDGER, changes).await.is_err());
        assert_eq!(store.get(LEDGER, "a").await.unwrap(), None);
        store.put(LEDGER, "a", vec![9]).await.unwrap();
        assert_eq!(store.get(LEDGER, "a").await.unwrap(), Some(vec![9]));
    }

    #[tokio::test]
    async fn a_file_cut_short_at_birth_is_made_anew_and_any_other_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let mut unborn = vec![0; 1 << 20];
        unborn[9..300].fill(7);
        std::fs::write(&path, &unborn).unwrap();
        let store = Store::open(&env).await.unwrap();
        store.put(LEDGER, "a", vec![1]).await.unwrap();
        drop(store);

        let mut damaged = std::fs::read(&path).unwrap();
        damaged[..9].fill(0);
        for other in [damaged, b"notes".to_vec()] {
            std::fs::write(&path, &other).unwrap();
            let refused = Store::open(&env).await.err().unwrap().to_string();
            assert!(refused.contains("it is no database of ours, or damaged"), "{refused}");
            assert!(std::fs::read(&path).unwrap() == other, "the file is as it was");
        }
    }
}
