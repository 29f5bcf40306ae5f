//! A shard's storage: the CommitLog with its group commits, the ConsumeQueue index, the key index, the metadata
//! log, and recovery. It is what RocketMQ calls `DefaultMessageStore`, one for each shard.
//!
//! A [`Shard`] lives on one core and is generic over [`ringmq_env::Env`]. Methods that change state are
//! synchronous; I/O happens in tasks that own their buffers.

mod bytes;
mod damage;
mod gate;
mod index;
mod inspect;
mod log;
mod meta;
mod pending;
mod reread;
mod shard;
mod signal;
mod slices;
mod store;
mod types;

pub use damage::{Damage, DamageReport};
#[cfg(feature = "bench")]
pub use index::BenchIndex;
pub use index::TopicHandle;
pub use inspect::{Inspection, QueueFacts, SegmentFacts, find_record, inspect_metadata, inspect_shard};
pub use meta::MetaLog;
pub use shard::{
    DeleteReason, Indexed, Known, OFFSETS, OpenError, Retained, RetentionPolicy, SHADOW_LEN, Shard,
    ShardOptions, TopicRetention, WAITING_IN_MEMORY,
};
pub use slices::{Job, SLICE_BOUNDS_MS, SliceStats};
pub use store::{STORE_FORMAT, StoreMeta};
pub use types::*;
