//! Tradewind as its users run it: real processes over real sockets.

mod agents;
mod api;
mod command_line;
mod docker;
mod feeds;
mod keda;
mod outlook;
mod reservations;
mod spot;
mod staging;
mod strangers;
