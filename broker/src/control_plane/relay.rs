//! Requests of this side's own to clients: what tools ask of consumers (307, 309, 223), and replies on their way to the
//! producer that waits for them (326).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringmq_engine::PhysicalOffset;
use ringmq_env::Env;
use ringmq_protocol::body::GetConsumerStatusBody;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::json;

use super::ControlPlane;
use super::questions::unexpected;
use crate::calls::Caller;
use crate::control::Refusal;
use crate::control::answers::success;
use crate::control::requests::Relay;
use crate::control::sessions::ConnectionId;
use crate::core::Core;
use crate::invocations::InvokeError;
use crate::message::{Call, CallAnswer, Peer, ShardCall};
use crate::remarks;

impl<E: Env> ControlPlane<E> {
    /// Sends a request to a client, and waits for its answer.
    async fn invoke(&self, core: &Core<E>, to: Peer, request: Command) -> Result<Command, InvokeError> {
        let (number, pending) = self.invocations.begin(to, core.env.now())?;
        let request = Command { opaque: number, ..request };
        let mut frame = BytesMut::with_capacity(512 + request.body.len());
        request.encode_json(&mut frame);
        core.invoke(to, number, frame.freeze());
        core.flush();
        pending.outcome().await
    }

    /// A client's answer has come.
    pub fn invoked(&self, number: i32, answer: Command) {
        self.invocations.answered(number, answer);
    }

    /// Ends the requests that clients do not answer in time, for ever.
    pub async fn expire_invocations(self: Rc<Self>, core: Rc<Core<E>>) {
        loop {
            let now = core.env.now();
            match self.invocations.expire(now) {
                Some(deadline) => core.env.sleep(deadline.since(now)).await,
                None => self.invocations.begun().await,
            }
        }
    }

    /// 307 and 309: the consumer's answer goes back as it is.
    pub(super) async fn relay(&self, core: &Rc<Core<E>>, relay: Relay) -> Result<Command, Refusal> {
        let Relay { connection, group, client_id, mut request, message } = relay;
        if let Some(offset) = message {
            request.body = record(core, offset).await?;
        }
        match self.invoke(core, connection.into(), request).await {
            Ok(answer) => Ok(Command { language: Default::default(), ..answer }),
            Err(error @ InvokeError::Timeout) => {
                let remark = format!("consumer <{group}> <{client_id}> Timeout: {error}");
                Err(Refusal::new(response::CONSUME_MSG_TIMEOUT, remark))
            }
            Err(error) => Err(Refusal::system_error(format!(
                "invoke consumer <{group}> <{client_id}> Exception: {error}"
            ))),
        }
    }

    /// 223: what each consumer says, by client id; those that do not answer are left out, as Java does.
    pub(super) async fn consumer_status(
        &self,
        core: &Rc<Core<E>>,
        request: Command,
        consumers: Vec<(ConnectionId, Arc<str>)>,
    ) -> Result<Command, Refusal> {
        let mut consumer_table = BTreeMap::new();
        for (connection, client_id) in consumers {
            let Ok(answer) = self.invoke(core, connection.into(), request.clone()).await else { continue };
            let body = json::from_slice::<GetConsumerStatusBody>(&answer.body);
            if let Some(body) = body.ok().filter(|_| answer.code == response::SUCCESS) {
                consumer_table.insert(client_id.to_string(), body.message_queue_table);
            }
        }
        Ok(success(&GetConsumerStatusBody { consumer_table, ..GetConsumerStatusBody::default() }))
    }

    /// Hands a reply to the producer that waits for it, and tells the caller what became of it.
    pub(super) fn push_reply(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        caller: Caller,
        client_id: String,
        request: Command,
    ) {
        let Some(connection) = self.state.borrow().producers().find(&client_id) else {
            return core.answer_call(caller, CallAnswer::Refused(remarks::no_requester(&client_id)));
        };
        let (control, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            let answer = match control.invoke(&core, connection.into(), request).await {
                Ok(answer) if answer.code == response::SUCCESS => CallAnswer::Done,
                Err(InvokeError::Busy) => CallAnswer::Refused(remarks::busy(InvokeError::Busy)),
                _ => CallAnswer::Refused(remarks::reply_not_pushed(&client_id)),
            };
            core.answer_call(caller, answer);
            core.flush();
        });
    }

    /// Asks any producer of a group for a half message (39, oneway).
    pub(super) fn check_transaction(&self, core: &Core<E>, caller: Caller, group: &str, request: Bytes) {
        let members = self.state.borrow().producers().members(group);
        let answer = match members.len() {
            0 => CallAnswer::Refused(remarks::no_producer(group)),
            count => {
                let chosen = members[(core.env.random() % count as u64) as usize];
                core.push(chosen.into(), request);
                CallAnswer::Done
            }
        };
        core.answer_call(caller, answer);
    }
}

/// The stored record at a physical offset that a tool named.
async fn record<E: Env>(core: &Rc<Core<E>>, offset: PhysicalOffset) -> Result<Bytes, Refusal> {
    if offset.shard().0 >= core.identity.routing.shards {
        return Err(remarks::no_message_at(offset.get()));
    }
    match core.call(Call::Shard(offset.shard(), ShardCall::RecordAt(offset))).await {
        CallAnswer::Records(records) => match records.first() {
            Some(record) => Ok(Bytes::copy_from_slice(record)),
            None => Err(remarks::no_message_at(offset.get())),
        },
        other => Err(unexpected(other)),
    }
}
