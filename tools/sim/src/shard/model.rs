//! What is known of a shard from outside, and what it owes.
//!
//! The log is one sequence: what a crash leaves of the staged messages is a prefix of it, in which everything is that
//! was promised. A message has its place in the queue from when it is staged; recovery decides which of the
//! unanswered ones stay, and from then on it is decided for good.

use std::path::Path;

use ringmq_engine::{PendingKind, PhysicalOffset};
use ringmq_env::sim::{Fault, Harm};
use ringmq_protocol::names::topics;
use ringmq_protocol::record::RecordView;

use super::waiting::Waiting;

/// The queues' topics.
pub const TOPICS: [&str; 4] = ["orders", "events", topics::TIMER_TOPIC, topics::TRANS_HALF_TOPIC];
/// Those of them whose messages wait for nothing, the first ones.
pub const PLAIN_TOPICS: usize = 2;
/// All queues: topic and number.
const QUEUES: [(usize, u32); 6] = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)];
/// Bytes of the log that the shadow has, at most.
const MAX_SHADOW: u64 = 64 << 10;
/// Lost messages that are remembered, to be looked for.
const MAX_GONE: usize = 64;

/// A queue: topic and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Index into [`TOPICS`].
    pub topic: usize,
    /// Its id.
    pub id: u32,
}

impl Queue {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Queue> {
        QUEUES.into_iter().map(|(topic, id)| Queue { topic, id })
    }

    /// One of those whose messages wait for nothing, by a random number.
    pub fn plain(random: u64) -> Queue {
        let plain = QUEUES.iter().filter(|(topic, _)| *topic < PLAIN_TOPICS).count() as u64;
        let (topic, id) = QUEUES[(random % plain) as usize];
        Queue { topic, id }
    }

    /// The one whose messages wait for an outcome of that kind.
    pub fn waiting(kind: PendingKind) -> Queue {
        let topic = if kind == PendingKind::Delayed { PLAIN_TOPICS } else { PLAIN_TOPICS + 1 };
        Queue { topic, id: 0 }
    }

    /// Name of the topic.
    pub fn topic(self) -> &'static str {
        TOPICS[self.topic]
    }

    fn index(self) -> usize {
        let at = QUEUES.iter().position(|(topic, id)| (*topic, *id) == (self.topic, self.id));
        at.expect("one of them")
    }

    /// What its messages wait for.
    pub fn kind(self) -> Option<PendingKind> {
        [PendingKind::Delayed, PendingKind::Half].into_iter().find(|kind| Queue::waiting(*kind) == self)
    }
}

/// A message that was staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Number of its own.
    pub id: u64,
    /// Bytes of its body.
    pub len: usize,
    /// Its physical offset.
    pub physical: i64,
    /// Its store time, in ms.
    pub store_ms: i64,
    /// Log position behind the unit that it was appended with.
    pub end: u64,
    /// What it has to do with other messages.
    pub relation: Relation,
}

/// What a message has to do with others, and with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// When it is due, in ms, and its order if it was put off.
    pub due: Option<(i64, Option<u64>)>,
    /// What it says in its field PREPAREDTRANSACTIONOFFSET, and the log position of the record that it settles.
    pub settles: Option<(i64, u64)>,
}

impl Message {
    /// An offset that the store left out: after harm to the log nobody knows how many messages a queue had there.
    const HOLE: Message = Message {
        id: 0,
        len: 0,
        physical: 0,
        store_ms: 0,
        end: 0,
        relation: Relation { due: None, settles: None },
    };

    /// Whether no message was ever sent there.
    pub fn is_hole(&self) -> bool {
        self.id == 0
    }

