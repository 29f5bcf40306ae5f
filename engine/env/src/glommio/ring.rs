//! One io_uring of our own for each executor: files, sockets, and where the executor sleeps.
//!
//! glommio runs the tasks; this ring does the I/O. One of the tasks, the driver, runs in every turn of the
//! executor: it submits what the turn has queued, takes the completions, and wakes who waits for them and whose
//! timers are due. When no other task has anything to do, it sleeps in the ring, with one system call, until there
//! is a completion, a timer or another thread's wake-up. glommio itself never parks, except by its own mistake.
//!
//! What the kernel may still touch (a buffer, a path, a descriptor) is owned by the operation's slot until its
//! completion, even if the future that waits for it is gone.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::file::Descriptor;
use super::net::Watched;
use super::now;
use super::readiness::Readiness;
use super::timers::{Sleep, Timers};
use super::watch::CoreWatch;
use crate::{AppendBuf, Fatal, Instant, IoSlice, fatal};

/// Entries of the submission queue; more than that in one turn are submitted early.
const SUBMISSION_ENTRIES: u32 = 128;
/// Entries of the completion queue; the kernel keeps what overflows it.
const COMPLETION_ENTRIES: u32 = 2048;
/// Marks completions that nobody waits for.
const NOBODY: u64 = u64::MAX;
/// Marks completions of the eventfd that other threads wake this one with.
const WOKEN: u64 = u64::MAX - 1;
/// Longest sleep while the executor ends: what it does then is not all known to the watchdog.
const STOPPING_SLEEP: Duration = Duration::from_millis(1);
/// Longest time that the driver looks for a completion before it sleeps, if it is to.
const MAX_BUSY_WAIT: Duration = Duration::from_millis(1);
/// Buffers of sent bytes that are kept to be used again.
const SPARE_BUFFERS: usize = 64;

/// What the kernel uses while an operation is in flight.
#[expect(dead_code, reason = "most of it is only kept alive")]
pub(crate) enum Payload {
    /// Nothing but the descriptor.
    None,
    /// Bytes being written.
    Write(IoSlice),
    /// Bytes being sent.
    Send(Vec<u8>),
    /// Memory being read into.
    Read(AppendBuf),
    /// Paths of an operation on a directory.
    Paths(CString, Option<CString>),
    /// The path of a file being opened: the result is a descriptor, closed if nobody takes it.
    Open(CString),
}

/// What an operation works on.
#[expect(dead_code, reason = "only kept open")]
pub(crate) enum Target {
    /// A path, or nothing.
    None,
    /// A file.
    File(Rc<Descriptor>),
    /// A socket.
    Socket(Rc<Watched>),
}

/// What an operation holds on to until it completes.
pub(crate) struct Held {
    /// What it works on, so that the descriptor is not closed and used again.
    #[expect(dead_code, reason = "only kept open")]
    pub(crate) on: Target,
    /// The memory it works on.
    pub(crate) payload: Payload,
}

enum Slot {
    /// In flight; the waker is of whoever waits.
    Waiting(Held, Option<Waker>),
    /// In flight, and nobody waits any more.
    Abandoned(Held),
    /// Completed, not yet taken.
    Done(Held, i32),
    /// Readiness of a socket, reported until it is removed.
    Socket(Rc<Readiness>),
}

struct Inner {
    ring: ManuallyDrop<IoUring>,
    slots: Slab<Slot>,
    /// Entries queued and not submitted yet.
    queued: usize,
    /// Operations (not socket readiness) whose slots the kernel still uses.
    in_flight: usize,
}

/// An executor's ring. All methods belong to that executor's thread.
pub(crate) struct Ring {
    inner: RefCell<Inner>,
    timers: Rc<Timers>,
    /// Something is queued that should not wait for the end of the turn.
    urgent: Cell<bool>,
    /// The executor ends: its tasks first, then ([`Ring::stop`]) the ring.
    ending: Cell<bool>,
    stopping: Cell<bool>,
    /// Files are registered for the time that the ring works.
    keeps_open: bool,
    /// Shows the watchdog what is in flight.
    watch: Arc<CoreWatch>,
    /// The driver looks for completions before it sleeps.
    busy_wait: bool,
    has_ended: Cell<bool>,
    finished: Cell<Option<Waker>>,
    /// Kept from one batch of completions to the next.
    wakers: Cell<Vec<Waker>>,
    spare_buffers: RefCell<Vec<Vec<u8>>>,
}

