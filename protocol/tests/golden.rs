//! Golden bytes: the layout of everything that travels, as `golden.txt` has it.
//!
//! A red test here means that agents of the version before would misread this one. Either undo the
//! change, or add a `wire::Version` that has it and write the file anew with
//! `TRADEWIND_WRITE_GOLDEN=1 cargo test -p tradewind-protocol --test main golden`.

use crate::samples;
use std::fmt::Write;
use tradewind_protocol::wire::{Envelope, Kind, Version};

const GOLDEN: &str = include_str!("golden.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd number of hex digits");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// The file as it has to look.
fn current() -> String {
    let mut text = String::new();
    for version in Version::ALL.into_iter().rev() {
        let number = version.number();
        writeln!(text, "v{number}_alpn {}", hex(version.alpn())).unwrap();
        for kind in [Kind::Gossip, Kind::Cards, Kind::Push, Kind::Request, Kind::Response] {
            let name = format!("{kind:?}").to_lowercase();
            writeln!(text, "v{number}_envelope_{name} {}", hex(&Envelope { kind, body: b"x" }.to_bytes(version))).unwrap();
        }
    }
    writeln!(text, "signing_bytes {}", hex(&samples::announcement().signing_bytes())).unwrap();
    for sample in samples::all() {
        writeln!(text, "{} {}", sample.name, hex(&sample.bytes)).unwrap();
    }
    text
}

#[test]
fn the_layout_of_what_travels_has_not_changed() {
    let current = current();
    if std::env::var_os("TRADEWIND_WRITE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt"), &current).unwrap();
        return;
    }
    let (mut was, mut is) = (GOLDEN.lines(), current.lines());
    loop {
        let (was, is) = (was.next(), is.next());
        assert!(
            was == is,
            "the wire layout changed:\n  was {was:?}\n  is  {is:?}\nAgents of the version before misread this. Undo it, or add a \
             wire::Version and write golden.txt anew (see golden.rs)."
        );
        if is.is_none() {
            break;
        }
    }
}

#[test]
fn golden_bytes_are_still_understood() {
    let samples = samples::all();
    for line in GOLDEN.lines() {
        let (name, bytes) = line.split_once(' ').unwrap();
        if let Some(sample) = samples.iter().find(|sample| sample.name == name) {
            assert!((sample.accepts)(&unhex(bytes)), "{name}");
        }
    }
    assert_eq!(GOLDEN.lines().count(), samples.len() + 6 * Version::ALL.len() + 1);
}
