//! A RocketMQ client library for tokio programs.

pub mod allocate;

pub use ringmq_protocol::body::MessageQueue;
