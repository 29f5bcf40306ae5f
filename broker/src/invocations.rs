//! Requests of this side's own to clients (307, 309, 221, 326) that wait for the client's answer. Core 0 asks, whichever
//! core holds the connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use flume::{Receiver, Sender};
use hashbrown::HashMap;
use ringmq_env::Instant;
use ringmq_protocol::command::Command;
use rustc_hash::FxBuildHasher;

use crate::event::LocalEvent;
use crate::message::Peer;

/// How long a client has to answer (Java's Broker2Client).
pub const INVOKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that may wait for clients' answers at a time.
pub const MAX_WAITING: usize = 16_384;
/// Deadlines kept: those of answered requests behind an unanswered one are among them.
const MAX_DEADLINES: usize = 16 * MAX_WAITING;

/// Why there is no answer of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// It did not answer in time.
    #[error("wait response on the channel timeout, {}(ms)", INVOKE_TIMEOUT.as_millis())]
    Timeout,
    /// Its connection has ended.
    #[error("the client's connection has ended")]
    Gone,
    /// Too many wait already.
    #[error("{MAX_WAITING} requests wait for clients' answers, the limit")]
    Busy,
}

type Outcome = Result<Command, InvokeError>;

/// The requests that wait. Lives on core 0.
#[derive(Default)]
pub struct Invocations {
    last: Cell<i32>,
    waiting: RefCell<HashMap<i32, Waiting, FxBuildHasher>>,
    /// All have the same time: the first in is the first out.
    deadlines: RefCell<VecDeque<(Instant, i32)>>,
    began: LocalEvent,
}

struct Waiting {
    peer: Peer,
    tell: Sender<Outcome>,
}

/// A request that was begun.
pub struct PendingInvocation(Receiver<Outcome>);

impl PendingInvocation {
    /// Waits for the client's answer, or for the reason why there is none.
    pub async fn outcome(self) -> Outcome {
        self.0.recv_async().await.unwrap_or(Err(InvokeError::Gone))
    }
}

impl Invocations {
    /// Begins a request to `peer`: its number, and what to wait with.
    pub fn begin(&self, peer: Peer, now: Instant) -> Result<(i32, PendingInvocation), InvokeError> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MAX_WAITING || self.deadlines.borrow().len() >= MAX_DEADLINES {
            return Err(InvokeError::Busy);
        }
        let number = self.last.get().wrapping_add(1) & i32::MAX;
        self.last.set(number);
        let (tell, told) = flume::bounded(1);
        waiting.insert(number, Waiting { peer, tell });
        self.deadlines.borrow_mut().push_back((now.after(INVOKE_TIMEOUT), number));
        self.began.signal();
        Ok((number, PendingInvocation(told)))
    }

    /// The client's answer is there; one that comes too late is nobody's.
    pub fn answered(&self, number: i32, answer: Command) {
        self.finish(number, Ok(answer));
    }

    fn finish(&self, number: i32, outcome: Outcome) {
        let waiting = self.waiting.borrow_mut().remove(&number);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone; nobody else is to be told.
            let _ = waiting.tell.try_send(outcome);
        }
        let (waiting, mut deadlines) = (self.waiting.borrow(), self.deadlines.borrow_mut());
        while deadlines.front().is_some_and(|(_, number)| !waiting.contains_key(number)) {
            deadlines.pop_front();
        }
    }

    /// A client's connection has ended: it answers nothing any more.
    pub fn peer_gone(&self, peer: Peer) {
        let gone: Vec<i32> = {
            let waiting = self.waiting.borrow();
            waiting.iter().filter(|(_, waiting)| waiting.peer == peer).map(|(number, _)| *number).collect()
        };
        gone.into_iter().for_each(|number| self.finish(number, Err(InvokeError::Gone)));
    }

    /// Ends what has waited for too long; the time of the next deadline.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        loop {
            let next = self.deadlines.borrow().front().copied();
            match next {
                Some((deadline, number)) if deadline <= now => {
                    self.deadlines.borrow_mut().pop_front();
                    self.finish(number, Err(InvokeError::Timeout));
                }
                other => return other.map(|(deadline, _)| deadline),
            }
        }
    }

    /// Returns once something has begun since the last return.
    pub async fn begun(&self) {
        self.began.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::mailbox::CoreId;
    use crate::message::ConnectionId;

    fn peer(slot: u32) -> Peer {
        Peer { core: CoreId(0), connection: ConnectionId { slot, generation: 0 } }
    }

    #[test]
    fn answers_find_whoever_asked() {
        let table = Invocations::default();
        let (first, first_pending) = table.begin(peer(1), Instant(0)).unwrap();
        let (second, second_pending) = table.begin(peer(2), Instant(0)).unwrap();
        table.answered(second, Command::response(2, second));
        table.answered(first, Command::response(1, first));
        table.answered(first, Command::response(9, first));
        assert_eq!(block_on(first_pending.outcome()).unwrap().code, 1);
        assert_eq!(block_on(second_pending.outcome()).unwrap().code, 2);
    }

    #[test]
    fn a_client_that_is_silent_or_gone_does_not_answer() {
        let table = Invocations::default();
        let (_, silent) = table.begin(peer(1), Instant(0)).unwrap();
        let (_, gone) = table.begin(peer(2), Instant(5)).unwrap();
        table.peer_gone(peer(2));
        assert_eq!(block_on(gone.outcome()), Err(InvokeError::Gone));
        let deadline = Instant(0).after(INVOKE_TIMEOUT);
        assert_eq!(table.expire(Instant(0)), Some(deadline));
        assert_eq!(table.expire(deadline), None);
        assert_eq!(block_on(silent.outcome()), Err(InvokeError::Timeout));
    }

    #[test]
    fn more_than_the_limit_are_refused() {
        let table = Invocations::default();
        for _ in 0..MAX_WAITING {
            assert!(table.begin(peer(1), Instant(0)).is_ok());
        }
        assert!(matches!(table.begin(peer(1), Instant(0)), Err(InvokeError::Busy)));
    }
}
