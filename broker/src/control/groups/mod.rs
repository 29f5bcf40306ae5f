//! The table of consumer group configurations (RocketMQ's SubscriptionGroupManager). Core 0 owns it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_protocol::body::{DataVersion, SubscriptionGroupConfig};
use ringmq_protocol::codes::response;
use ringmq_protocol::names;

use super::change::Change;
use super::refusal::Refusal;
use super::topics::alter_group_attributes;
use super::{Page, next_version};

/// Groups that every broker has.
const SYSTEM_GROUPS: [&str; 8] = [
    names::groups::TOOLS_CONSUMER,
    names::groups::FILTERSRV_CONSUMER,
    names::groups::SELF_TEST_CONSUMER,
    names::groups::ONS_HTTP_PROXY,
    names::groups::ONSAPI_PULL,
    names::groups::ONSAPI_PERMISSION,
    names::groups::ONSAPI_OWNER,
    names::groups::SYS_TRANS,
];

/// Every consumer group that this broker knows. Lives on core 0.
pub struct GroupTable {
    groups: BTreeMap<Arc<str>, Arc<SubscriptionGroupConfig>>,
    /// Topics that a group may not read, with Java's permission bits, by group.
    forbidden: BTreeMap<Arc<str>, Arc<Forbidden>>,
    version: DataVersion,
    auto_create: bool,
}

/// Topics that a group may not read (or whatever else a bit says).
pub type Forbidden = BTreeMap<String, i32>;

/// The bit for reading (Java's PermName.INDEX_PERM_READ).
pub const FORBIDDEN_READ: i32 = 1 << 2;

impl GroupTable {
    /// The table of a start at `boot_ms`, with the system groups alone; [`GroupTable::restore`] adds the others.
    /// `auto_create`: whether a heartbeat of an unknown group creates it.
    pub fn new(auto_create: bool, boot_ms: i64) -> GroupTable {
        let groups =
            SYSTEM_GROUPS.iter().map(|name| (Arc::from(*name), Arc::new(default_config(name)))).collect();
        GroupTable {
            groups,
            forbidden: BTreeMap::new(),
            version: DataVersion { timestamp: boot_ms, ..DataVersion::default() },
            auto_create,
        }
    }

    /// Takes an entry of the metadata log back.
    pub fn restore(&mut self, name: &str, json: &[u8]) -> Result<(), serde_json::Error> {
        let mut config: SubscriptionGroupConfig = serde_json::from_slice(json)?;
        config.group_name = name.to_owned();
        self.groups.insert(name.into(), Arc::new(config));
        Ok(())
    }

    /// Takes what a group may not read back.
    pub fn restore_forbidden(&mut self, name: &str, json: &[u8]) -> Result<(), serde_json::Error> {
        self.forbidden.insert(name.into(), Arc::new(serde_json::from_slice(json)?));
        Ok(())
    }

    /// Whether the group may not read the topic.
    pub fn is_forbidden(&self, group: &str, topic: &str) -> bool {
        self.forbidden.get(group).is_some_and(|topics| is_read_forbidden(topics, topic))
    }

    /// What groups may not read.
    pub fn forbidden(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Forbidden>)> {
        self.forbidden.iter()
    }

    /// The same, as 201 shows it.
    pub fn forbidden_table(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        self.forbidden.iter().map(|(group, topics)| (group.to_string(), Forbidden::clone(topics))).collect()
    }

    /// Forbids a group to read a topic, or allows it again (353).
    pub fn forbid(
        &mut self,
        group: &str,
        topic: &str,
        forbid: bool,
        now_ms: i64,
    ) -> Result<Option<Change>, Refusal> {
        names::validate_group(group).map_err(|error| Refusal::invalid(error.to_string()))?;
        names::validate_topic(topic).map_err(|error| Refusal::invalid(error.to_string()))?;
        if self.is_forbidden(group, topic) == forbid {
            return Ok(None);
        }
        let mut topics = self.forbidden.get(group).map(|topics| Forbidden::clone(topics)).unwrap_or_default();
        match forbid {
            true => *topics.entry(topic.to_owned()).or_default() |= FORBIDDEN_READ,
            false => drop(topics.remove(topic)),
        }
        let name: Arc<str> = group.into();
        let topics = (!topics.is_empty()).then(|| Arc::new(topics));
        match &topics {
            Some(topics) => self.forbidden.insert(name.clone(), topics.clone()),
            None => self.forbidden.remove(group),
        };
        self.version = next_version(self.version, now_ms);
        Ok(Some(Change::Forbidden { group: name, topics }))
    }

