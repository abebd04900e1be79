//! The protocol from outside: its bytes stay what they are, values survive the trip, hostile bytes
//! harm nobody, and certificates mean what they say.

mod codec;
mod golden;
mod hostile;
mod json;
mod meter;
mod pki;
mod reservation;
mod samples;
mod strategies;
