//! The CommitLog of one shard: frames of records in segment files, group commits, the tail journal, recovery.
//!
//! It knows records as bytes that begin with their length; what they mean is the shard's affair.

mod allocate;
mod cold_cache;
mod frame;
mod group_commit;
mod hot_tail;
pub(crate) mod inspect;
mod making;
mod open_segments;
mod reader;
mod recovery;
mod replay;
mod scan;
mod segment;
mod shadow;
mod spares;
mod staging;
mod stretch;
mod tail_journal;
#[cfg(test)]
mod tests;
mod write_behind;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::{Env, Filler, IoSlice, mutant};

use crate::damage::DamageReport;
use crate::signal::Signal;
use crate::types::{CommitSizes, LOG_END, LogPosition, ShardId};

pub(crate) use frame::record_len;
pub(crate) use group_commit::CommitStep;
pub(crate) use replay::ScannedRecord;
pub(crate) use spares::RELEASE_TIME;
pub(crate) use stretch::Stretch;

use allocate::Pace;
use cold_cache::ColdCache;
use segment::Segments;
use staging::{LogEnd, Staging};
use tail_journal::TailJournal;
use write_behind::WriteBehind;

/// Directory of the segments in the shard's directory.
const SEGMENT_DIR: &str = "log";

/// How a log is opened.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    /// The shard's directory: the journal's; segments are in `log` below it.
    pub dir: PathBuf,
    /// The shard.
    pub shard: ShardId,
    /// The store's number.
    pub store_id: u64,
    /// Whether a commit is complete only once on the device.
    pub sync_flush: bool,
    /// Bytes of the shadow, from which small groups are acknowledged; 0: there is none.
    pub shadow: u64,
    /// Bytes of a new segment.
    pub segment_size: u64,
    /// Bytes that the hot tail may hold.
    pub tail_memory: usize,
    /// Bytes of the log that reads from disk may keep.
    pub cold_memory: usize,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogCounters {
    /// Group commits.
    pub commits: u64,
    /// By their sizes.
    pub commit_sizes: CommitSizes,
    /// Device flushes; a dsync write counts as one.
    pub flushes: u64,
    /// Bytes written to segments and the tail journal.
    pub bytes_written: u64,
    /// Bytes of the log that were acknowledged from the shadow.
    pub bytes_shadowed: u64,
}

/// One shard's log. Lives on the shard's core; clones are the same log.
pub(crate) struct Log<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Log<E> {
    fn clone(&self) -> Self {
        Log(Rc::clone(&self.0))
    }
}

/// Invariant: `flushed <= acknowledged <= staged`, and `flushed <= committed <= staged`. Without a shadow what is committed
/// is acknowledged.
struct Inner<E: Env> {
    env: E,
    options: LogOptions,
    staging: RefCell<Staging>,
    segments: Segments<E>,
    journal: TailJournal<E>,
    /// Where the log ends as it is written.
    committed: RefCell<LogEnd>,
    /// Everything before may be read, and outlives the process.
    acknowledged: Cell<u64>,
    /// Set if there is a shadow.
    behind: Option<WriteBehind<E>>,
    /// Everything before is known to be on the device.
    flushed: Cell<u64>,
    /// Where the log ended when the present epoch began.
    epoch_start: Cell<u64>,
    /// Log position that the newest slot of the tail journal tells.
    journaled: Cell<u64>,
    last_store_ms: Cell<i64>,
    /// How long the last group commit took.
    commit_time: Cell<Duration>,
    /// How fast the log goes through its present segment.
    pace: Cell<Pace>,
    /// Where the log ended when it was opened.
    opened_end: u64,
    cold: ColdCache,
    counters: Cell<LogCounters>,
    flushing: Cell<bool>,
    /// Memory for the next blocks is on its way.
    getting_memory: Cell<bool>,
    closing: Cell<bool>,
    /// Staged messages are being dropped: nothing is staged meanwhile.
    rolling_back: Cell<bool>,
    /// Told when something is staged, committed, flushed, or the log closes.
    changed: Signal,
    report: DamageReport,
}

/// A segment that is written to no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FullSegment {
    /// Its first position.
    pub start: LogPosition,
    /// First position of the next one.
    pub end: LogPosition,
    /// Where the first record behind it is.
    pub next_record: LogPosition,
}

impl<E: Env> Log<E> {
    /// Most bytes of records that are kept together by [`Log::reserve`].
    pub(crate) fn max_unit(&self) -> usize {
        self.0.staging.borrow().max_unit()
    }

    /// Makes room for `len` bytes of records, at most [`Log::max_unit`], in one frame: after a crash they are
    /// there together or not at all.
    pub(crate) fn reserve(&self, len: usize) {
        self.0.staging.borrow_mut().reserve(len);
    }

