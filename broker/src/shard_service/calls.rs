//! Questions to one shard from tasks that gather the answers of several.

use ringmq_engine::{KeyQuery, PendingKind, QueueId, ReadError};

use super::*;
use crate::broadcasts::committing_group;
use crate::calls::Caller;

/// Most bytes of the records that are read to list entries of a queue.
const MAX_ENTRY_BYTES: usize = 4 << 20;

impl<E: Env> ShardService<E> {
    /// Answers a question, in a task of its own: it may read from disk.
    pub fn call(self: &Rc<Self>, core: &Rc<Core<E>>, caller: Caller, question: ShardCall) {
        let (service, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            let answer = match question {
                // Answered once it is durable.
                ShardCall::Recall(recall) => return service.recall(&core, caller, &recall).await,
                ShardCall::ResumeHalf(offset) => return service.resume_half(&core, caller, offset).await,
                question => service.answer(&core, question).await,
            };
            core.answer_call(caller, answer);
            core.flush();
        });
    }

    async fn answer(self: &Rc<Self>, core: &Rc<Core<E>>, question: ShardCall) -> CallAnswer {
        match question {
            ShardCall::Queues { topic, queues, group } => {
                self.queues(&topic, &queues, group.as_deref()).await
            }
            ShardCall::CommittedOf(group) => CallAnswer::Committed(self.offsets.borrow().list(Some(&group))),
            ShardCall::AllCommitted => CallAnswer::Committed(self.offsets.borrow().list(None)),
            ShardCall::GroupsOf(topic) => CallAnswer::Groups(self.offsets.borrow().groups_of(&topic)),
            ShardCall::Offsets(call) => self.answer_offsets(core, call).await,
            ShardCall::ForgetGroup(group) => {
                self.resets.borrow_mut().forget_group(&group);
                self.broadcasts.borrow_mut().forget_group(&group);
                self.offsets.borrow_mut().forget_group(&group);
                self.offsets.borrow_mut().forget_group(&committing_group(&group));
                done(self.flush_offsets().await)
            }
            ShardCall::ForgetTopic(topic) => {
                self.resets.borrow_mut().forget_topic(&topic);
                self.broadcasts.borrow_mut().forget_topic(&topic);
                self.offsets.borrow_mut().forget_topic(&topic);
                let deleted = self.shard.delete_topic(&topic).await;
                done(deleted.and(self.flush_offsets().await))
            }
            ShardCall::Keys { topic, key, max_messages, begin_ms, end_ms } => {
                let query = KeyQuery { topic: &topic, key: &key, max_messages, begin_ms, end_ms };
                let records = self.shard.query_keys(&query).await;
                records.map_or_else(
                    |error| CallAnswer::Refused(remarks::read_failed(&error)),
                    CallAnswer::Records,
                )
            }
            ShardCall::RecordAt(offset) => match self.shard.record_at(offset.position()).await {
                Ok(record) => CallAnswer::Records(record.into_iter().collect()),
                Err(error) => CallAnswer::Refused(remarks::read_failed(&error)),
            },
            ShardCall::Figures => CallAnswer::Figures(Box::new(self.figures(core).await)),
            ShardCall::Entries { topic, queue, from, max_messages } => {
                self.entries(&topic, queue, from, max_messages).await
            }
            ShardCall::Recall(_) | ShardCall::ResumeHalf(_) => {
                unreachable!("what is stored is answered when it is durable")
            }
            ShardCall::Report => {
                let stats = self.shard.stats();
                let delayed = self.shard.pending_stats(PendingKind::Delayed);
                let mut meters = self.meters.borrow_mut();
                meters.filtered(&self.verdicts);
                CallAnswer::Report(Box::new(meters.report(stats, delayed)))
            }
        }
    }

    async fn entries(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        max_messages: usize,
    ) -> CallAnswer {
        let wanted = ReadRequest {
            topic,
            queue_id,
            offset,
            max_messages,
            max_bytes: MAX_ENTRY_BYTES,
            tag_filter: None,
            record_filter: None,
        };
        match self.shard.read(&wanted).await {
            Ok(found) => CallAnswer::Records(found.parts),
            Err(error) => CallAnswer::Refused(remarks::read_failed(&error)),
        }
    }

    async fn queues(&self, topic: &str, queues: &[QueueId], group: Option<&str>) -> CallAnswer {
        let mut states = Vec::with_capacity(queues.len());
        for queue_id in queues {
            match self.queue(topic, *queue_id, group).await {
                Ok(state) => states.push(state),
                Err(error) => return CallAnswer::Refused(remarks::read_failed(&error)),
            }
        }
        CallAnswer::Queues(states)
    }

    async fn queue(
        &self,
        topic: &str,
        queue_id: QueueId,
        group: Option<&str>,
    ) -> Result<QueueState, ReadError> {
        let range = self.shard.queue_range(topic, queue_id);
        let committed = group.and_then(|group| self.offsets.borrow().get(group, topic, queue_id));
        let last = range.map_or(-1, |range| range.max.0 - 1);
        let consumed = committed.map_or(-1, |offset| offset.0 - 1);
        Ok(QueueState {
            queue_id,
            range,
            last_store_ms: self.store_ms(topic, queue_id, last).await?,
            committed,
            consumed_store_ms: self.store_ms(topic, queue_id, consumed).await?,
        })
    }

    /// Store time of the message at `offset`; 0 when there is none.
    async fn store_ms(&self, topic: &str, queue_id: QueueId, offset: i64) -> Result<i64, ReadError> {
        if offset < 0 {
            return Ok(0);
        }
        Ok(self.shard.store_time(topic, queue_id, QueueOffset(offset)).await?.unwrap_or(0))
    }
}

pub(super) fn done(result: std::io::Result<()>) -> CallAnswer {
    match result {
        Ok(()) => CallAnswer::Done,
        Err(error) => CallAnswer::Refused(Refusal::system_error(error.to_string())),
    }
}
