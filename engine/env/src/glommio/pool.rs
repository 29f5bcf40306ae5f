//! A few threads for what can only block: name resolution, and the file system calls that io_uring does not have.
//!
//! They start with the first job and sleep between jobs. Name resolution has threads of its own, because it may
//! hang for seconds and must not hold up the disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// Jobs that may wait for a thread; the next one waits for room.
const QUEUE_CAPACITY: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A set of threads with one queue.
pub(crate) struct Pool {
    name: &'static str,
    threads: usize,
    queue: OnceLock<flume::Sender<Job>>,
}

/// For file system calls.
pub(crate) static FILES: Pool = Pool { name: "ringmq-files", threads: 1, queue: OnceLock::new() };
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
