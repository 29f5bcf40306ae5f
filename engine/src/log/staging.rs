//! Putting the log's tail together in memory: records into frames, frames into blocks, blocks into what a group
//! commit writes. No I/O here.
//!
//! `LogEnd` marks a place where the log may end: behind a whole frame. The log is written in full sectors. A commit is
//! one write wherever that can be, since each costs the device a flush of its own: a small group goes to the tail
//! journal, which keeps what the log has not got yet; a large one goes to the log, filled up to the end of a sector.

use std::collections::VecDeque;

use ringmq_env::{AppendBuf, Filler, HUGE_BLOCK, IoSlice, mutant};

use super::frame::{FRAME_HEADER_LEN, FrameCrc, FrameHeader, FrameKind, MARK_LEN, MAX_PAYLOAD, Mark};
use super::hot_tail::HotTail;
use super::segment::{SEGMENT_HEADER_LEN, SegmentRange};
use super::stretch::Stretch;
use super::tail_journal::MAX_UNWRITTEN;

/// Bytes of a block of the tail, unless a unit needs a larger one, or a quarter of a segment is less.
pub(crate) const BLOCK_LEN: usize = HUGE_BLOCK;

/// A unit of records up to this size (or a segment's, if smaller) lies in one frame, and so is there whole or not at
/// all after a crash.
pub(crate) const MAX_UNIT: usize = 8 << 20;
const _: () = assert!(MAX_UNIT + 2 * BLOCK_LEN <= MAX_PAYLOAD);

/// A group of so many bytes is filled up to the end of its sector: it grows by one in thirty on average, at most.
const MARKED_FROM: u64 = 8 << 10;

/// And one of more is not: what a slot of the tail journal tells is then worth a write of its own. Recovery looks for a
/// mark no further behind than that.
pub(crate) const MAX_MARKED: u64 = 1 << 20;

/// A place where the log may end.
#[derive(Clone, Debug)]
pub(crate) struct LogEnd {
    /// One past the last frame.
    pub position: u64,
    /// Checksum of the last frame.
    pub chain: u32,
    /// What only the tail journal has of the log: the bytes from the start of a sector up to `position`.
    pub unwritten: IoSlice,
    /// The segment that `position` is in.
    pub segment: SegmentRange,
}

impl LogEnd {
    /// The end of a log without a frame in `segment` yet.
    pub(crate) fn at_start_of(segment: SegmentRange, chain: u32) -> LogEnd {
        let position = segment.first_frame();
        LogEnd { position, chain, unwritten: IoSlice::copy_of(&[]), segment }
    }

    /// Everything before this log position is in the log itself.
    pub(crate) fn written(&self) -> u64 {
        self.position - self.unwritten.len() as u64
    }
}

/// A write of whole sectors to the log.
#[derive(Clone, Debug)]
pub(crate) struct LogWrite {
    /// The segment that it lies in, which may have to be made first.
    pub segment: SegmentRange,
    /// Log position.
    pub position: u64,
    /// Whole sectors.
    pub data: IoSlice,
}

/// What one group commit makes durable.
#[derive(Debug)]
pub(crate) struct Group {
    /// Writes to the log, without order among them; they may lie in different segments.
    pub writes: Vec<LogWrite>,
    /// Where the log ends with it.
    pub end: LogEnd,
    /// It ends with a [`Mark`], and needs no slot of the tail journal.
    pub marked: bool,
}

/// A finished stretch of one block.
struct Chunk {
    write: Option<LogWrite>,
    end: LogEnd,
    marked: bool,
}

struct Block {
    buf: AppendBuf,
    start: u64,
    /// Whole sectors before this position were handed to a group, or are in the log already.
    handed: u64,
}

impl Block {
    fn after(end: &LogEnd, sizes: &Sizes, hot: &mut HotTail) -> Block {
        Block { buf: filled(hot, &end.unwritten, 0, sizes), start: end.written(), handed: end.written() }
    }

    fn end(&self) -> u64 {
        self.start + self.buf.len() as u64
    }
}

/// What blocks are made by, in bytes.
struct Sizes {
    sector: u64,
    segment: u64,
    block: usize,
}

impl Sizes {
    fn new(sector: usize, segment: u64) -> Sizes {
        // So that blocks end within small segments, too.
        let quarter = usize::try_from(segment / 4).unwrap_or(BLOCK_LEN);
        Sizes { sector: sector as u64, segment, block: BLOCK_LEN.min(quarter) }
    }
}

struct OpenFrame {
    start: u64,
    crc: FrameCrc,
}

