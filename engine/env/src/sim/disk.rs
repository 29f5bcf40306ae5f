//! A node's disk: what programs see, what is on the device, and what a crash may make of the difference.
//!
//! Content is kept by sectors of 512 bytes. A write shows at once; it is on the device when it was opened dsync or
//! a sync has followed. Until then every sector remembers the versions it went through, and a power failure leaves
//! any one of them, each sector by itself: lost, torn and reordered writes are all of that kind. Directory
//! operations are on the device once the directory was synced; of the others a power failure keeps the first few.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::world::World;
use crate::{AppendBuf, DirEntry, IoSlice, OpenOptions};

/// Size of what a device writes whole, in bytes.
pub(super) const SECTOR: usize = 512;
/// Unit of space accounting, in bytes.
const BLOCK: u64 = 4096;
/// Unsynced versions that one sector remembers.
const MAX_VERSIONS: usize = 8;
/// Size of a disk without a quota, in bytes.
const DEFAULT_SIZE: u64 = 1 << 40;

type Sector = [u8; SECTOR];
/// Sectors by their number; absent ones are zero.
type Sectors = BTreeMap<u64, Box<Sector>>;

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what was written shows, what was being written may.
    Process,
    /// The power fails: unsynced sectors, lengths and directory entries survive as the seed decides.
    Power,
    /// The power fails, and nothing unsynced survives.
    PowerLosingAll,
}

/// A file's content.
#[derive(Default)]
pub(super) struct Inode {
    shown: Sectors,
    device: Sectors,
    /// Versions of sectors since they were last on the device, oldest first; the last one is shown.
    unsynced: BTreeMap<u64, Vec<Sector>>,
    len: u64,
    device_len: u64,
    /// End of what is accounted for.
    allocated: u64,
    /// Writes that were submitted and have not completed.
    in_flight: BTreeMap<u64, (u64, IoSlice)>,
    next_write: u64,
}

pub(super) type InodeRef = Rc<RefCell<Inode>>;

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> IoSlice {
        let len = usize::try_from(self.len.saturating_sub(offset)).map_or(len, |there| there.min(len));
        let mut buffer = AppendBuf::with_capacity(len);
        let out = buffer.append(len);
        for (sector, within, part) in parts(offset, len) {
            if let Some(content) = self.shown.get(&sector) {
                let n = part.len();
                out[part].copy_from_slice(&content[within..within + n]);
            }
        }
        buffer.publish();
        buffer.slice(0, len)
    }

    /// Notes a write that the device may now begin.
    pub(super) fn begin_write(&mut self, offset: u64, data: IoSlice) -> u64 {
        let id = self.next_write;
        self.next_write += 1;
        self.in_flight.insert(id, (offset, data));
        id
    }

    /// Ends a write: shows it if `done`, and puts it on the device if `durable`.
    pub(super) fn end_write(&mut self, id: u64, done: bool, durable: bool) {
        let Some((offset, data)) = self.in_flight.remove(&id).filter(|_| done) else { return };
        self.write(offset, &data);
        if durable {
            for (sector, _, _) in parts(offset, data.len()) {
                self.sync_sector(sector);
            }
            self.device_len = self.len;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (sector, within, part) in parts(offset, data.len()) {
            let content = self.shown.entry(sector).or_insert_with(|| Box::new([0; SECTOR]));
            let n = part.len();
            content[within..within + n].copy_from_slice(&data[part]);
            let versions = self.unsynced.entry(sector).or_default();
            if versions.len() == MAX_VERSIONS {
                versions.remove(0);
            }
            versions.push(**content);
        }
        let end = offset + data.len() as u64;
        self.len = self.len.max(end);
        self.allocated = self.allocated.max(end);
    }

    fn sync_sector(&mut self, sector: u64) {
        self.unsynced.remove(&sector);
        match self.shown.get(&sector) {
            Some(content) => drop(self.device.insert(sector, content.clone())),
            None => drop(self.device.remove(&sector)),
        }
    }

    /// Puts all that is shown on the device.
    pub(super) fn sync(&mut self) {
        let unsynced: Vec<u64> = self.unsynced.keys().copied().collect();
        unsynced.into_iter().for_each(|sector| self.sync_sector(sector));
        self.device_len = self.len;
        cut(&mut self.device, self.len);
    }

    /// A sync that failed, as Linux does it: what was unsynced counts as clean, and is not on the device.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
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

    fn used(&self) -> u64 {
        self.allocated.next_multiple_of(BLOCK)
    }

    /// What is left after a crash.
    fn crash(&mut self, crash: Crash, world: &World) {
        for (offset, data) in std::mem::take(&mut self.in_flight).into_values() {
            if crash != Crash::PowerLosingAll && world.below(2) == 0 {
                self.write(offset, &data);
            }
        }
        if crash == Crash::Process {
            return;
        }
        let lose_all = crash == Crash::PowerLosingAll;
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let kept = if lose_all { 0 } else { world.below(versions.len() as u64 + 1) as usize };
            if kept > 0 {
                self.device.insert(sector, Box::new(versions[kept - 1]));
            }
        }
        let old_len = lose_all || world.below(2) == 0;
        self.device_len = if old_len { self.device_len } else { self.len };
        self.len = self.device_len;
        cut(&mut self.device, self.len);
        self.shown = self.device.clone();
    }
}

