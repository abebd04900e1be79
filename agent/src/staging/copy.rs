//! Data that is copied to where a service will look for it: within a time, at a rate, and resumed where it was cut short.
//!
//! What has arrived stands in a partial file beside the destination, and the note there says from which version of the source. An
//! attempt goes on only if the source is still that version: a file of the same size and time, an answer to `if-range`.
//! The destination appears whole, checked and durable, or not at all.

use super::claim::{Claim, Owner};
use super::stager::Meter;
use super::storage::blocking;
use crate::client::{Ask, Client, Identity, Streaming};
use crate::config::PreloadConfig;
use axum::http::{HeaderMap, StatusCode};
use ring::digest;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

/// How much is copied at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What the note says: the source, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    source: String,
    /// None where the source does not tell its versions apart; then nothing is resumed.
    version: Option<String>,
}

/// Copies what `preload` says to `to`.
pub(super) async fn fetch(preload: &PreloadConfig, to: &Path, meter: &Meter) -> Result<(), String> {
    let attempt = attempt(preload, Claim::of(to), meter);
    let late = |_| {
        let (done, total) = meter.read();
        let of = total.map_or(String::new(), |total| format!(" of {total}"));
        Err(format!("{done}{of} bytes of {} were there after {:?}; the next attempt goes on", preload.source, preload.deadline))
    };
    tokio::time::timeout(preload.deadline, attempt).await.unwrap_or_else(late)
}

/// Removes what was copied to `to`.
pub(super) async fn remove(to: &Path) -> Result<(), String> {
    let claim = Claim::of(to);
    blocking(move || claim.release()).await
}

async fn attempt(preload: &PreloadConfig, claim: Claim, meter: &Meter) -> Result<(), String> {
    let before = {
        let claim = claim.clone();
        blocking(move || claim.owner()).await?
    };
    if before != Owner::Nobody && claim.file.exists() && check(preload, claim.file.clone()).await.is_ok() {
        return Ok(());
    }
    let before: Option<Origin> = match &before {
        Owner::Nobody => None,
        Owner::Us(note) => serde_json::from_str(note).ok(),
    };
    let before = before.filter(|origin| origin.source == preload.source);
    let there = std::fs::metadata(&claim.partial).map_or(0, |partial| partial.len());
    // Of what cannot be told apart, nothing is kept.
    let resumed = before.as_ref().and_then(|origin| origin.version.as_deref()).filter(|_| there > 0).map(|version| (version, there));
    match preload.source.strip_prefix("file://") {
        Some(path) => {
            let (source, origin) = open(preload, Path::new(path)).await?;
            let from = resumed.filter(|(version, _)| Some(*version) == origin.version.as_deref()).map_or(0, |(_, there)| there);
            write(preload, &claim, origin, from, meter, source).await?;
        }
        None => {
            let (source, origin, from) = request(preload, resumed).await?;
            write(preload, &claim, origin, from, meter, source).await?;
        }
    }
    check(preload, claim.partial.clone()).await.inspect_err(|_| {
        // It would be as wrong the next time.
        let _ = std::fs::remove_file(&claim.partial);
    })?;
    blocking(move || claim.finish()).await
}

/// Where bytes come from.
enum Source {
    File(File, u64),
    Server(Streaming, Option<u64>),
    /// All of it is here, and it has not changed.
    Here,
}

impl Source {
    /// How many bytes there are in all, if that is known, `from` of which are here already.
    fn total(&self, from: u64) -> Option<u64> {
        match self {
            Source::File(_, length) => Some(*length),
            Source::Server(_, rest) => rest.map(|rest| rest.saturating_add(from)),
            Source::Here => Some(from),
        }
    }

    async fn skip(&mut self, from: u64) -> Result<(), String> {
        match self {
            Source::File(file, _) => file.seek(std::io::SeekFrom::Start(from)).await.map(drop).map_err(|error| error.to_string()),
            // It was asked to begin there.
            Source::Server(..) | Source::Here => Ok(()),
        }
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Vec<u8>, String> {
        match self {
            Source::File(file, _) => {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = file.read(&mut chunk).await.map_err(|error| error.to_string())?;
                chunk.truncate(read);
                Ok(chunk)
            }
            Source::Server(answer, _) => loop {
                match answer.next().await.transpose()? {
                    Some(chunk) if chunk.is_empty() => {}
                    chunk => return Ok(chunk.unwrap_or_default().to_vec()),
                }
            },
            Source::Here => Ok(vec![]),
        }
    }
}

async fn open(preload: &PreloadConfig, path: &Path) -> Result<(Source, Origin), String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).await.map_err(failed)?;
    let found = file.metadata().await.map_err(failed)?;
    if !found.is_file() {
        return Err(format!("{} is no file: pack a directory into one", path.display()));
    }
    let changed = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let version = changed.map(|at| format!("{} bytes of {} ns", found.len(), at.as_nanos()));
    Ok((Source::File(file, found.len()), Origin { source: preload.source.clone(), version }))
}