/// The tail of one log as it is put together.
///
/// Invariant: `taken <= handed <= sealed <= end`: what groups have taken, what was cut into chunks for them, what is in
/// closed frames, and all.
pub(crate) struct Staging {
    sizes: Sizes,
    epoch: u64,
    segment: SegmentRange,
    chain: u32,
    block: Block,
    open: Option<OpenFrame>,
    handed: u64,
    taken: u64,
    chunks: VecDeque<Chunk>,
    /// A group lies in one segment, so that what is acknowledged in it does not wait for the next to be made.
    splits_at_segments: bool,
    hot: HotTail,
}

impl Staging {
    /// Goes on behind `end`, in sectors of `sector` bytes and segments of up to `segment_len`.
    pub(crate) fn new(
        sector: usize,
        segment_len: u64,
        epoch: u64,
        end: &LogEnd,
        mut hot: HotTail,
    ) -> Staging {
        assert!(end.written().is_multiple_of(sector as u64));
        let sizes = Sizes::new(sector, segment_len);
        Staging {
            epoch,
            segment: end.segment,
            chain: end.chain,
            block: Block::after(end, &sizes, &mut hot),
            sizes,
            open: None,
            handed: end.position,
            taken: end.position,
            chunks: VecDeque::new(),
            splits_at_segments: false,
            hot,
        }
    }

    /// From now on no group goes over the end of a segment.
    pub(crate) fn split_at_segments(&mut self) {
        self.splits_at_segments = true;
    }

    /// One past the last staged byte.
    pub(crate) fn end(&self) -> u64 {
        self.block.end()
    }

    /// Whether a group would have anything to commit.
    pub(crate) fn is_pending(&self) -> bool {
        self.end() > self.handed || !self.chunks.is_empty()
    }

    /// The segment that the staged end is in.
    pub(crate) fn segment(&self) -> SegmentRange {
        self.segment
    }

    /// Most bytes of records that can lie in one frame.
    pub(crate) fn max_unit(&self) -> usize {
        let room = self.sizes.segment - SEGMENT_HEADER_LEN - 2 * FRAME_HEADER_LEN as u64;
        MAX_UNIT.min(usize::try_from(room).unwrap_or(MAX_UNIT))
    }

    /// Epoch of new frames.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Makes room for records of `len` bytes together in the open frame, ending frame, block or segment if they
    /// do not fit. Beyond [`MAX_UNIT`] only the next record's room is made, by [`Staging::push`].
    pub(crate) fn reserve(&mut self, len: usize) {
        let framed = len + FRAME_HEADER_LEN;
        let need = if self.open.is_some() { len } else { framed };
        let fits_block = need + FRAME_HEADER_LEN <= self.block.buf.remaining();
        // In a new block, or behind a closed frame, the records need a header of their own.
        if !self.fits_segment(if fits_block { need } else { framed }) {
            self.roll_segment(framed);
            assert!(self.fits_segment(framed), "{len} bytes in a segment of {}", self.segment.len);
        } else if !fits_block {
            self.roll_block(framed);
        }
    }

    /// Whether `len` more bytes leave room for the segment's end frame.
    fn fits_segment(&self, len: usize) -> bool {
        self.end() + (len + FRAME_HEADER_LEN) as u64 <= self.segment.end()
    }

