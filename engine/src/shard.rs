//! One shard: log, index and what ties them together.

use std::path::PathBuf;

use ringmq_env::{Env, IoSlice};

use crate::types::*;

/// How a shard is opened.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which shard of the node.
    pub id: ShardId,
    /// The store's number ([`crate::StoreMeta::store_id`]); segments of another store are refused.
    pub store_id: u64,
    /// Its own directory ([`crate::StoreMeta::shard_dir`]); created if missing.
    pub dir: PathBuf,
    /// SYNC_FLUSH (true): acknowledged once on the device. ASYNC_FLUSH: once written, flushed within the interval.
    pub sync_flush: bool,
    /// ASYNC_FLUSH's interval, in ms.
    pub flush_interval_ms: u64,
    /// Bytes of a new segment file.
    pub segment_size: u64,
    /// Largest record, in bytes.
    pub max_record_size: usize,
    /// Bytes that the hot tail may hold.
    pub tail_memory: usize,
    /// Bytes that may be staged and not yet written before appends are refused as busy.
    pub staged_limit: usize,
    /// Disk use in percent above which appends are refused.
    pub disk_watermark_percent: u8,
}

/// One shard's storage on its core. Cheap to clone: clones are the same shard.
pub struct Shard<E: Env> {
    env: E,
}

/// Why a shard could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device failed.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The device's error.
        source: std::io::Error,
    },
    /// Made by a newer RingMQ.
    #[error("{path} has format {found}, this program reads up to {known}: use a newer ringmq")]
    NewerFormat {
        /// File.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A file that cannot be what it should be, and cannot be rebuilt.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl OpenError {
    /// Names the file of a device error, for `map_err`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { path, source }
    }
}

impl<E: Env> Shard<E> {
    /// Opens the shard and recovers it; when this returns, appends and reads are served.
    pub async fn open(env: E, options: ShardOptions) -> Result<Shard<E>, OpenError> {
        let _ = (env, options);
        todo!()
    }

    /// Stages messages of one queue as a unit, in order and contiguously.
    pub fn append(&self, messages: &[NewMessage<'_>]) -> Result<Appended, AppendError> {
        let _ = (&self.env, messages);
        todo!()
    }

    /// The next step of the committed watermark; one consumer. `None` once closed and all is committed.
    pub async fn next_commit(&self) -> Option<Commit> {
        todo!()
    }

    /// The queue's readable range; `None` when the queue has never had a message here.
    pub fn queue_range(&self, topic: &str, queue_id: QueueId) -> Option<QueueRange> {
        let _ = (topic, queue_id);
        todo!()
    }

    /// Reads if everything needed is in memory; `None` sends the caller to [`Shard::read`].
    pub fn read_hot(&self, request: &ReadRequest<'_>) -> Option<ReadResult> {
        let _ = request;
        todo!()
    }

    /// Reads, from disk where needed. Every record from disk is checked before it is returned.
    pub async fn read(&self, request: &ReadRequest<'_>) -> Result<ReadResult, ReadError> {
        let _ = request;
        todo!()
    }

    /// The offset that a search by store time gives, as RocketMQ's `searchOffsetByTime` (part C.12).
    pub async fn offset_by_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        let _ = (topic, queue_id, time_ms, boundary);
        todo!()
    }

    /// Store time of the message at `offset`, in ms; `None` when it is not kept.
    pub async fn store_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<i64>, ReadError> {
        let _ = (topic, queue_id, offset);
        todo!()
    }

    /// The stored record that starts at `position`; `None` when no committed record starts there.
    pub async fn record_at(&self, position: LogPosition) -> Result<Option<IoSlice>, ReadError> {
        let _ = position;
        todo!()
    }

    /// Records with the key, newest first. Candidates are checked against the record's own topic and keys.
    pub async fn query_keys(&self, query: &KeyQuery<'_>) -> Result<Vec<IoSlice>, ReadError> {
        let _ = query;
        todo!()
    }

    /// Forgets the topic's queues on this shard: a queue made anew starts at offset 0. Durable when it returns.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), std::io::Error> {
        let _ = topic;
        todo!()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ShardStats {
        todo!()
    }

    /// Refuses further appends, commits and flushes what is staged, writes the checkpoint.
    pub async fn close(&self) {
        todo!()
    }
}
