//! Reads of a shard, each held against the model.

use ringmq_engine::*;
use ringmq_env::sim::Fault;
use ringmq_env::{Env, IoSlice};
use ringmq_protocol::record::{RecordView, records};

use super::life::Life;
use super::model::{Message, Queue};

impl Life {
    /// Reads a queue from an offset up to at least `until`.
    pub(super) async fn read_from(&self, queue: Queue, from: i64, until: i64) {
        let mut offset = from;
        while offset < until {
            let Some(read) = self.read(queue, offset).await else { return };
            let next = self.take(queue, offset, &read);
            assert!(next > offset, "{queue:?} at {offset} of {until}: {read:?}");
            offset = next;
        }
    }

    /// Reads at an offset; `None` if the device's error is to be expected.
    pub(super) async fn read(&self, queue: Queue, offset: i64) -> Option<ReadResult> {
        let request = ReadRequest {
            topic: queue.topic(),
            queue_id: QueueId(queue.id),
            offset: QueueOffset(offset),
            max_messages: 16,
            max_bytes: 32 << 10,
            tag_filter: None,
            record_filter: None,
        };
        if let Some(read) = self.shard.read_hot(&request) {
            return Some(read);
        }
        match self.shard.read(&request).await {
            Ok(read) => Some(read),
            Err(error) => self.failed_read(&error),
        }
    }

    pub(super) fn failed_read<T>(&self, error: &ReadError) -> Option<T> {
        let harmed = self.world.plan.harms();
        let expected = match error {
            ReadError::Io { .. } => harmed || self.world.may(&[Fault::ReadError]),
            ReadError::Waiting { .. } => self.may_be_kept_back() || self.world.may(&[Fault::ReadError]),
            ReadError::Damaged { .. } => harmed,
        };
        assert!(expected, "a read failed: {error}");
        None
    }

    /// Holds what was read at `offset` against the model; where the next read goes on.
    pub(super) fn take(&self, queue: Queue, offset: i64, read: &ReadResult) -> i64 {
        let mut expected = offset;
        for record in read.parts.iter().flat_map(|part| records(part)) {
            let record = record.unwrap_or_else(|error| panic!("{queue:?} at {expected}: {error}"));
            let is_next = record.queue_offset == expected;
            // What expires is passed over before the minimum offset says so.
            let skips =
                record.queue_offset > expected && self.may_all_go(queue, expected..record.queue_offset);
            assert!(is_next || skips, "{queue:?}: offset {} at {expected}", record.queue_offset);
            self.world.model.borrow_mut().seen(queue, &record);
            expected = record.queue_offset + 1;
        }
        // Deleted: the reader is sent to the first message that there is.
        let is_corrected = expected == offset && expected < read.range.min.0;
        let next = if is_corrected { read.range.min.0 } else { expected };
        let rest = next..read.next_offset.0;
        assert!(
            rest.start == rest.end || self.may_all_go(queue, rest),
            "{queue:?}: next is {} behind {next}, {:?}",
            read.next_offset.0,
            read.range
        );
        let model = self.world.model.borrow();
        assert!(read.range.max.0 as usize <= model.messages(queue).len(), "{queue:?}: {:?}", read.range);
        drop(model);
        // The read may have begun before something was deleted.
        let known = self.world.model.borrow().min(queue);
        self.see_min(queue, read.range.min.0.max(known));
        read.next_offset.0
    }

    /// Looks for a message that must be there, by position and by key, and for one that must not.
    pub(super) async fn look_up(&self) {
        let random = self.env.random();
        let sure = self.world.model.borrow().any_sure(random);
        if let Some((queue, offset, message)) = sure {
            let physical = PhysicalOffset::from_wire(message.physical).expect("never negative");
            match self.shard.record_at(physical.position()).await {
                Ok(Some(record)) => self.check_found(queue, offset, &message, &record),
                Ok(None) => {
                    assert!(self.is_excused(queue, offset, &message), "{message:?} is not at its place")
                }
                Err(error) => drop(self.failed_read::<()>(&error)),
            }
            if let Some(found) = self.by_key(queue.topic(), message.id).await {
                match &found[..] {
                    [record] => self.check_found(queue, offset, &message, record),
                    _ => assert!(
                        self.is_excused(queue, offset, &message),
                        "{message:?}: {} by key",
                        found.len()
                    ),
                }
            }
        }
        let gone = self.world.model.borrow().any_gone(random);
        if let Some((topic, id)) = gone
            && let Some(found) = self.by_key(topic, id).await
        {
            assert!(found.is_empty() || self.world.plan.harms(), "message {id} is back from the dead");
        }
    }

    /// Whether a message need not be found: harm, or it was deleted meanwhile.
    fn is_excused(&self, queue: Queue, offset: i64, message: &Message) -> bool {
        let may_go = self.may_go(queue, message);
        let model = self.world.model.borrow();
        may_go
            || self.world.plan.harms()
            || model.half_deleted() == Some(queue.topic)
            || model.messages(queue).get(offset as usize) != Some(message)
    }

    fn check_found(&self, queue: Queue, offset: i64, message: &Message, record: &IoSlice) {
        let view = RecordView::decode(record).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_eq!(view.queue_offset, offset, "{message:?}");
        self.world.model.borrow().check(queue, message, &view);
    }

    async fn by_key(&self, topic: &str, id: u64) -> Option<Vec<IoSlice>> {
        let key = Message::key(id);
        let query = KeyQuery { topic, key: &key, max_messages: 4, begin_ms: 0, end_ms: i64::MAX };
        match self.shard.query_keys(&query).await {
            Ok(found) => Some(found),
            Err(error) => self.failed_read(&error),
        }
    }
}
