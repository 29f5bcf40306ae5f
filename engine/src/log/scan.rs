//! Reading frames in log order, for recovery and inspection.

use ringmq_env::{Env, mutant};
use ringmq_protocol::record::RecordView;

use super::frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind, Mark, RecordSpan, check_frame};
use super::segment::Segments;
use super::staging::MAX_MARKED;
use super::tail_journal::TailRecord;
use crate::damage::{Damage, DamageReport};

/// Bytes that are read at once at least.
const WINDOW: u64 = 1 << 20;
/// How far behind the last whole frame a mark is looked for: two marked groups and a segment's header.
const LOOK_AHEAD: u64 = 2 * MAX_MARKED + (64 << 10);
/// Where that fails, what can be read is found in pieces of this many bytes: a multiple of every alignment.
const PIECE: usize = 4096;

/// A frame that is what was written.
pub(crate) struct ScannedFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its records.
    pub records: Vec<RecordSpan>,
    /// What it says, if it is a [`FrameKind::Mark`].
    pub mark: Option<Mark>,
}

impl ScannedFrame {
    /// The frame of this header and what lies behind it, if it is what was written.
    pub(super) fn of(header: FrameHeader, payload: &[u8]) -> Option<ScannedFrame> {
        let records = check_frame(&header, payload)?;
        let mark = (header.kind == FrameKind::Mark).then(|| Mark::decode(payload));
        Some(ScannedFrame { header, records, mark })
    }

    /// One past its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.header.base + (FRAME_HEADER_LEN + self.header.payload as usize) as u64
    }
}

/// Reads a log as it stands on disk, with what the tail journal has of it laid over it. What the device fails to
/// read is told, and counts as zeroes.
pub(crate) struct Scanner<'a, E: Env> {
    segments: &'a Segments<E>,
    tails: Vec<TailRecord>,
    alignment: u64,
    report: DamageReport,
    start: u64,
    window: Vec<u8>,
    /// One past the last byte that could not be read.
    unreadable: u64,
}

impl<'a, E: Env> Scanner<'a, E> {
    /// `tails` are of one epoch, oldest first.
    pub(crate) fn new(
        segments: &'a Segments<E>,
        tails: Vec<TailRecord>,
        alignment: usize,
        report: DamageReport,
    ) -> Self {
        let (alignment, start, unreadable) = (alignment as u64, 0, 0);
        Scanner { segments, tails, alignment, report, start, window: Vec::new(), unreadable }
    }

    /// What offsets and lengths of reads are multiples of, in bytes.
    pub(crate) fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Lays one more entry over what the disk has, the newest.
    pub(crate) fn lay_over(&mut self, tail: TailRecord) {
        self.tails.push(tail);
        self.forget();
    }

    /// The next bytes come from the disk.
    pub(crate) fn forget(&mut self) {
        self.window.clear();
    }

    /// One past the last byte that the device failed to read; 0 when it read all.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The `len` bytes at `position`, within one segment; `None` when the segments end before.
    pub(crate) async fn bytes(&mut self, position: u64, len: usize) -> Option<&[u8]> {
        if len == 0 {
            return Some(&[]);
        }
        let end = position + len as u64;
        if position < self.start || end > self.start + self.window.len() as u64 {
            let segment = self.segments.locate(position).filter(|s| end <= s.range.end())?;
            let start = position - position % self.alignment;
            let wanted = end.max(start + WINDOW).next_multiple_of(self.alignment).min(segment.range.end());
            self.window = self.read(start, (wanted - start) as usize).await;
            self.start = start;
            self.overlay();
        }
        let at = (position - self.start) as usize;
        self.window.get(at..at + len)
    }

    /// Whole sectors of one segment. What was cut off a file counts as zeroes, too: the journal may still have the
    /// sector that the log goes on in.
    async fn read(&mut self, start: u64, len: usize) -> Vec<u8> {
        if let Ok(bytes) = self.segments.read(start, len).await {
            let mut window = bytes.to_vec();
            window.resize(len, 0);
            return window;
        }
        let mut window = Vec::with_capacity(len);
        while window.len() < len {
            let (at, piece) = (start + window.len() as u64, PIECE.min(len - window.len()));
            match self.segments.read_again(at, piece).await {
                Ok(bytes) if bytes.len() < piece => {
                    window.extend_from_slice(&bytes);
                    window.resize(len, 0);
                }
                Ok(bytes) => window.extend_from_slice(&bytes),
                Err(error) => {
                    window.resize(window.len() + piece, 0);
                    self.unreadable = self.unreadable.max(at + piece as u64);
                    let (path, offset) = self.segments.place(at);
                    let what = format!("it cannot be read: {error}");
                    self.report.tell(Damage { path, offset, len: piece as u64, what });
                }
            }
        }
        window
    }