/// Removes what is behind `len`.
fn cut(sectors: &mut Sectors, len: u64) {
    let (last, within) = (len / SECTOR as u64, (len % SECTOR as u64) as usize);
    drop(sectors.split_off(&(last + u64::from(within > 0))));
    if within > 0
        && let Some(content) = sectors.get_mut(&last)
    {
        content[within..].fill(0);
    }
}

/// Splits a range of a file at its sectors: (sector, offset within it, range within the data).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (at, within) = (offset + done as u64, ((offset + done as u64) % SECTOR as u64) as usize);
        let n = (SECTOR - within).min(len - done);
        done += n;
        (n > 0).then_some((at / SECTOR as u64, within, done - n..done))
    })
}

#[derive(Clone)]
enum Entry {
    Dir,
    File(InodeRef),
}

/// A change of a directory.
enum Change {
    Set(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

type Names = BTreeMap<PathBuf, Entry>;

fn apply(names: &mut Names, change: Change) {
    match change {
        Change::Set(path, entry) => drop(names.insert(path, entry)),
        Change::Remove(path) => drop(names.remove(&path)),
        Change::Rename(from, to) => {
            if let Some(entry) = names.remove(&from) {
                names.insert(to, entry);
            }
        }
    }
}

/// A node's disk.
pub(super) struct Disk {
    shown: Names,
    device: Names,
    /// Changes that are not on the device, by directory, oldest first.
    unsynced: BTreeMap<PathBuf, Vec<Change>>,
    /// Size in bytes, if it is limited.
    pub(super) quota: Option<u64>,
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk { shown: Names::new(), device: Names::new(), unsynced: BTreeMap::new(), quota: None }
    }

    fn is_dir(&self, path: &Path) -> bool {
        let is_root = path.parent().is_none() || path.as_os_str() == ".";
        is_root || matches!(self.shown.get(path), Some(Entry::Dir))
    }

    /// Makes a change, to be on the device when its directory is synced.
    fn change(&mut self, dir: PathBuf, change: impl Fn() -> Change) {
        apply(&mut self.shown, change());
        self.unsynced.entry(dir).or_default().push(change());
    }

    pub(super) fn open(&mut self, path: &Path, options: OpenOptions) -> io::Result<InodeRef> {
        match self.shown.get(path) {
            Some(_) if options.create_new => Err(io::ErrorKind::AlreadyExists.into()),
            Some(Entry::File(inode)) => Ok(Rc::clone(inode)),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None if !(options.create || options.create_new) || !self.is_dir(&parent(path)) => {
                Err(missing(path))
            }
            None => {
                let inode = InodeRef::default();
                self.change(parent(path), || Change::Set(path.to_owned(), Entry::File(Rc::clone(&inode))));
                Ok(inode)
            }
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dirs: Vec<&Path> = path.ancestors().filter(|p| !self.is_dir(p)).collect();
        dirs.reverse();
        for dir in dirs {
            if self.shown.contains_key(dir) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            self.change(parent(dir), || Change::Set(dir.to_owned(), Entry::Dir));
            self.sync_dir(&parent(dir))?;
        }
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if !self.is_dir(path) {
            return Err(missing(path));
        }
        let children = self.shown.iter().filter(|(child, _)| child.parent() == Some(path));
        let named = children.filter_map(|(child, entry)| Some((child.file_name()?, entry)));
        let entries = named.map(|(name, entry)| {
            let (len, is_dir) = match entry {
                Entry::Dir => (0, true),
                Entry::File(inode) => (inode.borrow().len, false),
            };
            DirEntry { name: name.to_string_lossy().into_owned(), len, is_dir }
        });
        Ok(entries.collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.shown.contains_key(from) {
            return Err(missing(from));
        }
        self.change(parent(from), || Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        match self.shown.get(path) {
            None => Err(missing(path)),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File(_)) => {
                self.change(parent(path), || Change::Remove(path.to_owned()));
                Ok(())
            }
        }
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_dir(path) {
            return Err(missing(path));
        }
        for change in self.unsynced.remove(path).unwrap_or_default() {
            apply(&mut self.device, change);
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        let file = |entry: &Entry| if let Entry::File(inode) = entry { inode.borrow().used() } else { 0 };
        self.shown.values().map(file).sum()
    }

    pub(super) fn total(&self) -> u64 {
        self.quota.unwrap_or(DEFAULT_SIZE)
    }

    pub(super) fn available(&self) -> u64 {
        self.total().saturating_sub(self.used())
    }

    /// Whether a file may grow to `end`.
    pub(super) fn has_room(&self, inode: &Inode, end: u64) -> bool {
        let more = end.next_multiple_of(BLOCK).saturating_sub(inode.used());
        more == 0 || more <= self.available()
    }

    /// Makes of the disk what a crash leaves.
    pub(super) fn crash(&mut self, crash: Crash, world: &World) {
        if crash != Crash::Process {
            for (_, changes) in std::mem::take(&mut self.unsynced) {
                let lose_all = crash == Crash::PowerLosingAll;
                let kept = if lose_all { 0 } else { world.below(changes.len() as u64 + 1) as usize };
                changes.into_iter().take(kept).for_each(|change| apply(&mut self.device, change));
            }
            self.shown = self.device.clone();
        }
        for entry in self.shown.values() {
            if let Entry::File(inode) = entry {
                inode.borrow_mut().crash(crash, world);
            }
        }
    }
}
