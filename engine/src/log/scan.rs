//! Reading frames in log order, for recovery.

use std::io;

use ringmq_env::Env;

use super::frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind, RecordSpan, check_frame};
use super::segment::Segments;
use super::tail_journal::TailRecord;

/// Bytes that are read at once at least.
const WINDOW: u64 = 1 << 20;

/// A frame that is what was written.
pub(super) struct ScannedFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its records.
    pub records: Vec<RecordSpan>,
}

impl ScannedFrame {
    /// One past its last byte.
    pub(super) fn end(&self) -> u64 {
        self.header.base + (FRAME_HEADER_LEN + self.header.payload as usize) as u64
    }
}

/// Reads a log as it stands on disk, with the tail journal's partial sectors laid over it.
pub(super) struct Scanner<'a, E: Env> {
    segments: &'a Segments<E>,
    tails: &'a [TailRecord],
    alignment: u64,
    start: u64,
    window: Vec<u8>,
}

impl<'a, E: Env> Scanner<'a, E> {
    /// `tails` are of one epoch, oldest first.
    pub(super) fn new(segments: &'a Segments<E>, tails: &'a [TailRecord], alignment: usize) -> Self {
        Scanner { segments, tails, alignment: alignment as u64, start: 0, window: Vec::new() }
    }

    /// The `len` bytes at `position`, within one segment; `None` when the segments end before.
    pub(super) async fn bytes(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if len == 0 {
            return Ok(Some(&[]));
        }
        let end = position + len as u64;
        if position < self.start || end > self.start + self.window.len() as u64 {
            let Some(segment) = self.segments.locate(position).filter(|s| end <= s.range.end()) else {
                return Ok(None);
            };
            let start = position - position % self.alignment;
            let wanted = end.max(start + WINDOW).next_multiple_of(self.alignment).min(segment.range.end());
            self.window = self.segments.read(start, (wanted - start) as usize).await?.to_vec();
            self.start = start;
            self.overlay();
        }
        let at = (position - self.start) as usize;
        Ok(self.window.get(at..at + len))
    }

    fn overlay(&mut self) {
        let window_end = self.start + self.window.len() as u64;
        for tail in self.tails {
            let (from, to) = (tail.sector_start().max(self.start), tail.position.min(window_end));
            if from < to {
                let source = &tail.sector[(from - tail.sector_start()) as usize..];
                let target = &mut self.window[(from - self.start) as usize..(to - self.start) as usize];
                target.copy_from_slice(&source[..target.len()]);
            }
        }
    }

    /// The frame at `position`, checked by itself, not against its neighbours; `None` when none is there.
    pub(super) async fn frame(&mut self, position: u64) -> io::Result<Option<ScannedFrame>> {
        let Some(header) = self.bytes(position, FRAME_HEADER_LEN).await?.and_then(FrameHeader::decode) else {
            return Ok(None);
        };
        if header.base != position {
            return Ok(None);
        }
        let payload = self.bytes(position + FRAME_HEADER_LEN as u64, header.payload as usize).await?;
        let records = payload.and_then(|payload| check_frame(&header, payload));
        Ok(records.map(|records| ScannedFrame { header, records }))
    }

    /// The first frame from `position` on and before `until`, looked for byte by byte.
    pub(super) async fn find(&mut self, position: u64, until: u64) -> io::Result<Option<ScannedFrame>> {
        let mut at = position;
        while at < until {
            let Some(segment) = self.segments.locate(at) else { return Ok(None) };
            let end = segment.range.end();
            let len = WINDOW.min(end - at) as usize;
            let found = self.bytes(at, len).await?.and_then(FrameHeader::find);
            match found {
                Some(skip) => {
                    at += skip as u64;
                    if let Some(frame) = self.frame(at).await?.filter(|frame| frame.header.base < until) {
                        return Ok(Some(frame));
                    }
                    at += 1;
                }
                // A magic number may lie across the end of what was looked at.
                None if at + (len as u64) < end => at += len as u64 - 3,
                None => at = end,
            }
        }
        Ok(None)
    }

    /// Where the log goes on behind `frame`.
    pub(super) fn next_position(&self, frame: &ScannedFrame) -> u64 {
        match frame.header.kind {
            FrameKind::Data => frame.end(),
            FrameKind::End => {
                let segment = self.segments.locate(frame.header.base);
                segment.map_or(frame.end(), |s| s.range.end() + super::segment::SEGMENT_HEADER_LEN)
            }
        }
    }
}
