//! History on a disk that loses power.

mod places;

use super::disk::Disk;
use super::*;
use crate::env::{Clock, Offload};
use crate::ingest::{Rules, parse};
use crate::testing::Hand;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use tokio::task::JoinHandle;
use tradewind_protocol::Timestamp;

const NOON: i64 = 1_772_366_400_000;
const MINUTE: i64 = 60_000;

/// A region's disk, clock and configuration: what outlives the agent.
struct Site {
    _dir: tempfile::TempDir,
    env: Env,
    disk: Disk,
    clock: Arc<Hand>,
    config: IngestConfig,
}

/// One life of history.
struct Life {
    handle: HistoryHandle,
    task: JoinHandle<()>,
}

impl Site {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (disk, clock) = (Disk::new(seed), Arc::new(Hand(AtomicI64::new(NOON))));
        let mut env = Env::real(dir.path()).unwrap();
        env.offload = Offload::Inline;
        env.clock = clock.clone();
        env.storage = Arc::new(disk.clone());
        let config = IngestConfig {
            lateness: Duration::from_secs(600),
            max_ahead: Duration::from_secs(60),
            close_after: Duration::ZERO,
            max_body_bytes: 1 << 20,
            max_pending_records: 100,
            max_series: 4,
            max_series_per_tenant: 4,
            retention: Duration::from_secs(3600),
            retention_5m: Duration::from_secs(3600),
            retention_1h: Duration::from_secs(3600),
        };
        Self { _dir: dir, env, disk, clock, config }
    }

    fn minutes_pass(&self, minutes: i64) {
        self.clock.0.fetch_add(minutes * MINUTE, Ordering::Relaxed);
    }

    fn region(&self) -> RegionId {
        RegionId::new("de").unwrap()
    }

    fn batch(&self, records: &[String]) -> Batch {
        let rules = Rules { region: &self.region(), step: step(), now: self.clock.now(), config: &self.config };
        parse(records.join("\n").as_bytes(), &rules).unwrap()
    }

    /// History opened and not yet running, so that a test can fill its queue.
    async fn open(&self) -> Result<(HistoryHandle, History), HistoryError> {
        let store = Store::open(&self.env).await?;
        open(&self.env, &store, step(), &self.region(), &self.config).await
    }

    async fn start(&self) -> Life {
        let (handle, history) = self.open().await.unwrap();
        Life { handle, task: tokio::spawn(history.run()) }
    }
}

impl Life {
    async fn stop(self) {
        drop(self.handle);
        self.task.await.unwrap();
    }

    /// The counts that are not zero, by destination and minutes after noon.
    async fn counts(&self) -> BTreeMap<(String, i64), f64> {
        let until = step().index(Timestamp::from_millis(NOON).unwrap()).offset(60);
        let mut counts = BTreeMap::new();
        for (key, window) in self.handle.windows(until, 200).await.unwrap() {
            for (back, count) in window.into_iter().rev().enumerate().filter(|(_, count)| *count > 0.0) {
                counts.insert((key.destination.to_string(), 60 - back as i64), count);
            }
        }
        counts
    }
}

fn step() -> Step {
    Step::new(Duration::from_secs(60)).unwrap()
}

fn noon_step() -> StepIndex {
    step().index(Timestamp::from_millis(NOON).unwrap())
}

fn key(text: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey::new(text).unwrap())
}

