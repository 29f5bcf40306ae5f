//! The timers of one executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::Instant;

/// What sleeps, in the order of its deadlines; the number tells equal ones apart, first come first served.
#[derive(Default)]
pub(crate) struct Timers {
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    made: Cell<u64>,
}

impl Timers {
    /// When the next sleep ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Wakes what has slept until `now` or before.
    pub(crate) fn fire(&self, now: Instant) {
        loop {
            let due = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }

    /// A sleep until `deadline`, by the clock that `now` reads.
    pub(crate) fn sleep(self: &Rc<Self>, deadline: Instant, now: fn() -> Instant) -> Sleep {
        self.made.set(self.made.get() + 1);
        Sleep { timers: Rc::clone(self), key: (deadline, self.made.get()), now }
    }
}

/// Waits for a deadline; dropping it forgets the timer.
pub(crate) struct Sleep {
    timers: Rc<Timers>,
    key: (Instant, u64),
    now: fn() -> Instant,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if (self.now)() >= self.key.0 {
            return Poll::Ready(());
        }
        self.timers.waiting.borrow_mut().insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The waker is dropped outside of the borrow.
        let waker = self.timers.waiting.borrow_mut().remove(&self.key);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn timers_fire_when_they_are_due_and_not_once_they_are_dropped() {
        let timers = Rc::new(Timers::default());
        let count = Arc::new(Count(AtomicU32::new(0)));
        let (waker, fired) = (Waker::from(Arc::clone(&count)), || count.0.load(Ordering::Relaxed));
        let mut context = Context::from_waker(&waker);
        let mut sleeps: Vec<_> =
            [30, 10, 10, 20].map(|at| Box::pin(timers.sleep(Instant(at), || Instant(5)))).into();
        for sleep in &mut sleeps {
            assert!(sleep.as_mut().poll(&mut context).is_pending());
        }
        timers.fire(Instant(9));
        assert_eq!((fired(), timers.next_deadline()), (0, Some(Instant(10))));
        drop(sleeps.remove(1));
        timers.fire(Instant(20));
        assert_eq!((fired(), timers.next_deadline()), (2, Some(Instant(30))));
        drop(sleeps);
        assert_eq!(timers.next_deadline(), None);
        assert!(Box::pin(timers.sleep(Instant(5), || Instant(5))).as_mut().poll(&mut context).is_ready());
    }
}
