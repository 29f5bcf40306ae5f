//! What is known of a socket's readiness.

use std::cell::Cell;
use std::future::poll_fn;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::ring::Ring;

/// Whether a socket can be read and written, as far as is known: set by the ring, cleared by whoever saw
/// EAGAIN. It starts optimistic, and the ring is asked when somebody first has to wait.
pub(crate) struct Readiness {
    read: Direction,
    write: Direction,
    /// The slot of the ring that reports here.
    pub(super) key: Cell<Option<usize>>,
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
    pub(super) fn report(&self, result: i32, wakers: &mut Vec<Waker>) {
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
    pub(super) fn unwatched(&self, wakers: &mut Vec<Waker>) {
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