    /// Appends a record of `len` bytes, which `fill` puts there part by part, and of which it tells the CRC32; returns its
    /// position and that.
    pub(crate) fn push(&mut self, len: usize, fill: impl FnOnce(u64, &mut Filler<'_>) -> u32) -> (u64, u32) {
        self.reserve(len);
        let frame = self.open.get_or_insert_with(|| {
            let frame = OpenFrame { start: self.block.end(), crc: FrameCrc::new() };
            self.block.buf.append(FRAME_HEADER_LEN);
            frame
        });
        let position = self.block.end();
        let mut crc = 0;
        let record = self.block.buf.append_parts(len, |filler| crc = fill(position, filler));
        debug_assert_eq!(crc, crc32fast::hash(record), "what is told of a record is what lies there");
        frame.crc.record(crc);
        // The next record is likely as long.
        self.block.buf.prefetch_next(len);
        (position, crc)
    }

    /// Everything staged, up to about `max_bytes`, to be committed next; `None` when nothing is staged. `mark` is what
    /// the group says if it needs no slot of the tail journal.
    pub(crate) fn take_group(&mut self, max_bytes: u64, mark: Mark) -> Option<Group> {
        let begun = self.taken;
        let mut group: Option<Group> = None;
        while self.taken - begun < max_bytes {
            if self.chunks.is_empty() {
                self.seal();
                self.cut_last(begun, mark);
            }
            let goes_on = |chunk: &mut Chunk| {
                let segment = group.as_ref().map(|group| group.end.segment);
                !self.splits_at_segments || segment.is_none_or(|segment| segment == chunk.end.segment)
            };
            let Some(Chunk { write, end, marked }) = self.chunks.pop_front_if(goes_on) else { break };
            self.taken = end.position;
            let group = group.get_or_insert_with(|| Group { writes: Vec::new(), end: end.clone(), marked });
            group.writes.extend(write);
            (group.end, group.marked) = (end, marked);
        }
        group
    }

    /// A group is in the log up to `end`: memory of older blocks may go.
    pub(crate) fn committed(&mut self, end: &LogEnd) {
        self.hot.evict(self.block.buf.capacity(), end.written());
    }

    /// Drops everything behind `end` and goes on there in a new epoch.
    pub(crate) fn roll_back(&mut self, end: &LogEnd, epoch: u64) {
        assert!(epoch > self.epoch && end.position <= self.end());
        self.open = None;
        self.chunks.clear();
        let published = self.handed.max(self.block.start);
        self.retire_block((published - self.block.start) as usize);
        // The new block has all from there on, what is committed of it included.
        self.hot.truncate(end.written());
        self.block = Block::after(end, &self.sizes, &mut self.hot);
        (self.segment, self.chain) = (end.segment, end.chain);
        (self.handed, self.taken, self.epoch) = (end.position, end.position, epoch);
    }

    /// The block that `position` is in, as far as its frames are closed, if the tail holds it.
    pub(crate) fn stretch_at(&self, position: u64) -> Option<Stretch> {
        let start = self.block.start;
        if position < start {
            return self.hot.stretch_at(position);
        }
        let len = self.closed().checked_sub(start)? as usize;
        Some(Stretch { start, bytes: self.block.buf.slice(0, len) })
    }

    /// Closes the open frame; returns the bytes from `position` on, if one block has them.
    pub(crate) fn close_frames_from(&mut self, position: u64) -> Option<IoSlice> {
        self.seal();
        let at = position.checked_sub(self.block.start)? as usize;
        Some(self.block.buf.slice(at, self.block.buf.len() - at))
    }

    /// One past the closed frames.
    fn closed(&self) -> u64 {
        self.open.as_ref().map_or(self.end(), |frame| frame.start)
    }

    /// Memory held by the tail, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.hot.memory() + self.block.buf.capacity()
    }

    /// Bytes of the blocks of huge pages that should be got ahead of a fast log, if any.
    pub(crate) fn wants_huge_memory(&self) -> Option<usize> {
        let block = self.sizes.block;
        self.hot.wants_huge_memory(self.block.buf.capacity(), block).then_some(block)
    }

    /// Takes an empty block for later.
    pub(crate) fn add_memory(&mut self, block: AppendBuf) {
        self.hot.add_memory(block);
    }

    /// Closes the open frame: its header is written and its bytes are published.
    fn seal(&mut self) {
        let Some(frame) = self.open.take() else { return };
        let end = self.end();
        let payload = (end - frame.start) as usize - FRAME_HEADER_LEN;
        self.write_header(frame.start, payload, FrameKind::Data, frame.crc);
    }

    fn write_header(&mut self, base: u64, payload: usize, kind: FrameKind, crc: FrameCrc) {
        assert!(payload <= MAX_PAYLOAD, "a frame of {payload} bytes");
        let payload = payload as u32;
        let mut header = FrameHeader { kind, payload, crc: 0, previous: self.chain, base, epoch: self.epoch };
        header.crc = crc.finish(&header);
        let at = (base - self.block.start) as usize;
        self.block.buf.unpublished_mut(at, FRAME_HEADER_LEN).copy_from_slice(&header.encode());
        self.block.buf.publish();
        self.chain = header.crc;
    }

    /// Turns what a group ends with that began at `begun` into a chunk.
    fn cut_last(&mut self, begun: u64, mark: Mark) {
        let len = self.end() - begun;
        let unwritten = self.end() - self.block.handed;
        if (MARKED_FROM..=MAX_MARKED).contains(&len) && self.end() > self.handed && self.fits_mark() {
            self.push_mark(mark);
            self.cut(self.end(), true);
        } else if unwritten <= MAX_UNWRITTEN as u64 {
            self.cut(self.block.handed, false);
        } else {
            self.cut_sectors();
        }
    }

    /// Turns what the block has beyond the last cut into a chunk whose whole sectors are written to the log.
    fn cut_sectors(&mut self) {
        self.cut(self.end() - self.end() % self.sizes.sector, false);
    }

