//! What the mesh counts.

use super::refusal::Refusal;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts since the mesh started. Bytes are of messages, except those of UDP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MeshStats {
    /// Connections now.
    pub links: u64,
    /// UDP payload sent on connections, all overhead of QUIC included.
    pub udp_bytes_sent: u64,
    /// The same received.
    pub udp_bytes_received: u64,
    /// UDP datagrams sent.
    pub udp_packets_sent: u64,
    /// UDP datagrams received.
    pub udp_packets_received: u64,
    /// Messages sent as QUIC datagrams.
    pub datagrams_sent: u64,
    /// The same received.
    pub datagrams_received: u64,
    /// Bytes of messages sent as QUIC datagrams.
    pub datagram_bytes_sent: u64,
    /// The same received.
    pub datagram_bytes_received: u64,
    /// Messages sent on streams.
    pub streams_sent: u64,
    /// The same received.
    pub streams_received: u64,
    /// Bytes of messages sent on streams.
    pub stream_bytes_sent: u64,
    /// The same received.
    pub stream_bytes_received: u64,
    /// Messages that were not sent or not read in time, or found a full queue. Gossip repairs it.
    pub messages_lost: u64,
    /// Connections that were asked for.
    pub dials: u64,
    /// Those that did not come about.
    pub dial_failures: u64,
    /// Connections that two agents made to each other at once.
    pub crossed_dials: u64,
    /// States sent to peers.
    pub pushes_sent: u64,
    /// States received from the regions themselves.
    pub pushes_received: u64,
    /// States asked for because a push had been missed.
    pub fetches: u64,
    /// Those that did not bring the state.
    pub fetch_failures: u64,
    /// States given to peers that had asked.
    pub fetches_served: u64,
    /// Requests answered, fetches included.
    pub requests_served: u64,
    /// Cards that were not news.
    pub stale: u64,
    /// How often chitchat ended and was started again.
    pub chitchat_restarts: u64,
    /// What changed nothing, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl MeshStats {
    /// How much was refused for `reason`.
    pub fn refused(&self, reason: &str) -> u64 {
        self.refused.get(reason).copied().unwrap_or(0)
    }
}

/// One number that goes up.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn bump(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($name:ident)*) => {
        /// The counters, shared by all tasks.
        #[derive(Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
            refused: Mutex<BTreeMap<&'static str, u64>>,
        }

        impl Counters {
            /// What they say now. Connections are counted elsewhere.
            pub(super) fn snapshot(&self) -> MeshStats {
                let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
                MeshStats { $($name: self.$name.get(),)* refused, ..MeshStats::default() }
            }
        }
    };
}

counters! {
    datagrams_sent datagrams_received datagram_bytes_sent datagram_bytes_received
    streams_sent streams_received stream_bytes_sent stream_bytes_received messages_lost
    dials dial_failures crossed_dials pushes_sent pushes_received
    fetches fetch_failures fetches_served requests_served stale chitchat_restarts
}

impl Counters {
    pub(super) fn refuse(&self, reason: Refusal) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.name()).or_default() += 1;
    }
}
