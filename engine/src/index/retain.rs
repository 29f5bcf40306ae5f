//! What goes: expired messages, deleted topics, and the marks that remember what the log cannot tell.

use std::io;
use std::rc::Rc;

use ringmq_env::{Env, mutant};

use super::format::Extent;
use super::run::{Run, RunError};
use super::table::{QueueSlot, Table, queue_hash};
use super::{Index, State};
use crate::bytes::array;
use crate::meta::MetaLog;
use crate::slices::{LOOK, Pacer};
use crate::types::{LogPosition, QueueId, QueueOffset};

/// Fewest bytes of the log that one queue offset takes: a message of an inner batch, with a body of one byte. A record
/// of its own takes more.
const MIN_OFFSET_LEN: u64 = 22 + 1;

const DELETED: u8 = b't';
const EXPIRED: u8 = b'q';
const LOG_MIN: u8 = b'm';
const DAMAGED: u8 = b'd';
const LOST: u8 = b'l';

/// What a mark says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The topic's messages before the position are deleted.
    Deleted { topic: String, at: u64 },
    /// The queue's messages before the position have all expired; the first offset behind them is `next`.
    Expired { topic: String, queue: QueueId, next: i64, seen: u64 },
    /// Messages before the position have expired, whether the log still has them or not.
    LogMin(u64),
    /// The run that begins at the position was found damaged.
    Damaged(u64),
    /// The log between the positions could not be read back.
    Lost { from: u64, to: u64 },
}

impl Mark {
    /// `None` if it makes no sense.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Mark> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        match (key.first()?, value.len()) {
            (&DELETED, 8) => {
                Some(Mark::Deleted { topic: text(&key[1..])?, at: u64::from_le_bytes(array(value, 0)) })
            }
            (&EXPIRED, 16) if key.len() >= 5 => Some(Mark::Expired {
                topic: text(&key[5..])?,
                queue: QueueId(u32::from_le_bytes(array(key, 1))),
                next: i64::from_le_bytes(array(value, 0)),
                seen: u64::from_le_bytes(array(value, 8)),
            }),
            (&LOG_MIN, 8) if key.len() == 1 => Some(Mark::LogMin(u64::from_le_bytes(array(value, 0)))),
            (&LOST, 8) if key.len() == 9 => Some(Mark::Lost {
                from: u64::from_le_bytes(array(key, 1)),
                to: u64::from_le_bytes(array(value, 0)),
            }),
            (&DAMAGED, 0) if key.len() == 9 => Some(Mark::Damaged(u64::from_le_bytes(array(key, 1)))),
            _ => None,
        }
    }
}

impl Mark {
    /// Pulls a mark that names a position behind `end`, where the log ends, back to there: what is stored behind it is
    /// not what the mark was about. Returns the entry to put in its place.
    pub(super) fn pull_back(&mut self, end: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let end_bytes = end.to_le_bytes();
        match self {
            Mark::Deleted { topic, at } if *at > end => {
                *at = end;
                Some((deleted_key(topic), end_bytes.to_vec()))
            }
            Mark::Expired { topic, queue, next, seen } if *seen > end => {
                *seen = end;
                Some((expired_key(topic, *queue), [next.to_le_bytes(), end_bytes].concat()))
            }
            Mark::LogMin(min) if *min > end => {
                *min = end;
                Some((log_min_key(), end_bytes.to_vec()))
            }
            Mark::Lost { from, to } if *to > end => {
                *to = end.max(*from);
                Some((lost_key(*from), to.to_le_bytes().to_vec()))
            }
            _ => None,
        }
    }
}

/// Key of [`Mark::Damaged`].
pub(super) fn damaged_key(from: u64) -> Vec<u8> {
    [&[DAMAGED][..], &from.to_le_bytes()].concat()
}

/// Key of [`Mark::LogMin`].
fn log_min_key() -> Vec<u8> {
    vec![LOG_MIN]
}

fn lost_key(from: u64) -> Vec<u8> {
    [&[LOST][..], &from.to_le_bytes()].concat()
}

fn deleted_key(topic: &str) -> Vec<u8> {
    [&[DELETED], topic.as_bytes()].concat()
}

