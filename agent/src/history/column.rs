//! A column's bytes: [`CHUNK`] counts of one series.
//!
//! One byte tells how: 0, the counts that are not zero, each as the distance to the last one's place and its value, as
//! varints (most series are quiet most of the time); 1, all of them by pco. Whichever is shorter.

use super::levels::CHUNK;
use super::tables::{put_varint, take_varint};

const SPARSE: u8 = 0;
const PCO: u8 = 1;

/// With that many counts pco may be shorter.
const DENSE: usize = 12;

/// pco's level: beyond 4, two thirds more time for nothing.
const PCO_LEVEL: usize = 4;

pub(super) type Column = [u64; CHUNK];

/// The column's bytes.
pub(super) fn encode(column: &Column) -> Vec<u8> {
    let mut bytes = vec![SPARSE];
    let mut last = 0;
    for (place, count) in column.iter().enumerate().filter(|(_, count)| **count > 0) {
        put_varint(&mut bytes, (place - last) as u64);
        put_varint(&mut bytes, *count);
        last = place;
    }
    if column.iter().filter(|count| **count > 0).count() < DENSE {
        return bytes;
    }
    let config = pco::ChunkConfig::default().with_compression_level(PCO_LEVEL);
    // It fails only for a configuration that makes no sense.
    match pco::standalone::simple_compress(column.as_slice(), &config) {
        Ok(packed) if packed.len() + 1 < bytes.len() => {
            bytes.clear();
            bytes.push(PCO);
            bytes.extend(packed);
            bytes
        }
        _ => bytes,
    }
}

/// The column in `bytes`, if that is what they are.
pub(super) fn decode(bytes: &[u8]) -> Option<Column> {
    let mut column = [0; CHUNK];
    let (how, mut bytes) = bytes.split_first()?;
    match *how {
        SPARSE => {
            let mut place = 0;
            while !bytes.is_empty() {
                place += usize::try_from(take_varint(&mut bytes)?).ok().filter(|distance| *distance < CHUNK)?;
                *column.get_mut(place)? = take_varint(&mut bytes)?;
            }
        }
        PCO => {
            let progress = pco::standalone::simple_decompress_into(bytes, &mut column).ok()?;
            if progress.n_processed != CHUNK {
                return None;
            }
        }
        _ => return None,
    }
    Some(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_column_has_these_bytes() {
        let mut column = [0; CHUNK];
        assert_eq!(encode(&column), [SPARSE]);
        (column[0], column[127]) = (5, 300);
        assert_eq!(encode(&column), [SPARSE, 0, 5, 127, 0xac, 0x02]);
        let busy = std::array::from_fn(|place| 1_000 + (place as u64 * 7919) % 100);
        assert!(encode(&busy)[0] == PCO && encode(&busy).len() < 2 * CHUNK, "{}", encode(&busy).len());
    }

    proptest! {
        #[test]
        fn columns_survive_and_damage_never_panics(
            counts in proptest::collection::vec((0..CHUNK, prop_oneof![0u64..500, any::<u64>()]), 0..200),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            flip in any::<(usize, u8)>()
        ) {
            let mut column = [0; CHUNK];
            counts.iter().for_each(|(place, count)| column[*place] = *count);
            let mut encoded = encode(&column);
            prop_assert_eq!(decode(&encoded), Some(column));
            let place = flip.0 % encoded.len();
            encoded[place] ^= flip.1;
            let _ = decode(&encoded);
            let _ = decode(&bytes);
            let _ = decode(&[&[PCO], &bytes[..]].concat());
        }
    }
}
