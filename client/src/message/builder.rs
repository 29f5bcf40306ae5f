//! Builds messages that a broker will take.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ringmq_protocol::names::{NameError, is_not_for_clients, validate_topic};
use ringmq_protocol::properties::{MAX_LEN, has_separator, names};

use super::{Message, MessageExt};

/// Properties that delay a message.
pub(super) const DELAYS: [&str; 4] =
    [names::DELAY_TIME_LEVEL, names::TIMER_DELAY_SEC, names::TIMER_DELAY_MS, names::TIMER_DELIVER_MS];

/// Names that the system has given a meaning (Java's `MessageConst.STRING_HASH_SET` and the timer's): an application
/// that set one would get something else than it meant.
const RESERVED: [&str; 45] = [
    names::KEYS,
    names::TAGS,
    names::WAIT_STORE_MSG_OK,
    names::DELAY_TIME_LEVEL,
    names::RETRY_TOPIC,
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::TRANSACTION_PREPARED,
    names::PRODUCER_GROUP,
    names::MIN_OFFSET,
    names::MAX_OFFSET,
    names::ORIGIN_MESSAGE_ID,
    names::RECONSUME_TIME,
    names::MSG_REGION,
    names::TRACE_SWITCH,
    names::UNIQ_KEY,
    names::EXTEND_UNIQ_INFO,
    names::MAX_RECONSUME_TIMES,
    names::CONSUME_START_TIMESTAMP,
    names::INNER_NUM,
    names::INNER_BASE,
    names::TRANSACTION_CHECK_TIMES,
    names::INSTANCE_ID,
    names::CORRELATION_ID,
    names::REPLY_TO_CLIENT,
    names::CLUSTER,
    names::MESSAGE_TYPE,
    names::POP_CK,
    names::SHARDING_KEY,
    names::INNER_MULTI_DISPATCH,
    names::TIMER_DELAY_SEC,
    names::TIMER_DELAY_MS,
    names::TIMER_DELIVER_MS,
    names::BORN_HOST,
    names::BORN_TIMESTAMP,
    names::CRC32,
    names::DLQ_ORIGIN_TOPIC,
    names::DLQ_ORIGIN_MESSAGE_ID,
    "BUYER_ID",
    "TRANSFER_FLAG",
    "CORRECTION_FLAG",
    "MQ2_FLAG",
    "TTL",
    "ARRIVE_TIME",
    "PUSH_REPLY_TIME",
];

/// Room left for what producer and broker add to the properties.
const PROPERTIES_ROOM: usize = 1024;

/// Delay levels of a broker with the default configuration.
const MAX_DELAY_LEVEL: u8 = 18;

/// Why a message was not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The topic's name.
    #[error(transparent)]
    Topic(#[from] NameError),
    /// Clients may not send to the topic.
    #[error("clients may not send to the topic {0}")]
    SystemTopic(String),
    /// There is no body, which brokers refuse.
    #[error("the message has no body")]
    EmptyBody,
    /// A property without a name or without a value, which would be lost on the way.
    #[error("the property \"{0}\" has no name or no value")]
    EmptyProperty(String),
    /// A property with one of the bytes 1 and 2, which separate properties.
    #[error("the property \"{0}\" holds a separator, one of the bytes 1 and 2")]
    SeparatorInProperty(String),
    /// The name belongs to the system.
    #[error("the property name {0} belongs to the system")]
    ReservedProperty(String),
    /// A key with a space, which separates keys.
    #[error("the key \"{0}\" is empty or holds a space")]
    Key(String),
    /// The properties are too long for a record.
    #[error("the properties of {len} bytes are over the limit of {limit}")]
    PropertiesTooLong {
        /// Their length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no such delay level.
    #[error("the delay level {0} is not between 1 and {MAX_DELAY_LEVEL}")]
    DelayLevel(u8),
}

/// When a message is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// At once.
    #[default]
    Now,
    /// After the delay of a level from 1 (1 s) to 18 (2 h), as the broker's `messageDelayLevel` has them.
    Level(u8),
    /// After a time, to the second (timer messages): of three days at most, unless the broker's `timerMaxDelaySec` allows
    /// more. The broker checks it.
    After(Duration),
    /// At a time in ms since 1970, to the second (timer messages), as far ahead as [`Delivery::After`].
    AtMs(i64),
}

