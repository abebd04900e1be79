//! chitchat 0.11's messages, as bytes: the part of its layout that agents use, read strictly and
//! written anew, so that chitchat is handed what the guard has judged and nothing else.
//!
//! Layout: magic u16, version u8, type u8 (0 SYN, 1 SYN-ACK, 2 ACK, 3 bad cluster). A digest is a
//! u16 count of (id, heartbeat u64, last GC version u64, max version u64). A delta is a stream of
//! blocks (0 end; 1 zstd and 2 plain, each with u16 length), which together hold operations
//! (0 node, 1 key and value, 2 max version). Integers are little-endian.

use super::frame::MAX_GOSSIP_BYTES;
use super::refusal::Refusal;
use super::zip;
use chitchat::{ChitchatId, ChitchatMessage, Deserializable, Serializable};

/// The one key that agents use.
pub(super) const CARD_KEY: &str = "card";

/// The most bytes of a delta's operations: 500 regions of 600 bytes, three times over.
const MAX_DELTA_BYTES: usize = 1024 * 1024;

/// The most nodes of a digest: every region of the largest mesh, and a former life of each.
pub(super) const MAX_DIGEST_NODES: usize = 2 * super::bounds::MAX_REGIONS;

const MAGIC: u16 = 45_139;
const VERSION: u8 = 0;

/// A message, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Syn { cluster: String, digest: Vec<Entry> },
    SynAck { digest: Vec<Entry>, delta: Vec<NodeDelta> },
    Ack { delta: Vec<NodeDelta> },
    BadCluster,
}

/// What the sender knows of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ChitchatId,
    pub(super) heartbeat: u64,
    pub(super) last_gc_version: u64,
    pub(super) max_version: u64,
}

/// One node's new card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeDelta {
    pub(super) id: ChitchatId,
    /// The card's text.
    pub(super) text: String,
    pub(super) version: u64,
    /// The version that the receiver must have reached.
    pub(super) from_version: u64,
}

impl Message {
    /// Reads a message, all of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let rest = &mut &bytes[..];
        if take::<u16>(rest)? != MAGIC || take::<u8>(rest)? != VERSION {
            return Err(Refusal::Malformed);
        }
        let message = match take::<u8>(rest)? {
            0 => {
                let digest = parse_digest(rest)?;
                Message::Syn { digest, cluster: take(rest)? }
            }
            1 => Message::SynAck { digest: parse_digest(rest)?, delta: parse_delta(rest)? },
            2 => Message::Ack { delta: parse_delta(rest)? },
            3 => Message::BadCluster,
            _ => return Err(Refusal::Malformed),
        };
        if rest.is_empty() { Ok(message) } else { Err(Refusal::Malformed) }
    }

    /// The message's bytes, in the layout that chitchat reads.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        MAGIC.serialize(&mut bytes);
        bytes.push(VERSION);
        match self {
            Message::Syn { cluster, digest } => {
                bytes.push(0);
                write_digest(digest, &mut bytes);
                cluster.serialize(&mut bytes);
            }
            Message::SynAck { digest, delta } => {
                bytes.push(1);
                write_digest(digest, &mut bytes);
                write_delta(delta, &mut bytes);
            }
            Message::Ack { delta } => {
                bytes.push(2);
                write_delta(delta, &mut bytes);
            }
            Message::BadCluster => bytes.push(3),
        }
        bytes
    }
}

impl Message {
    /// The message as chitchat has it.
    pub(super) fn to_chitchat(&self) -> Result<ChitchatMessage, Refusal> {
        let mut bytes = Vec::new();
        match self {
            // chitchat reads every delta into 64 KiB of zeros, and most are empty.
            Message::SynAck { digest, delta } if delta.is_empty() => {
                write_digest(digest, &mut bytes);
                Ok(ChitchatMessage::SynAck { digest: take(&mut &bytes[..])?, delta: Default::default() })
            }
            Message::Syn { .. } | Message::SynAck { .. } | Message::Ack { .. } | Message::BadCluster => take(&mut &self.to_bytes()[..]),
        }
    }
}

fn take<T: Deserializable>(rest: &mut &[u8]) -> Result<T, Refusal> {
    T::deserialize(rest).map_err(|_| Refusal::Malformed)
}

fn parse_digest(rest: &mut &[u8]) -> Result<Vec<Entry>, Refusal> {
    let count = usize::from(take::<u16>(rest)?);
    if count > MAX_DIGEST_NODES {
        return Err(Refusal::Crowd);
    }
    let entry = |_| {
        let id = take(rest)?;
        Ok(Entry { id, heartbeat: take(rest)?, last_gc_version: take(rest)?, max_version: take(rest)? })
    };
    (0..count).map(entry).collect()
}

