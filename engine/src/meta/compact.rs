//! Writing a snapshot into the other file while changes go on.

use std::collections::BTreeSet;
use std::io;

use ringmq_env::{Env, Fatal, File, IoSlice, fatal};

use super::format::{BLOCK, FORMAT, FileHeader, FrameBuilder, Tail};
use crate::slices::Job;

use super::{ALLOCATE_STEP, COMPACT_MIN, MetaLog, is_full};

/// A snapshot under way.
struct Snapshot {
    file: usize,
    header: FileHeader,
    tail: Tail,
}

impl<E: Env> MetaLog<E> {
    /// Starts a compaction in a task of its own when the log is long against what lives in it.
    pub(super) fn compact_if_due(&self) {
        let due = {
            let state = self.0.state.borrow();
            state.tail.at > state.compact_at.max(2 * state.table.live_bytes)
        };
        if due && let Some(pass) = self.0.compacting.try_enter() {
            let log = self.clone();
            self.0.env.spawn(async move {
                let compacted = log.0.slices.measured(&log.0.env, Job::MetadataCompaction, log.compact());
                if let Err(error) = compacted.await {
                    log.put_off(error);
                }
                drop(pass);
            });
        }
    }

    pub(super) fn put_off(&self, error: io::Error) {
        if !is_full(&error) {
            let path = self.0.paths[1 - self.0.state.borrow().active].clone();
            fatal(Fatal::Write { path, error });
        }
        tracing::warn!(%error, "no space for a snapshot of metadata: tried again later");
        let mut state = self.0.state.borrow_mut();
        state.table.since_snapshot = None;
        state.compact_at = state.tail.at + COMPACT_MIN / 4;
    }

    /// Changes made while this runs are durable in the old file when their flush returns; those that the snapshot
    /// may have passed over are added to it before it takes over.
    pub(super) async fn compact(&self) -> io::Result<()> {
        let mut snapshot = self.begin_snapshot();
        self.write_live(&mut snapshot).await?;
        let pass = self.0.writing.enter().await;
        let changed = self.0.state.borrow_mut().table.since_snapshot.take().unwrap_or_default();
        self.write_changed(&mut snapshot, changed).await?;
        // Whether a header is on the disk decides which file counts: not to know is beyond handling.
        self.write_header(snapshot.file, snapshot.header.encode().0).await;
        let old = self.take_over(snapshot);
        // From here on the old file must not count, even if the new header is damaged one day.
        self.write_header(old, IoSlice::copy_of(&[0; BLOCK])).await;
        drop(pass);
        Ok(())
    }

    async fn write_header(&self, file: usize, block: IoSlice) {
        if let Err(error) = self.0.files[file].write_at(block, 0).await {
            fatal(Fatal::Write { path: self.0.paths[file].clone(), error });
        }
    }

    fn begin_snapshot(&self) -> Snapshot {
        let mut state = self.0.state.borrow_mut();
        state.table.since_snapshot = Some(BTreeSet::new());
        let header = FileHeader { format: FORMAT, generation: state.generation + 1, id: self.0.env.random() };
        let tail = Tail {
            at: BLOCK as u64,
            id: header.id,
            seq: 0,
            prev: header.encode().1,
            epoch: state.tail.epoch,
        };
        Snapshot { file: 1 - state.active, header, tail }
    }

    async fn write_live(&self, snapshot: &mut Snapshot) -> io::Result<()> {
        let mut after = None;
        loop {
            let (frame, last) = self.0.state.borrow().table.snapshot_frame(after.as_deref());
            if last.is_none() {
                return Ok(());
            }
            after = last;
            self.write_frame(snapshot, frame).await?;
            self.0.env.yield_now().await;
        }
    }

    async fn write_changed(&self, snapshot: &mut Snapshot, mut keys: BTreeSet<super::Key>) -> io::Result<()> {
        while !keys.is_empty() {
            let frame = self.0.state.borrow().table.frame_of(&mut keys, &mut Vec::new());
            self.write_frame(snapshot, frame).await?;
        }
        Ok(())
    }

    async fn write_frame(&self, snapshot: &mut Snapshot, frame: FrameBuilder) -> io::Result<()> {
        assert!(!frame.is_empty());
        let (bytes, tail) = frame.finish(&snapshot.tail);
        self.reserve(snapshot.file, tail.at, ALLOCATE_STEP).await?;
        self.0.files[snapshot.file].write_at(bytes, snapshot.tail.at).await?;
        snapshot.tail = tail;
        Ok(())
    }

    /// Makes the snapshot's file the active one; returns the other.
    fn take_over(&self, snapshot: Snapshot) -> usize {
        let mut state = self.0.state.borrow_mut();
        let old = state.active;
        assert!(snapshot.file != old && snapshot.header.generation == state.generation + 1);
        state.active = snapshot.file;
        state.generation = snapshot.header.generation;
        state.tail = snapshot.tail;
        state.compact_at = COMPACT_MIN;
        old
    }
}