    /// Its body: the number, and bytes that follow from it.
    pub fn body(id: u64, len: usize) -> Vec<u8> {
        let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut body = id.to_be_bytes().to_vec();
        while body.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            body.extend_from_slice(&state.to_le_bytes());
        }
        body.truncate(len.max(8));
        body
    }

    /// Whether `record` was stored as this message, by its place and time.
    fn is(&self, record: &RecordView<'_>) -> bool {
        (self.physical, self.store_ms) == (record.physical_offset, record.store_timestamp)
    }

    /// Its one key.
    pub fn key(id: u64) -> String {
        format!("k{id}")
    }

    /// Its properties as stored.
    pub fn properties(id: u64, relation: Relation) -> String {
        let due = match relation.due {
            None => String::new(),
            Some((due_ms, None)) => format!("RINGMQ_DUE\u{1}{due_ms}\u{2}"),
            Some((due_ms, Some(order))) => format!("RINGMQ_DUE\u{1}{due_ms},{order}\u{2}"),
        };
        format!("KEYS\u{1}k{id}\u{2}TAGS\u{1}t{}\u{2}{due}", id % 4)
    }

    /// Its log position.
    pub fn position(&self) -> u64 {
        PhysicalOffset::from_wire(self.physical).expect("never negative").position().0
    }
}

/// What a crash was, for what it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was acknowledged.
    Nothing,
    /// With ASYNC_FLUSH, what was not flushed.
    Unflushed,
}

/// The model of one shard over all its lives.
pub struct Model {
    /// SYNC_FLUSH, in this life.
    sync_flush: bool,
    /// A life since the last recovery, or the one before, may have left what is not on the device.
    may_be_unflushed: bool,
    queues: Vec<Vec<Message>>,
    /// The queues' minimum offsets, as last seen.
    mins: Vec<i64>,
    /// Messages before this log position are deleted for good.
    pub deleted_before: u64,
    /// Everything before this log position was acknowledged or seen by a reader.
    acked: u64,
    /// Everything before this log position was said to be on the device.
    flushed: u64,
    loss: Loss,
    /// Ends of group commits, the newest last.
    groups: Vec<u64>,
    /// A topic was deleted once.
    has_deleted: bool,
    /// A topic that was being deleted when the process ended.
    deleting: Option<usize>,
    /// Messages that will never be there (again).
    gone: Vec<(usize, u64)>,
    /// Messages that recovery did not find, by the index of their queue and their offset: without its tail journal the
    /// log may have them again.
    lost: Vec<(usize, usize, Message)>,
    harm: Vec<Harm>,
    /// Records that wait, and those that did.
    pub waiting: Waiting,
    next_id: u64,
    /// Newest store time given out in this life, in ms.
    store_ms: i64,
    /// Acknowledged messages that harm has taken.
    pub harmed: u64,
    /// Messages acknowledged so far.
    pub acknowledged: u64,
}

impl Model {
    /// Of a shard without messages.
    pub fn new() -> Model {
        Model {
            sync_flush: true,
            may_be_unflushed: false,
            queues: vec![Vec::new(); Queue::all().count()],
            mins: vec![0; Queue::all().count()],
            deleted_before: 0,
            acked: 0,
            flushed: 0,
            loss: Loss::Nothing,
            groups: Vec::new(),
            has_deleted: false,
            deleting: None,
            gone: Vec::new(),
            lost: Vec::new(),
            harm: Vec::new(),
            waiting: Waiting::default(),
            next_id: 0,
            store_ms: 0,
            harmed: 0,
            acknowledged: 0,
        }
    }

    /// A life begins, with SYNC_FLUSH or without.
    pub fn begun(&mut self, sync_flush: bool) {
        self.sync_flush = sync_flush;
        self.may_be_unflushed |= !sync_flush;
    }

    /// A number for a new message.
    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Messages of the queue so far, staged ones too.
    pub fn messages(&self, queue: Queue) -> &[Message] {
        &self.queues[queue.index()]
    }

    /// The queue's minimum offset, as last seen.
    pub fn min(&self, queue: Queue) -> i64 {
        self.mins[queue.index()]
    }

    /// The minimum offset was seen to be this.
    pub fn set_min(&mut self, queue: Queue, min: i64) {
        self.mins[queue.index()] = min;
    }

    /// The minimum offset is not known any more.
    pub fn forget_min(&mut self, queue: Queue) {
        self.mins[queue.index()] = 0;
    }