    /// The group's configuration.
    pub fn get(&self, group: &str) -> Option<&Arc<SubscriptionGroupConfig>> {
        self.groups.get(group)
    }

    /// Every group, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<SubscriptionGroupConfig>)> {
        self.groups.iter()
    }

    /// Version of the table: differs from every earlier one, also from those before the start.
    pub fn version(&self) -> DataVersion {
        self.version
    }

    /// The slice of the table that 201 asks for.
    pub fn page(&self, page: &Page) -> impl Iterator<Item = &Arc<SubscriptionGroupConfig>> {
        let (from, len) = page.range(self.version);
        self.groups.values().skip(from).take(len)
    }

    /// Creates or replaces groups, all or none (200 and 225). Groups that are so already are left out of what is
    /// returned.
    pub fn upsert(
        &mut self,
        wanted: Vec<SubscriptionGroupConfig>,
        now_ms: i64,
    ) -> Result<Vec<Change>, Refusal> {
        let mut wanted = wanted;
        for config in &mut wanted {
            names::validate_group(&config.group_name).map_err(|error| Refusal::invalid(error.to_string()))?;
            let current = self.groups.get(config.group_name.as_str()).map(|current| &current.attributes);
            config.attributes = alter_group_attributes(current, &config.attributes)?;
        }
        Ok(wanted.into_iter().filter_map(|config| self.store(config, now_ms)).collect())
    }

    /// The group of a heartbeat or a pull, created with the defaults where that is allowed; `None` where it is not.
    pub fn find_or_create(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Option<(Arc<SubscriptionGroupConfig>, Option<Change>)> {
        if let Some(config) = self.groups.get(group) {
            return Some((config.clone(), None));
        }
        let config = self.allowed_default(group)?;
        let change = self.store(config, now_ms);
        self.groups.get(group).map(|config| (config.clone(), change))
    }

    /// The group as 352 shows it: what it is, or what its first heartbeat would make it. Nothing is created.
    pub fn describe(&self, group: &str) -> Result<Arc<SubscriptionGroupConfig>, Refusal> {
        match self.groups.get(group) {
            Some(config) => Ok(config.clone()),
            None => self.allowed_default(group).map(Arc::new).ok_or_else(|| {
                Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, "No group in this broker")
            }),
        }
    }

    /// Deletes a group (207). Deleting what is not there is fine, and changes nothing.
    pub fn delete(&mut self, group: &str, now_ms: i64) -> Vec<Change> {
        let Some((name, _)) = self.groups.remove_entry(group) else { return Vec::new() };
        self.version = next_version(self.version, now_ms);
        let allowed = self.forbidden.remove(group).map(|_| name.clone());
        let allowed = allowed.map(|group| Change::Forbidden { group, topics: None });
        std::iter::once(Change::Group { name, config: None }).chain(allowed).collect()
    }

    /// The defaults, if the name is valid and the group may come into being by itself.
    fn allowed_default(&self, group: &str) -> Option<SubscriptionGroupConfig> {
        let allowed = self.auto_create || group.starts_with(names::SYSTEM_GROUP_PREFIX);
        (allowed && names::validate_group(group).is_ok()).then(|| default_config(group))
    }

    /// Puts a configuration in; nothing changes when it is there already.
    fn store(&mut self, config: SubscriptionGroupConfig, now_ms: i64) -> Option<Change> {
        assert!(!config.group_name.is_empty(), "a group has a name");
        if self.groups.get(config.group_name.as_str()).is_some_and(|current| **current == config) {
            return None;
        }
        let (name, config) = (Arc::<str>::from(config.group_name.as_str()), Arc::new(config));
        self.groups.insert(name.clone(), config.clone());
        self.version = next_version(self.version, now_ms);
        Some(Change::Group { name, config: Some(config) })
    }
}

/// Whether a table says that the topic may not be read.
pub fn is_read_forbidden(topics: &Forbidden, topic: &str) -> bool {
    topics.get(topic).is_some_and(|bits| bits & FORBIDDEN_READ != 0)
}

fn default_config(name: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig { group_name: name.to_owned(), ..SubscriptionGroupConfig::default() }
}
