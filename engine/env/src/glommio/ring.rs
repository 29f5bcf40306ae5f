//! One io_uring of our own for each executor: files, and the readiness of sockets.
//!
//! glommio runs the tasks; this ring does the I/O. Its completions raise an eventfd that a glommio task reads, so
//! an executor parks and wakes as ever. What the kernel may still touch (a buffer, a path, a descriptor) is owned
//! by the operation's slot until its completion, even if the future that waits for it is gone. Entries queued in
//! one turn of the executor are submitted together at the turn's end.

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

use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::file::Descriptor;
use super::watch::CoreWatch;
use crate::{AppendBuf, Fatal, IoSlice, fatal};

/// Entries of the submission queue; more than that in one turn are submitted early.
const SUBMISSION_ENTRIES: u32 = 128;
/// Entries of the completion queue; the kernel keeps what overflows it.
const COMPLETION_ENTRIES: u32 = 2048;
/// Marks completions that nobody waits for.
const NOBODY: u64 = u64::MAX;

/// What the kernel uses while an operation is in flight.
#[expect(dead_code, reason = "most of it is only kept alive")]
pub(crate) enum Payload {
    /// Nothing but the descriptor.
    None,
    /// Bytes being written.
    Write(IoSlice),
    /// Memory being read into.
    Read(AppendBuf),
    /// Paths of an operation on a directory.
    Paths(CString, Option<CString>),
    /// The path of a file being opened: the result is a descriptor, closed if nobody takes it.
    Open(CString),
}

/// What an operation holds on to until it completes.
pub(crate) struct Held {
    /// The file it works on, if any, so that its descriptor is not closed and used again.
    #[expect(dead_code, reason = "only kept open")]
    pub(crate) file: Option<Rc<Descriptor>>,
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
    event: RawFd,
    submitter: Cell<Option<Waker>>,
    stopping: Cell<bool>,
    /// Files are registered for the time that the ring works.
    keeps_open: bool,
    /// Shows the watchdog what is in flight.
    watch: Arc<CoreWatch>,
    running: Cell<usize>,
    finished: Cell<Option<Waker>>,
    /// Kept from one batch of completions to the next.
    wakers: Cell<Vec<Waker>>,
}

impl Ring {
    /// Makes the ring and its eventfd. [`Ring::drive`] has to be started before anything completes.
    ///
    /// The kernel keeps `keep_open` open until [`Ring::stop`], or until all I/O is done after the process has gone.
    pub(crate) fn new(watch: Arc<CoreWatch>, keep_open: &[Arc<OwnedFd>]) -> io::Result<Rc<Ring>> {
        let ring = build_ring()?;
        if !keep_open.is_empty() {
            // Registered files belong to the ring, which outlives the process until its last operation is done.
            let files: Vec<RawFd> = keep_open.iter().map(|fd| fd.as_raw_fd()).collect();
            ring.submitter().register_files(&files)?;
        }
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let inner = Inner { ring: ManuallyDrop::new(ring), slots: Slab::new(), queued: 0, in_flight: 0 };
        Ok(Rc::new(Ring {
            inner: RefCell::new(inner),
            event: std::os::fd::IntoRawFd::into_raw_fd(event),
            submitter: Cell::new(None),
            stopping: Cell::new(false),
            keeps_open: !keep_open.is_empty(),
            watch,
            running: Cell::new(2),
            finished: Cell::new(None),
            wakers: Cell::new(Vec::new()),
        }))
    }

