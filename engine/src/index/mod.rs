//! A shard's index: for each queue where its messages lie (RocketMQ's ConsumeQueue), and where the messages of a
//! key lie (its IndexFile). All of it is derived from the log.
//!
//! What was committed lately is in memory. Now and then it is written as an immutable *run*, which covers a
//! contiguous range of the log; the runs together cover the log up to [`Index::indexed_upto`], from where recovery
//! scans the log. A run that is damaged or missing is dropped with all that are newer, and costs only time. What the
//! log cannot tell (deleted topics, the next offset of queues whose messages have all expired) is in a
//! [`MetaLog`].

#[cfg(feature = "bench")]
mod bench;
mod build;
mod cache;
mod filter;
mod flush;
mod format;
mod hot;
mod keys;
mod merge;
mod open;
mod retain;
mod run;
mod search;
mod segments;
mod sorted;
mod table;
mod topics;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{Env, mutant};

use crate::gate::{Gate, Pass};
use crate::meta::MetaLog;
use crate::slices::SliceStats;
use crate::types::{LogPosition, QueueId, QueueOffset, QueueRange};
use keys::{HotKey, HotKeys};
use run::{Reader, Run};
use table::Table;

#[cfg(feature = "bench")]
pub use bench::BenchIndex;
pub(crate) use keys::key_hash;
pub(crate) use open::{Opening, check_marks, check_runs};
pub(crate) use search::KeySearch;
pub use table::TopicHandle;
pub(crate) use table::{IndexEntry, QueueSlot};

/// Index entries of one queue without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Offset of the first entry; above what was asked for where entries are missing (damage) or expired.
    pub first: QueueOffset,
    /// The entries; none at the end of the queue.
    pub entries: Vec<IndexEntry>,
}

/// The index of one shard. Lives on its core; cheap to clone: clones are the same index.
pub(crate) struct Index<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Index<E> {
    fn clone(&self) -> Self {
        Index(Rc::clone(&self.0))
    }
}

struct Inner<E: Env> {
    env: E,
    dir: PathBuf,
    reader: Reader<E>,
    /// What the log cannot tell.
    marks: MetaLog<E>,
    /// Held by whoever changes the set of runs.
    changing_runs: Gate,
    state: RefCell<State>,
}

struct State {
    table: Table,
    keys: HotKeys,
    /// Ordered by the range of the log that they cover, without a gap.
    runs: Rc<Vec<Rc<Run>>>,
    /// One past the log position that the runs cover; what is before is in the runs, what is behind is in memory.
    indexed: u64,
    log_min: u64,
    /// The `log_min` that the marks have, or have staged.
    marked_min: Option<u64>,
    /// Stretches (from, to) of the log that could not be read back when it was opened.
    lost: Vec<(u64, u64)>,
    bytes_written: u64,
}

impl<E: Env> Index<E> {
    /// Directory of the runs.
    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Messages before are not served any more. While they are being deleted it is ahead of the log's own minimum.
    pub(crate) fn log_min(&self) -> LogPosition {
        LogPosition(self.0.state.borrow().log_min)
    }

    /// Everything before this log position is in a run: recovery scans the log from here.
    pub(crate) fn indexed_upto(&self) -> LogPosition {
        LogPosition(self.0.state.borrow().indexed)
    }

    /// The queue's slot; an unknown queue is made (and does not exist for readers until its first message).
    pub(crate) fn slot(&self, topic: &str, queue: QueueId) -> QueueSlot {
        self.slot_in(TopicHandle::default(), topic, queue)
    }

    /// The same, where there may be a handle of the topic.
    pub(crate) fn slot_in(&self, known: TopicHandle, topic: &str, queue: QueueId) -> QueueSlot {
        self.0.state.borrow_mut().table.slot_in(known, topic, queue)
    }

    /// The topic's handle, which is `known` if that still holds; that of no topic while the topic has no queue here.
    pub(crate) fn topic(&self, name: &str, known: TopicHandle) -> TopicHandle {
        self.0.state.borrow().table.topic(name, known)
    }

    /// Has what an append needs of the topic fetched into the core's cache, or then of its queue.
    pub(crate) fn prefetch(&self, topic: TopicHandle, queue: Option<QueueId>) {
        let table = &self.0.state.borrow().table;
        match queue {
            None => table.prefetch_topic(topic),
            Some(queue) => table.prefetch_queue(topic, queue),
        }
    }

    /// Topic and number of the slot's queue.
    pub(crate) fn name(&self, slot: QueueSlot) -> (Rc<str>, QueueId) {
        let state = self.0.state.borrow();
        let (topic, queue) = state.table.name(slot);
        (Rc::clone(topic), queue)
    }

    /// Assigns the next `count` offsets of the queue to a record that is staged, and returns the first. Use the slot
    /// at once: after a deletion of its topic it cannot be staged any more.
    pub(crate) fn stage(&self, slot: QueueSlot, count: u32) -> QueueOffset {
        self.0.state.borrow_mut().table.stage(slot, count)
    }