/// A record to `to`, `minute` minutes after noon.
fn record(to: &str, minute: i64, count: u64, id: Option<&str>) -> String {
    let id = id.map(|id| format!(r#","id":"{id}""#)).unwrap_or_default();
    format!(r#"{{"source_region":"de","destination_region":"{to}","timestamp":{},"count":{count}{id}}}"#, NOON + minute * MINUTE)
}

fn at(to: &str, minute: i64) -> (String, i64) {
    (to.into(), minute)
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let site = Site::new(1);
    let life = site.start().await;
    let batch = site.batch(&[record("fr", 0, 2, None), record("fr", 0, 3, None), record("it", -1, 7, None)]);
    let receipt = life.handle.append(batch, None).await.unwrap();
    assert_eq!((receipt.accepted, receipt.duplicates, receipt.refused, receipt.replayed), (3, 0, 0, false));
    let counts = life.counts().await;
    assert_eq!(counts, BTreeMap::from([(at("fr", 0), 5.0), (at("it", -1), 7.0)]));
    life.stop().await;
    // Not even a clean end is needed.
    site.disk.cut();
    let life = site.start().await;
    assert_eq!(life.counts().await, counts);
    assert_eq!(life.handle.stats().series, 2);
}

#[tokio::test]
async fn a_key_counts_its_batch_once_and_gives_the_first_receipt_also_after_a_restart() {
    let site = Site::new(2);
    let life = site.start().await;
    let batch = site.batch(&[record("fr", 0, 5, None), "broken".into()]);
    let first = life.handle.append(batch.clone(), key("k")).await.unwrap();
    assert_eq!((first.accepted, first.refused, first.replayed), (1, 1, false));
    let replay = IngestReceipt { replayed: true, ..first };
    assert_eq!(life.handle.append(batch.clone(), key("k")).await.unwrap(), replay);
    life.stop().await;
    let life = site.start().await;
    // Whatever is sent with the key now.
    assert_eq!(life.handle.append(site.batch(&[record("fr", 0, 9, None)]), key("k")).await.unwrap(), replay);
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 5.0)]));
    assert_eq!(life.handle.stats().replayed, 1);
    // Remembered for an hour although records may be ten minutes late.
    site.minutes_pass(59);
    assert!(life.handle.append(site.batch(&[record("fr", 59, 1, None)]), key("k")).await.unwrap().replayed);
    site.minutes_pass(2);
    life.handle.append(site.batch(&[record("fr", 61, 1, None)]), None).await.unwrap();
    assert!(!life.handle.append(site.batch(&[record("fr", 61, 1, None)]), key("k")).await.unwrap().replayed);
}

#[tokio::test]
async fn batches_that_wait_together_share_a_commit_and_twins_among_them_count_once() {
    let site = Site::new(3);
    let (handle, history) = site.open().await.unwrap();
    let appends: Vec<_> = [(1, key("k")), (2, None), (4, key("k")), (8, key("l"))]
        .into_iter()
        .map(|(count, key)| {
            let (handle, batch) = (handle.clone(), site.batch(&[record("fr", 0, count, None)]));
            tokio::spawn(async move { handle.append(batch, key).await.unwrap() })
        })
        .collect();
    // One thread: all four have queued by the time this task is polled again.
    tokio::task::yield_now().await;
    assert_eq!(handle.stats().pending, 4);
    let life = Life { handle, task: tokio::spawn(history.run()) };
    let mut replayed = Vec::new();
    for append in appends {
        replayed.push(append.await.unwrap().replayed);
    }
    assert_eq!(replayed, [false, false, true, false]);
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 11.0)]));
    let stats = life.handle.stats();
    assert_eq!((stats.commits, stats.pending, stats.accepted), (1, 0, 3));
}

#[tokio::test]
async fn an_id_counts_once_within_a_batch_across_batches_and_across_a_restart() {
    let site = Site::new(4);
    let life = site.start().await;
    let records = [record("fr", 0, 1, Some("a")), record("fr", 0, 1, Some("a")), record("fr", -1, 1, Some("b"))];
    let receipt = life.handle.append(site.batch(&records), None).await.unwrap();
    assert_eq!((receipt.accepted, receipt.duplicates), (2, 1));
    life.stop().await;
    let life = site.start().await;
    // Also under another step: an id is an id.
    let records = [record("fr", 1, 1, Some("a")), record("fr", -1, 1, Some("b")), record("fr", 0, 1, Some("c"))];
    let receipt = life.handle.append(site.batch(&records), None).await.unwrap();
    assert_eq!((receipt.accepted, receipt.duplicates), (1, 2));
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 2.0), (at("fr", -1), 1.0)]));
}

