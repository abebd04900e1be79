//! zstd with contexts that are made once a thread: making one costs as much as the few kilobytes that
//! most messages have.

use std::cell::RefCell;
use std::io;
use zstd::bulk::{Compressor, Decompressor};

#[derive(Default)]
struct Contexts {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    /// What was decompressed last. Grows to the largest limit that was asked for.
    room: Vec<u8>,
}

thread_local! { static CONTEXTS: RefCell<Contexts> = RefCell::default(); }

/// `plain`, compressed.
pub(super) fn compress(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let compressor = match &mut contexts.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(level)?),
        };
        compressor.set_compression_level(level)?;
        compressor.compress(plain)
    })
}

/// What `read` makes of the plain bytes of `packed`, at most `most` of them, whatever it claims.
///
/// `read` must not decompress in turn.
pub(super) fn decompress<T>(packed: &[u8], most: usize, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let Contexts { decompressor, room, .. } = contexts;
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new()?),
        };
        if room.len() < most {
            room.resize(most, 0);
        }
        let len = decompressor.decompress_to_buffer(packed, &mut room[..most])?;
        Ok(read(&room[..len]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_was_used_gives_what_a_new_one_gives() {
        let texts: Vec<Vec<u8>> = (1..20u32).map(|n| (0..n * 997).map(|i| (i.wrapping_mul(i) >> 5) as u8 & 15).collect()).collect();
        for text in texts.iter().chain(texts.iter().rev()) {
            for level in [1, 3] {
                let packed = compress(text, level).unwrap();
                assert_eq!(packed, zstd::bulk::compress(text, level).unwrap());
                assert_eq!(decompress(&packed, text.len(), <[u8]>::to_vec).unwrap(), *text);
                assert!(decompress(&packed, text.len() - 1, <[u8]>::to_vec).is_err(), "one byte too many");
            }
        }
        assert!(decompress(b"junk", 100, <[u8]>::to_vec).is_err());
    }
}
