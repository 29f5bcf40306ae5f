//! The RocketMQ broker: connections, processors, sessions, subscriptions, offsets, long polling.

mod answers;
mod backlog;
mod broadcasts;
mod calls;
pub mod compat;
mod complaints;
mod config;
mod connection;
pub mod control;
mod control_plane;
mod core;
mod delay;
mod edge;
mod event;
mod invocations;
mod long_poll;
pub mod mailbox;
mod message;
mod message_filter;
mod meters;
mod metrics;
mod node;
mod offset_calls;
mod offsets;
mod outgoing;
mod quotas;
pub mod registration_driver;
mod remarks;
mod resets;
mod routing;
mod shard_service;
mod tag_filter;
mod transaction;

pub use config::{BrokerConfig, ConfigError, Machine, MemoryOrigin};
pub use node::{BrokerEvent, BrokerHandle, BrokerPlan, BrokerReady, plan, run_core};
