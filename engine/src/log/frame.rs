//! Frames: what one group commit adds to the log, chained to the frame before.
//!
//! A frame is a 32-byte header and the records behind it, back to back. Its checksum covers the header, the
//! checksum of every record and the checksum of the frame before, so that bytes which an earlier life of the log
//! left behind the cut never continue the chain. The records' own checksums are what the index keeps too: each
//! byte is passed over once for both.

use crate::bytes::array;

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_LEN: usize = 32;

/// Smallest record that a frame may hold: RocketMQ's fixed part without a topic (docs/store-format.md).
pub(crate) const MIN_RECORD_LEN: usize = 91;

/// No frame holds more bytes of records: it lies in one block of the tail.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;

/// What the magic numbers of all kinds begin with.
const MAGIC_PREFIX: &[u8; 3] = b"RQF";
const DATA_MAGIC: u32 = u32::from_le_bytes(*b"RQFD");
const END_MAGIC: u32 = u32::from_le_bytes(*b"RQFE");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"RQFM");

// Layout of a frame's header, little endian (docs/store-format.md).
const MAGIC_AT: usize = 0;
const PAYLOAD_AT: usize = 4;
const CRC_AT: usize = 8;
const PREVIOUS_AT: usize = 12;
const BASE_AT: usize = 16;
const EPOCH_AT: usize = 24;
const _: () = assert!(EPOCH_AT + 8 == FRAME_HEADER_LEN);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Records follow.
    Data,
    /// Nothing follows in this segment: the log goes on in the next.
    End,
    /// A [`Mark`] follows, and zeroes up to the end of the sector: a group commit ends here.
    Mark,
}

impl FrameKind {
    fn magic(self) -> u32 {
        match self {
            FrameKind::Data => DATA_MAGIC,
            FrameKind::End => END_MAGIC,
            FrameKind::Mark => MARK_MAGIC,
        }
    }

    fn of_magic(magic: u32) -> Option<FrameKind> {
        [FrameKind::Data, FrameKind::End, FrameKind::Mark].into_iter().find(|kind| kind.magic() == magic)
    }

    /// Whether a frame of this kind may have so many bytes behind its header.
    fn may_have(self, payload: usize) -> bool {
        match self {
            FrameKind::Data => (1..=MAX_PAYLOAD).contains(&payload),
            FrameKind::End => payload == 0,
            FrameKind::Mark => (MARK_LEN..=MAX_PAYLOAD).contains(&payload),
        }
    }
}

/// Bytes of a mark.
pub(crate) const MARK_LEN: usize = 16;

/// What a group commit says that ends at the end of a sector, and so leaves nothing for the tail journal to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Everything before this was on the device when the group was written.
    pub flushed: u64,
    /// Newest store timestamp given out, in ms.
    pub store_ms: i64,
}

impl Mark {
    /// As stored, little endian.
    pub(crate) fn encode(&self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        bytes[..8].copy_from_slice(&self.flushed.to_le_bytes());
        bytes[8..].copy_from_slice(&self.store_ms.to_le_bytes());
        bytes
    }

    /// The mark of a whole frame with this payload.
    pub(crate) fn decode(payload: &[u8]) -> Mark {
        Mark {
            flushed: u64::from_le_bytes(array(payload, 0)),
            store_ms: i64::from_le_bytes(array(payload, 8)),
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// Bytes behind the header.
    pub payload: u32,
    /// Checksum, see [`FrameCrc`].
    pub crc: u32,
    /// Checksum of the frame before; 0 for the log's first.
    pub previous: u32,
    /// Log position of this header.
    pub base: u64,
    /// Epoch that wrote it.
    pub epoch: u64,
}

impl FrameHeader {
    /// As stored.
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[MAGIC_AT..][..4].copy_from_slice(&self.kind.magic().to_le_bytes());
        bytes[PAYLOAD_AT..][..4].copy_from_slice(&self.payload.to_le_bytes());
        bytes[CRC_AT..][..4].copy_from_slice(&self.crc.to_le_bytes());
        bytes[PREVIOUS_AT..][..4].copy_from_slice(&self.previous.to_le_bytes());
        bytes[BASE_AT..][..8].copy_from_slice(&self.base.to_le_bytes());
        bytes[EPOCH_AT..][..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }

    /// The header that starts `bytes`; `None` when none does. The checksum is not looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER_LEN {
            return None;
        }
        let kind = FrameKind::of_magic(u32::from_le_bytes(array(bytes, MAGIC_AT)))?;
        let header = FrameHeader {
            kind,
            payload: u32::from_le_bytes(array(bytes, PAYLOAD_AT)),
            crc: u32::from_le_bytes(array(bytes, CRC_AT)),
            previous: u32::from_le_bytes(array(bytes, PREVIOUS_AT)),
            base: u64::from_le_bytes(array(bytes, BASE_AT)),
            epoch: u64::from_le_bytes(array(bytes, EPOCH_AT)),
        };
        kind.may_have(header.payload as usize).then_some(header)
    }

