//! The one table from what can go wrong on the data path to RocketMQ's response codes and remarks. Clients retry by the
//! code and people search for the text, so both are Java's wherever Java has them.

use std::net::{IpAddr, SocketAddr};

use ringmq_engine::{AppendError, ReadError, ReadStatus};
use ringmq_protocol::body::TopicConfig;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use crate::control::{FAQ, Refusal};
use crate::mailbox::{CoreId, Full};
use crate::quotas::Over;
use crate::transaction::NotEnded;

/// DELAY is no number: what Java's parser says.
pub fn bad_delay_level(text: &str) -> Refusal {
    let remark = format!("java.lang.NumberFormatException: For input string: \"{text}\"");
    Refusal::new(response::SYSTEM_ERROR, remark)
}

/// WHEEL_TIMER_NOT_ENABLE.
pub fn timers_disabled() -> Refusal {
    let remark = "accurate timer message is not enabled, timerWheelEnable is false";
    Refusal::new(response::SYSTEM_ERROR, remark)
}

/// WHEEL_TIMER_MSG_ILLEGAL.
pub fn timer_illegal(max_delay_ms: i64) -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        format!(
            "timer message illegal, the delay time should not be bigger than the max delay {max_delay_ms}ms; or if \
             set del msg, the delay time should be bigger than the current time"
        ),
    )
}

/// A batch asks to be delayed, which clients do not let happen.
pub fn batch_delayed() -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, "a batch of messages cannot be delayed: send them one by one")
}

/// A message that is to delete a timer message.
pub fn deletes_by_message() -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        "TIMER_DEL_UNIQKEY is not supported: recall the timer message by its handle (RECALL_MESSAGE)",
    )
}

/// A message that is sent back is not there (any more).
pub fn look_up_failed(offset: i64) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("look message by offset failed, {offset}"))
}

/// The retry topic could not be made.
pub fn no_retry_topic(topic: &str) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("topic[{topic}] not exist"))
}

/// The retry topic takes no messages.
pub fn topic_not_writable(topic: &str) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("the topic[{topic}] sending message is forbidden"))
}

/// Recalls are switched off.
pub fn recall_forbidden() -> Refusal {
    Refusal::new(response::NO_PERMISSION, "recall failed, operation is forbidden")
}

/// A recall that this broker cannot serve.
pub fn recall_unavailable(code: i32) -> Refusal {
    Refusal::new(code, "recall failed, broker service not available")
}

/// A recall for a topic that does not exist.
pub fn recall_no_topic(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("recall failed, the topic[{topic}] not exist"))
}

/// A recall that makes no sense.
pub fn recall(remark: &str) -> Refusal {
    Refusal::new(response::ILLEGAL_OPERATION, remark)
}

/// A recall that could not be stored.
pub fn recall_error() -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, "recall failed, execute error")
}

/// A lane to another core has no credit left.
pub fn lane_full<M>(to: CoreId, full: &Full<M>) -> Refusal {
    let Full { what, value, limit, .. } = full;
    busy(format_args!("{value} {what} would be in flight to core {}, the limit is {limit}", to.0))
}

/// Something has reached its limit for the moment.
pub fn busy(what: impl std::fmt::Display) -> Refusal {
    let remark = format!(
        "[OVERLOAD]system busy, start flow control for a while: {what}: try again in a few milliseconds"
    );
    Refusal::new(response::SYSTEM_BUSY, remark)
}

/// A quota is used up for the moment.
pub fn over_quota(over: &Over) -> Refusal {
    let remark = format!("[OVER_QUOTA]system busy, start flow control for a while: {over}");
    Refusal::new(response::SYSTEM_BUSY, remark)
}

