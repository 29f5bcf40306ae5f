//! Segment files: the log's space on disk.
//!
//! `log/<start position, 20 digits>.log`, allocated whole when made, with a checksummed header in its first block.
//! A log position is the segment's start plus the offset in its file.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{DirEntry, Env, File, IoSlice, OpenOptions, mutant};

use super::making::Making;
use super::spares::Spares;
use crate::bytes::array;
use crate::reread::read_again;
use crate::store::STORE_FORMAT;
use crate::types::ShardId;

/// Bytes of a segment's header block.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 4096;

/// Smallest segment that makes sense: it holds at least a few frames.
pub(crate) const MIN_SEGMENT_LEN: u64 = 64 << 10;

/// A log's first segment: small, because the first message waits for it.
const FIRST_SEGMENT_LEN: u64 = 4 << 20;

/// Longer than any segment can be configured.
const MAX_SEGMENT_LEN: u64 = 1 << 40;

/// How much larger than the one before a segment may be.
const SEGMENT_GROWTH: u64 = 4;

const MAGIC: [u8; 8] = *b"RINGSEGM";
/// What names of segments end with.
const SUFFIX: &str = ".log";
pub(super) const NEW_FILE: &str = "segment.new";

// Layout of a segment's header, little endian (docs/store-format.md).
const FORMAT_AT: usize = 8;
const CRC_AT: usize = 12;
const STORE_ID_AT: usize = 16;
const START_AT: usize = 24;
const LEN_AT: usize = 32;
const EPOCH_AT: usize = 40;
const SHARD_AT: usize = 48;
const HEADER_LEN: usize = 56;
const _: () = assert!(SHARD_AT + 2 <= HEADER_LEN && HEADER_LEN as u64 <= SEGMENT_HEADER_LEN);

/// The positions that a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRange {
    /// Position of the file's first byte.
    pub start: u64,
    /// Bytes of the file.
    pub len: u64,
}

impl SegmentRange {
    /// One past the last position.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The first segment of a log, at `start`; `limit` is the length of a full-grown one.
    pub(crate) fn first(start: u64, limit: u64) -> SegmentRange {
        SegmentRange { start, len: limit.min(FIRST_SEGMENT_LEN) }
    }

    /// The segment behind this one: segments grow up to `limit`, so that a small log takes little space.
    pub(crate) fn next(&self, limit: u64) -> SegmentRange {
        SegmentRange { start: self.end(), len: limit.min(self.len.saturating_mul(SEGMENT_GROWTH)) }
    }

    /// Where a segment begins behind whatever was lost up to `position`.
    pub(super) fn start_behind(position: u64) -> u64 {
        position.saturating_sub(SEGMENT_HEADER_LEN).next_multiple_of(SEGMENT_HEADER_LEN)
    }

    /// Position of the first frame.
    pub(crate) fn first_frame(&self) -> u64 {
        self.start + SEGMENT_HEADER_LEN
    }

    /// The range of a directory's entry, if that is a segment.
    pub(crate) fn of_file(entry: &DirEntry) -> Option<SegmentRange> {
        SegmentRange::of_name(entry, SUFFIX)
    }

    /// The same of names that end with `suffix`.
    pub(super) fn of_name(entry: &DirEntry, suffix: &str) -> Option<SegmentRange> {
        let digits = entry.name.strip_suffix(suffix).filter(|digits| digits.len() == 20)?;
        Some(SegmentRange { start: digits.parse().ok()?, len: entry.len })
    }

    pub(super) fn file_name(&self) -> String {
        self.name_with(SUFFIX)
    }

    /// The file's name as `suffix` has it.
    pub(super) fn name_with(&self, suffix: &str) -> String {
        format!("{:020}{suffix}", self.start)
    }
}

/// How the segments of one log are made and opened.
#[derive(Clone, Debug)]
pub(crate) struct SegmentConfig {
    /// Directory of the files.
    pub dir: PathBuf,
    /// The shard that the log belongs to.
    pub shard: ShardId,
    /// The store that the shard belongs to.
    pub store_id: u64,
    /// Bytes of a full-grown segment.
    pub segment_size: u64,
    /// Whether a completed write must be on the device.
    pub dsync: bool,
    /// Nothing may be changed: for the inspector.
    pub read_only: bool,
}

