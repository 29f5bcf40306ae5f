//! What brokers ask of the client.

use std::sync::{Arc, Weak};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    CheckTransactionStateHeader, ConsumeMessageDirectlyHeader, ConsumerRunningInfoHeader,
    ConsumerStatusHeader, EndTransactionHeader, ResetOffsetHeader,
};
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::properties::names;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};

use super::Instance;
use crate::caught::Caught;
use crate::message::MessageExt;
use crate::producer::TransactionState;
use crate::remoting::{Connection, Incoming, Request};

/// How many checkers and listeners run at a time for brokers that ask. More are refused, and asked for again.
const MAX_RUNNING: usize = 256;

/// Serves the brokers' requests until the client stops.
pub(super) fn start(instance: &Arc<Instance>, mut requests: mpsc::Receiver<Incoming>) {
    let (stop, weak) = (instance.stop().clone(), Arc::downgrade(instance));
    let running = Arc::new(Semaphore::new(MAX_RUNNING));
    instance.tasks().spawn(async move {
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return,
                incoming = requests.recv() => incoming,
            };
            let Some(incoming) = incoming else { return };
            serve(&weak, incoming, &running).await;
        }
    });
}

async fn serve(instance: &Weak<Instance>, incoming: Incoming, running: &Arc<Semaphore>) {
    let Some(instance) = instance.upgrade() else { return };
    match incoming.command.code {
        request::CHECK_TRANSACTION_STATE => in_a_task(&instance, running, check_transaction, incoming),
        request::CONSUME_MESSAGE_DIRECTLY => in_a_task(&instance, running, consume_directly, incoming),
        _ => {
            let Incoming { connection, command } = incoming;
            if let Some(answer) = answer(&instance, &command) {
                respond(&connection, &command, answer).await;
            }
        }
    }
}

/// Runs what takes as long as the application likes.
fn in_a_task<F>(
    instance: &Arc<Instance>,
    running: &Arc<Semaphore>,
    work: impl FnOnce(Arc<Instance>, Incoming) -> F,
    incoming: Incoming,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(permit) = running.clone().try_acquire_owned() else {
        let code = incoming.command.code;
        tracing::warn!(target: "ringmq_client::remoting", code, "a request of the broker was dropped: too many run");
        return;
    };
    let (stop, work) = (instance.stop().clone(), work(instance.clone(), incoming));
    instance.tasks().spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        drop(permit);
    });
}

async fn respond(connection: &Connection, command: &Command, answer: Command) {
    if command.is_oneway() {
        return;
    }
    if let Err(error) = connection.respond(command.opaque, answer).await {
        tracing::debug!(target: "ringmq_client::remoting", addr = %connection.addr(), %error, "an answer was lost");
    }
}

fn answer(instance: &Instance, command: &Command) -> Option<Command> {
    match command.code {
        request::NOTIFY_CONSUMER_IDS_CHANGED => {
            instance.members.consumers().iter().for_each(|member| member.rebalance_now());
            None
        }
        request::RESET_CONSUMER_CLIENT_OFFSET => {
            reset(instance, command);
            None
        }
        request::GET_CONSUMER_STATUS_FROM_CLIENT => Some(status(instance, command)),
        request::GET_CONSUMER_RUNNING_INFO => Some(running_info(instance, command)),
        request::PUSH_REPLY_MESSAGE_TO_CLIENT => Some(reply(instance, command)),
        code => {
            let remark = format!(" request type {code} not supported");
            Some(Command::response(response::REQUEST_CODE_NOT_SUPPORTED, 0).with_remark(remark))
        }
    }
}

fn running_info(instance: &Instance, command: &Command) -> Command {
    let Ok(header) = command.header::<ConsumerRunningInfoHeader<'_>>() else { return bad_header() };
    match instance.members.consumer(header.consumer_group) {
        Some(member) => with_body(&member.running_info()),
        None => stranger(header.consumer_group),
    }
}

fn status(instance: &Instance, command: &Command) -> Command {
    let Ok(header) = command.header::<ConsumerStatusHeader<'_>>() else { return bad_header() };
    match instance.members.consumer(header.group) {
        Some(member) => with_body(&member.status(header.topic)),
        None => stranger(header.group),
    }
}

