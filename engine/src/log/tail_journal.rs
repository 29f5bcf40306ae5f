//! The tail journal: where the log's last bytes are until they are written to the log itself.
//!
//! The file `tail` holds a few slots; a commit that leaves bytes outside of the log writes one. A slot also says where
//! the log ends, in which epoch, and how much is known to be on the device, which is what recovery starts from.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_env::{AppendBuf, Env, File, IoSlice, OpenOptions, mutant};

use crate::bytes::array;
use crate::reread::read_again;
use crate::shard::OpenError;

/// Slots of the file. A slot is free unless it is the newest committed one, the newest one known to be on the
/// device, or the one that a running flush makes so: with one more, a commit always finds a free one.
pub(crate) const SLOTS: usize = 4;

/// Bytes from one slot to the next.
pub(crate) const SLOT_LEN: usize = 8192;

/// Largest sector that fits a slot.
pub(crate) const MAX_SECTOR: usize = 4096;

/// Most bytes of the log that a slot takes.
pub(crate) const MAX_UNWRITTEN: usize = SLOT_LEN - HEADER_LEN;

/// Name of the file in the shard's directory.
const FILE: &str = "tail";

const MAGIC: u32 = u32::from_le_bytes(*b"RQT1");

// Layout of a slot's header, little endian (docs/store-format.md).
const MAGIC_AT: usize = 0;
const CRC_AT: usize = 4;
const SEQUENCE_AT: usize = 8;
const EPOCH_AT: usize = 16;
const EPOCH_START_AT: usize = 24;
const POSITION_AT: usize = 32;
const FLUSHED_AT: usize = 40;
const STORE_MS_AT: usize = 48;
const CHAIN_AT: usize = 56;
const LEN_AT: usize = 60;
const HEADER_LEN: usize = 64;
const _: () = assert!(LEN_AT + 4 == HEADER_LEN && HEADER_LEN + MAX_SECTOR <= SLOT_LEN);
const _: () = assert!(SLOTS >= 4);

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TailRecord {
    /// Grows by one with each write.
    pub sequence: u64,
    /// Epoch of the log's writer.
    pub epoch: u64,
    /// Where the log ended when the epoch began: frames from there on are of this epoch.
    pub epoch_start: u64,
    /// One past the log's last frame.
    pub position: u64,
    /// Everything before this was on the device when the slot was written.
    pub flushed: u64,
    /// Newest store timestamp given out, in ms.
    pub store_ms: i64,
    /// Checksum of the log's last frame.
    pub chain: u32,
    /// The log's bytes from where it was written to (the start of a sector) up to `position`.
    pub unwritten: Vec<u8>,
}

impl TailRecord {
    /// Everything before this log position had been written to the log itself.
    pub(crate) fn written(&self) -> u64 {
        self.position - self.unwritten.len() as u64
    }

    fn decode(slot: &[u8]) -> Option<TailRecord> {
        let len = u32::from_le_bytes(array(slot.get(..HEADER_LEN)?, LEN_AT)) as usize;
        if u32::from_le_bytes(array(slot, MAGIC_AT)) != MAGIC || len > MAX_UNWRITTEN {
            return None;
        }
        let mut bytes = slot.get(..HEADER_LEN + len)?.to_vec();
        bytes[CRC_AT..][..4].fill(0);
        if crc32fast::hash(&bytes) != u32::from_le_bytes(array(slot, CRC_AT)) {
            return None;
        }
        let word = |at| u64::from_le_bytes(array(&bytes, at));
        let record = TailRecord {
            sequence: word(SEQUENCE_AT),
            epoch: word(EPOCH_AT),
            epoch_start: word(EPOCH_START_AT),
            position: word(POSITION_AT),
            flushed: word(FLUSHED_AT),
            store_ms: i64::from_le_bytes(array(&bytes, STORE_MS_AT)),
            chain: u32::from_le_bytes(array(&bytes, CHAIN_AT)),
            unwritten: bytes[HEADER_LEN..].to_vec(),
        };
        (len as u64 <= record.position).then_some(record)
    }
}

/// What a commit adds to the journal; the sequence number is the journal's own affair.
pub(crate) struct TailEntry<'a> {
    /// See [`TailRecord`].
    pub epoch: u64,
    /// See [`TailRecord`].
    pub epoch_start: u64,
    /// See [`TailRecord`].
    pub position: u64,
    /// See [`TailRecord`].
    pub flushed: u64,
    /// See [`TailRecord`].
    pub store_ms: i64,
    /// See [`TailRecord`].
    pub chain: u32,
    /// See [`TailRecord`].
    pub unwritten: &'a [u8],
}

