//! The order to stop, as the agent's tasks see it.

use tokio::sync::watch;

/// Completes when `stop` is true, or when nobody can make it true any more.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
