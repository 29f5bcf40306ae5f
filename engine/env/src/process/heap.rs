//! The heap of the process.

/// Freed memory at the end of a core's heap that stays with the process.
const KEPT: i32 = 8 << 20;
/// Allocations from this size on are mapped by themselves, and given back at once.
const MAPPED_FROM: i32 = 4 << 20;

/// Lets the heap of each core keep up to 8 MiB of what was freed. Blocks of less than 1 MiB that are read from disk come and go
/// all the time; as glibc is set otherwise each of them is fresh pages, which took a quarter to a third of the CPU of a cold
/// read. To be called before the cores start. Does nothing with another C library.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator's; a heap that refuses them works as before.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    fn page_faults() -> i64 {
        // SAFETY: all zeroes are a value of this type, and the call fills it in.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
            usage.ru_minflt
        }
    }

    #[test]
    fn what_is_freed_is_used_again_without_fresh_pages() {
        keep_freed_memory();
        std::thread::spawn(|| {
            let some = || [1_u8, 2, 3, 4].map(|byte| std::hint::black_box(vec![byte; 1 << 20]));
            drop(some());
            let before = page_faults();
            (0..100).for_each(|_| drop(some()));
            let faults = page_faults() - before;
            assert!(faults < 10_000, "{faults} faults for 400 blocks of 256 pages");
        })
        .join()
        .unwrap();
    }
}
