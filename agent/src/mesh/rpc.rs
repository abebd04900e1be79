//! Requests between agents: one bidirectional stream each. The mesh answers `Fetch` itself; every
//! other request is the [`PeerService`]'s.

use super::bounds::STREAM_TIMEOUT;
use super::link::{self, Link};
use super::refusal::Refusal;
use super::{Mesh, MeshError, PeerService};
use quinn::{RecvStream, SendStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tradewind_protocol::RegionId;
use tradewind_protocol::wire::{self, Envelope, Kind, Published, Request, Response, codec};

/// The largest request: a name and a few numbers.
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// How long a peer may take to answer; a planning round takes well under a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks the other end of `link`.
pub(super) async fn ask(link: &Link, request: &Request) -> Result<Response, MeshError> {
    let (version, peer) = (link.version, || link.region.clone());
    let message = link::encode(version, Kind::Request, request)
        .ok_or_else(|| MeshError::BadAnswer { region: peer(), what: "no request that fits" })?;
    let exchange = async {
        let lost = |reason: String| MeshError::Lost { region: peer(), reason };
        let (mut send, mut receive) = link.connection.open_bi().await.map_err(|e| lost(e.to_string()))?;
        send.write_all(&message).await.map_err(|e| lost(e.to_string()))?;
        send.finish().map_err(|e| lost(e.to_string()))?;
        receive.read_to_end(wire::MAX_MESSAGE_BYTES).await.map_err(|e| lost(e.to_string()))
    };
    let answer = timeout(REQUEST_TIMEOUT, exchange).await.map_err(|_| MeshError::Timeout { region: peer(), after: REQUEST_TIMEOUT })??;
    let bad = |what| MeshError::BadAnswer { region: peer(), what };
    match Envelope::parse(&answer, version) {
        Ok(Envelope { kind: Kind::Response, body }) => codec::decode(body).map_err(|_| bad("bytes that are no response")),
        Ok(_) => Err(bad("a message of another kind")),
        Err(_) => Err(bad("bytes that are no message")),
    }
}

/// Answers the other end's requests until the connection ends.
pub(super) async fn serve(mesh: &Arc<Mesh>, link: &Arc<Link>) {
    // As many tasks at once as the transport allows streams.
    while let Ok((send, receive)) = link.connection.accept_bi().await {
        if let Err(reason) = link.may_open_stream() {
            mesh.refuse(&link.region, reason);
            continue;
        }
        let (mesh, link) = (mesh.clone(), link.clone());
        tokio::spawn(async move {
            let answered = answer(&mesh, &link, send, receive).await;
            answered.unwrap_or_else(|reason| mesh.refuse(&link.region, reason));
        });
    }
}

async fn answer(mesh: &Mesh, link: &Link, mut send: SendStream, mut receive: RecvStream) -> Result<(), Refusal> {
    let message = match timeout(STREAM_TIMEOUT, receive.read_to_end(MAX_REQUEST_BYTES)).await {
        Ok(Ok(message)) => message,
        Ok(Err(quinn::ReadToEndError::TooLong)) => return Err(Refusal::Oversized),
        Ok(Err(quinn::ReadToEndError::Read(_))) | Err(_) => return Ok(()),
    };
    let request = match Envelope::parse(&message, link.version) {
        Ok(Envelope { kind: Kind::Request, body }) => codec::decode(body).map_err(|_| Refusal::Malformed)?,
        Ok(_) => return Err(Refusal::Misplaced),
        Err(_) => return Err(Refusal::Malformed),
    };
    let response = respond(mesh, &link.region, request).await;
    let Some(message) = link::encode(link.version, Kind::Response, &response) else { return Ok(()) };
    let write = async {
        send.write_all(&message).await.ok()?;
        send.finish().ok()
    };
    if matches!(timeout(STREAM_TIMEOUT, write).await, Ok(Some(()))) {
        mesh.counters.requests_served.bump();
    }
    Ok(())
}

/// The answer to `request`, whoever asks.
pub(super) async fn respond(mesh: &Mesh, from: &RegionId, request: Request) -> Response {
    match request {
        Request::Fetch { region } => {
            let published = mesh.core().published(&region);
            match published {
                Some(published) => {
                    mesh.counters.fetches_served.bump();
                    Response::Published(Box::new(Published::clone(&published)))
                }
                None => Response::NotHeld,
            }
        }
        request @ (Request::PredictiveScale { .. } | Request::Reserve(_)) => {
            let service: &dyn PeerService = &*mesh.service;
            let handled = timeout(REQUEST_TIMEOUT, service.handle(from, request)).await;
            handled.unwrap_or_else(|_| Response::Refused { reason: format!("not done within {REQUEST_TIMEOUT:?}") })
        }
    }
}
