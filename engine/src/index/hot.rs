//! The entries that are not in a run yet. Pure memory.
//!
//! With many queues each has a few of them: these are links of a chain, which lie one behind the other in the order of
//! the log, whatever their queues. A queue with more has chunks of its own, in which an offset is found at once.

use std::collections::VecDeque;

use ringmq_env::prefetch;
use smallvec::SmallVec;

use super::table::IndexEntry;

/// Links of a chain; a queue with more entries has chunks.
const CHAIN: usize = 4;
/// Links that are allocated at a time.
const PART: u32 = 1024;
/// Entries that a chunk may hold: the first takes those of the chain and as many more, the next ones double up to this.
const CHUNK_MAX: usize = 512;
/// Chunks that are freed at a time.
const RELEASED: usize = 16;

/// Where the entries of a queue are. Packed: with it a queue just fits in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
pub(super) struct Held {
    /// Number of the newest link, or of the list.
    at: u32,
    /// Links of the chain; [`Held::LISTED`]: it is a list.
    links: u16,
}

impl Held {
    /// There are none.
    pub(super) const NONE: Held = Held { at: 0, links: 0 };
    const LISTED: u16 = u16::MAX;

    pub(super) fn is_empty(self) -> bool {
        self.links == 0
    }
}

struct Link {
    entry: IndexEntry,
    offset: i64,
    /// The one before, if there is one.
    before: u32,
}

/// Links by number. They go in about the order in which they came, and then their memory does.
#[derive(Default)]
struct Links {
    parts: VecDeque<Part>,
    /// Number of the first part; of all parts ever, so that it wraps.
    first: u32,
}

struct Part {
    links: Vec<Link>,
    /// Links that are in use.
    used: u32,
}

impl Links {
    /// Part numbers wrap here.
    const PARTS: u32 = u32::MAX / PART;

    fn part_of(&self, at: u32) -> usize {
        ((at / PART + Links::PARTS - self.first) % Links::PARTS) as usize
    }

    fn get(&self, at: u32) -> &Link {
        &self.parts[self.part_of(at)].links[(at % PART) as usize]
    }

    fn push(&mut self, link: Link) -> u32 {
        if self.parts.back().is_none_or(|part| part.links.len() == PART as usize) {
            self.parts.push_back(Part { links: Vec::with_capacity(PART as usize), used: 0 });
        }
        let number = (self.first + self.parts.len() as u32 - 1) % Links::PARTS;
        let part = self.parts.back_mut().expect("a part with room was made above");
        part.used += 1;
        part.links.push(link);
        number * PART + part.links.len() as u32 - 1
    }

    fn free(&mut self, at: u32) {
        let index = self.part_of(at);
        let part = &mut self.parts[index];
        part.used -= 1;
        if part.used == 0 && part.links.len() == PART as usize {
            part.links = Vec::new();
        }
        while self.parts.front().is_some_and(|part| part.links.capacity() == 0) {
            self.parts.pop_front();
            self.first = (self.first + 1) % Links::PARTS;
        }
    }
}

/// Contiguous entries of one queue, allocated once and never copied.
struct Chunk {
    first: i64,
    entries: Vec<IndexEntry>,
}

impl Chunk {
    fn end(&self) -> i64 {
        self.first + self.entries.len() as i64
    }

    fn is_full(&self) -> bool {
        self.entries.len() == self.entries.capacity()
    }

    fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>()
    }
}

/// Bytes that a list of chunks takes, whatever of it is used.
fn list_memory(chunks: &Vec<Chunk>) -> usize {
    chunks.capacity() * size_of::<Chunk>()
}

/// The entries of all queues. Within a queue, positions and offsets ascend; offsets may be missing.
#[derive(Default)]
pub(super) struct HotEntries {
    links: Links,
    lists: Vec<Vec<Chunk>>,
    free_lists: Vec<u32>,
    memory: usize,
}

impl HotEntries {
    /// Bytes of the entries, which go with them.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes of everything: what is free for other entries, too.
    pub(super) fn allocated(&self) -> usize {
        let links = self.links.parts.iter().map(|part| part.links.capacity() - part.used as usize);
        let parts =
            self.links.parts.capacity() * size_of::<Part>() + links.sum::<usize>() * size_of::<Link>();
        let lists = self.lists.capacity() * size_of::<Vec<Chunk>>();
        self.memory + parts + lists + self.free_lists.capacity() * size_of::<u32>()
    }

    /// The links of a chain, oldest first.
    fn chain(&self, held: Held) -> SmallVec<[u32; CHAIN]> {
        let mut chain = SmallVec::from_elem(held.at, usize::from(held.links));
        for index in (1..chain.len()).rev() {
            chain[index - 1] = self.links.get(chain[index]).before;
        }
        chain
    }

    /// Has the newest entry of a chain fetched into the core's cache.
    pub(super) fn prefetch(&self, held: Held) {
        if !held.is_empty() && held.links != Held::LISTED {
            let link = self.links.get(held.at);
            // It may lie in two lines of the cache.
            prefetch(link);
            prefetch(&link.before);
        }
    }

