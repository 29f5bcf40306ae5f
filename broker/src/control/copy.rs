//! One core's copy of what core 0 knows.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ringmq_engine::{ShardId, TopicHandle};
use ringmq_protocol::body::{SubscriptionData, SubscriptionGroupConfig, TopicConfig};
use ringmq_protocol::names;
use rustc_hash::FxBuildHasher;

use super::change::{Change, Update};
use super::groups::{Forbidden, is_read_forbidden};
use super::sessions::GroupView;
use super::stats::PutsHandle;
use super::topic_table::{Topic, TopicTable};
use super::topics::RESERVE_TIME;

/// With more topics than this, what a send needs of its own is not in the cache of a core.
const MANY_TOPICS: usize = 1000;

/// Topics, groups and subscriptions as of the last update that has arrived. Every core has its own, and reads it
/// without asking anybody.
#[derive(Default)]
pub struct MetadataCopy {
    revision: u64,
    topics: TopicTable,
    /// Those with a time of their own for how long messages are kept, which is asked for often.
    reserving: BTreeSet<Arc<str>>,
    /// Those of dead letters.
    dead_letters: BTreeSet<Arc<str>>,
    groups: HashMap<Arc<str>, Arc<SubscriptionGroupConfig>, FxBuildHasher>,
    forbidden: HashMap<Arc<str>, Arc<Forbidden>, FxBuildHasher>,
    subscriptions: HashMap<Arc<str>, Arc<GroupView>, FxBuildHasher>,
    /// What every LMQ has for a configuration; `None`: there are no LMQs.
    lmq: Option<Arc<TopicConfig>>,
}

/// By which handles a shard knows a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicPlace {
    /// The shard.
    pub shard: ShardId,
    /// Its index's handle, which it checks.
    pub handle: TopicHandle,
    /// Where it counts the topic's messages, which it checks, too.
    pub counted: PutsHandle,
}

impl Default for TopicPlace {
    /// None yet: the handles are of no topic.
    fn default() -> TopicPlace {
        TopicPlace { shard: ShardId(0), handle: TopicHandle::default(), counted: PutsHandle::default() }
    }
}

/// What a send needs of a topic.
pub struct KnownTopic<'a> {
    /// Its shared name.
    pub name: Arc<str>,
    /// Its configuration.
    pub config: &'a Arc<TopicConfig>,
    /// Where the shard that was sent to last has it; none of an LMQ.
    pub place: Option<&'a Cell<TopicPlace>>,
}

impl MetadataCopy {
    /// A copy that knows nothing yet, on a broker with LMQs or without.
    pub fn new(has_lmqs: bool) -> MetadataCopy {
        let one_queue = || TopicConfig { read_queue_nums: 1, write_queue_nums: 1, ..TopicConfig::default() };
        MetadataCopy { lmq: has_lmqs.then(|| Arc::new(one_queue())), ..MetadataCopy::default() }
    }

    /// Takes in an update; one that is not newer than the copy is dropped, and `false` returned.
    pub fn apply(&mut self, update: Update) -> bool {
        if update.revision <= self.revision {
            return false;
        }
        self.revision = update.revision;
        match update.change {
            Change::Topic { name, config } => {
                self.reserving.remove(&name);
                if config.as_ref().is_some_and(|config| config.attributes.contains_key(RESERVE_TIME)) {
                    self.reserving.insert(name.clone());
                }
                if name.starts_with(names::DLQ_PREFIX) {
                    match config {
                        Some(_) => self.dead_letters.insert(name.clone()),
                        None => self.dead_letters.remove(&name),
                    };
                }
                match config {
                    Some(config) => self.topics.insert(Topic { name, config, place: Cell::default() }),
                    None => self.topics.remove(&name),
                }
            }
            Change::Group { name, config } => set(&mut self.groups, name, config),
            Change::Forbidden { group, topics } => set(&mut self.forbidden, group, topics),
            Change::Subscriptions { group, view } => set(&mut self.subscriptions, group, view),
        }
        true
    }

    /// Revision of the last update that was taken in.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The topic's configuration, with its shared name. An LMQ needs none: every name of one is a topic of one queue.
    pub fn topic(&self, topic: &str) -> Option<(Arc<str>, &Arc<TopicConfig>)> {
        self.known_topic(topic).map(|KnownTopic { name, config, .. }| (name, config))
    }

