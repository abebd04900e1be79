//! The one place that knows how values become bytes: bincode 2 with serde, little-endian variable
//! integers. The crate is no longer maintained (RUSTSEC-2025-0141), so nothing else may name it.
//!
//! Decoding refuses what is longer than [`MAX_MESSAGE_BYTES`] before it looks at it, never allocates
//! more than that for a claimed length, and refuses bytes left over behind the value.

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

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_MESSAGE_BYTES>> = bincode::config::standard().with_limit::<MAX_MESSAGE_BYTES>();

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
