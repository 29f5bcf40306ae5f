use std::time::Duration;

use ringmq_env::sim::{CERTAIN, Crash, DiskFault, DiskOpKind, Fault, Faults, Sim, SimEnv};

use super::*;

async fn opened(env: &SimEnv) -> Shard<SimEnv> {
    let options = ShardOptions { disk_watermark_percent: 100, ..shard_options(Path::new("/store"), true) };
    Shard::open(env.clone(), options).await.unwrap()
}

/// Sends until the disk refuses; returns how many messages were committed.
async fn fill_the_disk(shard: &Shard<SimEnv>) -> (i64, AppendError) {
    loop {
        let end = send(shard, "T", 0, &[1; 30_000]).end;
        loop {
            let commit = shard.next_commit().await.unwrap();
            if let Some(failed) = commit.failed {
                assert!(commit.committed < end);
                return (shard.queue_range("T", QueueId(0)).map_or(0, |range| range.max.0), failed);
            }
            if commit.committed >= end {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_whole_and_heals_by_itself() {
    let sim = Sim::new(11);
    sim.run(async {
        let env = sim.node("a");
        let shard = opened(&env).await;
        let space = env.disk_space(Path::new("/store")).await.unwrap();
        sim.set_quota("a", Some(space.total - space.available + (600 << 10)));
        let (stored, failed) = fill_the_disk(&shard).await;
        assert!(stored > 5 && matches!(failed, AppendError::DiskFull { .. }), "{stored} stored, {failed}");
        let refused = shard.append(&[message("T", 0, b"x", &[])]);
        assert!(matches!(refused, Err(AppendError::DiskFull { .. })));
        assert_eq!(whole_queue(&shard, "T", 0).await.len() as i64, stored, "reads go on");

        sim.set_quota("a", None);
        while shard.append(&[message("T", 0, b"again", &[])]).is_err() {
            env.sleep(Duration::from_millis(100)).await;
        }
        let appended = send(&shard, "T", 0, b"last");
        assert_eq!(appended.first_queue_offset.0, stored + 1, "what was refused took no offset");
        committed(&shard, appended.end).await;
        shard.close().await;
        let shard = opened(&env).await;
        assert_eq!(whole_queue(&shard, "T", 0).await.len() as i64, stored + 2);
        shard.close().await;
    });
}

#[test]
fn a_failed_write_ends_the_node() {
    for kind in [DiskOpKind::Write, DiskOpKind::Sync] {
        let sim = Sim::new(12);
        sim.run(async {
            let env = sim.node("a");
            let node = env.clone();
            env.spawn(async move {
                let mut options = shard_options(Path::new("/store"), false);
                options.segment_size = 64 << 10;
                let shard = Shard::open(node, options).await.unwrap();
                loop {
                    let end = send(&shard, "T", 0, b"message").end;
                    committed(&shard, end).await;
                }
            });
            sim.sleep(Duration::from_millis(50)).await;
            sim.on_disk("a", move |op| match op.kind == kind && op.path.ends_with("tail") {
                true => DiskFault::Fail(std::io::ErrorKind::Other),
                false => DiskFault::None,
            });
            sim.sleep(Duration::from_millis(50)).await;
        });
        assert!(sim.ended_by("a").is_some(), "{kind:?}");
    }
}

#[test]
fn too_much_staged_is_refused_as_busy() {
    let sim = Sim::new(13);
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        let mut last = LogPosition(0);
        let refused = loop {
            match shard.append(&[message("T", 0, &[0; 100_000], &[])]) {
                Ok(appended) => last = appended.end,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, AppendError::Busy { limit, staged } if limit == 1 << 20 && staged < 2 << 20)
        );
        committed(&shard, last).await;
        send(&shard, "T", 0, b"fits again");
        shard.close().await;
    });
}

#[test]
fn what_cannot_be_stored_is_named() {
    let sim = Sim::new(14);
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        let refused = |body: &[u8], properties: &[u8]| {
            shard.append(&[message("T", 0, body, &[properties])]).unwrap_err()
        };
        let limit = 128 << 10;
        assert!(
            matches!(refused(&[0; 128 << 10], b""), AppendError::TooLarge { limit: l, .. } if l == limit)
        );
        let long = vec![b'x'; 40_000];
        assert!(matches!(refused(b"", &long), AppendError::PropertiesTooLarge { size: 40_000, .. }));
        assert_eq!(refused(b"", b"a\x01\xff\x02"), AppendError::PropertiesNotText);
        assert_eq!(send(&shard, "T", 0, b"fine").first_queue_offset.0, 0);
        shard.close().await;
    });
}

