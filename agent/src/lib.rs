//! One Tradewind agent: the whole of a region's part in the mesh.
//!
//! Modules are *pure* (P: decide; std and protocol only) or *shell* (S: touch the world). Pure
//! modules never import shell ones. Data flows down the list.
//!
//! | module | | what |
//! |---|---|---|
//! | [`mod@env`] | S | network, clock, chance, disk, threads: the seam to the simulator |
//! | `backoff` | P | how long to wait after failures |
//! | [`config`] | P | the configuration file, checked as a whole |
//! | [`events`] | S | what happened, for operators |
//! | [`metrics`] | S | what is counted, for Prometheus |
//! | [`marks`] | P | seeded bugs and coverage marks, in builds for the simulator's own proof only |
//! | [`store`] | S | the one database: small facts, the agent's generation |
//! | [`ingest`] | P | records from bytes: parse, check, fold |
//! | [`history`] | S | counts per series and step, durable before they are acknowledged |
//! | `prometheus` | S | counts from Prometheus, and observations, forecasts and decisions to it |
//! | `client` | S | HTTP to what the agent drives or copies from |
//! | `tail` | S | records from files that others append to |
//! | `webhook` | S | anomalies to a URL |
//! | [`forecast`] | P | quantile paths from counts |
//! | [`anomaly`] | P | what is out of the ordinary, from what was foreseen and what came |
//! | [`calendar`] | S | what is known to come: its rules are pure, its keeper is not |
//! | [`mesh`] | S | QUIC, gossip, signed state, the view of the other regions |
//! | `prices` | S | what instances cost now, from tables, files and URLs |
//! | [`planner`] | P | a plan from one snapshot, and the checker of plans |
//! | [`pool`] | S | ledger, reconciler and accounting of the region's instances |
//! | [`negotiate`] | S | asks other regions for what this one lacks; what, whom and how much is pure |
//! | [`staging`] | S | what is made ready for a service before it is needed; what is next is pure |
//! | `keda` | S | an external scaler over gRPC: a cluster's own autoscaler follows the forecast |
//! | [`provider`] | S | what starts, activates, drains and stops instances |
//! | [`http`] | S | the API |
//! | [`agent`] | S | the composition root: the only module that knows all the others |
//! | [`demo`] | S | the main job by one command |

pub mod agent;
pub mod anomaly;
mod backoff;
pub mod calendar;
mod client;
pub mod config;
pub mod demo;
pub mod env;
pub mod events;
pub mod forecast;
pub mod history;
pub mod http;
pub mod ingest;
mod keda;
pub mod marks;
pub mod mesh;
pub mod metrics;
pub mod negotiate;
pub mod planner;
pub mod pool;
mod prices;
mod prometheus;
pub mod provider;
pub mod staging;
mod stop;
pub mod store;
mod tail;
#[cfg(test)]
mod testing;
mod webhook;
pub mod worker;
