//! Reading runs: blocks are checked when they come from disk, and kept in a cache.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};

use ringmq_env::{Env, File, IoSlice, OpenOptions};

use super::cache::Cache;
use super::filter::Filter;
use super::format::{self, *};
use super::table::IndexEntry;
use crate::bytes::array;
use crate::reread::read_again;
use crate::slices::Pacer;

/// Bytes of blocks that the cache of one shard may hold.
const BLOCK_CACHE: usize = 4 << 20;
/// Files of one shard that stay open.
const OPEN_FILES: usize = 64;
/// Blocks read at a time when a whole section is read.
const SECTION_BLOCKS: u32 = 64;
/// Blocks of entries that are read at a time for a reader who may read on, which is one who wants so many entries.
const BLOCKS_AHEAD: usize = 16;
const MIN_AHEAD: usize = 8;

/// Why a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("block {0} is damaged")]
    Damaged(u32),
}

/// An immutable run, and what is kept of it in memory.
pub(super) struct Run {
    pub header: Header,
    pub path: PathBuf,
    layout: Layout,
    /// First hash of each block of the directory and of the keys.
    directory_fences: Vec<u64>,
    key_fences: Vec<u64>,
    filter: Filter,
    /// Something of it was found damaged.
    pub damaged: Cell<bool>,
}

impl Run {
    /// `filter` has the hashes of the directory's extents.
    pub(super) fn new(header: Header, path: PathBuf, fences: Vec<u64>, filter: Filter) -> Run {
        let layout = header.layout();
        let mut directory_fences = fences;
        let key_fences = directory_fences.split_off((layout.names - layout.directory) as usize);
        assert!(key_fences.len() == (layout.fences - layout.keys) as usize);
        Run { header, path, layout, directory_fences, key_fences, filter, damaged: Cell::new(false) }
    }

    /// False when the run surely has nothing of a queue with this hash.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.filter.may_have(hash)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        let fences = self.directory_fences.capacity() + self.key_fences.capacity();
        size_of::<Run>() + fences * 8 + self.filter.memory() + self.path.as_os_str().len()
    }

    /// The blocks of a section (`first` its first block) that may hold records with this hash.
    fn blocks_with(fences: &[u64], first: u32, hash: u64) -> std::ops::Range<u32> {
        let after = fences.partition_point(|fence| *fence <= hash);
        let before = fences[..after].partition_point(|fence| *fence < hash).saturating_sub(1);
        first + before as u32..first + after as u32
    }

    pub(super) fn directory_blocks(&self, hash: u64) -> std::ops::Range<u32> {
        Run::blocks_with(&self.directory_fences, self.layout.directory, hash)
    }

    pub(super) fn key_blocks(&self, hash: u64) -> std::ops::Range<u32> {
        Run::blocks_with(&self.key_fences, self.layout.keys, hash)
    }

    /// The keys in one of [`Run::key_blocks`].
    pub(super) fn keys_in(&self, block: &[u8], number: u32) -> impl DoubleEndedIterator<Item = PackedKey> {
        let before = (number - self.layout.keys) as usize * KEYS_PER_BLOCK;
        let count = KEYS_PER_BLOCK.min(self.header.keys as usize - before);
        block[..count * KEY].chunks_exact(KEY).map(PackedKey::decode)
    }
}

/// Directory and names of a run, read whole.
pub(super) struct Directory {
    pub extents: Vec<Extent>,
    names: Vec<u8>,
}

impl Directory {
    /// Topic of an extent; `None` if the names do not make sense.
    pub(super) fn topic(&self, extent: &Extent) -> Option<&str> {
        format::name_at(&self.names, extent.name)
    }
}

/// Access to the blocks of a shard's runs.
pub(super) struct Reader<E: Env> {
    env: E,
    blocks: RefCell<Cache<(u64, u32), IoSlice>>,
    files: RefCell<Cache<u64, E::File>>,
}

impl<E: Env> Reader<E> {
    pub(super) fn new(env: E) -> Reader<E> {
        Reader {
            env,
            blocks: RefCell::new(Cache::new(BLOCK_CACHE)),
            files: RefCell::new(Cache::new(OPEN_FILES)),
        }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.blocks.borrow().cost()
    }

    /// Closes the run's file.
    pub(super) fn forget(&self, run: &Run) {
        self.files.borrow_mut().remove(&run.header.id, 1);
    }

    pub(super) async fn open(&self, path: &Path) -> io::Result<E::File> {
        self.env.open(path, OpenOptions { direct: true, ..OpenOptions::default() }).await
    }

