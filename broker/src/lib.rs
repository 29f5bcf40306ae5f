//! The RocketMQ broker: connections, processors, sessions, subscriptions, offsets, long polling.

mod config;

pub use config::{BrokerConfig, ConfigError, Machine, MemoryOrigin};
