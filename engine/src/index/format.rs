//! Bytes of a run: `docs/store-format.md` has the tables. All numbers are little endian.

use crate::bytes::array;
use crate::types::LogPosition;

use super::table::IndexEntry;

/// Runs are written and read in blocks of this many bytes.
pub(super) const BLOCK: usize = 4096;
/// Bytes of a block before its CRC.
pub(super) const DATA: usize = BLOCK - 4;
/// Version of the format.
pub(super) const FORMAT: u32 = 1;

pub(super) const ENTRY: usize = 24;
pub(super) const EXTENT: usize = 56;
pub(super) const KEY: usize = 16;
pub(super) const FENCE: usize = 8;
/// Block in which the entries begin, behind the header.
pub(super) const FIRST_BLOCK: u32 = 1;
/// The place of a name that a run does not have.
pub(super) const NOWHERE: u32 = u32::MAX;
/// Records of each kind in a block; none crosses into the next.
pub(super) const ENTRIES_PER_BLOCK: usize = DATA / ENTRY;
pub(super) const EXTENTS_PER_BLOCK: usize = DATA / EXTENT;
pub(super) const KEYS_PER_BLOCK: usize = DATA / KEY;
pub(super) const FENCES_PER_BLOCK: usize = DATA / FENCE;

const MAGIC: u64 = u64::from_le_bytes(*b"RINGRUN1");
/// Bits of a packed key that count seconds; the others count bytes of the log.
const SECOND_BITS: u32 = 28;
const MAX_SECONDS: u64 = (1 << SECOND_BITS) - 1;
/// Most bytes of the log that one run covers.
pub(super) const MAX_SPAN: u64 = (1 << (64 - SECOND_BITS)) - 1;

const _: () = assert!(EXTENTS_PER_BLOCK == 73 && ENTRIES_PER_BLOCK == 170 && KEYS_PER_BLOCK == 255);

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The CRC of a block: of its bytes, and of which block of which run it is.
pub(super) fn block_crc(run: u64, number: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&run.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// Whether the block is what was written as block `number` of the run.
pub(super) fn is_whole(run: u64, number: u32, block: &[u8]) -> bool {
    block.len() == BLOCK && block_crc(run, number, &block[..DATA]) == u32_at(block, DATA)
}

/// First block of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub format: u32,
    /// Random.
    pub id: u64,
    /// The run covers `from <= position < to` of the log.
    pub from: u64,
    pub to: u64,
    /// Number of entries, extents, bytes of names, keys.
    pub entries: u32,
    pub extents: u32,
    pub names: u32,
    pub keys: u32,
    /// Store times of the keys, in ms.
    pub keys_from_ms: i64,
    pub keys_to_ms: i64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let fields = [
            MAGIC.to_le_bytes(),
            u64::from(self.format).to_le_bytes(),
            self.id.to_le_bytes(),
            self.from.to_le_bytes(),
            self.to.to_le_bytes(),
            pair(self.entries, self.extents),
            pair(self.names, self.keys),
            self.keys_from_ms.to_le_bytes(),
            self.keys_to_ms.to_le_bytes(),
        ];
        block[..72].copy_from_slice(fields.as_flattened());
        let crc = block_crc(0, 0, &block[..DATA]);
        block[DATA..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// `None` unless the block is a header that this program understands.
    pub(super) fn decode(block: &[u8]) -> Option<Header> {
        if !is_whole(0, 0, block) || u64_at(block, 0) != MAGIC || u32_at(block, 8) != FORMAT {
            return None;
        }
        let header = Header {
            format: FORMAT,
            id: u64_at(block, 16),
            from: u64_at(block, 24),
            to: u64_at(block, 32),
            entries: u32_at(block, 40),
            extents: u32_at(block, 44),
            names: u32_at(block, 48),
            keys: u32_at(block, 52),
            keys_from_ms: u64_at(block, 56) as i64,
            keys_to_ms: u64_at(block, 64) as i64,
        };
        (header.from < header.to && header.to - header.from <= MAX_SPAN).then_some(header)
    }

    /// Where the sections begin, in blocks: they follow one another.
    pub(super) fn layout(&self) -> Layout {
        let blocks = |count: u32, each: usize| (count as usize).div_ceil(each) as u32;
        let directory = FIRST_BLOCK + blocks(self.entries, ENTRIES_PER_BLOCK);
        let names = directory + blocks(self.extents, EXTENTS_PER_BLOCK);
        let keys = names + blocks(self.names, DATA);
        let fences = keys + blocks(self.keys, KEYS_PER_BLOCK);
        let fence_count = (names - directory) + (fences - keys);
        Layout {
            entries: FIRST_BLOCK,
            directory,
            names,
            keys,
            fences,
            end: fences + blocks(fence_count, FENCES_PER_BLOCK),
        }
    }
}

fn pair(low: u32, high: u32) -> [u8; 8] {
    (u64::from(low) | u64::from(high) << 32).to_le_bytes()
}

/// First block of each section, and one past the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub entries: u32,
    pub directory: u32,
    pub names: u32,
    pub keys: u32,
    pub fences: u32,
    pub end: u32,
}

