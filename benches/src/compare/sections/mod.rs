//! The sections of a comparison.

mod large;
mod limits;
mod resources;
mod sends;
mod start;
mod tail;

use super::{Context, Section};

type Run = fn(&Context, &mut Section) -> anyhow::Result<()>;

/// Every section: its name, what it is about, and what runs it; in the order of the report. Those that share a
/// flush mode follow one another, so that the Java broker is warmed up once for each.
pub const ALL: [(&str, &str, Run); 16] = [
    ("sync", "sends of 1 KiB, SYNC_FLUSH, closed loop", sends::sync),
    ("open", "sends on a schedule of 10,000/s, SYNC_FLUSH; latency from when each was due", sends::open),
    ("sizes", "sends of 128 B to 1 MiB, SYNC_FLUSH, against the device's own rate", sends::sizes),
    ("batches", "batches (code 320), SYNC_FLUSH", sends::batches),
    ("push", "send to delivery on a schedule of 1,000/s, with long-polling consumers", tail::push),
    ("rust", "sends of 1 KiB, SYNC_FLUSH, against rocketmq-rust's broker", sends::rocketmq_rust),
    ("async", "sends of 1 KiB, ASYNC_FLUSH, closed loop", sends::asynchronous),
    ("pull", "pulls of everything that is there, 32 messages of 1 KiB each, from memory", tail::pull),
    ("catch-up", "reading a large log from the device, alone and beside the tail", large::catch_up),
    ("topics", "sends to 1, 10, 10,000 and 100,000 topics, SYNC_FLUSH", resources::topics),
    ("start", "start on an empty store, and after kill -9", start::start),
    ("start-java", "the Java broker's start (ASYNC_FLUSH, which fills its store faster)", start::java),
    ("idle", "idle memory and CPU, and memory at full load with a limit of 256 MiB", resources::idle),
    ("disk", "bytes on disk ÷ bytes acknowledged, at 10 messages/s and at full rate", resources::disk),
    ("cores", "one core and two, load generator held constant, SYNC_FLUSH", resources::cores),
    ("limits", "what the machine allows", limits::limits),
];
