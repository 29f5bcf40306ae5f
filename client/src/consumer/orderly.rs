//! Orderly consumption: one batch of a queue at a time, under the broker's lock.

use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use super::listener::{Batch, ConsumedOrderly, Erased};
use super::process_queue::ProcessQueue;
use crate::message::MessageExt;
use crate::metrics::Returned;

/// Hands the queue's messages to the listener in order until the queue is taken away. The batch at hand is finished
/// before this returns.
pub(super) async fn run(group: Arc<Group>, process: Arc<ProcessQueue>, listener: Erased<ConsumedOrderly>) {
    let mut pending = Vec::new();
    loop {
        let ready = async {
            process.something().await;
            if group.locks_queues() {
                process.lock().await;
            }
            group.permits.acquire().await
        };
        let permit = tokio::select! {
            biased;
            () = process.dropped.cancelled() => return,
            permit = ready => permit,
        };
        // The permits are never closed.
        let Ok(permit) = permit else { return };
        let pause = consume(&group, &process, &listener, &mut pending).await;
        drop(permit);
        if let Some(pause) = pause {
            tokio::select! {
                () = process.dropped.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Consumes one batch; returns how long the queue stands still.
async fn consume(
    group: &Group,
    process: &ProcessQueue,
    listener: &Erased<ConsumedOrderly>,
    pending: &mut Vec<Arc<MessageExt>>,
) -> Option<Duration> {
    let messages = process.take(group.settings.consume_batch, group.instance.now_ms());
    let batch = Batch::new(messages.clone())?;
    let consumed = group.observe(&messages, listener(batch)).await;
    let consumed = consumed.unwrap_or(ConsumedOrderly::Suspend(None));
    match consumed {
        ConsumedOrderly::All => {
            pending.extend(messages);
            commit(group, process, &std::mem::take(pending));
            None
        }
        ConsumedOrderly::Pending => {
            pending.extend(messages);
            None
        }
        ConsumedOrderly::Rollback(pause) => {
            pending.extend(messages);
            process.put_back(std::mem::take(pending));
            Some(stand_still(group, pause))
        }
        ConsumedOrderly::Suspend(pause) => suspend(group, process, messages, pause).await,
    }
}

/// Messages that failed too often go to the dead-letter topic; when none is left of the batch, the queue goes on.
async fn suspend(
    group: &Group,
    process: &ProcessQueue,
    messages: Vec<Arc<MessageExt>>,
    pause: Option<Duration>,
) -> Option<Duration> {
    let (mut buried, mut stay) = (Vec::new(), Vec::new());
    for mut message in messages {
        let limit = group.settings.max_reconsume_times.unwrap_or(i32::MAX);
        let dead = group.is_clustering() && message.reconsume_times >= limit && !group.kill.is_cancelled();
        if dead && group.send_to_retry_topic(&message, limit).await {
            buried.push(message);
        } else {
            Arc::make_mut(&mut message).reconsume_times += 1;
            stay.push(message);
        }
    }
    if let Some(message) = stay.first() {
        group.stats.returned(&message.topic, Returned::Here, stay.len());
    }
    let stands_still = !stay.is_empty();
    process.put_back(stay);
    commit(group, process, &buried);
    stands_still.then(|| stand_still(group, pause))
}

fn stand_still(group: &Group, pause: Option<Duration>) -> Duration {
    pause.unwrap_or(group.settings.suspend).clamp(Duration::from_millis(10), Duration::from_secs(30))
}

/// The queue is this consumer's until its worker has returned, taken away or not, and so is its offset.
fn commit(group: &Group, process: &ProcessQueue, messages: &[Arc<MessageExt>]) {
    if messages.is_empty() {
        return;
    }
    if let Some(offset) = process.done(messages) {
        group.offsets.advance(&process.queue, offset);
    }
}
