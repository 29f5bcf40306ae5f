//! What a shard's retention may delete, and what becomes of the queues' minimum offsets.
//!
//! The policy of a run is fixed, so that it can be said of every message at any time whether it may be gone: it is past
//! due, or the log or the disk is too full, and it waits for nothing.

use std::ops::Range;

use ringmq_engine::*;
use ringmq_env::Env;
use ringmq_env::sim::Fault;

use super::life::{Life, World};
use super::model::{Message, Queue, TOPICS};
use crate::plan::Plan;

/// Segments of a run with retention, in bytes: small ones, so that some are full.
pub const SEGMENT: u64 = 64 << 10;

/// What a run keeps.
#[derive(Debug)]
pub struct Retention {
    policy: RetentionPolicy,
    topics: Vec<TopicRetention>,
}

impl Retention {
    /// That of the run, if it deletes anything.
    pub fn of(plan: &Plan) -> Option<Retention> {
        // Of its own, as the plan's.
        let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x7265_7461);
        let kind = random.u8(..6);
        let reserved_ms = 10 << random.u32(..7);
        let policy = RetentionPolicy {
            reserved_ms: if kind == 0 { reserved_ms } else { 24 * 3_600_000 },
            delete_hours: (0..24).collect(),
            max_bytes: if kind == 1 { SEGMENT * random.u64(1..5) } else { 0 },
            max_used_percent: 100,
            force_percent: if kind == 2 && plan.quota { 80 } else { 100 },
        };
        let of_its_own = TopicRetention {
            topic: TOPICS[0].to_owned(),
            queues: 2,
            reserved_ms: if random.bool() { reserved_ms / 2 } else { reserved_ms * 4 },
        };
        let topics = if kind == 0 && random.bool() { vec![of_its_own] } else { Vec::new() };
        (kind < 2 || policy.force_percent < 100).then_some(Retention { policy, topics })
    }

    /// Whether a message may be gone at that time, with a log that ends at `committed`; of one that waits, if it is
    /// settled.
    fn allows(&self, queue: Queue, message: &Message, now_ms: i64, committed: u64) -> bool {
        let age = now_ms.saturating_sub(message.store_ms);
        let of_topic = |topic: &&TopicRetention| topic.topic == queue.topic();
        let own = self.topics.iter().find(of_topic).map_or(i64::MAX, |topic| topic.reserved_ms);
        let longest =
            self.topics.iter().map(|topic| topic.reserved_ms).fold(self.policy.reserved_ms, i64::max);
        // The segment that it lies in began before what is too much.
        let is_too_much =
            self.policy.max_bytes > 0 && message.position() + self.policy.max_bytes < committed + SEGMENT;
        age > longest.min(own) || is_too_much || self.policy.force_percent < 100
    }
}

impl World {
    /// Whether a message of the queue may be gone.
    pub(super) fn may_go(&self, queue: Queue, message: &Message, now_ms: i64, committed: u64) -> bool {
        let Some(retention) = &self.retention else { return message.is_hole() };
        // A clock that jumped there and back may have been past any time.
        let now_ms = if self.plan.faults.rate(Fault::ClockJump) > 0 { i64::MAX } else { now_ms };
        let model = self.model.borrow();
        let waits = queue.kind().is_some() && !model.waiting.is_settled(message.position(), committed);
        message.is_hole() || !waits && retention.allows(queue, message, now_ms, committed)
    }
}

impl Life {
    pub(super) fn may_go(&self, queue: Queue, message: &Message) -> bool {
        let committed = self.shard.stats().log_committed;
        self.world.may_go(queue, message, self.env.wall_ms(), committed)
    }

    /// Whether the messages at these offsets, of which there is at least one, may be gone.
    pub(super) fn may_all_go(&self, queue: Queue, offsets: Range<i64>) -> bool {
        let gone = |offset: i64| {
            let message = self.world.model.borrow().messages(queue).get(offset as usize).copied();
            message.is_some_and(|message| self.may_go(queue, &message))
        };
        self.world.plan.harms() || !offsets.is_empty() && offsets.into_iter().all(gone)
    }

    /// The minimum offset of the queue is `min`: what lies before it may be gone, and it never goes back.
    pub(super) fn see_min(&self, queue: Queue, min: i64) {
        let known = self.world.model.borrow().min(queue);
        assert!(min >= known, "{queue:?}: the minimum offset goes back from {known} to {min}");
        if min == known {
            return;
        }
        if !self.world.plan.harms() {
            let gone = self.world.model.borrow().messages(queue)[known as usize..min as usize].to_vec();
            for (message, offset) in gone.iter().zip(known..) {
                assert!(
                    self.may_go(queue, message),
                    "{queue:?} offset {offset}: {message:?} is deleted too early"
                );
            }
        }
        self.world.model.borrow_mut().set_min(queue, min);
    }

