//! Walking over a whole log without changing it.

use std::path::{Path, PathBuf};

use ringmq_env::Env;

use super::SEGMENT_DIR;
use super::frame::{FRAME_HEADER_LEN, RecordSpan};
use super::replay::ScanEnd;
use super::scan::{ScannedFrame, Scanner};
use super::segment::{SEGMENT_HEADER_LEN, SegmentConfig, SegmentRange, Segments};
use super::shadow::ShadowImage;
use super::tail_journal::{TailRecord, look};
use crate::damage::{Damage, DamageReport};
use crate::inspect::SegmentFacts;
use crate::shard::OpenError;
use crate::types::{LogPosition, ShardId};

/// A multiple of every device's alignment.
const ALIGNMENT: usize = 4096;

/// The files of a log that nobody writes to.
pub(crate) struct LogFiles<E: Env> {
    segments: Segments<E>,
    tails: Vec<TailRecord>,
    shadow: Option<ShadowImage>,
    report: DamageReport,
    /// Everything before was on the device once: by what the caller knows, and in all.
    known: LogPosition,
    sure_end: u64,
}

/// A log, read frame by frame, with every checksum and chain checked.
pub(crate) struct LogWalk<'a, E: Env> {
    files: &'a LogFiles<E>,
    scanner: Scanner<'a, E>,
    /// Where the next frame is wanted, and the checksum and epoch of the one before.
    at: u64,
    chain: Option<u32>,
    epoch: u64,
}

impl ScannedFrame {
    /// Bytes of the frame.
    pub(crate) fn len(&self) -> u64 {
        (FRAME_HEADER_LEN + self.header.payload as usize) as u64
    }
}

impl<E: Env> LogFiles<E> {
    /// Opens the log in the shard's directory; everything before `known` was on the device once.
    pub(crate) async fn open(
        env: &E,
        dir: &Path,
        shard: ShardId,
        store_id: u64,
        known: LogPosition,
        report: &DamageReport,
    ) -> Result<LogFiles<E>, OpenError> {
        let config = SegmentConfig {
            dir: dir.join(SEGMENT_DIR),
            shard,
            store_id,
            segment_size: 0,
            dsync: false,
            read_only: true,
        };
        let segments = Segments::open(env.clone(), config, report).await?;
        let mut tails = look(env, dir).await.map_err(OpenError::at(dir))?;
        let newest = tails.last().map_or(0, |tail| tail.epoch);
        tails.retain(|tail| tail.epoch == newest);
        let ranges = segments.ranges();
        let furthest = ranges.last().map_or(0, |range| range.end() + SEGMENT_HEADER_LEN);
        let flushed = tails.iter().map(|tail| tail.flushed).max().unwrap_or(0);
        if tails.is_empty() && !ranges.is_empty() {
            let what = "no slot is whole: the newest messages may be lost".into();
            report.tell(Damage { path: dir.join("tail"), offset: 0, len: 1, what });
        }
        let sure_end = flushed.max(known.0.min(furthest));
        let shadow = ShadowImage::read(env, dir, report).await;
        Ok(LogFiles { segments, tails, shadow, report: report.clone(), known, sure_end })
    }

    /// Reads the log from its start.
    pub(crate) fn walk(&self) -> LogWalk<'_, E> {
        let first = self.segments.ranges().first().map_or(SEGMENT_HEADER_LEN, |range| range.first_frame());
        let scanner = Scanner::new(&self.segments, self.tails.clone(), ALIGNMENT, self.report.clone());
        LogWalk { files: self, scanner, at: first, chain: None, epoch: 0 }
    }

    /// First position kept.
    pub(crate) fn min(&self) -> u64 {
        self.segments.min().unwrap_or(0)
    }

    /// Tells of what is missing of a log that should begin at `begin`, if that is known.
    pub(crate) fn tell_missing(&self, begin: Option<LogPosition>) {
        // Without a segment, where a start would make the first.
        let min = self.segments.min().unwrap_or_else(|| SegmentRange::start_behind(self.known.0));
        let min = LogPosition(min);
        self.segments.tell_missing(begin, min, &self.report);
    }

    /// The file that holds `position`, and where in it that is.
    pub(crate) fn place(&self, position: LogPosition) -> (PathBuf, u64) {
        self.segments.place(position.0)
    }

    /// The segments in log order.
    pub(crate) fn segments(&self) -> Vec<SegmentFacts> {
        let facts = |range: SegmentRange| SegmentFacts {
            path: self.segments.path(&range),
            start: range.start,
            len: range.len,
        };
        self.segments.ranges().into_iter().map(facts).collect()
    }
}

impl<E: Env> LogWalk<'_, E> {
    /// Behind the last frame that was read.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next frame that checks out; damage before it is told.
    pub(crate) async fn next(&mut self) -> Option<ScannedFrame> {
        let (at, chain, epoch, sure_end) = (self.at, self.chain, self.epoch, self.files.sure_end);
        let fits = |frame: &ScannedFrame| {
            chain.is_none_or(|chain| chain == frame.header.previous) && frame.header.epoch >= epoch
        };
        let mut frame = self.scanner.frame(at).await.filter(fits);
        if frame.is_none() && at >= sure_end && self.take_in_shadow().await {
            frame = self.scanner.frame(at).await.filter(fits);
        }
        let sure_end = match &frame {
            None if at >= sure_end => {
                let vouched = self.scanner.vouched(at, |header| header.epoch >= epoch).await;
                vouched.unwrap_or(sure_end)
            }
            _ => sure_end,
        };
        if frame.is_none() && at < sure_end {
            frame = self.scanner.find(at + 1, sure_end + 1, |header| header.epoch >= epoch).await;
            let to = frame.as_ref().map_or(sure_end, |frame| frame.header.base);
            let (path, offset) = self.files.segments.place(at);
            let what = format!("no whole frame of the log up to position {to}");
            self.files.report.tell(Damage { path, offset, len: to - at, what });
        }
        let frame = frame?;
        self.at = self.scanner.next_position(&frame);
        (self.chain, self.epoch) = (Some(frame.header.crc), frame.header.epoch);
        Some(frame)
    }

    /// At the log's end: lays over it what only the shadow has; true if there is anything.
    async fn take_in_shadow(&mut self) -> bool {
        let (Some(shadow), newest) = (&self.files.shadow, self.files.tails.last()) else { return false };
        let at = ScanEnd { position: self.at, chain: self.chain, epoch: self.epoch };
        let tail = shadow.tail_behind(&at, &self.files.segments, newest, &mut self.scanner).await;
        tail.map(|tail| self.scanner.lay_over(tail)).is_some()
    }

    /// The frame's records, with their positions.
    pub(crate) async fn records(&mut self, frame: &ScannedFrame) -> Vec<(LogPosition, Vec<u8>)> {
        let base = frame.header.base + FRAME_HEADER_LEN as u64;
        let payload = self.scanner.bytes(base, frame.header.payload as usize).await.unwrap_or_default();
        let record = |span: &RecordSpan| {
            Some((LogPosition(base + span.at as u64), payload.get(span.at..span.at + span.len)?.to_vec()))
        };
        frame.records.iter().filter_map(record).collect()
    }
}