fn expired_key(topic: &str, queue: QueueId) -> Vec<u8> {
    [&[EXPIRED][..], &queue.0.to_le_bytes(), topic.as_bytes()].concat()
}

impl State {
    pub(super) fn mark_deleted<E: Env>(&self, topic: &str, expired: &[QueueId], marks: &MetaLog<E>) {
        for queue in expired {
            marks.delete(&expired_key(topic, *queue));
        }
        let at = self.table.deleted_at(topic);
        // At 0 nothing from before the deletion is left in the log.
        if at > 0 {
            marks.put(&deleted_key(topic), &at.to_le_bytes());
        }
    }

    /// Marks the queue of a slot if it has nothing left on the device.
    fn mark_expired<E: Env>(&mut self, slot: QueueSlot, flushed: u64, marks: &MetaLog<E>) {
        let log_min = self.log_min;
        let Some(next) = self.table.mark_if_expired(slot, log_min, flushed) else { return };
        let (topic, queue) = self.table.name(slot);
        let value = [next.to_le_bytes(), log_min.to_le_bytes()].concat();
        if !mutant!("expired-queue-forgotten") {
            marks.put(&expired_key(topic, queue), &value);
        }
    }
}

impl<E: Env> Index<E> {
    /// Messages before `min` are not served any more, and the queues' minimum offsets follow. To be called before
    /// the log's segments are removed: when this returns `Ok`, nothing about them is needed any more. Without disk
    /// space it fails: call it again.
    ///
    /// The log is on the device up to `flushed`. What lies behind may be lost yet, and with it all that says where a
    /// queue goes on.
    pub(crate) async fn set_log_min(&self, min: LogPosition, flushed: LogPosition) -> io::Result<()> {
        let pass = self.0.changing_runs.enter().await;
        {
            let mut state = self.0.state.borrow_mut();
            state.log_min = state.log_min.max(min.0);
        }
        self.raise_in_runs().await?;
        self.raise_in_memory(flushed.0).await;
        self.0.marks.flush().await?;
        self.mark_log_min().await?;
        self.remove_expired_runs().await?;
        drop(pass);
        Ok(())
    }

    /// Puts on record where the log's messages begin. With that, a start needs nothing about those before: the marks of
    /// queues that have nothing left must be durable.
    async fn mark_log_min(&self) -> io::Result<()> {
        {
            let mut state = self.0.state.borrow_mut();
            if state.marked_min.is_none_or(|marked| state.log_min > marked) {
                state.marked_min = Some(state.log_min);
                self.0.marks.put(&log_min_key(), &state.log_min.to_le_bytes());
            }
        }
        self.0.marks.flush().await
    }

    /// The queue's messages before `min` are not served any more, until the index is opened again. `min` was found while
    /// the topic's last deletion was at `deleted_at`; in a queue that was made anew since, it means nothing.
    pub(crate) fn raise_queue_min(
        &self,
        topic: &str,
        queue: QueueId,
        min: QueueOffset,
        deleted_at: LogPosition,
    ) {
        let mut state = self.0.state.borrow_mut();
        if state.table.deleted_at(topic) != deleted_at.0 {
            return;
        }
        if let Some(slot) = state.table.find(topic, queue) {
            let queue = state.table.queue_mut(slot);
            queue.min = queue.min.max(min.0).min(queue.next);
        }
    }

    /// The log between the positions cannot be read back. On record it is before the next run is
    /// ([`Index::flush`] and [`Index::set_log_min`] flush the marks). Queues may have gone on behind what was lost
    /// before: of two losses that begin together the longer counts.
    pub(crate) fn mark_lost(&self, from: LogPosition, to: LogPosition) {
        let mut state = self.0.state.borrow_mut();
        let known = state.lost.extract_if(.., |(known, _)| *known == from.0);
        let to = known.fold(to.0, |to, (_, known)| to.max(known));
        state.lost.push((from.0, to));
        self.0.marks.put(&lost_key(from.0), &to.to_le_bytes());
    }

