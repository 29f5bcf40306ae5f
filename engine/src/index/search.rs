//! Finding entries, offsets by time and keys, on disk too.

use std::rc::Rc;

use ringmq_env::Env;

use super::format::{BLOCK, Extent};
use super::run::{Run, RunError};
use super::table::{IndexEntry, queue_hash};
use super::{Entries, Index, keys};
use crate::types::{Boundary, LogPosition, QueueId, QueueOffset, ReadError};

/// A queue as a search on disk sees it.
struct Target<'a> {
    hash: u64,
    topic: &'a str,
    queue: QueueId,
    /// Extents before this log position belong to a queue that was deleted.
    since: u64,
    /// Messages before this log position have expired.
    log_min: u64,
}

/// The set of runs changed under the search: begin again.
struct Stale;

/// A query by key: candidates for messages with the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySearch<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    /// Most candidates to return.
    pub max: usize,
    /// Store times wanted, in ms, both included.
    pub begin_ms: i64,
    pub end_ms: i64,
    /// Only messages before this position: to go on behind the last candidate.
    pub before: LogPosition,
}

impl<E: Env> Index<E> {
    /// Up to `max` entries of the queue without a gap, the first at or after `offset`. None at the queue's end.
    pub(crate) async fn entries(
        &self,
        topic: &str,
        queue: QueueId,
        offset: QueueOffset,
        max: usize,
    ) -> Result<Entries, ReadError> {
        assert!(max > 0);
        let mut found = Entries { first: offset, entries: Vec::new() };
        loop {
            let from = QueueOffset(found.first.0 + found.entries.len() as i64);
            let left = max - found.entries.len();
            let mut more = Vec::new();
            let first = match self.entries_hot(topic, queue, from, left, &mut more) {
                Some(first) => first,
                None => match self.entries_cold(topic, queue, from, left, &mut more).await? {
                    Ok(first) => first,
                    Err(Stale) => continue,
                },
            };
            if found.entries.is_empty() {
                found = Entries { first, entries: more };
            } else if first == from {
                found.entries.append(&mut more);
            } else {
                return Ok(found);
            }
            let end = found.first.0 + found.entries.len() as i64;
            let at_end = self.range(topic, queue).is_none_or(|range| end >= range.max.0);
            if found.entries.len() >= max || at_end {
                return Ok(found);
            }
        }
    }

