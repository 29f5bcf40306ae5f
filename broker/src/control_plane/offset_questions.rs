//! What tools ask about groups' offsets, and to be done about them, from the shards that keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use ringmq_engine::{QueueId, QueueOffset};
use ringmq_env::Env;
use ringmq_protocol::body::{
    ConsumeStats, ConsumeStatsList, MessageQueue, QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody,
    QueueTimeSpan, ResetOffsetBody, TopicConfig,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::ResetOffsetHeader;
use ringmq_protocol::json::{self, Dialect};
use serde::Serialize;

use super::ControlPlane;
use super::questions::unexpected;
use crate::control::Refusal;
use crate::control::answers::{self, QueueFigures, success};
use crate::control::requests::OffsetQuestion;
use crate::core::Core;
use crate::message::*;
use crate::offset_calls::{OffsetCall, TimeSpan};

/// What goes to each shard, by the shard's number.
type PerShard<T> = BTreeMap<u16, Vec<T>>;

impl<E: Env> ControlPlane<E> {
    pub(super) async fn ask_offsets(
        &self,
        core: &Rc<Core<E>>,
        question: OffsetQuestion,
    ) -> Result<Command, Refusal> {
        match question {
            OffsetQuestion::Reset { config, group, queue, offset, time_ms } => {
                self.reset(core, &config, &group, queue, offset, time_ms).await
            }
            OffsetQuestion::ResetClients { config, group, time_ms, force, as_list } => {
                let moved = self.offsets_for_clients(core, &config, &group, time_ms, force).await?;
                self.tell_to_reset(core, &config.topic_name, &group, time_ms, force, as_list, moved)
            }
            OffsetQuestion::Clone { from, to, topic, offline } => {
                self.clone_offsets(core, &from, &to, topic, offline).await
            }
            OffsetQuestion::Correction { topic, compare, left_out } => {
                self.correction(core, &topic, &compare, &left_out).await
            }
            OffsetQuestion::TimeSpan { config, group } => self.time_span(core, &config, &group).await,
            OffsetQuestion::BrokerStats { only_ordered } => self.broker_stats(core, only_ordered).await,
        }
    }

    /// 222 in the broker.
    async fn reset(
        &self,
        core: &Rc<Core<E>>,
        config: &TopicConfig,
        group: &str,
        queue: Option<QueueId>,
        offset: Option<i64>,
        time_ms: i64,
    ) -> Result<Command, Refusal> {
        let topic = config.topic_name.as_str();
        let offsets = match (queue, offset) {
            (Some(queue), Some(offset)) => {
                let figures = self.queues(core, config, None).await?;
                let figures = figures.iter().find(|figures| figures.queue_id == queue.0 as i32);
                check_target(offset, figures.copied().unwrap_or_default())?;
                vec![(queue, QueueOffset(offset))]
            }
            (Some(queue), None) => self.by_time(core, topic, &[queue], time_ms).await?,
            (None, _) => {
                let queues: Vec<QueueId> = (0..config.read_queue_nums.max(0) as u32).map(QueueId).collect();
                self.by_time(core, topic, &queues, time_ms).await?
            }
        };
        if offsets.is_empty() {
            return Err(Refusal::system_error("No queues to reset."));
        }
        let (name, group): (Arc<str>, Arc<str>) = (topic.into(), group.into());
        let routing = core.identity.routing;
        let mut shards: PerShard<(QueueId, QueueOffset)> = BTreeMap::new();
        for entry in &offsets {
            shards.entry(routing.shard(topic, entry.0).0).or_default().push(*entry);
        }
        for answer in core
            .call_shards(|shard| {
                let offsets = shards.get(&shard.0).cloned().unwrap_or_default();
                let (group, topic) = (group.clone(), name.clone());
                ShardCall::Offsets(OffsetCall::Reset { group, topic, offsets })
            })
            .await
        {
            expect_done(answer)?;
        }
        let offsets = offsets.into_iter().map(|(queue, offset)| (queue, offset.0));
        Ok(success(&ResetOffsetBody { offset_table: self.by_queue(core, topic, offsets) }))
    }

    fn by_queue(
        &self,
        core: &Core<E>,
        topic: &str,
        offsets: impl IntoIterator<Item = (QueueId, i64)>,
    ) -> BTreeMap<MessageQueue, i64> {
        let queue = |id: QueueId| message_queue(&core.identity.config.broker_name, topic, id);
        offsets.into_iter().map(|(id, offset)| (queue(id), offset)).collect()
    }

    async fn by_time(
        &self,
        core: &Rc<Core<E>>,
        topic: &str,
        queues: &[QueueId],
        time_ms: i64,
    ) -> Result<Vec<(QueueId, QueueOffset)>, Refusal> {
        let (routing, name): (_, Arc<str>) = (core.identity.routing, topic.into());
        let question = |shard| {
            let queues = queues.iter().copied().filter(|queue| routing.shard(topic, *queue) == shard);
            let queues = queues.collect();
            ShardCall::Offsets(OffsetCall::ByTime { topic: name.clone(), queues, time_ms })
        };
        let mut found = Vec::with_capacity(queues.len());
        for answer in core.call_shards(question).await {
            match answer {
                CallAnswer::Offsets(mut offsets) => found.append(&mut offsets),
                other => return Err(unexpected(other)),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Where consumers are to go whom 220 tells.
    async fn offsets_for_clients(
        &self,
        core: &Rc<Core<E>>,
        config: &TopicConfig,
        group: &str,
        time_ms: i64,
        force: bool,
    ) -> Result<BTreeMap<MessageQueue, i64>, Refusal> {
        let topic = config.topic_name.as_str();
        let queues: Vec<QueueId> = (0..config.write_queue_nums.max(0) as u32).map(QueueId).collect();
        let found = self.by_time(core, topic, &queues, time_ms).await?;
        let figures = self.queues(core, config, Some(group)).await?;
        let committed: BTreeMap<i32, Option<i64>> =
            figures.iter().map(|figures| (figures.queue_id, figures.committed)).collect();
        let mut moved = Vec::with_capacity(found.len());
        for (queue, offset) in found {
            let committed =
                committed.get(&(queue.0 as i32)).copied().flatten().ok_or_else(|| {
                    Refusal::system_error(format!("THe consumer group <{group}> not exist"))
                })?;
            moved.push((queue, if force { offset.0 } else { offset.0.min(committed) }));
        }
        Ok(self.by_queue(core, topic, moved))
    }

    /// 222 by telling the group's consumers (220).
    #[expect(clippy::too_many_arguments, reason = "they are the header's fields")]
    fn tell_to_reset(
        &self,
        core: &Core<E>,
        topic: &str,
        group: &str,
        timestamp: i64,
        is_force: bool,
        as_list: bool,
        moved: BTreeMap<MessageQueue, i64>,
    ) -> Result<Command, Refusal> {
        let state = self.state.borrow();
        let members = state.consumers().clients(group);
        if members.is_empty() {
            let remark = format!(
                "Consumer not online, so can not reset offset, Group: {group} Topic: {topic} Timestamp: {timestamp}"
            );
            return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
        }
        if let Some(old) = members.iter().find(|client| client.version < ANSWERS_RESET) {
            let remark = format!("the client does not support this feature. version={}", old.version);
            return Err(Refusal::system_error(remark));
        }
        let body = match as_list {
            true => json::to_vec(&ResetOffsetList::of(&moved), Dialect::Java),
            false => json::to_vec(&ResetOffsetBody { offset_table: moved.clone() }, Dialect::Java),
        };
        let header = ResetOffsetHeader { topic, group, timestamp, is_force };
        let mut frame = BytesMut::new();
        Command::oneway(request::RESET_CONSUMER_CLIENT_OFFSET, 0)
            .with_header(&header)
            .with_body(body)
            .encode_json(&mut frame);
        let frame = frame.freeze();
        members.iter().for_each(|client| core.push(client.connection.into(), frame.clone()));
        Ok(success(&ResetOffsetBody { offset_table: moved }))
    }

    /// 314.
    async fn clone_offsets(
        &self,
        core: &Rc<Core<E>>,
        from: &str,
        to: &str,
        topic: Option<String>,
        offline: bool,
    ) -> Result<Command, Refusal> {
        let (from, to): (Arc<str>, Arc<str>) = (from.into(), to.into());
        let topics: BTreeSet<String> = match topic {
            Some(topic) => BTreeSet::from([topic]),
            None => {
                let committed = self.committed(core, ShardCall::CommittedOf(from.clone())).await?;
                committed.into_iter().map(|entry| entry.topic.to_string()).collect()
            }
        };
        let topics = topics.iter().map(String::as_str);
        let counting = self.state.borrow().consumed_topics(&from, topics, offline);
        for config in counting {
            let topic: Arc<str> = config.topic_name.as_str().into();
            let question =
                ShardCall::Offsets(OffsetCall::Clone { from: from.clone(), to: to.clone(), topic });
            for answer in core.call_shards(|_| question.clone()).await {
                expect_done(answer)?;
            }
        }
        Ok(Command::response(response::SUCCESS, 0))
    }

    /// 308: for each queue the least offset of all groups, and nothing to correct where the compared group is behind it.
    async fn correction(
        &self,
        core: &Rc<Core<E>>,
        topic: &str,
        compare: &str,
        left_out: &[String],
    ) -> Result<Command, Refusal> {
        let config = self.state.borrow().topics().get(topic).cloned().unwrap_or_default();
        let figures = self.queues(core, &config, None).await?;
        let first: BTreeMap<i32, i64> =
            figures.iter().map(|figures| (figures.queue_id, figures.min)).collect();
        let all = self.committed(core, ShardCall::Offsets(OffsetCall::In(topic.into()))).await?;
        let mut correction_offsets: BTreeMap<i32, i64> = BTreeMap::new();
        for entry in &all {
            let queue = entry.queue_id.0 as i32;
            let counts = !left_out.iter().any(|group| **group == *entry.group)
                && entry.offset.0 >= first.get(&queue).copied().unwrap_or(0);
            if counts {
                let least = correction_offsets.entry(queue).or_insert(entry.offset.0);
                *least = entry.offset.0.min(*least);
            }
        }
        for entry in all.iter().filter(|entry| *entry.group == *compare) {
            if let Some(least) = correction_offsets.get_mut(&(entry.queue_id.0 as i32))
                && *least > entry.offset.0
            {
                *least = i64::MAX;
            }
        }
        Ok(success(&QueryCorrectionOffsetBody { correction_offsets }))
    }

    /// 303.
    async fn time_span(
        &self,
        core: &Rc<Core<E>>,
        config: &TopicConfig,
        group: &str,
    ) -> Result<Command, Refusal> {
        let (topic, group): (Arc<str>, Arc<str>) = (config.topic_name.as_str().into(), group.into());
        let routing = core.identity.routing;
        let count = config.write_queue_nums.max(0) as u32;
        let question = |shard| {
            let queues = (0..count).map(QueueId).filter(|id| routing.shard(&topic, *id) == shard).collect();
            let (topic, group) = (topic.clone(), group.clone());
            ShardCall::Offsets(OffsetCall::TimeSpans { topic, queues, group })
        };
        let mut spans = Vec::with_capacity(count as usize);
        for answer in core.call_shards(question).await {
            match answer {
                CallAnswer::TimeSpans(found) => spans.extend(found),
                other => return Err(unexpected(other)),
            }
        }
        spans.sort_unstable_by_key(|span| span.queue_id);
        let (broker, now_ms) = (&core.identity.config.broker_name, core.env.wall_ms());
        let describe = |span: TimeSpan| QueueTimeSpan {
            consume_time_stamp: span.consumed_ms,
            delay_time: span.next_ms.map_or(0, |next| now_ms - next),
            max_time_stamp: span.last_ms,
            message_queue: message_queue(broker, &topic, span.queue_id),
            min_time_stamp: span.first_ms,
        };
        let consume_time_span_set = spans.into_iter().map(describe).collect();
        Ok(success(&QueryConsumeTimeSpanBody { consume_time_span_set }))
    }

    /// 317: where every group is in every topic in which it has committed offsets.
    async fn broker_stats(&self, core: &Rc<Core<E>>, only_ordered: bool) -> Result<Command, Refusal> {
        let mut topics: BTreeMap<Arc<str>, BTreeSet<String>> = BTreeMap::new();
        for entry in self.committed(core, ShardCall::AllCommitted).await? {
            topics.entry(entry.group).or_default().insert(entry.topic.to_string());
        }
        let groups: Vec<Arc<str>> =
            self.state.borrow().groups().iter().map(|(group, _)| group.clone()).collect();
        let broker_addr = core.identity.store_host.to_string();
        let mut list = ConsumeStatsList { broker_addr, ..ConsumeStatsList::default() };
        for group in groups {
            let mut stats = Vec::new();
            let of_group = topics.get(&group).into_iter().flatten().map(String::as_str);
            let counting = self.state.borrow().consumed_topics(&group, of_group, false);
            for config in counting.into_iter().filter(|config| config.order || !only_ordered) {
                let one = self.group_topic_stats(core, &group, &config).await?;
                let behind = |wrapper: &ringmq_protocol::body::OffsetWrapper| {
                    wrapper.broker_offset - wrapper.consumer_offset
                };
                list.total_diff += one.offset_table.values().map(behind).sum::<i64>();
                stats.push(one);
            }
            list.consume_stats_list.push(BTreeMap::from([(group.to_string(), stats)]));
        }
        Ok(success(&list))
    }

    async fn group_topic_stats(
        &self,
        core: &Rc<Core<E>>,
        group: &str,
        config: &Arc<TopicConfig>,
    ) -> Result<ConsumeStats, Refusal> {
        let described = self.group_topic(core, group, config.clone()).await?;
        Ok(answers::consume_stats(&core.identity.config.broker_name, &[described]))
    }
}

/// The first version that answers 220 (V3_0_7_SNAPSHOT).
const ANSWERS_RESET: i32 = 28;

/// The same as [`ResetOffsetBody`], as C++ clients read it.
#[derive(Serialize)]
struct ResetOffsetList<'a> {
    #[serde(rename = "offsetTable")]
    offset_table: Vec<ResetOffset<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResetOffset<'a> {
    broker_name: &'a str,
    offset: i64,
    queue_id: i32,
    topic: &'a str,
}

impl<'a> ResetOffsetList<'a> {
    fn of(moved: &'a BTreeMap<MessageQueue, i64>) -> ResetOffsetList<'a> {
        let entry = |(queue, offset): (&'a MessageQueue, &i64)| ResetOffset {
            broker_name: &queue.broker_name,
            offset: *offset,
            queue_id: queue.queue_id,
            topic: &queue.topic,
        };
        ResetOffsetList { offset_table: moved.iter().map(entry).collect() }
    }
}

fn check_target(offset: i64, queue: QueueFigures) -> Result<(), Refusal> {
    let QueueFigures { min, max, .. } = queue;
    if offset < min || offset > max + 1 || offset < 0 {
        let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
        return Err(Refusal::system_error(remark));
    }
    Ok(())
}

fn message_queue(broker_name: &str, topic: &str, queue_id: QueueId) -> MessageQueue {
    MessageQueue { broker_name: broker_name.to_owned(), queue_id: queue_id.0 as i32, topic: topic.to_owned() }
}

fn expect_done(answer: CallAnswer) -> Result<(), Refusal> {
    match answer {
        CallAnswer::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}
