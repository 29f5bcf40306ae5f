//! fastjson's JSON: what RocketMQ's Java side writes, and everything that it reads.
//!
//! Java writes integer and object keys without quotes, which is no JSON; and it reads numbers in strings,
//! single quotes, bare keys and null for anything. Both ways go through serde.

mod de;
pub(crate) mod scan;
mod ser;
pub(crate) mod write;

pub use de::{JsonError, from_slice};
pub use scan::{MAX_DEPTH, SyntaxError};
pub use ser::{Dialect, to_vec};
