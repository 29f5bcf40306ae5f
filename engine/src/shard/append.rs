//! Appends: a message becomes a record, in place, in the tail of the log.

use ringmq_env::Env;
use ringmq_protocol::crc;
use ringmq_protocol::record::{MAX_PROPERTIES, RecordError, RecordFields, sys_flag};
use ringmq_protocol::text;
use smallvec::SmallVec;

use super::commit::StagedMessage;
use super::message::{Indexed, offsets_of};
use super::{Inner, Shard};
use crate::index::{IndexEntry, QueueSlot, TopicHandle, key_hash};
use crate::pending::kind_of;
use crate::types::*;

impl<E: Env> Shard<E> {
    /// Stages messages of one queue as a unit, in order and contiguously. They get durable and readable with a
    /// group commit, see [`Shard::next_commit`]. Panics without any message, or with messages of several queues.
    ///
    /// A unit of up to 8 MiB of records is there as a whole or not at all after a crash; of a larger one that was
    /// never acknowledged the first part may be there.
    pub fn append(&self, messages: &[NewMessage<'_>]) -> Result<Appended, AppendError> {
        self.append_known(Known::default(), messages)
    }

    /// The same for messages of which something is known.
    pub fn append_known(
        &self,
        known: Known<'_>,
        messages: &[NewMessage<'_>],
    ) -> Result<Appended, AppendError> {
        debug_assert!(known.indexed.is_none() || messages.len() == 1, "it is known of one message");
        self.0.append(known, messages, Relation::None)
    }

    /// The topic's handle: `known` if it is of this topic and still holds, else that which is found by name. While the topic
    /// has no queue here, it is a handle that never holds.
    pub fn topic(&self, name: &str, known: TopicHandle) -> TopicHandle {
        self.0.index.topic(name, known)
    }

    /// Has what appends to these queues need fetched into the core's cache, side by side: with many topics it is in none.
    pub fn prefetch(&self, queues: impl Iterator<Item = (TopicHandle, QueueId)> + Clone) {
        queues.clone().for_each(|(topic, _)| self.0.index.prefetch(topic, None));
        queues.for_each(|(topic, queue)| self.0.index.prefetch(topic, Some(queue)));
    }
}

/// What an append need not find out itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The topic's handle, if there is one: where it holds, nothing is looked for by name.
    pub topic: TopicHandle,
    /// Of a single message: what [`Indexed::of`] finds in its properties.
    pub indexed: Option<Indexed<'a>>,
}

/// What an append has to do with an earlier record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relation {
    None,
    /// Its only message settles the record.
    Settles(PendingRecord),
}

/// What becomes of waiting records with the commit of a staged message.
pub(super) struct PendingMark {
    /// It waits itself.
    pub waits: Option<PendingRecord>,
    /// It settles this one.
    pub settles: Option<PendingRecord>,
}

