//! What clients know of a broker, and what it owes them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringmq_env::Instant;

/// Topic of the messages.
pub const TOPIC: &str = "orders";
/// Group of the consumers.
pub const GROUP: &str = "readers";
/// Queues of the topic.
pub const QUEUES: u32 = 4;
/// How old a commit of a consumer offset may be and still be lost with the process, if the disk is quick.
const OFFSETS_MAY_LACK: Duration = Duration::from_millis(1500);

/// One queue.
#[derive(Default)]
struct Queue {
    /// Messages by offset: acknowledged, or seen by a reader.
    known: BTreeMap<i64, u64>,
    /// Where a message was found.
    places: BTreeMap<u64, i64>,
    /// Messages that were sent here.
    sent: BTreeSet<u64>,
    /// Messages that were refused for good.
    refused: BTreeSet<u64>,
    /// Consumer offsets that were asked for, and when they were acknowledged, if so.
    commits: Vec<(i64, Option<Instant>)>,
    /// The commit that is owed, or a later one: one past its index; 0 when none is.
    owed: usize,
}

/// The model of one broker over all its lives.
pub struct Model {
    queues: Vec<Queue>,
    /// Topics that exist.
    pub topics: BTreeSet<String>,
    next_id: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
}

impl Model {
    /// Of an empty broker.
    pub fn new() -> Model {
        let queues = (0..QUEUES).map(|_| Queue::default()).collect();
        Model { queues, topics: BTreeSet::new(), next_id: 0, acknowledged: 0 }
    }

    /// A message for the queue.
    pub fn sends(&mut self, queue: u32) -> u64 {
        self.next_id += 1;
        self.queues[queue as usize].sent.insert(self.next_id);
        self.next_id
    }

    /// Its body.
    pub fn body(id: u64) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        body.resize(8 + (id.wrapping_mul(0x9e37_79b9) % 700) as usize, id as u8);
        body
    }

    /// The broker acknowledged it.
    pub fn acknowledged(&mut self, queue: u32, offset: i64, id: u64) {
        self.acknowledged += 1;
        self.found(queue, offset, id);
    }

    /// The broker refused it.
    pub fn refused(&mut self, queue: u32, id: u64) {
        self.queues[queue as usize].refused.insert(id);
    }

    /// A message is at an offset: the one that was there before, or one that nobody knew the place of.
    fn found(&mut self, queue: u32, offset: i64, id: u64) {
        let known = &mut self.queues[queue as usize];
        assert!(known.sent.contains(&id), "queue {queue} offset {offset}: message {id} was not sent there");
        assert!(!known.refused.contains(&id), "queue {queue} offset {offset}: message {id} was refused");
        let before = *known.known.entry(offset).or_insert(id);
        assert_eq!(before, id, "queue {queue} offset {offset} held message {before}");
        let place = *known.places.entry(id).or_insert(offset);
        assert_eq!(place, offset, "queue {queue}: message {id} is there twice");
    }

    /// A reader got a message.
    pub fn read(&mut self, queue: u32, offset: i64, body: &[u8]) {
        let id = body.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let id =
            id.unwrap_or_else(|| panic!("queue {queue} offset {offset}: a body of {} bytes", body.len()));
        self.found(queue, offset, id);
        assert!(body == Model::body(id), "queue {queue} offset {offset}: message {id} has wrong bytes");
    }

    /// A whole queue was read, up to `max`: everything known must be there.
    pub fn read_whole(&self, queue: u32, max: i64) {
        let last = self.queues[queue as usize].known.last_key_value();
        assert!(
            last.is_none_or(|(offset, _)| *offset < max),
            "queue {queue} ends at {max}, {last:?} is lost"
        );
    }

    /// The power failed with ASYNC_FLUSH: what is known may be lost from some point on.
    pub fn forget_unflushed(&mut self) {
        for queue in &mut self.queues {
            queue.known.clear();
            queue.places.clear();
        }
    }

    /// A consumer commits an offset; what to tell [`Model::committed`].
    pub fn commits(&mut self, queue: u32, offset: i64) -> usize {
        let commits = &mut self.queues[queue as usize].commits;
        commits.push((offset, None));
        commits.len() - 1
    }

    /// The broker has acknowledged it.
    pub fn committed(&mut self, queue: u32, commit: usize, now: Instant) {
        self.queues[queue as usize].commits[commit].1 = Some(now);
    }

    /// The process ended: commits that were acknowledged long enough ago are owed, all of them if it was stopped.
    pub fn ended(&mut self, now: Instant, is_quick: bool, stopped: bool) {
        for queue in self.queues.iter_mut().filter(|_| is_quick || stopped) {
            let is_owed = |at: Instant| stopped || now.since(at) > OFFSETS_MAY_LACK;
            let owed = queue.commits.iter().rposition(|(_, at)| at.is_some_and(is_owed));
            queue.owed = owed.map_or(0, |at| at + 1).max(queue.owed);
        }
    }

    /// What the broker says was committed.
    pub fn found_commit(&self, queue: u32, offset: Option<i64>) {
        let known = &self.queues[queue as usize];
        let may_be = &known.commits[known.owed.saturating_sub(1)..];
        let is_known = match offset {
            // A group without a commit may be told 0.
            None | Some(0) => known.owed == 0,
            Some(found) => may_be.iter().any(|(offset, _)| *offset == found),
        };
        assert!(is_known, "queue {queue}: the committed offset is {offset:?}, and may be one of {may_be:?}");
    }
}
