//! The frame of a gossip message: one flag byte, then the message, zstd-compressed when it is long and that is
//! smaller. chitchat 0.11 compresses deltas but not digests, and a digest lists every region.

use super::refusal::Refusal;
use zstd::bulk::{Compressor, Decompressor};

/// chitchat's own bound of a message: it sizes deltas to fit one UDP datagram.
pub(super) const MAX_GOSSIP_BYTES: usize = 65_507;

/// The largest frame: an incompressible message behind its flag.
pub(super) const MAX_FRAME_BYTES: usize = 1 + MAX_GOSSIP_BYTES;

/// A third of the bytes of none at 30 regions; higher levels gain 3 % and cost four times as much.
const LEVEL: i32 = 1;

/// Shorter messages, the digests of a mesh of ten, are left as they are: a hundred bytes less of a datagram would take longer
/// than everything else that is done for it.
const LEAST_BYTES: usize = 512;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Makes frames. Keeps its context, which is larger than any message.
pub(super) struct Packer(Option<Compressor<'static>>);

impl Packer {
    pub(super) fn new() -> Self {
        Self(Compressor::new(LEVEL).ok())
    }

    /// The frame of `message`.
    pub(super) fn pack(&mut self, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![ZSTD; message.len().max(1)];
        // The room behind the flag is one byte short of the message: zstd saves something, or fails.
        if message.len() >= LEAST_BYTES
            && let Some(zstd) = &mut self.0
            && let Ok(len) = zstd.compress_to_buffer(message, &mut frame[1..])
        {
            frame.truncate(1 + len);
            return frame;
        }
        frame.clear();
        frame.push(PLAIN);
        frame.extend_from_slice(message);
        frame
    }
}

/// Opens frames, whatever they claim: the room for a message does not grow.
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    room: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self { zstd: Decompressor::new().ok(), room: Vec::new() }
    }

    /// The message in `frame`.
    pub(super) fn unpack<'a>(&'a mut self, frame: &'a [u8]) -> Result<&'a [u8], Refusal> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(Refusal::Oversized);
        }
        match frame {
            [PLAIN, message @ ..] => Ok(message),
            [ZSTD, packed @ ..] => {
                let zstd = self.zstd.as_mut().ok_or(Refusal::Malformed)?;
                self.room.resize(MAX_GOSSIP_BYTES, 0);
                let len = zstd.decompress_to_buffer(packed, &mut self.room[..]).map_err(|_| Refusal::Malformed)?;
                Ok(&self.room[..len])
            }
            _ => Err(Refusal::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_never_grow_by_more_than_the_flag() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let noise: Vec<u8> = (0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for message in [&b""[..], b"x", &[7; 3000], &noise, &[0; MAX_GOSSIP_BYTES]] {
            let frame = packer.pack(message);
            assert!(frame.len() <= 1 + message.len());
            assert_eq!(unpacker.unpack(&frame), Ok(message));
        }
        assert!(packer.pack(&[7; 3000]).len() < 100);
    }

    #[test]
    fn junk_and_bombs_are_refused() {
        let mut unpacker = Unpacker::new();
        let bomb = |len: usize| [&[ZSTD][..], &zstd::bulk::compress(&vec![0; len], 1).unwrap()].concat();
        assert_eq!(unpacker.unpack(&bomb(MAX_GOSSIP_BYTES)).unwrap().len(), MAX_GOSSIP_BYTES);
        assert_eq!(unpacker.unpack(&bomb(MAX_GOSSIP_BYTES + 1)), Err(Refusal::Malformed));
        assert_eq!(unpacker.unpack(&bomb(100 << 20)), Err(Refusal::Malformed));
        for junk in [&[][..], &[7, 1, 2], &[ZSTD, 1, 2, 3]] {
            assert_eq!(unpacker.unpack(junk), Err(Refusal::Malformed));
        }
        assert_eq!(unpacker.unpack(&vec![PLAIN; MAX_FRAME_BYTES + 1]), Err(Refusal::Oversized));
    }
}
