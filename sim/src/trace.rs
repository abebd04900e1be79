//! Everything observable that a simulation did, as lines of text and as their SHA-256.
//!
//! One line a packet (when, from, to, how long, hash of the ciphertext) and one a tracing event or
//! span with all its fields. Two runs of one seed are the same run if, and only if, their lines
//! are. The recorder belongs to a simulation's thread, like everything else about it.

use crate::entropy;
use crate::memory;
use ring::digest::{Context, SHA256, digest};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// How many error lines are kept word for word; the rest is counted. Ten name a cause, a hundred
/// leave room for one per node and kind.
const MAX_ERRORS_KEPT: usize = 100;

/// Bytes of a packet's hash that its line shows: 64 bits tell any two packets of a run apart.
const SHOWN_HASH_BYTES: usize = 8;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Packets, and events from `INFO` up.
    Brief,
    /// Packets, and every event and span at every level.
    Full,
}

/// What a finished recording amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// SHA-256 over all lines, hexadecimal.
    pub digest: String,
    /// How many lines.
    pub lines: u64,
    /// Datagrams handed to the network, including those it lost.
    pub packets: u64,
    /// Their payload bytes.
    pub packet_bytes: u64,
    /// The longest datagram.
    pub longest_packet: usize,
    /// Datagrams longer than the path carried, per sender and receiver.
    #[serde(skip)]
    pub oversized: BTreeMap<(SocketAddr, SocketAddr), u64>,
    /// Events at level `ERROR`.
    pub errors: u64,
    /// The first of them.
    pub first_errors: Vec<String>,
    /// Whether lines could not be written where they were to go.
    pub truncated: bool,
    /// Why not, unless whoever reads has stopped.
    #[serde(skip)]
    pub unwritten: Option<String>,
}

impl Summary {
    /// Whether lines were written where they were to go.
    fn note(&mut self, written: std::io::Result<()>) -> bool {
        let Err(error) = written else { return true };
        self.truncated = true;
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            self.unwritten = Some(error.to_string());
        }
        false
    }
}

struct Recorder {
    hash: Context,
    summary: Summary,
    sink: Option<Box<dyn Write>>,
    line: String,
    /// Names of nodes in the order of their first step; a node's span id is its index here.
    nodes: Vec<String>,
    /// Whose turn was begun last.
    last: usize,
    node: Option<usize>,
    /// Errors that do not count yet: their node may turn out to have been without power.
    pending: Vec<(Option<usize>, String)>,
    spans: u64,
}

thread_local! { static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) }; }

