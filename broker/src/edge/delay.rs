//! Delayed messages on their way in: when they are due, and under which topic they wait.

use std::sync::Arc;

use ringmq_engine::QueueId;
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::names as property;

use super::*;
pub use crate::delay::Wish;
use crate::delay::{DelayConfig, When, WhenError};

/// When a message is due that wishes so at `now_ms`. A batch cannot be delayed.
pub fn when(wish: &Wish<'_>, config: &DelayConfig, now_ms: i64, is_batch: bool) -> Result<When, Refusal> {
    let when = wish.when(config, now_ms).map_err(|error| match error {
        WhenError::Level(text) => remarks::bad_delay_level(&text),
        WhenError::Disabled => remarks::timers_disabled(),
        WhenError::Illegal => remarks::timer_illegal(config.timer_max_delay_ms),
    })?;
    match when {
        When::Now => Ok(when),
        _ if is_batch => Err(remarks::batch_delayed()),
        _ if wish.deletes.is_some() => Err(remarks::deletes_by_message()),
        _ => Ok(when),
    }
}

/// Adds what a message says while it waits to be delivered to `topic` and queue, and tells where it does.
pub fn put_off(when: When, topic: &Arc<str>, queue_id: QueueId, added: &mut Vec<u8>) -> Option<WaitsIn> {
    let (waits_in, due_ms) = match when {
        When::Now => return None,
        When::Level { level, due_ms } => {
            (WaitsIn { topic: topics::SCHEDULE_TOPIC, queue_id: QueueId(level as u32 - 1) }, due_ms)
        }
        When::Timer { due_ms, out_ms } => {
            push_property(added, property::TIMER_OUT_MS, &out_ms.to_string());
            (WaitsIn { topic: topics::TIMER_TOPIC, queue_id: QueueId(0) }, due_ms)
        }
    };
    push_property(added, property::REAL_TOPIC, topic);
    push_property(added, property::REAL_QUEUE_ID, &queue_id.0.to_string());
    push_property(added, property::DUE, &due_ms.to_string());
    Some(waits_in)
}
