//! A RocketMQ client library for tokio programs.
