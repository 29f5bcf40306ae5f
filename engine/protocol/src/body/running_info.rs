//! What a consumer tells about its inside (307, 309).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageQueue, SubscriptionData};

/// Answer of a consumer to GET_CONSUMER_RUNNING_INFO (307).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerRunningInfo {
    /// Stack traces.
    pub jstack: Option<String>,
    /// Its queues by POP.
    pub mq_pop_table: BTreeMap<MessageQueue, PopProcessQueueInfo>,
    /// Its queues.
    pub mq_table: BTreeMap<MessageQueue, ProcessQueueInfo>,
    /// Its settings, see Java's `ConsumerRunningInfo.PROP_*`.
    pub properties: BTreeMap<String, String>,
    /// Its rates by topic.
    pub status_table: BTreeMap<String, ConsumeStatus>,
    /// Its subscriptions.
    pub subscription_set: Vec<SubscriptionData>,
    /// What the application adds.
    pub user_consumer_info: BTreeMap<String, String>,
}

/// A queue within a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessQueueInfo {
    /// Messages held.
    pub cached_msg_count: i32,
    /// Last queue offset held.
    pub cached_msg_max_offset: i64,
    /// First queue offset held.
    pub cached_msg_min_offset: i64,
    /// Memory held, in MiB.
    pub cached_msg_size_in_mi_b: i32,
    /// Next offset to consume.
    pub commit_offset: i64,
    /// Whether the queue went to another member.
    pub droped: bool,
    /// When it last consumed, in ms.
    pub last_consume_timestamp: i64,
    /// When it last locked the queue, in ms.
    pub last_lock_timestamp: i64,
    /// When it last pulled, in ms.
    pub last_pull_timestamp: i64,
    /// Whether it holds the queue's lock.
    pub locked: bool,
    /// Messages in an ordered transaction.
    pub transaction_msg_count: i32,
    /// Last of them.
    pub transaction_msg_max_offset: i64,
    /// First of them.
    pub transaction_msg_min_offset: i64,
    /// How often it tried to unlock.
    pub try_unlock_times: i64,
}

/// A queue by POP within a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PopProcessQueueInfo {
    /// Whether the queue went to another member.
    pub droped: bool,
    /// When it last popped, in ms.
    pub last_pop_timestamp: i64,
    /// Messages not yet acknowledged.
    pub wait_ack_count: i32,
}

/// Rates of a topic within a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStatus {
    /// Messages failed in the last hour.
    pub consume_failed_msgs: i64,
    /// Failed a second.
    #[serde(rename = "consumeFailedTPS")]
    pub consume_failed_tps: f64,
    /// Consumed a second.
    #[serde(rename = "consumeOKTPS")]
    pub consume_ok_tps: f64,
    /// Time to consume, in ms.
    #[serde(rename = "consumeRT")]
    pub consume_rt: f64,
    /// Time to pull, in ms.
    #[serde(rename = "pullRT")]
    pub pull_rt: f64,
    /// Pulled a second.
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
}

/// Answer of a consumer to CONSUME_MESSAGE_DIRECTLY (309).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResult {
    /// Whether the offset is committed by itself.
    pub auto_commit: bool,
    /// What became of it.
    pub consume_result: Option<CmResult>,
    /// Whether it was consumed in order.
    pub order: bool,
    /// Free text.
    pub remark: Option<String>,
    /// How long it took, in ms.
    pub spent_time_mills: i64,
}

/// What became of a message consumed directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CmResult {
    /// Consumed.
    #[serde(rename = "CR_SUCCESS")]
    Success,
    /// To be tried later.
    #[serde(rename = "CR_LATER")]
    Later,
    /// Rolled back.
    #[serde(rename = "CR_ROLLBACK")]
    Rollback,
    /// Committed.
    #[serde(rename = "CR_COMMIT")]
    Commit,
    /// The listener threw.
    #[serde(rename = "CR_THROW_EXCEPTION")]
    ThrowException,
    /// The listener returned nothing.
    #[serde(rename = "CR_RETURN_NULL")]
    ReturnNull,
}