    /// The first entry and its offset.
    pub(super) fn first(&self, held: Held) -> Option<(i64, &IndexEntry)> {
        if held.links == Held::LISTED {
            let chunk = self.lists[held.at as usize].first()?;
            return Some((chunk.first, chunk.entries.first()?));
        }
        let oldest = (1..held.links).fold(held.at, |at, _| self.links.get(at).before);
        let link = (held.links > 0).then(|| self.links.get(oldest))?;
        Some((link.offset, &link.entry))
    }

    /// Appends to `out` up to `max` entries without a gap, the first at or after `from`, and returns the offset of the
    /// first; `None` when there is none.
    pub(super) fn range(&self, held: Held, from: i64, max: usize, out: &mut Vec<IndexEntry>) -> Option<i64> {
        if held.links == Held::LISTED {
            return range_in_chunks(&self.lists[held.at as usize], from, max, out);
        }
        let chain = self.chain(held);
        let mut links = chain.iter().map(|at| self.links.get(*at)).skip_while(|link| link.offset < from);
        let first = links.next()?;
        let all = std::iter::once(first).chain(links);
        let contiguous = all.zip(first.offset..).take_while(|(link, offset)| link.offset == *offset);
        out.extend(contiguous.take(max).map(|(link, _)| link.entry));
        Some(first.offset)
    }

    /// Adds the queue's next entry.
    pub(super) fn push(&mut self, held: &mut Held, offset: i64, entry: IndexEntry) {
        if held.links == Held::LISTED {
            return self.push_to_list(held.at, offset, entry);
        }
        if usize::from(held.links) == CHAIN {
            self.make_list(held);
            return self.push_to_list(held.at, offset, entry);
        }
        held.at = self.links.push(Link { entry, offset, before: held.at });
        held.links += 1;
        self.memory += size_of::<Link>();
    }

    /// The queue has chunks from now on.
    fn make_list(&mut self, held: &mut Held) {
        let list = self.free_lists.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            self.lists.len() as u32 - 1
        });
        for at in self.chain(*held) {
            let Link { entry, offset, .. } = *self.links.get(at);
            self.push_to_list(list, offset, entry);
            self.free_link(at);
        }
        *held = Held { at: list, links: Held::LISTED };
    }

    fn free_link(&mut self, at: u32) {
        self.links.free(at);
        self.memory -= size_of::<Link>();
    }

    fn push_to_list(&mut self, list: u32, offset: i64, entry: IndexEntry) {
        let chunks = &mut self.lists[list as usize];
        if chunks.last().is_none_or(|chunk| chunk.is_full() || chunk.end() != offset) {
            let doubled = chunks.last().map_or(CHAIN, |chunk| chunk.entries.capacity()) * 2;
            let chunk = Chunk { first: offset, entries: Vec::with_capacity(doubled.min(CHUNK_MAX)) };
            let before = list_memory(chunks);
            self.memory += chunk.memory();
            chunks.push(chunk);
            self.memory += list_memory(chunks) - before;
        }
        let chunk = chunks.last_mut().expect("a chunk with room was made above");
        chunk.entries.push(entry);
    }

    /// Drops the entries that lie before the log position `upto`. False: there are more, call it again.
    pub(super) fn cut(&mut self, held: &mut Held, upto: u64) -> bool {
        if held.links != Held::LISTED {
            self.cut_chain(held, upto);
            return true;
        }
        let chunks = &mut self.lists[held.at as usize];
        let whole = chunks.partition_point(|c| c.entries.last().is_none_or(|e| e.position.0 < upto));
        self.memory -= chunks.drain(..whole.min(RELEASED)).map(|chunk| chunk.memory()).sum::<usize>();
        if whole > RELEASED {
            return false;
        }
        match chunks.first_mut() {
            Some(chunk) => {
                let part = chunk.entries.partition_point(|entry| entry.position.0 < upto);
                chunk.entries.drain(..part);
                chunk.first += part as i64;
            }
            None => self.clear(held),
        }
        true
    }

    fn cut_chain(&mut self, held: &mut Held, upto: u64) {
        for at in self.chain(*held) {
            if self.links.get(at).entry.position.0 >= upto {
                return;
            }
            self.free_link(at);
            held.links -= 1;
        }
    }

    /// Drops all entries.
    pub(super) fn clear(&mut self, held: &mut Held) {
        if held.links == Held::LISTED {
            let chunks = std::mem::take(&mut self.lists[held.at as usize]);
            self.memory -= list_memory(&chunks) + chunks.iter().map(Chunk::memory).sum::<usize>();
            self.free_lists.push(held.at);
        } else {
            self.chain(*held).into_iter().for_each(|at| self.free_link(at));
        }
        *held = Held::NONE;
    }
}

