//! Forecasts as the next life of the agent finds them: a file beside the database that holds each series as it was within the last hour, and the
//! models that are trained on all.
//!
//! To learn a series from its counts takes some ten microseconds a step, which for a thousand series of minutes is minutes; to read it and
//! learn the steps since takes less than a millisecond. Nothing here is true by itself: what is missing, damaged, or of counts that late records have
//! changed since is learnt from history instead ([`Forecasts::restore`]), and an agent that cannot open the file runs without it. It is a file of its own,
//! so that hundreds of megabytes are never in the way of a grant or an acknowledgement that waits for the database's one writer.

use crate::env::Env;
use crate::forecast::Forecasts;
use crate::forecast::global::{Globals, Pieces};
use crate::store::{Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable as _, TableDefinition, TableError};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tradewind_protocol::SeriesKey;
use tradewind_protocol::wire::codec;

/// The file's name.
const FILE: &str = "forecasts.redb";
const SERIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("series");
const GLOBALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("globals");
/// All series are written in turn, and again so long after that was begun.
const EVERY: Duration = Duration::from_secs(3_600);
/// Series that are written at once: two megabytes or so.
const PAGE: usize = 16;
/// How long an agent that ends writes on.
const LAST: Duration = Duration::from_secs(5);

/// The file, and how far it was written.
pub(super) struct Snapshots {
    /// None if the file cannot be opened, or could not be written once.
    store: Option<Store>,
    /// When the next page is to be written.
    due: Instant,
    /// When the first page was.
    began: Instant,
    /// The last series that was written since then.
    last: Option<SeriesKey>,
    /// What was written since then.
    written: BTreeSet<Vec<u8>>,
    writing: Option<JoinHandle<Result<(), StoreError>>>,
}

/// The bytes of a series' key and of the series.
type Row = (Vec<u8>, Vec<u8>);

impl Snapshots {
    pub(super) async fn open(env: &Env) -> Self {
        let store = Store::open_file(env, FILE).await;
        if let Err(error) = &store {
            tracing::warn!(%error, "forecasts are not kept over a restart: they are learnt from history then");
        }
        let now = Instant::now();
        Self { store: store.ok(), due: now + EVERY, began: now, last: None, written: BTreeSet::new(), writing: None }
    }

    /// What was kept of these series, in their order.
    pub(super) async fn read(&self, keys: Vec<SeriesKey>) -> Vec<Option<Vec<u8>>> {
        let none = vec![None; keys.len()];
        let Some(store) = &self.store else { return none };
        let read = move |database: &Database| match database.begin_read()?.open_table(SERIES) {
            Ok(series) => keys.iter().map(|key| Ok(series.get(bytes(key).as_slice())?.map(|kept| kept.value().to_vec()))).collect(),
            Err(TableError::TableDoesNotExist(_)) => Ok(vec![]),
            Err(error) => Err(error.into()),
        };
        match store.run("reading", read).await {
            Ok(kept) if kept.len() == none.len() => kept,
            Ok(_) => none,
            Err(error) => {
                tracing::warn!(%error, "what was kept of forecasts cannot be read: they are learnt from history");
                none
            }
        }
    }

    /// What was kept of the global models.
    pub(super) async fn read_globals(&self) -> Pieces {
        let Some(store) = &self.store else { return Pieces::new() };
        let read = |database: &Database| match database.begin_read()?.open_table(GLOBALS) {
            Ok(pieces) => {
                let pieces = pieces.iter()?.map(|piece| piece.map(|(name, bytes)| (name.value().to_owned(), bytes.value().to_vec())));
                Ok(pieces.collect::<Result<Pieces, _>>()?)
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(Pieces::new()),
            Err(error) => Err(error.into()),
        };
        store.run("reading", read).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was kept of the global models cannot be read: they are trained again");
            Pieces::new()
        })
    }

    /// Returns when a page is to be [kept](Self::keep). Cancel-safe.
    pub(super) async fn turn(&mut self) {
        if self.store.is_none() {
            return std::future::pending().await;
        }
        self.written().await;
        sleep_until(self.due).await;
    }

    /// Begins to write the next page of series, with the global models before the first.
    pub(super) fn keep(&mut self, forecasts: &Forecasts, globals: &Globals) {
        let mut pieces = None;
        if self.last.is_none() {
            self.began = Instant::now();
            // Of a great many series.
            let saved = globals.save().inspect_err(|error| tracing::debug!(%error, "the global models are not kept"));
            pieces = Some(saved.unwrap_or_default());
        }
        let page = forecasts.save(self.last.as_ref(), PAGE);
        self.last = page.last().map(|(key, _)| key.clone());
        let whole = self.last.is_none();
        let mut rows: Vec<Row> = vec![];
        for (key, saved) in page {
            match saved {
                Ok(saved) => rows.push((bytes(&key), saved)),
                // Of very long seasons.
                Err(error) => tracing::debug!(%key, %error, "not kept"),
            }
        }
        self.written.extend(rows.iter().map(|(key, _)| key.clone()));
        let kept = whole.then(|| std::mem::take(&mut self.written));
        if whole {
            self.due = self.began + EVERY;
        }
        let Some(store) = self.store.clone() else { return };
        self.writing = Some(tokio::spawn(async move {
            store.run("writing", move |database| write(database, pieces.as_ref(), &rows, kept.as_ref())).await
        }));
    }

    /// Writes all as it is at the end, as far as there is time.
    pub(super) async fn finish(mut self, forecasts: &Forecasts, globals: &Globals) {
        let all = async {
            self.written().await;
            self.last = None;
            loop {
                self.keep(forecasts, globals);
                self.written().await;
                if self.last.is_none() || self.store.is_none() {
                    return;
                }
            }
        };
        if timeout(LAST, all).await.is_err() {
            tracing::info!("not all forecasts could be kept in {LAST:?}: the others are learnt from history");
        }
    }

    /// Waits for what is being written.
    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let failed = match writing.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        self.writing = None;
        if let Some(error) = failed {
            tracing::warn!(error, "forecasts are no longer kept over a restart: they are learnt from history then");
            self.store = None;
        }
    }
}

