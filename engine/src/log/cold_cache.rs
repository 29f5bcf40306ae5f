//! What was read from segment files lately, and what sequential readers will want next: large blocks that all readers
//! of a stretch of the log share, whichever queue they read.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use ringmq_env::{HUGE_BLOCK, IoSlice};
use smallvec::SmallVec;

use super::stretch::Stretch;
use crate::signal::Signal;

/// Bytes that are read where nobody has read before: the reader may want one record only.
const FIRST_READ: u64 = 128 << 10;

/// Most bytes of one read ahead.
const MAX_WINDOW: u64 = HUGE_BLOCK as u64;

/// Reads that are kept ahead of a sequential reader.
const READS_AHEAD: usize = 3;

/// Most bytes of one read ahead while the log is being written, and how many of them: a group commit waits for what the
/// device reads at the time.
const GENTLE_WINDOW: u64 = 256 << 10;
const GENTLE_READS_AHEAD: usize = 2;

/// Reads for which the log counts as being written after a group commit: about the time between the commits of a slow
/// producer.
const GENTLE_READS: u64 = 64;

/// Readers of which it is known where they are. Those that go on together count as one.
const MAX_READERS: usize = 16;

/// Looks by anybody, and reads, after which a reader that has not looked counts as gone.
const READER_LOOKS: u64 = 64;

/// Bytes by which the window grows for each block that was of use.
const WINDOW_STEP: u64 = 64 << 10;

/// A stretch of the log in memory, or on its way there.
struct Block {
    end: u64,
    /// `None` while it is being read.
    data: Option<IoSlice>,
    /// Read because the one before was: whoever gets here reads on.
    sequential: bool,
    touched: bool,
    /// When it was used last, in looks at the cache.
    used: u64,
}

/// Where a reader has looked last, and as the how manieth look of all.
#[derive(Clone, Copy)]
struct Reader {
    position: u64,
    looked: u64,
}

/// What the cache has at a position.
pub(super) enum Look {
    /// Here it is.
    Ready(Stretch),
    /// Somebody reads it already.
    Loading,
    /// It has to be read: the largest stretch around the position that no block covers.
    Missing,
}

/// Blocks by the position of their first byte; they do not overlap. What is being read counts like what is there, so
/// that the budget holds; only the readers' own slices may outlive it.
pub(crate) struct ColdCache {
    blocks: RefCell<BTreeMap<u64, Block>>,
    memory: Cell<u64>,
    budget: u64,
    /// Bytes of one read ahead: fewer once blocks had to go before anybody used them, because too many readers are
    /// at too many places.
    window: Cell<u64>,
    /// Counts looks, and what is to be read.
    looks: Cell<u64>,
    readers: RefCell<SmallVec<[Reader; MAX_READERS]>>,
    /// Group commits, as last told, and reads that are made gently yet.
    commits: Cell<u64>,
    gentle: Cell<u64>,
    /// Told when a block has come, or has failed to.
    changed: Signal,
}

impl ColdCache {
    /// Holds up to `budget` bytes.
    pub(crate) fn new(budget: usize) -> ColdCache {
        ColdCache {
            blocks: RefCell::default(),
            memory: Cell::new(0),
            budget: budget as u64,
            window: Cell::new(MAX_WINDOW.min(budget as u64 / 8).max(FIRST_READ)),
            looks: Cell::new(0),
            readers: RefCell::default(),
            commits: Cell::new(0),
            gentle: Cell::new(0),
            changed: Signal::default(),
        }
    }