    fn overlay(&mut self) {
        let window_end = self.start + self.window.len() as u64;
        for tail in &self.tails {
            let (from, to) = (
                tail.written().max(self.start),
                (tail.position - u64::from(mutant!("truncate-off-by-one"))).min(window_end),
            );
            if from < to {
                let source = &tail.unwritten[(from - tail.written()) as usize..];
                let target = &mut self.window[(from - self.start) as usize..(to - self.start) as usize];
                target.copy_from_slice(&source[..target.len()]);
            }
        }
    }

    /// The frame at `position`, checked by itself, not against its neighbours; `None` when none is there.
    pub(crate) async fn frame(&mut self, position: u64) -> Option<ScannedFrame> {
        let header = self.bytes(position, FRAME_HEADER_LEN).await.and_then(FrameHeader::decode)?;
        if header.base != position {
            return None;
        }
        let payload = self.bytes(position + FRAME_HEADER_LEN as u64, header.payload as usize).await?;
        ScannedFrame::of(header, payload)
    }

    /// When the frame's last record was stored, in ms.
    pub(crate) async fn store_time(&mut self, frame: &ScannedFrame) -> Option<i64> {
        let record = frame.records.last()?;
        let position = frame.header.base + (FRAME_HEADER_LEN + record.at) as u64;
        let bytes = self.bytes(position, record.len).await?;
        RecordView::decode(bytes).ok().map(|record| record.store_timestamp)
    }

    /// How much of the log was on the device by the word of the first mark behind `position` that knows of more. The group
    /// behind the last one that is whole has a slot of the tail journal, or a mark no further away than this looks.
    pub(crate) async fn vouched(
        &mut self,
        position: u64,
        wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Option<u64> {
        // Most logs end where their newest slot says.
        let newest = self.tails.last().map(|tail| tail.position).filter(|newest| *newest > position);
        for from in std::iter::once(position).chain(newest) {
            let mut at = from;
            let is_mark = |header: &FrameHeader| header.kind == FrameKind::Mark && wanted(header);
            while let Some(frame) = self.find(at, from + LOOK_AHEAD, is_mark).await {
                let flushed = frame.mark.map_or(0, |mark| mark.flushed);
                if flushed > position {
                    return Some(flushed);
                }
                at = frame.end();
            }
        }
        None
    }

    /// The first frame from `position` on and before `until` whose epoch is `wanted`, looked for byte by byte.
    pub(crate) async fn find(
        &mut self,
        position: u64,
        until: u64,
        wanted: impl Fn(&FrameHeader) -> bool,
    ) -> Option<ScannedFrame> {
        let mut at = position;
        while at < until {
            let Some(segment) = self.segments.locate(at) else {
                // A segment is missing.
                at = self.segments.next_behind(at)?.first_frame();
                continue;
            };
            let end = segment.range.end();
            let len = self.in_sight(at).unwrap_or(WINDOW).min(end - at) as usize;
            match self.bytes(at, len).await.and_then(FrameHeader::find) {
                Some(skip) => {
                    at += skip as u64;
                    let is_wanted = |frame: &ScannedFrame| frame.header.base < until && wanted(&frame.header);
                    if let Some(frame) = self.frame(at).await.filter(is_wanted) {
                        return Some(frame);
                    }
                    at += 1;
                }
                // A magic number may lie across the end of what was looked at.
                None if at + (len as u64) < end => at += len as u64 - 3,
                None => at = end,
            }
        }
        None
    }

    /// How much of what was read last lies behind `at`, if a header may. In a file that was used before many places look
    /// like the begin of a frame: none of them costs another read.
    fn in_sight(&self, at: u64) -> Option<u64> {
        let end = self.start + self.window.len() as u64;
        (at >= self.start && at + FRAME_HEADER_LEN as u64 <= end).then(|| end - at)
    }

    /// Where the log goes on behind `frame`.
    pub(crate) fn next_position(&self, frame: &ScannedFrame) -> u64 {
        match frame.header.kind {
            FrameKind::Data | FrameKind::Mark => frame.end(),
            FrameKind::End => {
                let segment = self.segments.locate(frame.header.base);
                segment.map_or(frame.end(), |s| s.range.end() + super::segment::SEGMENT_HEADER_LEN)
            }
        }
    }
}