    /// Everything before the log position is deleted for good.
    pub fn deleted_before(&mut self, position: u64) {
        self.deleted_before = position;
    }

    /// Messages were staged.
    pub fn staged(&mut self, queue: Queue, first_offset: i64, messages: impl Iterator<Item = Message>) {
        let messages: Vec<Message> = messages.collect();
        for message in &messages {
            assert!(message.store_ms >= self.store_ms, "the store time goes back: {message:?}");
            self.store_ms = message.store_ms;
            if let (Some(kind), Some((due_ms, order))) = (queue.kind(), message.relation.due) {
                self.waiting.staged(kind, message.position(), due_ms, order, message.end);
            }
            if let Some((_, position)) = message.relation.settles {
                self.waiting.settled(position, message.end);
            }
        }
        let known = &mut self.queues[queue.index()];
        assert_eq!(first_offset, known.len() as i64, "{queue:?}: offsets have no gaps and no repeats");
        known.extend(messages);
    }

    /// A group commit reached `committed`.
    pub fn committed(&mut self, committed: u64) {
        assert!(committed >= self.acked, "the committed end went back from {} to {committed}", self.acked);
        let acknowledged = self.queues.iter().flatten().filter(|m| m.end > self.acked && m.end <= committed);
        self.acknowledged += acknowledged.count() as u64;
        self.acked = committed;
        if self.groups.last() != Some(&committed) {
            self.groups.push(committed);
        }
    }

    /// Everything staged behind `committed` was refused.
    pub fn dropped(&mut self, committed: u64) {
        for queue in 0..self.queues.len() {
            let kept = self.queues[queue].partition_point(|message| message.end <= committed);
            // They may be on the disk, and only the tail journal says that they do not count.
            let refused = self.queues[queue].iter().enumerate().skip(kept);
            self.lost.extend(refused.map(|(offset, message)| (queue, offset, *message)));
            self.forget_from(queue, kept);
        }
        self.waiting.cut(committed);
    }

    fn forget_from(&mut self, queue: usize, from: usize) {
        self.mins[queue] = self.mins[queue].min(from as i64);
        let gone = self.queues[queue].drain(from..).filter(|message| !message.is_hole());
        self.gone.extend(gone.map(|message| (QUEUES[queue].0, message.id)));
        let excess = self.gone.len().saturating_sub(MAX_GONE);
        self.gone.drain(..excess);
    }

    /// The shard says that everything before `flushed` is on the device.
    pub fn flushed(&mut self, flushed: u64) {
        assert!(flushed >= self.flushed, "the flushed end went back from {} to {flushed}", self.flushed);
        self.flushed = flushed;
        if self.sync_flush {
            assert!(self.acked <= flushed, "{} was acknowledged, {flushed} is on the device", self.acked);
        }
    }

