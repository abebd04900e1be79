//! A disk for tests that loses what was not synced: each sector by itself, so writes are torn and
//! reordered, and in the middle of a commit, after a chosen number of writes, syncs and resizes.

use crate::env::Storage;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;

/// The disk. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// What survives the loss of power.
    durable: Vec<u8>,
    /// What is read meanwhile.
    current: Vec<u8>,
    /// What makes `current` of `durable`, in order.
    pending: Vec<Change>,
    /// Counts the losses of power: a file opened before one is dead.
    life: u64,
    /// How many more changes until the power goes.
    fuse: Option<u64>,
    changes: u64,
    chance: StdRng,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Inner { durable: vec![], current: vec![], pending: vec![], life: 0, fuse: None, changes: 0, chance })))
    }

    /// Cuts the power instead of doing the `n`-th change from now, counted from zero.
    pub(super) fn cut_at(&self, n: u64) {
        self.lock().fuse = Some(n);
    }

    /// Cuts the power now.
    pub(super) fn cut(&self) {
        self.lock().cut();
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        self.lock().changes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Storage for Disk {
    fn open(&self, _name: &str) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(File { life: self.lock().life, disk: self.clone() }))
    }
}

impl Inner {
    fn cut(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Resize(len) if self.chance.random_bool(0.5) => self.durable.resize(len, 0),
                Change::Resize(_) => {}
                Change::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = (((at + from) / SECTOR_BYTES + 1) * SECTOR_BYTES - at).min(bytes.len());
                        if self.chance.random_bool(0.5) {
                            write(&mut self.durable, at + from, &bytes[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        self.current = self.durable.clone();
        self.life += 1;
        self.fuse = None;
    }
}

fn write(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

#[derive(Debug)]
struct File {
    disk: Disk,
    life: u64,
}

impl File {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.life == self.life { Ok(inner) } else { Err(io::Error::other("the power went")) }
    }

    fn change(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.alive()?;
        match &mut inner.fuse {
            Some(0) => {
                inner.cut();
                return Err(io::Error::other("the power went"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        inner.changes += 1;
        Ok(inner)
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let inner = self.alive()?;
        out.copy_from_slice(inner.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.change()?;
        inner.current.resize(len as usize, 0);
        inner.pending.push(Change::Resize(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.change()?;
        inner.pending.clear();
        inner.durable = inner.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.change()?;
        write(&mut inner.current, offset as usize, bytes);
        inner.pending.push(Change::Write { at: offset as usize, bytes: bytes.to_vec() });
        Ok(())
    }
}
