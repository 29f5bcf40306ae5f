//! Ahead of the writer: the next segment is made, and its sectors are zero-filled, before the log gets there.
//!
//! None of it is needed for correctness. A write into sectors that were never written before costs the filesystem
//! a metadata commit at each flush; zero-filling takes that off the writer.

use ringmq_env::{AppendBuf, Env, IoSlice};

use super::Log;
use super::segment::{SEGMENT_HEADER_LEN, SegmentRange};

/// Zero-filled sectors are kept this far ahead of what is staged, in bytes.
const ZERO_AHEAD: u64 = 32 << 20;

/// One slice of zero-filling, in bytes: other writes get in between.
const ZERO_SLICE: usize = 1 << 20;

impl<E: Env> Log<E> {
    /// Does the work ahead that is due now; returns when nothing is left to do. One task calls it. An error is no
    /// harm: the writer makes what it needs itself, and meets the same error then.
    pub(crate) async fn prepare_ahead(&self) -> std::io::Result<()> {
        let log = &*self.0;
        if !self.is_ahead_due() {
            return Ok(());
        }
        let zeros = zeros();
        loop {
            let (end, segment, epoch) = {
                let staging = log.staging.borrow();
                (staging.end(), staging.segment(), staging.epoch())
            };
            log.prepared_for.set(end);
            let ahead = end + ahead_len(segment);
            log.segments.ensure(segment, epoch).await?;
            if log.closing.get() {
                return Ok(());
            }
            if log.segments.fill(segment.start, self.staged().0, ahead, &zeros).await? {
                continue;
            }
            let next = SegmentRange { start: segment.end(), len: log.options.segment_size };
            if ahead < next.start {
                return Ok(());
            }
            log.segments.ensure(next, epoch).await?;
            if !log.segments.fill(next.start, self.staged().0, ahead, &zeros).await? {
                return Ok(());
            }
        }
    }

    /// Whether less than half of what should be zero-filled ahead is. Not again before more is staged, and so not
    /// for a log that nobody writes to.
    pub(crate) fn is_ahead_due(&self) -> bool {
        let staging = self.0.staging.borrow();
        let (end, segment) = (staging.end(), staging.segment());
        if end == self.0.prepared_for.get() {
            return false;
        }
        let wanted = end + ahead_len(segment) / 2;
        let ready = self.0.segments.ready_to(segment.start).max(end.next_multiple_of(SEGMENT_HEADER_LEN));
        ready < wanted.min(segment.end())
            || wanted >= segment.end() && self.0.segments.ready_to(segment.end()) < wanted
    }
}

fn ahead_len(segment: SegmentRange) -> u64 {
    ZERO_AHEAD.min(segment.len / 2)
}

fn zeros() -> IoSlice {
    let mut zeros = AppendBuf::with_capacity(ZERO_SLICE);
    zeros.append(ZERO_SLICE);
    zeros.publish();
    zeros.slice(0, ZERO_SLICE)
}