#[tokio::test]
async fn a_record_whose_ids_are_forgotten_is_refused_rather_than_counted_twice() {
    let site = Site::new(5);
    let life = site.start().await;
    let twice = site.batch(&[record("fr", 0, 1, Some("a"))]);
    life.handle.append(twice.clone(), None).await.unwrap();
    // The repetition was parsed in time, but the window moves on before it is committed.
    site.minutes_pass(11);
    life.handle.append(site.batch(&[record("fr", 11, 1, None)]), None).await.unwrap();
    let late = life.handle.append(twice.clone(), None).await.unwrap();
    assert_eq!((late.accepted, late.duplicates, late.refused), (0, 0, 1));
    assert!(late.refusals[0].reason.contains("came too late"), "{}", late.refusals[0].reason);
    // Also when a restart and a clock that goes back come in between.
    life.stop().await;
    site.minutes_pass(-11);
    let life = site.start().await;
    assert_eq!(life.handle.append(twice, None).await.unwrap().refused, 1);
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 1.0), (at("fr", 11), 1.0)]));
}

#[tokio::test]
async fn a_series_beyond_the_limit_is_refused_and_the_known_ones_are_counted() {
    let site = Site::new(6);
    let life = site.start().await;
    let records: Vec<_> = ["a", "b", "c", "d", "e", "e", "a"].map(|to| record(to, 0, 1, None)).into();
    let receipt = life.handle.append(site.batch(&records), None).await.unwrap();
    assert_eq!((receipt.accepted, receipt.refused), (5, 2));
    assert_eq!(receipt.refusals[0].line, 5);
    assert!(receipt.refusals[0].reason.starts_with("2 records of series default/de>e/default/default: it is beyond the 4"));
    let stats = life.handle.stats();
    assert_eq!((stats.series, stats.accepted, stats.refused), (4, 5, 2));
}

#[tokio::test]
async fn a_close_counts_every_series_and_reports_what_changed_behind_it() {
    let site = Site::new(7);
    let life = site.start().await;
    let de = |to: &str| site.batch(&[record(to, 0, 1, None)]).series[0].key.clone();
    assert!(life.handle.recent(&de("fr"), 5).await.unwrap().is_empty());
    life.handle.append(site.batch(&[record("it", -1, 2, None), record("fr", 0, 3, None)]), None).await.unwrap();
    let closed = life.handle.close(noon_step()).await.unwrap();
    assert_eq!(closed.counts, [(de("fr"), 3.0), (de("it"), 0.0)]);
    assert!(closed.revised.is_empty());

    let late = [record("it", -3, 1, None), record("it", 0, 1, None), record("fr", 1, 1, None)];
    life.handle.append(site.batch(&late), None).await.unwrap();
    let closed = life.handle.close(noon_step().offset(1)).await.unwrap();
    assert_eq!(closed.revised, BTreeMap::from([(de("it"), noon_step().offset(-3))]));
    assert!(life.handle.close(noon_step().offset(2)).await.unwrap().revised.is_empty());

    assert_eq!(life.handle.window(&de("it"), noon_step(), 10).await.unwrap(), [1.0, 0.0, 2.0, 1.0]);
    assert_eq!(life.handle.window(&de("it"), noon_step(), 2).await.unwrap(), [2.0, 1.0]);
    assert_eq!(life.handle.recent(&de("fr"), 3).await.unwrap(), [3.0, 1.0, 0.0]);
    assert!(life.handle.window(&de("us"), noon_step(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn counts_and_series_older_than_the_retention_are_gone_from_memory_and_disk() {
    let site = Site::new(8);
    let mut life = site.start().await;
    life.handle.append(site.batch(&[record("fr", 0, 1, None), record("it", 0, 1, Some("x"))]), None).await.unwrap();
    site.minutes_pass(61);
    life.handle.append(site.batch(&[record("fr", 61, 1, None)]), None).await.unwrap();
    for _ in 0..2 {
        assert_eq!(life.handle.stats().series, 1);
        let key = site.batch(&[record("fr", 61, 1, None)]).series[0].key.clone();
        let window = life.handle.window(&key, noon_step().offset(61), 100).await.unwrap();
        assert_eq!((window.len(), window.iter().sum::<f64>()), (61, 1.0));
        life.stop().await;
        life = site.start().await;
    }
}

#[tokio::test]
async fn a_clock_that_runs_ahead_wipes_nothing() {
    let site = Site::new(9);
    let life = site.start().await;
    life.handle.append(site.batch(&[record("fr", 0, 1, None)]), None).await.unwrap();
    let (then, late) = (site.batch(&[record("it", 0, 1, None)]), site.batch(&[record("fr", 0, 1, None)]));
    site.minutes_pass(60 * 24 * 365);
    life.handle.append(then, None).await.unwrap();
    site.minutes_pass(-60 * 24 * 365);
    life.handle.append(late, None).await.unwrap();
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 2.0), (at("it", 0), 1.0)]));
}

