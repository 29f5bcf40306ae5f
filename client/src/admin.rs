//! What a program needs of the cluster beside messages (Java's `DefaultMQAdminExt`, the part that applications use).

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_protocol::body::{
    ClusterInfo, ConsumeStats, ConsumerConnection, MessageQueue, OffsetWrapper, ResetOffsetBody, TopicList,
    TopicOffset, TopicRouteData, TopicStatsTable,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    ConsumerGroupHeader, CreateTopicHeader, DeleteSubscriptionGroupHeader, GetConsumeStatsHeader,
    InvokeResetOffsetHeader, QueryMessageHeader, QueueHeader, TimestampResponseHeader, TopicHeader,
    ViewMessageHeader,
};
use ringmq_protocol::json;
use ringmq_protocol::message_id::{MessageIdError, OffsetMessageId};
use ringmq_protocol::names::topics::AUTO_CREATE_TOPIC_KEY_TOPIC;
use ringmq_protocol::names::{NameError, validate_topic};
use ringmq_protocol::properties::names;
use serde::de::DeserializeOwned;

use crate::client::{Client, Instance, RouteError, unknown_broker};
use crate::error::CallError;
use crate::message::MessageExt;
use crate::remoting::{Request, bad_answer, refused};

/// An operation on the cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The name of a topic.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is not known where to ask.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A broker refused, or could not be reached. What other brokers were asked before it, they have done.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The text is no message id of a broker's.
    #[error(transparent)]
    MessageId(#[from] MessageIdError),
    /// No broker is in the cluster.
    #[error("no broker is in the cluster")]
    NoBroker,
}

impl AdminError {
    /// What happened with the broker or name server that was asked last.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            AdminError::Call(error) | AdminError::Route(RouteError::Call(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            AdminError::Route(error) => error.is_retryable(),
            AdminError::Call(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Queues at each broker.
    pub queues: i32,
    /// Whether its queues are ordered: their list stays the same while a broker is away.
    pub ordered: bool,
    /// Attributes, such as `message.type` with `FIFO`.
    pub attributes: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with 8 queues at each broker.
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic { name: name.into(), queues: 8, ordered: false, attributes: BTreeMap::new() }
    }

    fn attributes(&self) -> Option<String> {
        let pairs: Vec<String> =
            self.attributes.iter().map(|(name, value)| format!("+{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join(","))
    }
}

/// A time of storing, in ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First.
    pub from_ms: i64,
    /// Last.
    pub to_ms: i64,
}

impl TimeRange {
    /// Any time.
    pub const ALL: TimeRange = TimeRange { from_ms: 0, to_ms: i64::MAX };
}

/// Operations on the cluster. Cheap to make and to clone; every operation asks the brokers that have what it is about,
/// one after the other.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// A topic's queues with something of each.
type ByQueue<T> = BTreeMap<MessageQueue, T>;

impl Admin {
    pub(crate) fn new(client: Client) -> Admin {
        Admin { client }
    }

    fn instance(&self) -> &Arc<Instance> {
        &self.client.instance
    }

    async fn ask(&self, addr: &str, request: &Request<'_>) -> Result<Command, CallError> {
        let instance = self.instance();
        instance.remoting.call_ok(addr, request, instance.config.call_timeout).await
    }

    async fn ask_body<T: DeserializeOwned>(&self, addr: &str, request: &Request<'_>) -> Result<T, CallError> {
        let answer = self.ask(addr, request).await?;
        json::from_slice(&answer.body).map_err(|error| bad_answer(addr, error))
    }

    async fn ask_name_server<T: DeserializeOwned>(&self, code: i32) -> Result<T, AdminError> {
        let (addr, answer) = self.instance().ask_name_server(&Request::bodied(code, Vec::new())).await?;
        if answer.code != response::SUCCESS {
            return Err(refused(&addr, answer).into());
        }
        Ok(json::from_slice(&answer.body).map_err(|error| bad_answer(&addr, error))?)
    }

    /// The masters that have a topic.
    async fn masters(&self, topic: &str) -> Result<Vec<Arc<str>>, AdminError> {
        let route = self.instance().route(topic).await?;
        let masters: Vec<_> =
            route.brokers().filter_map(|broker| self.instance().routes.master(broker)).collect();
        if masters.is_empty() { Err(AdminError::NoBroker) } else { Ok(masters) }
    }

