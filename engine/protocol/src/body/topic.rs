//! Topics and their configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DataVersion;

/// Bits of a topic's permission.
pub mod perm {
    /// Topics may be created after this one.
    pub const INHERIT: i32 = 1;
    /// May be written.
    pub const WRITE: i32 = 1 << 1;
    /// May be read.
    pub const READ: i32 = 1 << 2;
    /// Has priority.
    pub const PRIORITY: i32 = 1 << 3;
}

/// Configuration of a topic at a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    /// Attributes, such as `message.type`.
    pub attributes: BTreeMap<String, String>,
    /// Whether queues are ordered.
    pub order: bool,
    /// See [`perm`].
    pub perm: i32,
    /// Queues to read.
    pub read_queue_nums: i32,
    /// SINGLE_TAG or MULTI_TAG.
    pub topic_filter_type: TopicFilterType,
    /// The topic's name.
    pub topic_name: String,
    /// System flag.
    pub topic_sys_flag: i32,
    /// Queues to write.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm: perm::READ | perm::WRITE,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// How many tags a message may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TopicFilterType {
    /// One.
    #[default]
    SingleTag,
    /// Several.
    MultiTag,
}

impl TopicFilterType {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            TopicFilterType::SingleTag => "SINGLE_TAG",
            TopicFilterType::MultiTag => "MULTI_TAG",
        }
    }

    /// From the name on the wire.
    pub fn from_name(name: &str) -> Option<TopicFilterType> {
        [TopicFilterType::SingleTag, TopicFilterType::MultiTag].into_iter().find(|t| t.name() == name)
    }
}

/// All topics of a broker: in REGISTER_BROKER (103), and the answer to GET_ALL_TOPIC_CONFIG (21). What RocketMQ keeps
/// for static topics is not read, and is written as empty tables, without which old name servers do not do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigSerializeWrapper {
    /// Version of the table.
    pub data_version: DataVersion,
    /// Version of the static topics.
    pub mapping_data_version: DataVersion,
    /// Topics by name.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Static topics.
    pub topic_queue_mapping_detail_map: NoMappings,
    /// Static topics.
    pub topic_queue_mapping_info_map: NoMappings,
}

/// A table that is empty, whatever the other side wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoMappings {}

/// Body of UPDATE_AND_CREATE_TOPIC_LIST (18).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CreateTopicList {
    /// The topics.
    pub topic_config_list: Vec<TopicConfig>,
}

/// Names of topics (206, 224, 304, 305, 343).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicList {
    /// A broker's address, where one is told.
    pub broker_addr: Option<String>,
    /// The topics.
    pub topic_list: Vec<String>,
}
