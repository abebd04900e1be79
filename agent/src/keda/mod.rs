//! An external scaler for KEDA over gRPC: a cluster's own autoscaler follows the forecast demand of a service at the lead time.
//!
//! A `ScaledObject` names the `service` in its metadata, and may name the `targetRate` of one replica (else what the pool's
//! configuration says of one instance). The metric is the demand of the newest plan, at the planned quantile and the highest within
//! the lead time, and never less than what was observed last. While there is no plan a request fails, so that KEDA's own fallback decides.

mod wire;

use crate::config::Config;
use crate::env::{Listener, Stream};
use crate::http::Progress;
use crate::stop::told;
use bytes::Bytes;
use h2::server::SendResponse;
use hyper::http::{HeaderMap, Request, Response};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wire::{Asked, MAX_MESSAGE_BYTES};

/// Connections at a time: one an operator replica, and some for people who look.
const MAX_CONNECTIONS: usize = 64;

/// Calls at a time on one connection: a stream a ScaledObject, and what is asked beside it.
const MAX_STREAMS: u32 = 1_024;

/// How long a client may take over its handshake, or over a request's body.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long to wait after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What calls are addressed to.
const SERVICE: &str = "/externalscaler.ExternalScaler/";

/// gRPC's codes for what can go wrong here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    InvalidArgument = 3,
    NotFound = 5,
    Unimplemented = 12,
    Unavailable = 14,
}

type Refusal = (Code, String);

/// What calls are answered from.
pub(crate) struct Keda {
    pub(crate) config: Arc<Config>,
    pub(crate) progress: watch::Receiver<Progress>,
}

/// What is known of a service's demand.
struct Demand {
    /// Transactions per second.
    rate: f64,
    /// What one replica is to serve of them.
    target: f64,
}

impl Keda {
    fn demand(&self, asked: &Asked) -> Result<Demand, Refusal> {
        let service = asked.metadata.get("service").ok_or((Code::InvalidArgument, "the trigger's metadata names no `service`".into()))?;
        let pools = || self.config.pools.iter().filter(|pool| pool.service.as_str() == service);
        let unknown = || (Code::NotFound, format!("no pool of region {} serves {service}", self.config.region));
        let own = pools().map(|pool| pool.rate_per_instance).fold(f64::INFINITY, f64::min);
        if pools().next().is_none() {
            return Err(unknown());
        }
        let target = match asked.metadata.get("targetRate").map(|text| (text, text.parse::<f64>())) {
            None => own,
            Some((_, Ok(target))) if target.is_finite() && target > 0.0 => target,
            Some((text, _)) => return Err((Code::InvalidArgument, format!("targetRate = {text:?} must be a number above 0"))),
        };
        let progress = self.progress.borrow();
        let plan = progress.plan.as_ref().ok_or((Code::Unavailable, "there is no plan yet; ask again after one step".into()))?;
        // Each of the service's pools is to serve a share of its demand.
        let shares = plan.decisions.iter().filter(|decision| decision.service.as_str() == service);
        let rate = shares.map(|decision| decision.reason.demand_rate.max(decision.reason.observed_rate)).sum();
        Ok(Demand { rate, target })
    }
}

/// The metric's name, which KEDA repeats when it asks.
fn metric_name(asked: &Asked) -> String {
    format!("tradewind-{}", asked.metadata.get("service").map_or("", String::as_str))
}

/// Answers until `stop` is true.
pub(crate) async fn serve(keda: Arc<Keda>, mut listener: Box<dyn Listener>, tls: Option<TlsAcceptor>, mut stop: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match (accepted, free.clone().try_acquire_owned()) {
            (Ok((stream, peer)), Ok(permit)) => {
                let (keda, tls) = (keda.clone(), tls.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = connection(keda, stream, tls).await {
                        tracing::debug!(%peer, error, "a scaler's connection ended");
                    }
                });
            }
            (Ok((_, peer)), Err(_)) => tracing::warn!(%peer, "more than {MAX_CONNECTIONS} connections to the scaler: refused"),
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection to the scaler");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // Calls are short, but for streams, which nobody would end.
    connections.shutdown().await;
}