    /// The brokers of the cluster.
    ///
    /// Cancel-safe: it only asks.
    pub async fn cluster(&self) -> Result<ClusterInfo, AdminError> {
        self.ask_name_server(request::GET_BROKER_CLUSTER_INFO).await
    }

    /// The names of all topics.
    ///
    /// Cancel-safe: it only asks.
    pub async fn topics(&self) -> Result<Vec<String>, AdminError> {
        let list: TopicList = self.ask_name_server(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER).await?;
        Ok(list.topic_list)
    }

    /// Where a topic is, as the name server has it now.
    ///
    /// Cancel-safe: it only asks.
    pub async fn route(&self, topic: &str) -> Result<TopicRouteData, AdminError> {
        Ok(self.instance().fresh_route(topic).await?)
    }

    /// The queues of a topic that can be read.
    ///
    /// Cancel-safe: it only asks.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, AdminError> {
        Ok(self.instance().route(topic).await?.subscribe.clone())
    }

    async fn all_masters(&self) -> Result<Vec<String>, AdminError> {
        let cluster = self.cluster().await?;
        let mut masters: Vec<String> = cluster
            .broker_addr_table
            .into_values()
            .filter_map(|mut broker| broker.broker_addrs.remove(&0))
            .collect();
        masters.sort();
        if masters.is_empty() { Err(AdminError::NoBroker) } else { Ok(masters) }
    }