/// Records this thread's simulation until [`finish`](Recording::finish).
pub struct Recording {
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Recording {
    /// Begins to record, and to write the lines to `sink`.
    pub fn start(detail: Detail, sink: Option<Box<dyn Write>>) -> Self {
        RECORDER.set(Some(Recorder {
            hash: Context::new(&SHA256),
            summary: Summary::default(),
            sink,
            line: String::new(),
            nodes: Vec::new(),
            last: 0,
            node: None,
            pending: Vec::new(),
            spans: 0,
        }));
        Self { _subscriber: tracing::subscriber::set_default(Tap { detail }) }
    }

    /// Ends the recording.
    pub fn finish(self) -> Summary {
        let Some(mut recorder) = RECORDER.take() else { return Summary::default() };
        recorder.settle(&[]);
        if let Some(sink) = &mut recorder.sink {
            let flushed = sink.flush();
            recorder.summary.note(flushed);
        }
        recorder.summary.digest = hex(recorder.hash.finish().as_ref());
        recorder.summary
    }

    /// What has been recorded so far, without the digest.
    pub fn so_far<T>(&self, look: impl FnOnce(&Summary) -> T) -> Option<T> {
        RECORDER.with_borrow(|recorder| recorder.as_ref().map(|recorder| look(&recorder.summary)))
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// So many copies are on their way.
    Sent(u8),
    /// Longer than the path carries.
    Oversized,
}

/// Records a datagram that was handed to the network.
pub(crate) fn packet(at: Duration, from: SocketAddr, to: SocketAddr, payload: &[u8], fate: Fate) {
    with_recorder(|recorder| {
        let summary = &mut recorder.summary;
        summary.packets += 1;
        summary.packet_bytes += payload.len() as u64;
        summary.longest_packet = summary.longest_packet.max(payload.len());
        let fate = match fate {
            Fate::Sent(0) => "lost",
            Fate::Sent(1) => "sent",
            Fate::Sent(_) => "doubled",
            Fate::Oversized => {
                *summary.oversized.entry((from, to)).or_default() += 1;
                "oversized"
            }
        };
        recorder.begin_line(at);
        let _ = write!(recorder.line, "packet {from} {to} {} ", payload.len());
        push_hex(&digest(&SHA256, payload).as_ref()[..SHOWN_HASH_BYTES], &mut recorder.line);
        recorder.line.push(' ');
        recorder.line.push_str(fate);
        recorder.end_line();
    });
}

/// Records a remark of the simulation itself: a crash, a partition.
pub(crate) fn remark(text: fmt::Arguments<'_>) {
    with_recorder(|recorder| {
        recorder.begin_line(entropy::now());
        let _ = write!(recorder.line, "world {text}");
        recorder.end_line();
    });
}

/// A step is over: the errors of those nodes that lost power during it are no errors, since what a
/// program says without power is heard by nobody.
pub(crate) fn settle_errors(without_power: &[String]) {
    with_recorder(|recorder| recorder.settle(without_power));
}

/// Forgets errors that are not settled: the last words of a program that is being crashed.
pub(crate) fn forget_unsettled_errors() {
    with_recorder(|recorder| recorder.pending.clear());
}

/// The number of the node called `name`, once it has had a turn.
pub(crate) fn number_of(name: &str) -> Option<usize> {
    RECORDER.with_borrow(|recorder| recorder.as_ref()?.nodes.iter().position(|node| node == name))
}

/// A field's `Debug` may itself trace, while its line is being written: that event is left out,
/// in every run alike.
fn with_recorder(record: impl FnOnce(&mut Recorder)) {
    RECORDER.with(|cell| {
        if let Ok(mut recorder) = cell.try_borrow_mut()
            && let Some(recorder) = recorder.as_mut()
        {
            record(recorder);
        }
    });
}

impl Recorder {
    fn begin_line(&mut self, at: Duration) {
        self.line.clear();
        let node = self.node.and_then(|node| self.nodes.get(node)).map_or("-", String::as_str);
        let _ = write!(self.line, "{}.{:06} {node} ", at.as_secs(), at.subsec_micros());
    }

    fn end_line(&mut self) {
        // One line a record, whatever a field contains.
        if self.line.contains('\n') {
            self.line = self.line.replace('\n', "\\n");
        }
        self.line.push('\n');
        self.hash.update(self.line.as_bytes());
        self.summary.lines += 1;
        if let Some(sink) = &mut self.sink
            && !self.summary.note(sink.write_all(self.line.as_bytes()))
        {
            // Nobody reads any more, or there is no room; the digest goes on.
            self.sink = None;
        }
    }

    fn meta_line(&mut self, kind: &str, meta: &Metadata<'_>, fields: impl FnOnce(&mut Fields<'_>)) {
        self.begin_line(entropy::now());
        let _ = write!(self.line, "{kind} {} {} {}", meta.level(), meta.target(), if meta.is_span() { meta.name() } else { "" });
        fields(&mut Fields(&mut self.line));
        if meta.is_event() && *meta.level() == Level::ERROR {
            self.pending.push((self.node, self.line.clone()));
        }
        self.end_line();
    }

    /// Counts what is pending, but for errors of the nodes in `without_power`.
    fn settle(&mut self, without_power: &[String]) {
        for (node, line) in std::mem::take(&mut self.pending) {
            if node.and_then(|node| self.nodes.get(node)).is_some_and(|name| without_power.contains(name)) {
                continue;
            }
            self.summary.errors += 1;
            if self.summary.first_errors.len() < MAX_ERRORS_KEPT {
                self.summary.first_errors.push(line);
            }
        }
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// The tracing subscriber: hands everything to the thread's recorder.
struct Tap {
    detail: Detail,
}

/// Span ids from here on are nodes.
const FIRST_NODE_SPAN: u64 = 1 << 62;

impl Tap {
    fn wants(&self, meta: &Metadata<'_>) -> bool {
        // turmoil's own events repeat the packets, in clear text; its span tells whose turn it is.
        if meta.target().starts_with("turmoil") {
            return is_node_span(meta);
        }
        match self.detail {
            Detail::Brief => meta.is_event() && *meta.level() <= Level::INFO,
            Detail::Full => true,
        }
    }
}

fn is_node_span(meta: &Metadata<'_>) -> bool {
    meta.is_span() && meta.name() == "node" && meta.target().starts_with("turmoil")
}

impl Subscriber for Tap {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if self.wants(meta) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        self.wants(meta)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        match self.detail {
            Detail::Brief => Some(tracing::level_filters::LevelFilter::INFO),
            Detail::Full => None,
        }
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut id = 1;
        with_recorder(|recorder| {
            if is_node_span(attributes.metadata()) {
                attributes.record(&mut Turn(recorder));
                id = FIRST_NODE_SPAN + recorder.last as u64;
            } else {
                recorder.spans += 1;
                id = recorder.spans;
                recorder.meta_line("span", attributes.metadata(), |fields| attributes.record(fields));
            }
        });
        Id::from_u64(id)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        with_recorder(|recorder| recorder.meta_line("event", event.metadata(), |fields| event.record(fields)));
    }

    fn enter(&self, span: &Id) {
        if let Some(index) = span.into_u64().checked_sub(FIRST_NODE_SPAN) {
            with_recorder(|recorder| {
                recorder.node = usize::try_from(index).ok();
                memory::set_owner(recorder.node);
            });
        }
    }

    fn exit(&self, span: &Id) {
        if span.into_u64() >= FIRST_NODE_SPAN {
            with_recorder(|recorder| {
                recorder.node = None;
                memory::set_owner(None);
            });
        }
    }
}

/// Notes whose turn begins.
struct Turn<'a>(&'a mut Recorder);

impl Visit for Turn<'_> {
    fn record_str(&mut self, _field: &Field, name: &str) {
        let Recorder { nodes, last, .. } = &mut *self.0;
        // Turns go round.
        let next = (*last + 1) % nodes.len().max(1);
        let known = if nodes.get(next).is_some_and(|node| node == name) { Some(next) } else { nodes.iter().position(|node| node == name) };
        *last = known.unwrap_or_else(|| {
            nodes.push(name.into());
            nodes.len() - 1
        });
    }
    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(bytes, &mut text);
    text
}

