//! Holds the readers of a core's connections back while more is under way to the log than it should be: what waits in
//! a socket takes neither memory here nor the work of refusing it, and TCP tells the peers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::Instant;

use crate::connection::Connection;

/// How long readers are held back (Java's `waitTimeMillsInSendQueue`). What arrives while the device is stuck for longer
/// is read, and refused at once.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// It begins when more than this part of a limit is used,
pub const BEGINS: usize = 2;
/// and ends when no more than this part of any is.
pub const ENDS: usize = 4;

/// The backlog of one core.
#[derive(Default)]
pub struct Backlog {
    since: Cell<Option<Instant>>,
    held_back: RefCell<Vec<Rc<Connection>>>,
    begun: Cell<u64>,
}

impl Backlog {
    /// Too much is under way; true when it was not so before.
    pub fn begin(&self, now: Instant) -> bool {
        let begins = self.since.get().is_none();
        if begins {
            self.since.set(Some(now));
            self.begun.set(self.begun.get() + 1);
        }
        begins
    }

    /// Whether too much is under way, for however long.
    pub fn is_there(&self) -> bool {
        self.since.get().is_some()
    }

    /// Whether readers should wait.
    pub fn holds_back(&self, now: impl FnOnce() -> Instant) -> bool {
        self.since.get().is_some_and(|since| now().since(since) < PATIENCE)
    }

    /// The reader of this connection waits until it is let go.
    pub fn hold_back(&self, connection: &Rc<Connection>) {
        if connection.begin_held_back() {
            self.held_back.borrow_mut().push(connection.clone());
        }
    }

    /// Less is under way.
    pub fn end(&self) {
        self.since.set(None);
        self.let_go();
    }

    /// Has those that wait look again.
    pub fn let_go(&self) {
        let held_back = self.held_back.take();
        held_back.iter().for_each(|connection| connection.end_held_back());
    }

    /// How often it began.
    pub fn count(&self) -> u64 {
        self.begun.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_held_back_for_no_longer_than_their_patience() {
        let backlog = Backlog::default();
        assert!(!backlog.is_there() && !backlog.holds_back(|| Instant(0)));
        assert!(backlog.begin(Instant(0)) && !backlog.begin(Instant(1)));
        assert!(backlog.holds_back(|| Instant(1)));
        let later = Instant(0).after(PATIENCE);
        assert!(backlog.is_there() && !backlog.holds_back(|| later));
        backlog.end();
        assert!(backlog.begin(later) && backlog.holds_back(|| later));
        assert_eq!(backlog.count(), 2);
    }
}
