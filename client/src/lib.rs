//! A RocketMQ client library for tokio programs.

pub mod allocate;
mod client;
mod config;
pub mod consumer;
pub mod env;
mod error;
pub mod message;
pub mod producer;
mod remoting;
mod sync;
#[cfg(test)]
mod testing;

pub use client::{Client, ConnectError, RouteError};
pub use config::ClientConfig;
pub use consumer::{Batch, ConsumeFrom, Consumed, ConsumedOrderly, MessageModel, PushConsumer};
pub use error::CallError;
pub use message::{Compression, Delivery, Message, MessageError, MessageExt};
pub use producer::{Producer, ProducerBuilder, SendError, SendReceipt, SendStatus};
pub use ringmq_protocol::body::MessageQueue;
