//! The mesh under test: real QUIC on loopback, real certificates, a few agents in one process.

pub(super) mod pki;
