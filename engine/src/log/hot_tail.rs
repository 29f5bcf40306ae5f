//! The hot tail: the very blocks that the log was written from, kept for readers while memory allows.

use std::collections::VecDeque;

use ringmq_env::{AppendBuf, IoSlice};

use super::stretch::Stretch;

/// Memory of dropped blocks that is kept for new ones.
const MAX_SPARES: usize = 4;

/// Blocks that are got ahead.
const AHEAD: usize = 2;

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
        let fits = |spare: &AppendBuf| (capacity..2 * capacity).contains(&spare.capacity());
        let spares = self.spares.iter().enumerate().filter(|(_, spare)| fits(spare));
        let best = spares.max_by_key(|(_, spare)| spare.is_huge()).map(|(at, _)| at);
        best.map_or_else(|| AppendBuf::with_capacity(capacity), |at| self.spares.swap_remove(at))
    }

    /// Whether blocks of `capacity` bytes should be got ahead, of huge pages: the tail, with `current` bytes of the block being
    /// filled, may grow by them, or the next block that it drops is of ordinary ones.
    pub(crate) fn wants_huge_memory(&self, current: usize, capacity: usize) -> bool {
        let grows = self.memory() + current + capacity <= self.limit;
        let frees_huge = self.blocks.front().is_some_and(|oldest| oldest.bytes.is_huge());
        let ready = self.spares.iter().filter(|spare| spare.is_huge()).count();
        ready < AHEAD && (grows || !frees_huge)
    }

    /// Takes an empty block for later, in place of ordinary ones.
    pub(crate) fn add_memory(&mut self, block: AppendBuf) {
        self.spares.retain(AppendBuf::is_huge);
        self.spares.push(block);
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
    fn huge_blocks_are_got_ahead_until_the_tail_is_full_of_them() {
        const BLOCK: usize = 1 << 20;
        let mut tail = HotTail::new(4 * BLOCK);
        let push = |tail: &mut HotTail, n: u64, mut block: AppendBuf| {
            block.extend(&[7; 100]);
            block.publish();
            tail.push(100 * n, block.slice(0, 100));
            drop(block);
            tail.evict(BLOCK, u64::MAX);
        };
        for n in 0..4 {
            push(&mut tail, n, AppendBuf::with_capacity(BLOCK));
        }
        let mut got = 0;
        for n in 4..20 {
            while tail.wants_huge_memory(BLOCK, BLOCK) {
                tail.add_memory(AppendBuf::recycle(IoSlice::zeroes(BLOCK)).unwrap());
                got += 1;
            }
            let block = tail.new_block(BLOCK);
            push(&mut tail, n, block);
        }
        assert!(tail.blocks.iter().all(|block| block.bytes.is_huge()), "those of before are gone");
        assert!(got <= 4 + AHEAD, "{got}: what was got is used again");
        assert!(tail.memory() <= (4 + MAX_SPARES) * BLOCK);
    }

    #[test]
    fn a_larger_spare_serves_and_one_of_twice_the_size_does_not() {
        let mut tail = tail();
        tail.add_memory(AppendBuf::with_capacity(2 * 4096));
        assert_eq!(tail.new_block(4096).capacity(), 4096);
        assert_eq!(tail.new_block(4097).capacity(), 2 * 4096);
        assert_eq!(tail.memory(), 3 * 4096);
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
