//! A fixed list.

use std::borrow::Cow;

use ringmq_protocol::body::MessageQueue;

use super::{AllocateError, AllocateStrategy, Members};

/// The member gets the queues that it is told, whoever else is there (`AllocateMessageQueueByConfig`). To divide the
/// queues is the operator's duty.
#[derive(Clone, Debug, Default)]
pub struct ByConfig {
    /// The queues.
    pub queues: Vec<MessageQueue>,
}

impl AllocateStrategy for ByConfig {
    fn name(&self) -> Cow<'static, str> {
        "CONFIG".into()
    }

    fn allocate(&self, _members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        Ok(self.queues.clone())
    }
}
