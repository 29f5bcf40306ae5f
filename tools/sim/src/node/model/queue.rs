//! What is known of one queue.

use std::collections::BTreeMap;
use std::ops::Range;

use ringmq_env::Instant;

use super::QueueName;

/// What is to be expected of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is there or not.
    MayBe,
    /// It has to be there.
    Owed,
    /// It was recalled, and is not there.
    Recalled,
    /// It is not there: refused, or half a message.
    Never,
}

struct Message {
    fate: Fate,
    /// When that was known.
    since: Instant,
    /// Not to be seen before, by the true wall clock.
    due_ms: i64,
    /// When it was sent first: it was not stored before.
    sent: Instant,
}

/// One queue.
pub struct Queue {
    name: QueueName,
    messages: BTreeMap<u64, Message>,
    /// Messages by offset, and when they were known to be there first.
    known: BTreeMap<i64, (u64, Instant)>,
    /// Where a message was found.
    places: BTreeMap<u64, i64>,
}

impl Queue {
    /// Nothing was sent to it.
    pub fn new(name: QueueName) -> Queue {
        Queue { name, messages: BTreeMap::new(), known: BTreeMap::new(), places: BTreeMap::new() }
    }

    fn message(&mut self, id: u64) -> &mut Message {
        let name = self.name;
        self.messages.get_mut(&id).unwrap_or_else(|| panic!("{name:?}: message {id} was not sent there"))
    }

    /// A message is about to be sent, perhaps again.
    pub fn sends(&mut self, id: u64, due_ms: i64, now: Instant) {
        let message = Message { fate: Fate::MayBe, since: Instant(0), due_ms, sent: now };
        self.messages.entry(id).or_insert(message);
    }

    /// It has to be there.
    pub fn owe(&mut self, id: u64, now: Instant) {
        let message = self.message(id);
        if message.fate != Fate::Owed {
            (message.fate, message.since) = (Fate::Owed, now);
        }
    }

    /// It must not be there, unless it is sent again.
    pub fn refuse(&mut self, id: u64, now: Instant) {
        let message = self.message(id);
        (message.fate, message.since) = (Fate::Never, now);
        self.check_absent(id);
    }

    /// It must not come any more.
    pub fn recall(&mut self, id: u64, now: Instant) {
        let message = self.message(id);
        (message.fate, message.since) = (Fate::Recalled, now);
        self.check_absent(id);
    }

    /// It must not be seen yet.
    pub fn hide(&mut self, id: u64) {
        self.message(id).fate = Fate::Never;
    }

    /// What was hidden may show from now on.
    pub fn reveal(&mut self, id: u64) {
        let message = self.message(id);
        if message.fate == Fate::Never {
            message.fate = Fate::MayBe;
        }
    }

    /// What is owed may be gone, unless it was seen.
    pub fn release(&mut self, id: u64) {
        if !self.places.contains_key(&id) {
            self.message(id).fate = Fate::MayBe;
        }
    }

    fn check_absent(&self, id: u64) {
        let place = self.places.get(&id);
        assert!(
            place.is_none(),
            "{:?}: message {id} is at {place:?}, and was refused or recalled",
            self.name
        );
    }

    /// A message is at an offset: the one that was there before, or one that nobody knew the place of.
    pub fn found(&mut self, offset: i64, id: u64, now: Instant) {
        let name = self.name;
        let fate = self.message(id).fate;
        assert!(
            matches!(fate, Fate::MayBe | Fate::Owed),
            "{name:?} offset {offset}: message {id} shows, and may not: {fate:?}"
        );
        let (before, _) = *self.known.entry(offset).or_insert((id, now));
        assert_eq!(before, id, "{name:?} offset {offset} held message {before}");
        let place = *self.places.entry(id).or_insert(offset);
        assert_eq!(place, offset, "{name:?}: message {id} is there twice");
    }

    /// A reader has a message at this time.
    pub fn check_due(&mut self, id: u64, wall_ms: i64) {
        let (name, due_ms) = (self.name, self.message(id).due_ms);
        assert!(wall_ms >= due_ms, "{name:?}: message {id} is seen {} ms before its time", due_ms - wall_ms);
    }

    /// All of it was read, which is these offsets; what was sent at some time may be gone if `may_go` says so.
    pub fn check_whole(&self, offsets: Range<i64>, may_go: impl Fn(Instant) -> bool) {
        let (name, last) = (self.name, self.known.last_key_value());
        let Range { start: min, end: max } = offsets;
        assert!(last.is_none_or(|(offset, _)| *offset < max), "{name:?} ends at {max}, {last:?} is lost");
        for (offset, (id, _)) in self.known.range(..min) {
            let sent = self.messages[id].sent;
            assert!(
                may_go(sent),
                "{name:?} offset {offset}: message {id}, sent at {sent:?}, is deleted too early"
            );
        }
        for (id, message) in &self.messages {
            let is_known = self.places.contains_key(id);
            assert!(
                message.fate != Fate::Owed || is_known || min > 0 && may_go(message.sent),
                "{name:?}: message {id} was acknowledged and is not there"
            );
        }
    }

    /// What is not known for so long may be lost.
    pub fn forget_since(&mut self, kept: Instant) {
        self.known.retain(|_, (_, since)| *since < kept);
        let known = &self.known;
        self.places.retain(|_, offset| known.contains_key(offset));
        for message in self.messages.values_mut().filter(|message| message.since >= kept) {
            if matches!(message.fate, Fate::Owed | Fate::Recalled) {
                message.fate = Fate::MayBe;
            }
        }
    }
}
