//! Requests that are messages, and their replies (Java's `MessageUtil` and `RequestResponseFuture`).

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{ExtError, ReplyMessageHeader};
use ringmq_protocol::names::reply_topic;
use ringmq_protocol::properties::names;

use super::properties::Properties;
use super::{Message, MessageError, MessageExt};

/// The message type of replies.
pub(crate) const REPLY: &str = "reply";

/// Why there is no reply to a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoReply {
    /// It is no request: a property that requests have is missing.
    #[error("the message is no request: it has no property {0}")]
    NotARequest(&'static str),
    /// The reply itself is not legal.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Message {
    /// A reply to a request; any producer can send it.
    pub fn reply(request: &MessageExt, body: impl Into<Bytes>) -> Result<Message, NoReply> {
        let of = |name: &'static str| request.property(name).ok_or(NoReply::NotARequest(name));
        let mut reply = Message::new(reply_topic(of(names::CLUSTER)?), body)?;
        reply.set(names::MESSAGE_TYPE, REPLY);
        for name in [names::CORRELATION_ID, names::REPLY_TO_CLIENT, names::MESSAGE_TTL] {
            reply.set(name, of(name)?);
        }
        Ok(reply)
    }

    /// Whether this is a reply.
    pub(crate) fn is_reply(&self) -> bool {
        self.property(names::MESSAGE_TYPE) == Some(REPLY)
    }
}

impl MessageExt {
    /// A reply as the broker pushes it (326).
    pub(crate) fn from_push(command: &Command, now_ms: i64) -> Result<MessageExt, ExtError> {
        let header: ReplyMessageHeader<'_> = command.header()?;
        let text = header.properties.unwrap_or_default();
        let mut message = MessageExt {
            topic: header.topic.to_owned(),
            body: command.body.clone(),
            queue: MessageQueue {
                broker_name: String::new(),
                queue_id: header.queue_id,
                topic: header.topic.to_owned(),
            },
            queue_offset: 0,
            commit_log_offset: 0,
            store_size: 0,
            born_timestamp: header.born_timestamp,
            born_host: address(header.born_host),
            store_timestamp: header.store_timestamp,
            store_host: address(header.store_host),
            reconsume_times: header.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            sys_flag: header.sys_flag,
            flag: header.flag,
            properties: Properties::new(Bytes::copy_from_slice(text.as_bytes())),
        };
        message.set(names::REPLY_ARRIVE_TIME, now_ms.to_string());
        message.unpack();
        Ok(message)
    }
}

/// Java prints addresses as `host/1.2.3.4:5`.
fn address(text: &str) -> SocketAddr {
    let numbers = text.rsplit('/').next().unwrap_or_default();
    numbers.parse().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests_support::record;

    #[test]
    fn replies_go_where_the_request_came_from() {
        let text = "CLUSTER\u{1}c\u{2}CORRELATION_ID\u{1}7\u{2}REPLY_TO_CLIENT\u{1}me\u{2}TTL\u{1}3000\u{2}";
        let request = MessageExt::decode(&record("t", 0, b"q", 0, text).into(), "b").unwrap().0;
        let reply = Message::reply(&request, "a").unwrap();
        assert_eq!((reply.topic(), reply.is_reply()), ("c_REPLY_TOPIC", true));
        assert_eq!((reply.property("CORRELATION_ID"), reply.property("TTL")), (Some("7"), Some("3000")));
        let plain = MessageExt::decode(&record("t", 0, b"q", 0, "CLUSTER\u{1}c\u{2}").into(), "b").unwrap().0;
        assert_eq!(Message::reply(&plain, "a"), Err(NoReply::NotARequest("CORRELATION_ID")));
    }

    #[test]
    fn addresses_as_java_prints_them() {
        assert_eq!(address("/1.2.3.4:5").to_string(), "1.2.3.4:5");
        assert_eq!(address("host/1.2.3.4:5").to_string(), "1.2.3.4:5");
        assert_eq!(address("nonsense").port(), 0);
    }
}