    /// The offset that [`Index::stage`] will assign next.
    pub(crate) fn peek(&self, slot: QueueSlot) -> QueueOffset {
        self.0.state.borrow().table.peek(slot)
    }

    /// Whether there is such a queue, with or without messages.
    pub(crate) fn knows(&self, topic: &str, queue: QueueId) -> bool {
        self.0.state.borrow().table.find(topic, queue).is_some()
    }

    /// LMQs there are.
    pub(crate) fn lmqs(&self) -> usize {
        self.0.state.borrow().table.lmqs()
    }

    /// Takes back all offsets that were staged and not pushed; the log goes on at `end`.
    pub(crate) fn unstage_all(&self, end: LogPosition) {
        self.0.state.borrow_mut().table.unstage_all(end.0);
    }

    /// Adds a committed record, in log order, with the `count` offsets it was staged with: an entry for each. Dropped
    /// if its topic was deleted since.
    pub(crate) fn push(&self, slot: QueueSlot, offset: QueueOffset, count: u32, entry: IndexEntry) {
        self.0.state.borrow_mut().table.push(slot, offset, count, entry);
    }

    /// Adds a key, by its [`key_hash`], of a committed message, in log order.
    pub(crate) fn push_key(&self, hash: u64, position: LogPosition, store_ms: i64) {
        let key = HotKey { hash, position: position.0, store_ms };
        self.0.state.borrow_mut().keys.push(key);
    }

    /// Adds a record of `count` offsets that recovery found in the log, scanning from [`Index::indexed_upto`]. False: it is not
    /// wanted (deleted, or known), and neither are its keys.
    pub(crate) fn recover(
        &self,
        topic: &str,
        queue: QueueId,
        offset: QueueOffset,
        count: u32,
        entry: IndexEntry,
    ) -> bool {
        let mut state = self.0.state.borrow_mut();
        entry.position.0 >= state.indexed && state.table.recover(topic, queue, offset, count, entry)
    }

    /// The readable range; `None` when the queue never had a message.
    pub(crate) fn range(&self, topic: &str, queue: QueueId) -> Option<QueueRange> {
        let state = self.0.state.borrow();
        state.table.find(topic, queue).and_then(|slot| state.table.range(slot))
    }

    /// Appends to `out` up to `max` entries without a gap, the first at or after `offset`, and returns the offset of
    /// the first (the queue's end if there is none). `None`: they are on disk, ask [`Index::entries`].
    pub(crate) fn entries_hot(
        &self,
        topic: &str,
        queue: QueueId,
        offset: QueueOffset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Option<QueueOffset> {
        let state = self.0.state.borrow();
        let Some(slot) = state.table.find(topic, queue) else { return Some(offset) };
        let is_hot = offset.0 >= state.table.hot_start(slot);
        is_hot.then(|| QueueOffset(state.table.entries(slot, offset.0, max, out)))
    }

    /// While the pass is held no run is written and none is removed. To be held from [`Index::forget_topic`] until
    /// [`Index::mark_deleted`] is done: a run does not have what is deleted, whatever becomes of the deletion.
    pub(crate) async fn hold_runs(&self) -> Pass {
        self.0.changing_runs.enter().await
    }

    /// Forgets the topic's queues. Its messages before `at`, the end of what is staged, are gone at once, and a queue
    /// made from now on starts at 0; until the next opening, unless [`Index::mark_deleted`] makes it durable. Returns
    /// the queues that were marked as expired.
    pub(crate) fn forget_topic(&self, topic: &str, at: LogPosition) -> Vec<QueueId> {
        self.0.state.borrow_mut().table.delete_topic(topic, at.0)
    }

    /// Where in the log the topic was deleted; its start if it was not.
    pub(crate) fn deleted_at(&self, topic: &str) -> LogPosition {
        LogPosition(self.0.state.borrow().table.deleted_at(topic))
    }

    /// Whether it is 0 of any topic: nothing needs to be looked for by name.
    fn has_deletions(&self) -> bool {
        self.0.state.borrow().table.has_deletions()
    }

    /// Makes what [`Index::forget_topic`] did, and returned, durable, once the log before [`Index::deleted_at`] is on
    /// the device. Without disk space it fails: delete the topic again.
    pub(crate) async fn mark_deleted(&self, topic: &str, expired: &[QueueId]) -> io::Result<()> {
        self.0.state.borrow().mark_deleted(topic, expired, &self.0.marks);
        if mutant!("deletion-not-durable") {
            return Ok(());
        }
        self.0.marks.flush().await
    }

    /// Queues known.
    pub(crate) fn queues(&self) -> usize {
        self.0.state.borrow().table.len()
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        let state = self.0.state.borrow();
        let runs: usize = state.runs.iter().map(|run| run.memory()).sum();
        state.table.memory() + state.keys.memory() + runs + self.0.reader.memory()
    }

    /// For how long the compaction of the marks held the core.
    pub(crate) fn marks_compaction(&self) -> SliceStats {
        self.0.marks.compaction_slices()
    }

    /// Bytes written to runs since start.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.0.state.borrow().bytes_written
    }
}

#[cfg(test)]
mod tests;
