//! Only brokers of chosen machine rooms.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ringmq_protocol::body::MessageQueue;

use super::{AllocateError, AllocateStrategy, Members};

/// Divides the queues of brokers named `room@name` whose room is chosen; queues of other brokers go to nobody
/// (`AllocateMessageQueueByMachineRoom`).
#[derive(Clone, Debug, Default)]
pub struct ByMachineRoom {
    /// The chosen rooms (Java's `consumeridcs`).
    pub rooms: BTreeSet<String>,
}

impl ByMachineRoom {
    fn chosen(&self, queue: &MessageQueue) -> bool {
        // Java's String.split drops empty pieces at the end: "room@name@" still has two.
        let mut pieces = queue.broker_name.trim_end_matches('@').split('@');
        let room = pieces.next().unwrap_or_default();
        pieces.next().is_some() && pieces.next().is_none() && self.rooms.contains(room)
    }
}

impl AllocateStrategy for ByMachineRoom {
    fn name(&self) -> Cow<'static, str> {
        "MACHINE_ROOM".into()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        let Some(index) = members.position()? else { return Ok(Vec::new()) };
        let queues: Vec<&MessageQueue> = members.queues.iter().filter(|q| self.chosen(q)).collect();
        let (share, rest) = (queues.len() / members.clients.len(), queues.len() % members.clients.len());
        let block = queues[share * index..share * (index + 1)].iter();
        let extra = (index < rest).then(|| &queues[index + share * members.clients.len()]);
        Ok(block.chain(extra).map(|q| (*q).clone()).collect())
    }
}
