//! The segment that is made ahead of the log.

use super::*;
use crate::log::segment::{NEW_FILE, SegmentRange};

/// Bytes of the records here: more than the pace's step.
const LEN: usize = 40_000;

async fn write<E: Env>(log: &Log<E>, numbers: std::ops::Range<usize>) -> Vec<Record> {
    let mut records = Vec::new();
    for number in numbers {
        records.push(stage(log, number, LEN));
        commit_all(log).await;
    }
    records
}

/// Three records, and the next segment begun.
async fn begin<E: Env>(log: &Log<E>, dir: &Path) -> Vec<Record> {
    let mut records = write(log, 0..1).await;
    log.prepare_ahead().await.unwrap();
    records.extend(write(log, 1..3).await);
    log.prepare_ahead().await.unwrap();
    assert_eq!(state(dir), (true, false));
    records
}

fn second() -> String {
    SegmentRange::first(0, SEGMENT).next(SEGMENT).file_name()
}

/// Whether the next segment is being made, and whether it is.
fn state(dir: &Path) -> (bool, bool) {
    let exists = |name: &str| dir.join("log").join(name).exists();
    (exists(NEW_FILE), exists(&second()))
}

#[test]
fn the_next_segment_is_made_at_the_pace_of_the_log() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert!(!log.is_ahead_due());
        let mut filled = Vec::new();
        for number in 0..6 {
            write(&log, number..number + 1).await;
            log.prepare_ahead().await.unwrap();
            assert!(!log.is_ahead_due(), "what was due is done");
            let next = SegmentRange::first(0, SEGMENT).next(SEGMENT);
            filled.push((log.0.segments.filled(&next) >> 10, state(&dir).1));
        }
        // Steps of 64 KiB, from the first look on, and the rest before the log gets there.
        assert_eq!(filled, [(0, false), (0, false), (64, false), (128, false), (192, false), (0, true)]);
        assert_eq!(state(&dir), (false, true));
    });
}

#[test]
fn the_log_does_not_wait_for_zeroes() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let mut records = begin(&log, &dir).await;
        records.extend(write(&log, 3..10).await);
        assert_eq!(state(&dir), (false, true), "made of what had been begun");
        assert_eq!(log.segments_made(), 2);
        drop(log);
        let (_, found) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, records);
    });
}

#[test]
fn a_file_that_somebody_removed_is_made_anew() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let mut records = begin(&log, &dir).await;
        std::fs::remove_file(dir.join("log").join(NEW_FILE)).unwrap();
        records.extend(write(&log, 3..10).await);
        assert_eq!(state(&dir), (false, true));
        drop(log);
        let (_, found) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, records);
    });
}

#[test]
fn what_was_begun_goes_with_the_log() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        begin(&log, &dir).await;
        let next = SegmentRange::first(0, SEGMENT).next(SEGMENT);
        assert_eq!(log.0.segments.filled(&next), 64 << 10);
        log.close();
        log.abandon_ahead().await;
        assert_eq!(state(&dir), (false, false));
        assert_eq!(log.0.segments.filled(&next), 0);
    });
}

#[test]
fn a_fast_log_has_memory_for_its_next_blocks_and_a_slow_one_has_not() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        write(&log, 0..1).await;
        assert!(log.0.staging.borrow().wants_huge_memory().is_some() && !log.0.getting_memory.get());
        let before = log.tail_memory();
        log.0.pace.set(log.0.pace.get().fast());
        write(&log, 1..2).await;
        assert!(log.0.getting_memory.get());
        while log.0.getting_memory.get() {
            env.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(log.0.staging.borrow().wants_huge_memory(), None);
        assert!(log.tail_memory() > before);
        // Nobody holds the log any longer than that.
        assert_eq!(Rc::strong_count(&log.0), 1);
        shut(log).await;
    });
}
