use std::collections::BTreeSet;
use std::path::Path;

use ringmq_env::sim::{DiskFault, DiskOpKind, Sim, SimEnv};

use super::*;

const DIR: &str = "/pending";
const MEMORY_ENTRIES: usize = 1 << 14;

async fn open(env: &SimEnv) -> Pending<SimEnv> {
    let (dir, min, end) = (Path::new(DIR), LogPosition(0), LogPosition(u64::MAX));
    let pending = Pending::open(env.clone(), PendingKind::Delayed, dir, MEMORY_ENTRIES, min, end).await;
    let pending = pending.unwrap();
    pending.recovered();
    pending
}

fn record(due_ms: i64, position: u64) -> PendingRecord {
    let position = LogPosition(position);
    PendingRecord { kind: PendingKind::Delayed, due_ms, order: position.0, position, size: 100, crc: 7 }
}

async fn save(pending: &Pending<SimEnv>, upto: u64) {
    pending.save(pending.snapshot(LogPosition(upto))).await.unwrap();
}

async fn settle(pending: &Pending<SimEnv>, record: &PendingRecord) {
    assert!(pending.still_waits(record).await.unwrap(), "{record:?}");
    assert_eq!(pending.begin_settle(record), Settling::Begun, "{record:?}");
    assert_eq!(pending.begin_settle(record), Settling::NotPending);
    pending.settled(record);
    assert!(!pending.still_waits(record).await.unwrap());
}

async fn drain(pending: &Pending<SimEnv>, now_ms: i64) -> Vec<PendingRecord> {
    let mut drained = Vec::new();
    loop {
        let due = pending.due(now_ms, 1000).await.unwrap();
        if due.is_empty() {
            return drained;
        }
        for record in &due {
            settle(pending, record).await;
        }
        drained.extend(due);
    }
}

#[test]
fn what_is_due_comes_in_order_and_once() {
    let sim = Sim::new(1);
    sim.run(async {
        let pending = open(&sim.node("a")).await;
        let records = [record(50, 1), record(20, 2), record(20, 3), record(80, 4)];
        records.iter().for_each(|record| pending.insert(record));
        assert_eq!(pending.next_due_ms(), Some(20));
        assert_eq!(pending.due(10, 9).await.unwrap(), []);
        assert_eq!(pending.due(50, 2).await.unwrap(), [records[1], records[2]]);
        assert_eq!(drain(&pending, 50).await, [records[1], records[2], records[0]]);
        assert_eq!((pending.count(), pending.next_due_ms()), (1, Some(80)));
        assert_eq!(pending.oldest_position(), LogPosition(4));
    });
}

#[test]
fn what_is_due_by_when_is_counted_as_far_as_memory_knows() {
    let sim = Sim::new(6);
    sim.run(async {
        let pending = open(&sim.node("a")).await;
        [50, 20, 20, 80].iter().zip(1..).for_each(|(due, position)| pending.insert(&record(*due, position)));
        assert_eq!(pending.due_before(&[0, 20, 21, 51, 1000]).await, [0, 0, 2, 3, 4]);
        let more = MEMORY_ENTRIES as u64 + 50_000;
        (5..5 + more).for_each(|position| pending.insert(&record(100 + position as i64, position)));
        assert_eq!(pending.due_before(&[100, i64::MAX]).await, [4, 4 + more]);
        save(&pending, 5 + more).await;
        assert!(pending.in_memory() < more as usize, "the rest is on disk");
        assert_eq!(pending.due_before(&[51, 1000, i64::MAX]).await, [3, 899]);
    });
}

#[test]
fn what_was_dropped_with_its_group_commit_waits_again() {
    let sim = Sim::new(2);
    sim.run(async {
        let pending = open(&sim.node("a")).await;
        let one = record(5, 1);
        pending.insert(&one);
        assert_eq!(pending.begin_settle(&one), Settling::Begun);
        assert_eq!((pending.next_due_ms(), pending.in_flight()), (None, 1));
        pending.unsettle_all();
        assert!(pending.still_waits(&one).await.unwrap());
        assert_eq!(pending.begin_settle(&one), Settling::Begun);
        pending.take_back(&one);
        assert_eq!(drain(&pending, 5).await, [one]);
    });
}

