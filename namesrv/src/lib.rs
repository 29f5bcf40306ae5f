//! The RocketMQ name server: route table and broker liveness.
//!
//! [`Namesrv::start`] runs one on any [`Env`](ringmq_env::Env). Its tables (`routes`) and what requests do to them
//! (`processor`) know no I/O. Name servers do not know of one another: every broker registers with each.

mod bodies;
mod config;
mod connection;
mod kv;
mod processor;
mod routes;
mod server;

pub use config::NamesrvConfig;
pub use kv::KvFileError;
pub use server::{Namesrv, StartError};
