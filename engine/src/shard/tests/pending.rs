//! Waiting records across crashes at random moments, in the simulator: each that was acknowledged is settled once,
//! each at most once, and never before its time.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_env::sim::{Crash, Sim, SimEnv};
use ringmq_protocol::names::topics;
use ringmq_protocol::record::RecordView;

use super::*;

const SEEDS: u64 = 12;

/// What the clients know of the messages, by number.
#[derive(Default)]
struct Clients {
    sent: u64,
    /// Acknowledged, with its due time.
    acknowledged: BTreeMap<u64, i64>,
    /// Seen, committed, as fired.
    fired: BTreeMap<u64, i64>,
}

type Shared = Rc<RefCell<Clients>>;

fn body(number: u64, due_ms: i64) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body[8..].copy_from_slice(&due_ms.to_be_bytes());
    body
}

fn parts(body: &[u8]) -> (u64, i64) {
    (u64::from_be_bytes(body[..8].try_into().unwrap()), i64::from_be_bytes(body[8..].try_into().unwrap()))
}

fn delayed(shard: &Shard<SimEnv>, number: u64, due_ms: i64) -> Appended {
    let body = body(number, due_ms);
    let due = format!("RINGMQ_DUE\u{1}{due_ms}\u{2}");
    shard.append(&[message(topics::TIMER_TOPIC, 0, &body, &[due.as_bytes()])]).unwrap()
}

/// Fires what is due, and now and then puts it off or tries twice.
async fn fire(env: SimEnv, shard: Shard<SimEnv>) {
    while shard.until_pending(PendingKind::Delayed).await {
        let due = shard.due(PendingKind::Delayed, env.wall_ms(), 16).await.unwrap();
        for record in due {
            let bytes = shard.read_pending(&record, env.random().is_multiple_of(2)).await.unwrap().unwrap();
            assert_eq!(PendingRecord::read(record.position, &bytes), Some(record));
            let view = RecordView::decode(&bytes).unwrap();
            let settled = match env.random().is_multiple_of(8) {
                true => {
                    let again = format!("RINGMQ_DUE\u{1}{},{}\u{2}", record.due_ms + 20, record.order);
                    let again = [again.as_bytes()];
                    shard.append_settling(&message(topics::TIMER_TOPIC, 0, view.body, &again), &record)
                }
                false => shard.append_settling(&message("T", 0, view.body, &[]), &record),
            };
            match settled {
                Ok(_) => {
                    let twice = shard.append_settling(&message("T", 0, view.body, &[]), &record);
                    assert!(matches!(twice, Err(SettleError::NotPending { .. })));
                }
                // It is in flight since an earlier look.
                Err(SettleError::NotPending { .. }) => {}
                Err(SettleError::Refused(AppendError::Closed)) => return,
                Err(error) => panic!("{error}"),
            }
        }
        env.sleep(Duration::from_millis(1)).await;
    }
}

async fn check(shard: &Shard<SimEnv>, clients: &Shared) {
    let mut fired = BTreeMap::new();
    for body in whole_queue(shard, "T", 0).await {
        let (number, due_ms) = parts(&body);
        assert!(fired.insert(number, due_ms).is_none(), "{number} fired twice");
    }
    let mut clients = clients.borrow_mut();
    assert!(clients.fired.keys().all(|number| fired.contains_key(number)), "what has fired stays");
    clients.fired = fired;
}

async fn life(env: SimEnv, clients: Shared) {
    let options = ShardOptions {
        segment_size: 64 << 10,
        max_record_size: 20_000,
        ..shard_options(Path::new("/store"), true)
    };
    let shard = Shard::open(env.clone(), options).await.unwrap();
    check(&shard, &clients).await;
    {
        let clients = clients.borrow();
        let waiting = clients.acknowledged.keys().filter(|number| !clients.fired.contains_key(number));
        let count = shard.pending_stats(PendingKind::Delayed).count;
        assert!(count >= waiting.count() as u64, "{count} wait");
    }
    env.spawn(fire(env.clone(), shard.clone()));
    let (follow, acknowledge) = (shard.clone(), Rc::clone(&clients));
    let wall = env.clone();
    env.spawn(async move {
        while let Some(commit) = follow.next_commit().await {
            for arrival in commit.arrivals {
                let queue = request(&arrival.topic, 0, arrival.queue_offset.0);
                let read = follow.read(&queue).await.unwrap();
                let (number, due_ms) = parts(&bodies(&read.parts)[0]);
                let mut clients = acknowledge.borrow_mut();
                if &*arrival.topic == "T" {
                    assert!(
                        arrival.store_timestamp >= due_ms && wall.wall_ms() >= due_ms,
                        "{number} is early"
                    );
                } else {
                    clients.acknowledged.insert(number, due_ms);
                }
            }
        }
    });
    for _ in 0..env.random() % 150 {
        let number = {
            let mut clients = clients.borrow_mut();
            clients.sent += 1;
            clients.sent
        };
        delayed(&shard, number, env.wall_ms() + (env.random() % 120) as i64 - 10);
        if env.random().is_multiple_of(3) {
            env.sleep(Duration::from_micros(env.random() % 3000)).await;
        }
        if env.random().is_multiple_of(20) {
            shard.0.save_pending(true).await;
        }
        if env.random().is_multiple_of(40) {
            shard.0.flush_index().await;
        }
    }
    if env.random().is_multiple_of(3) {
        shard.close().await;
    }
}

