mod ahead;
mod crash;
mod shadow;
mod tail;

use std::path::Path;

use ringmq_env::Env;
use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};

use super::*;
use crate::damage::Damage;

const SEGMENT: u64 = 256 << 10;

fn on_disk<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(GlommioEnv, PathBuf) -> F + Clone + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    run_cores(1, &CoreOptions::default(), move |_, env| main(env, path)).unwrap().join();
}

fn options(dir: &Path, sync_flush: bool) -> LogOptions {
    LogOptions {
        dir: dir.to_owned(),
        shard: ShardId(2),
        store_id: 77,
        sync_flush,
        shadow: 0,
        segment_size: SEGMENT,
        tail_memory: 3 << 20,
        cold_memory: 4 << 20,
    }
}

type Record = (LogPosition, Vec<u8>);

async fn open<E: Env>(env: &E, options: LogOptions, from: LogPosition) -> (Log<E>, Vec<Record>) {
    let (log, found, damage) = open_damaged(env, options, from).await;
    assert_eq!(damage, []);
    (log, found)
}

async fn open_damaged<E: Env>(
    env: &E,
    options: LogOptions,
    from: LogPosition,
) -> (Log<E>, Vec<Record>, Vec<Damage>) {
    let (mut found, report) = (Vec::new(), DamageReport::default());
    let log = Log::open(env.clone(), options, LogPosition(0), false, &report).await.unwrap();
    let mut replay = log.replay(from, log.committed());
    while replay
        .step(&mut |record: ScannedRecord<'_>| {
            assert_eq!(record.crc, crc32fast::hash(record.bytes));
            found.push((record.position, record.bytes.to_vec()));
        })
        .await
    {}
    assert_eq!(replay.position(), log.committed());
    drop(replay);
    (log, found, report.list())
}

fn stage<E: Env>(log: &Log<E>, number: usize, len: usize) -> Record {
    let mut record = vec![number as u8; len];
    record[..4].copy_from_slice(&(len as i32).to_be_bytes());
    record[4..12].copy_from_slice(&(number as u64).to_be_bytes());
    let (position, crc) = log.push(len, |_, filler| {
        filler.put(&record);
        crc32fast::hash(&record)
    });
    assert_eq!(crc, crc32fast::hash(&record));
    (position, record)
}

/// Lengths from tiny to a fifth of a segment.
fn len(number: usize) -> usize {
    frame::MIN_RECORD_LEN + (number * 7919) % if number.is_multiple_of(17) { 50_000 } else { 900 }
}

async fn commit_all<E: Env>(log: &Log<E>) {
    while log.committed() < log.staged() {
        assert!(matches!(log.commit_next().await, CommitStep::Committed(_)));
    }
}

async fn fill<E: Env>(log: &Log<E>, numbers: std::ops::Range<usize>) -> Vec<Record> {
    let mut records = Vec::new();
    for number in numbers {
        records.push(stage(log, number, len(number)));
        if number % 5 == 4 {
            commit_all(log).await;
        }
        if number % 40 == 0 {
            log.prepare_ahead().await.unwrap();
        }
    }
    commit_all(log).await;
    records
}

async fn shut<E: Env>(log: Log<E>) -> LogPosition {
    log.close();
    assert!(matches!(log.commit_next().await, CommitStep::Closed));
    log.flush().await;
    log.committed()
}

#[test]
fn a_first_message_smaller_than_a_sector_has_a_segment_to_come_back_in() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let record = stage(&log, 0, 100);
        commit_all(&log).await;
        let segments = std::fs::read_dir(dir.join("log")).unwrap().count();
        assert_eq!(segments, 1, "made before the commit was complete, not some time later");
        // As after a kill: nothing is closed.
        drop(log);
        let (_, found) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, [record]);
    });
}

async fn read_shared<E: Env>(log: &Log<E>, position: LogPosition, len: usize) -> IoSlice {
    log.read_stretch(position, len).await.unwrap().part(position, len).unwrap()
}

