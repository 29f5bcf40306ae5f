//! The client on a simulated network and clock: partitions, brokers that restart, members that come and go.
//!
//! A failure names its seed; `RINGMQ_SIM_SEED=n` runs that one alone, `RINGMQ_SIM_SEEDS=n` runs more than usual.
#![allow(clippy::unwrap_used)] // helpers of tests

mod broker;
mod net;
mod world;

use std::time::Duration;

use ringmq_client::MessageQueue;
use tokio::time::{Instant, sleep};
use world::{Kind, World};

/// A queue may be without an owner for so long, once faults are over: a member that vanished in a partition is believed
/// for two minutes, and the next rebalance comes within 20 s.
const UNOWNED: Duration = Duration::from_secs(150);

/// Runs a scenario for each seed, on a clock that only moves when nothing else does.
fn each_seed<F: Future<Output = ()>>(scenario: impl Fn(u64) -> F) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("RINGMQ_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGMQ_SIM_SEEDS").unwrap_or(4),
    };
    for seed in seeds {
        eprintln!("seed {seed}");
        fastrand::seed(seed);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(scenario(seed));
    }
}

/// Waits until every queue of the topic has exactly one owner among the members.
async fn owned(world: &World, bound: Duration) {
    let began = Instant::now();
    loop {
        let mut queues: Vec<MessageQueue> = world.queues();
        let held = queues.len();
        queues.sort();
        queues.dedup();
        if (held, queues.len()) == (world.queue_count(), world.queue_count()) {
            return;
        }
        assert!(began.elapsed() < bound, "after {bound:?} {} of {held} queues are owned", queues.len());
        sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn at_least_once_through_partitions_restarts_and_departures() {
    each_seed(|_| async {
        let mut world = World::new(Kind::Concurrent).await;
        world.join().await;
        world.join().await;
        world.send_for(Duration::from_secs(150));
        world.trouble(Duration::from_secs(150), true).await;
        owned(&world, UNOWNED).await;
        world.all_consumed(Duration::from_secs(120)).await;
        world.end().await;
    });
}

#[test]
fn orderly_is_never_out_of_order() {
    each_seed(|_| async {
        let mut world = World::new(Kind::Orderly).await;
        world.join().await;
        world.join().await;
        world.send_for(Duration::from_secs(150));
        world.trouble(Duration::from_secs(150), true).await;
        owned(&world, UNOWNED).await;
        world.all_consumed(Duration::from_secs(120)).await;
        world.end().await;
    });
}

#[test]
fn one_member_at_a_time_while_the_locks_are_kept() {
    each_seed(|_| async {
        let mut world = World::new(Kind::Orderly).await;
        world.exclusive();
        world.join().await;
        world.join().await;
        world.send_for(Duration::from_secs(150));
        world.trouble(Duration::from_secs(150), false).await;
        owned(&world, UNOWNED).await;
        world.all_consumed(Duration::from_secs(120)).await;
        world.end().await;
    });
}

#[test]
fn storms_of_rebalances_settle() {
    each_seed(|_| async {
        let mut world = World::new(Kind::Concurrent).await;
        world.send_for(Duration::from_secs(30));
        for _ in 0..6 {
            world.join().await;
        }
        for _ in 0..20 {
            world.join().await;
            world.leave(fastrand::bool()).await;
            sleep(Duration::from_millis(fastrand::u64(0..800))).await;
        }
        // A member that vanished before its connection was known to be its own is believed for two minutes here too.
        owned(&world, UNOWNED).await;
        world.all_consumed(Duration::from_secs(60)).await;
        world.end().await;
    });
}
