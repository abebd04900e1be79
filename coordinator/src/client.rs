//! Asks an agent over HTTP, and tells apart everything that may go wrong.

use crate::args::Connection;
use crate::failure::Failure;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tradewind_protocol::api::Problem;
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The largest answer: forecasts of a hundred regions with a hundred series each take about 50 MiB
/// of JSON.
const MAX_ANSWER_BYTES: u64 = 128 * 1024 * 1024;

/// The largest event on a stream: one message of a few words, with room to spare.
const MAX_EVENT_BYTES: u64 = 256 * 1024;

/// The largest PEM file: an authority or a chain takes a few kilobytes.
const MAX_PEM_BYTES: u64 = 256 * 1024;

/// How long to wait for a connection, of the whole timeout at most: an agent is near or away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer that is not understood is repeated.
const SHOWN_CHARS: usize = 80;

/// One agent's API.
pub(crate) struct Client {
    http: Agent,
    base: String,
}

/// A complete answer, not looked into yet.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    agent: String,
    route: String,
}

impl Client {
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // An agent is asked directly: what stands in HTTP_PROXY is meant for the web.
            .proxy(None)
            .user_agent(concat!("tradewind/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(connection.timeout)))
            .timeout_recv_response(Some(connection.timeout))
            .timeout_global(Some(connection.timeout))
            .tls_config(tls_config(connection)?)
            .build();
        Ok(Self { http: config.new_agent(), base: connection.agent.clone() })
    }

    /// `GET route`, with the parameters that are given.
    pub(crate) fn get(&self, route: &str, query: &[(&str, Option<String>)]) -> Result<Answer, Failure> {
        let request = with_query(self.http.get(format!("{}{route}", self.base)), query).header("accept", "application/json");
        self.complete(&format!("GET {route}"), request.call())
    }

    /// `POST route` without a body.
    pub(crate) fn post(&self, route: &str, query: &[(&str, Option<String>)]) -> Result<Answer, Failure> {
        let request = with_query(self.http.post(format!("{}{route}", self.base)), query).header("accept", "application/json");
        self.complete(&format!("POST {route}"), request.send_empty())
    }

    /// `POST route` with a JSON document.
    pub(crate) fn post_json(&self, route: &str, document: &impl serde::Serialize) -> Result<Answer, Failure> {
        let request = self.http.post(format!("{}{route}", self.base)).header("accept", "application/json");
        self.complete(&format!("POST {route}"), request.send_json(document))
    }

    /// `DELETE route`.
    pub(crate) fn delete(&self, route: &str) -> Result<Answer, Failure> {
        let request = self.http.delete(format!("{}{route}", self.base)).header("accept", "application/json");
        self.complete(&format!("DELETE {route}"), request.call())
    }

    /// `GET route` as a stream of lines that ends when the agent does.
    pub(crate) fn follow(&self, route: &str, query: &[(&str, Option<String>)]) -> Result<Lines, Failure> {
        let request = with_query(self.http.get(format!("{}{route}", self.base)), query).header("accept", "application/x-ndjson");
        // Events come when they come: only the beginning of the answer is waited for with a limit.
        let answered = request.config().timeout_global(None).build().call();
        let route = format!("GET {route}");
        let response = self.accept(&route, answered)?;
        Ok(Lines { reader: BufReader::new(Box::new(response.into_body().into_reader())), agent: self.base.clone(), route })
    }

    fn complete(&self, route: &str, answered: Result<Response<Body>, ureq::Error>) -> Result<Answer, Failure> {
        let response = self.accept(route, answered)?;
        let body = response.into_body().into_with_config().limit(MAX_ANSWER_BYTES).read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => self.not_understood(route, format!("it is longer than {limit} bytes")),
            other => broken(&self.base, &other),
        })?;
        Ok(Answer { body, agent: self.base.clone(), route: route.to_owned() })
    }

    /// A successful response's beginning, or what the agent said instead.
    fn accept(&self, route: &str, answered: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
        let mut response = answered.map_err(|error| self.unanswered(route, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_EVENT_BYTES).read_to_vec().map_err(|error| broken(&self.base, &error))?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Failure::Refused(problem)),
            Err(_) => Err(self.not_understood(route, format!("status {status} with {}", excerpt(&body)))),
        }
    }

    fn unanswered(&self, route: &str, error: ureq::Error) -> Failure {
        let agent = self.base.clone();
        match error {
            ureq::Error::Io(e) if tls_refusal(&e) => Failure::Untrusted { agent, cause: io_cause(&e) },
            ureq::Error::Rustls(e) => Failure::Untrusted { agent, cause: e.to_string() },
            ureq::Error::Tls(e) => Failure::Untrusted { agent, cause: e.to_owned() },
            ureq::Error::Protocol(e) if agent.starts_with("http://") => {
                let cause = format!("not HTTP as it should be: {e}; if it speaks TLS ([api.tls]), give https:// and --ca FILE");
                self.not_understood(route, cause)
            }
            ureq::Error::Protocol(e) => self.not_understood(route, format!("not HTTP as it should be: {e}")),
            ureq::Error::Io(e) => Failure::Unreachable { agent, cause: io_cause(&e) },
            ureq::Error::HostNotFound => Failure::Unreachable { agent, cause: "the host name is unknown".to_owned() },
            ureq::Error::Timeout(_) => Failure::Unreachable { agent, cause: "no answer in time (--timeout)".to_owned() },
            // Not our enum: the library may add more.
            other => Failure::Unreachable { agent, cause: other.to_string() },
        }
    }

    fn not_understood(&self, route: &str, cause: String) -> Failure {
        Failure::NotUnderstood { agent: self.base.clone(), route: route.to_owned(), cause }
    }
}

