//! Listeners at work: what they do is counted, and traced.

use std::sync::Arc;

use tokio::time::Instant;

use super::group::Group;
use super::listener::{Consumed, ConsumedOrderly};
use crate::env::BoxFuture;
use crate::message::MessageExt;

/// What a listener made of a batch, as far as statistics go.
pub(super) trait Judged {
    /// Whether it failed.
    fn is_failure(&self) -> bool;
}

impl Judged for Consumed {
    fn is_failure(&self) -> bool {
        !matches!(self, Consumed::All)
    }
}

impl Judged for ConsumedOrderly {
    fn is_failure(&self) -> bool {
        matches!(self, ConsumedOrderly::Suspend(_) | ConsumedOrderly::Rollback(_))
    }
}

impl Group {
    /// Runs a listener on messages of one topic, as [`Group::run`] does.
    pub(super) async fn observe<R: Judged>(
        &self,
        messages: &[Arc<MessageExt>],
        listener: BoxFuture<'static, R>,
    ) -> Option<R> {
        #[cfg(feature = "trace")]
        let traced = self.trace_before(messages);
        let began = Instant::now();
        let result = self.run(listener).await;
        let (took, failed) = (began.elapsed(), result.as_ref().is_none_or(Judged::is_failure));
        if let Some(first) = messages.first() {
            self.stats.consumed(&first.topic, messages.len(), took, !failed);
        }
        #[cfg(feature = "trace")]
        self.trace_after(traced, took, result.as_ref().map(|_| failed));
        result
    }
}

#[cfg(feature = "trace")]
mod traces {
    use std::sync::Arc;
    use std::time::Duration;

    use ringmq_protocol::properties::names;

    use super::Group;
    use crate::message::MessageExt;
    use crate::trace::{ConsumeOutcome, Consumed, Record};

    impl Group {
        pub(super) fn trace_before(&self, messages: &[Arc<MessageExt>]) -> Vec<Consumed> {
            let Some(tracer) = &self.tracer else { return Vec::new() };
            let request_id = self.instance.unique_key();
            let wanted = messages.iter().filter(|m| m.property(names::TRACE_SWITCH) != Some("false"));
            let traced: Vec<Consumed> = wanted.map(|message| self.traced(message, &request_id)).collect();
            traced.iter().for_each(|consumed| tracer.record(Record::SubBefore(consumed.clone())));
            traced
        }

        fn traced(&self, message: &MessageExt, request_id: &str) -> Consumed {
            Consumed {
                time_ms: self.instance.now_ms(),
                region: message.property(names::MSG_REGION).unwrap_or_default().to_owned(),
                group: self.name.clone(),
                request_id: request_id.to_owned(),
                msg_id: message.msg_id(),
                retries: message.reconsume_times,
                keys: message.property(names::KEYS).unwrap_or_default().to_owned(),
            }
        }

        /// `failed` is `None` when the listener gave no answer.
        pub(super) fn trace_after(&self, traced: Vec<Consumed>, took: Duration, failed: Option<bool>) {
            let Some(tracer) = &self.tracer else { return };
            let outcome = match failed {
                None => ConsumeOutcome::Broken,
                Some(true) => ConsumeOutcome::Failed,
                Some(false) => ConsumeOutcome::Success,
            };
            let cost_ms = took.as_millis() as i64 / traced.len().max(1) as i64;
            let records = traced.into_iter().map(|consumed| Record::SubAfter { consumed, cost_ms, outcome });
            records.for_each(|record| tracer.record(record));
        }
    }
}