    /// Makes a topic at every master of the cluster, or changes it. The name server hears of it a moment later.
    ///
    /// Cancel-safe, but for what brokers may have done by then.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<(), AdminError> {
        validate_topic(&topic.name)?;
        let attributes = topic.attributes();
        let header = CreateTopicHeader {
            topic: &topic.name,
            default_topic: Some(AUTO_CREATE_TOPIC_KEY_TOPIC),
            read_queue_nums: topic.queues,
            write_queue_nums: topic.queues,
            perm: ringmq_protocol::body::perm::READ | ringmq_protocol::body::perm::WRITE,
            topic_filter_type: Some("SINGLE_TAG"),
            topic_sys_flag: Some(0),
            order: topic.ordered,
            attributes: attributes.as_deref(),
            force: None,
        };
        self.tell_all(&Request::new(request::UPDATE_AND_CREATE_TOPIC, &header)).await
    }

    /// Deletes a topic at every master and from the name server.
    ///
    /// Cancel-safe, but for what brokers may have done by then.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        let header = TopicHeader { topic };
        self.tell_all(&Request::new(request::DELETE_TOPIC_IN_BROKER, &header)).await?;
        for addr in self.instance().name_servers().iter() {
            self.ask(addr, &Request::new(request::DELETE_TOPIC_IN_NAMESRV, &header)).await?;
        }
        Ok(())
    }

    /// Deletes a consumer group at every master, with its offsets if wanted.
    ///
    /// Cancel-safe, but for what brokers may have done by then.
    pub async fn delete_group(&self, group: &str, clean_offset: bool) -> Result<(), AdminError> {
        let header = DeleteSubscriptionGroupHeader { group_name: group, clean_offset };
        self.tell_all(&Request::new(request::DELETE_SUBSCRIPTIONGROUP, &header)).await
    }

    async fn tell_all(&self, request: &Request<'_>) -> Result<(), AdminError> {
        for addr in self.all_masters().await? {
            self.ask(&addr, request).await?;
        }
        Ok(())
    }

    /// The offset of a queue's first message.
    ///
    /// Cancel-safe: it only asks.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<i64, AdminError> {
        Ok(self.instance().min_offset(queue).await?)
    }

    /// The offset behind a queue's last message.
    ///
    /// Cancel-safe: it only asks.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<i64, AdminError> {
        Ok(self.instance().max_offset(queue).await?)
    }

    /// The offset of the first message stored at or after a time, in ms since 1970.
    ///
    /// Cancel-safe: it only asks.
    pub async fn search_offset(&self, queue: &MessageQueue, time_ms: i64) -> Result<i64, AdminError> {
        Ok(self.instance().search_offset(queue, time_ms).await?)
    }

    /// When a queue's first message was stored, in ms since 1970; `None` when there is none.
    ///
    /// Cancel-safe: it only asks.
    pub async fn earliest_store_time(&self, queue: &MessageQueue) -> Result<Option<i64>, AdminError> {
        let addr = self.instance().queue_addr(queue).await?;
        let header = QueueHeader { topic: &queue.topic, queue_id: queue.queue_id };
        let answer = self.ask(&addr, &Request::new(request::GET_EARLIEST_MSG_STORETIME, &header)).await?;
        let header: TimestampResponseHeader = answer.header().map_err(|error| bad_answer(&addr, error))?;
        Ok(Some(header.timestamp).filter(|time| *time >= 0))
    }

    /// The ends of all queues of a topic.
    ///
    /// Cancel-safe: it only asks.
    pub async fn topic_stats(&self, topic: &str) -> Result<ByQueue<TopicOffset>, AdminError> {
        let header = TopicHeader { topic };
        let mut all = BTreeMap::new();
        for addr in self.masters(topic).await? {
            let request = Request::new(request::GET_TOPIC_STATS_INFO, &header);
            let stats: TopicStatsTable = self.ask_body(&addr, &request).await?;
            all.extend(stats.offset_table);
        }
        Ok(all)
    }

    /// How far a group has come in each queue of a topic.
    ///
    /// Cancel-safe: it only asks.
    pub async fn consumer_progress(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<ByQueue<OffsetWrapper>, AdminError> {
        let header = GetConsumeStatsHeader { consumer_group: group, topic: Some(topic), topic_list: None };
        let mut all = BTreeMap::new();
        for addr in self.masters(topic).await? {
            let request = Request::new(request::GET_CONSUME_STATS, &header);
            let stats: ConsumeStats = self.ask_body(&addr, &request).await?;
            all.extend(stats.offset_table);
        }
        Ok(all)
    }

    /// The members of a group that are connected to a broker of the topic; `None` when none is.
    ///
    /// Cancel-safe: it only asks.
    pub async fn consumer_connections(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<Option<ConsumerConnection>, AdminError> {
        let header = ConsumerGroupHeader { consumer_group: group };
        for addr in self.masters(topic).await? {
            let request = Request::new(request::GET_CONSUMER_CONNECTION_LIST, &header);
            match self.ask_body(&addr, &request).await {
                Ok(found) => return Ok(Some(found)),
                Err(error) if error.code() == Some(response::CONSUMER_NOT_ONLINE) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Moves a group to the first messages stored at or after a time, in ms since 1970; -1 is the end. Returns the
    /// new offsets. Members take them over with their next pull.
    ///
    /// Cancel-safe, but for what brokers may have done by then.
    pub async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        time_ms: i64,
    ) -> Result<ByQueue<i64>, AdminError> {
        let header = InvokeResetOffsetHeader {
            topic,
            group,
            queue_id: -1,
            offset: None,
            timestamp: time_ms,
            is_force: true,
        };
        let mut all = BTreeMap::new();
        for addr in self.masters(topic).await? {
            let request = Request::new(request::INVOKE_BROKER_TO_RESET_OFFSET, &header);
            let body: ResetOffsetBody = self.ask_body(&addr, &request).await?;
            all.extend(body.offset_table);
        }
        Ok(all)
    }

    /// The message with a broker's id ([`crate::SendReceipt::offset_msg_id`]).
    ///
    /// Cancel-safe: it only asks.
    pub async fn view_message(&self, topic: &str, offset_msg_id: &str) -> Result<MessageExt, AdminError> {
        let id = OffsetMessageId::decode(offset_msg_id)?;
        let addr = id.store_host.to_string();
        let header = ViewMessageHeader { topic: Some(topic), offset: id.physical_offset };
        let answer = self.ask(&addr, &Request::new(request::VIEW_MESSAGE_BY_ID, &header)).await?;
        let broker = self.instance().routes.broker_at(&addr).unwrap_or_default();
        let (message, _) =
            MessageExt::decode(&answer.body, &broker).map_err(|error| bad_answer(&addr, error))?;
        Ok(message)
    }

    /// Messages of a topic with one of the producer's keys, at most `max` of each broker's.
    ///
    /// Cancel-safe: it only asks.
    pub async fn query_by_key(
        &self,
        topic: &str,
        key: &str,
        max: i32,
        range: TimeRange,
    ) -> Result<Vec<MessageExt>, AdminError> {
        let mut messages = self.query(topic, key, max, range, false).await?;
        messages.retain(|message| message.keys().any(|k| k == key));
        Ok(messages)
    }

    /// The message with a producer's id ([`crate::SendReceipt::msg_id`]).
    ///
    /// Cancel-safe: it only asks.
    pub async fn query_by_unique_key(
        &self,
        topic: &str,
        msg_id: &str,
    ) -> Result<Option<MessageExt>, AdminError> {
        let mut messages = self.query(topic, msg_id, 32, TimeRange::ALL, true).await?;
        messages.retain(|message| message.property(names::UNIQ_KEY) == Some(msg_id));
        // A message that was sent again has one id twice; the first is the one that counts.
        Ok(messages.into_iter().min_by_key(|message| message.store_timestamp))
    }

    /// Every stored message with a producer's id, at most 32 of each broker's: one that was sent again, or moved by a
    /// tool ([`MessageExt::copy_to`]), is there more than once.
    ///
    /// Cancel-safe: it only asks.
    pub async fn query_all_by_unique_key(
        &self,
        topic: &str,
        msg_id: &str,
    ) -> Result<Vec<MessageExt>, AdminError> {
        let mut messages = self.query(topic, msg_id, 32, TimeRange::ALL, true).await?;
        messages.retain(|message| message.property(names::UNIQ_KEY) == Some(msg_id));
        Ok(messages)
    }

    async fn query(
        &self,
        topic: &str,
        key: &str,
        max: i32,
        range: TimeRange,
        unique: bool,
    ) -> Result<Vec<MessageExt>, AdminError> {
        let header = QueryMessageHeader {
            topic,
            key,
            max_num: max,
            begin_timestamp: range.from_ms,
            end_timestamp: range.to_ms,
            unique_key_query: unique.then_some(true),
            index_type: Some(if unique { "U" } else { "K" }),
        };
        let mut found = Vec::new();
        for addr in self.masters(topic).await? {
            let request = Request::new(request::QUERY_MESSAGE, &header);
            match self.ask(&addr, &request).await {
                Ok(answer) => {
                    let broker = self.instance().routes.broker_at(&addr).unwrap_or_default();
                    let messages = MessageExt::decode_all(answer.body, &broker);
                    found.extend(messages.map_err(|error| bad_answer(&addr, error))?);
                }
                Err(error) if error.code() == Some(response::QUERY_NOT_FOUND) => {}
                Err(error) => return Err(error.into()),
            }
        }
        found.retain(|message| message.topic == topic);
        Ok(found)
    }

    /// The stored offset of a group in a queue; `None` when there is none.
    ///
    /// Cancel-safe: it only asks.
    pub async fn committed(&self, group: &str, queue: &MessageQueue) -> Result<Option<i64>, AdminError> {
        Ok(self.instance().consumer_offset(group, queue).await?)
    }

    /// Stores an offset for a group whose members are not running.
    ///
    /// Cancel-safe, but for what brokers may have done by then.
    pub async fn commit(&self, group: &str, queue: &MessageQueue, offset: i64) -> Result<(), AdminError> {
        if self.instance().routes.master(&queue.broker_name).is_none() {
            return Err(unknown_broker(&queue.broker_name).into());
        }
        Ok(self.instance().commit_offset(group, queue, offset, true).await?)
    }

    /// Locks a queue for a group of this client, or renews the lock; false when another client has it. It expires at the
    /// broker (RocketMQ: after 60 s) unless it is renewed.
    ///
    /// Cancel-safe, but the broker may have given the lock by then.
    pub async fn lock_queue(&self, group: &str, queue: &MessageQueue) -> Result<bool, AdminError> {
        let instance = self.instance();
        instance.master_of(queue).await?;
        let locked = instance.lock_queues(group, &queue.broker_name, vec![queue.clone()]).await?;
        Ok(locked.contains(queue))
    }

    /// Gives a lock back.
    ///
    /// Cancel-safe, but the broker may have taken it back by then.
    pub async fn unlock_queue(&self, group: &str, queue: &MessageQueue) -> Result<(), AdminError> {
        Ok(self.instance().unlock_queues(group, &queue.broker_name, vec![queue.clone()]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_changes() {
        let mut topic = NewTopic::new("t");
        assert_eq!(topic.attributes(), None);
        topic.attributes.insert("message.type".to_owned(), "FIFO".to_owned());
        topic.attributes.insert("a".to_owned(), "b".to_owned());
        assert_eq!(topic.attributes().as_deref(), Some("+a=b,+message.type=FIFO"));
    }
}
