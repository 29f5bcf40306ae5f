//! Consumer groups and their configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::DataVersion;

/// Configuration of a consumer group at a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupConfig {
    /// Attributes.
    pub attributes: BTreeMap<String, String>,
    /// Broker id to read from.
    pub broker_id: i64,
    /// Whether it may broadcast.
    pub consume_broadcast_enable: bool,
    /// Whether it may consume at all.
    pub consume_enable: bool,
    /// Whether it may start at the queue's start.
    pub consume_from_min_enable: bool,
    /// Whether it consumes in order.
    pub consume_message_orderly: bool,
    /// When a message counts as failed, in minutes.
    pub consume_timeout_minute: i32,
    /// The group's name.
    pub group_name: String,
    /// When messages are tried again.
    pub group_retry_policy: GroupRetryPolicy,
    /// System flag.
    pub group_sys_flag: i32,
    /// Whether members are told when members change.
    pub notify_consumer_ids_changed_enable: bool,
    /// Most retries.
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    pub retry_queue_nums: i32,
    /// Subscriptions that members must have.
    pub subscription_data_set: Option<BTreeSet<SimpleSubscriptionData>>,
    /// Broker id to read from when reads are slow.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> SubscriptionGroupConfig {
        SubscriptionGroupConfig {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// When messages are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRetryPolicy {
    /// Delays, if the type is CUSTOMIZED.
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    /// Delays, if the type is EXPONENTIAL.
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// Which of them.
    #[serde(rename = "type")]
    pub kind: GroupRetryPolicyType,
}

/// Kinds of retry policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupRetryPolicyType {
    /// Delays grow.
    Exponential,
    /// Delays are listed.
    #[default]
    Customized,
}

/// Listed delays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CustomizedRetryPolicy {
    /// Delay of each retry, in ms.
    pub next: Vec<i64>,
}

/// Growing delays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialRetryPolicy {
    /// First delay, in ms.
    pub initial: i64,
    /// Longest delay, in ms.
    pub max: i64,
    /// Factor from one to the next.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> ExponentialRetryPolicy {
        ExponentialRetryPolicy { initial: 5_000, max: 2 * 3_600_000, multiplier: 2 }
    }
}

/// A subscription in a group's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    /// The expression.
    pub expression: String,
    /// TAG or SQL92.
    pub expression_type: String,
    /// The topic.
    pub topic: String,
    /// Version of the subscription.
    pub version: i64,
}

/// All groups of a broker: the answer to GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupWrapper {
    /// Version of the table.
    pub data_version: DataVersion,
    /// Forbidden bits by group and topic.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Groups by name.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    /// The groups.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// Names of groups (300).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupList {
    /// The groups.
    pub group_list: Vec<String>,
}

/// Whether a group may read a topic: the answer to UPDATE_AND_GET_GROUP_FORBIDDEN (353).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupForbidden {
    /// The group.
    pub group: String,
    /// Whether it may.
    pub readable: bool,
    /// The topic.
    pub topic: String,
}