    /// Where a frame's header may start in `bytes`, for a search behind damage.
    pub(crate) fn find(bytes: &[u8]) -> Option<usize> {
        let is_magic = |at: &usize| {
            let magic = bytes.get(*at..*at + 4);
            magic.is_some_and(|magic| FrameKind::of_magic(u32::from_le_bytes(array(magic, 0))).is_some())
        };
        memchr::memmem::find_iter(bytes, MAGIC_PREFIX).find(is_magic)
    }
}

/// The checksum of a frame while it is put together: CRC32 over the CRC32 of each record or of the mark (little endian,
/// in order) and then the header with its checksum field zero.
#[derive(Clone)]
pub(crate) struct FrameCrc(crc32fast::Hasher);

impl FrameCrc {
    /// Of no records yet.
    pub(crate) fn new() -> FrameCrc {
        FrameCrc(crc32fast::Hasher::new())
    }

    /// Adds a record, or a mark, by its checksum.
    pub(crate) fn record(&mut self, crc: u32) {
        self.0.update(&crc.to_le_bytes());
    }

    /// The checksum of the frame with this header; the header's own checksum does not matter.
    pub(crate) fn finish(mut self, header: &FrameHeader) -> u32 {
        self.0.update(&FrameHeader { crc: 0, ..*header }.encode());
        self.0.finalize()
    }
}

/// A record within a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordSpan {
    /// Where in the payload.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// CRC32 of all of it.
    pub crc: u32,
}

/// Checks a whole frame and returns its records, of which only [`FrameKind::Data`] has any; `None` when it is not what
/// was written.
pub(crate) fn check_frame(header: &FrameHeader, payload: &[u8]) -> Option<Vec<RecordSpan>> {
    assert_eq!(payload.len(), header.payload as usize);
    let mut crc = FrameCrc::new();
    let mut records = Vec::new();
    let mut at = 0;
    if header.kind == FrameKind::Mark {
        crc.record(crc32fast::hash(&payload[..MARK_LEN]));
        at = payload.len();
    }
    while at < payload.len() {
        let rest = &payload[at..];
        let len = record_len(rest).filter(|len| *len <= rest.len())?;
        let record = RecordSpan { at, len, crc: crc32fast::hash(&rest[..len]) };
        crc.record(record.crc);
        records.push(record);
        at += len;
    }
    (crc.finish(header) == header.crc).then_some(records)
}

/// Length that a record's TOTALSIZE gives it; `None` when it cannot be one.
pub(crate) fn record_len(record: &[u8]) -> Option<usize> {
    let size = i32::from_be_bytes(record.get(..4)?.try_into().ok()?);
    usize::try_from(size).ok().filter(|size| *size >= MIN_RECORD_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(lens: &[usize], previous: u32) -> (FrameHeader, Vec<u8>) {
        let mut payload = Vec::new();
        let mut crc = FrameCrc::new();
        for (n, len) in lens.iter().enumerate() {
            let mut record = vec![n as u8 ^ 0x5a; *len];
            record[..4].copy_from_slice(&(*len as i32).to_be_bytes());
            crc.record(crc32fast::hash(&record));
            payload.extend(record);
        }
        let header = FrameHeader {
            kind: FrameKind::Data,
            payload: payload.len() as u32,
            crc: 0,
            previous,
            base: 4096,
            epoch: 3,
        };
        (FrameHeader { crc: crc.finish(&header), ..header }, payload)
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_and_any_flipped_bit_breaks_it(
            lens in prop::collection::vec(MIN_RECORD_LEN..400, 1..6), previous: u32, bit: prop::sample::Index,
        ) {
            let (header, payload) = frame(&lens, previous);
            let decoded = FrameHeader::decode(&header.encode()).unwrap();
            prop_assert_eq!(decoded, header);
            let records = check_frame(&decoded, &payload).unwrap();
            prop_assert_eq!(records.iter().map(|record| record.len).collect::<Vec<_>>(), lens);

            let mut bytes = [&header.encode()[..], &payload].concat();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let accepted = FrameHeader::decode(&bytes)
                .filter(|header| header.payload as usize == payload.len())
                .is_some_and(|header| check_frame(&header, &bytes[FRAME_HEADER_LEN..]).is_some());
            prop_assert!(!accepted, "bit {} flipped unnoticed", bit);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some(header) = FrameHeader::decode(&bytes)
                && let Some(payload) = bytes.get(FRAME_HEADER_LEN..FRAME_HEADER_LEN + header.payload as usize)
            {
                check_frame(&header, payload);
            }
        }
    }

    #[test]
    fn headers_are_found_behind_other_bytes() {
        let (header, _) = frame(&[100], 1);
        let bytes = [&[7u8; 300][..], &header.encode()].concat();
        assert_eq!(FrameHeader::find(&bytes), Some(300));
        assert_eq!(FrameHeader::find(&bytes[..300]), None);
    }
}
