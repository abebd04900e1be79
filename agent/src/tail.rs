//! Records from a file that another program appends to, a JSON object a line, each counted once.
//!
//! What is read next, from which byte to which of which file, is durable before it is counted, under a key that says the same:
//! after a crash the same piece is read again, with the same key, and is counted once. A file that was renamed (rotated) is
//! read to its end, found by its number in the same directory, before the one that took its name; one that became shorter is
//! read from its beginning. Only whole lines are read.

use crate::config::{Config, TailConfig};
use crate::env::{Clock, Offload};
use crate::events::EventLog;
use crate::history::{AppendError, HistoryHandle};
use crate::ingest::{Rules, parse};
use crate::stop::told;
use crate::store::{Facts, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tradewind_protocol::IdempotencyKey;
use tradewind_protocol::api::Severity;

/// Where each file stands, JSON, by path.
const PLACES: Facts = Facts("tail");

/// The most that is read at a time, and the longest line: 2,000 records.
const PIECE_BYTES: usize = 512 << 10;

/// Files of the directory that are looked at for one that was renamed.
const MAX_SIBLINGS: usize = 10_000;

/// Tails one file.
pub(crate) struct Tail {
    pub(crate) config: Arc<Config>,
    pub(crate) tail: TailConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) offload: Offload,
    pub(crate) store: Store,
    pub(crate) history: HistoryHandle,
    pub(crate) events: EventLog,
}

/// Where reading stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Raised with each file and each truncation, so that no two pieces have one key.
    generation: u64,
    inode: u64,
    offset: u64,
    /// The end of the piece that is being counted, if one is.
    until: Option<u64>,
}

/// A piece of the file: its bytes, whole lines, and where the next begins.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    place: Place,
    end: u64,
}

#[derive(Debug, thiserror::Error)]
enum TailError {
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Wrong(String),
}

impl Tail {
    /// Reads until `stop`.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut failing = false;
        loop {
            match self.catch_up(&stop).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let text = format!("{}: {error}; it is tried again", self.tail.path.display());
                        self.events.note(Severity::Warning, "tail.failed", text);
                    }
                }
            }
            tokio::select! {
                biased;
                () = told(&mut stop) => return,
                () = tokio::time::sleep(self.tail.interval) => {}
            }
        }
    }

    /// Counts all whole lines that are there.
    async fn catch_up(&self, stop: &watch::Receiver<bool>) -> Result<(), TailError> {
        let name = self.tail.path.to_string_lossy().into_owned();
        let stored = self.store.get(PLACES, &name).await?;
        let mut place: Place = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        while !*stop.borrow() {
            let path = self.tail.path.clone();
            let Some(piece) = self.offload.run(move || next_piece(&path, place)).await? else { return Ok(()) };
            place = Place { until: Some(piece.end), ..piece.place };
            self.keep(&name, place).await?;
            self.count(&name, &piece).await?;
            place = Place { offset: piece.end, until: None, ..place };
            self.keep(&name, place).await?;
        }
        Ok(())
    }

    async fn keep(&self, name: &str, place: Place) -> Result<(), TailError> {
        let bytes = serde_json::to_vec(&place).map_err(|error| TailError::Wrong(error.to_string()))?;
        Ok(self.store.put(PLACES, name, bytes).await?)
    }

    async fn count(&self, name: &str, piece: &Piece) -> Result<(), TailError> {
        if piece.bytes.is_empty() {
            return Ok(());
        }
        let rules = Rules { region: &self.config.region, step: self.config.step, now: self.clock.now(), config: &self.config.ingest };
        let (first, last) = (piece.place.offset, piece.end);
        // A line may begin as an array does: a blank one before it makes it a line.
        let batch = match piece.bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => parse(&[b"{}\n", &piece.bytes[..]].concat(), &rules),
            _ => parse(&piece.bytes, &rules),
        };
        let batch = batch.map_err(|error| TailError::Wrong(error.to_string()))?;
        let short =
            name.bytes().rev().take(40).collect::<Vec<_>>().into_iter().rev().map(|b| if b.is_ascii_graphic() { b as char } else { '_' });
        let key = format!("tail/{}/{}/{first}-{last}/{}", piece.place.generation, piece.place.inode, short.collect::<String>());
        let key = IdempotencyKey::new(&key).map_err(|error| TailError::Wrong(error.to_string()))?;
        let receipt = self.history.append(batch, Some(key)).await?;
        if let (Some(refusal), false) = (receipt.refusals.first(), receipt.replayed) {
            let text = format!(
                "{name}: {} records behind byte {first} were refused, the first in line {}: {}",
                receipt.refused, refusal.line, refusal.reason
            );
            self.events.note(Severity::Warning, "tail.refused", text);
        }
        Ok(())
    }
}

