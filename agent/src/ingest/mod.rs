//! From bytes to a [`Batch`]: decompress, parse, check, fold. Pure: no clock, no disk, no network.
//!
//! A body is a JSON array of [`tradewind_protocol::TransactionRecord`], or NDJSON: one of them a
//! line. It is an array if its first visible byte is `[`. A record that is malformed, out of its
//! time or none of this region's business is refused alone, with its place and the reason; the
//! others are kept. Only what leaves the records' borders in doubt refuses a body as a whole:
//! broken syntax within an array, a broken or too large compressed stream.
//!
//! Invariant: what one body may allocate is bounded by [`Rules::config`]'s `max_body_bytes`, and no
//! record is copied: its text is borrowed from the body, its series looked up by that text.
//!
//! Reading order: [`body`] (decompression), [`parse`](mod@parse) (JSON to raw records), `record` (one raw
//! record, leniently), [`batch`] (checks and sums). [`crate::history`] makes a batch durable.

pub mod batch;
pub mod body;
pub mod parse;
mod record;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Rules};
pub use body::{BodyError, Encoding, decompress};
pub use parse::parse;
