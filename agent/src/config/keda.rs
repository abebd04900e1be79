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

#[cfg(test)]
mod tests {
    use crate::config::{BASE, Config};

    #[test]
    fn every_mistake_is_told_with_its_place() {
        for (keda, named) in [
            ("", "keda.listen = (missing)"),
            ("listen = \"keda\"\n", "keda.listen = \"keda\""),
            ("listen = \"0.0.0.0:7490\"\n", "add [keda.tls]"),
            ("listen = \"0.0.0.0:7490\"\n[keda.tls]\nca = \"ca.pem\"\n", "keda.tls.certificate = (missing)"),
            ("listen = \"127.0.0.1:7490\"\nport = 1\n", "keda.port = 1"),
        ] {
            let error = Config::parse(&format!("{BASE}[keda]\n{keda}"), []).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
        }
    }
}
