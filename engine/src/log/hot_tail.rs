//! The hot tail: the very blocks that the log was written from, kept for readers while memory allows.

use std::collections::VecDeque;

use ringmq_env::{AppendBuf, HUGE_PAGE, IoSlice};

use super::staging::BLOCK_LEN;
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
    /// Blocks whose memory is not of huge pages.
    ordinary: usize,
    limit: usize,
    /// What is in the log, as last told.
    written: u64,
}

impl HotTail {
    /// Keeps up to `limit` bytes of memory.
    pub(crate) fn new(limit: usize) -> HotTail {
        HotTail { blocks: VecDeque::new(), spares: Vec::new(), memory: 0, ordinary: 0, limit, written: 0 }
    }

    /// Takes a finished block; `bytes` starts at log position `start`.
    pub(crate) fn push(&mut self, start: u64, bytes: IoSlice) {
        assert!(self.blocks.back().is_none_or(|last| last.start <= start), "blocks come in log order");
        self.memory += bytes.memory_len();
        self.ordinary += usize::from(!bytes.is_huge());
        self.blocks.push_back(Stretch { start, bytes });
    }

    /// Drops the oldest blocks while they and `current` bytes of the block being filled are over the limit.
    /// What is not in the log yet, which is all from `written` on, stays.
    pub(crate) fn evict(&mut self, current: usize, written: u64) {
        self.written = written;
        while self.memory + current > self.limit {
            let Some(bytes) = self.drop_oldest() else { return };
            // What is larger than most blocks would be kept for nothing.
            if let Some(spare) = AppendBuf::recycle(bytes).filter(|spare| spare.capacity() <= BLOCK_LEN) {
                self.add_memory(spare);
            }
        }
    }

    /// Drops the oldest block, if it is in the log.
    fn drop_oldest(&mut self) -> Option<IoSlice> {
        let oldest = self.blocks.pop_front_if(|oldest| oldest.end() <= self.written)?;
        self.forget(&oldest.bytes);
        Some(oldest.bytes)
    }

    fn forget(&mut self, bytes: &IoSlice) {
        self.memory -= bytes.memory_len();
        self.ordinary -= usize::from(!bytes.is_huge());
    }

    /// An empty block of at least `capacity` bytes, on the memory of a dropped one if possible: without a spare one, the
    /// oldest goes for it once the limit is reached.
    pub(crate) fn new_block(&mut self, capacity: usize) -> AppendBuf {
        let is_large = capacity > BLOCK_LEN;
        let capacity = if is_large { large_block(capacity) } else { capacity };
        let fits = |spare: &AppendBuf| (capacity..2 * capacity).contains(&spare.capacity());
        let spares = self.spares.iter().enumerate().filter(|(_, spare)| fits(spare));
        if let Some((best, _)) = spares.max_by_key(|(_, spare)| spare.is_huge()) {
            return self.spares.swap_remove(best);
        }
        let is_full = self.memory + capacity > self.limit;
        let dropped = is_full.then(|| self.drop_oldest()).flatten().and_then(AppendBuf::recycle);
        dropped.filter(fits).unwrap_or_else(|| match is_large {
            true => AppendBuf::huge(capacity),
            false => AppendBuf::with_capacity(capacity),
        })
    }

    /// Whether a block of `capacity` bytes should be got ahead, of huge pages: the tail, with `current` bytes of the block being
    /// filled, may grow by it, or has an ordinary one to give for it.
    pub(crate) fn wants_huge_memory(&self, current: usize, capacity: usize) -> bool {
        let grows = self.memory() + current + capacity <= self.limit;
        let ready = self.spares.iter().filter(|spare| spare.is_huge()).count();
        ready < self.spares.len() || ready < AHEAD && (grows || self.ordinary > 0)
    }

