//! What goes into a shard and what comes out of it.

use std::net::SocketAddr;

use ringmq_env::IoSlice;

/// A logical shard of the node, fixed when the store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Bits of a physical offset that count bytes of the shard's log; the shard stands above them.
pub const LOG_POSITION_BITS: u32 = 45;
/// Shards that a physical offset can name.
pub const MAX_SHARDS: u16 = 1 << 8;
/// No record gets here.
pub const LOG_END: LogPosition = LogPosition(1 << LOG_POSITION_BITS);
/// Every physical offset is below this: clients that keep numbers as doubles (ali-ons) are exact up to here.
const OFFSETS_END: i64 = (MAX_SHARDS as i64) << LOG_POSITION_BITS;
const _: () = assert!(OFFSETS_END <= 1 << 53);

/// Where the shard stood in the physical offsets of earlier programs. Those of the shards from 1 on are above
/// [`OFFSETS_END`], those of shard 0 are the same.
const EARLIER_POSITION_BITS: u32 = 55;
const _: () = assert!(1 << EARLIER_POSITION_BITS >= OFFSETS_END);

/// A byte position in one shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

/// RocketMQ's physical offset: where a record starts, for the whole node. Shard in the bits 45..53, never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalOffset(i64);

impl PhysicalOffset {
    /// Packs a shard and a position.
    pub fn new(shard: ShardId, position: LogPosition) -> PhysicalOffset {
        assert!(shard.0 < MAX_SHARDS && position < LOG_END);
        PhysicalOffset(((u64::from(shard.0) << LOG_POSITION_BITS) | position.0) as i64)
    }

    /// From a client's number, or from a record; `None` when no record can be there. What an earlier program gave out
    /// or stored names the same record as ever.
    pub fn from_wire(offset: i64) -> Option<PhysicalOffset> {
        match offset {
            ..0 => None,
            0..OFFSETS_END => Some(PhysicalOffset(offset)),
            _ => {
                let shard = ShardId((offset >> EARLIER_POSITION_BITS) as u16);
                let position = LogPosition(offset as u64 & ((1 << EARLIER_POSITION_BITS) - 1));
                let is_possible = shard.0 > 0 && position < LOG_END;
                is_possible.then(|| PhysicalOffset::new(shard, position))
            }
        }
    }

    /// As clients see it.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The shard that owns it.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> LOG_POSITION_BITS) as u16)
    }

    /// Where in that shard's log.
    pub fn position(self) -> LogPosition {
        LogPosition(self.0 as u64 & ((1 << LOG_POSITION_BITS) - 1))
    }
}

/// Number of a queue within its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// Position of a message in its queue, counted in messages from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub i64);

/// One message to store, borrowed from the request; copied once, into the group commit's buffer.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Topic name, at most 255 bytes.
    pub topic: &'a str,
    /// Queue within the topic; this shard must own it.
    pub queue_id: QueueId,
    /// The producer's own flag.
    pub flag: i32,
    /// RocketMQ's sysFlag, without the host-version bits (set here from the hosts).
    pub sys_flag: i32,
    /// When the producer made it, in ms.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// The address that clients know this broker by.
    pub store_host: SocketAddr,
    /// How often it was consumed before.
    pub reconsume_times: i32,
    /// Physical offset of the half message that it commits, else 0.
    pub prepared_transaction_offset: i64,
    /// Body as sent (compressed or not).
    pub body: &'a [u8],
    /// Encoded properties (`name 0x01 value 0x02 …`), stored as the concatenation of these parts.
    pub properties: &'a [&'a [u8]],
}

/// What became of an append: the records are staged and get durable with the group commit that reaches `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Queue offset of the first message; the others follow without a gap.
    pub first_queue_offset: QueueOffset,
    /// Physical offset of each message, in order.
    pub physical_offsets: smallvec::SmallVec<[PhysicalOffset; 1]>,
    /// Store timestamp of the messages, in ms.
    pub store_timestamp: i64,
    /// Acknowledge once [`Commit::committed`] is at or past this.
    pub end: LogPosition,
}

