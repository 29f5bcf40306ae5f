//! What clients tell about themselves.

use serde::{Deserialize, Serialize};

/// Body of HEART_BEAT (34).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeartbeatData {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Its consumer groups.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Hash of a full heartbeat; 0 in the first version of heartbeats.
    pub heartbeat_fingerprint: i32,
    /// Its producer groups.
    pub producer_data_set: Vec<ProducerData>,
    /// The subscriptions are left out, being those of the fingerprint.
    pub without_sub: bool,
}

/// A client's membership in a producer group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// A client's membership in a consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
    /// Where it starts without an offset.
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// Push or pull.
    pub consume_type: Option<ConsumeType>,
    /// The group.
    pub group_name: String,
    /// Clustering or broadcasting.
    pub message_model: Option<MessageModel>,
    /// What it subscribes to.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Of a unit.
    pub unit_mode: bool,
}

/// A subscription of a consumer group to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Whether it filters by a class.
    pub class_filter_mode: bool,
    /// Hash codes of the tags.
    pub code_set: Vec<i32>,
    /// TAG or SQL92.
    pub expression_type: String,
    /// The expression.
    pub sub_string: String,
    /// Version: when it was made, in ms.
    pub sub_version: i64,
    /// The tags; none for all.
    pub tags_set: Vec<String>,
    /// The topic.
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> SubscriptionData {
        SubscriptionData {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: "TAG".to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: String::new(),
        }
    }
}

/// How a consumer gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeType {
    /// It pulls when it likes.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// They are pushed (by pulls in the client).
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    /// By POP.
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

/// Whether the members of a group share the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageModel {
    /// Each member gets all.
    Broadcasting,
    /// They share.
    Clustering,
}

/// Where a group starts without an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    /// At the end.
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET")]
    LastOffset,
    /// Of old clients; as [`ConsumeFromWhere::LastOffset`].
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST")]
    LastOffsetAndFromMinWhenBootFirst,
    /// Of old clients.
    #[serde(rename = "CONSUME_FROM_MIN_OFFSET")]
    MinOffset,
    /// Of old clients.
    #[serde(rename = "CONSUME_FROM_MAX_OFFSET")]
    MaxOffset,
    /// At the start.
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    /// At a time.
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}

/// Body of CHECK_CLIENT_CONFIG (46).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClientRequestBody {
    /// The client.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// Its namespace.
    pub namespace: Option<String>,
    /// The subscription to check.
    pub subscription_data: SubscriptionData,
}

/// Answer to QUERY_CONSUME_QUEUE (321).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeQueueBody {
    /// Says when the group subscribes to nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    /// One past the queue's last offset.
    pub max_queue_index: i64,
    /// The queue's first offset.
    pub min_queue_index: i64,
    /// The entries.
    pub queue_data: Vec<ConsumeQueueData>,
    /// What the group subscribes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

/// One entry of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeQueueData {
    /// Whether the group's filter lets it pass, where Java keeps that for the entry: never.
    pub eval: bool,
    /// Physical offset of the record.
    pub physic_offset: i64,
    /// Its size.
    pub physic_size: i32,
    /// Hash code of its tag.
    pub tags_code: i64,
}

/// Answer to QUERY_SUBSCRIPTION_BY_CONSUMER (345).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QuerySubscriptionResponseBody {
    /// The consumer group.
    pub group: String,
    /// What it subscribes to; missing when it does not.
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: String,
}