/// Asks a server for the source, from `resumed` on if it still is that version; from where it comes.
async fn request(preload: &PreloadConfig, resumed: Option<(&str, u64)>) -> Result<(Source, Origin, u64), String> {
    let authority = preload.ca.as_deref().map(crate::provider::webhook::read).transpose()?;
    let client = Client::new(&preload.source, &Identity { authority, certificate: None })?;
    let mut ask = Ask::get("");
    if let Some((version, there)) = resumed {
        ask.headers = vec![("range", format!("bytes={there}-")), ("if-range", version.to_string())];
    }
    let answer = client.open(ask).await?;
    let from = match (answer.status, resumed) {
        (StatusCode::OK, _) => 0,
        (StatusCode::PARTIAL_CONTENT, Some((_, there))) if begins_at(&answer.headers, there) => there,
        (StatusCode::RANGE_NOT_SATISFIABLE, Some((version, there))) if ends_at(&answer.headers, there) => {
            let origin = Origin { source: preload.source.clone(), version: Some(version.into()) };
            return Ok((Source::Here, origin, there));
        }
        (status, _) => return Err(format!("{} answers {status}; redirections are not followed", preload.source)),
    };
    let rest = answer.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let origin = Origin { source: preload.source.clone(), version: version(&answer.headers) };
    Ok((Source::Server(answer, rest), origin, from))
}

/// What the server calls this version: a strong entity tag, or the time of the last change.
fn version(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(String::from);
    text("etag").filter(|tag| !tag.starts_with("W/")).or_else(|| text("last-modified"))
}

fn content_range(headers: &HeaderMap) -> Option<&str> {
    headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")
}

/// Whether what comes begins at `at` (RFC 9110, 14.4).
fn begins_at(headers: &HeaderMap, at: u64) -> bool {
    content_range(headers).is_some_and(|range| range.starts_with(&format!("{at}-")))
}

/// Whether all of the source is `at` bytes.
fn ends_at(headers: &HeaderMap, at: u64) -> bool {
    content_range(headers) == Some(&format!("*/{at}"))
}

fn within(preload: &PreloadConfig, bytes: u64) -> Result<(), String> {
    match bytes <= preload.max_bytes {
        true => Ok(()),
        false => Err(format!("{} has more than max_bytes = {}", preload.source, preload.max_bytes)),
    }
}

/// Writes what comes from `source` behind the `from` bytes that are here.
async fn write(preload: &PreloadConfig, claim: &Claim, origin: Origin, from: u64, meter: &Meter, mut source: Source) -> Result<(), String> {
    let total = source.total(from);
    if let Some(total) = total {
        within(preload, total)?;
        meter.expect(total);
    }
    let note = serde_json::to_string(&origin).map_err(|error| error.to_string())?;
    let claimed = claim.clone();
    blocking(move || {
        if from == 0 {
            // Before the note changes, or what is here would be taken for the new version.
            let _ = std::fs::remove_file(&claimed.partial);
        }
        claimed.take(&note)
    })
    .await?;
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", claim.partial.display());
    let mut partial = OpenOptions::new().write(true).create(true).truncate(false).open(&claim.partial).await.map_err(failed)?;
    partial.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
    source.skip(from).await?;
    meter.set(from);
    let copied = pour(preload, from, meter, &mut source, &mut partial).await;
    // Also what came before it broke off is there for the next attempt.
    partial.flush().await.map_err(failed)?;
    let done = copied?;
    partial.sync_all().await.map_err(failed)?;
    match total.filter(|total| *total != done) {
        Some(total) => Err(format!("{} ended after {done} of {total} bytes", preload.source)),
        None => Ok(()),
    }
}

/// Writes to `partial` what comes, as fast as is allowed; how many bytes are there at the end.
async fn pour(preload: &PreloadConfig, from: u64, meter: &Meter, source: &mut Source, partial: &mut File) -> Result<u64, String> {
    let began = Instant::now();
    let mut done = from;
    loop {
        let chunk = source.next().await?;
        if chunk.is_empty() {
            return Ok(done);
        }
        done = done.saturating_add(chunk.len() as u64);
        within(preload, done)?;
        partial.write_all(&chunk).await.map_err(|error| format!("cannot write: {error}"))?;
        meter.set(done);
        if let Some(rate) = preload.bytes_per_second {
            tokio::time::sleep_until(began + Duration::from_secs_f64((done - from) as f64 / rate as f64)).await;
        }
    }
}

/// Checks the content of `file`, if it is known what it is to be.
async fn check(preload: &PreloadConfig, file: PathBuf) -> Result<(), String> {
    let Some(wanted) = preload.sha256.clone() else { return Ok(()) };
    let source = preload.source.clone();
    blocking(move || {
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
        let mut opened = std::fs::File::open(&file).map_err(failed)?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = opened.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            context.update(&chunk[..read]);
        }
        let found: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == wanted { Ok(()) } else { Err(format!("{source} has the SHA-256 {found}, not {wanted}")) }
    })
    .await
}
