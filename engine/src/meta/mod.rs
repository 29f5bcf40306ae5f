//! A durable table of keys and values for metadata: an append log that compacts itself.
//!
//! Two files take turns. The active one holds a snapshot and behind it the changes, in checksummed, chained frames;
//! the other keeps its disk space for the next snapshot, so that metadata can still be changed on a full disk. A
//! snapshot is written while changes go on, and takes over with the write of its file's header block.

mod compact;
mod format;
mod load;

pub(crate) use load::check;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{Env, Fatal, File, IoSlice, fatal, mutant};

use crate::damage::DamageReport;
use crate::gate::{Gate, Pass};
use crate::shard::OpenError;
use crate::slices::{Job, SliceStats, Slices};
use format::{BLOCK, ENTRY_HEADER, FrameBuilder, Tail};

/// Disk space is reserved in steps of this many bytes.
const ALLOCATE_STEP: u64 = 1 << 20;
/// Below this length a log is not compacted.
const COMPACT_MIN: u64 = 1 << 20;

/// The table. Lives on one core; cheap to clone: clones are the same table.
pub struct MetaLog<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for MetaLog<E> {
    fn clone(&self) -> Self {
        MetaLog(Rc::clone(&self.0))
    }
}

struct Inner<E: Env> {
    env: E,
    /// The two files; which one is active says [`State::active`].
    files: [E::File; 2],
    paths: [PathBuf; 2],
    /// Held by whoever writes to the active file.
    writing: Gate,
    /// Held while a snapshot is written.
    compacting: Gate,
    state: RefCell<State>,
    slices: Slices,
}

struct State {
    active: usize,
    generation: u64,
    tail: Tail,
    /// Bytes of each file that have disk space.
    allocated: [u64; 2],
    table: Table,
    /// Calls of put and delete so far, and how many of them are durable. `durable <= changes`.
    changes: u64,
    durable: u64,
    /// The length from which a compaction is tried (again).
    compact_at: u64,
}

type Key = Box<[u8]>;

/// Live entries, and which of them still have to be written.
#[derive(Default)]
struct Table {
    live: BTreeMap<Key, Box<[u8]>>,
    live_bytes: u64,
    /// Keys changed since they were last written to the active file.
    staged: BTreeSet<Key>,
    /// Keys changed or written since the running snapshot began.
    since_snapshot: Option<BTreeSet<Key>>,
}

impl Table {
    fn entry_bytes(key: &[u8], value: &[u8]) -> u64 {
        (ENTRY_HEADER + key.len() + value.len()) as u64
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.live_bytes += Table::entry_bytes(key, value);
                self.live.insert(key.into(), value.into())
            }
            None => self.live.remove(key),
        };
        if let Some(old) = old {
            self.live_bytes -= Table::entry_bytes(key, &old);
        }
    }

    fn replay(&self, replay: &mut dyn FnMut(&[u8], &[u8])) {
        self.live.iter().for_each(|(key, value)| replay(key, value));
    }

    fn stage(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.set(key, value);
        self.staged.insert(key.into());
        if let Some(changed) = &mut self.since_snapshot {
            changed.insert(key.into());
        }
    }

    /// A frame of the present values of the first keys of `keys`; what it holds is moved to `taken`.
    fn frame_of(&self, keys: &mut BTreeSet<Key>, taken: &mut Vec<Key>) -> FrameBuilder {
        let mut frame = FrameBuilder::new();
        while !frame.is_full()
            && let Some(key) = keys.pop_first()
        {
            frame.add(&key, self.live.get(&key).map(|value| &**value));
            taken.push(key);
        }
        frame
    }

    /// A frame of the live entries behind `after`, and the last key in it.
    fn snapshot_frame(&self, after: Option<&[u8]>) -> (FrameBuilder, Option<Key>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut frame, mut last) = (FrameBuilder::new(), None);
        for (key, value) in self.live.range::<[u8], _>((from, Bound::Unbounded)) {
            frame.add(key, Some(value));
            last = Some(key);
            if frame.is_full() {
                break;
            }
        }
        let last = last.cloned();
        (frame, last)
    }
}

