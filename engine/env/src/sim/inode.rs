//! A file of a simulated disk: what programs see of it, what is on the device, and what lies between.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::disk::Crash;
use super::faults::{Fault, Faults};
use super::world::World;
use crate::{AppendBuf, IoSlice};

/// Size of what a device writes whole, in bytes.
pub(super) const SECTOR: usize = 512;
/// Unit of space accounting, in bytes.
pub(super) const BLOCK: u64 = 4096;
/// Unsynced versions that one sector remembers.
const MAX_VERSIONS: usize = 8;

type Sector = [u8; SECTOR];
/// A sector's bytes; `None` is zeroes.
type Content = Option<Rc<Sector>>;
/// Sectors by their number; absent ones are zero.
type Sectors = BTreeMap<u64, Rc<Sector>>;

/// What an unsynced write made of a sector.
struct Version {
    write: u64,
    content: Content,
}

/// A write that was submitted and has not completed.
struct InFlight {
    offset: u64,
    data: IoSlice,
}

/// A file's content.
#[derive(Default)]
pub(super) struct Inode {
    shown: Sectors,
    device: Sectors,
    /// Versions of sectors since they were last on the device, oldest first; the last one is shown.
    unsynced: BTreeMap<u64, Vec<Version>>,
    /// What sectors held before their last write.
    previous: BTreeMap<u64, Content>,
    len: u64,
    device_len: u64,
    /// End of what is accounted for.
    allocated: u64,
    in_flight: BTreeMap<u64, InFlight>,
    /// Writes so far.
    writes: u64,
    /// Where the last write was.
    last_write: (u64, u64),
    /// A sync said it was done, and was not.
    pub(super) lied: bool,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The bytes that are there; `stale`: one sector, by its number, as it was before its last write.
    pub(super) fn read(&self, offset: u64, len: usize, stale: Option<u64>) -> IoSlice {
        let len = usize::try_from(self.len.saturating_sub(offset)).map_or(len, |there| there.min(len));
        let mut buffer = AppendBuf::with_capacity(len);
        let out = buffer.append(len);
        let end = (offset + len as u64).div_ceil(SECTOR as u64);
        let mut copy = |sector: u64, content: Option<&Sector>| {
            let begin = sector * SECTOR as u64;
            let (from, to) = (begin.max(offset), (begin + SECTOR as u64).min(offset + len as u64));
            let target = &mut out[(from - offset) as usize..(to - offset) as usize];
            match content {
                Some(bytes) => target.copy_from_slice(&bytes[(from - begin) as usize..(to - begin) as usize]),
                None => target.fill(0),
            }
        };
        for (sector, content) in self.shown.range(offset / SECTOR as u64..end) {
            copy(*sector, Some(content));
        }
        if let Some(sector) = stale.filter(|sector| (offset / SECTOR as u64..end).contains(sector))
            && let Some(content) = self.previous.get(&sector)
        {
            copy(sector, content.as_deref());
        }
        buffer.publish();
        buffer.slice(0, len)
    }

    /// Sectors of the range that were written more than once, for a stale read.
    pub(super) fn rewritten(&self, offset: u64, len: u64) -> Vec<u64> {
        let range = offset / SECTOR as u64..(offset + len).div_ceil(SECTOR as u64);
        self.previous.range(range).map(|(sector, _)| *sector).collect()
    }

    /// Notes a write that the device may now begin.
    pub(super) fn begin_write(&mut self, offset: u64, data: IoSlice) -> u64 {
        self.writes += 1;
        self.in_flight.insert(self.writes, InFlight { offset, data });
        self.writes
    }

    /// Forgets a write that was begun, and gives back what it was to write.
    pub(super) fn end_write(&mut self, id: u64) -> Option<(u64, IoSlice)> {
        self.in_flight.remove(&id).map(|write| (write.offset, write.data))
    }

    /// Shows `data`, without ever being in flight.
    pub(super) fn write_now(&mut self, offset: u64, data: &[u8]) {
        self.writes += 1;
        self.write(self.writes, offset, data);
    }

