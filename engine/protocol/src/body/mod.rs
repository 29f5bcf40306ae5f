//! Bodies that are JSON (Java's `RemotingSerializable` classes). Fields stand in the order of the wire, which is the
//! alphabet's; missing ones take Java's defaults.

mod assignment;
mod connection;
mod group;
mod heartbeat;
mod lock;
mod register;
mod route;
mod running_info;
mod stats;
mod topic;

pub use assignment::*;
pub use connection::*;
pub use group::*;
pub use heartbeat::*;
pub use lock::*;
pub use register::*;
pub use route::*;
pub use running_info::*;
pub use stats::*;
pub use topic::*;

use serde::{Deserialize, Serialize};

/// A queue of a topic at a broker; the key of many tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    /// The broker's name.
    pub broker_name: String,
    /// Queue within the topic.
    pub queue_id: i32,
    /// The topic.
    pub topic: String,
}

/// How often a table was changed, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    /// Changes since `timestamp` was set.
    pub counter: i64,
    /// Version of the broker's state (a controller's epoch).
    pub state_version: i64,
    /// When the counter started, in ms.
    pub timestamp: i64,
}

/// A table of texts: KV configuration, runtime information.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KvTable {
    /// Values by key.
    pub table: std::collections::BTreeMap<String, String>,
}
