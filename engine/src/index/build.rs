//! Writing runs: section after section into a temporary file, in slices.

use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use ringmq_env::{AppendBuf, Env, File, OpenOptions};
use xxhash_rust::xxh3::xxh3_64;

use super::format::*;
use super::run::Filter;
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
    fn new(file: F, run: u64) -> BlockWriter<F> {
        let buf = AppendBuf::with_capacity(WRITE_SIZE);
        BlockWriter { file, run, number: 1, start: 0, filled: 0, buf, written: BLOCK as u64 }
    }

    /// Makes room for a record of `len` bytes, which never crosses into the next block; true when it is the first of
    /// its block.
    #[inline]
    async fn make_room(&mut self, len: usize) -> io::Result<bool> {
        if self.filled + len > DATA {
            self.end_block().await?;
        }
        Ok(self.filled == 0)
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
    pacer: Pacer<E>,
    extents: Vec<Extent>,
    filter: Filter,
    names: Vec<u8>,
    /// Where the topics are in `names`.
    name_places: HashTable<u32>,
    fences: Vec<u64>,
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
    /// Of about `topics` topics it will be asked for the places of their names: room for them is made at once.
    pub(super) async fn create(
        env: E,
        temporary: PathBuf,
        header: Header,
        topics: usize,
    ) -> io::Result<RunBuilder<E>> {
        let options = OpenOptions { write: true, create: true, direct: true, ..OpenOptions::default() };
        let file = env.open(&temporary, options).await?;
        file.set_len(0).await?;
        let blocks = BlockWriter::new(file, header.id);
        let (extents, names, fences) = (Vec::new(), Vec::new(), Vec::new());
        Ok(RunBuilder {
            pacer: Pacer::new(&env),
            env,
            temporary,
            header,
            blocks,
            extents,
            filter: Filter::new(0),
            names,
            name_places: HashTable::with_capacity(topics),
            fences,
        })
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.blocks.written
    }

    /// Adds consecutive entries of a queue, of which there are `records`; `first` is the offset of the first. What lies
    /// before the log position `since` and what lies behind it do not belong together.
    pub(super) async fn add<R>(
        &mut self,
        name: &QueueName,
        since: u64,
        first: i64,
        records: &[R],
        decode: impl Fn(&R) -> IndexEntry,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < records.len() {
            self.blocks.make_room(ENTRY).await?;
            let added = self.fill(name, since, first + done as i64, &records[done..], &decode);
            done += added;
            self.pacer.done_quickly(added).await;
        }
        Ok(())
    }

    /// Adds as many of the entries as the block has room for and one extent can have, the first at least; returns how
    /// many.
    fn fill<R>(
        &mut self,
        name: &QueueName,
        since: u64,
        first: i64,
        records: &[R],
        decode: impl Fn(&R) -> IndexEntry,
    ) -> usize {
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

    /// Where the topic's name is; it is added if it is new.
    pub(super) fn name_place(&mut self, topic: &str) -> u32 {
        let hash = xxh3_64(topic.as_bytes());
        let same = |place: &u32| name_at(&self.names, *place) == Some(topic);
        if let Some(place) = self.name_places.find(hash, same) {
            return *place;
        }
        let place = self.add_name(topic);
        let names = &self.names;
        self.name_places.insert_unique(hash, place, |other| {
            xxh3_64(name_at(names, *other).unwrap_or_default().as_bytes())
        });
        place
    }

    /// Adds the name of a topic that the run does not name yet; returns where it is. No name crosses into the next block.
    pub(super) fn add_name(&mut self, topic: &str) -> u32 {
        let len = u16::try_from(topic.len()).expect("topics are at most 255 bytes");
        let room = DATA - self.names.len() % DATA;
        if room < 2 + topic.len() {
            self.names.resize(self.names.len() + room, 0);
        }
        let place = self.names.len() as u32;
        self.names.extend_from_slice(&len.to_le_bytes());
        self.names.extend_from_slice(topic.as_bytes());
        place
    }

    /// All queues are added: writes where they are. Then come the keys.
    pub(super) async fn end_queues(&mut self) -> io::Result<()> {
        self.name_places = HashTable::new();
        self.blocks.end_block().await?;
        let directory = std::mem::take(&mut self.extents);
        self.filter = Filter::new(directory.len());
        for extents in directory.chunks(EXTENTS_PER_BLOCK) {
            extents.iter().for_each(|extent| self.filter.add(extent.hash));
            self.add_sorted(extents, |extent| extent.hash, Extent::encode).await?;
            self.pacer.done(extents.len()).await;
        }
        self.blocks.end_block().await?;
        for data in self.names.chunks(DATA) {
            self.blocks.make_room(data.len()).await?;
            self.blocks.add(data);
            self.pacer.done(LOOK).await;
        }
        self.header.extents = directory.len() as u32;
        self.header.names = self.names.len() as u32;
        self.blocks.end_block().await
    }

    /// Adds the next keys.
    pub(super) async fn add_keys(&mut self, keys: &[PackedKey]) -> io::Result<()> {
        self.header.keys += keys.len() as u32;
        self.add_sorted(keys, |key| key.hash(), PackedKey::encode).await
    }

    /// Adds records that are sorted by their hashes: the first of each block has a fence.
    async fn add_sorted<T, const LEN: usize>(
        &mut self,
        records: &[T],
        hash: impl Fn(&T) -> u64,
        encode: impl Fn(&T) -> [u8; LEN],
    ) -> io::Result<()> {
        let mut left = records;
        while let Some(first) = left.first() {
            if self.blocks.make_room(LEN).await? {
                self.fences.push(hash(first));
            }
            let added = self.blocks.fill(left.iter(), |record, place| *place = encode(record));
            left = &left[added..];
            self.pacer.done_quickly(added).await;
        }
        Ok(())
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