    /// Entries from the runs, or from memory when the runs have none at or after `from`.
    async fn entries_cold(
        &self,
        topic: &str,
        queue: QueueId,
        from: QueueOffset,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<Result<QueueOffset, Stale>, ReadError> {
        let (runs, since, log_min, from, hot) = {
            let state = self.0.state.borrow();
            let Some(slot) = state.table.find(topic, queue) else { return Ok(Err(Stale)) };
            let known = state.table.queue(slot);
            let from = from.0.max(known.min);
            let since = state.table.since(slot);
            (Rc::clone(&state.runs), since, state.log_min, from, state.table.hot_start(slot))
        };
        let target = Target { hash: queue_hash(topic, queue), topic, queue, since, log_min };
        let result = self.search_runs(&runs, &target, from, max, out).await;
        let unchanged = Rc::ptr_eq(&runs, &self.0.state.borrow().runs);
        match result {
            // A run may be removed while it is read; one that is added changes nothing for what was found.
            Err(_) if !unchanged => Ok(Err(Stale)),
            Err((run, error)) => Err(self.read_error(&run, error).await),
            Ok(Some(first)) => Ok(Ok(QueueOffset(first))),
            Ok(None) if !unchanged => Ok(Err(Stale)),
            Ok(None) => {
                let first = self.entries_hot(topic, queue, QueueOffset(hot.max(from)), max, out);
                Ok(first.ok_or(Stale))
            }
        }
    }

    /// Entries of the first extent that reaches beyond `from`; the offset of the first entry.
    async fn search_runs(
        &self,
        runs: &[Rc<Run>],
        target: &Target<'_>,
        from: i64,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<Option<i64>, (Rc<Run>, RunError)> {
        let Some((run, extent)) = self.find_extent(runs, target, from).await? else { return Ok(None) };
        let skip = (from - extent.first).max(0);
        let read = self.0.reader.entries(&run, &extent, skip as u32, max, out).await;
        read.map_err(|error| (Rc::clone(&run), error))?;
        // The queue's minimum is past these, unless damage kept it from being raised.
        let expired = out.iter().take_while(|entry| entry.position.0 < target.log_min).count();
        out.drain(..expired);
        Ok(Some(extent.first + skip + expired as i64))
    }

    /// The queue's first extent that reaches beyond `from`: offsets ascend over the runs.
    async fn find_extent(
        &self,
        runs: &[Rc<Run>],
        target: &Target<'_>,
        from: i64,
    ) -> Result<Option<(Rc<Run>, Extent)>, (Rc<Run>, RunError)> {
        let wanted = |run: &&Rc<Run>| run.header.to > target.since && run.may_have(target.hash);
        let mut candidates: Vec<&Rc<Run>> = runs.iter().filter(wanted).collect();
        let (mut low, mut high, mut found) = (0, candidates.len(), None);
        while low < high {
            let middle = low + (high - low) / 2;
            let run = candidates[middle];
            let extents = self.0.reader.extents(run, target.hash, target.topic, target.queue.0).await;
            let mut extents = extents.map_err(|error| (Rc::clone(run), error))?;
            extents.retain(|extent| extent.base_position >= target.since);
            match extents.last() {
                None => {
                    candidates.remove(middle);
                    high -= 1;
                }
                Some(last) if last.end() <= from => low = middle + 1,
                Some(_) => {
                    high = middle;
                    let first = extents.into_iter().find(|extent| extent.end() > from);
                    found = first.map(|extent| (Rc::clone(run), extent));
                }
            }
        }
        Ok(found)
    }

    async fn read_error(&self, run: &Run, error: RunError) -> ReadError {
        let (position, len) = (run.header.from, BLOCK);
        match error {
            RunError::Io(source) => ReadError::Io { position, len, source },
            RunError::Damaged(_) => {
                self.report_damage(run, &error).await;
                ReadError::Damaged { position, len }
            }
        }
    }

    /// The offset that RocketMQ's `searchOffsetByTime` gives: of the messages with exactly this store time the first
    /// ([`Boundary::Lower`]) or the last ([`Boundary::Upper`]); else the first that is newer or the last that is
    /// older. 0 for an unknown queue, and for the upper boundary when all are newer; where a queue begins of which all
    /// is deleted.
    pub(crate) async fn offset_by_time(
        &self,
        topic: &str,
        queue: QueueId,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        let range = self.range(topic, queue).unwrap_or_default();
        if range.min >= range.max {
            return Ok(range.min);
        }
        let is_before = |store_ms: i64| match boundary {
            Boundary::Lower => store_ms < time_ms,
            Boundary::Upper => store_ms <= time_ms,
        };
        // The last message before the boundary, and the offset from which on messages are behind it.
        let (mut last, mut low, mut high) = (None, range.min.0, range.max.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.entries(topic, queue, QueueOffset(middle), 1).await?;
            match found.entries.first() {
                Some(entry) if found.first.0 < high && is_before(entry.store_ms) => {
                    last = Some(found.first);
                    low = found.first.0 + 1;
                }
                _ => high = middle,
            }
        }
        match boundary {
            Boundary::Upper => Ok(last.unwrap_or(QueueOffset(0))),
            Boundary::Lower if low >= range.max.0 => Ok(range.max),
            Boundary::Lower => Ok(self.entries(topic, queue, QueueOffset(low), 1).await?.first),
        }
    }

    /// Where messages with the key may lie, newest first. A candidate is to be checked: two keys may share a hash,
    /// and times are told by the second only.
    pub(crate) async fn query_keys(&self, search: &KeySearch<'_>) -> Result<Vec<LogPosition>, ReadError> {
        loop {
            if let Ok(found) = self.try_query_keys(search).await? {
                return Ok(found);
            }
        }
    }

    async fn try_query_keys(
        &self,
        search: &KeySearch<'_>,
    ) -> Result<Result<Vec<LogPosition>, Stale>, ReadError> {
        let hash = keys::key_hash(search.topic, search.key);
        let (mut found, runs, oldest) = {
            let state = self.0.state.borrow();
            let oldest = state.log_min.max(state.table.deleted_at(search.topic));
            let times = search.begin_ms..=search.end_ms;
            let wanted = state
                .keys
                .newest_first()
                .filter(|key| {
                    key.hash == hash && times.contains(&key.store_ms) && key.position < search.before.0
                })
                // What is in a run already is about to go.
                .take_while(|key| key.position >= oldest.max(state.indexed))
                .map(|key| LogPosition(key.position));
            (wanted.take(search.max).collect::<Vec<_>>(), Rc::clone(&state.runs), oldest)
        };
        for run in runs.iter().rev() {
            let header = &run.header;
            let times = header.keys_to_ms >= search.begin_ms && header.keys_from_ms <= search.end_ms;
            if found.len() >= search.max || header.to <= oldest {
                break;
            }
            if times && header.from < search.before.0 {
                match self.query_run(run, hash, search, oldest, &mut found).await {
                    Ok(()) => {}
                    // It may have been removed meanwhile: what it held has expired, or is in another one.
                    Err(_) if !Rc::ptr_eq(&runs, &self.0.state.borrow().runs) => return Ok(Err(Stale)),
                    Err(error) => return Err(self.read_error(run, error).await),
                }
            }
        }
        found.dedup();
        Ok(Ok(found))
    }

    async fn query_run(
        &self,
        run: &Run,
        hash: u64,
        search: &KeySearch<'_>,
        oldest: u64,
        found: &mut Vec<LogPosition>,
    ) -> Result<(), RunError> {
        for number in run.key_blocks(hash).rev() {
            let block = self.0.reader.block(run, number).await?;
            for key in run.keys_in(&block, number).rev().filter(|key| key.hash() == hash) {
                let position = key.position(&run.header);
                if found.len() >= search.max {
                    return Ok(());
                }
                let wanted = (oldest..search.before.0).contains(&position);
                if wanted && key.may_be_within(search.begin_ms, search.end_ms, &run.header) {
                    found.push(LogPosition(position));
                }
            }
        }
        Ok(())
    }
}