    /// The two tasks that drive the ring, to be spawned on its executor; they end after [`Ring::stop`].
    pub(crate) fn drive(
        self: &Rc<Ring>,
    ) -> (impl Future<Output = ()> + 'static, impl Future<Output = ()> + 'static) {
        let (completer, submitter) = (Rc::clone(self), Rc::clone(self));
        let completions = async move {
            // SAFETY: the eventfd is ours, open, and handed over here: the file closes it.
            let event = unsafe { BufferedFile::from_raw_fd(completer.event) };
            while !completer.stopping.get() {
                if let Err(error) = event.read_at(0, 8).await {
                    fatal(Fatal::Ring { error: io::Error::other(error.to_string()) });
                }
                completer.complete();
            }
            // An error here would mean a bad descriptor, and the executor ends anyway.
            let _ = event.close().await;
            completer.ended();
        };
        let submissions = async move {
            poll_fn(|cx| submitter.poll_submit(cx)).await;
            submitter.ended();
        };
        (completions, submissions)
    }

    /// Waits until the kernel is done with every operation, then ends the tasks of [`Ring::drive`].
    pub(crate) async fn stop(&self) {
        while self.inner.borrow().in_flight > 0 {
            glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
        }
        if self.keeps_open {
            // Closing the ring would let go of them, too, but later. An error here would mean that there are none.
            let _ = self.inner.borrow().ring.submitter().unregister_files();
        }
        self.stopping.set(true);
        self.wake_submitter();
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes of a live array to our own eventfd, which is open while its task runs.
        let written = unsafe { libc::write(self.event, one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "an eventfd takes a write of 1");
        poll_fn(|cx| {
            self.finished.set(Some(cx.waker().clone()));
            if self.running.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn ended(&self) {
        self.running.set(self.running.get() - 1);
        if let Some(waker) = self.finished.take() {
            waker.wake();
        }
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
    fn watch_socket(&self, fd: RawFd, readiness: &Rc<Readiness>) {
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

    fn push(&self, entry: &squeue::Entry) {
        loop {
            let mut inner = self.inner.borrow_mut();
            // SAFETY: what the entry points to is owned by its slot (or is a plain number) until it completes.
            if unsafe { inner.ring.submission().push(entry) }.is_ok() {
                inner.queued += 1;
                break;
            }
            drop(inner);
            self.submit();
        }
        self.wake_submitter();
    }

    fn wake_submitter(&self) {
        if let Some(waker) = self.submitter.take() {
            waker.wake();
        }
    }

    /// Runs at the end of a turn in which something was queued: the executor's queue is first in, first out.
    fn poll_submit(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.borrow().queued > 0 {
            self.submit();
        }
        if self.stopping.get() {
            return Poll::Ready(());
        }
        if self.inner.borrow().queued > 0 {
            cx.waker().wake_by_ref();
        } else {
            self.submitter.set(Some(cx.waker().clone()));
        }
        Poll::Pending
    }

    fn submit(&self) {
        let submitted = {
            let mut inner = self.inner.borrow_mut();
            let submitted = inner.ring.submit();
            let left = inner.ring.submission().len();
            inner.queued = left;
            submitted
        };
        if let Err(error) = submitted {
            let retried = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
            if !error.raw_os_error().is_some_and(|code| retried.contains(&code)) {
                fatal(Fatal::Ring { error });
            }
        }
        // What completed at once need not wait for the eventfd.
        self.complete();
    }

    /// Looks for completions that the eventfd did not tell of; for the watchdog's kick.
    pub(crate) fn look_again(&self) {
        let before = self.inner.borrow().in_flight;
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
        {
            let mut inner = self.inner.borrow_mut();
            let Inner { ring, slots, in_flight, .. } = &mut *inner;
            loop {
                for entry in ring.completion().filter(|entry| entry.user_data() != NOBODY) {
                    unwanted.extend(finish(slots, in_flight, &entry, &mut wakers));
                }
                if !ring.submission().cq_overflow() {
                    break;
                }
                // The kernel keeps more than fits the queue: entering moves it over.
                if let Err(error) = ring.submit() {
                    tracing::debug!(%error, "completions overflowed the queue");
                    break;
                }
            }
        }
        self.watch.set_in_flight(self.inner.borrow().in_flight);
        // Outside the borrow: the last hold on a file closes it through the ring.
        unwanted.into_iter().for_each(|(held, result)| close_unwanted(&held, result));
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.set(wakers);
    }
}

fn build_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETION_ENTRIES).setup_clamp();
    // Without an interrupt for each completion: they are taken at the next system call. Kernels before 5.19 say no.
    let mut gentle = builder.clone();
    gentle.setup_coop_taskrun();
    gentle.build(SUBMISSION_ENTRIES).or_else(|_| builder.build(SUBMISSION_ENTRIES))
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

/// Whether a socket can be read and written, as far as is known: set by the ring, cleared by whoever saw
/// EAGAIN. It starts optimistic, and the ring is asked when somebody first has to wait.
pub(crate) struct Readiness {
    read: Direction,
    write: Direction,
    /// The slot of the ring that reports here.
    key: Cell<Option<usize>>,
}

/// One direction of a socket.
struct Direction {
    ready: Cell<bool>,
    /// No wait will ever be worth it: the next call says why.
    ended: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

impl Direction {
    fn new() -> Direction {
        Direction { ready: Cell::new(true), ended: Cell::new(false), waiter: Cell::new(None) }
    }

    fn set(&self, ended: bool, wakers: &mut Vec<Waker>) {
        self.ready.set(true);
        self.ended.set(self.ended.get() || ended);
        wakers.extend(self.waiter.take());
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ready.get() || self.ended.get() {
            return Poll::Ready(());
        }
        self.waiter.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Readiness {
    pub(crate) fn new() -> Rc<Readiness> {
        Rc::new(Readiness { read: Direction::new(), write: Direction::new(), key: Cell::new(None) })
    }

    /// Notes that the socket had nothing (more) to read.
    pub(crate) fn clear_readable(&self) {
        self.read.ready.set(false);
    }

    /// Notes that the socket had no room to write.
    pub(crate) fn clear_writable(&self) {
        self.write.ready.set(false);
    }

    /// Ends all waiting, now and later.
    pub(crate) fn end(&self) {
        let mut wakers = Vec::new();
        self.read.set(true, &mut wakers);
        self.write.set(true, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until a read is worth trying.
    pub(crate) async fn readable(self: &Rc<Self>, ring: &Ring, fd: RawFd) {
        poll_fn(|cx| self.read.poll(cx).or_watch(self, ring, fd)).await;
    }

    /// Waits until a write is worth trying.
    pub(crate) async fn writable(self: &Rc<Self>, ring: &Ring, fd: RawFd) {
        poll_fn(|cx| self.write.poll(cx).or_watch(self, ring, fd)).await;
    }

    /// Takes the ring's word for what the socket is ready for.
    fn report(&self, result: i32, wakers: &mut Vec<Waker>) {
        let events = i16::try_from(result).unwrap_or(0);
        let over = events & (libc::POLLHUP | libc::POLLERR) != 0;
        let read_over = over || events & libc::POLLRDHUP != 0;
        if read_over || events & libc::POLLIN != 0 {
            self.read.set(read_over, wakers);
        }
        if over || events & libc::POLLOUT != 0 {
            self.write.set(over, wakers);
        }
    }

    /// The ring reports no more: whoever waits has to try, and so ask the ring again.
    fn unwatched(&self, wakers: &mut Vec<Waker>) {
        self.key.set(None);
        self.read.set(false, wakers);
        self.write.set(false, wakers);
    }
}

/// Asks the ring to report a socket's readiness when somebody has to wait for it.
trait OrWatch {
    fn or_watch(self, readiness: &Rc<Readiness>, ring: &Ring, fd: RawFd) -> Self;
}

impl OrWatch for Poll<()> {
    fn or_watch(self, readiness: &Rc<Readiness>, ring: &Ring, fd: RawFd) -> Self {
        if self.is_pending() && readiness.key.get().is_none() {
            ring.watch_socket(fd, readiness);
        }
        self
    }
}
