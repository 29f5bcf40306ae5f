//! The topic table: every topic that this broker serves, and the rules by which topics come, change and go.
//!
//! Core 0 owns it and alone changes it. Each method that changes something returns the [`Change`] that the caller
//! makes durable and hands to the other cores before it answers; system topics are made anew at each start and
//! are never part of the metadata log.

mod attributes;
mod system;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use ringmq_protocol::body::{DataVersion, TopicConfig, perm};
use ringmq_protocol::codes::response;
use ringmq_protocol::names;

pub use attributes::{DEDUPE_WINDOW, RESERVE_TIME, alter_group as alter_group_attributes};

use super::change::Change;
use super::refusal::{FAQ, Refusal};
use super::{Page, next_version};

/// Bit of a topic's sysFlag: the topic belongs to a unit.
pub const SYS_FLAG_UNIT: i32 = 1;
/// Bit of a topic's sysFlag: a unit's consumers subscribe to it.
pub const SYS_FLAG_UNIT_SUB: i32 = 2;
/// Most queues that one topic may have.
pub const MAX_QUEUES: i32 = 65_536;

/// The options that topics depend on.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Cluster that the broker belongs to.
    pub cluster: String,
    /// The broker's own name.
    pub broker_name: String,
    /// Queues of TBW102: most that an automatically created topic gets.
    pub default_topic_queue_nums: i32,
    /// Whether TBW102 exists, so that a send to an unknown topic creates it.
    pub auto_create_topic: bool,
    /// Whether the trace topic exists from the start.
    pub trace_topic: bool,
    /// Whether topics may take messages of every type (`message.type` MIXED).
    pub mixed_types: bool,
    /// Shards of the store: each has a queue of its own for half messages and for their ends.
    pub shards: u16,
}

/// What a send to an unknown topic brings along for its creation.
#[derive(Clone, Copy, Debug)]
pub struct AutoCreate<'a> {
    /// The topic to create; its name is valid.
    pub topic: &'a str,
    /// Topic to take permissions and the most queues from: the producer's createTopicKey, usually TBW102.
    pub default_topic: &'a str,
    /// Queues that the producer asks for.
    pub queue_nums: i32,
    /// Whether the producer runs in unit mode.
    pub unit_mode: bool,
}

/// Every topic of this broker. Lives on core 0.
pub struct TopicTable {
    /// By name, in order: lists are served in slices of names.
    topics: BTreeMap<Arc<str>, Arc<TopicConfig>>,
    /// Names that belong to the broker: admin verbs do not touch them.
    system: BTreeSet<Arc<str>>,
    version: DataVersion,
    /// Topics that were deleted since the start.
    deletions: u64,
    mixed_types: bool,
}

impl TopicTable {
    /// The table of a start at `boot_ms`, with the system topics alone; [`TopicTable::restore`] adds the others.
    pub fn new(settings: &TopicSettings, boot_ms: i64) -> TopicTable {
        let mut table = TopicTable {
            topics: BTreeMap::new(),
            system: names::system_topics().iter().copied().map(Arc::from).collect(),
            version: DataVersion { timestamp: boot_ms, ..DataVersion::default() },
            deletions: 0,
            mixed_types: settings.mixed_types,
        };
        for config in system::system_topics(settings) {
            let name: Arc<str> = config.topic_name.as_str().into();
            table.system.insert(name.clone());
            table.topics.insert(name, Arc::new(config));
        }
        table
    }

    /// Takes an entry of the metadata log back. A topic that this start has made already stays as it is.
    pub fn restore(&mut self, name: &str, json: &[u8]) -> Result<(), serde_json::Error> {
        let mut config: TopicConfig = serde_json::from_slice(json)?;
        if !self.topics.contains_key(name) {
            config.topic_name = name.to_owned();
            self.topics.insert(name.into(), Arc::new(config));
        }
        Ok(())
    }