impl<E: Env> Inner<E> {
    pub(super) fn append(
        &self,
        known: Known<'_>,
        messages: &[NewMessage<'_>],
        relation: Relation,
    ) -> Result<Appended, AppendError> {
        let shard = self;
        let first = messages.first().expect("an append has messages");
        assert!(messages[1..].iter().all(|m| m.queue_id == first.queue_id && m.topic == first.topic));
        shard.admit()?;
        let lmqs = shard.lmqs_of(messages, matches!(relation, Relation::Settles(_)))?;
        let (parts, widened);
        let messages = match &lmqs {
            None => messages,
            Some(lmqs) => {
                let last = std::iter::once(&lmqs.property[..]);
                parts = first.properties.iter().copied().chain(last).collect::<SmallVec<[&[u8]; 5]>>();
                widened = [NewMessage { properties: &parts, ..*first }];
                &widened[..]
            }
        };
        let limit = shard.options.max_record_size.min(shard.log.max_unit());
        let mut sizes = SmallVec::<[usize; 1]>::new();
        for message in messages {
            sizes.push(record_size(message, limit)?);
        }
        let total = sizes.iter().sum();
        if shard.log.is_full_for(total) {
            let (shard, position) = (shard.options.id.0, shard.log.staged().0);
            return Err(AppendError::LogFull { shard, position, limit: LOG_END.0 });
        }
        if total <= shard.log.max_unit() {
            shard.log.reserve(total);
        }
        let slot = shard.index.slot_in(known.topic, first.topic, first.queue_id);
        let store_timestamp = shard.log.store_timestamp();
        let mut physical_offsets = SmallVec::new();
        let mut first_queue_offset = None;
        for (message, size) in messages.iter().zip(sizes) {
            let (queue_offset, physical_offset) =
                shard.stage(slot, message, size, store_timestamp, relation, known.indexed);
            first_queue_offset.get_or_insert(queue_offset);
            physical_offsets.push(physical_offset);
        }
        if let Some(lmqs) = &lmqs {
            shard.stage_lmqs(lmqs);
        }
        shard.log.kick();
        Ok(Appended {
            first_queue_offset: first_queue_offset.expect("an append has messages"),
            physical_offsets,
            store_timestamp,
            end: shard.log.staged(),
        })
    }

    /// Bytes that are staged and not yet written.
    pub(super) fn staged_bytes(&self) -> usize {
        (self.log.staged().0 - self.log.committed().0) as usize
    }

    /// Whether an append may be staged now.
    fn admit(&self) -> Result<(), AppendError> {
        if self.closing.get() {
            return Err(AppendError::Closed);
        }
        if let Some(error) = self.disk_refuses() {
            return Err(error);
        }
        let staged = self.staged_bytes();
        if staged > self.options.staged_limit {
            return Err(AppendError::Busy { staged, limit: self.options.staged_limit });
        }
        Ok(())
    }

    fn stage(
        &self,
        slot: QueueSlot,
        message: &NewMessage<'_>,
        size: usize,
        store_ms: i64,
        relation: Relation,
        indexed: Option<Indexed<'_>>,
    ) -> (QueueOffset, PhysicalOffset) {
        let count = inner_count(message);
        let offset = self.index.stage(slot, count);
        let properties_len = properties_len(message);
        let mut staged = self.staged.borrow_mut();
        let mut tags_code = 0;
        let kind = kind_of(message.topic);
        let mut waits = None;
        let (position, crc) = self.log.push(size, |position, filler| {
            let fields = fields(message, offset, PhysicalOffset::new(self.options.id, position), store_ms);
            let (body, body_crc) = fields.encode(size, |part| filler.put(part));
            let record = filler.filled();
            // The properties stand last; their parts were checked to be text.
            let text = || text::utf8(&record[size - properties_len..]).unwrap_or_default();
            let indexed = indexed.unwrap_or_else(|| Indexed::of(text()));
            debug_assert_eq!(indexed, Indexed::of(text()), "what is known of a message is what it says");
            tags_code = indexed.tags_code();
            for key in indexed.each_key(message.sys_flag) {
                staged.keys.push_back((key_hash(message.topic, key), position, store_ms));
            }
            waits = kind.and_then(|kind| PendingRecord::of(kind, text(), position, size as u32, 0));
            crc::around(record, body, body_crc)
        });
        waits.iter_mut().for_each(|record| record.crc = crc);
        let entry = IndexEntry { position, size: size as u32, crc, tags_code, store_ms };
        let settles = match relation {
            Relation::None => None,
            Relation::Settles(record) => Some(record),
        };
        let mark = (waits.is_some() || settles.is_some()).then(|| Box::new(PendingMark { waits, settles }));
        staged.messages.push_back(StagedMessage { slot, offset, count, entry, mark });
        self.count(|stats| {
            stats.messages_appended += u64::from(count);
            stats.bytes_appended += size as u64;
        });
        (offset, PhysicalOffset::new(self.options.id, position))
    }
}

/// How many offsets the message takes.
fn inner_count(message: &NewMessage<'_>) -> u32 {
    if message.sys_flag & sys_flag::INNER_BATCH == 0 {
        return 1;
    }
    let parts = message.properties.iter().filter_map(|part| std::str::from_utf8(part).ok());
    parts.map(|part| offsets_of(part, message.sys_flag)).max().unwrap_or(1)
}

fn properties_len(message: &NewMessage<'_>) -> usize {
    message.properties.iter().map(|part| part.len()).sum()
}

/// Bytes of the message as stored, if it may be stored.
fn record_size(message: &NewMessage<'_>, limit: usize) -> Result<usize, AppendError> {
    if message.properties.iter().any(|part| text::utf8(part).is_err()) {
        return Err(AppendError::PropertiesNotText);
    }
    // Offsets and times have a fixed width.
    let fields = fields(message, QueueOffset(0), PhysicalOffset::new(ShardId(0), LogPosition(0)), 0);
    let size = fields.encoded_len().map_err(|error| match error {
        RecordError::PropertiesTooLong { len, limit } => AppendError::PropertiesTooLarge { size: len, limit },
        _ => AppendError::TooLarge { size: message.body.len() + message.topic.len(), limit },
    })?;
    if size > limit { Err(AppendError::TooLarge { size, limit }) } else { Ok(size) }
}

fn fields<'a>(
    message: &NewMessage<'a>,
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    store_timestamp: i64,
) -> RecordFields<'a> {
    RecordFields {
        queue_id: message.queue_id.0 as i32,
        flag: message.flag,
        queue_offset: queue_offset.0,
        physical_offset: physical_offset.get(),
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp,
        born_host: message.born_host,
        store_timestamp,
        store_host: message.store_host,
        reconsume_times: message.reconsume_times,
        prepared_transaction_offset: message.prepared_transaction_offset,
        body: message.body,
        topic: message.topic,
        properties: message.properties,
    }
}

const _: () = assert!(MAX_PROPERTIES <= i16::MAX as usize);
