//! Waiting for a condition of this core's own state.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes the tasks of this core that wait for a condition. It holds no state of its own: the condition is looked
/// at again whenever [`Signal::notify`] is called, and nothing can change between the look and the wait, because
/// one core runs one task at a time.
#[derive(Default)]
pub(crate) struct Signal {
    waiters: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Lets every waiter look at its condition again.
    pub(crate) fn notify(&self) {
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    /// Waits until `condition` holds. Whoever makes it true calls [`Signal::notify`].
    pub(crate) async fn until(&self, mut condition: impl FnMut() -> bool) {
        poll_fn(|context| {
            if condition() {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
