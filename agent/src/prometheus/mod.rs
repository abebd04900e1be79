//! Prometheus and whatever speaks its HTTP API: counts from range queries ([`read`]), observations, forecasts and decisions to
//! remote write ([`mod@write`]).
//!
//! Invariant: a server that is away, slow or wrong delays what it is for, and nothing else.

pub(crate) mod read;
pub(crate) mod write;

use crate::backoff;
use std::time::Duration;

/// How long a request may take: Prometheus gives a query two minutes, but no step should wait so long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause after a failure; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A server that comes back is found within half a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A client that takes any status for an answer.
pub(crate) fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None).timeout_global(Some(TIMEOUT));
    config.user_agent(concat!("tradewind/", env!("CARGO_PKG_VERSION"))).build().into()
}

/// The pause after `failures` failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    backoff::pause(failures, FIRST_PAUSE, LONGEST_PAUSE)
}