impl TailEntry<'_> {
    fn encode(&self, sequence: u64, alignment: usize) -> IoSlice {
        let len = HEADER_LEN + self.unwritten.len();
        let padded = len.next_multiple_of(alignment);
        let mut buf = AppendBuf::with_capacity(padded);
        let bytes = buf.append(padded);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(MAGIC_AT, &MAGIC.to_le_bytes());
        put(SEQUENCE_AT, &sequence.to_le_bytes());
        put(EPOCH_AT, &self.epoch.to_le_bytes());
        put(EPOCH_START_AT, &self.epoch_start.to_le_bytes());
        put(POSITION_AT, &self.position.to_le_bytes());
        put(FLUSHED_AT, &self.flushed.to_le_bytes());
        put(STORE_MS_AT, &self.store_ms.to_le_bytes());
        put(CHAIN_AT, &self.chain.to_le_bytes());
        put(LEN_AT, &(self.unwritten.len() as u32).to_le_bytes());
        put(HEADER_LEN, self.unwritten);
        let crc = crc32fast::hash(&bytes[..len]);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        buf.publish();
        buf.slice(0, padded)
    }
}

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// The journal of one log, open for writing.
pub(crate) struct TailJournal<E: Env> {
    file: E::File,
    path: PathBuf,
    alignment: usize,
    sequence: Cell<u64>,
    /// The newest committed slot.
    committed: Cell<Option<Slot>>,
    /// The newest slot known to be on the device.
    flushed: Cell<Option<Slot>>,
    /// The slot that a running flush takes to the device.
    flushing: Cell<Option<Slot>>,
    /// Slots by age of their last write, oldest first.
    order: RefCell<VecDeque<usize>>,
}

impl<E: Env> TailJournal<E> {
    /// Opens or creates `dir/tail`; returns the valid slots too, oldest first;
    /// [`TailJournal::keep`] says which of them is still needed.
    pub(crate) async fn open(
        env: &E,
        dir: &Path,
        dsync: bool,
    ) -> Result<(TailJournal<E>, Vec<(Slot, TailRecord)>), OpenError> {
        let path = dir.join(FILE);
        let options =
            OpenOptions { write: true, create: true, dsync, direct: true, ..OpenOptions::default() };
        let file = env.open(&path, options).await.map_err(OpenError::at(&path))?;
        let alignment = file.alignment();
        if alignment > MAX_SECTOR {
            let what = format!("its device wants {alignment}-byte sectors, at most {MAX_SECTOR} are known");
            return Err(OpenError::Damaged { path, what });
        }
        let slots = read::<E>(&file).await;
        if file.size().await.map_err(OpenError::at(&path))? < (SLOTS * SLOT_LEN) as u64 {
            create::<E>(&file, &slots).await.map_err(OpenError::at(&path))?;
        }
        // In any case: a killed process may have left a name that shows, and is not on the device.
        env.sync_dir(dir).await.map_err(OpenError::at(dir))?;
        let records = decode(&slots);
        let journal = TailJournal {
            file,
            path,
            alignment,
            sequence: Cell::new(records.iter().map(|(_, record)| record.sequence).max().unwrap_or(0)),
            committed: Cell::new(None),
            flushed: Cell::new(None),
            flushing: Cell::new(None),
            order: RefCell::new(by_age(&records)),
        };
        Ok((journal, records))
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// After recovery: the slot is what the log's last bytes were taken from.
    pub(crate) fn keep(&self, slot: Slot) {
        self.flushed.set(Some(slot));
    }

    /// Alignment of the device, which is the log's sector size, in bytes.
    pub(crate) fn alignment(&self) -> usize {
        self.alignment
    }

    /// Bytes that writing `entry` takes.
    pub(crate) fn write_len(&self, entry: &TailEntry<'_>) -> usize {
        (HEADER_LEN + entry.unwritten.len()).next_multiple_of(self.alignment)
    }

    /// Writes `entry` to a free slot. One write at a time.
    pub(crate) fn write(
        &self,
        entry: &TailEntry<'_>,
    ) -> (Slot, impl Future<Output = io::Result<()>> + use<E>) {
        let busy = [self.committed.get(), self.flushed.get(), self.flushing.get()];
        let mut order = self.order.borrow_mut();
        let is_free = |slot: &usize| !busy.contains(&Some(Slot(*slot)));
        // The last in the order is the newest.
        let at =
            if mutant!("overwrite-tail-slot") { Some(SLOTS - 1) } else { order.iter().position(is_free) };
        let slot = at.and_then(|at| order.remove(at)).expect("three slots of four are busy at most");
        order.push_back(slot);
        self.sequence.set(self.sequence.get() + 1);
        let data = entry.encode(self.sequence.get(), self.alignment);
        let file = self.file.clone();
        (Slot(slot), async move {
            match mutant!("drop-tail-journal") {
                true => Ok(()),
                false => file.write_at(data, (slot * SLOT_LEN) as u64).await,
            }
        })
    }

    /// The commit that wrote `slot` is complete; `on_device` if nothing is left to flush.
    pub(crate) fn commit(&self, slot: Slot, on_device: bool) {
        self.committed.set(Some(slot));
        if on_device {
            self.flushed.set(Some(slot));
        }
    }

    /// Begins a flush of the newest committed slot, which stays as it is until [`TailJournal::flush`] is done. What
    /// the slot relies on goes to the device in between.
    pub(crate) fn begin_flush(&self) {
        self.flushing.set(self.committed.get());
    }

    /// Takes the slot of [`TailJournal::begin_flush`] to the device.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        self.file.sync().await?;
        self.flushed.set(self.flushing.take());
        Ok(())
    }
}

