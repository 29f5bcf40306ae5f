//! The watch over the executors: counts what each task has to run, and wakes an executor that forgot.
//!
//! glommio parks an executor whose preempt timer fired before it ran anything, runnable tasks or not (it happens
//! when the process is paused for longer than the timer). Nothing inside that executor can help, so every task is
//! wrapped in [`Watched`], which counts the wake-ups that have not been answered by a poll yet, and a thread looks
//! at the counters: tasks to run and no poll since the last look mean a kick. So does I/O that has been in flight
//! for a while with nothing polled meanwhile, in case its completion was overlooked. An idle executor is never kicked.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use slab::Slab;

use super::park::Parking;
use super::ring::Ring;

/// How often the watchdog looks while something runs.
const BUSY_PERIOD: Duration = Duration::from_millis(10);
/// How often it looks once nothing has run for a while.
const IDLE_PERIOD: Duration = Duration::from_millis(80);
/// Looks without a poll after which a kicked executor is kicked again, at most: a kick may itself be lost, but
/// kicks must not pile up in front of an executor that is merely busy.
const MAX_KICK_GAP: u32 = 64;

/// I/O in flight and no poll for this long mean a kick.
const SLOW_IO: Duration = Duration::from_secs(1);

/// What one executor shows to the watchdog.
#[derive(Default)]
pub(crate) struct CoreWatch {
    /// Tasks woken and not polled since.
    runnable: AtomicU64,
    /// Polls so far; only the core itself writes it.
    polls: AtomicU64,
    /// Operations that the kernel has not completed, as far as the core has looked.
    in_flight: AtomicU64,
    /// Kicks so far.
    kicks: AtomicU64,
    /// Wakes a task that exists to be woken, and so glommio, should that be asleep.
    pulse: OnceLock<Waker>,
    /// How the core sleeps in its ring.
    parking: Parking<Arc<TaskWaker>>,
}

thread_local! {
    /// The core that this thread runs, if any.
    static HERE: Cell<*const CoreWatch> = const { Cell::new(std::ptr::null()) };
}

impl CoreWatch {
    /// Notes that this thread runs the core, for as long as the thread lives.
    pub(crate) fn run_here(self: &Arc<CoreWatch>) {
        HERE.set(Arc::as_ptr(self));
    }

    /// How the core sleeps in its ring.
    pub(crate) fn parking(&self) -> &Parking<Arc<TaskWaker>> {
        &self.parking
    }

    /// Wakes the tasks that other threads want woken.
    pub(crate) fn wake_handed_over(&self) {
        while let Some(task) = self.parking.take() {
            task.inner.wake_by_ref();
        }
    }

    /// Whether any task is to be run, as far as tasks are watched.
    pub(crate) fn has_runnable(&self) -> bool {
        self.runnable.load(Ordering::Relaxed) > 0
    }

    /// Publishes the waker of this core's pulse task.
    pub(crate) fn publish_pulse(&self, waker: Waker) {
        // A second call can only come from the same task with the same waker.
        let _ = self.pulse.set(waker);
    }

    /// How often the watchdog had to wake this core.
    pub(crate) fn kicks(&self) -> u64 {
        self.kicks.load(Ordering::Relaxed)
    }

    /// Notes how many operations are in flight.
    pub(crate) fn set_in_flight(&self, operations: usize) {
        self.in_flight.store(operations as u64, Ordering::Relaxed);
    }

    fn woken(&self) {
        self.runnable.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self) {
        let before = self.runnable.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a wake-up was answered twice");
    }

    fn polled(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// A task's waker: notes that the task has to run, then wakes it, or has its core do so.
pub(crate) struct TaskWaker {
    core: Arc<CoreWatch>,
    /// Woken and not polled since; stays set once the task has ended.
    scheduled: AtomicBool,
    inner: Waker,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever set the flag wakes the task, so that many wake-ups cost one.
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            self.core.woken();
            if HERE.get() == Arc::as_ptr(&self.core) {
                self.inner.wake_by_ref();
            } else {
                self.core.parking.hand_over(Arc::clone(self));
            }
        }
    }
}

/// The tasks of an executor that end with it. glommio itself forgets the tasks that have not ended when an
/// executor does, with all that they hold: open files, listening sockets.
pub(crate) struct CoreTasks {
    watch: Arc<CoreWatch>,
    live: Cell<usize>,
    /// Wakers of the tasks that have been polled.
    wakers: RefCell<Slab<Waker>>,
    ending: Cell<bool>,
    /// What the wall clock said, in ms, if the running task has looked at it since it was polled.
    wall_ms: Cell<Option<i64>>,
    /// What they do I/O with.
    ring: Option<Rc<Ring>>,
}

impl CoreTasks {
    /// No tasks yet; `ring` is what they will do I/O with.
    pub(crate) fn new(watch: Arc<CoreWatch>, ring: Option<Rc<Ring>>) -> Rc<CoreTasks> {
        let (live, ending) = (Cell::new(0), Cell::new(false));
        Rc::new(CoreTasks { watch, live, wakers: RefCell::default(), ending, wall_ms: Cell::new(None), ring })
    }

