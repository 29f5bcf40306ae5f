//! What clients know of one broker over all its lives, and what it owes them.

mod locks;
mod offsets;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use ringmq_env::Instant;

pub use locks::{EXPIRY as LOCK_EXPIRY, Locks};
pub use offsets::Offsets;
use queue::Queue;

use super::retention::Retention;

/// Group of the consumers.
pub const GROUP: &str = "readers";
/// Plain messages.
pub const ORDERS: &str = "orders";
/// Messages with a DEDUPE_KEY.
pub const ONCE: &str = "once";
/// Delayed messages and timers.
pub const TIMED: &str = "timed";
/// Transactional messages.
pub const PAID: &str = "paid";
/// What the group has sent back, to be consumed again.
pub const RETRY: &str = "%RETRY%readers";
/// What it has sent back too often.
pub const DEAD: &str = "%DLQ%readers";
/// Every topic with its number of queues. The first four are made by clients, the others by the broker when needed.
pub const TOPICS: [(&str, u32); 6] = [(ORDERS, 4), (ONCE, 1), (TIMED, 2), (PAID, 2), (RETRY, 1), (DEAD, 1)];

/// With ASYNC_FLUSH and a quick disk, a power failure takes nothing that is older.
const FLUSHED_AFTER: Duration = Duration::from_millis(1500);

/// A queue by topic and number.
pub type QueueName = (&'static str, u32);

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped, and said that it is done.
    Stopped,
    /// It was killed, or the power failed with SYNC_FLUSH.
    Killed,
    /// The power failed with ASYNC_FLUSH.
    Unflushed,
}

/// What happens to a half message in the end: its producer has made up its mind before it sent it.
#[derive(Clone, Copy, Debug)]
struct Half {
    queue: QueueName,
    commits: bool,
    /// When the broker acknowledged it.
    stored: Option<Instant>,
}

/// The model of one broker over all its lives.
pub struct Model {
    /// The broker's wall clock neither jumps nor drifts.
    pub is_honest: bool,
    /// What the broker keeps.
    pub retention: Retention,
    queues: BTreeMap<QueueName, Queue>,
    halves: BTreeMap<u64, Half>,
    /// Where a message with a key is, as the broker told.
    once_ids: BTreeMap<u64, (String, Instant)>,
    /// Messages that were sent back already, by where they were.
    sent_back: BTreeSet<(&'static str, u64)>,
    /// Topics that exist.
    pub topics: BTreeSet<String>,
    /// Topics that were deleted.
    pub deleted: BTreeSet<String>,
    /// Groups that exist.
    pub groups: BTreeSet<String>,
    /// Committed offsets.
    pub offsets: Offsets,
    /// Queue locks.
    pub locks: Locks,
    /// How often the broker has ended so far.
    pub life: u64,
    /// How often the power has failed so far with ASYNC_FLUSH.
    pub losses: u64,
    next_id: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
}

impl Model {
    /// Of an empty broker.
    pub fn new(is_honest: bool, retention: Retention) -> Model {
        let names = TOPICS.iter().flat_map(|(topic, queues)| (0..*queues).map(|queue| (*topic, queue)));
        Model {
            is_honest,
            retention,
            queues: names.map(|name| (name, Queue::new(name))).collect(),
            halves: BTreeMap::new(),
            once_ids: BTreeMap::new(),
            sent_back: BTreeSet::new(),
            topics: BTreeSet::new(),
            deleted: BTreeSet::new(),
            groups: BTreeSet::new(),
            offsets: Offsets::default(),
            locks: Locks::default(),
            life: 0,
            losses: 0,
            next_id: 0,
            acknowledged: 0,
        }
    }

    fn queue(&mut self, name: QueueName) -> &mut Queue {
        self.queues.get_mut(&name).unwrap_or_else(|| panic!("no queue {name:?}"))
    }

    /// A number that nothing else has.
    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A message for the queue is about to be sent, not to be seen before `due_ms` of the true wall clock.
    pub fn sends(&mut self, name: QueueName, id: u64, due_ms: i64, now: Instant) {
        self.queue(name).sends(id, due_ms, now);
    }

    /// Its body.
    pub fn body(id: u64) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        body.resize(8 + (id.wrapping_mul(0x9e37_79b9) % 700) as usize, id as u8);
        body
    }

    /// The number of the message with this body.
    pub fn id(body: &[u8]) -> u64 {
        let id = body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        id.unwrap_or_else(|| panic!("a body of {} bytes", body.len()))
    }