#[tokio::test]
async fn what_is_pending_is_bounded_and_the_rest_is_told_to_come_back() {
    let site = Site::new(10);
    let (handle, history) = site.open().await.unwrap();
    let hundred: Vec<_> = (0..100).map(|_| record("fr", 0, 1, None)).collect();
    let send = |records: &[String], key: Option<IdempotencyKey>| {
        let (handle, batch) = (handle.clone(), site.batch(records));
        tokio::spawn(async move { handle.append(batch, key).await })
    };
    let (first, second) = (send(&hundred[..60], None), send(&hundred[..41], None));
    assert!(matches!(second.await.unwrap(), Err(AppendError::Busy { retry_after }) if retry_after == RETRY_AFTER));
    // Whoever gives up while queued does not take the batch back, nor the room.
    first.abort();
    let _ = first.await;
    assert_eq!(handle.stats().pending, 60);
    // Batches that hold no record weigh something too.
    let empty: Vec<_> = (0..41).map(|i| send(&[], key(&format!("k{i}")))).collect();
    tokio::task::yield_now().await;
    assert_eq!((handle.stats().pending, handle.stats().busy), (100, 2));
    let error = handle.append(site.batch(&[hundred.clone(), hundred[..1].to_vec()].concat()), None).await;
    assert!(matches!(error, Err(AppendError::TooLarge { records: 101, limit: 100 })));

    let life = Life { handle: handle.clone(), task: tokio::spawn(history.run()) };
    let mut busy = 0;
    for append in empty {
        busy += usize::from(append.await.unwrap().is_err());
    }
    assert_eq!(busy, 1);
    assert_eq!(life.handle.stats().pending, 0);
    life.handle.append(site.batch(&hundred), None).await.unwrap();
    assert_eq!(life.counts().await, BTreeMap::from([(at("fr", 0), 160.0)]));
}

#[tokio::test]
async fn ids_and_keys_beyond_what_can_be_remembered_are_turned_away() {
    let site = Site::new(11);
    let mut limits = group::Limits::new(step(), &site.config);
    (limits.max_ids, limits.max_keys) = (2, 1);
    let mut state = group::State::new(limits);
    let three = site.batch(&[record("fr", 0, 1, Some("a")), record("fr", 0, 1, Some("b")), record("fr", 0, 1, Some("c"))]);
    let (delta, outcomes) = state.judge(vec![(three.clone(), key("k")), (three, key("l"))], site.clock.now());
    let [group::Outcome::Counted(receipt), group::Outcome::NoRoom { until: None }] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((receipt.accepted, receipt.refused), (2, 1));
    assert!(receipt.refusals[0].reason.contains("beyond the 2 that are remembered"), "{}", receipt.refusals[0].reason);
    state.apply(delta);
    let (delta, outcomes) = state.judge(vec![(site.batch(&[]), key("m"))], site.clock.now());
    assert_eq!(outcomes, [group::Outcome::NoRoom { until: Some(site.clock.now().after(Duration::from_secs(3600))) }]);
    assert!(delta.is_empty());
}

#[tokio::test]
async fn a_file_of_another_step_or_region_is_refused_with_the_remedy() {
    let site = Site::new(12);
    site.start().await.stop().await;
    let store = Store::open(&site.env).await.unwrap();
    let hour = Step::new(Duration::from_secs(3600)).unwrap();
    let error = open(&site.env, &store, hour, &site.region(), &site.config).await.err().unwrap().to_string();
    assert!(error.contains("counts steps of 60000 ms, the configuration says 3600000 ms: set the step back"), "{error}");
    let other = RegionId::new("fr").unwrap();
    let error = open(&site.env, &store, step(), &other, &site.config).await.err().unwrap().to_string();
    assert!(error.contains("that of region de, the configuration says fr: give each region its own data_dir"), "{error}");
}

