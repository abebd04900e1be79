//! The agent's parts against the real world: real processes, real files.

mod docker;
mod pool;
mod process;
mod support;