    /// Shows `data`; `id` is the write that it belongs to.
    pub(super) fn write(&mut self, id: u64, offset: u64, data: &[u8]) {
        for (sector, within, part) in parts(offset, data.len()) {
            let old = self.shown.get(&sector).cloned();
            let content = match (&old, part.len()) {
                (_, SECTOR) => content_of(data[part].try_into().expect("a whole sector")),
                (old, n) => {
                    let mut bytes = old.as_deref().copied().unwrap_or([0; SECTOR]);
                    bytes[within..within + n].copy_from_slice(&data[part]);
                    content_of(&bytes)
                }
            };
            set(&mut self.shown, sector, content.clone());
            self.previous.insert(sector, old);
            let versions = self.unsynced.entry(sector).or_default();
            if versions.len() == MAX_VERSIONS {
                versions.remove(0);
            }
            versions.push(Version { write: id, content });
        }
        let end = offset + data.len() as u64;
        self.len = self.len.max(end);
        self.allocated = self.allocated.max(end);
        self.last_write = (offset, data.len() as u64);
    }

    /// Puts a range of what is shown on the device.
    pub(super) fn sync_range(&mut self, offset: u64, len: u64) {
        for (sector, _, _) in parts(offset, len as usize) {
            self.sync_sector(sector);
        }
        self.device_len = self.len;
    }

    fn sync_sector(&mut self, sector: u64) {
        if self.unsynced.remove(&sector).is_some() {
            set(&mut self.device, sector, self.shown.get(&sector).cloned());
        }
    }

    /// Puts all that is shown on the device.
    pub(super) fn sync(&mut self) {
        let unsynced: Vec<u64> = self.unsynced.keys().copied().collect();
        unsynced.into_iter().for_each(|sector| self.sync_sector(sector));
        self.device_len = self.len;
        cut(&mut self.device, self.len);
        self.lied = false;
    }