/// Whether a header is what was written. Every format keeps the checksum's place, so that damage never looks like a
/// newer format.
fn is_whole(header: &[u8]) -> bool {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..CRC_AT]);
    crc.update(&[0; 4]);
    crc.update(&header[CRC_AT + 4..]);
    crc.finalize() == u32::from_le_bytes(array(header, CRC_AT))
}

impl SegmentConfig {
    fn header(&self, range: SegmentRange, epoch: u64) -> [u8; HEADER_LEN] {
        self.header_of(STORE_FORMAT, range, epoch)
    }

    /// A segment's first block.
    pub(super) fn header_block(&self, range: SegmentRange, epoch: u64) -> IoSlice {
        let mut block = [0; SEGMENT_HEADER_LEN as usize];
        block[..HEADER_LEN].copy_from_slice(&self.header(range, epoch));
        IoSlice::copy_of(&block)
    }

    fn header_of(&self, format: u32, range: SegmentRange, epoch: u64) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes[FORMAT_AT..][..4].copy_from_slice(&format.to_le_bytes());
        bytes[STORE_ID_AT..][..8].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[START_AT..][..8].copy_from_slice(&range.start.to_le_bytes());
        bytes[LEN_AT..][..8].copy_from_slice(&range.len.to_le_bytes());
        bytes[EPOCH_AT..][..8].copy_from_slice(&epoch.to_le_bytes());
        bytes[SHARD_AT..][..2].copy_from_slice(&self.shard.0.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Length of the segment at `start` by its header `bytes`; otherwise what is wrong.
    pub(super) fn check(&self, start: u64, bytes: &[u8]) -> Result<u64, HeaderProblem> {
        let damaged = |what: &str| Err(HeaderProblem::Damaged(what.into()));
        let Some(bytes) = bytes.get(..HEADER_LEN) else { return damaged("it is shorter than its header") };
        let format = u32::from_le_bytes(array(bytes, FORMAT_AT));
        if bytes.starts_with(&MAGIC) && format > STORE_FORMAT && is_whole(bytes) {
            return Err(HeaderProblem::Newer(format));
        }
        let word = |at| u64::from_le_bytes(array(bytes, at));
        let len = word(LEN_AT);
        let found = SegmentConfig {
            store_id: word(STORE_ID_AT),
            shard: ShardId(u16::from_le_bytes(array(bytes, SHARD_AT))),
            ..self.clone()
        };
        let range = SegmentRange { start: word(START_AT), len };
        if format > STORE_FORMAT || bytes != found.header_of(format, range, word(EPOCH_AT)) {
            return damaged("the segment's header is damaged");
        }
        if (found.store_id, found.shard) != (self.store_id, self.shard) {
            let (store, shard) = (found.store_id, found.shard.0);
            let what = format!("it is another log's (store {store:016x}, shard {shard})");
            return Err(HeaderProblem::Foreign(what));
        }
        if range.start != start {
            return Err(HeaderProblem::Misplaced(range.start));
        }
        match len >= SEGMENT_HEADER_LEN && len.is_multiple_of(SEGMENT_HEADER_LEN) && len <= MAX_SEGMENT_LEN {
            true => Ok(len),
            false => damaged("the segment's header has an impossible length"),
        }
    }
}

/// What is wrong with a segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderProblem {
    /// Written by a newer program, in this format.
    Newer(u32),
    /// Whole, and of another log.
    Foreign(String),
    /// Whole, and of another place of this log: the file was used again, and has its former name back.
    Misplaced(u64),
    /// Not what was written.
    Damaged(String),
}

/// One segment.
pub(crate) struct Segment<E: Env> {
    /// What it holds.
    pub range: SegmentRange,
    file: RefCell<Option<E::File>>,
    /// Written since the last flush.
    dirty: Cell<bool>,
}