/// Why an append was refused. Nothing of it is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record, as stored, is larger than the limit.
    #[error("the record of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes of the whole record.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The properties are longer than the format holds.
    #[error("the properties of {size} bytes are over the limit of {limit}")]
    PropertiesTooLarge {
        /// Bytes of the encoded properties.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The properties are no text, which no client could read back.
    #[error("the properties are not UTF-8")]
    PropertiesNotText,
    /// So much is staged already that the disk must catch up first.
    #[error("{staged} bytes are staged, the limit is {limit}")]
    Busy {
        /// Bytes staged and not yet written.
        staged: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// No space for another segment, or the disk is used above the watermark.
    #[error("the disk of {path} is full: {used} of {total} bytes used, the limit is {limit_percent} %")]
    DiskFull {
        /// The store's directory.
        path: String,
        /// Bytes used.
        used: u64,
        /// Bytes in all.
        total: u64,
        /// Watermark in percent.
        limit_percent: u8,
    },
    /// The shard's log is as long as physical offsets can say.
    #[error("the log of shard {shard} is full: it ends at {position}, the limit is {limit}")]
    LogFull {
        /// The shard.
        shard: u16,
        /// Where the log ends.
        position: u64,
        /// Where it must not get.
        limit: u64,
    },
    /// The message wants an LMQ that is new, and there are as many as there may be.
    #[error("there are {known} LMQs, the limit is {limit}")]
    TooManyLmqs {
        /// LMQs there are.
        known: usize,
        /// The limit.
        limit: usize,
    },
    /// The shard is closing.
    #[error("the shard is shutting down")]
    Closed,
}

/// What a record waits for, by the broker's own topic that it lies under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    /// Its time: a delayed message (SCHEDULE_TOPIC_XXXX) or a timer message (rmq_sys_wheel_timer).
    Delayed,
    /// A commit or a rollback: a half message (RMQ_SYS_TRANS_HALF_TOPIC). It is due when the next check is.
    Half,
}

/// A record that waits until another one settles it, see [`crate::Shard::append_settling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// What it waits for.
    pub kind: PendingKind,
    /// When it is due, in ms since 1970.
    pub due_ms: i64,
    /// Decides among equal due times: the log position where the message was stored first.
    pub order: u64,
    /// Where the record starts.
    pub position: LogPosition,
    /// Bytes of the record.
    pub size: u32,
    /// CRC32 of all of it.
    pub crc: u32,
}

/// Why a record was not settled. Nothing is stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// It was settled before, or a record that settles it is staged.
    #[error("the record at log position {position} waits for nothing any more")]
    NotPending {
        /// Where the record starts.
        position: u64,
    },
    /// The record that would settle it cannot be appended.
    #[error(transparent)]
    Refused(#[from] AppendError),
}

/// How much waits in one shard, of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingStats {
    /// Records that wait.
    pub count: u64,
    /// Of these, about to be settled: the record that does is staged.
    pub in_flight: usize,
    /// Of these, held in memory; the others are on disk only.
    pub in_memory: usize,
    /// When the earliest is due, in ms; `None` when there is none.
    pub next_due_ms: Option<i64>,
}

/// A message that a commit made readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Topic of the queue.
    pub topic: std::rc::Rc<str>,
    /// Queue within the topic.
    pub queue_id: QueueId,
    /// Its offset.
    pub queue_offset: QueueOffset,
    /// Hash of its tag (0: none), sign-extended.
    pub tags_code: i64,
    /// When it was stored, in ms.
    pub store_timestamp: i64,
}