    /// A sync that failed. Of a file with direct I/O each unsynced sector stays as it is, or falls back to what is on
    /// the device. Otherwise it is as on Linux: what was unsynced counts as clean, still shows, and is not on the
    /// device.
    pub(super) fn fail_sync(&mut self, direct: bool, mut keeps: impl FnMut() -> bool) {
        if !direct {
            return self.unsynced.clear();
        }
        let (shown, device) = (&mut self.shown, &self.device);
        self.unsynced.retain(|sector, _| {
            let kept = keeps();
            if !kept {
                set(shown, *sector, device.get(sector).cloned());
            }
            kept
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        cut(&mut self.shown, len);
        self.unsynced.retain(|sector, _| sector * (SECTOR as u64) < len);
        self.allocated = self.allocated.min(len);
        self.len = len;
    }

    pub(super) fn allocate(&mut self, end: u64) {
        self.len = self.len.max(end);
        self.allocated = self.allocated.max(end);
    }

    pub(super) fn used(&self) -> u64 {
        self.allocated.next_multiple_of(BLOCK)
    }

    /// Whether a write up to `end` needs no more disk space.
    pub(super) fn has_space(&self, end: u64) -> bool {
        end.next_multiple_of(BLOCK) <= self.used()
    }

    /// A range of the sector to let rot: one of those that the last write touched, or any that is not zero.
    pub(super) fn sector_to_rot(&self, tail: bool, pick: u64) -> Option<u64> {
        if tail {
            let (offset, len) = self.last_write;
            let sectors = len.div_ceil(SECTOR as u64);
            return (sectors > 0).then(|| offset / SECTOR as u64 + pick % sectors);
        }
        let count = self.shown.len() as u64;
        (count > 0).then(|| *self.shown.keys().nth((pick % count) as usize).expect("within the count"))
    }

    /// Flips a bit of a sector, wherever it is kept.
    pub(super) fn flip(&mut self, sector: u64, bit: usize) {
        let flipped = |content: Option<&Rc<Sector>>| {
            let mut bytes = content.map_or([0; SECTOR], |content| **content);
            bytes[bit / 8] ^= 1 << (bit % 8);
            content_of(&bytes)
        };
        let (shown, device) = (flipped(self.shown.get(&sector)), flipped(self.device.get(&sector)));
        set(&mut self.shown, sector, shown);
        set(&mut self.device, sector, device);
        for version in self.unsynced.get_mut(&sector).into_iter().flatten() {
            version.content = flipped(version.content.as_ref());
        }
    }

    /// Cuts the file for good.
    pub(super) fn truncate_for_good(&mut self, len: u64) {
        self.set_len(len);
        self.device_len = len;
        cut(&mut self.device, len);
    }

    /// What is left after a crash; true if what a sync had confirmed is not on the device.
    pub(super) fn crash(&mut self, crash: Crash, faults: &Faults, world: &World) -> bool {
        for (id, write) in std::mem::take(&mut self.in_flight) {
            if crash != Crash::PowerLosingAll && world.below(2) == 0 {
                self.end_by_crash(id, &write, faults, world);
            }
        }
        if crash == Crash::Process {
            return false;
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        let may_lose = faults.rate(Fault::ReorderedWrite) > 0 || faults.rate(Fault::LostWrite) > 0;
        let lost = self.survive(unsynced, crash, faults, world);
        let old_len = crash == Crash::PowerLosingAll || may_lose && world.below(2) == 0;
        self.device_len = if old_len { self.device_len } else { self.len };
        let is_shorter = self.device_len < self.len;
        self.len = self.device_len;
        cut(&mut self.device, self.len);
        self.shown = self.device.clone();
        self.previous.clear();
        std::mem::take(&mut self.lied) && (lost || is_shorter)
    }

    fn end_by_crash(&mut self, id: u64, write: &InFlight, faults: &Faults, world: &World) {
        if !world.roll(faults, Fault::TornKill) {
            return self.write(id, write.offset, &write.data);
        }
        for (_, _, part) in parts(write.offset, write.data.len()) {
            if world.below(2) == 0 {
                let offset = write.offset + part.start as u64;
                self.write(id, offset, &write.data[part]);
            }
        }
    }

    /// Puts on the device what a power failure leaves of the unsynced writes; true if anything is lost.
    fn survive(
        &mut self,
        unsynced: BTreeMap<u64, Vec<Version>>,
        crash: Crash,
        faults: &Faults,
        world: &World,
    ) -> bool {
        let reordered = world.roll(faults, Fault::ReorderedWrite);
        let (first, last) = span(&unsynced);
        // Writes before `from` are on the device, that write itself in some of its sectors if it is torn.
        let cut_short = world.roll(faults, Fault::LostWrite);
        let from = if cut_short { first + world.below(last + 2 - first) } else { last + 1 };
        let torn = cut_short && world.roll(faults, Fault::TornWrite);
        let mut lost = false;
        for (sector, versions) in unsynced {
            let kept = match crash {
                Crash::PowerLosingAll => 0,
                _ if reordered => world.below(versions.len() as u64 + 1) as usize,
                _ => {
                    let whole = versions.partition_point(|version| version.write < from);
                    let has_torn = torn && versions.get(whole).is_some_and(|version| version.write == from);
                    whole + usize::from(has_torn && world.below(2) == 0)
                }
            };
            lost |= kept < versions.len();
            if kept > 0 {
                set(&mut self.device, sector, versions[kept - 1].content.clone());
            }
        }
        lost
    }
}

/// The first and the last write of which something is unsynced.
fn span(unsynced: &BTreeMap<u64, Vec<Version>>) -> (u64, u64) {
    let writes = || unsynced.values().flatten().map(|version| version.write);
    (writes().min().unwrap_or(0), writes().max().unwrap_or(0))
}

fn content_of(bytes: &Sector) -> Content {
    (*bytes != [0; SECTOR]).then(|| Rc::new(*bytes))
}

fn set(sectors: &mut Sectors, sector: u64, content: Content) {
    match content {
        Some(content) => drop(sectors.insert(sector, content)),
        None => drop(sectors.remove(&sector)),
    }
}

/// Removes what is behind `len`.
fn cut(sectors: &mut Sectors, len: u64) {
    let (last, within) = (len / SECTOR as u64, (len % SECTOR as u64) as usize);
    drop(sectors.split_off(&(last + u64::from(within > 0))));
    if within > 0
        && let Some(content) = sectors.get_mut(&last)
    {
        Rc::make_mut(content)[within..].fill(0);
    }
}

/// Splits a range of a file at its sectors: (sector, offset within it, range within the data).
pub(super) fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (at, within) = (offset + done as u64, ((offset + done as u64) % SECTOR as u64) as usize);
        let n = (SECTOR - within).min(len - done);
        done += n;
        (n > 0).then_some((at / SECTOR as u64, within, done - n..done))
    })
}
