//! Byte strings on the wire: copied as one piece instead of byte by byte, and refused beyond a
//! limit before they are copied. The layout is that of a `Vec<u8>`: the length, then the bytes.
//!
//! Used as `#[serde(with = "AtMost::<LIMIT>")]`.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

/// Byte strings of at most `MAX` bytes.
pub(crate) struct AtMost<const MAX: usize>;

impl<const MAX: usize> AtMost<MAX> {
    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(Self)
    }

    fn check<E: Error>(length: usize) -> Result<(), E> {
        if length > MAX { Err(E::invalid_length(length, &Self)) } else { Ok(()) }
    }
}

impl<'de, const MAX: usize> Visitor<'de> for AtMost<MAX> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Self::check(bytes.len())?;
        Ok(bytes.to_vec())
    }

    /// Formats without byte strings, such as JSON, have sequences of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = elements.next_element()? {
            bytes.push(byte);
            Self::check(bytes.len())?;
        }
        Ok(bytes)
    }
}
