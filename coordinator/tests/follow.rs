//! `events -f`: what happens is printed as it happens, and every end is quiet or explained.

use crate::fixtures::*;
use crate::stub::*;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::channel;

fn line(id: u64) -> String {
    format!("{}\n", json(&event(id)))
}

#[test]
fn events_are_printed_when_they_come() {
    let (pieces, receiver) = channel();
    let stub = Stub::answering(Reply::Stream(receiver));
    let mut child = tradewind(&["events", "-f", "--since", "3", "-o", "json", "--agent", &stub.url()]).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    for id in 4..7 {
        // In two pieces, and with a sign of life between: the line is what counts.
        let text = line(id);
        pieces.send(text[..10].to_owned()).unwrap();
        pieces.send(format!("{}\n", &text[10..])).unwrap();
        assert_eq!(next_line(&mut output), text);
    }
    let head = stub.request();
    assert!(head.starts_with("GET /v1/events?since=3&follow=true ") && head.contains("application/x-ndjson"), "{head}");
    drop(pieces);
    let text = finish(child).failed(3);
    assert!(text.contains("the agent ended the stream"), "{text}");
}

#[test]
fn every_format_is_one_document_an_event() {
    for (format, wanted) in [("yaml", "---"), ("table", "     4  2026-01-01 05:11:02  warning")] {
        let (pieces, receiver) = channel();
        let stub = Stub::answering(Reply::Stream(receiver));
        let mut child = tradewind(&["events", "-f", "-o", format, "--agent", &stub.url()]).spawn().unwrap();
        pieces.send(line(4)).unwrap();
        assert!(next_line(child.stdout.as_mut().unwrap()).starts_with(wanted), "{format}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_stream_that_breaks_within_an_event_is_broken() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";
    let text = line(1);
    let result = ask(&["events", "-f", "-o", "json"], Reply::Bytes(format!("{head}{text}{}", &text[..20]).into_bytes()));
    assert_eq!((result.code, &result.stdout), (Some(3), &text), "{result:?}");
    assert!(result.stderr.contains("the stream ended within an event"), "{result:?}");
}

#[test]
fn a_chunk_that_breaks_off_is_broken() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\nffff\r\n";
    let result = ask(&["events", "-f", "-o", "json"], Reply::Bytes(format!("{head}{}", line(1)).into_bytes()));
    assert_eq!((result.code, result.stdout), (Some(3), line(1)));
}

#[test]
fn garbage_in_a_stream_is_not_understood() {
    let (pieces, receiver) = channel();
    pieces.send("<html>\n".to_owned()).unwrap();
    let text = ask(&["events", "-f"], Reply::Stream(receiver)).failed(4);
    assert!(text.contains("GET /v1/events is not understood"), "{text}");
}

#[test]
fn an_interrupt_ends_it_without_a_word() {
    let (pieces, receiver) = channel();
    let stub = Stub::answering(Reply::Stream(receiver));
    let mut child = tradewind(&["events", "-f", "--agent", &stub.url()]).spawn().unwrap();
    pieces.send(line(1)).unwrap();
    next_line(child.stdout.as_mut().unwrap());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(words, "");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (pieces, receiver) = channel();
    let stub = Stub::answering(Reply::Stream(receiver));
    let mut child = tradewind(&["events", "-f", "--agent", &stub.url()]).spawn().unwrap();
    pieces.send(line(1)).unwrap();
    let mut output = child.stdout.take().unwrap();
    next_line(&mut output);
    drop(output);
    pieces.send(line(2)).unwrap();
    finish(child).ok();
}

#[test]
fn a_long_answer_into_a_closed_pipe_is_no_error() {
    // More than a pipe holds.
    let events: Vec<_> = (0..5_000).map(event).collect();
    let stub = Stub::answering(Reply::json(json(&events)));
    let mut child = tradewind(&["events", "--agent", &stub.url()]).spawn().unwrap();
    drop(child.stdout.take());
    finish(child).ok();
}