impl Answer {
    /// The answer as `T`, JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::NotUnderstood {
            agent: self.agent.clone(),
            route: self.route.clone(),
            cause: format!("{error}, in {}", excerpt(&self.body)),
        })
    }
}

/// The lines of an answer that has no end.
pub(crate) struct Lines {
    reader: BufReader<Box<dyn Read>>,
    agent: String,
    route: String,
}

impl Lines {
    /// The next line, waited for; `None` when the agent ended the stream in order.
    pub(crate) fn next(&mut self) -> Result<Option<Answer>, Failure> {
        let mut body = Vec::new();
        let read = (&mut self.reader).take(MAX_EVENT_BYTES).read_until(b'\n', &mut body);
        read.map_err(|e| Failure::Broken { agent: self.agent.clone(), cause: io_cause(&e) })?;
        let whole = body.pop_if(|last| *last == b'\n').is_some();
        match (whole, body.is_empty()) {
            (false, true) => Ok(None),
            (false, false) => Err(Failure::Broken { agent: self.agent.clone(), cause: "the stream ended within an event".to_owned() }),
            (true, _) => Ok(Some(Answer { body, agent: self.agent.clone(), route: self.route.clone() })),
        }
    }

    /// What it means that an endless answer has ended.
    pub(crate) fn ended(&self) -> Failure {
        Failure::Broken { agent: self.agent.clone(), cause: "the agent ended the stream, as it does when it shuts down".to_owned() }
    }
}

fn with_query<T>(mut request: ureq::RequestBuilder<T>, query: &[(&str, Option<String>)]) -> ureq::RequestBuilder<T> {
    for (name, value) in query {
        if let Some(value) = value {
            request = request.query(name, value);
        }
    }
    request
}

/// A TLS alert arrives as an IO error that carries rustls' own.
fn tls_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn broken(agent: &str, error: &ureq::Error) -> Failure {
    let cause = match error {
        ureq::Error::Io(e) if tls_refusal(e) => return Failure::Untrusted { agent: agent.to_owned(), cause: io_cause(e) },
        ureq::Error::Io(e) => io_cause(e),
        ureq::Error::Timeout(_) => "the rest of the answer did not come in time (--timeout)".to_owned(),
        // Not our enum: the library may add more.
        other => other.to_string(),
    };
    Failure::Broken { agent: agent.to_owned(), cause }
}

/// The error in words, without the number that the operating system has for it.
fn io_cause(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut chars = words.chars();
    match (error.raw_os_error(), chars.next()) {
        (Some(_), Some(first)) => first.to_lowercase().chain(chars).collect(),
        (Some(_), None) | (None, _) => text,
    }
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_CHARS)]);
    match text.char_indices().nth(SHOWN_CHARS) {
        None if text.trim().is_empty() => "nothing".to_owned(),
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

fn tls_config(connection: &Connection) -> Result<TlsConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(provider.clone());
    if !connection.agent.starts_with("https:") {
        return Ok(builder.build());
    }
    let Some(ca) = &connection.ca else {
        return Err(Failure::Usage(format!("{} needs the mesh's authority: --ca FILE or TRADEWIND_CA", connection.agent)));
    };
    let builder = builder.root_certs(RootCerts::new_with_certs(&certificates(ca)?));
    let own = match (&connection.cert, &connection.key) {
        (Some(cert), Some(key)) => Some(client_certificate(cert, key, &provider)?),
        (None, None) => None,
        (Some(_), None) => return Err(Failure::Usage("--cert needs --key FILE or TRADEWIND_KEY".to_owned())),
        (None, Some(_)) => return Err(Failure::Usage("--key needs --cert FILE or TRADEWIND_CERT".to_owned())),
    };
    Ok(builder.client_cert(own).build())
}

/// The pair, after making sure that it is one: the HTTP library would panic over it.
fn client_certificate(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<ClientCert, Failure> {
    let chain = certificates(cert)?;
    let bad_key = |cause: String| Failure::BadFile { path: key.to_owned(), wanted: "the certificate's private key (PEM)", cause };
    let pem = read(key)?;
    let private = PrivateKey::from_pem(&pem).map_err(|e| bad_key(e.to_string()))?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| bad_key(e.to_string()))?;
    let certificates = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    CertifiedKey::from_der(certificates, der, provider).map_err(|e| bad_key(e.to_string()))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let bad = |cause: String| Failure::BadFile { path: path.to_owned(), wanted: "a certificate (PEM)", cause };
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&read(path)?) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(|e| bad(e.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(bad("there is no BEGIN CERTIFICATE in it".to_owned())) } else { Ok(found) }
}

/// A small file, as a whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |cause| Failure::File { action: "read", path: PathBuf::from(path), cause };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {MAX_PEM_BYTES} bytes"))));
    }
    Ok(bytes)
}
