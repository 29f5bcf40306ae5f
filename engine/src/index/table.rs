//! The queues of a shard and their entries that are not in a run yet. Pure memory.

use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::HashTable;
use ringmq_env::prefetch;
use ringmq_protocol::names::{self, is_lmq};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::hot::{Held, HotEntries};
use super::segments::Segments;
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

/// Longest topic, in bytes.
const MAX_TOPIC: usize = names::LMQ_MAX_LENGTH;
/// Queues of a topic that are listed in its place; most topics have no more.
const LISTED: usize = 8;

/// A topic that was found by name: spares the next search by name. It says so itself when the topic is not there any
/// more; then it is looked for by name again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicHandle {
    index: u32,
    /// The topic's [`Topic::serial`]; 0: of no topic.
    serial: u32,
}

#[cfg(test)]
impl TopicHandle {
    /// Whether both are, or were, in the same place.
    pub(super) fn same_place(self, other: TopicHandle) -> bool {
        self.index == other.index
    }
}

/// One queue, in a cache line of its own. `min <= next`.
#[repr(align(64))]
pub(super) struct Queue {
    /// [`queue_hash`] of its name: with many queues the name itself is in no cache.
    hash: u64,
    /// First offset kept.
    pub(super) min: i64,
    /// One past the last committed offset; 0: never had a message.
    pub(super) next: i64,
    /// One past the position of the newest entry, in a run or here: what is before is known already.
    pub(super) seen: u64,
    /// Where it goes on, as last marked when all its messages on the device had expired; 0: never.
    pub(super) marked: i64,
    topic: u32,
    id: QueueId,
    /// [`Table::stagings`] when `ahead` was last right.
    staging: u32,
    /// Offsets from `next` on that are staged.
    ahead: u32,
    /// Its entries in memory.
    held: Held,
    /// Deleted; kept until nothing staged can name the slot any more.
    dead: bool,
    /// On the list [`Table::hot`], or on the one taken from it.
    hot: bool,
}

const _: () = assert!(size_of::<Queue>() == 64);

/// One topic, in a cache line of its own.
#[repr(align(64))]
struct Topic {
    name: Rc<str>,
    /// Slots of its queues, by the queues' numbers.
    queues: SmallVec<[u32; LISTED]>,
    /// Different for each topic that ever was here: what a [`TopicHandle`] is checked by. 0: the place is free.
    serial: u32,
}

const _: () = assert!(size_of::<Topic>() == 64);

/// Bytes of a name, with its counts of references.
fn name_memory(name: &str) -> usize {
    name.len() + 2 * size_of::<usize>()
}

/// Bytes that a topic's list takes elsewhere than in its place, whatever of it is used.
fn list_memory(queues: &SmallVec<[u32; LISTED]>) -> usize {
    if queues.spilled() { queues.capacity() * size_of::<u32>() } else { 0 }
}