/// Makes the file, with what is there of it already.
async fn create<E: Env>(file: &E::File, slots: &[IoSlice]) -> io::Result<()> {
    let mut image = AppendBuf::with_capacity(SLOTS * SLOT_LEN);
    for slot in slots {
        image.append(SLOT_LEN)[..slot.len()].copy_from_slice(slot);
    }
    image.publish();
    file.allocate(0, (SLOTS * SLOT_LEN) as u64).await?;
    file.write_at(image.slice(0, SLOTS * SLOT_LEN), 0).await?;
    file.sync().await
}

/// What the file has of each slot. One that cannot be read, however often it is tried, is empty.
async fn read<E: Env>(file: &E::File) -> Vec<IoSlice> {
    let mut slots = Vec::with_capacity(SLOTS);
    for slot in 0..SLOTS {
        let read = read_again(file, (slot * SLOT_LEN) as u64, SLOT_LEN).await;
        if let Err(error) = &read {
            tracing::error!(slot, %error, "a slot of the tail journal cannot be read");
        }
        slots.push(read.unwrap_or_else(|_| IoSlice::copy_of(&[])));
    }
    slots
}

/// The valid slots, oldest first.
fn decode(slots: &[IoSlice]) -> Vec<(Slot, TailRecord)> {
    let slots = slots.iter().enumerate();
    let mut records: Vec<_> =
        slots.filter_map(|(n, slot)| Some((Slot(n), TailRecord::decode(slot)?))).collect();
    records.sort_by_key(|(_, record)| (record.epoch, record.sequence));
    records
}

/// The valid slots of `dir/tail`, oldest first, without changing anything; none if it is missing.
pub(crate) async fn look<E: Env>(env: &E, dir: &Path) -> io::Result<Vec<TailRecord>> {
    let options = OpenOptions { direct: true, ..OpenOptions::default() };
    let file = match env.open(&dir.join(FILE), options).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    Ok(decode(&read::<E>(&file).await).into_iter().map(|(_, record)| record).collect())
}

fn by_age(records: &[(Slot, TailRecord)]) -> VecDeque<usize> {
    let used = |slot: &usize| records.iter().any(|(Slot(used), _)| used == slot);
    let free = (0..SLOTS).filter(|slot| !used(slot));
    free.chain(records.iter().map(|(Slot(slot), _)| *slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slot_reads_back_and_any_flipped_bit_breaks_it(
            unwritten in prop::collection::vec(any::<u8>(), 0..=MAX_UNWRITTEN), words: [u32; 5], bit: prop::sample::Index,
        ) {
            let position = u64::from(words[0]) + MAX_UNWRITTEN as u64;
            let record = TailRecord {
                sequence: words[1].into(),
                epoch: words[2].into(),
                epoch_start: words[3].into(),
                position,
                flushed: position - 1,
                store_ms: words[4].into(),
                chain: words[3],
                unwritten,
            };
            let entry = TailEntry {
                epoch: record.epoch,
                epoch_start: record.epoch_start,
                position,
                flushed: record.flushed,
                store_ms: record.store_ms,
                chain: record.chain,
                unwritten: &record.unwritten,
            };
            let slot = entry.encode(record.sequence, 512);
            prop_assert!(slot.len().is_multiple_of(512) && slot.len() <= SLOT_LEN);
            let decoded = TailRecord::decode(&slot);
            prop_assert_eq!(decoded.as_ref(), Some(&record));
            let mut damaged = slot.to_vec();
            let bit = bit.index((HEADER_LEN + record.unwritten.len()) * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(TailRecord::decode(&damaged), None);
        }
    }
}