/// The piece to count now: none if nothing whole is there.
fn next_piece(path: &Path, place: Place) -> io::Result<Option<Piece>> {
    let named = match File::open(path) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let named_inode = match &named {
        Some(file) => Some(file.metadata()?.ino()),
        None => None,
    };
    if named_inode == Some(place.inode) {
        return named.map_or(Ok(None), |file| piece_of(file, place));
    }
    // Another file has the name now: first the rest of the one that had it.
    if place.inode != 0
        && let Some(renamed) = sibling(path, place.inode)?
        && let Some(piece) = piece_of(renamed, place)?
    {
        return Ok(Some(piece));
    }
    let fresh = |inode| Place { generation: place.generation + 1, inode, offset: 0, until: None };
    named.zip(named_inode).map_or(Ok(None), |(file, inode)| piece_of(file, fresh(inode)))
}

fn piece_of(mut file: File, place: Place) -> io::Result<Option<Piece>> {
    let length = file.metadata()?.len();
    let place = if length < place.offset { Place { generation: place.generation + 1, offset: 0, until: None, ..place } } else { place };
    let wanted = place.until.map_or(PIECE_BYTES as u64, |until| until.saturating_sub(place.offset));
    file.seek(SeekFrom::Start(place.offset))?;
    let mut bytes = vec![];
    file.take(wanted.min(PIECE_BYTES as u64)).read_to_end(&mut bytes)?;
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => bytes.truncate(last + 1),
        // A line of that length is no record: skipped, and told as refused.
        None if bytes.len() == PIECE_BYTES => {}
        None => return Ok(None),
    }
    let end = place.offset + bytes.len() as u64;
    Ok((!bytes.is_empty()).then_some(Piece { bytes, place, end }))
}

/// The file in the same directory with this number.
fn sibling(path: &Path, inode: u64) -> io::Result<Option<File>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries.take(MAX_SIBLINGS) {
        let entry = entry?;
        // It may be gone by now.
        if entry.metadata().is_ok_and(|meta| meta.ino() == inode && meta.is_file()) {
            return Ok(File::open(entry.path()).ok());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// All pieces from `place` on, as text, and where that ends.
    fn read(path: &Path, mut place: Place) -> (String, Place) {
        let mut text = String::new();
        while let Some(piece) = next_piece(path, place).unwrap() {
            text.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            place = Place { offset: piece.end, until: None, ..piece.place };
        }
        (text, place)
    }

    #[test]
    fn whole_lines_are_read_once_across_rotation_and_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let append = |text: &str| File::options().create(true).append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let start = Place::default();
        assert_eq!(read(&path, start), (String::new(), start));
        append("a\nb\nhal");
        let (text, place) = read(&path, start);
        assert_eq!((text.as_str(), place.offset), ("a\nb\n", 4));
        append("f\n");
        // Renamed, with something still unread, and already followed by another.
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        append("next\n");
        let (text, place) = read(&path, place);
        assert_eq!((text.as_str(), place.generation), ("half\nnext\n", 2));
        std::fs::write(&path, "c\n").unwrap();
        let (text, place) = read(&path, place);
        assert_eq!((text.as_str(), place.generation, place.offset), ("c\n", 3, 2));
        assert_eq!(read(&path, place).0, "");
    }

    #[test]
    fn a_piece_that_was_begun_is_the_same_piece_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a\nb\n").unwrap();
        let piece = next_piece(&path, Place::default()).unwrap().unwrap();
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        let again = next_piece(&path, Place { until: Some(piece.end), ..piece.place }).unwrap().unwrap();
        assert_eq!((again.end, again.bytes), (piece.end, piece.bytes));
        let long = vec![b'x'; PIECE_BYTES + 10];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(next_piece(&path, Place { offset: 0, ..piece.place }).unwrap().unwrap().end, PIECE_BYTES as u64);
    }
}
