//! The mesh's bounds that more than one module keeps.

use std::time::Duration;

/// The most regions of a mesh. A chitchat digest lists all of them with 116 bytes at most, and one
/// message has 65,507 bytes: 500 leave room for what chitchat puts behind the digest (it would
/// panic if none were left). The largest mesh that was measured has 100.
pub(super) const MAX_REGIONS: usize = 500;

/// The most cards in one message: with the largest certificates 240 kB, half of what a message may
/// have.
pub(super) const CARDS_PER_MESSAGE: usize = 100;

/// How long a message may take to cross a stream: 256 KiB at 256 kbit/s, and a slow start.
pub(super) const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a region that nobody has heard of stays known, by the date of its last card. Agents
/// publish every step, so a card this old is of a region that was taken away.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);
