//! The real agents on a simulated network: one thread, virtual time, and one seed from which all
//! chance follows. The same seed gives the same run, byte for byte, also in another process.
//!
//! | module | what |
//! |---|---|
//! | [`entropy`] | the operating system's chance and clock, replaced on a simulation's thread |
//! | [`clock`], [`disk`], [`net`], [`provider`], [`tls`] | what an agent needs of the world, simulated |
//! | [`env`](mod@env) | a machine: those parts, some of which outlive the agent |
//! | [`memory`] | what each agent holds in memory |
//! | `opened` | published states that one agent has opened, for the others |
//! | `switch` | the datagrams that are under way |
//! | [`world`] | many machines, stepped, broken and mended |
//! | [`trace`] | everything that happened, as lines and as a hash |
//! | [`scenario`] | who takes part, with which traffic, and what goes wrong when |
//! | [`chaos`] | what goes wrong, drawn from the seed |
//! | [`oracle`] | what has to hold, as named rules |
//! | [`data`] | the recordings and measurements that scenarios name |
//! | [`report`] | what a run was like, as figures and as a page with charts |
//! | `inspect` | what is asked of an agent about its capacity and after a restart, and held against what is |
//! | `model` | the reference model of what is durable of an agent |
//! | `promises` | what two agents know of one reservation |
//! | `steady` | whether plans go up and down without a need |
//! | [`run`] | one scenario from beginning to end |
//! | [`forecast`] | forecasts, scored on recorded series |
//! | [`nab`] | anomaly detection, scored on labelled series |
//! | [`backtest`] | policies for capacity, replayed over recorded demand beside their rivals |
//! | [`sweep`] | many seeds, each in a process of its own |
//! | [`case`] | a run written down: replayed, and made smaller |
//! | [`meta`] | one seed, two processes, one trace |
//! | `mutants` | seeded bugs, and how soon the rules catch them (with the feature of that name) |
//!
//! The agent itself is not changed: it is given another `Env`.

mod agents;
pub mod backtest;
pub mod case;
pub mod chaos;
mod client;
pub mod clock;
pub mod data;
pub mod disk;
pub mod entropy;
pub mod env;
pub mod forecast;
mod http;
mod inspect;
mod liar;
pub mod memory;
pub mod meta;
mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nab;
pub mod net;
mod opened;
pub mod oracle;
mod promises;
pub mod provider;
pub mod report;
pub mod run;
pub mod scenario;
mod standstill;
mod steady;
pub mod sweep;
mod switch;
pub mod tls;
pub mod trace;
mod workload;
pub mod world;
