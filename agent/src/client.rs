//! An HTTP client for what the agent drives or copies from: HTTP/1.1, plain or over TLS, bounded in time and size.
//!
//! One connection a request: callers ask every few seconds at the most, and nothing is ever stale. Unlike the blocking client of
//! the feeds it streams, which watches and copies need, and a request ends when whoever awaits it goes away.

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Where systems keep the authorities that they trust, the environment's own choice apart.
const SYSTEM_AUTHORITIES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// A server, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Client {
    host: String,
    port: u16,
    /// What comes before every path.
    prefix: String,
    tls: Option<TlsConnector>,
}

/// Whom to trust and who we are, in PEM. No authority means the system's.
#[derive(Clone, Default)]
pub(crate) struct Identity {
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query, after what the client's URL begins with.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: vec![], body: vec![] }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The wait that the server asks for, in seconds (RFC 9110, 10.2.3); dates are not understood.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.headers.get("retry-after")?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
    }
}

/// An answer whose body is still coming.
pub(crate) struct Streaming {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Streaming {
    /// The next piece, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(format!("the answer broke off: {error}"))),
            }
        }
    }

    /// The whole of it, if it is no more than `max` bytes.
    pub(crate) async fn whole(mut self, max: usize) -> Result<Answer, String> {
        let mut body = vec![];
        while let Some(piece) = self.next().await {
            body.extend_from_slice(&piece?);
            if body.len() > max {
                return Err(format!("the answer is longer than {max} bytes"));
            }
        }
        Ok(Answer { status: self.status, headers: std::mem::take(&mut self.headers), body })
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A URL's parts: whether it is https, host, port, and the path without a slash at its end.
pub(crate) fn parts(url: &str) -> Result<(bool, String, u16, String), String> {
    let wanted = || "must be a URL that begins with http:// or https://".to_string();
    let uri: Uri = url.parse().map_err(|_| wanted())?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return Err(wanted()),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wanted)?;
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = uri.path_and_query().map(|path| path.as_str()).unwrap_or_default();
    Ok((secure, host.trim_matches(['[', ']']).to_string(), port, path.trim_end_matches('/').to_string()))
}

impl Client {
    /// A client for what is below `url`.
    pub(crate) fn new(url: &str, identity: &Identity) -> Result<Self, String> {
        let (secure, host, port, prefix) = parts(url)?;
        let tls = if secure { Some(connector(identity)?) } else { None };
        Ok(Self { host, port, prefix, tls })
    }

    /// The whole answer, of at most `max` bytes, within `timeout`.
    pub(crate) async fn ask(&self, ask: Ask, max: usize, timeout: Duration) -> Result<Answer, String> {
        let answer = async { self.open(ask).await?.whole(max).await };
        let late = |_| format!("{}:{} has not answered within {timeout:?}", self.host, self.port);
        tokio::time::timeout(timeout, answer).await.map_err(late)?
    }

    /// The head of an answer, and its body as it comes. Whoever reads it sets the bounds.
    pub(crate) async fn open(&self, ask: Ask) -> Result<Streaming, String> {
        let at = format!("{}:{}", self.host, self.port);
        let failed = |error: &dyn std::fmt::Display| format!("{at}: {error}");
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| failed(&e))?;
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.speak(TokioIo::new(stream), ask).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|e| failed(&e))?;
                let stream = tls.connect(name, stream).await.map_err(|e| failed(&e))?;
                self.speak(TokioIo::new(stream), ask).await
            }
        }
        .map_err(|error| failed(&error))
    }

    async fn speak<S>(&self, stream: S, ask: Ask) -> Result<Streaming, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(MAX_HEAD_BYTES);
        let (mut sender, connection) = http.handshake(stream).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        let path = format!("{}{}", self.prefix, ask.path);
        let host = if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) };
        let mut request = hyper::Request::builder().method(ask.method).uri(if path.is_empty() { "/" } else { &path });
        request = request.header("host", host).header("user-agent", concat!("tradewind/", env!("CARGO_PKG_VERSION")));
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(ask.body))).map_err(|e| e.to_string())?;
        match sender.send_request(request).await {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok(Streaming { status: head.status, headers: head.headers, body, connection })
            }
            Err(error) => {
                connection.abort();
                Err(error.to_string())
            }
        }
    }
}

fn connector(identity: &Identity) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match &identity.authority {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|e| format!("the authority is not PEM: {e}"))?).map_err(|e| e.to_string())?;
            }
        }
        None => {
            let own = std::env::var("SSL_CERT_FILE").ok();
            let found = own.iter().map(String::as_str).chain(SYSTEM_AUTHORITIES).find_map(|path| CertificateDer::pem_file_iter(path).ok());
            // A system's bundle may hold some that rustls does not take.
            found.into_iter().flatten().flatten().for_each(|certificate| drop(roots.add(certificate)));
        }
    }
    if roots.is_empty() {
        return Err("there is no authority to trust; name one with `ca`".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let config = match &identity.certificate {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|e| format!("the client's certificate is not PEM: {e}"))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("the client's key is not PEM: {e}"))?;
            config.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(parts("http://h/a/"), Ok((false, "h".into(), 80, "/a".into())));
        assert_eq!(parts("https://[::1]:8443"), Ok((true, "::1".into(), 8443, String::new())));
        for bad in ["h", "ftp://h/", "http://", ""] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    use crate::env::Env;
    use crate::http;
    use crate::testing::Authority;
    use tokio::sync::watch;

    #[tokio::test]
    async fn https_trusts_the_named_authority_alone_checks_the_name_and_shows_its_certificate() {
        let (ours, other) = (Authority::new(1), Authority::new(2));
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(dir.path()).unwrap();
        let tls = http::acceptor(&ours.server(), &env, b"http/1.1").unwrap();
        let listener = env.network.bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().route("/below/hello", axum::routing::get(async || "hello"));
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(http::serve(listener, Some(tls), router, stopped));
        let ask = async |host: &str, identity: &Identity| {
            let client = Client::new(&format!("https://{host}:{port}/below/"), identity).unwrap();
            client.ask(Ask::get("/hello"), 1_000, Duration::from_secs(60)).await
        };
        let good = ask("127.0.0.1", &ours.client()).await.unwrap();
        assert_eq!((good.status, &good.body[..]), (StatusCode::OK, &b"hello"[..]));
        let stranger = Identity { certificate: None, ..ours.client() };
        assert!(ask("127.0.0.1", &stranger).await.is_err(), "without a certificate");
        let misled = Identity { authority: Some(other.pem()), ..ours.client() };
        let refused = ask("127.0.0.1", &misled).await.unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
        let elsewhere = ask("localhost", &ours.client()).await.unwrap_err();
        assert!(elsewhere.contains("localhost"), "{elsewhere}");
        for (authority, certificate) in [(Some(b"no PEM".to_vec()), None), (Some(ours.pem()), Some((ours.pem(), b"no key".to_vec())))] {
            assert!(Client::new("https://h", &Identity { authority, certificate }).is_err());
        }
        stop.send_replace(true);
        server.await.unwrap();
    }
}