async fn connection(keda: Arc<Keda>, stream: Box<dyn Stream>, tls: Option<TlsAcceptor>) -> Result<(), String> {
    let late = |_| "no handshake in time".to_string();
    let stream: Box<dyn Stream> = match tls {
        None => stream,
        Some(tls) => Box::new(timeout(PATIENCE, tls.accept(stream)).await.map_err(late)?.map_err(|e: io::Error| e.to_string())?),
    };
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(MAX_STREAMS);
    let handshake = timeout(PATIENCE, builder.handshake::<_, Bytes>(stream)).await.map_err(late)?;
    let mut connection = handshake.map_err(|e| e.to_string())?;
    let mut calls = JoinSet::new();
    while let Some(call) = connection.accept().await {
        let (request, respond) = call.map_err(|e| e.to_string())?;
        while calls.try_join_next().is_some() {}
        let keda = keda.clone();
        calls.spawn(async move {
            if let Err(error) = answer(keda, request, respond).await {
                tracing::debug!(%error, "a scaler's call ended");
            }
        });
    }
    Ok(())
}

/// Answers one call.
async fn answer(keda: Arc<Keda>, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let method = request.uri().path().strip_prefix(SERVICE).unwrap_or_default().to_string();
    let body = timeout(PATIENCE, body(request.into_body())).await.unwrap_or_else(|_| Err("the request takes too long".into()));
    let asked = body.map_err(|reason| (Code::InvalidArgument, reason)).and_then(|body| {
        let read = wire::unframe(&body).and_then(|message| match method.as_str() {
            "GetMetrics" => wire::get_metrics(message),
            _ => wire::scaled_object(message),
        });
        read.map_err(|reason| (Code::InvalidArgument, reason.to_string()))
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refuse(&mut respond, &refusal),
    };
    let message = match method.as_str() {
        "IsActive" => keda.demand(&asked).map(|demand| wire::is_active(demand.rate > 0.0)),
        "GetMetricSpec" => keda.demand(&asked).map(|demand| wire::metric(&metric_name(&asked), demand.target)),
        "GetMetrics" => keda.demand(&asked).map(|demand| wire::metric(&metric_name(&asked), demand.rate)),
        "StreamIsActive" => return stream(&keda, &asked, &mut respond).await,
        _ => Err((Code::Unimplemented, "this is an ExternalScaler of externalscaler.proto".into())),
    };
    match message {
        Err(refusal) => refuse(&mut respond, &refusal),
        Ok(message) => {
            let mut out = respond.send_response(head(), false)?;
            out.send_data(wire::frame(&message).into(), false)?;
            out.send_trailers(good())
        }
    }
}

/// Says whether there is demand, and again whenever that changes, until the client has heard enough.
async fn stream(keda: &Keda, asked: &Asked, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut progress = keda.progress.clone();
    let mut said = None;
    if let Err(refusal @ (Code::InvalidArgument | Code::NotFound, _)) = keda.demand(asked) {
        return refuse(respond, &refusal);
    }
    let mut out = respond.send_response(head(), false)?;
    loop {
        let active = keda.demand(asked).ok().map(|demand| demand.rate > 0.0);
        if let Some(active) = active.filter(|active| said != Some(*active)) {
            out.send_data(wire::frame(&wire::is_active(active)).into(), false)?;
            said = Some(active);
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return out.send_trailers(good()) },
            _ = std::future::poll_fn(|cx| out.poll_reset(cx)) => return Ok(()),
        }
    }
}

async fn body(mut from: h2::RecvStream) -> Result<Vec<u8>, String> {
    let mut all = vec![];
    while let Some(piece) = from.data().await {
        let piece = piece.map_err(|error| error.to_string())?;
        let _ = from.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
        if all.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a request is longer than {MAX_MESSAGE_BYTES} bytes"));
        }
    }
    Ok(all)
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", hyper::http::HeaderValue::from_static("application/grpc"));
    head
}

fn good() -> HeaderMap {
    HeaderMap::from_iter([(hyper::http::HeaderName::from_static("grpc-status"), hyper::http::HeaderValue::from_static("0"))])
}

fn refuse(respond: &mut SendResponse<Bytes>, (code, reason): &Refusal) -> Result<(), h2::Error> {
    let mut head = head();
    // Percent-encoded where it is not plain ASCII, as gRPC's HTTP/2 mapping asks.
    let plain = |byte: u8| if (0x20..0x7f).contains(&byte) && byte != b'%' { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let message: String = reason.bytes().map(plain).collect();
    head.headers_mut().insert("grpc-status", hyper::http::HeaderValue::from(*code as u16));
    if let Ok(message) = message.parse() {
        head.headers_mut().insert("grpc-message", message);
    }
    respond.send_response(head, true).map(drop)
}

#[cfg(test)]
mod tests;
