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
/// Items sorted in one go: well below a millisecond.
const SORT_SLICE: usize = 4096;

/// Fills blocks with records and writes them.
struct BlockWriter<F: File> {
    file: F,
    run: u64,
    /// Number of the block being filled, and the block.
    number: u32,
    data: Vec<u8>,
    /// Whole blocks that are not written yet.
    buf: AppendBuf,
    written: u64,
}

impl<F: File> BlockWriter<F> {
    fn new(file: F, run: u64) -> BlockWriter<F> {
        let buf = AppendBuf::with_capacity(WRITE_SIZE);
        BlockWriter { file, run, number: 1, data: Vec::with_capacity(DATA), buf, written: BLOCK as u64 }
    }

    /// Adds a record, which never crosses into the next block; true when it is the first of its block.
    async fn add(&mut self, record: &[u8]) -> io::Result<bool> {
        if self.data.len() + record.len() > DATA {
            self.end_block().await?;
        }
        self.data.extend_from_slice(record);
        Ok(self.data.len() == record.len())
    }

    /// The next record begins a block of its own.
    async fn end_block(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        self.data.resize(DATA, 0);
        let crc = block_crc(self.run, self.number, &self.data);
        self.buf.extend(&self.data);
        self.buf.extend(&crc.to_le_bytes());
        self.data.clear();
        self.number += 1;
        if self.buf.remaining() == 0 { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> io::Result<()> {
        let mut buf = std::mem::replace(&mut self.buf, AppendBuf::with_capacity(WRITE_SIZE));
        buf.publish();
        let len = buf.len();
        if len > 0 {
            self.file.write_at(buf.slice(0, len), self.written).await?;
            self.written += len as u64;
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

    /// Adds consecutive entries of a queue; `first` is the offset of the first. What lies before the
    /// log position `since` and what lies behind it do not belong together.
    pub(super) async fn add(
        &mut self,
        name: &QueueName,
        since: u64,
        first: i64,
        entries: &[IndexEntry],
    ) -> io::Result<()> {
        let place = name.topic;
        for (offset, entry) in (first..).zip(entries) {
            let continues = |e: &&mut Extent| {
                e.hash == name.hash
                    && e.queue == name.queue
                    && e.end() == offset
                    && (e.last_position >= since) == (entry.position.0 >= since)
                    && e.fits(entry)
            };
            let extent = match self.extents.last_mut().filter(|e| e.name == place).filter(continues) {
                Some(extent) => extent,
                None => {
                    self.extents.push(Extent {
                        hash: name.hash,
                        first: offset,
                        base_position: entry.position.0,
                        last_position: entry.position.0,
                        base_ms: entry.store_ms,
                        entry: self.header.entries,
                        count: 0,
                        name: place,
                        queue: name.queue,
                    });
                    self.extents.last_mut().expect("just pushed")
                }
            };
            extent.count += 1;
            extent.last_position = entry.position.0;
            let bytes = extent.encode_entry(entry);
            self.header.entries += 1;
            self.blocks.add(&bytes).await?;
            self.pacer.done(1).await;
        }
        Ok(())
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
        for extent in &directory {
            self.filter.add(extent.hash);
            if self.blocks.add(&extent.encode()).await? {
                self.fences.push(extent.hash);
            }
            self.pacer.done(1).await;
        }
        self.blocks.end_block().await?;
        for data in self.names.chunks(DATA) {
            self.blocks.add(data).await?;
            self.pacer.done(LOOK).await;
        }
        self.header.extents = directory.len() as u32;
        self.header.names = self.names.len() as u32;
        self.blocks.end_block().await
    }

    /// Adds the next key.
    pub(super) async fn add_key(&mut self, key: &PackedKey) -> io::Result<()> {
        if self.blocks.add(&key.encode()).await? {
            self.fences.push(key.hash);
        }
        self.header.keys += 1;
        self.pacer.done(1).await;
        Ok(())
    }

    /// Writes the rest and takes all to the device, under its temporary name.
    pub(super) async fn finish(mut self) -> io::Result<Finished<E>> {
        self.blocks.end_block().await?;
        for fence in &self.fences {
            self.blocks.add(&fence.to_le_bytes()).await?;
            self.pacer.done(1).await;
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

/// Sorts without holding the core for long: spreads the items over buckets by their hash, sorts each. The parts go as
/// they are spread, and so may the buckets: to free all of it at once would take long, too.
pub(super) async fn sort_sliced<E: Env, T: Ord>(
    env: &E,
    parts: Vec<Vec<T>>,
    hash: impl Fn(&T) -> u64,
) -> Vec<Vec<T>> {
    let items: usize = parts.iter().map(Vec::len).sum();
    let bits = (items / SORT_SLICE).next_power_of_two().ilog2();
    let mut buckets: Vec<Vec<T>> = (0..1 << bits).map(|_| Vec::new()).collect();
    let mut pacer = Pacer::new(env);
    for part in parts {
        for item in part {
            buckets[hash(&item).checked_shr(64 - bits).unwrap_or(0) as usize].push(item);
            pacer.done(1).await;
        }
    }
    for bucket in &mut buckets {
        bucket.sort_unstable();
        pacer.done(bucket.len()).await;
    }
    buckets
}