#[tokio::test]
async fn after_a_failed_commit_nothing_more_is_counted_and_questions_are_answered() {
    let site = Site::new(13);
    let life = site.start().await;
    life.handle.append(site.batch(&[record("fr", 0, 1, None)]), None).await.unwrap();
    site.disk.cut_at(0);
    for _ in 0..2 {
        let error = life.handle.append(site.batch(&[record("fr", 0, 1, None)]), None).await.unwrap_err();
        assert!(matches!(error, AppendError::Storage(_)), "{error}");
    }
    let stats = life.handle.stats();
    assert_eq!((stats.failed, stats.pending, stats.accepted), (true, 0, 1));
    assert_eq!(life.handle.close(noon_step()).await.unwrap().counts[0].1, 1.0);
}

/// Twelve batches over twelve minutes, with and without keys and ids, in pairs that share a
/// commit; the counts of those that were acknowledged, and how many were.
async fn workload(site: &Site, life: &Life) -> (BTreeMap<(String, i64), f64>, usize) {
    let (mut sure, mut acknowledged) = (BTreeMap::new(), 0);
    for pair in 0..6 {
        let minute = pair * 2;
        site.clock.0.store(NOON + minute * MINUTE, Ordering::Relaxed);
        let (with_key, with_id) = (format!("key-{pair}"), format!("id-{pair}"));
        let keyed = site.batch(&[record("fr", minute, 1, None), record("it", minute - 1, 2, None)]);
        let identified = site.batch(&[record("fr", minute, 10, Some(&with_id)), record("us", minute, 20, Some(&format!("{with_id}-us")))]);
        let (one, two) = tokio::join!(life.handle.append(keyed, key(&with_key)), life.handle.append(identified, None));
        for (place, count, sent) in [
            (at("fr", minute), 1.0, &one),
            (at("it", minute - 1), 2.0, &one),
            (at("fr", minute), 10.0, &two),
            (at("us", minute), 20.0, &two),
        ] {
            if sent.is_ok() {
                *sure.entry(place).or_default() += count;
            }
        }
        acknowledged += usize::from(one.is_ok()) + usize::from(two.is_ok());
    }
    (sure, acknowledged)
}

#[tokio::test]
async fn a_power_cut_at_any_write_loses_nothing_acknowledged_and_counts_nothing_twice() {
    let calm = Site::new(0);
    let life = calm.start().await;
    let opened = calm.disk.changes();
    let (all, count) = workload(&calm, &life).await;
    assert_eq!((life.counts().await, count), (all.clone(), 12));
    let changes = calm.disk.changes();
    assert!(changes > opened + 20, "{opened} {changes}");
    life.stop().await;

    for cut_at in 0..changes {
        let site = Site::new(cut_at);
        site.disk.cut_at(cut_at);
        let (sure, acknowledged) = match site.open().await {
            Err(_) => (BTreeMap::new(), 0),
            Ok((handle, history)) => {
                let life = Life { handle, task: tokio::spawn(history.run()) };
                let result = workload(&site, &life).await;
                life.stop().await;
                result
            }
        };
        assert!(acknowledged < 12, "the power went at {cut_at}");

        let life = site.start().await;
        let there = life.counts().await;
        for (place, count) in &sure {
            assert!(there.get(place) >= Some(count), "cut at {cut_at}: {place:?} {count} of {there:?}");
        }
        // A batch is there whole or not at all, and nothing is there twice: sending all of them
        // again, as their senders would, ends where no power was lost.
        workload(&site, &life).await;
        assert_eq!(life.counts().await, all, "cut at {cut_at}, {acknowledged} acknowledged");
    }
}

