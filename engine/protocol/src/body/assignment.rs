//! Queues that the broker divides among the members of a group (400).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{MessageModel, MessageQueue};

/// Body of QUERY_ASSIGNMENT (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryAssignmentRequestBody {
    /// The member that asks.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// Clustering or broadcasting.
    pub message_model: Option<MessageModel>,
    /// Java's name of the strategy.
    pub strategy_name: String,
    /// The topic.
    pub topic: String,
}

/// How a member gets the messages of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageRequestMode {
    /// By pulls.
    #[default]
    Pull,
    /// By POP.
    Pop,
}

/// A queue that a member is to consume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueueAssignment {
    /// Room for more.
    pub attachments: Option<BTreeMap<String, String>>,
    /// The queue; by POP its id may be -1 for all of the broker's.
    pub message_queue: MessageQueue,
    /// How.
    pub mode: MessageRequestMode,
}

/// Answer to QUERY_ASSIGNMENT (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryAssignmentResponseBody {
    /// The member's queues; missing when the broker does not know the strategy.
    pub message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
}
