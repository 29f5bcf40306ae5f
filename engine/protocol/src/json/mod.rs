//! fastjson's JSON: what RocketMQ's Java side writes, and everything that it reads.

pub(crate) mod scan;
pub(crate) mod write;

pub use scan::{MAX_DEPTH, SyntaxError};