/// Random steps against a set, with many more entries than fit in memory, and openings in between.
#[test]
fn a_table_on_disk_is_the_set_that_it_stands_for() {
    let sim = Sim::new(3);
    sim.run(async {
        let env = sim.node("a");
        let mut model: BTreeSet<(i64, u64)> = BTreeSet::new();
        let mut pending = open(&env).await;
        let (mut position, mut now) = (1, 0);
        for round in 0..40 {
            let inserted = if round == 7 { MEMORY_ENTRIES + 50_000 } else { 5000 };
            for _ in 0..inserted {
                let due = now + (sim.random() % 100_000) as i64 - 50;
                pending.insert(&record(due, position));
                model.insert((due, position));
                position += 1;
            }
            // Some are recalled, near or far.
            for _ in 0..500 {
                let from = now + (sim.random() % 100_000) as i64;
                if let Some(key) = model.range((from, 0)..).next().copied() {
                    settle(&pending, &record(key.0, key.1)).await;
                    model.remove(&key);
                }
            }
            save(&pending, position).await;
            assert!(pending.in_memory() <= MEMORY_ENTRIES);
            now += 3000;
            let drained = drain(&pending, now).await;
            let due: Vec<_> = model.range(..=(now, u64::MAX)).copied().collect();
            assert!(drained.iter().map(|record| (record.due_ms, record.order)).eq(due.iter().copied()));
            model.retain(|key| *key > (now, u64::MAX));
            assert_eq!(pending.count(), model.len() as u64);
            if round % 5 == 4 {
                // What was settled behind the last state is found in the log.
                pending = open(&env).await;
                for (_, settled) in &due {
                    pending.recover(LogPosition(position), Some(*settled), None);
                }
                pending.recovered();
                assert_eq!(pending.count(), model.len() as u64);
                position += 1;
            }
        }
        let runs = env.read_dir(Path::new(DIR)).await.unwrap();
        assert!(runs.len() < 12, "old runs are merged: {runs:?}");
        let rest = drain(&pending, i64::MAX - 1).await;
        assert_eq!(rest.len(), model.len());
        save(&pending, position).await;
        assert_eq!(env.read_dir(Path::new(DIR)).await.unwrap().len(), 1, "only the state is left");
    });
}

/// Nothing tells of a settled record any more once its run was merged, but the run that does not have it.
#[test]
fn what_was_settled_in_a_run_stays_settled_when_it_is_merged() {
    let sim = Sim::new(8);
    sim.run(async {
        let env = sim.node("a");
        let pending = open(&env).await;
        let all: Vec<_> =
            (1..=20_000).map(|position| record(1_000_000 + position as i64, position)).collect();
        all.iter().for_each(|record| pending.insert(record));
        save(&pending, 20_001).await;
        // All of them are on disk, and none in memory; so many are settled that the next state merges their run.
        let pending = open(&env).await;
        let (settled, waiting) = all.split_at(MEMORY_ENTRIES / 4 + 1);
        for record in settled.iter().rev() {
            settle(&pending, record).await;
        }
        save(&pending, 20_002).await;
        assert_eq!(pending.0.state.borrow().gone.len(), 0, "the merged run is without them");
        let pending = open(&env).await;
        for record in settled.iter().step_by(10) {
            assert!(!pending.still_waits(record).await.unwrap(), "{record:?}");
            assert_eq!(pending.begin_settle(record), Settling::NotPending);
        }
        assert_eq!(pending.count(), waiting.len() as u64);
        for record in waiting.iter().rev().step_by(100) {
            settle(&pending, record).await;
        }
    });
}

#[test]
fn a_clock_that_jumps_back_revives_nothing() {
    let sim = Sim::new(4);
    sim.run(async {
        let env = sim.node("a");
        let pending = open(&env).await;
        (1..=100).for_each(|position| pending.insert(&record(position as i64 * 10, position)));
        save(&pending, 101).await;
        assert_eq!(drain(&pending, 500).await.len(), 50);
        save(&pending, 102).await;
        // Due before what has fired already.
        pending.insert(&record(3, 102));
        save(&pending, 103).await;
        let pending = open(&env).await;
        assert_eq!(pending.count(), 51);
        let due: Vec<_> = drain(&pending, 510).await.iter().map(|record| record.due_ms).collect();
        assert_eq!(due, [3, 510]);
    });
}

/// Overwrites four bytes of the file whose name ends so.
async fn damage(env: &SimEnv, ending: &str, at: u64) {
    let files = env.read_dir(Path::new(DIR)).await.unwrap();
    let file = files.iter().find(|file| file.name.ends_with(ending)).unwrap();
    let options = ringmq_env::OpenOptions { write: true, ..Default::default() };
    let file = ringmq_env::Env::open(env, &Path::new(DIR).join(&file.name), options).await.unwrap();
    ringmq_env::File::write_at(&file, ringmq_env::IoSlice::copy_of(&[0xff; 4]), at).await.unwrap();
}

