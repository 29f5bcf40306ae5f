//! Tasks that wait for an answer of another core, or of another part of their own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::event::LocalEvent;
use crate::mailbox::CoreId;
use crate::message::CallAnswer;

/// Who waits for the answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The core of the waiting task.
    pub core: CoreId,
    /// The call's number there.
    pub number: u64,
}

/// The calls of one core that wait for their answer.
#[derive(Default)]
pub struct CallTable {
    last: Cell<u64>,
    waiting: RefCell<HashMap<u64, Rc<Waiting>, FxBuildHasher>>,
}

#[derive(Default)]
struct Waiting {
    answer: RefCell<Option<CallAnswer>>,
    there: LocalEvent,
}

/// A call that was begun.
pub struct PendingCall(Rc<Waiting>);

impl CallTable {
    /// Begins a call: its number, and what to wait with.
    pub fn begin(&self) -> (u64, PendingCall) {
        let number = self.last.get() + 1;
        self.last.set(number);
        let waiting = Rc::<Waiting>::default();
        self.waiting.borrow_mut().insert(number, waiting.clone());
        (number, PendingCall(waiting))
    }

    /// The answer is there.
    pub fn finish(&self, number: u64, answer: CallAnswer) {
        let waiting = self.waiting.borrow_mut().remove(&number);
        if let Some(waiting) = waiting {
            *waiting.answer.borrow_mut() = Some(answer);
            waiting.there.signal();
        }
    }
}

impl PendingCall {
    /// Waits for the answer.
    pub async fn answer(self) -> CallAnswer {
        self.0.there.wait().await;
        let answer = self.0.answer.borrow_mut().take();
        answer.expect("the event is signalled once the answer is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_call() {
        let table = CallTable::default();
        let (first, first_call) = table.begin();
        let (second, second_call) = table.begin();
        table.finish(second, CallAnswer::Done);
        table.finish(first, CallAnswer::Groups(Vec::new()));
        table.finish(first, CallAnswer::Done);
        futures_lite::future::block_on(async {
            assert!(matches!(second_call.answer().await, CallAnswer::Done));
            assert!(matches!(first_call.answer().await, CallAnswer::Groups(_)));
        });
    }
}
