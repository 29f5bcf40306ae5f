//! Recalls: a timer message is settled without any message to its topic.

use ringmq_engine::{KeyQuery, NewMessage, PendingRecord, PhysicalOffset, QueueId, ReadError, SettleError};
use ringmq_env::{IoSlice, mutant};
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::RecordView;

use super::send::Then;
use super::*;
use crate::calls::Caller;
use crate::edge::push_property;

/// Tag and body of Java's recall messages.
const TAG: &str = "_RECALL_TAG_";
const BODY: &[u8] = b"0";
/// Records with one UNIQ_KEY that are looked at.
const MAX_RECORDS: usize = 64;

impl<E: Env> ShardService<E> {
    /// Settles the message if it waits here, and answers the call: at once when it does not, else when that is durable.
    /// As Java's, the answer does not tell which.
    pub(super) async fn recall(&self, core: &Core<E>, caller: Caller, recall: &Recall) {
        let query = KeyQuery {
            topic: topics::TIMER_TOPIC,
            key: &recall.uniq_key,
            max_messages: MAX_RECORDS,
            begin_ms: 0,
            end_ms: i64::MAX,
        };
        let answer = match self.shard.query_keys(&query).await {
            Ok(records) => match self.first_waiting(&records, recall).await {
                Ok(found) => self.settle_found(core, caller, found, recall),
                Err(error) => Some(CallAnswer::Refused(remarks::read_failed(&error))),
            },
            Err(error) => Some(CallAnswer::Refused(remarks::read_failed(&error))),
        };
        if let Some(answer) = answer {
            core.answer_call(caller, answer);
        }
        core.flush();
    }

    /// The first of the records that is to be recalled and still waits.
    async fn first_waiting(
        &self,
        records: &[IoSlice],
        recall: &Recall,
    ) -> Result<Option<PendingRecord>, ReadError> {
        for found in records.iter().filter_map(|record| wanted(record, recall)) {
            if self.shard.still_waits(&found).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What to answer now; `None` when the answer follows with the commit.
    fn settle_found(
        &self,
        core: &Core<E>,
        caller: Caller,
        found: Option<PendingRecord>,
        recall: &Recall,
    ) -> Option<CallAnswer> {
        let Some(record) = found.filter(|_| !mutant!("recall-without-effect")) else {
            return Some(CallAnswer::Done);
        };
        match self.settle_recalled(core, &record, recall) {
            Ok(appended) => {
                let then = Then::Call(caller, CallAnswer::Done);
                self.when_durable(appended.end, appended.store_timestamp, then);
                None
            }
            Err(SettleError::NotPending { .. }) => Some(CallAnswer::Done),
            Err(SettleError::Refused(error)) => {
                let refusal = remarks::append_refused(&error, core.identity.config.max_message_size);
                Some(CallAnswer::Refused(refusal))
            }
        }
    }

    /// Stages the mark, which lies under the timers' topic as Java's recall messages do.
    fn settle_recalled(
        &self,
        core: &Core<E>,
        record: &PendingRecord,
        recall: &Recall,
    ) -> Result<Appended, SettleError> {
        let mut text = Vec::new();
        push_property(&mut text, property::TAGS, TAG);
        push_property(&mut text, property::TIMER_DEL_UNIQKEY, &recall.uniq_key);
        push_property(&mut text, property::UNIQ_KEY, &recall.uniq_key);
        push_property(&mut text, property::REAL_TOPIC, &recall.topic);
        push_property(&mut text, property::PRODUCER_GROUP, &recall.producer_group);
        let message = NewMessage {
            topic: topics::TIMER_TOPIC,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: 0,
            born_timestamp: core.env.wall_ms(),
            born_host: recall.from,
            store_host: core.identity.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: BODY,
            properties: &[&text],
        };
        let settled = self.shard.append_settling(&message, record)?;
        self.meters.borrow_mut().recalled();
        Ok(settled)
    }
}

/// The record as one that waits, if it is the one to be recalled. It need not wait any more.
fn wanted(record: &IoSlice, recall: &Recall) -> Option<PendingRecord> {
    let view = RecordView::decode(record).ok()?;
    let is = |name, value: &str| properties::find(view.properties, name) == Some(value);
    let is_wanted = is(property::REAL_TOPIC, &recall.topic)
        && is(property::TIMER_OUT_MS, &recall.out_ms.to_string())
        && is(property::UNIQ_KEY, &recall.uniq_key);
    let position = PhysicalOffset::from_wire(view.physical_offset)?.position();
    PendingRecord::read(position, record).filter(|_| is_wanted)
}
