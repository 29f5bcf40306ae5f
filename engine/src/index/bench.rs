//! The index by itself, for counts of instructions of its background work.

use std::path::Path;

use ringmq_env::Env;

use super::{Index, IndexEntry, keys::key_hash};
use crate::damage::DamageReport;
use crate::types::{LogPosition, QueueId};

const QUEUES: u32 = 8;
/// Bytes of the log that a message takes.
const SIZE: u64 = 1100;

/// An index that messages with a key each are pushed to.
pub struct BenchIndex<E: Env> {
    index: Index<E>,
    topics: Vec<String>,
    messages: u64,
}

impl<E: Env> BenchIndex<E> {
    /// An empty one in an empty directory, for messages of so many topics.
    pub async fn open(env: E, dir: &Path, topics: u64) -> BenchIndex<E> {
        let (zero, report) = (LogPosition(0), DamageReport::default());
        let mut opening = Index::open(env, dir, zero, zero, &report).await.expect("a new index opens");
        assert!(opening.next_gap().await.is_ok_and(|gap| gap.is_none()), "there is no log");
        let index = opening.finish().await.expect("a new index opens");
        let topics = (0..topics).map(|topic| format!("BenchTopic{topic:06}")).collect();
        BenchIndex { index, topics, messages: 0 }
    }

    /// Adds messages, to the topics in turn, and to a few queues of each.
    pub fn push(&mut self, messages: u64) {
        let topics = self.topics.len() as u64;
        for number in self.messages..self.messages + messages {
            let topic = &self.topics[(number % topics) as usize];
            let slot = self.index.slot(topic, QueueId((number / topics) as u32 % QUEUES));
            let entry = IndexEntry {
                position: LogPosition(number * SIZE),
                size: SIZE as u32,
                crc: number as u32,
                tags_code: 42,
                store_ms: 1_700_000_000_000 + number as i64 / 400,
            };
            self.index.push(slot, self.index.stage(slot, 1), 1, entry);
            self.index.push_key(key_hash(topic, &number.to_string()), entry.position, entry.store_ms);
        }
        self.messages += messages;
    }

    /// Writes all that is in memory as a run.
    pub async fn flush(&self) {
        self.index.flush(LogPosition(self.messages * SIZE)).await.expect("there is space");
    }

    /// Whether there are enough runs to be merged.
    pub fn merge_due(&self) -> bool {
        self.index.merge_due()
    }

    /// Merges them.
    pub async fn merge(&self) {
        self.index.merge(|| false).await.expect("there is space");
    }

    /// Messages there are.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}
