//! Reading the log's records in order, in slices: what of the log the index does not know yet.

use ringmq_env::Env;

use super::Log;
use super::frame::{FRAME_HEADER_LEN, FrameHeader};
use super::scan::{ScannedFrame, Scanner};
use super::segment::SEGMENT_HEADER_LEN;
use super::tail_journal::TailRecord;
use crate::damage::Damage;
use crate::types::LogPosition;

/// Bytes of the log that one step reads at least: well below a millisecond of checksums.
const STEP: u64 = 256 << 10;

/// A record that was found in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedRecord<'a> {
    /// Where it is.
    pub position: LogPosition,
    /// CRC32 of all of it.
    pub crc: u32,
    /// The record.
    pub bytes: &'a [u8],
}

/// Where a scan got to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanEnd {
    /// Behind the last frame.
    pub position: u64,
    /// Its checksum; `None`: it is not known.
    pub chain: Option<u32>,
    /// Its epoch.
    pub epoch: u64,
}

/// Whether `frame` continues a log that got to `at`.
pub(super) fn follows(frame: &ScannedFrame, at: &ScanEnd, newest: Option<&TailRecord>) -> bool {
    at.chain.is_none_or(|chain| chain == frame.header.previous) && may_follow(&frame.header, at, newest)
}

/// Whether a frame may stand behind `at`, by its epoch. What an earlier one left behind the place where the newest one
/// began may not.
pub(super) fn may_follow(header: &FrameHeader, at: &ScanEnd, newest: Option<&TailRecord>) -> bool {
    header.epoch >= at.epoch
        && newest.filter(|_| !ringmq_env::mutant!("skip-epoch")).is_none_or(|tail| {
            match header.base >= tail.epoch_start {
                true => header.epoch == tail.epoch,
                false => header.epoch <= tail.epoch,
            }
        })
}

/// Reads a stretch of the log that was committed.
pub(crate) struct Replay<'a, E: Env> {
    log: &'a Log<E>,
    scanner: Scanner<'a, E>,
    at: ScanEnd,
    from: u64,
    to: u64,
    lost: Vec<(u64, u64)>,
}

impl<E: Env> Log<E> {
    /// Reads the records from `from`, where a record was once or will be, up to `to`, which is committed.
    pub(crate) fn replay(&self, from: LogPosition, to: LogPosition) -> Replay<'_, E> {
        assert!(to <= self.committed());
        let log = &*self.0;
        let end = log.committed.borrow();
        // What of the log only the journal has.
        let tail = TailRecord {
            sequence: 0,
            epoch: 0,
            epoch_start: 0,
            position: end.position,
            flushed: end.position,
            store_ms: 0,
            chain: end.chain,
            unwritten: end.unwritten.to_vec(),
        };
        let scanner = Scanner::new(&log.segments, vec![tail], log.journal.alignment(), log.report.clone());
        let first = match log.segments.locate(from.0) {
            Some(segment) => segment.range.first_frame(),
            None => log.segments.ranges().first().map_or(SEGMENT_HEADER_LEN, |range| range.first_frame()),
        };
        let from = from.0.max(first);
        let at = ScanEnd { position: from, chain: None, epoch: 0 };
        Replay { log: self, scanner, at, from, to: to.0, lost: Vec::new() }
    }
}

impl<E: Env> Replay<'_, E> {
    /// Everything before has been handed on.
    pub(crate) fn position(&self) -> LogPosition {
        LogPosition(self.at.position.min(self.to))
    }

    /// Stretches (from, to) that cannot be read back, since this was last asked.
    pub(crate) fn take_lost(&mut self) -> impl Iterator<Item = (LogPosition, LogPosition)> {
        self.lost.drain(..).map(|(from, to)| (LogPosition(from), LogPosition(to)))
    }

    /// Hands on the records of the next frames, in log order; false at the end. Damage is told and passed over.
    pub(crate) async fn step(&mut self, on_record: &mut impl FnMut(ScannedRecord<'_>)) -> bool {
        let until = self.to.min(self.at.position + STEP);
        while self.at.position < until {
            match self.next().await {
                Some(frame) => self.hand_on(&frame, on_record).await,
                None => self.at.position = self.to,
            }
        }
        self.at.position < self.to
    }

    /// The next frame, over damage.
    async fn next(&mut self) -> Option<ScannedFrame> {
        let at = self.at;
        let chained = |frame: &ScannedFrame| at.chain.is_none_or(|chain| chain == frame.header.previous);
        if let Some(frame) = self.scanner.frame(at.position).await.filter(chained) {
            return Some(frame);
        }
        let found = match self.start_of_segment() {
            // No frame begins at the first position: the one that it is in does not begin with the index.
            Some(start) => self.scanner.find(start, at.position, |_| true).await,
            None => None,
        };
        if found.is_some() {
            return found;
        }
        // What was only misread must not count as lost for good.
        self.scanner.forget();
        if let Some(frame) = self.scanner.frame(at.position).await.filter(chained) {
            return Some(frame);
        }
        let found = self.scanner.find(at.position + 1, self.to, |header| header.epoch >= at.epoch).await;
        let base = found.as_ref().map_or(self.to, |frame| frame.header.base);
        self.lose(at.position, base);
        found
    }

    /// The start of the segment that the reading begins within, before anything was read.
    fn start_of_segment(&self) -> Option<u64> {
        let segment = self.log.0.segments.locate(self.from)?;
        (self.at.position == self.from && self.at.chain.is_none() && segment.range.first_frame() < self.from)
            .then(|| segment.range.first_frame())
    }

    fn lose(&mut self, from: u64, to: u64) {
        let segments = &self.log.0.segments;
        let (path, offset) = segments.place(from);
        let what = format!("no whole frame of the log up to position {to}");
        self.log.0.report.tell(Damage { path, offset, len: to - from, what });
        self.lost.push((from, to));
    }

    async fn hand_on(&mut self, frame: &ScannedFrame, on_record: &mut impl FnMut(ScannedRecord<'_>)) {
        let base = frame.header.base + FRAME_HEADER_LEN as u64;
        let payload = self.scanner.bytes(base, frame.header.payload as usize).await.unwrap_or_default();
        for record in &frame.records {
            let position = base + record.at as u64;
            if (self.from..self.to).contains(&position)
                && let Some(bytes) = payload.get(record.at..record.at + record.len)
            {
                on_record(ScannedRecord { position: LogPosition(position), crc: record.crc, bytes });
            }
        }
        let position = self.scanner.next_position(frame);
        self.at = ScanEnd { position, chain: Some(frame.header.crc), epoch: frame.header.epoch };
    }
}
