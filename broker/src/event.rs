//! A wake-up for one task by others of the same core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Remembers that something happened until the one task that waits for it has seen it.
///
/// Signals do not count: many before a wait are seen as one. One waiter at a time; it lives on the same core as
/// those who signal.
#[derive(Default)]
pub struct LocalEvent {
    signalled: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl LocalEvent {
    /// Wakes the waiter, or lets its next wait return at once.
    pub fn signal(&self) {
        self.signalled.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Returns once something was signalled since the last return.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.signalled.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_signal_before_the_wait_is_not_lost_and_counts_once() {
        let event = LocalEvent::default();
        event.signal();
        event.signal();
        block_on(async {
            event.wait().await;
            assert_eq!(poll_once(event.wait()).await, None);
        });
    }

    #[test]
    fn a_waiter_is_woken() {
        let event = LocalEvent::default();
        block_on(async {
            let mut wait = Box::pin(event.wait());
            assert_eq!(poll_once(&mut wait).await, None);
            event.signal();
            wait.await;
        });
    }
}
