//! Half messages that were given up, and that a tool takes up again (323): stored as half messages once more, whose
//! producer was not asked yet.

use ringmq_engine::PhysicalOffset;
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::RecordView;
use smallvec::SmallVec;

use super::send::Then;
use super::transaction::stored_again;
use super::*;
use crate::calls::Caller;
use crate::edge::push_property;
use crate::transaction::Half;

impl<E: Env> ShardService<E> {
    /// Answers the call once the half message is durable. As Java's broker, it does not look whether that was done before:
    /// what is taken up twice has two outcomes.
    pub(super) async fn resume_half(&self, core: &Core<E>, caller: Caller, offset: PhysicalOffset) {
        let answer = match self.shard.record_at(offset.position()).await {
            Ok(Some(bytes)) => self.store_half_again(core, &bytes),
            Ok(None) => Err(remarks::half_not_resumed()),
            Err(error) => Err(remarks::read_failed(&error)),
        };
        match answer {
            Ok(appended) => {
                self.when_durable(
                    appended.end,
                    appended.store_timestamp,
                    Then::Call(caller, CallAnswer::Done),
                );
            }
            Err(refusal) => core.answer_call(caller, CallAnswer::Refused(refusal)),
        }
        core.flush();
    }

    fn store_half_again(&self, core: &Core<E>, bytes: &[u8]) -> Result<Appended, Refusal> {
        let view = RecordView::decode(bytes).ok();
        let view = view
            .filter(|view| view.topic == topics::TRANS_CHECK_MAX_TIME_TOPIC && Half::read(view).is_some());
        let view = view.ok_or_else(remarks::half_not_resumed)?;
        let dropped = [property::DUE, property::TRANSACTION_CHECK_TIMES];
        let kept = properties::without(view.properties, &dropped);
        let mut added = Vec::new();
        push_property(&mut added, property::TRANSACTION_CHECK_TIMES, "0");
        push_property(&mut added, property::DUE, &core.env.wall_ms().to_string());
        let mut parts: SmallVec<[&[u8]; 4]> = kept.iter().map(|part| part.as_bytes()).collect();
        parts.push(&added);
        let half = topics::TRANS_HALF_TOPIC;
        let message = stored_again(&view, half, core.identity.routing.queue_on(half, self.id), &parts);
        let appended = self.shard.append(&[message]);
        appended.map_err(|error| remarks::append_refused(&error, core.identity.config.max_message_size))
    }
}
