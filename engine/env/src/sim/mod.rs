//! A simulated machine room: nodes with disks, a network between them and one clock, in one thread, from one seed.
//!
//! The same seed gives the same run, to the nanosecond, as long as the code that runs takes all its randomness,
//! time and I/O from its [`SimEnv`] (and iterates over no map with a random hasher). [`Sim::trace_hash`] tells.
//!
//! ```
//! use ringmq_env::{Env, File, IoSlice, OpenOptions, sim::{Crash, Sim}};
//!
//! let sim = Sim::new(7);
//! let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
//! sim.run(async {
//!     let env = sim.node("a");
//!     let file = env.open("/f".as_ref(), options).await.unwrap();
//!     env.sync_dir("/".as_ref()).await.unwrap();
//!     file.write_at(IoSlice::copy_of(b"never synced"), 0).await.unwrap();
//!     sim.crash("a", Crash::PowerLosingAll);
//!     let env = sim.node("a");
//!     let file = env.open("/f".as_ref(), OpenOptions::default()).await.unwrap();
//!     assert_eq!(file.size().await.unwrap(), 0);
//! });
//! ```

mod disk;
mod net;
#[cfg(test)]
mod tests;
mod world;

pub use disk::Crash;
pub use net::{SimListener, SimReader, SimStream, SimWriter};

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{DirEntry, DiskSpace, Env, Fatal, File, Instant, IoSlice, OpenOptions};
use disk::{Disk, InodeRef, SECTOR};
use net::Net;
use world::{NodeId, World};

/// How long an operation of the disk takes, in nanoseconds.
const DISK_LATENCY: (u64, u64) = (30_000, 250_000);
/// How long connections to a node that lost its power take to notice, in nanoseconds.
const POWER_LOSS_NOTICED: (u64, u64) = (1_000_000, 3_000_000_000);
/// How long connections to a killed process take to notice, in nanoseconds.
const KILL_NOTICED: (u64, u64) = (20_000, 500_000);
/// The wall clock when the simulation starts, in milliseconds since 1970.
const WALL_START_MS: i64 = 1_800_000_000_000;
/// Virtual time after which a run counts as hung.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(3600);

/// What an operation of the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOpKind {
    /// Opening (or creating) a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing a file's data.
    Sync,
    /// Reserving space.
    Allocate,
    /// Truncating or extending.
    SetLen,
    /// Creating directories.
    CreateDir,
    /// Listing a directory, or asking for a size or for free space.
    Look,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
}

/// An operation of the disk, as a fault hook sees it.
#[derive(Clone, Debug)]
pub struct DiskOp<'a> {
    /// What it does.
    pub kind: DiskOpKind,
    /// What it does it to; for an open file the path it was opened by.
    pub path: &'a Path,
    /// Where, in bytes; 0 if that has no meaning.
    pub offset: u64,
    /// How many bytes; 0 if that has no meaning.
    pub len: u64,
}

/// What a fault hook wants to happen to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Nothing special.
    None,
    /// It fails with this error; a write may still have happened, a sync has not and never will.
    Fail(io::ErrorKind),
    /// It takes this much longer.
    Delay(Duration),
}

