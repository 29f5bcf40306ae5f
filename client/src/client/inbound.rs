//! What brokers ask of the client.

use std::sync::{Arc, Weak};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
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

fn answer(instance: &Instance, command: &Command) -> Option<Command> {
    match command.code {
        request::NOTIFY_CONSUMER_IDS_CHANGED => {
            instance.members().iter().for_each(|member| member.rebalance_now());
            None
        }
        code => {
            let remark = format!(" request type {code} not supported");
            Some(Command::response(response::REQUEST_CODE_NOT_SUPPORTED, 0).with_remark(remark))
        }
    }
}