/// The sums of everything counted for `to`, at each resolution.
async fn totals(life: &Life, to: &str, until: StepIndex) -> Vec<f64> {
    let mut key = None;
    for (known, _) in life.handle.windows(until, 1).await.unwrap() {
        key = key.or(Some(known).filter(|known| known.destination.as_str() == to));
    }
    let mut totals = vec![];
    for resolution in Resolution::ALL {
        let rolled = life.handle.rolled(key.as_ref().unwrap(), resolution, until, 100_000).await.unwrap().unwrap();
        totals.push(rolled.counts.iter().sum());
    }
    totals
}

#[tokio::test]
async fn counts_leave_memory_for_columns_and_every_resolution_adds_up() {
    let mut site = Site::new(20);
    site.config.lateness = Duration::from_secs(86_400);
    for kept in [&mut site.config.retention, &mut site.config.retention_5m, &mut site.config.retention_1h] {
        *kept = Duration::from_secs(30 * 86_400);
    }
    let mut life = site.start().await;
    let mut naive = BTreeMap::new();
    let mut sent = 0;
    for hour in 0..30 {
        site.clock.0.store(NOON + hour * 60 * MINUTE, Ordering::Relaxed);
        let mut records = vec![];
        for minute in 0..60 {
            let at_minute = hour * 60 - minute;
            let count = (7 + (at_minute * 7919) % 23).unsigned_abs();
            records.push(record("fr", at_minute, count, None));
            *naive.entry(at_minute).or_insert(0.0) += count as f64;
            sent += count;
        }
        // Late by most of a day: into a column, and into the revised.
        let late = (hour * 60 - 1_000).max(-60);
        records.push(record("fr", late, 3, None));
        *naive.entry(late).or_insert(0.0) += 3.0;
        sent += 3;
        records.push(record("it", hour * 60, 1, None));
        let receipt = life.handle.append(site.batch(&records[..50]), None).await.unwrap();
        assert_eq!(receipt.refused, 0, "{receipt:?}");
        life.handle.append(site.batch(&records[50..]), None).await.unwrap();
        if hour % 7 == 6 {
            site.disk.cut();
            life.stop().await;
            life = site.start().await;
        }
    }
    let until = noon_step().offset(30 * 60);
    let (key, _) = life.handle.windows(until, 1).await.unwrap().remove(0);
    assert_eq!(key.destination.as_str(), "fr");
    let window = life.handle.window(&key, until, 5_000).await.unwrap();
    let wanted: Vec<f64> =
        (*naive.first_key_value().unwrap().0..=30 * 60).map(|minute| naive.get(&minute).copied().unwrap_or(0.0)).collect();
    assert_eq!(window, wanted);
    // A page holds the same, and so does a window that ends among what is sealed.
    assert_eq!(life.handle.windows_after(None, 1, until, 5_000).await.unwrap(), [(key.clone(), wanted.clone())]);
    assert_eq!(life.handle.windows_after(Some(key.clone()), 1, until, 5_000).await.unwrap().len(), 1);
    assert_eq!(life.handle.window(&key, noon_step().offset(100), 50).await.unwrap(), wanted[wanted.len() - 1_750..wanted.len() - 1_700]);
    // So does a close that comes late.
    let closed = life.handle.close(noon_step().offset(100)).await.unwrap();
    assert_eq!(closed.counts[0].1, wanted[wanted.len() - 1_701]);
    assert_eq!(totals(&life, "fr", until).await, [sent as f64; 3]);
    assert_eq!(totals(&life, "it", until).await, [30.0; 3]);
    let hours = life.handle.rolled(&key, Resolution::Hour, noon_step().offset(119), 1).await.unwrap().unwrap();
    let of_hour: f64 = naive.range(60..120).map(|(_, count)| count).sum();
    assert_eq!((hours.factor, hours.counts), (60, vec![of_hour]));
    let sizes = life.handle.size().await.unwrap();
    assert!(sizes.iter().all(|(_, columns, bytes)| *columns > 0 && *bytes > *columns), "{sizes:?}");
    // Two series, thirteen columns of 128 minutes each: less than two bytes a count.
    assert!(sizes[0].2 < 2 * 1_800 + 13 * 80, "{sizes:?}");
}