/// Consecutive messages of one queue in a run. Extents are sorted by hash; those of one queue by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// [`super::table::queue_hash`] of the queue.
    pub hash: u64,
    /// First queue offset.
    pub first: i64,
    /// Log position of the first and of the last message.
    pub base_position: u64,
    pub last_position: u64,
    /// Store time of the first message.
    pub base_ms: i64,
    /// Index of its first entry among the run's, and their number.
    pub entry: u32,
    pub count: u32,
    /// Where in the names section the topic is.
    pub name: u32,
    pub queue: u32,
}

impl Extent {
    /// One past the last queue offset.
    pub(super) fn end(&self) -> i64 {
        self.first + i64::from(self.count)
    }

    pub(super) fn encode(&self) -> [u8; EXTENT] {
        let fields = [
            self.hash.to_le_bytes(),
            self.first.to_le_bytes(),
            self.base_position.to_le_bytes(),
            self.last_position.to_le_bytes(),
            self.base_ms.to_le_bytes(),
            pair(self.entry, self.count),
            pair(self.name, self.queue),
        ];
        let mut bytes = [0; EXTENT];
        bytes.copy_from_slice(fields.as_flattened());
        bytes
    }

    /// `None` unless the extent lies within the run.
    pub(super) fn decode(bytes: &[u8], header: &Header) -> Option<Extent> {
        let extent = Extent {
            hash: u64_at(bytes, 0),
            first: u64_at(bytes, 8) as i64,
            base_position: u64_at(bytes, 16),
            last_position: u64_at(bytes, 24),
            base_ms: u64_at(bytes, 32) as i64,
            entry: u32_at(bytes, 40),
            count: u32_at(bytes, 44),
            name: u32_at(bytes, 48),
            queue: u32_at(bytes, 52),
        };
        let within = extent.entry.checked_add(extent.count).is_some_and(|end| end <= header.entries)
            && extent.first >= 0
            && extent.first.checked_add(i64::from(extent.count)).is_some()
            && extent.count > 0
            && extent.name < header.names
            && header.from <= extent.base_position
            && extent.base_position <= extent.last_position
            && extent.last_position < header.to;
        within.then_some(extent)
    }

    /// Whether `entry` can be written relative to this extent.
    pub(super) fn fits(&self, entry: &IndexEntry) -> bool {
        let within = |delta: Option<u64>| delta.is_some_and(|delta| delta <= u64::from(u32::MAX));
        let ms = entry.store_ms.checked_sub(self.base_ms).and_then(|delta| u64::try_from(delta).ok());
        within(entry.position.0.checked_sub(self.base_position)) && within(ms)
    }

