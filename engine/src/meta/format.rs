//! Bytes of a metadata log's files: `docs/store-format.md` has the tables.

use ringmq_env::{AppendBuf, IoSlice};

use crate::bytes::array;

/// Frames start at multiples of this, so that no block that holds an acknowledged frame is ever written again.
pub(super) const BLOCK: usize = 4096;
/// Version of the format.
pub(super) const FORMAT: u32 = 1;
/// Bytes before a frame's entries.
pub(super) const FRAME_HEADER: usize = 40;
/// A frame takes further entries below this many bytes.
pub(super) const FRAME_TARGET: usize = 256 << 10;
/// Bytes of an entry besides its key and value.
pub(super) const ENTRY_HEADER: usize = 9;

const FILE_MAGIC: u32 = u32::from_le_bytes(*b"RMML");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"RMMF");
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// First block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub format: u32,
    /// The valid file with the highest generation counts.
    pub generation: u64,
    /// Random; in every frame of the generation, so that what the file held before cannot be taken for it.
    pub id: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

impl FileHeader {
    /// The block, and its CRC, which the first frame names as its predecessor's.
    pub(super) fn encode(&self) -> (IoSlice, u32) {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(&FILE_MAGIC.to_le_bytes());
        block[4..8].copy_from_slice(&self.format.to_le_bytes());
        block[8..16].copy_from_slice(&self.generation.to_le_bytes());
        block[16..24].copy_from_slice(&self.id.to_le_bytes());
        let crc = crc32fast::hash(&block[..BLOCK - 4]);
        block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
        (IoSlice::copy_of(&block), crc)
    }

    /// `None` unless the block is a whole header.
    pub(super) fn decode(block: &[u8]) -> Option<(FileHeader, u32)> {
        let whole = block.len() == BLOCK && u32_at(block, 0) == FILE_MAGIC;
        if !whole || crc32fast::hash(&block[..BLOCK - 4]) != u32_at(block, BLOCK - 4) {
            return None;
        }
        let header =
            FileHeader { format: u32_at(block, 4), generation: u64_at(block, 8), id: u64_at(block, 16) };
        Some((header, u32_at(block, BLOCK - 4)))
    }
}

/// Where the next frame goes and what it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub at: u64,
    pub id: u64,
    pub seq: u64,
    /// CRC of the frame before (of the file header, for the first).
    pub prev: u32,
    /// Counts openings of the log; never falls along the frames.
    pub epoch: u32,
}

/// What a frame's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub len: usize,
    pub crc: u32,
    pub prev: u32,
    pub seq: u64,
    pub id: u64,
    pub epoch: u32,
    pub entries: u32,
}

impl FrameHeader {
    pub(super) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER || u32_at(bytes, 0) != FRAME_MAGIC {
            return None;
        }
        Some(FrameHeader {
            len: u32_at(bytes, 4) as usize,
            crc: u32_at(bytes, 8),
            prev: u32_at(bytes, 12),
            seq: u64_at(bytes, 16),
            id: u64_at(bytes, 24),
            epoch: u32_at(bytes, 32),
            entries: u32_at(bytes, 36),
        })
    }

    /// Bytes of the frame without its padding.
    pub(super) fn total(&self) -> usize {
        FRAME_HEADER + self.len
    }

    /// Whether the frame is the one that `tail` waits for.
    pub(super) fn continues(&self, tail: &Tail) -> bool {
        self.id == tail.id && self.seq == tail.seq && self.prev == tail.prev && self.epoch >= tail.epoch
    }

    /// Whether `frame` (all of [`FrameHeader::total`]) is as it was written.
    pub(super) fn is_whole(&self, frame: &[u8]) -> bool {
        frame.len() == self.total() && crc32fast::hash(&frame[12..]) == self.crc
    }

    /// The tail behind this frame.
    pub(super) fn advance(&self, tail: &Tail) -> Tail {
        let at = tail.at + self.total().next_multiple_of(BLOCK) as u64;
        Tail { at, id: tail.id, seq: tail.seq + 1, prev: self.crc, epoch: self.epoch }
    }
}

