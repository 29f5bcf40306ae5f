//! Opening a metadata log: which file counts, and what it says.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{Env, File, IoSlice, OpenOptions};

use super::format::{self, BLOCK, FORMAT, FileHeader, FrameHeader, Tail};
use super::{ALLOCATE_STEP, COMPACT_MIN, Inner, MetaLog, State, Table, file_path, is_full};
use crate::gate::Gate;
use crate::shard::OpenError;

/// Bytes read at a time.
const WINDOW: usize = 256 << 10;

const OPTIONS: OpenOptions =
    OpenOptions { write: true, create: false, create_new: false, dsync: true, direct: true };

pub(super) async fn open<E: Env>(env: E, dir: &Path, name: &str) -> Result<MetaLog<E>, OpenError> {
    env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
    let present = env.read_dir(dir).await.map_err(OpenError::at(dir))?;
    let exists = |path: &Path| present.iter().any(|e| path.file_name().is_some_and(|n| n == e.name.as_str()));
    let paths = [file_path(dir, name, 0), file_path(dir, name, 1)];
    if !exists(&paths[0]) {
        if exists(&paths[1]) {
            return Err(damaged(&paths[0], "it is missing, and the file beside it is not"));
        }
        create(&env, dir, name).await.map_err(OpenError::at(&paths[0]))?;
    }
    let first = env.open(&paths[0], OPTIONS).await.map_err(OpenError::at(&paths[0]))?;
    let second = env
        .open(&paths[1], OpenOptions { create: true, ..OPTIONS })
        .await
        .map_err(OpenError::at(&paths[1]))?;
    env.sync_dir(dir).await.map_err(OpenError::at(dir))?;
    open_files(env, [first, second], paths).await
}

fn damaged(path: &Path, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { path: path.to_path_buf(), what: what.into() }
}

/// The first file appears whole, under its name, or not at all.
async fn create<E: Env>(env: &E, dir: &Path, name: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let file = env.open(&temporary, OpenOptions { create: true, ..OPTIONS }).await?;
    file.allocate(0, ALLOCATE_STEP).await?;
    let header = FileHeader { format: FORMAT, generation: 1, id: env.random() };
    file.write_at(header.encode().0, 0).await?;
    file.sync().await?;
    env.rename(&temporary, &file_path(dir, name, 0)).await?;
    env.sync_dir(dir).await
}

async fn open_files<E: Env>(
    env: E,
    files: [E::File; 2],
    paths: [PathBuf; 2],
) -> Result<MetaLog<E>, OpenError> {
    let mut headers = [None, None];
    let mut sizes = [0; 2];
    for at in 0..2 {
        let block = files[at].read_at(0, BLOCK).await.map_err(OpenError::at(&paths[at]))?;
        headers[at] = FileHeader::decode(&block);
        sizes[at] = files[at].size().await.map_err(OpenError::at(&paths[at]))?;
    }
    let generation = |at: usize| headers[at].as_ref().map_or(0, |(header, _)| header.generation);
    let active = usize::from(generation(1) > generation(0));
    let Some((header, crc)) = headers[active] else {
        return Err(damaged(&paths[active], "neither of the two files has a whole header"));
    };
    if header.format > FORMAT {
        return Err(OpenError::NewerFormat {
            path: paths[active].clone(),
            found: header.format,
            known: FORMAT,
        });
    }
    let start = Tail { at: BLOCK as u64, id: header.id, seq: 0, prev: crc, epoch: 0 };
    let mut reader = Reader { file: &files[active], path: &paths[active], size: sizes[active], window: None };
    let (table, mut tail) = reader.replay(start).await?;
    tail.epoch += 1;
    if headers[1 - active].is_some() {
        // A crash came between a snapshot's take-over and this step of it.
        let zeroes = IoSlice::copy_of(&[0; BLOCK]);
        files[1 - active].write_at(zeroes, 0).await.map_err(OpenError::at(&paths[1 - active]))?;
    }
    let state = State {
        active,
        generation: header.generation,
        tail,
        allocated: sizes.map(|size| size / BLOCK as u64 * BLOCK as u64),
        table,
        changes: 0,
        durable: 0,
        compact_at: COMPACT_MIN,
    };
    let inner = Inner {
        env,
        files,
        paths,
        writing: Gate::default(),
        compacting: Gate::default(),
        state: RefCell::new(state),
    };
    let log = MetaLog(Rc::new(inner));
    match log.reserve(1 - active, ALLOCATE_STEP, ALLOCATE_STEP).await {
        Err(error) if !is_full(&error) => Err(OpenError::at(&log.0.paths[1 - active])(error)),
        _ => Ok(log),
    }
}

/// Reads a file's frames through a window.
struct Reader<'a, F: File> {
    file: &'a F,
    path: &'a Path,
    size: u64,
    window: Option<(u64, IoSlice)>,
}

impl<F: File> Reader<'_, F> {
    /// Up to `len` bytes at `at`; shorter at the end of the file.
    async fn bytes(&mut self, at: u64, len: usize) -> Result<IoSlice, OpenError> {
        let len = len.min(self.size.saturating_sub(at) as usize);
        if let Some((start, window)) = &self.window
            && *start <= at
            && at + len as u64 <= *start + window.len() as u64
        {
            return Ok(window.slice((at - start) as usize, len));
        }
        assert!(at.is_multiple_of(BLOCK as u64));
        let whole = len.max(WINDOW).next_multiple_of(BLOCK);
        let window = self.file.read_at(at, whole).await.map_err(OpenError::at(self.path))?;
        let part = window.slice(0, len.min(window.len()));
        self.window = Some((at, window));
        Ok(part)
    }

    /// The frame at `at`, if a whole one of this generation starts there.
    async fn frame(&mut self, at: u64, id: u64) -> Result<Option<(FrameHeader, IoSlice)>, OpenError> {
        let head = self.bytes(at, format::FRAME_HEADER).await?;
        let Some(header) = FrameHeader::decode(&head).filter(|header| header.id == id) else {
            return Ok(None);
        };
        if header.total() as u64 > self.size.saturating_sub(at) {
            return Ok(None);
        }
        let frame = self.bytes(at, header.total()).await?;
        Ok(header.is_whole(&frame).then_some((header, frame)))
    }

    /// The table that the frames from `tail` on make, and the tail behind the last.
    async fn replay(&mut self, mut tail: Tail) -> Result<(Table, Tail), OpenError> {
        let mut table = Table::default();
        while let Some((header, frame)) = self.frame(tail.at, tail.id).await?
            && header.continues(&tail)
        {
            let Some(entries) = format::entries(&frame, header.entries) else {
                return Err(damaged(self.path, format!("the frame at {} does not add up", tail.at)));
            };
            entries.into_iter().for_each(|(key, value)| table.set(key, value));
            tail = header.advance(&tail);
        }
        self.check_rest(&tail).await?;
        Ok((table, tail))
    }

    /// One write is in flight at a time, so a frame behind a broken one means that an acknowledged one was lost.
    async fn check_rest(&mut self, tail: &Tail) -> Result<(), OpenError> {
        let mut at = tail.at;
        while at < self.size {
            if let Some((header, _)) = self.frame(at, tail.id).await?
                && header.seq >= tail.seq
            {
                let what = format!(
                    "frame {} at {at} is whole, frame {} at {} is not",
                    header.seq, tail.seq, tail.at
                );
                return Err(damaged(self.path, what));
            }
            at += BLOCK as u64;
        }
        Ok(())
    }
}
