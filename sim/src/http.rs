//! The least HTTP/1.1 client that can talk to an agent over the simulated network: one request at a time on a connection, which
//! is kept for the next one, bodies of known length, everything bounded in time and size.

use crate::env::Machine;
use anyhow::{Context as _, bail, ensure};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::TcpStream;

/// How long a request may take: two of the longest round trips, and a slow agent.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer: the views of a hundred regions take a few hundred kilobytes.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// The API of the agent on a machine.
pub(crate) struct Api {
    to: SocketAddr,
    machine: Rc<Machine>,
    /// The life of the machine that the connections are with.
    life: Cell<u64>,
    /// Connections that wait for a request.
    idle: RefCell<Vec<TcpStream>>,
}

impl Api {
    pub(crate) fn new(to: SocketAddr, machine: Rc<Machine>) -> Self {
        Self { to, machine, life: Cell::new(0), idle: RefCell::default() }
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.request(format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.to).into_bytes()).await
    }

    /// `POST path`, with a JSON body and an idempotency key.
    pub(crate) async fn post_json(&self, path: &str, key: &str, body: &[u8]) -> anyhow::Result<Response> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
            self.to,
            body.len()
        );
        self.request([head.as_bytes(), body].concat()).await
    }

    /// `POST path`, with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> anyhow::Result<Response> {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n", self.to);
        self.request([head.as_bytes(), body].concat()).await
    }

    /// `DELETE path`.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Response> {
        self.request(format!("DELETE {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.to).into_bytes()).await
    }

    async fn request(&self, bytes: Vec<u8>) -> anyhow::Result<Response> {
        let answered = tokio::time::timeout(TIMEOUT, async {
            if let Some(mut kept) = self.kept() {
                // One that the agent has closed meanwhile is no reason to give up.
                if let Ok(response) = exchange(&mut kept, &bytes).await {
                    return anyhow::Ok((kept, response));
                }
            }
            let mut stream = TcpStream::connect(self.to).await.context("cannot connect")?;
            let response = exchange(&mut stream, &bytes).await?;
            Ok((stream, response))
        });
        let (stream, response) = answered.await.with_context(|| format!("no answer from {} within {TIMEOUT:?}", self.to))??;
        if self.life.get() == self.machine.boots() {
            self.idle.borrow_mut().push(stream);
        }
        Ok(response)
    }

    fn kept(&self) -> Option<TcpStream> {
        if self.life.replace(self.machine.boots()) != self.machine.boots() {
            self.idle.borrow_mut().clear();
        }
        self.idle.borrow_mut().pop()
    }
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<Response> {
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(response) = parse(&answer)? {
            return Ok(response);
        }
        ensure!(stream.read_buf(&mut answer).await? > 0, "the answer ended after {} bytes", answer.len());
    }
}

/// The response in `bytes`, once it is whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Response>> {
    ensure!(bytes.len() <= MAX_RESPONSE_BYTES, "the answer is longer than {MAX_RESPONSE_BYTES} bytes");
    let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_end]).context("the answer's head is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let Some(status) = status else { bail!("the answer begins with {:?}", head.lines().next()) };
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().with_context(|| format!("content-length {value:?}"))?;
        }
        ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "answers of unknown length are not understood");
    }
    let body = &bytes[head_end + 4..];
    Ok((body.len() >= length).then(|| Response { status, body: body[..length].to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_waited_for_or_refused() {
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(parse(whole).unwrap(), Some(Response { status: 404, body: b"abc".to_vec() }));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "{cut}");
        }
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