    /// Writes an entry of this extent, which [`Extent::fits`], where it is to be: a copy would read across stores that
    /// the core has not done yet, and wait for them.
    #[inline]
    pub(super) fn encode_entry(&self, entry: &IndexEntry, place: &mut [u8; ENTRY]) {
        assert!(self.fits(entry));
        place[..8].copy_from_slice(&pair((entry.position.0 - self.base_position) as u32, entry.size));
        place[8..16].copy_from_slice(&pair(entry.crc, (entry.store_ms - self.base_ms) as u32));
        place[16..].copy_from_slice(&entry.tags_code.to_le_bytes());
    }

    pub(super) fn decode_entry(&self, bytes: &[u8]) -> IndexEntry {
        IndexEntry {
            position: LogPosition(self.base_position + u64::from(u32_at(bytes, 0))),
            size: u32_at(bytes, 4),
            crc: u32_at(bytes, 8),
            store_ms: self.base_ms.saturating_add(i64::from(u32_at(bytes, 12))),
            tags_code: u64_at(bytes, 16) as i64,
        }
    }
}

/// The whole second that `ms` lies in: what the times of a run's keys count from, so that they are of the same seconds
/// in a run that is merged of several.
pub(super) fn whole_second(ms: i64) -> i64 {
    ms.div_euclid(1000).saturating_mul(1000)
}

/// One key of one message in a run: its hash in the high half, and in the low half bytes from the run's start in the
/// high 36 bits, seconds from `keys_from_ms` in the low 28, the largest number standing for all later times. One number,
/// so that keys are sorted by hash, then position, and compared without a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackedKey(u128);

impl PackedKey {
    pub(super) fn new(hash: u64, position: u64, store_ms: i64, header: &Header) -> PackedKey {
        assert!(position >= header.from && position - header.from <= MAX_SPAN);
        let seconds = store_ms.saturating_sub(header.keys_from_ms).max(0) as u64 / 1000;
        PackedKey::of(hash, (position - header.from) << SECOND_BITS | seconds.min(MAX_SECONDS))
    }

    fn of(hash: u64, packed: u64) -> PackedKey {
        PackedKey(u128::from(hash) << 64 | u128::from(packed))
    }

