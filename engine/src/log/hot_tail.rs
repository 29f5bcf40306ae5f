//! The hot tail: the very blocks that the log was written from, kept for readers while memory allows.

use std::collections::VecDeque;

use ringmq_env::{AppendBuf, IoSlice};

use super::stretch::Stretch;

/// Memory of dropped blocks that is kept for new ones.
const MAX_SPARES: usize = 4;

/// Finished blocks, oldest first. Every record lies within one block. The block that is being filled is not among
/// them, but it counts against the limit.
pub(crate) struct HotTail {
    blocks: VecDeque<Stretch>,
    spares: Vec<AppendBuf>,
    memory: usize,
    limit: usize,
}

impl HotTail {
    /// Keeps up to `limit` bytes of memory.
    pub(crate) fn new(limit: usize) -> HotTail {
        HotTail { blocks: VecDeque::new(), spares: Vec::new(), memory: 0, limit }
    }

    /// Takes a finished block; `bytes` starts at log position `start`.
    pub(crate) fn push(&mut self, start: u64, bytes: IoSlice) {
        assert!(self.blocks.back().is_none_or(|last| last.start <= start), "blocks come in log order");
        self.memory += bytes.memory_len();
        self.blocks.push_back(Stretch { start, bytes });
    }

    /// Drops the oldest blocks while they and `current` bytes of the block being filled are over the limit.
    /// What is not in the log yet, which is all from `written` on, stays.
    pub(crate) fn evict(&mut self, current: usize, written: u64) {
        while self.memory + current > self.limit && self.blocks.front().is_some_and(|b| b.end() <= written) {
            if let Some(block) = self.blocks.pop_front() {
                self.memory -= block.bytes.memory_len();
                let free = self.spares.len() < MAX_SPARES;
                self.spares.extend(free.then(|| AppendBuf::recycle(block.bytes)).flatten());
            }
        }
    }

    /// An empty block of at least `capacity` bytes, on the memory of a dropped one if possible.
    pub(crate) fn new_block(&mut self, capacity: usize) -> AppendBuf {
        let spare = self.spares.iter().position(|spare| spare.capacity() == capacity);
        spare.map_or_else(|| AppendBuf::with_capacity(capacity), |spare| self.spares.swap_remove(spare))
    }

    /// Forgets everything from `position` on.
    pub(crate) fn truncate(&mut self, position: u64) {
        while let Some(mut block) = self.blocks.pop_back() {
            if block.end() <= position {
                self.blocks.push_back(block);
                return;
            }
            if block.start < position {
                block.bytes = block.bytes.slice(0, (position - block.start) as usize);
                self.blocks.push_back(block);
                return;
            }
            self.memory -= block.bytes.memory_len();
        }
    }

    /// The last block that begins at `position` or before.
    pub(crate) fn stretch_at(&self, position: u64) -> Option<Stretch> {
        let after = self.blocks.partition_point(|block| block.start <= position);
        self.blocks.get(after.checked_sub(1)?).cloned()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory + self.spares.iter().map(AppendBuf::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPosition;

    fn tail() -> HotTail {
        let mut tail = HotTail::new(2 * 4096);
        for n in 0..3u8 {
            tail.push(1000 + 100 * u64::from(n), IoSlice::copy_of(&[n; 100]));
        }
        tail
    }

    fn get(tail: &HotTail, position: u64, len: usize) -> Option<IoSlice> {
        tail.stretch_at(position)?.get(LogPosition(position), len)
    }

    #[test]
    fn reads_stay_within_one_block() {
        let tail = tail();
        assert_eq!(get(&tail, 1100, 100).unwrap()[..], [1; 100]);
        assert!(
            get(&tail, 1150, 51).is_none() && get(&tail, 999, 1).is_none() && get(&tail, 1300, 1).is_none()
        );
    }

    #[test]
    fn the_oldest_block_goes_once_it_is_written_and_its_memory_is_used_again() {
        let mut tail = tail();
        tail.evict(0, 1099);
        assert_eq!((tail.blocks.len(), tail.memory()), (3, 3 * 4096));
        tail.evict(0, 1100);
        assert!(get(&tail, 1000, 1).is_none() && get(&tail, 1100, 1).is_some());
        assert_eq!((tail.blocks.len(), tail.memory()), (2, 3 * 4096));
        assert!(tail.new_block(4096).is_empty());
        assert_eq!(tail.memory(), 2 * 4096);
    }

    #[test]
    fn truncation_cuts_within_a_block() {
        let mut tail = tail();
        tail.truncate(1150);
        assert!(
            get(&tail, 1149, 1).is_some() && get(&tail, 1150, 1).is_none() && get(&tail, 1200, 1).is_none()
        );
        assert_eq!(tail.memory(), 2 * 4096);
    }
}
