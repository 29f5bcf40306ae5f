//! CONSUME_MESSAGE_DIRECTLY (309): an operator tries a message on a consumer, beside its queues and offsets.

use std::sync::Arc;

use ringmq_protocol::body::{CmResult, ConsumeMessageDirectlyResult};
use ringmq_protocol::properties::names;

use super::group::Group;
use super::listener::{Batch, Consumed, ConsumedOrderly, Listener};
use crate::message::MessageExt;

impl Group {
    /// Gives a message to the listener and tells what it made of it. Nothing is committed or sent back.
    pub(super) async fn try_out(&self, mut message: MessageExt) -> ConsumeMessageDirectlyResult {
        if let Some(first) = message.property(names::RETRY_TOPIC).map(str::to_owned)
            && message.topic == self.retry_topic
        {
            message.topic = first;
        }
        let Some(batch) = Batch::new(vec![Arc::new(message)]) else { return unable() };
        let began = self.instance.now_ms();
        let result = match &self.listener {
            Listener::Concurrent(listener) => self.run(listener(batch)).await.map(of_concurrent),
            Listener::Orderly(listener) => self.run(listener(batch)).await.map(of_orderly),
            Listener::Poll => return unable(),
        };
        let failed = || Some("the listener panicked or took too long".to_owned());
        ConsumeMessageDirectlyResult {
            auto_commit: true,
            consume_result: Some(result.unwrap_or(CmResult::ThrowException)),
            order: self.listener.is_orderly(),
            remark: if result.is_none() { failed() } else { None },
            spent_time_mills: self.instance.now_ms() - began,
        }
    }
}

fn of_concurrent(consumed: Consumed) -> CmResult {
    match consumed {
        Consumed::All => CmResult::Success,
        Consumed::First { done, .. } if done > 0 => CmResult::Success,
        Consumed::First { .. } | Consumed::Failed(_) => CmResult::Later,
    }
}

fn of_orderly(consumed: ConsumedOrderly) -> CmResult {
    match consumed {
        ConsumedOrderly::All => CmResult::Commit,
        ConsumedOrderly::Pending => CmResult::Success,
        ConsumedOrderly::Suspend(_) => CmResult::Later,
        ConsumedOrderly::Rollback(_) => CmResult::Rollback,
    }
}

fn unable() -> ConsumeMessageDirectlyResult {
    ConsumeMessageDirectlyResult {
        consume_result: Some(CmResult::ReturnNull),
        remark: Some("the consumer is polled by its application".to_owned()),
        ..ConsumeMessageDirectlyResult::default()
    }
}