#[tokio::test]
async fn a_series_that_is_silent_for_long_is_cold_until_it_counts_again() {
    let site = Site::new(5);
    let life = site.start().await;
    let send = async |to: &str, minute: i64| {
        site.clock.0.store(NOON + minute * MINUTE, Ordering::Relaxed);
        life.handle.append(site.batch(&[record(to, minute, 1, None)]), None).await.unwrap();
    };
    let close = async |minute: i64| {
        let closed = life.handle.close_warm(noon_step().offset(minute), 10).await.unwrap();
        let names = |key: &SeriesKey| key.destination.to_string();
        (closed.counts.iter().map(|(key, _)| names(key)).collect::<Vec<_>>(), closed.woken.iter().map(names).collect::<Vec<_>>())
    };
    let named = |counts: &[&str], woken: &[&str]| -> (Vec<String>, Vec<String>) {
        (counts.iter().map(ToString::to_string).collect(), woken.iter().map(ToString::to_string).collect())
    };
    send("fr", 0).await;
    send("it", 0).await;
    assert_eq!(close(0).await, named(&["fr", "it"], &[]), "what begins has nothing to be learnt again");
    send("it", 9).await;
    assert_eq!(close(10).await, named(&["fr", "it"], &[]));
    assert_eq!(close(11).await, named(&["it"], &[]), "eleven steps without a count");
    assert_eq!(life.handle.warm_windows(None, 10, noon_step().offset(11), 100).await.unwrap().len(), 1);
    send("fr", 12).await;
    assert_eq!(close(12).await, named(&["fr", "it"], &["fr"]));
    let pages = life.handle.warm_windows(None, 1, noon_step().offset(12), 100).await.unwrap();
    assert_eq!((pages[0].0.destination.as_str(), pages[0].1.len(), pages[0].1.iter().sum::<f64>()), ("fr", 13, 2.0));
    assert_eq!(close(13).await, named(&["fr", "it"], &[]));
    let closed = life.handle.close(noon_step().offset(40)).await.unwrap();
    assert_eq!(closed.counts.len(), 2, "they are counted all the same");
    // After a restart all that is warm has to be learnt, and nothing else.
    send("it", 41).await;
    life.stop().await;
    let life = site.start().await;
    let closed = life.handle.close_warm(noon_step().offset(41), 10).await.unwrap();
    assert_eq!((closed.counts.len(), closed.woken.iter().next().unwrap().destination.as_str()), (1, "it"));
}

/// Sixteen batches over two days, so that commits seal columns: the sum of each destination is 17 when all are counted.
async fn long_workload(site: &Site, life: &Life) -> usize {
    let mut acknowledged = 0;
    for hop in 0..16 {
        let minute = hop * 180;
        site.clock.0.store(NOON + minute * MINUTE, Ordering::Relaxed);
        let late = (minute - 400).max(0);
        let records = [record("fr", minute, 1, None), record("it", late, 1, None), record("us", minute - 3, 1, None)];
        let sent = life.handle.append(site.batch(&records), key(&format!("key-{hop}"))).await;
        acknowledged += usize::from(sent.is_ok_and(|receipt| !receipt.replayed));
    }
    acknowledged
}

#[tokio::test]
async fn a_power_cut_while_columns_are_sealed_loses_nothing_and_counts_nothing_twice() {
    let site = |seed| {
        let mut site = Site::new(seed);
        site.config.lateness = Duration::from_secs(4 * 86_400);
        for kept in [&mut site.config.retention, &mut site.config.retention_5m, &mut site.config.retention_1h] {
            *kept = Duration::from_secs(30 * 86_400);
        }
        site
    };
    let until = noon_step().offset(16 * 180);
    let sums = async |life: &Life| {
        let mut sums = vec![];
        for to in ["fr", "it", "us"] {
            sums.push(totals(life, to, until).await);
        }
        sums
    };
    let calm = site(0);
    let life = calm.start().await;
    let opened = calm.disk.changes();
    assert_eq!(long_workload(&calm, &life).await, 16);
    let changes = calm.disk.changes();
    let all = vec![vec![16.0; 3]; 3];
    assert_eq!(sums(&life).await, all);
    assert!(life.handle.size().await.unwrap()[0].1 > 10, "columns were sealed");
    life.stop().await;

    // Every third change: the others are cut by the other test.
    for cut_at in (opened..changes).step_by(3) {
        let site = site(cut_at);
        let life = site.start().await;
        site.disk.cut_at(cut_at - opened);
        let acknowledged = long_workload(&site, &life).await;
        assert!(acknowledged < 16, "the power went at {cut_at}");
        life.stop().await;
        let life = site.start().await;
        if acknowledged > 0 {
            // Each batch has one of each destination, and is there whole.
            let there = sums(&life).await;
            assert!(there.iter().all(|sums| *sums == there[0]) && there[0][0] >= acknowledged as f64, "cut at {cut_at}: {there:?}");
        }
        // As their senders would: all again, with the same keys.
        long_workload(&site, &life).await;
        assert_eq!(sums(&life).await, all, "cut at {cut_at}");
    }
}

