//! What tools ask about what is stored: entries of a queue (321), and half messages that were given up (323).

use ringmq_engine::{PhysicalOffset, QueueId};
use ringmq_protocol::body::{QueryConsumeQueueBody, SubscriptionData};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{QueryConsumeQueueHeader, ResumeCheckHalfMessageHeader};
use ringmq_protocol::message_id::OffsetMessageId;

use super::super::refusal::Refusal;
use super::super::state::ControlState;
use super::Question;
use crate::remarks;

/// Most entries of one answer.
const MAX_ENTRIES: usize = 1000;

impl ControlState {
    /// 321.
    pub(super) fn consume_queue(&self, command: &Command) -> Result<Question, Refusal> {
        let header: QueryConsumeQueueHeader<'_> = command.header()?;
        let (topic, queue) = (header.topic, header.queue_id);
        let config = self
            .topics()
            .get(topic)
            .filter(|config| (0..config.read_queue_nums.max(config.write_queue_nums)).contains(&queue));
        let config = config.ok_or_else(|| Refusal::system_error(format!("{queue}@{topic} is not exist!")))?;
        let mut answer = QueryConsumeQueueBody::default();
        if let Some(group) = header.consumer_group {
            let data = self.consumers().view(group).and_then(|view| view.subscriptions.get(topic));
            answer.subscription_data = data.map(|data| SubscriptionData::clone(data));
            let offline = || format!("{group}@{topic} is not online!");
            answer.filter_data = Some(data.map_or_else(offline, |_| "null".to_owned()));
        }
        Ok(Question::ConsumeQueue {
            config: config.clone(),
            queue: QueueId(queue as u32),
            index: header.index,
            count: usize::try_from(header.count).unwrap_or(0).min(MAX_ENTRIES),
            answer,
        })
    }

    /// 323.
    pub(super) fn resume_half(&self, command: &Command) -> Result<Question, Refusal> {
        let header: ResumeCheckHalfMessageHeader<'_> = command.header()?;
        let id = OffsetMessageId::decode(header.msg_id.unwrap_or_default()).ok();
        let offset = id.and_then(|id| PhysicalOffset::from_wire(id.physical_offset));
        offset.map(Question::ResumeHalf).ok_or_else(remarks::half_not_resumed)
    }
}
