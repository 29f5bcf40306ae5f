//! Offsets and counts, as tools ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DataVersion, MessageQueue};

/// The ends of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of the last message, in ms; 0 when there is none.
    pub last_update_timestamp: i64,
    /// Queue offset behind the last.
    pub max_offset: i64,
    /// First queue offset.
    pub min_offset: i64,
}

/// Answer to GET_TOPIC_STATS_INFO (202).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStatsTable {
    /// By queue.
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages put a second.
    pub topic_put_tps: f64,
}

/// Where a group is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// End of the queue.
    pub broker_offset: i64,
    /// Next offset to consume.
    pub consumer_offset: i64,
    /// Store time of the last message consumed, in ms; 0 when not known.
    pub last_timestamp: i64,
    /// Next offset to pull.
    pub pull_offset: i64,
}

/// Answer to GET_CONSUME_STATS (208).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages got a second.
    pub consume_tps: f64,
    /// By queue.
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// Answer to GET_BROKER_CONSUME_STATS (317).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStatsList {
    /// The broker.
    pub broker_addr: String,
    /// One table for each group.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// Messages behind in all.
    pub total_diff: i64,
    /// Of these, pulled and not yet consumed.
    pub total_inflight_diff: i64,
}

/// A count over a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsItem {
    /// Average of one call.
    pub avgpt: f64,
    /// Sum.
    pub sum: i64,
    /// A second.
    pub tps: f64,
}

/// Answer to VIEW_BROKER_STATS_DATA (315).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsData {
    /// The last day.
    pub stats_day: BrokerStatsItem,
    /// The last hour.
    pub stats_hour: BrokerStatsItem,
    /// The last minute.
    pub stats_minute: BrokerStatsItem,
}

/// All consumer offsets of a broker: the answer to GET_ALL_CONSUMER_OFFSET (43).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOffsetSerializeWrapper {
    /// Version of the table.
    pub data_version: DataVersion,
    /// Offsets by queue id, by `topic@group`.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Offsets by queue: body of RESET_CONSUMER_CLIENT_OFFSET (220), answer to INVOKE_BROKER_TO_RESET_OFFSET (222).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsetBody {
    /// By queue.
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// Answer to GET_CONSUMER_STATUS_FROM_CLIENT (221) and INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerStatusBody {
    /// By client and queue.
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// By queue.
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

/// Answer to QUERY_CORRECTION_OFFSET (308).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryCorrectionOffsetBody {
    /// By queue id.
    pub correction_offsets: BTreeMap<i32, i64>,
}

/// Answer to QUERY_CONSUME_TIME_SPAN (303).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeTimeSpanBody {
    /// One for each queue.
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// Store times in a queue, in ms; -1 where there is no message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueTimeSpan {
    /// Of the last message that the group consumed.
    pub consume_time_stamp: i64,
    /// How long the next message has waited for the group, in ms; 0 when there is none.
    pub delay_time: i64,
    /// Of the last message.
    pub max_time_stamp: i64,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Of the first message.
    pub min_time_stamp: i64,
}