impl Ring {
    /// Makes the ring. [`Ring::drive`] has to be started before anything completes. With `busy_wait` it looks
    /// for the completion of what is in flight before it sleeps.
    ///
    /// The kernel keeps `keep_open` open until [`Ring::stop`], or until all I/O is done after the process has gone.
    pub(crate) fn new(
        watch: Arc<CoreWatch>,
        keep_open: &[Arc<OwnedFd>],
        busy_wait: bool,
    ) -> io::Result<Rc<Ring>> {
        let ring = build_ring()?;
        if !keep_open.is_empty() {
            // Registered files belong to the ring, which outlives the process until its last operation is done.
            let files: Vec<RawFd> = keep_open.iter().map(|fd| fd.as_raw_fd()).collect();
            ring.submitter().register_files(&files)?;
        }
        let event = watch.parking().event()?;
        let inner = Inner { ring: ManuallyDrop::new(ring), slots: Slab::new(), queued: 0, in_flight: 0 };
        let ring = Ring {
            inner: RefCell::new(inner),
            timers: Rc::default(),
            urgent: Cell::new(false),
            ending: Cell::new(false),
            stopping: Cell::new(false),
            keeps_open: !keep_open.is_empty(),
            watch,
            busy_wait,
            has_ended: Cell::new(false),
            finished: Cell::new(None),
            wakers: Cell::new(Vec::new()),
            spare_buffers: RefCell::default(),
        };
        ring.watch_event(event);
        Ok(Rc::new(ring))
    }