type Hook = Box<dyn FnMut(&DiskOp<'_>) -> DiskFault>;

struct Node {
    id: NodeId,
    name: String,
    disk: RefCell<Disk>,
    /// Raised by each crash: what belongs to an earlier life has no effect any more.
    life: Cell<u64>,
    hook: RefCell<Option<Hook>>,
    wall_skew_ms: Cell<i64>,
    ended_by: RefCell<Option<Fatal>>,
}

/// The simulation: owns the world, and plays fate.
pub struct Sim {
    world: Rc<World>,
    net: Rc<Net>,
    nodes: RefCell<Vec<Rc<Node>>>,
    time_limit: Cell<Duration>,
}

impl Sim {
    /// A world without nodes.
    pub fn new(seed: u64) -> Sim {
        let world = World::new(seed);
        let net = Net::new(&world);
        let time_limit = Cell::new(DEFAULT_TIME_LIMIT);
        Sim { world, net, nodes: RefCell::default(), time_limit }
    }

    /// An environment on the node of that name, which is made if need be (with an empty disk). Several environments
    /// on one node are its cores: they share the disk and the address. After a crash the old ones are dead, and a
    /// new one starts the node again on what its disk kept.
    pub fn node(&self, name: &str) -> SimEnv {
        let node = self.find(name).unwrap_or_else(|| self.add(name));
        let life = node.life.get();
        SimEnv { world: Rc::clone(&self.world), net: Rc::clone(&self.net), node, life }
    }

    fn find(&self, name: &str) -> Option<Rc<Node>> {
        self.nodes.borrow().iter().find(|node| node.name == name).cloned()
    }

    fn existing(&self, name: &str) -> Rc<Node> {
        self.find(name).unwrap_or_else(|| panic!("there is no node {name}"))
    }

    fn add(&self, name: &str) -> Rc<Node> {
        let mut nodes = self.nodes.borrow_mut();
        let node = Rc::new(Node {
            id: nodes.len(),
            name: name.to_owned(),
            disk: RefCell::new(Disk::new()),
            life: Cell::new(0),
            hook: RefCell::default(),
            wall_skew_ms: Cell::new(0),
            ended_by: RefCell::default(),
        });
        nodes.push(Rc::clone(&node));
        node
    }

    /// Runs the world until `future` is ready. The future belongs to no node and survives every crash. Panics when
    /// nothing can happen any more, or when the time limit has passed.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let main = self.world.main_task();
        let limit = Instant(self.world.now()).after(self.time_limit.get());
        loop {
            let Some(id) = self.world.pick() else {
                panic!("nothing can happen any more, and it is not done")
            };
            assert!(self.world.now() < limit.0, "not done in {:?} of virtual time", self.time_limit.get());
            if id == main.id() {
                let waker = main.begin_poll();
                if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
            } else {
                self.world.poll_task(id);
            }
            for (node, reason) in self.world.take_stopped() {
                let node = Rc::clone(&self.nodes.borrow()[node]);
                *node.ended_by.borrow_mut() = Some(reason);
                self.crash(&node.name, Crash::Process);
            }
        }
    }

    /// Virtual time after which [`Sim::run`] counts as hung: an hour unless set.
    pub fn set_time_limit(&self, limit: Duration) {
        self.time_limit.set(limit);
    }

    /// Waits, on no node.
    pub fn sleep(&self, delay: Duration) -> impl Future<Output = ()> + use<> {
        self.world.sleep(delay)
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        Instant(self.world.now())
    }

    /// 64 random bits from the seed.
    pub fn random(&self) -> u64 {
        self.world.random()
    }

    /// A hash over all that happened so far.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// Ends a node at once: its tasks are dropped where they stand, its listeners and connections are gone, its
    /// disk keeps what the kind of crash lets it keep.
    pub fn crash(&self, name: &str, crash: Crash) {
        let node = self.existing(name);
        self.world.note("crash", &[node.id as u64, crash as u64]);
        node.life.set(node.life.get() + 1);
        let noticed = if crash == Crash::Process { KILL_NOTICED } else { POWER_LOSS_NOTICED };
        self.net.crash(node.id, self.world.between(noticed.0, noticed.1));
        self.world.drop_tasks(Some(node.id));
        node.disk.borrow_mut().crash(crash, &self.world);
    }

    /// Why the node ended itself ([`crate::fatal`]), if it did; forgets it.
    pub fn ended_by(&self, name: &str) -> Option<Fatal> {
        self.existing(name).ended_by.borrow_mut().take()
    }

    /// Limits the node's disk to so many bytes; `None` lifts the limit.
    pub fn set_quota(&self, name: &str, bytes: Option<u64>) {
        self.existing(name).disk.borrow_mut().quota = bytes;
    }

    /// Asks `hook` about every operation of the node's disk from now on. It survives crashes.
    pub fn on_disk(&self, name: &str, hook: impl FnMut(&DiskOp<'_>) -> DiskFault + 'static) {
        *self.existing(name).hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Lets no disk operation of the node fail any more.
    pub fn heal_disk(&self, name: &str) {
        *self.existing(name).hook.borrow_mut() = None;
    }

    /// Moves the node's wall clock against the true time.
    pub fn jump_wall_clock(&self, name: &str, ms: i64) {
        let node = self.existing(name);
        node.wall_skew_ms.set(node.wall_skew_ms.get() + ms);
    }

    /// Lets nothing pass between two nodes; streams go on when it ends.
    pub fn partition(&self, a: &str, b: &str) {
        self.net.partition(self.existing(a).id, self.existing(b).id, true);
    }

    /// Ends a partition.
    pub fn heal(&self, a: &str, b: &str) {
        self.net.partition(self.existing(a).id, self.existing(b).id, false);
    }

    /// The address that other nodes reach this one by.
    pub fn ip(&self, name: &str) -> IpAddr {
        net::node_ip(self.existing(name).id)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Tasks hold the world and the world holds the tasks.
        self.world.clear();
        for node in self.nodes.borrow().iter() {
            node.hook.borrow_mut().take();
        }
    }
}

/// A simulated core.
#[derive(Clone)]
pub struct SimEnv {
    world: Rc<World>,
    net: Rc<Net>,
    node: Rc<Node>,
    life: u64,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the node has crashed")
}

impl SimEnv {
    fn is_alive(&self) -> bool {
        self.node.life.get() == self.life
    }

    /// Runs a disk operation: `action` happens after the disk's latency, whether or not anybody waits for it, unless
    /// the node crashes first. It is told whether the operation is to fail.
    fn disk<T: 'static, A>(
        &self,
        op: &DiskOp<'_>,
        action: A,
    ) -> impl Future<Output = io::Result<T>> + use<T, A>
    where
        A: FnOnce(&mut Disk, Result<(), io::ErrorKind>) -> io::Result<T> + 'static,
    {
        self.world
            .note(&op.path.to_string_lossy(), &[op.kind as u64, op.offset, op.len, self.node.id as u64]);
        let fault = match self.node.hook.borrow_mut().as_mut() {
            Some(hook) => hook(op),
            None => DiskFault::None,
        };
        let mut delay = self.world.between(DISK_LATENCY.0, DISK_LATENCY.1);
        let mut outcome = Ok(());
        match fault {
            DiskFault::None => {}
            DiskFault::Fail(kind) => outcome = Err(kind),
            DiskFault::Delay(more) => delay += more,
        }
        let (node, life) = (Rc::clone(&self.node), self.life);
        self.world.later(delay, move || {
            if node.life.get() != life {
                return Err(gone());
            }
            action(&mut node.disk.borrow_mut(), outcome)
        })
    }

    /// As [`SimEnv::disk`], for what does nothing when it fails.
    async fn disk_at<T: 'static>(
        &self,
        kind: DiskOpKind,
        path: &Path,
        action: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        let op = DiskOp { kind, path, offset: 0, len: 0 };
        self.disk(&op, move |disk, outcome| {
            outcome?;
            action(disk)
        })
        .await
    }
}

