//! Queue locks of orderly consumers (RocketMQ's RebalanceLockManager). Core 0 owns them; they live in memory
//! alone, because a client renews its locks every 20 s and takes them again after a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringmq_env::{Instant, mutant};
use ringmq_protocol::body::MessageQueue;
use rustc_hash::FxBuildHasher;

struct Lock {
    client_id: Arc<str>,
    renewed: Instant,
}

impl Lock {
    fn is_expired(&self, now: Instant, expiry: Duration) -> bool {
        now.since(self.renewed) > expiry
    }
}

type Locks = HashMap<MessageQueue, Lock, FxBuildHasher>;

/// Which client of which group holds which queue.
pub struct LockTable {
    groups: HashMap<Arc<str>, Locks, FxBuildHasher>,
    expiry: Duration,
}

impl LockTable {
    /// Nothing is locked. A lock that is not renewed for longer than `expiry` is anybody's.
    pub fn new(expiry: Duration) -> LockTable {
        LockTable { groups: HashMap::default(), expiry }
    }

    /// Locks queues for a client, or renews its locks (41). Returns those that it holds now: the others are held
    /// by another client of the group, whose lock has not expired.
    pub fn lock(
        &mut self,
        group: &str,
        client_id: &str,
        queues: Vec<MessageQueue>,
        now: Instant,
    ) -> Vec<MessageQueue> {
        if queues.is_empty() {
            return queues;
        }
        let client_id: Arc<str> = client_id.into();
        let locks = self.groups.entry(group.into()).or_default();
        let mut held = queues;
        held.retain(|queue| {
            let free = locks
                .get(queue)
                .is_none_or(|lock| lock.client_id == client_id || lock.is_expired(now, self.expiry));
            if free && !(mutant!("lock-with-two-holders") && locks.contains_key(queue)) {
                locks.insert(queue.clone(), Lock { client_id: client_id.clone(), renewed: now });
            }
            free
        });
        held
    }

    /// Gives up the client's own locks on these queues (42); the locks of others stay.
    pub fn unlock(&mut self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        let Some(locks) = self.groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| *lock.client_id == *client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Whether any client of the group holds a queue: its consumers work in order, and send back to the DLQ.
    pub fn is_locked(&self, group: &str, now: Instant) -> bool {
        self.groups
            .get(group)
            .is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now, self.expiry)))
    }

    /// How many queues are held, by group.
    pub fn held(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let is_held = move |lock: &&Lock| !lock.is_expired(now, self.expiry);
        self.groups.iter().map(move |(group, locks)| (group, locks.values().filter(is_held).count()))
    }

    /// Forgets expired locks, so that groups that are gone cost nothing. To be called now and then.
    pub fn sweep(&mut self, now: Instant) {
        let expiry = self.expiry;
        self.groups.retain(|_, locks| {
            locks.retain(|_, lock| !lock.is_expired(now, expiry));
            !locks.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(id: i32) -> MessageQueue {
        MessageQueue { topic: "t".into(), broker_name: "broker-a".into(), queue_id: id }
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn one_client_holds_a_queue_until_it_lets_go() {
        let mut locks = LockTable::new(Duration::from_secs(60));
        assert_eq!(locks.lock("g", "a", vec![queue(0), queue(1)], at(0)), [queue(0), queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1), queue(2)], at(1)), [queue(2)]);
        assert_eq!(locks.lock("other", "b", vec![queue(1)], at(1)), [queue(1)], "groups do not share locks");
        locks.unlock("g", "b", &[queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1)], at(2)), [], "only the holder unlocks");
        locks.unlock("g", "a", &[queue(1)]);
        assert_eq!(locks.lock("g", "b", vec![queue(1)], at(3)), [queue(1)]);
    }

    #[test]
    fn a_lock_lasts_sixty_seconds_from_its_renewal() {
        let mut locks = LockTable::new(Duration::from_secs(60));
        locks.lock("g", "a", vec![queue(0)], at(0));
        locks.lock("g", "a", vec![queue(0)], at(50));
        assert_eq!(locks.lock("g", "b", vec![queue(0)], at(110)), []);
        assert_eq!(locks.lock("g", "b", vec![queue(0)], at(111)), [queue(0)]);
    }

    #[test]
    fn expired_locks_are_forgotten() {
        let mut locks = LockTable::new(Duration::from_secs(60));
        locks.lock("g", "a", vec![queue(0)], at(0));
        assert!(locks.is_locked("g", at(60)));
        assert!(!locks.is_locked("g", at(61)) && !locks.is_locked("unknown", at(0)));
        locks.sweep(at(60));
        assert_eq!(locks.groups.len(), 1);
        locks.sweep(at(61));
        assert!(locks.groups.is_empty());
    }
}
