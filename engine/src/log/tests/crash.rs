//! Crashes at every step, in the simulator: what was acknowledged is there, whole and in place, and nothing else
//! than what was staged.

use std::rc::Rc;
use std::time::Duration;

use ringmq_env::sim::{Crash, Sim, SimEnv};

use super::*;

/// What the log's user knows, across crashes.
#[derive(Default)]
struct Ledger {
    /// Staged in the present life, in log order.
    staged: Vec<Record>,
    /// Of all lives: committed.
    kept: Vec<Record>,
    /// Of `kept`: on the device.
    flushed: usize,
    next: usize,
    /// The power failed since the log was open.
    power_failed: bool,
}

fn sim_options(sync_flush: bool) -> LogOptions {
    LogOptions {
        segment_size: 64 << 10,
        tail_memory: 2 << 20,
        cold_memory: 4 << 20,
        shadow: if sync_flush { 0 } else { 16 << 10 },
        ..options(Path::new("/store/000"), sync_flush)
    }
}

/// Opens the log and checks it against the ledger.
async fn reopen(env: &SimEnv, sync_flush: bool, ledger: &RefCell<Ledger>) -> Log<SimEnv> {
    let (log, found) = open(env, sim_options(sync_flush), LogPosition(0)).await;
    let mut ledger = ledger.borrow_mut();
    let ledger = &mut *ledger;
    let sure = if ledger.power_failed { ledger.flushed } else { ledger.kept.len() };
    assert!(found.len() >= sure, "{} of {sure} records are there", found.len());
    let mut history = std::mem::take(&mut ledger.kept);
    history.append(&mut ledger.staged);
    assert!(found.len() <= history.len() && found[..] == history[..found.len()], "what is there was staged");
    ledger.flushed = found.len();
    ledger.kept = found;
    ledger.power_failed = false;
    log
}

async fn write(env: SimEnv, log: Log<SimEnv>, ledger: Rc<RefCell<Ledger>>) {
    let committer = log.clone();
    let book = Rc::clone(&ledger);
    env.spawn(async move {
        while let CommitStep::Committed(position) = committer.commit_next().await {
            let mut book = book.borrow_mut();
            let committed = book.staged.partition_point(|(at, _)| *at < position);
            let committed: Vec<_> = book.staged.drain(..committed).collect();
            book.kept.extend(committed);
        }
    });
    let flusher = (env.clone(), log.clone(), Rc::clone(&ledger));
    env.spawn(async move {
        let (env, log, ledger) = flusher;
        while log.unflushed().await {
            env.sleep(Duration::from_micros(env.random() % 2000)).await;
            log.flush().await;
            let mut ledger = ledger.borrow_mut();
            ledger.flushed = ledger.kept.partition_point(|(at, _)| *at < log.flushed());
        }
    });
    let writer = log.clone();
    env.spawn(async move { writer.write_behind().await });
    let ahead = log.clone();
    let clock = env.clone();
    env.spawn(async move {
        while ahead.prepare_ahead().await.is_ok() {
            clock.sleep(Duration::from_millis(1)).await;
        }
    });
    loop {
        for _ in 0..env.random() % 4 {
            let mut ledger = ledger.borrow_mut();
            ledger.next += 1;
            let size = 91 + env.random() as usize % if env.random().is_multiple_of(9) { 9000 } else { 500 };
            let record = stage(&log, ledger.next, size);
            ledger.staged.push(record);
        }
        log.kick();
        env.sleep(Duration::from_micros(env.random() % 600)).await;
    }
}

fn survives(seed: u64, sync_flush: bool) -> usize {
    let sim = Sim::new(seed);
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    sim.run(async {
        for _ in 0..6 {
            let env = sim.node("a");
            let (node, book) = (env.clone(), Rc::clone(&ledger));
            env.spawn(async move {
                let log = reopen(&node, sync_flush, &book).await;
                if sync_flush {
                    // Committed is flushed.
                    let mut book = book.borrow_mut();
                    book.flushed = book.kept.len();
                }
                write(node, log, book).await;
            });
            sim.sleep(Duration::from_micros(sim.random() % 60_000)).await;
            if sync_flush {
                let mut book = ledger.borrow_mut();
                book.flushed = book.kept.len();
            }
            let crash = [Crash::Process, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 3];
            ledger.borrow_mut().power_failed |= crash != Crash::Process;
            sim.crash("a", crash);
        }
        let env = sim.node("a");
        reopen(&env, sync_flush, &ledger).await;
    });
    assert!(sim.ended_by("a").is_none());
    ledger.borrow().kept.len()
}

#[test]
fn acknowledged_records_survive_crashes_in_sync_flush() {
    let kept: usize = (0..SEEDS).map(|seed| survives(seed, true)).sum();
    assert!(kept > SEEDS as usize * 50, "{kept} records in all");
}

#[test]
fn flushed_records_survive_crashes_in_async_flush() {
    let kept: usize = (0..SEEDS).map(|seed| survives(seed, false)).sum();
    assert!(kept > SEEDS as usize * 50, "{kept} records in all");
}

const SEEDS: u64 = 12;
