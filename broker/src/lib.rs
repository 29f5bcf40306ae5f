//! The RocketMQ broker: connections, processors, sessions, subscriptions, offsets, long polling.

mod config;
pub mod control;

pub use config::{BrokerConfig, ConfigError, Machine, MemoryOrigin};