fn write_digest(digest: &[Entry], bytes: &mut Vec<u8>) {
    // The guard never makes a digest longer than the one it read, whose count was a u16.
    (digest.len() as u16).serialize(bytes);
    for Entry { id, heartbeat, last_gc_version, max_version } in digest {
        id.serialize(bytes);
        for number in [heartbeat, last_gc_version, max_version] {
            number.serialize(bytes);
        }
    }
}

fn parse_delta(rest: &mut &[u8]) -> Result<Vec<NodeDelta>, Refusal> {
    let operations = unpack_blocks(rest)?;
    let rest = &mut &operations[..];
    let mut delta = Vec::<NodeDelta>::new();
    // The node that the next value is for.
    let mut current: Option<(ChitchatId, u64)> = None;
    while !rest.is_empty() {
        match take::<u8>(rest)? {
            0 => {
                let id: ChitchatId = take(rest)?;
                let last_gc_version: u64 = take(rest)?;
                // Agents delete nothing, so nothing was ever collected.
                if last_gc_version != 0 {
                    return Err(Refusal::Key);
                }
                if delta.len() >= MAX_DIGEST_NODES {
                    return Err(Refusal::Crowd);
                }
                // A node without a value is where chitchat ran out of room: it says nothing.
                current = Some((id, take(rest)?));
            }
            1 => {
                let (id, from_version) = current.take().ok_or(Refusal::Key)?;
                let (key, text): (String, String) = (take(rest)?, take(rest)?);
                let (version, status): (u64, u8) = (take(rest)?, take(rest)?);
                if key != CARD_KEY || status != 0 {
                    return Err(Refusal::Key);
                }
                if version <= from_version {
                    return Err(Refusal::Contradiction);
                }
                delta.push(NodeDelta { id, text, version, from_version });
            }
            // Only nodes without values need it, and every agent has one.
            2 => return Err(Refusal::Key),
            _ => return Err(Refusal::Malformed),
        }
    }
    let mut ids: Vec<_> = delta.iter().map(|node| &node.id).collect();
    ids.sort();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) { Err(Refusal::Malformed) } else { Ok(delta) }
}

/// chitchat makes blocks of 16 KiB, and reads ones of up to 64 KiB.
const MAX_BLOCK_BYTES: usize = u16::MAX as usize;

fn unpack_blocks(rest: &mut &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut operations = Vec::new();
    loop {
        let kind: u8 = take(rest)?;
        if kind == 0 {
            return Ok(operations);
        }
        let len = usize::from(take::<u16>(rest)?);
        let (block, behind) = rest.split_at_checked(len).ok_or(Refusal::Malformed)?;
        *rest = behind;
        let mut append = |block: &[u8]| {
            if operations.len() + block.len() > MAX_DELTA_BYTES {
                return Err(Refusal::Bomb);
            }
            operations.extend_from_slice(block);
            Ok(())
        };
        match kind {
            1 => zip::decompress(block, MAX_BLOCK_BYTES, append).map_err(|_| Refusal::Malformed)??,
            2 => append(block)?,
            _ => return Err(Refusal::Malformed),
        }
    }
}

