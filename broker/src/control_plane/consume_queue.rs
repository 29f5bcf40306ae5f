//! Entries of a queue (321), and half messages that are taken up again (323), from the shard that owns them.

use std::rc::Rc;

use ringmq_engine::{PhysicalOffset, QueueId, QueueOffset};
use ringmq_env::Env;
use ringmq_protocol::body::{ConsumeQueueData, QueryConsumeQueueBody, TopicConfig};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::properties::{self, names as property, tags_code};
use ringmq_protocol::record::{RecordView, records};

use super::ControlPlane;
use super::questions::unexpected;
use crate::control::Refusal;
use crate::control::answers::success;
use crate::core::Core;
use crate::message::*;
use crate::remarks;

impl<E: Env> ControlPlane<E> {
    pub(super) async fn consume_queue(
        &self,
        core: &Rc<Core<E>>,
        config: &TopicConfig,
        queue: QueueId,
        index: i64,
        count: usize,
        answer: QueryConsumeQueueBody,
    ) -> Result<Command, Refusal> {
        let figures = self.queues(core, config, None).await?;
        let figures = figures.iter().find(|figures| figures.queue_id == queue.0 as i32);
        let figures = figures.copied().unwrap_or_default();
        let topic = config.topic_name.as_str();
        if !(figures.min..figures.max).contains(&index) {
            return Ok(remarks::no_entry(index, queue.0, topic));
        }
        let shard = core.identity.routing.shard(topic, queue);
        let call =
            ShardCall::Entries { topic: topic.into(), queue, from: QueueOffset(index), max_messages: count };
        let parts = match core.call(Call::Shard(shard, call)).await {
            CallAnswer::Records(parts) => parts,
            other => return Err(unexpected(other)),
        };
        let entries = parts.iter().flat_map(|part| records(part)).filter_map(Result::ok);
        Ok(success(&QueryConsumeQueueBody {
            max_queue_index: figures.max,
            min_queue_index: figures.min,
            queue_data: entries.map(|view| entry(&view)).collect(),
            ..answer
        }))
    }

    pub(super) async fn resume_half(
        &self,
        core: &Rc<Core<E>>,
        offset: PhysicalOffset,
    ) -> Result<Command, Refusal> {
        if offset.shard().0 >= core.identity.routing.shards {
            return Err(remarks::half_not_resumed());
        }
        match core.call(Call::Shard(offset.shard(), ShardCall::ResumeHalf(offset))).await {
            CallAnswer::Done => Ok(Command::response(response::SUCCESS, 0)),
            other => Err(unexpected(other)),
        }
    }
}

fn entry(view: &RecordView<'_>) -> ConsumeQueueData {
    ConsumeQueueData {
        eval: false,
        physic_offset: view.physical_offset,
        physic_size: view.bytes.len() as i32,
        tags_code: properties::find(view.properties, property::TAGS).map_or(0, tags_code),
    }
}
