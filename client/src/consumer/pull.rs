//! The pull loop of a queue: what makes pushes of pulls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmq_protocol::body::SubscriptionData;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{PullHeader, PullResponseHeader, pull_sys_flag};
use ringmq_protocol::properties::names;
use tokio::time::Instant;

use super::group::Group;
use super::process_queue::ProcessQueue;
use super::subscription::{is_sql, wants};
use crate::client::route::MASTER_ID;
use crate::client::unknown_broker;
use crate::error::CallError;
use crate::message::MessageExt;
use crate::remoting::{Request, bad_answer, refused};

/// How long a broker may hold a pull.
const SUSPEND: Duration = Duration::from_secs(15);
/// Time limit of a pull.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause behind a failure.
const PAUSE_ON_ERROR: Duration = Duration::from_secs(1);
/// Pause when the broker asks to go slower.
const PAUSE_ON_FLOW_CONTROL: Duration = Duration::from_millis(20);

/// A lite pull carries its subscription, for the broker may know none.
const POLL_FLAGS: i32 = pull_sys_flag::SUBSCRIPTION | pull_sys_flag::LITE_PULL;
/// What a broker answers that has not heard of this consumer, or of its present subscription.
const STRANGER: [i32; 3] = [
    response::SUBSCRIPTION_NOT_EXIST,
    response::SUBSCRIPTION_NOT_LATEST,
    response::SUBSCRIPTION_GROUP_NOT_EXIST,
];

/// Where a queue is pulled from next.
struct Position {
    offset: i64,
    /// The replica that the broker suggested.
    broker_id: i64,
}

/// What an answer means for the loop.
enum Step {
    Next,
    Pause(Duration),
    /// The offset is outside the queue; the next one that exists.
    Moved(i64),
}

/// Pulls from `offset` on until the queue is taken away.
pub(super) async fn run(group: Arc<Group>, process: Arc<ProcessQueue>, offset: i64) {
    let mut position = Position { offset, broker_id: MASTER_ID };
    let pulling = async {
        loop {
            group.while_paused().await;
            process.while_paused().await;
            process.room(|| group.thresholds(&process.queue.topic), &group.shares).await;
            match step(&group, &process, &mut position).await {
                // A sleep takes a millisecond at least.
                Step::Next if group.settings.pull_interval.is_zero() => {}
                Step::Next => tokio::time::sleep(group.settings.pull_interval).await,
                Step::Pause(pause) => tokio::time::sleep(pause).await,
                Step::Moved(offset) => {
                    // A broker that does not keep the corrected offset would be asked without end.
                    tokio::time::sleep(PAUSE_ON_ERROR).await;
                    return offset;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = process.dropped.cancelled() => {}
        offset = pulling => group.offset_moved(&process, offset).await,
    }
}

async fn step(group: &Group, process: &ProcessQueue, position: &mut Position) -> Step {
    let Some(subscription) = group.subscription(&process.queue.topic) else {
        return Step::Pause(PAUSE_ON_ERROR);
    };
    match pull(group, process, position, &subscription).await {
        Ok(step) => step,
        Err(error) if error.code() == Some(response::FLOW_CONTROL) => Step::Pause(PAUSE_ON_FLOW_CONTROL),
        Err(error) => {
            tracing::warn!(target: "ringmq_client::consumer", queue = ?process.queue, %error, "a pull failed");
            if error.code().is_some_and(|code| STRANGER.contains(&code)) {
                group.instance.forget_told();
                group.instance.heartbeat_soon();
            }
            // The replica may be gone, and the route too.
            position.broker_id = MASTER_ID;
            let asking = group.instance.asking();
            let _ = group.instance.routes.refresh_old(&process.queue.topic, asking).await;
            Step::Pause(PAUSE_ON_ERROR)
        }
    }
}

async fn pull(
    group: &Group,
    process: &ProcessQueue,
    position: &mut Position,
    subscription: &SubscriptionData,
) -> Result<Step, CallError> {
    let queue = &process.queue;
    let replica = group.instance.routes.replica(&queue.broker_name, position.broker_id);
    let (id, addr) = replica.ok_or_else(|| unknown_broker(&queue.broker_name))?;
    let poll = group.listener.is_poll();
    let commits = id == MASTER_ID && group.is_clustering() && !poll;
    let commit = group.offsets.get(queue).filter(|_| commits);
    let flag = commit.map_or(0, |_| pull_sys_flag::COMMIT_OFFSET) | if poll { POLL_FLAGS } else { 0 };
    let header = PullHeader {
        consumer_group: &group.name,
        topic: &queue.topic,
        queue_id: queue.queue_id,
        queue_offset: position.offset,
        max_msg_nums: group.settings.pull_batch,
        sys_flag: pull_sys_flag::SUSPEND | flag,
        commit_offset: commit.unwrap_or(0),
        suspend_timeout_millis: SUSPEND.as_millis() as i64,
        subscription: poll.then_some(&*subscription.sub_string),
        sub_version: if poll && !is_sql(subscription) { 0 } else { subscription.sub_version },
        expression_type: Some(&subscription.expression_type),
        max_msg_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
    };
    let code = if poll { request::LITE_PULL_MESSAGE } else { request::PULL_MESSAGE };
    let request = Request::new(code, &header);
    let began = Instant::now();
    let answer = group.instance.remoting.call(&addr, &request, TIMEOUT).await?;
    apply(group, process, position, subscription, &addr, (answer, began.elapsed()))
}

fn apply(
    group: &Group,
    process: &ProcessQueue,
    position: &mut Position,
    subscription: &SubscriptionData,
    addr: &str,
    (answer, took): (Command, Duration),
) -> Result<Step, CallError> {
    let found = match answer.code {
        response::SUCCESS => true,
        response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => false,
        _ => return Err(refused(addr, answer)),
    };
    let header: PullResponseHeader = answer.header().map_err(|error| bad_answer(addr, error))?;
    if answer.code == response::PULL_OFFSET_MOVED {
        return Ok(Step::Moved(header.next_begin_offset));
    }
    if found {
        let body = answer.body.clone();
        let messages =
            decode(group, process, subscription, &header, body).map_err(|e| bad_answer(addr, e))?;
        let now_ms = group.instance.now_ms();
        group.stats.pulled(&process.queue.topic, messages.len(), took);
        group.stats.delivered(&process.queue.topic, now_ms, messages.iter().map(|m| m.store_timestamp));
        process.put(messages, now_ms);
        group.arrived.notify_waiters();
    }
    position.broker_id = header.suggest_which_broker_id;
    position.offset = header.next_begin_offset;
    // Nothing before this offset is left to do, if only because no message there was wanted.
    if process.is_empty() && process.is_ours() {
        group.offsets.advance(&process.queue, position.offset);
    }
    Ok(Step::Next)
}

/// Reads the messages that the subscription wants.
fn decode(
    group: &Group,
    process: &ProcessQueue,
    subscription: &SubscriptionData,
    header: &PullResponseHeader,
    body: Bytes,
) -> Result<Vec<MessageExt>, ringmq_protocol::record::RecordError> {
    let ends = (header.min_offset, header.max_offset);
    let mut messages = MessageExt::decode_pulled(body, &process.queue, ends)?;
    messages.retain(|message| wants(subscription, message));
    if process.queue.topic == group.retry_topic {
        for message in &mut messages {
            if let Some(first) = message.property(names::RETRY_TOPIC).map(str::to_owned) {
                message.topic = first;
            }
        }
    }
    Ok(messages)
}
