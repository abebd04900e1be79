//! Bytes from a peer that means harm: never a panic, never more memory than the cap.

use crate::meter;
use crate::samples::{self, Sample};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tradewind_protocol::wire::codec::encode;
use tradewind_protocol::wire::{Card, Envelope, MAX_MESSAGE_BYTES, Request, Response, Version};
use tradewind_protocol::{RegionState, RegionalResourcePlan};

/// What decoding one message may allocate at once: a multiple of the largest message, because
/// values are wider in memory than on the wire, and vectors grow by doubling. Twelve was measured,
/// for a plan with as many empty notes as fit.
const MAX_PEAK_BYTES: usize = 13 * MAX_MESSAGE_BYTES;

/// What decoding a message of a few hundred bytes may allocate, whatever lengths it claims: serde
/// sets aside one mebibyte at most for a vector, and two are open at once at the deepest.
const MAX_CLAIMED_BYTES: usize = 2 * (1 << 20) + (1 << 16);

/// The lengths that hostile messages claim, as variable integers.
fn claims() -> [Vec<u8>; 5] {
    let wide = |n: u64| [&[0xfd], &n.to_le_bytes()[..]].concat();
    [wide(1 << 60), wide(u64::MAX), wide(1 << 20), [&[0xfc], &u32::MAX.to_le_bytes()[..]].concat(), vec![0xfb, 0xff, 0xff]]
}

#[track_caller]
fn harmless(sample: &Sample, bytes: &[u8], cap: usize) {
    let peak = meter::peak(|| (sample.accepts)(bytes));
    eprintln!("PEAK {peak} {} {}", sample.name, bytes.len());
    assert!(peak <= cap, "{}: {peak} bytes allocated for a message of {}", sample.name, bytes.len());
}

#[test]
fn a_claimed_length_is_not_believed_wherever_it_stands() {
    for sample in samples::all() {
        for position in 0..=sample.bytes.len() {
            for claim in claims() {
                // In the place of a byte, and before it.
                let (head, tail) = sample.bytes.split_at(position);
                harmless(&sample, &[head, &claim, tail].concat(), MAX_CLAIMED_BYTES);
                harmless(&sample, &[head, &claim, tail.get(1..).unwrap_or_default()].concat(), MAX_CLAIMED_BYTES);
                harmless(&sample, &[head, &claim].concat(), MAX_CLAIMED_BYTES);
            }
        }
    }
}

#[test]
fn two_claimed_lengths_are_believed_no_more_than_one() {
    let claim = &claims()[2];
    for sample in samples::all() {
        let claimed = |positions: &[usize]| {
            let mut bytes = sample.bytes.clone();
            positions.iter().rev().for_each(|at| drop(bytes.splice(at..=at, claim.iter().copied())));
            bytes
        };
        // Where a claim costs memory at all, there is a vector's length.
        let lengths: Vec<usize> =
            (0..sample.bytes.len()).filter(|at| meter::peak(|| (sample.accepts)(&claimed(&[*at]))) > 1 << 18).collect();
        for (i, first) in lengths.iter().enumerate() {
            for second in &lengths[i + 1..] {
                harmless(&sample, &claimed(&[*first, *second]), MAX_CLAIMED_BYTES);
            }
        }
    }
}

#[test]
fn nested_claims_do_not_add_up_without_end() {
    for sample in samples::all() {
        for claim in claims() {
            harmless(&sample, &claim.repeat(1_000), MAX_CLAIMED_BYTES);
            harmless(&sample, &claim.repeat(MAX_MESSAGE_BYTES / claim.len()), MAX_PEAK_BYTES);
        }
    }
}