fn reopening_finds_every_record(sync_flush: bool) {
    on_disk(move |env, dir| async move {
        let options = options(&dir, sync_flush);
        let (log, found) = open(&env, options.clone(), LogPosition(0)).await;
        assert_eq!(found, []);
        let mut records = fill(&log, 0..400).await;
        let indexed = shut(log).await;
        let ranges = std::fs::read_dir(dir.join("log")).unwrap().count();
        assert!(ranges > 2, "the log goes over several segments");

        let (log, found) = open(&env, options.clone(), LogPosition(0)).await;
        assert_eq!(found, records);
        records.extend(fill(&log, 400..600).await);
        let end = shut(log).await;
        let (log, found) = open(&env, options.clone(), indexed).await;
        assert_eq!(found, records[400..]);
        shut(log).await;
        let (log, found) = open(&env, options, end).await;
        assert_eq!((found, log.committed()), (vec![], end));
        for (position, record) in records {
            assert_eq!(read_shared(&log, position, record.len()).await[..], record);
            assert_eq!(log.read_cold(position, record.len()).await.unwrap()[..], record);
        }
    });
}

#[test]
fn reopening_finds_every_record_in_sync_flush() {
    reopening_finds_every_record(true);
}

#[test]
fn reopening_finds_every_record_in_async_flush() {
    reopening_finds_every_record(false);
}

#[test]
fn what_is_committed_is_read_from_memory_or_from_disk() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, false), LogPosition(0)).await;
        let records = fill(&log, 0..4000).await;
        let hot = |record: &&Record| log.get_hot(record.0, record.1.len()).is_some();
        let hot_count = records.iter().filter(hot).count();
        assert!(hot_count > 100 && hot_count < 3900, "{hot_count} of 4000 are hot");
        assert!(log.tail_memory() <= 4 << 20);
        for (position, record) in &records {
            let read = match log.get_hot(*position, record.len()) {
                Some(slice) => slice,
                None => read_shared(&log, *position, record.len()).await,
            };
            assert_eq!(read[..], *record);
        }
        let staged = stage(&log, 1, 200);
        assert!(log.get_hot(staged.0, 200).is_none(), "not committed yet");
        commit_all(&log).await;
    });
}

#[test]
fn a_group_of_many_blocks_and_segments_is_committed_whole() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let mut records: Vec<_> = (0..300).map(|n| stage(&log, n, 20_000)).collect();
        assert!(log.committed() == log.min().max(LogPosition(segment::SEGMENT_HEADER_LEN)));
        commit_all(&log).await;
        records.extend(fill(&log, 300..310).await);
        drop(log);
        let (_, found) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, records);
    });
}

/// Flips a bit of the byte at a position of the first segment, and returns the file's path.
fn flip_bit(dir: &Path, position: usize) -> PathBuf {
    let path = dir.join("log").join(format!("{:020}.log", 0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[position] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_damaged_frame_costs_itself_only() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let mut records = fill(&log, 0..60).await;
        shut(log).await;
        let victim = records[20].0.0 as usize;
        let path = flip_bit(&dir, victim + 50);

        let (log, found, damage) = open_damaged(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(damage.len(), 1);
        assert_eq!(damage[0].path, path);
        let (from, to) = (damage[0].offset, damage[0].offset + damage[0].len);
        assert!(from <= victim as u64 && (victim as u64) < to && to - from < 20_000);
        records.retain(|(position, _)| !(from..to).contains(&position.0));
        assert_eq!(records.len(), 55);
        assert_eq!(found, records);
        assert_eq!(shut(log).await.0, records[54].0.0 + records[54].1.len() as u64);
    });
}

/// Groups that end at the end of a sector leave no trace in the tail journal: their marks tell that a hole before them is
/// damage, not the end of the log.
#[test]
fn what_is_damaged_before_a_mark_costs_itself_only() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let mut records = fill(&log, 0..3).await;
        let told = log.0.journaled.get();
        for number in 3..7 {
            records.push(stage(&log, number, 20_000));
            commit_all(&log).await;
            assert_eq!(log.committed().0 % 512, 0);
        }
        assert_eq!(log.0.journaled.get(), told);
        drop(log);
        let victim = records[4].0.0 as usize;
        let path = flip_bit(&dir, victim + 50);

        let (log, found, damage) = open_damaged(&env, options(&dir, true), LogPosition(0)).await;
        assert!(!damage.is_empty() && damage.iter().all(|damage| damage.path == path), "{damage:?}");
        records.remove(4);
        assert_eq!(found, records);
        records.extend(fill(&log, 7..8).await);
        drop(log);
        let (_, found, _) = open_damaged(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, records);
    });
}

#[test]
fn an_empty_log_opens_at_once_and_keeps_its_place() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(
            std::fs::read_dir(dir.join("log")).unwrap().count(),
            0,
            "no segment is made before it is needed"
        );
        let end = shut(log).await;
        assert_eq!(end, LogPosition(segment::SEGMENT_HEADER_LEN));
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(log.committed(), end);
    });
}
