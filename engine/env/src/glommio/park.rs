//! How an executor sleeps in its own ring, and how other threads wake it there.
//!
//! glommio's own way of parking costs a dozen system calls and more for each sleep. An executor here therefore
//! sleeps in one: the ring's driver, a glommio task, waits in `io_uring_enter` once no other task has anything to
//! do. What another thread wants to wake meanwhile is queued here, and an eventfd that the ring watches ends the
//! sleep.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use flume::{Receiver, Sender};

/// What one executor's sleep and those who end it share. `T` is a task to be woken.
pub(crate) struct Parking<T> {
    /// The executor sleeps, or is about to.
    asleep: AtomicBool,
    /// Ends the sleep.
    event: OnceLock<OwnedFd>,
    /// Tasks that other threads have woken. Each is in here once at most, so it needs no capacity of its own.
    woken: (Sender<T>, Receiver<T>),
}

impl<T> Default for Parking<T> {
    fn default() -> Parking<T> {
        Parking { asleep: AtomicBool::new(false), event: OnceLock::new(), woken: flume::unbounded() }
    }
}

impl<T> Parking<T> {
    /// The eventfd that ends a sleep, for the ring to watch; made by the first call.
    pub(crate) fn event(&self) -> std::io::Result<RawFd> {
        if self.event.get().is_none() {
            let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
            // Only the executor's own thread gets here, so there is nobody to be beaten by.
            let _ = self.event.set(rustix::event::eventfd(0, flags)?);
        }
        Ok(self.event.get().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// From another thread: hands a woken task over, and wakes the executor for it.
    pub(crate) fn hand_over(&self, task: T) {
        // The receiver lives as long as the sender.
        let _ = self.woken.0.send(task);
        self.wake();
    }

    /// From another thread: ends the sleep, if there is one.
    pub(crate) fn wake(&self) {
        // Either this swap sees the executor's, or the executor, after its own, sees what was queued before this.
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(event) = self.event.get()
        {
            // It only fails when the counter is full, and then the event is pending already.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    /// The executor is about to sleep; false if it may not, because something was handed over.
    pub(crate) fn begin_sleep(&self) -> bool {
        self.asleep.swap(true, Ordering::SeqCst);
        if self.woken.1.is_empty() {
            return true;
        }
        self.end_sleep();
        false
    }

    /// The executor is awake again.
    pub(crate) fn end_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// A task that another thread has woken.
    pub(crate) fn take(&self) -> Option<T> {
        self.woken.1.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(parking: &Parking<u32>) -> bool {
        let mut count = [0; 8];
        let event = parking.event.get().unwrap();
        rustix::io::read(event, &mut count).is_ok()
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let parking = Parking::default();
        parking.event().unwrap();
        parking.wake();
        assert!(!pending(&parking), "nobody sleeps");
        assert!(parking.begin_sleep());
        parking.hand_over(7);
        parking.wake();
        assert!(pending(&parking) && !pending(&parking));
        assert!(!parking.begin_sleep(), "a task waits");
        parking.hand_over(8);
        assert!(!pending(&parking), "it did not fall asleep");
        assert_eq!((parking.take(), parking.take(), parking.take()), (Some(7), Some(8), None));
    }

    #[test]
    fn no_hand_over_is_slept_through() {
        const TASKS: u32 = 100_000;
        let parking = std::sync::Arc::new(Parking::default());
        parking.event().unwrap();
        let waker = std::sync::Arc::clone(&parking);
        let thread = std::thread::spawn(move || (0..TASKS).for_each(|task| waker.hand_over(task)));
        let mut taken = 0;
        while taken < TASKS {
            while parking.take().is_some() {
                taken += 1;
            }
            if taken < TASKS && parking.begin_sleep() {
                let event = parking.event.get().unwrap();
                let mut fds = [rustix::event::PollFd::new(event, rustix::event::PollFlags::IN)];
                let limit = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "slept through");
                pending(&parking);
                parking.end_sleep();
            }
        }
        thread.join().unwrap();
    }
}