/// There is one for every packet.
fn push_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    text.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(std::rc::Rc<RefCell<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn record(detail: Detail, act: impl FnOnce()) -> (Summary, String) {
        let sink = Shared::default();
        let recording = Recording::start(detail, Some(Box::new(sink.clone())));
        act();
        let summary = recording.finish();
        let text = String::from_utf8(sink.0.borrow().clone()).unwrap();
        (summary, text)
    }

    #[test]
    fn lines_say_when_who_and_every_field() {
        let (a, b) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let act = || {
            packet(Duration::from_millis(1_250), a, b, b"ciphertext", Fate::Sent(1));
            tracing::debug!(x = 7, "a\nb");
            tracing::error!("broken");
        };
        let (full, text) = record(Detail::Full, act);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1.250000 - packet 10.0.0.1:1 10.0.0.2:2 10 305531dcc50ebca3 sent");
        assert!(lines[1].contains("event DEBUG") && lines[1].ends_with(" a\\nb x=7"), "{}", lines[1]);
        assert_eq!((full.lines, full.errors, full.packets, full.packet_bytes), (3, 1, 1, 10));
        assert!(full.first_errors[0].contains("broken"));

        let (brief, text) = record(Detail::Brief, act);
        assert_eq!((brief.lines, brief.errors), (2, 1));
        assert!(!text.contains("x=7"));
        assert_eq!(record(Detail::Full, act).0, full);

        let dying = || {
            act();
            forget_unsettled_errors();
        };
        assert_eq!(record(Detail::Full, dying).0, Summary { errors: 0, first_errors: vec![], ..full.clone() });
        assert_ne!(brief.digest, full.digest);
    }
}
