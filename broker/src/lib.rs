//! The RocketMQ broker: connections, processors, sessions, subscriptions, offsets, long polling.

pub mod compat;
mod config;
pub mod control;

pub use config::{BrokerConfig, ConfigError, Machine, MemoryOrigin};
