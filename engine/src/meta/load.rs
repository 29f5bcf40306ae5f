//! Opening a metadata log: which file counts, and what it says.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringmq_env::{DirEntry, Env, File, IoSlice, OpenOptions};

use super::format::{self, BLOCK, FORMAT, FileHeader, FrameHeader, Tail};
use super::{ALLOCATE_STEP, COMPACT_MIN, Inner, MetaLog, State, Table, file_path, is_full};
use crate::damage::{Damage, DamageReport};
use crate::gate::Gate;
use crate::inspect::read_dir_if_any;
use crate::reread::read_again;
use crate::shard::OpenError;
use crate::slices::Slices;

/// Bytes read at a time.
const WINDOW: usize = 256 << 10;

const OPTIONS: OpenOptions =
    OpenOptions { write: true, create: false, create_new: false, dsync: true, direct: true };

/// Opens the table. With a `report`, damage is told there, and what is whole is kept.
pub(super) async fn open<E: Env>(
    env: E,
    dir: &Path,
    name: &str,
    report: Option<&DamageReport>,
) -> Result<MetaLog<E>, OpenError> {
    env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
    let present = env.read_dir(dir).await.map_err(OpenError::at(dir))?;
    let paths = [file_path(dir, name, 0), file_path(dir, name, 1)];
    if !are_there(&present, &paths)?[0] {
        create(&env, dir, name).await.map_err(OpenError::at(&paths[0]))?;
    }
    let first = env.open(&paths[0], OPTIONS).await.map_err(OpenError::at(&paths[0]))?;
    let second = env
        .open(&paths[1], OpenOptions { create: true, ..OPTIONS })
        .await
        .map_err(OpenError::at(&paths[1]))?;
    env.sync_dir(dir).await.map_err(OpenError::at(dir))?;
    open_files(env, [first, second], paths, report).await
}

/// Which of the two files are among what is present; never the second alone.
fn are_there(present: &[DirEntry], paths: &[PathBuf; 2]) -> Result<[bool; 2], OpenError> {
    let is_there = |path: &PathBuf| {
        let mut names = present.iter().map(|entry| entry.name.as_str());
        names.any(|name| path.file_name().is_some_and(|of| of == name))
    };
    match [is_there(&paths[0]), is_there(&paths[1])] {
        [false, true] => Err(damaged(&paths[0], "it is missing, and the file beside it is not")),
        there => Ok(there),
    }
}

