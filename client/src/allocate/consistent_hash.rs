//! A hash ring: few queues move when a member comes or goes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use md5::{Digest, Md5};
use ringmq_protocol::body::MessageQueue;

use super::{AllocateError, AllocateStrategy, Members};

/// Each member stands on a ring at several points; a queue goes to the next point behind its own hash
/// (`AllocateMessageQueueConsistentHash`).
#[derive(Clone, Copy, Debug)]
pub struct ConsistentHash {
    /// Points of each member; all members of a group must have the same number. Nobody gets anything when it is 0.
    pub virtual_nodes: u32,
}

impl Default for ConsistentHash {
    /// Java's ten points.
    fn default() -> ConsistentHash {
        ConsistentHash { virtual_nodes: 10 }
    }
}

impl ConsistentHash {
    /// Owner by point of the ring. A client id that stands twice gets further points, as in Java.
    fn ring<'a>(&self, clients: &'a [String]) -> BTreeMap<u32, &'a str> {
        let mut ring: BTreeMap<u32, &str> = BTreeMap::new();
        for client in clients {
            let existing = ring.values().filter(|owner| *owner == client).count() as u32;
            for node in existing..existing + self.virtual_nodes {
                ring.insert(hash(&format!("{client}-{node}")), client);
            }
        }
        ring
    }
}

impl AllocateStrategy for ConsistentHash {
    fn name(&self) -> Cow<'static, str> {
        "CONSISTENT_HASH".into()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        if members.position()?.is_none() {
            return Ok(Vec::new());
        }
        let ring = self.ring(members.clients);
        let owner = |queue: &MessageQueue| {
            let at = hash(&java_text(queue));
            ring.range(at..).next().or_else(|| ring.iter().next()).map(|(_, owner)| *owner)
        };
        Ok(members.queues.iter().filter(|q| owner(q) == Some(members.client_id)).cloned().collect())
    }
}

/// Java's `MessageQueue.toString`, which is what it hashes.
fn java_text(queue: &MessageQueue) -> String {
    let MessageQueue { topic, broker_name, queue_id } = queue;
    format!("MessageQueue [topic={topic}, brokerName={broker_name}, queueId={queue_id}]")
}

/// The first four bytes of the MD5.
fn hash(text: &str) -> u32 {
    let digest = Md5::digest(text.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
