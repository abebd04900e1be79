//! Serves a router on a listener of the [`Env`](crate::env::Env): plain or mutual TLS, bounded in
//! connections and in patience, shut down without cutting an answer short.

use crate::env::{Listener, Stream};
use crate::stop::told;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Connections at a time: ten times what a fleet of collectors keeps open; each costs some 20 KiB.
const MAX_CONNECTIONS: usize = 1_024;
/// How long a client may take over its request's head, or its TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long open requests may take to finish at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept: it fails for want of file descriptors, above all.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves `router` until `stop` is true, then lets open requests finish.
pub(crate) async fn serve(mut listener: Box<dyn Listener>, tls: Option<TlsAcceptor>, router: Router, mut stop: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            biased;
            () = told(&mut stop) => break,
            permit = free.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            biased;
            () = told(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = connection(stream, tls, router, stop).await {
                        debug!(%peer, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    if timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        debug!(open = connections.len(), "closing connections that did not finish");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: Box<dyn Stream>,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    let stream: Box<dyn Stream> = match tls {
        None => stream,
        Some(tls) => Box::new(timeout(HEAD_TIMEOUT, tls.accept(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??),
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await?;
        }
        ended = connection.as_mut() => ended?,
    }
    Ok(())
}
