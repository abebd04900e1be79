//! Who may use how much of whose capacity, and when: agreements between two regions about one's pool.
//!
//! The region that owns a pool is the only writer of its [`ledger`]. Another region asks it to `Hold`
//! units over a future window; the owner answers `Held`, `Countered` with what would fit instead, or `Refused`. The
//! holder `Confirm`s, `Refresh`es before the promise lapses, and `Release`s what it no longer needs; a soft
//! promise may be `Preempted`. Requests that need several regions hold all, then confirm all, or release.
//!
//! Two cores, both pure: [`ledger`] is the owner's, [`holder`] the asking region's; [`message`] is what they
//! say to each other, [`lease`] how long a promise may be relied upon.

pub mod holder;
pub mod lease;
pub mod ledger;
pub mod message;
mod terms;
mod timeline;

pub use terms::{Confidence, Now, Offer, Phase, ReservationId, Terms, Tier, Window, first_number};
