//! The RocketMQ name server: route table and broker liveness.

mod config;

pub use config::NamesrvConfig;
