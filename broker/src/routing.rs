//! Which shard owns a queue, and which core hosts a shard.

use ringmq_engine::{QueueId, ShardId};
use ringmq_protocol::names;

use crate::mailbox::CoreId;

/// The shard of all light message queues (LMQs), and so of every message that is dispatched to some: a record and all
/// of its entries are in one log.
pub const LMQ_SHARD: ShardId = ShardId(0);

/// The node's shards and cores. The same on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Shards of the store: fixed when it is created.
    pub shards: u16,
    /// Cores of this start.
    pub cores: u16,
    /// Whether topics whose names begin with %LMQ% are LMQs.
    pub has_lmqs: bool,
}

impl Routing {
    /// The shard that owns a queue. Version 1 of the routing function, which every store so far is written with:
    /// FNV-1a over the topic's name, plus the queue id, so that the queues of a topic go round the shards.
    pub fn shard(self, topic: &str, queue_id: QueueId) -> ShardId {
        if self.shards == 1 {
            return ShardId(0);
        }
        if self.has_lmqs && names::is_lmq(topic) {
            return LMQ_SHARD;
        }
        let hash = topic
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        ShardId((hash.wrapping_add(queue_id.0) % u32::from(self.shards)) as u16)
    }

    /// A queue of `topic` that a shard owns: for what the broker itself stores beside a record of that shard. The first
    /// as many queues as there are shards go round them all.
    pub fn queue_on(self, topic: &str, shard: ShardId) -> QueueId {
        let queue = (0..u32::from(self.shards)).map(QueueId).find(|queue| self.shard(topic, *queue) == shard);
        queue.expect("the queues of a topic go round the shards")
    }

    /// The queue that takes a message for LMQs, of a topic with so many: the wanted one, or one beside it; `None` when the
    /// topic has none in the LMQs' shard.
    pub fn dispatching_queue(self, topic: &str, queues: u32, wanted: QueueId) -> Option<QueueId> {
        let (first, step) = (self.queue_on(topic, LMQ_SHARD).0, u32::from(self.shards));
        let count = queues.saturating_sub(first).div_ceil(step);
        (count > 0).then(|| QueueId(first + wanted.0 / step % count * step))
    }

    /// The core that hosts a shard.
    pub fn core(self, shard: ShardId) -> CoreId {
        CoreId(shard.0 % self.cores)
    }

    /// Every shard.
    pub fn all_shards(self) -> impl Iterator<Item = ShardId> {
        (0..self.shards).map(ShardId)
    }

    /// The shards that a core hosts.
    pub fn hosted(self, core: CoreId) -> impl Iterator<Item = ShardId> {
        self.all_shards().filter(move |shard| self.core(*shard) == core)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_stay_where_stores_have_them() {
        let routing = Routing { shards: 4, cores: 2, has_lmqs: false };
        let shards: Vec<u16> = (0..5).map(|queue| routing.shard("TopicTest", QueueId(queue)).0).collect();
        assert_eq!(shards, [0, 1, 2, 3, 0], "a change here loses the messages of every store");
        assert_eq!(routing.shard("%RETRY%group", QueueId(0)), ShardId(0));
        for shard in routing.all_shards() {
            assert_eq!(routing.shard("T", routing.queue_on("T", shard)), shard);
        }
        assert_eq!(routing.hosted(CoreId(1)).collect::<Vec<_>>(), [ShardId(1), ShardId(3)]);
    }

    #[test]
    fn what_is_dispatched_goes_to_a_queue_in_the_shard_of_the_lmqs() {
        let routing = Routing { shards: 3, cores: 1, has_lmqs: true };
        for topic in ["TopicTest", "orders", "T"] {
            for queues in 3..10 {
                for wanted in (0..queues + 2).map(QueueId) {
                    let queue = routing.dispatching_queue(topic, queues, wanted).unwrap();
                    assert!(
                        queue.0 < queues && routing.shard(topic, queue) == LMQ_SHARD,
                        "{topic} {wanted:?}"
                    );
                    let is_right = wanted.0 < queues && routing.shard(topic, wanted) == LMQ_SHARD;
                    assert!(!is_right || queue == wanted, "{topic} {wanted:?}");
                }
            }
            let first = routing.queue_on(topic, LMQ_SHARD).0;
            assert_eq!(routing.dispatching_queue(topic, first, QueueId(0)), None);
        }
        assert_eq!(routing.shard("%LMQ%a", QueueId(0)), LMQ_SHARD);
        let one = Routing { shards: 1, cores: 1, has_lmqs: true };
        assert_eq!(one.dispatching_queue("T", 4, QueueId(3)), Some(QueueId(3)));
    }
}
