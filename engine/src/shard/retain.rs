//! Retention: whole segments go, the oldest first, by age, by size, or because the disk fills up; messages of topics
//! that keep them for less time go from their queues before.

use std::io;

use ringmq_env::{Env, mutant};

use super::{Inner, Shard};
use crate::log::FullSegment;
use crate::slices::Job;
use crate::types::*;

/// Hours of a day.
const DAY_HOURS: i64 = 24;
/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;

/// What a shard keeps (Java's fileReservedTime, deleteWhen, diskMaxUsedSpaceRatio, diskSpaceCleanForciblyRatio).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Messages are kept for this long, in ms.
    pub reserved_ms: i64,
    /// Hours of the day (UTC) in which expired messages are deleted.
    pub delete_hours: Vec<u8>,
    /// Bytes of log that the shard keeps at most; 0: no limit.
    pub max_bytes: u64,
    /// Disk use in percent above which expired messages are deleted at any hour.
    pub max_used_percent: u8,
    /// Disk use in percent above which the oldest messages are deleted, whatever their age; 100: never.
    pub force_percent: u8,
}

/// A topic that keeps its messages for another time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRetention {
    /// Name.
    pub topic: String,
    /// Queues that it may have.
    pub queues: u32,
    /// How long its messages are kept, in ms.
    pub reserved_ms: i64,
}

/// Segments that are deleted in one go, at most: other work gets the disk in between.
const MOST: usize = 16;

/// What one look at the oldest segments came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Segments that were deleted.
    pub segments: usize,
    /// Bytes of log that were.
    pub deleted: u64,
    /// Why, of the last one; `None` when nothing was.
    pub reason: Option<DeleteReason>,
}

/// Why a segment is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReason {
    /// All its messages are older than they are kept.
    Expired,
    /// The shard's log is longer than it may be.
    TooMuch,
    /// The disk is too full.
    DiskFull,
    /// The index knows it as deleted already: the process had ended before the files were gone.
    Begun,
}

impl RetentionPolicy {
    fn is_hour(&self, now_ms: i64) -> bool {
        let hour = now_ms.div_euclid(HOUR_MS).rem_euclid(DAY_HOURS);
        self.delete_hours.iter().any(|wanted| i64::from(*wanted) == hour)
    }

    /// Whether a disk of which so much is used, in percent, takes messages whatever their age.
    fn is_forced(&self, used: u64) -> bool {
        self.force_percent < 100 && used > u64::from(self.force_percent)
    }
}

impl<E: Env> Shard<E> {
    /// Deletes the oldest segments if the policy says so, and lets the queues' minimum offsets follow. Never deleted
    /// are the segment that is being written, and what waits for its time or its outcome ([`Shard::oldest_needed`]).
    /// A segment is kept until the messages of every topic in it may go, so one of `topics` that keeps messages longer
    /// than the policy keeps the segments of all; only a full disk, or too long a log, overrules that.
    ///
    /// Call it again while it deletes something. After an error files may be left of what is deleted already, for the next
    /// call.
    pub async fn retain_oldest(
        &self,
        policy: &RetentionPolicy,
        topics: &[TopicRetention],
    ) -> io::Result<Retained> {
        let shard = &*self.0;
        shard.slices.measured(&shard.env, Job::Retention, shard.retain_oldest(policy, topics)).await
    }

    /// Messages of topics that keep them for less time than the policy are not served any more once they are older:
    /// the minimum offsets of the topic's queues are raised. Their bytes go with their segments. (After a start they
    /// are there again until this is called.)
    pub async fn retain_topics(
        &self,
        policy: &RetentionPolicy,
        topics: &[TopicRetention],
    ) -> Result<(), ReadError> {
        let shard = &*self.0;
        shard.slices.measured(&shard.env, Job::Retention, self.retain_each(policy, topics)).await
    }

    async fn retain_each(
        &self,
        policy: &RetentionPolicy,
        topics: &[TopicRetention],
    ) -> Result<(), ReadError> {
        let shard = &*self.0;
        let now = shard.env.wall_ms();
        for topic in topics.iter().filter(|topic| topic.reserved_ms < policy.reserved_ms) {
            let oldest = now.saturating_sub(topic.reserved_ms);
            for queue in (0..topic.queues).map(QueueId) {
                if shard.index.range(&topic.topic, queue).is_some_and(|range| range.min < range.max) {
                    let deleted_at = shard.index.deleted_at(&topic.topic);
                    let first = self.offset_by_time(&topic.topic, queue, oldest, Boundary::Lower).await?;
                    shard.index.raise_queue_min(&topic.topic, queue, first, deleted_at);
                }
            }
            shard.env.yield_now().await;
        }
        Ok(())
    }
}

