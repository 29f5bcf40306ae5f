//! A few threads for what can only block: name resolution, the file system calls that io_uring does not have, and the first
//! touch of memory.
//!
//! They start with the first job and sleep between jobs. Name resolution has threads of its own, because it may
//! hang for seconds and must not hold up the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use rustix::thread::CpuSet;

/// Jobs that may wait for a thread; the next one waits for room.
const QUEUE_CAPACITY: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// The CPUs of these threads: a thread has those of whoever starts it, and an executor is pinned to its own.
static CPUS: OnceLock<CpuSet> = OnceLock::new();

/// Has the threads, of whatever pool, run on those of `cpus` that are not `taken` by executors, or on all of them if there
/// are no others. The first to say it counts.
pub(crate) fn keep_off(cpus: &[usize], taken: &[usize]) {
    let has_others = cpus.len() > taken.len();
    CPUS.get_or_init(|| {
        let mut set = CpuSet::new();
        let others = cpus.iter().filter(|cpu| !has_others || !taken.contains(cpu));
        others.for_each(|cpu| set.set(*cpu));
        set
    });
}

/// A set of threads with one queue.
pub(crate) struct Pool {
    name: &'static str,
    threads: usize,
    queue: OnceLock<flume::Sender<Job>>,
}

/// For file system calls.
pub(crate) static FILES: Pool = Pool { name: "ringmq-files", threads: 1, queue: OnceLock::new() };
/// For memory that has to be touched first.
pub(crate) static MEMORY: Pool = Pool { name: "ringmq-memory", threads: 1, queue: OnceLock::new() };
/// For name resolution.
pub(crate) static NAMES: Pool = Pool { name: "ringmq-names", threads: 2, queue: OnceLock::new() };

impl Pool {
    /// Runs `job` on a thread of the pool. A panic inside becomes an error.
    pub(crate) async fn run<T: Send + 'static>(
        &'static self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = flume::bounded(1);
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job));
            let result = result.unwrap_or_else(|_| Err(io::Error::other("a blocking call panicked")));
            // The caller may be gone (its executor ended): then nobody wants the answer.
            let _ = answer.send(result);
        });
        let gone = || io::Error::other("the threads for blocking calls are gone");
        self.queue()?.send_async(job).await.map_err(|_| gone())?;
        answered.recv_async().await.map_err(|_| gone())?
    }

    fn queue(&'static self) -> io::Result<&'static flume::Sender<Job>> {
        if let Some(queue) = self.queue.get() {
            return Ok(queue);
        }
        let (sender, receiver) = flume::bounded::<Job>(QUEUE_CAPACITY);
        for _ in 0..self.threads {
            let receiver = receiver.clone();
            std::thread::Builder::new().name(self.name.into()).spawn(move || {
                if let Some(cpus) = CPUS.get() {
                    // Refused where a CPU has gone since: it runs where its executor does, as well as that goes.
                    let _ = rustix::thread::sched_setaffinity(None, cpus);
                }
                while let Ok(job) = receiver.recv() {
                    job();
                }
            })?;
        }
        // Two cores may race here: the loser's threads end when its sender is dropped.
        Ok(self.queue.get_or_init(|| sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_pool_goes_on() {
        static POOL: Pool = Pool { name: "test-pool", threads: 1, queue: OnceLock::new() };
        let panicked = futures_lite::future::block_on(POOL.run::<()>(|| panic!("expected by this test")));
        assert_eq!(panicked.unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(futures_lite::future::block_on(POOL.run(|| Ok(7))).unwrap(), 7);
    }
}
