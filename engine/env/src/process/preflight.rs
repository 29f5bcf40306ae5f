//! What the machine has to offer before an executor starts, with a word on what to change.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::glommio::{MEMLOCK_PER_CORE, usable_cpus};

/// The oldest kernel that has all that is used.
const MIN_KERNEL: (u32, u32) = (5, 15);
/// glommio refuses to start below this limit on locked memory, in bytes.
const MIN_MEMLOCK: u64 = 512 * 1024;
/// Fewer descriptors than this leave no room for connections.
const MIN_OPEN_FILES: u64 = 1024;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release, such as `6.8.0-45-generic`.
    pub kernel: String,
    /// Locked memory that the executors need, in bytes.
    pub memlock_needed: u64,
    /// Locked memory that is allowed, in bytes; `None`: no limit.
    pub memlock_limit: Option<u64>,
    /// Descriptors that this process may have open, after raising the limit as far as allowed; `None`: no limit.
    pub open_files: Option<u64>,
    /// CPUs that this process may run on.
    pub cpus: usize,
}

/// Why it cannot run here, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The kernel is too old.
    #[error(
        "Linux {found} is too old: {major}.{minor} or newer is needed for io_uring as it is used here",
        major = MIN_KERNEL.0,
        minor = MIN_KERNEL.1
    )]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The kernel has no io_uring.
    #[error("this kernel ({kernel}) was built without io_uring (CONFIG_IO_URING): use another kernel")]
    NoIoUring {
        /// Its release.
        kernel: String,
    },
    /// io_uring is there, but forbidden.
    #[error(
        "io_uring is not permitted here: in a container, run with a seccomp profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register (docker: --security-opt seccomp=unconfined); on a host, set the \
         sysctl kernel.io_uring_disabled to 0 (it is {sysctl})"
    )]
    Forbidden {
        /// What kernel.io_uring_disabled says.
        sysctl: String,
    },
    /// io_uring lacks an operation.
    #[error("io_uring of this kernel ({kernel}) lacks {operation}: use a newer kernel")]
    Operation {
        /// The kernel's release.
        kernel: String,
        /// What is missing.
        operation: &'static str,
    },
    /// Not enough memory may be locked.
    #[error(
        "{needed} bytes of locked memory are needed for {cores} cores, and the limit is {limit}: raise it (ulimit \
         -l {kib}, LimitMEMLOCK= in a systemd unit, docker run --ulimit memlock={needed}), or use fewer cores"
    )]
    Memlock {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
        /// Executors that need them.
        cores: usize,
        /// The need in KiB, rounded up.
        kib: u64,
    },
    /// Too few descriptors.
    #[error(
        "only {limit} files may be open, and {MIN_OPEN_FILES} are the least: raise the limit (ulimit -n, \
         LimitNOFILE= in a systemd unit, docker run --ulimit nofile=65536)"
    )]
    OpenFiles {
        /// How many are allowed.
        limit: u64,
    },
    /// Something else.
    #[error("io_uring cannot be set up: {0}")]
    Other(io::Error),
}

/// Checks that `cores` executors can run here, and raises the soft limits on open files and locked memory to the
/// hard ones. Call it before [`crate::glommio::run_cores`].
pub fn preflight(cores: usize) -> Result<Facts, PreflightError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if kernel_version(&kernel).is_some_and(|version| version < MIN_KERNEL) {
        return Err(PreflightError::Kernel { found: kernel });
    }
    let memlock_needed = (cores as u64 * MEMLOCK_PER_CORE).max(MIN_MEMLOCK);
    let memlock_limit = raise(Resource::Memlock);
    if let Some(limit) = memlock_limit.filter(|limit| *limit < memlock_needed) {
        let kib = memlock_needed.div_ceil(1024);
        return Err(PreflightError::Memlock { needed: memlock_needed, limit, cores, kib });
    }
    let open_files = raise(Resource::Nofile);
    if let Some(limit) = open_files.filter(|limit| *limit < MIN_OPEN_FILES) {
        return Err(PreflightError::OpenFiles { limit });
    }
    check_io_uring(&kernel)?;
    Ok(Facts { kernel, memlock_needed, memlock_limit, open_files, cpus: usable_cpus().len() })
}

/// Major and minor version of a release.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Raises a soft limit to the hard one, and returns what holds then.
fn raise(resource: Resource) -> Option<u64> {
    let limit = getrlimit(resource);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where that is not allowed the soft limit stays, and is what is checked.
    if setrlimit(resource, raised).is_ok() { limit.maximum } else { limit.current }
}

fn check_io_uring(kernel: &str) -> Result<(), PreflightError> {
    let ring = IoUring::new(8).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => PreflightError::NoIoUring { kernel: kernel.to_owned() },
        Some(libc::EPERM | libc::EACCES) => PreflightError::Forbidden { sysctl: io_uring_disabled() },
        _ => PreflightError::Other(error),
    })?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(PreflightError::Other)?;
    let used = [
        (opcode::Read::CODE, "READ"),
        (opcode::Write::CODE, "WRITE"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::Fallocate::CODE, "FALLOCATE"),
        (opcode::OpenAt::CODE, "OPENAT"),
        (opcode::Close::CODE, "CLOSE"),
        (opcode::RenameAt::CODE, "RENAMEAT"),
        (opcode::UnlinkAt::CODE, "UNLINKAT"),
        (opcode::Send::CODE, "SEND"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::PollRemove::CODE, "POLL_REMOVE"),
        (opcode::Timeout::CODE, "TIMEOUT"),
    ];
    match used.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, operation)) => Err(PreflightError::Operation { kernel: kernel.to_owned(), operation }),
        None => Ok(()),
    }
}

fn io_uring_disabled() -> String {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    sysctl.map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(kernel_version("6.8.0-45-generic"), Some((6, 8)));
        assert_eq!(kernel_version("5.10.0"), Some((5, 10)));
        assert!(kernel_version("5.9.1").unwrap() < kernel_version("5.15").unwrap());
        assert_eq!(kernel_version("strange"), None);
    }
}
