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
            if let Some(batch) = next(&group, &process) {
                let (group, process, listener) = (group.clone(), process.clone(), listener.clone());
                group.clone().spawn(async move {
                    work(&group, &process, &listener, batch).await;
                    drop(permit);
                });
            }
        }
    };
    tokio::select! {
        () = process.dropped.cancelled() => {}
        () = dispatching => {}
    }
}

fn next(group: &Group, process: &ProcessQueue) -> Option<Batch> {
    Batch::new(process.take(group.settings.consume_batch, group.instance.now_ms()))
}

/// Consumes a batch and those behind it, for as long as nobody else may be waiting for the permit: with listeners that
/// take no time, a task for each batch would cost more than they do.
async fn work(group: &Arc<Group>, process: &Arc<ProcessQueue>, listener: &Erased<Consumed>, first: Batch) {
    let mut batch = Some(first);
    while let Some(now) = batch {
        consume(group, process, listener, now).await;
        if process.dropped.is_cancelled() || group.permits.available_permits() == 0 {
            return;
        }
        tokio::task::coop::consume_budget().await;
        batch = next(group, process);
    }
}

async fn consume(group: &Arc<Group>, process: &Arc<ProcessQueue>, listener: &Erased<Consumed>, batch: Batch) {
    let consumed = group.observe(&batch, listener(batch.clone())).await;
    if group.kill.is_cancelled() {
        return;
    }
    match consumed.unwrap_or(Consumed::Failed(RetryDelay::Growing)) {
        Consumed::All => commit(group, process, &batch),
        Consumed::First { done, retry } => settle(group, process, &batch, done, retry).await,
        Consumed::Failed(retry) => settle(group, process, &batch, 0, retry).await,
    }
}

fn commit(group: &Group, process: &ProcessQueue, done: &[Arc<MessageExt>]) {
    if let Some(offset) = process.done(done).filter(|_| process.is_ours()) {
        group.offsets.advance(&process.queue, offset);
    }
}

/// What is done is committed; the rest goes back first, so that a commit never passes a message that is nowhere.
async fn settle(
    group: &Arc<Group>,
    process: &Arc<ProcessQueue>,
    batch: &Batch,
    done: usize,
    retry: RetryDelay,
) {
    let (done, failed) = batch.split_at(done.min(batch.len()));
    let (mut settled, mut stay) = (done.to_vec(), Vec::new());
    for message in failed {
        // A queue that was taken away delivers them again by itself.
        if !process.is_ours() {
            return;
        }
        match group.give_back(message, retry).await {
            true => settled.push(message.clone()),
            false => stay.push(message.clone()),
        }
    }
    commit(group, process, &settled);
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