    /// Turns what the block has beyond the last cut into a chunk that is written to the log up to `written`. The open
    /// frame must be closed.
    fn cut(&mut self, written: u64, marked: bool) {
        assert!(self.open.is_none());
        let position = self.end();
        if position == self.handed {
            return;
        }
        let at = (written - self.block.start) as usize;
        let unwritten = self.block.buf.slice(at, (position - written) as usize);
        let end = LogEnd { position, chain: self.chain, unwritten, segment: self.segment };
        let write = self.hand_out(written);
        self.chunks.push_back(Chunk { write, end, marked });
        self.handed = position;
    }

    /// Where the sector ends that a mark at the end would lie in.
    fn end_of_mark(&self) -> u64 {
        (self.end() + (FRAME_HEADER_LEN + MARK_LEN) as u64).next_multiple_of(self.sizes.sector)
    }

    /// Whether a mark leaves room for the segment's end frame.
    fn fits_mark(&self) -> bool {
        let until = self.end_of_mark();
        (until - self.end()) as usize <= self.block.buf.remaining()
            && until + FRAME_HEADER_LEN as u64 <= self.segment.end()
    }

    /// Fills up the sector with a mark.
    fn push_mark(&mut self, mark: Mark) {
        let (base, len) = (self.end(), (self.end_of_mark() - self.end()) as usize);
        let mark = mark.encode();
        self.block.buf.append(len)[FRAME_HEADER_LEN..][..MARK_LEN].copy_from_slice(&mark);
        let mut crc = FrameCrc::new();
        crc.record(crc32fast::hash(&mark));
        self.write_header(base, len - FRAME_HEADER_LEN, FrameKind::Mark, crc);
    }

    /// The block's whole sectors up to `until` that no group has had yet.
    fn hand_out(&mut self, until: u64) -> Option<LogWrite> {
        let position = self.block.handed;
        assert!(position <= until && until.is_multiple_of(self.sizes.sector));
        self.block.handed = until;
        let (at, len) = ((position - self.block.start) as usize, (until - position) as usize);
        (len > 0).then(|| LogWrite { segment: self.segment, position, data: self.block.buf.slice(at, len) })
    }

    /// Begins a new block, with what the log has not got copied over.
    fn roll_block(&mut self, framed: usize) {
        self.seal();
        self.cut_sectors();
        // More than a sector if the last groups went to the tail journal alone.
        let start = match mutant!("block-forgets-unwritten") {
            true => self.end() - self.end() % self.sizes.sector,
            false => self.block.handed,
        };
        let unwritten =
            self.block.buf.slice((start - self.block.start) as usize, (self.end() - start) as usize);
        self.retire_block(self.block.buf.len());
        let buf = filled(&mut self.hot, &unwritten, framed, &self.sizes);
        self.block = Block { buf, start, handed: start };
    }

    /// Ends the segment with an end frame, fills up its last sector, and goes on in the next one.
    fn roll_segment(&mut self, framed: usize) {
        self.seal();
        if self.block.buf.remaining() < FRAME_HEADER_LEN {
            // A mark has filled it up.
            self.roll_block(0);
        }
        if self.splits_at_segments {
            self.cut_sectors();
        }
        let base = self.end();
        self.block.buf.append(FRAME_HEADER_LEN);
        self.write_header(base, 0, FrameKind::End, FrameCrc::new());
        let until = self.end().next_multiple_of(self.sizes.sector);
        self.block.buf.append((until - self.end()) as usize);
        self.block.buf.publish();
        assert!(until <= self.segment.end());
        let write = self.hand_out(until);
        self.retire_block(self.block.buf.len());

        self.segment = self.segment.next(self.sizes.segment);
        let end = LogEnd::at_start_of(self.segment, self.chain);
        self.handed = end.position;
        let buf = filled(&mut self.hot, &[], framed, &self.sizes);
        self.block = Block { buf, start: end.position, handed: end.position };
        self.chunks.push_back(Chunk { write, end, marked: false });
        assert_eq!(self.segment.start + SEGMENT_HEADER_LEN, self.end());
    }

    /// Hands the block's first `len` bytes, all published, to the hot tail.
    fn retire_block(&mut self, len: usize) {
        if len > 0 {
            self.hot.push(self.block.start, self.block.buf.slice(0, len));
        }
    }
}

/// A block that starts with `bytes`, published, and has room for `framed` more, an end frame and its padding.
fn filled(hot: &mut HotTail, bytes: &[u8], framed: usize, sizes: &Sizes) -> AppendBuf {
    let needed = bytes.len() + framed + FRAME_HEADER_LEN + sizes.sector as usize;
    let mut buf = hot.new_block(needed.max(sizes.block));
    buf.extend(bytes);
    buf.publish();
    buf
}