#[test]
fn a_damaged_state_or_run_is_made_anew_from_the_log() {
    for name in ["state", "run"] {
        let sim = Sim::new(5);
        sim.run(async {
            let env = sim.node("a");
            let pending = open(&env).await;
            (1..=10).for_each(|position| pending.insert(&record(position as i64, position)));
            save(&pending, 11).await;
            damage(&env, name, 20).await;
            let pending = open(&env).await;
            assert_eq!((pending.upto(), pending.count()), (LogPosition(0), 0), "{name}");
        });
    }
}

/// What is damaged behind the header shows only once it is read. The log may not be given up until the table was made
/// anew from it, whatever is saved in between.
#[test]
fn a_table_whose_damage_is_found_late_is_not_saved_and_is_made_anew_from_the_log() {
    let sim = Sim::new(8);
    sim.run(async {
        let env = sim.node("a");
        let pending = open(&env).await;
        (1..=10).for_each(|position| pending.insert(&record(position as i64, position)));
        save(&pending, 11).await;
        damage(&env, "run", 4096 + 20).await;

        let pending = open(&env).await;
        assert_eq!((pending.upto(), pending.count()), (LogPosition(11), 10));
        assert_eq!(pending.due(100, 99).await.unwrap(), []);
        pending.insert(&record(100, 11));
        assert!(!pending.is_save_due(true, LogPosition(12)));
        assert_eq!(pending.oldest_position(), LogPosition(1));

        let pending = open(&env).await;
        assert_eq!((pending.upto(), pending.count()), (LogPosition(0), 0), "all is to be scanned");
    });
}

/// The next `most` reads of runs fail.
fn fail_reads(sim: &Sim, most: u32, with: std::io::ErrorKind) {
    let mut left = most;
    sim.on_disk("a", move |op| {
        let is_read = op.kind == DiskOpKind::Read && op.path.extension().is_some_and(|end| end == "run");
        match is_read && left > 0 {
            true => {
                left -= 1;
                DiskFault::Fail(with)
            }
            false => DiskFault::None,
        }
    });
}

/// What the device misreads, or does not read for a moment, costs nothing.
#[test]
fn a_run_that_is_misread_for_a_moment_is_trusted_on() {
    let sim = Sim::new(10);
    sim.run(async {
        let env = sim.node("a");
        let pending = open(&env).await;
        (1..=10).for_each(|position| pending.insert(&record(position as i64, position)));
        save(&pending, 11).await;
        for with in [std::io::ErrorKind::InvalidData, std::io::ErrorKind::Other] {
            fail_reads(&sim, 2, with);
            let pending = open(&env).await;
            fail_reads(&sim, 2, with);
            assert!(pending.still_waits(&record(3, 3)).await.unwrap());
            fail_reads(&sim, 2, with);
            assert_eq!(pending.due(100, 99).await.unwrap().len(), 10, "{with:?}");
            assert!(pending.is_save_due(true, LogPosition(12)), "it is trusted");
        }
    });
}

/// A sector that cannot be read any more is damage as any other: neither does it end the process, nor keep the rest from
/// its time.
#[test]
fn a_run_that_cannot_be_read_any_more_is_damaged() {
    let sim = Sim::new(11);
    sim.run(async {
        let env = sim.node("a");
        let all = |from: u64| (from..from + 5000).map(|position| record(1_000_000, position));
        let pending = open(&env).await;
        all(1).for_each(|record| pending.insert(&record));
        save(&pending, 5001).await;
        let pending = open(&env).await;
        for record in all(1).take(MEMORY_ENTRIES / 4 + 1) {
            settle(&pending, &record).await;
        }
        all(5001).for_each(|record| pending.insert(&record));
        fail_reads(&sim, u32::MAX, std::io::ErrorKind::Other);
        // So much is settled that its run is to be merged.
        save(&pending, 10_001).await;
        assert!(!pending.is_save_due(true, LogPosition(20_000)), "it is distrusted");
        assert_eq!(pending.due(1_000_000, 9999).await.unwrap().len(), 5000, "those in memory are due");

        let pending = open(&env).await;
        assert_eq!((pending.upto(), pending.count()), (LogPosition(0), 0), "all is to be scanned");
    });
}