#[test]
fn a_damaged_record_is_passed_over_and_counted() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env.clone(), shard_options(&dir, true)).await.unwrap();
        let mut positions = Vec::new();
        for n in 0..10u8 {
            let appended = send(&shard, "T", 0, &[n; 5000]);
            positions.push(appended.physical_offsets[0].position());
            committed(&shard, appended.end).await;
        }
        shard.close().await;
        let path = dir.join("log").join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[positions[4].0 as usize + 300] ^= 4;
        std::fs::write(&path, bytes).unwrap();

        let shard = Shard::open(env, shard_options(&dir, true)).await.unwrap();
        let read = shard.read(&request("T", 0, 0)).await.unwrap();
        assert_eq!((read.messages, read.next_offset.0), (4, 4), "up to the damage");
        let read = shard.read(&request("T", 0, 4)).await.unwrap();
        assert_eq!((read.messages, read.next_offset.0), (5, 10), "behind it");
        assert!(bodies(&read.parts).iter().enumerate().all(|(n, body)| body[0] as usize == n + 5));
        assert!(matches!(shard.record_at(positions[4]).await, Err(ReadError::Damaged { .. })));
        assert!(shard.stats().messages_damaged >= 2);
        shard.close().await;
    });
}

/// Reads the queue while the first `misreads` reads of the disk get a wrong sector; how many messages were found.
async fn read_misreading(sim: &Rc<Sim>, shard: &Shard<SimEnv>, misreads: u64) -> usize {
    let (fate, before) = (Rc::clone(sim), sim.fault_count(Fault::StaleRead));
    sim.set_faults("a", Faults::none().with(Fault::StaleRead, CERTAIN));
    sim.on_disk("a", move |_| {
        if fate.fault_count(Fault::StaleRead) - before >= misreads {
            fate.set_faults("a", Faults::none());
        }
        DiskFault::None
    });
    let found = whole_queue_over_damage(shard).await;
    sim.heal_disk("a");
    sim.set_faults("a", Faults::none());
    assert!(sim.fault_count(Fault::StaleRead) > before);
    found
}

async fn whole_queue_over_damage(shard: &Shard<SimEnv>) -> usize {
    let (mut found, mut offset) = (0, 0);
    while offset < shard.queue_range("T", QueueId(0)).unwrap().max.0 {
        let read = shard.read(&request("T", 0, offset)).await.unwrap();
        found += read.messages;
        offset = read.next_offset.0;
    }
    found
}

/// What a device misreads once is no damage, and what it misreads again stays in no cache.
#[test]
fn what_is_misread_is_read_once_more_and_forgotten() {
    let sim = Rc::new(Sim::new(18));
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        for n in 0..20 {
            committed(&shard, send(&shard, "T", 0, &[n; 5000]).end).await;
        }
        shard.close().await;
        let shard = opened(&sim.node("a")).await;
        assert_eq!(read_misreading(&sim, &shard, 1).await, 20, "read well the second time");
        assert_eq!(shard.damage(), []);
        shard.close().await;

        let shard = opened(&sim.node("a")).await;
        let found = read_misreading(&sim, &shard, u64::MAX).await;
        assert!(found < 20 && !shard.damage().is_empty(), "{found}");
        assert_eq!(whole_queue_over_damage(&shard).await, 20, "the cache has forgotten it");
        shard.close().await;
    });
}