    /// After a loss at the log's end nobody knows how many messages a queue had there: queues without a newer message
    /// go on behind as many as may have been, so that no offset is given twice. The losses of earlier openings count
    /// as well, for as long as they are in the log's range.
    pub(super) async fn skip_lost(&self) {
        let (slots, all) = {
            let state = self.0.state.borrow();
            (state.table.slots(), state.lost.clone())
        };
        if all.is_empty() {
            return;
        }
        let mut pacer = Pacer::new(&self.0.env);
        for slot in 0..slots {
            for (from, to) in &all {
                self.0.state.borrow_mut().table.skip_lost(QueueSlot(slot), *from, *to);
            }
            pacer.done(all.len()).await;
        }
    }

    /// Raises the minimum of the queues in the runs that begin before the log does.
    async fn raise_in_runs(&self) -> io::Result<()> {
        let (runs, log_min) = {
            let state = self.0.state.borrow();
            (Rc::clone(&state.runs), state.log_min)
        };
        for run in runs.iter().take_while(|run| run.header.from < log_min) {
            match self.raise_in_run(run, log_min).await {
                Ok(()) => {}
                Err(RunError::Io(error)) => return Err(error),
                Err(error) => self.report_damage(run, &error).await,
            }
        }
        Ok(())
    }

    async fn raise_in_run(&self, run: &Run, log_min: u64) -> Result<(), RunError> {
        let directory = self.0.reader.directory(run).await?;
        let mut pacer = Pacer::new(&self.0.env);
        let mut damage = Ok(());
        for extent in &directory.extents {
            // A search within the extent takes long against all else.
            let is_cut = extent.base_position < log_min && log_min <= extent.last_position;
            pacer.done(if is_cut { LOOK } else { 1 }).await;
            if extent.base_position >= log_min {
                continue;
            }
            let topic = directory.topic(extent).ok_or(RunError::Damaged(0))?;
            match self.first_kept(run, extent, log_min).await {
                Ok(min) => self.0.state.borrow_mut().table.raise_known_min(topic, extent, min),
                Err(RunError::Io(error)) => return Err(error.into()),
                Err(error) => damage = Err(error),
            }
        }
        damage
    }

    /// First offset of the extent whose message is kept; its end when none is.
    async fn first_kept(&self, run: &Run, extent: &Extent, log_min: u64) -> Result<i64, RunError> {
        if extent.last_position < log_min {
            return Ok(extent.end());
        }
        let (mut low, mut high) = (0, extent.count);
        let mut entry = Vec::new();
        while low < high {
            let middle = low + (high - low) / 2;
            entry.clear();
            self.0.reader.entries(run, extent, middle, 1, &mut entry).await?;
            if entry.iter().any(|entry| entry.position.0 < log_min) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(extent.first + i64::from(low))
    }

    /// Drops what is in memory and expired, and marks the queues that have nothing left on the device.
    async fn raise_in_memory(&self, flushed: u64) {
        let (slots, log_min, is_beyond) = {
            let state = self.0.state.borrow();
            (state.table.slots(), state.log_min, state.log_min > state.indexed)
        };
        if is_beyond {
            while !self.0.state.borrow_mut().keys.release(log_min) {
                self.0.env.yield_now().await;
            }
            self.0.state.borrow_mut().indexed = log_min;
        }
        let mut pacer = Pacer::new(&self.0.env);
        for slot in (0..slots).map(QueueSlot) {
            while !self.0.state.borrow_mut().table.raise_min(slot, log_min) {
                pacer.done(LOOK).await;
            }
            self.0.state.borrow_mut().mark_expired(slot, flushed, &self.0.marks);
            pacer.done(1).await;
        }
    }

    async fn remove_expired_runs(&self) -> io::Result<()> {
        let expired = {
            let mut state = self.0.state.borrow_mut();
            let count = state.runs.partition_point(|run| run.header.to <= state.log_min);
            let expired = state.runs[..count].to_vec();
            state.runs = Rc::new(state.runs[count..].to_vec());
            let oldest = state.runs.first().map_or(state.log_min, |run| run.header.from.min(state.log_min));
            let log_min = state.log_min;
            state.lost.retain(|(from, to)| {
                let is_gone = *to <= log_min;
                if is_gone {
                    self.0.marks.delete(&lost_key(*from));
                }
                !is_gone
            });
            for topic in state.table.forget_deletions(oldest) {
                self.0.marks.delete(&deleted_key(&topic));
            }
            expired
        };
        for run in &expired {
            self.0.reader.forget(run);
            self.0.env.remove_file(&run.path).await?;
        }
        if expired.is_empty() { Ok(()) } else { self.0.env.sync_dir(&self.0.dir).await }
    }

    /// Tells of a damaged run and marks it, so that the next start rebuilds it from the log. Until then what is
    /// whole in it is served.
    pub(super) async fn report_damage(&self, run: &Run, error: &RunError) {
        tracing::warn!(path = %run.path.display(), %error, "index run is damaged: rebuilt from the log at the next start");
        run.damaged.set(true);
        self.0.marks.put(&damaged_key(run.header.from), &[]);
        if let Err(error) = self.0.marks.flush().await {
            tracing::warn!(path = %run.path.display(), %error, "cannot mark the damaged run");
        }
    }
}

impl Table {
    /// Raises the minimum of a queue that has messages in a run.
    pub(super) fn raise_known_min(&mut self, topic: &str, extent: &Extent, min: i64) {
        if let Some(slot) = self.find(topic, QueueId(extent.queue)) {
            let since = self.since(slot);
            let queue = self.queue_mut(slot);
            if since <= extent.base_position {
                queue.min = queue.min.max(min).min(queue.next);
            }
        }
    }

