//! What agents say to each other, and the rules of it.
//!
//! This crate holds the vocabulary (ids, time, resources, records, forecasts, pools, plans), the
//! wire format, the certificate profile, the HTTP API's types and the sans-IO cores. It imports no
//! other crate of the workspace, and never tokio, quinn, a clock or entropy: whatever needs the
//! time or chance is handed it as an argument.
//!
//! # The contract of every core
//!
//! A *core* decides and touches nothing; a *shell* (in the agent) drives it.
//!
//! - `handle(&mut self, input: Input, now: Timestamp) -> impl Iterator<Item = Output>` is total: a
//!   bad message is an `Output` or an error, never a panic.
//! - Outputs are carried out in order. A `Persist` comes before the `Send` that depends on it; if
//!   a persist fails, the shell stops that component.
//! - `next_deadline(&self)` names when the core wants a tick, and why. Early or repeated ticks
//!   change nothing.
//! - `check_invariants(&self)` runs after every `handle` in tests; each invariant is a named
//!   function whose doc comment is the rule in English.
//!
//! # Where to read next
//!
//! [`record::TransactionRecord`] is what comes in, [`forecast::PredictionData`] what is foreseen,
//! [`region::RegionState`] what a region tells the others, [`plan::RegionalResourcePlan`] what it
//! does about it; [`wire`] is how the bytes look.

pub mod api;
pub mod calendar;
pub mod forecast;
pub mod ids;
pub mod pki;
pub mod plan;
pub mod pool;
pub mod record;
pub mod region;
pub mod reservation;
pub mod resources;
pub mod time;
pub mod wire;

pub use calendar::CalendarEvent;
pub use forecast::{PredictionData, Quantile, QuantilePath, SeriesKey};
pub use ids::{
    EventName, IdempotencyKey, InstanceId, PoolName, RecordId, RegionId, ServiceName, StageName, TenantName, TransactionType, UserId,
};
pub use plan::{PoolDecision, RegionalResourcePlan, SpotMix};
pub use pool::{InstanceCounts, Market, ResourcePool};
pub use record::TransactionRecord;
pub use region::RegionState;
pub use resources::Resources;
pub use time::{Step, StepIndex, Timestamp};
