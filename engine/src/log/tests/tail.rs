//! Logs whose tail journal has lost slots.

use super::*;
use crate::log::tail_journal::{SLOT_LEN, SLOTS};

/// Log position that a slot of the journal names.
fn position_of(slot: &[u8]) -> u64 {
    u64::from_le_bytes(slot[32..40].try_into().unwrap())
}

/// As a power failure may leave it: the newest slots are torn, and of what they tell of, the end has reached the device,
/// and the beginning has not.
#[test]
fn nothing_behind_a_gap_counts_in_a_log_that_was_not_flushed() {
    on_disk(|env, dir| async move {
        let (log, _) = open(&env, options(&dir, false), LogPosition(0)).await;
        let mut records = fill(&log, 0..19).await;
        // A group so small that it has a slot.
        records.extend(fill(&log, 19..20).await);
        log.flush().await;
        let flushed = log.flushed().0;
        records.extend(fill(&log, 20..400).await);
        assert!(std::fs::read_dir(dir.join("log")).unwrap().count() > 2, "it goes over several segments");
        drop(log);

        let mut tail = std::fs::read(dir.join("tail")).unwrap();
        let slots = tail.chunks_mut(SLOT_LEN).filter(|slot| position_of(slot) != flushed);
        assert_eq!(slots.map(|slot| slot.fill(0)).count(), SLOTS - 1, "one slot is kept");
        std::fs::write(dir.join("tail"), tail).unwrap();
        let path = dir.join("log").join(format!("{:020}.log", 0));
        let mut segment = std::fs::read(&path).unwrap();
        segment[records[30].0.0 as usize..][..100].fill(0);
        std::fs::write(&path, segment).unwrap();

        let (log, found) = open(&env, options(&dir, false), LogPosition(0)).await;
        assert_eq!(found, records[..30]);
        shut(log).await;
    });
}

/// Frames of an epoch that no slot knows any more may lie behind the end of the log for ever.
#[test]
fn an_epoch_that_was_forgotten_is_not_given_again() {
    on_disk(|env, dir| async move {
        let epoch = |log: &Log<GlommioEnv>| log.0.staging.borrow().epoch();
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let records = fill(&log, 0..20).await;
        let tail = std::fs::read(dir.join("tail")).unwrap();
        drop(log);
        let (log, _) = open(&env, options(&dir, true), LogPosition(0)).await;
        let forgotten = epoch(&log);
        fill(&log, 20..40).await;
        drop(log);

        std::fs::write(dir.join("tail"), tail).unwrap();
        let (log, found) = open(&env, options(&dir, true), LogPosition(0)).await;
        assert_eq!(found, records);
        assert!(epoch(&log) > forgotten);
        shut(log).await;
    });
}