impl<E: Env> MetaLog<E> {
    /// Opens the table `name` of `dir` (made if missing) and calls `replay` with every live key and value, in the
    /// order of the keys. A torn last write, which nobody was told is durable, is cut off; damage before that is an
    /// error, because nothing could rebuild what is lost.
    pub async fn open(
        env: E,
        dir: &Path,
        name: &str,
        replay: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<MetaLog<E>, OpenError> {
        let log = load::open(env, dir, name, None).await?;
        log.0.state.borrow().table.replay(replay);
        Ok(log)
    }

    /// As [`MetaLog::open`]; but damage is told in `report`, and what is whole of the table is kept and put in a new
    /// file. For tables whose loss in part is better than no service.
    pub async fn open_what_is_whole(
        env: E,
        dir: &Path,
        name: &str,
        report: &DamageReport,
        replay: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<MetaLog<E>, OpenError> {
        let log = load::open(env, dir, name, Some(report)).await?;
        log.0.state.borrow().table.replay(replay);
        Ok(log)
    }

    /// Sets a value; staged until the next [`MetaLog::flush`]. The latest wins.
    pub fn put(&self, key: &[u8], value: &[u8]) {
        self.stage(key, Some(value));
    }

    /// Removes a key; staged until the next [`MetaLog::flush`].
    pub fn delete(&self, key: &[u8]) {
        self.stage(key, None);
    }

    fn stage(&self, key: &[u8], value: Option<&[u8]>) {
        let mut state = self.0.state.borrow_mut();
        state.table.stage(key, value);
        state.changes += 1;
    }

    /// Makes everything staged before the call durable. Calls that come together share one write.
    ///
    /// Without disk space it fails, and what is staged stays staged: call again later. Any other failure of a
    /// write ends the process.
    pub async fn flush(&self) -> io::Result<()> {
        let target = self.0.state.borrow().changes;
        if self.0.state.borrow().durable >= target {
            return Ok(());
        }
        let pass = self.0.writing.enter().await;
        if self.0.state.borrow().durable < target {
            self.write_staged(&pass).await?;
        }
        drop(pass);
        self.compact_if_due();
        Ok(())
    }

    /// For how long its compaction held the core at a stretch.
    pub fn compaction_slices(&self) -> SliceStats {
        self.0.slices.of(Job::MetadataCompaction)
    }

    /// Bytes of the live keys and values as stored.
    pub fn live_bytes(&self) -> u64 {
        self.0.state.borrow().table.live_bytes
    }

    async fn write_staged(&self, pass: &Pass) -> io::Result<()> {
        let (mut keys, target) = {
            let mut state = self.0.state.borrow_mut();
            (std::mem::take(&mut state.table.staged), state.changes)
        };
        while !keys.is_empty() {
            let mut taken = Vec::new();
            let (frame, tail) = {
                let state = self.0.state.borrow();
                state.table.frame_of(&mut keys, &mut taken).finish(&state.tail)
            };
            if let Err(error) = self.append(pass, frame, tail).await {
                keys.extend(taken);
                self.0.state.borrow_mut().table.staged.append(&mut keys);
                return Err(error);
            }
        }
        let mut state = self.0.state.borrow_mut();
        assert!(state.durable <= target && target <= state.changes);
        state.durable = target;
        Ok(())
    }

    /// Writes a frame behind the active file's last one; `tail` is the tail behind it.
    async fn append(&self, _pass: &Pass, frame: IoSlice, tail: Tail) -> io::Result<()> {
        let (file, at) = {
            let state = self.0.state.borrow();
            (state.active, state.tail.at)
        };
        assert!(tail.at == at + frame.len() as u64);
        self.reserve(file, tail.at, ALLOCATE_STEP).await?;
        let written = match mutant!("metadata-not-written") && at > 4 * BLOCK as u64 {
            true => Ok(()),
            false => self.0.files[file].write_at(frame, at).await,
        };
        match written {
            Ok(()) => self.0.state.borrow_mut().tail = tail,
            Err(error) if is_full(&error) => return Err(error),
            Err(error) => fatal(Fatal::Write { path: self.0.paths[file].clone(), error }),
        }
        Ok(())
    }

    /// Makes sure that the file has disk space up to `end`; more is asked for in steps of `step` bytes.
    async fn reserve(&self, file: usize, end: u64, step: u64) -> io::Result<()> {
        let allocated = self.0.state.borrow().allocated[file];
        if end <= allocated {
            return Ok(());
        }
        let len = (end - allocated).next_multiple_of(step);
        self.0.files[file].allocate(allocated, len).await?;
        self.0.state.borrow_mut().allocated[file] = allocated + len;
        Ok(())
    }
}

/// Whether the error says that there is no space left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn file_path(dir: &Path, name: &str, file: usize) -> PathBuf {
    dir.join(format!("{name}.{}", ["a", "b"][file]))
}

#[cfg(test)]
mod tests;
