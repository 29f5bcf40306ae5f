//! What tasks on core 0 ask of shards about groups' offsets.

use std::sync::Arc;

use ringmq_engine::{QueueId, QueueOffset};

/// A question about offsets, or a change of them.
#[derive(Clone, Debug)]
pub enum OffsetCall {
    /// The offset of the first message at or after a time, in each of these queues.
    ByTime {
        /// Topic.
        topic: Arc<str>,
        /// Queues of the shard.
        queues: Vec<QueueId>,
        /// The time in ms; below 0 for the queues' ends.
        time_ms: i64,
    },
    /// Move a group's offsets, and its consumers as they pull (222).
    Reset {
        /// Group.
        group: Arc<str>,
        /// Topic.
        topic: Arc<str>,
        /// Where to, in queues of the shard.
        offsets: Vec<(QueueId, QueueOffset)>,
    },
    /// Give a group the offsets that another has in a topic (314).
    Clone {
        /// Whose offsets.
        from: Arc<str>,
        /// Who gets them.
        to: Arc<str>,
        /// Topic.
        topic: Arc<str>,
    },
    /// Every offset that was committed in a topic.
    In(Arc<str>),
    /// When the messages of these queues were stored, as far as a group is concerned (303).
    TimeSpans {
        /// Topic.
        topic: Arc<str>,
        /// Queues of the shard.
        queues: Vec<QueueId>,
        /// Group.
        group: Arc<str>,
    },
}

/// Store times in one queue, in ms; -1 for a message that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    /// The queue.
    pub queue_id: QueueId,
    /// Of the first message.
    pub first_ms: i64,
    /// Of the last.
    pub last_ms: i64,
    /// Of the last that the group consumed; of the first when it has consumed none.
    pub consumed_ms: i64,
    /// Of the next that the group is to consume; `None` when there is none.
    pub next_ms: Option<i64>,
}
