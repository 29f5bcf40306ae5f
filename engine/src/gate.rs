//! A lock that waits without blocking its core.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Lets one task of a core at a time through, in the order in which they came: a loop that leaves and comes again at
/// once does not keep the others out. Cheap to clone: clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    held: bool,
    /// Number of the next who waits.
    next: u64,
    /// Who waits, in order. The first is woken when the gate opens, and nobody else gets in before it.
    waiting: VecDeque<(u64, Waker)>,
}

impl State {
    fn wake_first(&self) {
        if !self.held
            && let Some((_, waker)) = self.waiting.front()
        {
            waker.wake_by_ref();
        }
    }
}

impl Gate {
    /// Waits until it is its turn and holds the gate until the pass is dropped. Dropped while it waits, it gives up
    /// its place.
    pub(crate) async fn enter(&self) -> Pass {
        let mut place = Place { gate: self, number: None };
        poll_fn(|context| place.poll(context)).await;
        Pass(self.clone())
    }

    /// Holds the gate if it is free and nobody waits.
    pub(crate) fn try_enter(&self) -> Option<Pass> {
        let mut state = self.0.borrow_mut();
        if state.held || !state.waiting.is_empty() {
            return None;
        }
        state.held = true;
        drop(state);
        Some(Pass(self.clone()))
    }
}

/// Somebody's place among those who wait.
struct Place<'a> {
    gate: &'a Gate,
    number: Option<u64>,
}

impl Place<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.gate.0.borrow_mut();
        let first = state.waiting.front().map(|(number, _)| *number);
        if !state.held && first == self.number {
            state.held = true;
            state.waiting.pop_front();
            self.number = None;
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.next += 1;
            state.next
        });
        match state.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => state.waiting.push_back((number, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.gate.0.borrow_mut();
            state.waiting.retain(|(waiting, _)| *waiting != number);
            // It may be the one that was woken.
            state.wake_first();
        }
    }
}

/// Holds a [`Gate`].
pub(crate) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.0.0.borrow_mut();
        assert!(state.held, "a pass holds its gate");
        state.held = false;
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn one_at_a_time_in_the_order_in_which_they_came() {
        let gate = Gate::default();
        let pass = gate.try_enter().expect("free");
        assert!(gate.try_enter().is_none());
        let mut first = Box::pin(gate.enter());
        let mut second = Box::pin(gate.enter());
        block_on(async {
            assert!(poll_once(&mut first).await.is_none());
            assert!(poll_once(&mut second).await.is_none());
            assert!(poll_once(&mut first).await.is_none(), "looking twice changes nothing");
            drop(pass);
            assert!(gate.try_enter().is_none(), "who leaves does not come before who waits");
            assert!(poll_once(&mut second).await.is_none(), "nor does who came later");
            let pass = poll_once(&mut first).await.expect("the first's turn");
            assert!(poll_once(&mut second).await.is_none());
            drop(pass);
            drop(second.await);
        });
        assert!(gate.try_enter().is_some());
    }

    #[test]
    fn who_gives_up_leaves_the_way_free() {
        let gate = Gate::default();
        let pass = gate.try_enter().expect("free");
        let mut gone = Box::pin(gate.enter());
        let mut waiting = Box::pin(gate.enter());
        block_on(async {
            assert!(poll_once(&mut gone).await.is_none());
            assert!(poll_once(&mut waiting).await.is_none());
            drop(pass);
            drop(gone);
            drop(waiting.await);
        });
        assert!(gate.try_enter().is_some());
    }
}