/// A step of the committed watermark.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Everything before this position is durable as the flush mode promises, and readable.
    pub committed: LogPosition,
    /// What became readable in this step, in log order; nothing while [`crate::Shard::tell_arrivals`] says so.
    pub arrivals: Vec<Arrival>,
    /// Everything staged behind `committed` was dropped for this reason (no space): answer it with an error.
    /// Nothing of it will ever be readable.
    pub failed: Option<AppendError>,
}

/// A range of a queue: readable messages have `min <= offset < max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRange {
    /// First message kept.
    pub min: QueueOffset,
    /// One past the last readable message.
    pub max: QueueOffset,
}

/// What a read asks for.
pub struct ReadRequest<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Queue within the topic.
    pub queue_id: QueueId,
    /// First offset wanted.
    pub offset: QueueOffset,
    /// Most messages to return.
    pub max_messages: usize,
    /// Stop before the message that would pass this many bytes; the first message always fits.
    pub max_bytes: usize,
    /// Whether a message with this tags code may match; filtered messages are skipped without being read.
    pub tag_filter: Option<&'a dyn Fn(i64) -> bool>,
    /// What looks at the messages themselves.
    pub record_filter: Option<RecordFilter<'a>>,
}

/// A filter that needs the whole message.
#[derive(Clone, Copy)]
pub struct RecordFilter<'a> {
    /// Whether the stored record matches.
    pub matches: &'a dyn Fn(&[u8]) -> bool,
    /// Most records that one read looks at: what keeps an expensive filter from holding the core.
    pub max_scanned: usize,
}

/// RocketMQ's GetMessageStatus, for what a shard can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStatus {
    /// Messages are returned.
    Found,
    /// The scanned messages did not match the filter; go on at `next_offset`.
    NoMatchedMessage,
    /// The queue does not exist here.
    NoMatchedLogicQueue,
    /// The queue exists and is empty.
    NoMessageInQueue,
    /// Just at the end: wait for the next message.
    OffsetOverflowOne,
    /// Beyond the end by more than one.
    OffsetOverflowBadly,
    /// Before the first message kept.
    OffsetTooSmall,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// Outcome.
    pub status: ReadStatus,
    /// Where the next read goes on (RocketMQ's nextBeginOffset).
    pub next_offset: QueueOffset,
    /// The queue's range when read.
    pub range: QueueRange,
    /// Whole stored records, in queue order, as views of the memory they lie in; a part may hold several.
    pub parts: Vec<IoSlice>,
    /// Number of messages in `parts`.
    pub messages: usize,
    /// Bytes in `parts`.
    pub bytes: usize,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The device failed.
    #[error("reading {len} bytes at log position {position} failed: {source}")]
    Io {
        /// Where in the log.
        position: u64,
        /// How much.
        len: usize,
        /// The device's error.
        source: std::io::Error,
    },
    /// Whether a record still waits cannot be read from the tables of what waits.
    #[error("whether the record at log position {position} still waits cannot be read: {source}")]
    Waiting {
        /// Where the record starts.
        position: u64,
        /// What reading the table came to.
        source: std::io::Error,
    },
    /// What was read is not what was written: it is not served.
    #[error("the record at log position {position} ({len} bytes) is damaged")]
    Damaged {
        /// Where in the log.
        position: u64,
        /// How much.
        len: usize,
    },
}

/// Which of two answers a search by time gives when no message has exactly that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message at or after the time.
    Lower,
    /// The last message at or before it.
    Upper,
}

/// A query by key.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    /// Topic.
    pub topic: &'a str,
    /// One of the message's KEYS, or its UNIQ_KEY.
    pub key: &'a str,
    /// Most messages to return, newest first.
    pub max_messages: usize,
    /// First store time, in ms.
    pub begin_ms: i64,
    /// Last store time, in ms.
    pub end_ms: i64,
}

/// Upper bounds of the classes in which group commits are counted, in bytes of log.
pub const COMMIT_BOUNDS: [u64; 7] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];

