//! Pulls that wait for a message, on the shard that owns their queue (RocketMQ's PullRequestHoldService).
//!
//! A pull leaves the table once: when a message arrives that it wants, when its time is up, or when its connection
//! has ended. Messages whose tag it does not want leave it where it is; a filter that needs the message itself is asked
//! once the pull is woken, and may put it back.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};
use ringmq_engine::{QueueId, QueueOffset};
use ringmq_env::Instant;
use rustc_hash::FxBuildHasher;
use slab::Slab;

use crate::message::{Peer, PullRequest, ReplyTo};

/// Pulls that one shard holds at most.
pub const MAX_PARKED: usize = 131_072;

/// A pull that waits.
#[derive(Debug)]
pub struct Parked {
    /// Who waits.
    pub reply: ReplyTo,
    /// For what.
    pub pull: PullRequest,
    /// Until when.
    pub deadline: Instant,
}

/// The waiting pulls of one shard.
pub struct LongPolls {
    capacity: usize,
    parked: Slab<Parked>,
    queues: HashMap<QueueKey, Vec<usize>, FxBuildHasher>,
    peers: HashMap<Peer, Vec<usize>, FxBuildHasher>,
    deadlines: BTreeSet<(Instant, usize)>,
}

impl LongPolls {
    /// An empty table for at most `capacity` pulls.
    pub fn new(capacity: usize) -> LongPolls {
        LongPolls {
            capacity,
            parked: Slab::new(),
            queues: HashMap::default(),
            peers: HashMap::default(),
            deadlines: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.parked.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Lets the pull wait; false when the table is full.
    #[must_use]
    pub fn park(&mut self, parked: Parked) -> bool {
        if self.parked.len() >= self.capacity {
            return false;
        }
        let key = QueueKey { topic: parked.pull.topic.clone(), queue_id: parked.pull.queue_id };
        let (peer, deadline) = (parked.reply.peer, parked.deadline);
        let id = self.parked.insert(parked);
        self.queues.entry(key).or_default().push(id);
        self.peers.entry(peer).or_default().push(id);
        self.deadlines.insert((deadline, id));
        true
    }

    /// A message became readable: moves the pulls that want it to `woken`.
    pub fn arrived(
        &mut self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        tags_code: i64,
        woken: &mut Vec<Parked>,
    ) {
        let Some(ids) = self.queues.get(&QueueLookup { topic, queue_id }) else { return };
        let wants = |pull: &PullRequest| pull.offset <= offset && pull.filter.matches_code(tags_code);
        let ids: Vec<usize> = ids.iter().copied().filter(|id| wants(&self.parked[*id].pull)).collect();
        woken.extend(ids.into_iter().map(|id| self.remove(id)));
    }

    /// Moves the pulls of a group in a queue to `found`.
    pub fn of_group(&mut self, group: &str, topic: &str, queue_id: QueueId, found: &mut Vec<Parked>) {
        let Some(ids) = self.queues.get(&QueueLookup { topic, queue_id }) else { return };
        let ids: Vec<usize> =
            ids.iter().copied().filter(|id| *self.parked[*id].pull.group == *group).collect();
        found.extend(ids.into_iter().map(|id| self.remove(id)));
    }

    /// Moves the pulls of a group in a queue to `found` that are held to another version of its subscription.
    pub fn outdated(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: QueueId,
        version: i64,
        found: &mut Vec<Parked>,
    ) {
        let Some(ids) = self.queues.get(&QueueLookup { topic, queue_id }) else { return };
        let is_outdated = |pull: &PullRequest| {
            *pull.group == *group && pull.sub_version.is_some_and(|held| held != version)
        };
        let ids: Vec<usize> = ids.iter().copied().filter(|id| is_outdated(&self.parked[*id].pull)).collect();
        found.extend(ids.into_iter().map(|id| self.remove(id)));
    }

    /// Moves the pulls whose time is up to `expired`.
    pub fn expire(&mut self, now: Instant, expired: &mut Vec<Parked>) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            expired.push(self.remove(id));
        }
    }

    /// When the next pull's time is up.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Drops the pulls of a connection that has ended.
    pub fn drop_peer(&mut self, peer: Peer) {
        for id in self.peers.get(&peer).cloned().unwrap_or_default() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: usize) -> Parked {
        let parked = self.parked.remove(id);
        self.deadlines.remove(&(parked.deadline, id));
        let lookup = QueueLookup { topic: &parked.pull.topic, queue_id: parked.pull.queue_id };
        forget(&mut self.queues, &lookup, id);
        forget(&mut self.peers, &parked.reply.peer, id);
        parked
    }
}

