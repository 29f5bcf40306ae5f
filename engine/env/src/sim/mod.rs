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

mod clock;
mod disk;
mod env;
mod faults;
mod inode;
mod net;
#[cfg(test)]
mod tests;
mod world;

pub use disk::Crash;
pub use env::{SimEnv, SimFile};
pub use faults::{CERTAIN, Fault, Faults, Harm, Severity};
pub use net::{SimListener, SimReader, SimStream, SimWriter};

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{Fatal, Instant};
use clock::WallClock;
use disk::Disk;
use net::Net;
use world::{NodeId, World};

/// How long connections to a node that lost its power take to notice, in nanoseconds.
const POWER_LOSS_NOTICED: (u64, u64) = (1_000_000, 3_000_000_000);
/// How long connections to a killed process take to notice, in nanoseconds.
const KILL_NOTICED: (u64, u64) = (20_000, 500_000);
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
    faults: Cell<Faults>,
    /// To crash so, after so many more polls of its tasks.
    doom: Cell<Option<(u64, Crash)>>,
    clock: WallClock,
    ended_by: RefCell<Option<Fatal>>,
    /// When it crashed last.
    ended_at: Cell<Instant>,
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
            faults: Cell::new(Faults::power_failure()),
            doom: Cell::new(None),
            clock: WallClock::default(),
            ended_by: RefCell::default(),
            ended_at: Cell::new(Instant(0)),
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
                let polled = self.world.poll_task(id);
                self.end_stopped();
                // A node that has just ended itself is spared its planned crash.
                if let Some(node) = polled {
                    self.approach_doom(node);
                }
            }
        }
    }

    /// Ends the nodes that have ended themselves.
    fn end_stopped(&self) {
        for (node, reason) in self.world.take_stopped() {
            let node = Rc::clone(&self.nodes.borrow()[node]);
            *node.ended_by.borrow_mut() = Some(reason);
            self.crash(&node.name, Crash::Process);
        }
    }

    /// Counts a poll of the node towards its planned crash.
    fn approach_doom(&self, node: NodeId) {
        let node = Rc::clone(&self.nodes.borrow()[node]);
        match node.doom.get() {
            Some((0, crash)) => self.crash(&node.name, crash),
            Some((polls, crash)) => node.doom.set(Some((polls - 1, crash))),
            None => {}
        }
    }

    /// Lets the node crash once its tasks have been polled so many times: at some await, wherever that is. A crash
    /// before that takes its place.
    pub fn crash_after_polls(&self, name: &str, polls: u64, crash: Crash) {
        self.existing(name).doom.set(Some((polls, crash)));
    }

    /// How often the node has crashed so far.
    pub fn lives(&self, name: &str) -> u64 {
        self.existing(name).life.get()
    }

    /// Sets what may go wrong on the node, and with the connections that it writes to.
    pub fn set_faults(&self, name: &str, faults: Faults) {
        self.existing(name).faults.set(faults);
    }

    /// How often the fault has happened in this world.
    pub fn fault_count(&self, fault: Fault) -> u64 {
        self.world.fault_count(fault)
    }

    /// What faults did to bytes that the node's disk had confirmed, since the last call.
    pub fn take_harm(&self, name: &str) -> Vec<Harm> {
        std::mem::take(&mut self.existing(name).disk.borrow_mut().harm)
    }

    /// Ends what faults of the disk or the process have begun: space is back, the process runs.
    pub fn end_episodes(&self, name: &str) {
        let node = self.existing(name);
        let mut disk = node.disk.borrow_mut();
        (disk.full_until, disk.unwritable_until) = (0, 0);
        self.world.pause(node.id, Duration::ZERO);
    }

    /// Tells `listener` what happens from now on, in words.
    pub fn on_trace(&self, listener: impl FnMut(Instant, &str) + 'static) {
        self.world.listen(Some(Box::new(listener)));
    }

    /// Adds to the trace what a model of the world has seen.
    pub fn note(&self, what: impl FnOnce() -> String, numbers: &[u64]) {
        self.world.note("model", numbers);
        self.world.tell(what);
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
        self.world.tell(|| format!("{name} crashes: {crash:?}"));
        node.life.set(node.life.get() + 1);
        node.doom.set(None);
        node.ended_at.set(self.now());
        self.world.pause(node.id, Duration::ZERO);
        let noticed = if crash == Crash::Process { KILL_NOTICED } else { POWER_LOSS_NOTICED };
        self.net.crash(node.id, self.world.between(noticed.0, noticed.1));
        self.world.drop_tasks(Some(node.id));
        node.disk.borrow_mut().crash(crash, &node.faults.get(), &self.world);
    }

    /// Why the node ended itself ([`crate::fatal`]), if it did; forgets it.
    pub fn ended_by(&self, name: &str) -> Option<Fatal> {
        self.existing(name).ended_by.borrow_mut().take()
    }

    /// When the node crashed last.
    pub fn ended_at(&self, name: &str) -> Instant {
        self.existing(name).ended_at.get()
    }

    /// Limits the node's disk to so many bytes; `None` lifts the limit.
    pub fn set_quota(&self, name: &str, bytes: Option<u64>) {
        self.existing(name).disk.borrow_mut().quota = bytes;
    }

    /// Faults harm only files of the node's disk for whose paths `harmable` is true.
    pub fn harm_only(&self, name: &str, harmable: fn(&Path) -> bool) {
        self.existing(name).disk.borrow_mut().harmable = harmable;
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
        node.clock.jump(ms);
    }

    /// Lets nothing pass between two nodes; streams go on when it ends.
    pub fn partition(&self, a: &str, b: &str) {
        self.net.partition(self.existing(a).id, self.existing(b).id, true);
    }

    /// Ends a partition.
    pub fn heal(&self, a: &str, b: &str) {
        self.net.partition(self.existing(a).id, self.existing(b).id, false);
    }

    /// Ends every partition.
    pub fn heal_all(&self) {
        self.net.heal_all();
    }

    /// The address that other nodes reach this one by.
    pub fn ip(&self, name: &str) -> IpAddr {
        net::node_ip(self.existing(name).id)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.listen(None);
        // Tasks hold the world and the world holds the tasks.
        self.world.clear();
        for node in self.nodes.borrow().iter() {
            node.hook.borrow_mut().take();
        }
    }
}