    /// Bytes held, those on their way included.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.get()
    }

    /// What there is at `position`; and whether the reader is the first to get to a block that was read ahead.
    pub(super) fn look(&self, position: u64) -> (Look, bool) {
        let mut blocks = self.blocks.borrow_mut();
        let found = blocks.range_mut(..=position).next_back().filter(|(_, block)| position < block.end);
        let Some((start, block)) = found else { return (Look::Missing, false) };
        let Some(data) = &block.data else { return (Look::Loading, false) };
        self.looks.set(self.looks.get() + 1);
        self.move_reader(position);
        block.used = self.looks.get();
        let is_first = block.sequential && !std::mem::replace(&mut block.touched, true);
        (Look::Ready(Stretch { start: *start, bytes: data.clone() }), is_first)
    }

    /// Waits until nobody reads the block at `position`.
    pub(super) async fn loaded(&self, position: u64) {
        let is_loading = || {
            let blocks = self.blocks.borrow();
            let block = blocks.range(..=position).next_back();
            block.is_some_and(|(_, block)| position < block.end && block.data.is_none())
        };
        self.changed.until(|| !is_loading()).await;
    }

    /// How many group commits there have been: reads are small and few for a while after another one.
    pub(super) fn give_way_to(&self, commits: u64) {
        match self.commits.replace(commits) == commits {
            true => self.gentle.set(self.gentle.get().saturating_sub(1)),
            false => self.gentle.set(GENTLE_READS),
        }
    }

    fn is_gentle(&self) -> bool {
        self.gentle.get() > 0
    }

    fn window(&self) -> u64 {
        self.window.get().min(if self.is_gentle() { GENTLE_WINDOW } else { MAX_WINDOW })
    }

    /// The stretch to read for `position`, which is missing, within `limits`; it is marked as on its way. `None` when
    /// there is no room for it.
    pub(super) fn begin(&self, position: u64, limits: Range<u64>) -> Option<Range<u64>> {
        let before = self.blocks.borrow().range(..=position).next_back().map(|(_, block)| block.end);
        let aligned = position - (position - limits.start) % FIRST_READ;
        let start = aligned.max(before.unwrap_or(0)).max(limits.start);
        // Several readers of a stretch come to a block's end, each with a record of its own behind it.
        let sequential = before == Some(start);
        let len = if sequential { self.window() } else { FIRST_READ };
        self.mark(start, len, sequential, limits.end)
    }

    /// The stretches to read so that the reader who has come to the block at `position` finds the next ones there. `end` tells
    /// how far one may read at once from a position, if there is anything.
    pub(super) fn begin_ahead(&self, position: u64, end: impl Fn(u64) -> Option<u64>) -> Vec<Range<u64>> {
        let mut next = self.end_of(position).filter(|_| !self.has_left_others_behind(position));
        let mut begun = Vec::new();
        for _ in 0..if self.is_gentle() { GENTLE_READS_AHEAD } else { READS_AHEAD } {
            let Some((at, end)) = next.and_then(|at| Some((at, end(at)?))) else { break };
            next = self.end_of(at).or_else(|| {
                let stretch = self.mark(at, self.window(), true, end)?;
                begun.push(stretch.clone());
                Some(stretch.end)
            });
        }
        begun
    }

    /// Takes note of where a reader is: the nearest one behind that position, or a new one.
    fn move_reader(&self, position: u64) {
        let looked = self.looks.get();
        let mut readers = self.readers.borrow_mut();
        let is_behind =
            |reader: &&mut Reader| position.checked_sub(reader.position).is_some_and(|by| by < self.budget);
        if let Some(reader) = readers.iter_mut().filter(is_behind).max_by_key(|reader| reader.position) {
            *reader = Reader { position, looked };
            return;
        }
        readers.retain(|reader| looked - reader.looked < READER_LOOKS);
        if readers.len() < MAX_READERS {
            readers.push(Reader { position, looked });
        }
    }

    /// Whether another reader is so far behind `position` that blocks go before it has come to them, and not so far that it
    /// reads for itself. Readers of several queues have nothing else that holds them together: whoever is ahead waits for
    /// the device then, and those behind do not.
    fn has_left_others_behind(&self, position: u64) -> bool {
        // What a reader has just left is kept as well as what is ahead of it.
        let room = self.budget.saturating_sub((1 + READS_AHEAD as u64) * self.window()) / 2;
        let looks = self.looks.get();
        let is_left_behind = |reader: &Reader| {
            let distance = position.saturating_sub(reader.position);
            looks - reader.looked < READER_LOOKS && distance > room && distance < self.budget
        };
        self.readers.borrow().iter().any(is_left_behind)
    }

    /// Puts the bytes that were read from `start` on in their place; `None` takes the mark away again.
    pub(super) fn finish(&self, start: u64, data: Option<IoSlice>) {
        let mut blocks = self.blocks.borrow_mut();
        let Some(block) = blocks.get_mut(&start) else { return };
        let is_whole = data.as_ref().is_some_and(|data| start + data.len() as u64 == block.end);
        block.data = data.filter(|_| is_whole);
        if !is_whole {
            self.memory.set(self.memory.get() - (block.end - start));
            blocks.remove(&start);
        }
        drop(blocks);
        self.changed.notify();
    }

    /// Drops what is there of the stretch: it is not what was written.
    pub(super) fn forget(&self, stretch: Range<u64>) {
        let mut blocks = self.blocks.borrow_mut();
        let overlaps = |(start, block): (&u64, &Block)| {
            (block.end > stretch.start && block.data.is_some()).then_some(*start)
        };
        let bad: Vec<u64> = blocks.range(..stretch.end).filter_map(overlaps).collect();
        for start in bad {
            let Some(block) = blocks.remove(&start) else { continue };
            self.memory.set(self.memory.get() - (block.end - start));
        }
    }

    fn end_of(&self, position: u64) -> Option<u64> {
        let blocks = self.blocks.borrow();
        let block = blocks.range(..=position).next_back().map(|(_, block)| block.end);
        block.filter(|end| position < *end)
    }

    fn mark(&self, start: u64, len: u64, sequential: bool, end: u64) -> Option<Range<u64>> {
        let behind = self.blocks.borrow().range(start..).next().map_or(end, |(start, _)| *start);
        let end = (start + len).min(end).min(behind);
        if start >= end || !self.make_room(end - start) {
            return None;
        }
        self.memory.set(self.memory.get() + end - start);
        self.looks.set(self.looks.get() + 1);
        let block = Block { end, data: None, sequential, touched: false, used: self.looks.get() };
        self.blocks.borrow_mut().insert(start, block);
        Some(start..end)
    }

    /// Drops what was not used for the longest time.
    fn make_room(&self, len: u64) -> bool {
        let mut blocks = self.blocks.borrow_mut();
        while self.memory.get() + len > self.budget {
            let loaded = blocks.iter().filter(|(_, block)| block.data.is_some());
            let Some(start) = loaded.min_by_key(|(_, block)| block.used).map(|(start, _)| *start) else {
                return false;
            };
            let Some(block) = blocks.remove(&start) else { return false };
            self.memory.set(self.memory.get() - (block.end - start));
            let window = self.window.get();
            self.window.set(match block.touched || !block.sequential {
                true => (window + WINDOW_STEP).min(MAX_WINDOW).min((self.budget / 8).max(FIRST_READ)),
                false => (window / 2).max(FIRST_READ),
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range<u64> = 0..1 << 40;

    fn all(at: u64) -> Option<u64> {
        (at < ALL.end).then_some(ALL.end)
    }

    fn load(cache: &ColdCache, stretch: &Range<u64>) {
        cache.finish(stretch.start, Some(IoSlice::copy_of(&vec![7; (stretch.end - stretch.start) as usize])));
    }

    #[test]
    fn a_reader_who_reads_on_finds_the_next_blocks_there() {
        let cache = ColdCache::new(64 << 20);
        let first = cache.begin(FIRST_READ + 5, ALL).unwrap();
        assert_eq!(first, FIRST_READ..2 * FIRST_READ);
        assert!(matches!(cache.look(FIRST_READ), (Look::Loading, false)));
        load(&cache, &first);
        assert!(
            matches!(cache.look(FIRST_READ), (Look::Ready(Stretch { start: FIRST_READ, .. }), false)),
            "one record is no sequence"
        );
        let second = cache.begin(first.end, ALL).unwrap();
        assert_eq!(second, first.end..first.end + MAX_WINDOW);
        load(&cache, &second);
        assert!(cache.look(second.start).1);
        assert!(!cache.look(second.start).1, "once for each block");
        let ahead = cache.begin_ahead(second.start, all);
        assert_eq!(ahead.len(), READS_AHEAD);
        assert_eq!((ahead[0].start, ahead[1].start), (second.end, ahead[0].end));
        assert!(cache.begin_ahead(second.start, all).is_empty(), "they are on their way");
        assert_eq!(cache.memory(), FIRST_READ + (1 + READS_AHEAD as u64) * MAX_WINDOW);
    }

    #[test]
    fn reads_go_on_in_the_next_file_and_end_where_the_log_does() {
        let cache = ColdCache::new(64 << 20);
        let (file, written) = (FIRST_READ + MAX_WINDOW + 4096, FIRST_READ + 2 * MAX_WINDOW);
        let end = |at| [file, written].into_iter().find(|end| at < *end);
        load(&cache, &cache.begin(0, 0..file).unwrap());
        // Another queue's record, a little behind the end of what is there.
        let stretch = cache.begin(FIRST_READ + 500, 0..file).unwrap();
        assert_eq!(stretch, FIRST_READ..FIRST_READ + MAX_WINDOW);
        load(&cache, &stretch);
        assert_eq!(cache.begin_ahead(stretch.start, end), [stretch.end..file, file..written]);
    }

    /// Looks at `at`, having it read if it has to be; where its block ends, and how much was read ahead.
    fn read(cache: &ColdCache, at: u64) -> (u64, usize) {
        if matches!(cache.look(at), (Look::Missing, _)) {
            load(cache, &cache.begin(at, ALL).unwrap());
        }
        let (Look::Ready(block), _) = cache.look(at) else { panic!("{at} is there") };
        let ahead = cache.begin_ahead(at, all);
        ahead.iter().for_each(|stretch| load(cache, stretch));
        (block.end(), ahead.len())
    }

    #[test]
    fn a_lone_reader_always_has_blocks_ahead_however_far_apart_its_records_are() {
        for (budget, step) in [(2, 32 << 10), (2, 300 << 10), (16, 500 << 10), (64, 900 << 10)] {
            let cache = ColdCache::new(budget << 20);
            let mut missing = 0;
            for at in (0..1000).map(|record| record * step) {
                missing += usize::from(matches!(cache.look(at).0, Look::Missing));
                read(&cache, at);
            }
            assert!(missing < 10, "{missing} with {budget} MiB and steps of {step}");
        }
    }

    #[test]
    fn who_is_far_ahead_waits_for_those_behind() {
        let cache = ColdCache::new(16 << 20);
        let mut front = 0;
        while front < 7 << 20 {
            read(&cache, 0);
            front = read(&cache, front).0;
        }
        assert_eq!(read(&cache, front).1, 0, "somebody is at the beginning still");
        // It goes on to near the one ahead, who has room then.
        let mut behind = 0;
        while behind < 5 << 20 {
            behind = read(&cache, behind).0;
        }
        let front = read(&cache, front).0;
        assert!(read(&cache, front).1 > 0);
        // Or it stays, and is forgotten.
        let mut at = front;
        let held = (0..3 * READER_LOOKS).filter(|_| {
            let (end, ahead) = read(&cache, at);
            at = end;
            ahead == 0
        });
        assert!(held.count() < READER_LOOKS as usize);
        read(&cache, 0);
        assert!(read(&cache, at).1 > 0, "who is that far away reads for himself");
    }

    #[test]
    fn reads_are_small_and_few_while_the_log_is_written() {
        let cache = ColdCache::new(64 << 20);
        load(&cache, &cache.begin(0, ALL).unwrap());
        cache.give_way_to(7);
        let stretch = cache.begin(FIRST_READ, ALL).unwrap();
        assert_eq!(stretch.end - stretch.start, GENTLE_WINDOW);
        load(&cache, &stretch);
        assert_eq!(cache.begin_ahead(stretch.start, all).len(), GENTLE_READS_AHEAD);
        (0..GENTLE_READS).for_each(|_| cache.give_way_to(7));
        assert_eq!(cache.begin_ahead(stretch.start, all).len(), READS_AHEAD - GENTLE_READS_AHEAD);
    }

    #[test]
    fn the_budget_holds_and_the_window_shrinks_when_blocks_go_unused() {
        let cache = ColdCache::new(4 << 20);
        let window = cache.window.get();
        for reader in 0..100 {
            let at = reader << 30;
            for position in [at, at + FIRST_READ] {
                if let Some(stretch) = cache.begin(position, ALL) {
                    load(&cache, &stretch);
                }
                cache.look(position);
            }
            cache.begin_ahead(at + FIRST_READ, all).iter().for_each(|stretch| load(&cache, stretch));
            assert!(cache.memory() <= 4 << 20);
        }
        assert!(cache.window.get() < window);
    }

    #[test]
    fn what_cannot_be_read_is_forgotten_and_what_is_being_read_is_not_dropped() {
        let cache = ColdCache::new(FIRST_READ as usize);
        let stretch = cache.begin(0, ALL).unwrap();
        assert!(cache.begin(1 << 30, ALL).is_none(), "no room");
        cache.finish(stretch.start, None);
        assert_eq!(cache.memory(), 0);
        assert!(matches!(cache.look(0).0, Look::Missing));
        assert_eq!(
            cache.begin(1 << 30, (1 << 30) - 10..(1 << 30) + 4096),
            Some((1 << 30) - 10..(1 << 30) + 4096)
        );
    }
}
