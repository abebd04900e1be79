//! The simulator's own tests: that its network and disk do what they say, and that one seed is one
//! run.

mod bugbase;
#[cfg(feature = "mutants")]
mod canary;
mod disk;
mod meta;
mod net;
mod scenarios;
mod shrink;
