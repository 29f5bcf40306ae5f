//! Queue locks: who holds one for sure, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_env::Instant;

/// How long a lock holds without being renewed, as the broker is told.
pub const EXPIRY: Duration = Duration::from_secs(1);

/// A client has a lock from the answer to its request until so long after it asked.
struct Hold {
    client_id: String,
    from: Instant,
    until: Instant,
}

/// The locks of one group, by queue.
#[derive(Default)]
pub struct Locks(BTreeMap<u32, Vec<Hold>>);

impl Locks {
    /// The broker granted a lock that was asked for at `asked`: nobody else may hold it all the time since then.
    pub fn granted(&mut self, queue: u32, client_id: &str, asked: Instant, now: Instant) {
        let holds = self.0.entry(queue).or_default();
        holds.retain(|hold| hold.until > asked);
        for hold in holds.iter().filter(|hold| hold.client_id != client_id) {
            assert!(
                hold.from > asked || hold.until < now,
                "queue {queue} is locked by {client_id}, and by {} from {} to {} ms",
                hold.client_id,
                hold.from.0 / 1_000_000,
                hold.until.0 / 1_000_000
            );
        }
        let until = asked.after(EXPIRY);
        holds.push(Hold { client_id: client_id.to_owned(), from: now, until });
    }

    /// A client is about to give its lock up.
    pub fn unlocks(&mut self, queue: u32, client_id: &str) {
        self.0.entry(queue).or_default().retain(|hold| hold.client_id != client_id);
    }

    /// The process ended, and with it every lock: they live in memory.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}
