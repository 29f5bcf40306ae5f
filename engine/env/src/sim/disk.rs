//! A node's disk: its names, which of their changes are on the device, and what a crash makes of the difference.
//!
//! Content is kept by sectors of 512 bytes ([`super::inode`]). A write shows at once; it is on the device when it was
//! opened dsync or a sync has followed. Directory operations are on the device once the directory was synced.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::faults::{Fault, Faults, Harm};
use super::inode::{BLOCK, Inode, SECTOR};
use super::world::World;
use crate::{DirEntry, OpenOptions};

/// Size of a disk without a quota, in bytes.
const DEFAULT_SIZE: u64 = 1 << 40;
/// Removed files that may come back.
const MAX_GHOSTS: usize = 8;

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what was written shows, what was being written may.
    Process,
    /// The power fails: unsynced sectors, lengths and directory entries survive as the faults decide.
    Power,
    /// The power fails, and nothing unsynced survives.
    PowerLosingAll,
}

pub(super) type InodeRef = Rc<RefCell<Inode>>;

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
    /// Files that were removed, by their names.
    ghosts: Vec<(PathBuf, InodeRef)>,
    /// What faults did to confirmed bytes.
    pub(super) harm: Vec<Harm>,
    /// Which files faults may harm.
    pub(super) harmable: fn(&Path) -> bool,
    /// Size in bytes, if it is limited.
    pub(super) quota: Option<u64>,
    /// Until when no file can grow, in virtual time.
    pub(super) full_until: u64,
    /// Until when nothing can be written.
    pub(super) unwritable_until: u64,
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            shown: Names::new(),
            device: Names::new(),
            unsynced: BTreeMap::new(),
            ghosts: Vec::new(),
            harm: Vec::new(),
            harmable: |_| true,
            quota: None,
            full_until: 0,
            unwritable_until: 0,
        }
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
                Entry::File(inode) => (inode.borrow().len(), false),
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
                self.remember(path);
                self.change(parent(path), || Change::Remove(path.to_owned()));
                Ok(())
            }
        }
    }

    /// Keeps what goes out of a directory, for it may come back.
    fn remember(&mut self, path: &Path) {
        if let Some(Entry::File(inode)) = self.shown.get(path) {
            if self.ghosts.len() == MAX_GHOSTS {
                self.ghosts.remove(0);
            }
            self.ghosts.push((path.to_owned(), Rc::clone(inode)));
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

    /// Whether a file may grow to `end` at this time.
    pub(super) fn has_room(&self, inode: &Inode, end: u64, now: u64) -> bool {
        if inode.has_space(end) {
            return true;
        }
        let more = end.next_multiple_of(BLOCK).saturating_sub(inode.used());
        now >= self.full_until && (self.quota.is_none() || more <= self.available())
    }

    fn files(&self) -> Vec<(PathBuf, InodeRef)> {
        let file = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File(inode) => Some((path.clone(), Rc::clone(inode))),
            Entry::Dir => None,
        };
        self.shown.iter().filter_map(file).collect()
    }

    /// Lets a bit rot somewhere.
    pub(super) fn rot(&mut self, fault: Fault, world: &World) {
        let mut files = self.files();
        files.retain(|(path, inode)| !inode.borrow().is_empty() && (self.harmable)(path));
        if files.is_empty() {
            return;
        }
        let (path, inode) = files.swap_remove(world.fault_below(fault, files.len() as u64) as usize);
        let pick = world.fault_below(fault, u64::MAX);
        let Some(sector) = inode.borrow().sector_to_rot(fault == Fault::RotTail, pick) else { return };
        inode.borrow_mut().flip(sector, world.fault_below(fault, 8 * SECTOR as u64) as usize);
        self.harm.push(Harm { fault, path, offset: sector * SECTOR as u64, len: SECTOR as u64 });
    }

    /// Makes of the disk what a crash leaves.
    pub(super) fn crash(&mut self, crash: Crash, faults: &Faults, world: &World) {
        if crash != Crash::Process {
            for (_, changes) in std::mem::take(&mut self.unsynced) {
                self.keep_changes(changes, crash, faults, world);
            }
            self.shown = self.device.clone();
        }
        for (path, inode) in self.files() {
            if inode.borrow_mut().crash(crash, faults, world) {
                let len = inode.borrow().len();
                self.harm.push(Harm { fault: Fault::LyingSync, path, offset: 0, len });
            }
        }
        self.damage_files(faults, world);
    }

    fn keep_changes(&mut self, changes: Vec<Change>, crash: Crash, faults: &Faults, world: &World) {
        let reordered = world.roll(faults, Fault::ReorderedEntry);
        let lost = world.roll(faults, Fault::LostEntry);
        let kept = match crash {
            Crash::PowerLosingAll => 0,
            _ if lost => world.below(changes.len() as u64 + 1) as usize,
            _ => changes.len(),
        };
        for (n, change) in changes.into_iter().enumerate() {
            let stays = n < kept && (!reordered || world.below(2) == 0);
            match change {
                Change::Rename(from, to) if stays && world.roll(faults, Fault::HalfRename) => {
                    if let Some(entry) = self.device.get(&from).cloned() {
                        self.device.insert(to, entry);
                    }
                }
                change if stays => apply(&mut self.device, change),
                _ => {}
            }
        }
    }

    /// What the faults do to files while the node is down.
    fn damage_files(&mut self, faults: &Faults, world: &World) {
        for fault in [Fault::TruncatedFile, Fault::MissingFile, Fault::OldFile] {
            if !world.roll(faults, fault) {
                continue;
            }
            let mut files = if fault == Fault::OldFile { self.ghosts.clone() } else { self.files() };
            files.retain(|(path, _)| (self.harmable)(path));
            if files.is_empty() {
                continue;
            }
            let (path, inode) = files.swap_remove(world.fault_below(fault, files.len() as u64) as usize);
            let len = inode.borrow().len();
            match fault {
                Fault::TruncatedFile if len > 0 => {
                    let cut = world.fault_below(fault, len);
                    inode.borrow_mut().truncate_for_good(cut);
                    self.harm.push(Harm { fault, path, offset: cut, len: len - cut });
                }
                Fault::MissingFile => {
                    self.shown.remove(&path);
                    self.device.remove(&path);
                    self.harm.push(Harm { fault, path, offset: 0, len });
                }
                Fault::OldFile if !self.shown.contains_key(&path) && self.is_dir(&parent(&path)) => {
                    self.shown.insert(path.clone(), Entry::File(Rc::clone(&inode)));
                    self.device.insert(path.clone(), Entry::File(inode));
                    self.harm.push(Harm { fault, path, offset: 0, len });
                }
                _ => {}
            }
        }
    }
}
