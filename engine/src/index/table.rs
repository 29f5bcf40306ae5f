//! The queues of a shard and their entries that are not in a run yet. Pure memory.

use std::hint::black_box;
use std::rc::Rc;

use hashbrown::HashTable;
use ringmq_protocol::names::{self, is_lmq};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::types::{LogPosition, QueueId, QueueOffset, QueueRange};

/// What the index knows about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Where its record starts.
    pub position: LogPosition,
    /// Bytes of the record.
    pub size: u32,
    /// CRC32 of the whole record.
    pub crc: u32,
    /// Hash of its tag.
    pub tags_code: i64,
    /// When it was stored, in ms.
    pub store_ms: i64,
}

/// A resolved queue: spares the second lookup by name. Valid until its topic is deleted; a push to a slot whose
/// queue was deleted after the message was staged is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueSlot(pub(super) u32);

/// Entries that a chunk may hold; the first chunk of a queue is small, the next ones double up to this.
const CHUNK_MAX: usize = 512;
const CHUNK_MIN: usize = 1;
/// Chunks that are freed at a time.
const RELEASED: usize = 16;
/// Longest topic, in bytes.
const MAX_TOPIC: usize = names::LMQ_MAX_LENGTH;

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
        self.entries.capacity() * size_of::<IndexEntry>() + size_of::<Chunk>()
    }
}

/// One queue. `min <= next <= staged`.
pub(super) struct Queue {
    /// [`queue_hash`] of its name: with many queues the name itself is in no cache.
    hash: u64,
    topic: u32,
    id: QueueId,
    /// [`Table::stagings`] when `staged` was last right.
    staging: u32,
    /// Deleted; kept until nothing staged can name the slot any more.
    dead: bool,
    /// On the list [`Table::hot`], or on the one taken from it.
    hot: bool,
    /// First offset kept.
    pub(super) min: i64,
    /// One past the last committed offset; 0: never had a message.
    pub(super) next: i64,
    staged: i64,
    /// Entries of this name before this log position belong to a deleted queue.
    pub(super) since: u64,
    /// One past the position of the newest entry, in a run or here: what is before is known already.
    pub(super) seen: u64,
    /// Where it goes on, as last marked when all its messages on the device had expired; 0: never.
    pub(super) marked: i64,
    chunks: Vec<Chunk>,
}

impl Queue {
    /// Where the first message that is kept lies, if its entry is in memory.
    pub(super) fn first_position(&self) -> Option<LogPosition> {
        let chunk = self.chunks.first()?;
        let at = usize::try_from(self.min - chunk.first).ok()?;
        Some(chunk.entries.get(at)?.position)
    }
}

struct Topic {
    name: Rc<str>,
    /// Entries before this log position are deleted.
    deleted_at: u64,
    /// Its queues and their slots, by number.
    queues: Vec<(QueueId, u32)>,
}

impl Topic {
    /// Where the queue is in the list, or should be. Queues are numbered from 0 on, and mostly all of them are there.
    fn place_of(&self, queue: QueueId) -> Result<usize, usize> {
        let guess = queue.0 as usize;
        match self.queues.get(guess) {
            Some((there, _)) if *there == queue => Ok(guess),
            _ => self.queues.binary_search_by_key(&queue, |(there, _)| *there),
        }
    }
}

/// All queues of a shard.
#[derive(Default)]
pub(super) struct Table {
    topics: Vec<Topic>,
    free_topics: Vec<u32>,
    topic_lookup: HashTable<u32>,
    queues: Vec<Queue>,
    free_queues: Vec<u32>,
    /// Dead slots, and the log position from which on nothing can name them.
    dying: Vec<(u32, u64)>,
    /// Slots with chunks, and some that lost theirs.
    hot: Vec<u32>,
    /// Counts roll-backs, so that each is O(1).
    stagings: u32,
    /// Log position of the latest deletion.
    last_deletion: u64,
    chunk_memory: usize,
    name_memory: usize,
    /// Queues that are not dead.
    live: usize,
    /// Of these, the LMQs.
    lmqs: usize,
}

/// The stable hash of a queue's name, in memory and in runs.
pub(super) fn queue_hash(topic: &str, queue: QueueId) -> u64 {
    xxh3_64_with_seed(topic.as_bytes(), u64::from(queue.0))
}