/// Why a shard did not take a message.
pub fn append_refused(error: &AppendError, max_message_size: usize) -> Refusal {
    match error {
        AppendError::TooLarge { .. } | AppendError::PropertiesTooLarge { .. } => {
            message_illegal(max_message_size)
        }
        AppendError::PropertiesNotText => Refusal::new(response::MESSAGE_ILLEGAL, error.to_string()),
        AppendError::Busy { .. } => busy(error),
        AppendError::TooManyLmqs { limit, .. } => Refusal::new(
            response::SYSTEM_ERROR,
            format!(
                "[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]broker config enableLmq and enableMultiDispatch, lmq consumeQueue num \
                 exceed maxLmqConsumeQueueNum config num, default limit 2w. {error} (--max-lmqs {limit})"
            ),
        ),
        AppendError::DiskFull { .. } | AppendError::LogFull { .. } | AppendError::Closed => Refusal::new(
            response::SERVICE_NOT_AVAILABLE,
            format!(
                "service not available now. It may be caused by one of the following reasons: {error}, messages are \
                 put to the slave, message store has been shut down, etc."
            ),
        ),
    }
}

/// Why a shard could not read.
pub fn read_failed(error: &ReadError) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, error.to_string())
}

/// A message of an inner batch is sent back: the record that it names is the whole batch. As Java's store; clients send
/// the message itself then.
pub fn inner_batch_sent_back() -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, "MESSAGE_ILLEGAL".to_owned())
}

/// MESSAGE_ILLEGAL and PROPERTIES_SIZE_EXCEEDED.
pub fn message_illegal(max_message_size: usize) -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        format!(
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit \
             {max_message_size}B, msg properties length limit 32KB."
        ),
    )
}

/// The broker does not take messages of ordered topics.
pub fn broker_not_writable(broker: IpAddr) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("the broker[{broker}] sending message is forbidden"))
}

/// A topic that clients may not send to.
pub fn topic_forbidden(topic: &str) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("Sending message to topic[{topic}] is forbidden."))
}

/// A send to a topic that does not exist and is not created.
pub fn no_topic_to_send(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!{FAQ}"))
}

/// A send to a queue that the topic does not have.
pub fn illegal_send_queue(queue_id: i32, config: &TopicConfig, producer: SocketAddr) -> Refusal {
    Refusal::invalid(format!(
        "request queueId[{queue_id}] is illegal, {} Producer: {producer}",
        describe(config)
    ))
}

/// Java's `TopicConfig.toString`.
fn describe(config: &TopicConfig) -> String {
    let attributes: Vec<String> =
        config.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let readable = |bit: i32, sign: char| if config.perm & bit != 0 { sign } else { '-' };
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}{}{}, topicFilterType={}, \
         topicSysFlag={}, order={}, attributes={{{}}}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        readable(4, 'R'),
        readable(2, 'W'),
        readable(1, 'X'),
        filter_type(config),
        config.topic_sys_flag,
        config.order,
        attributes.join(", "),
    )
}

fn filter_type(config: &TopicConfig) -> &'static str {
    match config.topic_filter_type {
        ringmq_protocol::body::TopicFilterType::SingleTag => "SINGLE_TAG",
        ringmq_protocol::body::TopicFilterType::MultiTag => "MULTI_TAG",
    }
}

/// A batch to a topic whose name is too long for one.
pub fn batch_topic_too_long(len: usize) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, format!("message topic length too long {len}"))
}

/// A batch to a retry topic.
pub fn batch_to_retry(topic: &str) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, format!("batch request does not support retry group {topic}"))
}

/// A group that does not exist and is not created, at a send to its retry topic.
pub fn no_group_to_send(group: &str) -> Refusal {
    Refusal::new(
        response::SUBSCRIPTION_GROUP_NOT_EXIST,
        format!("subscription group not exist, {group} {FAQ}"),
    )
}

/// The broker does not serve pulls.
pub fn broker_not_readable(broker: IpAddr) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("the broker[{broker}] pulling message is forbidden"))
}

/// A group that does not exist and is not created, at a pull.
pub fn no_group_to_pull(group: &str) -> Refusal {
    Refusal::new(
        response::SUBSCRIPTION_GROUP_NOT_EXIST,
        format!("subscription group [{group}] does not exist, {FAQ}"),
    )
}

/// A group that may not consume.
pub fn group_not_permitted(group: &str) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("subscription group no permission, {group}"))
}

/// A pull from a topic that does not exist.
pub fn no_topic_to_pull(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please! {FAQ}"))
}

/// A pull from a topic that may not be read.
pub fn topic_not_readable(topic: &str) -> Refusal {
    Refusal::new(response::NO_PERMISSION, format!("the topic[{topic}] pulling message is forbidden"))
}