/// Reads the table without changing it, tells of damage, and calls `replay` with every live key and value; returns how many
/// there are. A table that is missing has none. An error is what stops a start.
pub(crate) async fn check<E: Env>(
    env: &E,
    dir: &Path,
    name: &str,
    report: &DamageReport,
    replay: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64, OpenError> {
    let present = read_dir_if_any(env, dir).await.map_err(OpenError::at(dir))?;
    let paths = [file_path(dir, name, 0), file_path(dir, name, 1)];
    let [has_first, has_second] = are_there(&present, &paths)?;
    if !has_first {
        return Ok(0);
    }
    let options = OpenOptions { direct: true, ..OpenOptions::default() };
    let first = env.open(&paths[0], options).await.map_err(OpenError::at(&paths[0]))?;
    let second = match has_second {
        true => env.open(&paths[1], options).await.map_err(OpenError::at(&paths[1]))?,
        // A start that was cut short has not made it yet. It would be empty, and count for no more than the first.
        false => first.clone(),
    };
    let table = read_only(&[first, second], &paths, report).await?;
    table.replay(replay);
    Ok(table.live.len() as u64)
}

async fn read_only<F: File>(
    files: &[F; 2],
    paths: &[PathBuf; 2],
    report: &DamageReport,
) -> Result<Table, OpenError> {
    let Found { active, header, sizes, .. } = Found::look(files, paths, Some(report)).await?;
    let (file, path, size) = (&files[active], &paths[active], sizes[active]);
    let mut reader = Reader { file, path, size, window: None, report: Some(report) };
    let start = match header {
        Some((header, crc)) => Tail { at: BLOCK as u64, id: header.id, seq: 0, prev: crc, epoch: 0 },
        None => reader.start_without_header().await?,
    };
    let (table, ..) = reader.replay(start).await?;
    Ok(table)
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
    report: Option<&DamageReport>,
) -> Result<MetaLog<E>, OpenError> {
    let found = Found::look(&files, &paths, report).await?;
    let active = found.active;
    let mut reader = Reader {
        file: &files[active],
        path: &paths[active],
        size: found.sizes[active],
        window: None,
        report,
    };
    let start = match found.header {
        Some((header, crc)) => Tail { at: BLOCK as u64, id: header.id, seq: 0, prev: crc, epoch: 0 },
        None => reader.start_without_header().await?,
    };
    let (table, mut tail, whole) = reader.replay(start).await?;
    // The last frame may be one that a killed process was writing: it shows, and is not on the device. What comes
    // behind it will be.
    files[active].sync().await.map_err(OpenError::at(&paths[active]))?;
    tail.epoch += 1;
    if found.is_superseded {
        // A crash came between a snapshot's take-over and this step of it.
        let zeroes = IoSlice::copy_of(&[0; BLOCK]);
        files[1 - active].write_at(zeroes, 0).await.map_err(OpenError::at(&paths[1 - active]))?;
    }
    let generation = found.header.map_or(SALVAGED, |(header, _)| header.generation);
    let (sizes, is_damaged) = (found.sizes, !whole || found.header.is_none());
    let state = State {
        active,
        generation,
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
        slices: Slices::default(),
    };
    let log = MetaLog(Rc::new(inner));
    match log.reserve(1 - active, ALLOCATE_STEP, ALLOCATE_STEP).await {
        Err(error) if !is_full(&error) => return Err(OpenError::at(&log.0.paths[1 - active])(error)),
        _ => {}
    }
    if is_damaged {
        log.replace_damaged().await?;
    }
    Ok(log)
}

/// Generation of a file whose header is lost: above every other.
const SALVAGED: u64 = 1 << 32;

/// What the two files' first blocks say.
struct Found {
    active: usize,
    /// The active file's header and its CRC; `None` if it is lost.
    header: Option<(FileHeader, u32)>,
    /// The other file has a header too, of an earlier generation.
    is_superseded: bool,
    sizes: [u64; 2],
}

impl Found {
    async fn look<F: File>(
        files: &[F; 2],
        paths: &[PathBuf; 2],
        report: Option<&DamageReport>,
    ) -> Result<Found, OpenError> {
        let (mut headers, mut sizes, mut is_blank) = ([None, None], [0; 2], [true; 2]);
        for at in 0..2 {
            let block = read_again(&files[at], 0, BLOCK).await;
            let block = match (block, report) {
                (Err(_), Some(_)) => IoSlice::copy_of(&[u8::MAX]),
                (block, _) => block.map_err(OpenError::at(&paths[at]))?,
            };
            headers[at] = FileHeader::decode(&block);
            is_blank[at] = block.iter().all(|byte| *byte == 0);
            sizes[at] = files[at].size().await.map_err(OpenError::at(&paths[at]))?;
        }
        let generation = |at: usize| headers[at].as_ref().map_or(0, |(header, _)| header.generation);
        let active = usize::from(generation(1) > generation(0));
        if let Some((header, _)) = &headers[active] {
            if header.format > FORMAT {
                let (path, found) = (paths[active].clone(), header.format);
                return Err(OpenError::NewerFormat { path, found, known: FORMAT });
            }
            let (header, is_superseded) = (headers[active], headers[1 - active].is_some());
            return Ok(Found { active, header, is_superseded, sizes });
        }
        // The file that does not count has zeroes there.
        let what = "neither of the two files has a whole header";
        match (report, is_blank) {
            (Some(report), [false, true] | [true, false]) => {
                let active = usize::from(is_blank[0]);
                let damage =
                    Damage { path: paths[active].clone(), offset: 0, len: BLOCK as u64, what: what.into() };
                report.tell(damage);
                Ok(Found { active, header: None, is_superseded: false, sizes })
            }
            _ => Err(damaged(&paths[active], what)),
        }
    }
}

impl<E: Env> MetaLog<E> {
    /// Puts what was whole of a damaged file into the other one.
    async fn replace_damaged(&self) -> Result<(), OpenError> {
        match self.compact().await {
            Err(error) if !is_full(&error) => {
                Err(OpenError::at(&self.0.paths[1 - self.0.state.borrow().active])(error))
            }
            Err(error) => {
                self.put_off(error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Reads a file's frames through a window.
struct Reader<'a, F: File> {
    file: &'a F,
    path: &'a Path,
    size: u64,
    window: Option<(u64, IoSlice)>,
    report: Option<&'a DamageReport>,
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
        let window = match read_again(self.file, at, whole).await {
            Ok(window) => window,
            // What cannot be read counts as empty, block by block.
            Err(_) if self.report.is_some() && len <= BLOCK => {
                let block = read_again(self.file, at, BLOCK).await;
                block.unwrap_or_else(|_| IoSlice::copy_of(&[0; BLOCK]))
            }
            Err(_) if self.report.is_some() => IoSlice::copy_of(&[]),
            Err(error) => return Err(OpenError::at(self.path)(error)),
        };
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

    /// Where the frames begin, by the first of them: the header is lost.
    async fn start_without_header(&mut self) -> Result<Tail, OpenError> {
        let head = self.bytes(BLOCK as u64, format::FRAME_HEADER).await?;
        let id = FrameHeader::decode(&head).map_or(0, |header| header.id);
        match self.frame(BLOCK as u64, id).await? {
            Some((first, _)) => Ok(Tail { at: BLOCK as u64, id, seq: 0, prev: first.prev, epoch: 0 }),
            None => Err(damaged(self.path, "neither its header nor its first frame is whole")),
        }
    }

    /// The table that the frames from `tail` on make, the tail behind the last, and whether all of them were whole.
    async fn replay(&mut self, mut tail: Tail) -> Result<(Table, Tail, bool), OpenError> {
        let (mut table, mut is_whole) = (Table::default(), true);
        loop {
            while let Some((header, frame)) = self.frame(tail.at, tail.id).await?
                && header.continues(&tail)
            {
                let Some(entries) = format::entries(&frame, header.entries) else {
                    return Err(damaged(self.path, format!("the frame at {} does not add up", tail.at)));
                };
                entries.into_iter().for_each(|(key, value)| table.set(key, value));
                tail = header.advance(&tail);
            }
            let Some(next) = self.next_whole(&tail).await? else { return Ok((table, tail, is_whole)) };
            let (len, what) = (next.at - tail.at, format!("frame {} is damaged", tail.seq));
            let Some(report) = self.report else {
                return Err(damaged(self.path, format!("{what} at {}, {len} bytes", tail.at)));
            };
            report.tell(Damage { path: self.path.to_path_buf(), offset: tail.at, len, what });
            (tail, is_whole) = (next, false);
        }
    }

    /// The tail before the first whole frame behind `tail`. One write is in flight at a time, so such a frame means
    /// that an acknowledged one before it was lost.
    async fn next_whole(&mut self, tail: &Tail) -> Result<Option<Tail>, OpenError> {
        let mut at = tail.at;
        while at < self.size {
            if let Some((header, _)) = self.frame(at, tail.id).await?
                && header.seq >= tail.seq
            {
                let FrameHeader { seq, prev, epoch, .. } = header;
                return Ok(Some(Tail { at, id: tail.id, seq, prev, epoch }));
            }
            at += BLOCK as u64;
        }
        Ok(None)
    }
}
