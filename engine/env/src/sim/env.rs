//! The seam's traits on a simulated node: where operations take their time, and meet their faults.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::disk::{Disk, InodeRef};
use super::faults::{Fault, Faults, Harm};
use super::inode::{SECTOR, parts};
use super::net::{Net, SimListener, SimStream};
use super::world::World;
use super::{DiskFault, DiskOp, DiskOpKind, Node};
use crate::{AppendBuf, DirEntry, DiskSpace, Env, File, Instant, IoSlice, OpenOptions};

/// How long an operation of the disk takes, in nanoseconds.
const DISK_LATENCY: (u64, u64) = (30_000, 250_000);
const MS: u64 = 1_000_000;
/// How long one of a slow disk takes.
const SLOW: (u64, u64) = (10 * MS, 10_000 * MS);
/// How long one that is stuck takes.
const STUCK: (u64, u64) = (10_000 * MS, 120_000 * MS);
/// How long the second piece of an operation comes behind the first.
const PIECE_GAP: (u64, u64) = (MS / 20, 50 * MS);
/// How long the disk is full.
const FULL: (u64, u64) = (MS / 1000, 3_000 * MS);
/// How long memory takes that has to be touched first.
const MEMORY: (u64, u64) = (MS / 100, 3 * MS);
/// How long a process stands still.
const PAUSE: (u64, u64) = (MS, 20_000 * MS);
/// How far a wall clock jumps, in ms.
const CLOCK_JUMP_MS: i64 = 24 * 3600 * 1000;
/// How fast a wall clock drifts, in parts per million.
const CLOCK_DRIFT: i64 = 50_000;

/// What becomes of an operation.
struct Fate {
    delay: Duration,
    outcome: Result<(), io::ErrorKind>,
}

/// A simulated core.
#[derive(Clone)]
pub struct SimEnv {
    pub(super) world: Rc<World>,
    pub(super) net: Rc<Net>,
    pub(super) node: Rc<Node>,
    pub(super) life: u64,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the node has crashed")
}

impl SimEnv {
    /// What faults did to bytes that the node's disk had confirmed, since the last call ([`super::Sim::take_harm`]).
    pub fn take_harm(&self) -> Vec<Harm> {
        std::mem::take(&mut self.node.disk.borrow_mut().harm)
    }

    fn is_alive(&self) -> bool {
        self.node.life.get() == self.life
    }

    fn faults(&self) -> Faults {
        self.node.faults.get()
    }

    fn roll(&self, fault: Fault) -> bool {
        self.world.roll(&self.faults(), fault)
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
        let fate = self.fate(op);
        self.world.tell(|| {
            let (name, path) = (&self.node.name, op.path.display());
            let outcome = fate.outcome.err().map_or(String::new(), |error| format!(" fails: {error:?}"));
            format!("{name} {:?} {path} {}+{} {:?}{outcome}", op.kind, op.offset, op.len, fate.delay)
        });
        let (node, life) = (Rc::clone(&self.node), self.life);
        self.world.later(fate.delay, move || {
            if node.life.get() != life {
                return Err(gone());
            }
            action(&mut node.disk.borrow_mut(), fate.outcome)
        })
    }

    /// What the hook and the faults want to happen to an operation.
    fn fate(&self, op: &DiskOp<'_>) -> Fate {
        self.surprise_process();
        let mut fate = Fate {
            delay: self.world.between(DISK_LATENCY.0, DISK_LATENCY.1),
            outcome: self.refusal(op.kind),
        };
        for (fault, (from, to)) in [(Fault::SlowDisk, SLOW), (Fault::StuckIo, STUCK)] {
            if self.roll(fault) {
                fate.delay += self.world.fault_time(fault, from, to);
            }
        }
        let wished = match self.node.hook.borrow_mut().as_mut() {
            Some(hook) => hook(op),
            None => DiskFault::None,
        };
        match wished {
            DiskFault::None => {}
            DiskFault::Fail(kind) => fate.outcome = Err(kind),
            DiskFault::Delay(more) => fate.delay += more,
        }
        fate
    }

