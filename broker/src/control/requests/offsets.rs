//! What tools ask about groups' offsets, and to be done about them (222, 303, 308, 314, 317).

use std::sync::Arc;

use ringmq_engine::QueueId;
use ringmq_protocol::body::TopicConfig;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    CloneGroupOffsetHeader, GetBrokerConsumeStatsHeader, InvokeResetOffsetHeader, QueryConsumeTimeSpanHeader,
    QueryCorrectionOffsetHeader,
};
use ringmq_protocol::language::Language;

use super::super::refusal::Refusal;
use super::super::state::ControlState;
use super::{OffsetQuestion, unknown};

impl ControlState {
    pub(super) fn offset_question(&self, command: &Command) -> Result<OffsetQuestion, Refusal> {
        match command.code {
            request::INVOKE_BROKER_TO_RESET_OFFSET if self.resets_here() => self.reset(command),
            request::INVOKE_BROKER_TO_RESET_OFFSET => self.reset_clients(command),
            request::CLONE_GROUP_OFFSET => clone(command),
            request::QUERY_CORRECTION_OFFSET => correction(command),
            request::QUERY_CONSUME_TIME_SPAN => self.time_span(command),
            request::GET_BROKER_CONSUME_STATS => {
                let header: GetBrokerConsumeStatsHeader = command.header()?;
                Ok(OffsetQuestion::BrokerStats { only_ordered: header.is_order })
            }
            code => Err(unknown(code)),
        }
    }

    fn topic_or(&self, topic: &str, remark: String) -> Result<Arc<TopicConfig>, Refusal> {
        self.topics().get(topic).cloned().ok_or_else(|| Refusal::new(response::TOPIC_NOT_EXIST, remark))
    }

    /// 222 as Java's broker does it since 5.0.
    fn reset(&self, command: &Command) -> Result<OffsetQuestion, Refusal> {
        let header: InvokeResetOffsetHeader<'_> = command.header()?;
        let (topic, group) = (header.topic, header.group);
        let config = self.topic_or(topic, format!("Topic {topic} does not exist"))?;
        if self.groups().get(group).is_none() {
            let remark = format!("Group {group} does not exist");
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        let queue = u32::try_from(header.queue_id).ok().map(QueueId);
        if queue.is_some() && header.queue_id >= config.read_queue_nums.max(config.write_queue_nums) {
            return Err(Refusal::system_error(format!("topic {topic} has no queue {}", header.queue_id)));
        }
        Ok(OffsetQuestion::Reset {
            config,
            group: group.to_owned(),
            queue,
            offset: header.offset.filter(|offset| *offset != -1 && queue.is_some()),
            time_ms: header.timestamp,
        })
    }

    /// 222 as Java's broker does it with useServerSideResetOffset=false.
    fn reset_clients(&self, command: &Command) -> Result<OffsetQuestion, Refusal> {
        let header: InvokeResetOffsetHeader<'_> = command.header()?;
        let topic = header.topic;
        let remark = format!("[reset-offset] reset offset failed, no topic in this broker. topic={topic}");
        Ok(OffsetQuestion::ResetClients {
            config: self.topic_or(topic, remark)?,
            group: header.group.to_owned(),
            time_ms: header.timestamp,
            force: header.is_force,
            as_list: command.language == Language::Cpp,
        })
    }

    fn time_span(&self, command: &Command) -> Result<OffsetQuestion, Refusal> {
        let header: QueryConsumeTimeSpanHeader<'_> = command.header()?;
        let topic = header.topic;
        let remark = format!("topic[{topic}] not exist");
        let config = self.topic_or(topic, remark)?;
        Ok(OffsetQuestion::TimeSpan { config, group: header.group.to_owned() })
    }
}

fn clone(command: &Command) -> Result<OffsetQuestion, Refusal> {
    let header: CloneGroupOffsetHeader<'_> = command.header()?;
    Ok(OffsetQuestion::Clone {
        from: header.src_group.to_owned(),
        to: header.dest_group.to_owned(),
        topic: header.topic.filter(|topic| !topic.trim().is_empty()).map(str::to_owned),
        offline: header.offline,
    })
}

fn correction(command: &Command) -> Result<OffsetQuestion, Refusal> {
    let header: QueryCorrectionOffsetHeader<'_> = command.header()?;
    let left_out = header.filter_groups.unwrap_or_default().split(',').filter(|group| !group.is_empty());
    Ok(OffsetQuestion::Correction {
        topic: header.topic.to_owned(),
        compare: header.compare_group.to_owned(),
        left_out: left_out.map(str::to_owned).collect(),
    })
}