    /// The broker acknowledged it, at an offset of its queue if it told one.
    pub fn acknowledged(&mut self, name: QueueName, offset: Option<i64>, id: u64, now: Instant) {
        self.acknowledged += 1;
        self.queue(name).owe(id, now);
        if let Some(offset) = offset {
            self.queue(name).found(offset, id, now);
        }
    }

    /// The broker refused it: it is never seen.
    pub fn refused(&mut self, name: QueueName, id: u64, now: Instant) {
        self.queue(name).refuse(id, now);
    }

    /// A timer was recalled. With a clock that goes wrong it may have been due before.
    pub fn recalled(&mut self, name: QueueName, id: u64, now: Instant) {
        match self.is_honest {
            true => self.queue(name).recall(id, now),
            false => self.queue(name).release(id),
        }
    }

    /// A recall has no answer yet: nobody knows whether the timer will be there.
    pub fn recalls(&mut self, name: QueueName, id: u64) {
        self.queue(name).release(id);
    }

    /// The broker said where a message with a key is, which must be the same each time.
    pub fn once(&mut self, id: u64, message_id: &str, now: Instant) {
        let (known, _) = self.once_ids.entry(id).or_insert_with(|| (message_id.to_owned(), now));
        assert_eq!(known, message_id, "message {id} with a key has another id when it is sent again");
    }

    /// A reader got a message at `wall_ms` of the true wall clock.
    pub fn read(&mut self, name: QueueName, offset: i64, body: &[u8], now: Instant, wall_ms: i64) {
        let id = Model::id(body);
        let is_honest = self.is_honest;
        let queue = self.queue(name);
        queue.found(offset, id, now);
        assert!(body == Model::body(id), "{name:?} offset {offset}: message {id} has wrong bytes");
        if is_honest {
            queue.check_due(id, wall_ms);
        }
    }

    /// A whole queue was read: everything that is owed must be there, or old enough to be gone.
    pub fn read_whole(&mut self, name: QueueName, offsets: Range<i64>, now: Instant) {
        let (retention, is_honest) = (self.retention, self.is_honest);
        let may_go = |sent| retention.allows(sent, now) || retention != Retention::All && !is_honest;
        self.queue(name).check_whole(offsets, may_go);
    }

    /// Half messages that are stored come out as their producer wants, after some time in which it can be asked.
    pub fn halves_are_decided(&mut self, now: Instant) {
        let halves: Vec<_> = self.halves.iter().map(|(id, half)| (*id, *half)).collect();
        for (id, half) in halves.into_iter().filter(|(_, half)| half.commits && half.stored.is_some()) {
            self.queue(half.queue).owe(id, now);
        }
    }

    /// A half message is about to be sent; nobody may see it.
    pub fn sends_half(&mut self, name: QueueName, id: u64, commits: bool, now: Instant) {
        self.halves.insert(id, Half { queue: name, commits, stored: None });
        let queue = self.queue(name);
        queue.sends(id, 0, now);
        queue.hide(id);
    }

    /// The broker acknowledged it.
    pub fn half_stored(&mut self, id: u64, now: Instant) {
        self.acknowledged += 1;
        if let Some(half) = self.halves.get_mut(&id) {
            half.stored = Some(now);
        }
    }

    /// What becomes of a half message, as its producer is about to tell the broker: whether it is committed.
    pub fn ends_half(&mut self, id: u64) -> bool {
        let half = *self.halves.get(&id).unwrap_or_else(|| panic!("nobody has sent half message {id}"));
        if half.commits {
            self.queue(half.queue).reveal(id);
        }
        half.commits
    }

    /// Whether this is the first time that the message comes back from there.
    pub fn sends_back(&mut self, topic: &'static str, id: u64) -> bool {
        self.sent_back.insert((topic, id))
    }

    /// The process ended. `is_quick`: the disk and the process were never slow.
    pub fn ended(&mut self, end: End, now: Instant, is_quick: bool) {
        self.life += 1;
        self.offsets.ended(end, now, is_quick);
        self.locks.forget();
        if end == End::Unflushed {
            self.losses += 1;
            let kept = if is_quick { now.0.saturating_sub(FLUSHED_AFTER.as_nanos() as u64) } else { 0 };
            self.forget_since(Instant(kept));
        }
    }

    /// What is not older may be lost.
    fn forget_since(&mut self, kept: Instant) {
        self.queues.values_mut().for_each(|queue| queue.forget_since(kept));
        self.once_ids.retain(|_, (_, told)| *told < kept);
        for half in self.halves.values_mut() {
            half.stored = half.stored.filter(|stored| *stored < kept);
        }
    }
}