    /// The topic's configuration.
    pub fn get(&self, topic: &str) -> Option<&Arc<TopicConfig>> {
        self.topics.get(topic)
    }

    /// Every topic, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<TopicConfig>)> {
        self.topics.iter()
    }

    /// The topics behind this one, or all, by name.
    pub fn behind(&self, name: Option<&Arc<str>>) -> impl Iterator<Item = (&Arc<str>, &Arc<TopicConfig>)> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.topics.range::<Arc<str>, _>((from, Bound::Unbounded))
    }

    /// Version of the table: differs from every earlier one, also from those before the start.
    pub fn version(&self) -> DataVersion {
        self.version
    }

    /// How many topics were deleted since the start.
    pub fn deletions(&self) -> u64 {
        self.deletions
    }

    /// Whether the name is the broker's own.
    pub fn is_system(&self, topic: &str) -> bool {
        self.system.contains(topic) || names::is_system_topic(topic)
    }

    /// Names of the system topics, as 305 lists them.
    pub fn system_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.system.iter()
    }

    /// The slice of the table that 21 asks for.
    pub fn page(&self, page: &Page) -> impl Iterator<Item = &Arc<TopicConfig>> {
        let (from, len) = page.range(self.version);
        self.topics.values().skip(from).take(len)
    }

    /// Creates or changes topics, all or none (17 and 18). Attributes come signed (`+key`, `-key`). Topics that are
    /// so already are left out of what is returned.
    pub fn upsert(&mut self, wanted: Vec<TopicConfig>, now_ms: i64) -> Result<Vec<Change>, Refusal> {
        let mut ready = Vec::with_capacity(wanted.len());
        for config in wanted {
            ready.push(self.prepare(config)?);
        }
        Ok(ready.into_iter().filter_map(|config| self.store(config, now_ms)).collect())
    }

    /// Checks one topic to be created or changed, and merges its attributes.
    fn prepare(&self, mut config: TopicConfig) -> Result<TopicConfig, Refusal> {
        names::validate_topic(&config.topic_name).map_err(|error| Refusal::invalid(error.to_string()))?;
        self.refuse_system(&config.topic_name)?;
        for queues in [config.read_queue_nums, config.write_queue_nums] {
            if !(0..=MAX_QUEUES).contains(&queues) {
                return Err(Refusal::invalid(format!(
                    "queue nums {queues} is not within 0 and {MAX_QUEUES}"
                )));
            }
        }
        if !self.mixed_types && attributes::asks_for_mixed_types(&config.attributes) {
            return Err(Refusal::invalid("MIXED message type is not supported."));
        }
        let current = self.topics.get(config.topic_name.as_str());
        config.attributes =
            attributes::alter(current.map(|current| &current.attributes), &config.attributes)?;
        Ok(config)
    }

    fn refuse_system(&self, topic: &str) -> Result<(), Refusal> {
        if self.is_system(topic) {
            return Err(Refusal::invalid(format!("The topic[{topic}] is conflict with system topic.")));
        }
        Ok(())
    }

    /// Deletes a topic (215). Deleting what is not there is fine, and changes nothing.
    pub fn delete(&mut self, topic: &str, now_ms: i64) -> Result<Option<Change>, Refusal> {
        if topic.trim().is_empty() {
            return Err(Refusal::invalid("The specified topic is blank."));
        }
        self.refuse_system(topic)?;
        Ok(self.topics.remove_entry(topic).map(|(name, _)| {
            self.version = next_version(self.version, now_ms);
            self.deletions += 1;
            Change::Topic { name, config: None }
        }))
    }

    /// The topic of a send, created from its default topic if it is not there.
    pub fn auto_create(
        &mut self,
        ask: &AutoCreate<'_>,
        now_ms: i64,
    ) -> Result<(Arc<TopicConfig>, Option<Change>), Refusal> {
        if let Some(config) = self.topics.get(ask.topic) {
            return Ok((config.clone(), None));
        }
        let retry = names::is_retry_topic(ask.topic);
        let sys_flag = match (ask.unit_mode, retry) {
            (false, _) => 0,
            (true, false) => SYS_FLAG_UNIT,
            (true, true) => SYS_FLAG_UNIT_SUB,
        };
        let parent = self.topics.get(ask.default_topic).filter(|parent| parent.perm & perm::INHERIT != 0);
        let mut config = match parent {
            Some(parent) => TopicConfig {
                topic_filter_type: parent.topic_filter_type,
                ..topic_config(
                    ask.topic,
                    ask.queue_nums.min(parent.write_queue_nums).max(1),
                    parent.perm & !perm::INHERIT,
                )
            },
            None if retry => topic_config(ask.topic, 1, perm::READ | perm::WRITE),
            None => return Err(topic_not_exist(ask.topic)),
        };
        config.topic_sys_flag = sys_flag;
        Ok(self.insert(config, now_ms))
    }

    /// A consumer group's retry topic, created if it is not there; `order` is what its subscriptions say now.
    pub fn retry_topic(
        &mut self,
        group: &str,
        queue_nums: i32,
        order: bool,
        unit_mode: bool,
        now_ms: i64,
    ) -> Option<Change> {
        let name = names::retry_topic(group);
        let config = match self.topics.get(name.as_str()) {
            Some(current) if current.order == order => return None,
            Some(current) => TopicConfig { order, ..TopicConfig::clone(current) },
            None => TopicConfig {
                order,
                topic_sys_flag: if unit_mode { SYS_FLAG_UNIT_SUB } else { 0 },
                ..topic_config(&name, queue_nums.clamp(0, MAX_QUEUES), perm::READ | perm::WRITE)
            },
        };
        self.store(config, now_ms)
    }

    /// A consumer group's topic of dead letters, created if it is not there: one queue, which may be read and written,
    /// as Java's.
    pub fn dead_letter_topic(&mut self, group: &str, now_ms: i64) -> Option<Change> {
        let name = names::dlq_topic(group);
        match self.topics.contains_key(name.as_str()) {
            true => None,
            false => self.store(topic_config(&name, 1, perm::READ | perm::WRITE), now_ms),
        }
    }

    /// Marks the topics that a name server has an order configuration for (its answer to a registration).
    pub fn mark_ordered<'a>(&mut self, topics: impl Iterator<Item = &'a str>, now_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for topic in topics {
            let Some(current) =
                self.topics.get(topic).filter(|config| !config.order && !self.is_system(topic))
            else {
                continue;
            };
            let config = TopicConfig { order: true, ..TopicConfig::clone(current) };
            changes.extend(self.store(config, now_ms));
        }
        changes
    }

    /// Puts a configuration in; nothing changes when it is there already.
    fn store(&mut self, config: TopicConfig, now_ms: i64) -> Option<Change> {
        if self.topics.get(config.topic_name.as_str()).is_some_and(|current| **current == config) {
            return None;
        }
        self.insert(config, now_ms).1
    }

    fn insert(&mut self, config: TopicConfig, now_ms: i64) -> (Arc<TopicConfig>, Option<Change>) {
        assert!(!config.topic_name.is_empty(), "a topic has a name");
        let (name, config) = (Arc::<str>::from(config.topic_name.as_str()), Arc::new(config));
        self.topics.insert(name.clone(), config.clone());
        self.version = next_version(self.version, now_ms);
        (config.clone(), Some(Change::Topic { name, config: Some(config) }))
    }
}

/// TOPIC_NOT_EXIST (17) as senders and consumers read it.
pub fn topic_not_exist(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!{FAQ}"))
}

/// Reads the signed attributes of an admin request, such as `+message.type=FIFO`.
pub fn parse_attributes(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    attributes::parse(text)
}

/// A topic with as many read as write queues and otherwise RocketMQ's defaults.
fn topic_config(name: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}
