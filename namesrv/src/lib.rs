//! The RocketMQ name server: route table and broker liveness.

mod config;
mod routes;

pub use config::NamesrvConfig;