    /// Takes an empty block for later, if there are not enough: one of huge pages in place of an ordinary one.
    pub(crate) fn add_memory(&mut self, block: AppendBuf) {
        let ordinary = self.spares.iter().position(|spare| block.is_huge() && !spare.is_huge());
        match ordinary {
            Some(at) => self.spares[at] = block,
            None if self.spares.len() < MAX_SPARES => self.spares.push(block),
            None => {}
        }
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
            self.forget(&block.bytes);
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

/// Bytes of a block for at least `needed`, in whole huge pages: what lies there is a write of its own, and a long one. Of
/// such messages, another fits if more than a third would be left.
fn large_block(needed: usize) -> usize {
    let huge = needed.next_multiple_of(HUGE_PAGE);
    if 3 * needed < 2 * huge { huge + HUGE_PAGE } else { huge }
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

    /// Fills `count` blocks and commits them; how many were of huge pages, and how many of these had to be got.
    fn fill(tail: &mut HotTail, count: u64, gets: bool) -> (usize, usize) {
        let (mut huge, mut got) = (0, 0);
        let start = tail.blocks.back().map_or(0, Stretch::end);
        for n in 0..count {
            let mut block = tail.new_block(BLOCK_LEN);
            huge += usize::from(block.is_huge());
            block.extend(&[7; 100]);
            block.publish();
            tail.push(start + 100 * n, block.slice(0, 100));
        }
        tail.evict(BLOCK_LEN, start + 100 * count);
        while gets && tail.wants_huge_memory(BLOCK_LEN, BLOCK_LEN) {
            tail.add_memory(AppendBuf::huge(BLOCK_LEN));
            got += 1;
        }
        (huge, got)
    }

    #[test]
    fn the_blocks_of_a_fast_log_become_huge_ones_and_these_are_used_again() {
        const BLOCKS: usize = 40;
        for count in [1, 2, 3, 4, 7, 10, 20] {
            let mut tail = HotTail::new(BLOCKS * BLOCK_LEN);
            (0..100).for_each(|_| assert_eq!(fill(&mut tail, count, false), (0, 0)));
            let got: usize = (0..300).map(|_| fill(&mut tail, count, true).1).sum();
            assert!(got <= BLOCKS + AHEAD + MAX_SPARES, "{got} with {count} for a commit");
            assert_eq!(fill(&mut tail, count, true), (count as usize, 0), "{count} for a commit");
            assert!(tail.memory() <= (BLOCKS + MAX_SPARES) * BLOCK_LEN);
            assert_eq!(fill(&mut tail, count, false), (count as usize, 0), "they stay when it is slow again");
        }
    }

    #[test]
    fn large_blocks_are_huge_and_leave_nothing_behind() {
        for (needed, len) in [
            (BLOCK_LEN + 1, 2 * HUGE_PAGE),
            (3 * BLOCK_LEN / 2, HUGE_PAGE),
            (HUGE_PAGE, HUGE_PAGE),
            (HUGE_PAGE + 1, 3 * HUGE_PAGE),
            (2 * HUGE_PAGE + 1, 3 * HUGE_PAGE),
        ] {
            assert_eq!(large_block(needed), len, "{needed}");
        }
        const BLOCKS: usize = 40;
        let mut tail = HotTail::new(BLOCKS * BLOCK_LEN);
        (0..100).for_each(|_| assert_eq!(fill(&mut tail, 1, false), (0, 0)));
        for _ in 0..20 {
            let start = tail.blocks.back().map_or(0, Stretch::end);
            let mut block = tail.new_block(BLOCK_LEN + 1);
            assert!(block.is_huge() && block.capacity() == 2 * HUGE_PAGE);
            block.extend(b"1");
            block.publish();
            tail.push(start, block.slice(0, 1));
            drop(block);
            tail.evict(BLOCK_LEN, start + 1);
            assert!(tail.memory() <= (BLOCKS + MAX_SPARES) * BLOCK_LEN);
        }
        (0..100).for_each(|_| assert_eq!(fill(&mut tail, 1, false).1, 0));
        let got: usize = (0..300).map(|_| fill(&mut tail, 3, true).1).sum();
        assert!(got <= BLOCKS + AHEAD + MAX_SPARES, "{got}");
        assert_eq!(fill(&mut tail, 3, true), (3, 0));
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
