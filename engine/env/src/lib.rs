//! The seam between RingMQ and the machine: disk, network, clock, tasks and randomness.
//!
//! The engine, the broker and the name server are generic over [`Env`] and reach the outside world through it
//! alone, so that the very same code runs on io_uring (the glommio backend) and in the simulator (one thread,
//! one seed). All of it lives on one core: nothing here is `Send`, except [`IoSlice`], which may be handed to
//! another core's socket.
//!
//! Rules that every caller keeps:
//! * A future that owns a buffer in flight is never dropped before it completes: no `select!` around a write, no
//!   time-out by dropping. Spawn it, and let a message tell its end.
//! * Tasks end by themselves; nothing cancels one, short of the end of its core (or a simulated crash).
//! * Two writes submitted together have no order. Chain them, or wait.

mod buf;
#[cfg(test)]
mod conformance;
mod fatal;
pub mod glommio;
mod memory;
pub mod mutants;
pub mod process;
pub mod sim;

pub use buf::{AppendBuf, Filler, IoSlice, prefetch};
pub use fatal::{Fatal, fatal};
pub use memory::{HUGE_BLOCK, HUGE_PAGE};

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A point on this process's monotonic clock, in nanoseconds since the environment started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `delay` after this one.
    pub fn after(self, delay: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Opened for writing as well as reading.
    pub write: bool,
    /// Created if it does not exist.
    pub create: bool,
    /// Created, and an error ([`io::ErrorKind::AlreadyExists`]) if it exists.
    pub create_new: bool,
    /// Every completed write is on the device (O_DSYNC).
    pub dsync: bool,
    /// Bypasses the page cache: offsets, lengths and memory must be multiples of [`File::alignment`].
    pub direct: bool,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name within the directory.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Space on the filesystem that holds a path, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What is used and what is available: the filesystem's size (or the quota) without root's reserve.
    pub total: u64,
    /// What an unprivileged process may still use.
    pub available: u64,
}

/// An open file. Cheap to clone: clones share the descriptor, which closes with the last one.
pub trait File: Clone + 'static {
    /// Multiple that offsets, lengths and memory of direct I/O must keep, in bytes; a power of two, at least 512.
    fn alignment(&self) -> usize;

    /// Writes all of `data` at `offset`; short writes are continued inside. With [`OpenOptions::dsync`] the bytes
    /// are on the device when this returns `Ok`. After an error the range's content is undefined.
    fn write_at(&self, data: IoSlice, offset: u64) -> impl Future<Output = io::Result<()>>;

    /// Writes all of `data` at `offset` into the page cache before it returns: that outlives the process, and no more. For
    /// few bytes of a file that is not direct and has its space already; the core waits for it.
    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `len` bytes at `offset`; shorter only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<IoSlice>>;

    /// fdatasync: completed writes and the size needed to read them back are on the device when this returns
    /// `Ok`. After an error the page state is undefined: never call it again to retry.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Reserves disk space for the range and extends the file over it (fallocate).
    fn allocate(&self, offset: u64, len: u64) -> impl Future<Output = io::Result<()>>;

    /// Truncates or extends to `len` bytes.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>>;

    /// Present length in bytes, from the descriptor.
    fn size(&self) -> impl Future<Output = io::Result<u64>>;
}

/// A listening socket.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The next connection. Errors (too many descriptors, …) are backed off inside: this only returns an error
    /// once the listener is closed.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>>;

    /// The bound address.
    fn local_addr(&self) -> SocketAddr;

    /// Stops accepting; a waiting [`Listener::accept`] returns an error.
    fn close(&self);
}

/// A connected byte stream (TCP_NODELAY set).
pub trait Stream: 'static {
    /// The reading half.
    type Reader: StreamReader;
    /// The writing half.
    type Writer: StreamWriter;

    /// The other end's address.
    fn peer_addr(&self) -> SocketAddr;

    /// This end's address.
    fn local_addr(&self) -> SocketAddr;

    /// The two halves; the socket closes when both are dropped.
    fn into_split(self) -> (Self::Reader, Self::Writer);
}

/// The reading half of a stream.
pub trait StreamReader: 'static {
    /// Appends what is there (at least 1 byte, at most the spare capacity of `buffer`, which must not be zero) and
    /// returns how many bytes; 0 at the end of the stream. Waits while nothing is there.
    fn read(&mut self, buffer: &mut bytes::BytesMut) -> impl Future<Output = io::Result<usize>>;
}

/// The writing half of a stream.
pub trait StreamWriter: 'static {
    /// Writes every byte of `parts`, in order, with as few system calls as possible (vectored).
    fn write_all(&mut self, parts: &[io::IoSlice<'_>]) -> impl Future<Output = io::Result<()>>;

    /// A handle that ends both directions of the stream from another task of this core: a waiting read
    /// returns 0 or an error, a waiting write an error.
    fn closer(&self) -> StreamCloser;
}

/// Shuts a stream down from another task of the same core; harmless when it is already closed.
#[derive(Clone)]
pub struct StreamCloser(std::rc::Rc<dyn Fn()>);

impl StreamCloser {
    /// Wraps the backend's own way to shut the stream down.
    pub fn new(close: impl Fn() + 'static) -> Self {
        StreamCloser(std::rc::Rc::new(close))
    }

    /// Ends both directions.
    pub fn close(&self) {
        (self.0)();
    }
}

/// One core's view of the machine. Cheap to clone; lives on the core that made it.
pub trait Env: Clone + 'static {
    /// Open files.
    type File: File;
    /// Listening sockets.
    type Listener: Listener<Stream = Self::Stream>;
    /// Connected sockets.
    type Stream: Stream;

    // --- disk ---

    /// Opens a file.
    fn open(&self, path: &Path, options: OpenOptions) -> impl Future<Output = io::Result<Self::File>>;

    /// Creates a directory and its parents, and syncs the parents of what it created. Fine when it exists.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Lists a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;

    /// Renames within one directory. Durable only after [`Env::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file. Durable only after [`Env::sync_dir`].
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes creations, renames and removals in the directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Space on the filesystem of `path`.
    fn disk_space(&self, path: &Path) -> impl Future<Output = io::Result<DiskSpace>>;

    // --- network ---

    /// Listens on `addr` (port 0: any). Every core may listen on the same address; the kernel shares connections
    /// out among them.
    fn listen(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>>;

    /// Connects within `timeout`.
    fn connect(&self, addr: SocketAddr, timeout: Duration) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Addresses of `host:port`, resolved off the core.
    fn resolve(&self, host_port: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>>;

    // --- memory ---

    /// As [`AppendBuf::huge`], with memory that is there already, unless no thread can be had for that: to touch a huge page
    /// for the first time takes as long as a group commit does, or several of them.
    fn huge_memory(&self, capacity: usize) -> impl Future<Output = AppendBuf>;

    // --- time, tasks, randomness ---

    /// Now on the monotonic clock.
    fn now(&self) -> Instant;

    /// Now on the wall clock, in milliseconds since 1970. It may jump in both directions.
    fn wall_ms(&self) -> i64;

    /// Waits for `delay`.
    fn sleep(&self, delay: Duration) -> impl Future<Output = ()>;

    /// Starts a task on this core. It runs to its own end: nothing cancels it. It does not start running
    /// before the caller next awaits.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Items of background work after which others get their turn, whatever the clock says: where it stands still
    /// while a task runs, nothing else would cut the work into slices.
    const SLICE_ITEMS: usize = usize::MAX;

    /// Lets other tasks of this core run.
    fn yield_now(&self) -> impl Future<Output = ()>;

    /// 64 random bits.
    fn random(&self) -> u64;
}
