//! Where topics and brokers are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The queues of a topic at one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    /// The broker's name.
    pub broker_name: String,
    /// Permission bits, see [`super::perm`].
    pub perm: i32,
    /// Queues to read.
    pub read_queue_nums: i32,
    /// System flag of the topic.
    pub topic_sys_flag: i32,
    /// Queues to write.
    pub write_queue_nums: i32,
}

/// The addresses of a broker and its replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// Addresses by broker id; 0 is the master.
    pub broker_addrs: BTreeMap<i64, String>,
    /// The broker's name.
    pub broker_name: String,
    /// Its cluster.
    pub cluster: String,
    /// Whether a replica may act as master.
    pub enable_acting_master: bool,
    /// Its zone.
    pub zone_name: Option<String>,
}

/// Answer to GET_ROUTEINFO_BY_TOPIC (105).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRouteData {
    /// The brokers that have the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address; of old brokers.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// Queues of an ordered topic: `broker:queues;broker:queues`.
    pub order_topic_conf: Option<String>,
    /// The topic's queues by broker.
    pub queue_datas: Vec<QueueData>,
}

/// Answer to GET_BROKER_CLUSTER_INFO (106).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Brokers by name.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of brokers by cluster.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}