/// Takes `id` out of a list, and the list out of the map when it was the last.
fn forget<K: Eq + Hash, Q: Hash + Equivalent<K>>(
    map: &mut HashMap<K, Vec<usize>, FxBuildHasher>,
    key: &Q,
    id: usize,
) {
    let Some(ids) = map.get_mut(key) else { return };
    ids.retain(|other| *other != id);
    if ids.is_empty() {
        map.remove(key);
    }
}

#[derive(PartialEq, Eq)]
struct QueueKey {
    topic: Arc<str>,
    queue_id: QueueId,
}

/// A [`QueueKey`] that borrows its topic.
struct QueueLookup<'a> {
    topic: &'a str,
    queue_id: QueueId,
}

impl Hash for QueueKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        QueueLookup { topic: &self.topic, queue_id: self.queue_id }.hash(state);
    }
}

impl Hash for QueueLookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.topic.hash(state);
        self.queue_id.hash(state);
    }
}

impl Equivalent<QueueKey> for QueueLookup<'_> {
    fn equivalent(&self, key: &QueueKey) -> bool {
        self.queue_id == key.queue_id && *self.topic == *key.topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::CoreId;
    use crate::message::{ConnectionId, ReplyKind};
    use crate::message_filter::MessageFilter;
    use crate::tag_filter::TagFilter;

    fn parked(slot: u32, queue: u32, offset: i64, expression: &str, deadline: u64) -> Parked {
        let connection = ConnectionId { slot, generation: 0 };
        Parked {
            reply: ReplyTo {
                peer: Peer { core: CoreId(0), connection },
                opaque: 1,
                kind: ReplyKind::HeldPull,
            },
            pull: PullRequest {
                group: "g".into(),
                topic: "t".into(),
                queue_id: QueueId(queue),
                offset: QueueOffset(offset),
                max_messages: 32,
                max_bytes: 1 << 18,
                filter: MessageFilter::Tag(TagFilter::parse(expression).unwrap()),
                sub_version: Some(5),
                suspend_ms: 1000,
                commit: None,
                broadcaster: None,
                topic_sys_flag: 0,
                group_sys_flag: 0,
            },
            deadline: Instant(deadline),
        }
    }

    fn arrive(polls: &mut LongPolls, queue: u32, offset: i64, tag: &str) -> Vec<u32> {
        let mut woken = Vec::new();
        let code = ringmq_protocol::properties::tags_code(tag);
        polls.arrived("t", QueueId(queue), QueueOffset(offset), code, &mut woken);
        woken.iter().map(|parked| parked.reply.peer.connection.slot).collect()
    }

    #[test]
    fn only_wanted_messages_wake() {
        let mut polls = LongPolls::new(10);
        assert!(polls.park(parked(1, 0, 5, "*", 100)));
        assert!(polls.park(parked(2, 0, 5, "a", 100)));
        assert!(polls.park(parked(3, 1, 5, "*", 100)));
        assert_eq!(arrive(&mut polls, 0, 4, "a"), Vec::<u32>::new());
        assert_eq!(arrive(&mut polls, 0, 5, "b"), vec![1]);
        assert_eq!(arrive(&mut polls, 0, 6, "a"), vec![2]);
        assert_eq!(arrive(&mut polls, 2, 9, "a"), Vec::<u32>::new());
        assert_eq!((polls.parked.len(), polls.queues.len(), polls.peers.len()), (1, 1, 1));
    }

    #[test]
    fn deadlines_come_in_order_and_once() {
        let mut polls = LongPolls::new(10);
        assert!(polls.park(parked(1, 0, 0, "*", 30)));
        assert!(polls.park(parked(2, 0, 0, "*", 10)));
        assert_eq!(polls.next_deadline(), Some(Instant(10)));
        let mut expired = Vec::new();
        polls.expire(Instant(10), &mut expired);
        assert_eq!(expired.len(), 1);
        polls.expire(Instant(29), &mut expired);
        assert_eq!(expired.len(), 1);
        polls.expire(Instant(30), &mut expired);
        assert_eq!(expired.len(), 2);
        assert!(polls.is_empty() && polls.next_deadline().is_none() && polls.queues.is_empty());
    }

    #[test]
    fn an_ended_connection_takes_its_pulls_along_and_a_full_table_gives_back() {
        let mut polls = LongPolls::new(2);
        assert!(polls.park(parked(1, 0, 0, "*", 30)));
        assert!(polls.park(parked(1, 1, 0, "*", 30)));
        assert!(!polls.park(parked(2, 1, 0, "*", 30)));
        let peer = parked(1, 0, 0, "*", 30).reply.peer;
        polls.drop_peer(peer);
        polls.drop_peer(peer);
        assert!(polls.is_empty() && polls.deadlines.is_empty() && polls.peers.is_empty());
    }
}
