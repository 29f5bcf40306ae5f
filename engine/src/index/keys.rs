//! The keys of messages that are not in a run yet. Pure memory.

use std::collections::VecDeque;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Keys in one chunk.
const CHUNK: usize = 1024;

/// Chunks that are freed at a time.
const RELEASED: usize = 32;

/// One key of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HotKey {
    pub hash: u64,
    pub position: u64,
    pub store_ms: i64,
}

/// Keys in log order, in chunks that are never copied.
#[derive(Default)]
pub(super) struct HotKeys {
    chunks: VecDeque<Vec<HotKey>>,
    /// One past the position of the newest message with a key.
    seen: u64,
}

/// The stable hash of a key within its topic.
pub(crate) fn key_hash(topic: &str, key: &str) -> u64 {
    xxh3_64_with_seed(key.as_bytes(), xxh3_64(topic.as_bytes()))
}

impl HotKeys {
    /// Adds a key; messages come in log order, one message may have many keys.
    pub(super) fn push(&mut self, key: HotKey) {
        assert!(key.position + 1 >= self.seen, "keys come in log order");
        self.seen = key.position + 1;
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        self.chunks.back_mut().expect("a chunk with room was made above").push(key);
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<HotKey>()
    }

    /// The keys, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &HotKey> {
        self.chunks.iter().rev().flat_map(|chunk| chunk.iter().rev())
    }

    /// The keys of the `index`th chunk.
    pub(super) fn chunk(&self, index: usize) -> Option<&[HotKey]> {
        self.chunks.get(index).map(Vec::as_slice)
    }

    /// Drops keys before `upto`: a run holds them now. False: there are more, call it again.
    pub(super) fn release(&mut self, upto: u64) -> bool {
        let mut released = 0;
        while self.chunks.front().is_some_and(|chunk| chunk.last().is_none_or(|key| key.position < upto)) {
            if released == RELEASED {
                return false;
            }
            self.chunks.pop_front();
            released += 1;
        }
        if let Some(chunk) = self.chunks.front_mut() {
            let done = chunk.partition_point(|key| key.position < upto);
            chunk.drain(..done);
        }
        true
    }
}
