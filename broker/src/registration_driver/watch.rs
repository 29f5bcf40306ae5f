//! A number that tasks of one core wait on to change.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Counts changes; any number of tasks of the same core may wait for the next.
#[derive(Default)]
pub(super) struct Watch {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Watch {
    /// What is to be waited from.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Something changed.
    pub fn notify(&self) {
        self.version.set(self.version.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Returns once it is so, which each change may bring.
    pub async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let version = self.version();
            if is_so() {
                return;
            }
            self.changed_since(version).await;
        }
    }

    /// Returns once something has changed since `version`.
    pub async fn changed_since(&self, version: u64) {
        poll_fn(|context| {
            if self.version.get() != version {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