/// A pull from a queue that the topic does not have.
pub fn illegal_pull_queue(queue_id: i32, config: &TopicConfig, consumer: SocketAddr) -> Refusal {
    Refusal::invalid(format!(
        "queueId[{queue_id}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[/{consumer}]",
        config.topic_name, config.read_queue_nums
    ))
}

/// A subscription expression that is none.
pub fn bad_subscription() -> Refusal {
    Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed")
}

/// Nobody of the group has said what it subscribes to.
pub fn no_group_info() -> Refusal {
    Refusal::new(response::SUBSCRIPTION_NOT_EXIST, format!("the consumer's group info not exist{FAQ}"))
}

/// A broadcasting consumer of a group that may not broadcast.
pub fn no_broadcast(group: &str) -> Refusal {
    let remark = format!("the consumer group[{group}] can not consume by broadcast way");
    Refusal::new(response::NO_PERMISSION, remark)
}

/// A tool has forbidden the group to read the topic (353).
pub fn topic_forbidden_to_group(group: &str, topic: &str) -> Refusal {
    let remark = format!("the consumer group[{group}] is forbidden for topic[{topic}]");
    Refusal::new(response::NO_PERMISSION, remark)
}

/// The group does not subscribe to the topic.
pub fn no_subscription() -> Refusal {
    Refusal::new(response::SUBSCRIPTION_NOT_EXIST, format!("the consumer's subscription not exist{FAQ}"))
}

/// The consumer has changed its subscription, and its heartbeat has not come yet.
pub fn subscription_not_latest() -> Refusal {
    Refusal::new(response::SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest")
}

/// A filter that this broker does not have.
pub fn no_filter_by(expression_type: &str) -> Refusal {
    let remark = format!("The broker does not support consumer to filter message by {expression_type}");
    Refusal::new(response::SYSTEM_ERROR, remark)
}

/// A message of another type than its topic takes.
pub fn wrong_message_type(expected: &str, actual: &str) -> Refusal {
    let remark = format!(
        "TopicMessageType validate failed, the expected type is {expected}, but actual type is {actual}"
    );
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

/// A DEDUPE_KEY where there can be none.
pub fn bad_dedupe_key(why: &str) -> Refusal {
    Refusal::new(response::MESSAGE_ILLEGAL, format!("the message property DEDUPE_KEY is illegal: {why}"))
}

/// A message for light message queues to a topic without a queue in their shard.
pub fn no_queue_to_dispatch(topic: &str, queues: u32) -> Refusal {
    let remark = format!(
        "topic {topic} has {queues} queues, none of them in the shard of the light message queues: give it as many as \
         the store has shards"
    );
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

/// An SQL92 expression of a heartbeat that is none.
pub fn no_filter_data() -> Refusal {
    let remark = "The broker's consumer filter data is not exist!Your expression may be wrong!";
    Refusal::new(response::FILTER_DATA_NOT_EXIST, remark)
}

/// An offset of a group that does not exist.
pub fn no_group_for_offset(group: &str) -> Refusal {
    Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, format!("Group {group} not exist!"))
}

/// An offset in a topic that does not exist.
pub fn no_topic_for_offset(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!"))
}

/// No offset is committed, and 0 is no answer.
pub fn offset_not_found(set_zero: bool) -> Refusal {
    let remark = match set_zero {
        true => "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        false => "Not found, do not set to zero, maybe this group boot first",
    };
    Refusal::new(response::QUERY_NOT_FOUND, remark)
}

/// A commit that a pending reset outdoes.
pub fn offset_was_reset() -> Command {
    Command::response(response::SUCCESS, 0).with_remark("Offset has been previously reset")
}

/// No message starts at the offset.
pub fn no_message_at(offset: i64) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("can not find message by the offset, {offset}"))
}

/// A reply without REPLY_TO_CLIENT.
pub fn reply_to_nobody() -> Refusal {
    Refusal::system_error("reply message properties[REPLY_TO_CLIENT] is null")
}

/// Whoever waits for a reply is not connected here.
pub fn no_requester(client_id: &str) -> Refusal {
    Refusal::system_error(format!("push reply message fail, channel of <{client_id}> not found."))
}