impl Table {
    fn find_topic(&self, name: &str) -> Option<u32> {
        let same = |index: &u32| &*self.topics[*index as usize].name == name;
        self.topic_lookup.find(xxh3_64(name.as_bytes()), same).copied()
    }

    fn intern(&mut self, name: &str) -> u32 {
        if let Some(index) = self.find_topic(name) {
            return index;
        }
        let topic = Topic { name: Rc::from(name), deleted_at: 0, queues: Vec::new() };
        self.name_memory += name.len();
        let index = place(&mut self.topics, &mut self.free_topics, topic);
        let topics = &self.topics;
        self.topic_lookup.insert_unique(xxh3_64(name.as_bytes()), index, |other| {
            xxh3_64(topics[*other as usize].name.as_bytes())
        });
        index
    }

    /// The queue's slot, if the queue is known.
    pub(super) fn find(&self, topic: &str, queue: QueueId) -> Option<QueueSlot> {
        let topic = &self.topics[self.find_topic(topic)? as usize];
        let place = topic.place_of(queue).ok()?;
        Some(QueueSlot(topic.queues[place].1))
    }

    /// The queue's slot; the queue is made if it is not known.
    pub(super) fn slot(&mut self, topic: &str, queue: QueueId) -> QueueSlot {
        if let Some(slot) = self.find(topic, queue) {
            return slot;
        }
        assert!(topic.len() <= MAX_TOPIC, "a topic of {} bytes", topic.len());
        let owner = self.intern(topic);
        let since = self.topics[owner as usize].deleted_at;
        let staging = self.stagings;
        let fresh = Queue {
            hash: queue_hash(topic, queue),
            topic: owner,
            id: queue,
            staging,
            dead: false,
            hot: false,
            min: 0,
            next: 0,
            staged: 0,
            since,
            seen: since,
            marked: 0,
            chunks: Vec::new(),
        };
        let slot = place(&mut self.queues, &mut self.free_queues, fresh);
        self.lmqs += usize::from(is_lmq(topic));
        self.live += 1;
        let owner = &mut self.topics[owner as usize];
        let place = owner.place_of(queue).expect_err("the queue was not found above");
        if owner.queues.is_empty() {
            // An LMQ has no more.
            owner.queues.reserve_exact(1);
        }
        owner.queues.insert(place, (queue, slot));
        QueueSlot(slot)
    }

    pub(super) fn queue(&self, slot: QueueSlot) -> &Queue {
        &self.queues[slot.0 as usize]
    }

    pub(super) fn queue_mut(&mut self, slot: QueueSlot) -> &mut Queue {
        &mut self.queues[slot.0 as usize]
    }

    /// Topic and number of the slot's queue.
    pub(super) fn name(&self, slot: QueueSlot) -> (&Rc<str>, QueueId) {
        let queue = self.queue(slot);
        (&self.topics[queue.topic as usize].name, queue.id)
    }

    /// Slots ever used; those beyond do not exist.
    pub(super) fn slots(&self) -> u32 {
        self.queues.len() as u32
    }

    /// [`queue_hash`] of the slot's queue.
    pub(super) fn hash(&self, slot: QueueSlot) -> u64 {
        self.queue(slot).hash
    }

    /// Looks at what a flush needs of these queues. It may be anywhere in memory: side by side all of it comes sooner than
    /// one after the other.
    pub(super) fn look_ahead(&self, slots: impl Iterator<Item = u32>) {
        let looked_at = slots.map(|slot| {
            let queue = &self.queues[slot as usize];
            let entry = queue.chunks.first().and_then(|chunk| chunk.entries.first());
            let name = self.topics[queue.topic as usize].name.len();
            entry.map_or(0, |entry| entry.size as usize) ^ name
        });
        black_box(looked_at.fold(0, |all, one| all ^ one));
    }

    /// Queues with entries in memory.
    pub(super) fn hot(&self) -> usize {
        self.hot.len()
    }

    /// LMQs known.
    pub(super) fn lmqs(&self) -> usize {
        self.lmqs
    }

    /// Queues known.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Bytes of entries held.
    pub(super) fn chunk_memory(&self) -> usize {
        self.chunk_memory
    }