    pub(super) fn hash(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn packed(self) -> u64 {
        self.0 as u64
    }

    pub(super) fn encode(&self) -> [u8; KEY] {
        self.0.rotate_left(64).to_le_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> PackedKey {
        PackedKey(u128::from_le_bytes(array(bytes, 0)).rotate_left(64))
    }

    /// The same key in another run.
    pub(super) fn moved(self, shift: &KeyShift) -> PackedKey {
        let seconds = (self.packed() & MAX_SECONDS) + shift.seconds;
        let position = (self.packed() & !MAX_SECONDS) + shift.position;
        PackedKey::of(self.hash(), position | seconds.min(MAX_SECONDS))
    }

    pub(super) fn position(self, header: &Header) -> u64 {
        header.from + (self.packed() >> SECOND_BITS)
    }

    /// Whether the message may have been stored within `begin_ms..=end_ms`.
    pub(super) fn may_be_within(self, begin_ms: i64, end_ms: i64, header: &Header) -> bool {
        let seconds = self.packed() & MAX_SECONDS;
        let earliest = header.keys_from_ms.saturating_add(seconds as i64 * 1000);
        // A run that did not count from a whole second may be one of those that this one was merged of.
        let latest = if seconds == MAX_SECONDS { i64::MAX } else { earliest.saturating_add(1998) };
        latest >= begin_ms && earliest <= end_ms
    }
}

/// What is added to the keys of a run, when they become keys of another one whose range and times include its own.
pub(super) struct KeyShift {
    /// Where a packed key has its position.
    position: u64,
    seconds: u64,
}

impl KeyShift {
    pub(super) fn new(from: &Header, to: &Header) -> KeyShift {
        assert!(to.from <= from.from && from.to <= to.to && to.to - to.from <= MAX_SPAN);
        let ms = from.keys_from_ms.saturating_sub(to.keys_from_ms).max(0);
        KeyShift {
            position: (from.from - to.from) << SECOND_BITS,
            seconds: (ms as u64 / 1000).min(MAX_SECONDS),
        }
    }
}

/// The topic at `at` of the names section.
pub(super) fn name_at(names: &[u8], at: u32) -> Option<&str> {
    std::str::from_utf8(bytes_at(names, at)?).ok()
}

/// The same, which may be no text.
pub(super) fn bytes_at(names: &[u8], at: u32) -> Option<&[u8]> {
    let rest = names.get(at as usize..)?;
    let (len, rest) = rest.split_at_checked(2)?;
    rest.get(..usize::from(u16::from_le_bytes(array(len, 0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_read_back_and_no_changed_bit_passes(
            numbers in (any::<u64>(), any::<u32>(), 1..1u64 << 30),
            counts in (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>()),
            times in (any::<i64>(), any::<i64>()),
            bit in 0..BLOCK * 8,
        ) {
            let (id, from, span) = numbers;
            let header = Header {
                format: FORMAT, id, from: u64::from(from), to: u64::from(from) + span,
                entries: counts.0.into(), extents: counts.1.into(), names: counts.2.into(), keys: counts.3.into(),
                keys_from_ms: times.0, keys_to_ms: times.1,
            };
            let mut block = header.encode();
            prop_assert_eq!(Header::decode(&block), Some(header));
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&block), None);
        }

        #[test]
        fn entries_and_keys_read_back(
            base in (0..1u64 << 50, 0..1i64 << 42), delta in (any::<u32>(), any::<u32>()),
            rest in (any::<u32>(), any::<u32>(), any::<i64>(), any::<u64>()),
        ) {
            let extent = Extent {
                hash: rest.3, first: 5, base_position: base.0, last_position: base.0, base_ms: base.1,
                entry: 0, count: 1, name: 0, queue: 3,
            };
            let entry = IndexEntry {
                position: LogPosition(base.0 + u64::from(delta.0)), size: rest.0, crc: rest.1, tags_code: rest.2,
                store_ms: base.1 + i64::from(delta.1),
            };
            let mut bytes = [0; ENTRY];
            extent.encode_entry(&entry, &mut bytes);
            prop_assert_eq!(extent.decode_entry(&bytes), entry);
            let header = Header { from: base.0, to: base.0 + 1, entries: 1, names: 9, keys_from_ms: base.1, ..Header::default() };
            prop_assert_eq!(Extent::decode(&extent.encode(), &header), Some(extent));

            let key = PackedKey::new(rest.3, entry.position.0, entry.store_ms, &header);
            prop_assert_eq!(PackedKey::decode(&key.encode()), key);
            prop_assert_eq!(key.position(&header), entry.position.0);
            prop_assert!(key.may_be_within(entry.store_ms, entry.store_ms, &header));
            prop_assert!(!key.may_be_within(entry.store_ms + 2000, i64::MAX, &header));

            let wider = Header {
                from: header.from.saturating_sub(70), to: header.to + 9,
                keys_from_ms: whole_second(base.1.saturating_sub(12_345)), ..header
            };
            let moved = key.moved(&KeyShift::new(&header, &wider));
            prop_assert_eq!((moved.hash(), moved.position(&wider)), (rest.3, entry.position.0));
            prop_assert_eq!(moved, PackedKey::new(rest.3, entry.position.0, header.keys_from_ms + (entry.store_ms - header.keys_from_ms) / 1000 * 1000, &wider));
            prop_assert!(moved.may_be_within(entry.store_ms, entry.store_ms, &wider));
            prop_assert!(!moved.may_be_within(entry.store_ms + 3000, i64::MAX, &wider));
        }
    }
}
