//! A lock that waits without blocking its core.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Lets one task of a core at a time through. Cheap to clone: clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    held: bool,
    /// Everybody who found the gate held. All are woken when it opens: a waker may be a stale duplicate of a task
    /// that is through already, so waking one alone could wake nobody.
    waiting: Vec<Waker>,
}

impl Gate {
    /// Waits until the gate is free and holds it until the pass is dropped. Not fair.
    pub(crate) async fn enter(&self) -> Pass {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.held {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            state.held = true;
            Poll::Ready(())
        })
        .await;
        Pass(self.clone())
    }

    /// Holds the gate if it is free.
    pub(crate) fn try_enter(&self) -> Option<Pass> {
        let mut state = self.0.borrow_mut();
        if state.held {
            return None;
        }
        state.held = true;
        drop(state);
        Some(Pass(self.clone()))
    }
}

/// Holds a [`Gate`].
pub(crate) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.0.borrow_mut();
        assert!(state.held, "a pass holds its gate");
        state.held = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn one_at_a_time_and_nobody_is_forgotten() {
        let gate = Gate::default();
        let pass = gate.try_enter().expect("free");
        assert!(gate.try_enter().is_none());
        let mut waiting = Box::pin(gate.enter());
        block_on(async {
            assert!(poll_once(&mut waiting).await.is_none());
            assert!(poll_once(&mut waiting).await.is_none(), "a second poll leaves a stale waker");
            drop(pass);
            zip(async { drop(waiting.await) }, async { drop(gate.enter().await) }).await;
        });
        assert!(gate.try_enter().is_some());
    }
}