#[test]
fn a_message_full_of_the_smallest_elements_stays_within_the_cap() {
    let plan = samples::plan();
    let fill = MAX_MESSAGE_BYTES - 1_000;
    let notes = RegionalResourcePlan { notes: vec![String::new(); fill], ..plan.clone() };
    let mut stale = plan.clone();
    stale.decisions[0].reason.stale_sources = vec![samples::region("a"); fill / 2];
    let mut decision = plan.decisions[0].clone();
    decision.reason.stale_sources.clear();
    decision.reason.rule.clear();
    decision.blocked = None;
    let per_decision = encode(&decision).unwrap().len();
    let decisions = RegionalResourcePlan { decisions: vec![decision; fill / per_decision], ..plan };
    let per_pool = encode(&samples::pool()).unwrap().len();
    let pools = RegionState { pools: vec![samples::pool(); fill / per_pool], ..samples::state() };
    let per_forecast = encode(&samples::prediction()).unwrap().len();
    let forecasts = RegionState { forecasts: vec![samples::prediction(); fill / per_forecast], ..samples::state() };
    let mut card = samples::card();
    (card.signature, card.certificate) = (Vec::new(), Vec::new());
    let per_card = encode(&card).unwrap().len();
    let cards: Vec<Card> = vec![card; fill / per_card];
    let response = |plan| encode(&Response::Plan(Box::new(plan))).unwrap();
    let messages = [
        ("response_plan", response(notes)),
        ("response_plan", response(stale)),
        ("response_plan", response(decisions)),
        ("region_state", encode(&pools).unwrap()),
        ("region_state", encode(&forecasts).unwrap()),
        ("cards", encode(&cards).unwrap()),
    ];
    let samples = samples::all();
    for (name, bytes) in messages {
        assert!(bytes.len() > MAX_MESSAGE_BYTES / 2);
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        harmless(sample, &bytes, MAX_PEAK_BYTES);
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_looked_at() {
    for sample in samples::all() {
        for fill in [0x00, 0x01, 0xfb, 0xff] {
            let bytes = vec![fill; MAX_MESSAGE_BYTES + 1];
            harmless(&sample, &bytes, 1_024);
        }
    }
}

#[test]
fn a_forecast_that_breaks_its_own_rules_is_not_decoded() {
    let sample = samples::all().into_iter().find(|sample| sample.name == "quantile_path").unwrap();
    // The last value becomes NaN, infinite, negative, or less than its left neighbour; the first quantile 0 or 1000.
    let end = sample.bytes.len();
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let bytes = [&sample.bytes[..end - 4], &value.to_le_bytes()].concat();
        assert!(!(sample.accepts)(&bytes), "{value}");
    }
    let crossing = [&sample.bytes[..end - 8], &2f32.to_le_bytes(), &1f32.to_le_bytes()].concat();
    assert!(!(sample.accepts)(&crossing));
    let ragged = [&sample.bytes[..end - 25], &[5u8], &sample.bytes[end - 24..end - 4]].concat();
    assert!(!(sample.accepts)(&ragged));
}

proptest! {
    #[test]
    fn random_bytes_are_harmless(bytes in vec(any::<u8>(), 0..400)) {
        for sample in samples::all() {
            harmless(&sample, &bytes, MAX_CLAIMED_BYTES);
        }
        for version in Version::ALL {
            if let Ok(envelope) = Envelope::parse(&bytes, version) {
                prop_assert_eq!(&envelope.to_bytes(version), &bytes);
            }
        }
    }

    #[test]
    fn mutated_values_are_harmless(
        which in any::<Index>(),
        edits in vec((any::<Index>(), any::<u8>(), 0u8..4), 1..6),
        claim in any::<Index>(),
    ) {
        let samples = samples::all();
        let sample = &samples[which.index(samples.len())];
        let mut bytes = sample.bytes.clone();
        for (at, value, how) in edits {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, value),
                1 => bytes.truncate(at),
                2 => { bytes.splice(at.., [&claims()[claim.index(5)][..], &sample.bytes].concat()); }
                _ => if let Some(byte) = bytes.get_mut(at) { *byte ^= value },
            }
        }
        harmless(sample, &bytes, MAX_CLAIMED_BYTES);
    }

    #[test]
    fn one_kind_of_message_read_as_another_is_harmless(a in any::<Index>(), b in any::<Index>()) {
        let samples = samples::all();
        harmless(&samples[a.index(samples.len())], &samples[b.index(samples.len())].bytes, MAX_CLAIMED_BYTES);
    }
}

#[test]
fn names_are_checked_where_they_enter() {
    for bad in ["", "New-York", "a/b", "-a", &"a".repeat(64)] {
        // The same layout as a fetch: variant, then text.
        let bytes = encode(&(0u32, bad)).unwrap();
        assert!(tradewind_protocol::wire::codec::decode::<Request>(&bytes).is_err(), "{bad}");
    }
    let good = encode(&(0u32, "denver")).unwrap();
    assert!(tradewind_protocol::wire::codec::decode::<Request>(&good).is_ok());
}