    /// The wall clock in ms, which `look` looks at: once for each poll of a task, not for each message of a batch.
    pub(crate) fn wall_ms(&self, look: impl FnOnce() -> i64) -> i64 {
        let now = self.wall_ms.get().unwrap_or_else(look);
        self.wall_ms.set(Some(now));
        now
    }

    /// What the watchdog sees of this core.
    pub(crate) fn watch(&self) -> &CoreWatch {
        &self.watch
    }

    /// Drops every task where it stands, and waits until all are gone. Only when the executor ends: what the kernel
    /// still uses belongs to the ring, not to the tasks.
    pub(crate) async fn end(&self) {
        self.ending.set(true);
        let wakers: Vec<Waker> = self.wakers.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
        while self.live.get() > 0 {
            futures_lite::future::yield_now().await;
        }
    }
}

/// A task of an executor: counted, and a panic inside aborts the process.
pub(crate) struct Watched<F> {
    core: Rc<CoreTasks>,
    waker: Option<Registered>,
    task: F,
}

/// What a task has once it was polled.
struct Registered {
    watched: Arc<TaskWaker>,
    waker: Waker,
    key: usize,
}

impl<F: Future<Output = ()>> Watched<F> {
    /// Wraps a task that is about to be scheduled.
    pub(crate) fn new(core: &Rc<CoreTasks>, task: F) -> Watched<F> {
        core.watch.woken();
        core.live.set(core.live.get() + 1);
        Watched { core: Rc::clone(core), waker: None, task }
    }

    /// Notes that the task is being polled and returns the waker to poll it with.
    fn begin_poll(&mut self, cx: &Context<'_>) -> Waker {
        let core = &self.core;
        let registered = self.waker.get_or_insert_with(|| {
            let (scheduled, inner) = (AtomicBool::new(true), cx.waker().clone());
            let watched = Arc::new(TaskWaker { core: Arc::clone(&core.watch), scheduled, inner });
            let waker = Waker::from(Arc::clone(&watched));
            let key = core.wakers.borrow_mut().insert(waker.clone());
            Registered { watched, waker, key }
        });
        if registered.watched.scheduled.swap(false, Ordering::AcqRel) {
            core.watch.answered();
        }
        core.watch.polled();
        core.wall_ms.set(None);
        registered.waker.clone()
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `task` is never moved out of the pinned wrapper; the other fields are not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let waker = this.begin_poll(cx);
        if this.core.ending.get() {
            return Poll::Ready(());
        }
        let bomb = AbortOnUnwind;
        // SAFETY: as above.
        let task = unsafe { Pin::new_unchecked(&mut this.task) };
        let polled = task.poll(&mut Context::from_waker(&waker));
        std::mem::forget(bomb);
        if let Some(ring) = &this.core.ring {
            ring.submit_if_urgent();
        }
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.core.live.set(self.core.live.get() - 1);
        match &self.waker {
            // Set for good: nobody counts a wake-up of a task that has ended.
            Some(registered) => {
                if registered.watched.scheduled.swap(true, Ordering::AcqRel) {
                    self.core.watch.answered();
                }
                let waker = self.core.wakers.borrow_mut().remove(registered.key);
                drop(waker);
            }
            None => self.core.watch.answered(),
        }
    }
}

/// Aborts the process when it is dropped by a panic: half a broker must not go on serving.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        tracing::error!("a task panicked; the process aborts");
        std::process::abort();
    }
}

/// The thread that kicks executors; stops when dropped.
pub(crate) struct Watchdog {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread over these cores.
    pub(crate) fn start(cores: Vec<Arc<CoreWatch>>) -> std::io::Result<Watchdog> {
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("ringmq-watchdog".into())
            .stack_size(64 * 1024)
            .spawn(move || watch(&cores, &stopped))?;
        Ok(Watchdog { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and there is nobody to tell.
            let _ = thread.join();
        }
    }
}

/// What the watchdog remembers of a core between two looks.
#[derive(Default)]
struct Seen {
    polls: u64,
    had_work: bool,
    looks_until_kick: u32,
    kick_gap: u32,
    /// For how long I/O has been in flight without a poll or a kick.
    waited: Duration,
}

impl Seen {
    /// Kicks a core that has waited long for I/O, and says so; `since` is the time since the last look.
    fn look_at_io(&mut self, core: &CoreWatch, since: Duration) -> bool {
        let waits =
            core.polls.load(Ordering::Relaxed) == self.polls && core.in_flight.load(Ordering::Relaxed) > 0;
        self.waited = if waits { self.waited + since } else { Duration::ZERO };
        let is_slow = self.waited >= SLOW_IO;
        if is_slow {
            self.waited = Duration::ZERO;
            self.kick(core);
        }
        is_slow
    }

