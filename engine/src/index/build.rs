//! Writing runs: section after section into a temporary file, in slices.

use std::io;
use std::path::{Path, PathBuf};

use ringmq_env::{AppendBuf, Env, File, OpenOptions};

use super::filter::Filter;
use super::format::*;
use super::table::IndexEntry;
use crate::slices::{LOOK, Pacer};

/// Bytes in one write.
const WRITE_SIZE: usize = 64 * BLOCK;

/// Fills blocks with records and writes them.
struct BlockWriter<F: File> {
    file: F,
    run: u64,
    /// Number of the block being filled, where in `buf` it is once it has a record, and the bytes of its records.
    number: u32,
    start: usize,
    filled: usize,
    /// Blocks that are not written yet.
    buf: AppendBuf,
    written: u64,
}

impl<F: File> BlockWriter<F> {
    /// For the blocks from `number` on.
    fn new(file: F, run: u64, number: u32) -> BlockWriter<F> {
        let (buf, written) = (AppendBuf::with_capacity(WRITE_SIZE), u64::from(number) * BLOCK as u64);
        BlockWriter { file, run, number, start: 0, filled: 0, buf, written }
    }

    /// Makes room for a record of `len` bytes, which never crosses into the next block; true when it is the first of
    /// its block.
    #[inline]
    async fn make_room(&mut self, len: usize) -> io::Result<bool> {
        if !self.has_room(len) {
            self.end_block().await?;
        }
        Ok(self.filled == 0)
    }

    fn has_room(&self, len: usize) -> bool {
        self.filled + len <= DATA
    }

    /// Adds as many records as the block has room for, and returns how many. There is room for one.
    #[inline]
    fn fill<T, const LEN: usize>(
        &mut self,
        items: impl Iterator<Item = T>,
        encode: impl Fn(&T, &mut [u8; LEN]),
    ) -> usize {
        let (places, _) = self.room().as_chunks_mut();
        let filled = places.iter_mut().zip(items).map(|(place, item)| encode(&item, place)).count();
        self.filled += filled * LEN;
        filled
    }

    /// Adds records that are sorted by their hashes: the first of each block has a fence.
    async fn add_sorted<E: Env, T, const LEN: usize>(
        &mut self,
        records: &[T],
        hash: impl Fn(&T) -> u64,
        encode: impl Fn(&T) -> [u8; LEN],
        fences: &mut Vec<u64>,
        pacer: &mut Pacer<E>,
    ) -> io::Result<()> {
        let mut left = records;
        while let Some(first) = left.first() {
            if self.make_room(LEN).await? {
                fences.push(hash(first));
            }
            let added = self.fill(left.iter(), |record, place| *place = encode(record));
            left = &left[added..];
            pacer.done_quickly(added).await;
        }
        Ok(())
    }

    /// Adds a record of any length, for which there is room.
    fn add(&mut self, record: &[u8]) {
        self.room()[..record.len()].copy_from_slice(record);
        self.filled += record.len();
    }

    /// What is left of the block.
    fn room(&mut self) -> &mut [u8] {
        if self.filled == 0 {
            self.start = self.buf.len();
            self.buf.append(BLOCK);
        }
        &mut self.buf.unpublished_mut(self.start, DATA)[self.filled..]
    }