fn write_delta(delta: &[NodeDelta], bytes: &mut Vec<u8>) {
    let mut operations = Vec::new();
    for NodeDelta { id, text, version, from_version } in delta {
        operations.push(0);
        id.serialize(&mut operations);
        0u64.serialize(&mut operations);
        from_version.serialize(&mut operations);
        operations.push(1);
        CARD_KEY.serialize(&mut operations);
        text.as_str().serialize(&mut operations);
        version.serialize(&mut operations);
        operations.push(0);
    }
    for block in operations.chunks(MAX_GOSSIP_BYTES) {
        bytes.push(2);
        (block.len() as u16).serialize(bytes);
        bytes.extend_from_slice(block);
    }
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ChitchatId {
        ChitchatId::new(name, 7, ([10, 0, 0, 1], 7000).into())
    }

    fn delta(count: u64) -> Vec<NodeDelta> {
        let node = |i: u64| NodeDelta { id: id(&format!("r{i}")), text: "t".repeat(300), version: i + 1, from_version: i };
        (0..count).map(node).collect()
    }

    fn digest() -> Vec<Entry> {
        vec![Entry { id: id("eu"), heartbeat: 5, last_gc_version: 0, max_version: 2 }]
    }

    /// A delta's bytes from blocks of (kind, content).
    fn ack(blocks: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![];
        MAGIC.serialize(&mut bytes);
        bytes.extend([VERSION, 2]);
        for (kind, content) in blocks {
            bytes.push(*kind);
            (content.len() as u16).serialize(&mut bytes);
            bytes.extend(content);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn chitchat_reads_what_is_written_and_the_other_way_round() {
        let messages = [
            Message::Syn { cluster: "mesh".into(), digest: digest() },
            Message::SynAck { digest: digest(), delta: delta(3) },
            Message::Ack { delta: delta(500) },
            Message::Ack { delta: vec![] },
            Message::SynAck { digest: digest(), delta: vec![] },
            Message::BadCluster,
        ];
        for message in messages {
            let bytes = message.to_bytes();
            assert_eq!(Message::parse(&bytes).as_ref(), Ok(&message));
            let rest = &mut &bytes[..];
            let theirs = ChitchatMessage::deserialize(rest).unwrap();
            assert!(rest.is_empty());
            assert_eq!(message.to_chitchat().unwrap(), theirs);
            // chitchat only writes a delta that it has compressed itself.
            let (Message::Ack { delta } | Message::SynAck { delta, .. }) = &message else {
                assert_eq!(theirs.serialize_to_vec(), bytes);
                continue;
            };
            let theirs = format!("{theirs:?}");
            assert_eq!(theirs.matches("from_version_excluded").count(), delta.len());
            for node in delta {
                assert!(theirs.contains(&format!("{:?}", node.id)) && theirs.contains(&format!("version: {}", node.version)));
            }
        }
    }

    #[test]
    fn a_delta_of_compressed_zeros_is_refused_before_it_grows() {
        let zeros = zstd::bulk::compress(&vec![0; 65_535], 1).unwrap();
        let blocks: Vec<_> = std::iter::repeat_n((1, zeros), 100).collect();
        assert_eq!(Message::parse(&ack(&blocks)), Err(Refusal::Bomb));
    }

    #[test]
    fn operations_that_agents_never_use_are_refused() {
        let node = |gc: u64| {
            let mut op = vec![0];
            id("eu").serialize(&mut op);
            gc.serialize(&mut op);
            0u64.serialize(&mut op);
            op
        };
        let value = |key: &str, version: u64, status: u8| {
            let mut op = vec![1];
            key.serialize(&mut op);
            "text".serialize(&mut op);
            version.serialize(&mut op);
            op.push(status);
            op
        };
        let max = [&[2u8][..], &9u64.to_le_bytes()].concat();
        let parse = |ops: &[Vec<u8>]| Message::parse(&ack(&[(2, ops.concat())]));
        assert!(parse(&[node(0), value("card", 1, 0)]).is_ok());
        assert_eq!(parse(&[node(0)]), Ok(Message::Ack { delta: vec![] }), "where chitchat ran out of room");
        for bad in ["é", "\u{10ffff}key", "", "card2", "Card"] {
            assert_eq!(parse(&[node(0), value(bad, 1, 0)]), Err(Refusal::Key), "{bad:?}");
        }
        assert_eq!(parse(&[node(0), value("card", 1, 1)]), Err(Refusal::Key), "a deletion");
        assert_eq!(parse(&[node(0), value("card", 1, 0), value("card", 2, 0)]), Err(Refusal::Key));
        assert_eq!(parse(&[node(5), value("card", 1, 0)]), Err(Refusal::Key));
        assert_eq!(parse(&[node(0), max]), Err(Refusal::Key));
        assert_eq!(parse(&[value("card", 1, 0)]), Err(Refusal::Key));
        assert_eq!(parse(&[node(0), value("card", 0, 0)]), Err(Refusal::Contradiction));
        let twice = [node(0), value("card", 1, 0), node(0), value("card", 1, 0)];
        assert_eq!(parse(&twice), Err(Refusal::Malformed));
    }

    #[test]
    fn cut_or_changed_bytes_never_panic() {
        let good = Message::SynAck { digest: digest(), delta: delta(3) }.to_bytes();
        for len in 0..good.len() {
            assert!(Message::parse(&good[..len]).is_err(), "cut to {len}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let _ = Message::parse(&bytes);
            }
        }
        assert_eq!(Message::parse(&[&good[..], &[0]].concat()), Err(Refusal::Malformed));
    }
}