    /// The error that a fault gives the operation.
    fn refusal(&self, kind: DiskOpKind) -> Result<(), io::ErrorKind> {
        use DiskOpKind::*;
        let now = self.world.now();
        let changes = matches!(kind, Write | Allocate | SetLen | Rename | Remove | CreateDir);
        if changes {
            for fault in [Fault::NoSpace, Fault::NoSpaceAnywhere] {
                if self.roll(fault) {
                    let until = now + self.world.fault_time(fault, FULL.0, FULL.1).as_nanos() as u64;
                    let mut disk = self.node.disk.borrow_mut();
                    match fault {
                        Fault::NoSpace => disk.full_until = until,
                        _ => disk.unwritable_until = until,
                    }
                }
            }
            if now < self.node.disk.borrow().unwritable_until && kind != Remove {
                return Err(io::ErrorKind::StorageFull);
            }
        }
        let fault = match kind {
            Read => Fault::ReadError,
            Sync | SyncDir => Fault::SyncError,
            Write | Allocate | SetLen | Rename | Remove => Fault::WriteError,
            Open | CreateDir | Look => return Ok(()),
        };
        if self.roll(fault) { Err(io::ErrorKind::Other) } else { Ok(()) }
    }

    /// What may happen to the process and to the disk's content at any time.
    fn surprise_process(&self) {
        if self.roll(Fault::Pause) {
            self.world.pause(self.node.id, self.world.fault_time(Fault::Pause, PAUSE.0, PAUSE.1));
        }
        if self.roll(Fault::ClockJump) {
            let jump =
                self.world.fault_below(Fault::ClockJump, 2 * CLOCK_JUMP_MS as u64) as i64 - CLOCK_JUMP_MS;
            // Small jumps are as likely as large ones.
            let jump = jump >> self.world.fault_below(Fault::ClockJump, 24);
            self.node.clock.jump(jump);
        }
        if self.roll(Fault::ClockDrift) {
            let drift =
                self.world.fault_below(Fault::ClockDrift, 2 * CLOCK_DRIFT as u64) as i64 - CLOCK_DRIFT;
            self.node.clock.drift(self.world.now(), drift);
        }
        for fault in [Fault::RotCold, Fault::RotTail] {
            if self.roll(fault) {
                self.node.disk.borrow_mut().rot(fault, &self.world);
            }
        }
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

    const SLICE_ITEMS: usize = 32;

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

    async fn huge_memory(&self, capacity: usize) -> AppendBuf {
        self.sleep(self.world.between(MEMORY.0, MEMORY.1)).await;
        AppendBuf::huge(capacity)
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<SimListener> {
        if self.is_alive() { self.net.listen(&self.node, addr) } else { Err(gone()) }
    }

    async fn connect(&self, addr: SocketAddr, timeout: Duration) -> io::Result<SimStream> {
        let stream = self.net.connect(&self.node, addr, timeout).await?;
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
        self.node.clock.wall_ms(self.world.now())
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

    /// Where an operation is cut in two, and how long the second piece has to wait.
    fn pieces(&self, len: usize) -> Option<(usize, Duration)> {
        let sectors = len / SECTOR;
        if sectors < 2 || !self.env.roll(Fault::PiecewiseIo) {
            return None;
        }
        let world = &self.env.world;
        let first = 1 + world.fault_below(Fault::PiecewiseIo, sectors as u64 - 1) as usize;
        Some((first * SECTOR, world.fault_time(Fault::PiecewiseIo, PIECE_GAP.0, PIECE_GAP.1)))
    }

    fn may_harm(&self) -> bool {
        (self.env.node.disk.borrow().harmable)(&self.path)
    }

    /// Where a write really goes.
    fn aim(&self, offset: u64, len: usize) -> u64 {
        let end = self.inode.borrow().len();
        if end < len as u64 || !self.may_harm() || !self.env.roll(Fault::MisdirectedWrite) {
            return offset;
        }
        let places = (end - len as u64) / SECTOR as u64 + 1;
        let found = self.env.world.fault_below(Fault::MisdirectedWrite, places) * SECTOR as u64;
        let mut disk = self.env.node.disk.borrow_mut();
        for offset in [offset, found] {
            let (fault, path) = (Fault::MisdirectedWrite, self.path.to_path_buf());
            disk.harm.push(Harm { fault, path, offset, len: len as u64 });
        }
        found
    }

    async fn write_piece(&self, data: IoSlice, offset: u64) -> io::Result<()> {
        let op = self.op(DiskOpKind::Write, offset, data.len() as u64);
        let offset = self.aim(offset, data.len());
        let (inode, dsync, len) = (Rc::clone(&self.inode), self.options.dsync, data.len() as u64);
        let lies = dsync && self.may_harm() && self.env.roll(Fault::LyingSync);
        let id = inode.borrow_mut().begin_write(offset, data);
        let world = Rc::clone(&self.env.world);
        let written = self.env.disk(&op, move |disk, outcome| {
            let has_room = disk.has_room(&inode.borrow(), offset + len, world.now());
            let is_refused = outcome.is_ok() && !has_room;
            let outcome = outcome.and(if has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull) });
            let mut inode = inode.borrow_mut();
            let Some((offset, data)) = inode.end_write(id) else { return Err(gone()) };
            match outcome {
                Ok(()) => inode.write(id, offset, &data),
                // What has no space reserved is not written; what fails later (a device that is thinly provisioned has no
                // space, too) may have happened in any of its sectors.
                Err(_) if is_refused => {}
                Err(_) => {
                    for (_, _, part) in parts(offset, data.len()).filter(|_| world.below(2) == 0) {
                        inode.write(id, offset + part.start as u64, &data[part]);
                    }
                }
            }
            match (outcome.is_ok() && dsync, lies) {
                (true, true) => inode.lied = true,
                (true, false) => inode.sync_range(offset, len),
                (false, _) => {}
            }
            Ok(outcome?)
        });
        written.await
    }

    async fn read_piece(&self, offset: u64, len: usize) -> io::Result<IoSlice> {
        let inode = Rc::clone(&self.inode);
        let op = self.op(DiskOpKind::Read, offset, len as u64);
        let stale = self.stale_sector(offset, len as u64);
        let read = self.env.disk(&op, move |_, outcome| {
            outcome?;
            Ok(inode.borrow().read(offset, len, stale))
        });
        read.await
    }

    /// The sector that a read gets an old version of, if it does.
    fn stale_sector(&self, offset: u64, len: u64) -> Option<u64> {
        let may_be = self.env.faults().rate(Fault::StaleRead) > 0 && self.may_harm();
        if !may_be || !self.env.roll(Fault::StaleRead) {
            return None;
        }
        let sectors = self.inode.borrow().rewritten(offset, len);
        if sectors.is_empty() {
            return None;
        }
        let sector = sectors[self.env.world.fault_below(Fault::StaleRead, sectors.len() as u64) as usize];
        let (fault, path) = (Fault::StaleRead, self.path.to_path_buf());
        let harm = Harm { fault, path, offset: sector * SECTOR as u64, len: SECTOR as u64 };
        self.env.node.disk.borrow_mut().harm.push(harm);
        Some(sector)
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
        if let Some((first, second)) = self.pieces(data.len()) {
            self.write_piece(data.slice(0, first), offset).await?;
            self.env.sleep(second).await;
            return self.write_piece(data.slice(first, data.len() - first), offset + first as u64).await;
        }
        self.write_piece(data, offset).await
    }

    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check(offset, data.len(), data.as_ptr().addr(), true)?;
        let op = self.op(DiskOpKind::Write, offset, data.len() as u64);
        let outcome = self.env.fate(&op).outcome;
        let (disk, now) = (self.env.node.disk.borrow(), self.env.world.now());
        let has_room = disk.has_room(&self.inode.borrow(), offset + data.len() as u64, now);
        let outcome = outcome.and(if has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull) });
        // A failure has happened up to somewhere.
        let written =
            if outcome.is_ok() { data.len() } else { self.env.world.below(data.len() as u64) as usize };
        self.inode.borrow_mut().write_now(offset, &data[..written]);
        Ok(outcome?)
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<IoSlice> {
        self.check(offset, len, 0, false)?;
        let Some((first, second)) = self.pieces(len) else { return self.read_piece(offset, len).await };
        let mut bytes = self.read_piece(offset, first).await?.to_vec();
        self.env.sleep(second).await;
        if bytes.len() == first {
            bytes.extend_from_slice(&self.read_piece(offset + first as u64, len - first).await?);
        }
        Ok(IoSlice::copy_of(&bytes))
    }

    async fn sync(&self) -> io::Result<()> {
        let (inode, world, direct) =
            (Rc::clone(&self.inode), Rc::clone(&self.env.world), self.options.direct);
        let lies = self.may_harm() && self.env.roll(Fault::LyingSync);
        let synced = self.env.disk(&self.op(DiskOpKind::Sync, 0, 0), move |_, outcome| {
            let mut inode = inode.borrow_mut();
            match outcome {
                Ok(()) if lies => inode.lied = true,
                Ok(()) => inode.sync(),
                Err(_) => inode.fail_sync(direct, || world.below(2) == 0),
            }
            Ok(outcome?)
        });
        synced.await
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check(0, 0, 0, true)?;
        let (inode, world) = (Rc::clone(&self.inode), Rc::clone(&self.env.world));
        let op = self.op(DiskOpKind::Allocate, offset, len);
        let allocated = self.env.disk(&op, move |disk, outcome| {
            outcome?;
            if !disk.has_room(&inode.borrow(), offset + len, world.now()) {
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