    /// Bytes of everything, entries included.
    pub(super) fn memory(&self) -> usize {
        let topics = self.topics.capacity() * size_of::<Topic>() + self.name_memory;
        let lookup = self.topic_lookup.capacity() * 6;
        let queues = self.queues.capacity() * size_of::<Queue>();
        let listed = self.live * size_of::<(QueueId, u32)>();
        topics + lookup + queues + listed + self.chunk_memory
    }

    /// The offset that [`Table::stage`] will assign next.
    pub(super) fn peek(&self, slot: QueueSlot) -> QueueOffset {
        let queue = self.queue(slot);
        QueueOffset(if queue.staging == self.stagings { queue.staged.max(queue.next) } else { queue.next })
    }

    /// Assigns the next `count` offsets of the queue; returns the first.
    pub(super) fn stage(&mut self, slot: QueueSlot, count: u32) -> QueueOffset {
        let stagings = self.stagings;
        let queue = self.queue_mut(slot);
        assert!(!queue.dead, "a slot is staged right after it was resolved");
        if queue.staging != stagings {
            queue.staging = stagings;
            queue.staged = queue.next;
        }
        let offset = queue.staged.max(queue.next);
        queue.staged = offset + i64::from(count);
        QueueOffset(offset)
    }

    /// Takes back every offset that was staged and not pushed; the log goes on at `end`.
    pub(super) fn unstage_all(&mut self, end: u64) {
        self.stagings = self.stagings.wrapping_add(1);
        if self.last_deletion <= end {
            return;
        }
        // Topics were deleted behind the log's end: there, what comes next is not theirs.
        self.last_deletion = end;
        self.topics.iter_mut().for_each(|topic| topic.deleted_at = topic.deleted_at.min(end));
        for queue in &mut self.queues {
            (queue.since, queue.seen) = (queue.since.min(end), queue.seen.min(end));
        }
        self.dying.iter_mut().for_each(|(_, at)| *at = end.min(*at));
    }

    /// Adds a committed record, in log order, that takes `count` offsets: an entry for each.
    pub(super) fn push(&mut self, slot: QueueSlot, offset: QueueOffset, count: u32, entry: IndexEntry) {
        let queue = &mut self.queues[slot.0 as usize];
        if queue.dead {
            return;
        }
        assert!(offset.0 == queue.next, "offset {} is pushed, {} comes next", offset.0, queue.next);
        assert!(entry.position.0 >= queue.seen, "entries come in log order");
        self.put_all(slot, offset.0, count, entry);
    }

    /// Adds a record that recovery found in the log, unless it is known or deleted. Offsets that are missing
    /// (damage) stay a hole. An offset that comes again at a later position is that of a queue made anew whose
    /// deletion did not get durable: it takes the place of the old one.
    pub(super) fn recover(
        &mut self,
        topic: &str,
        id: QueueId,
        offset: QueueOffset,
        count: u32,
        entry: IndexEntry,
    ) -> bool {
        if entry.position.0 < self.deleted_at(topic) || offset.0 < 0 || topic.len() > MAX_TOPIC {
            return false;
        }
        let slot = self.slot(topic, id);
        let queue = self.queue(slot);
        if entry.position.0 < queue.seen {
            return false;
        }
        if offset.0 < queue.next {
            tracing::warn!(
                topic,
                queue = id.0,
                offset = offset.0,
                next = queue.next,
                "queue begins anew in the log"
            );
            self.restart(slot, entry.position.0);
        }
        let queue = self.queue_mut(slot);
        if queue.min == queue.next {
            queue.min = offset.0;
        }
        self.put_all(slot, offset.0, count, entry);
        true
    }

    /// Forgets the queue's entries: what comes from `position` on is a new queue.
    pub(super) fn restart(&mut self, slot: QueueSlot, position: u64) {
        let queue = &mut self.queues[slot.0 as usize];
        self.chunk_memory -= queue.chunks.drain(..).map(|chunk| chunk.memory()).sum::<usize>();
        (queue.min, queue.next, queue.staged) = (0, 0, 0);
        queue.since = position;
    }

    fn put_all(&mut self, slot: QueueSlot, offset: i64, count: u32, entry: IndexEntry) {
        (offset..offset + i64::from(count)).for_each(|offset| self.put(slot, offset, entry));
    }

