//! Run files: entries in the order of their keys, written once and never changed.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_env::{AppendBuf, Env, File, IoSlice, OpenOptions};

use super::entry::{Key, Place};
use crate::bytes::array;
use crate::reread::read_checked;

const MAGIC: [u8; 8] = *b"RINGPEND";
const FORMAT: u32 = 1;
/// Bytes of a block; the last 4 are its checksum.
const BLOCK: usize = 4096;
const ENTRY: usize = 32;
/// Entries of a block.
const PER_BLOCK: usize = (BLOCK - 4) / ENTRY;
/// Blocks in one read or write.
const CHUNK_BLOCKS: usize = 16;
/// Bytes of the header that count.
const HEADER_LEN: usize = 32;

/// A run, and what the table knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Names the file.
    pub id: u64,
    /// Log positions of its entries: `from <= position < to`, disjoint from the other runs'.
    pub from: u64,
    /// End of the range.
    pub to: u64,
    /// Every entry with a smaller key is settled.
    pub low: Key,
    /// The largest key in it.
    pub last: Key,
    /// Entries in the file.
    pub count: u64,
    /// Smallest position of an entry.
    pub min_position: u64,
}

impl Run {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:016x}.run", self.id))
    }

    pub(super) fn covers(&self, position: u64) -> bool {
        (self.from..self.to).contains(&position)
    }

    fn blocks(&self) -> u64 {
        self.count.div_ceil(PER_BLOCK as u64)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn block_crc(id: u64, number: u64, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&id.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc.update(data);
    crc.finalize()
}

fn encode(key: Key, place: &Place) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..8].copy_from_slice(&key.due_ms.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.order.to_le_bytes());
    bytes[16..24].copy_from_slice(&place.position.to_le_bytes());
    bytes[24..28].copy_from_slice(&place.size.to_le_bytes());
    bytes[28..].copy_from_slice(&place.crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> (Key, Place) {
    let key = Key { due_ms: i64::from_le_bytes(array(bytes, 0)), order: u64::from_le_bytes(array(bytes, 8)) };
    let place = Place {
        position: u64::from_le_bytes(array(bytes, 16)),
        size: u32::from_le_bytes(array(bytes, 24)),
        crc: u32::from_le_bytes(array(bytes, 28)),
    };
    (key, place)
}

/// Writes a run, entry by entry in the order of the keys.
pub(super) struct RunWriter<F: File> {
    file: F,
    id: u64,
    block: Vec<u8>,
    number: u64,
    buf: AppendBuf,
    written: u64,
    count: u64,
    min_position: u64,
    last: Key,
}

impl<F: File> RunWriter<F> {
    pub(super) async fn create<E: Env<File = F>>(env: &E, path: &Path, id: u64) -> io::Result<RunWriter<F>> {
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = env.open(path, options).await?;
        file.set_len(0).await?;
        Ok(RunWriter {
            file,
            id,
            block: Vec::with_capacity(BLOCK),
            number: 1,
            buf: AppendBuf::with_capacity(CHUNK_BLOCKS * BLOCK),
            written: BLOCK as u64,
            count: 0,
            min_position: u64::MAX,
            last: Key::MIN,
        })
    }

    pub(super) async fn add(&mut self, key: Key, place: &Place) -> io::Result<()> {
        assert!(self.count == 0 || self.last < key, "a run's entries are in order");
        self.last = key;
        self.count += 1;
        self.min_position = self.min_position.min(place.position);
        self.block.extend_from_slice(&encode(key, place));
        if self.block.len() == PER_BLOCK * ENTRY { self.end_block().await } else { Ok(()) }
    }

    async fn end_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK - 4, 0);
        let crc = block_crc(self.id, self.number, &self.block);
        self.buf.extend(&self.block);
        self.buf.extend(&crc.to_le_bytes());
        self.block.clear();
        self.number += 1;
        if self.buf.remaining() == 0 { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> io::Result<()> {
        let mut buf = std::mem::replace(&mut self.buf, AppendBuf::with_capacity(CHUNK_BLOCKS * BLOCK));
        buf.publish();
        let len = buf.len();
        if len > 0 {
            self.file.write_at(buf.slice(0, len), self.written).await?;
            self.written += len as u64;
        }
        Ok(())
    }

    /// The file is whole and on the device when this returns; its directory is not synced. Notes in `run` what is in
    /// it.
    pub(super) async fn finish(mut self, run: &mut Run) -> io::Result<()> {
        if !self.block.is_empty() {
            self.end_block().await?;
        }
        self.write().await?;
        let mut header = [0; BLOCK];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[16..24].copy_from_slice(&self.id.to_le_bytes());
        header[24..32].copy_from_slice(&self.count.to_le_bytes());
        let crc = crc32fast::hash(&header[..HEADER_LEN]);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(IoSlice::copy_of(&header), 0).await?;
        self.file.sync().await?;
        (run.count, run.last, run.min_position) = (self.count, self.last, self.min_position);
        Ok(())
    }
}

/// Reads a run from some key on.
pub(super) struct RunReader<E: Env> {
    env: E,
    path: PathBuf,
    file: E::File,
    run: Run,
    /// The next block to read, from 0.
    block: u64,
    entries: VecDeque<(Key, Place)>,
}

impl<E: Env> RunReader<E> {
    /// Opens the run and checks its header. Errors of kind `InvalidData`, here and below: it is not what was written, or
    /// cannot be read, and that was looked at twice.
    pub(super) async fn open(env: &E, dir: &Path, run: &Run) -> io::Result<RunReader<E>> {
        let path = run.path(dir);
        let file = env.open(&path, OpenOptions::default()).await?;
        read_checked(env, &path, &file, (0, BLOCK), |header| check_header(header, run)).await?;
        if file.size().await? < (1 + run.blocks()) * BLOCK as u64 {
            return Err(damaged("it is too short"));
        }
        Ok(RunReader { env: env.clone(), path, file, run: run.clone(), block: 0, entries: VecDeque::new() })
    }

    /// Goes to the first entry at or after `key`.
    pub(super) async fn seek(&mut self, key: Key) -> io::Result<()> {
        let (mut low, mut high) = (0, self.run.blocks());
        // The last block whose first key is not behind `key`, or the first block.
        while low + 1 < high {
            let middle = low.midpoint(high);
            let first = self.read(middle, 1).await?.first().map(|(first, _)| *first);
            if first.is_some_and(|first| first <= key) { low = middle } else { high = middle }
        }
        self.block = low;
        self.entries.clear();
        while let Some((next, _)) = self.peek().await?
            && next < key
        {
            self.entries.pop_front();
        }
        Ok(())
    }

    /// The next entry, not taken.
    pub(super) async fn peek(&mut self) -> io::Result<Option<(Key, Place)>> {
        if self.entries.is_empty() && self.block < self.run.blocks() {
            let entries = self.read(self.block, CHUNK_BLOCKS as u64).await?;
            self.entries.extend(entries);
            self.block = (self.block + CHUNK_BLOCKS as u64).min(self.run.blocks());
        }
        Ok(self.entries.front().copied())
    }

    /// Takes the entry that [`RunReader::peek`] showed.
    pub(super) fn take(&mut self) {
        self.entries.pop_front();
    }

    async fn read(&self, block: u64, blocks: u64) -> io::Result<Vec<(Key, Place)>> {
        let blocks = blocks.min(self.run.blocks() - block);
        let place = ((block + 1) * BLOCK as u64, blocks as usize * BLOCK);
        let check = |data: &[u8]| entries_of(&self.run, block, blocks, data);
        read_checked(&self.env, &self.path, &self.file, place, check).await
    }
}

fn check_header(header: &[u8], run: &Run) -> io::Result<()> {
    if header.len() < HEADER_LEN || header[..8] != MAGIC {
        return Err(damaged("it is no run"));
    }
    let mut checked: [u8; HEADER_LEN] = array(header, 0);
    checked[12..16].fill(0);
    let is_ours = u32::from_le_bytes(array(header, 8)) == FORMAT
        && u32::from_le_bytes(array(header, 12)) == crc32fast::hash(&checked)
        && u64::from_le_bytes(array(header, 16)) == run.id
        && u64::from_le_bytes(array(header, 24)) == run.count;
    if is_ours { Ok(()) } else { Err(damaged("its header is not what was written")) }
}

/// The entries of `blocks` blocks from `block` on.
fn entries_of(run: &Run, block: u64, blocks: u64, data: &[u8]) -> io::Result<Vec<(Key, Place)>> {
    if data.len() < blocks as usize * BLOCK {
        return Err(damaged("it is too short"));
    }
    let mut entries = Vec::with_capacity(blocks as usize * PER_BLOCK);
    for (at, data) in data.chunks(BLOCK).enumerate() {
        let number = block + at as u64;
        let (bytes, crc) = data.split_at(BLOCK - 4);
        if u32::from_le_bytes(array(crc, 0)) != block_crc(run.id, number + 1, bytes) {
            return Err(damaged("a block is not what was written"));
        }
        let left = run.count - number * PER_BLOCK as u64;
        let here = left.min(PER_BLOCK as u64) as usize;
        entries.extend(bytes.chunks(ENTRY).take(here).map(decode));
    }
    Ok(entries)
}