    /// Everything staged is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.queues.iter().filter_map(|queue| queue.last()).all(|message| message.end <= self.acked)
    }

    /// The process ended, and what was not flushed may be lost.
    pub fn ended(&mut self, unflushed_is_lost: bool, harm: Vec<Harm>) {
        if unflushed_is_lost && self.may_be_unflushed {
            self.loss = Loss::Unflushed;
        }
        self.harmed_by(harm);
        self.store_ms = 0;
    }

    /// Confirmed bytes were harmed.
    pub fn harmed_by(&mut self, harm: Vec<Harm>) {
        self.harm.extend(harm);
    }

    /// A topic is about to be deleted.
    pub fn begin_delete(&mut self, topic: usize) {
        self.deleting = Some(topic);
        self.has_deleted = true;
    }

    /// It is deleted for good.
    pub fn end_delete(&mut self) {
        let Some(topic) = self.deleting.take() else { return };
        for queue in Queue::all().filter(|queue| queue.topic == topic) {
            self.forget_from(queue.index(), 0);
        }
    }

    /// Whether a topic was being deleted when the process ended; only the shard knows whether it is.
    pub fn half_deleted(&self) -> Option<usize> {
        self.deleting
    }

    /// The deletion had not happened.
    pub fn forget_delete(&mut self) {
        self.deleting = None;
    }

    /// Log position before which nothing may be missing.
    fn sure(&self) -> u64 {
        let has_lost_shadow = self.harm.iter().any(|harm| harm.path.ends_with("shadow"));
        match self.loss {
            // What it alone had, at most, went with it.
            Loss::Nothing if has_lost_shadow => self.acked.saturating_sub(MAX_SHADOW).max(self.flushed),
            Loss::Nothing => self.acked,
            Loss::Unflushed => self.flushed,
        }
    }

    /// Recovery is over: queue `n` has `found[n]` messages, and the log is readable up to `committed`.
    pub fn recovered(&mut self, found: &[usize], committed: u64) {
        let (sure, is_harmed) = (self.sure(), self.is_harmed_in_log());
        let survivors = self.queues.iter().zip(found).flat_map(|(queue, found)| queue.iter().take(*found));
        let cut = survivors.map(|message| message.end).max().unwrap_or(0).max(sure);
        for queue in Queue::all() {
            let (n, index) = (found[queue.index()], queue.index());
            let known = self.queues[index].len();
            let is_short = n > known && self.is_harmed_in_log();
            let harm = &self.harm;
            assert!(n <= known || is_short, "{queue:?} has {n} messages, {known} were ever sent; {harm:?}");
            self.queues[index].resize(n.max(known), Message::HOLE);
            // Offsets that are passed over, because nobody knows how many messages were lost, are not those of what was cut.
            for (offset, message) in self.queues[index].iter_mut().enumerate().take(n) {
                if message.end > committed && !message.is_hole() && is_harmed {
                    self.lost.push((index, offset, *message));
                    *message = Message::HOLE;
                }
            }
            let known = &self.queues[index];
            let lost = known[n..].iter().filter(|message| message.end <= cut && !message.is_hole());
            for message in lost {
                let promise =
                    if message.end <= sure { "was promised" } else { "stands before others in the log" };
                assert!(
                    self.is_harmed_in_log(),
                    "{queue:?} ends at {n}: {message:?} {promise} and is gone (all before {sure} was promised)"
                );
                self.harmed += u64::from(message.end <= sure);
            }
            // Where the log goes on behind what is lost of it, offsets are passed over; but of a queue nothing else may be left.
            let again = known[n..].iter().find(|message| !message.is_hole() && message.end <= committed);
            let begins_anew = n == 0 || !self.is_harmed_in_segments_alone();
            assert!(
                again.is_none() || begins_anew,
                "{queue:?} gives {n} again, which was {again:?}: {:?}",
                self.harm
            );
            let lost = known.iter().enumerate().skip(n).filter(|(_, message)| !message.is_hole());
            self.lost.extend(lost.map(|(offset, message)| (index, offset, *message)));
            self.forget_from(index, n);
        }
        self.waiting.cut(committed);
        if self.is_harmed_in_log() {
            self.waiting.lose();
        }
        if !self.is_harmed_in_log() {
            let kept = self.queues.iter().flatten().map(|message| message.store_ms);
            self.store_ms = kept.max().unwrap_or(0);
        }
        (self.acked, self.flushed, self.loss) = (committed, committed, Loss::Nothing);
        self.may_be_unflushed = !self.sync_flush;
        self.groups.retain(|end| *end <= committed);
        self.groups.push(committed);
    }

    /// Whether nobody knows what is deleted: harm has hit the only record of that.
    pub fn is_beyond_knowledge(&self) -> bool {
        let is_of_marks = |path: &Path| path.file_stem().is_some_and(|stem| stem == "marks");
        self.has_deleted && self.harm.iter().any(|harm| is_of_marks(&harm.path))
    }

    /// Whether harm to the log or its tail journal can have taken messages. Whatever happens to the index takes none.
    fn is_harmed_in_log(&self) -> bool {
        self.has_lost_tail() || self.harm.iter().any(is_in_segment)
    }

    /// Whether what else says where queues go on is there.
    fn is_harmed_in_segments_alone(&self) -> bool {
        self.harm.iter().all(is_in_segment)
    }

    fn has_lost_tail(&self) -> bool {
        self.harm.iter().any(|harm| harm.path.ends_with("tail"))
    }

    /// Whether confirmed bytes were harmed so far, so that something may not be there.
    pub fn is_harmed(&self) -> bool {
        !self.harm.is_empty()
    }

    /// Whether files below `dir` were.
    pub fn is_harmed_in(&self, dir: &Path) -> bool {
        self.harm.iter().any(|harm| harm.path.starts_with(dir))
    }

    /// Whether the tables of waiting records were: files below a directory `pending`.
    pub fn is_harmed_in_tables(&self) -> bool {
        self.harm.iter().any(|harm| harm.path.iter().any(|part| part == "pending"))
    }

    /// Whether the start may be refused: what no log can rebuild was harmed.
    pub fn may_refuse_to_start(&self) -> bool {
        self.harm.iter().any(|harm| harm.fault != Fault::OldFile)
    }

    /// A reader got `record` from `queue`: it is what was sent there, and counts as acknowledged.
    pub fn seen(&mut self, queue: Queue, record: &RecordView<'_>) {
        let offset = record.queue_offset;
        let known = self.queues[queue.index()].get(offset as usize).copied();
        let message = match known {
            Some(hole) if hole.is_hole() => self.found_again(queue, record),
            // What the tail journal alone had went with it, and what was in that place before may be back.
            Some(known) if !known.is(record) && self.has_lost_tail() => {
                self.found_again(queue, record).or(Some(known))
            }
            known => known,
        };
        let Some(message) = message else { panic!("{queue:?} offset {offset}: nothing was sent there") };
        self.check(queue, &message, record);
        if message.end > self.acked {
            self.committed(message.end);
        }
    }

    /// The lost message that `record` must be, where the log's end is found without what recovery had decided before.
    fn found_again(&mut self, queue: Queue, record: &RecordView<'_>) -> Option<Message> {
        let place = (queue.index(), record.queue_offset as usize);
        let found =
            self.lost.iter().find(|(index, at, message)| (*index, *at) == place && message.is(record));
        let message = found.map(|(_, _, message)| *message)?;
        self.queues[place.0][place.1] = message;
        Some(message)
    }

    /// Panics unless `record` is `message`, byte for byte.
    pub fn check(&self, queue: Queue, message: &Message, record: &RecordView<'_>) {
        let place = (record.topic, record.queue_id as u32, record.physical_offset, record.store_timestamp);
        assert_eq!(place, (queue.topic(), queue.id, message.physical, message.store_ms), "{message:?}");
        assert_eq!(record.properties, Message::properties(message.id, message.relation), "{message:?}");
        let settles = message.relation.settles.map_or(0, |(field, _)| field);
        assert_eq!(record.prepared_transaction_offset, settles, "{message:?}");
        assert!(record.body == Message::body(message.id, message.len), "{queue:?} {message:?}: wrong bytes");
    }

    /// A message that must be there, by a random number.
    pub fn any_sure(&self, random: u64) -> Option<(Queue, i64, Message)> {
        let queue = Queue::all().nth((random % self.queues.len() as u64) as usize)?;
        let known = &self.queues[queue.index()];
        let sure = known.partition_point(|message| message.end <= self.acked) as u64;
        let offset = (random >> 8).checked_rem(sure)?;
        let message = known[offset as usize];
        let is_there = !message.is_hole() && offset as i64 >= self.min(queue);
        is_there.then_some((queue, offset as i64, message))
    }

    /// Topic and number of a message that is gone, by a random number.
    pub fn any_gone(&self, random: u64) -> Option<(&'static str, u64)> {
        let n = (random as usize).checked_rem(self.gone.len())?;
        let (topic, id) = self.gone[n];
        Some((TOPICS[topic], id))
    }
}

/// Whether a segment of the log was harmed.
fn is_in_segment(harm: &Harm) -> bool {
    harm.path.parent().is_some_and(|parent| parent.ends_with("log"))
}
