//! One process for each store: a lock file that the kernel releases, however the process ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

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

/// An exclusive lock (flock) on a file that holds this process's id; released when dropped. The file stays.
#[derive(Debug)]
pub struct LockFile {
    _file: File,
}

impl LockFile {
    /// Locks `path`, which is created if need be; its directory has to exist. Does not wait.
    pub fn acquire(path: &Path) -> Result<LockFile, LockError> {
        let failed = |error| LockError::Io { path: path.to_owned(), error };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = Holder { pid: read_pid(&mut file) };
                return Err(LockError::Held { path: path.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        write_pid(&mut file).map_err(failed)?;
        Ok(LockFile { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
