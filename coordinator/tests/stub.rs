//! The test language: a stub of an agent's HTTP API, and a way to run the program against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// What the stub answers, to every request alike.
pub(crate) enum Reply {
    /// A whole response.
    Whole { status: &'static str, content_type: &'static str, body: String },
    /// Bytes as they are, then the connection is closed.
    Bytes(Vec<u8>),
    /// The beginning of a stream; each text that comes over the channel is a piece of it. It ends,
    /// in order, when the channel does.
    Stream(Receiver<String>),
}

impl Reply {
    pub(crate) fn json(body: impl Into<String>) -> Self {
        Reply::Whole { status: "200 OK", content_type: "application/json", body: body.into() }
    }

    /// A response that says it is longer than it is.
    pub(crate) fn cut(body: &str) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply::Bytes([head.as_bytes(), &body.as_bytes()[..body.len() / 2]].concat())
    }
}

/// A stub that answers one request and tells which it was.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    requests: Receiver<String>,
}

impl Stub {
    pub(crate) fn answering(reply: Reply) -> Self {
        Self::accepting(move |stream, requests| answer(stream, reply, requests))
    }

    /// Lets `serve` have the first connection.
    pub(crate) fn accepting(serve: impl FnOnce(TcpStream, &Sender<String>) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            serve(stream, &sender);
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The request line that came, such as `GET /v1/status HTTP/1.1`, and the headers.
    pub(crate) fn request(&self) -> String {
        self.requests.recv().unwrap()
    }
}

/// Reads one request from `stream` and answers it.
pub(crate) fn answer(mut stream: impl Read + Write, reply: Reply, requests: &Sender<String>) {
    requests.send(request_head(&mut stream)).unwrap();
    // A client that has gone is what some tests are about.
    let _ = match reply {
        Reply::Whole { status, content_type, body } => {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        }
        Reply::Bytes(bytes) => stream.write_all(&bytes),
        Reply::Stream(pieces) => stream_pieces(&mut stream, &pieces),
    };
    let _ = stream.flush();
}

fn request_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn stream_pieces(stream: &mut impl Write, pieces: &Receiver<String>) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for piece in pieces {
        write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
        stream.flush()?;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Its output, if it did what it was asked without a complaint.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:?}");
        self.stdout
    }

    /// Its complaint, if it failed with `code` and printed nothing else.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert!(self.code == Some(code) && self.stdout.is_empty(), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stderr
    }
}

/// The program with `arguments`, in an environment that says nothing.
pub(crate) fn tradewind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Run {
    finish(tradewind(arguments).spawn().unwrap())
}

/// Waits for a running program's end.
pub(crate) fn finish(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run { code: output.status.code(), stdout: String::from_utf8(output.stdout).unwrap(), stderr: String::from_utf8(output.stderr).unwrap() }
}

/// Runs the program against a stub that answers `reply`.
pub(crate) fn ask(arguments: &[&str], reply: Reply) -> Run {
    let stub = Stub::answering(reply);
    run(&[arguments, &["--agent", &stub.url()]].concat())
}

/// The next line of a running program's output.
pub(crate) fn next_line(output: &mut impl Read) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, output).read_line(&mut line).unwrap();
    line
}