    async fn file(&self, run: &Run) -> io::Result<E::File> {
        let id = run.header.id;
        let cached = self.files.borrow_mut().get(id, 1);
        if let Some(file) = cached {
            return Ok(file);
        }
        let file = self.open(&run.path).await?;
        self.files.borrow_mut().insert(id, file.clone(), 1);
        Ok(file)
    }

    /// One block of a run, checked.
    pub(super) async fn block(&self, run: &Run, number: u32) -> Result<IoSlice, RunError> {
        let key = (run.header.id, number);
        let cached = self.blocks.borrow_mut().get(key, BLOCK);
        if let Some(block) = cached {
            return Ok(block);
        }
        let file = self.file(run).await?;
        let offset = u64::from(number) * BLOCK as u64;
        let mut block = file.read_at(offset, BLOCK).await?;
        if !is_whole(run.header.id, number, &block) {
            // The device may have misread.
            block = file.read_at(offset, BLOCK).await?;
        }
        if !is_whole(run.header.id, number, &block) {
            return Err(RunError::Damaged(number));
        }
        self.blocks.borrow_mut().insert(key, block.clone(), BLOCK);
        Ok(block)
    }

    /// The first of these blocks, checked. The others are brought along if it comes from disk: a reader who reads on
    /// finds them in the cache.
    async fn block_of(&self, run: &Run, blocks: std::ops::RangeInclusive<u32>) -> Result<IoSlice, RunError> {
        let (first, count) = (*blocks.start(), blocks.count());
        let cached = self.blocks.borrow_mut().get((run.header.id, first), BLOCK);
        if let Some(block) = cached {
            return Ok(block);
        }
        if count == 1 {
            return self.block(run, first).await;
        }
        let read = self.file(run).await?.read_at(u64::from(first) * BLOCK as u64, count * BLOCK).await;
        // Another block than the first may be what cannot be read.
        let Ok(data) = read else { return self.block(run, first).await };
        for (number, block) in (first..).zip(data.chunks_exact(BLOCK)) {
            if is_whole(run.header.id, number, block) {
                // Copied, so that no block keeps the memory of the others.
                self.blocks.borrow_mut().insert((run.header.id, number), IoSlice::copy_of(block), BLOCK);
            }
        }
        self.block(run, first).await
    }

    /// Opens the run at `path` and reads its directory; everything but entries and keys is checked.
    pub(super) async fn load(&self, path: &Path) -> Result<(Run, Directory), RunError> {
        let file = self.open(path).await?;
        let block = read_again(&file, 0, BLOCK).await?;
        let header = Header::decode(&block).ok_or(RunError::Damaged(0))?;
        let layout = header.layout();
        if file.size().await? < u64::from(layout.end) * BLOCK as u64 {
            return Err(RunError::Damaged(layout.end - 1));
        }
        let directory = read_directory(&self.env, &file, &header).await?;
        let mut fences = Vec::new();
        for (_, data) in section(&file, &header, layout.fences..layout.end).await? {
            fences.extend(
                data[..FENCES_PER_BLOCK * FENCE].chunks_exact(FENCE).map(|f| u64::from_le_bytes(array(f, 0))),
            );
        }
        fences.truncate((layout.names - layout.directory + layout.fences - layout.keys) as usize);
        let mut filter = Filter::new(directory.extents.len());
        directory.extents.iter().for_each(|extent| filter.add(extent.hash));
        Ok((Run::new(header, path.to_path_buf(), fences, filter), directory))
    }

    /// Reads the directory of a known run.
    pub(super) async fn directory(&self, run: &Run) -> Result<Directory, RunError> {
        read_directory(&self.env, &self.file(run).await?, &run.header).await
    }

    /// The queue's extents in the run, in order.
    pub(super) async fn extents(
        &self,
        run: &Run,
        hash: u64,
        topic: &str,
        queue: u32,
    ) -> Result<Vec<Extent>, RunError> {
        let mut found = Vec::new();
        for number in run.directory_blocks(hash) {
            let block = self.block(run, number).await?;
            for extent in extents_in(&run.header, number, &block) {
                let extent = extent?;
                if extent.hash == hash && extent.queue == queue && self.name_is(run, &extent, topic).await? {
                    found.push(extent);
                }
            }
        }
        Ok(found)
    }

    async fn name_is(&self, run: &Run, extent: &Extent, topic: &str) -> Result<bool, RunError> {
        let number = run.layout.names + extent.name / DATA as u32;
        let block = self.block(run, number).await?;
        let name = format::name_at(&block[..DATA], extent.name % DATA as u32);
        Ok(name.ok_or(RunError::Damaged(number))? == topic)
    }