/// Builds a [`Message`]; nothing is checked before [`MessageBuilder::build`].
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    topic: String,
    body: Bytes,
    flag: i32,
    keys: Vec<String>,
    own: Vec<(String, String)>,
    system: BTreeMap<String, String>,
    delivery: Delivery,
}

impl MessageBuilder {
    pub(super) fn new(topic: String) -> MessageBuilder {
        MessageBuilder {
            topic,
            body: Bytes::new(),
            flag: 0,
            keys: Vec::new(),
            own: Vec::new(),
            system: BTreeMap::new(),
            delivery: Delivery::Now,
        }
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> MessageBuilder {
        self.body = body.into();
        self
    }

    /// Sets the tag, by which consumers subscribe.
    pub fn tag(mut self, tag: impl Into<String>) -> MessageBuilder {
        self.system.insert(names::TAGS.to_owned(), tag.into());
        self
    }

    /// Adds a key, by which the message is found at the broker.
    pub fn key(mut self, key: impl Into<String>) -> MessageBuilder {
        self.keys.push(key.into());
        self
    }

    /// Sets a property of the application's own.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> MessageBuilder {
        self.own.push((name.into(), value.into()));
        self
    }

    /// Sets when the message is delivered.
    pub fn delivery(mut self, delivery: Delivery) -> MessageBuilder {
        self.delivery = delivery;
        self
    }

    /// Sets what brokers and proxies keep in order (for queues that the application chooses, use a selector).
    pub fn sharding_key(mut self, key: impl Into<String>) -> MessageBuilder {
        self.system.insert(names::SHARDING_KEY.to_owned(), key.into());
        self
    }

    /// Whether the broker answers only when the message is stored as its configuration says (flushed, replicated).
    /// True when not set.
    pub fn wait_store_ok(mut self, wait: bool) -> MessageBuilder {
        self.system.insert(names::WAIT_STORE_MSG_OK.to_owned(), wait.to_string());
        self
    }

    /// Sets the application's own flag.
    pub fn flag(mut self, flag: i32) -> MessageBuilder {
        self.flag = flag;
        self
    }

    /// Checks everything and makes the message.
    pub fn build(mut self) -> Result<Message, MessageError> {
        validate_topic(&self.topic)?;
        if is_not_for_clients(&self.topic) {
            return Err(MessageError::SystemTopic(self.topic));
        }
        if self.body.is_empty() {
            return Err(MessageError::EmptyBody);
        }
        self.put_keys()?;
        self.put_delivery()?;
        let mut properties = std::mem::take(&mut self.system);
        for (name, value) in std::mem::take(&mut self.own) {
            if RESERVED.contains(&name.as_str()) {
                return Err(MessageError::ReservedProperty(name));
            }
            properties.insert(name, value);
        }
        properties.entry(names::WAIT_STORE_MSG_OK.to_owned()).or_insert_with(|| "true".to_owned());
        check_properties(&properties)?;
        Ok(Message { topic: self.topic, body: self.body, flag: self.flag, properties })
    }

    fn put_keys(&mut self) -> Result<(), MessageError> {
        if let Some(key) = self.keys.iter().find(|key| key.is_empty() || key.contains(' ')) {
            return Err(MessageError::Key(key.clone()));
        }
        if !self.keys.is_empty() {
            self.system.insert(names::KEYS.to_owned(), self.keys.join(" "));
        }
        Ok(())
    }

