//! Executors, one for each core.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::ring::Ring;
use super::watch::{CoreTasks, CoreWatch, Watchdog, Watched};
use super::{GlommioEnv, pool, spawn_scheduled};
use crate::{Fatal, fatal};

/// After how long glommio asks a task that does not yield to leave the core. Below 100 ms it is likely to fire
/// before anything ran, which is when glommio loses wake-ups.
const PREEMPT_TIMER: Duration = Duration::from_millis(100);
/// Bytes that glommio registers with its three rings, for files of its own, which nobody opens here: its minimum.
const IO_MEMORY: usize = 64 * 1024;
/// Entries in each of glommio's rings: they only carry timers and wake-ups.
const RING_DEPTH: usize = 64;

/// Locked memory that one executor registers, in bytes: [`IO_MEMORY`] with each of glommio's three rings.
pub(crate) const MEMLOCK_PER_CORE: u64 = 3 * IO_MEMORY as u64;

const _: () = assert!(8 * MEMLOCK_PER_CORE <= 8 << 20, "8 cores fit the usual limit of 8 MiB");

/// How executors run.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// Pins each executor to one of the CPUs that this process may use, if there are enough of them.
    pub pin: bool,
    /// An executor that waits for a file or a socket keeps looking for the completion for a while before it sleeps:
    /// lower latency for a busy CPU.
    pub busy_wait: bool,
    /// See [`CoreOptions::keeping_open`].
    pub(crate) keep_open: Vec<Arc<OwnedFd>>,
    /// As [`PREEMPT_TIMER`]; shorter only in a test that wants wake-ups to be lost.
    pub(crate) preempt_timer: Duration,
}

impl Default for CoreOptions {
    fn default() -> CoreOptions {
        CoreOptions { pin: true, busy_wait: false, keep_open: Vec::new(), preempt_timer: PREEMPT_TIMER }
    }
}

impl CoreOptions {
    /// As by default, but the kernel may move the executors: for programs with little to do.
    pub fn unpinned() -> CoreOptions {
        CoreOptions { pin: false, ..CoreOptions::default() }
    }

    /// Has the kernel keep `descriptors` open until all I/O of the executors is done, however the process ends: for
    /// locks on what they write. Executors that end by themselves let go of them.
    #[must_use]
    pub fn keeping_open(self, descriptors: Vec<Arc<OwnedFd>>) -> CoreOptions {
        CoreOptions { keep_open: descriptors, ..self }
    }
}

/// Why the executors did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No cores were asked for.
    #[error("at least one core is needed")]
    NoCores,
    /// An executor or its ring could not be made.
    #[error("cannot start the executor of core {core}: {reason}")]
    Executor {
        /// Which one.
        core: usize,
        /// What glommio or the kernel said.
        reason: String,
    },
    /// The watchdog's thread could not be started.
    #[error("cannot start the watchdog: {0}")]
    Watchdog(io::Error),
}

/// Running executors.
pub struct Cores {
    handles: Vec<ExecutorJoinHandle<()>>,
    _watchdog: Watchdog,
}

impl Cores {
    /// Blocks until every core's main future has ended and the I/O that it left behind is done.
    pub fn join(self) {
        for handle in self.handles {
            if let Err(error) = handle.join() {
                // Tasks that panic abort the process; what is left is glommio's own failure.
                fatal(Fatal::Ring { error: io::Error::other(error.to_string()) });
            }
        }
    }
}

/// Starts `cores` executors, each on a thread of its own, and runs `main(core, env)` on each. Returns once all of
/// them run. An executor ends when its `main` has ended: tasks that are still there are dropped where they stand.
///
/// A panic in any task aborts the process.
pub fn run_cores<M, F>(cores: usize, options: &CoreOptions, main: M) -> Result<Cores, StartError>
where
    M: FnOnce(usize, GlommioEnv) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    if cores == 0 {
        return Err(StartError::NoCores);
    }
    super::started();
    let cpus = usable_cpus();
    let pinned = if options.pin && cores <= cpus.len() { cores } else { 0 };
    pool::keep_off(&cpus, &cpus[..pinned]);
    let watches: Vec<Arc<CoreWatch>> = (0..cores).map(|_| Arc::default()).collect();
    let mut handles = Vec::with_capacity(cores);
    for (core, watch) in watches.iter().enumerate() {
        let cpu = (core < pinned).then(|| cpus[core]);
        handles.push(start(core, cpu, options, Arc::clone(watch), main.clone())?);
    }
    let watchdog = Watchdog::start(watches).map_err(StartError::Watchdog)?;
    Ok(Cores { handles, _watchdog: watchdog })
}

/// Starts one executor, unpinned if it cannot be pinned, and waits until it runs.
fn start<M, F>(
    core: usize,
    cpu: Option<usize>,
    options: &CoreOptions,
    watch: Arc<CoreWatch>,
    main: M,
) -> Result<ExecutorJoinHandle<()>, StartError>
where
    M: FnOnce(usize, GlommioEnv) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let refused = |reason: String| StartError::Executor { core, reason };
    let (running, runs) = flume::bounded(1);
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let again = main.clone();
    let handle = LocalExecutorBuilder::new(placement)
        .name(&format!("ringmq-core-{core}"))
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .preempt_timer(options.preempt_timer)
        .spawn({
            let (watch, keep_open) = (Arc::clone(&watch), options.keep_open.clone());
            let busy_wait = options.busy_wait;
            move || async move {
                let ring = Ring::new(Arc::clone(&watch), &keep_open, busy_wait);
                // The ring has its own hold on them now.
                drop(keep_open);
                match ring {
                    Ok(ring) => core_main(core, ring, watch, running, main).await,
                    // The starter waits for this.
                    Err(error) => drop(running.send(Err(error))),
                }
            }
        })
        .map_err(|error| refused(error.to_string()))?;
    match runs.recv() {
        Ok(Ok(())) => Ok(handle),
        Ok(Err(error)) => Err(refused(error.to_string())),
        // The executor was not made, so its future was dropped unrun.
        Err(_) => match handle.join() {
            Err(error) if cpu.is_some() => {
                tracing::warn!(core, %error, "cannot pin the executor to its CPU");
                start(core, None, options, watch, again)
            }
            Err(error) => Err(refused(error.to_string())),
            Ok(()) => Err(refused("it ended before it ran".into())),
        },
    }
}

async fn core_main<M, F>(
    core: usize,
    ring: Rc<Ring>,
    watch: Arc<CoreWatch>,
    running: flume::Sender<io::Result<()>>,
    main: M,
) where
    M: FnOnce(usize, GlommioEnv) -> F,
    F: Future<Output = ()> + 'static,
{
    watch.run_here();
    // The ring's own task outlives the others.
    let drivers = CoreTasks::new(Arc::clone(&watch), None);
    spawn_scheduled(Watched::new(&drivers, ring.drive()));
    let (pulsed, kicked) = (Arc::clone(&watch), Rc::clone(&ring));
    spawn_scheduled(poll_fn(move |cx| {
        pulsed.publish_pulse(cx.waker().clone());
        kicked.look_again();
        Poll::<()>::Pending
    }));
    // The starter waits for this.
    let _ = running.send(Ok(()));
    let tasks = CoreTasks::new(watch, Some(Rc::clone(&ring)));
    let env = GlommioEnv::new(Rc::clone(&ring), Rc::clone(&tasks));
    Watched::new(&tasks, main(core, env)).await;
    ring.begin_stop();
    tasks.end().await;
    ring.stop().await;
}

/// The CPUs that this process may use, in order.
pub(crate) fn usable_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