/// The segments of one log.
pub(crate) struct Segments<E: Env> {
    pub(super) env: E,
    pub(super) config: SegmentConfig,
    pub(super) list: RefCell<BTreeMap<u64, Rc<Segment<E>>>>,
    pub(super) spares: Spares<E>,
    pub(super) making: Making<E>,
}

impl<E: Env> Segments<E> {
    /// The segments of `ranges`, whose files are there.
    pub(super) fn new(
        env: E,
        config: SegmentConfig,
        ranges: impl Iterator<Item = SegmentRange>,
    ) -> Segments<E> {
        let list = ranges.map(|range| (range.start, Rc::new(Segment::new(range, None)))).collect();
        let (list, spares, making) = (RefCell::new(list), Spares::default(), Making::default());
        Segments { env, config, list, spares, making }
    }

    /// What there is, in log order.
    pub(crate) fn ranges(&self) -> Vec<SegmentRange> {
        self.list.borrow().values().map(|segment| segment.range).collect()
    }

    /// The segment that holds `position`.
    pub(crate) fn locate(&self, position: u64) -> Option<Rc<Segment<E>>> {
        let list = self.list.borrow();
        let (_, segment) = list.range(..=position).next_back()?;
        (position < segment.range.end()).then(|| Rc::clone(segment))
    }

    /// Position of the first segment; `None` when there is none.
    pub(crate) fn min(&self) -> Option<u64> {
        self.list.borrow().keys().next().copied()
    }

    /// The first segment that begins behind `position`.
    pub(crate) fn next_behind(&self, position: u64) -> Option<SegmentRange> {
        self.list.borrow().range(position + 1..).next().map(|(_, segment)| segment.range)
    }

    /// The file that holds `position`, or would, and where in it that is.
    pub(crate) fn place(&self, position: u64) -> (PathBuf, u64) {
        match self.locate(position) {
            Some(segment) => (self.path(&segment.range), position - segment.range.start),
            None => (self.config.dir.clone(), position),
        }
    }

    /// Path of a segment's file.
    pub(crate) fn path(&self, range: &SegmentRange) -> PathBuf {
        self.config.dir.join(range.file_name())
    }

    /// The segment's open file.
    pub(crate) async fn file(&self, segment: &Segment<E>) -> io::Result<E::File> {
        let open = segment.file.borrow().clone();
        if let Some(file) = open {
            return Ok(file);
        }
        let file = self.env.open(&self.path(&segment.range), self.options()).await?;
        *segment.file.borrow_mut() = Some(file.clone());
        Ok(file)
    }

    /// Reads `len` bytes at `position`; both multiples of the alignment, within one segment.
    pub(crate) async fn read(&self, position: u64, len: usize) -> io::Result<IoSlice> {
        let (segment, file) = self.file_at(position).await?;
        file.read_at(position - segment.range.start, len).await
    }

    /// As [`Segments::read`], and again if that fails.
    pub(crate) async fn read_again(&self, position: u64, len: usize) -> io::Result<IoSlice> {
        let (segment, file) = self.file_at(position).await?;
        read_again(&file, position - segment.range.start, len).await
    }

