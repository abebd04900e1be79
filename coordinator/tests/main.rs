//! The `tradewind` program as its users meet it: arguments in, text, documents and exit codes out.
//!
//! Every test runs the real binary against a stub of an agent on a loopback socket that serves
//! documents made from the protocol's types.

mod answers;
mod charts;
mod failures;
mod fixtures;
mod follow;
mod stub;
mod tls;
