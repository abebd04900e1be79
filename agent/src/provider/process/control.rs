//! The control channel between an agent and its worker processes: lines of text over a unix socket.
//!
//! # The contract of a worker
//!
//! Any program can be a worker. It is started with
//!
//! - `TRADEWIND_INSTANCE`: its id; `TRADEWIND_POOL`: its pool's name;
//! - `TRADEWIND_CONTROL`: path of a unix stream socket on which the agent listens;
//! - `TRADEWIND_ORPHAN_TIMEOUT_MS`: how long it may live without an agent;
//!
//! stdin is empty, stdout and stderr go to the pool's `workers.log`. These variables must stay in the
//! worker's environment: the agent recognises what it started by them. The worker
//!
//! 1. connects to the socket at once and writes `hello <instance> <state>`, where the state is
//!    `starting`, `warm`, `active` or `draining`; the agent answers `status`;
//! 2. writes `state <state>` whenever its state changes, first from `starting` to `warm` when it is
//!    ready to serve;
//! 3. obeys `activate` (warm to active), `deactivate` (active to warm), `drain` (finish what you have,
//!    then exit) and `status`, and answers each with `state <state>`, also when nothing changed; it
//!    answers an order it does not know in the same way;
//! 4. treats SIGTERM like `drain`;
//! 5. when the connection ends, keeps its state, goes on serving and tries to connect again every
//!    200 ms or so: the agent may have been restarted. After the orphan timeout without a
//!    connection on which the agent has spoken it drains and exits, so that it never outlives an
//!    agent that does not return.
//!
//! A worker that does not keep to its drain timeout, or is out of contact for the orphan timeout and
//! the drain timeout together, is killed with its whole process group.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tradewind_protocol::InstanceId;
use tradewind_protocol::api::InstanceState;

/// Names of the environment variables of the contract.
pub(crate) const ENV_INSTANCE: &str = "TRADEWIND_INSTANCE";
pub(crate) const ENV_POOL: &str = "TRADEWIND_POOL";
pub(crate) const ENV_CONTROL: &str = "TRADEWIND_CONTROL";
pub(crate) const ENV_ORPHAN_TIMEOUT: &str = "TRADEWIND_ORPHAN_TIMEOUT_MS";

/// How long a worker lives without an agent: longer than an agent's upgrade takes.
pub(crate) const DEFAULT_ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a worker without an agent tries to reach one: the most that this adds to an adoption,
/// at the cost of five failed `connect` calls a second.
pub(crate) const RECONNECT: Duration = Duration::from_millis(200);

/// The longest line: `hello`, the longest id and the longest state take 150 bytes.
pub(crate) const MAX_LINE_BYTES: usize = 256;

/// What an agent tells a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToWorker {
    Activate,
    Deactivate,
    Drain,
    Status,
}

impl ToWorker {
    /// The line, with its end.
    pub(crate) fn line(self) -> &'static str {
        match self {
            ToWorker::Activate => "activate\n",
            ToWorker::Deactivate => "deactivate\n",
            ToWorker::Drain => "drain\n",
            ToWorker::Status => "status\n",
        }
    }

    /// The order in `line`, if it is one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.trim() {
            "activate" => Some(ToWorker::Activate),
            "deactivate" => Some(ToWorker::Deactivate),
            "drain" => Some(ToWorker::Drain),
            "status" => Some(ToWorker::Status),
            _ => None,
        }
    }
}

/// What a worker tells its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromWorker {
    Hello(InstanceId, InstanceState),
    State(InstanceState),
}

impl FromWorker {
    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        match self {
            FromWorker::Hello(id, state) => format!("hello {id} {}\n", state.word()),
            FromWorker::State(state) => format!("state {}\n", state.word()),
        }
    }

    /// The message in `line`, if it is one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let message = match words.next()? {
            "hello" => FromWorker::Hello(InstanceId::new(words.next()?).ok()?, state(words.next()?)?),
            "state" => FromWorker::State(state(words.next()?)?),
            _ => return None,
        };
        words.next().is_none().then_some(message)
    }
}

fn state(text: &str) -> Option<InstanceState> {
    [InstanceState::Starting, InstanceState::Warm, InstanceState::Active, InstanceState::Draining].into_iter().find(|s| s.word() == text)
}

/// Lines from a stream, none longer than [`MAX_LINE_BYTES`].
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::with_capacity(MAX_LINE_BYTES) }
    }

    /// The next line without its end; `None` at the end of the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..=end);
                return Ok(Some(line));
            }
            let room = MAX_LINE_BYTES - self.buffer.len();
            if room == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line is longer than {MAX_LINE_BYTES} bytes")));
            }
            if (&mut self.reader).take(room as u64).read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_parses_as_what_was_written() {
        let id = InstanceId::new(&"x".repeat(128)).unwrap();
        for state in [InstanceState::Starting, InstanceState::Warm, InstanceState::Active, InstanceState::Draining] {
            for message in [FromWorker::Hello(id.clone(), state), FromWorker::State(state)] {
                assert!(message.line().len() <= MAX_LINE_BYTES);
                assert_eq!(FromWorker::parse(&message.line()), Some(message));
            }
        }
        for order in [ToWorker::Activate, ToWorker::Deactivate, ToWorker::Drain, ToWorker::Status] {
            assert_eq!(ToWorker::parse(order.line()), Some(order));
        }
        for bad in ["", "hello", "hello a", "hello a big", "state", "state warm twice", "hi a warm"] {
            assert_eq!(FromWorker::parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_split_anywhere() {
        let mut lines = Lines::new(&b"one\ntwo\n\nrest"[..]);
        for wanted in [Some("one"), Some("two"), Some(""), None] {
            assert_eq!(lines.next().await.unwrap().as_deref(), wanted);
        }
        let endless = vec![b'x'; MAX_LINE_BYTES + 1];
        assert!(Lines::new(&endless[..]).next().await.is_err());
    }
}
