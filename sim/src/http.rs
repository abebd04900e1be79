//! The least HTTP/1.1 client that can talk to an agent over the simulated network: one request a
//! connection, bodies of known length, everything bounded in time and size.

use anyhow::{Context as _, bail, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

/// `GET path` of the agent at `to`.
pub(crate) async fn get(to: SocketAddr, path: &str) -> anyhow::Result<Response> {
    request(to, format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n").into_bytes()).await
}

/// `POST path` of the agent at `to`, with a JSON body and an idempotency key.
pub(crate) async fn post_json(to: SocketAddr, path: &str, key: &str, body: &[u8]) -> anyhow::Result<Response> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    request(to, [head.as_bytes(), body].concat()).await
}

async fn request(to: SocketAddr, bytes: Vec<u8>) -> anyhow::Result<Response> {
    let exchange = async {
        let mut stream = turmoil::net::TcpStream::connect(to).await.context("cannot connect")?;
        stream.write_all(&bytes).await?;
        let mut answer = Vec::new();
        loop {
            if let Some(response) = parse(&answer)? {
                return Ok(response);
            }
            ensure!(stream.read_buf(&mut answer).await? > 0, "the answer ended after {} bytes", answer.len());
        }
    };
    tokio::time::timeout(TIMEOUT, exchange).await.with_context(|| format!("no answer from {to} within {TIMEOUT:?}"))?
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
