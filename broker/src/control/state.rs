//! The control state as a whole, and what follows from a change of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::{
    ConsumerData, DataVersion, HeartbeatData, MessageModel, SubscriptionGroupConfig, TopicConfig,
};
use ringmq_protocol::names;

use super::change::{Change, FORBIDDEN_KEY, GROUP_KEY, MetaRecord, TOPIC_KEY, Update};
use super::groups::GroupTable;
use super::locks::LockTable;
use super::refusal::Refusal;
use super::sessions::{
    Client, Clock, ConnectionId, ConsumerTable, GroupLeft, Heard, Membership, ProducerTable, Subscriptions,
};
use super::stats::StatsTable;
use super::topics::{AutoCreate, MAX_QUEUES, TopicSettings, TopicTable};
use crate::config::BrokerConfig;
use crate::message::Returned;

/// The options that the control state depends on.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// Those of topics.
    pub topics: TopicSettings,
    /// Whether a heartbeat of an unknown consumer group creates it.
    pub auto_create_group: bool,
    /// Whether consumers may filter by SQL92.
    pub property_filter: bool,
    /// A client that sends no heartbeat for so long is taken for gone.
    pub channel_expired: Duration,
    /// A queue lock that is not renewed for so long is anybody's.
    pub lock_expiry: Duration,
    /// A reset (222) moves the group in the broker.
    pub server_side_reset: bool,
    /// The options in force, as Java properties (26).
    pub config_text: String,
}

impl ControlSettings {
    /// Of a broker's configuration, and its store's number of shards; `config_text` is what 26 shows of it.
    pub fn new(config: &BrokerConfig, config_text: String, shards: u16) -> ControlSettings {
        ControlSettings {
            topics: TopicSettings {
                cluster: config.cluster.clone(),
                broker_name: config.broker_name.clone(),
                default_topic_queue_nums: i32::try_from(config.default_topic_queues).unwrap_or(MAX_QUEUES),
                auto_create_topic: config.auto_create_topic,
                trace_topic: config.trace_topic,
                mixed_types: config.mixed_message_type,
                shards,
            },
            auto_create_group: config.auto_create_group,
            property_filter: config.property_filter,
            channel_expired: config.channel_expiry,
            lock_expiry: config.lock_expiry,
            server_side_reset: config.server_side_reset,
            config_text,
        }
    }
}

/// Everything that core 0 owns. Changes go through its methods, so that each has its [`Effects`].
pub struct ControlState {
    topics: TopicTable,
    groups: GroupTable,
    consumers: ConsumerTable,
    producers: ProducerTable,
    locks: LockTable,
    stats: StatsTable,
    channel_expired: Duration,
    property_filter: bool,
    broker_name: String,
    server_side_reset: bool,
    config_text: String,
    /// Version of the options: they are read once, at the start.
    config_version: DataVersion,
    /// Revision of the last update.
    revision: u64,
}

/// What the node does about a change, in this order: make the records durable, send the updates to every core, and
/// only then answer; the rest may follow.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Effects {
    /// For the metadata log.
    pub records: Vec<MetaRecord>,
    /// For every core's copy.
    pub updates: Vec<Update>,
    /// Topics changed: register with the name servers at once.
    pub register: bool,
    /// Members to tell (NOTIFY_CONSUMER_IDS_CHANGED, 40, oneway) that their group changed.
    pub notify: Vec<Notify>,
    /// What every shard is to forget, before the answer.
    pub forget: Vec<Forget>,
    /// Connections to close: their clients have been silent for too long.
    pub close: Vec<ConnectionId>,
}

/// What shards keep of something that is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// The topic's queues, and every group's offsets in them.
    Topic(Arc<str>),
    /// The group's offsets.
    Offsets(Arc<str>),
}

/// One NOTIFY_CONSUMER_IDS_CHANGED to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Whom to tell.
    pub connection: ConnectionId,
    /// Which group changed.
    pub group: Arc<str>,
}

/// An entry of the metadata log that cannot be what this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("entry {key:?} of the metadata log cannot be read: {reason}")]
pub struct RestoreError {
    key: String,
    reason: String,
}

