//! What a change of the control state means to everybody else: the metadata log and the other cores.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_protocol::body::{SubscriptionGroupConfig, TopicConfig, TopicFilterType};

use super::groups::Forbidden;
use super::sessions::GroupView;

/// One change of what every core knows. Values are immutable: a copy is a reference count.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A topic was created, changed, or (without a configuration) deleted.
    Topic {
        /// Its name.
        name: Arc<str>,
        /// Its configuration now.
        config: Option<Arc<TopicConfig>>,
    },
    /// A consumer group was created, changed, or (without a configuration) deleted.
    Group {
        /// Its name.
        name: Arc<str>,
        /// Its configuration now.
        config: Option<Arc<SubscriptionGroupConfig>>,
    },
    /// What a consumer group may not read changed; or (without topics) it may read all.
    Forbidden {
        /// The group's name.
        group: Arc<str>,
        /// Permission bits by topic.
        topics: Option<Arc<Forbidden>>,
    },
    /// The members of a consumer group changed what they subscribe to, or (without a view) the last one left.
    Subscriptions {
        /// The group's name.
        group: Arc<str>,
        /// What its members say now.
        view: Option<Arc<GroupView>>,
    },
}

/// A change with its place in the order of all changes of this process, from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Grows by one with each update; a copy drops what is not newer than what it has.
    pub revision: u64,
    /// What changed.
    pub change: Change,
}

/// An entry to put into the metadata log, or (without a value) to delete from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRecord {
    /// `t/`, `g/` or `f/`, and the name.
    pub key: Vec<u8>,
    /// The configuration as JSON.
    pub value: Option<Vec<u8>>,
}

/// What the metadata log's keys begin with for topics.
pub(super) const TOPIC_KEY: &[u8] = b"t/";
/// What the metadata log's keys begin with for consumer groups.
pub(super) const GROUP_KEY: &[u8] = b"g/";
/// What the metadata log's keys begin with for what consumer groups may not read.
pub(super) const FORBIDDEN_KEY: &[u8] = b"f/";

impl Change {
    /// The topic that is another now, or gone.
    pub fn topic(&self) -> Option<&Arc<str>> {
        match self {
            Change::Topic { name, .. } => Some(name),
            Change::Group { .. } | Change::Forbidden { .. } | Change::Subscriptions { .. } => None,
        }
    }

    /// The entry that makes the change durable; none for subscriptions, which live as long as their connections.
    pub fn meta_record(&self) -> Option<MetaRecord> {
        match self {
            Change::Topic { name, config } => Some(MetaRecord {
                key: [TOPIC_KEY, name.as_bytes()].concat(),
                value: config.as_deref().map(|config| to_json(&StoredTopic::of(config))),
            }),
            Change::Group { name, config } => Some(MetaRecord {
                key: [GROUP_KEY, name.as_bytes()].concat(),
                value: config.as_deref().map(to_json),
            }),
            Change::Forbidden { group, topics } => Some(MetaRecord {
                key: [FORBIDDEN_KEY, group.as_bytes()].concat(),
                value: topics.as_deref().map(to_json),
            }),
            Change::Subscriptions { .. } => None,
        }
    }
}

/// A topic's configuration as it is stored: without its name, which is the key, and without what is as in most topics. The
/// metadata log holds its values in memory, too.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredTopic<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attributes: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<bool>,
    perm: i32,
    read_queue_nums: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_filter_type: Option<TopicFilterType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_sys_flag: Option<i32>,
    write_queue_nums: i32,
}

impl StoredTopic<'_> {
    fn of(config: &TopicConfig) -> StoredTopic<'_> {
        let TopicConfig {
            attributes,
            order,
            perm,
            read_queue_nums,
            topic_filter_type,
            topic_name: _,
            topic_sys_flag,
            write_queue_nums,
        } = config;
        StoredTopic {
            attributes,
            order: Some(*order).filter(|order| *order),
            perm: *perm,
            read_queue_nums: *read_queue_nums,
            topic_filter_type: Some(*topic_filter_type).filter(|kind| *kind != TopicFilterType::default()),
            topic_sys_flag: Some(*topic_sys_flag).filter(|flag| *flag != 0),
            write_queue_nums: *write_queue_nums,
        }
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a configuration has string keys only, so it is always JSON")
}
