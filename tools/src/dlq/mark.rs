//! What a replayed message keeps of the dead letter, and the mark by which it is known again.

use std::collections::BTreeMap;

use ringmq_client::MessageExt;
use ringmq_protocol::properties::names;

/// Properties that belong to how the dead letter came to be, or that a broker sets anew: of its delays, its retries,
/// its transaction and the connections that it came by.
const DROPPED: [&str; 29] = [
    names::DELAY_TIME_LEVEL,
    names::TIMER_DELAY_SEC,
    names::TIMER_DELAY_MS,
    names::TIMER_DELIVER_MS,
    names::TIMER_OUT_MS,
    names::TIMER_ENQUEUE_MS,
    names::TIMER_DEQUEUE_MS,
    names::TIMER_ROLL_TIMES,
    names::TIMER_DEL_UNIQKEY,
    names::TIMER_DELAY_LEVEL,
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::RETRY_TOPIC,
    names::ORIGIN_MESSAGE_ID,
    names::RECONSUME_TIME,
    names::MAX_RECONSUME_TIMES,
    names::CONSUME_START_TIMESTAMP,
    names::TRANSACTION_PREPARED,
    names::TRANSACTION_CHECK_TIMES,
    names::CHECK_IMMUNITY_TIME,
    names::PRODUCER_GROUP,
    names::MIN_OFFSET,
    names::MAX_OFFSET,
    names::MSG_REGION,
    names::TRACE_SWITCH,
    names::CLUSTER,
    names::POP_CK,
    names::WAIT_STORE_MSG_OK,
    names::DEAD_BECAUSE,
];

/// Where the dead letter is, which no other message of the cluster shares. It is the replayed message's `DEDUPE_KEY`, so
/// that a topic with a window for such keys stores it once whatever happens, too.
pub fn mark(message: &MessageExt) -> String {
    format!("dlq:{}:{}", message.queue.broker_name, message.commit_log_offset)
}

/// Whether `found` is `message`, replayed.
pub fn is_replay(found: &MessageExt, mark: &str) -> bool {
    found.property(names::DEDUPE_KEY) == Some(mark)
}

/// The topic that the message was first sent to.
pub fn origin_topic(message: &MessageExt) -> Option<&str> {
    message.property(names::RETRY_TOPIC).or_else(|| message.property(names::DLQ_ORIGIN_TOPIC))
}

/// The properties of the replayed message: the application's, keys, tag and id among them, and the mark. One for the
/// group's own retry topic (`keeps_origin`) still tells which topic it is from.
pub fn kept_properties(message: &MessageExt, keeps_origin: bool) -> BTreeMap<String, String> {
    let mut kept = message.properties().clone();
    kept.retain(|name, value| !value.is_empty() && !DROPPED.contains(&name.as_str()));
    // A message of a client that gives no ids is found again by the dead letter's.
    kept.insert(names::UNIQ_KEY.to_owned(), message.msg_id());
    kept.insert(names::DEDUPE_KEY.to_owned(), mark(message));
    if let Some(topic) = origin_topic(message).filter(|_| keeps_origin) {
        kept.insert(names::RETRY_TOPIC.to_owned(), topic.to_owned());
    }
    kept
}