    fn put(&mut self, slot: QueueSlot, offset: i64, entry: IndexEntry) {
        let queue = &mut self.queues[slot.0 as usize];
        if queue.chunks.last().is_none_or(|chunk| chunk.is_full() || chunk.end() != offset) {
            if !queue.hot {
                queue.hot = true;
                self.hot.push(slot.0);
            }
            if queue.chunks.is_empty() {
                queue.chunks.reserve_exact(1);
            }
            let doubled = queue.chunks.last().map_or(CHUNK_MIN, |chunk| chunk.entries.capacity() * 2);
            let chunk = Chunk { first: offset, entries: Vec::with_capacity(doubled.min(CHUNK_MAX)) };
            self.chunk_memory += chunk.memory();
            queue.chunks.push(chunk);
        }
        let chunk = queue.chunks.last_mut().expect("a chunk with room was made above");
        chunk.entries.push(entry);
        queue.next = offset + 1;
        queue.seen = entry.position.0 + 1;
        assert!(queue.min <= offset);
    }

    /// The readable range; `None` when the queue never had a message.
    pub(super) fn range(&self, slot: QueueSlot) -> Option<QueueRange> {
        let queue = self.queue(slot);
        assert!(queue.min <= queue.next);
        (queue.next > 0).then_some(QueueRange { min: QueueOffset(queue.min), max: QueueOffset(queue.next) })
    }

    /// First offset that is in memory; the queue's end when none is.
    pub(super) fn hot_start(&self, slot: QueueSlot) -> i64 {
        let queue = self.queue(slot);
        queue.chunks.first().map_or(queue.next, |chunk| chunk.first.max(queue.min))
    }

    /// Appends to `out` up to `max` contiguous entries from memory, the first at or after `from`, and returns the
    /// offset of the first (the queue's end when there is none).
    pub(super) fn entries(&self, slot: QueueSlot, from: i64, max: usize, out: &mut Vec<IndexEntry>) -> i64 {
        self.all_entries(slot, from.max(self.queue(slot).min), max, out)
    }

    /// As [`Table::entries`], with those that are not served any more.
    pub(super) fn all_entries(
        &self,
        slot: QueueSlot,
        from: i64,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> i64 {
        let queue = self.queue(slot);
        let at = queue.chunks.partition_point(|chunk| chunk.end() <= from);
        let Some(chunk) = queue.chunks.get(at) else { return queue.next };
        let first = from.max(chunk.first);
        let (mut next, mut left) = (first, max);
        for chunk in &queue.chunks[at..] {
            if left == 0 || chunk.first > next {
                break;
            }
            let part = &chunk.entries[(next - chunk.first) as usize..];
            let part = &part[..part.len().min(left)];
            out.extend_from_slice(part);
            next += part.len() as i64;
            left -= part.len();
        }
        first
    }

    /// Takes the list of slots with entries in memory, for a flush; [`Table::release`] gives them back.
    pub(super) fn take_hot(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.hot)
    }

    /// Gives the slots of [`Table::take_hot`] back unchanged, after a failure.
    pub(super) fn restore_hot(&mut self, slots: Vec<u32>) {
        self.hot.extend(slots);
    }

    /// Drops the entries of a slot of [`Table::take_hot`] that lie before `upto`: a run holds them now. False: there
    /// are more, call it again.
    pub(super) fn release(&mut self, slot: u32, upto: u64) -> bool {
        if !self.cut(slot, upto, RELEASED) {
            return false;
        }
        let queue = &mut self.queues[slot as usize];
        queue.hot = !queue.chunks.is_empty();
        if queue.hot {
            self.hot.push(slot);
        }
        true
    }

    /// Drops the entries that lie before `upto`, if they are in no more than `most` chunks; else as many chunks, and
    /// returns false.
    fn cut(&mut self, slot: u32, upto: u64, most: usize) -> bool {
        let chunks = &mut self.queues[slot as usize].chunks;
        let whole = chunks.partition_point(|c| c.entries.last().is_none_or(|e| e.position.0 < upto));
        self.chunk_memory -= chunks.drain(..whole.min(most)).map(|chunk| chunk.memory()).sum::<usize>();
        if whole > most {
            return false;
        }
        match chunks.first_mut() {
            Some(chunk) => {
                let part = chunk.entries.partition_point(|entry| entry.position.0 < upto);
                chunk.entries.drain(..part);
                chunk.first += part as i64;
            }
            None => *chunks = Vec::new(),
        }
        true
    }