async fn settle_all(env: SimEnv, clients: Shared) {
    let options = ShardOptions {
        segment_size: 64 << 10,
        max_record_size: 20_000,
        ..shard_options(Path::new("/store"), true)
    };
    let shard = Shard::open(env.clone(), options).await.unwrap();
    let follow = shard.clone();
    env.spawn(async move { while follow.next_commit().await.is_some() {} });
    env.spawn(fire(env.clone(), shard.clone()));
    while shard.pending_stats(PendingKind::Delayed).count > 0 {
        env.sleep(Duration::from_millis(10)).await;
    }
    check(&shard, &clients).await;
    assert_eq!(shard.oldest_needed(), LogPosition(u64::MAX));
    shard.close().await;
}

#[test]
fn every_acknowledged_record_is_settled_once_across_crashes() {
    let mut settled = 0;
    for seed in 0..SEEDS {
        let sim = Sim::new(seed);
        let clients = Shared::default();
        sim.run(async {
            for _ in 0..6 {
                let env = sim.node("a");
                env.spawn(life(env.clone(), Rc::clone(&clients)));
                sim.sleep(Duration::from_micros(sim.random() % 150_000)).await;
                sim.crash(
                    "a",
                    [Crash::Process, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 3],
                );
            }
            settle_all(sim.node("a"), Rc::clone(&clients)).await;
        });
        assert!(sim.ended_by("a").is_none());
        let clients = clients.borrow();
        assert!(clients.acknowledged.keys().all(|number| clients.fired.contains_key(number)), "seed {seed}");
        settled += clients.acknowledged.len();
    }
    assert!(settled > SEEDS as usize * 50, "{settled} in all");
}

#[test]
fn a_record_waits_again_when_the_disk_had_no_space_for_its_outcome() {
    let sim = Sim::new(21);
    sim.run(async {
        let env = sim.node("a");
        let options =
            ShardOptions { disk_watermark_percent: 100, ..shard_options(Path::new("/store"), true) };
        let shard = Shard::open(env.clone(), options).await.unwrap();
        let due = delayed(&shard, 1, 0);
        committed(&shard, due.end).await;
        let record = shard.due(PendingKind::Delayed, 1, 9).await.unwrap()[0];
        let space = env.disk_space(Path::new("/store")).await.unwrap();
        sim.set_quota("a", Some(space.total - space.available));
        let large = vec![1; 100_000];
        let failed = loop {
            // The segment ends before all of this is in it.
            while shard.stats().log_staged - shard.stats().log_committed < 400_000
                && shard.append(&[message("T", 0, &large, &[])]).is_ok()
            {}
            if let Ok(_settled) = shard.append_settling(&message("T", 0, &large, &[]), &record) {
                assert!(!shard.still_waits(&record).await.unwrap());
            }
            let commit = shard.next_commit().await.unwrap();
            if commit.failed.is_some() {
                break commit;
            }
            assert!(commit.committed < LogPosition(1 << 20), "there was space");
        };
        assert!(matches!(failed.failed, Some(AppendError::DiskFull { .. })));
        assert!(shard.still_waits(&record).await.unwrap());
        let refused = shard.append_settling(&message("T", 0, &large, &[]), &record);
        assert!(matches!(refused, Err(SettleError::Refused(AppendError::DiskFull { .. }))));
        sim.set_quota("a", None);
        while shard.append_settling(&message("T", 0, b"x", &[]), &record).is_err() {
            env.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(shard.pending_stats(PendingKind::Delayed).in_flight, 1);
    });
}