fn range_in_chunks(chunks: &[Chunk], from: i64, max: usize, out: &mut Vec<IndexEntry>) -> Option<i64> {
    let at = chunks.partition_point(|chunk| chunk.end() <= from);
    let first = from.max(chunks.get(at)?.first);
    let (mut next, mut left) = (first, max);
    for chunk in &chunks[at..] {
        if left == 0 || chunk.first > next {
            break;
        }
        let part = &chunk.entries[(next - chunk.first) as usize..];
        let part = &part[..part.len().min(left)];
        out.extend_from_slice(part);
        next += part.len() as i64;
        left -= part.len();
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::LogPosition;

    fn entry(position: u64) -> IndexEntry {
        IndexEntry {
            position: LogPosition(position),
            size: position as u32,
            crc: 0,
            tags_code: 0,
            store_ms: 0,
        }
    }

    /// A queue, and how many entries it gets; or before which part of them, in 1/8, all are dropped; or all of one queue.
    #[derive(Clone, Debug)]
    enum Step {
        Push(usize, usize),
        Skip(usize),
        Cut(u64),
        Clear(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..5usize, prop_oneof![6 => 1..3usize, 1 => 1..2000usize]).prop_map(|(q, n)| Step::Push(q, n)),
            1 => (0..5usize).prop_map(Step::Skip),
            2 => (0..=8u64).prop_map(Step::Cut),
            1 => (0..5usize).prop_map(Step::Clear),
        ]
    }

    #[derive(Default)]
    struct Model {
        /// Offsets and positions of each queue, and its next offset.
        queues: [(Vec<(i64, u64)>, i64); 5],
        position: u64,
    }

    fn check(hot: &HotEntries, held: Held, model: &[(i64, u64)]) {
        let first = hot.first(held).map(|(offset, entry)| (offset, entry.position.0));
        assert_eq!(first, model.first().copied());
        let starts = model.iter().map(|(offset, _)| *offset);
        for from in starts.clone().take(7).chain(starts.rev().take(7)).flat_map(|at| [at - 1, at, at + 1]) {
            for max in [1, 3, 5000] {
                let mut found = Vec::new();
                let first = hot.range(held, from, max, &mut found);
                let rest = &model[model.partition_point(|(offset, _)| *offset < from)..];
                assert_eq!(first, rest.first().map(|(offset, _)| *offset));
                let wanted = rest.iter().zip(first.unwrap_or(0)..);
                let wanted = wanted.take_while(|((offset, _), next)| offset == next).take(max);
                assert!(found.iter().map(|entry| entry.position.0).eq(wanted.map(|((_, at), _)| *at)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn chains_and_lists_hold_what_a_model_holds(steps in prop::collection::vec(step(), 1..60)) {
            let (mut hot, mut held, mut model) = (HotEntries::default(), [Held::NONE; 5], Model::default());
            for step in steps {
                match step {
                    Step::Push(queue, count) => for _ in 0..count {
                        let (entries, next) = &mut model.queues[queue];
                        model.position += 1;
                        hot.push(&mut held[queue], *next, entry(model.position));
                        entries.push((*next, model.position));
                        *next += 1;
                    },
                    Step::Skip(queue) => model.queues[queue].1 += 3,
                    Step::Cut(eighth) => {
                        let upto = model.position * eighth / 8;
                        for (held, (entries, _)) in held.iter_mut().zip(&mut model.queues) {
                            while !hot.cut(held, upto) {}
                            entries.retain(|(_, position)| *position >= upto);
                        }
                    }
                    Step::Clear(queue) => {
                        hot.clear(&mut held[queue]);
                        model.queues[queue].0.clear();
                    }
                }
                for (held, (entries, _)) in held.iter().zip(&model.queues) {
                    check(&hot, *held, entries);
                }
            }
            let lists = hot.lists.iter().flatten().map(Chunk::memory).sum::<usize>()
                + hot.lists.iter().map(list_memory).sum::<usize>();
            let used: usize = hot.links.parts.iter().map(|part| part.used as usize).sum();
            prop_assert_eq!(hot.memory(), lists + used * size_of::<Link>());
            let parts: usize = hot.links.parts.iter().map(|part| part.links.capacity()).sum();
            prop_assert!(hot.allocated() >= lists + parts * size_of::<Link>());
            held.iter_mut().for_each(|held| hot.clear(held));
            prop_assert_eq!(hot.memory(), 0);
            prop_assert!(hot.links.parts.len() <= 1, "what is not used goes");
        }
    }

    #[test]
    fn numbers_of_parts_wrap() {
        let mut hot = HotEntries::default();
        hot.links.first = Links::PARTS - 1;
        let mut held = [Held::NONE; 3000];
        for (number, held) in held.iter_mut().enumerate() {
            hot.push(held, 0, entry(number as u64));
        }
        assert!(held.iter().zip(0..).all(|(held, number)| hot.first(*held).unwrap().1.position.0 == number));
        held.iter_mut().for_each(|held| assert!(hot.cut(held, 3000)));
        assert_eq!((hot.memory(), hot.links.first), (0, 1));
    }
}