/// Group commits by the bytes of log that each added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSizes {
    /// Commits of each class of [`COMMIT_BOUNDS`].
    pub classes: [u64; COMMIT_BOUNDS.len()],
    /// Larger ones.
    pub beyond: u64,
    /// Bytes of all together.
    pub bytes: u64,
}

impl CommitSizes {
    /// Counts a commit of so many bytes.
    pub(crate) fn add(&mut self, bytes: u64) {
        let class = COMMIT_BOUNDS.iter().position(|bound| bytes <= *bound);
        *class.map_or(&mut self.beyond, |class| &mut self.classes[class]) += 1;
        self.bytes += bytes;
    }
}

/// Counters and gauges of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// First log position kept.
    pub log_min: u64,
    /// Messages before are not served any more; ahead of `log_min` while files are yet to be deleted.
    pub log_expired: u64,
    /// End of what is readable.
    pub log_committed: u64,
    /// End of what is staged.
    pub log_staged: u64,
    /// End of what is known to be on the device.
    pub log_flushed: u64,
    /// Queues known.
    pub queues: u64,
    /// Of these, LMQs.
    pub lmqs: u64,
    /// Messages appended since start.
    pub messages_appended: u64,
    /// Bytes of records appended since start.
    pub bytes_appended: u64,
    /// Group commits since start.
    pub commits: u64,
    /// How large they were.
    pub commit_sizes: CommitSizes,
    /// Device flushes asked for since start (a dsync write counts as one).
    pub flushes: u64,
    /// Bytes written to the log and its tail journal since start.
    pub log_bytes_written: u64,
    /// Bytes of the log that were acknowledged from the page cache (ASYNC_FLUSH), before the log had them.
    pub log_bytes_shadowed: u64,
    /// Segments of the log made since start.
    pub segments_made: u64,
    /// Of these, from files of segments that had expired.
    pub segments_reused: u64,
    /// Bytes written to index files since start.
    pub index_bytes_written: u64,
    /// Memory held by the hot tail, in bytes.
    pub tail_memory: u64,
    /// Memory held by what was read from the log's files, or is being read, in bytes.
    pub cold_memory: u64,
    /// Memory held by the index that is not on disk yet, in bytes.
    pub index_memory: u64,
    /// Messages read since start.
    pub messages_read: u64,
    /// Of these, from disk.
    pub messages_read_cold: u64,
    /// Messages that were not served since start because what the disk gave back is not what was written.
    pub messages_damaged: u64,
    /// Store timestamp of the oldest message kept, in ms; -1 when there is none.
    pub earliest_store_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(shard: u16, position: u64) -> PhysicalOffset {
        PhysicalOffset::new(ShardId(shard), LogPosition(position))
    }

    #[test]
    fn physical_offsets_are_exact_as_doubles_and_say_shard_and_position() {
        for shard in [0, 1, 7, MAX_SHARDS - 1] {
            for position in [0, 4128, (1 << LOG_POSITION_BITS) - 1] {
                let packed = offset(shard, position);
                assert_eq!((packed.shard(), packed.position()), (ShardId(shard), LogPosition(position)));
                assert_eq!(packed.get() as f64 as i64, packed.get());
                assert_eq!(PhysicalOffset::from_wire(packed.get()), Some(packed));
            }
        }
    }

    #[test]
    fn offsets_of_earlier_programs_name_the_same_record() {
        for shard in 1..MAX_SHARDS {
            for position in [0, 4128, (1 << LOG_POSITION_BITS) - 1] {
                let earlier = i64::from(shard) << 55 | position as i64;
                assert_eq!(PhysicalOffset::from_wire(earlier), Some(offset(shard, position)));
            }
        }
        for nowhere in [-1, i64::MIN, 1 << 53, (1 << 55) - 1, 1 << 55 | 1 << 45, i64::MAX] {
            assert_eq!(PhysicalOffset::from_wire(nowhere), None, "{nowhere}");
        }
    }
}
