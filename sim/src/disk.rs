//! A disk in memory that forgets what was not synced.
//!
//! It belongs to a node, not to a life of its agent, so it survives crashes and restarts. When the
//! power is cut, every write since the last sync of a file survives or not, sector by sector, by
//! seeded choice: later writes may survive earlier ones, and a write may survive in part. The
//! power can also fail between two writes of one commit ([`SimDisk::cut_after`]), where a
//! simulated host, which stops only where it awaits, could not be crashed from outside.
//!
//! Invariant: after a cut, nothing that was opened before it reads or writes again, so that
//! destructors of the crashed agent cannot tidy up what a real power cut would have left.

use crate::memory;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redb::StorageBackend;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tradewind_agent::env::{Seed, Storage};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// The largest file: agents keep megabytes; a gigabyte is a bug, not a database.
const MAX_FILE_BYTES: usize = 1 << 30;

/// A node's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    files: BTreeMap<String, File>,
    /// Counts power cuts; a backend of an earlier one is dead.
    epoch: u64,
    /// How many more writes, changes of length and syncs are carried out before the power fails.
    fuse: Option<u64>,
    ill: Option<Illness>,
    was_ill: bool,
    rng: StdRng,
    stats: DiskStats,
    losses: u64,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    /// What the running system reads: `durable` plus everything pending.
    current: Vec<u8>,
    pending: Vec<Change>,
    open: bool,
}

enum Change {
    Write { at: usize, data: Vec<u8> },
    SetLen(usize),
}

/// What is wrong with a disk that has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Illness {
    /// Writes fail.
    Write,
    /// Syncs fail, and what they were to make durable stays in doubt.
    Sync,
    /// No file grows any more.
    Full,
    /// Every transaction waits.
    Slow,
}

/// What has happened to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// Writes and changes of length.
    pub mutations: u64,
    /// Syncs.
    pub syncs: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Un-synced sectors that a cut lost.
    pub sectors_lost: u64,
    /// Un-synced sectors that survived one.
    pub sectors_kept: u64,
}

impl SimDisk {
    /// An empty disk whose losses follow from `seed`.
    pub fn new(seed: Seed) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            epoch: 0,
            fuse: None,
            ill: None,
            was_ill: false,
            rng: StdRng::from_seed(seed.bytes()),
            stats: DiskStats::default(),
            losses: 0,
        })))
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.lock().cut_power();
    }

    /// Carries out so many more writes, changes of length and syncs, and cuts the power at the next.
    pub fn cut_after(&self, changes: u64) {
        self.lock().fuse = Some(changes);
    }

    /// Falls ill, or recovers.
    pub fn set_ill(&self, illness: Option<Illness>) {
        let mut disk = self.lock();
        disk.ill = illness;
        disk.was_ill |= illness.is_some_and(|illness| illness != Illness::Slow);
    }

    /// Whether it has been ill since the power was cut last.
    pub fn was_ill(&self) -> bool {
        self.lock().was_ill
    }

    /// Loses everything, as a disk that was replaced: the power is cut, and no file is left.
    pub fn lose(&self) {
        let mut disk = self.lock();
        disk.cut_power();
        disk.files.clear();
        disk.losses += 1;
    }

    /// How often everything was lost.
    pub fn losses(&self) -> u64 {
        self.lock().losses
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.lock().files.values().map(|file| file.current.len() as u64).sum()
    }

    /// What has happened so far.
    pub fn stats(&self) -> DiskStats {
        self.lock().stats
    }

    fn lock(&self) -> Locked<'_> {
        Locked { inner: self.0.lock().unwrap_or_else(PoisonError::into_inner), _unowned: memory::unowned() }
    }
}

/// The disk, as long as nobody else changes it. What it stores is in no agent's memory.
struct Locked<'a> {
    inner: MutexGuard<'a, Inner>,
    _unowned: memory::Unowned,
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

/// What a transaction waits for on a slow disk: fifty times a busy hard disk's.
const SLOW: Duration = Duration::from_millis(700);

impl Storage for SimDisk {
    fn delay(&self) -> Duration {
        if self.lock().ill == Some(Illness::Slow) { SLOW } else { Duration::ZERO }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut disk = self.lock();
        let epoch = disk.epoch;
        let file = disk.files.entry(name.into()).or_default();
        if file.open {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{name} is open already")));
        }
        file.open = true;
        Ok(Box::new(Backend { disk: self.clone(), name: name.into(), epoch }))
    }
}

impl Inner {
    fn cut_power(&mut self) {
        for file in self.files.values_mut() {
            for change in std::mem::take(&mut file.pending) {
                for part in change.sectors() {
                    // Half is the choice that reaches every pattern of survivors soonest.
                    if self.rng.random_bool(0.5) {
                        part.apply(&mut file.durable);
                        self.stats.sectors_kept += 1;
                    } else {
                        self.stats.sectors_lost += 1;
                    }
                }
            }
            file.current.clone_from(&file.durable);
            file.open = false;
        }
        self.epoch += 1;
        self.fuse = None;
        self.was_ill = self.ill.is_some_and(|illness| illness != Illness::Slow);
        self.stats.cuts += 1;
    }

    /// Counts one more change; true if it is the one that the power fails at.
    fn fuse_blows(&mut self) -> bool {
        match &mut self.fuse {
            None => false,
            Some(0) => {
                self.cut_power();
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Write { at, data } => {
                let end = at + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*at..end].copy_from_slice(data);
            }
            Change::SetLen(len) => image.resize(*len, 0),
        }
    }