impl Env for SimEnv {
    type File = SimFile;
    type Listener = SimListener;
    type Stream = SimStream;

    async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<SimFile> {
        let opened = path.to_owned();
        let inode = self.disk_at(DiskOpKind::Open, path, move |disk| disk.open(&opened, options)).await?;
        Ok(SimFile { env: self.clone(), inode, path: Rc::from(path), options })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let dir = path.to_owned();
        self.disk_at(DiskOpKind::CreateDir, path, move |disk| disk.create_dir_all(&dir)).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = path.to_owned();
        self.disk_at(DiskOpKind::Look, path, move |disk| disk.read_dir(&dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (from.to_owned(), to.to_owned());
        self.disk_at(DiskOpKind::Rename, from, move |disk| disk.rename(&old, &new)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let file = path.to_owned();
        self.disk_at(DiskOpKind::Remove, path, move |disk| disk.remove_file(&file)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = path.to_owned();
        self.disk_at(DiskOpKind::SyncDir, path, move |disk| disk.sync_dir(&dir)).await
    }

    async fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        let space = |disk: &mut Disk| Ok(DiskSpace { total: disk.total(), available: disk.available() });
        self.disk_at(DiskOpKind::Look, path, space).await
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<SimListener> {
        if self.is_alive() { self.net.listen(self.node.id, addr) } else { Err(gone()) }
    }

    async fn connect(&self, addr: SocketAddr, timeout: Duration) -> io::Result<SimStream> {
        let stream = self.net.connect(self.node.id, addr, timeout).await?;
        if self.is_alive() { Ok(stream) } else { Err(gone()) }
    }

    /// Addresses only: there are no names.
    async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        match host_port.parse() {
            Ok(addr) => Ok(vec![addr]),
            Err(_) => Err(io::Error::new(io::ErrorKind::NotFound, format!("{host_port} is no address"))),
        }
    }

    fn now(&self) -> Instant {
        Instant(self.world.now())
    }

    fn wall_ms(&self) -> i64 {
        let since_start = i64::try_from(self.world.now() / 1_000_000).unwrap_or(i64::MAX);
        WALL_START_MS.saturating_add(since_start).saturating_add(self.node.wall_skew_ms.get())
    }

    async fn sleep(&self, delay: Duration) {
        self.world.sleep(delay).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // A dead node starts nothing.
        if self.is_alive() {
            self.world.spawn(self.node.id, task);
        }
    }

    async fn yield_now(&self) {
        futures_lite::future::yield_now().await;
    }

    fn random(&self) -> u64 {
        self.world.random()
    }
}

/// A file on a simulated disk.
#[derive(Clone)]
pub struct SimFile {
    env: SimEnv,
    inode: InodeRef,
    path: Rc<Path>,
    options: OpenOptions,
}

impl SimFile {
    fn op(&self, kind: DiskOpKind, offset: u64, len: u64) -> DiskOp<'_> {
        DiskOp { kind, path: &self.path, offset, len }
    }

    /// What the kernel says to unaligned direct I/O and to writing a file opened for reading.
    fn check(&self, offset: u64, len: usize, memory: usize, write: bool) -> io::Result<()> {
        let unaligned = |n: u64| !n.is_multiple_of(SECTOR as u64);
        if write && !self.options.write {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if self.options.direct && (unaligned(offset) || unaligned(len as u64) || unaligned(memory as u64)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.env.is_alive() { Ok(()) } else { Err(gone()) }
    }
}

impl File for SimFile {
    fn alignment(&self) -> usize {
        SECTOR
    }

    async fn write_at(&self, data: IoSlice, offset: u64) -> io::Result<()> {
        self.check(offset, data.len(), data.as_ptr().addr(), true)?;
        let (inode, durable, end) = (Rc::clone(&self.inode), self.options.dsync, offset + data.len() as u64);
        let id = inode.borrow_mut().begin_write(offset, data.clone());
        let world = Rc::clone(&self.env.world);
        let op = self.op(DiskOpKind::Write, offset, data.len() as u64);
        let written = self.env.disk(&op, move |disk, outcome| {
            let has_room = disk.has_room(&inode.borrow(), end);
            let outcome = outcome.and(if has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull) });
            // A write that failed for want of space has not happened; any other may have.
            let done = outcome.is_ok() || (has_room && world.below(2) == 0);
            inode.borrow_mut().end_write(id, done, durable && outcome.is_ok());
            Ok(outcome?)
        });
        written.await
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<IoSlice> {
        self.check(offset, len, 0, false)?;
        let inode = Rc::clone(&self.inode);
        let op = self.op(DiskOpKind::Read, offset, len as u64);
        let read = self.env.disk(&op, move |_, outcome| {
            outcome?;
            Ok(inode.borrow().read(offset, len))
        });
        read.await
    }

    async fn sync(&self) -> io::Result<()> {
        let inode = Rc::clone(&self.inode);
        let synced = self.env.disk(&self.op(DiskOpKind::Sync, 0, 0), move |_, outcome| {
            let mut inode = inode.borrow_mut();
            if outcome.is_ok() {
                inode.sync()
            } else {
                inode.fail_sync()
            };
            Ok(outcome?)
        });
        synced.await
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(0, 0, 0, true)?;
        let inode = Rc::clone(&self.inode);
        let op = self.op(DiskOpKind::Allocate, offset, len);
        let allocated = self.env.disk(&op, move |disk, outcome| {
            outcome?;
            if !disk.has_room(&inode.borrow(), offset + len) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.borrow_mut().allocate(offset + len);
            Ok(())
        });
        allocated.await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(0, 0, 0, true)?;
        let inode = Rc::clone(&self.inode);
        let set = self.env.disk(&self.op(DiskOpKind::SetLen, 0, len), move |_, outcome| {
            outcome?;
            inode.borrow_mut().set_len(len);
            Ok(())
        });
        set.await
    }

    async fn size(&self) -> io::Result<u64> {
        self.check(0, 0, 0, false)?;
        Ok(self.inode.borrow().len())
    }
}
