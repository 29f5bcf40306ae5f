//! The end of the process when its environment is beyond repair.

use std::io;
use std::path::PathBuf;

/// Why the process cannot go on. Nothing of this is ever retried.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A sync failed: what the device holds is unknown.
    #[error("sync of {path} failed: {error}", path = .path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A write failed for another reason than a full disk.
    #[error("write to {path} failed: {error}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A file without which the store has no meaning is damaged.
    #[error("{path} is damaged: {detail}", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// io_uring itself failed.
    #[error("io_uring failed: {error}")]
    Ring {
        /// What the kernel said.
        error: io::Error,
    },
}

impl Fatal {
    /// The process's exit status, one for each reason.
    pub fn exit_status(&self) -> i32 {
        match self {
            Fatal::Sync { .. } => 81,
            Fatal::Write { .. } => 82,
            Fatal::Damaged { .. } => 83,
            Fatal::Ring { .. } => 84,
        }
    }
}

/// Ends the process at once, with the reason's own exit status: nothing is flushed, no destructor runs.
pub fn fatal(reason: Fatal) -> ! {
    tracing::error!(%reason, "fatal");
    eprintln!("ringmq: fatal: {reason}");
    // SAFETY: ends the process without running anything else, which is what is wanted.
    unsafe { libc::_exit(reason.exit_status()) }
}