    fn put_delivery(&mut self) -> Result<(), MessageError> {
        let (name, value) = match self.delivery {
            Delivery::Now => return Ok(()),
            Delivery::Level(level) if !(1..=MAX_DELAY_LEVEL).contains(&level) => {
                return Err(MessageError::DelayLevel(level));
            }
            Delivery::Level(level) => (names::DELAY_TIME_LEVEL, level.to_string()),
            Delivery::After(delay) => (names::TIMER_DELAY_MS, delay.as_millis().to_string()),
            Delivery::AtMs(time) => (names::TIMER_DELIVER_MS, time.to_string()),
        };
        self.system.insert(name.to_owned(), value);
        Ok(())
    }
}

impl MessageExt {
    /// The message as one to send again to `topic`, with these properties, the system's among them: for tools that move
    /// messages. Only names and sizes are checked.
    pub fn copy_to(
        &self,
        topic: impl Into<String>,
        properties: BTreeMap<String, String>,
    ) -> Result<Message, MessageError> {
        let topic = topic.into();
        validate_topic(&topic)?;
        check_properties(&properties)?;
        Ok(Message { topic, body: self.body.clone(), flag: self.flag, properties })
    }
}

fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), MessageError> {
    for (name, value) in properties {
        if name.is_empty() || value.is_empty() {
            return Err(MessageError::EmptyProperty(name.clone()));
        }
        if has_separator(name) || has_separator(value) {
            return Err(MessageError::SeparatorInProperty(name.clone()));
        }
    }
    let len = properties.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let limit = MAX_LEN - PROPERTIES_ROOM;
    if len > limit {
        return Err(MessageError::PropertiesTooLong { len, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> MessageBuilder {
        Message::builder("t").body("b")
    }

    #[test]
    fn a_whole_message() {
        let message = message().tag("a").key("k1").key("k2").property("p", "v").flag(7).build().unwrap();
        assert_eq!((message.topic(), message.tag(), message.flag()), ("t", Some("a"), 7));
        assert_eq!(message.keys().collect::<Vec<_>>(), ["k1", "k2"]);
        assert_eq!(
            message.encoded_properties(),
            "KEYS\u{1}k1 k2\u{2}TAGS\u{1}a\u{2}WAIT\u{1}true\u{2}p\u{1}v\u{2}"
        );
        assert!(!message.is_delayed());
    }

    #[test]
    fn nothing_invalid_is_built() {
        let error = |builder: MessageBuilder| builder.build().unwrap_err();
        assert!(matches!(error(Message::builder("a b").body("b")), MessageError::Topic(_)));
        assert!(matches!(error(Message::builder("SELF_TEST_TOPIC").body("b")), MessageError::SystemTopic(_)));
        assert_eq!(error(Message::builder("t")), MessageError::EmptyBody);
        assert_eq!(error(message().key("a b")), MessageError::Key("a b".to_owned()));
        assert_eq!(error(message().tag("")), MessageError::EmptyProperty("TAGS".to_owned()));
        assert_eq!(
            error(message().property("p", "\u{1}")),
            MessageError::SeparatorInProperty("p".to_owned())
        );
        assert_eq!(
            error(message().property("DELAY", "1")),
            MessageError::ReservedProperty("DELAY".to_owned())
        );
        assert_eq!(error(message().delivery(Delivery::Level(19))), MessageError::DelayLevel(19));
        let long = error(message().property("p", "x".repeat(MAX_LEN)));
        assert!(matches!(long, MessageError::PropertiesTooLong { .. }));
    }

    #[test]
    fn delays() {
        let delayed = |delivery| message().delivery(delivery).build().unwrap();
        assert_eq!(delayed(Delivery::Level(3)).property("DELAY"), Some("3"));
        let after = delayed(Delivery::After(Duration::from_secs(2)));
        assert_eq!(after.property("TIMER_DELAY_MS"), Some("2000"));
        assert!(after.is_delayed() && delayed(Delivery::AtMs(5)).is_delayed());
    }
}