    /// The parts that survive a power cut independently of each other.
    fn sectors(self) -> Vec<Change> {
        match self {
            Change::SetLen(_) => vec![self],
            Change::Write { at, data } => {
                let (mut parts, mut from) = (Vec::new(), 0);
                while from < data.len() {
                    let sector_end = ((at + from) / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    let to = (sector_end - at).min(data.len());
                    parts.push(Change::Write { at: at + from, data: data[from..to].to_vec() });
                    from = to;
                }
                parts
            }
        }
    }
}

/// An open file.
struct Backend {
    disk: SimDisk,
    name: String,
    epoch: u64,
}

impl Backend {
    /// Reads the file, if there is power.
    fn look<T>(&self, look: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let disk = self.disk.lock();
        match disk.files.get(&self.name) {
            Some(file) if disk.epoch == self.epoch => look(file),
            _ => Err(power_cut()),
        }
    }

    /// Changes the file, if there is power and it does not fail at this very change.
    fn change(&self, change: impl FnOnce(&mut File, &mut DiskStats)) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.epoch != self.epoch || disk.fuse_blows() {
            return Err(power_cut());
        }
        let Inner { files, stats, .. } = &mut *disk;
        change(files.get_mut(&self.name).ok_or_else(power_cut)?, stats);
        Ok(())
    }

    fn mutate(&self, end: Option<usize>, mutation: Change) -> io::Result<()> {
        if end.is_none_or(|end| end > MAX_FILE_BYTES) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, format!("{} would grow beyond {MAX_FILE_BYTES} bytes", self.name)));
        }
        let ill = self.disk.lock().ill;
        match ill {
            Some(Illness::Write) => return Err(io::Error::other("the disk is ill: write error")),
            Some(Illness::Full) if self.look(|file| Ok(end.is_some_and(|end| end > file.current.len())))? => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(Illness::Full | Illness::Sync | Illness::Slow) | None => {}
        }
        self.change(|file, stats| {
            stats.mutations += 1;
            mutation.apply(&mut file.current);
            file.pending.push(mutation);
        })
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power was cut")
}

fn offset(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.look(|file| Ok(file.current.len() as u64))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = offset(at)?;
        self.look(|file| {
            let end = at.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(file.current.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let len = offset(len)?;
        self.mutate(Some(len), Change::SetLen(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.disk.lock().ill == Some(Illness::Sync) {
            return Err(io::Error::other("the disk is ill: sync error"));
        }
        self.change(|file, stats| {
            stats.syncs += 1;
            let File { durable, pending, .. } = file;
            pending.drain(..).for_each(|change| change.apply(durable));
        })
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = offset(at)?;
        let _unowned = memory::unowned();
        self.mutate(at.checked_add(data.len()), Change::Write { at, data: data.to_vec() })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.epoch == self.epoch
            && let Some(file) = disk.files.get_mut(&self.name)
        {
            file.open = false;
        }
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (power {})", self.name, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u8) -> SimDisk {
        SimDisk::new(Seed::new([seed; 32]))
    }

    fn content(disk: &SimDisk) -> Vec<u8> {
        let file = disk.open("f").unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_is_torn_by_sectors() {
        let tear = |seed| {
            let disk = disk(seed);
            let file = disk.open("f").unwrap();
            file.set_len(16 * 512).unwrap();
            file.write(0, &[1; 512]).unwrap();
            file.sync_data().unwrap();
            file.write(512, &[2; 15 * 512]).unwrap();
            disk.cut_power();
            content(&disk)
        };
        let bytes = tear(1);
        assert_eq!(bytes[..512], [1; 512], "synced");
        let kept: Vec<bool> = bytes[512..].chunks(512).map(|sector| sector == [2; 512]).collect();
        assert!(kept.contains(&true) && kept.contains(&false), "torn: {kept:?}");
        assert!(bytes[512..].chunks(512).all(|sector| sector == [2; 512] || sector == [0; 512]), "sectors are whole");
        assert_eq!(bytes, tear(1));
        assert_ne!(bytes, tear(2));
    }

    #[test]
    fn an_open_file_is_dead_after_a_cut_and_can_be_opened_again() {
        let disk = disk(1);
        let file = disk.open("f").unwrap();
        assert_eq!(disk.open("f").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        disk.cut_power();
        assert!(file.write(0, b"late").is_err() && file.sync_data().is_err() && file.read(0, &mut [0; 1]).is_err());
        let again = disk.open("f").unwrap();
        drop(file);
        again.write(0, b"x").unwrap();
        assert!(disk.open("f").is_err(), "the dead file's end does not free the new one");
    }

    #[test]
    fn the_power_fails_at_the_named_change() {
        let disk = disk(1);
        let file = disk.open("f").unwrap();
        disk.cut_after(2);
        file.write(0, b"a").unwrap();
        file.sync_data().unwrap();
        assert!(file.write(1, b"b").is_err());
        assert_eq!((content(&disk).as_slice(), disk.stats().cuts), (&b"a"[..], 1));
    }

    #[test]
    fn no_file_grows_without_end() {
        let file = disk(1).open("f").unwrap();
        for error in [file.set_len(u64::MAX).unwrap_err(), file.write(u64::MAX, b"x").unwrap_err(), file.write(1 << 31, b"x").unwrap_err()]
        {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
    }
}