    /// The task that drives the ring, to be spawned on its executor; it ends after [`Ring::stop`].
    pub(crate) fn drive(self: &Rc<Ring>) -> impl Future<Output = ()> + 'static {
        let ring = Rc::clone(self);
        async move {
            poll_fn(|cx| ring.poll_drive(cx)).await;
            ring.has_ended.set(true);
            if let Some(waker) = ring.finished.take() {
                waker.wake();
            }
        }
    }

    /// One turn: the executor's queue is first in, first out, so that every task that had something to do has run
    /// since the last one.
    fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.watch.wake_handed_over();
        self.submit_and_complete();
        self.fire_timers();
        if self.stopping.get() {
            // What was closed since is let go of by the kernel now, not some time after the ring is gone.
            self.enter(0, None);
            return Poll::Ready(());
        }
        if !self.watch.has_runnable() {
            self.sleep_until_woken();
        }
        // Not before: whoever watches this core sees nothing to run while it sleeps.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sleeps until there is something to do.
    fn sleep_until_woken(&self) {
        let mut limit = self.timers.next_deadline().map(|deadline| deadline.since(now()));
        if self.ending.get() {
            limit = Some(limit.map_or(STOPPING_SLEEP, |limit| limit.min(STOPPING_SLEEP)));
        }
        if self.busy_wait && self.wait_awake() {
            return;
        }
        if self.watch.parking().begin_sleep() {
            self.enter(1, limit);
            self.watch.parking().end_sleep();
        }
        self.watch.wake_handed_over();
        self.complete();
        self.fire_timers();
    }

    /// Looks for something to do for as long as an operation is in flight, but not too long; whether there was anything.
    fn wait_awake(&self) -> bool {
        let end = now().after(MAX_BUSY_WAIT);
        while self.inner.borrow().in_flight > 0 && now() < end {
            self.watch.wake_handed_over();
            self.submit_and_complete();
            self.fire_timers();
            if self.watch.has_runnable() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn fire_timers(&self) {
        if self.timers.next_deadline().is_some() {
            self.timers.fire(now());
        }
    }

    /// Waits for `delay`.
    pub(crate) fn sleep(&self, delay: Duration) -> Sleep {
        self.timers.sleep(now().after(delay), now as fn() -> Instant)
    }

    /// The executor is about to end.
    pub(crate) fn begin_stop(&self) {
        self.ending.set(true);
    }

    /// Waits until the kernel is done with every operation, then ends the task of [`Ring::drive`].
    pub(crate) async fn stop(&self) {
        while self.inner.borrow().in_flight > 0 {
            futures_lite::future::yield_now().await;
        }
        if self.keeps_open {
            // Closing the ring would let go of them, too, but later. An error here would mean that there are none.
            let _ = self.inner.borrow().ring.submitter().unregister_files();
        }
        self.stopping.set(true);
        poll_fn(|cx| {
            self.finished.set(Some(cx.waker().clone()));
            if self.has_ended.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Queues an operation; its result and what it held come back from the future. Dropping the future leaves the
    /// operation in flight and what it holds alive.
    pub(crate) fn run(self: &Rc<Ring>, entry: squeue::Entry, held: Held) -> Operation {
        let key = {
            let mut inner = self.inner.borrow_mut();
            inner.in_flight += 1;
            self.watch.set_in_flight(inner.in_flight);
            inner.slots.insert(Slot::Waiting(held, None))
        };
        self.push(&entry.user_data(key as u64));
        Operation { ring: Rc::clone(self), key: Some(key) }
    }

    /// As [`Ring::run`], for what is submitted once the running task pauses, not at the end of the turn: a device
    /// should not idle meanwhile.
    pub(crate) fn run_soon(self: &Rc<Ring>, entry: squeue::Entry, held: Held) -> Operation {
        self.urgent.set(true);
        self.run(entry, held)
    }

    /// An empty buffer for [`Payload::Send`].
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.spare_buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps the buffer of a [`Payload::Send`] to be used again.
    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.spare_buffers.borrow_mut();
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    }

    /// Queues the closing of a descriptor; nobody waits for it.
    pub(crate) fn close(&self, fd: OwnedFd) {
        if self.stopping.get() {
            return drop(fd);
        }
        let fd = std::os::fd::IntoRawFd::into_raw_fd(fd);
        // Closing the last descriptor of a removed file frees its blocks, which takes time: not on this thread.
        let entry = opcode::Close::new(types::Fd(fd)).build().flags(squeue::Flags::ASYNC);
        self.push(&entry.user_data(NOBODY));
    }

    /// Starts reporting a socket's readiness to `readiness`, edge-triggered, until [`Ring::forget_socket`].
    pub(super) fn watch_socket(&self, fd: RawFd, readiness: &Rc<Readiness>) {
        let key = self.inner.borrow_mut().slots.insert(Slot::Socket(Rc::clone(readiness)));
        readiness.key.set(Some(key));
        let events = (libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(types::Fd(fd), events).multi(true).build();
        self.push(&entry.user_data(key as u64));
    }

    /// Stops reporting a socket's readiness: the kernel lets go of the socket once this is submitted.
    pub(crate) fn forget_socket(&self, readiness: &Readiness) {
        if let Some(key) = readiness.key.get() {
            self.push(&opcode::PollRemove::new(key as u64).build().user_data(NOBODY));
        }
    }

    /// Has other threads' wake-ups complete, edge-triggered, so that the eventfd need not be read.
    fn watch_event(&self, event: RawFd) {
        let entry = opcode::PollAdd::new(types::Fd(event), libc::POLLIN as u32).multi(true).build();
        self.push(&entry.user_data(WOKEN));
    }

    fn push(&self, entry: &squeue::Entry) {
        loop {
            let mut inner = self.inner.borrow_mut();
            // SAFETY: what the entry points to is owned by its slot (or is a plain number) until it completes.
            if unsafe { inner.ring.submission().push(entry) }.is_ok() {
                inner.queued += 1;
                return;
            }
            drop(inner);
            self.submit_and_complete();
        }
    }

    /// Submits what is queued now if some of it is urgent.
    pub(crate) fn submit_if_urgent(&self) {
        if self.urgent.get() {
            self.submit_and_complete();
        }
    }

    /// Submits what is queued and takes the completions that are there.
    fn submit_and_complete(&self) {
        let has_work = {
            let mut inner = self.inner.borrow_mut();
            let queued = inner.queued;
            let submission = inner.ring.submission();
            // The kernel may hold completions back until it is asked.
            queued > 0 || submission.taskrun() || submission.cq_overflow()
        };
        if has_work {
            self.enter(0, None);
        }
        self.complete();
    }

    /// Submits what is queued, and waits for `wanted` completions, or until `limit` is over.
    fn enter(&self, wanted: u32, limit: Option<Duration>) {
        let mut inner = self.inner.borrow_mut();
        let queued = inner.ring.submission().len() as u32;
        let limit = limit.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(limit) = &limit {
            args = args.timespec(limit);
        }
        // Always asks for events: the kernel settles what it has held back before it returns.
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: the flags say what `args` is, which lives for the call, as does what it points to.
        let entered = unsafe { inner.ring.submitter().enter(queued, wanted, flags.bits(), Some(&args)) };
        let left = inner.ring.submission().len();
        inner.queued = left;
        drop(inner);
        self.urgent.set(false);
        if let Err(error) = entered {
            let passing = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ETIME];
            if !error.raw_os_error().is_some_and(|code| passing.contains(&code)) {
                fatal(Fatal::Ring { error });
            }
        }
    }

    /// Looks for completions that nobody has told of; for the watchdog's kick.
    pub(crate) fn look_again(&self) {
        let before = self.inner.borrow().in_flight;
        self.enter(0, None);
        self.complete();
        let found = before - self.inner.borrow().in_flight;
        if found > 0 {
            tracing::debug!(found, "completed I/O was found by a kick");
        }
    }

    /// Takes every completion that is there and wakes who waits for it.
    fn complete(&self) {
        let mut wakers = self.wakers.take();
        let mut unwanted = Vec::new();
        let mut event_is_unwatched = false;
        {
            let mut inner = self.inner.borrow_mut();
            let Inner { ring, slots, in_flight, .. } = &mut *inner;
            for entry in ring.completion() {
                match entry.user_data() {
                    NOBODY => {}
                    WOKEN => event_is_unwatched |= !cqueue::more(entry.flags()),
                    _ => unwanted.extend(finish(slots, in_flight, &entry, &mut wakers)),
                }
            }
            self.watch.set_in_flight(*in_flight);
        }
        if event_is_unwatched && let Ok(event) = self.watch.parking().event() {
            self.watch_event(event);
        }
        // Outside the borrow: the last hold on a file closes it through the ring.
        unwanted.into_iter().for_each(|(held, result)| close_unwanted(&held, result));
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.set(wakers);
    }
}

fn build_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETION_ENTRIES).setup_clamp();
    // Without an interrupt for each completion: they are taken when the driver asks for them (Linux 6.1), or at the
    // next system call (5.19).
    let (mut deferred, mut gentle) = (builder.clone(), builder.clone());
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    gentle.setup_coop_taskrun().setup_taskrun_flag();
    let ring = deferred.build(SUBMISSION_ENTRIES).or_else(|_| gentle.build(SUBMISSION_ENTRIES));
    ring.or_else(|_| builder.build(SUBMISSION_ENTRIES))
}

/// Settles one completion; what is returned belongs to somebody who is gone.
fn finish(
    slots: &mut Slab<Slot>,
    in_flight: &mut usize,
    entry: &cqueue::Entry,
    wakers: &mut Vec<Waker>,
) -> Option<(Held, i32)> {
    let (key, result) = (entry.user_data() as usize, entry.result());
    if let Slot::Socket(readiness) = &slots[key] {
        readiness.report(result, wakers);
        if !cqueue::more(entry.flags()) {
            readiness.unwatched(wakers);
            slots.remove(key);
        }
        return None;
    }
    *in_flight -= 1;
    match slots.remove(key) {
        Slot::Waiting(held, waker) => {
            // Vacant keys are used again last in, first out: the operation gets its own key back.
            assert_eq!(slots.insert(Slot::Done(held, result)), key, "an operation keeps its slot");
            wakers.extend(waker);
            None
        }
        Slot::Abandoned(held) => Some((held, result)),
        Slot::Done(..) | Slot::Socket(_) => unreachable!("an operation completes once"),
    }
}

/// A descriptor that was opened for somebody who is gone.
fn close_unwanted(held: &Held, result: i32) {
    if matches!(held.payload, Payload::Open(_)) && result >= 0 {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        // SAFETY: not used again. Closing the ring cancels what is in flight, but does not wait for it.
        unsafe { ManuallyDrop::drop(&mut inner.ring) };
        if inner.in_flight > 0 {
            // The kernel may still touch what the slots hold.
            std::mem::forget(std::mem::take(&mut inner.slots));
        }
    }
}

/// A queued operation: resolves to the kernel's result and what the operation held.
pub(crate) struct Operation {
    ring: Rc<Ring>,
    key: Option<usize>,
}

impl Future for Operation {
    type Output = (io::Result<u32>, Payload);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("polled after it was ready");
        let (held, result) = {
            let mut inner = self.ring.inner.borrow_mut();
            match &mut inner.slots[key] {
                Slot::Waiting(_, waker) => {
                    *waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Slot::Done(..) => {}
                Slot::Abandoned(_) | Slot::Socket(_) => unreachable!("the slot is this operation's"),
            }
            let Slot::Done(held, result) = inner.slots.remove(key) else { unreachable!("just seen") };
            (held, result)
        };
        self.key = None;
        let result = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((result, held.payload))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut inner = self.ring.inner.borrow_mut();
        let finished = match inner.slots.remove(key) {
            Slot::Waiting(held, _) => {
                assert_eq!(inner.slots.insert(Slot::Abandoned(held)), key, "an operation keeps its slot");
                None
            }
            Slot::Done(held, result) => Some((held, result)),
            Slot::Abandoned(_) | Slot::Socket(_) => unreachable!("the slot is this operation's"),
        };
        drop(inner);
        if let Some((held, result)) = finished {
            close_unwanted(&held, result);
        }
    }
}
