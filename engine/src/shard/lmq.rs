//! Light message queues (LMQ): a message whose property INNER_MULTI_DISPATCH names some is stored once, in its own
//! queue, and has an entry in each of them, too. The record says the offsets that it got there
//! (INNER_MULTI_QUEUE_OFFSET, its last property), so that it and all its entries are there together or not at all, and
//! the index can be rebuilt from the log.

use ringmq_env::Env;
use ringmq_protocol::names::{self, topics};
use ringmq_protocol::properties::{self, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, names as property};
use smallvec::SmallVec;

use super::Inner;
use super::commit::StagedMessage;
use crate::index::QueueSlot;
use crate::types::*;

/// The only queue of an LMQ.
pub(super) const QUEUE: QueueId = QueueId(0);
/// Stands between the names, and between the offsets.
const SEPARATOR: char = ',';

/// Where a message is to be readable beside its own queue.
pub(super) struct Lmqs {
    slots: SmallVec<[QueueSlot; 4]>,
    /// The property with the offsets, encoded.
    pub property: Vec<u8>,
}

impl<E: Env> Inner<E> {
    /// The LMQs that the message asks for, if it is one that may: no batch, no retry, nothing of the broker's own. As in
    /// Java, what else its list names is passed over. A message that waited for its time or its outcome was accepted, so
    /// it is not refused for too many LMQs any more.
    pub(super) fn lmqs_of(
        &self,
        messages: &[NewMessage<'_>],
        was_accepted: bool,
    ) -> Result<Option<Lmqs>, AppendError> {
        let (Some(limit), [message]) = (self.options.lmq_limit, messages) else { return Ok(None) };
        let Some(list) = wanted(message) else { return Ok(None) };
        let is_new = |name: &&str| is_usable(name) && !self.index.knows(name, QUEUE);
        let (known, new) = (self.index.lmqs(), list.split(SEPARATOR).filter(is_new).count());
        if !was_accepted && new > 0 && known + new > limit {
            return Err(AppendError::TooManyLmqs { known, limit });
        }
        let mut slots = SmallVec::new();
        let mut offsets = String::new();
        for name in list.split(SEPARATOR) {
            if is_usable(name) {
                let slot = self.index.slot(name, QUEUE);
                offsets.push_str(&self.index.peek(slot).0.to_string());
                if !slots.contains(&slot) {
                    slots.push(slot);
                }
            }
            offsets.push(SEPARATOR);
        }
        offsets.pop();
        Ok((!slots.is_empty()).then(|| Lmqs { slots, property: encode(&offsets, message) }))
    }

    /// Stages the entries of the message that was just staged.
    pub(super) fn stage_lmqs(&self, lmqs: &Lmqs) {
        let mut staged = self.staged.borrow_mut();
        let entry = staged.messages.back().expect("the message itself is staged").entry;
        for slot in &lmqs.slots {
            let offset = self.index.stage(*slot, 1);
            staged.messages.push_back(StagedMessage { slot: *slot, offset, count: 1, entry, mark: None });
        }
    }
}

/// The list of queues that a message is to be dispatched to.
fn wanted<'a>(message: &NewMessage<'a>) -> Option<&'a str> {
    if !may_dispatch(message.topic) {
        return None;
    }
    let parts = message.properties.iter().filter_map(|part| std::str::from_utf8(part).ok());
    parts.filter_map(|part| properties::find(part, property::INNER_MULTI_DISPATCH)).next_back()
}

/// Whether messages of the topic may be dispatched: not what waits for its time or its outcome, nor what was before.
fn may_dispatch(topic: &str) -> bool {
    let is_own =
        matches!(topic, topics::SCHEDULE_TOPIC | topics::TRANS_HALF_TOPIC | topics::TRANS_OP_HALF_TOPIC);
    let is_again = names::is_retry_topic(topic) || names::is_dlq_topic(topic);
    !is_own && !is_again && !topic.starts_with(names::SYSTEM_TOPIC_PREFIX)
}

/// Whether the name is one of an LMQ that can be. Java passes over names with a slash, too.
fn is_usable(name: &str) -> bool {
    names::is_lmq(name) && name.len() <= names::LMQ_MAX_LENGTH && !name.contains('/')
}

fn encode(offsets: &str, message: &NewMessage<'_>) -> Vec<u8> {
    let mut property = Vec::with_capacity(property::INNER_MULTI_QUEUE_OFFSET.len() + offsets.len() + 3);
    let before = message.properties.iter().rev().find_map(|part| part.last());
    if before.is_some_and(|last| *last != PROPERTY_SEPARATOR) {
        property.push(PROPERTY_SEPARATOR);
    }
    property.extend_from_slice(property::INNER_MULTI_QUEUE_OFFSET.as_bytes());
    property.push(NAME_VALUE_SEPARATOR);
    property.extend_from_slice(offsets.as_bytes());
    property.push(PROPERTY_SEPARATOR);
    property
}

/// The LMQs that a stored record is readable from, and its offset in each.
pub(super) fn dispatched<'a>(topic: &str, text: &'a str) -> impl Iterator<Item = (&'a str, QueueOffset)> {
    let last = text.strip_suffix(char::from(PROPERTY_SEPARATOR)).unwrap_or(text);
    let last = last.rsplit(char::from(PROPERTY_SEPARATOR)).next().unwrap_or_default();
    let offsets = last
        .split_once(char::from(NAME_VALUE_SEPARATOR))
        .filter(|(name, _)| *name == property::INNER_MULTI_QUEUE_OFFSET && may_dispatch(topic))
        .map(|(_, offsets)| offsets);
    let list = offsets.and_then(|_| properties::find(text, property::INNER_MULTI_DISPATCH));
    let pairs = list.unwrap_or_default().split(SEPARATOR).zip(offsets.unwrap_or_default().split(SEPARATOR));
    pairs.filter(|(name, _)| is_usable(name)).filter_map(|(name, offset)| {
        let offset = offset.parse::<i64>().ok().filter(|offset| *offset >= 0)?;
        Some((name, QueueOffset(offset)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &str, text: &str) -> Vec<(String, i64)> {
        dispatched(topic, text).map(|(name, offset)| (name.to_owned(), offset.0)).collect()
    }

    #[test]
    fn a_record_says_where_else_it_is_readable() {
        let text = "INNER_MULTI_DISPATCH\u{1}%LMQ%a,other,%LMQ%b\u{2}k\u{1}v\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}7,,0\u{2}";
        assert_eq!(read("T", text), [("%LMQ%a".to_owned(), 7), ("%LMQ%b".to_owned(), 0)]);
        for topic in [topics::SCHEDULE_TOPIC, topics::TRANS_HALF_TOPIC, "%RETRY%g", "rmq_sys_wheel_timer"] {
            assert!(read(topic, text).is_empty(), "{topic}");
        }
    }

    #[test]
    fn what_a_producer_made_up_says_nothing() {
        let forged = "INNER_MULTI_QUEUE_OFFSET\u{1}7\u{2}INNER_MULTI_DISPATCH\u{1}%LMQ%a\u{2}";
        for text in ["", "INNER_MULTI_DISPATCH\u{1}%LMQ%a\u{2}", forged] {
            assert!(read("T", text).is_empty(), "{text:?}");
        }
        let odd =
            "INNER_MULTI_DISPATCH\u{1}%LMQ%a,%LMQ%/b,%LMQ%c\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}-1,2,x\u{2}";
        assert!(read("T", odd).is_empty());
    }
}