    /// The segment that holds `position`, and its file: whoever reads the file keeps the segment for as long, so that it
    /// is not used again meanwhile.
    async fn file_at(&self, position: u64) -> io::Result<(Rc<Segment<E>>, E::File)> {
        let segment = self.locate(position).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no segment holds log position {position}"))
        })?;
        let file = self.file(&segment).await?;
        Ok((segment, file))
    }

    /// Writes whole sectors at `position`, within one segment that exists.
    pub(crate) async fn write(&self, position: u64, data: IoSlice) -> io::Result<()> {
        let segment = self.locate(position).expect("a segment is made before it is written to");
        let end = position + data.len() as u64;
        assert!(position >= segment.range.first_frame() && end <= segment.range.end());
        let file = self.file(&segment).await?;
        file.write_at(data, position - segment.range.start).await?;
        // Only now: a flush takes completed writes alone to the device.
        segment.dirty.set(true);
        Ok(())
    }

    /// Takes every completed write to the device.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        let dirty: Vec<_> = self.list.borrow().values().filter(|s| s.dirty.replace(false)).cloned().collect();
        for segment in dirty {
            self.file(&segment).await?.sync().await?;
        }
        Ok(())
    }

    /// Takes what an earlier process may have left unflushed to the device: that of every segment that is open.
    pub(crate) async fn flush_all(&self) -> io::Result<()> {
        for segment in self.list.borrow().values() {
            segment.dirty.set(segment.file.borrow().is_some());
        }
        self.flush().await
    }

    /// Whether there is a segment at `start`.
    pub(crate) fn exists(&self, start: u64) -> bool {
        self.list.borrow().contains_key(&start)
    }

    /// Gives the file `from`, which is whole, the name of the segment of `range`, durably.
    pub(super) async fn name(&self, from: &Path, range: &SegmentRange) -> io::Result<()> {
        self.env.rename(from, &self.path(range)).await?;
        if mutant!("skip-dir-sync") { Ok(()) } else { self.env.sync_dir(&self.config.dir).await }
    }

    /// Removes every segment that starts behind `position`: made ahead, or part of what a crash cut off.
    pub(crate) async fn remove_behind(&self, position: u64) -> io::Result<()> {
        let behind = self.list.borrow_mut().split_off(&(position + 1));
        // The last first, each durably before the next, so that a crash in between leaves no gap.
        for segment in behind.values().rev() {
            self.env.remove_file(&self.config.dir.join(segment.range.file_name())).await?;
            self.env.sync_dir(&self.config.dir).await?;
        }
        Ok(())
    }

    pub(super) fn options(&self) -> OpenOptions {
        let write = !self.config.read_only;
        let dsync = write && self.config.dsync && !mutant!("ack-before-sync");
        OpenOptions { write, dsync, direct: true, ..OpenOptions::default() }
    }

    /// Directory of the files.
    pub(crate) fn dir(&self) -> &Path {
        &self.config.dir
    }
}

impl<E: Env> Segment<E> {
    pub(super) fn new(range: SegmentRange, file: Option<E::File>) -> Segment<E> {
        Segment { range, file: RefCell::new(file), dirty: Cell::new(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: SegmentRange = SegmentRange { start: 1 << 30, len: 1 << 20 };

    fn config(store_id: u64) -> SegmentConfig {
        SegmentConfig {
            dir: PathBuf::new(),
            shard: ShardId(3),
            store_id,
            segment_size: RANGE.len,
            dsync: true,
            read_only: false,
        }
    }

    #[test]
    fn a_header_is_accepted_for_its_own_segment_only() {
        let header = config(7).header(RANGE, 9);
        assert_eq!(config(7).check(RANGE.start, &header), Ok(RANGE.len));
        assert!(matches!(config(8).check(RANGE.start, &header), Err(HeaderProblem::Foreign(_))));
        assert_eq!(config(7).check(0, &header), Err(HeaderProblem::Misplaced(RANGE.start)));
        for at in 0..HEADER_LEN {
            let mut damaged = header;
            damaged[at] ^= 1;
            let problem = config(7).check(RANGE.start, &damaged).unwrap_err();
            assert!(matches!(problem, HeaderProblem::Damaged(_)), "byte {at}");
        }
        let older = config(7).header_of(1, RANGE, 9);
        assert_eq!(config(7).check(RANGE.start, &older), Ok(RANGE.len));
        let mut newer = header;
        newer[FORMAT_AT] = 9;
        let damaged = config(7).check(RANGE.start, &newer);
        assert!(matches!(damaged, Err(HeaderProblem::Damaged(_))), "{damaged:?}");
        newer[CRC_AT..][..4].fill(0);
        let crc = crc32fast::hash(&newer);
        newer[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(config(7).check(RANGE.start, &newer), Err(HeaderProblem::Newer(9)));
    }

    #[test]
    fn only_segments_have_segment_names() {
        let entry = |name: &str| DirEntry { name: name.into(), len: RANGE.len, is_dir: false };
        assert_eq!(SegmentRange::of_file(&entry(&RANGE.file_name())), Some(RANGE));
        assert_eq!(SegmentRange::of_file(&entry("17.log")), None);
        assert_eq!(SegmentRange::of_file(&entry(NEW_FILE)), None);
    }
}
