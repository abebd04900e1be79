//! The agent's parts against the real world: real processes, real files.

mod process;
mod support;
