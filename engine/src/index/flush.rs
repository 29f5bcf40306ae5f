//! Writing what is in memory as a run, while messages go on coming in.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{Env, Fatal, fatal};

use super::Index;
use super::build::{Built, Finished, QueueName, RunBuilder};
use super::format::{FORMAT, Header, MAX_SPAN, NOWHERE, PackedKey, whole_second};
use super::keys::HotKey;
use super::run::Run;
use super::sorted::Buckets;
use super::table::{IndexEntry, QueueSlot, Table};
use crate::meta::is_full;
use crate::slices::{LOOK, Pacer};
use crate::types::LogPosition;

/// A run is due when this much of the log is not in one,
const FLUSH_LOG: u64 = 64 << 20;
/// unless so many queues have a part of it that each has less than this: a queue costs as much as its entries then.
/// Then a run is due later,
const QUEUE_LOG: u64 = 4 << 10;
/// when this much of the log is not in one,
const MOST_FLUSH_LOG: u64 = 128 << 20;
/// or when entries and keys take this many bytes of memory.
const FLUSH_MEMORY: usize = 32 << 20;
/// Entries of one queue, or queues, handled between two looks at the clock.
const SLICE: usize = 512;
/// Queues of which all is fetched into the cache together, before they are written.
const AHEAD: usize = 64;

/// File name of the run of a range of the log.
pub(super) fn run_path(dir: &Path, from: u64, to: u64) -> PathBuf {
    dir.join(format!("{from:020}-{to:020}.run"))
}

/// Writes queues to a run.
struct QueueWriter<'a, E: Env> {
    builder: &'a mut RunBuilder<E>,
    /// Where the run has the names of the topics, by their numbers in the table; [`NOWHERE`]: it has not.
    names: Vec<u32>,
    entries: Vec<IndexEntry>,
}

impl<E: Env> QueueWriter<'_, E> {
    fn name(&mut self, hash: u64, slot: QueueSlot, table: &Table) -> QueueName {
        let (number, topic, queue) = table.numbered_name(slot);
        // A topic that was made meanwhile has no entries in the run.
        let mut unknown = NOWHERE;
        let place = self.names.get_mut(number as usize).unwrap_or(&mut unknown);
        if *place == NOWHERE {
            *place = self.builder.add_name(topic.as_bytes());
        }
        QueueName { hash, topic: *place, queue: queue.0 }
    }

    /// Adds the entries, of which the first has the offset `first`.
    #[inline]
    async fn add(&mut self, name: &QueueName, first: i64) -> io::Result<()> {
        let mut done = 0;
        while done < self.entries.len() {
            let left = &self.entries[done..];
            let added = self.builder.add(name, 0, first + done as i64, left, |entry| *entry);
            if added == 0 {
                self.builder.end_block().await?;
            }
            done += added;
            self.builder.done_quickly(added).await;
        }
        Ok(())
    }
}

impl<E: Env> Index<E> {
    /// Whether so much is in memory, or would have to be scanned after a crash, that a run should be written;
    /// `log_end` is the log's committed end.
    pub(crate) fn flush_due(&self, log_end: LogPosition) -> bool {
        let state = self.0.state.borrow();
        let memory = state.table.entry_memory() + state.keys.memory();
        let wanted = QUEUE_LOG * state.table.hot() as u64;
        log_end.0.saturating_sub(state.indexed) >= wanted.clamp(FLUSH_LOG, MOST_FLUSH_LOG)
            || memory >= FLUSH_MEMORY
    }

    /// Writes everything before `upto` as a run; messages may be pushed meanwhile. `upto` must be durable in the log
    /// and all before it pushed. Without disk space it fails, and all stays in memory: call it again later. Any
    /// other failure of a write ends the process.
    pub(crate) async fn flush(&self, upto: LogPosition) -> io::Result<()> {
        let pass = self.0.changing_runs.enter().await;
        // A run leaves out what is deleted, and what has expired: what the marks say of those must be durable before.
        self.0.marks.flush().await?;
        let from = self.0.state.borrow().indexed;
        let to = upto.0.min(from.saturating_add(MAX_SPAN));
        if to <= from {
            return Ok(());
        }
        let slots = self.0.state.borrow_mut().table.take_hot();
        let header = Header { format: FORMAT, id: self.0.env.random(), from, to, ..Header::default() };
        let place = run_path(&self.0.dir, from, to);
        let temporary = place.with_extension("tmp");
        let written = async { self.write_run(header, &slots, &temporary).await?.put_in_place(&place).await };
        match written.await {
            Ok(built) => self.publish(built, slots, place).await,
            Err(error) if is_full(&error) => {
                self.0.state.borrow_mut().table.restore_hot(slots);
                self.0.env.remove_file(&temporary).await?;
                return Err(error);
            }
            Err(error) => fatal(Fatal::Write { path: temporary, error }),
        }
        drop(pass);
        Ok(())
    }