    /// The queue may have lost messages between the log positions, if it has none behind.
    fn skip_lost(&mut self, slot: QueueSlot, from: u64, to: u64) {
        if !self.is_live(slot.0) {
            return;
        }
        let queue = self.queue_mut(slot);
        if queue.seen <= to {
            let most = to.saturating_sub(from.max(queue.seen)) / MIN_OFFSET_LEN;
            queue.next = queue.next.saturating_add(most as i64 + 1);
        }
    }

    /// Where the queue goes on, if everything that it had has expired, but for what is not on the device, and that was
    /// not said before.
    fn mark_if_expired(&mut self, slot: QueueSlot, log_min: u64, flushed: u64) -> Option<i64> {
        if !self.is_live(slot.0) {
            return None;
        }
        let first = self.first_position(slot);
        let queue = self.queue_mut(slot);
        let next = match first {
            _ if queue.seen <= log_min => queue.next,
            Some(first) if first.0 >= flushed => queue.min,
            _ => return None,
        };
        (queue.marked != next).then(|| {
            queue.marked = next;
            next
        })
    }

    /// Adds what a mark says; deletions come before expired queues.
    pub(super) fn apply_mark(&mut self, mark: &Mark) {
        match mark {
            Mark::Deleted { topic, at } => self.mark_deleted(topic, *at),
            Mark::Expired { topic, queue, next, seen } => {
                if *next > 0 && *seen > self.deleted_at(topic) {
                    let slot = self.slot(topic, *queue);
                    let queue = self.queue_mut(slot);
                    (queue.min, queue.next, queue.marked) = (*next, *next, *next);
                    queue.seen = *seen;
                }
            }
            Mark::LogMin(_) | Mark::Damaged(_) | Mark::Lost { .. } => {}
        }
    }

    /// Adds an extent of a run, in log order.
    pub(super) fn apply_extent(&mut self, topic: &str, extent: &Extent) {
        if extent.base_position < self.deleted_at(topic) {
            return;
        }
        debug_assert_eq!(extent.hash, queue_hash(topic, QueueId(extent.queue)));
        let slot = self.slot(topic, QueueId(extent.queue));
        if extent.base_position < self.queue(slot).seen {
            return;
        }
        if extent.first < self.queue(slot).next {
            self.restart(slot, extent.base_position);
        }
        let queue = self.queue_mut(slot);
        if queue.min == queue.next {
            queue.min = extent.first;
        }
        queue.next = extent.end();
        queue.seen = extent.last_position + 1;
    }
}