/// Whoever waits for a reply did not take it.
pub fn reply_not_pushed(client_id: &str) -> Refusal {
    Refusal::system_error(format!("push reply message to {client_id}fail."))
}

/// Nobody of a producer group is online.
pub fn no_producer(group: &str) -> Refusal {
    Refusal::system_error(format!("Check transaction failed, channel is null. groupId={group}"))
}

/// The broker does not take half messages.
pub fn transactions_rejected(broker: IpAddr) -> Refusal {
    let remark = format!("the broker[{broker}] sending transaction message is forbidden");
    Refusal::new(response::NO_PERMISSION, remark)
}

/// Why a transaction was not ended (Java's EndTransactionProcessor).
pub fn not_ended(why: NotEnded) -> Refusal {
    match why {
        NotEnded::NotFound => Refusal::system_error("Find prepared transaction message failed"),
        NotEnded::ProducerGroup => Refusal::system_error("The producer group wrong"),
        NotEnded::StateOffset => Refusal::system_error("The transaction state table offset wrong"),
        NotEnded::Immune => Refusal::new(response::ILLEGAL_OPERATION, ""),
    }
}

/// What a tool wants to take up again is no half message that was given up, or could not be stored.
pub fn half_not_resumed() -> Refusal {
    Refusal::system_error("Put message back to RMQ_SYS_TRANS_HALF_TOPIC failed.")
}

/// A queue has no entry of that number.
pub fn no_entry(index: i64, queue_id: u32, topic: &str) -> Command {
    let remark = format!("Index {index} of {queue_id}@{topic} is not exist!");
    Command::response(response::SUCCESS, 0).with_remark(remark)
}

/// No message has the key in that time.
pub fn no_message_with_key() -> Refusal {
    Refusal::new(response::QUERY_NOT_FOUND, "can not find message, maybe time range not correct")
}

/// What a pull answers for what a read found: the code, and the status' Java name as the remark. `offset` is what
/// the pull asked for.
pub fn pull_status(status: ReadStatus, offset: i64) -> (i32, &'static str) {
    let nothing = if offset == 0 { response::PULL_NOT_FOUND } else { response::PULL_OFFSET_MOVED };
    match status {
        ReadStatus::Found => (response::SUCCESS, "FOUND"),
        ReadStatus::NoMatchedMessage => (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        ReadStatus::NoMatchedLogicQueue => (nothing, "NO_MATCHED_LOGIC_QUEUE"),
        ReadStatus::NoMessageInQueue => (nothing, "NO_MESSAGE_IN_QUEUE"),
        ReadStatus::OffsetOverflowOne => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        ReadStatus::OffsetOverflowBadly => (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
        ReadStatus::OffsetTooSmall => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
    }
}

/// What a pull answers whose group was moved by a tool: code and remark.
pub const OFFSET_RESET: (i32, &str) = (response::PULL_OFFSET_MOVED, "OFFSET_RESET");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_is_not_found_from_its_start_and_moved_from_elsewhere() {
        for status in [ReadStatus::NoMatchedLogicQueue, ReadStatus::NoMessageInQueue] {
            assert_eq!(pull_status(status, 0).0, response::PULL_NOT_FOUND);
            assert_eq!(pull_status(status, 7).0, response::PULL_OFFSET_MOVED);
        }
    }

    #[test]
    fn a_topic_reads_as_java_prints_it() {
        let config = TopicConfig { topic_name: "t".into(), perm: 6, ..TopicConfig::default() };
        let producer = "10.0.0.1:5".parse().unwrap();
        assert_eq!(
            illegal_send_queue(99, &config, producer).remark,
            "request queueId[99] is illegal, TopicConfig [topicName=t, readQueueNums=16, writeQueueNums=16, \
             perm=RW-, topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, attributes={}] Producer: 10.0.0.1:5"
        );
    }

    #[test]
    fn a_full_lane_says_limit_and_value() {
        let full = Full { message: (), what: "requests", value: 9, limit: 8 };
        let refusal = lane_full(CoreId(1), &full);
        assert_eq!(refusal.code, response::SYSTEM_BUSY);
        assert!(refusal.remark.contains("9 requests would be in flight to core 1, the limit is 8"));
    }
}
