//! The end of the process when its environment is beyond repair.

use std::cell::Cell;
use std::io::{self, Write};
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
            Fatal::Ring { .. } => 84,
        }
    }
}

/// What a simulated node's end unwinds with, so that the simulator stops that node and no other.
pub(crate) struct NodeStopped(pub(crate) Fatal);

thread_local! {
    /// Whether this thread simulates nodes.
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `poll` of a simulated task, in which [`fatal`] unwinds instead of ending the process.
pub(crate) fn in_simulation<T>(poll: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            SIMULATED.set(self.0);
        }
    }
    let _restore = Restore(SIMULATED.replace(true));
    poll()
}

/// Ends the process at once, with the reason's own exit status: nothing is flushed, no destructor runs. On a
/// simulated node, ends that node.
pub fn fatal(reason: Fatal) -> ! {
    if SIMULATED.get() {
        std::panic::resume_unwind(Box::new(NodeStopped(reason)));
    }
    tracing::error!(%reason, "fatal");
    // Nobody may be listening; the exit status tells them all the same.
    let _ = writeln!(io::stderr(), "ringmq: fatal: {reason}");
    // SAFETY: ends the process without running anything else, which is what is wanted.
    unsafe { libc::_exit(reason.exit_status()) }
}