#[test]
fn a_deleted_topic_begins_anew() {
    let sim = Sim::new(19);
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        committed(&shard, send(&shard, "T", 0, b"old").end).await;
        shard.delete_topic("T").await.unwrap();
        assert_eq!(shard.queue_range("T", QueueId(0)), None);
        committed(&shard, send(&shard, "T", 0, b"new").end).await;
        assert_eq!(whole_queue(&shard, "T", 0).await, [b"new"]);
        sim.crash("a", Crash::Process);
        let shard = opened(&sim.node("a")).await;
        assert_eq!(whole_queue(&shard, "T", 0).await, [b"new"]);
        shard.close().await;
    });
}

/// What a device cannot read for a moment is no damage: the newest message lies in the tail journal alone.
#[test]
fn reads_that_fail_for_a_moment_cost_nothing_at_the_start() {
    let sim = Sim::new(15);
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        let end = send(&shard, "T", 0, b"in the partial sector").end;
        committed(&shard, end).await;
        sim.crash("a", Crash::PowerLosingAll);
        let (mut journal, mut log) = (0, 0);
        sim.on_disk("a", move |op| {
            let is_journal = op.path.ends_with("tail");
            let failed = if is_journal { &mut journal } else { &mut log };
            // One of the journal's slots, and one of the log's reads, three times each.
            let fails = op.kind == DiskOpKind::Read && *failed < 3 && (!is_journal || op.offset == 8192);
            *failed += u32::from(fails);
            if fails { DiskFault::Fail(std::io::ErrorKind::Other) } else { DiskFault::None }
        });
        let shard = opened(&sim.node("a")).await;
        assert_eq!(whole_queue(&shard, "T", 0).await, [b"in the partial sector"]);
        assert_eq!(shard.damage(), []);
        shard.close().await;
    });
}

/// A deletion that has no space for its mark happens as a whole or not at all, whatever the index writes meanwhile.
#[test]
fn a_deletion_without_space_is_whole_or_not_at_all() {
    for heals in [false, true] {
        let sim = Sim::new(16);
        sim.run(async {
            let shard = opened(&sim.node("a")).await;
            committed(&shard, send(&shard, "T", 0, b"in a run").end).await;
            assert!(shard.checkpoint().await);
            committed(&shard, send(&shard, "T", 1, b"in memory").end).await;
            sim.on_disk("a", |op| {
                let is_mark = op.path.to_string_lossy().contains("marks") && op.kind == DiskOpKind::Write;
                if is_mark { DiskFault::Fail(std::io::ErrorKind::StorageFull) } else { DiskFault::None }
            });
            assert!(shard.delete_topic("T").await.is_err());
            assert!(!shard.checkpoint().await, "no run without what came back");
            sim.heal_disk("a");
            if heals {
                assert!(shard.checkpoint().await);
            }
            sim.crash("a", Crash::Process);
            let shard = opened(&sim.node("a")).await;
            let found = [whole_queue(&shard, "T", 0).await.len(), whole_queue(&shard, "T", 1).await.len()];
            // The write that had no space may have happened.
            let is_whole = found == [0, 0] || !heals && found == [1, 1];
            assert!(is_whole, "{found:?}, heals: {heals}");
            shard.close().await;
        });
    }
}

/// A segment that a killed process made, and had not synced the directory of, is not on the device yet.
#[test]
fn what_lies_in_a_segment_whose_name_was_not_synced_survives_a_power_failure() {
    let sim = Sim::new(17);
    sim.run(async {
        let shard = opened(&sim.node("a")).await;
        sim.on_disk("a", |op| {
            let is_stuck = op.kind == DiskOpKind::SyncDir && op.path.ends_with("log");
            if is_stuck { DiskFault::Delay(Duration::from_secs(1000)) } else { DiskFault::None }
        });
        send(&shard, "T", 0, b"never committed");
        sim.sleep(Duration::from_millis(500)).await;
        sim.crash("a", Crash::Process);
        sim.heal_disk("a");
        let shard = opened(&sim.node("a")).await;
        let before = whole_queue(&shard, "T", 0).await.len();
        committed(&shard, send(&shard, "T", 0, b"acknowledged").end).await;
        sim.crash("a", Crash::PowerLosingAll);
        let shard = opened(&sim.node("a")).await;
        assert_eq!(whole_queue(&shard, "T", 0).await.len(), before + 1);
        shard.close().await;
    });
}
