//! The offsets that consumer groups committed in the queues of one shard (RocketMQ's ConsumerOffsetManager).
//!
//! A commit changes the table in memory; what changed since the last flush goes to the shard's metadata log at each
//! offset flush interval, and when the shard closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use ringmq_engine::{QueueId, QueueOffset};
use rustc_hash::FxBuildHasher;

use crate::message::CommittedOffset;

/// Stands between group and topic in a key of the metadata log; neither name may hold it.
const SEPARATOR: u8 = 1;

type Map<V> = HashMap<Arc<str>, V, FxBuildHasher>;
type QueueOffsets = BTreeMap<QueueId, QueueOffset>;

/// An entry of the metadata log, or (without a value) one to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetRecord {
    /// Group, topic and queue.
    pub key: Vec<u8>,
    /// The offset.
    pub value: Option<[u8; 8]>,
}

/// A metadata log entry that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {key} + {value} bytes is no committed offset")]
pub struct BadEntry {
    /// Bytes of the key.
    key: usize,
    /// Bytes of the value.
    value: usize,
}

/// The committed offsets of one shard.
#[derive(Default)]
pub struct OffsetTable {
    groups: Map<Map<QueueOffsets>>,
    /// What changed since [`OffsetTable::take_changes`], as keys.
    changed: HashSet<Vec<u8>, FxBuildHasher>,
}

impl OffsetTable {
    /// Takes an entry of the metadata log back.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadEntry> {
        let bad = BadEntry { key: key.len(), value: value.len() };
        let (group, topic, queue_id) = split_key(key).ok_or(bad)?;
        let offset = i64::from_be_bytes(value.try_into().map_err(|_| bad)?);
        self.put(group.into(), topic.into(), queue_id, QueueOffset(offset));
        Ok(())
    }

    /// What the group committed.
    pub fn get(&self, group: &str, topic: &str, queue_id: QueueId) -> Option<QueueOffset> {
        self.groups.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    /// Commits an offset. It may go backwards: a consumer may be told to start again.
    pub fn commit(&mut self, group: &Arc<str>, topic: &Arc<str>, queue_id: QueueId, offset: QueueOffset) {
        if self.get(group, topic, queue_id) == Some(offset) {
            return;
        }
        self.changed.insert(key(group, topic, queue_id));
        self.put(group.clone(), topic.clone(), queue_id, offset);
    }

    fn put(&mut self, group: Arc<str>, topic: Arc<str>, queue_id: QueueId, offset: QueueOffset) {
        self.groups.entry(group).or_default().entry(topic).or_default().insert(queue_id, offset);
    }

    /// Forgets a group.
    pub fn forget_group(&mut self, group: &str) {
        for (topic, queues) in self.groups.remove(group).into_iter().flatten() {
            self.changed.extend(queues.keys().map(|queue_id| key(group, &topic, *queue_id)));
        }
    }

    /// Forgets what all groups committed in a topic.
    pub fn forget_topic(&mut self, topic: &str) {
        for (group, topics) in &mut self.groups {
            let queues = topics.remove(topic).unwrap_or_default();
            self.changed.extend(queues.keys().map(|queue_id| key(group, topic, *queue_id)));
        }
        self.groups.retain(|_, topics| !topics.is_empty());
    }

    /// The groups that committed offsets in a topic.
    pub fn groups_of(&self, topic: &str) -> Vec<Arc<str>> {
        self.groups
            .iter()
            .filter(|(_, topics)| topics.contains_key(topic))
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// Every offset of one group, or of all.
    pub fn list(&self, group: Option<&str>) -> Vec<CommittedOffset> {
        let wanted = self.groups.iter().filter(|(name, _)| group.is_none_or(|group| ***name == *group));
        let topics = wanted
            .flat_map(|(group, topics)| topics.iter().map(move |(topic, queues)| (group, topic, queues)));
        let entries = topics.flat_map(|(group, topic, queues)| {
            queues.iter().map(move |(queue_id, offset)| CommittedOffset {
                group: group.clone(),
                topic: topic.clone(),
                queue_id: *queue_id,
                offset: *offset,
            })
        });
        entries.collect()
    }

    /// What is to be written to the metadata log now.
    pub fn take_changes(&mut self) -> Vec<OffsetRecord> {
        let changed = std::mem::take(&mut self.changed);
        let record = |key: Vec<u8>| {
            let (group, topic, queue_id) = split_key(&key).expect("keys are made by `key`");
            let value = self.get(group, topic, queue_id).map(|offset| offset.0.to_be_bytes());
            OffsetRecord { key, value }
        };
        changed.into_iter().map(record).collect()
    }
}

fn key(group: &str, topic: &str, queue_id: QueueId) -> Vec<u8> {
    let separator: &[u8] = &[SEPARATOR];
    [group.as_bytes(), separator, topic.as_bytes(), separator, &queue_id.0.to_be_bytes()].concat()
}

fn split_key(key: &[u8]) -> Option<(&str, &str, QueueId)> {
    let (names, queue) = key.split_last_chunk::<4>()?;
    let names = std::str::from_utf8(names).ok()?.strip_suffix(char::from(SEPARATOR))?;
    let (group, topic) = names.split_once(char::from(SEPARATOR))?;
    Some((group, topic, QueueId(u32::from_be_bytes(*queue))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(table: &mut OffsetTable, group: &str, topic: &str, queue: u32, offset: i64) {
        table.commit(&group.into(), &topic.into(), QueueId(queue), QueueOffset(offset));
    }

    #[test]
    fn what_is_written_comes_back() {
        let mut table = OffsetTable::default();
        commit(&mut table, "g", "t", 1, 7);
        commit(&mut table, "g", "t", 1, 9);
        commit(&mut table, "g", "t", 2, 3);
        let changes = table.take_changes();
        assert_eq!(changes.len(), 2);
        commit(&mut table, "g", "t", 2, 3);
        assert!(table.take_changes().is_empty(), "an unchanged offset is not written again");
        let mut again = OffsetTable::default();
        for change in &changes {
            again.restore(&change.key, &change.value.unwrap()).unwrap();
        }
        assert_eq!(again.get("g", "t", QueueId(1)), Some(QueueOffset(9)));
        assert!(again.take_changes().is_empty());
        assert!(again.restore(b"nonsense", b"12345678").is_err());
        assert!(again.restore(&changes[0].key, b"123").is_err());
    }

    #[test]
    fn forgetting_deletes() {
        let mut table = OffsetTable::default();
        commit(&mut table, "g", "t", 1, 7);
        commit(&mut table, "g", "u", 1, 7);
        commit(&mut table, "h", "t", 1, 7);
        table.take_changes();
        assert_eq!(table.groups_of("t").len(), 2);
        table.forget_topic("t");
        assert_eq!(table.get("g", "t", QueueId(1)), None);
        let deleted = table.take_changes();
        assert!(deleted.len() == 2 && deleted.iter().all(|change| change.value.is_none()));
        assert_eq!(table.list(None).len(), 1);
        table.forget_group("g");
        assert_eq!((table.list(Some("g")).len(), table.take_changes().len()), (0, 1));
    }
}
