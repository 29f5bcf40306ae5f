//! Committed offsets: what a group without one gets, and how they become durable.

use std::io;
use std::sync::Arc;

use ringmq_env::mutant;

use super::*;

impl<E: Env> ShardService<E> {
    /// Commits an offset; but not that of a consumer which has yet to go where a tool has moved its group.
    pub(super) fn commit_offset(
        &self,
        group: &Arc<str>,
        queue: &QueueRef,
        offset: QueueOffset,
    ) -> AnswerBody {
        let QueueRef { topic, queue_id } = queue;
        if self.resets.borrow().is_pending(group, topic, *queue_id) {
            return AnswerBody::Command(Box::new(remarks::offset_was_reset()));
        }
        self.offsets.borrow_mut().commit(group, topic, *queue_id, offset);
        AnswerBody::Success
    }

    /// The group's committed offset; or 0 for a group without one, where nothing of the queue is lost by it.
    pub(super) fn committed_offset(&self, group: &str, queue: &QueueRef, set_zero: bool) -> AnswerBody {
        let QueueRef { topic, queue_id } = queue;
        if let Some(offset) = self.offsets.borrow().get(group, topic, *queue_id) {
            return AnswerBody::Number("offset", offset.0);
        }
        if set_zero && self.has_lost_nothing(queue) {
            return AnswerBody::Number("offset", 0);
        }
        AnswerBody::Refused(remarks::offset_not_found(set_zero))
    }

    /// Whether the queue's first message is its number 0, or is yet to come. (Java also asks whether that message is in
    /// memory, which on JDK 17 and later it always finds to be so.)
    pub(super) fn has_lost_nothing(&self, queue: &QueueRef) -> bool {
        let range = self.shard.queue_range(&queue.topic, queue.queue_id).unwrap_or_default();
        range.min.0 == 0
    }

    /// Makes the offsets committed so far durable, again and again until the shard stops.
    pub(super) async fn flush_offsets_often(self: Rc<Self>, core: Rc<Core<E>>) {
        let interval = core.identity.config.offset_flush_interval;
        while !self.stopping.get() {
            core.env.sleep(interval).await;
            if let Err(error) = self.flush_offsets().await {
                tracing::warn!(shard = self.id.0, %error, "committed offsets are not durable yet");
            }
        }
    }

    /// Makes the offsets committed so far durable.
    pub(super) async fn flush_offsets(&self) -> io::Result<()> {
        let changes = self.offsets.borrow_mut().take_changes();
        for change in &changes {
            match &change.value {
                Some(value) => self.offset_log.put(&change.key, value),
                None => self.offset_log.delete(&change.key),
            }
        }
        if mutant!("offsets-in-memory-only") && !self.stopping.get() {
            return Ok(());
        }
        self.offset_log.flush().await
    }
}