/// Writes `rows`, and `globals` for what was kept of them; and forgets all series but those that were `kept`, where all were.
fn write(database: &Database, globals: Option<&Pieces>, rows: &[Row], kept: Option<&BTreeSet<Vec<u8>>>) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    if let Some(globals) = globals {
        let mut pieces = write.open_table(GLOBALS)?;
        pieces.retain(|name, _| globals.contains_key(name))?;
        for (name, bytes) in globals {
            pieces.insert(name.as_str(), bytes.as_slice())?;
        }
    }
    let mut series = write.open_table(SERIES)?;
    for (key, saved) in rows {
        series.insert(key.as_slice(), saved.as_slice())?;
    }
    if let Some(kept) = kept {
        series.retain(|key, _| kept.contains(key))?;
    }
    drop(series);
    Ok(write.commit()?)
}

fn bytes(key: &SeriesKey) -> Vec<u8> {
    // Names only: there is nothing in it that has no bytes.
    codec::encode(key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ForecastConfig;
    use crate::forecast::global::{Effort, GlobalConfig, Kind};
    use tradewind_protocol::{RegionId, Step, StepIndex};

    fn key(number: usize) -> SeriesKey {
        SeriesKey {
            tenant: Default::default(),
            source: RegionId::new(&format!("r{number:03}")).unwrap(),
            destination: RegionId::new("here").unwrap(),
            service: Default::default(),
            transaction_type: Default::default(),
        }
    }

    fn empty() -> Forecasts {
        Forecasts::new(&ForecastConfig { horizon: 4, season: 6 }, Step::new(Duration::from_secs(60)).unwrap())
    }

    /// So many series, told of steps 0 to 29.
    fn told(series: usize) -> Forecasts {
        let mut forecasts = empty();
        let keys: Vec<SeriesKey> = (0..series).map(key).collect();
        (0..30).for_each(|at| forecasts.close(StepIndex(at), keys.iter().map(|key| (key, 5.0 + at as f64))));
        forecasts
    }

    fn untrained() -> Globals {
        Globals::new(GlobalConfig { effort: Effort::Brief, ..GlobalConfig::of(vec![Kind::Boosting], 6) }, 4, 6)
    }

    async fn restored(env: &Env, series: usize) -> usize {
        let kept = Snapshots::open(env).await.read((0..series).map(key).collect()).await;
        let window: Vec<f64> = (0..30).map(|at| 5.0 + f64::from(at)).collect();
        let mut forecasts = empty();
        for (number, kept) in kept.iter().enumerate() {
            let restore = |kept: &Vec<u8>| forecasts.restore(&key(number), StepIndex(29), kept, &window);
            kept.as_ref().map(restore).transpose().unwrap();
        }
        forecasts.len()
    }

    #[tokio::test]
    async fn the_next_life_finds_all_series_and_none_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        assert_eq!(restored(&env, 50).await, 0);
        Snapshots::open(&env).await.finish(&told(50), &untrained()).await;
        assert_eq!(restored(&env, 50).await, 50);
        Snapshots::open(&env).await.finish(&told(20), &untrained()).await;
        assert_eq!(restored(&env, 50).await, 20);
    }

    #[tokio::test]
    async fn the_next_life_finds_the_models_of_the_newest_training_alone() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let mut globals = untrained();
        for at in 0..200_i64 {
            globals.close(StepIndex(at), [(&key(0), 10.0 + (at % 6) as f64)]);
        }
        let trained = globals.due().unwrap().run().unwrap();
        globals.install(trained);
        Snapshots::open(&env).await.finish(&told(2), &globals).await;
        let pieces = Snapshots::open(&env).await.read_globals().await;
        assert_eq!(pieces, globals.save().unwrap());
        let mut next = untrained();
        next.restore(StepIndex(199), &pieces).unwrap();
        assert_eq!(next.trained_on(), Some(200));
        Snapshots::open(&env).await.finish(&told(2), &untrained()).await;
        assert_eq!(Snapshots::open(&env).await.read_globals().await, Pieces::new());
    }

    #[tokio::test(start_paused = true)]
    async fn all_series_are_written_within_the_hour_a_page_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let (mut snapshots, forecasts, began) = (Snapshots::open(&env).await, told(20), Instant::now());
        for (pages, series) in [(1, 16), (2, 20)] {
            snapshots.turn().await;
            assert!(began.elapsed() >= EVERY);
            snapshots.keep(&forecasts, &untrained());
            snapshots.written().await;
            let kept = snapshots.read((0..20).map(key).collect()).await;
            assert_eq!(kept.iter().flatten().count(), series, "after {pages} pages");
        }
        // The end is found out, and the next hour waited for.
        snapshots.turn().await;
        snapshots.keep(&forecasts, &untrained());
        snapshots.turn().await;
        assert!(began.elapsed() >= 2 * EVERY);
    }

    #[tokio::test]
    async fn a_file_that_is_none_costs_the_snapshots_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"notes").unwrap();
        let env = Env::real(dir.path()).unwrap();
        assert_eq!(restored(&env, 3).await, 0);
        Snapshots::open(&env).await.finish(&told(3), &untrained()).await;
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"notes");
    }
}