/// Builds one frame.
pub(super) struct FrameBuilder {
    bytes: Vec<u8>,
    entries: u32,
}

impl FrameBuilder {
    pub(super) fn new() -> FrameBuilder {
        FrameBuilder { bytes: vec![0; FRAME_HEADER], entries: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_TARGET
    }

    /// Adds a key with its value, or without one if it is deleted.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB");
        self.bytes.push(if value.is_some() { PUT } else { DELETE });
        self.bytes.extend_from_slice(&length(key).to_le_bytes());
        self.bytes.extend_from_slice(&length(value.unwrap_or_default()).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.entries += 1;
    }

    /// The frame, padded to whole blocks, and the tail behind it.
    pub(super) fn finish(mut self, tail: &Tail) -> (IoSlice, Tail) {
        let len = self.bytes.len() - FRAME_HEADER;
        let len = u32::try_from(len).expect("a frame holds one large value at most");
        self.bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&len.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&tail.prev.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&tail.seq.to_le_bytes());
        self.bytes[24..32].copy_from_slice(&tail.id.to_le_bytes());
        self.bytes[32..36].copy_from_slice(&tail.epoch.to_le_bytes());
        self.bytes[36..40].copy_from_slice(&self.entries.to_le_bytes());
        let crc = crc32fast::hash(&self.bytes[12..]);
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        let header = FrameHeader::decode(&self.bytes).expect("the header was written above");
        assert!(header.continues(tail) && header.is_whole(&self.bytes));
        let mut buf = AppendBuf::with_capacity(self.bytes.len());
        buf.extend(&self.bytes);
        buf.append(self.bytes.len().next_multiple_of(BLOCK) - self.bytes.len());
        buf.publish();
        (buf.slice(0, buf.len()), header.advance(tail))
    }
}

/// One entry of a frame: a key, and its value unless it is deleted.
pub(super) type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// The entries of a whole frame; `None` if they do not add up.
pub(super) fn entries(frame: &[u8], count: u32) -> Option<Vec<Entry<'_>>> {
    let mut rest = &frame[FRAME_HEADER..];
    let mut found = Vec::new();
    for _ in 0..count {
        let (head, tail) = rest.split_at_checked(ENTRY_HEADER)?;
        let (key, tail) = tail.split_at_checked(u32_at(head, 1) as usize)?;
        let (value, tail) = tail.split_at_checked(u32_at(head, 5) as usize)?;
        found.push(match head[0] {
            PUT => (key, Some(value)),
            DELETE => (key, None),
            _ => return None,
        });
        rest = tail;
    }
    rest.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_reads_back_and_no_changed_byte_passes(
            pairs in proptest::collection::vec((prop::collection::vec(any::<u8>(), 0..40), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..20),
            tail in (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>()),
            flip in any::<prop::sample::Index>(),
        ) {
            let tail = Tail { at: 4096, id: tail.0, seq: tail.1 >> 1, prev: tail.2, epoch: tail.3 };
            let mut builder = FrameBuilder::new();
            for (key, value) in &pairs {
                builder.add(key, value.as_deref());
            }
            let (bytes, next) = builder.finish(&tail);
            let header = FrameHeader::decode(&bytes).unwrap();
            prop_assert!(header.continues(&tail) && header.is_whole(&bytes[..header.total()]));
            prop_assert_eq!(header.advance(&tail), next);
            let read = entries(&bytes[..header.total()], header.entries).unwrap();
            let want: Vec<_> = pairs.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            prop_assert_eq!(read, want);

            let mut damaged = bytes[..header.total()].to_vec();
            damaged[flip.index(header.total())] ^= 1;
            let passes = FrameHeader::decode(&damaged)
                .is_some_and(|h| h.continues(&tail) && damaged.len() >= h.total() && h.is_whole(&damaged[..h.total()]));
            prop_assert!(!passes);
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), FRAME_HEADER..200), count in any::<u32>()) {
            let _ = FrameHeader::decode(&bytes);
            let _ = entries(&bytes, count);
            prop_assert_eq!(FileHeader::decode(&bytes), None);
        }
    }
}