    /// The same, and where a shard has it.
    pub fn known_topic(&self, topic: &str) -> Option<KnownTopic<'_>> {
        if let Some(Topic { name, config, place }) = self.topics.get(topic) {
            return Some(KnownTopic { name: name.clone(), config, place: Some(place) });
        }
        let config =
            self.lmq.as_ref().filter(|_| names::is_lmq(topic) && topic.len() <= names::LMQ_MAX_LENGTH)?;
        Some(KnownTopic { name: topic.into(), config, place: None })
    }

    /// Whether there are so many topics that they are in no cache.
    pub fn has_many_topics(&self) -> bool {
        self.topics.len() > MANY_TOPICS
    }

    /// For fetching what a send needs of several topics into the core's cache, side by side.
    pub fn topic_table(&self) -> &TopicTable {
        &self.topics
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topic(topic).is_some()
    }

    /// The configurations of topics that say themselves how long messages are kept.
    pub fn reserving_topics(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TopicConfig>)> {
        self.configured(&self.reserving)
    }

    /// The topics of dead letters.
    pub fn dead_letter_topics(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TopicConfig>)> {
        self.configured(&self.dead_letters)
    }

    fn configured<'a>(
        &'a self,
        names: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<TopicConfig>)> {
        names.iter().filter_map(|name| Some((name, &self.topics.get(name)?.config)))
    }

    /// The consumer group's configuration, with its shared name.
    pub fn group(&self, group: &str) -> Option<(&Arc<str>, &Arc<SubscriptionGroupConfig>)> {
        self.groups.get_key_value(group)
    }

    /// Whether a tool has forbidden the group to read the topic.
    pub fn is_forbidden(&self, group: &str, topic: &str) -> bool {
        self.forbidden.get(group).is_some_and(|topics| is_read_forbidden(topics, topic))
    }

    /// What the members of a consumer group say; `None` when nobody of it is online.
    pub fn view(&self, group: &str) -> Option<&Arc<GroupView>> {
        self.subscriptions.get(group)
    }

    /// What the group subscribes to on the topic.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<&Arc<SubscriptionData>> {
        self.view(group)?.subscriptions.get(topic)
    }
}

fn set<V>(table: &mut HashMap<Arc<str>, V, FxBuildHasher>, name: Arc<str>, value: Option<V>) {
    match value {
        Some(value) => table.insert(name, value),
        None => table.remove(&name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(revision: u64, config: Option<TopicConfig>) -> Update {
        Update { revision, change: Change::Topic { name: "t".into(), config: config.map(Arc::new) } }
    }

    #[test]
    fn stale_updates_are_dropped() {
        let mut copy = MetadataCopy::new(false);
        assert!(copy.apply(update(2, Some(TopicConfig::default()))));
        assert!(!copy.apply(update(2, None)) && !copy.apply(update(1, None)));
        assert!(copy.topic("t").is_some());
        assert!(copy.apply(update(3, None)));
        assert!(copy.topic("t").is_none());
        assert_eq!(copy.revision(), 3);
    }

    #[test]
    fn topics_that_reserve_time_are_known() {
        let mut copy = MetadataCopy::new(false);
        let reserves = || {
            let attributes = [(RESERVE_TIME.to_owned(), "1".to_owned())].into();
            Some(TopicConfig { attributes, ..TopicConfig::default() })
        };
        let changes = [reserves(), Some(TopicConfig::default()), reserves(), None];
        for (revision, (change, known)) in (1..).zip(changes.into_iter().zip([1, 0, 1, 0])) {
            assert!(copy.apply(update(revision, change)));
            assert_eq!(copy.reserving_topics().count(), known, "after {revision} changes");
        }
    }

    #[test]
    fn every_name_of_an_lmq_is_a_topic_where_there_are_lmqs() {
        assert!(!MetadataCopy::new(false).has_topic("%LMQ%a"));
        let copy = MetadataCopy::new(true);
        let (name, config) = copy.topic("%LMQ%a").unwrap();
        assert_eq!((&*name, config.read_queue_nums, config.write_queue_nums), ("%LMQ%a", 1, 1));
        assert!(!copy.has_topic("a") && !copy.has_topic(&format!("%LMQ%{}", "a".repeat(251))));
    }
}