#[tokio::test]
async fn a_tenants_series_beyond_its_limit_are_folded_and_counted() {
    let mut site = Site::new(21);
    (site.config.max_series, site.config.max_series_per_tenant) = (100, 2);
    let life = site.start().await;
    let record = |kind: &str, service: &str, tenant: &str| {
        format!(
            r#"{{"source_region":"de","destination_region":"fr","timestamp":{NOON},"transaction_type":"{kind}","service":"{service}","tenant":"{tenant}"}}"#
        )
    };
    let records = ["a", "b", "c", "d", "c", "a"].map(|kind| record(kind, "game", "big"));
    let receipt = life.handle.append(site.batch(&records), None).await.unwrap();
    assert_eq!((receipt.accepted, receipt.refused), (6, 0));
    let counts = async || {
        let closed = life.handle.close(noon_step()).await.unwrap();
        closed.counts.iter().map(|(key, count)| (key.to_string(), *count)).collect::<BTreeMap<_, _>>()
    };
    let named = |name: &str, count: f64| (name.to_string(), count);
    let wanted = BTreeMap::from([named("big/de>fr/game/a", 2.0), named("big/de>fr/game/b", 1.0), named("big/de>fr/game/other", 3.0)]);
    assert_eq!(counts().await, wanted);
    assert_eq!(life.handle.stats().folded, 3);
    // The next services find no room of their own, and then none at all; other tenants do.
    let records = [record("e", "chat", "big"), record("f", "mail", "big"), record("a", "game", "small")];
    assert_eq!(life.handle.append(site.batch(&records), None).await.unwrap().refused, 0);
    let now = counts().await;
    assert_eq!((now["big/de>fr/other/other"], now["small/de>fr/game/a"], now.len()), (2.0, 1.0, 5));
    let elsewhere = record("g", "game", "big").replace("fr", "it");
    let receipt = life.handle.append(site.batch(&[elsewhere]), None).await.unwrap();
    assert!(receipt.refusals[0].reason.contains("ingest.max_series_per_tenant"), "{receipt:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However records are divided into batches and groups, with repetitions and restarts: the sums
    /// are those of the distinct records.
    #[test]
    fn any_division_into_batches_counts_the_same(
        sent in proptest::collection::vec(
            (0usize..3, -5i64..=0, 0u64..50, proptest::option::of(0u8..20), 0u8..10), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let site = Site::new(0);
            let mut life = site.start().await;
            let (mut naive, mut seen) = (BTreeMap::<_, f64>::new(), std::collections::BTreeSet::new());
            let mut batch = Vec::new();
            for (to, minute, count, id, then) in &sent {
                let to = ["fr", "it", "us"][*to];
                batch.push(record(to, *minute, *count, id.map(|id| format!("id{id}")).as_deref()));
                if id.is_none_or(|id| seen.insert(id)) && *count > 0 {
                    *naive.entry(at(to, *minute)).or_default() += *count as f64;
                }
                if *then < 4 {
                    life.handle.append(site.batch(&batch), None).await.unwrap();
                    batch.clear();
                }
                if *then == 0 {
                    life.stop().await;
                    life = site.start().await;
                }
            }
            life.handle.append(site.batch(&batch), None).await.unwrap();
            assert_eq!(life.counts().await, naive);
        });
    }
}
