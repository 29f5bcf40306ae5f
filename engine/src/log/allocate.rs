//! Ahead of the writer: the next segment is made before the log gets there, at the log's own pace, and memory for its next
//! blocks is there.
//!
//! None of it is needed for correctness: the writer makes what it misses.

use std::io;
use std::time::Duration;

use ringmq_env::{Env, Instant};

use super::Log;
use super::making::Order;
use super::segment::SegmentRange;

/// What is due comes in multiples of so much, in bytes.
const STEP: u64 = 64 << 10;
/// Bytes a second from which on a log is fast. At its pace, each of its flushes would take zeroes along; it is better off
/// with slow flushes for a while, and none of that afterwards: its next segment is filled in one go. And memory of huge pages
/// is worth its while.
const FAST: u64 = 32 << 20;
/// A log's speed is that of so much time at least.
const TELLING: Duration = Duration::from_millis(200);

/// How the log goes through its present segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Start of that segment.
    segment: u64,
    /// Where the log was when it was first looked at there: its pace counts from that.
    from: u64,
    /// Where the log was, and when, as its speed was last taken.
    taken: (u64, Instant),
    is_fast: bool,
}

impl Pace {
    /// Of a log that was opened `now` and ends at `end`.
    pub(super) fn new(end: u64, now: Instant) -> Pace {
        Pace { segment: u64::MAX, from: end, taken: (end, now), is_fast: false }
    }

    /// Once the log, in `present`, ends at `end`.
    fn at(self, present: &SegmentRange, end: u64, now: Instant) -> Pace {
        let mut pace = self;
        if pace.segment != present.start {
            (pace.segment, pace.from) = (present.start, end);
        }
        let (before, since) = pace.taken;
        let elapsed = now.since(since);
        if elapsed >= TELLING {
            let bytes = u128::from(end.saturating_sub(before));
            pace.is_fast = bytes * 1000 >= u128::from(FAST) * elapsed.as_millis();
            pace.taken = (end, now);
        }
        pace
    }

    /// Of a log that has been fast so far.
    #[cfg(test)]
    pub(super) fn fast(self) -> Pace {
        Pace { is_fast: true, ..self }
    }

    /// How far `next` should be filled: it is whole when the log has gone through three quarters of what was left of
    /// `present`.
    fn due(&self, present: &SegmentRange, end: u64, next: &SegmentRange) -> u64 {
        let left = u128::from(present.end().saturating_sub(self.from)).max(1);
        let gone = u128::from(end.saturating_sub(self.from));
        let due = (u128::from(next.len) * gone * 4 / (left * 3)) as u64;
        if self.is_fast || due >= next.len { next.len } else { due - due % STEP }
    }
}

impl<E: Env> Log<E> {
    /// Goes on with making the segment behind the present one, as far as is due. One task calls it. An error is no harm: the
    /// writer makes what it needs itself, and meets the same error then.
    pub(crate) async fn prepare_ahead(&self) -> io::Result<()> {
        let Some((next, due)) = self.due_ahead() else { return Ok(()) };
        let log = &*self.0;
        let epoch = log.staging.borrow().epoch();
        let order = Order { range: next, epoch, fill_to: due, at_once: false, give_up: || log.closing.get() };
        let gone_on = log.segments.go_on(order).await;
        if gone_on.is_err() {
            // Nothing of it is left: its pace counts from here.
            log.pace.set(Pace::new(log.staging.borrow().end(), log.env.now()));
        }
        match gone_on {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            gone_on => gone_on,
        }
    }

    /// Has memory of huge pages got ready for the next blocks of a fast log. A slow one has small writes, which gain nothing
    /// by it; its memory grows page by page.
    pub(super) fn get_memory_ahead(&self) {
        let wanted = |log: &Self| {
            let wanted = log.0.staging.borrow().wants_huge_memory();
            wanted.filter(|_| !log.0.closing.get())
        };
        if !self.0.pace.get().is_fast || self.0.getting_memory.get() || wanted(self).is_none() {
            return;
        }
        self.0.getting_memory.set(true);
        let log = self.clone();
        self.0.env.spawn(async move {
            while let Some(len) = wanted(&log) {
                let block = log.0.env.huge_memory(len).await;
                log.0.staging.borrow_mut().add_memory(block);
            }
            log.0.getting_memory.set(false);
        });
    }

    /// Whether more of the next segment is due than there is, by the log's pace, which is taken here.
    pub(crate) fn is_ahead_due(&self) -> bool {
        self.due_ahead().is_some()
    }

    /// Removes a segment that is made in part: the log is closed.
    pub(crate) async fn abandon_ahead(&self) {
        self.0.segments.abandon().await;
    }

    /// The segment that is missing behind the present one, and up to where it should be filled; `None` if that much of it
    /// is there. Never for a log that nobody has written to since it was opened, nor before its present segment exists: what
    /// is waited for comes first.
    fn due_ahead(&self) -> Option<(SegmentRange, u64)> {
        let log = &*self.0;
        let staging = log.staging.borrow();
        let present = staging.segment();
        if staging.end() == log.opened_end {
            return None;
        }
        let pace = log.pace.get().at(&present, staging.end(), log.env.now());
        log.pace.set(pace);
        if !log.segments.exists(present.start) || log.segments.exists(present.end()) {
            return None;
        }
        let next = present.next(log.options.segment_size);
        let due = pace.due(&present, staging.end(), &next);
        (due > log.segments.filled(&next)).then_some((next, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: SegmentRange = SegmentRange { start: 64 << 20, len: 64 << 20 };
    const NEXT: SegmentRange = SegmentRange { start: 128 << 20, len: 256 << 20 };

    fn at_ms(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    /// A log that is at `from` after 0 ms and at `end` after `ms`.
    fn due(from: u64, end: u64, ms: u64) -> u64 {
        let pace = Pace::new(from, at_ms(0)).at(&PRESENT, from, at_ms(0)).at(&PRESENT, end, at_ms(ms));
        pace.due(&PRESENT, end, &NEXT)
    }

    #[test]
    fn a_segment_is_filled_while_the_log_goes_through_three_quarters_of_what_is_left() {
        let minute = 60_000;
        assert_eq!(due(PRESENT.start, PRESENT.start, minute), 0);
        assert_eq!(due(PRESENT.start, PRESENT.start + (24 << 20), minute), NEXT.len / 2);
        assert_eq!(due(PRESENT.start, PRESENT.start + (48 << 20), minute), NEXT.len);
        let late = PRESENT.end() - (4 << 20);
        assert_eq!(due(late, late + (1 << 20), minute), (NEXT.len / 3) - (NEXT.len / 3) % STEP);
        assert_eq!(due(late, PRESENT.end(), minute), NEXT.len);
        assert_eq!(due(late, PRESENT.start, minute), 0, "a roll-back");
        assert_eq!(due(PRESENT.end(), PRESENT.end(), minute), 0);
    }

    #[test]
    fn a_fast_log_has_it_filled_in_one_go_whatever_was_before() {
        let end = PRESENT.start + (8 << 20);
        assert_eq!(due(PRESENT.start, end, 200), NEXT.len);
        assert!(due(PRESENT.start, end, 199) < NEXT.len, "too soon to tell");
        assert!(due(PRESENT.start, end, 251) < NEXT.len, "not as fast");
        let hour = 3_600_000;
        let idle = Pace::new(PRESENT.start, at_ms(0)).at(&PRESENT, PRESENT.start + 4096, at_ms(hour));
        assert!(!idle.is_fast);
        assert!(idle.at(&PRESENT, end, at_ms(hour + 200)).is_fast);
    }
}