impl ControlState {
    /// The state of a start; [`ControlState::restore`] adds what the metadata log kept.
    pub fn new(settings: &ControlSettings, boot_ms: i64) -> ControlState {
        ControlState {
            topics: TopicTable::new(&settings.topics, boot_ms),
            groups: GroupTable::new(settings.auto_create_group, boot_ms),
            consumers: ConsumerTable::new(),
            producers: ProducerTable::new(),
            locks: LockTable::new(settings.lock_expiry),
            stats: StatsTable::new(),
            channel_expired: settings.channel_expired,
            server_side_reset: settings.server_side_reset,
            property_filter: settings.property_filter,
            broker_name: settings.topics.broker_name.clone(),
            config_text: settings.config_text.clone(),
            config_version: DataVersion { timestamp: boot_ms, ..DataVersion::default() },
            revision: 0,
        }
    }

    /// Takes a live entry of the metadata log back. Only before the first request.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let failed = |reason: String| RestoreError { key: String::from_utf8_lossy(key).into_owned(), reason };
        let name = |prefix| key.strip_prefix(prefix).and_then(|name| std::str::from_utf8(name).ok());
        let restored = match (name(TOPIC_KEY), name(GROUP_KEY), name(FORBIDDEN_KEY)) {
            (Some(topic), ..) => self.topics.restore(topic, value),
            (_, Some(group), _) => self.groups.restore(group, value),
            (.., Some(group)) => self.groups.restore_forbidden(group, value),
            _ => return Err(failed("no such kind of entry".into())),
        };
        restored.map_err(|error| failed(error.to_string()))
    }

    /// Everything that a core's copy starts from.
    pub fn snapshot(&mut self) -> Vec<Update> {
        let topics = self
            .topics
            .iter()
            .map(|(name, config)| Change::Topic { name: name.clone(), config: Some(config.clone()) });
        let groups = self
            .groups
            .iter()
            .map(|(name, config)| Change::Group { name: name.clone(), config: Some(config.clone()) });
        let forbidden = self
            .groups
            .forbidden()
            .map(|(group, topics)| Change::Forbidden { group: group.clone(), topics: Some(topics.clone()) });
        let subscriptions = self
            .consumers
            .views()
            .map(|(group, view)| Change::Subscriptions { group: group.clone(), view: Some(view.clone()) });
        let changes: Vec<Change> = topics.chain(groups).chain(forbidden).chain(subscriptions).collect();
        self.effects(changes).updates
    }

    /// The topics.
    pub fn topics(&self) -> &TopicTable {
        &self.topics
    }

    /// Whether consumers may filter by SQL92.
    pub fn property_filter(&self) -> bool {
        self.property_filter
    }

    /// The consumer groups' configurations.
    pub fn groups(&self) -> &GroupTable {
        &self.groups
    }

    /// The consumers that are online.
    pub fn consumers(&self) -> &ConsumerTable {
        &self.consumers
    }

    /// The producers that are online.
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// The queue locks.
    pub fn locks(&self) -> &LockTable {
        &self.locks
    }

    /// The queue locks, to lock and unlock: nothing follows from that.
    pub fn locks_mut(&mut self) -> &mut LockTable {
        &mut self.locks
    }

    /// The statistics.
    pub fn stats(&self) -> &StatsTable {
        &self.stats
    }

    /// The statistics, to count: nothing follows from that.
    pub fn stats_mut(&mut self) -> &mut StatsTable {
        &mut self.stats
    }

    /// Whether a reset (222) moves the group here; otherwise its consumers are told to move.
    pub fn resets_here(&self) -> bool {
        self.server_side_reset
    }

    /// The broker's name.
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The options in force, as Java properties.
    pub fn config_text(&self) -> &str {
        &self.config_text
    }

    /// Version of the options.
    pub fn config_version(&self) -> DataVersion {
        self.config_version
    }

    // --- topics and groups ---

    /// Creates or changes topics, all or none (17, 18).
    pub fn upsert_topics(&mut self, wanted: Vec<TopicConfig>, now_ms: i64) -> Result<Effects, Refusal> {
        let changes = self.topics.upsert(wanted, now_ms)?;
        Ok(self.effects(changes))
    }

    /// Deletes a topic (215).
    pub fn delete_topic(&mut self, topic: &str, now_ms: i64) -> Result<Effects, Refusal> {
        let change = self.topics.delete(topic, now_ms)?;
        self.stats.forget_topic(topic);
        let mut effects = self.effects(change);
        effects.forget.push(Forget::Topic(topic.into()));
        Ok(effects)
    }

    /// The topic of a send, created if it is not there and may be.
    pub fn auto_create_topic(
        &mut self,
        ask: &AutoCreate<'_>,
        now_ms: i64,
    ) -> Result<(Arc<TopicConfig>, Effects), Refusal> {
        let (config, change) = self.topics.auto_create(ask, now_ms)?;
        Ok((config, self.effects(change)))
    }

    /// Decides whether a message that the group could not consume goes to its dead letters, and makes sure of the topic
    /// that takes it, and of the group if it may be created.
    pub fn retry_fate(&mut self, group: &str, sent: Returned, clock: Clock) -> (bool, Effects) {
        let created = self.groups.find_or_create(group, clock.wall_ms).and_then(|(_, change)| change);
        let is_dead = match sent {
            Returned::ForRetry { .. } => false,
            Returned::ForDeadLetters => true,
            // Members with queue locks consume in order: they retry by themselves, and send what is given up.
            Returned::BySend { is_exhausted } => is_exhausted || self.locks.is_locked(group, clock.now),
        };
        let unit_mode = matches!(sent, Returned::ForRetry { unit_mode: true });
        let queues = self.groups.get(group).map_or(1, |config| config.retry_queue_nums);
        let change = match is_dead {
            true => self.topics.dead_letter_topic(group, clock.wall_ms),
            false if self.topics.get(&names::retry_topic(group)).is_some() => None,
            false => self.topics.retry_topic(group, queues, false, unit_mode, clock.wall_ms),
        };
        (is_dead, self.effects(created.into_iter().chain(change)))
    }

    /// Marks topics as ordered that a name server has an order configuration for.
    pub fn mark_ordered<'a>(&mut self, topics: impl Iterator<Item = &'a str>, now_ms: i64) -> Effects {
        let changes = self.topics.mark_ordered(topics, now_ms);
        self.effects(changes)
    }

    /// Creates or replaces consumer groups, all or none (200, 225).
    pub fn upsert_groups(
        &mut self,
        wanted: Vec<SubscriptionGroupConfig>,
        now_ms: i64,
    ) -> Result<Effects, Refusal> {
        let changes = self.groups.upsert(wanted, now_ms)?;
        Ok(self.effects(changes))
    }

    /// The group of a pull without a heartbeat, created if it is not there and may be.
    pub fn auto_create_group(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Option<(Arc<SubscriptionGroupConfig>, Effects)> {
        let (config, change) = self.groups.find_or_create(group, now_ms)?;
        Some((config, self.effects(change)))
    }

    /// Deletes a consumer group (207), with its offsets if that is wanted.
    pub fn delete_group(&mut self, group: &str, clean_offset: bool, now_ms: i64) -> Effects {
        let change = self.groups.delete(group, now_ms);
        let mut effects = self.effects(change);
        effects.forget.extend(clean_offset.then(|| Forget::Offsets(group.into())));
        effects
    }

    /// Forbids a consumer group to read a topic, or allows it again (353).
    pub fn forbid(
        &mut self,
        group: &str,
        topic: &str,
        forbid: bool,
        now_ms: i64,
    ) -> Result<Effects, Refusal> {
        let change = self.groups.forbid(group, topic, forbid, now_ms)?;
        Ok(self.effects(change))
    }

    // --- sessions ---

    /// A heartbeat (34). Also says whether the client is to send its subscriptions in full (IS_SUB_CHANGE).
    pub fn heartbeat(&mut self, client: &Client, heartbeat: HeartbeatData, clock: Clock) -> (bool, Effects) {
        let v2 = heartbeat.heartbeat_fingerprint != 0;
        let mut subscriptions_wanted = !v2;
        let mut effects = Effects::default();
        for data in heartbeat.consumer_data_set {
            let fingerprint = heartbeat.heartbeat_fingerprint;
            let unchanged = v2 && heartbeat.without_sub;
            let Some(heard) = self.heard_consumer(client, data, fingerprint, unchanged, clock, &mut effects)
            else {
                continue;
            };
            subscriptions_wanted |= heard.subscriptions_wanted;
        }
        for data in heartbeat.producer_data_set {
            self.producers.register(client, &data.group_name, clock);
        }
        (subscriptions_wanted, effects)
    }

    /// One consumer group of a heartbeat; `None` when the group does not exist and must not be created.
    fn heard_consumer(
        &mut self,
        client: &Client,
        data: ConsumerData,
        fingerprint: i32,
        unchanged: bool,
        clock: Clock,
        effects: &mut Effects,
    ) -> Option<Heard> {
        let (config, created) = self.groups.find_or_create(&data.group_name, clock.wall_ms)?;
        let retry = self.retry_topic(&data, config.retry_queue_nums, unchanged, clock.wall_ms);
        let group: Arc<str> = data.group_name.into();
        let membership = Membership {
            group: group.clone(),
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
            subscriptions: if unchanged {
                Subscriptions::Unchanged
            } else {
                Subscriptions::Whole(data.subscription_data_set)
            },
            fingerprint,
        };
        let heard = self.consumers.register(client, membership, clock);
        let subscribed =
            heard.view.clone().map(|view| Change::Subscriptions { group: group.clone(), view: Some(view) });
        effects.merge(self.effects(created.into_iter().chain(retry).chain(subscribed)));
        if heard.rebalance {
            self.notify(&group, effects);
        }
        Some(heard)
    }

    /// The group's retry topic, created or brought in line with what the group subscribes to.
    fn retry_topic(
        &mut self,
        data: &ConsumerData,
        queue_nums: i32,
        unchanged: bool,
        now_ms: i64,
    ) -> Option<Change> {
        let group = data.group_name.as_str();
        let topics = &self.topics;
        let is_ordered = |topic: &str| topics.get(topic).is_some_and(|config| config.order);
        let order = match unchanged {
            true => is_ordered(&names::retry_topic(group)),
            false => data.subscription_data_set.iter().any(|data| is_ordered(&data.topic)),
        };
        self.topics.retry_topic(group, queue_nums, order, data.unit_mode, now_ms)
    }

    /// A client says goodbye (35), as a producer, a consumer, or both.
    pub fn unregister(
        &mut self,
        connection: ConnectionId,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Effects {
        if let Some(group) = producer_group {
            self.producers.unregister(group, connection);
        }
        let mut effects = Effects::default();
        if let Some(left) = consumer_group.and_then(|group| self.consumers.unregister(group, connection)) {
            self.member_left(left, &mut effects);
        }
        effects
    }

    /// A connection has ended.
    pub fn connection_closed(&mut self, connection: ConnectionId) -> Effects {
        self.producers.connection_closed(connection);
        let mut effects = Effects::default();
        for left in self.consumers.connection_closed(connection) {
            self.member_left(left, &mut effects);
        }
        effects
    }

    /// Forgets who has been silent for too long, and expired locks. To be called every ten seconds or so.
    pub fn expire_sessions(&mut self, clock: Clock) -> Effects {
        let mut silent: BTreeSet<ConnectionId> = self.consumers.silent(clock.now, self.channel_expired);
        silent.append(&mut self.producers.silent(clock.now, self.channel_expired));
        let mut effects = Effects::default();
        for connection in silent {
            effects.merge(self.connection_closed(connection));
            effects.close.push(connection);
        }
        self.locks.sweep(clock.now);
        effects
    }

    /// What follows from a member's leaving.
    fn member_left(&mut self, left: GroupLeft, effects: &mut Effects) {
        if !left.empty {
            self.notify(&left.group, effects);
        }
        if left.empty || left.view.is_some() {
            effects.merge(self.effects([Change::Subscriptions { group: left.group, view: left.view }]));
        }
    }

    /// Tells the members that their group changed, where that is wanted: nobody shares queues in broadcasting.
    fn notify(&self, group: &Arc<str>, effects: &mut Effects) {
        let wanted = self.groups.get(group).is_none_or(|config| config.notify_consumer_ids_changed_enable);
        let shares = self
            .consumers
            .view(group)
            .is_some_and(|view| view.message_model != Some(MessageModel::Broadcasting));
        if wanted && shares {
            let members = self.consumers.members(group).into_iter();
            effects.notify.extend(members.map(|connection| Notify { connection, group: group.clone() }));
        }
    }

    /// Gives each change its revision, and says what is to be done about them.
    fn effects(&mut self, changes: impl IntoIterator<Item = Change>) -> Effects {
        let mut effects = Effects::default();
        for change in changes {
            self.revision += 1;
            effects.records.extend(change.meta_record());
            effects.register |= matches!(change, Change::Topic { .. });
            effects.updates.push(Update { revision: self.revision, change });
        }
        effects
    }
}

impl Effects {
    /// Appends what another change of the same request is to do.
    fn merge(&mut self, mut later: Effects) {
        self.records.append(&mut later.records);
        self.updates.append(&mut later.updates);
        self.register |= later.register;
        self.notify.append(&mut later.notify);
        self.forget.append(&mut later.forget);
        self.close.append(&mut later.close);
    }
}
