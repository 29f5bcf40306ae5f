//! What brokers ask of the client.

use std::sync::{Arc, Weak};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{ConsumerRunningInfoHeader, ConsumerStatusHeader, ResetOffsetHeader};
use ringmq_protocol::json::{self, Dialect};
use serde::Serialize;
use tokio::sync::mpsc;

use super::Instance;
use crate::remoting::Incoming;

/// Serves the brokers' requests until the client stops.
pub(super) fn start(instance: &Arc<Instance>, mut requests: mpsc::Receiver<Incoming>) {
    let (stop, weak) = (instance.stop().clone(), Arc::downgrade(instance));
    instance.tasks().spawn(async move {
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return,
                incoming = requests.recv() => incoming,
            };
            let Some(incoming) = incoming else { return };
            serve(&weak, incoming).await;
        }
    });
}

async fn serve(instance: &Weak<Instance>, incoming: Incoming) {
    let Incoming { connection, command } = incoming;
    let Some(answer) = instance.upgrade().and_then(|instance| answer(&instance, &command)) else { return };
    if command.is_oneway() {
        return;
    }
    if let Err(error) = connection.respond(command.opaque, answer).await {
        tracing::debug!(target: "ringmq_client::remoting", addr = %connection.addr(), %error, "an answer was lost");
    }
}

fn running_info(instance: &Instance, command: &Command) -> Command {
    let Ok(header) = command.header::<ConsumerRunningInfoHeader<'_>>() else { return bad_header() };
    match instance.member(header.consumer_group) {
        Some(member) => with_body(&member.running_info()),
        None => stranger(header.consumer_group),
    }
}

fn status(instance: &Instance, command: &Command) -> Command {
    let Ok(header) = command.header::<ConsumerStatusHeader<'_>>() else { return bad_header() };
    match instance.member(header.group) {
        Some(member) => with_body(&member.status(header.topic)),
        None => stranger(header.group),
    }
}

fn reset(instance: &Instance, command: &Command) {
    let header = command.header::<ResetOffsetHeader<'_>>().ok();
    let member = header.and_then(|header| instance.member(header.group));
    match (member, json::from_slice(&command.body)) {
        (Some(member), Ok(offsets)) => member.reset(&offsets),
        (None, _) => tracing::warn!(target: "ringmq_client::consumer", "a reset of a group that is not here"),
        (_, Err(error)) => {
            tracing::warn!(target: "ringmq_client::consumer", %error, "a reset that cannot be read");
        }
    }
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

fn answer(instance: &Instance, command: &Command) -> Option<Command> {
    match command.code {
        request::NOTIFY_CONSUMER_IDS_CHANGED => {
            instance.members().iter().for_each(|member| member.rebalance_now());
            None
        }
        request::RESET_CONSUMER_CLIENT_OFFSET => {
            reset(instance, command);
            None
        }
        request::GET_CONSUMER_STATUS_FROM_CLIENT => Some(status(instance, command)),
        request::GET_CONSUMER_RUNNING_INFO => Some(running_info(instance, command)),
        code => {
            let remark = format!(" request type {code} not supported");
            Some(Command::response(response::REQUEST_CODE_NOT_SUPPORTED, 0).with_remark(remark))
        }
    }
}
