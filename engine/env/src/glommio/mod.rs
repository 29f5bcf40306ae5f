//! The real machine: executors and tasks on glommio; files, sockets, timers and sleep on an io_uring of our own.

mod cores;
mod file;
#[cfg(test)]
mod guards;
mod net;
mod park;
mod pool;
mod readiness;
mod ring;
#[cfg(test)]
mod tests;
mod timers;
mod watch;

pub use cores::{CoreOptions, Cores, StartError, run_cores};
pub(crate) use cores::{MEMLOCK_PER_CORE, usable_cpus};
pub use file::GlommioFile;
pub use net::{GlommioListener, GlommioReader, GlommioStream, GlommioWriter};

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glommio::TaskQueueHandle;

use crate::{AppendBuf, DirEntry, DiskSpace, Env, Instant, OpenOptions};
use ring::Ring;
use watch::{CoreTasks, Watched};

/// Permissions of created directories.
const DIR_MODE: u32 = 0o750;

/// One executor's view of the machine. Made by [`run_cores`], and usable on that executor's thread only.
#[derive(Clone)]
pub struct GlommioEnv {
    core: Rc<Core>,
}

struct Core {
    ring: Rc<Ring>,
    tasks: Rc<CoreTasks>,
    random: RefCell<fastrand::Rng>,
}

impl GlommioEnv {
    fn new(ring: Rc<Ring>, tasks: Rc<CoreTasks>) -> GlommioEnv {
        GlommioEnv { core: Rc::new(Core { ring, tasks, random: RefCell::new(fastrand::Rng::new()) }) }
    }

    /// How often the watchdog had to wake this core because glommio had forgotten runnable tasks.
    pub fn watchdog_kicks(&self) -> u64 {
        self.core.tasks.watch().kicks()
    }
}

impl Env for GlommioEnv {
    type File = GlommioFile;
    type Listener = GlommioListener;
    type Stream = GlommioStream;

    async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<GlommioFile> {
        GlommioFile::open(&self.core.ring, path, options).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        pool::FILES.run(move || create_dir_all(&path)).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        pool::FILES.run(move || read_dir(&path)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        file::rename(&self.core.ring, from, to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        file::remove_file(&self.core.ring, path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        file::sync_dir(&self.core.ring, path).await
    }

    async fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        let path = path.to_owned();
        pool::FILES.run(move || disk_space(&path)).await
    }

    async fn huge_memory(&self, capacity: usize) -> AppendBuf {
        file::huge_memory(capacity).await
    }

    async fn listen(&self, addr: SocketAddr) -> io::Result<GlommioListener> {
        GlommioListener::bind(&self.core.ring, addr)
    }

    async fn connect(&self, addr: SocketAddr, timeout: Duration) -> io::Result<GlommioStream> {
        net::connect(&self.core.ring, addr, timeout).await
    }

    async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = host_port.parse() {
            return Ok(vec![addr]);
        }
        let host_port = host_port.to_owned();
        pool::NAMES.run(move || Ok(host_port.to_socket_addrs()?.collect())).await
    }

    fn now(&self) -> Instant {
        now()
    }

    fn wall_ms(&self) -> i64 {
        self.core.tasks.wall_ms(wall_ms)
    }

    async fn sleep(&self, delay: Duration) {
        self.core.ring.sleep(delay).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        spawn_scheduled(Watched::new(&self.core.tasks, task));
    }

    async fn yield_now(&self) {
        futures_lite::future::yield_now().await;
    }

    fn random(&self) -> u64 {
        self.core.random.borrow_mut().u64(..)
    }
}

/// Starts a task of this executor and lets it run to its end. `glommio::spawn_local` would poll it here and now,
/// inside whatever the caller has borrowed; a task put into a queue by name is only scheduled.
fn spawn_scheduled(task: impl Future<Output = ()> + 'static) {
    let spawned = glommio::spawn_local_into(task, TaskQueueHandle::default());
    spawned.expect("every executor has its default queue").detach();
}

/// Now on the monotonic clock.
fn now() -> Instant {
    Instant(u64::try_from(started().elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The wall clock in ms since 1970.
fn wall_ms() -> i64 {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    }
}

/// The start of this process's monotonic clock, the same for all cores.
fn started() -> std::time::Instant {
    static STARTED: OnceLock<std::time::Instant> = OnceLock::new();
    *STARTED.get_or_init(std::time::Instant::now)
}

fn create_dir_all(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.is_dir()).collect();
    for dir in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(DIR_MODE).create(dir) {
            // Another core may be making the same one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            result => result?,
        }
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn read_dir(path: &PathBuf) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let is_dir = metadata.is_dir();
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(DirEntry { name, len: if is_dir { 0 } else { metadata.len() }, is_dir });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    // What is reserved for root is nobody's here: neither used nor available, as df reckons, and RocketMQ.
    let total = stat.f_blocks.saturating_sub(stat.f_bfree) + stat.f_bavail;
    Ok(DiskSpace { total: bytes(total), available: bytes(stat.f_bavail) })
}