impl<E: Env> Inner<E> {
    async fn retain_oldest(
        &self,
        policy: &RetentionPolicy,
        topics: &[TopicRetention],
    ) -> io::Result<Retained> {
        self.look_at_disk_and_spare(u64::from(policy.force_percent)).await;
        let longest = match mutant!("retention-ignores-topic") {
            true => policy.reserved_ms,
            false => topics.iter().map(|topic| topic.reserved_ms).fold(policy.reserved_ms, i64::max),
        };
        let Some((segments, end, reason)) = self.expired_end(policy, longest).await else {
            return Ok(Retained::default());
        };
        // What is settled, and deleted, must not wait again: neither after a power failure, nor because the record that
        // settles it is deleted before the tables have taken it in. Without space for them the next start makes them
        // anew.
        if !self.flush_log().await && end > self.needed_on_device.get() {
            return Ok(Retained::default());
        }
        let flushed = self.log.flushed();
        if self.delayed.upto().min(self.half.upto()) < end {
            self.save_pending(true).await;
        }
        let min = self.log.min();
        self.index.set_log_min(end, flushed).await?;
        let is_space_wanted = policy.is_forced(self.used_percent()) || self.is_disk_full();
        let removed = self.log.remove_before(end, !is_space_wanted).await;
        self.earliest_store_ms.set(self.find_earliest().await);
        self.look_at_disk().await;
        removed?;
        let deleted = end.0 - min.0;
        tracing::info!(
            shard = self.options.id.0,
            min = end.0,
            segments,
            deleted,
            ?reason,
            "the oldest messages are deleted"
        );
        Ok(Retained { segments, deleted, reason: Some(reason) })
    }

    /// How many of the oldest segments go, where they end, and why the last of them does.
    async fn expired_end(
        &self,
        policy: &RetentionPolicy,
        longest_ms: i64,
    ) -> Option<(usize, LogPosition, DeleteReason)> {
        let mut found = None;
        for (before, segment) in self.log.full_segments().iter().take(MOST).enumerate() {
            if !self.is_deletable(segment) {
                break;
            }
            let Some(reason) = self.why_delete(policy, longest_ms, segment).await else { break };
            let upto = Some((before + 1, segment.end, reason));
            if reason == DeleteReason::DiskFull {
                // How full the disk is without a segment will be seen once it is gone: for want of space goes one at a time,
                // and none together with what goes anyway.
                return found.or(upto);
            }
            found = upto;
        }
        found
    }

    fn oldest_waiting(&self) -> LogPosition {
        self.delayed.oldest_position().min(self.half.oldest_position())
    }

    /// Takes the log to the device, and with it what has settled waiting records; false: there was no space for all of it.
    pub(super) async fn flush_log(&self) -> bool {
        // What is committed later may wait, too.
        let waiting = self.oldest_waiting().min(self.log.committed());
        let is_flushed = self.log.flush().await;
        if is_flushed {
            self.needed_on_device.set(waiting);
        }
        is_flushed
    }

    /// Whether a segment may go at all.
    fn is_deletable(&self, segment: &FullSegment) -> bool {
        let needed = self.oldest_waiting();
        let is_needed = segment.end > needed && !mutant!("retention-forgets-waiting");
        !is_needed && segment.next_record < self.log.flushed()
    }

    async fn why_delete(
        &self,
        policy: &RetentionPolicy,
        longest_ms: i64,
        segment: &FullSegment,
    ) -> Option<DeleteReason> {
        if segment.end <= self.index.log_min() {
            return Some(DeleteReason::Begun);
        }
        let now = self.env.wall_ms();
        let used = self.used_percent();
        let is_time = policy.is_hour(now) || used > u64::from(policy.max_used_percent);
        if is_time
            // No message before it is newer. A record that cannot be read says nothing.
            && let Ok(Some(newest)) = self.store_ms_at(segment.next_record).await
            && now.saturating_sub(newest) > longest_ms
        {
            return Some(DeleteReason::Expired);
        }
        let bytes = self.log.committed().0 - segment.start.0;
        if policy.max_bytes > 0 && bytes > policy.max_bytes {
            return Some(DeleteReason::TooMuch);
        }
        policy.is_forced(used).then_some(DeleteReason::DiskFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_messages_go_in_the_hours_of_deletion() {
        let policy = RetentionPolicy {
            reserved_ms: 1,
            delete_hours: vec![4, 23],
            max_bytes: 0,
            max_used_percent: 75,
            force_percent: 85,
        };
        let day = 20_000 * DAY_HOURS * HOUR_MS;
        let hours: Vec<i64> =
            (0..DAY_HOURS).filter(|hour| policy.is_hour(day + hour * HOUR_MS + 5)).collect();
        assert_eq!(hours, [4, 23]);
    }
}
