//! Questions of tools about groups' offsets in one shard, and changes of them.

use std::sync::Arc;

use ringmq_engine::{QueueId, ReadError};

use super::calls::done;
use super::*;
use crate::offset_calls::{OffsetCall, TimeSpan};

impl<E: Env> ShardService<E> {
    pub(super) async fn answer_offsets(self: &Rc<Self>, core: &Rc<Core<E>>, call: OffsetCall) -> CallAnswer {
        match call {
            OffsetCall::ByTime { topic, queues, time_ms } => {
                let found = self.offsets_by_time(&topic, &queues, time_ms).await;
                found.map_or_else(read_failed, CallAnswer::Offsets)
            }
            OffsetCall::Reset { group, topic, offsets } => {
                for (queue_id, offset) in offsets {
                    self.offsets.borrow_mut().commit(&group, &topic, queue_id, offset);
                    self.resets.borrow_mut().set(&group, &topic, queue_id, offset);
                    self.release_for_reset(core, &group, &topic, queue_id);
                }
                done(self.flush_offsets().await)
            }
            OffsetCall::Clone { from, to, topic } => {
                self.clone_offsets(&from, &to, &topic);
                done(self.flush_offsets().await)
            }
            OffsetCall::In(topic) => {
                let mut all = self.offsets.borrow().list(None);
                all.retain(|entry| *entry.topic == *topic);
                CallAnswer::Committed(all)
            }
            OffsetCall::TimeSpans { topic, queues, group } => {
                let spans = self.time_spans(&topic, &queues, &group).await;
                spans.map_or_else(read_failed, CallAnswer::TimeSpans)
            }
        }
    }

    async fn offsets_by_time(
        &self,
        topic: &str,
        queues: &[QueueId],
        time_ms: i64,
    ) -> Result<Vec<(QueueId, QueueOffset)>, ReadError> {
        let mut found = Vec::with_capacity(queues.len());
        for queue_id in queues {
            let offset = match time_ms {
                ..0 => self.shard.queue_range(topic, *queue_id).unwrap_or_default().max,
                _ => self.shard.offset_by_time(topic, *queue_id, time_ms, Boundary::Lower).await?,
            };
            found.push((*queue_id, offset));
        }
        Ok(found)
    }

    fn clone_offsets(&self, from: &str, to: &Arc<str>, topic: &str) {
        let mut offsets = self.offsets.borrow_mut();
        let mut cloned = offsets.list(Some(from));
        cloned.retain(|entry| *entry.topic == *topic);
        for entry in cloned {
            offsets.commit(to, &entry.topic, entry.queue_id, entry.offset);
        }
    }

    async fn time_spans(
        &self,
        topic: &str,
        queues: &[QueueId],
        group: &str,
    ) -> Result<Vec<TimeSpan>, ReadError> {
        let mut spans = Vec::with_capacity(queues.len());
        for queue_id in queues {
            let range = self.shard.queue_range(topic, *queue_id).unwrap_or_default();
            let committed = self.offsets.borrow().get(group, topic, *queue_id).map_or(0, |offset| offset.0);
            let stored = async |offset| {
                Ok(self.shard.store_time(topic, *queue_id, QueueOffset(offset)).await?.unwrap_or(-1))
            };
            let first_ms = stored(range.min.0).await?;
            spans.push(TimeSpan {
                queue_id: *queue_id,
                first_ms,
                last_ms: stored(range.max.0 - 1).await?,
                consumed_ms: if committed > 0 { stored(committed - 1).await? } else { first_ms },
                next_ms: if committed < range.max.0 { Some(stored(committed).await?) } else { None },
            });
        }
        Ok(spans)
    }
}

fn read_failed(error: ReadError) -> CallAnswer {
    CallAnswer::Refused(remarks::read_failed(&error))
}