/// What cannot be read is not said to wait no more, and what can be is found, although loading has passed over all of it.
#[test]
fn what_is_on_disk_in_a_distrusted_table_is_found_or_an_error() {
    let sim = Sim::new(12);
    sim.run(async {
        let env = sim.node("a");
        let pending = open(&env).await;
        let all: Vec<_> = (1..=5000).map(|position| record(position as i64, position)).collect();
        all.iter().for_each(|record| pending.insert(record));
        save(&pending, 5001).await;
        // The last of its blocks.
        damage(&env, "run", 4096 + 39 * 4096 + 20).await;

        let pending = open(&env).await;
        while !pending.0.state.borrow().distrusted {
            drain(&pending, pending.next_due_ms().unwrap()).await;
        }
        let (settled, waiting) = all.split_at(5000 - pending.count() as usize);
        for record in settled {
            assert!(!pending.still_waits(record).await.unwrap(), "{record:?}");
        }
        for record in waiting {
            assert_ne!(pending.still_waits(record).await.ok(), Some(false), "{record:?}");
        }
        settle(&pending, &waiting[0]).await;
        assert!(pending.still_waits(&all[4999]).await.is_err());
        assert_eq!(pending.oldest_position(), LogPosition(1));
    });
}

/// Records come and are settled, or taken back, while snapshots are taken part by part; each, with what the log has
/// behind it, is the table.
#[test]
fn a_snapshot_is_the_table_as_of_its_position_whatever_happens_meanwhile() {
    let sim = Sim::new(7);
    sim.run(async {
        let env = sim.node("a");
        let mut pending = open(&env).await;
        let (mut model, mut position) = (BTreeSet::new(), 1);
        for round in 0..30 {
            for _ in 0..if model.len() < MEMORY_ENTRIES / 2 { 500 } else { 0 } {
                let new = record((sim.random() % 10_000) as i64, position);
                pending.insert(&new);
                model.insert((new.due_ms, position));
                position += 1;
            }
            let some: Vec<_> = model.iter().step_by(97).map(|(due, order)| record(*due, *order)).collect();
            some.iter().for_each(|record| assert_eq!(pending.begin_settle(record), Settling::Begun));
            let snapshot = pending.snapshot(LogPosition(position));
            let (saving, saved) = (pending.clone(), Rc::new(std::cell::Cell::new(false)));
            let done = Rc::clone(&saved);
            env.spawn(async move {
                saving.save(snapshot).await.unwrap();
                done.set(true);
            });
            // What the log has behind the snapshot: where, what is settled, what waits.
            let (mut log, mut in_flight) = (Vec::new(), std::collections::VecDeque::from(some));
            while !saved.get() || !in_flight.is_empty() {
                if (in_flight.len() > 20 || saved.get())
                    && let Some(record) = in_flight.pop_front()
                {
                    if sim.random().is_multiple_of(2) {
                        pending.settled(&record);
                        model.remove(&(record.due_ms, record.order));
                        log.push((position, Some(record.position.0), None));
                    } else {
                        pending.take_back(&record);
                    }
                }
                let from = (sim.random() % 10_000) as i64;
                if let Some(key) = model.range((from, 0)..).next().copied().filter(|_| !saved.get()) {
                    let found = record(key.0, key.1);
                    if pending.begin_settle(&found) == Settling::Begun {
                        in_flight.push_back(found);
                    }
                }
                // All of it fits in memory, so that all that is due is told.
                if model.len() < MEMORY_ENTRIES / 2 {
                    let new = record(from, position + 1);
                    pending.insert(&new);
                    model.insert((from, position + 1));
                    log.push((position + 1, None, Some(new)));
                }
                position += 2;
                ringmq_env::Env::yield_now(&env).await;
            }
            if round % 3 == 2 {
                pending = open(&env).await;
                for (position, settles, waits) in log {
                    pending.recover(LogPosition(position), settles, waits);
                }
                pending.recovered();
            }
            assert_eq!(pending.count(), model.len() as u64, "round {round}");
            let due = pending.due(i64::MAX - 1, usize::MAX).await.unwrap();
            let due = due.iter().map(|record| (record.due_ms, record.order));
            assert!(due.eq(model.iter().copied()), "round {round}");
            let oldest = model.iter().map(|(_, position)| *position).min().unwrap();
            assert!(pending.oldest_position().0 <= oldest, "round {round}");
        }
    });
}
