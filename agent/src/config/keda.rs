//! `[keda]`: the external scaler.

use super::TlsPaths;
use super::section::{Section, address};
use std::net::SocketAddr;

/// The external scaler's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KedaConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// With this it speaks TLS and asks clients for a certificate of the authority.
    pub tls: Option<TlsPaths>,
}

pub(super) fn read(s: &mut Section) -> Option<KedaConfig> {
    let listen = s.required("listen", "the TCP address of the external scaler, like \"127.0.0.1:7490\"", address);
    let wants_tls = s.has("tls");
    let tls = if wants_tls { Some(s.table("tls", super::check::tls)?) } else { None };
    let listen = listen?;
    if !wants_tls && !listen.ip().is_loopback() {
        s.problem("listen", listen, "beyond loopback the scaler needs client certificates: add [keda.tls], or listen on 127.0.0.1");
    }
    Some(KedaConfig { listen, tls })
}