    /// Appends up to `max` entries of the extent, from its `skip`th on.
    pub(super) async fn entries(
        &self,
        run: &Run,
        extent: &Extent,
        skip: u32,
        max: usize,
        out: &mut Vec<IndexEntry>,
    ) -> Result<(), RunError> {
        let mut at = (extent.entry + skip) as usize;
        let end = ((extent.entry + extent.count) as usize).min(at.saturating_add(max));
        while at < end {
            let (block, within) = (at / ENTRIES_PER_BLOCK, at % ENTRIES_PER_BLOCK);
            let count = (end - at).min(ENTRIES_PER_BLOCK - within);
            let last = ((extent.entry + extent.count) as usize - 1) / ENTRIES_PER_BLOCK;
            let ahead = if max < MIN_AHEAD { block } else { last.min(block + BLOCKS_AHEAD - 1) };
            let first = run.layout.entries;
            let block = self.block_of(run, first + block as u32..=first + ahead as u32).await?;
            let bytes = &block[within * ENTRY..(within + count) * ENTRY];
            out.extend(bytes.chunks_exact(ENTRY).map(|entry| extent.decode_entry(entry)));
            at += count;
        }
        Ok(())
    }
}

/// Checks every block of the run at `path`, which is to cover `range`.
pub(super) async fn check<E: Env>(env: &E, path: &Path, range: (u64, u64)) -> Result<(), RunError> {
    let file = env.open(path, OpenOptions { direct: true, ..OpenOptions::default() }).await?;
    let header = Header::decode(&file.read_at(0, BLOCK).await?).ok_or(RunError::Damaged(0))?;
    if (header.from, header.to) != range {
        return Err(RunError::Damaged(0));
    }
    let end = header.layout().end;
    for first in (1..end).step_by(SECTION_BLOCKS as usize) {
        section(&file, &header, first..end.min(first + SECTION_BLOCKS)).await?;
        env.yield_now().await;
    }
    read_directory(env, &file, &header).await.map(drop)
}

async fn read_directory<E: Env>(env: &E, file: &E::File, header: &Header) -> Result<Directory, RunError> {
    let layout = header.layout();
    let mut pacer = Pacer::new(env);
    let names = read_names(file, header).await?;
    let mut directory = Directory { extents: Vec::with_capacity(header.extents as usize), names };
    for (number, data) in section(file, header, layout.directory..layout.names).await? {
        for extent in extents_in(header, number, &data) {
            let extent = extent?;
            directory.topic(&extent).ok_or(RunError::Damaged(layout.names))?;
            directory.extents.push(extent);
        }
        pacer.done(EXTENTS_PER_BLOCK).await;
    }
    Ok(directory)
}

/// The names section.
pub(super) async fn read_names<F: File>(file: &F, header: &Header) -> Result<Vec<u8>, RunError> {
    let layout = header.layout();
    let mut names = Vec::with_capacity(header.names as usize);
    for (_, data) in section(file, header, layout.names..layout.keys).await? {
        names.extend_from_slice(&data);
    }
    Ok(names)
}

/// The extents in one block of the directory.
pub(super) fn extents_in(
    header: &Header,
    number: u32,
    block: &[u8],
) -> impl Iterator<Item = Result<Extent, RunError>> {
    let before = (number - header.layout().directory) as usize * EXTENTS_PER_BLOCK;
    let count = EXTENTS_PER_BLOCK.min(header.extents as usize - before);
    let records = block[..count * EXTENT].chunks_exact(EXTENT);
    records.map(move |bytes| Extent::decode(bytes, header).ok_or(RunError::Damaged(number)))
}

/// The blocks of a section without their CRCs, checked, with their numbers.
pub(super) async fn section<F: File>(
    file: &F,
    header: &Header,
    blocks: std::ops::Range<u32>,
) -> Result<Vec<(u32, IoSlice)>, RunError> {
    let mut found = Vec::with_capacity(blocks.len());
    let mut next = blocks.start;
    while next < blocks.end {
        let count = SECTION_BLOCKS.min(blocks.end - next);
        let bytes = read_again(file, u64::from(next) * BLOCK as u64, count as usize * BLOCK).await?;
        for number in next..next + count {
            let at = (number - next) as usize * BLOCK;
            let block = (at + BLOCK <= bytes.len()).then(|| bytes.slice(at, BLOCK));
            let block = block.filter(|block| is_whole(header.id, number, block));
            found.push((number, block.ok_or(RunError::Damaged(number))?.slice(0, DATA)));
        }
        next += count;
    }
    Ok(found)
}
