//! The one place that knows how values become bytes: bincode 2 with serde, little-endian variable
//! integers. The crate is no longer maintained (RUSTSEC-2025-0141), so nothing else may name it.
//!
//! Decoding refuses what is longer than [`MAX_MESSAGE_BYTES`] before it looks at it, and bytes left
//! over behind the value. Memory is bounded by three things: text is copied only once it is there
//! (bincode borrows it from the message); a vector of a claimed length sets aside one mebibyte at
//! most (serde's own rule), and each of its elements must then be there; and `MAX_DECODED_BYTES`
//! ends a message of very many tiny elements. `tests/hostile.rs` measures all of it. No type on the
//! wire may hold a vector of elements without bytes (`Vec<()>`): it would count to any length.

use super::MAX_MESSAGE_BYTES;
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

/// Why a value has no bytes, or bytes are no value. Nothing changed; trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value or the bytes are beyond the limit.
    #[error("{bytes} bytes, the limit is {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// The value cannot be encoded.
    #[error("cannot encode")]
    Encode(#[source] Box<bincode::error::EncodeError>),
    /// The bytes are no such value.
    #[error("cannot decode: {0}")]
    Decode(#[source] Box<bincode::error::DecodeError>),
    /// The value ended before the bytes did.
    #[error("{0} bytes left over behind the value")]
    Trailing(usize),
}

/// How much one message may come to when every integer in it counts at its full width, as bincode
/// counts when it decodes. Integers are shorter on the wire, so this has to be above
/// [`MAX_MESSAGE_BYTES`], or a value that was sent could not be read; twice is enough for the
/// shortest forecasts there can be. Without it, half a mebibyte of empty texts would fill twelve.
const MAX_DECODED_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_DECODED_BYTES>> = bincode::config::standard().with_limit::<MAX_DECODED_BYTES>();

/// The bytes of `value`.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG).map_err(|e| CodecError::Encode(Box::new(e)))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The value in `bytes`, all of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLarge { bytes: bytes.len() });
    }
    let (value, read) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|e| CodecError::Decode(Box::new(e)))?;
    match bytes.len() - read {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}
