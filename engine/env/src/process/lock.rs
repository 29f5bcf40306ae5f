//! One process for each store: a lock file that the kernel releases, however the process ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long a process that has ended may take to let go of its lock: as long as its last writes take.
const LONGEST_RELEASE: Duration = Duration::from_secs(5);
/// Between two looks at a lock that is being let go of.
const LOOK_AGAIN: Duration = Duration::from_millis(3);

/// Why a lock file was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{path} is locked by {holder}: stop that one first, or use another data directory", path = .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process, as far as it is known.
        holder: Holder,
    },
    /// Its holder is gone, and its lock is not.
    #[error(
        "{path} was locked by {holder}, which has ended, and is not free after {} s: its last writes hang, or \
         a process that cannot be seen from here has locked it", LONGEST_RELEASE.as_secs(), path = .path.display()
    )]
    NotReleased {
        /// The lock file.
        path: PathBuf,
        /// The process that the file names.
        holder: Holder,
    },
    /// The file could not be opened or written.
    #[error("cannot lock {path}: {error}", path = .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, if the file tells.
    pub pid: Option<u32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

/// An exclusive lock (flock) on a file that holds this process's id. The file stays.
///
/// It is released when this and every copy of [`LockFile::descriptor`] are dropped. When a process is killed, the
/// kernel finishes the writes of its rings some time after the process has gone: rings that keep the descriptor
/// ([`crate::glommio::CoreOptions::keeping_open`]) hold the lock until then, so that nobody reads or writes the store
/// before the last write of its previous owner.
#[derive(Debug)]
pub struct LockFile {
    descriptor: Arc<OwnedFd>,
}

impl LockFile {
    /// Locks `path`, which is created if need be; its directory has to exist. If the process that the file names
    /// lives and has the file open, that is an error at once; if it is gone, waits up to 5 s for its lock to go,
    /// too. Blocks the thread: not for executors.
    pub fn acquire(path: &Path) -> Result<LockFile, LockError> {
        LockFile::acquire_within(path, LONGEST_RELEASE)
    }

    pub(super) fn acquire_within(path: &Path, longest: Duration) -> Result<LockFile, LockError> {
        let failed = |error| LockError::Io { path: path.to_owned(), error };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(path).map_err(failed)?;
        let deadline = Instant::now() + longest;
        while !try_lock(&file).map_err(failed)? {
            let (path, holder) = (path.to_owned(), Holder { pid: read_pid(&mut file) });
            if holder.pid.is_some_and(|pid| has_open(pid, &file)) {
                return Err(LockError::Held { path, holder });
            }
            if Instant::now() >= deadline {
                return Err(LockError::NotReleased { path, holder });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(LockFile { descriptor: Arc::new(file.into()) })
    }

    /// What holds the lock for as long as it is open anywhere.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.descriptor)
    }
}

/// Whether the lock was free, and is ours now.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process lives and has the file of `ours` open, besides through `ours` itself. That it lives is not
/// enough: its id may have been given to another process since, above all in containers, where ids are few.
fn has_open(pid: u32, ours: &File) -> bool {
    if !lives(pid) {
        return false;
    }
    let Ok(wanted) = ours.metadata().map(|file| (file.dev(), file.ino())) else { return true };
    // What cannot be looked into belongs to somebody else, and may well be the holder.
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return lives(pid) };
    let own = (pid == std::process::id()).then(|| ours.as_raw_fd().to_string());
    descriptors
        .flatten()
        .filter(|entry| entry.file_name().to_str() != own.as_deref())
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|file| (file.dev(), file.ino()) == wanted)
}

/// Whether a process is there, and more than a status that its parent has not asked for yet.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; the state comes next.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
