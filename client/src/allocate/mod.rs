//! Which queues of a topic a member of a consumer group gets: Java's `AllocateMessageQueueStrategy`.
//!
//! Every member runs the same strategy over the same two sorted lists, so that the members agree without talking to
//! each other. Results are equal to those of Java's classes, which members of the same group may well run; a
//! differential test shows it (`tests/allocate.rs`).

mod average;
mod consistent_hash;
mod fixed;
mod machine_room;
mod nearby;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use ringmq_protocol::body::MessageQueue;

pub use average::{Averagely, AveragelyByCircle};
pub use consistent_hash::ConsistentHash;
pub use fixed::ByConfig;
pub use machine_room::ByMachineRoom;
pub use nearby::{MachineRoomNearby, MachineRoomResolver};

/// What a strategy decides from.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The client that asks.
    pub client_id: &'a str,
    /// Every readable queue of the topic, sorted by topic, broker name and queue id.
    pub queues: &'a [MessageQueue],
    /// Every member of the group, sorted.
    pub clients: &'a [String],
}

/// Why a strategy cannot decide. The present allocation stays as it is then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The asking client has no id.
    #[error("the client's own id is empty")]
    NoClientId,
    /// The topic has no queue.
    #[error("there is no queue to allocate")]
    NoQueues,
    /// The group has no member.
    #[error("there is no client to allocate to")]
    NoClients,
    /// A resolver knows no room.
    #[error("the machine room of {of} is not known")]
    NoRoom {
        /// The queue or the client.
        of: String,
    },
}

/// Decides which queues a member gets. Must give the same answer in every member of the group.
pub trait AllocateStrategy: fmt::Debug + Send + Sync {
    /// Java's name of the strategy, which also goes to the broker when it allocates.
    fn name(&self) -> Cow<'static, str>;

    /// The queues of `members.client_id`; none for a client that is not among the members.
    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError>;
}

impl<S: AllocateStrategy + ?Sized> AllocateStrategy for Arc<S> {
    fn name(&self) -> Cow<'static, str> {
        (**self).name()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        (**self).allocate(members)
    }
}

impl<'a> Members<'a> {
    /// Position of the client among the members; `None` when it is not among them (yet).
    pub fn position(&self) -> Result<Option<usize>, AllocateError> {
        if self.client_id.is_empty() {
            return Err(AllocateError::NoClientId);
        }
        if self.queues.is_empty() {
            return Err(AllocateError::NoQueues);
        }
        if self.clients.is_empty() {
            return Err(AllocateError::NoClients);
        }
        Ok(self.clients.iter().position(|c| c == self.client_id))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn queues(broker: &str, count: i32) -> Vec<MessageQueue> {
        let queue =
            |queue_id| MessageQueue { broker_name: broker.to_owned(), queue_id, topic: "t".to_owned() };
        (0..count).map(queue).collect()
    }

    #[test]
    fn empty_lists_are_errors_and_strangers_get_nothing() {
        let (queues, clients) = (queues("b", 2), vec!["a".to_owned()]);
        let members = |client_id, queues, clients| Members { group: "g", client_id, queues, clients };
        let strategies: [&dyn AllocateStrategy; 3] =
            [&Averagely, &AveragelyByCircle, &ConsistentHash::default()];
        for strategy in strategies {
            let error = |m| strategy.allocate(&m).unwrap_err();
            assert_eq!(error(members("", &queues, &clients)), AllocateError::NoClientId);
            assert_eq!(error(members("a", &[], &clients)), AllocateError::NoQueues);
            assert_eq!(error(members("a", &queues, &[])), AllocateError::NoClients);
            assert_eq!(strategy.allocate(&members("z", &queues, &clients)), Ok(vec![]));
        }
    }
}
