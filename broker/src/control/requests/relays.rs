//! What tools ask of consumers through the broker: their insides (307), to consume a message now (309), the offsets
//! that they hold (223).

use std::borrow::Cow;

use ringmq_engine::PhysicalOffset;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    ConsumeMessageDirectlyHeader, ConsumerRunningInfoHeader, ConsumerStatusHeader, InvokeConsumerStatusHeader,
};
use ringmq_protocol::message_id::OffsetMessageId;

use super::super::refusal::Refusal;
use super::super::state::ControlState;
use super::{Handled, Outcome, Question, Relay};

/// The first version that answers 307 and 309 (V3_1_8_SNAPSHOT).
const ANSWERS_RELAYS: i32 = 62;
/// The first version that answers 221 (V3_0_7_SNAPSHOT).
const ANSWERS_STATUS: i32 = 28;

impl ControlState {
    /// 307.
    pub(super) fn relay_running_info(&self, command: &Command) -> Outcome {
        let header = command.header::<ConsumerRunningInfoHeader<'_>>()?;
        let request = forwarded(command, request::GET_CONSUMER_RUNNING_INFO);
        self.relay(header.consumer_group, header.client_id, request, None)
    }

    /// 309. The message and the flags of its topic and the group are added.
    pub(super) fn relay_consume_directly(&self, command: &Command) -> Outcome {
        let header = command.header::<ConsumeMessageDirectlyHeader<'_>>()?;
        let id = header.msg_id.unwrap_or_default();
        let message = OffsetMessageId::decode(id)
            .ok()
            .and_then(|id| PhysicalOffset::from_wire(id.physical_offset))
            .ok_or_else(|| Refusal::system_error(format!("msgId [{id}] is no offset message id")))?;
        let mut request = forwarded(command, request::CONSUME_MESSAGE_DIRECTLY);
        set(&mut request, "brokerName", self.broker_name().to_owned());
        if let Some(topic) = header.topic.and_then(|topic| self.topics().get(topic)) {
            set(&mut request, "topicSysFlag", topic.topic_sys_flag.to_string());
        }
        if let Some(group) = self.groups().get(header.consumer_group) {
            set(&mut request, "groupSysFlag", group.group_sys_flag.to_string());
        }
        self.relay(header.consumer_group, header.client_id.unwrap_or_default(), request, Some(message))
    }

    fn relay(
        &self,
        group: &str,
        client_id: &str,
        request: Command,
        message: Option<PhysicalOffset>,
    ) -> Outcome {
        let client = self.consumers().find(group, client_id).ok_or_else(|| {
            Refusal::system_error(format!("The Consumer <{group}> <{client_id}> not online"))
        })?;
        if client.version < ANSWERS_RELAYS {
            return Err(Refusal::system_error(format!(
                "The Consumer <{client_id}> Version <{}> too low to finish, please upgrade it to V3_1_8_SNAPSHOT",
                client.version
            )));
        }
        Ok(Handled::Ask(Question::Relay(Relay {
            connection: client.connection,
            group: group.to_owned(),
            client_id: client_id.to_owned(),
            request,
            message,
        })))
    }

    /// 223.
    pub(super) fn consumer_status(&self, command: &Command) -> Outcome {
        let header = command.header::<InvokeConsumerStatusHeader<'_>>()?;
        let wanted = header.client_addr.filter(|id| !id.trim().is_empty());
        let clients = self.consumers().clients(header.group);
        if clients.is_empty() {
            let remark = format!("No Any Consumer online in the consumer group: [{}]", header.group);
            return Err(Refusal::system_error(remark));
        }
        if let Some(old) = clients.iter().find(|client| client.version < ANSWERS_STATUS) {
            let remark = format!("the client does not support this feature. version={}", old.version);
            return Err(Refusal::system_error(remark));
        }
        let asked = clients.into_iter().filter(|client| wanted.is_none_or(|id| *client.client_id == *id));
        let status = ConsumerStatusHeader { topic: header.topic, group: header.group };
        Ok(Handled::Ask(Question::ConsumerStatus {
            request: Command::request(request::GET_CONSUMER_STATUS_FROM_CLIENT, 0).with_header(&status),
            consumers: asked.map(|client| (client.connection, client.client_id.clone())).collect(),
        }))
    }
}

/// The same request, from this broker to a client.
fn forwarded(command: &Command, code: i32) -> Command {
    let request = Command { ext: command.ext.clone(), ..Command::request(code, 0) };
    request.with_body(command.body.clone())
}

fn set(request: &mut Command, name: &'static str, value: String) {
    request.ext.retain(|(known, _)| known != name);
    request.ext.push((Cow::Borrowed(name), value));
}
