//! The agent's parts against the real world: real processes, real files.

mod declared;
mod kubernetes;
mod pool;
mod process;
mod support;