    /// The next record begins a block of its own.
    async fn end_block(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let (data, crc) = self.buf.unpublished_mut(self.start, BLOCK).split_at_mut(DATA);
        crc.copy_from_slice(&block_crc(self.run, self.number, data).to_le_bytes());
        self.filled = 0;
        self.number += 1;
        if self.buf.remaining() == 0 { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> io::Result<()> {
        let len = self.buf.len();
        if len > 0 {
            self.buf.publish();
            let blocks = self.buf.slice(0, len);
            self.file.write_at(blocks.clone(), self.written).await?;
            self.written += len as u64;
            self.buf = AppendBuf::with_capacity(0);
            // Its pages are in place.
            let again = AppendBuf::recycle(blocks);
            self.buf = again.unwrap_or_else(|| AppendBuf::with_capacity(WRITE_SIZE));
        }
        Ok(())
    }
}

/// A run being written. Queues are added in the order of their hashes, then the keys in theirs.
pub(super) struct RunBuilder<E: Env> {
    env: E,
    temporary: PathBuf,
    header: Header,
    blocks: BlockWriter<E::File>,
    /// The directory, where it is known how many entries come before it: it is written along with them then, and not kept
    /// in memory until they are all there.
    directory: Option<BlockWriter<E::File>>,
    pacer: Pacer<E>,
    /// Those that are not in the directory yet.
    extents: Vec<Extent>,
    filter: Filter,
    names: Vec<u8>,
    fences: Vec<u64>,
}

/// What a run will have.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    /// So many entries.
    pub entries: u32,
    /// So many extents at most.
    pub extents: usize,
}

/// A run that is on disk.
pub(super) struct Built {
    pub header: Header,
    pub fences: Vec<u64>,
    pub filter: Filter,
    pub bytes: u64,
}

/// The queue that entries are added for.
pub(super) struct QueueName {
    pub hash: u64,
    /// Where its topic's name is in the run.
    pub topic: u32,
    pub queue: u32,
}

impl<E: Env> RunBuilder<E> {
    /// Makes the file. `expected` says how many entries the run will have, and how many extents at most, if that is known.
    pub(super) async fn create(
        env: E,
        temporary: PathBuf,
        header: Header,
        expected: Option<Expected>,
    ) -> io::Result<RunBuilder<E>> {
        let options = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
        let file = env.open(&temporary, options).await?;
        file.set_len(0).await?;
        let blocks = BlockWriter::new(file.clone(), header.id, FIRST_BLOCK);
        let directory = expected.map(|Expected { entries, .. }| {
            let layout = Header { entries, ..header }.layout();
            BlockWriter::new(file, header.id, layout.directory)
        });
        let filter = Filter::new(expected.map_or(0, |expected| expected.extents));
        let (extents, names, fences) = (Vec::new(), Vec::new(), Vec::new());
        Ok(RunBuilder {
            pacer: Pacer::new(&env),
            env,
            temporary,
            header,
            blocks,
            directory,
            extents,
            filter,
            names,
            fences,
        })
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        // What the directory's own writer counts begins behind all entries.
        let extents = if self.directory.is_some() { self.header.extents } else { 0 };
        self.blocks.written + u64::from(extents) * EXTENT as u64
    }

    /// Adds consecutive entries of a queue, of which there are `records`: as many as the block has room for and one extent
    /// can have. Returns how many; with none, call [`RunBuilder::end_block`] first. `first` is the offset of the first. What
    /// lies before the log position `since` and what lies behind it do not belong together.
    #[inline]
    pub(super) fn add<R>(
        &mut self,
        name: &QueueName,
        since: u64,
        first: i64,
        records: &[R],
        decode: impl Fn(&R) -> IndexEntry,
    ) -> usize {
        if !self.blocks.has_room(ENTRY) {
            return 0;
        }
        let next = decode(&records[0]);
        let is_since = next.position.0 >= since;
        let is_continued = self.extents.last().is_some_and(|e| {
            e.name == name.topic
                && e.hash == name.hash
                && e.queue == name.queue
                && e.end() == first
                && (e.last_position >= since) == is_since
                && e.fits(&next)
        });
        if !is_continued {
            self.extents.push(Extent {
                hash: name.hash,
                first,
                base_position: next.position.0,
                last_position: next.position.0,
                base_ms: next.store_ms,
                entry: self.header.entries,
                count: 0,
                name: name.topic,
                queue: name.queue,
            });
        }
        let extent = self.extents.last_mut().expect("there is the queue's");
        let belongs = |entry: &IndexEntry| (entry.position.0 >= since) == is_since && extent.fits(entry);
        let entries = records.iter().map(&decode).take_while(belongs);
        let added = self.blocks.fill(entries, |entry, place| extent.encode_entry(entry, place));
        extent.count += added as u32;
        extent.last_position = decode(&records[added - 1]).position.0;
        self.header.entries += added as u32;
        added
    }

    /// The next entries begin a block.
    pub(super) async fn end_block(&mut self) -> io::Result<()> {
        self.blocks.end_block().await
    }

    /// As [`Pacer::done`], to be called where entries are added.
    #[inline]
    pub(super) async fn done(&mut self, items: usize) {
        self.pacer.done(items).await;
    }

    /// As [`Pacer::done_quickly`].
    #[inline]
    pub(super) async fn done_quickly(&mut self, items: usize) {
        self.pacer.done_quickly(items).await;
    }

