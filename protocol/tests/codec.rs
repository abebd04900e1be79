//! Values survive the codec, and only whole values of the right size do.

use crate::samples;
use crate::strategies::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use tradewind_protocol::pki::{Subject, Validity, issue_ca, issue_leaf};
use tradewind_protocol::wire::codec::{CodecError, decode, encode};
use tradewind_protocol::wire::{
    Card, MAX_BODY_BYTES, MAX_CARDS, MAX_CERTIFICATE_BYTES, MAX_MESSAGE_BYTES, MAX_STATE_BYTES, Published, Pushed,
};
use tradewind_protocol::{PredictionData, RegionState, wire};

#[track_caller]
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = encode(value).unwrap();
    assert_eq!(&decode::<T>(&bytes).unwrap(), value);
}

proptest! {
    #[test]
    fn announcements_survive(value in announcement()) { survives(&value) }

    #[test]
    fn cards_survive(value in vec(card(), 0..4)) { survives(&value) }

    #[test]
    fn published_states_survive(value in published()) { survives(&value) }

    #[test]
    fn requests_survive(value in request()) { survives(&value) }

    #[test]
    fn responses_survive(value in response()) { survives(&value) }

    #[test]
    fn region_states_survive(value in state()) { survives(&value) }

    #[test]
    fn two_announcements_never_sign_the_same_bytes(a in announcement(), b in announcement()) {
        prop_assert_eq!(a.signing_bytes() == b.signing_bytes(), a == b);
    }
}

#[test]
fn bytes_behind_a_value_are_refused() {
    for sample in samples::all() {
        assert!((sample.accepts)(&sample.bytes), "{}", sample.name);
        assert!(!(sample.accepts)(&[&sample.bytes[..], &[0]].concat()), "{} with a byte more", sample.name);
    }
    assert!(matches!(decode::<u8>(&[1, 2, 3]), Err(CodecError::Trailing(2))));
}

#[test]
fn every_beginning_of_a_value_is_refused() {
    for sample in samples::all() {
        for end in 0..sample.bytes.len() {
            assert!(!(sample.accepts)(&sample.bytes[..end]), "{} cut at {end}", sample.name);
        }
    }
}

#[test]
fn what_is_too_large_is_refused_on_both_sides() {
    // A valid value, if it were not too long: the length is looked at first.
    let text = "x".repeat(MAX_MESSAGE_BYTES);
    let Err(CodecError::TooLarge { bytes }) = encode(&text) else { panic!("encoded") };
    assert!(bytes > MAX_MESSAGE_BYTES);
    let zeros = vec![0; MAX_MESSAGE_BYTES + 1];
    assert!(matches!(decode::<u8>(&zeros), Err(CodecError::TooLarge { bytes }) if bytes == MAX_MESSAGE_BYTES + 1));
    // Up to the last byte it is fine.
    let text = "x".repeat(MAX_MESSAGE_BYTES - 5);
    let bytes = encode(&text).unwrap();
    assert_eq!(bytes.len(), MAX_MESSAGE_BYTES);
    assert_eq!(decode::<String>(&bytes).unwrap(), text);
}

#[test]
fn byte_strings_beyond_their_limit_are_refused() {
    let mut card = samples::card();
    card.signature.push(0);
    assert!(decode::<Card>(&encode(&card).unwrap()).is_err());
    let mut card = Card { certificate: vec![0; MAX_CERTIFICATE_BYTES], ..samples::card() };
    survives(&card);
    card.certificate.push(0);
    let error = decode::<Card>(&encode(&card).unwrap()).unwrap_err().to_string();
    assert!(error.contains("at most 2048 bytes"), "{error}");
    let mut published = Published { card: samples::card(), body: vec![0; MAX_BODY_BYTES] };
    survives(&published);
    published.body.push(0);
    assert!(decode::<Published>(&encode(&published).unwrap()).is_err());
    assert!(decode::<Pushed>(&encode(&Pushed::from(published)).unwrap()).is_err());
}

#[test]
fn a_push_is_what_is_published_less_the_certificate() {
    let published = samples::published();
    let pushed = Pushed::from(published.clone());
    survives(&pushed);
    assert_eq!(pushed.into_published(published.card.certificate.clone()), published);
}

/// The most of `item` that a state can hold and still be encoded.
fn fullest(item: &PredictionData) -> RegionState {
    let mut state = RegionState { forecasts: Vec::new(), ..samples::state() };
    let one = encode(item).unwrap().len();
    let count = (MAX_STATE_BYTES - encode(&state).unwrap().len() - 8) / one;
    state.forecasts = vec![item.clone(); count];
    state
}

#[test]
fn the_largest_state_that_can_be_sent_can_be_read() {
    // The decoder counts integers at their full width; the shortest of forecasts is the worst case.
    let mut short = samples::prediction();
    for name in [&mut short.series.source, &mut short.series.destination] {
        *name = samples::region("a");
    }
    short.series.tenant = "a".parse().unwrap();
    short.series.service = "a".parse().unwrap();
    short.series.transaction_type = "a".parse().unwrap();
    short.model.clear();
    short.score.steps = 0;
    let path = &short.path;
    short.path = wire_path(path, 1);
    let state = fullest(&short);
    assert!(state.forecasts.len() > 5_000);
    survives(&state);
    survives(&fullest(&samples::prediction()));
}

/// `path` with its first quantile and `rows` rows alone.
fn wire_path(path: &tradewind_protocol::QuantilePath, rows: usize) -> tradewind_protocol::QuantilePath {
    tradewind_protocol::QuantilePath::new(path.start(), path.step(), path.quantiles()[..1].to_vec(), vec![1.0; rows]).unwrap()
}

#[test]
fn as_many_cards_as_are_allowed_fit_into_a_message() {
    let validity = Validity { not_before: 1_767_225_600, not_after: 1_798_761_600 };
    let ca = issue_ca("abilene", validity, [1; 32]).unwrap();
    let longest = samples::region(&"r".repeat(63));
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "agent.region.example.com".to_owned()];
    let leaf = issue_leaf(&ca, &Subject::Agent(longest.clone(), names), validity, [2; 32]).unwrap();
    let certificate = crate::pki::der(&leaf.certificate_pem).to_vec();
    assert!(certificate.len() < MAX_CERTIFICATE_BYTES / 2, "{}", certificate.len());
    let mut card = Card { certificate, ..samples::card() };
    card.announcement.region = longest;
    card.announcement.cluster = "c".repeat(wire::MAX_CLUSTER_BYTES);
    survives(&vec![card; MAX_CARDS]);
}
