//! Concurrent consumption: many batches at a time, failures go back to the broker.

use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use super::listener::{Batch, Consumed, Erased, RetryDelay};
use super::process_queue::ProcessQueue;
use crate::message::MessageExt;

/// Pause before a message is tried again here, when it could not even be sent back.
const LOCAL_RETRY: Duration = Duration::from_secs(5);

/// Hands the queue's messages to the listener until the queue is taken away.
pub(super) async fn run(group: Arc<Group>, process: Arc<ProcessQueue>, listener: Erased<Consumed>) {
    let dispatching = async {
        loop {
            process.something().await;
            // The permits are never closed.
            let Ok(permit) = group.permits.clone().acquire_owned().await else { return };
            let messages = process.take(group.settings.consume_batch, group.instance.now_ms());
            let (group, process, listener) = (group.clone(), process.clone(), listener.clone());
            group.clone().spawn(async move {
                consume(&group, &process, &listener, messages).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = process.dropped.cancelled() => {}
        () = dispatching => {}
    }
}

async fn consume(
    group: &Arc<Group>,
    process: &Arc<ProcessQueue>,
    listener: &Erased<Consumed>,
    messages: Vec<Arc<MessageExt>>,
) {
    let batch = Batch { queue: process.queue.clone(), messages: messages.clone() };
    let consumed = group.observe(&messages, listener(batch)).await;
    if group.kill.is_cancelled() {
        return;
    }
    let (done, retry) = match consumed.unwrap_or(Consumed::Failed(RetryDelay::Growing)) {
        Consumed::All => (messages.len(), RetryDelay::Growing),
        Consumed::First { done, retry } => (done.min(messages.len()), retry),
        Consumed::Failed(retry) => (0, retry),
    };
    settle(group, process, messages, done, retry).await;
}

/// What is done is committed; the rest goes back first, so that a commit never passes a message that is nowhere.
async fn settle(
    group: &Arc<Group>,
    process: &Arc<ProcessQueue>,
    mut messages: Vec<Arc<MessageExt>>,
    done: usize,
    retry: RetryDelay,
) {
    let mut stay = Vec::new();
    let mut settled: Vec<_> = messages.drain(..done).collect();
    for message in messages {
        // A queue that was taken away delivers them again by itself.
        if !process.is_ours() {
            return;
        }
        match group.give_back(&message, retry).await {
            true => settled.push(message),
            false => stay.push(message),
        }
    }
    if let Some(offset) = process.done(&settled).filter(|_| process.is_ours()) {
        group.offsets.advance(&process.queue, offset);
    }
    if !stay.is_empty() {
        let (group, process) = (group.clone(), process.clone());
        group.clone().spawn(async move { retry_here(&group, &process, stay).await });
    }
}

async fn retry_here(group: &Group, process: &ProcessQueue, mut messages: Vec<Arc<MessageExt>>) {
    tokio::select! {
        () = process.dropped.cancelled() => return,
        () = tokio::time::sleep(LOCAL_RETRY) => {}
    }
    for message in &mut messages {
        Arc::make_mut(message).reconsume_times += 1;
    }
    tracing::debug!(target: "ringmq_client::consumer", group = group.name, count = messages.len(),
        "messages that could not be sent back are tried again");
    process.put_back(messages);
}