    /// After a start: the minimum offsets may be lower than before, but not below what was deleted for good.
    pub(super) fn check_mins(&self) {
        for queue in Queue::all() {
            let min = self.shard.queue_range(queue.topic(), QueueId(queue.id)).map_or(0, |range| range.min.0);
            self.world.model.borrow_mut().forget_min(queue);
            self.see_min(queue, min);
            let model = self.world.model.borrow();
            let first = model.messages(queue).get(min as usize).filter(|message| !message.is_hole());
            let is_back = first.is_some_and(|message| message.position() < model.deleted_before);
            assert!(!is_back || model.is_harmed(), "{queue:?} offset {min}: {first:?} is back from the dead");
        }
    }

    /// Deletes what the policy lets go, one segment or all.
    pub(super) async fn retain(&self) {
        let Some(retention) = &self.world.retention else { return };
        if self.retaining.replace(true) {
            return;
        }
        self.retain_by(retention).await;
        self.retaining.set(false);
    }

    async fn retain_by(&self, retention: &Retention) {
        loop {
            match self.shard.retain_oldest(&retention.policy, &retention.topics).await {
                Ok(retained) if retained.deleted > 0 => self.deleted(retention),
                Ok(_) => break,
                Err(error) => {
                    self.failed_to_delete(&error);
                    break;
                }
            }
            if !self.world.is_calm() && self.env.random().is_multiple_of(2) {
                return;
            }
        }
        if let Err(error) = self.shard.retain_topics(&retention.policy, &retention.topics).await {
            self.failed_read::<()>(&error);
        }
        self.look_at_mins();
        self.check_kept();
        let stats = self.shard.stats();
        let kept = stats.log_flushed.saturating_sub(stats.log_min);
        let most =
            if retention.policy.max_bytes == 0 { u64::MAX } else { retention.policy.max_bytes + 2 * SEGMENT };
        let is_kept = self.shard.oldest_needed().0 < stats.log_min + SEGMENT;
        assert!(
            !self.world.is_calm() || kept <= most || is_kept || self.world.plan.harms(),
            "{kept} bytes of log are kept, {retention:?}"
        );
    }

    fn failed_to_delete(&self, error: &std::io::Error) {
        let device =
            [Fault::ReadError, Fault::WriteError, Fault::SyncError, Fault::NoSpace, Fault::NoSpaceAnywhere];
        let expected = self.world.plan.harms() || self.world.plan.quota || self.world.may(&device);
        assert!(expected, "what is past due cannot be deleted: {error}");
    }

    /// A segment was deleted: of queues that all go by the policy, that and nothing else is gone.
    fn deleted(&self, retention: &Retention) {
        let (log_min, expired) = (self.shard.stats().log_min, self.shard.stats().log_expired);
        self.world.model.borrow_mut().deleted_before(log_min);
        self.check_kept();
        self.look_at_mins();
        // A run of the index that was harmed in this life says nothing of what its queues begin with.
        self.world.look_at_harm(&self.env);
        let model = self.world.model.borrow();
        if model.is_harmed() {
            return;
        }
        for queue in Queue::all().filter(|queue| model.half_deleted() != Some(queue.topic)) {
            let (min, messages) = (model.min(queue) as usize, model.messages(queue));
            let first = messages.get(min).filter(|message| message.end <= self.shard.stats().log_committed);
            assert!(
                first.is_none_or(|message| message.position() >= log_min),
                "{queue:?} offset {min}: {first:?} is deleted, and in the queue"
            );
            let has_own = retention.topics.iter().any(|topic| topic.topic == queue.topic());
            let before = min.checked_sub(1).map(|last| messages[last]).filter(|message| !message.is_hole());
            assert!(
                has_own || before.is_none_or(|message| message.position() < log_min.max(expired)),
                "{queue:?}: {before:?} is in the log, and not in the queue"
            );
        }
    }

    fn look_at_mins(&self) {
        for queue in Queue::all() {
            let range = self.shard.queue_range(queue.topic(), QueueId(queue.id));
            if let Some(range) = range
                && self.world.model.borrow().half_deleted() != Some(queue.topic)
            {
                self.see_min(queue, range.min.0);
            }
        }
    }
}
