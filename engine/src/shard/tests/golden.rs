//! Stores as earlier programs left them, kept in the repository: whatever was written once is opened by every later
//! program. A new format gets a store of its own beside the old ones, made by
//! `cargo test -p ringmq-engine --lib make_golden_stores -- --ignored`.

use std::fs;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ringmq_protocol::names::topics;

use super::*;
use crate::{MetaLog, STORE_FORMAT, StoreMeta, inspect_shard};

/// Stores of each format: one whose program was killed, and one whose program has ended.
const STORES: [&str; 2] = ["killed", "closed"];
/// The format from which on the newest messages may be in the shadow alone.
const SHADOW_SINCE: u32 = 3;
const MESSAGES: usize = 300;
const QUEUES: usize = 3;
const ID: ShardId = ShardId(0);

fn golden(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("format-{format}"))
}

fn options(dir: &Path, store_id: u64) -> ShardOptions {
    ShardOptions {
        id: ID,
        store_id,
        segment_size: 64 << 10,
        max_record_size: 20_000,
        ..shard_options(&StoreMeta::shard_dir(dir, ID), true)
    }
}

fn body(n: usize) -> Vec<u8> {
    format!("message {n} ").repeat(1 + n % 50).into_bytes()
}

fn key(n: usize) -> String {
    format!("KEYS\u{1}key-{n}\u{2}TAGS\u{1}tag-{}\u{2}", n % 5)
}

/// Messages, waiting records of which every other is settled, a deleted topic, a table of metadata.
async fn fill(shard: &Shard<GlommioEnv>) {
    for n in 0..MESSAGES {
        let properties = key(n);
        let parts = [properties.as_bytes()];
        let appended = shard.append(&[message("Golden", (n % QUEUES) as u32, &body(n), &parts)]).unwrap();
        if n % 50 == 49 {
            committed(shard, appended.end).await;
        }
        if n == MESSAGES / 2 {
            shard.0.flush_index().await;
        }
    }
    let gone = send(shard, "Deleted", 0, b"gone");
    committed(shard, gone.end).await;
    shard.delete_topic("Deleted").await.unwrap();
    for n in 0..10 {
        let due = format!("RINGMQ_DUE\u{1}{}\u{2}", n + 1);
        let appended = shard.append(&[message(topics::TIMER_TOPIC, 0, &body(n), &[due.as_bytes()])]).unwrap();
        committed(shard, appended.end).await;
    }
    for record in shard.due(PendingKind::Delayed, i64::MAX, 5).await.unwrap() {
        let appended = shard.append_settling(&message("Settled", 0, b"settled", &[]), &record).unwrap();
        committed(shard, appended.end).await;
    }
}

async fn check(shard: &Shard<GlommioEnv>, format: u32) {
    assert_eq!(shard.damage(), []);
    for queue in 0..QUEUES {
        let wanted: Vec<_> = (0..MESSAGES).filter(|n| n % QUEUES == queue).map(body).collect();
        assert_eq!(whole_queue(shard, "Golden", queue as u32).await, wanted);
    }
    for n in [0, 1, MESSAGES / 2, MESSAGES - 1] {
        let key = format!("key-{n}");
        let query = KeyQuery { topic: "Golden", key: &key, max_messages: 8, begin_ms: 0, end_ms: i64::MAX };
        assert_eq!(bodies(&shard.query_keys(&query).await.unwrap()), [body(n)]);
    }
    assert_eq!(whole_queue(shard, "Settled", 0).await.len(), 5);
    let shadowed = whole_queue(shard, "Shadowed", 0).await;
    assert!(shadowed == vec![b"shadowed"; if format >= SHADOW_SINCE { 3 } else { 0 }], "{shadowed:?}");
    assert_eq!(shard.queue_range("Deleted", QueueId(0)), None);
    assert_eq!(shard.pending_stats(PendingKind::Delayed).count, 5);
}

/// Calls `each` with every file below `dir`, and its path from there.
fn files(dir: &Path, below: &Path, each: &mut dyn FnMut(&Path, &Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let below = below.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), &below, each),
            false => each(&entry.path(), &below),
        }
    }
}

fn pack(store: &Path, to: &Path) {
    files(store, Path::new(""), &mut |path, below| {
        let target = to.join(format!("{}.gz", below.display()));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&fs::read(path).unwrap()).unwrap();
        fs::write(target, packed.finish().unwrap()).unwrap();
    });
}

fn unpack(from: &Path, store: &Path) {
    files(from, Path::new(""), &mut |path, below| {
        let target = store.join(below.with_extension(""));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(&*fs::read(path).unwrap()).read_to_end(&mut bytes).unwrap();
        fs::write(target, bytes).unwrap();
    });
}

#[test]
fn stores_of_every_format_are_opened_and_go_on() {
    for format in 1..=STORE_FORMAT {
        for name in STORES {
            on_disk(move |env, dir| async move {
                unpack(&golden(format).join(name), &dir);
                let meta = StoreMeta::open(&env, &dir, 7).await.unwrap();
                assert_eq!(meta.shards, 1, "the store knows");
                let raised = fs::read(dir.join("store.meta")).unwrap();
                assert_eq!(raised[8..12], STORE_FORMAT.to_le_bytes(), "older programs refuse it from now on");
                assert_eq!(StoreMeta::read(&env, &dir).await.unwrap(), meta);
                let shard_dir = StoreMeta::shard_dir(&dir, ID);
                let found = inspect_shard(&env, &shard_dir, ID, meta.store_id).await.unwrap();
                assert_eq!(found.damage, []);
                let mut entries = Vec::new();
                let mut replay = |key: &[u8], value: &[u8]| entries.push((key.to_vec(), value.to_vec()));
                MetaLog::open(env.clone(), &dir, "table", &mut replay).await.unwrap();
                assert_eq!(entries, [(b"group".to_vec(), b"7".to_vec())]);

                let shard = Shard::open(env.clone(), options(&dir, meta.store_id)).await.unwrap();
                check(&shard, format).await;
                let next = send(&shard, "Golden", 0, b"next");
                assert_eq!(next.first_queue_offset.0 as usize, MESSAGES / QUEUES);
                committed(&shard, next.end).await;
                shard.close().await;
            });
        }
    }
}

#[test]
#[ignore = "writes the stores of the present format into the repository"]
fn make_golden_stores() {
    on_disk(|env, dir| async move {
        let golden = golden(STORE_FORMAT);
        assert!(!golden.exists(), "what was written once stays as it was");
        let meta = StoreMeta::open(&env, &dir, 1).await.unwrap();
        let table = MetaLog::open(env.clone(), &dir, "table", &mut |_, _| {}).await.unwrap();
        table.put(b"group", b"6");
        table.put(b"gone", b"1");
        table.flush().await.unwrap();
        table.put(b"group", b"7");
        table.delete(b"gone");
        table.flush().await.unwrap();
        let options = ShardOptions { sync_flush: false, ..options(&dir, meta.store_id) };
        let shard = Shard::open(env.clone(), options).await.unwrap();
        fill(&shard).await;
        for _ in 0..3 {
            let shadowed = send(&shard, "Shadowed", 0, b"shadowed");
            committed(&shard, shadowed.end).await;
        }
        assert!(shard.stats().log_flushed < shard.stats().log_committed);
        check(&shard, STORE_FORMAT).await;
        pack(&dir, &golden.join(STORES[0]));
        shard.close().await;
        pack(&dir, &golden.join(STORES[1]));
    });
}