/// All queues of a shard.
#[derive(Default)]
pub(super) struct Table {
    topics: Segments<Topic>,
    free_topics: Vec<u32>,
    topic_lookup: HashTable<u32>,
    last_serial: u32,
    /// Topics of which entries before a log position are deleted, and that position.
    deletions: BTreeMap<u32, u64>,
    queues: Segments<Queue>,
    free_queues: Vec<u32>,
    /// Slots of queues that were made anew, and the log position before which entries of this name belong to a deleted
    /// queue.
    begins: BTreeMap<u32, u64>,
    /// Dead slots, and the log position from which on nothing can name them.
    dying: Vec<(u32, u64)>,
    entries: HotEntries,
    /// Slots with entries, and some that lost theirs; each with its queue's hash.
    hot: Vec<(u64, u32)>,
    /// Counts roll-backs, so that each is O(1).
    stagings: u32,
    /// Log position of the latest deletion.
    last_deletion: u64,
    name_memory: usize,
    /// Of the topics' lists of queues that are not in their places.
    listed_memory: usize,
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
        let same = |index: &u32| &*self.topics[*index].name == name;
        self.topic_lookup.find(xxh3_64(name.as_bytes()), same).copied()
    }

    /// Where the topic of the handle is, if it is still there.
    fn known_topic(&self, handle: TopicHandle) -> Option<u32> {
        let topic = self.topics.get(handle.index)?;
        let is_same = topic.serial == handle.serial;
        (handle.serial > 0 && is_same).then_some(handle.index)
    }

    /// The topic's handle: the one that is there already if it holds, else what is found by name; that of no topic if
    /// there is none.
    pub(super) fn topic(&self, name: &str, known: TopicHandle) -> TopicHandle {
        let index = self.known_topic(known).or_else(|| self.find_topic(name));
        index.map_or_else(TopicHandle::default, |index| TopicHandle {
            index,
            serial: self.topics[index].serial,
        })
    }

    fn intern(&mut self, name: &str) -> u32 {
        if let Some(index) = self.find_topic(name) {
            return index;
        }
        self.last_serial =
            self.last_serial.checked_add(1).expect("fewer than 2^32 topics are made in a life");
        let topic = Topic { name: Rc::from(name), queues: SmallVec::new(), serial: self.last_serial };
        self.name_memory += name_memory(name);
        let index = self.topics.place(&mut self.free_topics, topic);
        let topics = &self.topics;
        self.topic_lookup
            .insert_unique(xxh3_64(name.as_bytes()), index, |other| xxh3_64(topics[*other].name.as_bytes()));
        index
    }

    /// Where the queue is in its topic's list, or should be. Queues are numbered from 0 on, and mostly all of them are
    /// there.
    fn place_of(&self, topic: u32, queue: QueueId) -> Result<usize, usize> {
        let slots = &self.topics[topic].queues;
        match (slots.get(queue.0 as usize), slots.last()) {
            (Some(slot), _) if self.queues[*slot].id == queue => Ok(queue.0 as usize),
            (None, Some(last)) if self.queues[*last].id < queue => Err(slots.len()),
            _ => slots.binary_search_by_key(&queue, |slot| self.queues[*slot].id),
        }
    }

    fn find_in(&self, topic: u32, queue: QueueId) -> Option<QueueSlot> {
        let place = self.place_of(topic, queue).ok()?;
        Some(QueueSlot(self.topics[topic].queues[place]))
    }

    /// The queue's slot, if the queue is known.
    pub(super) fn find(&self, topic: &str, queue: QueueId) -> Option<QueueSlot> {
        self.find_in(self.find_topic(topic)?, queue)
    }

    /// The queue's slot; the queue is made if it is not known.
    pub(super) fn slot(&mut self, topic: &str, queue: QueueId) -> QueueSlot {
        self.slot_in(TopicHandle::default(), topic, queue)
    }

    /// The same, for a topic of which there may be a handle.
    pub(super) fn slot_in(&mut self, known: TopicHandle, topic: &str, queue: QueueId) -> QueueSlot {
        let found = self.known_topic(known).or_else(|| self.find_topic(topic));
        if let Some(index) = found {
            debug_assert!(*self.topics[index].name == *topic, "a handle stays with its topic");
            if let Some(slot) = self.find_in(index, queue) {
                return slot;
            }
        }
        let owner = found.unwrap_or_else(|| self.intern(topic));
        self.make_queue(owner, topic, queue)
    }

    fn make_queue(&mut self, owner: u32, topic: &str, id: QueueId) -> QueueSlot {
        assert!(topic.len() <= MAX_TOPIC, "a topic of {} bytes", topic.len());
        let since = self.deletions.get(&owner).copied().unwrap_or_default();
        let fresh = Queue {
            hash: queue_hash(topic, id),
            topic: owner,
            id,
            staging: self.stagings,
            ahead: 0,
            dead: false,
            hot: false,
            min: 0,
            next: 0,
            seen: since,
            marked: 0,
            held: Held::NONE,
        };
        let slot = self.queues.place(&mut self.free_queues, fresh);
        self.set_since(slot, since);
        self.lmqs += usize::from(is_lmq(topic));
        self.live += 1;
        let place = self.place_of(owner, id).expect_err("the queue was not found before");
        let listed = &mut self.topics[owner].queues;
        let before = list_memory(listed);
        listed.insert(place, slot);
        self.listed_memory += list_memory(listed) - before;
        QueueSlot(slot)
    }

    /// Entries of the slot's queue before this log position belong to a deleted queue of its name.
    pub(super) fn since(&self, slot: QueueSlot) -> u64 {
        self.begins.get(&slot.0).copied().unwrap_or_default()
    }

    fn set_since(&mut self, slot: u32, since: u64) {
        match since {
            0 => self.begins.remove(&slot),
            _ => self.begins.insert(slot, since),
        };
    }

    pub(super) fn queue(&self, slot: QueueSlot) -> &Queue {
        &self.queues[slot.0]
    }

    pub(super) fn queue_mut(&mut self, slot: QueueSlot) -> &mut Queue {
        &mut self.queues[slot.0]
    }

    /// Topic and number of the slot's queue.
    pub(super) fn name(&self, slot: QueueSlot) -> (&Rc<str>, QueueId) {
        let queue = self.queue(slot);
        (&self.topics[queue.topic].name, queue.id)
    }

    /// The same, and the topic's number, which another topic may have once this one is gone.
    pub(super) fn numbered_name(&self, slot: QueueSlot) -> (u32, &str, QueueId) {
        let queue = self.queue(slot);
        (queue.topic, &self.topics[queue.topic].name, queue.id)
    }

    /// Topics' numbers ever used; those beyond do not exist.
    pub(super) fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Slots ever used; those beyond do not exist.
    pub(super) fn slots(&self) -> u32 {
        self.queues.len() as u32
    }

    /// Has fetched what an append needs of the topic, and then of one of its queues. With many topics and queues it is in
    /// no cache, and side by side all of it comes sooner than one after the other.
    pub(super) fn prefetch_topic(&self, topic: TopicHandle) {
        self.topics.get(topic.index).inspect(|topic| prefetch(*topic));
    }

    pub(super) fn prefetch_queue(&self, topic: TopicHandle, queue: QueueId) {
        let slots = self.topics.get(topic.index).map(|topic| &topic.queues);
        if let Some(slot) = slots.and_then(|slots| slots.get(queue.0 as usize)) {
            prefetch(&self.queues[*slot]);
        }
    }

    /// The same for what a run needs of these queues, of whose topics `names` has something by number.
    pub(super) fn prefetch_for_run(&self, slots: impl Iterator<Item = u32> + Clone, names: &[u32]) {
        self.prefetch_to_release(slots.clone());
        let topics = slots.map(|slot| self.queues[slot].topic);
        for topic in topics.clone() {
            prefetch(&self.topics[topic]);
            names.get(topic as usize).inspect(|name| prefetch(*name));
        }
        let texts = topics.map(|topic| &self.topics[topic].name);
        // A queue that is deleted may be of a topic that has no name any more.
        texts.filter_map(|name| name.as_bytes().first()).for_each(prefetch);
    }

    /// The same for what [`Table::release`] needs.
    pub(super) fn prefetch_to_release(&self, slots: impl Iterator<Item = u32> + Clone) {
        slots.clone().for_each(|slot| prefetch(&self.queues[slot]));
        slots.for_each(|slot| self.entries.prefetch(self.queues[slot].held));
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
    pub(super) fn entry_memory(&self) -> usize {
        self.entries.memory()
    }

    /// Bytes of everything, entries included.
    pub(super) fn memory(&self) -> usize {
        let topics = self.topics.memory() + self.name_memory + self.listed_memory;
        let lookup = self.topic_lookup.capacity() * 6;
        let free = (self.free_topics.capacity() + self.free_queues.capacity()) * size_of::<u32>();
        let slots =
            self.hot.capacity() * size_of::<(u64, u32)>() + self.dying.capacity() * size_of::<(u32, u64)>();
        topics + lookup + free + slots + self.queues.memory() + self.entries.allocated()
    }

    /// The offset that [`Table::stage`] will assign next.
    pub(super) fn peek(&self, slot: QueueSlot) -> QueueOffset {
        let queue = self.queue(slot);
        let ahead = if queue.staging == self.stagings { queue.ahead } else { 0 };
        QueueOffset(queue.next + i64::from(ahead))
    }

    /// Assigns the next `count` offsets of the queue; returns the first.
    pub(super) fn stage(&mut self, slot: QueueSlot, count: u32) -> QueueOffset {
        let stagings = self.stagings;
        let queue = self.queue_mut(slot);
        assert!(!queue.dead, "a slot is staged right after it was resolved");
        if queue.staging != stagings {
            queue.staging = stagings;
            queue.ahead = 0;
        }
        let offset = queue.next + i64::from(queue.ahead);
        queue.ahead = queue.ahead.checked_add(count).expect("what is staged is far below 2^32 offsets");
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
        self.deletions.retain(|_, at| {
            *at = end.min(*at);
            *at > 0
        });
        self.begins.values_mut().for_each(|since| *since = end.min(*since));
        self.queues.iter_mut().for_each(|queue| queue.seen = end.min(queue.seen));
        self.dying.iter_mut().for_each(|(_, at)| *at = end.min(*at));
    }

    /// Adds a committed record, in log order, that takes `count` offsets: an entry for each.
    pub(super) fn push(&mut self, slot: QueueSlot, offset: QueueOffset, count: u32, entry: IndexEntry) {
        let queue = &mut self.queues[slot.0];
        if queue.dead {
            return;
        }
        assert!(offset.0 == queue.next, "offset {} is pushed, {} comes next", offset.0, queue.next);
        assert!(entry.position.0 >= queue.seen, "entries come in log order");
        queue.ahead = queue.ahead.saturating_sub(count);
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
        let queue = &mut self.queues[slot.0];
        self.entries.clear(&mut queue.held);
        (queue.min, queue.next, queue.ahead) = (0, 0, 0);
        self.set_since(slot.0, position);
    }

    fn put_all(&mut self, slot: QueueSlot, offset: i64, count: u32, entry: IndexEntry) {
        (offset..offset + i64::from(count)).for_each(|offset| self.put(slot, offset, entry));
    }

    fn put(&mut self, slot: QueueSlot, offset: i64, entry: IndexEntry) {
        let queue = &mut self.queues[slot.0];
        if !queue.hot {
            queue.hot = true;
            self.hot.push((queue.hash, slot.0));
        }
        self.entries.push(&mut queue.held, offset, entry);
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
        self.entries.first(queue.held).map_or(queue.next, |(offset, _)| offset.max(queue.min))
    }

    /// Where the first message of the queue that is kept lies, if its entry is in memory.
    pub(super) fn first_position(&self, slot: QueueSlot) -> Option<LogPosition> {
        let queue = self.queue(slot);
        let mut found = Vec::new();
        let offset = self.entries.range(queue.held, queue.min, 1, &mut found)?;
        found.first().filter(|_| offset == queue.min).map(|entry| entry.position)
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
        self.entries.range(queue.held, from, max, out).unwrap_or(queue.next)
    }

    /// Takes the list of slots with entries in memory, each with its queue's hash, for a flush; [`Table::release`] gives
    /// them back.
    pub(super) fn take_hot(&mut self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.hot)
    }

    /// Gives the slots of [`Table::take_hot`] back unchanged, after a failure.
    pub(super) fn restore_hot(&mut self, slots: Vec<(u64, u32)>) {
        self.hot.extend(slots);
    }

    /// Drops the entries of a slot of [`Table::take_hot`] that lie before `upto`: a run holds them now. False: there
    /// are more, call it again.
    pub(super) fn release(&mut self, slot: u32, upto: u64) -> bool {
        let queue = &mut self.queues[slot];
        if !self.entries.cut(&mut queue.held, upto) {
            return false;
        }
        queue.hot = !queue.held.is_empty();
        if queue.hot {
            self.hot.push((queue.hash, slot));
        }
        true
    }

    /// Drops the queue's entries in memory that lie before `log_min` and raises its minimum over them. False: there are
    /// more, call it again.
    pub(super) fn raise_min(&mut self, slot: QueueSlot, log_min: u64) -> bool {
        let queue = &mut self.queues[slot.0];
        if queue.seen <= log_min {
            queue.min = queue.next;
        }
        let first = |entries: &HotEntries, held| entries.first(held).map(|(offset, _)| offset);
        let had = first(&self.entries, queue.held);
        let is_done = self.entries.cut(&mut queue.held, log_min);
        let has = first(&self.entries, queue.held);
        if let (true, Some(has)) = (had != has, has) {
            queue.min = queue.min.max(has);
        }
        is_done
    }

    /// Whether the slot holds a queue that has had messages.
    pub(super) fn is_live(&self, slot: u32) -> bool {
        self.queues.get(slot).is_some_and(|queue| !queue.dead && queue.next > 0)
    }

    /// Forgets the topic's queues: entries before `at` are deleted, a queue made from now on starts at 0. Returns
    /// those of its queues that were marked as expired; none when the topic is not known.
    pub(super) fn delete_topic(&mut self, name: &str, at: u64) -> Vec<QueueId> {
        let Some(topic) = self.find_topic(name) else { return Vec::new() };
        self.mark_deleted(name, at);
        let slots = std::mem::take(&mut self.topics[topic].queues);
        self.listed_memory -= list_memory(&slots);
        let mut marked = Vec::new();
        for slot in slots {
            let queue = &mut self.queues[slot];
            assert!(queue.seen <= at, "a topic is deleted at the end of the log");
            self.entries.clear(&mut queue.held);
            queue.dead = true;
            self.live -= 1;
            self.lmqs -= usize::from(is_lmq(name));
            if queue.marked > 0 {
                marked.push(queue.id);
            }
            self.dying.push((slot, at));
        }
        marked
    }

    /// Remembers that what the topic had before `at` is deleted.
    pub(super) fn mark_deleted(&mut self, name: &str, at: u64) {
        let topic = self.intern(name);
        if at > 0 {
            let latest = self.deletions.entry(topic).or_default();
            *latest = at.max(*latest);
        }
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
        self.deletions.retain(|topic, at| {
            let is_past = *at <= log_min;
            if is_past {
                forgotten.push(*topic);
            }
            !is_past
        });
        let names = forgotten.into_iter().map(|topic| {
            let name = Rc::clone(&self.topics[topic].name);
            if self.topics[topic].queues.is_empty() {
                self.drop_topic(topic, &name);
            }
            name
        });
        names.collect()
    }

    fn drop_topic(&mut self, index: u32, name: &str) {
        let found = self.topic_lookup.find_entry(xxh3_64(name.as_bytes()), |other| *other == index);
        if let Ok(found) = found {
            found.remove();
            self.name_memory -= name_memory(name);
            self.topics[index].name = Rc::default();
            self.topics[index].serial = 0;
            self.free_topics.push(index);
        }
    }

    /// Whether any topic was deleted, as far as is remembered.
    pub(super) fn has_deletions(&self) -> bool {
        !self.deletions.is_empty()
    }

    /// The log position of the topic's deletion; 0 for none.
    pub(super) fn deleted_at(&self, topic: &str) -> u64 {
        if !self.has_deletions() {
            return 0;
        }
        let topic = self.find_topic(topic);
        topic.and_then(|topic| self.deletions.get(&topic)).copied().unwrap_or_default()
    }
}