    /// Stages a record of `len` bytes, written by `fill`, which is told where it will lie, and tells its CRC32. Returns
    /// both. [`Log::kick`] gets it committed.
    pub(crate) fn push(
        &self,
        len: usize,
        fill: impl FnOnce(LogPosition, &mut Filler<'_>) -> u32,
    ) -> (LogPosition, u32) {
        assert!(!self.0.closing.get(), "nothing is staged in a closing log");
        assert!(!self.0.rolling_back.get(), "nothing is staged while the log is rolled back");
        let mut staging = self.0.staging.borrow_mut();
        let (position, crc) = staging.push(len, |position, filler| fill(LogPosition(position), filler));
        (LogPosition(position), crc)
    }

    /// Lets the group commit know that something is staged.
    pub(crate) fn kick(&self) {
        self.0.changed.notify();
    }

    /// The store timestamp for records staged now: the wall clock, but never backwards.
    pub(crate) fn store_timestamp(&self) -> i64 {
        let now = match mutant!("time-goes-back") {
            true => self.0.env.wall_ms(),
            false => self.0.env.wall_ms().max(self.0.last_store_ms.get()),
        };
        self.0.last_store_ms.set(now);
        now
    }

    /// Where the first frame's first record is, if anything is committed.
    pub(crate) fn first_record(&self) -> Option<LogPosition> {
        let first = self.0.segments.ranges().first()?.first_frame();
        (first < self.committed().0).then_some(LogPosition(first + frame::FRAME_HEADER_LEN as u64))
    }

    /// The segments before the one that is being written, the oldest first.
    pub(crate) fn full_segments(&self) -> Vec<FullSegment> {
        let ranges = self.0.segments.ranges();
        let written = self.0.committed.borrow().segment.start;
        let kept = ranges.iter().skip(1 + usize::from(mutant!("retention-segment-too-many")));
        let full = ranges.iter().zip(ranges.iter().skip(1)).zip(kept);
        let full = full.take_while(|((segment, _), _)| segment.end() <= written);
        full.map(|((segment, next), kept)| FullSegment {
            start: LogPosition(segment.start),
            end: LogPosition(kept.start),
            next_record: LogPosition(next.first_frame() + frame::FRAME_HEADER_LEN as u64),
        })
        .collect()
    }

    /// Removes the segments that end at or before `position`. With `spare`, some of their files are kept for the next
    /// segments.
    pub(crate) async fn remove_before(&self, position: LogPosition, spare: bool) -> std::io::Result<()> {
        self.0.segments.remove_before(position.0, spare).await
    }

    /// Gives the disk back what is kept for the next segments; true if there was anything, or was within [`RELEASE_TIME`].
    pub(crate) async fn release_spares(&self) -> bool {
        self.0.segments.release_spares().await
    }

    /// Segments that were made since the log was opened.
    pub(crate) fn segments_made(&self) -> u64 {
        self.0.segments.made()
    }

    /// Those of them that had been segments before.
    pub(crate) fn segments_reused(&self) -> u64 {
        self.0.segments.reused()
    }

    /// Whether the `len` bytes at `position` lie in one segment.
    pub(crate) fn is_in_one_segment(&self, position: LogPosition, len: usize) -> bool {
        let segment = self.0.segments.locate(position.0);
        segment.is_some_and(|segment| position.0 + len as u64 <= segment.range.end())
    }

    /// The file that holds `position`, and where in it that is, for messages.
    pub(crate) fn place(&self, position: LogPosition) -> (PathBuf, u64) {
        self.0.segments.place(position.0)
    }

    /// First position kept; without a segment, where the first one will begin.
    pub(crate) fn min(&self) -> LogPosition {
        LogPosition(self.0.segments.min().unwrap_or_else(|| self.0.committed.borrow().segment.start))
    }

    /// Tells of what is missing of a log that should begin at `begin`, if that is known.
    pub(crate) fn tell_missing(&self, begin: Option<LogPosition>, report: &DamageReport) {
        self.0.segments.tell_missing(begin, self.min(), report);
    }

    /// One past the last staged byte.
    pub(crate) fn staged(&self) -> LogPosition {
        LogPosition(self.0.staging.borrow().end())
    }

    /// Everything before is committed.
    pub(crate) fn committed(&self) -> LogPosition {
        LogPosition(self.0.acknowledged.get())
    }

    /// Everything before is known to be on the device.
    pub(crate) fn flushed(&self) -> LogPosition {
        LogPosition(self.0.flushed.get())
    }

    /// Counters since the log was opened.
    pub(crate) fn counters(&self) -> LogCounters {
        self.0.counters.get()
    }

    /// Memory that the hot tail holds, in bytes.
    pub(crate) fn tail_memory(&self) -> usize {
        self.0.staging.borrow().memory()
    }

    /// Memory that reads from disk hold, in bytes.
    pub(crate) fn cold_memory(&self) -> u64 {
        self.0.cold.memory()
    }

    /// Whether `len` bytes of records may get beyond what physical offsets can say. Some segments before that: no
    /// append has to be cut, however it falls into segments.
    pub(crate) fn is_full_for(&self, len: usize) -> bool {
        let furthest = self.0.staging.borrow().segment().end() + self.0.options.segment_size + 2 * len as u64;
        furthest > LOG_END.0
    }

    /// The committed bytes at `position` if the hot tail has them.
    pub(crate) fn get_hot(&self, position: LogPosition, len: usize) -> Option<IoSlice> {
        self.hot_stretch(position)?.get(position, len)
    }

    /// What the hot tail has around `position`, all of it committed or about to be.
    pub(crate) fn hot_stretch(&self, position: LogPosition) -> Option<Stretch> {
        self.0.staging.borrow().stretch_at(position.0)
    }

    /// Lets [`Log::commit_next`] end once everything staged is committed. Nothing may be staged from now on.
    pub(crate) fn close(&self) {
        self.0.closing.set(true);
        self.0.changed.notify();
    }
}

impl<E: Env> Inner<E> {
    fn count(&self, change: impl FnOnce(&mut LogCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    fn assert_watermarks(&self) {
        let (flushed, staged) = (self.flushed.get(), self.staging.borrow().end());
        for end in [self.committed.borrow().position, self.acknowledged.get()] {
            assert!(flushed <= end && end <= staged, "{flushed} <= {end} <= {staged}");
        }
    }
}
