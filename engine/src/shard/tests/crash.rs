//! Crashes at random moments, in the simulator: each acknowledged message is there once, at its offset, byte for
//! byte, and the offsets have no gap.

use std::collections::VecDeque;
use std::time::Duration;

use ringmq_env::sim::{Crash, Sim, SimEnv};

use super::*;

const QUEUES: u32 = 3;
const SEEDS: u64 = 10;

/// What the clients know: the bodies of each queue, in order. Those of `unsure` were sent and not acknowledged.
#[derive(Default)]
struct Clients {
    acknowledged: Vec<Vec<Vec<u8>>>,
    unsure: Vec<Vec<Vec<u8>>>,
    /// Of `acknowledged`, by queue: on the device.
    flushed: Vec<usize>,
    sent: u64,
    closed: bool,
    /// The power failed since the shard was checked.
    power_failed: bool,
}

type Shared = Rc<RefCell<Clients>>;

async fn check(shard: &Shard<SimEnv>, clients: &Shared) {
    for queue in 0..QUEUES {
        let found = whole_queue(shard, "T", queue).await;
        let mut clients = clients.borrow_mut();
        let clients = &mut *clients;
        let queue = queue as usize;
        let sure =
            if clients.power_failed { clients.flushed[queue] } else { clients.acknowledged[queue].len() };
        let mut sent = std::mem::take(&mut clients.acknowledged[queue]);
        sent.append(&mut clients.unsure[queue]);
        assert!(
            sure <= found.len() && found.len() <= sent.len(),
            "{sure} <= {} <= {}",
            found.len(),
            sent.len()
        );
        assert!(found == sent[..found.len()], "queue {queue}");
        clients.flushed[queue] = found.len();
        clients.acknowledged[queue] = found;
    }
    clients.borrow_mut().power_failed = false;
}

/// Takes commits and moves what they acknowledge.
async fn acknowledge(shard: Shard<SimEnv>, clients: Shared, sync_flush: bool) {
    while let Some(commit) = shard.next_commit().await {
        assert_eq!(commit.failed, None);
        let mut clients = clients.borrow_mut();
        for arrival in commit.arrivals {
            let queue = arrival.queue_id.0 as usize;
            assert_eq!(arrival.queue_offset.0 as usize, clients.acknowledged[queue].len());
            let body = clients.unsure[queue].remove(0);
            clients.acknowledged[queue].push(body);
            if sync_flush {
                clients.flushed[queue] += 1;
            }
        }
    }
}

async fn life(env: SimEnv, clients: Shared, sync_flush: bool) {
    let options = ShardOptions {
        segment_size: 64 << 10,
        max_record_size: 20_000,
        ..shard_options(Path::new("/store"), sync_flush)
    };
    let shard = Shard::open(env.clone(), options).await.unwrap();
    check(&shard, &clients).await;
    env.spawn(acknowledge(shard.clone(), Rc::clone(&clients), sync_flush));
    let sends = env.random() % 200;
    for _ in 0..sends {
        let queue = (env.random() % u64::from(QUEUES)) as u32;
        let batch: VecDeque<Vec<u8>> = (0..1 + env.random() % 3)
            .map(|_| {
                let mut clients = clients.borrow_mut();
                clients.sent += 1;
                let size = if env.random().is_multiple_of(9) { 9000 } else { 300 };
                let mut body = vec![0; (env.random() % size) as usize + 8];
                body[..8].copy_from_slice(&clients.sent.to_be_bytes());
                body
            })
            .collect();
        let messages: Vec<_> = batch.iter().map(|body| message("T", queue, body, &[])).collect();
        shard.append(&messages).unwrap();
        clients.borrow_mut().unsure[queue as usize].extend(batch);
        if env.random().is_multiple_of(3) {
            env.sleep(Duration::from_micros(env.random() % 900)).await;
        }
        if env.random().is_multiple_of(50) {
            shard.0.flush_index().await;
        }
    }
    if env.random().is_multiple_of(2) {
        shard.close().await;
        clients.borrow_mut().closed = true;
    }
}

fn survives(seed: u64, sync_flush: bool) -> usize {
    let sim = Sim::new(seed);
    let clients = Clients {
        acknowledged: vec![Vec::new(); QUEUES as usize],
        unsure: vec![Vec::new(); QUEUES as usize],
        flushed: vec![0; QUEUES as usize],
        ..Clients::default()
    };
    let clients: Shared = Rc::new(RefCell::new(clients));
    sim.run(async {
        for _ in 0..6 {
            let env = sim.node("a");
            env.spawn(life(env.clone(), Rc::clone(&clients), sync_flush));
            sim.sleep(Duration::from_micros(sim.random() % 100_000)).await;
            let crash = [Crash::Process, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 3];
            clients.borrow_mut().power_failed |= crash != Crash::Process;
            if std::mem::take(&mut clients.borrow_mut().closed) {
                // A closed shard is on the device.
                let mut clients = clients.borrow_mut();
                clients.flushed = clients.acknowledged.iter().map(Vec::len).collect();
            }
            sim.crash("a", crash);
        }
        let env = sim.node("a");
        life(env, Rc::clone(&clients), sync_flush).await;
    });
    assert!(sim.ended_by("a").is_none());
    let clients = clients.borrow();
    clients.acknowledged.iter().map(Vec::len).sum()
}

#[test]
fn acknowledged_messages_survive_crashes_in_sync_flush() {
    let kept: usize = (0..SEEDS).map(|seed| survives(seed, true)).sum();
    assert!(kept > SEEDS as usize * 50, "{kept} messages in all");
}

#[test]
fn flushed_messages_survive_crashes_in_async_flush() {
    let kept: usize = (0..SEEDS).map(|seed| survives(seed, false)).sum();
    assert!(kept > SEEDS as usize * 50, "{kept} messages in all");
}
