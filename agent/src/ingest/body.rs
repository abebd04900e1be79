//! The body of a request as it arrived: undoing its content encoding, within a bound.

use std::borrow::Cow;
use std::io::Read;

/// How much is decompressed before the bound is looked at again: large enough that the check costs
/// nothing, small beside any sensible bound.
const CHUNK_BYTES: usize = 64 * 1024;

/// The largest window that a zstd frame may ask for, as a power of two: 8 MiB, what RFC 8878
/// recommends every decoder to support and level 19 uses. The library's own default is 128 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// Why a body is refused as a whole. Nothing was counted; the same body never succeeds.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its content encoding is none of ours.
    #[error("content encoding {0:?} is not supported: send gzip, zstd or identity")]
    UnknownEncoding(String),
    /// Its compressed stream is broken.
    #[error("the {encoding} stream is broken: {reason}")]
    Corrupt {
        /// Which encoding it claims.
        encoding: &'static str,
        /// What the decompressor says.
        reason: String,
    },
    /// It is, or becomes, longer than `max_body_bytes`.
    #[error("the body is larger than {limit} bytes once decompressed: send fewer records at a time, or raise ingest.max_body_bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It is a JSON array with broken syntax.
    #[error("the JSON array is broken at line {line}, column {column}: {reason}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
}

impl Encoding {
    /// The encoding that a `Content-Encoding` header names.
    pub fn from_header(value: &str) -> Result<Self, BodyError> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(BodyError::UnknownEncoding(value.chars().take(40).collect())),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }
}

/// The bytes of `body` without its encoding, at most `limit` of them; never allocates more than
/// that for them, whatever the stream becomes.
pub fn decompress(encoding: Encoding, body: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, BodyError> {
    let corrupt = |error: std::io::Error| BodyError::Corrupt { encoding: encoding.name(), reason: error.to_string() };
    match encoding {
        Encoding::Identity if body.len() > limit => Err(BodyError::TooLarge { limit }),
        Encoding::Identity => Ok(Cow::Borrowed(body)),
        Encoding::Gzip => drain(encoding, flate2::bufread::MultiGzDecoder::new(body), limit).map(Cow::Owned),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(corrupt)?;
            drain(encoding, decoder, limit).map(Cow::Owned)
        }
    }
}

fn drain(encoding: Encoding, mut stream: impl Read, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) => return Ok(out),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BodyError::Corrupt { encoding: encoding.name(), reason: error.to_string() }),
        };
        let room = limit - out.len();
        if read > room {
            return Err(BodyError::TooLarge { limit });
        }
        if out.capacity() - out.len() < read {
            // Doubles, as a vector would, but never past the bound.
            out.reserve_exact(out.len().max(CHUNK_BYTES).min(room));
        }
        out.extend_from_slice(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    #[test]
    fn every_encoding_gives_the_bytes_back() {
        let bytes: Vec<u8> = (0..300_000u32).flat_map(|i| i.to_le_bytes()).collect();
        let limit = bytes.len();
        assert_eq!(decompress(Encoding::Identity, &bytes, limit).unwrap(), bytes);
        assert_eq!(decompress(Encoding::Gzip, &gzip(&bytes), limit).unwrap(), bytes);
        assert_eq!(decompress(Encoding::Zstd, &zstd(&bytes), limit).unwrap(), bytes);
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let (mut gz, mut zs) = (gzip(b"one "), zstd(b"one "));
        gz.extend(gzip(b"two"));
        zs.extend(zstd(b"two"));
        assert_eq!(decompress(Encoding::Gzip, &gz, 100).unwrap(), &b"one two"[..]);
        assert_eq!(decompress(Encoding::Zstd, &zs, 100).unwrap(), &b"one two"[..]);
    }

    #[test]
    fn one_byte_too_many_is_refused_and_one_less_is_not() {
        let bytes = vec![b'x'; 200_001];
        for (encoding, body) in [(Encoding::Gzip, gzip(&bytes)), (Encoding::Zstd, zstd(&bytes)), (Encoding::Identity, bytes.clone())] {
            assert!(matches!(decompress(encoding, &body, 200_000), Err(BodyError::TooLarge { limit: 200_000 })), "{encoding:?}");
            assert_eq!(decompress(encoding, &body, 200_001).unwrap().len(), 200_001);
        }
    }

    #[test]
    fn a_bomb_never_allocates_beyond_the_bound() {
        let limit = 1_000_003;
        let bomb = vec![0; 64 << 20];
        for (encoding, body) in [(Encoding::Gzip, gzip(&bomb)), (Encoding::Zstd, zstd(&bomb))] {
            assert!(body.len() < 100_000, "{encoding:?}: it is a bomb");
            assert!(matches!(decompress(encoding, &body, limit), Err(BodyError::TooLarge { .. })), "{encoding:?}");
        }
        // What is kept is what could have been allocated: growth stops at the bound.
        let Cow::Owned(kept) = decompress(Encoding::Zstd, &zstd(&vec![0; limit]), limit).unwrap() else { panic!("decompressed") };
        assert!(kept.capacity() <= limit, "{}", kept.capacity());
    }

    #[test]
    fn a_zstd_frame_that_wants_a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[7; 100_000]).unwrap();
        let body = encoder.finish().unwrap();
        assert!(matches!(decompress(Encoding::Zstd, &body, 1 << 20), Err(BodyError::Corrupt { .. })));
    }

    #[test]
    fn broken_streams_say_so() {
        for (encoding, body) in [(Encoding::Gzip, gzip(b"hello")), (Encoding::Zstd, zstd(b"hello"))] {
            let cut = &body[..body.len() - 3];
            let error = decompress(encoding, cut, 100).unwrap_err().to_string();
            assert!(error.contains("stream is broken"), "{error}");
            assert!(decompress(encoding, b"[{}]", 100).is_err(), "{encoding:?}");
        }
        assert!(Encoding::from_header("br").unwrap_err().to_string().contains("send gzip, zstd or identity"));
        assert_eq!(Encoding::from_header(" GZIP ").unwrap(), Encoding::Gzip);
    }
}
