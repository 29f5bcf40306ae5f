mod crash;
mod damage;
mod entries;
mod faults;
mod golden;
mod limits;
mod pending;
mod reads;
mod retain;

use std::net::SocketAddr;
use std::path::Path;

use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};
use ringmq_env::{Env, IoSlice};
use ringmq_protocol::record::{RecordView, records};

use super::*;

fn on_disk<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(GlommioEnv, PathBuf) -> F + Clone + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    run_cores(1, &CoreOptions::default(), move |_, env| main(env, path)).unwrap().join();
}

fn shard_options(dir: &Path, sync_flush: bool) -> ShardOptions {
    ShardOptions {
        id: ShardId(3),
        store_id: 42,
        dir: dir.to_owned(),
        sync_flush,
        flush_interval_ms: 5,
        segment_size: 256 << 10,
        max_record_size: 128 << 10,
        tail_memory: 2 << 20,
        staged_limit: 1 << 20,
        disk_watermark_percent: 95,
        strict: false,
        waiting_in_memory: 1 << 14,
        shadow: crate::SHADOW_LEN,
        lmq_limit: None,
    }
}

const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10911);

fn message<'a>(topic: &'a str, queue: u32, body: &'a [u8], properties: &'a [&'a [u8]]) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id: QueueId(queue),
        flag: 7,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: HOST,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}

fn send<E: Env>(shard: &Shard<E>, topic: &str, queue: u32, body: &[u8]) -> Appended {
    shard.append(&[message(topic, queue, body, &[b"TAGS\x01a\x02"])]).unwrap()
}

/// Takes commits until everything before `end` is committed.
async fn committed<E: Env>(shard: &Shard<E>, end: LogPosition) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    loop {
        let commit = shard.next_commit().await.expect("the shard is open");
        assert_eq!(commit.failed, None);
        arrivals.extend(commit.arrivals);
        if commit.committed >= end {
            return arrivals;
        }
    }
}

fn request(topic: &str, queue: u32, offset: i64) -> ReadRequest<'_> {
    ReadRequest {
        topic,
        queue_id: QueueId(queue),
        offset: QueueOffset(offset),
        max_messages: 32,
        max_bytes: 1 << 20,
        tag_filter: None,
        record_filter: None,
    }
}

fn bodies(parts: &[IoSlice]) -> Vec<Vec<u8>> {
    let views = parts.iter().flat_map(|part| records(part)).map(Result::unwrap);
    views.map(|view| view.body.to_vec()).collect()
}

/// Reads a whole queue from its first message, checks every record against its place, and returns the bodies.
async fn whole_queue<E: Env>(shard: &Shard<E>, topic: &str, queue: u32) -> Vec<Vec<u8>> {
    let Some(range) = shard.queue_range(topic, QueueId(queue)) else { return Vec::new() };
    let mut found = Vec::new();
    let mut offset = range.min;
    while offset < range.max {
        let request = request(topic, queue, offset.0);
        let read = match shard.read_hot(&request) {
            Some(read) => read,
            None => shard.read(&request).await.unwrap(),
        };
        assert_eq!((read.status, read.range), (ReadStatus::Found, range));
        for view in read.parts.iter().flat_map(|part| records(part)).map(Result::unwrap) {
            view.check_body().unwrap();
            assert_eq!((view.topic, view.queue_id, view.queue_offset), (topic, queue as i32, offset.0));
            let physical = PhysicalOffset::from_wire(view.physical_offset).unwrap();
            assert_eq!(physical.shard(), shard.0.options.id);
            offset.0 += 1;
            found.push(view.body.to_vec());
        }
        assert_eq!(read.next_offset, offset);
    }
    found
}
