//! Consumption by POP: the broker hands messages out, keeps those that are handed out from others for a while, and has
//! each acknowledged. Members share queues, so none is anybody's own, and no offset is kept here.

use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{AckHeader, ChangeInvisibleTimeHeader, PopHeader, PopResponseHeader};
use ringmq_protocol::properties::names;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::group::Group;
use super::handle::{Handle, Handles};
use super::listener::{Batch, Consumed, Erased, RetryDelay};
use super::process_queue::ProcessQueue;
use super::settings::ConsumeFrom;
use super::subscription::wants;
use crate::client::unknown_broker;
use crate::error::CallError;
use crate::message::MessageExt;
use crate::metrics::Returned;
use crate::remoting::{Request, bad_answer, refused};

/// How long the broker may wait for messages.
const POLL: Duration = Duration::from_secs(15);
/// Time limit of a pop.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Pause behind a failure, and when the broker has too many who wait.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a message that failed is kept away, by how often it failed before, in seconds: Java's `popDelayLevel`.
const DELAYS: [u64; 16] = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// A message, and the room that it takes until it is acknowledged.
struct Popped {
    message: Arc<MessageExt>,
    handle: Handle,
    _room: OwnedSemaphorePermit,
}

/// Pops until the queue is taken away. What was handed to a listener by then is still acknowledged; the rest comes again
/// when its time is over.
pub(super) async fn run(group: Arc<Group>, process: Arc<ProcessQueue>, listener: Erased<Consumed>) {
    let most = group.settings.pop_batch;
    let room = Arc::new(Semaphore::new(group.settings.pop_threshold_for_queue.max(most)));
    let popping = async {
        loop {
            group.while_paused().await;
            // Neither the room nor the permits are ever closed.
            let Ok(places) = room.clone().acquire_many_owned(most as u32).await else { return };
            match pop(&group, &process, places).await {
                Ok(popped) => dispatch(&group, &process, &listener, popped).await,
                Err(error) => {
                    tracing::warn!(target: "ringmq_client::consumer", queue = ?process.queue, %error, "a pop failed");
                    let topic = &process.queue.topic;
                    let _ = group.instance.routes.refresh_old(topic, group.instance.asking()).await;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = process.dropped.cancelled() => {}
        () = popping => {}
    }
}

async fn dispatch(
    group: &Arc<Group>,
    process: &Arc<ProcessQueue>,
    listener: &Erased<Consumed>,
    mut popped: Vec<Popped>,
) {
    while !popped.is_empty() {
        let rest = popped.split_off(popped.len().min(group.settings.consume_batch));
        let batch = std::mem::replace(&mut popped, rest);
        let Ok(permit) = group.permits.clone().acquire_owned().await else { return };
        let (group, process, listener) = (group.clone(), process.clone(), listener.clone());
        group.clone().spawn(async move {
            consume(&group, &process, &listener, batch).await;
            drop(permit);
        });
    }
}

/// Asks once. Messages that are not wanted are acknowledged and left out.
async fn pop(
    group: &Group,
    process: &ProcessQueue,
    mut places: OwnedSemaphorePermit,
) -> Result<Vec<Popped>, CallError> {
    let queue = &process.queue;
    let subscription = group.subscription(&queue.topic).unwrap_or_default();
    let broker = &queue.broker_name;
    let addr = group.instance.routes.master(broker).ok_or_else(|| unknown_broker(broker))?;
    let header = PopHeader {
        consumer_group: &group.name,
        topic: &queue.topic,
        queue_id: queue.queue_id,
        max_msg_nums: group.settings.pop_batch as i32,
        invisible_time: group.settings.pop_invisible.as_millis() as i64,
        poll_time: POLL.as_millis() as i64,
        born_time: group.instance.now_ms(),
        init_mode: i32::from(group.settings.consume_from != ConsumeFrom::FirstOffset),
        exp_type: Some(&subscription.expression_type),
        exp: Some(&subscription.sub_string),
        order: Some(false),
        attempt_id: None,
    };
    let request = Request::new(request::POP_MESSAGE, &header);
    let began = tokio::time::Instant::now();
    let answer = group.instance.remoting.call(&addr, &request, TIMEOUT).await?;
    match answer.code {
        response::SUCCESS => {}
        response::POLLING_TIMEOUT => return Ok(Vec::new()),
        response::POLLING_FULL => {
            tokio::time::sleep(PAUSE).await;
            return Ok(Vec::new());
        }
        _ => return Err(refused(&addr, answer)),
    }
    let messages = read(group, process, answer).map_err(|reason| bad_answer(&addr, reason))?;
    let now_ms = group.instance.now_ms();
    group.stats.pulled(&queue.topic, messages.len(), began.elapsed());
    group.stats.delivered(&queue.topic, now_ms, messages.iter().map(|(m, _)| m.store_timestamp));
    process.popped(messages.len(), now_ms);
    let mut popped = Vec::new();
    for (message, handle) in messages {
        if !wants(&subscription, &message) {
            settle(group, process, &handle, None).await;
        } else if let Some(room) = places.split(1) {
            popped.push(Popped { message: Arc::new(message), handle, _room: room });
        } else {
            // More than was asked for: they come again.
            process.acknowledged();
        }
    }
    Ok(popped)
}

fn read(group: &Group, process: &ProcessQueue, answer: Command) -> Result<Vec<(MessageExt, Handle)>, String> {
    let header: PopResponseHeader<'_> = answer.header().map_err(|error| error.to_string())?;
    let broker = &process.queue.broker_name;
    let messages = MessageExt::decode_all(answer.body.clone(), broker).map_err(|error| error.to_string())?;
    let handles = Handles::new(&header, broker);
    let with_handle = messages.into_iter().map(|mut message| {
        let text = handles.of(&message).ok_or("the answer has a message without a handle")?;
        message.set(names::POP_CK, text.clone());
        let handle = Handle::parse(&text, &process.queue.topic, &group.name);
        Ok((message, handle.ok_or_else(|| format!("{text} is no handle"))?))
    });
    with_handle.collect()
}

/// Acknowledges what is done, and keeps what failed from everybody for a while.
async fn consume(group: &Group, process: &ProcessQueue, listener: &Erased<Consumed>, popped: Vec<Popped>) {
    // Who waited too long for a listener has it consumed by somebody else by now.
    let now_ms = group.instance.now_ms();
    let (popped, late): (Vec<_>, Vec<_>) = popped.into_iter().partition(|p| p.handle.visible_ms > now_ms);
    late.iter().for_each(|_| process.acknowledged());
    let Some(batch) = Batch::new(popped.iter().map(|popped| popped.message.clone()).collect()) else {
        return;
    };
    let consumed = group.observe(&batch, listener(batch.clone())).await;
    if group.kill.is_cancelled() {
        return;
    }
    let (done, retry) = match consumed.unwrap_or(Consumed::Failed(RetryDelay::Growing)) {
        Consumed::All => (popped.len(), RetryDelay::Growing),
        Consumed::First { done, retry } => (done.min(popped.len()), retry),
        Consumed::Failed(retry) => (0, retry),
    };
    for (i, popped) in popped.iter().enumerate() {
        let again = if i < done { None } else { again(group, &popped.message, retry).await };
        settle(group, process, &popped.handle, again).await;
    }
}

/// How long a message that failed is kept away; `None` when it went to the dead letters.
async fn again(group: &Group, message: &Arc<MessageExt>, retry: RetryDelay) -> Option<Duration> {
    let dead = retry == RetryDelay::DeadLetter || message.reconsume_times >= group.settings.max_retries();
    if dead && group.bury(message).await {
        return None;
    }
    group.stats.returned(&message.topic, Returned::ToBroker, 1);
    let level = match retry {
        RetryDelay::Level(level) => usize::from(level),
        RetryDelay::Growing | RetryDelay::DeadLetter => message.reconsume_times.max(0) as usize,
    };
    Some(Duration::from_secs(DELAYS[level.min(DELAYS.len() - 1)]))
}

/// Acknowledges a message, or has it come again later. When that fails it comes again too, when its time is over.
async fn settle(group: &Group, process: &ProcessQueue, handle: &Handle, again: Option<Duration>) {
    let told = match group.instance.routes.master(&handle.broker_name) {
        Some(addr) => tell(group, &addr, handle, again).await,
        None => Err(unknown_broker(&handle.broker_name)),
    };
    if let Err(error) = told {
        tracing::warn!(target: "ringmq_client::consumer", group = group.name, %error, "a popped message comes again");
    }
    process.acknowledged();
}

async fn tell(group: &Group, addr: &str, handle: &Handle, again: Option<Duration>) -> Result<(), CallError> {
    let (consumer_group, topic, extra_info) = (&*group.name, &*handle.topic, &*handle.text);
    let (queue_id, offset, timeout) = (handle.queue_id, handle.offset, group.call_timeout());
    let remoting = &group.instance.remoting;
    match again {
        None => {
            let header = AckHeader { consumer_group, topic, queue_id, extra_info, offset };
            remoting.call_ok(addr, &Request::new(request::ACK_MESSAGE, &header), timeout).await?;
        }
        Some(away) => {
            let invisible_time = away.as_millis() as i64;
            let header = ChangeInvisibleTimeHeader {
                consumer_group,
                topic,
                queue_id,
                extra_info,
                offset,
                invisible_time,
            };
            let request = Request::new(request::CHANGE_MESSAGE_INVISIBLETIME, &header);
            remoting.call_ok(addr, &request, timeout).await?;
        }
    }
    Ok(())
}
