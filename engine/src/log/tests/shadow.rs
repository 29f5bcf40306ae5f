//! The shadow by itself: what only it has is there after a kill, and nothing of it that does not belong there.

use super::*;
use crate::log::inspect::LogFiles;

fn shadowed(dir: &Path, len: u64) -> LogOptions {
    LogOptions { shadow: len, ..options(dir, false) }
}

/// A log with a segment, which is written, and no task that writes what comes next.
async fn begun(env: &GlommioEnv, dir: &Path, len: u64) -> (Log<GlommioEnv>, Vec<Record>) {
    let (log, found) = open(env, options(dir, true), LogPosition(0)).await;
    assert_eq!(found, []);
    let records = fill(&log, 0..3).await;
    shut(log).await;
    let (log, found) = open(env, shadowed(dir, len), LogPosition(0)).await;
    assert_eq!(found, records);
    (log, records)
}

/// As after a kill.
async fn found_after_kill(env: &GlommioEnv, log: Log<GlommioEnv>, options: LogOptions) -> Vec<Record> {
    drop(log);
    let report = DamageReport::default();
    let files = LogFiles::open(env, &options.dir, options.shard, options.store_id, LogPosition(0), &report);
    let files = files.await.unwrap();
    let (mut walk, mut walked) = (files.walk(), Vec::new());
    while let Some(frame) = walk.next().await {
        walked.extend(walk.records(&frame).await);
    }
    assert_eq!(report.list(), []);
    let (_, found) = open(env, options, LogPosition(0)).await;
    assert_eq!(walked, found, "the inspector sees the same");
    found
}

#[test]
fn what_only_the_shadow_has_is_there_after_a_kill() {
    on_disk(|env, dir| async move {
        let (mut log, mut records) = begun(&env, &dir, 64 << 10).await;
        // Over the ring's end and over, from an end within a sector and from the end of one.
        for life in 0..8 {
            for number in 0..20 {
                records.push(stage(&log, 100 * life + number, 100 + 61 * number + 7 * life));
                let step = log.commit_next().await;
                assert!(matches!(step, CommitStep::Committed(position) if position == log.staged()));
            }
            let (position, record) = records.last().unwrap();
            assert_eq!(log.get_hot(*position, record.len()).unwrap()[..], *record);
            assert!(log.flushed() < log.committed());
            let found = found_after_kill(&env, log, shadowed(&dir, 64 << 10)).await;
            assert_eq!(found, records);
            log = open(&env, shadowed(&dir, 64 << 10), LogPosition(0)).await.0;
        }
        let found = found_after_kill(&env, log, options(&dir, true)).await;
        assert_eq!(found, records);
        assert!(!dir.join("shadow").exists(), "SYNC_FLUSH needs none");
    });
}

#[test]
fn a_ring_of_another_length_is_read_once_more_and_made_anew() {
    on_disk(|env, dir| async move {
        let (log, mut records) = begun(&env, &dir, 64 << 10).await;
        records.push(stage(&log, 3, 5000));
        log.commit_next().await;
        let found = found_after_kill(&env, log, shadowed(&dir, 32 << 10)).await;
        assert_eq!(found, records);
        assert_eq!(std::fs::metadata(dir.join("shadow")).unwrap().len(), 32 << 10);
    });
}

#[test]
fn a_damaged_shadow_costs_what_it_alone_had() {
    on_disk(|env, dir| async move {
        let (log, mut records) = begun(&env, &dir, 64 << 10).await;
        for number in 3..6 {
            records.push(stage(&log, number, 1000));
            log.commit_next().await;
        }
        drop(log);
        let path = dir.join("shadow");
        let mut bytes = std::fs::read(&path).unwrap();
        let position = records[4].0.0 as usize % bytes.len();
        bytes[position + 500] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (log, found) = open(&env, shadowed(&dir, 64 << 10), LogPosition(0)).await;
        assert_eq!(found, records[..4]);
        // What is behind the damage never comes back.
        records.truncate(4);
        records.push(stage(&log, 4, 1000));
        log.commit_next().await;
        let found = found_after_kill(&env, log, shadowed(&dir, 64 << 10)).await;
        assert_eq!(found, records);
    });
}

#[test]
fn what_is_much_waits_for_the_log() {
    on_disk(|env, dir| async move {
        let (log, mut records) = begun(&env, &dir, 1 << 20).await;
        records.push(stage(&log, 3, 100_000));
        records.push(stage(&log, 4, 100_000));
        let before = log.committed();
        let writer = log.clone();
        env.spawn(async move { writer.write_behind().await });
        log.commit_next().await;
        assert!(log.committed() > before && log.counters().bytes_shadowed == 0);
        commit_all(&log).await;
        records.push(stage(&log, 5, 100));
        commit_all(&log).await;
        assert!(log.counters().bytes_shadowed > 0 && log.flush().await);
        assert_eq!(log.flushed(), log.staged());
        log.close();
        assert!(matches!(log.commit_next().await, CommitStep::Closed));
        let found = found_after_kill(&env, log, shadowed(&dir, 1 << 20)).await;
        assert_eq!(found, records);
    });
}
