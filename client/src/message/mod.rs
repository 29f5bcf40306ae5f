//! Messages: those to send, those that were received, and how their bodies are compressed.

mod builder;
mod compression;
mod getters;
mod properties;
mod received;
mod reply;

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmq_protocol::properties::{self as wire, names};

pub use builder::{Delivery, MessageBuilder, MessageError};
pub use compression::{Compression, CompressionError};
use getters::property_getters;
pub use received::MessageExt;
#[cfg(test)]
pub(crate) use received::tests as tests_support;
pub use reply::NoReply;

/// A message to send. It was checked when it was built, so a broker with default limits takes it, but for its size,
/// which the producer checks against its own limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    topic: String,
    body: Bytes,
    flag: i32,
    properties: BTreeMap<String, String>,
}

impl Message {
    /// Starts a message to `topic`.
    pub fn builder(topic: impl Into<String>) -> MessageBuilder {
        MessageBuilder::new(topic.into())
    }

    /// A message of only topic and body.
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Result<Message, MessageError> {
        Message::builder(topic).body(body).build()
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The application's own flag.
    pub fn flag(&self) -> i32 {
        self.flag
    }

    property_getters!();

    /// A property, one of the system's or of the application.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Every property, by name.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// Sets a property of the system's; the caller knows that it is legal.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.properties.insert(name.to_owned(), value.into());
    }

    /// Takes a property of the system's away.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.properties.remove(name)
    }

    /// A message from the parts of one that was received.
    pub(crate) fn again(
        topic: String,
        body: Bytes,
        flag: i32,
        properties: BTreeMap<String, String>,
    ) -> Message {
        Message { topic, body, flag, properties }
    }

    /// The properties as they travel.
    pub(crate) fn encoded_properties(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.properties {
            wire::push(&mut out, name, value);
        }
        out
    }

    /// Whether a delay or a time of delivery is set.
    pub(crate) fn is_delayed(&self) -> bool {
        builder::DELAYS.iter().any(|name| self.properties.contains_key(*name))
    }
}
