//! The requests that clients of the model send.

use ringmq_protocol::body::{LockBatchRequestBody, MessageQueue};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::{json, version};

/// Group of the producers, and of those who are asked for half messages.
pub const PRODUCERS: &str = "producers";

/// SEND_MESSAGE_V2.
pub struct Send<'a> {
    pub topic: &'a str,
    pub queue: u32,
    pub body: Vec<u8>,
    pub properties: &'a [(&'a str, &'a str)],
    pub sys_flag: i32,
    pub born_ms: i64,
}

impl Send<'_> {
    /// The request.
    pub fn command(self) -> Command {
        let properties: Vec<String> =
            self.properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect();
        Command::request(request::SEND_MESSAGE_V2, 0)
            .with_ext("a", PRODUCERS)
            .with_ext("b", self.topic)
            .with_ext("c", "TBW102")
            .with_ext("d", 4)
            .with_ext("e", self.queue)
            .with_ext("f", self.sys_flag)
            .with_ext("g", self.born_ms)
            .with_ext("h", 0)
            .with_ext("i", properties.concat())
            .with_ext("j", 0)
            .with_ext("k", "false")
            .with_ext("m", "false")
            .with_body(self.body)
    }
}

/// PULL_MESSAGE of everything.
pub fn pull(group: &str, topic: &str, queue: u32, offset: i64, suspend_ms: u64) -> Command {
    about_queue(request::PULL_MESSAGE, group, topic, queue)
        .with_ext("queueOffset", offset)
        .with_ext("maxMsgNums", 32)
        .with_ext("sysFlag", if suspend_ms > 0 { 6 } else { 4 })
        .with_ext("commitOffset", 0)
        .with_ext("suspendTimeoutMillis", suspend_ms)
        .with_ext("subscription", "*")
        .with_ext("subVersion", 0)
        .with_ext("expressionType", "TAG")
}

/// A request of a group about a queue.
pub fn about_queue(code: i32, group: &str, topic: &str, queue: u32) -> Command {
    Command::request(code, 0)
        .with_ext("consumerGroup", group)
        .with_ext("topic", topic)
        .with_ext("queueId", queue)
}

/// UPDATE_AND_CREATE_TOPIC.
pub fn create_topic(topic: &str, queues: u32, attributes: &str) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC, 0)
        .with_ext("topic", topic)
        .with_ext("defaultTopic", "TBW102")
        .with_ext("readQueueNums", queues)
        .with_ext("writeQueueNums", queues)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("topicSysFlag", 0)
        .with_ext("order", false)
        .with_ext("attributes", attributes)
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, of a group whose messages are dead letters when they come back twice.
pub fn create_group(group: &str) -> Command {
    let body = format!(r#"{{"groupName":"{group}","retryQueueNums":1,"retryMaxTimes":1}}"#);
    Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0).with_body(body)
}

/// END_TRANSACTION, of a half message at this place. Commits or rolls back.
pub fn end_transaction(log: i64, state: i64, commits: bool, is_asked: bool) -> Command {
    Command::request(request::END_TRANSACTION, 0)
        .with_ext("producerGroup", PRODUCERS)
        .with_ext("tranStateTableOffset", state)
        .with_ext("commitLogOffset", log)
        .with_ext("commitOrRollback", if commits { 8 } else { 12 })
        .with_ext("fromTransactionCheck", is_asked)
        .with_ext("msgId", "id")
}

/// CONSUMER_SEND_MSG_BACK, of the message at this place of the log.
pub fn send_back(group: &str, log: i64, level: i32) -> Command {
    let mut command = Command::request(request::CONSUMER_SEND_MSG_BACK, 0)
        .with_ext("offset", log)
        .with_ext("group", group)
        .with_ext("delayLevel", level);
    command.version = version::V3_4_9;
    command
}

/// LOCK_BATCH_MQ or UNLOCK_BATCH_MQ.
pub fn lock(code: i32, group: &str, client_id: &str, queue: MessageQueue) -> Command {
    let body = LockBatchRequestBody {
        client_id: client_id.to_owned(),
        consumer_group: group.to_owned(),
        mq_set: vec![queue],
        only_this_broker: false,
    };
    Command::request(code, 0).with_body(json::to_vec(&body, json::Dialect::Standard))
}

/// HEART_BEAT of one who produces transactional messages.
pub fn producer_heartbeat(client_id: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{client_id}","consumerDataSet":[],"producerDataSet":[{{"groupName":"{PRODUCERS}"}}]}}"#
    );
    Command::request(request::HEART_BEAT, 0).with_body(body)
}