    /// Drops the queue's entries in memory that lie before `log_min` and raises its minimum over them. False: there are
    /// more, call it again.
    pub(super) fn raise_min(&mut self, slot: QueueSlot, log_min: u64) -> bool {
        let queue = &mut self.queues[slot.0 as usize];
        let had = queue.chunks.first().map(|chunk| chunk.first);
        if queue.seen <= log_min {
            queue.min = queue.next;
        }
        let is_done = self.cut(slot.0, log_min, RELEASED);
        let queue = &mut self.queues[slot.0 as usize];
        let has = queue.chunks.first().map(|chunk| chunk.first);
        if let (true, Some(has)) = (had != has, has) {
            queue.min = queue.min.max(has);
        }
        is_done
    }

    /// Whether the slot holds a queue that has had messages.
    pub(super) fn is_live(&self, slot: u32) -> bool {
        self.queues.get(slot as usize).is_some_and(|queue| !queue.dead && queue.next > 0)
    }

    /// Forgets the topic's queues: entries before `at` are deleted, a queue made from now on starts at 0. Returns
    /// those of its queues that were marked as expired; `None` when the topic is not known.
    pub(super) fn delete_topic(&mut self, name: &str, at: u64) -> Option<Vec<QueueId>> {
        let topic = self.find_topic(name)?;
        self.mark_deleted(name, at);
        let slots = std::mem::take(&mut self.topics[topic as usize].queues);
        let mut marked = Vec::new();
        for (_, slot) in slots {
            let queue = &mut self.queues[slot as usize];
            assert!(queue.seen <= at, "a topic is deleted at the end of the log");
            self.chunk_memory -= queue.chunks.drain(..).map(|chunk| chunk.memory()).sum::<usize>();
            queue.chunks = Vec::new();
            queue.dead = true;
            self.live -= 1;
            self.lmqs -= usize::from(is_lmq(name));
            if queue.marked > 0 {
                marked.push(queue.id);
            }
            self.dying.push((slot, at));
        }
        Some(marked)
    }

    /// Remembers that what the topic had before `at` is deleted.
    pub(super) fn mark_deleted(&mut self, name: &str, at: u64) {
        let topic = self.intern(name) as usize;
        self.topics[topic].deleted_at = self.topics[topic].deleted_at.max(at);
        self.last_deletion = self.last_deletion.max(at);
    }

    /// Reuses the slots of queues deleted before `committed`. Not while a list from [`Table::take_hot`] is out.
    pub(super) fn reclaim(&mut self, committed: u64) {
        let free = &mut self.free_queues;
        self.dying.retain(|(slot, at)| {
            let done = *at <= committed;
            if done {
                free.push(*slot);
            }
            !done
        });
    }

    /// Forgets deletions before `log_min`, which nothing can bring back any more; returns their topics.
    pub(super) fn forget_deletions(&mut self, log_min: u64) -> Vec<Rc<str>> {
        let mut forgotten = Vec::new();
        for index in 0..self.topics.len() {
            let topic = &mut self.topics[index];
            if topic.deleted_at == 0 || topic.deleted_at > log_min {
                continue;
            }
            topic.deleted_at = 0;
            forgotten.push(Rc::clone(&topic.name));
            if topic.queues.is_empty() {
                self.drop_topic(index as u32);
            }
        }
        forgotten
    }

    fn drop_topic(&mut self, index: u32) {
        let name = Rc::clone(&self.topics[index as usize].name);
        let found = self.topic_lookup.find_entry(xxh3_64(name.as_bytes()), |other| *other == index);
        if let Ok(found) = found {
            found.remove();
            self.name_memory -= name.len();
            self.free_topics.push(index);
        }
    }

    /// The log position of the topic's deletion; 0 for none.
    pub(super) fn deleted_at(&self, topic: &str) -> u64 {
        if self.last_deletion == 0 {
            return 0;
        }
        self.find_topic(topic).map_or(0, |index| self.topics[index as usize].deleted_at)
    }
}

/// Puts `item` where one is free, else at the end.
fn place<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> u32 {
    if let Some(index) = free.pop() {
        items[index as usize] = item;
        return index;
    }
    items.push(item);
    u32::try_from(items.len() - 1).expect("fewer than 2^32 queues and topics fit in memory")
}
