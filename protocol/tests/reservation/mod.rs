//! The ledger against a naive one, both sides under faults, and both sides exhaustively in small.

mod faults;
mod model;
mod naive;