    /// Adds the name of a topic that the run does not name yet; returns where it is. No name crosses into the next block.
    pub(super) fn add_name(&mut self, topic: &[u8]) -> u32 {
        let len = u16::try_from(topic.len()).expect("topics are at most 255 bytes");
        let room = DATA - self.names.len() % DATA;
        if room < 2 + topic.len() {
            self.names.resize(self.names.len() + room, 0);
        }
        let place = self.names.len() as u32;
        self.names.extend_from_slice(&len.to_le_bytes());
        self.names.extend_from_slice(topic);
        place
    }

    /// Writes what can be of the directory: the last extent may go on.
    pub(super) async fn write_directory(&mut self) -> io::Result<()> {
        let whole = self.extents.len().saturating_sub(1) / EXTENTS_PER_BLOCK * EXTENTS_PER_BLOCK;
        if whole > 0 && self.directory.is_some() {
            self.add_extents(whole).await?;
        }
        Ok(())
    }

    /// Adds the first extents to the directory.
    async fn add_extents(&mut self, count: usize) -> io::Result<()> {
        let extents = std::mem::take(&mut self.extents);
        let (now, later) = extents.split_at(count);
        let directory = self.directory.as_mut().unwrap_or(&mut self.blocks);
        for some in now.chunks(EXTENTS_PER_BLOCK) {
            some.iter().for_each(|extent| self.filter.add(extent.hash));
            let (fences, pacer) = (&mut self.fences, &mut self.pacer);
            directory.add_sorted(some, |extent| extent.hash, Extent::encode, fences, pacer).await?;
            self.pacer.done(some.len()).await;
        }
        self.header.extents += count as u32;
        self.extents.extend_from_slice(later);
        Ok(())
    }

    /// All queues are added: writes where they are. Then come the keys.
    pub(super) async fn end_queues(&mut self) -> io::Result<()> {
        self.blocks.end_block().await?;
        if let Some(directory) = self.directory.take() {
            let layout = self.header.layout();
            assert!(layout.directory == self.blocks.number, "as many entries as were expected");
            self.blocks.write().await?;
            self.blocks = directory;
        } else {
            self.filter = Filter::new(self.extents.len());
        }
        self.add_extents(self.extents.len()).await?;
        self.filter.shrink(self.header.extents as usize, &mut self.pacer).await;
        self.blocks.end_block().await?;
        for data in self.names.chunks(DATA) {
            self.blocks.make_room(data.len()).await?;
            self.blocks.add(data);
            self.pacer.done(LOOK).await;
        }
        self.header.names = self.names.len() as u32;
        self.blocks.end_block().await
    }

    /// Adds the next keys.
    pub(super) async fn add_keys(&mut self, keys: &[PackedKey]) -> io::Result<()> {
        self.header.keys += keys.len() as u32;
        let (fences, pacer) = (&mut self.fences, &mut self.pacer);
        self.blocks.add_sorted(keys, |key| key.hash(), PackedKey::encode, fences, pacer).await
    }

    /// Writes the rest and takes all to the device, under its temporary name.
    pub(super) async fn finish(mut self) -> io::Result<Finished<E>> {
        self.blocks.end_block().await?;
        for fences in self.fences.chunks(FENCES_PER_BLOCK) {
            self.blocks.make_room(fences.len() * FENCE).await?;
            self.blocks.fill(fences.iter(), |fence, place| *place = fence.to_le_bytes());
            self.pacer.done_quickly(fences.len()).await;
        }
        self.blocks.end_block().await?;
        assert!(
            self.header.layout().end == self.blocks.number,
            "the sections are as long as the header says"
        );
        self.blocks.write().await?;
        self.blocks.file.write_at(ringmq_env::IoSlice::copy_of(&self.header.encode()), 0).await?;
        self.blocks.file.sync().await?;
        let bytes = self.blocks.written;
        let built = Built { header: self.header, fences: self.fences, filter: self.filter, bytes };
        Ok(Finished { env: self.env, temporary: self.temporary, built })
    }
}

/// A run that is on the device, and not in its place yet.
pub(super) struct Finished<E: Env> {
    env: E,
    temporary: PathBuf,
    pub built: Built,
}

impl<E: Env> Finished<E> {
    /// Gives the run its name, durably.
    pub(super) async fn put_in_place(self, place: &Path) -> io::Result<Built> {
        self.env.rename(&self.temporary, place).await?;
        let dir = place.parent().expect("a run is in a directory");
        self.env.sync_dir(dir).await?;
        Ok(self.built)
    }
}