    /// Looks at a core, kicks it if it sleeps on work, and says whether anything goes on there.
    fn look(&mut self, core: &CoreWatch) -> bool {
        let polls = core.polls.load(Ordering::Relaxed);
        let has_work = core.runnable.load(Ordering::Relaxed) > 0;
        let moved = polls != self.polls;
        if moved || !has_work || !self.had_work {
            (self.kick_gap, self.looks_until_kick) = (1, 0);
        } else if self.looks_until_kick > 0 {
            self.looks_until_kick -= 1;
        } else {
            self.kick(core);
        }
        (self.polls, self.had_work) = (polls, has_work);
        moved || has_work
    }

    fn kick(&mut self, core: &CoreWatch) {
        self.looks_until_kick = self.kick_gap;
        self.kick_gap = (self.kick_gap * 2).min(MAX_KICK_GAP);
        if let Some(pulse) = core.pulse.get() {
            core.kicks.fetch_add(1, Ordering::Relaxed);
            pulse.wake_by_ref();
        }
        core.parking.wake();
    }
}

fn watch(cores: &[Arc<CoreWatch>], stopped: &Receiver<()>) {
    let mut seen: Vec<Seen> = cores.iter().map(|_| Seen::default()).collect();
    let mut period = BUSY_PERIOD;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
        let mut busy = false;
        for (index, (core, seen)) in cores.iter().zip(&mut seen).enumerate() {
            if seen.look_at_io(core, period) {
                let in_flight = core.in_flight.load(Ordering::Relaxed);
                tracing::warn!(
                    core = index,
                    in_flight,
                    "no I/O has completed for a second: is the device slow?"
                );
            }
            busy |= seen.look(core);
        }
        period = if busy { BUSY_PERIOD } else { (period * 2).min(IDLE_PERIOD) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pulsed() -> (CoreWatch, Arc<Count>) {
        let (core, count) = (CoreWatch::default(), Arc::new(Count(AtomicU64::new(0))));
        core.publish_pulse(Waker::from(Arc::clone(&count)));
        (core, count)
    }

    #[test]
    fn only_a_core_with_work_and_no_progress_is_kicked() {
        let (core, count) = pulsed();
        let mut seen = Seen::default();
        assert!(!seen.look(&core) && !seen.look(&core) && !seen.look(&core), "idle");
        core.woken();
        assert!(seen.look(&core), "work is there, but it was not there at the last look");
        core.polled();
        seen.look(&core);
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "it made progress");
        seen.look(&core);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "work, and no progress since the last look");
        core.answered();
        seen.look(&core);
        seen.look(&core);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "nothing is left to run");
    }

    #[test]
    fn a_core_that_waits_long_for_io_is_kicked() {
        let (core, count) = pulsed();
        let mut seen = Seen::default();
        let mut look = |times: u32| {
            for _ in 0..times {
                seen.look_at_io(&core, SLOW_IO / 10);
                seen.look(&core);
            }
            count.0.load(Ordering::Relaxed)
        };
        assert_eq!(look(30), 0, "nothing is in flight");
        core.set_in_flight(1);
        assert_eq!((look(9), look(1)), (0, 1));
        core.polled();
        assert_eq!((look(10), look(1)), (1, 2), "the wait begins anew with a poll");
        core.set_in_flight(0);
        assert_eq!(look(30), 2);
    }

    #[test]
    fn kicks_of_a_stuck_core_thin_out() {
        let (core, count) = pulsed();
        let mut seen = Seen::default();
        core.woken();
        for _ in 0..1000 {
            seen.look(&core);
        }
        let kicks = count.0.load(Ordering::Relaxed);
        assert!((10..=30).contains(&kicks), "{kicks} kicks in 1000 looks");
    }

    #[test]
    fn wake_ups_are_counted_once_and_answered_by_polls_or_the_end() {
        let core = CoreTasks::new(Arc::default(), None);
        let runnable = |core: &CoreTasks| core.watch().runnable.load(Ordering::Relaxed);
        let inner = Waker::from(Arc::new(Count(AtomicU64::new(0))));
        let (mut polls, mut kept) = (0, None);
        let kept_ref = &mut kept;
        let task = std::future::poll_fn(move |cx| {
            polls += 1;
            *kept_ref = Some(cx.waker().clone());
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        let mut watched = Box::pin(Watched::new(&core, task));
        assert_eq!(runnable(&core), 1, "spawned, not polled");
        assert!(watched.as_mut().poll(&mut Context::from_waker(&inner)).is_pending());
        assert_eq!(runnable(&core), 0);
        let waker = watched.waker.as_ref().unwrap().waker.clone();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(runnable(&core), 1);
        assert!(watched.as_mut().poll(&mut Context::from_waker(&inner)).is_ready());
        waker.wake_by_ref();
        drop(watched);
        waker.wake_by_ref();
        assert_eq!(runnable(&core), 0, "the end answers what is left, and later wake-ups do not count");
        assert!(kept.is_some());
        assert_eq!((core.live.get(), core.wakers.borrow().len()), (0, 0));
    }
}
