//! Offsets that a tool has set (222) and that the group's consumer of the queue has not taken up yet (Java's
//! resetOffsetTable). The consumer's next pull is told to go there; what it commits until then does not count.
//!
//! In memory alone, as with Java: the offset itself is committed, so that after a restart whoever asks gets it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};
use ringmq_engine::{QueueId, QueueOffset};
use rustc_hash::FxBuildHasher;

/// Resets that one shard remembers; of more, the offsets are committed all the same.
pub const MAX_RESETS: usize = 65_536;

/// The resets of one shard that wait to be taken up.
#[derive(Default)]
pub struct PendingResets(HashMap<Key, QueueOffset, FxBuildHasher>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    group: Arc<str>,
    topic: Arc<str>,
    queue_id: QueueId,
}

struct Lookup<'a> {
    group: &'a str,
    topic: &'a str,
    queue_id: QueueId,
}

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.group.hash(state);
        self.topic.hash(state);
        self.queue_id.hash(state);
    }
}

impl Equivalent<Key> for Lookup<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.queue_id == key.queue_id && *self.topic == *key.topic && *self.group == *key.group
    }
}

impl PendingResets {
    /// The group's consumer of this queue is to go to `offset`.
    pub fn set(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: QueueId, offset: QueueOffset) {
        let key = Key { group: group.clone(), topic: topic.clone(), queue_id };
        if self.0.len() < MAX_RESETS || self.0.contains_key(&key) {
            self.0.insert(key, offset);
        }
    }

    /// Whether a reset waits to be taken up.
    pub fn is_pending(&self, group: &str, topic: &str, queue_id: QueueId) -> bool {
        !self.0.is_empty() && self.0.contains_key(&Lookup { group, topic, queue_id })
    }

    /// Where a pull is to go, if a reset waits for it; it is taken up by that.
    pub fn take(&mut self, group: &str, topic: &str, queue_id: QueueId) -> Option<QueueOffset> {
        if self.0.is_empty() { None } else { self.0.remove(&Lookup { group, topic, queue_id }) }
    }

    /// Forgets a group.
    pub fn forget_group(&mut self, group: &str) {
        self.0.retain(|key, _| *key.group != *group);
    }

    /// Forgets a topic.
    pub fn forget_topic(&mut self, topic: &str) {
        self.0.retain(|key, _| *key.topic != *topic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_taken_up_once() {
        let mut resets = PendingResets::default();
        let (group, topic): (Arc<str>, Arc<str>) = ("g".into(), "t".into());
        assert_eq!(resets.take("g", "t", QueueId(0)), None);
        resets.set(&group, &topic, QueueId(0), QueueOffset(3));
        resets.set(&group, &topic, QueueId(0), QueueOffset(4));
        assert!(resets.is_pending("g", "t", QueueId(0)) && !resets.is_pending("g", "t", QueueId(1)));
        assert_eq!(resets.take("h", "t", QueueId(0)), None);
        assert_eq!(resets.take("g", "t", QueueId(0)), Some(QueueOffset(4)));
        assert_eq!(resets.take("g", "t", QueueId(0)), None);
    }

    #[test]
    fn what_is_deleted_is_forgotten_and_the_table_is_bounded() {
        let mut resets = PendingResets::default();
        let (group, topic): (Arc<str>, Arc<str>) = ("g".into(), "t".into());
        for queue in 0..=MAX_RESETS as u32 {
            resets.set(&group, &topic, QueueId(queue), QueueOffset(1));
        }
        assert_eq!(resets.0.len(), MAX_RESETS);
        resets.forget_topic("u");
        assert_eq!(resets.0.len(), MAX_RESETS);
        resets.forget_topic("t");
        assert!(resets.0.is_empty());
        resets.set(&group, &topic, QueueId(0), QueueOffset(1));
        resets.forget_group("g");
        assert!(resets.0.is_empty());
    }
}