fn reset(instance: &Instance, command: &Command) {
    let header = command.header::<ResetOffsetHeader<'_>>().ok();
    let member = header.and_then(|header| instance.members.consumer(header.group));
    match (member, json::from_slice(&command.body)) {
        (Some(member), Ok(offsets)) => member.reset(&offsets),
        (None, _) => tracing::warn!(target: "ringmq_client::consumer", "a reset of a group that is not here"),
        (_, Err(error)) => {
            tracing::warn!(target: "ringmq_client::consumer", %error, "a reset that cannot be read");
        }
    }
}

/// A reply that nobody waits for any more is a success too: the broker has done its part.
fn reply(instance: &Instance, command: &Command) -> Command {
    let Ok(reply) = MessageExt::from_push(command, instance.now_ms()) else { return bad_header() };
    let id = reply.property(names::CORRELATION_ID).map(str::to_owned);
    if !instance.replies.deliver(reply) {
        tracing::debug!(target: "ringmq_client::producer", ?id, "a reply came too late");
    }
    Command::response(response::SUCCESS, 0)
}

async fn check_transaction(instance: Arc<Instance>, incoming: Incoming) {
    let Incoming { connection, command } = incoming;
    let Ok(header) = command.header::<CheckTransactionStateHeader<'_>>() else {
        return tracing::warn!(target: "ringmq_client::producer", "a transaction check that cannot be read");
    };
    let broker = header.broker_name.unwrap_or_default();
    let message = match MessageExt::decode_lone(&command.body, broker) {
        Ok(message) => message,
        Err(error) => {
            return tracing::warn!(target: "ringmq_client::producer", %error, "a half message that cannot be read");
        }
    };
    let group = message.property(names::PRODUCER_GROUP).unwrap_or_default().to_owned();
    let Some(checker) = instance.members.checker(&group) else {
        return tracing::warn!(target: "ringmq_client::producer", group, "a check of a group that is not here");
    };
    let (msg_id, topic) = (message.msg_id(), message.topic.clone());
    let state = Caught(checker.check(message)).await.unwrap_or(TransactionState::Unknown);
    let answer = EndTransactionHeader {
        topic: Some(&topic),
        producer_group: &group,
        tran_state_table_offset: header.tran_state_table_offset,
        commit_log_offset: header.commit_log_offset,
        commit_or_rollback: state.on_the_wire(),
        from_transaction_check: true,
        msg_id: &msg_id,
        transaction_id: header.transaction_id,
        broker_name: header.broker_name,
    };
    let request = Request::new(request::END_TRANSACTION, &answer);
    let timeout = instance.config.call_timeout;
    if let Err(error) = instance.remoting.oneway(connection.addr(), &request, timeout).await {
        tracing::warn!(target: "ringmq_client::producer", %error, "the broker will check again");
    }
}

async fn consume_directly(instance: Arc<Instance>, incoming: Incoming) {
    let Incoming { connection, command } = incoming;
    let answer = match command.header::<ConsumeMessageDirectlyHeader<'_>>() {
        Err(_) => bad_header(),
        Ok(header) => {
            let message = MessageExt::decode_lone(&command.body, header.broker_name.unwrap_or_default());
            match (instance.members.consumer(header.consumer_group), message) {
                (Some(member), Ok(message)) => with_body(&member.consume_directly(message).await),
                (None, _) => stranger(header.consumer_group),
                (_, Err(error)) => {
                    Command::response(response::SYSTEM_ERROR, 0).with_remark(error.to_string())
                }
            }
        }
    };
    respond(&connection, &command, answer).await;
}

fn with_body(body: &impl Serialize) -> Command {
    Command::response(response::SUCCESS, 0).with_body(json::to_vec(body, Dialect::Java))
}

fn stranger(group: &str) -> Command {
    let remark = format!("The Consumer Group <{group}> not exist in this consumer");
    Command::response(response::SYSTEM_ERROR, 0).with_remark(remark)
}

fn bad_header() -> Command {
    Command::response(response::SYSTEM_ERROR, 0).with_remark("the request's header cannot be read")
}
