//! What sends leave in traces.

use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::properties::names;

use super::transaction::TransactionState;
use super::wire::Parcel;
use super::{Inner, SendReceipt};
use crate::error::CallError;
use crate::message::Message;
use crate::trace::{Ended, MessageKind, Record, Sent};

impl Inner {
    /// An attempt to send ended.
    pub(super) fn trace_attempt(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
        took: Duration,
        result: &Result<SendReceipt, CallError>,
    ) {
        let Some(tracer) = &self.tracer else { return };
        let receipt = result.as_ref().ok();
        if receipt.is_some_and(|receipt| !receipt.traced) {
            return;
        }
        let instance = &self.client.instance;
        let cost_ms = took.as_millis() as i64;
        let property = |name| parcel.property(name).unwrap_or_default().to_owned();
        tracer.record(Record::Pub(Sent {
            time_ms: instance.now_ms() - cost_ms,
            region: receipt.and_then(|receipt| receipt.region.clone()).unwrap_or_default(),
            group: self.group.clone(),
            topic: parcel.topic.clone(),
            msg_id: parcel.msg_id.clone(),
            tags: property(names::TAGS),
            keys: property(names::KEYS),
            broker_addr: self.broker_addr(queue),
            body_len: parcel.body.len(),
            cost_ms,
            kind: kind(parcel),
            offset_msg_id: receipt.map(|receipt| receipt.offset_msg_id.clone()).unwrap_or_default(),
            success: receipt.is_some(),
        }));
    }

    /// A transaction ended.
    pub(super) fn trace_end(&self, message: &Message, half: &SendReceipt, state: TransactionState) {
        let Some(tracer) = self.tracer.as_ref().filter(|_| half.traced) else { return };
        let property = |name| message.property(name).unwrap_or_default().to_owned();
        let sent = Sent {
            time_ms: self.client.instance.now_ms(),
            region: half.region.clone().unwrap_or_default(),
            group: self.group.clone(),
            topic: message.topic().to_owned(),
            msg_id: half.msg_id.clone(),
            tags: property(names::TAGS),
            keys: property(names::KEYS),
            broker_addr: self.broker_addr(&half.queue),
            body_len: message.body().len(),
            cost_ms: 0,
            kind: MessageKind::Commit,
            offset_msg_id: half.offset_msg_id.clone(),
            success: true,
        };
        let transaction_id = half.transaction_id.clone().unwrap_or_else(|| half.msg_id.clone());
        tracer.record(Record::EndTransaction(Ended { sent, transaction_id, state }));
    }

    fn broker_addr(&self, queue: &MessageQueue) -> String {
        let addr = self.client.instance.routes.master(&queue.broker_name);
        addr.map(|addr| addr.to_string()).unwrap_or_default()
    }
}

fn kind(parcel: &Parcel) -> MessageKind {
    let delays =
        [names::DELAY_TIME_LEVEL, names::TIMER_DELAY_SEC, names::TIMER_DELAY_MS, names::TIMER_DELIVER_MS];
    if parcel.property(names::TRANSACTION_PREPARED).is_some() {
        MessageKind::HalfOfTransaction
    } else if delays.iter().any(|name| parcel.property(name).is_some()) {
        MessageKind::Delayed
    } else {
        MessageKind::Normal
    }
}