    async fn write_run(
        &self,
        mut header: Header,
        slots: &[(u64, u32)],
        temporary: &Path,
    ) -> io::Result<Finished<E>> {
        let keys = self.pack_keys(&mut header).await;
        let by_hash = self.slots_by_hash(slots).await;
        let (env, temporary) = (self.0.env.clone(), temporary.to_path_buf());
        let mut builder = RunBuilder::create(env, temporary, header, None).await?;
        let topics = self.0.state.borrow().table.topics();
        let mut queues =
            QueueWriter { builder: &mut builder, names: vec![NOWHERE; topics], entries: Vec::new() };
        for sorted in by_hash {
            for part in sorted.chunks(AHEAD) {
                let slots = part.iter().map(|(_, slot)| *slot);
                self.0.state.borrow().table.prefetch_for_run(slots, &queues.names);
                for (hash, slot) in part {
                    self.add_queue(&mut queues, *hash, QueueSlot(*slot), header.to).await?;
                }
            }
        }
        builder.end_queues().await?;
        for sorted in keys {
            builder.add_keys(&sorted).await?;
        }
        builder.finish().await
    }

    /// The keys of the run's range, sorted. Sets the range of their store times.
    async fn pack_keys(&self, header: &mut Header) -> Vec<Vec<PackedKey>> {
        let (to, mut pacer) = (header.to, Pacer::new(&self.0.env));
        let (mut from_ms, mut to_ms) = (i64::MAX, i64::MIN);
        let mut items = 0;
        let look = |keys: &[HotKey]| {
            from_ms = keys.iter().map(|key| key.store_ms).fold(from_ms, i64::min);
            to_ms = keys.iter().map(|key| key.store_ms).fold(to_ms, i64::max);
            items += keys.len();
        };
        self.each_chunk(to, &mut pacer, look).await;
        if items > 0 {
            (header.keys_from_ms, header.keys_to_ms) = (whole_second(from_ms), to_ms);
        }
        let mut buckets = Buckets::new(items, |key: &PackedKey| key.hash());
        let pack = |keys: &[HotKey]| {
            for HotKey { hash, position, store_ms } in keys {
                buckets.push(PackedKey::new(*hash, *position, *store_ms, header));
            }
        };
        self.each_chunk(to, &mut pacer, pack).await;
        buckets.sorted(&mut pacer).await
    }

    /// Does something with the keys that lie before `to`, chunk by chunk. None of the chunks goes while a run is written.
    async fn each_chunk(&self, to: u64, pacer: &mut Pacer<E>, mut work: impl FnMut(&[HotKey])) {
        for chunk in 0.. {
            let done = {
                let state = self.0.state.borrow();
                let keys = state.keys.chunk(chunk).unwrap_or_default();
                let keys = &keys[..keys.partition_point(|key| key.position < to)];
                work(keys);
                keys.len()
            };
            if done == 0 {
                break;
            }
            pacer.done_quickly(done).await;
        }
    }

    async fn slots_by_hash(&self, slots: &[(u64, u32)]) -> Vec<Vec<(u64, u32)>> {
        let mut pacer = Pacer::new(&self.0.env);
        let mut buckets = Buckets::new(slots.len(), |slot: &(u64, u32)| slot.0);
        for part in slots.chunks(SLICE) {
            part.iter().for_each(|slot| buckets.push(*slot));
            pacer.done(part.len()).await;
        }
        buckets.sorted(&mut pacer).await
    }

    async fn add_queue(
        &self,
        to_run: &mut QueueWriter<'_, E>,
        hash: u64,
        slot: QueueSlot,
        to: u64,
    ) -> io::Result<()> {
        let mut next = 0;
        loop {
            let entries = &mut to_run.entries;
            entries.clear();
            // Also what a topic does not keep any more: without it the queue would have a gap after the next start.
            let (first, end) = {
                let table = &self.0.state.borrow().table;
                (table.all_entries(slot, next, SLICE, entries), table.queue(slot).next)
            };
            entries.truncate(entries.partition_point(|entry| entry.position.0 < to));
            if entries.is_empty() {
                return Ok(());
            }
            next = first + entries.len() as i64;
            let name = to_run.name(hash, slot, &self.0.state.borrow().table);
            to_run.add(&name, first).await?;
            // Most queues have few entries: they need no second look.
            if next == end {
                return Ok(());
            }
        }
    }

    /// The run takes the place of what it holds in memory.
    async fn publish(&self, built: Built, slots: Vec<(u64, u32)>, place: PathBuf) {
        let to = built.header.to;
        let run = Rc::new(Run::new(built.header, place, built.fences, built.filter));
        {
            let mut state = self.0.state.borrow_mut();
            assert!(state.indexed == run.header.from, "runs follow one another");
            let mut runs = state.runs.to_vec();
            runs.push(run);
            state.runs = Rc::new(runs);
            state.indexed = to;
            state.bytes_written += built.bytes;
        }
        while !self.0.state.borrow_mut().keys.release(to) {
            self.0.env.yield_now().await;
        }
        let mut pacer = Pacer::new(&self.0.env);
        for part in slots.chunks(AHEAD) {
            let part = part.iter().map(|(_, slot)| *slot);
            self.0.state.borrow().table.prefetch_to_release(part.clone());
            for slot in part {
                while !self.0.state.borrow_mut().table.release(slot, to) {
                    pacer.done(LOOK).await;
                }
                pacer.done(1).await;
            }
        }
        self.0.state.borrow_mut().table.reclaim(to);
    }
}
