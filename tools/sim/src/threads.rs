//! Many worlds side by side, each in one thread.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Cores of the machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for the numbers in so many threads, and gives the results to `on_result` as they come, until that says
/// false.
pub fn in_threads<T: Send>(
    jobs: usize,
    numbers: Range<u64>,
    work: impl Fn(u64) -> T + Sync,
    mut on_result: impl FnMut(T) -> bool,
) {
    let (next, is_over) = (AtomicU64::new(numbers.start), AtomicBool::new(false));
    let (tell, told) = flume::bounded(jobs.max(1));
    let take = &|tell: flume::Sender<T>| {
        while !is_over.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= numbers.end || tell.send(work(n)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for tell in vec![tell; jobs.max(1)] {
            scope.spawn(move || take(tell));
        }
        while let Ok(result) = told.recv() {
            if !on_result(result) {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    });
}
